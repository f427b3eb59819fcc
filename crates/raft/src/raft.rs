//! One member's part in consensus: the type and its verbs.
//!
//! Free of input and output: time comes in as [`Raft::tick`], messages as [`Raft::step`], the
//! disk's progress as [`Raft::persisted`]; what must be done comes out of [`Raft::ready`]. Two
//! members with the same settings and the same inputs do the same.
//!
//! Not here: the roles' own handlers (`follower`, `candidate`, `leader` and the files it names) and
//! the changes between roles (`election`).
//! Source: Raft (Ongaro and Ousterhout, 2014) and the thesis; etcd raft: raft.go, rawnode.go.

use base::{Index, LogPosition, MemberId};
use bytes::Bytes;

use crate::candidate::Stage;
use crate::follower::Follower;
use crate::log::Log;
use crate::membership::{self, Membership, MembershipChange};
use crate::message::{Body, Message, SnapshotMeta};
use crate::random::Random;
use crate::read_index;
use crate::ready::{Persist, PersistToken, Ready, RoleKind, SoftState};
use crate::role::{Common, Role};
use crate::trace::{DropReason, Event, Trace};
use crate::{ConfState, Config, Entry, EntryKind, Forgotten, HardState};

/// What a member knows when it starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Term, vote and commit index from the disk.
    pub hard_state: HardState,
    /// The configuration at `applied`.
    pub conf_state: ConfState,
    /// The last entry that is not in `entries`; default if the log was never compacted.
    pub snapshot: LogPosition,
    /// The log behind `snapshot`.
    pub entries: Vec<Entry>,
    /// What the state machine holds; not before `snapshot`. The next entry to apply follows it.
    pub applied: Index,
    /// Whether what is behind `applied` was read and may not be on the disk, as after a sync that
    /// failed. Nothing of it is vouched for or applied before the first batch, which asks for that
    /// alone, is durable.
    pub unsure: bool,
}

/// One member's consensus.
#[derive(Debug)]
pub struct Raft {
    pub(crate) common: Common,
    pub(crate) role: Role,
    /// What the driver was told last.
    told_hard_state: HardState,
    told_soft_state: SoftState,
    /// See [`Restored::unsure`]; until the first batch is handed out.
    unsure: bool,
}

/// Why nothing was proposed. The proposer may try again, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader is known.
    #[error("proposing without a leader")]
    NoLeader,
    /// This leader was removed and waits for its successor.
    #[error("proposing to a leader that was removed")]
    NotMember,
    /// This leader hands over.
    #[error("proposing while leadership goes to {to}")]
    Transferring {
        /// Who shall lead.
        to: MemberId,
    },
    /// Too much is waiting to be applied.
    #[error("proposing {bytes} bytes behind {uncommitted_bytes} not applied; the limit is {max}")]
    Overloaded {
        /// What was proposed.
        bytes: u64,
        /// What waits.
        uncommitted_bytes: u64,
        /// The limit.
        max: u64,
    },
}

impl Raft {
    /// A follower without a leader, as it was when it stopped.
    ///
    /// # Panics
    ///
    /// If the settings are impossible, or if what was restored is not one member's log: entries
    /// with gaps, or a commit or applied index beyond the end.
    #[must_use]
    pub fn new(config: Config, restored: Restored) -> Self {
        config.assert_sound();
        let Restored { hard_state, conf_state, snapshot, entries, applied, unsure } = restored;
        assert!(
            conf_state == ConfState::default() || membership::is_sound(&conf_state),
            "impossible configuration {conf_state:?}"
        );
        // The commit index on disk is a hint and may be behind.
        let commit = hard_state.commit.max(applied).max(snapshot.index);
        let mut log = Log::new(snapshot, entries, commit, applied.max(snapshot.index));
        if unsure {
            log.doubt();
        }
        // A crash can keep the first entries of a term and lose the word that the term began,
        // which was in the same batch. Nobody was told of a vote in it then.
        let (term, vote) = if hard_state.term < log.last().term {
            base::probe::reached("raft: a start finds entries of a term that was not written");
            (log.last().term, MemberId::NONE)
        } else {
            (hard_state.term, hard_state.vote)
        };
        let mut common = Common {
            random: Random::new(config.seed),
            config,
            term,
            vote,
            log,
            members: Membership::new(conf_state),
            election_elapsed_ticks: 0,
            election_timeout_ticks: 0,
            at_once: Vec::new(),
            held: Vec::new(),
            reads: Vec::new(),
            snapshot_wanted: Vec::new(),
            forgotten: None,
            trace: Trace::default(),
        };
        common.draw_election_timeout();
        Self {
            common,
            role: Role::Follower(Follower { leader: None }),
            told_hard_state: hard_state,
            told_soft_state: SoftState { leader: None, role: RoleKind::Follower },
            unsure,
        }
    }

