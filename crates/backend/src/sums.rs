//! Checksums of all pages, in a file beside the database.
//!
//! One CRC-32C for every page, over its number and its bytes. A commit writes the sums of its new
//! pages before its meta page. Those pages were free, so sums of pages in use never change: whatever
//! a crash leaves of the write, the sums of the older state are whole.
//!
//! The file is believed only if it holds a slot for the current commit and that commit's meta page
//! carries our mark; Go etcd's commits do not, nor do copies. Otherwise every page's structure is
//! checked, and the file is written anew.
//!
//! Format: docs/formats/backend.md.
//!
//! ```text
//! 0..512    slot of even commits:  0..8 "retcdsum"  8..12 version  12..16 page size
//! 512..1024 slot of odd commits   16..24 number   24..32 root page  32..40 root sequence
//!                                 40..48 high-water mark  48..52 1: known to be durable
//!                                 52..56 CRC-32C of 0..52
//! 4096..    CRC-32C of page i at 4096 + 4 i
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use vfs::{Dir, File, Open, OsDir};

use crate::ReadError;
use crate::meta::{Meta, NO_FREELIST};
use crate::num::{read_u32, read_u64, to_count, to_len};
use crate::page::PageId;

const MAGIC: &[u8; 8] = b"retcdsum";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 56;
/// Slots lie in different sectors, so that a torn write hurts one.
const SLOT_STRIDE: u64 = 512;
/// Both slots with what lies between them.
const SLOTS_BYTES: usize = 1024;
const SUMS_START: u64 = 4096;
const SUM_BYTES: u64 = 4;

/// The checksum of one page, for place `id`: a page in another's place does not match.
pub(crate) fn sum_of(id: PageId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&id.to_le_bytes()), bytes)
}

/// The checksums in memory: 8 MiB for a file of 8 GiB.
#[derive(Debug, Default)]
pub(crate) struct Table {
    sums: RwLock<Vec<u32>>,
}

impl Table {
    /// Compares one page.
    pub(crate) fn verify(&self, id: PageId, bytes: &[u8]) -> Result<(), ReadError> {
        let expected = self.sums.read().get(to_len(id)).copied();
        let found = sum_of(id, bytes);
        if expected == Some(found) {
            return Ok(());
        }
        let expected = expected.unwrap_or(0);
        let offset = id * to_count(bytes.len());
        let what = format!(
            "the checksum of the {} bytes at offset {offset} is {found:#010x} instead of \
             {expected:#010x}",
            bytes.len()
        );
        Err(ReadError::damaged(id, what))
    }

    /// Sets the checksums of neighbouring pages that nobody can read yet.
    pub(crate) fn set(&self, first: PageId, sums: &[u32]) {
        let start = to_len(first);
        let mut all = self.sums.write();
        if all.len() < start + sums.len() {
            all.resize(start + sums.len(), 0);
        }
        all[start..start + sums.len()].copy_from_slice(sums);
    }
}

/// What a slot says of a commit.
#[derive(Clone, Copy, Debug)]
struct Slot {
    meta: Meta,
    durable: bool,
}

/// Which checksums there are for a database that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// They speak of the state that was found: a byte that changed since is noticed.
    Matching,
    /// There are none, or none that ever counted.
    Missing,
    /// They speak of another state. The file was written by a program that keeps none, like Go
    /// etcd, or is a copy that was put here: what changed before is not noticed.
    Foreign,
}

/// What is found beside a database.
#[derive(Debug)]
pub(crate) enum Found {
    Matching(SumFile, Table),
    Missing,
    Foreign,
}

impl Found {
    /// The same for the users of the database.
    pub(crate) fn kind(&self) -> Checksums {
        match self {
            Self::Matching(..) => Checksums::Matching,
            Self::Missing => Checksums::Missing,
            Self::Foreign => Checksums::Foreign,
        }
    }
}

/// The file of checksums.
#[derive(Debug)]
pub(crate) struct SumFile {
    file: Arc<dyn File>,
}

impl SumFile {
    /// The file's name beside a database of this name.
    pub(crate) fn name(database: &str) -> String {
        format!("{database}.sum")
    }

