//! The store: opening it, and what its writer and its readers share.
//!
//! Invariants:
//! - index, revision and compact revision change only under the write lock of [`Tables`], which a
//!   [`crate::Writer`] holds from its first change until its revision is published: who holds the
//!   read lock sees all three agree;
//! - rows of a published revision are in the backend; rows are removed only below a published
//!   compact revision.
//!
//! Source: etcd: server/storage/mvcc/kvstore.go (what opening reads, how revisions are recovered).

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use backend::{Backend, Bucket};
use base::LogPosition;
use parking_lot::{Mutex, RwLock};

use crate::compact::{Jobs, Scheduled};
use crate::index::{Change, Index, Stamp};
use crate::row::{self, FINISHED_COMPACT, Head, SCHEDULED_COMPACT};
use crate::watch::Hub;
use crate::{Hash, Reader, WatchHub, Writer};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows a compaction removes in one step.
    pub compact_batch_rows: usize,
    /// Whether a compaction hashes the rows it passes, for members to compare. It then reads every
    /// row up to its boundary, else only the rows' names.
    pub compact_hash: bool,
    /// What the ring of recent events may hold for watchers that lag.
    pub event_ring_bytes_max: usize,
    /// Answers with events are split from this size on, for watches that want that (W-09).
    pub watch_answer_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compact_batch_rows: 1000,
            compact_hash: true,
            event_ring_bytes_max: 64 << 20,
            // etcd's default of the request limit, and what it adds for the frame around.
            watch_answer_bytes_max: (1536 + 512) << 10,
        }
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The backend cannot give the bytes.
    #[error("reading the backend")]
    Backend(#[source] backend::ReadError),
    /// Rows that the index needs: without them nobody can say which value of a key is the newest.
    #[error("reading the rows behind revision {behind}, up to which all are whole")]
    Rows {
        /// The newest main revision before them, 0 if there is none.
        behind: i64,
        /// The page that cannot be read.
        #[source]
        source: backend::ReadError,
    },
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
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Jobs,
    pub(crate) options: Options,
}

/// What the writer, readers and watchers share.
pub(crate) struct Shared {
    pub(crate) tables: RwLock<Tables>,
    revision: AtomicI64,
    compact: AtomicI64,
    /// Held shared by who reads rows that a compaction may remove meanwhile and cannot start again.
    pub(crate) removal: RwLock<()>,
    /// Whether a received state waits to take the place of this one: who reads for long gives way.
    pub(crate) restoring: AtomicBool,
    /// What compactions hashed, the last few, by revision.
    pub(crate) hashes: Mutex<Vec<Hash>>,
    pub(crate) hub: Hub,
}

/// The index and the backend that its rows are in.
pub(crate) struct Tables {
    pub(crate) index: Index,
    pub(crate) backend: Backend,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("revision", &self.revision())
            .field("compact_revision", &self.compact_revision())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("keys", &self.index.len()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn compact_revision(&self) -> i64 {
        self.compact.load(Ordering::Acquire)
    }

    /// Shows a new state. The caller holds the write lock of `tables`.
    pub(crate) fn publish(&self, revision: i64, compact: i64) {
        self.revision.store(revision, Ordering::Release);
        self.compact.store(compact, Ordering::Release);
    }

    pub(crate) fn backend(&self) -> Backend {
        self.tables.read().backend.clone()
    }
}

impl Store {
    /// Opens the store over a backend: reads every row's key once and builds the index; a
    /// compaction that was scheduled and not finished is taken up by [`Store::compact_step`].
    ///
    /// # Errors
    ///
    /// The backend's, or a row that is not one.
    pub fn open(backend: &Backend, options: &Options) -> Result<Self, OpenError> {
        let Loaded { index, revision, compact, unfinished } = Loaded::read(backend)?;
        let shared = Shared {
            tables: RwLock::new(Tables { index, backend: backend.clone() }),
            revision: AtomicI64::new(revision),
            compact: AtomicI64::new(compact),
            removal: RwLock::default(),
            restoring: AtomicBool::new(false),
            hashes: Mutex::default(),
            hub: Hub::new(revision, options),
        };
        let jobs = Jobs::new(unfinished);
        Ok(Self { shared: Arc::new(shared), jobs, options: options.clone() })
    }

    /// Puts what a received backend holds, opened as `next`, in the place of this state. `replace`
    /// makes that backend this store's own, under the same handle; from its return on readers see
    /// all of it. Readers and watch streams stay: watches go on behind what they delivered last.
    ///
    /// # Errors
    ///
    /// Those of `replace`; the member must stop then, readers may be refused what they asked for.
    ///
    /// # Panics
    ///
    /// If anybody holds a reader of `next`.
    pub fn restore<E>(
        &mut self,
        next: Self,
        replace: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { shared: next, jobs, options: _ } = next;
        let (revision, compact) = (next.revision(), next.compact_revision());
        let Ok(Shared { tables: next, .. }) = Arc::try_unwrap(next) else {
            panic!("a store that comes in has no readers");
        };
        let index = next.into_inner().index;
        {
            // Who hashes rows gives way, and begins again in the new state.
            self.shared.restoring.store(true, Ordering::Relaxed);
            let _no_hash = self.shared.removal.write();
            self.shared.restoring.store(false, Ordering::Relaxed);
            let mut tables = self.shared.tables.write();
            // Before rows go: who is reading old ones must find out.
            let current = self.shared.revision();
            self.shared.publish(current, compact.max(self.shared.compact_revision()));
            replace()?;
            tables.index = index;
            self.shared.publish(revision, compact);
            self.shared.hashes.lock().clear();
        }
        self.jobs = jobs;
        self.shared.hub.restore(revision);
        Ok(())
    }

