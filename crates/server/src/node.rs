//! The node loop: one thread that owns the member and its log.
//!
//! It takes everything that waits as one batch, asks the member what to do, makes the log durable
//! with one sync, applies, and answers. While a sync runs the next batch gathers, so that a busy
//! server pays one sync for hundreds of requests and an idle one waits for nobody. Writing the log
//! from this thread instead of from one of its own saves two wake-ups for each batch
//! (docs/design/0003).
//!
//! A full disk stops nothing but writes: a batch that finds no room waits in its place, and those
//! behind it wait for it, since it can be neither acknowledged nor forgotten. Who comes meanwhile
//! is told at once that there is no space (G14).

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use base::{Index, LogPosition, MemberId};
use member::{Answer, Input, Member, Outputs, Turn, Undelivered};
use parking_lot::MutexGuard;
use state::{Applied, Refusal};
use storage::{Arrived, Log, Reserve, SnapshotError, Written};
use tokio::sync::watch;
use wal::AppendError;

use crate::answers::{Answers, Waiters};
use crate::committer::CommitterQueue;
use crate::handle::Published;
use crate::metrics::{Applies, Metrics};
use crate::node_queue::{Command, Gone, NodeCommands, Question};
use crate::peers::Peers;
use crate::peers::copies::Copied;

/// Requests taken as one batch.
const BATCH_LEN_MAX: usize = 4096;

