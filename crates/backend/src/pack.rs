//! Filling pages with elements that come in order.
//!
//! A [`Packer`] fills one page after the other and holds the last full one back, so that the end
//! can be evened out: no branch is left with a single child (bbolt asserts that it has two), and,
//! where asked, the last two pages share what would otherwise be a full and a nearly empty one.
//! An element that is larger than a page gets a run of pages of its own.

use bytes::Bytes;

use crate::page::{COUNT_MAX, ELEMENT, HEADER, Header, Kind, PageId};

/// The elements of one page to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    elements: Vec<Element>,
    /// Keys and values, one behind the other.
    data: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Element {
    key_len: u32,
    value_len: u32,
    /// Page below a branch's element, flags of a leaf's.
    tag: u64,
}

impl Element {
    fn len(self) -> usize {
        self.key_len as usize + self.value_len as usize
    }
}

impl Node {
    fn with_room(page_bytes: usize) -> Self {
        Self { elements: Vec::with_capacity(32), data: Vec::with_capacity(page_bytes) }
    }

    /// Bytes of the page.
    pub(crate) fn size(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.data.len()
    }

    /// Number of elements.
    pub(crate) fn count(&self) -> usize {
        self.elements.len()
    }

    /// The smallest key.
    pub(crate) fn first_key(&self) -> Bytes {
        let len = self.elements.first().map_or(0, |first| first.key_len as usize);
        Bytes::copy_from_slice(&self.data[..len])
    }

    /// Pages of `page_bytes` that it takes.
    pub(crate) fn pages(&self, page_bytes: usize) -> usize {
        self.size().div_ceil(page_bytes)
    }

    /// The page as it goes to the file; `len` bytes, zeros at the end.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub(crate) fn encode(&self, kind: Kind, id: PageId, overflow: u32, len: usize) -> Vec<u8> {
        assert!(self.size() <= len, "a page of {} bytes in {len}", self.size());
        let mut bytes = Vec::with_capacity(len);
        bytes.resize(HEADER, 0);
        let count = u16::try_from(self.count()).expect("the packer counts elements");
        Header { id, flags: kind.flags(), count, overflow }.write(&mut bytes);
        let mut behind = 0;
        for (at, element) in self.elements.iter().enumerate() {
            let position = (self.elements.len() - at) * ELEMENT + behind;
            let position = u32::try_from(position).expect("a page is below 4 GiB");
            let mut fixed = [0; ELEMENT];
            match kind {
                Kind::Leaf => {
                    let flags = u32::try_from(element.tag).expect("flags have 32 bits");
                    fixed[0..4].copy_from_slice(&flags.to_le_bytes());
                    fixed[4..8].copy_from_slice(&position.to_le_bytes());
                    fixed[8..12].copy_from_slice(&element.key_len.to_le_bytes());
                    fixed[12..16].copy_from_slice(&element.value_len.to_le_bytes());
                }
                Kind::Branch => {
                    fixed[0..4].copy_from_slice(&position.to_le_bytes());
                    fixed[4..8].copy_from_slice(&element.key_len.to_le_bytes());
                    fixed[8..16].copy_from_slice(&element.tag.to_le_bytes());
                }
            }
            bytes.extend_from_slice(&fixed);
            behind += element.len();
        }
        bytes.extend_from_slice(&self.data);
        bytes.resize(len, 0);
        bytes
    }

    /// Key, value and tag of every element.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        let mut rest = &self.data[..];
        self.elements.iter().map(move |element| {
            let (key, others) = rest.split_at(element.key_len as usize);
            let (value, others) = others.split_at(element.value_len as usize);
            rest = others;
            (key, value, element.tag)
        })
    }

    fn push(&mut self, key: &[u8], value: &[u8], tag: u64) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("batches bound keys and values");
        self.elements.push(Element { key_len: len(key), value_len: len(value), tag });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    /// Moves everything from element `at` on into a new node.
    fn split_off(&mut self, at: usize) -> Self {
        let elements = self.elements.split_off(at);
        let kept: usize = self.elements.iter().map(|element| element.len()).sum();
        Self { elements, data: self.data.split_off(kept) }
    }

    fn append(&mut self, mut other: Self) {
        self.elements.append(&mut other.elements);
        self.data.append(&mut other.data);
    }
}

/// How the last pages of a run are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Full pages and a rest: more will be appended.
    Open,
    /// Evened out: what comes next is as likely in the middle.
    Even,
}

/// Fills pages of one kind.
#[derive(Debug)]
pub(crate) struct Packer {
    kind: Kind,
    page_bytes: usize,
    held: Option<Node>,
    open: Node,
    emitted: usize,
}

impl Packer {
    /// A packer without elements.
    pub(crate) fn new(kind: Kind, page_bytes: usize) -> Self {
        Self { kind, page_bytes, held: None, open: Node::with_room(page_bytes), emitted: 0 }
    }

    /// Adds an element behind all others; returns a full page that will not change any more. `tag`
    /// is the child of a branch, the flags of a leaf's element.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8], tag: u64) -> Option<Node> {
        let mut done = None;
        let size = self.open.size() + ELEMENT + key.len() + value.len();
        let full = size > self.page_bytes || self.open.count() == COUNT_MAX;
        if full && self.open.count() >= self.count_min() {
            let open = std::mem::replace(&mut self.open, Node::with_room(self.page_bytes));
            done = self.held.replace(open);
            self.emitted += 1;
        }
        self.open.push(key, value, tag);
        done
    }

    fn count_min(&self) -> usize {
        match self.kind {
            Kind::Branch => 2,
            Kind::Leaf => 1,
        }
    }

    /// Whether there is something, but less than a quarter of a page.
    pub(crate) fn is_small(&self) -> bool {
        self.emitted == 0 && self.open.count() > 0 && self.open.size() < self.page_bytes / 4
    }

    /// All elements, as long as they fit one page.
    pub(crate) fn single_page(&self) -> Option<&Node> {
        (self.emitted == 0).then_some(&self.open)
    }

    /// The last pages, at most two.
    pub(crate) fn finish(self, end: End) -> impl Iterator<Item = Node> {
        let Self { kind, page_bytes, held, mut open, .. } = self;
        let Some(mut held) = held else {
            return [None, (open.count() > 0).then_some(open)].into_iter().flatten();
        };
        let move_from = match kind {
            Kind::Branch if open.count() < 2 && held.count() < 3 => Some(0),
            Kind::Branch if open.count() < 2 => Some(held.count() - 1),
            Kind::Branch | Kind::Leaf if end == End::Even => even_point(&held, &open, page_bytes),
            Kind::Branch | Kind::Leaf => None,
        };
        if let Some(at) = move_from {
            let mut moved = held.split_off(at);
            moved.append(open);
            open = moved;
        }
        [(held.count() > 0).then_some(held), Some(open)].into_iter().flatten()
    }
}

/// From which element of a full page on the next one should take over, if that page is less than
/// half full and both fit afterwards.
fn even_point(full: &Node, rest: &Node, page_bytes: usize) -> Option<usize> {
    if rest.size() * 2 >= page_bytes || full.size() > page_bytes {
        return None;
    }
    let half = usize::midpoint(full.size(), rest.size());
    let mut moved = 0;
    let mut at = full.count();
    while at > 2 {
        let len = ELEMENT + full.elements[at - 1].len();
        if rest.size() + moved + len > half {
            break;
        }
        moved += len;
        at -= 1;
    }
    (at < full.count()).then_some(at)
}
