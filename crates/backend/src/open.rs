//! Opening a database file, ours or Go etcd's, or making a new one.
//!
//! A new file gets its name only when it is whole, so a file without a valid meta page is damaged,
//! never "new". What was found is synced before anything is written: the pages that only the state
//! before it used are about to be written again, and that is right only if it is durable.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Index, LogPosition, Term};
use bytes::Bytes;
use vfs::{Dir, File, Lock, Open};

use crate::cache::Cache;
use crate::db::Options;
use crate::delta::{APPLIED_INDEX_KEY, APPLIED_TERM_KEY};
use crate::free::PageSet;
use crate::meta::{Meta, Metas, NO_FREELIST};
use crate::num::{to_count, to_len};
use crate::pack::{End, Packer};
use crate::page::{BUCKET_FLAG, HEADER, Kind, Page, PageId};
use crate::pages::Pages;
use crate::sums::{Checksums, Found, SumFile, Table, sums_of};
use crate::tree::{Entry, Root, Tree};
use crate::walk::{complement, freelist_run, inspect, survey};
use crate::writer::{Writer, encode_entry};
use crate::{Bucket, OpenError, ReadError};

/// How often a locked file is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// What opening finds.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) pages: Pages,
    pub(crate) writer: Writer,
    pub(crate) root: Arc<Root>,
    pub(crate) applied: LogPosition,
    /// Which checksums there were.
    pub(crate) checksums: Checksums,
}

/// Opens or makes `name` in `dir` for reading and writing.
pub(crate) fn open(dir: &Arc<dyn Dir>, name: &str, options: &Options) -> Result<Opened, OpenError> {
    let path = dir.path().join(name).display().to_string();
    let io = |source| OpenError::Io { file: path.clone(), source };
    let file = obtain(&**dir, name, options).map_err(io)?;
    let Some(file) = file else { return Err(OpenError::Locked { file: path }) };
    if options.sync {
        // A replacement may have ended between its rename and the sync of it: the log goes on
        // behind what is found here, so the name must not be lost any more.
        options.aux.as_ref().map_or(Ok(()), |aux| aux.sync()).map_err(io)?;
        dir.sync().map_err(io)?;
    }
    open_file(file, &path, &SumFile::name(name), options, Trust::Structure)
}

/// What is believed of a file without checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Leaves are checked when they are read, as in etcd.
    Structure,
    /// Nothing: every page is looked at.
    Nothing,
}

/// Opens a file that is locked; its checksums are under `sum_name`.
pub(crate) fn open_file(
    file: Arc<dyn File>,
    path: &str,
    sum_name: &str,
    options: &Options,
    trust: Trust,
) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io { file: path.to_owned(), source };
    let file_len = file.len().map_err(io)?;
    let read = |error: ReadError| error.while_opening(path);
    let metas = find_metas(&*file).map_err(read)?;
    if options.sync {
        write_again(&*file, &metas.current).map_err(io)?;
        file.sync_data().map_err(io)?;
    }
    let meta = newest_meta(&*file, metas, sum_name, options).map_err(io)?;
    verify_length(&meta, file_len).map_err(read)?;
    let page_bytes = to_len(u64::from(meta.page_bytes));
    let known = match &options.aux {
        Some(aux) => SumFile::open(&**aux, sum_name, &meta, Open::Write).map_err(io)?,
        None => Found::Missing,
    };
    let cache = Cache::new(options.cache_bytes_max);
    let mut pages = Pages { file, page_bytes, cache, sums: None };
    let mut sum_file = None;
    let checksums = known.kind();
    let (root, free) = match (known, &options.aux) {
        (Found::Matching(file, table), _) => {
            sum_file = Some(file);
            pages.sums = Some(table);
            let root = Root::load(&pages, &meta).map_err(read)?;
            let used = match trust {
                Trust::Structure => survey(&pages, &meta, &root),
                Trust::Nothing => inspect(&pages, &meta, &mut |_, _| {}),
            };
            let free = match used {
                Ok(used) => complement(&used, meta.high_water),
                // What is damaged is refused when it is read; until it is repaired, no page can be
                // known to be free.
                Err(ReadError::Damaged { .. }) if trust == Trust::Structure => PageSet::new(),
                Err(error) => return Err(read(error)),
            };
            (root, free)
        }
        (Found::Missing | Found::Foreign, Some(aux)) => {
            let (used, table) = verify(&pages, &meta).map_err(read)?;
            sum_file = Some(SumFile::create(&**aux, sum_name, &table).map_err(io)?);
            pages.sums = Some(table);
            let root = Root::load(&pages, &meta).map_err(read)?;
            (root, complement(&used, meta.high_water))
        }
        (Found::Missing | Found::Foreign, None) => {
            let root = Root::load(&pages, &meta).map_err(read)?;
            let used = match trust {
                Trust::Structure => survey(&pages, &meta, &root),
                Trust::Nothing => inspect(&pages, &meta, &mut |_, _| {}),
            };
            (root, complement(&used.map_err(read)?, meta.high_water))
        }
    };
    let applied = applied(&pages, &root).map_err(read)?;
    // The meta page that names a stored freelist counts until the next commit.
    let limbo = freelist_run(&pages, &meta).map_err(read)?.into_iter().collect();
    let writer = Writer {
        free,
        retired: std::collections::VecDeque::new(),
        limbo,
        high_water: meta.high_water,
        file_len,
        sum_file,
        sync: options.sync,
        poisoned: false,
        shrunk_to: PageId::MAX,
        shrink_steps: 0,
    };
    Ok(Opened { pages, writer, root: Arc::new(root), applied, checksums })
}

