//! Changed rows of one bucket, in memory.
//!
//! Rows of the `key` bucket arrive in ascending order, so most of them are appended to a vector;
//! what arrives out of order goes to a tree beside it. Keys of revisions (17 and 18 bytes) are kept
//! in place, without an allocation each.
//!
//! Invariants: the vector ascends; no key is in both; every key of the tree is below the vector's
//! last.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;

/// What is kept in place: with its length it fits beside the field by which a `Bytes` is told apart.
const IN_PLACE_MAX: usize = 22;

const _: () = assert!(size_of::<RowKey>() == 32, "a key takes as much as a `Bytes`");

/// A key.
#[derive(Clone)]
pub(crate) enum RowKey {
    /// Up to 22 bytes: the length and the bytes, zeros behind them.
    InPlace(u8, [u8; IN_PLACE_MAX]),
    /// Longer.
    Shared(Bytes),
}

impl RowKey {
    /// A copy of these bytes.
    pub(crate) fn new(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(len) if key.len() <= IN_PLACE_MAX => {
                let mut bytes = [0; IN_PLACE_MAX];
                bytes[..key.len()].copy_from_slice(key);
                Self::InPlace(len, bytes)
            }
            Ok(_) | Err(_) => Self::Shared(Bytes::copy_from_slice(key)),
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(len, bytes) => &bytes[..usize::from(*len)],
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to be kept by others.
    pub(crate) fn to_shared(&self) -> Bytes {
        match self {
            Self::InPlace(..) => Bytes::copy_from_slice(self.bytes()),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Bytes::copy_from_slice(self.bytes()))
    }
}

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

/// The new value of a row, or that it is removed.
pub(crate) type Change = Option<Bytes>;

/// Changes by key; the last change of a key counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    ascending: Vec<(RowKey, Change)>,
    scattered: BTreeMap<RowKey, Change>,
}

impl Rows {
    /// Sets what happens to a key.
    pub(crate) fn set(&mut self, key: RowKey, change: Change) {
        if self.ascending.last().is_none_or(|(last, _)| *last < key) {
            self.ascending.push((key, change));
            return;
        }
        match self.position(key.bytes()) {
            Ok(at) => self.ascending[at].1 = change,
            Err(_) => drop(self.scattered.insert(key, change)),
        }
    }

    /// What happens to a key, if anything.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Change> {
        match self.position(key) {
            Ok(at) => Some(&self.ascending[at].1),
            Err(_) if self.scattered.is_empty() => None,
            Err(_) => self.scattered.get(key),
        }
    }

    /// Number of changed keys.
    pub(crate) fn len(&self) -> usize {
        self.ascending.len() + self.scattered.len()
    }

    /// Whether nothing is changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.ascending.is_empty()
    }

    /// Puts later changes over these.
    pub(crate) fn merge(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
            return;
        }
        for (key, change) in later.scattered.into_iter().chain(later.ascending) {
            self.set(key, change);
        }
    }

    /// Changes from a key on, in order of keys.
    pub(crate) fn from<'a>(&'a self, key: &[u8]) -> Ascending<'a> {
        let start = self.position(key).unwrap_or_else(|above| above);
        let scattered = self.scattered.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
        Ascending { ascending: &self.ascending[start..], scattered, held: None }
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        // Most look-ups are for the newest rows or for rows before all of these.
        match self.ascending.last() {
            None => return Err(0),
            Some((last, _)) if last.bytes() < key => return Err(self.ascending.len()),
            Some(_) => {}
        }
        self.ascending.binary_search_by(|(at, _)| at.bytes().cmp(key))
    }
}

/// Changes in order of keys.
pub(crate) struct Ascending<'a> {
    ascending: &'a [(RowKey, Change)],
    scattered: btree_map::Range<'a, RowKey, Change>,
    held: Option<(&'a RowKey, &'a Change)>,
}

impl<'a> Iterator for Ascending<'a> {
    type Item = (&'a RowKey, &'a Change);

    fn next(&mut self) -> Option<Self::Item> {
        if self.held.is_none() {
            self.held = self.scattered.next();
        }
        match (self.ascending.split_first(), self.held) {
            (Some(((key, change), rest)), held) if held.is_none_or(|held| key < held.0) => {
                self.ascending = rest;
                Some((key, change))
            }
            _ => self.held.take(),
        }
    }
}
