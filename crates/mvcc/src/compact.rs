//! Compaction: forgetting superseded rows in bounded steps.
//!
//! A boundary is set by [`crate::Writer::compact`] and counts from then on. What is superseded goes
//! later, in two phases: first the index forgets it, some leaves at a time, and tells which rows
//! these are; then the rows go from the backend in ascending order, so that a crash leaves a whole
//! tail of every key's history and the next start can begin again.
//!
//! At most one boundary waits behind the one being worked on: a later one does the work of those
//! before it.
//!
//! Source: etcd: server/storage/mvcc/kvstore_compaction.go, kvstore.go (marks, hashes).

use std::ops::ControlFlow;

use backend::{Batch, Bucket, ReadError};
use base::Revision;
use bytes::Bytes;

use crate::hash::{Hasher, keep_hash};
use crate::index::{Stamp, Swept};
use crate::row::{self, FINISHED_COMPACT};
use crate::{Hash, Store};

/// What a step of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactStep {
    /// Nothing is scheduled.
    Idle,
    /// Work was done, or had to wait for a hash that is being computed, and there is more.
    More,
    /// The compaction up to this revision is finished and recorded, and with it every one before.
    Finished(i64),
}

/// Keys that the index passes for one row that a step may remove: most keys have nothing to
/// forget, and passing them costs little.
const KEYS_PER_ROW: usize = 16;

/// A boundary whose rows are still there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scheduled {
    pub(crate) at: i64,
    /// The boundary before.
    pub(crate) previous: i64,
    /// Whether the compaction before was finished when this one was scheduled: only then do the
    /// rows hash to what other members get.
    pub(crate) follows_whole: bool,
}

/// Compactions to be done.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    running: Option<Job>,
    next: Option<Scheduled>,
    removed: Removed,
}

/// What compactions removed since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rows.
    pub rows: u64,
    /// Batches of rows that were looked at; even an empty one ends a compaction.
    pub batches: u64,
}

/// The compaction being done.
#[derive(Debug)]
struct Job {
    scheduled: Scheduled,
    phase: Phase,
    swept: Swept,
}

#[derive(Debug)]
enum Phase {
    /// The index is walked; the next key.
    Sweep(Vec<u8>),
    /// Rows are hashed and removed on the way; the next row's name.
    HashAndRemove(Hasher, [u8; 17]),
    /// Rows are removed.
    Remove,
}

impl Jobs {
    pub(crate) fn new(unfinished: Option<Scheduled>) -> Self {
        Self { running: None, next: unfinished, removed: Removed::default() }
    }

    pub(crate) fn schedule(&mut self, at: i64, previous: i64) {
        let follows_whole = self.running.is_none() && self.next.is_none();
        if !follows_whole {
            base::probe::reached("mvcc: a compaction is asked for while another one runs");
        }
        self.next = Some(Scheduled { at, previous, follows_whole });
    }

    fn take(&mut self) -> Option<Job> {
        self.running.take().or_else(|| {
            self.next.take().map(|scheduled| Job {
                scheduled,
                phase: Phase::Sweep(Vec::new()),
                swept: Swept::default(),
            })
        })
    }
}

impl Store {
    /// Removes the next rows of a scheduled compaction, as a bounded piece of work, through
    /// batches of upkeep.
    ///
    /// # Errors
    ///
    /// The backend's; the step can be made again.
    pub fn compact_step(&mut self) -> Result<CompactStep, ReadError> {
        let Some(mut job) = self.jobs.take() else { return Ok(CompactStep::Idle) };
        let mut removed = self.jobs.removed;
        let step = self.advance(&mut job, &mut removed);
        self.jobs.removed = removed;
        if !matches!(step, Ok(CompactStep::Finished(_))) {
            self.jobs.running = Some(job);
        }
        step
    }

    /// What compactions removed since the store was opened.
    #[must_use]
    pub fn removed(&self) -> Removed {
        self.jobs.removed
    }

