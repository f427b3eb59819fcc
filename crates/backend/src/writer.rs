//! Commits: from a frozen delta to a durable state.
//!
//! Order: pages and their checksums are written, then synced; then the meta page is written and
//! synced; then readers get the new root. Until the meta page is written nothing that counts was
//! touched, and "no space" takes everything back. After any other failure of a write or sync the
//! writer is poisoned: what the kernel dropped will not come back.
//!
//! A page that a state used is written again only after a later state is durable and nobody holds
//! that state or an older one (design 4.3 rule 3).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::delta::Delta;
use crate::edit::{Action, Edit, NewTree, rewrite};
use crate::free::PageSet;
use crate::meta::{Meta, NO_FREELIST};
use crate::num::to_count;
use crate::output::{Output, Ref};
use crate::pack::{End, Packer};
use crate::page::{BUCKET_FLAG, Kind, PageId};
use crate::pages::Pages;
use crate::sums::SumFile;
use crate::tree::{BUCKET_HEADER, Entry, Root, Tree};
use crate::{Bucket, CommitError};

/// A key whose way from the root is to be rewritten although nothing changes.
pub(crate) type Touch = (Bucket, Bytes);

/// What only commits use; one at a time.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Pages that may be written.
    pub(crate) free: PageSet,
    /// Former states, oldest first, with the pages that their successors do not use.
    pub(crate) retired: VecDeque<Retired>,
    /// Pages that become free with the next commit, whatever readers do.
    pub(crate) limbo: Vec<(PageId, u64)>,
    pub(crate) high_water: PageId,
    pub(crate) file_len: u64,
    pub(crate) sum_file: Option<SumFile>,
    pub(crate) sync: bool,
    pub(crate) poisoned: bool,
    /// The lowest high-water mark of this row of shrink steps, and the steps since.
    pub(crate) shrunk_to: PageId,
    pub(crate) shrink_steps: u32,
}

/// A former state.
#[derive(Debug)]
pub(crate) struct Retired {
    root: Arc<Root>,
    pages: Vec<(PageId, u64)>,
}

impl Writer {
    /// Makes the pages of former states free that nobody reads any more.
    pub(crate) fn release(&mut self) {
        while let Some(oldest) = self.retired.front_mut() {
            if Arc::get_mut(&mut oldest.root).is_none() {
                base::probe::reached("backend: a reader keeps pages of a former state");
                break;
            }
            let oldest = self.retired.pop_front().expect("it was just looked at");
            for (id, pages) in oldest.pages {
                (id..id + pages).for_each(|id| self.set_free(id));
            }
        }
    }

    fn set_free(&mut self, id: PageId) {
        assert!(self.free.insert(id), "page {id} freed twice");
    }

    /// Pages below its high-water mark that the current state `root` does not use.
    pub(crate) fn unused(&self, root: &Root) -> PageSet {
        let mut unused = self.free.clone();
        for id in self.high_water..root.high_water {
            unused.insert(id);
        }
        let waiting = self.retired.iter().flat_map(|retired| &retired.pages).chain(&self.limbo);
        for (id, pages) in waiting {
            for id in *id..id + pages {
                unused.insert(id);
            }
        }
        unused
    }

    /// Number of [`Writer::unused`] pages.
    pub(crate) fn unused_pages(&self, root: &Root) -> u64 {
        let trimmed = root.high_water.saturating_sub(self.high_water);
        let waiting = self.retired.iter().flat_map(|retired| &retired.pages).chain(&self.limbo);
        self.free.len() + trimmed + waiting.map(|(_, pages)| pages).sum::<u64>()
    }

    /// Writes a state that follows `root` by the changes of `delta`; returns it, how many pages were
    /// written, and how long making them took. After an error other than `Io` nothing has happened.
    pub(crate) fn commit(
        &mut self,
        pages: &Pages,
        root: &Arc<Root>,
        delta: &Delta,
        touches: &[Touch],
    ) -> Result<(Arc<Root>, usize, Duration), CommitError> {
        self.release();
        let result = self.write(pages, root, delta, touches);
        self.poisoned |= matches!(result, Err(CommitError::Io(_)));
        result
    }

    fn write(
        &mut self,
        pages: &Pages,
        root: &Arc<Root>,
        delta: &Delta,
        touches: &[Touch],
    ) -> Result<(Arc<Root>, usize, Duration), CommitError> {
        let began = Instant::now();
        let sum_file = self.sum_file.as_ref();
        let mut output =
            Output::new(pages, sum_file, &mut self.free, &mut self.file_len, self.high_water);
        let built = build(&mut output, root, delta, touches);
        // What is too much for the memory was written meanwhile.
        let building = began.elapsed().saturating_sub(output.flushing());
        let built =
            built.and_then(|built| output.flush().map(|()| built)).and_then(|(entries, page)| {
                let meta = Meta {
                    page_bytes: u32::try_from(pages.page_bytes).expect("page sizes have 32 bits"),
                    root: page,
                    root_sequence: root.sequence,
                    freelist: NO_FREELIST,
                    high_water: output.high_water(),
                    number: root.number + 1,
                    marked: sum_file.is_some(),
                };
                sum_file.map_or(Ok(()), |file| file.announce(&meta)).map_err(failure)?;
                Ok((meta, entries))
            });
        let (meta, entries) = match built {
            Ok(built) => built,
            Err(error) => {
                base::probe::reached("backend: a commit fails before its meta page and is undone");
                output.undo();
                return Err(error);
            }
        };
        let outcome = output.finish();
        self.high_water = outcome.high_water;
        self.sync_data(pages)?;
        if let Err(error) = self.write_meta(pages, &meta) {
            // A part of it may be there, and it may be found after a crash: its pages stay as they
            // are until another state has replaced it.
            base::probe::reached("backend: a meta page cannot be written");
            self.limbo.extend(outcome.allocated);
            return Err(error);
        }
        self.sync_meta(pages)?;
        let confirmed = self.sum_file.as_ref().map_or(Ok(()), |file| file.confirm(&meta));
        if let Err(CommitError::Io(_)) = confirmed.map_err(failure) {
            // The commit stands; the next one would meet the same device.
            self.poisoned = true;
        }
        let mut freed = outcome.freed;
        if base::probe::mutant("pages-are-reused-too-early") {
            for (id, pages) in freed.drain(..) {
                (id..id + pages).for_each(|id| self.set_free(id));
            }
        }
        freed.append(&mut self.limbo);
        self.retired.push_back(Retired { root: Arc::clone(root), pages: freed });
        Ok((Arc::new(Root::new(&meta, entries)), outcome.written, building))
    }

