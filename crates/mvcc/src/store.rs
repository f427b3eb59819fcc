//! The store: opening, writing, reading, compacting, hashing.

use backend::{Backend, Batch};
use base::{KeyRange, LeaseId, LogPosition};
use bytes::Bytes;

use crate::{RangeError, RangeQuery, RangeResult, Row, WatchHub};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows a compaction removes in one step.
    pub compact_batch_rows: usize,
    /// What the ring of recent events may hold for watchers that lag.
    pub event_ring_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { compact_batch_rows: 1000, event_ring_bytes_max: 64 << 20 }
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The backend cannot give the bytes.
    #[error("reading the backend")]
    Backend(#[source] backend::ReadError),
    /// A row of the `key` bucket is not one.
    #[error("row {revision} of the database is damaged: {what}")]
    Damaged {
        /// Its revision, or the raw key in hex.
        revision: String,
        /// What is wrong.
        what: String,
    },
}

/// The writer's half; one owner.
#[derive(Debug)]
pub struct Store;

/// The readers' half; clones share it, any thread may use it.
#[derive(Clone, Debug)]
pub struct Reader;

/// One applied batch of entries: collects rows and other buckets' changes; nothing of it is
/// visible to readers before [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<'a> {
    _store: &'a mut Store,
}

/// One entry's changes: one main revision if there is any, sub revisions in order of execution.
#[derive(Debug)]
pub struct Txn<'w, 'a> {
    _writer: &'w mut Writer<'a>,
}

/// What a key was before a change.
#[derive(Clone, Debug, Default)]
pub struct Previous {
    /// The row that was current, if the key was live; read only when asked for.
    pub row: Option<Row>,
    /// Whether the key was live.
    pub existed: bool,
}

impl Store {
    /// Opens the store over a backend: reads every row's key once and builds the index; a
    /// compaction that was scheduled and not finished is taken up by [`Store::compact_step`].
    ///
    /// # Errors
    ///
    /// The backend's, or a row that is not one.
    pub fn open(_backend: &Backend, _options: &Options) -> Result<Self, OpenError> {
        todo!()
    }

    /// A handle for readers.
    #[must_use]
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// A handle for watchers.
    #[must_use]
    pub fn watch(&self) -> WatchHub {
        todo!()
    }

    /// Begins a batch whose backend changes end at `position` or later.
    pub fn write(&mut self, _position: LogPosition) -> Writer<'_> {
        todo!()
    }

    /// Removes the next rows of a scheduled compaction, as a bounded piece of work, through
    /// batches of upkeep.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub fn compact_step(&mut self) -> Result<CompactStep, backend::ReadError> {
        todo!()
    }
}

/// What a step of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactStep {
    /// Nothing is scheduled.
    Idle,
    /// Rows were removed and there are more.
    More,
    /// The compaction up to this revision is finished and recorded.
    Finished(i64),
}

/// Why a compaction is refused.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Compacted before.
    #[error("revision {requested} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// Asked for.
        requested: i64,
        /// The compact revision.
        oldest: i64,
    },
    /// Not written yet.
    #[error("revision {requested} is not written yet; the newest is {newest}")]
    Future {
        /// Asked for.
        requested: i64,
        /// The store's revision.
        newest: i64,
    },
}

impl<'a> Writer<'a> {
    /// Begins the changes of one entry. Dropping it unfinished is a bug only if it changed
    /// something; changes are kept in order.
    pub fn txn(&mut self) -> Txn<'_, 'a> {
        todo!()
    }

    /// The batch that goes to the backend, for the other buckets' changes of the same entries.
    pub fn batch(&mut self) -> &mut Batch {
        todo!()
    }

    /// The newest main revision, this batch's included.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }

    /// Puts the compaction boundary at `at` (KV-29): readers and hashes treat it as compacted from
    /// when this batch is visible; rows go later in [`Store::compact_step`]. Writes
    /// `scheduledCompactRev`.
    ///
    /// # Errors
    ///
    /// `Compacted` if `at` was compacted before, `Future` if it is not written yet.
    pub fn compact(&mut self, _at: i64) -> Result<(), CompactError> {
        todo!()
    }

    /// Reads as of the end of what this batch holds so far.
    ///
    /// # Errors
    ///
    /// As [`Reader::range`].
    pub fn range(&self, _query: &RangeQuery) -> Result<RangeResult, RangeError> {
        todo!()
    }

    /// Hands the batch to the backend, shows its revisions to readers and its events to watchers.
    /// Every entry up to `position` is in it.
    pub fn finish(self, _position: LogPosition) {
        todo!()
    }
}

impl Txn<'_, '_> {
    /// The main revision this transaction's changes get.
    #[must_use]
    pub fn main(&self) -> i64 {
        todo!()
    }

    /// Sets a key. `want_previous` reads the row before.
    ///
    /// # Errors
    ///
    /// The backend's, only when the previous row is wanted.
    pub fn put(
        &mut self,
        _key: Bytes,
        _value: &Bytes,
        _lease: LeaseId,
        _want_previous: bool,
    ) -> Result<Previous, backend::ReadError> {
        todo!()
    }

    /// Deletes the live keys of a range in byte order, each with its own sub revision; calls
    /// `deleted` with each key (and its row, if wanted).
    ///
    /// # Errors
    ///
    /// The backend's, only when previous rows are wanted.
    pub fn delete_range(
        &mut self,
        _keys: &KeyRange,
        _want_previous: bool,
        _deleted: &mut dyn FnMut(&Bytes, Option<Row>),
    ) -> Result<usize, backend::ReadError> {
        todo!()
    }

    /// Reads, with this transaction's own changes visible when `query.at` is `None`.
    ///
    /// # Errors
    ///
    /// As [`Reader::range`].
    pub fn range(&self, _query: &RangeQuery) -> Result<RangeResult, RangeError> {
        todo!()
    }
}

impl Reader {
    /// The newest revision that readers see; 1 in an empty store.
    #[must_use]
    pub fn revision(&self) -> i64 {
        todo!()
    }

    /// The compact revision; -1 if nothing was ever compacted.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }

    /// Reads rows.
    ///
    /// # Errors
    ///
    /// `Compacted`, `Future`, or the backend's.
    pub fn range(&self, _query: &RangeQuery) -> Result<RangeResult, RangeError> {
        todo!()
    }

    /// etcd's HashKV at a revision (0 is the newest): interop 6.5. Waits for nothing.
    ///
    /// # Errors
    ///
    /// `Compacted`, `Future`, or the backend's.
    pub fn hash(&self, _at: i64) -> Result<Hash, HashError> {
        todo!()
    }

    /// How many live keys there are.
    #[must_use]
    pub fn key_count(&self) -> usize {
        todo!()
    }
}

/// A hash and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// CRC-32C as etcd computes it.
    pub hash: u32,
    /// The compact revision it was computed with; -1 if none.
    pub compact_revision: i64,
    /// The revision it covers.
    pub revision: i64,
    /// The store's newest revision when it was computed.
    pub current: i64,
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// That far back nothing is kept.
    #[error("revision {requested} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// Asked for.
        requested: i64,
        /// The compact revision.
        oldest: i64,
    },
    /// Not written yet.
    #[error("revision {requested} is not written yet; the newest is {newest}")]
    Future {
        /// Asked for.
        requested: i64,
        /// The store's revision.
        newest: i64,
    },
    /// The backend cannot give the bytes.
    #[error("reading the backend")]
    Backend(#[source] backend::ReadError),
}
