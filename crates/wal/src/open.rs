//! Opens a log: finds its segments, locks them, replays them, and cleans a torn end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use base::Index;
use vfs::{Dir, File, Lock, Open};

use crate::error::is_no_space;
use crate::prepare::is_prepared_name;
use crate::replay::{entries, first_needed, marks};
use crate::scan::{End, OpenSegment};
use crate::segment::segments_of;
use crate::tail::Tail;
use crate::{Mark, OpenError, Repaired, Replay};

/// Reads a log without changing or locking anything: for tools, and to import a data folder.
///
/// `choose` as in [`crate::Wal::open`]. What a repair would cut off is in [`Replay::repaired`].
/// Must not be used while a member writes the log: what it is just writing looks torn.
///
/// # Errors
///
/// As [`crate::Wal::open`], except that a lock is no obstacle.
pub fn read(
    parent: &dyn Dir,
    name: &str,
    choose: impl Fn(&[Mark]) -> Option<Mark>,
) -> Result<Replay, OpenError> {
    let dir = folder(parent, name)?;
    let segments = open_segments(&*dir, Open::Read)?;
    let opened = replay(&*dir, segments, choose)?;
    let repaired = opened.torn().map(|tail| opened.describe(tail, None));
    Ok(Replay { repaired, ..opened.replay })
}

/// Makes durable what reading a log finds, and cuts a torn end off: before anything else is made that
/// must not be ahead of it. The log is locked meanwhile.
///
/// # Errors
///
/// As [`crate::Wal::open`], and if there is no room for it.
pub fn settle(
    parent: &dyn Dir,
    name: &str,
    choose: impl Fn(&[Mark]) -> Option<Mark>,
) -> Result<(), OpenError> {
    let (_, opened) = open_to_write(parent, name, choose)?;
    match opened.segments.last() {
        Some(OpenSegment { path, .. }) if opened.is_unsure => {
            Err(OpenError::File { file: path.clone(), source: io::ErrorKind::StorageFull.into() })
        }
        Some(_) | None => Ok(()),
    }
}

/// A log that was read and checked.
pub(crate) struct Opened {
    pub(crate) replay: Replay,
    pub(crate) end: End,
    /// All that are there, oldest first.
    pub(crate) segments: Vec<OpenSegment>,
    /// The first one that the replay needed.
    pub(crate) first_needed: usize,
    /// There was no room to write the newest segment again: see [`write_again`].
    pub(crate) is_unsure: bool,
}

/// Opens a log for writing: locked, and its end clean and synced.
pub(crate) fn open_to_write(
    parent: &dyn Dir,
    name: &str,
    choose: impl Fn(&[Mark]) -> Option<Mark>,
) -> Result<(Arc<dyn Dir>, Opened), OpenError> {
    let dir = folder(parent, name)?;
    let segments = open_segments(&*dir, Open::Write)?;
    // Whoever writes holds the newest; the others are locked when it is known which are needed.
    lock(segments.last().expect("checked by open_segments"))?;
    let mut opened = replay(&*dir, segments, choose)?;
    let (newest, needed) =
        opened.segments[opened.first_needed..].split_last().expect("a log has a segment");
    for segment in needed {
        lock(segment)?;
    }
    opened.replay.repaired = match opened.torn() {
        None => None,
        Some(tail) => {
            base::probe::reached("wal: a start cuts a torn end off");
            let backup = repair(&*dir, newest, &opened.end, tail)
                .map_err(|source| OpenError::Repair { file: newest.path.clone(), source })?;
            Some(opened.describe(tail, backup))
        }
    };
    let folder = |source| OpenError::Folder { folder: dir.path(), source };
    remove_prepared(&*dir).map_err(folder)?;
    // What was read may only be in the kernel's memory, if the last process ended before its sync,
    // or by it. From now on it counts as durable, and others are told so.
    let trusted = base::probe::mutant("what-was-read-is-not-synced");
    let newest = opened.segments.last().expect("a log has a segment");
    if !trusted && !base::probe::mutant("what-a-failed-sync-lost-is-believed") {
        match write_again(&*newest.file, opened.end.offset) {
            Ok(()) => {}
            // A full disk keeps no member down: the first append does it.
            Err(AgainError::Write { source, .. }) if is_no_space(&source) => {
                opened.is_unsure = true;
            }
            Err(AgainError::Read { offset, source }) => {
                return Err(OpenError::Read { file: newest.path.clone(), offset, source });
            }
            Err(AgainError::Write { source, .. }) => {
                return Err(OpenError::File { file: newest.path.clone(), source });
            }
        }
    }
    for segment in opened.segments[opened.first_needed..].iter().filter(|_| !trusted) {
        let failed = |source| OpenError::File { file: segment.path.clone(), source };
        segment.file.sync_data().map_err(failed)?;
    }
    dir.sync().map_err(folder)?;
    // So may the log's name, if the last process ended between giving it and the sync of that. Who
    // may not read the folder around it cannot have made a log in it.
    match parent.sync() {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            return Err(OpenError::Folder { folder: parent.path(), source: error });
        }
        Ok(()) | Err(_) => {}
    }
    Ok((dir, opened))
}