/// Between two tries to write a log whose disk is full.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// What the loop reports to the rest of the server.
#[derive(Debug)]
pub(crate) struct NodeReports {
    pub(crate) answers: Answers,
    pub(crate) status: Arc<Published>,
    pub(crate) compacted: watch::Sender<i64>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why the loop ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The log cannot be written.
    #[error("writing the log")]
    Log(#[source] AppendError),
    /// The state machine cannot go on.
    #[error("applying the log")]
    Apply(#[source] member::Halt),
    /// A snapshot cannot be taken.
    #[error("taking a snapshot")]
    Snapshot(#[source] SnapshotError),
    /// A compaction cannot go on.
    #[error("compacting")]
    Compact(#[source] backend::ReadError),
    /// The others agreed on what this release does not know.
    #[error(
        "invalid downgrade; server version {own} is lower than determined cluster version \
         {cluster}; start a release that is as new as the cluster"
    )]
    TooOld {
        /// This program.
        own: &'static str,
        /// The cluster.
        cluster: String,
    },
}

/// What a loop is made of.
#[derive(Debug)]
pub(crate) struct NodeParts {
    pub(crate) member: Member,
    pub(crate) log: Log,
    pub(crate) reserve: Reserve,
    pub(crate) committer: CommitterQueue,
    pub(crate) backend: backend::Backend,
    pub(crate) tick: Duration,
    /// Between two steps of a compaction (KV-32).
    pub(crate) compaction_pause: Duration,
    /// A batch that takes longer to apply is counted.
    pub(crate) slow_apply: Duration,
    pub(crate) reports: NodeReports,
    pub(crate) commands: NodeCommands,
    /// The other members.
    pub(crate) peers: Peers,
}

/// What the loop knows of the room on the disks.
#[derive(Debug)]
struct Room {
    reserve: Reserve,
    /// Set from the first time there was none until the reserve is whole again: what makes the
    /// files grow is refused.
    low: bool,
    /// The database cannot be made durable for want of room.
    database_full: bool,
    /// When a log without any room is tried again.
    retry: Option<Instant>,
}

/// The loop before it runs.
#[derive(Debug)]
pub(crate) struct Node {
    member: Member,
    log: Log,
    room: Room,
    committer: CommitterQueue,
    backend: backend::Backend,
    commands: Receiver<Command>,
    gone: Gone,
    /// What the log was told last of this member's part.
    told_role: Option<(raft::RoleKind, base::Term)>,
    reports: NodeReports,
    tick: Duration,
    compaction_pause: Duration,
    applies: Applies,
    compaction_began: Option<Instant>,
    waiters: Waiters,
    started: Instant,
    compaction_due: Option<Instant>,
    peers: Peers,
    /// Copies of the state that wait for their message.
    copies: BTreeMap<MemberId, Box<Copied>>,
    /// Proposals that never reached the leader: they wait for another one.
    undelivered: Undelivered,
    /// Snapshots received that consensus has not asked to be stored yet, by their index.
    received: BTreeMap<Index, Arrived>,
    /// Set once this member was removed: when it ends.
    ends_at: Option<Instant>,
    stopping: bool,
}

/// How long a member that was removed goes on, so that the others hear of it (C16).
const REMOVED_PAUSE: Duration = Duration::from_secs(1);

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Self {
        let NodeParts {
            member,
            log,
            reserve,
            committer,
            backend,
            tick,
            compaction_pause,
            slow_apply,
            reports,
            commands,
            peers,
        } = parts;
        Self {
            member,
            log,
            room: Room { reserve, low: false, database_full: false, retry: None },
            committer,
            backend,
            commands: commands.receiver,
            gone: commands.gone,
            told_role: None,
            reports,
            tick,
            compaction_pause,
            applies: Applies::new(slow_apply),
            compaction_began: None,
            waiters: Waiters::default(),
            started: Instant::now(),
            // A compaction that a crash interrupted is taken up at once.
            compaction_due: Some(Instant::now()),
            peers,
            copies: BTreeMap::new(),
            undelivered: Undelivered::default(),
            received: BTreeMap::new(),
            ends_at: None,
            stopping: false,
        }
    }

    /// Runs until it is stopped.
    ///
    /// # Errors
    ///
    /// The log or the state failed; the process must end.
    pub(crate) fn run(mut self) -> Result<(), NodeError> {
        let mut out = Outputs::default();
        let was_low = self.room.reserve.has_sign();
        self.room.reserve.grow_in_passing();
        self.member.start(0, &mut out).map_err(NodeError::Apply)?;
        if was_low && self.has_raised_no_space() {
            // Raised by the process before this one, which left the sign: to be taken back.
            self.on_no_room(&mut out)?;
        }
        out.members_changed = true;
        self.settle(&mut out)?;
        let mut next_tick = Instant::now() + self.tick;
        while !self.stopping {
            let now = Instant::now();
            if next_tick <= now {
                self.look_after_heartbeats(now - next_tick);
                self.step(Input::Tick, &mut out)?;
                self.log_role();
                self.look_after_room(&mut out)?;
                self.forget_log(&mut out)?;
                self.forget_gone(&mut out)?;
                next_tick = (next_tick + self.tick).max(now);
            }
            if self.ends_at.is_some_and(|end| end <= now) {
                break;
            }
            let wake = self.compaction_due.map_or(next_tick, |due| due.min(next_tick));
            match self.wait(wake, &mut out)? {
                Ok(first) => self.take_batch(first, &mut out)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.settle(&mut out)?;
            self.compact()?;
        }
        self.write_hint(&mut out)?;
        self.reports.status.stopped.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The next command, if one comes in time. A hint for the log is written while there is nothing
    /// else to do.
    fn wait(
        &mut self,
        until: Instant,
        out: &mut Outputs,
    ) -> Result<Result<Command, RecvTimeoutError>, NodeError> {
        match self.commands.try_recv() {
            Ok(command) => return Ok(Ok(command)),
            Err(TryRecvError::Disconnected) => return Ok(Err(RecvTimeoutError::Disconnected)),
            Err(TryRecvError::Empty) => {}
        }
        if self.write_hint(out)? {
            self.settle(out)?;
        }
        Ok(self.commands.recv_timeout(until.saturating_duration_since(Instant::now())))
    }

    /// Takes what waits in the queue and gives it to the member as one turn.
    fn take_batch(&mut self, first: Command, out: &mut Outputs) -> Result<(), NodeError> {
        let Turn { mut messages, mut proposals, mut reads } = Turn::default();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Ask { question, ticket, reply } => {
                    self.waiters.insert(ticket, reply);
                    match question {
                        Question::Propose(proposal) => proposals.push(proposal),
                        Question::Read(ticket) => reads.push(ticket),
                        Question::Other(input) => self.step(input, out)?,
                    }
                }
                Command::Receive(received) => messages.extend(received),
                Command::Rare(news) => self.on_news(news, out)?,
                Command::Stop => self.stopping = true,
            }
            let room = messages.len() + proposals.len() + reads.len() < BATCH_LEN_MAX;
            next = if room { self.commands.try_recv().ok() } else { None };
        }
        if self.room.retry.is_some() {
            // The log takes nothing, so this is certain not to be done.
            let refused = || Answer::Applied(Applied::Refused(Refusal::NoSpace));
            out.answers.extend(proposals.drain(..).map(|proposal| (proposal.ticket, refused())));
        }
        let turn = Turn { messages, proposals, reads };
        if turn.is_empty() { Ok(()) } else { self.step(Input::Turn(turn), out) }
    }

    /// Does what the member asked for, until it asks for nothing more.
    fn settle(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        loop {
            // Clients first: what is left to do may wait a little longer, unless it is news of the
            // members, which those that asked for a change may rely on.
            let has_news =
                out.members_changed || out.leader_changed || out.removed || out.restored.is_some();
            if !has_news && !out.answers.is_empty() {
                self.answer(out);
            }
            self.send(out)?;
            self.log.push(out.persist.drain(..));
            if !self.log.has_only_hint() && self.write_next(out)? {
                continue;
            }
            self.take_news(out)?;
            if out.send.is_empty() && out.persist.is_empty() {
                break;
            }
        }
        if out.compaction_begun {
            out.compaction_begun = false;
            self.compaction_due = Some(Instant::now());
        }
        self.answer(out);
        self.committer.consider(&self.backend);
        Ok(())
    }

    /// Tells everybody how far this member is, then the callers their answers.
    fn answer(&mut self, out: &mut Outputs) {
        self.publish();
        if out.answers.is_empty() {
            return;
        }
        let mut answers = Vec::with_capacity(out.answers.len());
        for (ticket, answer) in out.answers.drain(..) {
            match self.waiters.remove(&ticket) {
                Some(reply) => answers.push((reply, answer)),
                None => self.reports.metrics.leases.on_unasked(&answer),
            }
        }
        self.reports.answers.give(answers);
    }

    /// Writes a hint that waits to go along with the next batch; whether it was written.
    fn write_hint(&mut self, out: &mut Outputs) -> Result<bool, NodeError> {
        Ok(self.log.has_hint() && self.write_next(out)?)
    }

    /// Writes the oldest batches; `false` if there are none or no room for them.
    fn write_next(&mut self, out: &mut Outputs) -> Result<bool, NodeError> {
        if self.room.retry.is_some_and(|retry| Instant::now() < retry) {
            return Ok(false);
        }
        let began = Instant::now();
        // Or what is given up here would go to the database.
        let (reserve, committer) = (&mut self.room.reserve, &self.committer);
        let written = self.log.write_next(move || Given::up(reserve, committer.hold_off()));
        let done = match written.map_err(NodeError::Log)? {
            Written::Nothing => return Ok(false),
            Written::Done(done) => done,
            Written::Full(error) => {
                if self.room.retry.is_none() {
                    tracing::warn!(error = %error, "the log takes nothing until there is room");
                }
                self.room.retry = Some(Instant::now() + FULL_DISK_PAUSE);
                self.on_no_room(out)?;
                return Ok(false);
            }
        };
        self.reports.metrics.disk.on_append(&done, began.elapsed());
        if self.room.retry.take().is_some() {
            tracing::info!("the log has room again");
        }
        self.peers.send(done.persisted.messages);
        match done.snapshot {
            None => self.step(Input::Persisted(done.persisted.token), out)?,
            Some(position) => self.restore(done.persisted.token, position, out)?,
        }
        if done.needed_room {
            self.on_no_room(out)?;
        }
        Ok(true)
    }

    /// From now on only what makes nothing grow is taken, and everybody is told.
    fn on_no_room(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        if !self.room.low {
            tracing::warn!(
                log = %self.log.folder().display(),
                "no space left on a disk; puts are refused until some is free, nothing is lost"
            );
        }
        self.room.low = true;
        self.room.reserve.leave_sign();
        self.reports.status.no_room.store(true, Ordering::Relaxed);
        self.step(Input::DiskFull, out)
    }

    fn has_raised_no_space(&self) -> bool {
        let own = self.member.id().0;
        let no_space = proto::etcdserverpb::AlarmType::Nospace;
        let mut raised = self.member.state().reads().alarms().into_iter();
        raised.any(|alarm| alarm.member_id == own && alarm.alarm() == no_space)
    }

    /// Makes the reserve, in small steps; after a full disk, ends the refusals once it is whole.
    fn look_after_room(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        if !self.room.low {
            self.room.reserve.grow_in_passing();
            // The alarm may have come after the room.
            return self.step(Input::Durable, out);
        }
        if self.room.retry.is_some() || self.room.database_full {
            return Ok(());
        }
        if self.room.reserve.regain() {
            tracing::info!("there is space again; puts are taken");
            self.room.low = false;
            self.reports.status.no_room.store(false, Ordering::Relaxed);
            self.step(Input::Durable, out)?;
        }
        Ok(())
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis())
            .expect("a process does not run for half a billion years")
    }

