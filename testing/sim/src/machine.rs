//! One machine: a disk that can lose what was not synced, a clock, and a process that may run on it.
//!
//! The process is a real member over its real log and database; what the server does with threads
//! is done here by calls, in the same order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use backend::{Backend, Incoming};
use base::{ClusterId, Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use member::{Input, Member, Outputs, RequestIds, Turn};
use prost::Message as _;
use proto::raftpb;
use raft::{ConfState, Entry, EntryKind, HardState, Message, Persist, Raft, Restored};
use state::members::{ChangeContext, MemberObject};
use state::{Received, State};
use vfs::fault::{FaultDir, FaultPlan};
use vfs::memory::MemoryDir;
use vfs::{Dir, Open};
use wal::{AppendError, Mark, Metadata, Wal};

use crate::ambush::Ambush;
use crate::config::Config;
use crate::vows::Vows;

/// One machine and what it is in the cluster.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(crate) struct Machine {
    pub(crate) id: MemberId,
    pub(crate) disk: MemoryDir,
    pub(crate) plan: Arc<FaultPlan>,
    pub(crate) process: Option<Process>,
    pub(crate) paused: bool,
    /// Thousandths by which its clock runs.
    pub(crate) rate: u64,
    /// Rises with every process: what was meant for an earlier one comes to nothing.
    pub(crate) epoch: u64,
    /// Whether it was removed from the cluster and stays down.
    pub(crate) removed: bool,
    /// Whether its disk is gone: it never starts again.
    pub(crate) lost: bool,
    /// Whether its disk was damaged: it may refuse to go on.
    pub(crate) damaged: bool,
    /// When its power goes.
    pub(crate) ambush: Option<Ambush>,
    /// What its member vouched for.
    pub(crate) vows: Vows,
    /// Whether it goes now, and as badly as can be.
    pub(crate) is_ambushed: bool,
    /// Its disk as it was some time ago.
    pub(crate) older: Option<MemoryDir>,
    /// Milliseconds by which its monotonic clock, and its wall clock, are ahead.
    pub(crate) ahead_millis: u64,
    pub(crate) wall_ahead_millis: u64,
    /// Until when its disk answers nothing, or slowly.
    pub(crate) hangs_until: u64,
    pub(crate) slow_until: u64,
    /// The members it starts with; `None` if it joins.
    pub(crate) first: Option<Vec<MemberObject>>,
}

/// How many of the states that a crash may leave are looked at for the worst.
const AMBUSH_TRIES: u64 = 32;

/// A process: a member with its files.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) member: Member,
    pub(crate) wal: Wal,
    pub(crate) backend: Backend,
    snap_dir: Arc<dyn Dir>,
    /// Batches for the log, in order.
    pub(crate) unwritten: VecDeque<Persist>,
    pub(crate) is_writing: bool,
    /// What came and is to be given to the member as one.
    pub(crate) turn: Turn,
    /// What the log holds, as far as the member said.
    pub(crate) log: BTreeMap<Index, Entry>,
    /// The commit index that was written to the log last.
    pub(crate) commit_written: Index,
    /// The term that the log holds or will hold.
    pub(crate) term: Term,
    pub(crate) received: BTreeMap<Index, Received>,
    /// Copies for other members, until their message comes.
    pub(crate) copies: BTreeMap<MemberId, (LogPosition, Bytes)>,
    /// Copies that are being read.
    copying: BTreeMap<MemberId, backend::Copy>,
    /// Up to where answers were compared.
    pub(crate) judged: Index,
    /// Whether users mattered and at which revision, when that was last looked at.
    pub(crate) users: (bool, u64),
    last_mark: Index,
    pub(crate) ids: RequestIds,
    snapshot_entries: u64,
    catchup_entries: u64,
    joins_batches: bool,
}

/// Why a process ended or did not start.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The disk failed or the power is out; that happens.
    Disk(String),
    /// What the disk holds does not start: that never happens.
    Broken(String),
}

impl Stop {
    /// What the disk did is the disk's fault; the rest is ours.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = Some(error);
        let mut is_io = false;
        while let Some(error) = cause {
            is_io |= error.is::<std::io::Error>();
            cause = error.source();
            if let Some(cause) = cause {
                text.push_str(": ");
                text.push_str(&cause.to_string());
            }
        }
        if is_io { Self::Disk(text) } else { Self::Broken(text) }
    }
}