impl Opened {
    fn torn(&self) -> Option<&Tail> {
        self.end.tail.as_ref()
    }

    fn describe(&self, tail: &Tail, backup: Option<String>) -> Repaired {
        let newest = self.segments.last().expect("a log has a segment");
        Repaired {
            segment: newest.name.to_string(),
            offset: self.end.offset,
            bytes: tail.end - self.end.offset,
            backup,
            lowest_index: tail.lowest_index,
        }
    }
}

fn folder(parent: &dyn Dir, name: &str) -> Result<Arc<dyn Dir>, OpenError> {
    let path = parent.path().join(name);
    let unread = |source| OpenError::Folder { folder: path.clone(), source };
    if !parent.exists(name).map_err(unread)? {
        return Err(OpenError::Missing { folder: path.clone() });
    }
    parent.subdir(name).map_err(unread)
}

fn open_segments(dir: &dyn Dir, how: Open) -> Result<Vec<OpenSegment>, OpenError> {
    let folder = dir.path();
    let names =
        dir.list().map_err(|source| OpenError::Folder { folder: folder.clone(), source })?;
    let names = segments_of(&names);
    if names.is_empty() {
        return Err(OpenError::Missing { folder });
    }
    for pair in names.windows(2) {
        let expected = pair[0].sequence + 1;
        if pair[1].sequence != expected {
            let (before, after) = (pair[0].to_string(), pair[1].to_string());
            return Err(OpenError::SegmentGap { folder, expected, before, after });
        }
    }
    let open = |name: crate::segment::SegmentName| {
        let path = folder.join(name.to_string());
        match dir.open(&name.to_string(), how) {
            Ok(file) => Ok(OpenSegment { name, path, file }),
            Err(source) => Err(OpenError::File { file: path, source }),
        }
    };
    names.into_iter().map(open).collect()
}

fn lock(segment: &OpenSegment) -> Result<(), OpenError> {
    let file = || segment.path.clone();
    match segment.file.try_lock(Lock::Record) {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::InUse { file: file() }),
        Err(source) => Err(OpenError::File { file: file(), source }),
    }
}

fn replay(
    dir: &dyn Dir,
    segments: Vec<OpenSegment>,
    choose: impl Fn(&[Mark]) -> Option<Mark>,
) -> Result<Opened, OpenError> {
    let (marks, nths, end) = marks(&segments)?;
    let Some(start) = choose(&marks) else {
        let commit = end.hard_state.commit;
        return Err(OpenError::NoMark { folder: dir.path(), count: marks.len(), commit });
    };
    let nth = marks.iter().position(|mark| *mark == start).map_or(segments.len(), |at| nths[at]);
    let Some(first_needed) = first_needed(&segments, start.position.index, nth) else {
        return Err(OpenError::MarkMissing { folder: dir.path(), start: start.position });
    };
    let entries = entries(&segments[first_needed..], &start)?;
    let replay = Replay {
        metadata: end.metadata,
        hard_state: end.hard_state,
        entries,
        marks,
        start,
        repaired: None,
    };
    Ok(Opened { replay, end, segments, first_needed, is_unsure: false })
}