    fn sync_data(&self, pages: &Pages) -> Result<(), CommitError> {
        if !self.sync || base::probe::mutant("meta-page-before-its-pages") {
            return Ok(());
        }
        pages.file.sync_data().map_err(CommitError::Io)?;
        self.sum_file.as_ref().map_or(Ok(()), SumFile::sync).map_err(CommitError::Io)
    }

    fn write_meta(&self, pages: &Pages, meta: &Meta) -> Result<(), CommitError> {
        let bytes = meta.encode(meta.page());
        pages.file.write_at(&bytes, meta.page() * to_count(pages.page_bytes)).map_err(failure)
    }

    fn sync_meta(&self, pages: &Pages) -> Result<(), CommitError> {
        if self.sync && !base::probe::mutant("meta-page-is-not-synced") {
            pages.file.sync_data().map_err(CommitError::Io)
        } else {
            Ok(())
        }
    }
}

/// What a failed write means when nothing that counts was touched.
pub(crate) fn failure(error: io::Error) -> CommitError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        CommitError::NoSpace(error)
    } else {
        CommitError::Io(error)
    }
}

/// Rewrites the changed buckets and the root; returns the buckets and the root's page.
fn build(
    output: &mut Output<'_>,
    root: &Root,
    delta: &Delta,
    touches: &[Touch],
) -> Result<(Vec<Entry>, PageId), CommitError> {
    let inline_bytes_max = output.page_bytes() / 4;
    let mut entries = root.entries.clone();
    for bucket in Bucket::ALL {
        let edits = edits_of(delta, bucket, touches);
        let tree = root.tree(bucket);
        if edits.is_empty() && tree.is_some() {
            continue;
        }
        let tree = match rewrite(output, tree, &edits, inline_bytes_max)? {
            NewTree::Inline(page) => Tree::Inline(page),
            NewTree::At(id) => Tree::At(id),
        };
        let name = bucket.name().as_bytes();
        match entries.binary_search_by(|entry| entry.name[..].cmp(name)) {
            Ok(at) => entries[at].tree = tree,
            Err(at) => {
                entries.insert(at, Entry { name: Bytes::from_static(name), sequence: 0, tree });
            }
        }
    }
    drop_root(output, root.page)?;
    let page = write_root(output, &entries)?;
    Ok((entries, page))
}

fn edits_of<'a>(delta: &'a Delta, bucket: Bucket, touches: &'a [Touch]) -> Vec<Edit<'a>> {
    let mut edits: Vec<Edit<'a>> = delta.rows(bucket).from(b"").map(Edit::of).collect();
    let touched = touches.iter().filter(|(at, _)| *at == bucket);
    edits.extend(touched.map(|(_, key)| Edit { key, action: Action::Touch }));
    if !touches.is_empty() {
        // The sort is stable: a change goes before a touch of the same key, which is then dropped.
        edits.sort_by_key(|edit| edit.key);
        edits.dedup_by_key(|edit| edit.key);
    }
    edits
}

/// Drops the pages of the tree of buckets, not the buckets.
fn drop_root(output: &mut Output<'_>, root: PageId) -> Result<(), CommitError> {
    let mut left = vec![root];
    while let Some(id) = left.pop() {
        let page = output.dissolve(id)?;
        if page.kind() == Kind::Branch {
            left.extend((0..page.count()).map(|at| page.child(at)));
        }
    }
    Ok(())
}

/// Writes the tree of buckets; returns its root.
pub(crate) fn write_root(
    output: &mut Output<'_>,
    entries: &[Entry],
) -> Result<PageId, CommitError> {
    let mut refs: Vec<Ref> = Vec::new();
    let mut packer = Packer::new(Kind::Leaf, output.page_bytes());
    for entry in entries {
        let value = encode_entry(entry);
        if let Some(full) = packer.push(&entry.name, &value, u64::from(BUCKET_FLAG)) {
            refs.push(output.emit(&full, Kind::Leaf, 0)?);
        }
    }
    for node in packer.finish(End::Open) {
        refs.push(output.emit(&node, Kind::Leaf, 0)?);
    }
    while refs.len() > 1 {
        refs = crate::edit::pack(output, refs)?;
    }
    Ok(refs.pop().expect("there are ten buckets at least").id)
}

/// A bucket as the value of its name.
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut value = Vec::with_capacity(BUCKET_HEADER);
    let root = match &entry.tree {
        Tree::Inline(_) => 0,
        Tree::At(id) => *id,
    };
    value.extend_from_slice(&root.to_le_bytes());
    value.extend_from_slice(&entry.sequence.to_le_bytes());
    if let Tree::Inline(page) = &entry.tree {
        value.extend_from_slice(page.bytes());
    }
    value
}
