//! The root of a state, its buckets, and looking things up in them.
//!
//! A [`Root`] is one committed state. Whoever holds it may read every page it leads to: pages are
//! not written again before all holders of the states that used them are gone (design 4.3 rule 3).

use bytes::Bytes;

use crate::meta::{Meta, NO_FREELIST};
use crate::num::read_u64;
use crate::page::{BUCKET_FLAG, Kind, Page, PageId};
use crate::pages::Pages;
use crate::{Bucket, ReadError};

/// Deeper than any tree: two children a branch and 2^63 pages would be the worst. A damaged file
/// may lead in a circle.
pub(crate) const DEPTH_MAX: usize = 64;

/// Bytes before an inline bucket's page, or the whole value of another one.
pub(crate) const BUCKET_HEADER: usize = 16;

/// Where a bucket's rows are.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// In the value itself; always a leaf.
    Inline(Page),
    /// Below this page.
    At(PageId),
}

/// A bucket of the top level.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Bytes,
    pub(crate) sequence: u64,
    pub(crate) tree: Tree,
}

/// One committed state.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) number: u64,
    pub(crate) high_water: PageId,
    pub(crate) page: PageId,
    pub(crate) sequence: u64,
    /// In order of names; more than ours if a newer etcd has made others.
    pub(crate) entries: Vec<Entry>,
    places: [Option<usize>; Bucket::ALL.len()],
}

impl Root {
    /// A state of these buckets.
    pub(crate) fn new(meta: &Meta, entries: Vec<Entry>) -> Self {
        let place = |bucket: Bucket| {
            entries.binary_search_by(|entry| entry.name[..].cmp(bucket.name().as_bytes())).ok()
        };
        let places = Bucket::ALL.map(place);
        Self {
            number: meta.number,
            high_water: meta.high_water,
            page: meta.root,
            sequence: meta.root_sequence,
            entries,
            places,
        }
    }

    /// Reads the buckets of a state.
    pub(crate) fn load(pages: &Pages, meta: &Meta) -> Result<Self, ReadError> {
        let mut entries = Vec::new();
        let mut cursor = Cursor::seek(pages, meta.high_water, &Tree::At(meta.root), b"")?;
        while let Some((page, at)) = cursor.here() {
            entries.push(parse_entry(page, at).map_err(|what| {
                let name = String::from_utf8_lossy(page.key(at)).into_owned();
                ReadError::damaged(meta.root, format!("bucket {name:?}: {what}"))
            })?);
            cursor.advance()?;
        }
        Ok(Self::new(meta, entries))
    }

    /// What the meta page says of this state, but for the page size and the mark.
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            page_bytes: 0,
            root: self.page,
            root_sequence: self.sequence,
            freelist: NO_FREELIST,
            high_water: self.high_water,
            number: self.number,
            marked: false,
        }
    }

    /// A bucket, if it exists.
    pub(crate) fn tree(&self, bucket: Bucket) -> Option<&Tree> {
        self.places[bucket as usize].map(|place| &self.entries[place].tree)
    }

    /// The value of a key.
    pub(crate) fn find(
        &self,
        pages: &Pages,
        bucket: Bucket,
        key: &[u8],
    ) -> Result<Option<Bytes>, ReadError> {
        let Some(tree) = self.tree(bucket) else { return Ok(None) };
        let leaf = find_leaf(pages, self.high_water, tree, key)?;
        Ok(leaf.find(key).ok().map(|at| leaf.shared_value(at)))
    }
}