    fn step(&mut self, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        let began = Instant::now();
        self.member.step(self.now_millis(), input, out).map_err(NodeError::Apply)?;
        let tally = self.member.state().tally();
        self.applies.look(tally, began.elapsed(), &self.reports.metrics);
        Ok(())
    }

    fn compact(&mut self) -> Result<(), NodeError> {
        let Some(due) = self.compaction_due else { return Ok(()) };
        if Instant::now() < due {
            return Ok(());
        }
        let (began, before) = (Instant::now(), self.member.state().removed());
        let step = self.member.compact_step().map_err(NodeError::Compact)?;
        let started = *self.compaction_began.get_or_insert(began);
        let finished = matches!(step, mvcc::CompactStep::Finished(_));
        if step == mvcc::CompactStep::Idle || finished {
            self.compaction_began = None;
        }
        if step != mvcc::CompactStep::Idle {
            let total = finished.then(|| started.elapsed());
            let removed = self.member.state().removed();
            let store = &self.reports.metrics.store;
            store.on_compaction_step(began.elapsed(), before, removed, total);
        }
        self.compaction_due = match step {
            mvcc::CompactStep::Idle => None,
            mvcc::CompactStep::More => Some(Instant::now() + self.compaction_pause),
            mvcc::CompactStep::Finished(revision) => {
                tracing::info!(compact_revision = revision, "finished scheduled compaction");
                self.reports.compacted.send_replace(revision);
                Some(Instant::now() + self.compaction_pause)
            }
        };
        Ok(())
    }