/// What came of writing to the log.
#[derive(Debug)]
pub(crate) enum Written {
    /// Durable: messages that may go now, and what the member is to be told.
    Done(Vec<Message>, Input),
    /// No room; to be tried again.
    Full,
}

const CLUSTER: ClusterId = ClusterId(0xc1);

/// What wall clocks show at the beginning; they may be set back from there.
const WALL_FIRST_MILLIS: u64 = 1_700_000_000_000;

impl Machine {
    pub(crate) fn new(id: MemberId, rate: u64, first: Option<Vec<MemberObject>>) -> Self {
        Self {
            id,
            disk: MemoryDir::new(),
            plan: FaultPlan::new(),
            process: None,
            paused: false,
            rate,
            epoch: 0,
            removed: false,
            lost: false,
            damaged: false,
            ambush: None,
            vows: Vows::default(),
            is_ambushed: false,
            older: None,
            ahead_millis: 0,
            wall_ahead_millis: WALL_FIRST_MILLIS,
            hangs_until: 0,
            slow_until: 0,
            first,
        }
    }

    /// This machine's monotonic clock.
    pub(crate) fn clock(&self, now_millis: u64) -> u64 {
        now_millis * self.rate / 1000 + self.ahead_millis
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    /// Whether its disk may stop the member, or has.
    pub(crate) fn is_doubtful(&self) -> bool {
        (self.lost || self.damaged) && !self.removed
    }

    /// Ends the process; the disk keeps what was written.
    pub(crate) fn kill(&mut self) {
        self.end();
        self.disk = self.disk.copy();
    }

    /// Cuts the power; `seed` chooses what of the unsynced is kept.
    pub(crate) fn cut_power(&mut self, seed: u64) {
        self.end();
        let worst = match self.is_ambushed {
            true => (seed..seed.saturating_add(AMBUSH_TRIES)).find(|&seed| self.loses_term(seed)),
            false => None,
        };
        self.is_ambushed = false;
        self.disk = self.disk.crash(worst.unwrap_or(seed));
    }

    /// Whether after such a crash the log has entries of a term that nothing says has begun.
    fn loses_term(&self, seed: u64) -> bool {
        let newest = |marks: &[Mark]| marks.last().cloned();
        let read = wal::read(&*self.disk.crash(seed).shared(), "wal", newest);
        read.is_ok_and(|replay| {
            replay.entries.last().is_some_and(|last| replay.hard_state.term < last.term)
        })
    }

    fn end(&mut self) {
        self.process = None;
        self.paused = false;
        self.epoch += 1;
        self.plan = FaultPlan::new();
    }

    /// Starts a process on what the disk holds.
    pub(crate) fn start(
        &mut self,
        config: &Config,
        now_millis: u64,
        seed: u64,
    ) -> Result<(), Stop> {
        self.plan.forget_at_failed_syncs(&self.disk, seed);
        let dir = FaultDir::wrap(self.disk.shared(), &self.plan);
        let now_millis = now_millis + self.wall_ahead_millis;
        let start = Start { id: self.id, dir, config, now_millis, seed };
        let process = start.process(self.first.as_deref())?;
        self.process = Some(process);
        Ok(())
    }
}

/// What a process starts from.
struct Start<'a> {
    id: MemberId,
    dir: Arc<dyn Dir>,
    config: &'a Config,
    /// By its wall clock.
    now_millis: u64,
    seed: u64,
}

