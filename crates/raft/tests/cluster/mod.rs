//! A whole cluster in one thread: members, their disks and states, and the network between them.
//!
//! What a member loses in a crash is what a real one loses: everything but the batches that became
//! durable. Its state machine keeps what it applied, which is all durable in the log.

#![allow(dead_code, reason = "each test target uses its own part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use retcd_raft::{
    Body, ConfState, Config, Entry, EntryKind, HardState, MembershipChange, Message, Persist, Raft,
    ReadReady, Ready, Restored, RoleKind, SnapshotMeta,
};

/// What a state machine holds: the entries applied, and the configuration after each.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) applied: Vec<Entry>,
    pub(crate) position: LogPosition,
    pub(crate) conf_state: ConfState,
    first_conf_state: ConfState,
    conf_states: Vec<ConfState>,
}

/// What survives a crash of the process, besides the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: LogPosition,
    pub(crate) entries: Vec<Entry>,
    /// A commit index alone is written without a sync; only this one survives for sure.
    synced_commit: Index,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) config: Config,
    /// `None` while it is down.
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    pub(crate) state: State,
    pub(crate) reads: Vec<ReadReady>,
    /// Batches not written yet; only kept while the disk is held.
    pub(crate) writes: VecDeque<Persist>,
    pub(crate) is_disk_held: bool,
    pub(crate) is_apply_held: bool,
    committed: VecDeque<Entry>,
}

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) network: VecDeque<Message>,
    pub(crate) isolated: BTreeSet<MemberId>,
    /// States that snapshots on their way stand for.
    images: BTreeMap<Index, State>,
}

impl Disk {
    fn write(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        snapshot: Option<&SnapshotMeta>,
        must_sync: bool,
    ) {
        if let Some(meta) = snapshot {
            self.snapshot = meta.position;
            self.entries.clear();
        }
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            let end = self.entries.last().map_or(self.snapshot, Entry::position);
            assert_eq!(first.index, end.index.next(), "a gap on the disk");
            self.entries.extend_from_slice(entries);
        }
        if let Some(hard_state) = hard_state {
            assert!(self.hard_state.term <= hard_state.term, "the durable term falls");
            assert!(
                self.hard_state.term < hard_state.term
                    || self.hard_state.vote.is_none()
                    || self.hard_state.vote == hard_state.vote,
                "two votes in one term: {:?}, then {hard_state:?}",
                self.hard_state
            );
            self.hard_state = *hard_state;
        }
        assert!(self.hard_state.commit <= self.last().index, "commit index beyond the log");
        if must_sync {
            self.synced_commit = self.hard_state.commit;
        }
    }

    pub(crate) fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.snapshot, Entry::position)
    }

    /// Drops what is not needed to start from a state at `to`.
    pub(crate) fn compact(&mut self, to: LogPosition) {
        if self.snapshot.index < to.index {
            self.entries.retain(|entry| to.index < entry.index);
            self.snapshot = to;
        }
    }
}

impl State {
    fn apply(&mut self, raft: &mut Raft, entry: Entry) {
        assert_eq!(entry.index, self.position.index.next(), "applied out of order");
        self.position = entry.position();
        if entry.kind != EntryKind::Normal {
            self.conf_state = raft.apply_change(&self.allowed(change(&entry.data)));
        }
        raft.applied(entry.index);
        self.applied.push(entry);
        self.conf_states.push(self.conf_state.clone());
    }

    /// Of two voters none is taken away: the other one may not know yet that it is alone, and the
    /// vote it needs then may be refused for ever, by one that has more entries and may not lead.
    /// etcd's members have the same trouble.
    fn allowed(&self, change: MembershipChange) -> MembershipChange {
        match change {
            MembershipChange::Remove(id) | MembershipChange::AddLearner(id)
                if self.conf_state.voters.len() == 2 && self.conf_state.voters.contains(&id) =>
            {
                MembershipChange::None
            }
            MembershipChange::AddVoter(_)
            | MembershipChange::AddLearner(_)
            | MembershipChange::Remove(_)
            | MembershipChange::None => change,
        }
    }

    fn new(conf_state: ConfState) -> Self {
        Self { first_conf_state: conf_state.clone(), conf_state, ..Self::default() }
    }

