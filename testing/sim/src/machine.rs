//! One machine: a disk that can lose what was not synced, a clock, and a process that may run on it.
//!
//! The process is a real member over its real log and database; what the server does with threads
//! is done here by calls, in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;

use backend::Backend;
use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use member::{Input, Member, Outputs, RequestIds, Turn, Undelivered};
use raft::{Entry, HardState, Message, Persisted, Raft};
use state::members::{self, MemberObject};
use storage::{Arrived, BootError, BootOptions, Booted, Landing, Log, LogOptions, Origin, Place};
use vfs::Dir;
use vfs::fault::{FaultDir, FaultPlan};
use vfs::memory::MemoryDir;
use wal::Mark;

use crate::ambush::Ambush;
use crate::config::Config;
use crate::vows::Vows;
use crate::world::object;

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
    pub(crate) log: Log,
    pub(crate) backend: Backend,
    landing: Landing,
    pub(crate) is_writing: bool,
    /// What came and is to be given to the member as one.
    pub(crate) turn: Turn,
    /// What the log holds, as far as the member said.
    pub(crate) logged: BTreeMap<Index, Entry>,
    /// The commit index that was written to the log last.
    pub(crate) commit_written: Index,
    /// The term that the log holds or will hold.
    pub(crate) term: Term,
    pub(crate) received: BTreeMap<Index, Arrived>,
    /// Proposals that never reached the leader.
    pub(crate) undelivered: Undelivered,
    /// Copies for other members, until their message comes.
    pub(crate) copies: BTreeMap<MemberId, Copied>,
    /// Copies that are being read.
    copying: BTreeMap<MemberId, backend::Copy>,
    /// A copy that an operator saves.
    pub(crate) saving: Option<backend::Copy>,
    /// Up to where answers were compared.
    pub(crate) judged: Index,
    /// Whether users mattered and at which revision, when that was last looked at.
    pub(crate) users: (bool, u64),
    pub(crate) ids: RequestIds,
}

/// One state of a database, on its way to another member.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub(crate) position: LogPosition,
    database: Bytes,
    /// The v2 keys, as its message has them.
    v2_json: Bytes,
}

/// Bytes of a database that arrive at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Why a process ended or did not start.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The disk failed or the power is out; that happens.
    Disk(String),
    /// What the disk holds does not start: that never happens.
    Broken(String),
    /// The member was removed from the cluster and stays down.
    Removed,
}

impl Stop {
    fn of_start(error: &BootError) -> Self {
        if matches!(error, BootError::Removed { .. }) { Self::Removed } else { Self::of(error) }
    }

    /// What the disk did is the disk's fault; the rest is ours.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
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
        let Ok(dir) = self.disk.crash(seed).shared().subdir("member") else { return false };
        wal::read(&*dir, "wal", newest).is_ok_and(|replay| {
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
        let options = self.boot_options();
        let place = Place { data_dir: Arc::clone(&self.dir), wal: None };
        let opened = storage::open(&place, &options).map_err(|error| Stop::of_start(&error))?;
        let origin = (!opened.has_log()).then(|| self.origin(first));
        let booted = opened.boot(&options, origin).map_err(|error| Stop::of_start(&error))?;
        Ok(self.join(booted))
    }

    fn boot_options(&self) -> BootOptions {
        BootOptions {
            wal: wal::Options {
                segment_bytes: self.config.wal_segment_bytes,
                unsafe_no_sync: false,
            },
            backend: backend_options(),
            state: state::Options {
                lease_ttl_seconds_min: 2,
                learners_max: crate::members::LEARNERS_MAX,
                mvcc: mvcc::Options {
                    compact_batch_rows: self.config.compact_batch_rows,
                    event_ring_bytes_max: self.config.event_ring_bytes_max,
                    ..mvcc::Options::default()
                },
            },
            force_new_cluster: false,
            shrink_bytes_min: None,
        }
    }

    fn origin(&self, first: Option<&[MemberObject]>) -> Origin {
        match first {
            Some(members) => Origin::Founder { own: self.id, members: members.to_vec() },
            None => {
                let founders = (1..=self.config.members).map(|number| object(number).id);
                let founders: Vec<MemberId> = founders.collect();
                let cluster = members::cluster_id(&founders);
                Origin::Joining { own: self.id, cluster, members: Vec::new() }
            }
        }
    }

    fn join(&self, booted: Booted) -> Process {
        let config = raft::Config {
            election_ticks: self.config.election_ticks,
            pre_vote: self.config.pre_vote,
            message_bytes_max: self.config.message_bytes_max,
            inflight_messages_max: self.config.inflight_messages_max,
            ..raft::Config::new(self.id, self.seed)
        };
        let Booted { restored, state, backend, wal, snap_dir, .. } = booted;
        let HardState { term, commit, .. } = restored.hard_state;
        let logged = restored.entries.iter().map(|entry| (entry.index, entry.clone())).collect();
        let judged = state.applied().index;
        let users = state.reads().auth().version();
        let log_options = LogOptions {
            snapshot_entries: self.config.snapshot_entries,
            catchup_entries: self.config.catchup_entries,
            forget_step_entries: 2,
            joins_batches: self.config.joins_batches,
            ..LogOptions::default()
        };
        let log = Log::new(wal, Arc::clone(&snap_dir), &restored, &state, &log_options);
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
            log,
            backend,
            landing: Landing::new(snap_dir),
            is_writing: false,
            turn: Turn::default(),
            logged,
            commit_written: commit,
            term,
            received: BTreeMap::new(),
            undelivered: Undelivered::default(),
            copies: BTreeMap::new(),
            copying: BTreeMap::new(),
            saving: None,
            judged,
            users,
            ids: RequestIds::for_services(self.id, self.now_millis),
        }
    }
}