impl Start<'_> {
    fn process(&self, first: Option<&[MemberObject]>) -> Result<Process, Stop> {
        let disk = |error: std::io::Error| Stop::Disk(error.to_string());
        let snap_dir = self.dir.subdir("snap").map_err(disk)?;
        let aux = self.dir.subdir("aux").map_err(disk)?;
        let options = backend::Options {
            page_bytes: 1024,
            cache_bytes_max: 64 << 10,
            aux: Some(aux),
            ..backend::Options::default()
        };
        let has_log = Wal::exists(&*self.dir, "wal").map_err(disk)?;
        if has_log {
            self.finish_replacement(&snap_dir, &options)?;
        }
        let backend = Backend::open(&snap_dir, "db", &options).map_err(|error| Stop::of(&error))?;
        let state =
            State::open(&backend, &self.state_options()).map_err(|error| Stop::of(&error))?;
        let (wal, restored) = if has_log { self.replay(&state)? } else { self.bootstrap(first)? };
        Ok(self.join(wal, restored, state, backend, snap_dir))
    }

    fn state_options(&self) -> state::Options {
        state::Options {
            lease_ttl_seconds_min: 2,
            learners_max: 1,
            mvcc: mvcc::Options {
                compact_batch_rows: self.config.compact_batch_rows,
                event_ring_bytes_max: self.config.event_ring_bytes_max,
                ..mvcc::Options::default()
            },
        }
    }

    /// What a crash left to be done between the mark of a received snapshot and its installation.
    fn finish_replacement(
        &self,
        snap_dir: &Arc<dyn Dir>,
        options: &backend::Options,
    ) -> Result<(), Stop> {
        let newest = |marks: &[Mark]| marks.last().cloned();
        let replay = wal::read(&*self.dir, "wal", newest).map_err(|error| Stop::of(&error))?;
        let disk = |error: std::io::Error| Stop::Disk(error.to_string());
        let index = replay.start.position.index;
        let wanted = file_name(index);
        let names = snap_dir.list().map_err(disk)?;
        if names.contains(&wanted) {
            base::probe::reached("sim: a start finds a snapshot that came before the crash");
            let applied = match Backend::open(snap_dir, "db", options) {
                Ok(backend) => backend.applied().index,
                Err(error) => return Err(Stop::of(&error)),
            };
            if applied < index {
                base::probe::reached("sim: a start finishes the installation of a snapshot");
                // As in the server's: the mark must be durable before the database is ahead of it.
                wal::settle(&*self.dir, "wal", newest).map_err(|error| Stop::of(&error))?;
                Incoming::open(snap_dir, &wanted, options)
                    .map_err(|error| Stop::of(&error))?
                    .take_place("db")
                    .map_err(|error| Stop::Disk(error.to_string()))?;
            }
        }
        for name in snap_dir.list().map_err(disk)? {
            if name.ends_with(".snap.db") {
                snap_dir.remove(&name).map_err(disk)?;
            }
        }
        Ok(())
    }

    fn replay(&self, state: &State) -> Result<(Wal, Restored), Stop> {
        let applied = state.applied().index;
        let newest_below = |marks: &[Mark]| {
            marks.iter().rev().find(|mark| mark.position.index <= applied).cloned()
        };
        let options = self.wal_options();
        let (wal, replay) = Wal::open_with(&self.dir, "wal", newest_below, options)
            .map_err(|error| Stop::of(&error))?;
        let start = replay.start.position;
        let last = replay.entries.last().map_or(start.index, |entry| entry.index);
        if last < applied {
            return Err(Stop::Broken(format!("the log ends at {last}, applied is {applied}")));
        }
        // As it is in the log, though what is applied was committed: consensus writes what is missing.
        let hard_state = replay.hard_state;
        let members = state.members();
        let conf_state = if members.is_empty() {
            replay.start.conf_state.unwrap_or_default()
        } else {
            conf_state_of(&members)
        };
        let entries = replay.entries;
        let restored = Restored { hard_state, conf_state, snapshot: start, entries, applied };
        Ok((wal, restored))
    }

    fn bootstrap(&self, first: Option<&[MemberObject]>) -> Result<(Wal, Restored), Stop> {
        let metadata = Metadata { member: self.id, cluster: CLUSTER };
        let mut wal = Wal::create_with(&self.dir, "wal", &metadata, self.wal_options())
            .map_err(|error| Stop::Disk(format!("{error:?}")))?;
        let entries: Vec<Entry> =
            (1..).zip(first.unwrap_or_default()).map(|(at, member)| add(at, member)).collect();
        let mut hard_state = HardState::default();
        if let Some(last) = entries.last() {
            hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit: last.index };
            wal.append_and_sync(&entries, Some(&hard_state), true)
                .map_err(|error| Stop::Disk(format!("{error:?}")))?;
        }
        Ok((wal, Restored { hard_state, entries, ..Restored::default() }))
    }

    fn wal_options(&self) -> wal::Options {
        wal::Options { segment_bytes: self.config.wal_segment_bytes, unsafe_no_sync: false }
    }

    fn join(
        &self,
        wal: Wal,
        restored: Restored,
        state: State,
        backend: Backend,
        snap_dir: Arc<dyn Dir>,
    ) -> Process {
        let config = raft::Config {
            election_ticks: self.config.election_ticks,
            pre_vote: self.config.pre_vote,
            message_bytes_max: self.config.message_bytes_max,
            inflight_messages_max: self.config.inflight_messages_max,
            ..raft::Config::new(self.id, self.seed)
        };
        let HardState { term, commit, .. } = restored.hard_state;
        let log = restored.entries.iter().map(|entry| (entry.index, entry.clone())).collect();
        let last_mark = restored.snapshot.index;
        let judged = state.applied().index;
        let users = state.reads().auth().version();
        let member = Member::new(
            Raft::new(config, restored),
            state,
            backend.clone(),
            member::Options {
                id: self.id,
                quota_bytes: self.config.quota_bytes,
                election_millis: self.config.election_millis(),
                ids: RequestIds::for_member(self.id, self.now_millis),
            },
        );
        Process {
            member,
            wal,
            backend,
            snap_dir,
            unwritten: VecDeque::new(),
            is_writing: false,
            turn: Turn::default(),
            joins_batches: self.config.joins_batches,
            log,
            commit_written: commit,
            term,
            received: BTreeMap::new(),
            copies: BTreeMap::new(),
            copying: BTreeMap::new(),
            judged,
            users,
            last_mark,
            ids: RequestIds::for_services(self.id, self.now_millis),
            snapshot_entries: self.config.snapshot_entries,
            catchup_entries: self.config.catchup_entries,
        }
    }
}

