//! Walking over a whole state: which pages it uses, and whether all of them are right.
//!
//! [`survey`] is quick: it reads the branches, which name their leaves, and of the leaves only those
//! that may have overflow pages. [`inspect`] reads every page from the file.

use bytes::Bytes;

use crate::free::PageSet;
use crate::meta::{Meta, NO_FREELIST};
use crate::page::{BUCKET_FLAG, HEADER, Header, Kind, Page, PageId};
use crate::pages::Pages;
use crate::tree::{DEPTH_MAX, Root, Tree, parse_entry};
use crate::{Bucket, ReadError};

/// The pages that a state uses, the metas among them.
pub(crate) fn survey(pages: &Pages, meta: &Meta, root: &Root) -> Result<PageSet, ReadError> {
    let mut walk = Walk::new(pages, meta.high_water);
    walk.whole_tree(root.page, &mut |_, _| {})?;
    let mut leaves = PageSet::new();
    for entry in &root.entries {
        match &entry.tree {
            Tree::Inline(_) => {}
            Tree::At(id)
                if Bucket::ALL.iter().any(|bucket| bucket.name().as_bytes() == entry.name) =>
            {
                walk.branches(*id, &mut leaves)?;
            }
            // A bucket of a newer etcd may hold others.
            Tree::At(id) => walk.bucket(*id, &mut |_, _| {})?,
        }
    }
    walk.overflows(&leaves)?;
    walk.freelist(meta)?;
    Ok(walk.used)
}

/// Reads every page that a state uses, checks order and bounds, and shows each run to `seen`.
pub(crate) fn inspect(
    pages: &Pages,
    meta: &Meta,
    seen: &mut dyn FnMut(PageId, &Page),
) -> Result<PageSet, ReadError> {
    let mut walk = Walk::new(pages, meta.high_water);
    walk.bucket(meta.root, seen)?;
    walk.freelist(meta)?;
    Ok(walk.used)
}

/// All pages below `high_water` that are not in `used`.
pub(crate) fn complement(used: &PageSet, high_water: PageId) -> PageSet {
    let mut free = PageSet::new();
    for id in 2..high_water {
        if !used.contains(id) {
            free.insert(id);
        }
    }
    free
}

struct Walk<'a> {
    pages: &'a Pages,
    high_water: PageId,
    used: PageSet,
}

/// The keys that a subtree may hold: from the first (inclusive) to the second (exclusive).
type Bounds = (Option<Bytes>, Option<Bytes>);

impl<'a> Walk<'a> {
    fn new(pages: &'a Pages, high_water: PageId) -> Self {
        let mut used = PageSet::new();
        used.insert(0);
        used.insert(1);
        Self { pages, high_water, used }
    }

    fn mark(&mut self, id: PageId, pages: u64) -> Result<(), ReadError> {
        for id in id..id + pages {
            if id >= self.high_water {
                return Err(ReadError::damaged(id, "it is used, but lies behind the last page"));
            }
            if !self.used.insert(id) {
                return Err(ReadError::damaged(id, "it is used twice"));
            }
        }
        Ok(())
    }

    /// Every page of a bucket and of the buckets in it.
    fn bucket(
        &mut self,
        root: PageId,
        seen: &mut dyn FnMut(PageId, &Page),
    ) -> Result<(), ReadError> {
        let mut left = vec![root];
        while let Some(id) = left.pop() {
            let inner = self.whole_tree(id, seen)?;
            left.extend(inner);
        }
        Ok(())
    }

    /// Every page of one tree; returns the roots of the buckets in it.
    fn whole_tree(
        &mut self,
        root: PageId,
        seen: &mut dyn FnMut(PageId, &Page),
    ) -> Result<Vec<PageId>, ReadError> {
        let mut buckets = Vec::new();
        let mut leaf_depth = None;
        let mut left: Vec<(PageId, usize, Bounds)> = vec![(root, 0, (None, None))];
        while let Some((id, depth, bounds)) = left.pop() {
            let page = self.pages.load(id, self.high_water)?;
            self.mark(id, u64::from(page.overflow()) + 1)?;
            check_bounds(id, &page, &bounds)?;
            seen(id, &page);
            match page.kind() {
                Kind::Branch if depth >= DEPTH_MAX => {
                    return Err(ReadError::damaged(id, "the tree is too deep"));
                }
                Kind::Branch => {
                    let mut end = bounds.1;
                    for at in (0..page.count()).rev() {
                        // The first key may be larger than keys below it that came later.
                        let start =
                            if at == 0 { bounds.0.clone() } else { Some(page.shared_key(at)) };
                        left.push((page.child(at), depth + 1, (start, end)));
                        end = Some(page.shared_key(at));
                    }
                }
                Kind::Leaf => {
                    if *leaf_depth.get_or_insert(depth) != depth {
                        return Err(ReadError::damaged(id, "not all leaves are equally deep"));
                    }
                    collect_buckets(id, &page, &mut buckets)?;
                }
            }
        }
        Ok(buckets)
    }