    /// A handle for readers.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// A handle for watchers.
    #[must_use]
    pub fn watch(&self) -> WatchHub {
        WatchHub { shared: Arc::clone(&self.shared) }
    }

    /// Begins a batch whose backend changes end at `position` or later. Readers wait from here
    /// until it is finished or dropped.
    pub fn write(&mut self, position: LogPosition) -> Writer<'_> {
        Writer::new(&self.shared, &mut self.jobs, position)
    }
}

/// What a backend holds.
struct Loaded {
    index: Index,
    revision: i64,
    compact: i64,
    unfinished: Option<Scheduled>,
}

impl Loaded {
    fn read(backend: &Backend) -> Result<Self, OpenError> {
        let finished = mark(backend, FINISHED_COMPACT)?;
        let scheduled = mark(backend, SCHEDULED_COMPACT)?.unwrap_or(-1);
        let (index, last) = build_index(backend)?;
        let mut compact = finished.unwrap_or(-1);
        let unfinished = (compact < scheduled).then_some(Scheduled {
            at: scheduled,
            previous: compact,
            // Rows may be gone already: what is left does not hash to what others have.
            follows_whole: false,
        });
        // Everything at the end may have been deleted and compacted away: the marks then are the
        // newest that is known, and a revision must never be given twice.
        if unfinished.is_some() {
            base::probe::reached("mvcc: a start takes up an unfinished compaction");
        }
        compact = compact.max(unfinished.map_or(compact, |job| job.at));
        let revision = last.max(compact).max(1);
        Ok(Self { index, revision, compact, unfinished })
    }
}

fn mark(backend: &Backend, name: &[u8]) -> Result<Option<i64>, OpenError> {
    let Some(mark) = backend.get(Bucket::Meta, name).map_err(OpenError::Backend)? else {
        return Ok(None);
    };
    let stamp = row::parse_row_key(&mark);
    stamp.map(|stamp| Some(stamp.main())).ok_or_else(|| OpenError::Damaged {
        revision: String::from_utf8_lossy(name).into_owned(),
        what: format!("{mark:x?} is no revision"),
    })
}

/// Reads all rows and gives the index of them and the newest main revision, 0 if there is no row.
fn build_index(backend: &Backend) -> Result<(Index, i64), OpenError> {
    let mut index = Index::default();
    let mut run = Run::default();
    let mut last = 0;
    let mut damaged = None;
    let scanned = backend.scan(Bucket::Key, &[], None, &mut |key, value| {
        let row = row::parse_row_key(key).ok_or("no revision names it");
        let row = row.and_then(|stamp| {
            Ok((stamp, Head::parse(value).ok_or("its value is no key-value message")?))
        });
        match row {
            Ok((stamp, head)) => {
                last = stamp.main();
                run.push(stamp, &head);
                if run.is_full() {
                    run.move_into(&mut index);
                }
                ControlFlow::Continue(())
            }
            Err(what) => {
                let what = what.to_owned();
                damaged = Some(OpenError::Damaged { revision: format!("{key:x?}"), what });
                ControlFlow::Break(())
            }
        }
    });
    scanned.map_err(|source| OpenError::Rows { behind: last, source })?;
    run.move_into(&mut index);
    damaged.map_or(Ok((index, last)), Err)
}

/// Rows that are sorted by key before they enter the index: neighbours then find their leaf in the
/// processor's cache, which halves the time of opening a large store.
#[derive(Default)]
struct Run {
    /// The keys, copied: a key alone would hold on to the page that its row lies in.
    keys: Vec<u8>,
    rows: Vec<(Range<usize>, Stamp, Change)>,
}

impl Run {
    const ROWS_MAX: usize = 1 << 16;
    const BYTES_MAX: usize = 4 << 20;

    fn push(&mut self, stamp: Stamp, head: &Head) {
        let start = self.keys.len();
        self.keys.extend_from_slice(&head.key);
        let change = if stamp.is_deletion() {
            Change::Delete
        } else {
            Change::Restore { create: head.create, version: head.version }
        };
        self.rows.push((start..self.keys.len(), stamp, change));
    }

    fn is_full(&self) -> bool {
        Self::ROWS_MAX <= self.rows.len() || Self::BYTES_MAX <= self.keys.len()
    }

    /// Empties the run; rows of one key go in their order.
    fn move_into(&mut self, index: &mut Index) {
        let Self { keys, rows } = self;
        rows.sort_unstable_by(|(a, a_stamp, _), (b, b_stamp, _)| {
            (&keys[a.clone()], a_stamp).cmp(&(&keys[b.clone()], b_stamp))
        });
        for (key, stamp, change) in rows.drain(..) {
            index.change(&keys[key], stamp, change);
        }
        keys.clear();
    }
}
