//! The log that is open for appending.
//!
//! One call, one buffer, one write, one sync. Invariants:
//! - everything before `offset` in the newest segment is good, everything behind it is zero unless
//!   `unclean`;
//! - `crc` is the checksum at `offset`;
//! - after a failed sync, or a failed write for another reason than a full disk, the log is
//!   poisoned: what the kernel dropped will not come back, so nothing may be acknowledged any more.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base::probe::{mutant, reached};
use base::{Index, Term};
use prost::Message as _;
use proto::etcdserverpb;
use raft::{Entry, HardState};
use vfs::{Dir, File, Lock, Open};

use crate::error::is_no_space;
use crate::open::{self, AgainError, last_index, open_to_write};
use crate::prepare::{Pipeline, Prepared, Preparer};
use crate::record::Encoder;
use crate::scan::OpenSegment;
use crate::segment::{SEGMENT_BYTES, SegmentName, segments_of};
use crate::{AppendError, CreateError, Mark, Metadata, OpenError, ReleaseError, Replay};

/// What few callers change.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment is closed by the first append that reaches this size; tests make it small.
    pub segment_bytes: u64,
    /// Does without syncing appends, as etcd's `--unsafe-no-fsync`: a power cut may lose and
    /// damage anything.
    pub unsafe_no_sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, unsafe_no_sync: false }
    }
}

/// A log, open for appending and locked.
#[derive(Debug)]
pub struct Wal {
    dir: Arc<dyn Dir>,
    options: Options,
    metadata: Vec<u8>,
    /// Those that are locked because they may still be needed, oldest first; the last is written.
    segments: VecDeque<Segment>,
    pipeline: Arc<Pipeline>,
    encoder: Encoder,
    offset: u64,
    /// Up to where the preparer is kept out of the newest segment.
    claimed: u64,
    crc: u32,
    /// The last one written: every segment repeats it.
    hard_state: HardState,
    /// The last entry written, or a mark ahead of it.
    last: Index,
    keep: usize,
    unclean: bool,
    /// What was read at the start may only be in the kernel's memory, for want of room: it is
    /// written again before anything is appended.
    unsure: bool,
    poisoned: bool,
}

#[derive(Debug)]
struct Segment {
    name: SegmentName,
    file: Arc<dyn File>,
}

/// Segments that are kept even if they are not needed, as etcd's `--max-wals`.
const KEEP: usize = 5;

/// A buffer that one large batch made bigger than this is not kept.
const BUFFER_KEPT_LEN: usize = 8 << 20;

/// What a new log begins with.
#[derive(Default)]
struct Beginning<'a> {
    entries: &'a [Entry],
    hard_state: Option<&'a HardState>,
}

impl Beginning<'_> {
    /// Gives the last index.
    fn encode(&self, encoder: &mut Encoder) -> Index {
        let mut last = Index(0);
        for entry in self.entries {
            assert!(entry.index == last.next(), "entry {} begins a log at {last}", entry.index);
            last = entry.index;
            encoder.entry(entry);
        }
        if let Some(state) = self.hard_state {
            assert!(
                state.commit <= last && state.term > Term(0),
                "{state:?} in a log that begins with {last} entries"
            );
            encoder.hard_state(state);
        }
        last
    }
}