/// Reads a bucket's entry from a leaf of the root.
pub(crate) fn parse_entry(page: &Page, at: usize) -> Result<Entry, String> {
    if page.flags(at) & BUCKET_FLAG == 0 {
        return Err("it is not a bucket".to_owned());
    }
    let value = page.shared_value(at);
    if value.len() < BUCKET_HEADER {
        return Err(format!("{} bytes are too few for a bucket", value.len()));
    }
    let tree = match read_u64(&value, 0) {
        0 => {
            let page = Page::parse(value.slice(BUCKET_HEADER..), 0)?;
            if page.kind() != Kind::Leaf {
                return Err("its page in place is a branch".to_owned());
            }
            Tree::Inline(page)
        }
        id => Tree::At(id),
    };
    Ok(Entry { name: page.shared_key(at), sequence: read_u64(&value, 8), tree })
}

/// The leaf in which a key is, if it exists.
pub(crate) fn find_leaf(
    pages: &Pages,
    high_water: PageId,
    tree: &Tree,
    key: &[u8],
) -> Result<Page, ReadError> {
    let mut id = match tree {
        Tree::Inline(page) => return Ok(page.clone()),
        Tree::At(id) => *id,
    };
    for _ in 0..DEPTH_MAX {
        let below = |page: &Page| match page.kind() {
            Kind::Leaf => Err(page.clone()),
            Kind::Branch => Ok(page.child(page.find_child(key))),
        };
        let step = match pages.cache.look(id, below) {
            Some(step) => step,
            None => below(&pages.read(id, high_water)?),
        };
        match step {
            Err(leaf) => return Ok(leaf),
            Ok(child) => id = child,
        }
    }
    Err(ReadError::damaged(id, "the tree leads in a circle"))
}

/// A place among the rows of one tree, moving forward.
pub(crate) struct Cursor<'a> {
    pages: &'a Pages,
    high_water: PageId,
    /// Branches from the root down, with the child that was taken.
    above: Vec<(Page, usize)>,
    leaf: Page,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The first row at or above `from`.
    pub(crate) fn seek(
        pages: &'a Pages,
        high_water: PageId,
        tree: &Tree,
        from: &[u8],
    ) -> Result<Self, ReadError> {
        let (top, id) = match tree {
            Tree::Inline(page) => (page.clone(), 0),
            Tree::At(id) => (pages.read(*id, high_water)?, *id),
        };
        let mut cursor = Self { pages, high_water, above: Vec::new(), leaf: top, at: 0 };
        cursor.descend(id, |branch| branch.find_child(from))?;
        cursor.at = cursor.leaf.find(from).unwrap_or_else(|above| above);
        cursor.skip_ends()?;
        Ok(cursor)
    }

    /// The leaf and the place in it; `None` behind the last row.
    pub(crate) fn here(&self) -> Option<(&Page, usize)> {
        (self.at < self.leaf.count()).then_some((&self.leaf, self.at))
    }

    /// Moves to the next row.
    pub(crate) fn advance(&mut self) -> Result<(), ReadError> {
        self.at += 1;
        self.skip_ends()
    }

    /// From `self.leaf`, which may be a branch, down to a leaf.
    fn descend(
        &mut self,
        mut id: PageId,
        choose: impl Fn(&Page) -> usize,
    ) -> Result<(), ReadError> {
        while self.leaf.kind() == Kind::Branch {
            if self.above.len() >= DEPTH_MAX {
                return Err(ReadError::damaged(id, "the tree leads in a circle"));
            }
            let at = choose(&self.leaf);
            id = self.leaf.child(at);
            let below = self.pages.read(id, self.high_water)?;
            let branch = std::mem::replace(&mut self.leaf, below);
            self.above.push((branch, at));
        }
        Ok(())
    }

    /// Goes on to the next leaf while this one is at its end.
    fn skip_ends(&mut self) -> Result<(), ReadError> {
        while self.at >= self.leaf.count() {
            let Some((branch, at)) = self.above.pop() else { return Ok(()) };
            if at + 1 >= branch.count() {
                continue;
            }
            let id = branch.child(at + 1);
            self.leaf = self.pages.read(id, self.high_water)?;
            self.at = 0;
            self.above.push((branch, at + 1));
            self.descend(id, |_| 0)?;
        }
        Ok(())
    }
}
