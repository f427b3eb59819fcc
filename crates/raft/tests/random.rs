//! Random runs of whole clusters: every fault at any moment, and Raft's promises after each step.
//!
//! A run is decided by its seed alone. `SEEDS=from..to` chooses other ones; a failure names its
//! seed. Promises (Raft, figure 3): election safety, log matching, leader completeness, state
//! machine safety; besides, reads that are linearizable, and a cluster that works again once the
//! faults end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::collections::BTreeMap;

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use cluster::Cluster;
use retcd_raft::{Body, ConfState, Config, Entry, Message, ProposeError, Raft, RoleKind};

/// splitmix64, as in the crate.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// What must never change, gathered from all members.
#[derive(Debug, Default)]
struct Promises {
    leaders: BTreeMap<Term, MemberId>,
    /// Every durable entry, and the term of the one before it.
    entries: BTreeMap<(Index, Term), (Term, Bytes)>,
    /// Every applied entry.
    applied: BTreeMap<Index, Entry>,
    /// The term in which an index was first committed.
    committed: BTreeMap<Index, Term>,
    /// What was committed when a read was asked for.
    reads: BTreeMap<u64, Index>,
    reads_answered: usize,
    checked: BTreeMap<MemberId, usize>,
    steps: u64,
}

struct Run {
    random: Random,
    cluster: Cluster,
    promises: Promises,
    proposals: u64,
    is_faulty: bool,
    /// One in so many chances for a fault is taken.
    calm: usize,
    /// The bound of what the disk writes per turn.
    disk: usize,
}

impl Promises {
    fn check(&mut self, cluster: &mut Cluster) {
        self.steps += 1;
        for (&id, member) in &mut cluster.members {
            // Every few steps: it is the whole log each time.
            if self.steps.is_multiple_of(16) {
                self.check_log(&member.disk.entries, member.disk.snapshot);
            }
            let checked = self.checked.entry(id).or_default();
            // A state that was rolled back, or replaced by a snapshot, is looked at again.
            *checked = (*checked).min(member.state.applied.len());
            for entry in &member.state.applied[*checked..] {
                let first = self.applied.entry(entry.index).or_insert_with(|| entry.clone());
                assert_eq!(first, entry, "two entries applied at one index, the second by {id}");
            }
            *checked = member.state.applied.len();
            for read in member.reads.drain(..) {
                let least = self.reads[&read.context];
                assert!(least <= read.index, "read at {} after {least} was committed", read.index);
                self.reads_answered += 1;
            }
            if let Some(raft) = &member.raft {
                self.check_leader(raft, &member.disk.entries, member.disk.snapshot.index);
            }
        }
    }

    fn check_log(&mut self, entries: &[Entry], snapshot: LogPosition) {
        let mut before = snapshot.term;
        for entry in entries {
            let found = (before, entry.data.clone());
            let first =
                self.entries.entry((entry.index, entry.term)).or_insert_with(|| found.clone());
            assert_eq!(*first, found, "two logs differ before {}", entry.position());
            before = entry.term;
        }
    }

    fn check_leader(&mut self, raft: &Raft, log: &[Entry], compacted: Index) {
        let status = raft.status();
        if status.role != RoleKind::Leader {
            return;
        }
        let is_new = !self.leaders.contains_key(&status.term);
        let first = *self.leaders.entry(status.term).or_insert(status.id);
        assert_eq!(first, status.id, "two leaders in term {}", status.term);
        if is_new {
            for (index, term) in &self.committed {
                if *term < status.term && compacted < *index {
                    let own = log.iter().find(|entry| entry.index == *index);
                    let terms = self.applied.get(index).map(|entry| entry.term);
                    assert!(own.is_some(), "{index} of {term} is not in the log of {status:#?}");
                    assert!(terms.is_none() || own.map(|entry| entry.term) == terms);
                }
            }
        }
        let newest = self.committed.last_key_value().map_or(Index(0), |(index, _)| *index);
        for index in newest.0 + 1..=status.commit.0 {
            self.committed.insert(Index(index), status.term);
        }
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let voters = [1, 2, 3, 3, 3, 5][random.below(6)];
        let calm = [1, 1, 2, 5][random.below(4)];
        let election_ticks = [2, 3, 5, 10][random.below(4)];
        let disk = [2, 3, 4][random.below(3)];
        let (pre_vote, check_quorum) = (!random.one_in(3), !random.one_in(3));
        // While a cluster is upgraded, some members know no pre-votes. All check their quorum then.
        let is_mixed = check_quorum && random.one_in(4);
        let mut cluster = Cluster::default();
        for id in 1..=5 {
            let pre_vote = pre_vote && !(is_mixed && random.one_in(2));
            let config = Config {
                pre_vote,
                check_quorum,
                election_ticks,
                message_bytes_max: [1, 60, 1 << 20][random.below(3)],
                inflight_messages_max: [1, 2, 512][random.below(3)],
                ..Config::new(MemberId(id), seed.wrapping_mul(9).wrapping_add(id))
            };
            if id <= voters {
                cluster.bootstrap(config, voters);
            } else {
                cluster.add(config, ConfState::default());
            }
        }
        Self {
            random,
            cluster,
            promises: Promises::default(),
            proposals: 0,
            is_faulty: true,
            calm,
            disk,
        }
    }

