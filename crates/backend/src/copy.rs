//! A pinned state of the whole database, as the bytes of a file and as rows.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::LogPosition;
use bytes::{Bytes, BytesMut};

use crate::free::PageSet;
use crate::meta::Meta;
use crate::num::{to_count, to_len};
use crate::open::applied;
use crate::page::PageId;
use crate::pages::Pages;
use crate::tree::{Cursor, Root};
use crate::{Bucket, ReadError};

/// Told key and value.
pub type VisitRow<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Told bucket, key and value.
pub type Visit<'a> = dyn FnMut(&str, &[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A pinned state of the whole database, as the bytes of a database file.
///
/// Its pages are not written again while it lives; memory is bounded by what is asked for at once.
/// Pages that the state does not use are zeros.
pub struct Copy {
    pages: Arc<Pages>,
    root: Arc<Root>,
    unused: PageSet,
    position: u64,
}

impl Copy {
    /// A copy of the current state; `unused` are the pages that it does not lead to.
    pub(crate) fn new(pages: Arc<Pages>, root: Arc<Root>, unused: PageSet) -> Self {
        Self { pages, root, unused, position: 0 }
    }

    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.root.high_water * to_count(self.pages.page_bytes)
    }

    /// Whether there is nothing to copy; never, since a database has meta pages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next bytes of the file, at most `bytes_max`; empty at the end. Every byte is checked
    /// against its checksum on the way.
    ///
    /// # Errors
    ///
    /// As [`crate::Backend::get`].
    pub fn read(&mut self, bytes_max: usize) -> Result<Bytes, ReadError> {
        let page_bytes = to_count(self.pages.page_bytes);
        let end = self.len().min(self.position + to_count(bytes_max));
        let mut bytes = BytesMut::with_capacity(to_len(end - self.position));
        while self.position < end {
            let page = self.position / page_bytes;
            let within = to_len(self.position % page_bytes);
            let left = to_len(end - self.position);
            // As many whole pages as fit, if they can be read together.
            let whole = if within == 0 { to_count(left) / page_bytes } else { 0 };
            let count = self.together(page, whole.max(1));
            let start = bytes.len();
            let run = self.run(page, count)?;
            let take = (run.len() - within).min(left);
            bytes.extend_from_slice(&run[within..within + take]);
            self.position += to_count(bytes.len() - start);
        }
        Ok(bytes.freeze())
    }

    /// How many of the next pages are of one sort.
    fn together(&self, first: PageId, count_max: u64) -> u64 {
        if first < 2 {
            return 1;
        }
        let unused = self.unused.contains(first);
        let others =
            (first + 1..first + count_max).take_while(|id| self.unused.contains(*id) == unused);
        1 + to_count(others.count())
    }

    fn run(&self, first: PageId, count: u64) -> Result<Vec<u8>, ReadError> {
        if first < 2 {
            // As bbolt writes copies: page 0 counts, page 1 is the same state one commit earlier.
            let meta = Meta { number: self.root.number - first, ..self.root.meta() };
            let page_bytes = u32::try_from(self.pages.page_bytes).expect("page sizes have 32 bits");
            return Ok(Meta { page_bytes, marked: false, ..meta }.encode(first));
        }
        let mut bytes = vec![0; to_len(count) * self.pages.page_bytes];
        if !self.unused.contains(first) {
            self.pages.fill(first, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// How far the log is applied in it.
    ///
    /// # Errors
    ///
    /// As [`crate::Backend::get`].
    pub fn applied(&self) -> Result<LogPosition, ReadError> {
        applied(&self.pages, &self.root)
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// As [`crate::Backend::get`].
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.root.find(&self.pages, bucket, key)
    }

    /// Visits every key of one bucket in order, until `visit` breaks.
    ///
    /// # Errors
    ///
    /// As [`crate::Backend::get`].
    pub fn scan_bucket(&self, bucket: Bucket, visit: &mut VisitRow<'_>) -> Result<(), ReadError> {
        let Some(tree) = self.root.tree(bucket) else { return Ok(()) };
        let mut cursor = Cursor::seek(&self.pages, self.root.high_water, tree, b"")?;
        while let Some((page, at)) = cursor.here() {
            if visit(page.key(at), page.value(at)).is_break() {
                break;
            }
            cursor.advance()?;
        }
        Ok(())
    }

    /// Visits every key of every bucket in the order of the file, until `visit` breaks.
    ///
    /// # Errors
    ///
    /// As [`crate::Backend::get`].
    pub fn scan(&self, visit: &mut Visit<'_>) -> Result<(), ReadError> {
        scan_all(&self.pages, &self.root, visit)
    }

    /// CRC-32C of all buckets' names, keys and values in the order of the file, without the keys
    /// that `skip` names. etcd: server/storage/backend/backend.go, Hash.
    ///
    /// # Errors
    ///
    /// As [`crate::Backend::get`].
    pub fn hash(&self, skip: &dyn Fn(&str, &[u8]) -> bool) -> Result<u32, ReadError> {
        hash_all(&self.pages, &self.root, skip)
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("len", &self.len()).field("position", &self.position).finish()
    }
}

/// Visits every key of every bucket in the order of the file.
pub(crate) fn scan_all(pages: &Pages, root: &Root, visit: &mut Visit<'_>) -> Result<(), ReadError> {
    for entry in &root.entries {
        let name = String::from_utf8_lossy(&entry.name);
        let mut cursor = Cursor::seek(pages, root.high_water, &entry.tree, b"")?;
        while let Some((page, at)) = cursor.here() {
            if visit(&name, page.key(at), page.value(at)).is_break() {
                return Ok(());
            }
            cursor.advance()?;
        }
    }
    Ok(())
}

/// CRC-32C of all buckets' names, keys and values in the order of the file.
pub(crate) fn hash_all(
    pages: &Pages,
    root: &Root,
    skip: &dyn Fn(&str, &[u8]) -> bool,
) -> Result<u32, ReadError> {
    let mut crc = 0;
    for entry in &root.entries {
        let name = String::from_utf8_lossy(&entry.name);
        crc = crc32c::crc32c_append(crc, &entry.name);
        let mut cursor = Cursor::seek(pages, root.high_water, &entry.tree, b"")?;
        while let Some((page, at)) = cursor.here() {
            if !skip(&name, page.key(at)) {
                crc = crc32c::crc32c_append(crc, page.key(at));
                crc = crc32c::crc32c_append(crc, page.value(at));
            }
            cursor.advance()?;
        }
    }
    Ok(crc)
}
