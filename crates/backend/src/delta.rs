//! Changes that are visible but not in the file yet.
//!
//! There are at most two: the active one, to which batches are added, and the frozen one, which a
//! commit is writing. Readers ask the active, then the frozen, then the pages.

use base::LogPosition;
use bytes::Bytes;

use crate::rows::{Change, RowKey, Rows};
use crate::{Batch, Bucket};

/// Key of the applied index in bucket `meta`. etcd: server/storage/schema/meta.go.
pub(crate) const APPLIED_INDEX_KEY: &[u8] = b"consistent_index";
/// Key of the term of the entry at the applied index.
pub(crate) const APPLIED_TERM_KEY: &[u8] = b"term";

/// Rows by bucket, and how far the log is applied with them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delta {
    rows: [Rows; Bucket::ALL.len()],
    applied: Option<LogPosition>,
}

impl Delta {
    /// Adds a batch.
    pub(crate) fn apply(&mut self, batch: Batch) {
        let changes_auth = !batch.rows[Bucket::Auth as usize].is_empty();
        if !(changes_auth && base::probe::mutant("auth-is-ahead-of-its-index")) {
            self.applied = batch.position().or(self.applied);
        }
        for (rows, later) in self.rows.iter_mut().zip(batch.rows) {
            rows.merge(later);
        }
    }

    /// Puts a later delta over this one.
    pub(crate) fn merge(&mut self, later: Self) {
        self.applied = later.applied.or(self.applied);
        for (rows, later) in self.rows.iter_mut().zip(later.rows) {
            rows.merge(later);
        }
    }

    /// Writes the applied position into the rows, where the file keeps it: in the same commit as
    /// the changes that it stands for, whoever made them (reliability G4).
    pub(crate) fn seal(&mut self) {
        if let Some(position) = self.applied {
            let rows = &mut self.rows[Bucket::Meta as usize];
            let mut set = |key: &[u8], value: u64| {
                let value = Bytes::copy_from_slice(&value.to_be_bytes());
                rows.set(RowKey::new(key), Some(value));
            };
            let behind = u64::from(base::probe::mutant("applied-index-lags-behind-its-rows"));
            set(APPLIED_INDEX_KEY, position.index.0.saturating_sub(behind));
            set(APPLIED_TERM_KEY, position.term.0);
        }
    }

    /// How far the log is applied with this delta, if it says so.
    pub(crate) fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// What it says of a key.
    pub(crate) fn get(&self, bucket: Bucket, key: &[u8]) -> Option<&Change> {
        self.rows[bucket as usize].get(key)
    }

    /// The changes of one bucket.
    pub(crate) fn rows(&self, bucket: Bucket) -> &Rows {
        &self.rows[bucket as usize]
    }

    /// Number of changed keys.
    pub(crate) fn len(&self) -> usize {
        self.rows.iter().map(Rows::len).sum()
    }

    /// Whether a commit would have nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.applied.is_none() && self.rows.iter().all(Rows::is_empty)
    }
}