impl Wal {
    /// Whether `<parent>/<name>` holds a log, that is, a name that ends in `.wal`.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn exists(parent: &dyn Dir, name: &str) -> io::Result<bool> {
        open::exists(parent, name)
    }

    /// Makes a log in `<parent>/<name>` that holds only its metadata and the mark 0.
    ///
    /// It is made beside and renamed, so that a crash leaves a whole log or none; durable on
    /// return. Anything that was in the folder is removed, unless it is a log.
    ///
    /// # Errors
    ///
    /// `Exists` if there is a log; else the operating system's.
    pub fn create(
        parent: &Arc<dyn Dir>,
        name: &str,
        metadata: &Metadata,
    ) -> Result<Self, CreateError> {
        Self::create_with(parent, name, metadata, Options::default())
    }

    /// As [`Wal::create`], with other sizes.
    ///
    /// # Errors
    ///
    /// As [`Wal::create`].
    pub fn create_with(
        parent: &Arc<dyn Dir>,
        name: &str,
        metadata: &Metadata,
        options: Options,
    ) -> Result<Self, CreateError> {
        let folder = parent.path().join(name);
        let failed = |source| CreateError::Io { folder: folder.clone(), source };
        if Self::exists(&**parent, name).map_err(failed)? {
            return Err(CreateError::Exists { folder });
        }
        Self::make(parent, name, metadata, &Beginning::default(), options).map_err(failed)
    }

    /// Makes a log that begins with entries: as [`Wal::create`] and [`Wal::append_and_sync`], but a
    /// crash leaves either all of them or no log. They must be small against a segment.
    ///
    /// # Errors
    ///
    /// As [`Wal::create`].
    ///
    /// # Panics
    ///
    /// If the entries are not those from 1 on, or the hard state is empty or beyond them.
    pub fn create_begun(
        parent: &Arc<dyn Dir>,
        name: &str,
        metadata: &Metadata,
        entries: &[Entry],
        hard_state: &HardState,
        options: Options,
    ) -> Result<Self, CreateError> {
        let folder = parent.path().join(name);
        let failed = |source| CreateError::Io { folder: folder.clone(), source };
        if Self::exists(&**parent, name).map_err(failed)? {
            return Err(CreateError::Exists { folder });
        }
        let beginning = Beginning { entries, hard_state: Some(hard_state) };
        Self::make(parent, name, metadata, &beginning, options).map_err(failed)
    }

    fn make(
        parent: &Arc<dyn Dir>,
        name: &str,
        metadata: &Metadata,
        beginning: &Beginning<'_>,
        options: Options,
    ) -> io::Result<Self> {
        let staged = format!("{name}.tmp");
        if parent.exists(&staged)? {
            reached("wal: a start finds a log that was being made");
            parent.remove_dir_all(&staged)?;
        }
        let metadata = encode_metadata(metadata);
        let mut encoder = Encoder::new(0);
        encoder.crc_record();
        encoder.metadata(&metadata);
        encoder.mark(&Mark::default());
        let last = beginning.encode(&mut encoder);

        let dir = parent.subdir(&staged)?;
        let file = dir.open(&SegmentName::FIRST.to_string(), Open::Create)?;
        if !file.try_lock(Lock::Record)? {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // Sparse: writing zeros here would delay the first start by the time of a whole segment.
        file.set_len(options.segment_bytes)?;
        file.write_at(&encoder.buffer, 0)?;
        file.sync_data()?;
        dir.sync()?;
        if parent.exists(name)? {
            parent.remove_dir_all(name)?;
        }
        parent.rename(&staged, name)?;
        parent.sync()?;

        let dir = parent.subdir(name)?;
        let pipeline = Pipeline::new(Arc::clone(&dir), options.segment_bytes);
        let offset = encoder.buffer.len() as u64;
        pipeline.fill_behind(dir.open(&SegmentName::FIRST.to_string(), Open::Write)?, offset);
        Ok(Self {
            pipeline,
            dir,
            options,
            metadata,
            segments: VecDeque::from([Segment { name: SegmentName::FIRST, file }]),
            offset,
            claimed: 0,
            crc: encoder.crc,
            encoder,
            hard_state: beginning.hard_state.copied().unwrap_or_default(),
            last,
            keep: KEEP,
            unclean: false,
            unsure: false,
            poisoned: false,
        })
    }

    /// Opens the log in `<parent>/<name>` at the mark that `choose` picks.
    ///
    /// `choose` is given all marks at or below the log's commit index, by index; it picks the
    /// newest whose state its caller has. The segments from there on are locked. Remains of a torn
    /// write at the end are cut off, after a copy was made; see [`Replay::repaired`] for what the
    /// caller must check then.
    ///
    /// # Errors
    ///
    /// `Missing` without a log, `InUse` if another process has it, `NoMark` if `choose` gave
    /// none; otherwise the log is damaged or the device failed, and nothing was changed.
    pub fn open(
        parent: &Arc<dyn Dir>,
        name: &str,
        choose: impl Fn(&[Mark]) -> Option<Mark>,
    ) -> Result<(Self, Replay), OpenError> {
        Self::open_with(parent, name, choose, Options::default())
    }

    /// As [`Wal::open`], with other sizes.
    ///
    /// # Errors
    ///
    /// As [`Wal::open`].
    pub fn open_with(
        parent: &Arc<dyn Dir>,
        name: &str,
        choose: impl Fn(&[Mark]) -> Option<Mark>,
        options: Options,
    ) -> Result<(Self, Replay), OpenError> {
        let (dir, opened) = open_to_write(&**parent, name, choose)?;
        let segment = |OpenSegment { name, file, .. }| Segment { name, file };
        let segments = opened.segments.into_iter().skip(opened.first_needed).map(segment).collect();
        let wal = Self {
            pipeline: Pipeline::new(Arc::clone(&dir), options.segment_bytes),
            dir,
            options,
            metadata: encode_metadata(&opened.replay.metadata),
            segments,
            encoder: Encoder::new(opened.end.crc),
            offset: opened.end.offset,
            claimed: u64::MAX,
            crc: opened.end.crc,
            hard_state: opened.replay.hard_state,
            last: last_index(&opened.replay),
            keep: KEEP,
            unclean: false,
            unsure: opened.is_unsure,
            poisoned: false,
        };
        Ok((wal, opened.replay))
    }

    /// Appends entries and then the hard state, unless that is all zero, in one write.
    ///
    /// Synced on return if there are entries or `must_sync` (the term or the vote changed);
    /// otherwise a crash may lose it, which for a commit index alone does no harm. Entries must
    /// follow the last one written, or overwrite from some earlier index on. Closes the segment
    /// when it is full; if there is no space for the next one, the log goes on in the old one. With
    /// `must_sync` alone, what the start read is made sure of.
    ///
    /// # Errors
    ///
    /// `NoSpace`: nothing of the call is in the log and it may be repeated. Any other: the member
    /// must stop; whether the batch is durable is unknown.
    ///
    /// # Panics
    ///
    /// If an earlier call failed for another reason than space, if entries do not follow, or if
    /// the hard state goes back or beyond the last entry.
    pub fn append_and_sync(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        must_sync: bool,
    ) -> Result<(), AppendError> {
        let hard_state = hard_state.filter(|state| !state.is_empty());
        if entries.is_empty() && hard_state.is_none() {
            return if must_sync && self.unsure { self.prepare_buffer() } else { Ok(()) };
        }
        base::probe::failpoint("raftBeforeSave");
        self.prepare_buffer()?;
        let mut last = self.last;
        if let Some(first) = entries.first() {
            assert!(
                first.index > Index(0) && first.index <= last.next(),
                "entry {} is appended behind {last}",
                first.index
            );
            last = first.index.previous();
        }
        for entry in entries {
            assert!(entry.index == last.next(), "entry {} is appended behind {last}", entry.index);
            last = entry.index;
            self.encoder.entry(entry);
        }
        if let Some(state) = hard_state {
            self.assert_follows(state, last);
            self.encoder.hard_state(state);
        }
        // Reading back relies on it that whatever follows an entry was written after its sync.
        self.write(must_sync || !entries.is_empty())?;
        self.last = last;
        if let Some(state) = hard_state {
            self.hard_state = *state;
        }
        base::probe::failpoint("raftAfterSave");
        self.cut_if_full()
    }

    /// Appends a snapshot record, synced on return: the state at `mark` is durable elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Wal::append_and_sync`].
    ///
    /// # Panics
    ///
    /// If an earlier call failed for another reason than space, or if a mark behind position 0 has
    /// no membership, which etcd since 3.5 does not accept.
    pub fn mark(&mut self, mark: &Mark) -> Result<(), AppendError> {
        let Mark { position, conf_state } = mark;
        assert!(
            position.index == Index(0) || conf_state.is_some(),
            "mark {position} without members"
        );
        base::probe::failpoint("raftBeforeSaveSnap");
        base::probe::failpoint("raftBeforeWALSaveSnaphot");
        self.prepare_buffer()?;
        self.encoder.mark(mark);
        self.write(true)?;
        base::probe::failpoint("raftAfterSaveSnap");
        self.last = self.last.max(position.index);
        self.cut_if_full()
    }

    /// Makes durable what was appended without a sync.
    ///
    /// # Errors
    ///
    /// As [`Wal::append_and_sync`], never `NoSpace`.
    ///
    /// # Panics
    ///
    /// If an earlier call failed for another reason than space.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.assert_healthy();
        self.sync_newest()
    }

    /// Unlocks segments that only hold entries before `index`, and removes the oldest of them
    /// beyond the number to keep. Gives how many were removed.
    ///
    /// A segment that somebody else has locked ends the removal, as in etcd.
    ///
    /// # Errors
    ///
    /// The operating system's; repeat it later, the log itself is unaffected.
    pub fn release(&mut self, index: Index) -> Result<usize, ReleaseError> {
        let needed = self.segments.iter().rposition(|segment| segment.name.first_index <= index);
        self.segments.drain(..needed.unwrap_or(0));
        let oldest_needed = self.segments[0].name;
        if self.keep == 0 {
            return Ok(0);
        }
        let folder = self.dir.path();
        let failed = |name: &str| {
            let file = folder.join(name);
            move |source| ReleaseError { file, source }
        };
        let names = segments_of(&self.dir.list().map_err(failed(""))?);
        let surplus = names.len().saturating_sub(self.keep);
        let mut removed = 0;
        for name in names.into_iter().take(surplus).filter(|name| *name < oldest_needed) {
            let name = name.to_string();
            let file = self.dir.open(&name, Open::Write).map_err(failed(&name))?;
            if !file.try_lock(Lock::Record).map_err(failed(&name))? {
                break;
            }
            self.dir.remove(&name).map_err(failed(&name))?;
            reached("wal: a segment is removed");
            removed += 1;
        }
        if removed > 0 {
            self.dir.sync().map_err(failed(""))?;
        }
        base::probe::failpoint("raftAfterWALRelease");
        Ok(removed)
    }

    /// How many of the newest segments [`Wal::release`] keeps at least; 0 keeps all, as etcd's
    /// `--max-wals` does. 5 unless set.
    pub fn set_keep(&mut self, segments: usize) {
        self.keep = segments;
    }

    /// Whether appends are not waited for from now on, as with [`Options::unsafe_no_sync`].
    pub fn set_unsafe_no_sync(&mut self, unsafe_no_sync: bool) {
        self.options.unsafe_no_sync = unsafe_no_sync;
    }

    /// What makes the next segment ahead of time on another thread.
    #[must_use]
    pub fn preparer(&self) -> Preparer {
        Preparer::new(&self.pipeline)
    }

    /// Does the preparer's work now.
    ///
    /// # Errors
    ///
    /// As [`Preparer::run_once`].
    pub fn prepare_next(&mut self) -> io::Result<bool> {
        self.preparer().run_once()
    }

    /// The last entry written, or a mark ahead of it.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.last
    }

    /// How many segments are locked because they may still be needed.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Whether what was read at the start may not be on the disk yet, for want of room to write it
    /// again. The next append that must be synced does that first.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Where the log is, for messages.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.dir.path()
    }
}

