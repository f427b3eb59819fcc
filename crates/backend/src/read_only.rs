//! A database file that nobody writes: a snapshot, or that of a stopped member.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use base::LogPosition;
use bytes::Bytes;
use vfs::{Dir, File, Lock, Open};

use crate::cache::Cache;
use crate::copy::{Visit, hash_all, scan_all};
use crate::db::Sizes;
use crate::meta::{Meta, Metas};
use crate::num::{to_count, to_len};
use crate::open::{applied, find_metas, lock, verify_length};
use crate::pages::Pages;
use crate::sums::{Checksums, Found, SumFile};
use crate::tree::{Cursor, Root};
use crate::walk::{inspect, survey};
use crate::{Bucket, CheckError, OpenError, ReadError};

/// Enough for the branches of any file and the leaf that is being read.
const CACHE_BYTES_MAX: usize = 8 << 20;

/// A database file opened for reading, with `flock` shared. Whatever follows the last page, like
/// the digest of a snapshot file, is ignored. No byte of it is trusted: what is wrong is an error.
pub struct ReadOnly {
    pages: Pages,
    root: Root,
    meta: Meta,
    checksums: Checksums,
}

impl ReadOnly {
    /// Opens a file; `name` is for messages.
    ///
    /// # Errors
    ///
    /// `Locked` if a server has it open; `Damaged` if the meta pages or the buckets cannot be read.
    pub fn open(file: Arc<dyn File>, name: &str) -> Result<Self, OpenError> {
        Self::open_with(file, name, None)
    }

    /// As [`ReadOnly::open`], with the folder of checksums and the database's name there, see
    /// [`sums_beside`](crate::sums_beside): if they speak of this state, no byte that changed since
    /// is read unnoticed.
    ///
    /// # Errors
    ///
    /// As [`ReadOnly::open`].
    pub fn open_with(
        file: Arc<dyn File>,
        name: &str,
        sums: Option<(&dyn Dir, &str)>,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { file: name.to_owned(), source };
        let read = |error: ReadError| error.while_opening(name);
        if !lock(&*file, Lock::WholeFileShared, Some(Duration::ZERO)).map_err(io)? {
            return Err(OpenError::Locked { file: name.to_owned() });
        }
        let Metas { current: mut meta, other } = find_metas(&*file).map_err(read)?;
        let mut found = Found::Missing;
        if let Some((aux, database)) = sums {
            let sum_name = SumFile::name(database);
            if other.is_none() {
                // It was damaged; its writer writes it again.
                let lost = SumFile::lost_meta(aux, &sum_name, &meta).map_err(io)?;
                meta = lost.unwrap_or(meta);
            }
            found = SumFile::open(aux, &sum_name, &meta, Open::Read).map_err(io)?;
        }
        verify_length(&meta, file.len().map_err(io)?).map_err(read)?;
        let page_bytes = to_len(u64::from(meta.page_bytes));
        let checksums = found.kind();
        let sums = match found {
            Found::Matching(_, table) => Some(table),
            Found::Missing | Found::Foreign => None,
        };
        let pages = Pages { file, page_bytes, cache: Cache::new(CACHE_BYTES_MAX), sums };
        let root = Root::load(&pages, &meta).map_err(read)?;
        Ok(Self { pages, root, meta, checksums })
    }

    /// Which checksums were found.
    #[must_use]
    pub fn checksums(&self) -> Checksums {
        self.checksums
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// The page is damaged or cannot be read.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.root.find(&self.pages, bucket, key)
    }

    /// Visits keys from `from` (inclusive) to `to` (exclusive; `None` to the end) in order, until
    /// `visit` breaks.
    ///
    /// # Errors
    ///
    /// As [`ReadOnly::get`].
    pub fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let Some(tree) = self.root.tree(bucket) else { return Ok(()) };
        let mut cursor = Cursor::seek(&self.pages, self.root.high_water, tree, from)?;
        while let Some((page, at)) = cursor.here() {
            let ended = to.is_some_and(|to| to <= page.key(at));
            if ended || visit(&page.shared_key(at), &page.shared_value(at)).is_break() {
                break;
            }
            cursor.advance()?;
        }
        Ok(())
    }

    /// Visits every key of every bucket in the order of the file, until `visit` breaks. Buckets of
    /// other etcd versions are among them.
    ///
    /// # Errors
    ///
    /// As [`ReadOnly::get`].
    pub fn scan_all(&self, visit: &mut Visit<'_>) -> Result<(), ReadError> {
        scan_all(&self.pages, &self.root, visit)
    }

    /// CRC-32C of all buckets' names, keys and values in the order of the file, without the keys
    /// that `skip` names; what `etcdutl snapshot status` prints if it names none.
    ///
    /// # Errors
    ///
    /// As [`ReadOnly::get`].
    pub fn hash(&self, skip: &dyn Fn(&str, &[u8]) -> bool) -> Result<u32, ReadError> {
        hash_all(&self.pages, &self.root, skip)
    }

    /// The names of all buckets, in the order of the file.
    #[must_use]
    pub fn buckets(&self) -> Vec<String> {
        let name = |name: &Bytes| String::from_utf8_lossy(name).into_owned();
        self.root.entries.iter().map(|entry| name(&entry.name)).collect()
    }

    /// How far the log is applied in this state; zero if the file does not say.
    ///
    /// # Errors
    ///
    /// As [`ReadOnly::get`].
    pub fn applied(&self) -> Result<LogPosition, ReadError> {
        applied(&self.pages, &self.root)
    }

    /// Allocated and used bytes. Walks over all branches.
    ///
    /// # Errors
    ///
    /// As [`ReadOnly::get`].
    pub fn sizes(&self) -> Result<Sizes, ReadError> {
        let used = survey(&self.pages, &self.meta, &self.root)?;
        let page_bytes = to_count(self.pages.page_bytes);
        let total = self.root.high_water * page_bytes;
        Ok(Sizes { total, in_use: used.len() * page_bytes })
    }

    /// The page size of the file.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.pages.page_bytes
    }

    /// Verifies every page that the state uses, every reference and the order of all keys.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        inspect(&self.pages, &self.meta, &mut |_, _| {})?;
        Ok(())
    }
}

impl fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnly").field("meta", &self.meta).finish_non_exhaustive()
    }
}