/// Of small databases.
pub(crate) fn backend_options() -> backend::Options {
    backend::Options { page_bytes: 1024, cache_bytes_max: 64 << 10, ..backend::Options::default() }
}

impl Process {
    /// Writes the oldest batch to the log, with those that may be joined to it.
    pub(crate) fn write(&mut self) -> Result<Written, Stop> {
        let written = self.log.write_next(|| None::<()>);
        let done = match written.map_err(|error| Stop::Disk(error.to_string()))? {
            storage::Written::Nothing => unreachable!("a write was due"),
            storage::Written::Full(_) => return Ok(Written::Full),
            storage::Written::Done(done) => done,
        };
        self.commit_written = done.commit.unwrap_or(self.commit_written);
        let Persisted { token, messages } = done.persisted;
        let Some(position) = done.snapshot else {
            return Ok(Written::Done(messages, Input::Persisted(token)));
        };
        let arrived = self.received.remove(&position.index);
        // It is installed before anything else happens.
        let Arrived { received, .. } = arrived.expect("a snapshot was received before");
        Ok(Written::Done(messages, Input::Restore(token, received)))
    }

    /// Makes the database durable and lets the log forget what it may; what to tell the member.
    pub(crate) fn commit(&mut self) -> Result<Input, Stop> {
        let durable = match self.backend.commit() {
            Ok(commit) => commit.durable,
            Err(backend::CommitError::NoSpace(_)) => {
                base::probe::reached("sim: no room for the database");
                return Ok(Input::DiskFull);
            }
            Err(error) => return Err(Stop::Disk(error.to_string())),
        };
        let conf_state = self.member.consensus().conf_state();
        match self.log.on_durable(durable, conf_state, self.member.state(), &self.backend) {
            Ok(taken) => {
                if taken.is_some() {
                    base::probe::reached("sim: the log is marked and may forget");
                }
                Ok(Input::Durable)
            }
            Err(error) if error.is_no_space() => Ok(Input::DiskFull),
            Err(error) => Err(Stop::of(&error)),
        }
    }

    /// A received snapshot took the place of the state.
    pub(crate) fn on_restored(&mut self, position: LogPosition) -> Result<(), Stop> {
        let conf_state = self.member.consensus().conf_state();
        let restored = self.log.on_restored(position, conf_state, self.member.state());
        restored.map_err(|error| Stop::of(&error))
    }

    /// What consensus is told to forget, if that is worth it.
    pub(crate) fn forget(&mut self) -> Option<Input> {
        self.log.forgettable(self.member.consensus()).map(Input::Compact)
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
        let database = copy.read(len).map_err(|error| Stop::of(&error))?;
        assert_eq!(database.len(), len, "a copy is read whole");
        let (position, conf_state) = (facts.position, storage::conf_state_of(&facts.members));
        let v2_json = facts.file().store_json().into();
        self.copies.insert(to, Copied { position, database, v2_json });
        Ok(Input::SendSnapshot { to, position, conf_state })
    }

    /// Stores a snapshot that came; whether it may be given to the member.
    pub(crate) fn receive_snapshot(&mut self, copied: &Copied) -> Result<bool, Stop> {
        let position = copied.position;
        let Some(turn) = self.landing.take() else {
            base::probe::reached("sim: a snapshot comes while another waits for its place");
            return Ok(false);
        };
        let store = || {
            let mut receiving = turn.begin(position.index)?;
            for chunk in copied.database.chunks(CHUNK_BYTES) {
                receiving.write(chunk)?;
            }
            receiving.finish()
        };
        let stored = match store() {
            Ok(stored) => stored,
            Err(error) if storage::is_no_space(&error) => return Ok(false),
            Err(error) => return Err(Stop::Disk(error.to_string())),
        };
        let options = self.member.state().options().clone();
        match stored.prepare(&self.backend, position, &options, &copied.v2_json) {
            Ok(arrived) => {
                self.received.insert(position.index, arrived);
                Ok(true)
            }
            Err(error) if error.is_no_space() => Ok(false),
            Err(error) => Err(Stop::of(&error)),
        }
    }

    /// Removes received snapshots that consensus did not want.
    pub(crate) fn discard_unwanted(&mut self) -> Result<(), Stop> {
        let wanted: Vec<Index> = self
            .log
            .waiting()
            .filter_map(|persist| Some(persist.snapshot.as_ref()?.position.index))
            .collect();
        let all: Vec<Index> = self.received.keys().copied().collect();
        for index in all.into_iter().filter(|index| !wanted.contains(index)) {
            let Arrived { received, .. } =
                self.received.remove(&index).expect("it was just listed");
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
                if self.logged.last_key_value().is_some_and(|(&last, _)| meta.position.index < last)
                {
                    base::probe::reached("sim: a snapshot takes the place of a longer log");
                }
                self.logged.clear();
                debug_assert!(meta.position.index > Index(0), "snapshots are of something");
            }
            if let Some(first) = persist.entries.first() {
                drop(self.logged.split_off(&first.index));
            }
            self.logged.extend(persist.entries.iter().map(|entry| (entry.index, entry.clone())));
        }
    }
}