/// Writing.
impl Wal {
    fn assert_healthy(&self) {
        assert!(
            !self.poisoned,
            "the log in {:?} is used after a failed write or sync",
            self.folder()
        );
    }

    /// The same sentences are checked again when the log is read.
    fn assert_follows(&self, state: &HardState, last: Index) {
        let before = &self.hard_state;
        assert!(state.commit <= last, "commit {} is beyond the last entry {last}", state.commit);
        assert!(
            before.commit <= state.commit,
            "commit goes back: {} to {}",
            before.commit,
            state.commit
        );
        assert!(before.term <= state.term, "term goes back: {} to {}", before.term, state.term);
        assert!(state.term > Term(0), "vote or commit without a term: {state:?}");
    }

    fn newest(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }

    fn newest_path(&self) -> PathBuf {
        self.folder().join(self.newest().name.to_string())
    }

    /// An empty buffer at a clean end.
    fn prepare_buffer(&mut self) -> Result<(), AppendError> {
        self.assert_healthy();
        if self.unclean {
            self.take_back()?;
        }
        if self.unsure {
            self.make_sure()?;
        }
        self.encoder.buffer.clear();
        self.encoder.buffer.shrink_to(BUFFER_KEPT_LEN);
        self.encoder.crc = self.crc;
        Ok(())
    }

