//! Changes that become visible, and later durable, together.

use std::collections::BTreeMap;

use base::LogPosition;
use bytes::Bytes;

use crate::Bucket;

/// A set of changes. The last change of a key counts.
///
/// There are two ways to make one: [`Batch::applied`] for the effects of log entries, which always
/// carries how far the log is applied, and [`Batch::upkeep`] for work that no entry asked for
/// (removing compacted rows), which cannot touch the applied index.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) changes: BTreeMap<(Bucket, Bytes), Option<Bytes>>,
    applied: Option<LogPosition>,
}

impl Batch {
    /// For the effects of entries; [`Batch::set_applied`] must be called before it is handed over.
    #[must_use]
    pub fn applied(position: LogPosition) -> Self {
        Self { changes: BTreeMap::new(), applied: Some(position) }
    }

    /// For changes that no entry asked for.
    #[must_use]
    pub fn upkeep() -> Self {
        Self::default()
    }

    /// Moves the applied position forward: the batch now holds every effect up to there.
    ///
    /// # Panics
    ///
    /// If the position goes back, or the batch is one of upkeep.
    pub fn set_applied(&mut self, position: LogPosition) {
        let before = self.applied.expect("a batch of upkeep has no applied position");
        assert!(before.index <= position.index, "applied goes back: {before:?} to {position:?}");
        self.applied = Some(position);
    }

    /// How far the log is applied once this batch is.
    #[must_use]
    pub fn position(&self) -> Option<LogPosition> {
        self.applied
    }

    /// Sets a key.
    pub fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes) {
        self.changes.insert((bucket, Bytes::copy_from_slice(key)), Some(value));
    }

    /// Removes a key; no matter if it does not exist.
    pub fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        self.changes.insert((bucket, Bytes::copy_from_slice(key)), None);
    }

    /// What this batch says of a key: `None` nothing, `Some(None)` removed.
    #[must_use]
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<Option<Bytes>> {
        self.changes.get(&(bucket, Bytes::copy_from_slice(key))).cloned()
    }

    /// Number of changed keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing is changed, not even the applied position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.applied.is_none()
    }
}