    fn advance(&self, job: &mut Job, removed: &mut Removed) -> Result<CompactStep, ReadError> {
        let at = job.scheduled.at;
        let finished = match &mut job.phase {
            Phase::Sweep(from) => {
                let keys = self.options.compact_batch_rows.saturating_mul(KEYS_PER_ROW);
                let mut tables = self.shared.tables.write();
                let at =
                    at + i64::from(base::probe::mutant("compaction-takes-one-revision-too-many"));
                match tables.index.compact(at, from, keys, &mut job.swept) {
                    Some(next) => *from = next,
                    None => job.begin_removal(self.options.compact_hash),
                }
                return Ok(CompactStep::More);
            }
            Phase::HashAndRemove(..) | Phase::Remove => {
                // A hash in progress needs the rows: come back later rather than make writers wait.
                let Some(_guard) = self.shared.removal.try_write() else {
                    return Ok(CompactStep::More);
                };
                self.remove_rows(job, removed)?
            }
        };
        if !finished {
            return Ok(CompactStep::More);
        }
        if let Phase::HashAndRemove(hasher, _) = &job.phase {
            let Scheduled { at, previous, .. } = job.scheduled;
            let current = self.shared.revision();
            let hash =
                Hash { hash: hasher.sum(), compact_revision: previous, revision: at, current };
            keep_hash(&mut self.shared.hashes.lock(), hash);
        }
        Ok(CompactStep::Finished(at))
    }

    /// Removes one batch of rows; with the last one goes the mark, and `true` is returned.
    fn remove_rows(&self, job: &mut Job, removed: &mut Removed) -> Result<bool, ReadError> {
        base::probe::failpoint("compactAfterAcquiredBatchTxLock");
        let rows_max = self.options.compact_batch_rows.max(1);
        let mut batch = Batch::upkeep();
        let mut rows = 0;
        let finished = match &mut job.phase {
            Phase::HashAndRemove(hasher, from) => {
                let next = hash_rows(self, job.scheduled, rows_max, hasher, from, |key, stamp| {
                    let dropped = job.swept.dropped.contains(&stamp);
                    if dropped {
                        batch.delete(Bucket::Key, key);
                        rows += 1;
                    }
                    !dropped
                })?;
                if let Some(next) = next {
                    *from = next;
                }
                next.is_none()
            }
            Phase::Remove | Phase::Sweep(_) => {
                let mut name = [0; 18];
                for _ in 0..rows_max {
                    let Some(stamp) = job.swept.dropped.pop_first() else { break };
                    batch.delete(Bucket::Key, row::row_key(stamp, &mut name));
                    rows += 1;
                }
                job.swept.dropped.is_empty()
            }
        };
        base::probe::reached("mvcc: compacted rows are removed");
        let (before, after) = if finished {
            ("compactBeforeSetFinishedCompact", "compactAfterSetFinishedCompact")
        } else {
            ("compactBeforeCommitBatch", "compactAfterCommitBatch")
        };
        base::probe::failpoint(before);
        if finished {
            let mark = row::from_main(job.scheduled.at);
            batch.put(Bucket::Meta, FINISHED_COMPACT, Bytes::copy_from_slice(&mark));
        }
        self.shared.backend().apply(batch);
        removed.rows += rows;
        removed.batches += 1;
        base::probe::failpoint(after);
        Ok(finished)
    }
}

impl Job {
    fn begin_removal(&mut self, compact_hash: bool) {
        let Scheduled { previous, follows_whole, .. } = self.scheduled;
        self.phase = if compact_hash && follows_whole {
            Phase::HashAndRemove(Hasher::new(previous, self.swept.any_kept), row::from_main(0))
        } else {
            Phase::Remove
        };
    }
}

/// Hashes up to `rows_max` rows from `from` on and gives the name to go on with, `None` at the end
/// of the compaction. `pass` says of each row whether it is kept.
fn hash_rows(
    store: &Store,
    scheduled: Scheduled,
    rows_max: usize,
    hasher: &mut Hasher,
    from: &[u8],
    mut pass: impl FnMut(&[u8], Stamp) -> bool,
) -> Result<Option<[u8; 17]>, ReadError> {
    let mut rows = 0;
    let mut next = None;
    // What is hashed twice gives another sum: only a whole piece counts.
    let mut piece = hasher.clone();
    let to = row::from_main(scheduled.at + 1);
    store.shared.backend().scan(Bucket::Key, from, Some(&to), &mut |key, value| {
        let stamp = row::parse_row_key(key).expect("rows were checked when the store was opened");
        piece.add(stamp, key, value, pass(key, stamp));
        rows += 1;
        if rows < rows_max {
            return ControlFlow::Continue(());
        }
        let Revision { main, sub } = stamp.revision();
        next = Some(row::revision_key(Revision { main, sub: sub + 1 }));
        ControlFlow::Break(())
    })?;
    *hasher = piece;
    Ok(next)
}
