//! The world: machines, links, clients and what happens to them, one event after the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::MemberId;
use base::probe::reached;
use bytes::Bytes;
use member::{Answer, Input, Outputs, Proposal, Ticket};
use prost::Message as _;
use proto::{etcdserverpb as pb, raftpb};
use raft::{Body, Message, RoleKind};
use state::members::{ChangeContext, MemberObject};

use crate::Life;
use crate::client::Client;
use crate::config::Config;
use crate::judge::{Judge, Verdict};
use crate::machine::{Machine, Process, Stop, Written};
use crate::network::Network;
use crate::random::Random;
use crate::recorder::Recorder;
use crate::trace::Trace;
use crate::watcher::Watcher;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Tick { at: usize, epoch: u64 },
    Deliver { from: usize, to: usize, message: Message },
    DeliverSnapshot { from: usize, to: usize, message: Message, bytes: Bytes },
    SnapshotSent { at: usize, epoch: u64, to: MemberId, ok: bool },
    Write { at: usize, epoch: u64 },
    Commit { at: usize, epoch: u64 },
    Compact { at: usize, epoch: u64 },
    Copy { at: usize, epoch: u64, to: MemberId },
    ReadCopy { at: usize, epoch: u64, to: MemberId },
    Start { at: usize },
    Resume { at: usize, epoch: u64 },
    DiskHasRoom { at: usize, epoch: u64 },
    Call { at: usize, epoch: u64, input: Input },
    Client { number: usize },
    Watch { number: usize },
    Shrink { at: usize, epoch: u64 },
    Fault,
    ClusterVersion,
}

/// Clients that watch.
const WATCHERS: usize = 4;

/// Far more than a life has.
const EVENTS_MAX: u64 = 3_000_000;

/// Lines of the story that are kept.
const STORY_LINES_MAX: usize = 300;

/// One cluster's life.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) random: Random,
    pub(crate) now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) by_id: BTreeMap<MemberId, usize>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    pub(crate) waiting: BTreeMap<(usize, Ticket), usize>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) judge: Judge,
    pub(crate) recorder: Recorder,
    pub(crate) faulty: bool,
    pub(crate) calls: u64,
    pub(crate) counts: Counts,
    story: VecDeque<String>,
    pub(crate) trace: Trace,
    tell: bool,
    seed: u64,
    /// Faults drawn so far.
    pub(crate) faults: u64,
    /// Those that are left out.
    without: BTreeSet<u64>,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events handled.
    pub events: u64,
    /// Calls answered.
    pub answered: u64,
    /// Calls that nobody answered.
    pub unknown: u64,
    /// Processes started again.
    pub restarts: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Changes of the members decided.
    pub changes: u64,
    /// Events delivered to watchers.
    pub watched: u64,
    /// Leases that ended by time.
    pub expired: u64,
}

impl Counts {
    /// Adds what happened in another life.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.restarts += other.restarts;
        self.snapshots += other.snapshots;
        self.changes += other.changes;
        self.watched += other.watched;
        self.expired += other.expired;
    }
}

impl World {
    pub(crate) fn new(life: &Life) -> Self {
        let mut random = Random::new(life.seed);
        let config = Config::draw(&mut random);
        let first: Vec<MemberObject> = (1..=config.members).map(object).collect();
        let machines: Vec<Machine> = first
            .iter()
            .map(|member| {
                let rate = 1000 - config.drift + random.below(2 * config.drift + 1);
                Machine::new(member.id, rate, Some(first.clone()))
            })
            .collect();
        let by_id = machines.iter().enumerate().map(|(at, machine)| (machine.id, at)).collect();
        let clients = (0..config.clients).map(|n| Client::new(n % machines.len())).collect();
        let watchers = (0..WATCHERS).map(|n| Watcher::new(n, n % machines.len())).collect();
        Self {
            config,
            random,
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            machines,
            by_id,
            network: Network::default(),
            clients,
            waiting: BTreeMap::new(),
            watchers,
            judge: Judge::new(),
            recorder: Recorder::default(),
            faulty: true,
            calls: 0,
            counts: Counts::default(),
            story: VecDeque::new(),
            trace: Trace::new(),
            tell: life.tell,
            seed: life.seed,
            faults: 0,
            without: life.without.clone(),
        }
    }

