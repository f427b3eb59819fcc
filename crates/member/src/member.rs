//! The member: one input at a time, everything it causes at once.

use std::collections::BTreeMap;

use base::{Index, LeaseId, LogPosition, MemberId, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};
use raft::{Entry, EntryKind, MembershipChange, Message, Persist, PersistToken, Raft, RoleKind};
use state::{Applied, CheckpointNumber, Committed, MemberChange, Outcome, Payload, State};

use crate::RequestIds;
use crate::leases::Leases;
use crate::reads::Reads;

pub use state::Halt;

/// Names a caller that waits for an answer; a proposal's is its request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One request for the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Who waits; the request id.
    pub ticket: Ticket,
    /// Encoded `InternalRaftRequest`; its header carries the same id.
    pub request: Bytes,
}

/// What happens to a member.
#[derive(Debug)]
pub enum Input {
    /// One unit of logical time went by.
    Tick,
    /// Requests, in the order in which they are to be appended.
    Propose(Vec<Proposal>),
    /// Callers that want to read everything acknowledged so far.
    Read(Vec<Ticket>),
    /// Messages of other members.
    Receive(Vec<Message>),
    /// A batch is durable.
    Persisted(PersistToken),
    /// A client keeps a lease alive.
    RenewLease(Ticket, LeaseId),
    /// A client asks how long a lease lives.
    LeaseRemaining(Ticket, LeaseId),
    /// A client asks for all leases, soonest end first.
    LeasesByExpiry(Ticket),
    /// The database could not be made durable for want of room.
    DiskFull,
    /// The database was made durable.
    Durable,
    /// The log may be forgotten up to here; the state is durable beyond.
    Compact(Index),
}

/// What must be done, in any order unless said otherwise.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Messages that may leave at once.
    pub send: Vec<Message>,
    /// Batches to make durable, in order; each releases its own messages.
    pub persist: Vec<Persist>,
    /// Answers to callers.
    pub answers: Vec<(Ticket, Answer)>,
    /// Members that need a snapshot.
    pub snapshot_wanted: Vec<MemberId>,
    /// Whether a compaction was begun, so that [`Member::compact_step`] has work.
    pub compaction_begun: bool,
    /// Whether the membership or the cluster version may have changed.
    pub members_changed: bool,
}

/// What a caller is told.
#[derive(Debug)]
pub enum Answer {
    /// The entry was applied.
    Applied(Applied),
    /// What is applied here includes everything acknowledged before the question.
    Read,
    /// Seconds a lease lives on; `None` for an unknown or ended one.
    Lease(Option<i64>),
    /// Leases, soonest end first.
    Leases(Vec<LeaseId>),
    /// It was not proposed, or nobody will confirm it.
    Failed(Failure),
}

/// Why consensus gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No leader is known; nothing was proposed.
    NoLeader,
    /// Too much is under way; nothing was proposed.
    Overloaded,
    /// The leader changed; a proposal's outcome is unknown, a read may be asked again.
    LeaderChanged,
}

/// How a member behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// This member.
    pub id: MemberId,
    /// Bytes of the database above which NOSPACE is raised; `None` for never.
    pub quota_bytes: Option<u64>,
    /// The least time without a leader before an election, in milliseconds.
    pub election_millis: u64,
    /// Ids for what the member proposes by itself.
    pub ids: RequestIds,
}

/// The member.
#[derive(Debug)]
pub struct Member {
    raft: Raft,
    state: State,
    backend: backend::Backend,
    options: Options,
    reads: Reads,
    leases: Leases,
    /// Renewals that wait for their checkpoint of 0, by the request that carries it.
    clearing: BTreeMap<u64, Clearing>,
    leader: Option<MemberId>,
    leading_since: Option<Term>,
    /// Set from proposing NOSPACE until it is seen applied.
    alarm_proposed: bool,
    /// Whether NOSPACE was asked for because the disk, not the quota, was full.
    raised_for_disk: bool,
    outcomes: Vec<Outcome>,
}