    fn member(&mut self) -> MemberId {
        MemberId(1 + self.random.below(5) as u64)
    }

    fn is_up(&self, id: MemberId) -> bool {
        self.cluster.members[&id].raft.is_some()
    }

    fn step(&mut self) {
        let id = self.member();
        match self.random.below(100) {
            0..=44 => (0..=self.random.below(4)).for_each(|_| self.network()),
            45..=79 if self.is_up(id) => self.work(id),
            80..=88 if self.is_up(id) => self.cluster.raft(id).tick(),
            89..=98 if self.is_up(id) => self.wish(id),
            99 if self.random.one_in(self.calm) => self.fault(id),
            _ => {}
        }
        self.promises.check(&mut self.cluster);
    }

    fn network(&mut self) {
        if self.cluster.network.is_empty() {
            return;
        }
        let at = self.random.below(self.cluster.network.len().min(20));
        let message = self.cluster.network[at].clone();
        if self.is_faulty && self.random.one_in(30) {
            // Arrives now and once more later.
        } else {
            self.cluster.network.remove(at);
            if self.is_faulty && self.random.one_in(10 * self.calm) {
                self.cluster.lose(&message);
                return;
            }
        }
        self.cluster.arrive(message);
        // The network does not hold more than it can.
        while 2_000 < self.cluster.network.len() {
            let oldest = self.cluster.network.pop_front().unwrap();
            self.cluster.lose(&oldest);
        }
    }

    fn work(&mut self, id: MemberId) {
        if let Some(ready) = self.cluster.raft(id).ready() {
            self.cluster.take(id, ready);
        }
        // The disk and the state machine are as slow as they like.
        for _ in 0..self.random.below(self.disk) {
            self.cluster.write_one(id);
        }
        if !self.random.one_in(3) {
            self.cluster.apply(id);
        }
    }

    fn wish(&mut self, id: MemberId) {
        let other = self.member();
        let raft = self.cluster.raft(id);
        match self.random.below(10) {
            0..=3 => {
                let count = 1 + self.random.below(3);
                let batch = (0..count).map(|_| {
                    self.proposals += 1;
                    Bytes::from(format!("proposal {}", self.proposals))
                });
                // Refusals are part of life.
                let refusal = raft.propose(batch.collect()).err();
                assert!(
                    refusal.is_none_or(|error| !matches!(error, ProposeError::Overloaded { .. }))
                );
            }
            4..=6 => {
                let context = self.promises.reads.len() as u64;
                let newest = self.promises.committed.last_key_value();
                self.promises.reads.insert(context, newest.map_or(Index(0), |(index, _)| *index));
                raft.read(context);
            }
            7 => {
                let verb = ["voter", "voter", "learner", "remove", "none"][self.random.below(5)];
                let voters = raft.conf_state().voters.clone();
                if verb == "voter" || voters.len() > 2 || !voters.contains(&other) {
                    raft.propose_change(Bytes::from(format!("{verb} {other}"))).ok();
                }
            }
            8 if self.random.one_in(2) => raft.transfer(other),
            8 => raft.campaign(),
            _ => {
                let applied = raft.status().applied;
                raft.compact(Index(applied.0.saturating_sub(self.random.below(4) as u64)));
                // The disk keeps what it needs to start from the state it has.
                let member = self.cluster.member(id);
                if self.random.one_in(2) && member.writes.is_empty() {
                    let to = member.state.position;
                    member.disk.compact(to);
                }
            }
        }
    }

