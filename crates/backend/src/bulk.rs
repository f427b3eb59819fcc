//! A whole database file in one pass, from rows that come in order.
//!
//! For restoring snapshots and for defragmenting a stopped member's file. Every page is full, there
//! are no free ones, and the file ends with the last page. Source: interop.md 3.4.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use vfs::{Dir, File};

use crate::meta::{Meta, NO_FREELIST};
use crate::num::to_count;
use crate::pack::{End, Node, Packer};
use crate::page::{BUCKET_FLAG, Kind, Page, PageId};
use crate::sums::{SumFile, Table, sums_of};
use crate::tree::{Entry, Tree};
use crate::writer::encode_entry;

/// Written together.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Writes all buckets with their rows to an empty file, makes it durable, and returns its length.
///
/// # Errors
///
/// A write or the sync failed; the file is of no use.
///
/// # Panics
///
/// If names or keys do not ascend, or a key is empty.
pub fn write<N, R, K, V>(
    file: Arc<dyn File>,
    page_bytes: usize,
    buckets: impl IntoIterator<Item = (N, R)>,
) -> io::Result<u64>
where
    N: AsRef<str>,
    R: IntoIterator<Item = (K, V)>,
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let mut bulk = Bulk::new(file, page_bytes);
    for (name, rows) in buckets {
        bulk.bucket(name.as_ref())?;
        for (key, value) in rows {
            bulk.put(key.as_ref(), value.as_ref())?;
        }
    }
    bulk.finish()
}

/// A file that is being written; for rows that arrive one by one.
#[derive(Debug)]
pub struct Bulk {
    file: Arc<dyn File>,
    page_bytes: usize,
    next: PageId,
    buffer: Vec<u8>,
    /// Place of the buffer's first byte.
    written: u64,
    done: Vec<Entry>,
    open: Option<Open>,
    sums: Option<Sums>,
}

/// The checksums of what is being written.
#[derive(Debug)]
struct Sums {
    dir: Arc<dyn Dir>,
    name: String,
    table: Table,
}

/// The bucket that takes rows now.
#[derive(Debug)]
struct Open {
    name: Bytes,
    last: Vec<u8>,
    /// Leaves, then the branches above them.
    levels: Vec<Packer>,
}

impl Bulk {
    /// Starts an empty file.
    ///
    /// # Panics
    ///
    /// If the page size is no power of two from 1,024 to 65,536.
    #[must_use]
    pub fn new(file: Arc<dyn File>, page_bytes: usize) -> Self {
        let known = page_bytes.is_power_of_two() && (1024..=65_536).contains(&page_bytes);
        assert!(known, "a page size of {page_bytes}");
        let written = 2 * to_count(page_bytes);
        let (buffer, done) = (Vec::new(), Vec::new());
        Self { file, page_bytes, next: 2, buffer, written, done, open: None, sums: None }
    }

    /// Keeps checksums in `aux` for a file of this name, which count once the file is finished.
    #[must_use]
    pub fn with_sums(self, aux: Arc<dyn Dir>, name: &str) -> Self {
        let sums = Sums { dir: aux, name: SumFile::name(name), table: Table::default() };
        Self { sums: Some(sums), ..self }
    }

    /// Ends the bucket before and starts one; names must ascend.
    ///
    /// # Errors
    ///
    /// A write failed.
    ///
    /// # Panics
    ///
    /// If the name is not above the one before it.
    pub fn bucket(&mut self, name: &str) -> io::Result<()> {
        self.end_bucket()?;
        let name = Bytes::copy_from_slice(name.as_bytes());
        let last = self.done.last().map(|entry| &entry.name);
        assert!(last.is_none_or(|last| *last < name), "bucket {name:?} behind {last:?}");
        let levels = vec![Packer::new(Kind::Leaf, self.page_bytes)];
        self.open = Some(Open { name, last: Vec::new(), levels });
        Ok(())
    }