impl Member {
    /// A member over its restored consensus and state.
    ///
    /// # Panics
    ///
    /// If consensus believes more to be applied than the state holds.
    #[must_use]
    pub fn new(raft: Raft, state: State, backend: backend::Backend, options: Options) -> Self {
        let applied = state.applied().index;
        let options_election = options.election_millis;
        let status = raft.status();
        assert!(
            status.applied <= applied,
            "applied {} beyond the state's {applied}",
            status.applied
        );
        Self {
            raft,
            state,
            backend,
            options,
            reads: Reads::default(),
            leases: Leases::new(options_election),
            clearing: BTreeMap::new(),
            leader: None,
            leading_since: None,
            alarm_proposed: false,
            raised_for_disk: false,
            outcomes: Vec::new(),
        }
    }

    /// Takes one input; what it causes is added to `out`. `now_millis` is monotonic.
    ///
    /// # Errors
    ///
    /// `Halt` means this member alone failed and must stop before it diverges.
    pub fn step(&mut self, now_millis: u64, input: Input, out: &mut Outputs) -> Result<(), Halt> {
        match input {
            Input::Tick => {
                self.raft.tick();
                self.drive_leases(now_millis);
            }
            Input::Propose(proposals) => self.propose(proposals, out),
            Input::Read(tickets) => {
                let context = self.reads.begin(tickets);
                self.raft.read(context);
            }
            Input::Receive(messages) => {
                for message in messages {
                    self.raft.step(message);
                }
            }
            Input::Persisted(token) => self.raft.persisted(token),
            Input::RenewLease(ticket, id) => self.renew_lease(now_millis, ticket, id, out),
            Input::LeaseRemaining(ticket, id) => {
                let ttl = self.leases.remaining(id, now_millis);
                out.answers.push((ticket, Answer::Lease(ttl)));
            }
            Input::LeasesByExpiry(ticket) => {
                out.answers.push((ticket, Answer::Leases(self.leases.by_expiry())));
            }
            Input::DiskFull => self.on_disk_full(),
            Input::Durable => self.on_disk_room(),
            Input::Compact(index) => self.raft.compact(index),
        }
        self.drain(now_millis, out)
    }

    /// Begins: applies what is committed and not applied yet, and, as the only voter of a cluster,
    /// stands for election without waiting.
    ///
    /// # Errors
    ///
    /// As [`Member::step`].
    pub fn start(&mut self, now_millis: u64, out: &mut Outputs) -> Result<(), Halt> {
        self.drain(now_millis, out)?;
        let status = self.raft.status();
        if status.conf_state.voters.iter().eq([&self.options.id]) {
            self.raft.campaign();
        }
        self.drain(now_millis, out)
    }

