//! Writing: one batch of entries, one transaction for each entry that may change something.
//!
//! A [`Writer`] holds the index from its beginning to its end, so that readers see all of a batch
//! or nothing. Rows of the batch are found in the batch, older ones in the backend.
//!
//! Source: etcd: server/storage/mvcc/kvstore_txn.go (revisions, create revision, version).

use std::ops::ControlFlow;

use backend::{Batch, Bucket, ReadError};
use base::{KeyRange, LeaseId, LogPosition, Revision};
use bytes::Bytes;
use parking_lot::RwLockWriteGuard;

use crate::compact::Jobs;
use crate::index::{Change, Stamp};
use crate::read::{self, Rows, Selected};
use crate::row::{self, Fields, SCHEDULED_COMPACT};
use crate::store::{Shared, Tables};
use crate::watch::{Event, Kind};
use crate::{QueryError, RangeQuery, RangeResult, RevisionError, Row};

/// One applied batch of entries: collects rows and other buckets' changes; nothing of it is
/// visible to readers before [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<'a> {
    shared: &'a Shared,
    jobs: &'a mut Jobs,
    tables: RwLockWriteGuard<'a, Tables>,
    batch: Batch,
    /// Rows above it are in the batch, all others in the backend.
    published: i64,
    revision: i64,
    compact: i64,
    /// Boundaries that this batch sets, ascending.
    compactions: Vec<i64>,
    events: Vec<Event>,
    unfinished: Unfinished,
}

/// One entry's changes: one main revision if there is any, sub revisions in order of execution.
#[derive(Debug)]
pub struct Txn<'w, 'a> {
    writer: &'w mut Writer<'a>,
    main: i64,
    next_sub: i64,
}

/// What a key was before a change.
#[derive(Clone, Debug, Default)]
pub struct Previous {
    /// The row that was current, if the key was live; read only when asked for.
    pub row: Option<Row>,
    /// Whether the key was live.
    pub existed: bool,
}

/// Stops who forgets to finish a batch: the index would have rows that the backend has not.
#[derive(Debug, Default)]
struct Unfinished {
    changed: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        assert!(!self.changed || std::thread::panicking(), "a changed batch was not finished");
    }
}

impl<'a> Writer<'a> {
    pub(crate) fn new(shared: &'a Shared, jobs: &'a mut Jobs, position: LogPosition) -> Self {
        let tables = shared.tables.write();
        let revision = shared.revision();
        Self {
            shared,
            jobs,
            tables,
            batch: Batch::applied(position),
            published: revision,
            revision,
            compact: shared.compact_revision(),
            compactions: Vec::new(),
            events: Vec::new(),
            unfinished: Unfinished::default(),
        }
    }

    /// Begins the changes of one entry. Dropping it unfinished is a bug only if it changed
    /// something; changes are kept in order.
    pub fn txn(&mut self) -> Txn<'_, 'a> {
        let main = self.revision + 1;
        Txn { writer: self, main, next_sub: 0 }
    }

    /// The batch that goes to the backend, for the other buckets' changes of the same entries.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// The newest main revision, this batch's included.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Puts the compaction boundary at `at` (KV-29): readers and hashes treat it as compacted from
    /// when this batch is visible; rows go later in [`crate::Store::compact_step`]. Writes
    /// `scheduledCompactRev`.
    ///
    /// # Errors
    ///
    /// `Compacted` if `at` was compacted before, `Future` if it is not written yet.
    pub fn compact(&mut self, at: i64) -> Result<(), RevisionError> {
        if at <= self.compact {
            return Err(RevisionError::Compacted { requested: at, oldest: self.compact });
        }
        if self.revision < at {
            return Err(RevisionError::Future { requested: at, newest: self.revision });
        }
        self.unfinished.changed = true;
        self.compact = at;
        self.compactions.push(at);
        let mark = row::from_main(at);
        base::probe::failpoint("compactBeforeCommitScheduledCompact");
        self.batch.put(Bucket::Meta, SCHEDULED_COMPACT, Bytes::copy_from_slice(&mark));
        base::probe::failpoint("compactAfterCommitScheduledCompact");
        Ok(())
    }

    /// Reads as of the end of what this batch holds so far.
    ///
    /// # Errors
    ///
    /// As [`crate::Reader::range`].
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError> {
        let at = read::resolve(query.at, self.revision, self.compact)?;
        let selected = Selected::find(&self.tables.index, query, at);
        let rows = match selected.what {
            Rows::Ready(rows) => rows,
            Rows::Stored(stamps) => {
                let rows = stamps.iter().map(|stamp| self.row(*stamp));
                rows.collect::<Result<_, _>>().map_err(QueryError::Backend)?
            }
        };
        Ok(RangeResult { rows, count: selected.count, revision: self.revision })
    }