    fn write(&mut self, sync: bool) -> Result<(), AppendError> {
        let end = self.offset + self.encoder.buffer.len() as u64;
        if self.claimed < end {
            self.claimed = self.pipeline.claim_until(end);
        }
        let written = self.newest().file.write_at(&self.encoder.buffer, self.offset);
        if let Err(source) = written {
            if !is_no_space(&source) {
                return Err(self.poison_write(source));
            }
            reached("wal: a write finds no room and is taken back");
            self.unclean = true;
            let error = self.no_space(source, self.encoder.buffer.len());
            return match self.take_back() {
                // If there is not even space for that, the next append tries again.
                Ok(()) | Err(AppendError::NoSpace { .. }) => Err(error),
                Err(worse) => Err(worse),
            };
        }
        if sync && !mutant("log-is-not-synced") {
            self.sync_newest()?;
        }
        self.offset = end;
        self.crc = self.encoder.crc;
        Ok(())
    }

    /// Writes what was read at the start again, durably.
    fn make_sure(&mut self) -> Result<(), AppendError> {
        match open::write_again(&*self.newest().file, self.offset) {
            Ok(()) => {}
            Err(AgainError::Write { source, .. }) if is_no_space(&source) => {
                return Err(self.no_space(source, 0));
            }
            Err(AgainError::Write { offset, source } | AgainError::Read { offset, source }) => {
                self.poisoned = true;
                return Err(AppendError::Write { file: self.newest_path(), offset, source });
            }
        }
        self.sync_newest()?;
        self.unsure = false;
        reached("wal: what was read is written again once there is room");
        Ok(())
    }