impl Process {
    /// Writes the oldest batch to the log, with those that may be joined to it.
    pub(crate) fn write(&mut self) -> Result<Written, Stop> {
        let mut persist = self.unwritten.pop_front().expect("a write was due");
        while self.joins_batches
            && let Some(next) = self.unwritten.pop_front()
        {
            if let Err(next) = persist.absorb(next) {
                self.unwritten.push_front(*next);
                break;
            }
            base::probe::reached("sim: batches are written as one");
        }
        let mark = persist.snapshot.clone();
        let commit = persist.hard_state.as_ref().map(|state| state.commit);
        let persisted = persist.try_persist(|batch| {
            if let Some(meta) = &batch.snapshot {
                let conf_state = Some(meta.conf_state.clone());
                self.wal.mark(&Mark { position: meta.position, conf_state })?;
            }
            self.wal.append_and_sync(&batch.entries, batch.hard_state.as_ref(), batch.must_sync)
        });
        let persisted = match persisted {
            Ok(persisted) => persisted,
            Err(unpersisted) => {
                let raft::Unpersisted { persist, error } = *unpersisted;
                if let AppendError::NoSpace { .. } = error {
                    self.unwritten.push_front(persist);
                    return Ok(Written::Full);
                }
                return Err(Stop::Disk(error.to_string()));
            }
        };
        self.commit_written = commit.unwrap_or(self.commit_written);
        let Some(meta) = mark else {
            return Ok(Written::Done(persisted.messages, Input::Persisted(persisted.token)));
        };
        let index = meta.position.index;
        let received = self.received.remove(&index).expect("a snapshot was received before");
        self.last_mark = index;
        let input = Input::Restore(persisted.token, Box::new(received));
        Ok(Written::Done(persisted.messages, input))
    }

    /// Makes the database durable and lets the log forget what it may; what to tell the member.
    pub(crate) fn commit(&mut self) -> Result<Vec<Input>, Stop> {
        let durable = match self.backend.commit() {
            Ok(commit) => commit.durable,
            Err(backend::CommitError::NoSpace(_)) => {
                base::probe::reached("sim: no room for the database");
                return Ok(vec![Input::DiskFull]);
            }
            Err(error) => return Err(Stop::Disk(error.to_string())),
        };
        let mut inputs = vec![Input::Durable];
        if self.last_mark.0 + self.snapshot_entries <= durable.index.0 {
            let conf_state = Some(self.member.status().conf_state);
            match self.wal.mark(&Mark { position: durable, conf_state }) {
                Ok(()) => {}
                Err(AppendError::NoSpace { .. }) => return Ok(vec![Input::DiskFull]),
                Err(error) => return Err(Stop::Disk(error.to_string())),
            }
            self.wal.release(durable.index).map_err(|error| Stop::Disk(error.to_string()))?;
            self.last_mark = durable.index;
            base::probe::reached("sim: the log is marked and may forget");
            let to = Index(durable.index.0.saturating_sub(self.catchup_entries));
            inputs.push(Input::Compact(to));
        }
        Ok(inputs)
    }

    /// Pins the database for another member; whether there was room for that.
    pub(crate) fn begin_copy(&mut self, to: MemberId) -> Result<bool, Stop> {
        match self.backend.copy() {
            Ok(copy) => {
                self.copying.insert(to, copy);
                Ok(true)
            }
            Err(backend::CommitError::NoSpace(_)) => Ok(false),
            Err(error) => Err(Stop::Disk(error.to_string())),
        }
    }