    fn fault(&mut self, id: MemberId) {
        match self.random.below(8) {
            0..=1 if self.is_up(id) => self.cluster.member(id).crash(),
            2..=3 if self.is_up(id) => {
                let applied = self.cluster.member(id).state.position.index.0;
                let kept = applied.saturating_sub(self.random.below(6) as u64);
                self.cluster.member(id).lose_power(Index(kept));
            }
            4..=5 if self.cluster.isolated.len() < 2 => {
                self.cluster.isolated.insert(id);
            }
            6 => self.cluster.isolated.clear(),
            _ if !self.is_up(id) => self.cluster.member(id).restart(),
            _ => {}
        }
        // Most of the time most members are up.
        if !self.is_up(id) && !self.random.one_in(4) {
            self.cluster.member(id).restart();
        }
    }

    /// The faults end: the cluster must find a leader and agree.
    fn settle(&mut self) {
        self.is_faulty = false;
        self.cluster.isolated.clear();
        let ids: Vec<MemberId> = self.cluster.members.keys().copied().collect();
        for &id in &ids {
            if !self.is_up(id) {
                self.cluster.member(id).restart();
            }
        }
        let mut quiet = 0;
        // Nearly always a few are enough. But a member with an old configuration may chase one that
        // it does not know, each raising its own term without hearing of the other's, until chance
        // lets them meet; pre-votes prevent that.
        for _ in 0..20_000 {
            for &id in &ids {
                self.cluster.raft(id).tick();
            }
            self.cluster.deliver();
            self.promises.check(&mut self.cluster);
            self.stop_removed_leaders();
            quiet = if self.agrees() { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        panic!("no agreement after the faults: {}", self.statuses().join("\n"));
    }

    /// A leader that was removed leads on until its driver stops it; here it starts again, in case
    /// it was added once more.
    fn stop_removed_leaders(&mut self) {
        for (_, id) in self.cluster.leaders() {
            let member = self.cluster.member(id);
            let state = &member.state.conf_state;
            if !state.voters.contains(&id) {
                member.crash();
                member.restart();
            }
        }
    }

    fn agrees(&self) -> bool {
        let leaders = self.cluster.leaders();
        let Some((_, leader)) = leaders.iter().max() else { return false };
        let raft = self.cluster.members[leader].raft.as_ref().unwrap();
        let (status, state) = (raft.status(), raft.conf_state());
        state.voters.union(&state.learners).all(|id| {
            let other = self.cluster.members[id].raft.as_ref().unwrap().status();
            other.leader == Some(*leader)
                && other.last == status.last
                && other.applied == status.last.index
        })
    }

    fn statuses(&self) -> Vec<String> {
        let up = self.cluster.members.values().filter_map(|member| member.raft.as_ref());
        let told = |raft: &Raft| {
            let peers: Vec<_> = raft.peers().collect();
            format!("{:?} {:?} {peers:?}", raft.status(), raft.conf_state())
        };
        up.map(told).collect()
    }
}

fn run(seed: u64, steps: usize) -> Run {
    let mut run = Run::new(seed);
    for _ in 0..steps {
        run.step();
    }
    run.settle();
    run
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SEEDS") {
        Ok(text) => {
            let (from, to) = text.split_once("..").expect("SEEDS is from..to");
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => 0..100,
    }
}

#[test]
fn promises_hold_under_all_faults() {
    let (mut applied, mut answered, mut leaders) = (0, 0, 0);
    for seed in seeds() {
        println!("seed {seed}");
        let run = run(seed, 4_000);
        applied += run.promises.applied.len();
        answered += run.promises.reads_answered;
        leaders += run.promises.leaders.len();
    }
    println!("{applied} entries applied, {answered} reads answered, {leaders} leaders");
    assert!(applied > 0 && leaders > 0, "nothing ever happened");
}

/// The same seed does the same, to the last entry.
#[test]
fn a_run_can_be_repeated() {
    for seed in 0..3 {
        let outcome = |run: Run| {
            let statuses = format!("{:?}", run.statuses());
            (run.promises.applied, run.promises.leaders, statuses)
        };
        assert_eq!(outcome(run(seed, 2_000)), outcome(run(seed, 2_000)), "seed {seed}");
    }
}

/// Nothing a peer sends makes a member panic, whatever its role.
#[test]
fn messages_from_liars_do_no_harm() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut cluster = Cluster::default();
        let voters = (1..=3).map(MemberId).collect();
        let conf_state = ConfState { voters, ..ConfState::default() };
        for id in 1..=3 {
            cluster.add(Config::new(MemberId(id), seed + id), conf_state.clone());
        }
        cluster.raft(MemberId(1)).campaign();
        cluster.deliver();
        cluster.raft(MemberId(1)).propose(vec![Bytes::from_static(b"a"); 5]).unwrap();
        cluster.deliver();
        let mut raft = cluster.member(MemberId(1 + seed % 2)).raft.take().unwrap();
        for _ in 0..2_000 {
            raft.step(lie(&mut random, &conf_state));
            if random.one_in(3) {
                raft.tick();
            }
            if let Some(ready) = raft.ready()
                && let Some(persist) = ready.persist
            {
                raft.persisted(persist.token);
            }
        }
    }
}

