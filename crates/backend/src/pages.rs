//! Reading pages: from the cache, else from the file, and then never unchecked.
//!
//! Invariant: a page is served only if its checksum (where checksums are kept) and its structure
//! are right.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use vfs::File;

use crate::ReadError;
use crate::cache::Cache;
use crate::num::{to_count, to_len};
use crate::page::{HEADER, Header, Page, PageId};
use crate::sums::Table;

/// The pages of one file.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) file: Arc<dyn File>,
    pub(crate) page_bytes: usize,
    pub(crate) cache: Cache,
    /// `None` if no checksums are kept.
    pub(crate) sums: Option<Table>,
}

impl Pages {
    /// A branch or leaf below `high_water`, kept in the cache from now on.
    pub(crate) fn read(&self, id: PageId, high_water: PageId) -> Result<Page, ReadError> {
        if let Some(page) = self.cache.find(id) {
            return Ok(page);
        }
        let page = self.load(id, high_water)?;
        self.cache.insert(id, page.clone());
        Ok(page)
    }

    /// As [`Pages::read`], for pages that will not be needed again.
    pub(crate) fn read_once(&self, id: PageId, high_water: PageId) -> Result<Page, ReadError> {
        match self.cache.find(id) {
            Some(page) => Ok(page),
            None => self.load(id, high_water),
        }
    }

    /// A branch or leaf as it is in the file, whatever the cache holds.
    pub(crate) fn load(&self, id: PageId, high_water: PageId) -> Result<Page, ReadError> {
        if id < 2 || id >= high_water {
            let what = format!("it is referred to, but pages are 2 to {high_water}");
            return Err(ReadError::damaged(id, what));
        }
        let mut bytes = vec![0; self.page_bytes];
        self.fill(id, &mut bytes)?;
        let header = Header::read(&bytes[..HEADER]);
        if header.overflow > 0 {
            let pages = u64::from(header.overflow) + 1;
            if pages > high_water - id {
                let what = format!("it claims {pages} pages, beyond the last one");
                return Err(ReadError::damaged(id, what));
            }
            let len = to_len(pages) * self.page_bytes;
            bytes.try_reserve_exact(len - bytes.len()).map_err(|error| ReadError::Io {
                page: id,
                source: io::Error::new(io::ErrorKind::OutOfMemory, error),
            })?;
            bytes.resize(len, 0);
            self.fill(id + 1, &mut bytes[self.page_bytes..])?;
        }
        Page::parse(Bytes::from(bytes), id).map_err(|what| ReadError::damaged(id, what))
    }

    /// Reads whole pages from `id` on and compares their checksums.
    pub(crate) fn fill(&self, id: PageId, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.fill_unchecked(id, bytes)?;
        let Some(sums) = &self.sums else { return Ok(()) };
        for (page, bytes) in (id..).zip(bytes.chunks(self.page_bytes)) {
            sums.verify(page, bytes)?;
        }
        Ok(())
    }

    /// Reads bytes from the start of a page on, without comparing checksums.
    pub(crate) fn fill_unchecked(&self, id: PageId, bytes: &mut [u8]) -> Result<(), ReadError> {
        let read = self.file.read_exact_at(bytes, id * to_count(self.page_bytes));
        read.map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                ReadError::damaged(id, "the file ends before it")
            } else {
                ReadError::Io { page: id, source }
            }
        })
    }
}
