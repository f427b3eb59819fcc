//! What one commit allocates, writes and frees, before it counts.
//!
//! Pages are written as they fill up, into places that no durable state uses; until the meta page is
//! written, taking the commit back is a matter of memory only. A page that the same commit made and
//! dropped again is free at once.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::free::PageSet;
use crate::num::to_count;
use crate::pack::Node;
use crate::page::{Kind, Page, PageId};
use crate::pages::Pages;
use crate::sums::{SumFile, sums_of};
use crate::writer::failure;
use crate::{CommitError, ReadError};

/// Written together at most; what a large compaction holds in memory.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// The file grows by its own size, but within these bounds; bbolt grows by 16 MiB.
const GROWTH_BYTES: (u64, u64) = (64 << 10, 16 << 20);

/// A node's place: what a branch says of a child.
#[derive(Clone, Debug)]
pub(crate) struct Ref {
    pub(crate) key: Bytes,
    pub(crate) id: PageId,
    /// 0 for leaves.
    pub(crate) level: u8,
}

/// The changes of one commit to the file.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub(crate) pages: &'a Pages,
    sum_file: Option<&'a SumFile>,
    free: &'a mut PageSet,
    file_len: &'a mut u64,
    /// The state that is being replaced ends here.
    high_water_before: PageId,
    high_water: PageId,
    allocated: BTreeMap<PageId, u64>,
    freed: Vec<(PageId, u64)>,
    buffer: Vec<(PageId, Bytes)>,
    buffered: usize,
    written: usize,
    flushing: Duration,
}

/// What a finished output leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) high_water: PageId,
    pub(crate) allocated: Vec<(PageId, u64)>,
    pub(crate) freed: Vec<(PageId, u64)>,
    pub(crate) written: usize,
}

impl<'a> Output<'a> {
    /// Nothing changed yet.
    pub(crate) fn new(
        pages: &'a Pages,
        sum_file: Option<&'a SumFile>,
        free: &'a mut PageSet,
        file_len: &'a mut u64,
        high_water: PageId,
    ) -> Self {
        Self {
            pages,
            sum_file,
            free,
            file_len,
            high_water_before: high_water,
            high_water,
            allocated: BTreeMap::new(),
            freed: Vec::new(),
            buffer: Vec::new(),
            buffered: 0,
            written: 0,
            flushing: Duration::ZERO,
        }
    }

    /// How long writing took up to now.
    pub(crate) fn flushing(&self) -> Duration {
        self.flushing
    }

    /// The page size.
    pub(crate) fn page_bytes(&self) -> usize {
        self.pages.page_bytes
    }

    /// Gives a node a place and writes it, now or later.
    pub(crate) fn emit(&mut self, node: &Node, kind: Kind, level: u8) -> Result<Ref, CommitError> {
        let pages = node.pages(self.page_bytes());
        let id = self.allocate(to_count(pages));
        let overflow = u32::try_from(pages - 1).expect("a node is smaller than 4 GiB");
        let bytes = Bytes::from(node.encode(kind, id, overflow, pages * self.page_bytes()));
        let page = Page::trusted(bytes.clone(), kind, node.count());
        self.pages.cache.insert(id, page);
        self.written += pages;
        self.buffered += bytes.len();
        self.buffer.push((id, bytes));
        if self.buffered >= BUFFER_BYTES_MAX {
            self.flush()?;
        }
        Ok(Ref { key: node.first_key(), id, level })
    }

    fn allocate(&mut self, pages: u64) -> PageId {
        let id = self.free.take(pages).unwrap_or_else(|| {
            let id = self.high_water;
            self.high_water += pages;
            id
        });
        self.allocated.insert(id, pages);
        id
    }

    /// Reads a node, of the old state or of this commit, and drops it.
    pub(crate) fn dissolve(&mut self, id: PageId) -> Result<Page, ReadError> {
        let own = self.allocated.contains_key(&id);
        let buffered = own.then(|| self.buffer.iter().rposition(|(at, _)| *at == id)).flatten();
        let page = match buffered {
            Some(at) => {
                let (_, bytes) = self.buffer.swap_remove(at);
                self.buffered -= bytes.len();
                Page::parse(bytes, id).map_err(|what| ReadError::damaged(id, what))?
            }
            None => self.pages.read_once(id, self.high_water)?,
        };
        let pages = u64::from(page.overflow()) + 1;
        if self.allocated.remove(&id).is_some() {
            (id..id + pages).for_each(|id| assert!(self.free.insert(id), "page {id} freed twice"));
        } else {
            self.freed.push((id, pages));
        }
        Ok(page)
    }

    /// Writes everything that was emitted, neighbours together.
    pub(crate) fn flush(&mut self) -> Result<(), CommitError> {
        let began = Instant::now();
        let flushed = self.write_buffer();
        self.flushing += began.elapsed();
        flushed
    }

    fn write_buffer(&mut self) -> Result<(), CommitError> {
        self.grow().map_err(failure)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        self.buffered = 0;
        buffer.sort_unstable_by_key(|(id, _)| *id);
        let page_bytes = self.page_bytes();
        let pages_of = |bytes: &Bytes| to_count(bytes.len() / page_bytes);
        let neighbours = |a: &(PageId, Bytes), b: &(PageId, Bytes)| a.0 + pages_of(&a.1) == b.0;
        for run in buffer.chunk_by(neighbours) {
            let first = run[0].0;
            let slices: Vec<IoSlice<'_>> =
                run.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
            let offset = first * to_count(page_bytes);
            self.pages.file.write_vectored_at(&slices, offset).map_err(failure)?;
            self.write_sums(run)?;
        }
        Ok(())
    }

    fn write_sums(&self, run: &[(PageId, Bytes)]) -> Result<(), CommitError> {
        let Some(table) = &self.pages.sums else { return Ok(()) };
        let page_bytes = self.page_bytes();
        let sums: Vec<u32> =
            run.iter().flat_map(|(id, bytes)| sums_of(*id, bytes, page_bytes)).collect();
        table.set(run[0].0, &sums);
        match self.sum_file {
            Some(file) => file.write(run[0].0, &sums).map_err(failure),
            None => Ok(()),
        }
    }

    fn grow(&mut self) -> Result<(), io::Error> {
        let needed = self.high_water * to_count(self.page_bytes());
        if needed > *self.file_len {
            let step = (*self.file_len).clamp(GROWTH_BYTES.0, GROWTH_BYTES.1);
            let len = needed.next_multiple_of(step.next_power_of_two());
            self.pages.file.set_len(len)?;
            *self.file_len = len;
        }
        Ok(())
    }

    /// The first page behind all that are in use.
    pub(crate) fn high_water(&self) -> PageId {
        self.high_water
    }

    /// What was done; everything must be flushed.
    pub(crate) fn finish(self) -> Outcome {
        assert!(self.buffer.is_empty(), "{} pages are not written", self.buffer.len());
        Outcome {
            high_water: self.high_water,
            allocated: self.allocated.into_iter().collect(),
            freed: self.freed,
            written: self.written,
        }
    }

    /// Takes everything back: what was allocated is free again.
    pub(crate) fn undo(self) {
        for (id, pages) in self.allocated {
            for id in id..(id + pages).min(self.high_water_before) {
                assert!(self.free.insert(id), "page {id} freed twice");
            }
        }
        // Pages that were allocated behind the old end and dropped again.
        let mut beyond = self.high_water_before;
        while let Some(id) = self.free.first_from(beyond) {
            self.free.remove(id);
            beyond = id + 1;
        }
    }
}