fn lie(random: &mut Random, conf_state: &ConfState) -> Message {
    let index = |random: &mut Random| {
        Index([0, 1, 2, 5, 6, 7, 8, 100, 1 << 62, u64::MAX][random.below(10)])
    };
    let term =
        |random: &mut Random| Term([0, 1, 1, 1, 2, 3, 9, 1 << 62, u64::MAX][random.below(9)]);
    let position = |random: &mut Random| LogPosition { index: index(random), term: term(random) };
    let context = |random: &mut Random| {
        Bytes::from_static([&[] as &[u8], &[1; 8], &[255; 8], &[1; 9]][random.below(4)])
    };
    let entries = |random: &mut Random, previous: LogPosition| {
        let mut entries = Vec::new();
        for offset in 0..random.below(4) as u64 {
            let index = Index(previous.index.0.wrapping_add(1 + offset));
            let kind = retcd_raft::EntryKind::Normal;
            entries.push(Entry { kind, index, term: term(random), data: Bytes::new() });
        }
        entries
    };
    let body = match random.below(16) {
        0 => Body::Propose(entries(random, LogPosition::default())),
        1..=3 => {
            let previous = position(random);
            let entries = entries(random, previous);
            Body::Append(retcd_raft::Append { previous, entries, commit: index(random) })
        }
        4 | 5 => Body::AppendReply(retcd_raft::AppendReply {
            index: index(random),
            rejected: random.one_in(2).then(|| position(random)),
        }),
        6 => Body::Vote(retcd_raft::VoteRequest { last: position(random), forced: true }),
        7 => Body::VoteReply { granted: random.one_in(2) },
        8 => Body::PreVote(retcd_raft::VoteRequest { last: position(random), forced: false }),
        9 => Body::PreVoteReply { granted: random.one_in(2) },
        10 => Body::Snapshot(retcd_raft::SnapshotMeta {
            position: position(random),
            conf_state: if random.one_in(2) { conf_state.clone() } else { ConfState::default() },
        }),
        11 => Body::Heartbeat { commit: index(random), context: context(random) },
        12 => Body::HeartbeatReply { context: context(random) },
        13 => [Body::TransferLeader, Body::TimeoutNow][random.below(2)].clone(),
        14 => Body::ReadIndex { context: context(random) },
        _ => Body::ReadIndexReply { index: index(random), context: context(random) },
    };
    let any = |random: &mut Random| MemberId([0, 1, 1, 2, 2, 3, 3, 9][random.below(8)]);
    // Most lies keep the protocol's terms, or none would get far.
    let term = if random.one_in(4) { term(random) } else { Term(1) };
    let is_termless = matches!(body, Body::Propose(_) | Body::ReadIndex { .. });
    let term = if is_termless { Term(0) } else { term };
    Message { from: any(random), to: any(random), term, body }
}