    /// Removes rows of a scheduled compaction, as a bounded piece of work.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub fn compact_step(&mut self) -> Result<mvcc::CompactStep, backend::ReadError> {
        self.state.compact_step()
    }

    /// Role, term and progress.
    #[must_use]
    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How far the log is applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.state.applied()
    }

    fn propose(&mut self, proposals: Vec<Proposal>, out: &mut Outputs) {
        let tickets: Vec<Ticket> = proposals.iter().map(|proposal| proposal.ticket).collect();
        let batch = proposals.into_iter().map(|proposal| proposal.request).collect();
        let failure = match self.raft.propose(batch) {
            Ok(()) => return,
            Err(raft::ProposeError::NoLeader | raft::ProposeError::NotMember) => Failure::NoLeader,
            Err(raft::ProposeError::Transferring { .. }) => Failure::LeaderChanged,
            Err(raft::ProposeError::Overloaded { .. }) => Failure::Overloaded,
        };
        out.answers.extend(tickets.into_iter().map(|ticket| (ticket, Answer::Failed(failure))));
    }

    /// Does what consensus asks for until it asks for nothing more.
    fn drain(&mut self, now_millis: u64, out: &mut Outputs) -> Result<(), Halt> {
        while let Some(ready) = self.raft.ready() {
            out.send.extend(ready.at_once);
            out.persist.extend(ready.persist);
            out.snapshot_wanted.extend(ready.snapshot_wanted);
            if let Some(soft) = ready.soft {
                self.on_leadership(now_millis, &soft, out);
            }
            for read in ready.reads {
                self.reads.confirm(read.context, read.index);
            }
            if !ready.committed.is_empty() {
                self.apply(now_millis, ready.committed, out)?;
            }
            let applied = self.state.applied().index;
            for ticket in self.reads.take_applied(applied) {
                out.answers.push((ticket, Answer::Read));
            }
        }
        Ok(())
    }

    fn on_leadership(&mut self, now_millis: u64, soft: &raft::SoftState, out: &mut Outputs) {
        let leads = soft.role == RoleKind::Leader;
        if leads && self.leading_since.is_none() {
            self.leading_since = Some(self.raft.status().term);
            self.leases.promote(now_millis, &self.state);
        } else if !leads && self.leading_since.take().is_some() {
            self.leases.demote();
            for clearing in std::mem::take(&mut self.clearing).into_values() {
                out.answers.push((clearing.ticket, Answer::Failed(Failure::LeaderChanged)));
            }
        }
        if self.leader != soft.leader {
            self.leader = soft.leader;
            for ticket in self.reads.take_unconfirmed() {
                out.answers.push((ticket, Answer::Failed(Failure::LeaderChanged)));
            }
        }
    }

    fn apply(
        &mut self,
        now_millis: u64,
        entries: Vec<Entry>,
        out: &mut Outputs,
    ) -> Result<(), Halt> {
        let last = entries.last().expect("a run of entries is not empty").index;
        let committed: Vec<Committed> = entries.into_iter().map(committed).collect();
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.state.apply(&committed, &mut outcomes)?;
        self.raft.applied(last);
        for outcome in outcomes.drain(..) {
            if let Some(change) = outcome.change {
                self.raft.apply_change(&membership_change(change));
                out.members_changed = true;
            }
            self.leases.on_applied(now_millis, &outcome.applied);
            self.finish_renewal(outcome.request_id, out);
            match &outcome.applied {
                Applied::Done(state::Reply::Compact(_)) => out.compaction_begun = true,
                Applied::Done(state::Reply::Alarm(_)) => self.alarm_proposed = false,
                Applied::Done(state::Reply::None) => out.members_changed = true,
                Applied::Done(_) | Applied::Refused(_) => {}
            }
            if outcome.request_id != 0 {
                out.answers.push((Ticket(outcome.request_id), Answer::Applied(outcome.applied)));
            }
        }
        self.outcomes = outcomes;
        self.raise_no_space_above_quota();
        Ok(())
    }

    /// A write above the quota is applied all the same; the member then asks for the alarm, so
    /// that the quota itself need not be the same everywhere (interop 6.4).
    fn raise_no_space_above_quota(&mut self) {
        let Some(quota) = self.options.quota_bytes else { return };
        if !self.alarm_proposed && quota < self.backend.sizes().total && !self.no_space_raised() {
            self.alarm_proposed = self.propose_no_space(AlarmAction::Activate);
        }
    }

    /// A full disk raises the same alarm as a full quota: reads and deletions go on (G14).
    fn on_disk_full(&mut self) {
        if !self.alarm_proposed && !self.no_space_raised() {
            self.alarm_proposed = self.propose_no_space(AlarmAction::Activate);
        }
        self.raised_for_disk = true;
    }

    /// What a full disk raised is taken back once there is room; a full quota is the operator's.
    fn on_disk_room(&mut self) {
        if self.alarm_proposed {
            // It is not raised yet, so it could not be taken back; asked again once it is.
            return;
        }
        let below_quota =
            self.options.quota_bytes.is_none_or(|quota| self.backend.sizes().total <= quota);
        if self.raised_for_disk && below_quota {
            let done = !self.no_space_raised() || self.propose_no_space(AlarmAction::Deactivate);
            self.raised_for_disk = !done;
        }
    }

    fn no_space_raised(&self) -> bool {
        let raised = self.state.reads().alarms();
        raised.iter().any(|alarm| {
            alarm.member_id == self.options.id.0 && alarm.alarm == pb::AlarmType::Nospace as i32
        })
    }

    fn propose_no_space(&mut self, action: AlarmAction) -> bool {
        let alarm = Some(pb::AlarmRequest {
            action: action as i32,
            member_id: self.options.id.0,
            alarm: pb::AlarmType::Nospace as i32,
        });
        self.propose_own(pb::InternalRaftRequest { alarm, ..Default::default() })
    }

    fn drive_leases(&mut self, now_millis: u64) {
        let due = self.leases.due(now_millis);
        for id in due.revoke {
            let lease_revoke = Some(pb::LeaseRevokeRequest { id: id.0 });
            self.propose_own(pb::InternalRaftRequest { lease_revoke, ..Default::default() });
        }
        for checkpoint in due.checkpoint {
            let lease_checkpoint = Some(checkpoint);
            self.propose_own(pb::InternalRaftRequest { lease_checkpoint, ..Default::default() });
        }
    }

    /// Answers at once, unless members know of a shorter rest: then the owner is answered when
    /// they know better, or the next leader would end the lease too early.
    fn renew_lease(&mut self, now_millis: u64, ticket: Ticket, id: LeaseId, out: &mut Outputs) {
        let Some((ttl_seconds, clear)) = self.leases.renew(id, now_millis) else {
            out.answers.push((ticket, Answer::Lease(None)));
            return;
        };
        let Some(number) = clear else {
            out.answers.push((ticket, Answer::Lease(Some(ttl_seconds))));
            return;
        };
        let checkpoints = vec![pb::LeaseCheckpoint { id: id.0, remaining_ttl: 0 }];
        let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
        let request = pb::InternalRaftRequest { lease_checkpoint, ..Default::default() };
        match self.propose_with_id(request) {
            Some(request) => {
                self.clearing.insert(request, Clearing { ticket, id, number, ttl_seconds });
            }
            None => out.answers.push((ticket, Answer::Failed(Failure::Overloaded))),
        }
    }

    fn finish_renewal(&mut self, request: u64, out: &mut Outputs) {
        if let Some(clearing) = self.clearing.remove(&request) {
            self.leases.checkpoint_cleared(clearing.id, clearing.number);
            out.answers.push((clearing.ticket, Answer::Lease(Some(clearing.ttl_seconds))));
        }
    }

    /// Proposes for nobody; whether it was taken. What is not taken is asked for again later.
    fn propose_own(&mut self, request: pb::InternalRaftRequest) -> bool {
        self.propose_with_id(request).is_some()
    }

    /// Proposes, under an id of this member's own lane.
    fn propose_with_id(&mut self, mut request: pb::InternalRaftRequest) -> Option<u64> {
        let id = self.options.ids.next_id();
        request.header = Some(pb::RequestHeader { id, ..Default::default() });
        self.raft.propose(vec![request.encode_to_vec().into()]).ok()?;
        Some(id)
    }
}

/// A renewal that waits for its checkpoint of 0.
#[derive(Debug)]
struct Clearing {
    ticket: Ticket,
    id: LeaseId,
    number: CheckpointNumber,
    ttl_seconds: i64,
}

fn committed(entry: Entry) -> Committed {
    let position = entry.position();
    let payload = match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => Payload::Nothing,
        EntryKind::Normal => Payload::Request(entry.data),
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => Payload::MemberChange(entry.data),
    };
    Committed { position, payload }
}

fn membership_change(change: MemberChange) -> MembershipChange {
    match change {
        MemberChange::AddVoter(id) => MembershipChange::AddVoter(id),
        MemberChange::AddLearner(id) => MembershipChange::AddLearner(id),
        MemberChange::Remove(id) => MembershipChange::Remove(id),
        MemberChange::None => MembershipChange::None,
    }
}
