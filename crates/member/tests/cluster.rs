//! Members among members: what each input promises. Faults in any order are the simulator's.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use backend::Backend;
use base::{LeaseId, MemberId};
use prost::Message as _;
use proto::{etcdserverpb as pb, raftpb};
use raft::{Body, ConfState, Entry, EntryKind, HardState, Message, Raft, Restored};
use retcd_member::{
    Answer, Failure, Input, LeaseOptions, Member, Options, Outputs, Proposal, RequestIds, Ticket,
};
use state::auth::gate::Authorized;
use state::members::{ChangeContext, MemberObject};
use state::{Applied, Received, Refusal, Reply, SnapshotFacts, State};
use vfs::Open;
use vfs::memory::MemoryDir;

const ELECTION_TICKS: u64 = 10;
const TICK_MILLIS: u64 = 100;

/// A member over a memory disk; what is to be persisted counts as durable at once.
struct One {
    member: Member,
    backend: Backend,
    disk: MemoryDir,
    answers: BTreeMap<Ticket, Answer>,
    removed: bool,
    received: Option<Received>,
    /// By how much its clock is before the others'.
    ahead_millis: u64,
}

struct Cluster {
    now: u64,
    ones: BTreeMap<MemberId, One>,
    network: Vec<Message>,
    cut: BTreeSet<MemberId>,
    next_ticket: u64,
}

fn object(number: u64) -> MemberObject {
    MemberObject {
        id: MemberId(number),
        name: format!("m{number}"),
        peer_urls: vec![format!("http://m{number}")],
        ..MemberObject::default()
    }
}

fn change(ticket: Ticket, kind: raftpb::ConfChangeType, member: &MemberObject) -> Proposal {
    let change = raftpb::ConfChange {
        id: Some(ticket.0),
        r#type: Some(kind as i32),
        node_id: Some(member.id.0),
        context: Some(ChangeContext::of(member.clone()).to_json()),
    };
    Proposal { ticket, request: change.encode_to_vec().into() }
}

fn state_options() -> state::Options {
    state::Options { lease_ttl_seconds_min: 2, learners_max: 1, mvcc: mvcc::Options::default() }
}

impl One {
    fn new(number: u64, first: u64) -> Self {
        let disk = MemoryDir::new();
        let backend = Backend::open(&disk.shared(), "db", &backend::Options::default()).unwrap();
        let state = State::open(&backend, &state_options()).unwrap();
        let entries: Vec<Entry> = (1..=first)
            .map(|index| {
                let add = raftpb::ConfChangeType::ConfChangeAddNode;
                let data = change(Ticket(0), add, &object(index)).request;
                let (kind, term) = (EntryKind::ConfChange, base::Term(1));
                Entry { kind, term, index: base::Index(index), data }
            })
            .collect();
        let commit = base::Index(first);
        let hard_state = match first {
            0 => HardState::default(),
            _ => HardState { term: base::Term(1), vote: MemberId::NONE, commit },
        };
        let restored = Restored { hard_state, entries, ..Restored::default() };
        let id = MemberId(number);
        let raft = Raft::new(raft::Config::new(id, number), restored);
        let options = Options {
            id,
            quota_bytes: None,
            election_millis: ELECTION_TICKS * TICK_MILLIS,
            ids: RequestIds::for_member(id, 1),
        };
        let member = Member::new(raft, state, backend.clone(), options);
        Self {
            member,
            backend,
            disk,
            answers: BTreeMap::new(),
            removed: false,
            received: None,
            ahead_millis: 0,
        }
    }
}

impl Cluster {
    fn new(members: u64) -> Self {
        let mut cluster = Self {
            now: 0,
            ones: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            next_ticket: 0,
        };
        for number in 1..=members {
            cluster.join(number, members);
        }
        cluster
    }

    /// With a leader that has applied the first entry of its term.
    fn led(members: u64) -> Self {
        let mut cluster = Self::new(members);
        for _ in 0..100 {
            cluster.tick();
            if cluster.leader().is_some() {
                break;
            }
        }
        cluster.tick();
        cluster
    }