    fn on_durable(&mut self, position: LogPosition, out: &mut Outputs) -> Result<(), NodeError> {
        // A mark beyond the commit index in the log is none.
        self.write_hint(out)?;
        self.room.database_full = false;
        if self.room.low {
            return self.look_after_room(out);
        }
        let conf_state = self.member.consensus().conf_state();
        let state = self.member.state();
        let began = Instant::now();
        match self.log.on_durable(position, conf_state, state, &self.backend) {
            Ok(taken) => {
                if let Some(encoding) = taken {
                    self.reports.metrics.disk.on_snapshot(began.elapsed(), encoding);
                }
                Ok(())
            }
            Err(error) if error.is_no_space() => {
                tracing::warn!(error = %error, "no snapshot until there is room");
                self.on_no_room(out)
            }
            Err(error) => Err(NodeError::Snapshot(error)),
        }
    }

    fn publish(&self) {
        let consensus = self.member.consensus();
        let published = &self.reports.status;
        let leader = consensus.leader().map_or(0, |leader| leader.0);
        let before = published.leader.swap(leader, Ordering::Relaxed);
        if leader != 0 && leader != before {
            self.reports.metrics.server.leader_changes.inc();
            *published.leader_since.lock() = Some(Instant::now());
        }
        let applied = self.member.applied();
        published.term.store(consensus.term().0, Ordering::Relaxed);
        published.committed.store(consensus.commit().0, Ordering::Relaxed);
        published.applied.store(applied.index.0, Ordering::Relaxed);
        let (id, conf_state) = (self.member.id(), consensus.conf_state());
        published.learner.store(conf_state.learners.contains(&id), Ordering::Relaxed);
        published.alone.store(self.member.leads_alone(), Ordering::Release);
    }
}

/// The reserve while the log uses its room.
struct Given<'a> {
    reserve: &'a mut Reserve,
    _held_off: MutexGuard<'a, ()>,
}

impl<'a> Given<'a> {
    fn up(reserve: &'a mut Reserve, held_off: MutexGuard<'a, ()>) -> Option<Self> {
        reserve.release().then_some(Self { reserve, _held_off: held_off })
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.reserve.take_back();
    }
}