    /// The branches of a tree, and the first pages of its leaves, which go to `leaves`.
    fn branches(&mut self, root: PageId, leaves: &mut PageSet) -> Result<(), ReadError> {
        let mut depth = 0;
        let mut id = root;
        loop {
            let page = self.pages.read(id, self.high_water)?;
            if page.kind() == Kind::Leaf {
                break;
            }
            id = page.child(0);
            depth += 1;
            if depth > DEPTH_MAX {
                return Err(ReadError::damaged(root, "the tree leads in a circle"));
            }
        }
        let mut left = vec![(root, depth)];
        while let Some((id, height)) = left.pop() {
            if height == 0 {
                self.mark(id, 1)?;
                leaves.insert(id);
                continue;
            }
            let page = self.pages.read_once(id, self.high_water)?;
            if page.kind() == Kind::Leaf {
                return Err(ReadError::damaged(id, "not all leaves are equally deep"));
            }
            self.mark(id, u64::from(page.overflow()) + 1)?;
            left.extend((0..page.count()).map(|at| (page.child(at), height - 1)));
        }
        Ok(())
    }

    /// Marks the overflow pages of leaves. A leaf whose next page is in use by others has none.
    fn overflows(&mut self, leaves: &PageSet) -> Result<(), ReadError> {
        let mut bytes = vec![0; self.pages.page_bytes];
        let mut next = 0;
        while let Some(id) = leaves.first_from(next) {
            next = id + 1;
            if next >= self.high_water || self.used.contains(next) {
                continue;
            }
            self.pages.fill(id, &mut bytes)?;
            let header = Header::read(&bytes[..HEADER]);
            if header.id != id || header.flags != Kind::Leaf.flags() {
                return Err(ReadError::damaged(id, "it should be a leaf"));
            }
            self.mark(next, u64::from(header.overflow))?;
        }
        Ok(())
    }

    /// A stored freelist, as bbolt writes by default, is no part of a tree but in use.
    fn freelist(&mut self, meta: &Meta) -> Result<(), ReadError> {
        match freelist_run(self.pages, meta)? {
            Some((id, pages)) => self.mark(id, pages),
            None => Ok(()),
        }
    }
}

/// The pages of the stored freelist, if there is one.
pub(crate) fn freelist_run(pages: &Pages, meta: &Meta) -> Result<Option<(PageId, u64)>, ReadError> {
    if meta.freelist == NO_FREELIST {
        return Ok(None);
    }
    let id = meta.freelist;
    if id < 2 || id >= meta.high_water {
        return Err(ReadError::damaged(id, "the freelist cannot be there"));
    }
    let mut bytes = [0; HEADER];
    pages.fill_unchecked(id, &mut bytes)?;
    let header = Header::read(&bytes);
    if header.id != id || header.flags != 0x10 {
        return Err(ReadError::damaged(id, "it should be the freelist"));
    }
    Ok(Some((id, u64::from(header.overflow) + 1)))
}

fn check_bounds(id: PageId, page: &Page, bounds: &Bounds) -> Result<(), ReadError> {
    if page.count() == 0 {
        return Ok(());
    }
    let below = bounds.0.as_ref().is_some_and(|start| page.key(0) < &start[..]);
    let above = bounds.1.as_ref().is_some_and(|end| page.key(page.count() - 1) >= &end[..]);
    if below || above {
        return Err(ReadError::damaged(id, "its keys are not those that its parent promises"));
    }
    Ok(())
}

fn collect_buckets(id: PageId, page: &Page, into: &mut Vec<PageId>) -> Result<(), ReadError> {
    for at in (0..page.count()).filter(|at| page.flags(*at) & BUCKET_FLAG != 0) {
        match parse_entry(page, at).map_err(|what| ReadError::damaged(id, what))?.tree {
            Tree::At(root) => into.push(root),
            Tree::Inline(_) => {}
        }
    }
    Ok(())
}
