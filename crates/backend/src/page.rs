//! Branch and leaf pages, as they lie in the file.
//!
//! A [`Page`] is a run of bytes (one page and its overflow, or the image of an inline bucket) whose
//! structure was checked once, when it was parsed; after that every element lies inside it and the
//! keys ascend, so the getters neither check nor fail. Values are slices of the run, not copies.
//!
//! Format: docs/formats/backend.md. Source: bbolt: internal/common/page.go.
//!
//! ```text
//! header           0..8  id     8..10  flags   10..12  count   12..16  overflow
//! leaf element     0..4  flags  4..8   pos      8..12  ksize   12..16  vsize
//! branch element   0..4  pos    4..8   ksize    8..16  page id
//! ```

use std::cmp::Ordering;

use bytes::Bytes;

use crate::num::{read_u16, read_u32, read_u64, to_len};

/// Number of a page; its offset in the file divided by the page size.
pub(crate) type PageId = u64;

/// Bytes of a page's header.
pub(crate) const HEADER: usize = 16;
/// Bytes of one element's fixed part.
pub(crate) const ELEMENT: usize = 16;
/// Flag of a leaf element whose value is a bucket.
pub(crate) const BUCKET_FLAG: u32 = 1;
/// Flag of a meta page.
pub(crate) const META_FLAG: u16 = 4;
/// What the count field of a page can hold.
pub(crate) const COUNT_MAX: usize = 0xFFFF;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keys and the pages below them.
    Branch,
    /// Keys and values.
    Leaf,
}

impl Kind {
    /// The flags field.
    pub(crate) fn flags(self) -> u16 {
        match self {
            Self::Branch => 1,
            Self::Leaf => 2,
        }
    }
}

/// The first bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: PageId,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    /// Reads the header from the first 16 bytes.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self {
            id: read_u64(bytes, 0),
            flags: read_u16(bytes, 8),
            count: read_u16(bytes, 10),
            overflow: read_u32(bytes, 12),
        }
    }

    /// Writes the header to the first 16 bytes.
    pub(crate) fn write(&self, bytes: &mut [u8]) {
        bytes[0..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
    }
}

/// A branch or leaf whose structure is known to be right.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    bytes: Bytes,
    kind: Kind,
    count: usize,
}

impl Page {
    /// Checks the structure of a run of bytes that should be the page `id` (0: an inline bucket).
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn parse(bytes: Bytes, id: PageId) -> Result<Self, String> {
        if bytes.len() < HEADER {
            return Err(format!("{} bytes are too few for a header", bytes.len()));
        }
        let header = Header::read(&bytes);
        if header.id != id {
            return Err(format!("it says that it is page {}", header.id));
        }
        let kind = match header.flags {
            1 => Kind::Branch,
            2 => Kind::Leaf,
            other => return Err(format!("flags {other:#x} are neither branch nor leaf")),
        };
        let page = Self { bytes, kind, count: usize::from(header.count) };
        page.verify()?;
        Ok(page)
    }

    /// A page that this program has just made.
    pub(crate) fn trusted(bytes: Bytes, kind: Kind, count: usize) -> Self {
        Self { bytes, kind, count }
    }

    fn verify(&self) -> Result<(), String> {
        let data = HEADER + self.count * ELEMENT;
        if self.bytes.len() < data {
            return Err(format!("{} elements do not fit", self.count));
        }
        if self.kind == Kind::Branch && self.count == 0 {
            return Err("a branch without children".to_owned());
        }
        for at in 0..self.count {
            let (start, key_len, value_len) = self.extent(at);
            let end = start.saturating_add(key_len).saturating_add(value_len);
            if start < data || end > self.bytes.len() {
                return Err(format!("element {at} reaches outside"));
            }
            if at > 0 && self.key(at - 1) >= self.key(at) {
                return Err(format!("key {at} is not above the one before it"));
            }
        }
        Ok(())
    }

    /// Start of the key, its length, the value's length.
    #[inline]
    fn extent(&self, at: usize) -> (usize, usize, usize) {
        let element = HEADER + at * ELEMENT;
        match self.kind {
            Kind::Leaf => (
                element + wide(read_u32(&self.bytes, element + 4)),
                wide(read_u32(&self.bytes, element + 8)),
                wide(read_u32(&self.bytes, element + 12)),
            ),
            Kind::Branch => (
                element + wide(read_u32(&self.bytes, element)),
                wide(read_u32(&self.bytes, element + 4)),
                0,
            ),
        }
    }

    /// Branch or leaf.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of elements.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the whole run.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Pages behind the first one that belong to it.
    pub(crate) fn overflow(&self) -> u32 {
        Header::read(&self.bytes).overflow
    }

    /// The key of an element.
    #[inline]
    pub(crate) fn key(&self, at: usize) -> &[u8] {
        let (start, len, _) = self.extent(at);
        &self.bytes[start..start + len]
    }

    /// The key of an element, sharing the page's memory.
    pub(crate) fn shared_key(&self, at: usize) -> Bytes {
        let (start, len, _) = self.extent(at);
        self.bytes.slice(start..start + len)
    }

    /// The value of a leaf's element.
    pub(crate) fn value(&self, at: usize) -> &[u8] {
        let (start, key_len, value_len) = self.extent(at);
        &self.bytes[start + key_len..start + key_len + value_len]
    }

    /// The value of a leaf's element, sharing the page's memory.
    pub(crate) fn shared_value(&self, at: usize) -> Bytes {
        let (start, key_len, value_len) = self.extent(at);
        self.bytes.slice(start + key_len..start + key_len + value_len)
    }

    /// The flags of a leaf's element.
    pub(crate) fn flags(&self, at: usize) -> u32 {
        read_u32(&self.bytes, HEADER + at * ELEMENT)
    }

    /// The page below a branch's element.
    pub(crate) fn child(&self, at: usize) -> PageId {
        read_u64(&self.bytes, HEADER + at * ELEMENT + 8)
    }

    /// Where a key is, or where it would be.
    pub(crate) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match compare(self.key(middle), key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The element of a branch below which a key is, if it exists. Keys below the first one belong
    /// to the first child.
    pub(crate) fn find_child(&self, key: &[u8]) -> usize {
        match self.find(key) {
            Ok(at) => at,
            Err(above) => above.saturating_sub(1),
        }
    }
}

/// The order of two keys. Most are revisions, which differ in their first eight bytes; comparing
/// those as a number saves a call for all of them.
#[inline]
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(first), Some(second)) if first != second => {
            u64::from_be_bytes(*first).cmp(&u64::from_be_bytes(*second))
        }
        _ => a.cmp(b),
    }
}

fn wide(value: u32) -> usize {
    to_len(u64::from(value))
}
