//! Opening, reading and committing. This first engine keeps everything in memory; the page engine
//! takes its place behind the same interface.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use base::LogPosition;
use bytes::Bytes;
use parking_lot::RwLock;
use vfs::Dir;

use crate::{Batch, Bucket};

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the page cache may hold.
    pub cache_bytes_max: usize,
    /// Page size of a new file; an existing file keeps its own.
    pub page_bytes: usize,
    /// How long to wait for another process to release the file; `None` for ever.
    pub lock_timeout: Option<Duration>,
    /// Whether commits sync; `false` only for `--unsafe-no-fsync`.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes_max: 32 << 20,
            page_bytes: 4096,
            lock_timeout: Some(Duration::from_secs(10)),
            sync: true,
        }
    }
}

/// Why a database does not open. Texts name the file, the page and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file.
    #[error("database {file} is locked by another process; stop it, or use another data directory")]
    Locked {
        /// The file.
        file: String,
    },
    /// The file is not whole.
    #[error("database {file} is damaged at page {page}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// The page.
        page: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("opening database {file}")]
    Io {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a read failed: the world's fault, never "not found".
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A page does not match its checksum or its structure; its bytes are not served.
    #[error("page {page} of the database is damaged: {what}")]
    Damaged {
        /// The page.
        page: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("reading page {page} of the database")]
    Io {
        /// The page.
        page: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No space: nothing is lost or half done; the changes stay in memory and a later commit takes
    /// them.
    #[error("no space left for the database")]
    NoSpace(#[source] io::Error),
    /// A write or sync failed; the backend refuses everything from now on.
    #[error("committing the database")]
    Io(#[source] io::Error),
    /// A page needed for the commit is damaged.
    #[error("committing the database")]
    Read(#[source] ReadError),
}

/// What a whole-file check found first.
#[derive(Debug, thiserror::Error)]
#[error("page {page}: {what}")]
pub struct CheckError {
    /// The page.
    pub page: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commit {
    /// How far the log is applied in the durable file; the log may be released up to the last mark
    /// at or below it.
    pub durable: LogPosition,
    /// Keys changed.
    pub changes: usize,
    /// Pages written.
    pub pages: usize,
}

/// Sizes in bytes, as status and metrics report them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Allocated: high-water mark times page size; the base of the quota.
    pub total: u64,
    /// Allocated and not free.
    pub in_use: u64,
}

/// The database: one writer, any number of readers; clones share it.
#[derive(Clone, Debug)]
pub struct Backend {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<(Bucket, Bytes), Bytes>,
    applied: LogPosition,
    pending: usize,
}

impl Backend {
    /// Opens `name` in `dir`, or makes it with its ten empty buckets.
    ///
    /// # Errors
    ///
    /// The file is locked, damaged, or cannot be read or made.
    pub fn open(_dir: &Arc<dyn Dir>, _name: &str, _options: &Options) -> Result<Self, OpenError> {
        Ok(Self { inner: Arc::default() })
    }

    /// Makes the changes visible to readers, all at once. Durable after the next commit.
    pub fn apply(&self, batch: Batch) {
        let mut inner = self.inner.write();
        if let Some(position) = batch.position() {
            inner.applied = position;
        }
        inner.pending += batch.len();
        for (key, value) in batch.changes {
            match value {
                Some(value) => inner.rows.insert(key, value),
                None => inner.rows.remove(&key),
            };
        }
    }

    /// How far the log is applied, as readers see it; zero in a new database.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.inner.read().applied
    }

    /// How far the log is applied in the durable file.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        self.inner.read().applied
    }

    /// Number of changes that the next commit will write.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.inner.read().pending
    }

    /// The value of a key, shared with the page it lies in.
    ///
    /// # Errors
    ///
    /// The page is damaged or cannot be read.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.inner.read().rows.get(&(bucket, Bytes::copy_from_slice(key))).cloned())
    }

    /// Values of many keys of one bucket, in the order asked; cheaper than one by one, most of all
    /// when neighbours are asked for one behind the other.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn get_many(
        &self,
        bucket: Bucket,
        keys: &mut dyn Iterator<Item = [u8; 17]>,
        found: &mut dyn FnMut(Option<Bytes>),
    ) -> Result<(), ReadError> {
        for key in keys {
            found(self.get(bucket, &key)?);
        }
        Ok(())
    }

    /// Visits keys from `from` (inclusive) to `to` (exclusive; `None` to the end) in order, as they
    /// are now, until `visit` breaks. Changes made meanwhile may or may not be seen.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let inner = self.inner.read();
        let start = Bound::Included((bucket, Bytes::copy_from_slice(from)));
        for ((at, key), value) in inner.rows.range((start, Bound::Unbounded)) {
            if *at != bucket || to.is_some_and(|to| to <= &key[..]) {
                break;
            }
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Writes all changes applied so far, makes them durable, then makes them the file's state.
    /// Readers and [`Backend::apply`] go on meanwhile. One caller at a time; others wait.
    ///
    /// # Errors
    ///
    /// `NoSpace` may be tried again; after any other the backend is done for.
    pub fn commit(&self) -> Result<Commit, CommitError> {
        let mut inner = self.inner.write();
        let changes = std::mem::take(&mut inner.pending);
        Ok(Commit { durable: inner.applied, changes, pages: 0 })
    }

    /// Commits, then pins that state for a consistent copy while writing goes on.
    ///
    /// # Errors
    ///
    /// As [`Backend::commit`].
    pub fn copy(&self) -> Result<Copy, CommitError> {
        self.commit()?;
        Ok(Copy { image: Bytes::new() })
    }

    /// Allocated and used bytes.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let inner = self.inner.read();
        let bytes = inner.rows.iter().map(|((_, key), value)| (key.len() + value.len()) as u64);
        let total = bytes.sum();
        Sizes { total, in_use: total }
    }

    /// Moves the highest pages into free ones lower down and gives the end of the file back, as a
    /// bounded amount of work; `true` if more can be done. Never stops readers or writers.
    ///
    /// # Errors
    ///
    /// As [`Backend::commit`].
    pub fn shrink_step(&self) -> Result<bool, CommitError> {
        Ok(false)
    }

    /// Verifies every page, reference, order and checksum of the file.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }
}

/// Told bucket, key and value.
pub type Visit<'a> = dyn FnMut(&str, &[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A pinned state of the whole database, as the bytes of a database file.
#[derive(Debug)]
pub struct Copy {
    image: Bytes,
}

impl Copy {
    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.image.len() as u64
    }

    /// Whether there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.image.is_empty()
    }

    /// The next bytes of the file, at most `bytes_max`; empty at the end. Every byte is checked
    /// against its checksum on the way.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn read(&mut self, bytes_max: usize) -> Result<Bytes, ReadError> {
        let end = bytes_max.min(self.image.len());
        Ok(self.image.split_to(end))
    }

    /// Visits every key of every bucket in the order of the file, until `visit` breaks.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn scan(&self, _visit: &mut Visit<'_>) -> Result<(), ReadError> {
        Ok(())
    }
}