    /// Lets everything begin.
    pub(crate) fn begin(&mut self) -> Verdict {
        for at in 0..self.machines.len() {
            self.start(at)?;
        }
        for number in 0..self.clients.len() {
            self.after(300, Event::Client { number });
        }
        for number in 0..self.watchers.len() {
            self.after(100, Event::Watch { number });
        }
        self.after(2000, Event::ClusterVersion);
        if self.config.fault_every_millis > 0 {
            self.after(1500, Event::Fault);
        }
        Ok(())
    }

    /// Handles events until `until_millis`.
    pub(crate) fn run_until(&mut self, until_millis: u64) -> Verdict {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until_millis
        {
            let ((time, number), event) = entry.remove_entry();
            self.now = time;
            self.counts.events += 1;
            self.trace.mix(time);
            self.trace.mix(number);
            if EVENTS_MAX < self.counts.events {
                return Err("the life does not come to an end".to_owned());
            }
            self.handle(event)?;
        }
        self.now = until_millis;
        Ok(())
    }

    /// The number of the next fault, unless it is left out, and the chance that is its own: without
    /// one fault the others stay what they are.
    pub(crate) fn next_fault(&mut self) -> (Option<u64>, Random) {
        let number = self.faults;
        self.faults += 1;
        let own =
            Random::new(self.seed.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        ((!self.without.contains(&number)).then_some(number), own)
    }

    pub(crate) fn after(&mut self, millis: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + millis, self.sequence), event);
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:>7} {}", self.now, what());
        self.trace.mix_text(&line);
        if self.tell {
            eprintln_line(&line);
        }
        if self.story.len() == STORY_LINES_MAX {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.story.iter().cloned().collect()
    }

    fn handle(&mut self, event: Event) -> Verdict {
        match event {
            Event::Tick { at, epoch } => self.on_tick(at, epoch),
            Event::Deliver { from, to, message } => self.on_deliver(from, to, message),
            Event::DeliverSnapshot { from, to, message, bytes } => {
                self.on_deliver_snapshot(from, to, message, bytes)
            }
            Event::SnapshotSent { at, epoch, to, ok } => {
                if self.is_current(at, epoch) {
                    self.step(at, Input::SnapshotSent(to, ok))?;
                }
                Ok(())
            }
            Event::Write { at, epoch } => self.on_write(at, epoch),
            Event::Commit { at, epoch } => self.on_commit(at, epoch),
            Event::Compact { at, epoch } => self.on_compact(at, epoch),
            Event::Copy { at, epoch, to } => self.on_copy(at, epoch, to),
            Event::ReadCopy { at, epoch, to } => self.on_read_copy(at, epoch, to),
            Event::Start { at } => self.on_start(at),
            Event::Resume { at, epoch } => {
                if self.machines[at].epoch == epoch {
                    self.machines[at].paused = false;
                    self.mark_resumed(at);
                }
                Ok(())
            }
            Event::DiskHasRoom { at, epoch } => {
                if self.machines[at].epoch == epoch {
                    self.machines[at].plan.clear();
                }
                Ok(())
            }
            Event::Call { at, epoch, input } => self.on_call(at, epoch, input),
            Event::Client { number } => self.on_client(number),
            Event::Watch { number } => self.on_watch(number),
            Event::Shrink { at, epoch } => self.on_shrink(at, epoch),
            Event::Fault => self.on_fault(),
            Event::ClusterVersion => self.on_cluster_version(),
        }
    }

    /// Whether a process of this epoch runs; if it is paused, what was due is put off.
    pub(crate) fn is_current(&self, at: usize, epoch: u64) -> bool {
        self.machines[at].epoch == epoch && self.machines[at].process.is_some()
    }

    fn put_off(&mut self, at: usize, event: Event) -> Option<Event> {
        if self.machines[at].paused {
            self.after(20, event);
            return None;
        }
        Some(event)
    }

    pub(crate) fn process(&mut self, at: usize) -> &mut Process {
        self.machines[at].process.as_mut().expect("the caller knows that it runs")
    }

    fn on_tick(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) {
            return Ok(());
        }
        let pause = self.config.tick_millis * 1000 / self.machines[at].rate;
        self.after(pause, Event::Tick { at, epoch });
        if self.machines[at].paused {
            return Ok(());
        }
        self.step(at, Input::Tick)?;
        self.retire_removed();
        Ok(())
    }

    fn on_deliver(&mut self, from: usize, to: usize, message: Message) -> Verdict {
        if self.network.is_cut(from, to) || self.machines[to].process.is_none() {
            reached("sim: a message is lost on a cut link or to a member that is down");
            return self.report_unreachable(from, to);
        }
        let Some(Event::Deliver { message, .. }) =
            self.put_off(to, Event::Deliver { from, to, message })
        else {
            return Ok(());
        };
        self.step(to, Input::Receive(vec![message]))
    }

    fn report_unreachable(&mut self, from: usize, to: usize) -> Verdict {
        let id = self.machines[to].id;
        if self.machines[from].is_running() && self.random.one_in(3) {
            self.step(from, Input::Unreachable(id))?;
        }
        Ok(())
    }

    fn on_deliver_snapshot(
        &mut self,
        from: usize,
        to: usize,
        message: Message,
        bytes: Bytes,
    ) -> Verdict {
        let (epoch, id) = (self.machines[from].epoch, self.machines[to].id);
        let reachable = !self.network.is_cut(from, to) && self.machines[to].is_running();
        if !reachable {
            reached("sim: a snapshot is lost on its way");
            self.after(10, Event::SnapshotSent { at: from, epoch, to: id, ok: false });
            return Ok(());
        }
        let Body::Snapshot(meta) = &message.body else { unreachable!("a snapshot goes with it") };
        let position = meta.position;
        let stored = match self.process(to).receive_snapshot(position, &bytes) {
            Ok(stored) => stored,
            Err(stop) => {
                reached("sim: the disk fails while a snapshot is stored");
                self.after(10, Event::SnapshotSent { at: from, epoch, to: id, ok: false });
                return self.stop(to, stop);
            }
        };
        if !stored {
            reached("sim: no room for a snapshot that arrives");
        }
        if self.process(to).is_writing {
            reached("sim: a snapshot arrives while the log is written");
        }
        self.after(10, Event::SnapshotSent { at: from, epoch, to: id, ok: stored });
        if stored {
            self.note(|| format!("{id} got the snapshot at {position}"));
            self.step(to, Input::Receive(vec![message]))?;
            if self.machines[to].process.is_some()
                && let Err(stop) = self.process(to).discard_unwanted()
            {
                return self.stop(to, stop);
            }
        }
        Ok(())
    }

    fn on_write(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Write { at, epoch }).is_none() {
            return Ok(());
        }
        self.process(at).is_writing = false;
        match self.process(at).write() {
            Ok(Written::Done(messages, input)) => {
                self.send(at, messages);
                self.step(at, input)
            }
            Ok(Written::Full) => {
                reached("sim: no room for the log");
                self.process(at).is_writing = true;
                self.after(200, Event::Write { at, epoch });
                self.step(at, Input::DiskFull)
            }
            Err(stop) => {
                self.mark_stop(at, "sim: the power goes while the log is written");
                reached("sim: the disk fails while the log is written");
                self.stop(at, stop)
            }
        }
    }

    fn on_commit(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) {
            return Ok(());
        }
        let pause = self.random.between(50, 400);
        self.after(pause, Event::Commit { at, epoch });
        // The thread that commits waits its turn behind the log's own writes of this member.
        if self.machines[at].paused || self.process(at).is_writing || self.is_hanging(at) {
            return Ok(());
        }
        match self.process(at).commit() {
            Ok(inputs) => {
                for input in inputs {
                    if self.is_current(at, epoch) {
                        self.step(at, input)?;
                    }
                }
                Ok(())
            }
            Err(stop) => {
                self.mark_stop(at, "sim: the power goes while the database is committed");
                reached("sim: the disk fails while the database is committed");
                self.stop(at, stop)
            }
        }
    }

    /// An operator gives back what the database's file does not use.
    fn on_shrink(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Shrink { at, epoch }).is_none() {
            return Ok(());
        }
        match self.process(at).backend.shrink_step() {
            Ok(true) => {
                reached("sim: a database is defragmented in several steps");
                let pause = self.random.between(1, 20);
                self.after(pause, Event::Shrink { at, epoch });
                Ok(())
            }
            Ok(false) | Err(backend::CommitError::NoSpace(_)) => Ok(()),
            Err(error) => {
                reached("sim: the disk fails while a database is defragmented");
                self.stop(at, Stop::Disk(error.to_string()))
            }
        }
    }

    fn on_compact(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Compact { at, epoch }).is_none() {
            return Ok(());
        }
        match self.process(at).member.compact_step() {
            Ok(mvcc::CompactStep::Idle) => Ok(()),
            Ok(mvcc::CompactStep::More | mvcc::CompactStep::Finished(_)) => {
                let pause = self.random.between(1, 50);
                self.after(pause, Event::Compact { at, epoch });
                Ok(())
            }
            Err(error) => self.stop(at, Stop::Disk(error.to_string())),
        }
    }

    fn on_copy(&mut self, at: usize, epoch: u64, to: MemberId) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Copy { at, epoch, to }).is_none()
        {
            return Ok(());
        }
        match self.process(at).begin_copy(to) {
            Ok(true) => {
                // It is read while the database goes on.
                let pause = self.random.below(600);
                self.after(pause, Event::ReadCopy { at, epoch, to });
                Ok(())
            }
            Ok(false) => self.step(at, Input::SnapshotSent(to, false)),
            Err(stop) => self.stop(at, stop),
        }
    }

    fn on_read_copy(&mut self, at: usize, epoch: u64, to: MemberId) -> Verdict {
        if !self.is_current(at, epoch)
            || self.put_off(at, Event::ReadCopy { at, epoch, to }).is_none()
        {
            return Ok(());
        }
        match self.process(at).read_copy(to) {
            Ok(input) => {
                self.step(at, input)?;
                if self.machines[at].process.is_some() {
                    self.process(at).copies.remove(&to);
                }
                Ok(())
            }
            Err(stop) => self.stop(at, stop),
        }
    }

    fn on_start(&mut self, at: usize) -> Verdict {
        if self.machines[at].process.is_some()
            || self.machines[at].removed
            || self.machines[at].lost
        {
            return Ok(());
        }
        self.counts.restarts += 1;
        self.start(at)
    }

    /// Starts a process on a machine.
    pub(crate) fn start(&mut self, at: usize) -> Verdict {
        let seed = self.random.next();
        let (id, now) = (self.machines[at].id, self.now);
        let started = self.machines[at].start(&self.config, now, seed);
        if let Err(stop) = started {
            self.mark_stop(at, "sim: the power goes while a member starts");
            reached("sim: the disk fails while a member starts");
            return self.stop(at, stop);
        }
        let (clock, epoch) = (self.machines[at].clock(now), self.machines[at].epoch);
        let process = self.process(at);
        let (applied, mut out) = (process.member.applied(), Outputs::default());
        let log: Vec<_> = process.log.values().cloned().collect();
        let begun = process.member.start(clock, &mut out);
        self.note(|| format!("{id} starts at {applied}"));
        for entry in &log {
            self.judge.on_logged(entry, now);
        }
        if let Err(halt) = begun {
            return self.halt(at, &halt);
        }
        let (tick, commit) = (self.random.below(100), self.random.between(50, 400));
        self.after(tick, Event::Tick { at, epoch });
        self.after(commit, Event::Commit { at, epoch });
        self.after(1, Event::Compact { at, epoch });
        self.absorb(at, out)
    }

    /// A process ends by its own will or the disk's.
    fn stop(&mut self, at: usize, stop: Stop) -> Verdict {
        let id = self.machines[at].id;
        let what = match stop {
            Stop::Disk(what) => what,
            Stop::Broken(what) => return Err(format!("{id} does not go on: {what}")),
        };
        let power = self.machines[at].plan.is_stopped();
        self.note(|| format!("{id} ends: {what}"));
        self.end(at, power);
        let pause = self.random.between(50, 2000);
        self.after(pause, Event::Start { at });
        Ok(())
    }

    fn halt(&mut self, at: usize, halt: &state::Halt) -> Verdict {
        match halt {
            state::Halt::Unknown { .. } => {
                Err(format!("{}: {halt}", self.machines[at].id))
            }
            state::Halt::Backend { source: backend::ReadError::Damaged { .. }, .. } => {
                Err(format!("{}: {halt:?}", self.machines[at].id))
            }
            state::Halt::Backend { .. } | state::Halt::Restore { .. } => {
                self.stop(at, Stop::Disk(format!("{halt:?}")))
            }
        }
    }

    /// Ends a process; with `power`, what was not synced may be lost.
    pub(crate) fn end(&mut self, at: usize, power: bool) {
        let seed = self.random.next();
        if power {
            self.machines[at].cut_power(seed);
        } else {
            self.machines[at].kill();
        }
        for watcher in &mut self.watchers {
            if watcher.at == at {
                watcher.stream = None;
            }
        }
        let lost: Vec<(usize, Ticket)> =
            self.waiting.range((at, Ticket(0))..=(at, Ticket(u64::MAX))).map(|(k, _)| *k).collect();
        for key in lost {
            if let Some(number) = self.waiting.remove(&key) {
                self.give_up(number, "the member went away");
            }
        }
    }

    /// Gives a member one input and does what it asks for.
    pub(crate) fn step(&mut self, at: usize, input: Input) -> Verdict {
        let clock = self.machines[at].clock(self.now);
        let mut out = Outputs::default();
        let stepped = self.process(at).member.step(clock, input, &mut out);
        match stepped {
            Ok(()) => self.absorb(at, out),
            Err(halt) => self.halt(at, &halt),
        }
    }

    fn absorb(&mut self, at: usize, mut out: Outputs) -> Verdict {
        let (id, now, epoch) = (self.machines[at].id, self.now, self.machines[at].epoch);
        for persist in &out.persist {
            for entry in &persist.entries {
                self.judge.on_logged(entry, now);
            }
        }
        self.process(at).note_log(&out);
        if let Some(position) = out.restored {
            self.counts.snapshots += 1;
            self.mark_restored(at);
            self.process(at).judged = position.index;
            self.note(|| format!("{id} is restored at {position}"));
        }
        let status = self.process(at).member.status();
        self.judge.on_role(id, status.role, status.term)?;
        if out.leader_changed {
            self.mark_leader(at);
            let (role, term, leader) = (status.role, status.term, status.leader);
            self.note(|| format!("{id} {role:?} in {term}, leader {leader:?}"));
        }
        let answers = std::mem::take(&mut out.answers);
        self.judge_applied(at, &answers)?;
        self.process(at).unwritten.extend(out.persist.drain(..));
        self.start_write(at);
        self.send(at, std::mem::take(&mut out.send));
        for message in std::mem::take(&mut out.snapshots) {
            self.send_snapshot(at, message);
        }
        for to in out.snapshot_wanted {
            let pause = self.random.between(1, 100);
            self.after(pause, Event::Copy { at, epoch, to });
        }
        if out.compaction_begun {
            self.after(1, Event::Compact { at, epoch });
        }
        for (ticket, answer) in answers {
            self.on_answer(at, ticket, answer)?;
        }
        self.admit_decided();
        Ok(())
    }

    /// Compares what was applied with what others applied.
    fn judge_applied(&mut self, at: usize, answers: &[(Ticket, Answer)]) -> Verdict {
        let id = self.machines[at].id;
        let mut answers = answers.iter().filter_map(|(ticket, answer)| match answer {
            Answer::Applied(applied) => Some((ticket.0, applied.clone())),
            Answer::Read
            | Answer::Lease(_)
            | Answer::Leases(_)
            | Answer::Transferred
            | Answer::Failed(_) => None,
        });
        let process = self.machines[at].process.as_mut().expect("it was just stepped");
        let applied = process.member.applied().index;
        while process.judged < applied {
            process.judged = process.judged.next();
            let entry = process.log.get(&process.judged);
            let entry = entry.ok_or_else(|| format!("{id} applied what it has not logged"))?;
            self.judge.on_applied(id, entry, &mut answers)?;
        }
        match answers.next() {
            None => Ok(()),
            Some((ticket, _)) => Err(format!("{id} answered {ticket:x} without an entry")),
        }
    }

    fn start_write(&mut self, at: usize) {
        let epoch = self.machines[at].epoch;
        let process = self.process(at);
        if process.is_writing || process.unwritten.is_empty() {
            return;
        }
        process.is_writing = true;
        let must_sync = process.unwritten.front().is_some_and(|batch| batch.must_sync);
        let usual = self.random.below(self.config.disk_millis + 1);
        let slow = self.faulty && self.random.one_in(300);
        let (now, machine) = (self.now, &self.machines[at]);
        let hangs = machine.hangs_until.saturating_sub(now);
        let usual = if now < machine.slow_until { usual * 20 + 20 } else { usual };
        let pause = match must_sync {
            true if slow => hangs + usual + self.random.below(3000),
            true => hangs + usual,
            false => 0,
        };
        self.after(pause, Event::Write { at, epoch });
    }

    fn send(&mut self, from: usize, messages: Vec<Message>) {
        for message in messages {
            let Some(&to) = self.by_id.get(&message.to) else { continue };
            let mut delays = Network::delays(&mut self.random, &self.config, self.faulty);
            if let Body::Propose(_) = message.body {
                // Members talk over connections, which repeat nothing. Only here it would matter:
                // what is proposed twice is applied twice.
                delays.truncate(1);
            }
            match delays.len() {
                0 => reached("sim: a message is lost"),
                1 if self.config.election_millis() < delays[0] => {
                    reached("sim: a message is later than an election");
                }
                1 => {}
                _ => reached("sim: a message comes twice"),
            }
            for delay in delays {
                let message = message.clone();
                self.after(delay, Event::Deliver { from, to, message });
            }
        }
    }

    fn send_snapshot(&mut self, from: usize, message: Message) {
        let copy = self.process(from).copies.remove(&message.to);
        let (position, bytes) = copy.expect("a snapshot is sent with its copy");
        let Body::Snapshot(meta) = &message.body else { unreachable!("a snapshot goes with it") };
        assert_eq!(meta.position, position, "message and copy are of one moment");
        let (id, epoch) = (message.to, self.machines[from].epoch);
        let delay = self.random.below(self.config.latency_millis * 5 + 1);
        match self.by_id.get(&id) {
            Some(&to) if !(self.faulty && self.random.one_in(10)) => {
                self.after(delay, Event::DeliverSnapshot { from, to, message, bytes });
            }
            _ => self.after(delay, Event::SnapshotSent { at: from, epoch, to: id, ok: false }),
        }
    }

    /// Starts the machines of members that were added, and marks those that were removed.
    fn admit_decided(&mut self) {
        for (index, change) in std::mem::take(&mut self.judge.changes) {
            let id = MemberId(change.node_id());
            match change.r#type() {
                raftpb::ConfChangeType::ConfChangeRemoveNode => {
                    self.note(|| format!("{id} is removed at {index}"));
                    self.mark_removed(id);
                    self.counts.changes += 1;
                }
                raftpb::ConfChangeType::ConfChangeAddNode
                | raftpb::ConfChangeType::ConfChangeAddLearnerNode
                    if !self.by_id.contains_key(&id) =>
                {
                    self.note(|| format!("{id} is added at {index}"));
                    if change.r#type() == raftpb::ConfChangeType::ConfChangeAddLearnerNode {
                        reached("sim: a learner is added");
                    } else {
                        reached("sim: a voter is added");
                    }
                    self.counts.changes += 1;
                    let drift = self.config.drift;
                    let rate = 1000 - drift + self.random.below(2 * drift + 1);
                    let at = self.machines.len();
                    self.machines.push(Machine::new(id, rate, None));
                    self.by_id.insert(id, at);
                    let pause = self.random.between(10, 1500);
                    self.after(pause, Event::Start { at });
                }
                raftpb::ConfChangeType::ConfChangeAddNode
                | raftpb::ConfChangeType::ConfChangeAddLearnerNode
                | raftpb::ConfChangeType::ConfChangeUpdateNode => {}
            }
        }
    }

    /// Ends members that were removed, once everybody who stays knows.
    fn retire_removed(&mut self) {
        let Some((members, removed)) = self.newest_members() else { return };
        for id in removed {
            let Some(&at) = self.by_id.get(&id) else { continue };
            if self.machines[at].removed {
                continue;
            }
            if self.machines[at].lost {
                self.machines[at].removed = true;
                continue;
            }
            let known = members.iter().all(|member| {
                self.by_id.get(member).is_none_or(|&other| {
                    // Durably, or a member that lost power would ask the one that is gone for
                    // its vote.
                    self.machines[other].process.as_ref().is_some_and(|process| {
                        process.member.state().is_removed(id)
                            && process.backend.durable() == process.member.applied()
                    })
                })
            });
            if known {
                self.note(|| format!("{id} is retired"));
                reached("sim: a member that was removed is retired");
                self.end(at, false);
                self.machines[at].removed = true;
            }
        }
    }

    /// The members, and those that were removed, as the most advanced process knows them.
    pub(crate) fn newest_members(&self) -> Option<(Vec<MemberId>, Vec<MemberId>)> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let newest = processes.max_by_key(|process| process.member.applied().index)?;
        let state = newest.member.state();
        let members = state.members().iter().map(|member| member.id).collect();
        Some((members, state.removed_members()))
    }

    /// The leader of the newest term, if one runs.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leading = (0..self.machines.len()).filter_map(|at| {
            let machine = &self.machines[at];
            let status = machine.process.as_ref().filter(|_| !machine.paused)?.member.status();
            (status.role == RoleKind::Leader).then_some((status.term, at))
        });
        leading.max().map(|(_, at)| at)
    }

    /// What the leader of a real cluster does every few seconds, here once.
    fn on_cluster_version(&mut self) -> Verdict {
        let Some(at) = self.leader() else {
            self.after(500, Event::ClusterVersion);
            return Ok(());
        };
        let set = proto::membershippb::ClusterVersionSetRequest { ver: "3.7.0".to_owned() };
        let request =
            pb::InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() };
        self.propose(at, request)
    }

    /// Proposes for nobody.
    pub(crate) fn propose(&mut self, at: usize, mut request: pb::InternalRaftRequest) -> Verdict {
        let id = self.process(at).ids.next_id();
        request.header = Some(pb::RequestHeader { id, ..Default::default() });
        let request = request.encode_to_vec().into();
        self.step(at, Input::Propose(vec![Proposal { ticket: Ticket(id), request }]))
    }

    /// Proposes a change of the members for nobody.
    pub(crate) fn propose_change(
        &mut self,
        at: usize,
        kind: raftpb::ConfChangeType,
        context: Option<&ChangeContext>,
        id: MemberId,
    ) -> Verdict {
        let ticket = self.process(at).ids.next_id();
        let change = raftpb::ConfChange {
            id: Some(ticket),
            r#type: Some(kind as i32),
            node_id: Some(id.0),
            context: context.map(ChangeContext::to_json),
        };
        let request = change.encode_to_vec().into();
        self.step(at, Input::ProposeChange(Proposal { ticket: Ticket(ticket), request }))
    }
}

/// A member as it is added: its number is in its name and address.
pub(crate) fn object(number: u64) -> MemberObject {
    MemberObject {
        id: MemberId(number * 0x1_0001 + 0xa0),
        name: format!("m{number}"),
        peer_urls: vec![format!("http://m{number}:2380")],
        ..MemberObject::default()
    }
}

#[expect(clippy::print_stderr, reason = "the story is for whoever runs one seed")]
fn eprintln_line(line: &str) {
    eprintln!("{line}");
}