    fn join(&mut self, number: u64, first: u64) {
        let mut one = One::new(number, first);
        let mut out = Outputs::default();
        one.member.start(self.now, &mut out).unwrap();
        self.ones.insert(MemberId(number), one);
        self.absorb(MemberId(number), out);
    }

    fn one(&mut self, id: MemberId) -> &mut One {
        self.ones.get_mut(&id).unwrap()
    }

    fn leader(&self) -> Option<MemberId> {
        let leading = self.ones.iter().filter(|(_, one)| one.member.is_leader());
        leading.max_by_key(|(_, one)| one.member.status().term).map(|(id, _)| *id)
    }

    fn follower(&self) -> MemberId {
        *self.ones.keys().find(|id| Some(**id) != self.leader()).unwrap()
    }

    /// Gives an input, and does at once what the disk is asked for.
    fn step(&mut self, id: MemberId, input: Input) {
        let now = self.now;
        let mut out = Outputs::default();
        let one = self.one(id);
        one.member.step(now + one.ahead_millis, input, &mut out).unwrap();
        self.absorb(id, out);
    }

    fn absorb(&mut self, id: MemberId, mut out: Outputs) {
        let one = self.one(id);
        one.removed |= out.removed;
        one.answers.extend(out.answers.drain(..));
        self.network.append(&mut out.send);
        for persist in out.persist {
            let has_snapshot = persist.snapshot.is_some();
            let Ok(persisted) = persist.persist(|_, _, _| Ok::<(), Infallible>(()));
            self.network.extend(persisted.messages);
            let input = if has_snapshot {
                let received = self.one(id).received.take().unwrap();
                Input::Restore(persisted.token, Box::new(received))
            } else {
                Input::Persisted(persisted.token)
            };
            self.step(id, input);
        }
        for to in out.snapshot_wanted {
            self.send_snapshot(id, to);
        }
        assert!(out.snapshots.is_empty(), "snapshots come when they are sent");
    }

    fn send_snapshot(&mut self, from: MemberId, to: MemberId) {
        let mut copy = self.one(from).backend.copy().unwrap();
        let facts = SnapshotFacts::read(&copy).unwrap();
        let len = usize::try_from(copy.len()).unwrap();
        let bytes = copy.read(len).unwrap();
        let voters = facts.members.iter().filter(|member| !member.is_learner);
        let learners = facts.members.iter().filter(|member| member.is_learner);
        let conf_state = ConfState {
            voters: voters.map(|member| member.id).collect(),
            learners: learners.map(|member| member.id).collect(),
            ..ConfState::default()
        };
        let position = facts.position;
        let (now, mut out) = (self.now, Outputs::default());
        let input = Input::SendSnapshot { to, position, conf_state };
        self.one(from).member.step(now, input, &mut out).unwrap();
        let message = out.snapshots.pop().unwrap();
        assert!(matches!(&message.body, Body::Snapshot(meta) if meta.position == position));
        self.absorb(from, out);

        let one = self.one(to);
        let file = one.disk.shared().open("in.snap.db", Open::CreateOrWrite).unwrap();
        file.write_at(&bytes, 0).unwrap();
        drop(file);
        let incoming = one.backend.open_incoming("in.snap.db").unwrap();
        one.received = Some(Received::prepare(incoming, position, &state_options()).unwrap());
        self.step(to, Input::Receive(vec![message]));
        self.step(from, Input::SnapshotSent(to, true));
    }

    /// Delivers until nothing is under way.
    fn deliver(&mut self) {
        while !self.network.is_empty() {
            for message in std::mem::take(&mut self.network) {
                let Message { from, to, .. } = message;
                let is_cut = self.cut.contains(&from) || self.cut.contains(&to);
                if !is_cut && self.ones.contains_key(&to) {
                    self.step(to, Input::Receive(vec![message]));
                }
            }
        }
    }

    fn tick(&mut self) {
        self.now += TICK_MILLIS;
        for id in self.ones.keys().copied().collect::<Vec<_>>() {
            self.step(id, Input::Tick);
        }
        self.deliver();
    }