/// Bytes that are read and written at once.
const SLICE: u64 = 1 << 20;

/// Keeps a copy of the torn segment, then makes everything behind the end zero, durably. Gives the
/// name of the copy, if there was room for it.
///
/// A crash on the way leaves a torn end again, with fewer remains.
fn repair(
    dir: &dyn Dir,
    segment: &OpenSegment,
    end: &End,
    tail: &Tail,
) -> io::Result<Option<String>> {
    let backup = format!("{}.broken", segment.name);
    let kept = match copy(dir, &*segment.file, tail.end, &backup) {
        Ok(()) => Some(backup),
        // What is cut off was never acknowledged; a full disk must not keep a member down for it.
        Err(error) if is_no_space(&error) => {
            if dir.exists(&backup)? {
                dir.remove(&backup)?;
            }
            None
        }
        Err(error) => return Err(error),
    };
    // Cutting and extending zeroes without needing space, so it works on a full disk.
    let len = segment.file.len()?;
    if !base::probe::mutant("torn-end-is-not-cut-off") {
        segment.file.set_len(end.offset)?;
        segment.file.set_len(len)?;
    }
    segment.file.sync_data()?;
    Ok(kept)
}

/// Writes the records of the newest segment where they are, for the sync that follows.
///
/// If the last process ended by a failed sync, the kernel shows what was written and takes it for
/// clean: no sync writes it again, and a power cut takes it (Rebello et al., "Can Applications Recover
/// from fsync Failures?"). Older segments were synced before the next one got its name.
///
/// There may be no room for that where files are not overwritten in place.
pub(crate) fn write_again(file: &dyn File, end: u64) -> Result<(), AgainError> {
    let mut at = 0;
    while at < end {
        let count = usize::try_from(SLICE.min(end - at)).expect("at most a slice");
        let mut bytes = vec![0; count];
        let offset = at;
        file.read_exact_at(&mut bytes, at).map_err(|source| AgainError::Read { offset, source })?;
        file.write_at(&bytes, at).map_err(|source| AgainError::Write { offset, source })?;
        at += count as u64;
    }
    Ok(())
}

/// Why a segment is not written again.
#[derive(Debug)]
pub(crate) enum AgainError {
    Read { offset: u64, source: io::Error },
    Write { offset: u64, source: io::Error },
}

fn copy(dir: &dyn Dir, from: &dyn File, len: u64, name: &str) -> io::Result<()> {
    let to = dir.open(name, Open::CreateOrWrite)?;
    to.set_len(0)?;
    let mut at = 0;
    while at < len {
        let count = usize::try_from(SLICE.min(len - at)).expect("at most a slice");
        let mut bytes = vec![0; count];
        from.read_exact_at(&mut bytes, at)?;
        to.write_at(&bytes, at)?;
        at += count as u64;
    }
    to.sync_data()?;
    dir.sync()
}

/// Removes segments that were being made when the last process ended.
fn remove_prepared(dir: &dyn Dir) -> io::Result<()> {
    for name in dir.list()?.iter().filter(|name| is_prepared_name(name)) {
        base::probe::reached("wal: a start finds a segment that was being made");
        dir.remove(name)?;
    }
    Ok(())
}

/// Whether a folder holds a log.
pub(crate) fn exists(parent: &dyn Dir, name: &str) -> io::Result<bool> {
    if !parent.exists(name)? {
        return Ok(false);
    }
    let has_extension =
        |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "wal");
    Ok(parent.subdir(name)?.list()?.iter().any(has_extension))
}

/// The last index that a log must continue from.
pub(crate) fn last_index(replay: &Replay) -> Index {
    replay.entries.last().map_or(replay.start.position.index, |entry| entry.index)
}
