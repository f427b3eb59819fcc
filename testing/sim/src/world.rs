//! The world: machines, links, clients and what happens to them, one event after the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::MemberId;
use base::probe::reached;

use member::{Answer, Input, Outputs, Proposal, Ticket};
use prost::Message as _;
use proto::etcdserverpb as pb;
use raft::{EntryKind, Message, RoleKind, Status};
use state::Identity;
use state::members::MemberObject;

use crate::accounts::Accounts;
use crate::client::Client;
use crate::config::Config;
use crate::judge::{Judge, Verdict};
use crate::machine::{Copied, Machine, Process, Stop, Written};
use crate::network::Network;
use crate::random::Random;
use crate::recorder::Recorder;
use crate::second::Second;
use crate::trace::Trace;
use crate::watcher::Watcher;
use crate::{FaultRecord, Life};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Tick { at: usize, epoch: u64 },
    Deliver { from: usize, to: usize, connection: u64, message: Message },
    DeliverSnapshot { from: usize, to: usize, message: Message, connection: u64, copied: Copied },
    Turn { at: usize, epoch: u64 },
    Retire { at: usize, epoch: u64 },
    SnapshotSent { at: usize, epoch: u64, to: MemberId, ok: bool },
    Write { at: usize, epoch: u64 },
    Commit { at: usize, epoch: u64 },
    Compact { at: usize, epoch: u64 },
    Copy { at: usize, epoch: u64, to: MemberId },
    ReadCopy { at: usize, epoch: u64, to: MemberId },
    Start { at: usize },
    Resume { at: usize, epoch: u64, first: Option<usize> },
    DiskHasRoom { at: usize, epoch: u64 },
    Call { at: usize, epoch: u64, input: Input },
    Client { number: usize },
    Watch { number: usize },
    LateRead { number: usize, epoch: u64, ticket: Ticket, who: Identity },
    Administer,
    Second { number: usize },
    SecondWait { number: usize },
    SecondClock,
    NextVersion,
    Shrink { at: usize, epoch: u64 },
    ReadSaved { at: usize, epoch: u64 },
    Disarm,
    Fault,
    Heal,
    ClusterVersion,
}

/// Clients that watch, and where they belong to users.
const WATCHERS: usize = 4;
const WATCHERS_OF_USERS: usize = 6;

/// Mixed into the seed for what came later to the simulator: by chance the seeds that were kept
/// before (seeds.txt) have none of it, and are the lives that they were.
const SIDE: u64 = 0x151;

/// The same for what came later still.
const LATE: u64 = 0xe3;

/// Far more than a life has: each message to a member that stands still counts again every 20 ms, and
/// a leader that sends entries one by one has thousands of replies on their way (life 1000055444).
const EVENTS_MAX: u64 = 20_000_000;

/// Lines of the story that are kept, the last ones: as many as a person reads.
const STORY_LINES_MAX: usize = 200;

/// One cluster's life.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) random: Random,
    pub(crate) now: u64,
    /// Boxed: they are moved often while they wait.
    events: BTreeMap<(u64, u64), Box<Event>>,
    sequence: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) by_id: BTreeMap<MemberId, usize>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    pub(crate) waiting: BTreeMap<(usize, Ticket), usize>,
    pub(crate) watchers: Vec<Watcher>,
    /// Users, where clients are asked who they are.
    pub(crate) accounts: Option<Accounts>,
    /// Clients of the v2 generation.
    pub(crate) second: Option<Second>,
    /// The chance of those, so that lives without them stay what they were.
    pub(crate) side: Random,
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
    /// Those that happened: the story's lines about them are gone when it matters.
    pub(crate) happened: Vec<FaultRecord>,
    /// Those that are left out.
    without: BTreeSet<u64>,
    /// How often a wall clock was set.
    pub(crate) clocks_set: u64,
    /// Whether of two members the one that led was removed, which the other may never hear.
    pub(crate) may_stall: bool,
    /// Whether nobody is left.
    pub(crate) over: bool,
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
    /// Lives whose history had too many calls without an answer for the judges to come to an end.
    pub unjudged: u64,
    /// Lives that ended without agreement: of two members one can never hear that it is alone.
    pub stalled: u64,
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
        self.unjudged += other.unjudged;
        self.stalled += other.stalled;
    }
}