    fn ticks(&mut self, count: u64) {
        (0..count).for_each(|_| self.tick());
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn propose(&mut self, id: MemberId, mut request: pb::InternalRaftRequest) -> Ticket {
        let ticket = self.ticket();
        request.header = Some(pb::RequestHeader { id: ticket.0, ..Default::default() });
        let request = request.encode_to_vec().into();
        self.step(id, Input::Propose(vec![Proposal { ticket, request }]));
        ticket
    }

    fn put(&mut self, id: MemberId, key: &'static str) -> Ticket {
        let put = Some(pb::PutRequest { key: key.into(), ..Default::default() });
        self.propose(id, pb::InternalRaftRequest { put, ..Default::default() })
    }

    fn grant(&mut self, id: MemberId, lease: i64, ttl: i64) -> Ticket {
        let lease_grant = Some(pb::LeaseGrantRequest { ttl, id: lease });
        self.propose(id, pb::InternalRaftRequest { lease_grant, ..Default::default() })
    }

    fn answer(&mut self, id: MemberId, ticket: Ticket) -> Option<Answer> {
        self.one(id).answers.remove(&ticket)
    }

    fn failure(&mut self, id: MemberId, ticket: Ticket) -> Failure {
        match self.answer(id, ticket) {
            Some(Answer::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, id: MemberId) -> i64 {
        let range = pb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..Default::default()
        };
        self.one(id).member.state().reads().range(Authorized::own(&range)).unwrap().count
    }
}

/// CB-53, G-012: what is proposed without a leader waits for one; what was given up is never made.
#[test]
fn proposals_wait_for_a_leader() {
    let mut cluster = Cluster::new(3);
    let (kept, given_up) = (cluster.put(MemberId(2), "kept"), cluster.put(MemberId(3), "dropped"));
    cluster.step(MemberId(3), Input::Forget(vec![given_up]));
    assert!(cluster.answer(MemberId(2), kept).is_none());
    cluster.ticks(40);
    let answer = cluster.answer(MemberId(2), kept).unwrap();
    assert!(matches!(answer, Answer::Applied(Applied::Done(Reply::Put(_)))), "{answer:?}");
    for number in 1..=3 {
        assert_eq!(cluster.count(MemberId(number)), 1);
    }
}

/// What a follower passes on while the leadership is handed over reaches the next leader: nobody
/// would ask again before its request times out.
#[test]
fn proposals_passed_on_during_a_transfer_are_not_lost() {
    let mut cluster = Cluster::led(3);
    let leader = cluster.leader().unwrap();
    let next = cluster.follower();
    let other = *cluster.ones.keys().find(|id| **id != leader && **id != next).unwrap();
    // The next leader lacks an entry, so that the transfer takes a while.
    cluster.cut.insert(next);
    cluster.put(leader, "before");
    let transfer = cluster.ticket();
    cluster.step(leader, Input::TransferLeader(transfer, next));
    let put = cluster.put(other, "meanwhile");
    cluster.deliver();
    assert!(cluster.answer(other, put).is_none());
    cluster.cut.clear();
    cluster.ticks(3);
    assert_eq!(cluster.leader(), Some(next));
    assert!(matches!(cluster.answer(other, put), Some(Answer::Applied(_))));
}

/// What reaches a member that knows no leader waits, too; but nothing comes back from the past,
/// when who asked has given up long ago.
#[test]
fn proposals_passed_on_wait_for_a_leader_but_not_for_long() {
    for (pause, is_applied) in [(1, true), (2 * ELECTION_TICKS, false)] {
        let mut cluster = Cluster::led(3);
        let (leader, other) = (cluster.leader().unwrap(), cluster.follower());
        let put = cluster.put(other, "late");
        let is_proposal = |message: &Message| matches!(message.body, Body::Propose(_));
        let passed: Vec<Message> = cluster.network.drain(..).filter(is_proposal).collect();
        assert_eq!(passed.len(), 1);
        cluster.cut.insert(leader);
        cluster.ticks(5 * ELECTION_TICKS);
        assert_eq!(cluster.one(leader).member.status().leader, None);
        assert_ne!(cluster.leader(), Some(leader));
        cluster.step(leader, Input::Receive(passed));
        cluster.ticks(pause);
        cluster.cut.clear();
        cluster.ticks(ELECTION_TICKS / 2);
        assert_eq!(cluster.one(other).answers.contains_key(&put), is_applied);
    }
}

/// CB-52: a follower asks the leader, and asks again what got lost.
#[test]
fn a_read_is_asked_again() {
    let mut cluster = Cluster::led(3);
    let follower = cluster.follower();
    let ticket = cluster.ticket();
    cluster.step(follower, Input::Read(vec![ticket]));
    let is_question = |message: &Message| matches!(message.body, Body::ReadIndex { .. });
    assert!(cluster.network.iter().any(is_question));
    cluster.network.clear();
    cluster.ticks(4);
    assert!(cluster.answer(follower, ticket).is_none());
    cluster.ticks(2);
    assert!(matches!(cluster.answer(follower, ticket), Some(Answer::Read)));
}

/// CB-52: what the old leader was asked for fails when another one leads.
#[test]
fn a_new_leader_ends_old_questions() {
    let mut cluster = Cluster::led(3);
    let old = cluster.leader().unwrap();
    cluster.cut.insert(old);
    let follower = cluster.follower();
    let asked = cluster.ticket();
    cluster.step(follower, Input::Read(vec![asked]));
    cluster.ticks(40);
    assert_ne!(cluster.leader(), Some(old));
    assert_eq!(cluster.failure(follower, asked), Failure::LeaderChanged);
}

/// M-08, CB-51.
#[test]
fn leadership_is_handed_over() {
    let mut cluster = Cluster::led(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let tickets: Vec<Ticket> = (0..4).map(|_| cluster.ticket()).collect();
    cluster.step(follower, Input::TransferLeader(tickets[0], leader));
    assert_eq!(cluster.failure(follower, tickets[0]), Failure::NotLeader);
    cluster.step(leader, Input::TransferLeader(tickets[1], MemberId(9)));
    assert_eq!(cluster.failure(leader, tickets[1]), Failure::BadTransferee);

    cluster.cut.insert(follower);
    cluster.step(leader, Input::TransferLeader(tickets[2], follower));
    assert_eq!(cluster.one(leader).member.status().transfer_to, Some(follower));
    let put = cluster.put(leader, "meanwhile");
    cluster.ticks(ELECTION_TICKS + 1);
    assert_eq!(cluster.failure(leader, tickets[2]), Failure::TransferAborted);
    assert!(matches!(cluster.answer(leader, put), Some(Answer::Applied(_))), "it waited");

    cluster.cut.clear();
    cluster.ticks(3);
    cluster.step(leader, Input::TransferLeader(tickets[3], follower));
    cluster.ticks(2);
    assert!(matches!(cluster.answer(leader, tickets[3]), Some(Answer::Transferred)));
    assert_eq!(cluster.leader(), Some(follower));
}

/// G6, L-06, L-10: a leader that nobody follows promises nothing, and a new one keeps the lease.
#[test]
fn a_leader_that_is_cut_off_renews_nothing() {
    let mut cluster = Cluster::led(3);
    let (old, lease) = (cluster.leader().unwrap(), LeaseId(7));
    let granted = cluster.grant(old, lease.0, 5);
    cluster.deliver();
    assert!(matches!(cluster.answer(old, granted), Some(Answer::Applied(_))));
    let tickets: Vec<Ticket> = (0..4).map(|_| cluster.ticket()).collect();
    cluster.step(old, Input::RenewLease(tickets[0], lease));
    cluster.deliver();
    assert!(matches!(cluster.answer(old, tickets[0]), Some(Answer::Lease(Some(5)))));

    cluster.ticks(6);
    cluster.cut.insert(old);
    cluster.step(old, Input::RenewLease(tickets[1], lease));
    cluster.ticks(5);
    assert!(cluster.answer(old, tickets[1]).is_none(), "nobody confirmed");
    cluster.ticks(30);
    assert_eq!(cluster.failure(old, tickets[1]), Failure::NotLeader);
    let new = cluster.leader().unwrap();
    assert_ne!(new, old);
    assert!(cluster.one(new).member.state().reads().lease(lease, false).is_some());
    cluster.step(old, Input::LeaseRemaining(tickets[2], lease));
    assert_eq!(cluster.failure(old, tickets[2]), Failure::NotLeader);
    cluster.step(new, Input::RenewLease(tickets[3], lease));
    cluster.deliver();
    assert!(matches!(cluster.answer(new, tickets[3]), Some(Answer::Lease(Some(5)))));
    cluster.ticks(80);
    assert!(cluster.one(new).member.state().reads().lease(lease, false).is_none());
}

/// SRV-146, L-07: a renewal is made whether it waits for what is committed or not.
#[test]
fn a_renewal_is_made_at_once_or_once_all_is_applied() {
    for renews_at_once in [true, false] {
        let mut cluster = Cluster::led(3);
        let (leader, lease) = (cluster.leader().unwrap(), LeaseId(7));
        let options = LeaseOptions { renews_at_once, ..LeaseOptions::default() };
        cluster.one(leader).member.set_leases(options);
        cluster.grant(leader, lease.0, 5);
        let first = cluster.ticket();
        cluster.step(leader, Input::RenewLease(first, lease));
        cluster.deliver();
        // A quorum is known to follow now.
        assert!(matches!(cluster.answer(leader, first), Some(Answer::Lease(Some(5)))));
        let ticket = cluster.ticket();
        cluster.step(leader, Input::RenewLease(ticket, lease));
        cluster.deliver();
        assert!(matches!(cluster.answer(leader, ticket), Some(Answer::Lease(Some(5)))));
    }
}

/// SRV-144, L-12: the rest of a long lease is written down, unless that is turned off.
#[test]
fn the_rest_of_a_long_lease_is_written_down() {
    for checkpoints in [true, false] {
        let mut cluster = Cluster::led(1);
        let (leader, lease) = (cluster.leader().unwrap(), LeaseId(7));
        let options = LeaseOptions { checkpoints, ..LeaseOptions::default() };
        cluster.one(leader).member.set_leases(options);
        cluster.grant(leader, lease.0, 1000);
        cluster.ticks(3100);
        let known = cluster.one(leader).member.state().reads().lease(lease, false).unwrap();
        assert_eq!(known.remaining_ttl_seconds < 1000, checkpoints);
    }
}

/// CB-59: whatever clocks the others have, a lease lives as long as the leader's says.
#[test]
fn a_lease_ends_by_the_leaders_clock() {
    let mut cluster = Cluster::led(3);
    let (leader, lease) = (cluster.leader().unwrap(), LeaseId(7));
    for (id, one) in &mut cluster.ones {
        one.ahead_millis = if *id == leader { 0 } else { 1_000_000 };
    }
    cluster.grant(leader, lease.0, 5);
    cluster.deliver();
    let lives = |cluster: &Cluster| {
        let leases = cluster.ones.values().map(|one| one.member.state().reads());
        leases.filter(|reads| reads.lease(lease, false).is_some()).count()
    };
    cluster.ticks(40);
    assert_eq!(lives(&cluster), 3);
    // And not before: the others are past its end by far.
    cluster.one(leader).ahead_millis = 10_000;
    cluster.ticks(10);
    assert_eq!((lives(&cluster), cluster.leader()), (0, Some(leader)));
}

/// L-06, G6: the owner of an ended lease hears of its end only once no put can name it.
#[test]
fn an_ended_lease_is_told_of_once_it_is_revoked() {
    let mut cluster = Cluster::led(3);
    let (leader, lease) = (cluster.leader().unwrap(), LeaseId(7));
    cluster.grant(leader, lease.0, 5);
    cluster.deliver();
    cluster.ticks(50);
    let lives = |cluster: &mut Cluster| {
        cluster.one(leader).member.state().reads().lease(lease, false).is_some()
    };
    assert!(lives(&mut cluster), "its revoke is not due yet");
    let ticket = cluster.ticket();
    cluster.step(leader, Input::RenewLease(ticket, lease));
    cluster.deliver();
    assert!(lives(&mut cluster));
    assert!(cluster.answer(leader, ticket).is_none(), "it still has its keys");
    cluster.ticks(10);
    assert!(!lives(&mut cluster));
    assert!(matches!(cluster.answer(leader, ticket), Some(Answer::Lease(None))));
}

/// C-01, C-03, C-07, CB-30, CB-36, CB-38: changes wait for each other; a new member gets a
/// snapshot; who is removed is told, and not listened to any more.
#[test]
fn members_are_added_and_removed() {
    let mut cluster = Cluster::led(3);
    let leader = cluster.leader().unwrap();
    for _ in 0..20 {
        cluster.put(leader, "k");
    }
    cluster.deliver();
    let applied = cluster.one(leader).member.applied().index;
    cluster.step(leader, Input::Compact(applied));

    let learner = MemberObject { is_learner: true, ..object(4) };
    let (added, clashes) = (cluster.ticket(), cluster.ticket());
    let kind = raftpb::ConfChangeType::ConfChangeAddLearnerNode;
    cluster.step(leader, Input::ProposeChange(change(added, kind, &learner)));
    cluster.step(leader, Input::ProposeChange(change(clashes, kind, &learner)));
    cluster.join(4, 0);
    cluster.ticks(5);
    let answer = cluster.answer(leader, added).unwrap();
    let Answer::Applied(Applied::Done(Reply::Members(members))) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(members.len(), 4);
    let answer = cluster.answer(leader, clashes).unwrap();
    let refused = matches!(answer, Answer::Applied(Applied::Refused(Refusal::MemberExists)));
    assert!(refused, "{answer:?}");
    assert_eq!(cluster.count(MemberId(4)), 1);
    let members = cluster.one(MemberId(4)).member.consensus().conf_state();
    assert!(members.learners.contains(&MemberId(4)), "{members:?}");
    assert_eq!(cluster.one(leader).member.learner_ready(MemberId(4)), Some(true));
    assert_eq!(cluster.one(leader).member.learner_ready(MemberId(9)), None);

    let (removed, kind) = (cluster.ticket(), raftpb::ConfChangeType::ConfChangeRemoveNode);
    let follower = cluster.follower();
    cluster.step(leader, Input::ProposeChange(change(removed, kind, &object(leader.0))));
    cluster.ticks(2);
    assert!(cluster.one(leader).removed);
    assert!(cluster.one(follower).member.state().is_removed(leader));
    cluster.ticks(40);
    let next = cluster.leader().unwrap();
    assert_ne!(next, leader, "nobody listens to it");
    assert!(!cluster.one(next).removed);
}

/// Interop 5.6: a database of another moment than its message says is refused.
#[test]
fn a_snapshot_of_another_moment_is_refused() {
    let mut cluster = Cluster::led(1);
    let one = cluster.one(MemberId(1));
    let mut copy = one.backend.copy().unwrap();
    let len = usize::try_from(copy.len()).unwrap();
    let bytes = copy.read(len).unwrap();
    let position = SnapshotFacts::read(&copy).unwrap().position;
    let file = one.disk.shared().open("in.snap.db", Open::Create).unwrap();
    file.write_at(&bytes, 0).unwrap();
    drop(file);
    let later = base::LogPosition { index: position.index.next(), ..position };
    let incoming = one.backend.open_incoming("in.snap.db").unwrap();
    Received::prepare(incoming, later, &state_options()).unwrap_err();
    let incoming = one.backend.open_incoming("in.snap.db").unwrap();
    Received::prepare(incoming, position, &state_options()).unwrap().discard().unwrap();
    assert!(!one.disk.shared().exists("in.snap.db").unwrap());
}
