//! Changes that become visible, and later durable, together.

use base::LogPosition;
use bytes::Bytes;

use crate::Bucket;
use crate::rows::{RowKey, Rows};

/// A set of changes. The last change of a key counts.
///
/// There are two ways to make one: [`Batch::applied`] for the effects of log entries, which always
/// carries how far the log is applied, and [`Batch::upkeep`] for work that no entry asked for
/// (removing compacted rows), which cannot touch the applied index.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) rows: [Rows; Bucket::ALL.len()],
    applied: Option<LogPosition>,
}

impl Batch {
    /// For the effects of entries; [`Batch::set_applied`] must be called before it is handed over.
    #[must_use]
    pub fn applied(position: LogPosition) -> Self {
        Self { applied: Some(position), ..Self::default() }
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

    /// Sets a key. Keys that ascend within a bucket are the cheapest.
    ///
    /// # Panics
    ///
    /// If the key is empty or longer than 32,768 bytes, or the value is longer than 2 GiB: the file
    /// cannot hold it.
    pub fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes) {
        /// bbolt: MaxKeySize.
        const KEY_BYTES_MAX: usize = 32_768;
        /// bbolt: MaxValueSize.
        const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
        assert!(!key.is_empty(), "an empty key in bucket {}", bucket.name());
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes, over {KEY_BYTES_MAX}", key.len());
        let len = value.len();
        assert!(len <= VALUE_BYTES_MAX, "a value of {len} bytes, over {VALUE_BYTES_MAX}");
        self.rows[bucket as usize].set(RowKey::new(key), Some(value));
    }

    /// Removes a key; no matter if it does not exist.
    pub fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        self.rows[bucket as usize].set(RowKey::new(key), None);
    }

    /// What this batch says of a key: `None` nothing, `Some(None)` removed.
    #[must_use]
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows[bucket as usize].get(key).cloned()
    }

    /// Number of changed keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.iter().map(Rows::len).sum()
    }

    /// Whether nothing is changed, not even the applied position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.applied.is_none()
    }
}