    /// What a file of this name is called until the database that it speaks of has its place.
    fn next_name(name: &str) -> String {
        format!("{name}.next")
    }

    /// Opens the file, and reads its sums if it speaks of the state `meta`; or the one that waits to
    /// take its place, if that does. Whoever opens to write ends what a crash left of a replacement.
    pub(crate) fn open(dir: &dyn Dir, name: &str, meta: &Meta, how: Open) -> io::Result<Found> {
        let (found, next) = (Self::open_one(dir, name, meta, how)?, Self::next_name(name));
        if !dir.exists(&next)? {
            return Ok(found);
        }
        let writes = how != Open::Read;
        if let Found::Matching(..) = found {
            if writes {
                dir.remove(&next)?;
            }
            return Ok(found);
        }
        let waiting = Self::open_one(dir, &next, meta, how)?;
        if !matches!(waiting, Found::Matching(..)) {
            return Ok(found);
        }
        if writes {
            dir.rename(&next, name)?;
            dir.sync()?;
        }
        Ok(waiting)
    }

    fn open_one(dir: &dyn Dir, name: &str, meta: &Meta, how: Open) -> io::Result<Found> {
        let file = match dir.open(name, how) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) => return Err(error),
        };
        let this = Self { file };
        if this.never_counted()? {
            return Ok(Found::Missing);
        }
        let known =
            meta.marked && this.slot(meta.page())?.is_some_and(|slot| same(&slot.meta, meta));
        let wanted = SUMS_START + meta.high_water * SUM_BYTES;
        if !known || this.file.len()? < wanted {
            return Ok(Found::Foreign);
        }
        let mut bytes = vec![0; to_len(wanted - SUMS_START)];
        this.file.read_exact_at(&mut bytes, SUMS_START)?;
        let sums = bytes.chunks_exact(4).map(|sum| read_u32(sum, 0)).collect();
        Ok(Found::Matching(this, Table { sums: RwLock::new(sums) }))
    }

    /// Whether the file, if there is one, would be taken for that of the state `meta`.
    pub(crate) fn speaks_of(dir: &dyn Dir, name: &str, meta: &Meta) -> io::Result<bool> {
        let file = match dir.open(name, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(Self { file }.slot(meta.page())?.is_some_and(|slot| same(&slot.meta, meta)))
    }

    /// Whether no commit followed since the file was made.
    fn never_counted(&self) -> io::Result<bool> {
        let mut slots = [0; SLOTS_BYTES];
        match self.file.read_exact_at(&mut slots, 0) {
            Ok(()) => Ok(slots.iter().all(|byte| *byte == 0)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the file anew, without any slot: it counts from the next commit on.
    pub(crate) fn create(dir: &dyn Dir, name: &str, table: &Table) -> io::Result<Self> {
        let sums = table.sums.read();
        let mut bytes = vec![0; to_len(SUMS_START)];
        bytes.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
        vfs::replace(dir, name, &bytes)?;
        Ok(Self { file: dir.open(name, Open::Write)? })
    }

    /// The meta of the commit after `meta`, if that is known to have become durable. For a database
    /// whose other meta page is not valid: it was damaged later.
    pub(crate) fn lost_meta(dir: &dyn Dir, name: &str, meta: &Meta) -> io::Result<Option<Meta>> {
        let file = match dir.open(name, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let slot = Self { file }.slot(1 - meta.page())?;
        let next = |slot: &Slot| slot.durable && slot.meta.number == meta.number + 1;
        Ok(slot.filter(next).filter(|_| meta.marked).map(|slot| slot.meta))
    }

    fn slot(&self, page: PageId) -> io::Result<Option<Slot>> {
        let mut bytes = [0; SLOT_BYTES];
        match self.file.read_exact_at(&mut bytes, page * SLOT_STRIDE) {
            Ok(()) => Ok(decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the sums of neighbouring pages.
    pub(crate) fn write(&self, first: PageId, sums: &[u32]) -> io::Result<()> {
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.file.write_at(&bytes, SUMS_START + first * SUM_BYTES)
    }

    /// Writes the slot of a commit whose sums are all written, and makes the file long enough.
    pub(crate) fn announce(&self, meta: &Meta) -> io::Result<()> {
        let wanted = SUMS_START + meta.high_water * SUM_BYTES;
        if self.file.len()? < wanted {
            self.file.set_len(wanted)?;
        }
        self.file.write_at(&encode(meta, false), meta.page() * SLOT_STRIDE)
    }

    /// Notes that a commit is durable. Not synced: it only helps to tell a damaged meta page from
    /// one that was never finished.
    pub(crate) fn confirm(&self, meta: &Meta) -> io::Result<()> {
        self.file.write_at(&encode(meta, true), meta.page() * SLOT_STRIDE)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn same(slot: &Meta, meta: &Meta) -> bool {
    slot.number == meta.number
        && slot.root == meta.root
        && slot.root_sequence == meta.root_sequence
        && slot.high_water == meta.high_water
        && slot.page_bytes == meta.page_bytes
}

fn encode(meta: &Meta, durable: bool) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&meta.page_bytes.to_le_bytes());
    bytes[16..24].copy_from_slice(&meta.number.to_le_bytes());
    bytes[24..32].copy_from_slice(&meta.root.to_le_bytes());
    bytes[32..40].copy_from_slice(&meta.root_sequence.to_le_bytes());
    bytes[40..48].copy_from_slice(&meta.high_water.to_le_bytes());
    bytes[48..52].copy_from_slice(&u32::from(durable).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..52]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Slot> {
    let valid = &bytes[0..8] == MAGIC
        && read_u32(bytes, 8) == VERSION
        && read_u32(bytes, 52) == crc32c::crc32c(&bytes[..52]);
    let meta = Meta {
        page_bytes: read_u32(bytes, 12),
        number: read_u64(bytes, 16),
        root: read_u64(bytes, 24),
        root_sequence: read_u64(bytes, 32),
        high_water: read_u64(bytes, 40),
        freelist: NO_FREELIST,
        marked: true,
    };
    valid.then(|| Slot { meta, durable: read_u32(bytes, 48) == 1 })
}

/// Gives a database and its checksums in `aux`, if it has some, other names; durable on return.
/// Whatever has the name after a crash has checksums that speak of it, if it had some: those of the
/// new database wait beside the others until it has its place.
///
/// # Errors
///
/// The operating system's; which of the two has the name is then unknown.
pub fn rename_with_sums(
    dir: &dyn Dir,
    aux: Option<&dyn Dir>,
    from: &str,
    to: &str,
) -> io::Result<()> {
    let sums = SumFile::name(to);
    let next = SumFile::next_name(&sums);
    if let Some(aux) = aux {
        aux.rename(&SumFile::name(from), &next)?;
        aux.sync()?;
    }
    dir.rename(from, to)?;
    dir.sync()?;
    if let Some(aux) = aux {
        aux.rename(&next, &sums)?;
        aux.sync()?;
    }
    Ok(())
}

/// The folder of checksums of the database at `path`, with the name that the database has for them;
/// `None` if it does not lie in a data directory, or in one that has no checksums of it.
#[must_use]
pub fn sums_beside(path: &Path) -> Option<(Arc<dyn Dir>, String)> {
    let beside = |path: &Path| {
        let name = path.file_name()?.to_str()?.to_owned();
        let folder = match path.parent()? {
            folder if folder.as_os_str().is_empty() => Path::new("."),
            folder => folder,
        };
        let folder = folder.canonicalize().ok()?;
        let aux = folder.parent()?.join("aux");
        let is_there = folder.ends_with("snap") && aux.join(SumFile::name(&name)).is_file();
        is_there.then_some(())?;
        let aux: Arc<dyn Dir> = OsDir::open(aux).ok()?;
        Some((aux, name))
    };
    // The file's name may lead elsewhere: here from a folder that has the checksums, or to it.
    beside(path).or_else(|| beside(&path.canonicalize().ok()?))
}

/// Sums of the pages in a run of bytes.
pub(crate) fn sums_of(first: PageId, bytes: &[u8], page_bytes: usize) -> Vec<u32> {
    (first..).zip(bytes.chunks(page_bytes)).map(|(id, page)| sum_of(id, page)).collect()
}