    /// Removes what a failed write left, durably: if it stayed, a crash during the next append
    /// could mix the two. Only writes failed so far, so nothing is lost by going on.
    fn take_back(&mut self) -> Result<(), AppendError> {
        self.pipeline.stop_filling();
        match self.newest().file.set_len(self.offset) {
            Ok(()) => {}
            Err(source) if is_no_space(&source) => return Err(self.no_space(source, 0)),
            Err(source) => return Err(self.poison_write(source)),
        }
        self.sync_newest()?;
        self.unclean = false;
        Ok(())
    }

    fn sync_newest(&mut self) -> Result<(), AppendError> {
        if self.options.unsafe_no_sync {
            return Ok(());
        }
        base::probe::failpoint("walBeforeSync");
        let synced = self.newest().file.sync_data();
        base::probe::failpoint("walAfterSync");
        synced.map_err(|source| {
            reached("wal: a sync fails");
            self.poisoned = true;
            AppendError::Sync { file: self.newest_path(), source }
        })
    }

    fn poison_write(&mut self, source: io::Error) -> AppendError {
        reached("wal: a write fails");
        self.poisoned = true;
        AppendError::Write { file: self.newest_path(), offset: self.offset, source }
    }

    fn no_space(&self, source: io::Error, bytes: usize) -> AppendError {
        AppendError::NoSpace { file: self.newest_path(), offset: self.offset, bytes, source }
    }
}

/// Going on to the next segment.
impl Wal {
    /// The batch is durable when this is called, so a full disk is no error: the log goes on in
    /// the old segment, which no reader minds, and tries again with the next append.
    fn cut_if_full(&mut self) -> Result<(), AppendError> {
        if self.offset < self.options.segment_bytes {
            return Ok(());
        }
        self.pipeline.stop_filling();
        // The old segment gets its real length before the next one gets its name: only the newest
        // may have an unfinished end.
        match self.newest().file.set_len(self.offset) {
            Ok(()) => self.sync_newest()?,
            Err(source) if is_no_space(&source) => {
                reached("wal: the log goes on in a full segment for want of room");
                return Ok(());
            }
            Err(source) => return Err(self.poison_write(source)),
        }
        let sequence = self.newest().name.sequence + 1;
        let name = SegmentName { sequence, first_index: self.last.next() };
        let prepared = match self.pipeline.take() {
            Ok(prepared) => prepared,
            Err(source) if is_no_space(&source) => return Ok(()),
            Err(source) => return Err(self.poison_cut(name, source)),
        };
        match self.put_in_place(&prepared, name) {
            Ok(()) => {}
            Err(CutError::Sync(source)) => return Err(self.poison_cut(name, source)),
            Err(CutError::Write(source)) if is_no_space(&source) => {
                self.pipeline.discard(prepared);
                return Ok(());
            }
            Err(CutError::Write(source)) => return Err(self.poison_cut(name, source)),
        }
        reached("wal: a segment is begun");
        self.segments.push_back(Segment { name, file: Arc::clone(&prepared.file) });
        self.pipeline.done(prepared);
        self.offset = self.encoder.buffer.len() as u64;
        self.crc = self.encoder.crc;
        Ok(())
    }

    fn put_in_place(&mut self, prepared: &Prepared, name: SegmentName) -> Result<(), CutError> {
        self.encoder.buffer.clear();
        self.encoder.crc = self.crc;
        self.encoder.crc_record();
        self.encoder.metadata(&self.metadata);
        if !self.hard_state.is_empty() {
            self.encoder.hard_state(&self.hard_state);
        }
        prepared.file.write_at(&self.encoder.buffer, 0).map_err(CutError::Write)?;
        if !mutant("segment-is-named-before-its-sync") {
            prepared.file.sync_data().map_err(CutError::Sync)?;
        }
        self.dir.rename(prepared.name(), &name.to_string()).map_err(CutError::Write)?;
        if mutant("name-of-a-segment-is-not-synced") {
            return Ok(());
        }
        self.dir.sync().map_err(CutError::Sync)
    }

    fn poison_cut(&mut self, name: SegmentName, source: io::Error) -> AppendError {
        reached("wal: a segment cannot be begun");
        self.poisoned = true;
        AppendError::Cut { file: self.folder().join(name.to_string()), source }
    }
}

enum CutError {
    Write(io::Error),
    Sync(io::Error),
}

fn encode_metadata(metadata: &Metadata) -> Vec<u8> {
    let Metadata { member, cluster } = *metadata;
    etcdserverpb::Metadata { node_id: member.0, cluster_id: cluster.0 }.encode_to_vec()
}