    /// Adds a row to the bucket; keys must ascend.
    ///
    /// # Errors
    ///
    /// A write failed.
    ///
    /// # Panics
    ///
    /// If there is no bucket, or the key is not above the one before it.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().expect("a bucket was started");
        let (last, new) = (&open.last, Bytes::copy_from_slice);
        assert!(&last[..] < key, "key {:?} behind {:?}", new(key), new(last));
        open.last.clear();
        open.last.extend_from_slice(key);
        match open.levels[0].push(key, value, 0) {
            Some(full) => self.emit(&full, 0),
            None => Ok(()),
        }
    }

    /// Ends the last bucket, writes the buckets and the meta pages, and makes the file durable.
    /// Returns its length.
    ///
    /// # Errors
    ///
    /// A write or the sync failed; the file is of no use.
    ///
    /// # Panics
    ///
    /// If there is no bucket at all.
    pub fn finish(mut self) -> io::Result<u64> {
        self.end_bucket()?;
        assert!(!self.done.is_empty(), "a file without buckets");
        let done = std::mem::take(&mut self.done);
        let mut open = Open {
            name: Bytes::new(),
            last: Vec::new(),
            levels: vec![Packer::new(Kind::Leaf, self.page_bytes)],
        };
        for entry in &done {
            let value = encode_entry(entry);
            if let Some(full) = open.levels[0].push(&entry.name, &value, u64::from(BUCKET_FLAG)) {
                self.emit_into(&mut open, &full, 0)?;
            }
        }
        let root = self.end_levels(open)?.expect("there is a bucket");
        self.flush()?;
        let meta = Meta {
            page_bytes: u32::try_from(self.page_bytes).expect("page sizes have 32 bits"),
            root,
            root_sequence: 0,
            freelist: NO_FREELIST,
            high_water: self.next,
            number: 2,
            marked: self.sums.is_some(),
        };
        let sum_file = match &self.sums {
            Some(Sums { dir, name, table }) => {
                let file = SumFile::create(&**dir, name, table)?;
                file.announce(&meta)?;
                file.sync()?;
                Some(file)
            }
            None => None,
        };
        let mut metas = meta.encode(0);
        metas.append(&mut Meta { number: 1, ..meta }.encode(1));
        self.file.write_at(&metas, 0)?;
        self.file.set_len(self.written)?;
        self.file.sync_data()?;
        sum_file.map_or(Ok(()), |file| file.confirm(&meta))?;
        Ok(self.written)
    }

    fn end_bucket(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let name = open.name.clone();
        let tree = match open.levels[0].single_page() {
            Some(node) if open.levels.len() == 1 && node.size() <= self.page_bytes / 4 => {
                let bytes = Bytes::from(node.encode(Kind::Leaf, 0, 0, node.size()));
                Tree::Inline(Page::trusted(bytes, Kind::Leaf, node.count()))
            }
            Some(_) | None => Tree::At(self.end_levels(open)?.expect("an empty leaf is small")),
        };
        self.done.push(Entry { name, sequence: 0, tree });
        Ok(())
    }

    /// Writes what is left of all levels, from the leaves up; returns the root.
    fn end_levels(&mut self, mut open: Open) -> io::Result<Option<PageId>> {
        let mut level = 0;
        loop {
            let packer = std::mem::replace(
                &mut open.levels[level],
                Packer::new(Kind::Branch, self.page_bytes),
            );
            let top = level + 1 == open.levels.len();
            let last: Vec<Node> = packer.finish(End::Open).collect();
            if let (true, [only]) = (top, &last[..]) {
                if level > 0 && only.count() == 1 {
                    return Ok(only.iter().next().map(|(_, _, id)| id));
                }
                return self.write_node(only, kind_of(level)).map(Some);
            }
            if last.is_empty() {
                return Ok(None);
            }
            for node in &last {
                self.emit_into(&mut open, node, level)?;
            }
            level += 1;
        }
    }

    fn emit(&mut self, node: &Node, level: usize) -> io::Result<()> {
        let mut open = self.open.take().expect("a bucket was started");
        let result = self.emit_into(&mut open, node, level);
        self.open = Some(open);
        result
    }

    /// Writes a node and tells the level above.
    fn emit_into(&mut self, open: &mut Open, node: &Node, level: usize) -> io::Result<()> {
        let id = self.write_node(node, kind_of(level))?;
        if open.levels.len() == level + 1 {
            open.levels.push(Packer::new(Kind::Branch, self.page_bytes));
        }
        match open.levels[level + 1].push(&node.first_key(), &[], id) {
            Some(full) => self.emit_into(open, &full, level + 1),
            None => Ok(()),
        }
    }

    fn write_node(&mut self, node: &Node, kind: Kind) -> io::Result<PageId> {
        let id = self.next;
        let pages = node.pages(self.page_bytes);
        let overflow = u32::try_from(pages - 1).expect("a node is smaller than 4 GiB");
        self.buffer.extend(node.encode(kind, id, overflow, pages * self.page_bytes));
        self.next += to_count(pages);
        if self.buffer.len() >= BUFFER_BYTES_MAX {
            self.flush()?;
        }
        Ok(id)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.written)?;
        if let Some(Sums { table, .. }) = &self.sums {
            let first = self.written / to_count(self.page_bytes);
            table.set(first, &sums_of(first, &self.buffer, self.page_bytes));
        }
        self.written += to_count(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }
}

fn kind_of(level: usize) -> Kind {
    if level == 0 { Kind::Leaf } else { Kind::Branch }
}
