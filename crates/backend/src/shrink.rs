//! Giving the end of the file back while the database is in use.
//!
//! A step frees what it can, moves the highest pages that are in use into lower free ones by
//! rewriting the ways to them, and cuts the file. Cut is only what neither of the two meta pages
//! needs, so that a damaged one can still be answered with the other.

use bytes::Bytes;

use crate::num::to_count;
use crate::page::{HEADER, Header, Kind, Page, PageId};
use crate::pages::Pages;
use crate::tree::{DEPTH_MAX, Root, Tree};
use crate::writer::{Touch, Writer, failure};
use crate::{Bucket, CommitError, ReadError};

/// What one step moves, not counting the branches on the way.
const STEP_BYTES: usize = 1 << 20;
/// Free pages that are left alone: the next commit needs some.
const SPARE_PAGES: u64 = 16;

impl Writer {
    /// Lowers the high-water mark of the next commit past pages that are free already.
    pub(crate) fn trim(&mut self) -> bool {
        self.release();
        let before = self.high_water;
        while self.free.remove(self.high_water - 1) {
            self.high_water -= 1;
        }
        self.high_water < before
    }

    /// Keys on the way to the highest pages, as far as there is room for them lower down.
    pub(crate) fn highest(&self, pages: &Pages, root: &Root) -> Result<Vec<Touch>, ReadError> {
        let unused = self.unused(root);
        let budget = to_count(STEP_BYTES / pages.page_bytes);
        let mut trial = self.free.clone();
        let mut touches = Vec::new();
        let (mut moved, mut free_above, mut waiting) = (0, 0, 0);
        for id in (2..self.high_water).rev() {
            if self.free.contains(id) {
                free_above += 1;
                continue;
            }
            if unused.contains(id) {
                continue;
            }
            waiting += 1;
            // Every moved page may take two branches with it.
            let room = self.free.len() - free_above;
            if moved + waiting > budget || room < 3 * (moved + waiting) + SPARE_PAGES {
                break;
            }
            if let Some(page) = head(pages, root, id)? {
                // A run needs neighbours; moved to the end it would only come back.
                let place = trial.take(u64::from(page.overflow()) + 1);
                if place.is_none_or(|place| place > id) {
                    break;
                }
                if let Some(touch) = way_to(pages, root, id, &page)? {
                    touches.push(touch);
                    moved += waiting;
                }
                waiting = 0;
            }
        }
        Ok(touches)
    }

    /// Notes the result of a step; `false` if the last ones did not lead anywhere. A large run may
    /// find no room although there seemed to be some.
    pub(crate) fn is_shrinking(&mut self) -> bool {
        /// Pages that a step frees are given back two steps later.
        const STEPS_MAX: u32 = 4;
        if self.high_water < self.shrunk_to {
            (self.shrunk_to, self.shrink_steps) = (self.high_water, 0);
            return true;
        }
        self.shrink_steps += 1;
        if self.shrink_steps < STEPS_MAX {
            return true;
        }
        (self.shrunk_to, self.shrink_steps) = (PageId::MAX, 0);
        false
    }

    /// Cuts the file behind the last page of two states; `true` if it became shorter.
    pub(crate) fn cut(
        &mut self,
        pages: &Pages,
        high_waters: (PageId, PageId),
    ) -> Result<bool, CommitError> {
        let needed = high_waters.0.max(high_waters.1).max(self.high_water);
        let len = needed * to_count(pages.page_bytes);
        if len >= self.file_len {
            return Ok(false);
        }
        let cut = pages.file.set_len(len).map_err(failure);
        self.poisoned |= matches!(cut, Err(CommitError::Io(_)));
        cut?;
        self.file_len = len;
        Ok(true)
    }
}

/// The page, if one starts here; `None` for the middle of a run.
fn head(pages: &Pages, root: &Root, id: PageId) -> Result<Option<Page>, ReadError> {
    let mut bytes = [0; HEADER];
    pages.fill_unchecked(id, &mut bytes)?;
    let header = Header::read(&bytes);
    let known = [Kind::Branch.flags(), Kind::Leaf.flags()].contains(&header.flags);
    if header.id != id || !known {
        return Ok(None);
    }
    match pages.read_once(id, root.high_water) {
        Ok(page) => Ok(Some(page)),
        // A value may look like a page; what is really damaged is found by those who need it.
        Err(ReadError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bucket that a page belongs to, and a key that leads to it.
fn way_to(pages: &Pages, root: &Root, id: PageId, page: &Page) -> Result<Option<Touch>, ReadError> {
    if id == root.page {
        // Every commit moves it; any key will do.
        return Ok(Some((Bucket::Meta, Bytes::new())));
    }
    let key = if page.count() > 0 { page.shared_key(0) } else { Bytes::new() };
    for bucket in Bucket::ALL {
        let Some(Tree::At(top)) = root.tree(bucket) else { continue };
        let mut at = *top;
        for _ in 0..DEPTH_MAX {
            if at == id {
                return Ok(Some((bucket, key)));
            }
            let above = pages.read(at, root.high_water)?;
            if above.kind() == Kind::Leaf {
                break;
            }
            at = above.child(above.find_child(&key));
        }
    }
    Ok(None)
}