    /// The state after `index` entries, as if the rest had not become durable.
    fn roll_back(&mut self, index: Index) {
        let len = usize::try_from(index.0).unwrap();
        self.applied.truncate(len);
        self.conf_states.truncate(len);
        self.position = self.applied.last().map(Entry::position).unwrap_or_default();
        self.conf_state = self.conf_states.last().unwrap_or(&self.first_conf_state).clone();
    }
}

/// A change of the members as tests write it into an entry.
pub(crate) fn change(payload: &Bytes) -> MembershipChange {
    let text = std::str::from_utf8(payload).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["voter", id] => MembershipChange::AddVoter(member(id)),
        ["learner", id] => MembershipChange::AddLearner(member(id)),
        ["remove", id] => MembershipChange::Remove(member(id)),
        _ => MembershipChange::None,
    }
}

pub(crate) fn member(text: &str) -> MemberId {
    MemberId(text.parse().unwrap())
}

impl Member {
    pub(crate) fn new(config: Config, conf_state: ConfState) -> Self {
        let restored = Restored { conf_state: conf_state.clone(), ..Restored::default() };
        Self {
            raft: Some(Raft::new(config.clone(), restored)),
            config,
            disk: Disk::default(),
            state: State::new(conf_state),
            reads: Vec::new(),
            writes: VecDeque::new(),
            is_disk_held: false,
            is_apply_held: false,
            committed: VecDeque::new(),
        }
    }

    pub(crate) fn id(&self) -> MemberId {
        self.config.id
    }

    pub(crate) fn raft(&mut self) -> &mut Raft {
        self.raft.as_mut().expect("the member is up")
    }

    pub(crate) fn crash(&mut self) {
        self.raft = None;
        self.writes.clear();
        self.committed.clear();
        self.reads.clear();
    }

    /// Loses, of what was not synced, everything that may be lost: the newest commit index, and
    /// what the state machine applied behind `applied`.
    pub(crate) fn lose_power(&mut self, applied: Index) {
        self.crash();
        self.disk.hard_state.commit = self.disk.synced_commit;
        self.state.roll_back(applied.max(self.disk.snapshot.index).min(self.state.position.index));
    }

    pub(crate) fn restart(&mut self) {
        let restored = Restored {
            hard_state: self.disk.hard_state,
            conf_state: self.state.conf_state.clone(),
            snapshot: self.disk.snapshot,
            entries: self.disk.entries.clone(),
            applied: self.state.position.index,
            unsure: false,
        };
        // Another seed, or two members that crash together would campaign together for ever.
        self.config.seed = self.config.seed.wrapping_mul(31).wrapping_add(7);
        self.raft = Some(Raft::new(self.config.clone(), restored));
    }
}

impl Cluster {
    pub(crate) fn add(&mut self, config: Config, conf_state: ConfState) {
        self.members.insert(config.id, Member::new(config, conf_state));
    }

    /// A member of a new cluster as etcd makes it: its log begins with the changes that add all
    /// voters, committed.
    pub(crate) fn bootstrap(&mut self, config: Config, voters: u64) {
        let mut member = Member::new(config, ConfState::default());
        let entry = |id| Entry {
            kind: EntryKind::ConfChange,
            term: Term(1),
            index: Index(id),
            data: Bytes::from(format!("voter {id}")),
        };
        member.disk.entries = (1..=voters).map(entry).collect();
        member.disk.synced_commit = Index(voters);
        member.disk.hard_state =
            HardState { term: Term(1), vote: MemberId::NONE, commit: Index(voters) };
        member.restart();
        self.members.insert(member.id(), member);
    }

    pub(crate) fn raft(&mut self, id: MemberId) -> &mut Raft {
        self.member(id).raft()
    }

    pub(crate) fn member(&mut self, id: MemberId) -> &mut Member {
        self.members.get_mut(&id).expect("the member exists")
    }

    /// Does what all members want done; whether there was anything.
    pub(crate) fn work(&mut self) -> bool {
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        ids.into_iter().filter(|&id| self.work_of(id)).count() > 0
    }

    /// Does what one member wants done.
    pub(crate) fn work_of(&mut self, id: MemberId) -> bool {
        let mut any = false;
        loop {
            let progressed = self.write(id) | self.apply(id);
            let Some(ready) = self.member(id).raft.as_mut().and_then(Raft::ready) else {
                if progressed {
                    continue;
                }
                return any;
            };
            any = true;
            self.take(id, ready);
        }
    }