    /// Hands the batch to the backend, shows its revisions to readers and its events to watchers.
    /// Every entry up to `position` is in it.
    pub fn finish(self, position: LogPosition) {
        let Self { shared, jobs, tables, mut batch, mut unfinished, .. } = self;
        unfinished.changed = false;
        batch.set_applied(position);
        tables.backend.apply(batch);
        let mut previous = shared.compact_revision();
        shared.publish(self.revision, self.compact);
        drop(tables);
        for at in self.compactions {
            jobs.schedule(at, previous);
            previous = at;
        }
        shared.hub.publish(self.revision, self.events);
    }

    /// Drops the batch although it changed something. The index keeps rows that the backend never
    /// gets: only for a member that halts.
    pub fn abandon(mut self) {
        self.unfinished.changed = false;
    }

    fn row(&self, stamp: Stamp) -> Result<Row, ReadError> {
        let key = row::revision_key(stamp.revision());
        let row = if self.published < stamp.main() {
            self.batch.get(Bucket::Key, &key).flatten()
        } else {
            self.tables.backend.get(Bucket::Key, &key)?
        };
        // Rows are removed by the writer's own steps only, and not while it writes.
        Ok(Row(row.unwrap_or_else(|| panic!("row {} is not stored", stamp.revision()))))
    }
}

impl Txn<'_, '_> {
    /// The main revision this transaction's changes get.
    #[must_use]
    pub fn main(&self) -> i64 {
        self.main
    }

    /// Sets a key. `want_previous` reads the row before.
    ///
    /// # Errors
    ///
    /// The backend's, only when the previous row is wanted.
    ///
    /// # Panics
    ///
    /// If the transaction has 2^31 changes.
    pub fn put(
        &mut self,
        key: Bytes,
        value: &Bytes,
        lease: LeaseId,
        want_previous: bool,
    ) -> Result<Previous, ReadError> {
        let row = if want_previous { self.live_row(&key)? } else { None };
        let stamp = self.next_stamp(false);
        let changed = self.writer.tables.index.change(&key, stamp, Change::Put);
        let after = changed.after.expect("a key that was put is live");
        let fields = Fields {
            key: &key,
            create: after.create,
            modified: self.main,
            version: after.version,
            value,
            lease: lease.0,
        };
        let (event, stored) = fields.event_and_row();
        self.writer.batch.put(Bucket::Key, &row::revision_key(stamp.revision()), stored);
        let kind = if after.version == 1 { Kind::Create } else { Kind::Modify };
        self.writer.events.push(Event::new(self.main, key, kind, event));
        Ok(Previous { row, existed: changed.before.is_some() })
    }

    /// Deletes the live keys of a range in byte order, each with its own sub revision; calls
    /// `deleted` with each key (and its row, if wanted).
    ///
    /// # Errors
    ///
    /// The backend's, only when previous rows are wanted; then nothing is deleted.
    ///
    /// # Panics
    ///
    /// If the transaction has 2^31 changes.
    pub fn delete_range(
        &mut self,
        keys: &KeyRange,
        want_previous: bool,
        deleted: &mut dyn FnMut(&Bytes, Option<Row>),
    ) -> Result<usize, ReadError> {
        let mut doomed = Vec::new();
        let walked = self.writer.tables.index.visit(keys, None, &mut |key, found| {
            doomed.push((Bytes::copy_from_slice(key), found.stamp, None));
            ControlFlow::Continue(())
        });
        assert!(walked.is_continue(), "nothing breaks this walk off");
        if want_previous {
            for (_, stamp, row) in &mut doomed {
                *row = Some(self.writer.row(*stamp)?);
            }
        }
        let count = doomed.len();
        for (key, _, row) in doomed {
            self.delete(&key);
            deleted(&key, row);
        }
        Ok(count)
    }

    /// Reads, with this transaction's own changes visible when `query.at` is `None`.
    ///
    /// # Errors
    ///
    /// As [`crate::Reader::range`].
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError> {
        self.writer.range(query)
    }

    fn delete(&mut self, key: &Bytes) {
        let stamp = self.next_stamp(true);
        let changed = self.writer.tables.index.change(key, stamp, Change::Delete);
        assert!(changed.before.is_some(), "deleted {key:?}, which is not live");
        let stored = Fields { key, ..Fields::default() }.row();
        let mut name = [0; 18];
        self.writer.batch.put(Bucket::Key, row::row_key(stamp, &mut name), stored);
        let event = row::delete_event(key, self.main);
        self.writer.events.push(Event::new(self.main, key.clone(), Kind::Delete, event));
    }

    fn live_row(&self, key: &[u8]) -> Result<Option<Row>, ReadError> {
        let found = self.writer.tables.index.get(key, None);
        found.map(|found| self.writer.row(found.stamp)).transpose()
    }

    /// The next change's revision; from the first one on the store has this transaction's.
    fn next_stamp(&mut self, deletion: bool) -> Stamp {
        let revision = Revision { main: self.main, sub: self.next_sub };
        self.next_sub += 1;
        self.writer.revision = self.main;
        self.writer.unfinished.changed = true;
        Stamp::new(revision, deletion)
    }
}