impl World {
    pub(crate) fn new(life: &Life) -> Self {
        let mut random = Random::new(life.seed);
        let mut side = Random::new(life.seed.rotate_left(17) ^ SIDE);
        let mut late = Random::new(life.seed.rotate_left(41) ^ LATE);
        let config = Config::draw(&mut random, &mut side, &mut late);
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
        let watchers = if config.accounts { WATCHERS_OF_USERS } else { WATCHERS };
        let watchers = (0..watchers).map(|n| Watcher::new(n, n % machines.len())).collect();
        let accounts = config.accounts.then(|| Accounts::new(config.clients, &mut side));
        let second = config.second.then(|| Second::new(config.second_forgets, &mut side));
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
            accounts,
            second,
            side,
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
            happened: Vec::new(),
            without: life.without.clone(),
            clocks_set: 0,
            may_stall: false,
            over: false,
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
        self.begin_more();
        if self.config.fault_every_millis > 0 {
            self.after(1500, Event::Fault);
        }
        Ok(())
    }

    /// Lets what only some lives have begin.
    fn begin_more(&mut self) {
        if self.accounts.is_some() {
            self.after(1000, Event::Administer);
        }
        if let Some(second) = &self.second {
            let (clients, waits) = second.numbers();
            for number in 0..clients {
                self.after(500, Event::Second { number });
            }
            for number in 0..waits {
                self.after(500, Event::SecondWait { number });
            }
            self.after(500, Event::SecondClock);
        }
        if self.config.versions {
            self.after(3000, Event::NextVersion);
        }
    }