    /// Takes on one turn's work, leaving the disk's and the state machine's part for later.
    pub(crate) fn take(&mut self, id: MemberId, ready: Ready) {
        self.send(ready.at_once);
        let member = self.members.get_mut(&id).expect("the member exists");
        member.reads.extend(ready.reads);
        member.writes.extend(ready.persist);
        member.committed.extend(ready.committed);
        for to in ready.snapshot_wanted {
            let raft = member.raft.as_mut().expect("it is up");
            let State { position, conf_state, .. } = member.state.clone();
            self.images.insert(position.index, member.state.clone());
            raft.send_snapshot(to, position, conf_state);
        }
    }

    /// Writes what is waiting, unless the disk is held.
    pub(crate) fn write(&mut self, id: MemberId) -> bool {
        let mut any = false;
        while !self.member(id).is_disk_held && self.write_one(id) {
            any = true;
        }
        any
    }

    /// Writes one batch.
    pub(crate) fn write_one(&mut self, id: MemberId) -> bool {
        let member = self.members.get_mut(&id).expect("the member exists");
        let Some(persist) = member.writes.pop_front() else { return false };
        let image = persist.snapshot.as_ref().map(|meta| {
            let image = self.images.get(&meta.position.index).expect("a snapshot has a state");
            assert_eq!(image.position, meta.position);
            image.clone()
        });
        let must_sync = persist.must_sync;
        let persisted = persist
            .persist(|entries, hard_state, snapshot| {
                member.disk.write(entries, hard_state, snapshot, must_sync);
                Ok::<(), std::convert::Infallible>(())
            })
            .unwrap();
        if let Some(image) = image {
            member.committed.clear();
            member.state = image;
        }
        member.raft().persisted(persisted.token);
        self.send(persisted.messages);
        true
    }

    /// Applies what is committed, unless the state machine is held.
    pub(crate) fn apply(&mut self, id: MemberId) -> bool {
        let member = self.member(id);
        if member.is_apply_held || member.raft.is_none() {
            return false;
        }
        let mut any = false;
        while let Some(entry) = member.committed.pop_front() {
            let raft = member.raft.as_mut().expect("it is up");
            // The disk must have it already.
            let end = member.disk.last();
            assert!(entry.index <= end.index, "{} applied, the disk ends at {end}", entry.index);
            member.state.apply(raft, entry);
            any = true;
        }
        any
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            // A transfer goes out in the name of another member.
            if self.isolated.contains(&message.from) || self.isolated.contains(&message.to) {
                self.lose(&message);
            } else {
                self.network.push_back(message);
            }
        }
    }

    /// The transport notices that a message did not get through.
    pub(crate) fn lose(&mut self, message: &Message) {
        if matches!(message.body, Body::Snapshot(_))
            && let Some(raft) = self.member(message.from).raft.as_mut()
        {
            raft.snapshot_sent(message.to, false);
        }
    }

    /// Hands a message over.
    pub(crate) fn arrive(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        let is_up = self.members.get(&to).is_some_and(|member| member.raft.is_some());
        if !is_up || self.isolated.contains(&from) || self.isolated.contains(&to) {
            self.lose(&message);
            return;
        }
        if matches!(message.body, Body::Snapshot(_))
            && let Some(raft) = self.member(from).raft.as_mut()
        {
            raft.snapshot_sent(to, true);
        }
        self.raft(to).step(message);
    }

    /// Works and hands over messages until nothing is left to do.
    pub(crate) fn deliver(&mut self) {
        for _ in 0..10_000 {
            let worked = self.work();
            if self.network.is_empty() && !worked {
                return;
            }
            for message in std::mem::take(&mut self.network) {
                self.arrive(message);
            }
        }
        panic!("the cluster does not come to rest: {:?}", self.network);
    }

    pub(crate) fn leaders(&self) -> Vec<(Term, MemberId)> {
        let up = self.members.values().filter_map(|member| member.raft.as_ref());
        let statuses = up.map(Raft::status).filter(|status| status.role == RoleKind::Leader);
        statuses.map(|status| (status.term, status.id)).collect()
    }
}