    /// Reads what was pinned.
    pub(crate) fn read_copy(&mut self, to: MemberId) -> Result<Input, Stop> {
        // It may have been asked for twice, by two leaderships.
        let Some(mut copy) = self.copying.remove(&to) else {
            return Ok(Input::SnapshotSent(to, false));
        };
        let facts = state::SnapshotFacts::read(&copy).map_err(|error| Stop::of(&error))?;
        let len = usize::try_from(copy.len()).expect("a simulated database is small");
        let bytes = copy.read(len).map_err(|error| Stop::of(&error))?;
        assert_eq!(bytes.len(), len, "a copy is read whole");
        let conf_state = conf_state_of(&facts.members);
        self.copies.insert(to, (facts.position, bytes));
        Ok(Input::SendSnapshot { to, position: facts.position, conf_state })
    }

    /// Stores a snapshot that came with `message`; whether it may be given to the member.
    pub(crate) fn receive_snapshot(
        &mut self,
        position: LogPosition,
        bytes: &Bytes,
    ) -> Result<bool, Stop> {
        if self.received.contains_key(&position.index) {
            return Ok(true);
        }
        let name = file_name(position.index);
        let stored = || {
            let file = self.snap_dir.open(&name, Open::CreateOrWrite)?;
            file.set_len(0)?;
            file.write_at(bytes, 0)?;
            file.sync_data()?;
            self.snap_dir.sync()
        };
        match stored() {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(false),
            Err(error) => return Err(Stop::Disk(error.to_string())),
        }
        let incoming = match self.backend.open_incoming(&name) {
            Ok(incoming) => incoming,
            Err(backend::OpenError::Io { source, .. }) => {
                return if source.kind() == std::io::ErrorKind::StorageFull {
                    Ok(false)
                } else {
                    Err(Stop::Disk(source.to_string()))
                };
            }
            Err(error) => return Err(Stop::of(&error)),
        };
        let options = self.member.state().options().clone();
        let received =
            Received::prepare(incoming, position, &options).map_err(|error| Stop::of(&error))?;
        self.received.insert(position.index, received);
        Ok(true)
    }

    /// Removes received snapshots that consensus did not want.
    pub(crate) fn discard_unwanted(&mut self) -> Result<(), Stop> {
        let wanted: Vec<Index> = self
            .unwritten
            .iter()
            .filter_map(|persist| Some(persist.snapshot.as_ref()?.position.index))
            .collect();
        let all: Vec<Index> = self.received.keys().copied().collect();
        for index in all.into_iter().filter(|index| !wanted.contains(index)) {
            let received = self.received.remove(&index).expect("it was just listed");
            base::probe::reached("sim: a snapshot that arrived is not wanted");
            received.discard().map_err(|error| Stop::Disk(error.to_string()))?;
        }
        Ok(())
    }

    /// Takes note of what the log will hold.
    pub(crate) fn note_log(&mut self, out: &Outputs) {
        for persist in &out.persist {
            if let Some(state) = &persist.hard_state {
                self.term = state.term;
            }
            if let Some(meta) = &persist.snapshot {
                if self.log.last_key_value().is_some_and(|(&last, _)| meta.position.index < last) {
                    base::probe::reached("sim: a snapshot takes the place of a longer log");
                }
                self.log.clear();
                debug_assert!(meta.position.index > Index(0), "snapshots are of something");
            }
            if let Some(first) = persist.entries.first() {
                drop(self.log.split_off(&first.index));
            }
            self.log.extend(persist.entries.iter().map(|entry| (entry.index, entry.clone())));
        }
    }
}

/// The name of a received snapshot's file.
fn file_name(index: Index) -> String {
    format!("{:016x}.snap.db", index.0)
}

/// Who votes, by the members.
pub(crate) fn conf_state_of(members: &[MemberObject]) -> ConfState {
    let ids = |learner: bool| {
        let of_kind = members.iter().filter(|member| member.is_learner == learner);
        of_kind.map(|member| member.id).collect()
    };
    ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
}

/// The entry that makes a first member known.
fn add(index: u64, member: &MemberObject) -> Entry {
    let change = raftpb::ConfChange {
        id: Some(0),
        r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode as i32),
        node_id: Some(member.id.0),
        context: Some(ChangeContext::of(member.clone()).to_json()),
    };
    let data = change.encode_to_vec().into();
    Entry { kind: EntryKind::ConfChange, term: Term(1), index: Index(index), data }
}
