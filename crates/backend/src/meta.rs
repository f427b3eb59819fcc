//! The two meta pages: which state of the file counts.
//!
//! A commit with number T writes page `T % 2`; the valid one with the higher number is current. The
//! pages that the other one leads to are intact until the next commit begins.
//!
//! Behind bbolt's 64 bytes, in what bbolt leaves zero, a commit of ours writes a mark that says
//! "checksums were kept for this state". Go etcd writes zeros there, which is how its commits are
//! noticed (see `sums`).
//!
//! Format: docs/formats/backend.md. Source: bbolt: internal/common/meta.go.
//!
//! ```text
//! page  16..20 magic   20..24 version   24..28 page size   28..32 flags
//!       32..40 root page  40..48 root sequence  48..56 freelist page  56..64 high-water mark
//!       64..72 number     72..80 checksum (FNV-1a 64 of 16..72)
//!       80..88 mark       88..92 CRC-32C of 16..88
//! ```

use crate::num::{read_u32, read_u64, to_count, to_len};
use crate::page::{HEADER, Header, META_FLAG, PageId};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const MARK: &[u8; 8] = b"retcdsum";

/// Bytes of a meta page that have a meaning.
pub(crate) const META_BYTES: usize = 92;
/// Where the freelist would be: nowhere, as etcd writes.
pub(crate) const NO_FREELIST: u64 = u64::MAX;
/// The page sizes that are looked for when the first meta page is damaged, as bbolt does.
pub(crate) const PAGE_BYTES_ALL: std::ops::RangeInclusive<u32> = 10..=24;

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_bytes: u32,
    pub(crate) root: PageId,
    pub(crate) root_sequence: u64,
    pub(crate) freelist: u64,
    /// The first page that was never used.
    pub(crate) high_water: PageId,
    pub(crate) number: u64,
    /// Whether checksums were kept for this state.
    pub(crate) marked: bool,
}

impl Meta {
    /// The meta of a page that starts with these bytes; `None` if it is not a valid one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < META_BYTES
            || read_u32(bytes, 16) != MAGIC
            || read_u32(bytes, 20) != VERSION
            || read_u64(bytes, 72) != fnv(&bytes[16..72])
        {
            return None;
        }
        let page_bytes = read_u32(bytes, 24);
        let shift = page_bytes.trailing_zeros();
        if !page_bytes.is_power_of_two() || !PAGE_BYTES_ALL.contains(&shift) {
            return None;
        }
        let marked =
            &bytes[80..88] == MARK && read_u32(bytes, 88) == crc32c::crc32c(&bytes[16..88]);
        Some(Self {
            page_bytes,
            root: read_u64(bytes, 32),
            root_sequence: read_u64(bytes, 40),
            freelist: read_u64(bytes, 48),
            high_water: read_u64(bytes, 56),
            number: read_u64(bytes, 64),
            marked,
        })
    }

    /// The page in which this meta belongs.
    pub(crate) fn page(&self) -> PageId {
        self.number % 2
    }

    /// The whole page, for place `id`.
    pub(crate) fn encode(&self, id: PageId) -> Vec<u8> {
        let mut bytes = vec![0; to_len(u64::from(self.page_bytes))];
        Header { id, flags: META_FLAG, count: 0, overflow: 0 }.write(&mut bytes[..HEADER]);
        bytes[16..20].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[20..24].copy_from_slice(&VERSION.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.page_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.root.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.root_sequence.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.freelist.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.high_water.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.number.to_le_bytes());
        let checksum = fnv(&bytes[16..72]);
        bytes[72..80].copy_from_slice(&checksum.to_le_bytes());
        if self.marked {
            bytes[80..88].copy_from_slice(MARK);
            let crc = crc32c::crc32c(&bytes[16..88]);
            bytes[88..92].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The two metas of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metas {
    /// The one that counts.
    pub(crate) current: Meta,
    /// The one before it, if it is valid.
    pub(crate) other: Option<Meta>,
}

impl Metas {
    /// Finds the metas of a file; `read` fills a buffer from an offset as far as there are bytes
    /// and returns how many. `None` if neither is valid.
    pub(crate) fn find<E>(
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<Option<Self>, E> {
        let mut buffer = [0; META_BYTES];
        // One meta page in the other's place: a write went astray.
        let astray = |bytes: &[u8], offset: u64| {
            let other = if offset == 0 { 1 } else { 0 };
            Header::read(bytes).id == other
        };
        let mut at = |offset: u64| -> Result<Option<Meta>, E> {
            let count = read(&mut buffer, offset)?;
            Ok(Meta::read(&buffer[..count]).filter(|_| !astray(&buffer, offset)))
        };
        let first = at(0)?;
        let second = match first {
            Some(first) => {
                let offset = u64::from(first.page_bytes);
                at(offset)?.filter(|second| second.page_bytes == first.page_bytes)
            }
            None => {
                let mut found = None;
                for shift in PAGE_BYTES_ALL {
                    let offset = to_count(1 << shift);
                    found = at(offset)?.filter(|meta| u64::from(meta.page_bytes) == offset);
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        Ok(match (first, second) {
            (Some(first), Some(second)) if first.number < second.number => {
                Some(Self { current: second, other: Some(first) })
            }
            (Some(first), second) => Some(Self { current: first, other: second }),
            (None, Some(second)) => Some(Self { current: second, other: None }),
            (None, None) => None,
        })
    }
}