/// Writes the meta pages where they are, for the sync that follows: if the last process ended by a
/// failed sync of one, the kernel shows it and takes it for clean, and no sync writes it again. The
/// pages that it names were synced before it was written.
fn write_again(file: &dyn File, meta: &Meta) -> io::Result<()> {
    let mut both = vec![0; 2 * to_len(u64::from(meta.page_bytes))];
    let count = read_up_to(file, &mut both, 0)?;
    match file.write_at(&both[..count], 0) {
        // Where files are not overwritten in place. A full disk keeps no member down.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

/// The meta that counts; if the other page is not valid, it may be that of a later commit which the
/// checksums know, and is written again.
fn newest_meta(
    file: &dyn File,
    metas: Metas,
    sum_name: &str,
    options: &Options,
) -> io::Result<Meta> {
    if let (None, Some(aux)) = (metas.other, &options.aux)
        && let Some(lost) = SumFile::lost_meta(&**aux, sum_name, &metas.current)?
    {
        let offset = lost.page() * u64::from(lost.page_bytes);
        file.write_at(&lost.encode(lost.page()), offset)?;
        file.sync_data()?;
        return Ok(lost);
    }
    Ok(metas.current)
}

/// The meta pages of a file, one at least.
pub(crate) fn find_metas(file: &dyn File) -> Result<Metas, ReadError> {
    let metas = Metas::find(|buffer, offset| read_up_to(file, buffer, offset));
    let metas = metas.map_err(|source| ReadError::Io { page: 0, source })?;
    metas.ok_or_else(|| ReadError::damaged(0, "neither meta page is valid"))
}

/// Checks that a file is long enough for a state.
pub(crate) fn verify_length(meta: &Meta, file_len: u64) -> Result<(), ReadError> {
    let pages = file_len / u64::from(meta.page_bytes);
    if pages < meta.high_water {
        let missing = meta.high_water - pages;
        let what = format!("the file ends before it, {missing} pages are missing");
        return Err(ReadError::damaged(pages, what));
    }
    Ok(())
}

fn read_up_to(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + to_count(done)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads the whole state; returns its pages and their checksums.
fn verify(pages: &Pages, meta: &Meta) -> Result<(PageSet, Table), ReadError> {
    let table = Table::default();
    // The file of checksums has a place for every page.
    table.set(0, &vec![0; to_len(meta.high_water)]);
    let mut seen = |id: PageId, page: &Page| {
        table.set(id, &sums_of(id, page.bytes(), pages.page_bytes));
    };
    let used = inspect(pages, meta, &mut seen)?;
    Ok((used, table))
}

/// How far the log is applied in a state; etcd 3.4 has no term.
pub(crate) fn applied(pages: &Pages, root: &Root) -> Result<LogPosition, ReadError> {
    let number = |key: &[u8]| -> Result<u64, ReadError> {
        match root.find(pages, Bucket::Meta, key)? {
            None => Ok(0),
            Some(value) => match <[u8; 8]>::try_from(&value[..]) {
                Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
                Err(_) => {
                    let name = String::from_utf8_lossy(key);
                    let what = format!("{name} in bucket meta has {} bytes", value.len());
                    Err(ReadError::damaged(root.page, what))
                }
            },
        }
    };
    Ok(LogPosition {
        index: Index(number(APPLIED_INDEX_KEY)?),
        term: Term(number(APPLIED_TERM_KEY)?),
    })
}

/// The locked file, made if there is none; `None` if another process keeps it locked.
fn obtain(dir: &dyn Dir, name: &str, options: &Options) -> io::Result<Option<Arc<dyn File>>> {
    let start = Instant::now();
    let left = || options.lock_timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
    loop {
        match dir.open(name, Open::Write) {
            Ok(file) if !file.is_empty()? => {
                if !lock(&*file, Lock::WholeFile, left())? {
                    return Ok(None);
                }
                if has_name(&*file, dir, name)? {
                    return Ok(Some(file));
                }
                // Whoever had it put another file in its place, as a defragmentation does.
                continue;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let staged = format!("{name}.tmp");
        let file = dir.open(&staged, Open::CreateOrWrite)?;
        if !lock(&*file, Lock::WholeFile, left())? {
            return Ok(None);
        }
        if dir.exists(name)? && !dir.open(name, Open::Read)?.is_empty()? {
            // Another process was faster while this one waited.
            continue;
        }
        file.set_len(0)?;
        file.write_at(&empty_image(options.page_bytes), 0)?;
        file.sync_data()?;
        dir.rename(&staged, name)?;
        dir.sync()?;
        return Ok(Some(file));
    }
}

/// Whether an open file is the one that has the name now.
fn has_name(file: &dyn File, dir: &dyn Dir, name: &str) -> io::Result<bool> {
    match dir.open(name, Open::Read) {
        Ok(named) => Ok(named.identity()? == file.identity()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for a lock; `false` when the time is over.
pub(crate) fn lock(file: &dyn File, kind: Lock, timeout: Option<Duration>) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        if file.try_lock(kind)? {
            return Ok(true);
        }
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            return Ok(false);
        }
        std::thread::sleep(LOCK_POLL);
    }
}

/// A database with its empty buckets: etcd's ten and one of ours.
fn empty_image(page_bytes: usize) -> Vec<u8> {
    const ROOT: PageId = 2;
    let mut packer = Packer::new(Kind::Leaf, page_bytes);
    for bucket in Bucket::ALL {
        let name = Bytes::from_static(bucket.name().as_bytes());
        let value = encode_entry(&Entry { name, sequence: 0, tree: Tree::Inline(empty_leaf()) });
        let full = packer.push(bucket.name().as_bytes(), &value, u64::from(BUCKET_FLAG));
        assert!(full.is_none(), "a few empty buckets fit every page size");
    }
    let root = packer.finish(End::Open).next().expect("there are buckets");
    let meta = Meta {
        page_bytes: u32::try_from(page_bytes).expect("page sizes have 32 bits"),
        root: ROOT,
        root_sequence: 0,
        freelist: NO_FREELIST,
        high_water: ROOT + 1,
        number: 2,
        marked: false,
    };
    let mut image = meta.encode(0);
    image.append(&mut Meta { number: 1, ..meta }.encode(1));
    image.append(&mut root.encode(Kind::Leaf, ROOT, 0, page_bytes));
    image
}

/// A leaf in place without rows.
fn empty_leaf() -> Page {
    let mut bytes = vec![0; HEADER];
    let flags = Kind::Leaf.flags();
    crate::page::Header { id: 0, flags, count: 0, overflow: 0 }.write(&mut bytes);
    Page::trusted(Bytes::from(bytes), Kind::Leaf, 0)
}