    /// Lets one unit of logical time pass.
    pub fn tick(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            let transition = leader.tick(&mut self.common);
            self.enter(transition);
            return;
        }
        self.common.election_elapsed_ticks += 1;
        if self.common.election_timeout_ticks <= self.common.election_elapsed_ticks
            && self.common.is_promotable()
        {
            self.common.election_elapsed_ticks = 0;
            self.campaign();
        }
    }

    /// Campaigns now. Does nothing on a leader, on a member that may not lead, and while a
    /// committed change of the members is not applied.
    pub fn campaign(&mut self) {
        let stage = if self.common.config.pre_vote { Stage::PreVote } else { Stage::Vote };
        self.start_campaign(stage, false);
    }

    /// Handles a message from another member. Whatever it says, this does not panic; what no
    /// correct member sends is dropped.
    pub fn step(&mut self, message: Message) {
        let (from, kind) = (message.from, message.body.name());
        let own = self.common.id();
        // A transfer is asked for in the name of the one that shall lead.
        let is_own = from == own && !matches!(message.body, Body::TransferLeader);
        if message.to != own || is_own {
            self.common.drop_message(from, kind, DropReason::Misaddressed);
            return;
        }
        if let Some(fault) = message.fault() {
            self.common.drop_message(from, kind, DropReason::Malformed(fault));
            return;
        }
        if !self.settle_term(&message) {
            return;
        }
        if matches!(self.role, Role::Candidate(_)) && message.body.is_from_leader() {
            self.become_follower(self.common.term, Some(from));
        }
        match message.body {
            Body::Vote(request) => self.on_vote_request(from, message.term, request, Stage::Vote),
            Body::PreVote(request) => {
                self.on_vote_request(from, message.term, request, Stage::PreVote);
            }
            Body::Propose(entries) => {
                if self.propose_entries(from, entries).is_err() {
                    self.common.drop_message(from, kind, DropReason::NotTaken);
                }
            }
            Body::Append(_)
            | Body::AppendReply(_)
            | Body::VoteReply { .. }
            | Body::PreVoteReply { .. }
            | Body::Snapshot(_)
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {
                let transition = match &mut self.role {
                    Role::Follower(follower) => follower.step(&mut self.common, message),
                    Role::Candidate(candidate) => candidate.step(&mut self.common, message),
                    Role::Leader(leader) => leader.step(&mut self.common, message),
                };
                self.enter(transition);
            }
        }
    }

    /// Proposes one entry for each payload, in one go: a leader appends them, a follower passes
    /// them on to the leader. That they were taken does not mean that they will be committed.
    ///
    /// # Errors
    ///
    /// None of them was taken.
    pub fn propose(&mut self, batch: Vec<Bytes>) -> Result<(), ProposeError> {
        let entries = batch.into_iter().map(|data| Entry::proposed(EntryKind::Normal, data));
        self.propose_entries(self.common.id(), entries.collect())
    }

    /// Proposes a change of the members; `payload` is the raftpb `ConfChange` that
    /// [`Raft::apply_change`] is to be called for once it is committed. While another change may be
    /// unapplied, an empty entry is appended instead.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn propose_change(&mut self, payload: Bytes) -> Result<(), ProposeError> {
        let entry = Entry::proposed(EntryKind::ConfChange, payload);
        self.propose_entries(self.common.id(), vec![entry])
    }

    fn propose_entries(&mut self, from: MemberId, entries: Vec<Entry>) -> Result<(), ProposeError> {
        if entries.is_empty() {
            return Ok(());
        }
        match &mut self.role {
            Role::Leader(leader) => leader.propose(&mut self.common, entries),
            Role::Follower(follower) if follower.leader.is_some() => {
                follower.forward(&mut self.common, from, Body::Propose(entries));
                Ok(())
            }
            Role::Follower(_) | Role::Candidate(_) => Err(ProposeError::NoLeader),
        }
    }

    /// Asks for the index that must be applied before a read is linearizable; the answer comes in
    /// [`Ready::reads`] with the same context. It may never come (no leader, a new one, a lost
    /// message): then ask again.
    pub fn read(&mut self, context: u64) {
        let own = self.common.id();
        match &mut self.role {
            Role::Leader(leader) => leader.read(&mut self.common, context),
            Role::Follower(follower) if follower.leader.is_some() => {
                let body = Body::ReadIndex { context: read_index::encode(context) };
                follower.forward(&mut self.common, own, body);
            }
            Role::Follower(_) | Role::Candidate(_) => {
                self.common.trace.note(Event::ReadDropped { context });
            }
        }
    }

    /// What must be done now, if anything. Does not wait for what earlier calls returned; but
    /// [`Ready::persist`] and [`Ready::committed`] are each in order.
    pub fn ready(&mut self) -> Option<Ready> {
        if let Role::Leader(leader) = &mut self.role {
            leader.tell_commit(&mut self.common);
            if leader.reads.needs_round() {
                leader.broadcast_heartbeat(&mut self.common);
            }
        }
        let persist = self.take_persist();
        let soft_state = self.soft_state();
        let soft = (soft_state != self.told_soft_state).then_some(soft_state);
        self.told_soft_state = soft_state;
        let common = &mut self.common;
        let ready = Ready {
            at_once: std::mem::take(&mut common.at_once),
            persist,
            committed: common.log.take_committed(common.config.message_bytes_max),
            reads: std::mem::take(&mut common.reads),
            soft,
            snapshot_wanted: std::mem::take(&mut common.snapshot_wanted),
        };
        let is_idle = ready.at_once.is_empty()
            && ready.persist.is_none()
            && ready.committed.is_empty()
            && ready.reads.is_empty()
            && ready.soft.is_none()
            && ready.snapshot_wanted.is_empty();
        (!is_idle).then_some(ready)
    }

    fn take_persist(&mut self) -> Option<Persist> {
        let common = &mut self.common;
        let told = self.told_hard_state;
        let now = HardState { term: common.term, vote: common.vote, commit: common.log.commit() };
        let (entries, snapshot) = common.log.take_unstable();
        let is_new_ballot = (now.term, now.vote) != (told.term, told.vote);
        // Whoever is removed stops when it hears of it. A member that forgot the commit could then
        // wait for its vote for ever.
        let is_new_change = common.log.has_change_between(told.commit, now.commit)
            && !base::probe::mutant("commit-of-change-unsynced");
        let must_sync = !entries.is_empty()
            || snapshot.is_some()
            || is_new_ballot
            || is_new_change
            || std::mem::take(&mut self.unsure);
        if !must_sync && !common.log.is_sync_under_way() {
            // All that the held messages vouch for is durable already.
            common.at_once.append(&mut common.held);
        }
        if !must_sync && now == told && common.held.is_empty() {
            return None;
        }
        self.told_hard_state = now;
        let stored = snapshot.as_ref().map(|meta| meta.position.index);
        let token = common.log.hand_out(stored, must_sync, (now.term, now.vote));
        let held = std::mem::take(&mut common.held);
        Some(Persist {
            entries,
            hard_state: (now != told).then(|| match base::probe::mutant("forgets-vote") {
                true => HardState { vote: MemberId::NONE, ..now },
                false => now,
            }),
            snapshot,
            must_sync,
            token,
            held,
        })
    }

    /// The batch of that token is durable, and all before it.
    ///
    /// # Panics
    ///
    /// If no such batch is under way.
    pub fn persisted(&mut self, token: PersistToken) {
        let batch = self.common.log.persisted(token);
        match &mut self.role {
            Role::Leader(leader) => {
                leader.advance_commit(&mut self.common);
            }
            Role::Candidate(candidate) => {
                let ballot = (self.common.term, self.common.id());
                if candidate.stage == Stage::Vote && batch.ballot == ballot {
                    self.count_own_vote();
                }
            }
            Role::Follower(_) => {}
        }
    }

    /// Entries up to and including `index` are applied. An index reported before is ignored.
    ///
    /// # Panics
    ///
    /// If `index` is not committed.
    pub fn applied(&mut self, index: Index) {
        let payload_bytes = self.common.log.applied_to(index);
        if let Role::Leader(leader) = &mut self.role {
            leader.on_applied(payload_bytes);
        }
    }

    /// Puts an applied change in force and returns the configuration after it. To be called for
    /// every committed entry that is no [`EntryKind::Normal`] one, in the order of the log and
    /// before [`Raft::applied`] of its index, which lets the next change be proposed. A change that
    /// would leave no voter, or any change of a joint configuration, is not made.
    pub fn apply_change(&mut self, change: &MembershipChange) -> ConfState {
        match self.common.members.change(change) {
            Err(refusal) => self.common.trace.note(Event::ChangeRefused(refusal)),
            Ok(()) => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_members_changed(&mut self.common);
                }
            }
        }
        self.common.members.conf_state().clone()
    }

    /// Forgets entries up to and including `to` in memory, as far as they are applied. Members that
    /// need them get a snapshot.
    pub fn compact(&mut self, to: Index) {
        self.common.log.compact(to);
    }

    /// Sends `to` a snapshot that [`Ready::snapshot_wanted`] asked for. The message goes out with
    /// the next [`Ready`]; the transport adds the state to it and reports with
    /// [`Raft::snapshot_sent`].
    ///
    /// # Panics
    ///
    /// If the position is not committed here.
    pub fn send_snapshot(&mut self, to: MemberId, position: LogPosition, conf_state: ConfState) {
        let commit = self.common.log.commit();
        assert!(position.index <= commit, "snapshot at {position} beyond the commit {commit}");
        if let Role::Leader(leader) = &mut self.role {
            let meta = SnapshotMeta { position, conf_state };
            leader.send_snapshot(&mut self.common, to, meta);
        }
    }

    /// Reports how sending a snapshot ended, or with `false` that none can be sent now.
    pub fn snapshot_sent(&mut self, to: MemberId, ok: bool) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_snapshot_sent(to, ok);
        }
    }

    /// Reports that messages to `peer` were probably lost.
    pub fn unreachable(&mut self, peer: MemberId) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_unreachable(peer);
        }
    }

    /// Wishes that `to` leads. Not certain to happen; [`Ready::soft`] tells if it does.
    pub fn transfer(&mut self, to: MemberId) {
        match &mut self.role {
            Role::Leader(leader) => leader.start_transfer(&mut self.common, to),
            Role::Follower(follower) => {
                follower.forward(&mut self.common, to, Body::TransferLeader);
            }
            Role::Candidate(_) => {}
        }
    }

    /// Whether this member believes to lead.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether a change of the members proposed now would be appended as such: this member leads,
    /// and no earlier change may be unapplied.
    #[must_use]
    pub fn takes_change(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.pending_change <= self.common.log.applied(),
            Role::Follower(_) | Role::Candidate(_) => false,
        }
    }

    /// Whom this leader hands leadership to, if it does.
    #[must_use]
    pub fn transfer_to(&self) -> Option<MemberId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer_to,
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// Up to where the log is committed, as far as known.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.common.log.commit()
    }

    /// The configuration in force.
    #[must_use]
    pub fn conf_state(&self) -> &ConfState {
        self.common.members.conf_state()
    }

    /// What this member acknowledged and does not have any more, if its leader said so. Others may
    /// rely on it: such a member must not take part any longer.
    #[must_use]
    pub fn forgotten(&self) -> Option<Forgotten> {
        self.common.forgotten
    }

    /// This member's term.
    #[must_use]
    pub fn term(&self) -> base::Term {
        self.common.term
    }

    /// Who leads, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.common.id()),
        }
    }

    /// What happened since this was last called, for people; at most the newest few hundred.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.common.trace.take()
    }

    pub(crate) fn soft_state(&self) -> SoftState {
        SoftState { leader: self.leader(), role: self.role.kind() }
    }
}
