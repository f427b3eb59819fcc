//! Sorted keys in little memory: what all of them begin with is stored once, the rest lies in one
//! run of bytes.
//!
//! Not a tree: leaves and inner nodes of the tree use it for their keys.
//!
//! Invariants: keys are strictly ascending; `heads`, `ends` are as long as there are keys; `ends`
//! ascends and its last is the length of `suffixes`; `heads[i]` is the first four bytes of suffix
//! `i`, so that most comparisons of a search never leave that array.

use std::cmp::Ordering;

/// Keys of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedKeys {
    prefix: Box<[u8]>,
    heads: Vec<u32>,
    ends: Vec<u32>,
    suffixes: Vec<u8>,
}

impl PackedKeys {
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Bytes of keys, the common beginning counted once.
    pub(super) fn key_bytes(&self) -> usize {
        self.prefix.len() + self.suffixes.len()
    }

    /// What the keys take in memory, unused room included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.prefix.len()
            + 4 * (self.heads.capacity() + self.ends.capacity())
            + self.suffixes.capacity()
    }

    /// Where the key is, or where it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(suffix) = key.strip_prefix(&self.prefix[..]) else {
            return Err(if key < &self.prefix[..] { 0 } else { self.len() });
        };
        let head = head(suffix);
        let low = self.heads.partition_point(|other| *other < head);
        let same = self.heads[low..].partition_point(|other| *other == head);
        let (mut from, mut to) = (low, low + same);
        while from < to {
            let middle = usize::midpoint(from, to);
            match self.suffix(middle).cmp(suffix) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    /// Position of the first key that is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        match self.find(key) {
            Ok(at) | Err(at) => at,
        }
    }

    /// Number of keys at or below `key`: the child of an inner node that a key belongs to.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        match self.find(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// Writes key `at` over `key`.
    pub(super) fn read(&self, at: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(self.suffix(at));
    }

    /// Key `at`.
    pub(super) fn key(&self, at: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + self.suffix(at).len());
        self.read(at, &mut key);
        key
    }

    /// Puts a key at the place that [`PackedKeys::find`] gave for it.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        if self.heads.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            self.shorten_prefix(common_len(&self.prefix, key));
        }
        let suffix = &key[self.prefix.len()..];
        let start = self.start(at);
        let old_len = self.suffixes.len();
        reserve(&mut self.suffixes, suffix.len());
        self.suffixes.resize(old_len + suffix.len(), 0);
        self.suffixes.copy_within(start..old_len, start + suffix.len());
        self.suffixes[start..start + suffix.len()].copy_from_slice(suffix);
        let added = offset(suffix.len());
        for end in &mut self.ends[at..] {
            *end += added;
        }
        reserve(&mut self.ends, 1);
        reserve(&mut self.heads, 1);
        self.ends.insert(at, offset(start) + added);
        self.heads.insert(at, head(suffix));
    }

    /// A copy of the keys `from..to`, with the longest common beginning they have.
    pub(super) fn slice(&self, from: usize, to: usize) -> Self {
        self.only((from..to).collect::<Vec<_>>().as_slice())
    }

    /// A copy of the keys at these ascending positions, with the longest common beginning.
    pub(super) fn only(&self, positions: &[usize]) -> Self {
        let (Some(first), Some(last)) = (positions.first(), positions.last()) else {
            return Self::default();
        };
        // Keys ascend, so what the first and the last share, all share.
        let shared = common_len(self.suffix(*first), self.suffix(*last));
        let mut prefix = self.prefix.to_vec();
        prefix.extend_from_slice(&self.suffix(*first)[..shared]);
        let bytes = positions.iter().map(|at| self.suffix(*at).len() - shared).sum();
        let mut keys = Self {
            prefix: prefix.into(),
            heads: Vec::with_capacity(positions.len()),
            ends: Vec::with_capacity(positions.len()),
            suffixes: Vec::with_capacity(bytes),
        };
        for at in positions {
            keys.push_suffix(&self.suffix(*at)[shared..]);
        }
        keys
    }

    /// Puts the keys of `other`, all of them above ours, behind ours.
    pub(super) fn append(&mut self, other: &Self) {
        if self.heads.is_empty() {
            self.clone_from(other);
            return;
        }
        if other.heads.is_empty() {
            return;
        }
        let shared = common_len(&self.prefix, &other.prefix);
        self.shorten_prefix(shared);
        let mut suffix = Vec::new();
        for at in 0..other.len() {
            suffix.clear();
            suffix.extend_from_slice(&other.prefix[shared..]);
            suffix.extend_from_slice(other.suffix(at));
            self.push_suffix(&suffix);
        }
    }

    /// The shortest key that is above the last of ours and not above the first of `right`.
    pub(super) fn separator(&self, right: &Self) -> Vec<u8> {
        let mut separator = right.key(0);
        let last = self.key(self.len() - 1);
        separator.truncate(common_len(&separator, &last) + 1);
        separator
    }

    fn push_suffix(&mut self, suffix: &[u8]) {
        self.suffixes.extend_from_slice(suffix);
        self.ends.push(offset(self.suffixes.len()));
        self.heads.push(head(suffix));
    }

    fn shorten_prefix(&mut self, len: usize) {
        if len == self.prefix.len() {
            return;
        }
        let moved = self.prefix[len..].to_vec();
        let old = std::mem::take(self);
        self.prefix = old.prefix[..len].into();
        self.suffixes.reserve_exact(old.suffixes.len() + old.len() * moved.len());
        self.heads.reserve_exact(old.heads.capacity());
        self.ends.reserve_exact(old.ends.capacity());
        for at in 0..old.len() {
            self.suffixes.extend_from_slice(&moved);
            self.suffixes.extend_from_slice(old.suffix(at));
            let start = self.start(at);
            self.ends.push(offset(self.suffixes.len()));
            self.heads.push(head(&self.suffixes[start..]));
        }
    }

    fn suffix(&self, at: usize) -> &[u8] {
        &self.suffixes[self.start(at)..self.ends[at] as usize]
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

/// Makes room in small steps: doubling would leave a third of the index unused.
pub(super) fn reserve<T>(items: &mut Vec<T>, more: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.max(items.len() / 8).max(8));
    }
}

fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first four bytes, missing ones as zero: orders as the bytes do, or calls them equal.
fn head(suffix: &[u8]) -> u32 {
    let mut first = [0; 4];
    let len = suffix.len().min(4);
    first[..len].copy_from_slice(&suffix[..len]);
    u32::from_be_bytes(first)
}

fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("keys of one node are below 4 GiB")
}