    /// Handles events until `until_millis`.
    pub(crate) fn run_until(&mut self, until_millis: u64) -> Verdict {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until_millis
            && !self.over
        {
            let ((time, number), event) = entry.remove_entry();
            self.now = time;
            self.counts.events += 1;
            self.trace.mix(time);
            self.trace.mix(number);
            if EVENTS_MAX < self.counts.events {
                return Err("the life does not come to an end".to_owned());
            }
            self.handle(*event)?;
        }
        if !self.over {
            self.now = until_millis;
        }
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
        self.events.insert((self.now + millis, self.sequence), Box::new(event));
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

    /// Notes a fault that happens now.
    pub(crate) fn note_fault(&mut self, number: u64, what: String) {
        self.note(|| format!("fault {number}: {what}"));
        self.happened.push(FaultRecord { number, millis: self.now, what });
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.story.iter().cloned().collect()
    }

    fn handle(&mut self, event: Event) -> Verdict {
        match event {
            Event::Tick { at, epoch } => self.on_tick(at, epoch),
            Event::Deliver { from, to, connection, message } => {
                self.on_deliver(from, to, connection, message)
            }
            Event::DeliverSnapshot { from, to, message, connection, copied } => {
                self.on_deliver_snapshot(from, to, message, connection, copied)
            }
            Event::Turn { at, epoch } => self.on_turn(at, epoch),
            Event::Retire { at, epoch } => {
                self.on_retire(at, epoch);
                Ok(())
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
            Event::Resume { at, epoch, first } => self.on_resume(at, epoch, first),
            Event::DiskHasRoom { at, epoch } => {
                if self.machines[at].epoch == epoch {
                    self.machines[at].plan.clear();
                }
                Ok(())
            }
            Event::Call { at, epoch, input } => self.on_call(at, epoch, input),
            Event::Client { number } => self.on_client(number),
            Event::Watch { number } => self.on_watch(number),
            Event::LateRead { number, epoch, ticket, who } => {
                self.on_late_read(number, epoch, ticket, who)
            }
            Event::Administer => self.on_administer(),
            Event::Second { number } => self.on_second(number),
            Event::SecondWait { number } => self.on_second_wait(number),
            Event::SecondClock => self.on_second_clock(),
            Event::NextVersion => self.on_next_version(),
            Event::Shrink { at, epoch } => self.on_shrink(at, epoch),
            Event::ReadSaved { at, epoch } => self.on_read_saved(at, epoch),
            Event::Disarm => self.on_disarm(),
            Event::Fault => self.on_fault(),
            Event::Heal => {
                self.network.heal();
                Ok(())
            }
            Event::ClusterVersion => self.on_cluster_version(),
        }
    }

    /// Whether a process of this epoch runs; if it is paused, what was due is put off.
    pub(crate) fn is_current(&self, at: usize, epoch: u64) -> bool {
        self.machines[at].epoch == epoch && self.machines[at].process.is_some()
    }

    pub(crate) fn put_off(&mut self, at: usize, event: Event) -> Option<Event> {
        if self.machines[at].paused {
            self.after(20, event);
            return None;
        }
        Some(event)
    }

    pub(crate) fn process(&mut self, at: usize) -> &mut Process {
        crate::failpoints::enter(at);
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
        if self.is_current(at, epoch)
            && let Some(forget) = self.process(at).forget()
        {
            self.step(at, forget)?;
        }
        self.retire_removed();
        Ok(())
    }

    fn on_write(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Write { at, epoch }).is_none() {
            return Ok(());
        }
        self.process(at).is_writing = false;
        match self.process(at).write() {
            Ok(_) if self.is_out(at) => self.power_is_out(at),
            Ok(Written::Done(messages, input)) => {
                self.hear_commit(at);
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
            Ok(_) if self.is_out(at) => self.power_is_out(at),
            Ok(input) => self.step(at, input),
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

    /// Gives a member one input and does what it asks for.
    pub(crate) fn step(&mut self, at: usize, input: Input) -> Verdict {
        let clock = self.machines[at].clock(self.now);
        let mut out = Outputs::default();
        let before = self.process(at).member.status();
        let stepped = self.process(at).member.step(clock, input, &mut out);
        match stepped {
            Ok(()) if self.is_out(at) => self.power_is_out(at),
            Ok(()) => {
                self.judge_campaign(at, &before)?;
                self.judge_commit(at, &before)?;
                let now = self.process(at).member.status();
                let applied = self.process(at).member.applied().index;
                Judge::on_progress(now.id, now.applied.max(applied), now.commit)?;
                self.absorb(at, out)?;
                self.judge_majority(at, &before, &now)
            }
            Err(halt) => self.halt(at, &halt),
        }
    }

    /// A member that knows of a change of the members, and has not made it, must not ask for votes:
    /// it would count those of a configuration that is over.
    fn judge_campaign(&mut self, at: usize, before: &Status) -> Verdict {
        let id = self.machines[at].id;
        let process = self.process(at);
        let now = process.member.status();
        let campaigns = matches!(now.role, RoleKind::Candidate | RoleKind::PreCandidate)
            && (now.role, now.term) != (before.role, before.term);
        let known = (before.applied.next(), before.commit);
        if campaigns
            && known.0 <= known.1
            && process
                .logged
                .range(known.0..=known.1)
                .any(|(_, entry)| entry.kind != EntryKind::Normal)
        {
            return Err(format!("{id} campaigns with a change of the members behind {}", known.0));
        }
        Ok(())
    }

    /// A leader counts only for entries of its own term; those before are committed with them. What
    /// it counted otherwise may be overwritten, though a majority has it (Raft §5.4.2, figure 8).
    fn judge_commit(&mut self, at: usize, before: &Status) -> Verdict {
        let id = self.machines[at].id;
        let process = self.process(at);
        let now = process.member.status();
        let leads = (RoleKind::Leader, now.term);
        if (before.role, before.term) != leads
            || (now.role, now.term) != leads
            || now.commit <= before.commit
        {
            return Ok(());
        }
        let of = process.logged.get(&now.commit).map(|entry| entry.term);
        if of == Some(now.term) {
            return Ok(());
        }
        Err(format!("{id} leads {} and commits {}, of {of:?}", now.term, now.commit))
    }

    pub(crate) fn absorb(&mut self, at: usize, mut out: Outputs) -> Verdict {
        let (id, epoch) = (self.machines[at].id, self.machines[at].epoch);
        self.judge_batches(at, &out.persist)?;
        self.judge_proposed(at, &out)?;
        if self.is_ambushed(at, &out) {
            return Ok(());
        }
        self.cut_off_uncertain(at, &out);
        let machine = &mut self.machines[at];
        let process = machine.process.as_mut().expect("it answers");
        machine.vows.on_persist(&out.persist, &process.logged);
        process.note_log(&out);
        if let Some(position) = out.restored {
            self.counts.snapshots += 1;
            self.mark_restored(at);
            self.process(at).judged = position.index;
            self.mark_users(at, true);
            self.on_second_restored(at);
            self.note(|| format!("{id} is restored at {position}"));
            if let Err(stop) = self.process(at).on_restored(position) {
                return self.stop(at, stop);
            }
            if self.is_out(at) {
                return self.power_is_out(at);
            }
        }
        let status = self.process(at).member.status();
        self.judge.on_role(id, status.role, status.term)?;
        self.hear_vows(at, &status);
        self.plan_retirement(at, &status, &out);
        if out.leader_changed {
            self.mark_leader(at);
            let (role, term, leader) = (status.role, status.term, status.leader);
            self.note(|| format!("{id} {role:?} in {term}, leader {leader:?}"));
        }
        let answers = std::mem::take(&mut out.answers);
        if self.judge_applied(at, &answers)? || out.restored.is_some() {
            self.judge_members(at)?;
        }
        self.mark_users(at, false);
        self.process(at).log.push(out.persist.drain(..));
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
        if out.leader_changed { self.propose_undelivered(at) } else { Ok(()) }
    }

    /// Looks at what a leader puts into its own log.
    fn judge_proposed(&mut self, at: usize, out: &Outputs) -> Verdict {
        let id = self.machines[at].id;
        let process = self.process(at);
        let status = process.member.status();
        if status.role != RoleKind::Leader {
            return Ok(());
        }
        let all: Vec<_> = out.persist.iter().flat_map(|batch| &batch.entries).collect();
        for (nth, entry) in all.iter().enumerate() {
            if entry.term != status.term || entry.kind == EntryKind::Normal {
                continue;
            }
            let first = all.first().map_or(entry.index, |entry| entry.index);
            let unapplied = status.applied.next();
            let logged = (unapplied < first)
                .then(|| process.logged.range(unapplied..first).map(|(_, entry)| entry.kind));
            let same = all[..nth].iter().filter(|one| unapplied <= one.index).map(|one| one.kind);
            Judge::on_proposed(id, entry, logged.into_iter().flatten().chain(same))?;
        }
        Ok(())
    }

    /// Compares what was applied with what others applied. Whether a change of the members was
    /// among it.
    fn judge_applied(&mut self, at: usize, answers: &[(Ticket, Answer)]) -> Result<bool, String> {
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
        let mut has_changes = false;
        while process.judged < applied {
            process.judged = process.judged.next();
            let entry = process.logged.get(&process.judged);
            let entry = entry.ok_or_else(|| format!("{id} applied what it has not logged"))?;
            has_changes |= entry.kind != EntryKind::Normal;
            self.judge.on_applied(id, entry, &mut answers)?;
        }
        match answers.next() {
            None => Ok(has_changes),
            Some((ticket, _)) => Err(format!("{id} answered {ticket:x} without an entry")),
        }
    }

    fn start_write(&mut self, at: usize) {
        let epoch = self.machines[at].epoch;
        let process = self.process(at);
        if process.is_writing || process.log.waiting().len() == 0 {
            return;
        }
        process.is_writing = true;
        let must_sync = process.log.waiting().next().is_some_and(|batch| batch.must_sync);
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
