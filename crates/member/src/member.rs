//! The member: one input at a time, everything it causes at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{LeaseId, LogPosition, MemberId, Term};
use prost::Message as _;
use proto::etcdserverpb as pb;
use raft::{
    Body, ConfState, Entry, EntryKind, MembershipChange, Message, PersistToken, Raft, RoleKind,
    SnapshotMeta,
};
use state::{Applied, Committed, Halt, Identity, MemberChange, Outcome, Payload, Received, State};

use crate::alarms::NoSpace;
use crate::leases::{LeaseOptions, Leases};
use crate::reads::Reads;
use crate::renewals::Clearing;
use crate::sending::Sending;
use crate::waiting::Waiting;
use crate::{Answer, Failure, Input, Outputs, Proposal, RequestIds, Ticket, Turn};

/// How a member behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// This member.
    pub id: MemberId,
    /// Bytes of the database above which NOSPACE is raised; `None` for never.
    pub quota_bytes: Option<u64>,
    /// The least time without a leader before an election, in milliseconds.
    pub election_millis: u64,
    /// Ids for what the member proposes by itself. They are above those of every process of this
    /// member before.
    pub ids: RequestIds,
}

/// The member.
#[derive(Debug)]
pub struct Member {
    pub(crate) raft: Raft,
    pub(crate) state: State,
    pub(crate) backend: backend::Backend,
    pub(crate) options: Options,
    pub(crate) reads: Reads,
    pub(crate) leases: Leases,
    /// Renewals that wait for their checkpoint of 0, by the request that carries it.
    pub(crate) clearing: BTreeMap<u64, Clearing>,
    /// Renewals of leases that are not known here, and wait until all is applied that may be.
    pub(crate) unknown: BTreeMap<Ticket, LeaseId>,
    /// Renewals of leases that have ended and are being revoked.
    pub(crate) ended: BTreeMap<LeaseId, Vec<Ticket>>,
    /// The context of the round that tells whether a quorum follows this member.
    pub(crate) leader_question: Option<u64>,
    pub(crate) no_space: NoSpace,
    pub(crate) leader: Option<MemberId>,
    leading: Option<Term>,
    waiting: Waiting,
    transfer: Option<Transfer>,
    sending: Sending,
    /// Batches with a snapshot that are being made durable.
    restoring: VecDeque<(PersistToken, LogPosition)>,
    outcomes: Vec<Outcome>,
}

/// A caller that wants another member to lead.
#[derive(Debug)]
struct Transfer {
    ticket: Ticket,
    to: MemberId,
}

impl Member {
    /// A member over its restored consensus and state.
    ///
    /// # Panics
    ///
    /// If consensus believes more to be applied than the state holds.
    #[must_use]
    pub fn new(raft: Raft, state: State, backend: backend::Backend, mut options: Options) -> Self {
        let applied = state.applied().index;
        let status = raft.status();
        assert!(
            status.applied <= applied,
            "applied {} beyond the state's {applied}",
            status.applied
        );
        let first_context = options.ids.next_id();
        Self {
            raft,
            state,
            backend,
            reads: Reads::new(first_context),
            leases: Leases::new(options.election_millis),
            options,
            clearing: BTreeMap::new(),
            unknown: BTreeMap::new(),
            ended: BTreeMap::new(),
            leader_question: None,
            no_space: NoSpace::default(),
            leader: None,
            leading: None,
            waiting: Waiting::default(),
            transfer: None,
            sending: Sending::default(),
            restoring: VecDeque::new(),
            outcomes: Vec::new(),
        }
    }

    /// Keeps leases in another way than usual.
    pub fn set_leases(&mut self, options: LeaseOptions) {
        self.leases.set_options(options);
    }

    /// Takes one input; what it causes is added to `out`. `now_millis` is monotonic.
    ///
    /// # Errors
    ///
    /// `Halt` means this member alone failed and must stop before it diverges.
    ///
    /// # Panics
    ///
    /// If batches are reported durable out of order, or one with a snapshot without it.
    pub fn step(&mut self, now_millis: u64, input: Input, out: &mut Outputs) -> Result<(), Halt> {
        match input {
            Input::Tick => self.on_tick(now_millis),
            Input::Propose(proposals) => self.propose(proposals, out),
            Input::ProposeChange(change) => {
                let ticket = change.ticket;
                if !self.waiting.keep_change(change) {
                    out.answers.push((ticket, Answer::Failed(Failure::Overloaded)));
                }
            }
            Input::TransferLeader(ticket, to) => self.start_transfer(ticket, to, out),
            Input::Read(tickets) => self.read(now_millis, tickets, out),
            Input::Forget(tickets) => self.forget(tickets),
            Input::Receive(messages) => self.receive(now_millis, messages),
            Input::Turn(Turn { messages, proposals, reads }) => {
                // Acknowledgements first: what is proposed then tells of the commit as well.
                self.receive(now_millis, messages);
                if !proposals.is_empty() {
                    self.propose(proposals, out);
                }
                if !reads.is_empty() {
                    self.read(now_millis, reads, out);
                }
            }
            Input::Unreachable(member) => self.raft.unreachable(member),
            Input::SendSnapshot { to, position, conf_state } => {
                self.send_snapshot(to, position, conf_state);
            }
            Input::SnapshotSent(to, ok) => {
                self.sending.end(to, ok, now_millis);
                self.raft.snapshot_sent(to, ok);
            }
            Input::Persisted(token) => {
                let next = self.restoring.front().map(|(token, _)| *token);
                assert!(next != Some(token), "{token:?} has a snapshot, which is to be restored");
                if !self.raft.is_leader() {
                    base::probe::failpoint("raftBeforeFollowerSend");
                }
                self.raft.persisted(token);
            }
            Input::Restore(token, received) => self.restore(token, *received, out)?,
            Input::RenewLease(ticket, id) => self.on_renewal_asked(now_millis, ticket, id, out),
            Input::LeaseRemaining(ticket, id) => {
                let answer =
                    self.of_lease_clock(|leases| Answer::Lease(leases.remaining(id, now_millis)));
                out.answers.push((ticket, answer));
            }
            Input::LeasesByExpiry(ticket) => {
                let answer = self.of_lease_clock(|leases| Answer::Leases(leases.by_expiry()));
                out.answers.push((ticket, answer));
            }
            Input::DiskFull => self.on_disk_full(now_millis),
            Input::Durable => self.on_disk_room(now_millis),
            Input::Compact(index) => {
                let index = self.sending.limit(index, now_millis);
                self.raft.compact(index);
            }
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
        if self.raft.conf_state().voters.iter().eq([&self.options.id]) {
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

    /// Role, term and how far the log is.
    #[must_use]
    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }

    /// This member.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.options.id
    }

    /// Consensus: for what is looked at often, and for how far the other members are.
    #[must_use]
    pub fn consensus(&self) -> &Raft {
        &self.raft
    }

    /// Whether this member believes to lead.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Whether this member leads without others and has applied an entry of its own term: then it has
    /// applied every write that was acknowledged, and answers reads without a round
    /// (docs/design/0002).
    #[must_use]
    pub fn leads_alone(&self) -> bool {
        let members = self.raft.conf_state();
        let is_current = self.state.applied().term == self.raft.term()
            || base::probe::mutant("leads-alone-with-unapplied-entries");
        is_current
            && self.raft.is_leader()
            && members.voters.iter().eq([&self.options.id])
            && members.voters_outgoing.is_empty()
    }

    /// Whether a learner has nine tenths of the leader's log, so that it may get its vote (CB-36).
    /// `None` if this member does not lead, or sends nothing to such a member.
    #[must_use]
    pub fn learner_ready(&self, id: MemberId) -> Option<bool> {
        let status = self.raft.status();
        if status.role != RoleKind::Leader {
            return None;
        }
        let (_, peer) = self.raft.peers().find(|(peer, _)| *peer == id)?;
        let matched = peer.matched.0;
        Some(status.persisted.0.saturating_mul(9) <= matched.saturating_mul(10))
    }

    /// What happened in consensus since this was last called, for people; the newest few hundred.
    pub fn take_events(&mut self) -> Vec<raft::Event> {
        self.raft.take_events()
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

    fn on_tick(&mut self, now_millis: u64) {
        self.raft.tick();
        if self.leader.is_some()
            && let Some(context) = self.reads.overdue(self.leader, now_millis)
        {
            self.raft.read(context);
        }
        self.drive_leases(now_millis);
        self.remind_of_full_disk(now_millis);
    }

    fn receive(&mut self, now_millis: u64, messages: Vec<Message>) {
        for message in messages {
            // Whoever was removed cannot disturb those that know of it.
            if self.state.is_removed(message.from) {
                continue;
            }
            if matches!(message.body, Body::Propose(_)) && !self.is_proposing() {
                self.waiting.keep_passed(now_millis, message);
            } else {
                self.raft.step(message);
            }
        }
    }

    fn propose(&mut self, proposals: Vec<Proposal>, out: &mut Outputs) {
        let failed = if self.leader.is_none() || self.waiting.has_requests() {
            let failure =
                if self.leader.is_none() { Failure::NoLeader } else { Failure::Overloaded };
            Some((self.waiting.keep(proposals), failure))
        } else {
            self.propose_now(proposals)
        };
        if let Some((tickets, failure)) = failed {
            let answers = tickets.into_iter().map(|ticket| (ticket, Answer::Failed(failure)));
            out.answers.extend(answers);
        }
    }

    /// Proposes, or keeps for later what nobody takes now; those that failed, and why.
    fn propose_now(&mut self, proposals: Vec<Proposal>) -> Option<(Vec<Ticket>, Failure)> {
        let batch = proposals.iter().map(|proposal| proposal.request.clone()).collect();
        match self.raft.propose(batch) {
            Ok(()) => None,
            Err(raft::ProposeError::Overloaded { .. }) => {
                let tickets = proposals.into_iter().map(|proposal| proposal.ticket).collect();
                Some((tickets, Failure::Overloaded))
            }
            Err(
                raft::ProposeError::NoLeader
                | raft::ProposeError::NotMember
                | raft::ProposeError::Transferring { .. },
            ) => Some((self.waiting.keep(proposals), Failure::NoLeader)),
        }
    }

    /// Whether there is somebody who takes proposals.
    fn is_proposing(&self) -> bool {
        self.raft.leader().is_some() && self.raft.transfer_to().is_none()
    }

    /// Proposes what waited, if there is a leader for it now.
    fn propose_waiting(&mut self, now_millis: u64, out: &mut Outputs) {
        if !self.is_proposing() {
            return;
        }
        let oldest_millis = now_millis.saturating_sub(self.options.election_millis);
        for message in self.waiting.take_passed(oldest_millis) {
            self.raft.step(message);
        }
        if self.waiting.has_requests() {
            base::probe::reached("member: proposals have waited for a leader");
            let proposals = self.waiting.take_requests();
            if let Some((tickets, failure)) = self.propose_now(proposals) {
                let answers = tickets.into_iter().map(|ticket| (ticket, Answer::Failed(failure)));
                out.answers.extend(answers);
            }
        }
        if self.waiting.has_changes() {
            base::probe::reached("member: a change of the members waits");
        }
        if self.waiting.has_changes() && (!self.raft.is_leader() || self.raft.takes_change()) {
            self.propose_change();
        }
    }

    fn propose_change(&mut self) {
        if let Some(change) = self.waiting.next_change()
            && self.raft.propose_change(change).is_ok()
        {
            self.waiting.change_proposed();
        }
    }

    pub(crate) fn read(&mut self, now_millis: u64, tickets: Vec<Ticket>, out: &mut Outputs) {
        if !self.reads.has_room_for(tickets.len()) {
            let failed = |ticket| (ticket, Answer::Failed(Failure::Overloaded));
            out.answers.extend(tickets.into_iter().map(failed));
            return;
        }
        if let Some(context) = self.reads.ask(tickets, self.leader, now_millis) {
            self.raft.read(context);
        }
    }

    fn forget(&mut self, tickets: Vec<Ticket>) {
        let tickets: BTreeSet<Ticket> = tickets.into_iter().collect();
        self.waiting.forget(&tickets);
        self.reads.forget(&tickets);
        self.leases.forget(&tickets);
        self.unknown.retain(|ticket, _| !tickets.contains(ticket));
        self.ended.retain(|_, waiting| {
            waiting.retain(|ticket| !tickets.contains(ticket));
            !waiting.is_empty()
        });
        self.clearing.retain(|_, clearing| !tickets.contains(&clearing.ticket));
        if self.transfer.as_ref().is_some_and(|transfer| tickets.contains(&transfer.ticket)) {
            self.transfer = None;
        }
    }

    fn start_transfer(&mut self, ticket: Ticket, to: MemberId, out: &mut Outputs) {
        let answer = if !self.raft.is_leader() {
            Answer::Failed(Failure::NotLeader)
        } else if to == self.options.id {
            Answer::Transferred
        } else if !self.raft.conf_state().voters.contains(&to) {
            Answer::Failed(Failure::BadTransferee)
        } else {
            if let Some(other) = self.transfer.take() {
                out.answers.push((other.ticket, Answer::Failed(Failure::TransferAborted)));
            }
            self.raft.transfer(to);
            self.transfer = Some(Transfer { ticket, to });
            return;
        };
        out.answers.push((ticket, answer));
    }

    /// Whether who was to lead leads, or another one, or never will.
    fn look_after_transfer(&mut self, out: &mut Outputs) {
        let Some(Transfer { ticket, to }) = self.transfer else { return };
        let answer = match self.raft.leader() {
            None => return,
            Some(leader) if leader == to => {
                base::probe::reached("member: leadership was handed over");
                Answer::Transferred
            }
            Some(leader) if leader != self.options.id => Answer::Failed(Failure::LeaderChanged),
            Some(_) if self.raft.transfer_to() == Some(to) => return,
            Some(_) => {
                base::probe::reached("member: leadership was not taken over");
                Answer::Failed(Failure::TransferAborted)
            }
        };
        self.transfer = None;
        out.answers.push((ticket, answer));
    }

    fn send_snapshot(&mut self, to: MemberId, position: LogPosition, conf_state: ConfState) {
        base::probe::reached("member: a snapshot is sent");
        // Of a state of etcd 3.4 the term is not known until something is applied to it.
        if position.term == Term(0) || self.state.applied().index < position.index {
            self.raft.snapshot_sent(to, false);
            return;
        }
        self.sending.begin(to, position.index);
        self.raft.send_snapshot(to, position, conf_state);
    }

    fn restore(
        &mut self,
        token: PersistToken,
        received: Received,
        out: &mut Outputs,
    ) -> Result<(), Halt> {
        let (expected, position) = self.restoring.pop_front().expect("a snapshot was handed out");
        assert!(expected == token, "{token:?} restored instead of {expected:?}");
        let index = received.index();
        assert!(index == position.index, "restoring {index} instead of {position}");
        self.state
            .restore(received, &self.backend)
            .map_err(|source| Halt::Restore { position, source })?;
        self.raft.persisted(token);
        out.restored = Some(position);
        out.members_changed = true;
        out.compaction_begun = true;
        out.removed |= self.state.is_removed(self.options.id);
        Ok(())
    }

    /// What only the leader's lease clock knows.
    fn of_lease_clock(&self, ask: impl FnOnce(&Leases) -> Answer) -> Answer {
        if !self.raft.is_leader() {
            Answer::Failed(Failure::NotLeader)
        } else if !self.leases.is_leading() {
            // It leads since a moment ago, and has not yet applied what was before.
            Answer::Failed(Failure::LeaderChanged)
        } else {
            ask(&self.leases)
        }
    }

    /// Does what consensus asks for until it asks for nothing more.
    fn drain(&mut self, now_millis: u64, out: &mut Outputs) -> Result<(), Halt> {
        if let Some(raft::Forgotten { leader, acknowledged, last }) = self.raft.forgotten() {
            return Err(Halt::Forgotten { leader, acknowledged, last });
        }
        loop {
            self.propose_waiting(now_millis, out);
            let Some(ready) = self.raft.ready() else { break };
            self.send(ready.at_once, out);
            if let Some(persist) = ready.persist {
                if let Some(SnapshotMeta { position, .. }) = &persist.snapshot {
                    self.restoring.push_back((persist.token, *position));
                }
                out.persist.push(persist);
            }
            out.snapshot_wanted.extend(ready.snapshot_wanted);
            if let Some(soft) = ready.soft {
                self.on_soft_state(now_millis, &soft, out);
            }
            for read in ready.reads {
                self.on_read_confirmed(read, now_millis);
            }
            if !ready.committed.is_empty() {
                self.apply(now_millis, ready.committed, out)?;
            }
            let applied = match base::probe::mutant("reads-before-apply") {
                true => base::Index(u64::MAX - 1),
                false => self.state.applied().index,
            };
            for ticket in self.reads.take_applied(applied) {
                self.on_read(now_millis, ticket, out);
            }
            self.renew_waiting(now_millis, out);
        }
        self.look_after_transfer(out);
        Ok(())
    }

    fn send(&self, messages: Vec<Message>, out: &mut Outputs) {
        if self.raft.is_leader() && !messages.is_empty() {
            base::probe::failpoint("raftBeforeLeaderSend");
        }
        for message in messages {
            if matches!(message.body, Body::Heartbeat { .. })
                && base::probe::failpoint("raftDropHeartbeat").is_some()
            {
                continue;
            }
            // Proposals are given back by the network, for the next leader.
            let is_proposal = matches!(message.body, Body::Propose(_));
            if self.state.is_removed(message.to) && !is_proposal {
                continue;
            }
            if matches!(message.body, Body::Snapshot(_)) {
                out.snapshots.push(message);
            } else {
                out.send.push(message);
            }
        }
    }

    fn on_read_confirmed(&mut self, read: raft::ReadReady, now_millis: u64) {
        let begun = self.reads.confirm(read.context, read.index);
        if self.leader_question.is_some_and(|question| question <= read.context) {
            self.leader_question = None;
        }
        if let Some(begun) = begun
            && self.raft.is_leader()
        {
            self.leases.followed_after(begun);
        }
        if let Some(context) = self.reads.ask_next(self.leader, now_millis) {
            self.raft.read(context);
        }
    }

    fn on_soft_state(&mut self, now_millis: u64, soft: &raft::SoftState, out: &mut Outputs) {
        let term = self.raft.term();
        let leads = (soft.role == RoleKind::Leader).then_some(term);
        if self.leading != leads && self.leading.is_some() {
            self.leases.demote();
            self.drop_renewals(out);
            self.sending.clear();
            self.leader_question = None;
        }
        self.leading = leads;
        if self.leader == soft.leader {
            return;
        }
        self.leader = soft.leader;
        out.leader_changed = true;
        if let Some(leader) = soft.leader {
            let (failed, question) = self.reads.on_leader(leader, now_millis);
            for ticket in failed {
                let failure = match self.unknown.remove(&ticket) {
                    Some(_) => Failure::NotLeader,
                    None => Failure::LeaderChanged,
                };
                out.answers.push((ticket, Answer::Failed(failure)));
            }
            if let Some(context) = question {
                self.raft.read(context);
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
        for outcome in outcomes.drain(..) {
            self.on_applied(now_millis, outcome, out);
        }
        base::probe::failpoint("raftBeforeAdvance");
        self.raft.applied(last);
        self.outcomes = outcomes;
        self.raise_no_space_above_quota(now_millis);
        Ok(())
    }

    fn on_applied(&mut self, now_millis: u64, outcome: Outcome, out: &mut Outputs) {
        if !self.leases.is_leading() && self.leading == Some(outcome.position.term) {
            // Everything of the terms before is applied: the clock of leases starts.
            self.leases.promote(now_millis, &self.state);
        }
        if let Some(change) = outcome.change {
            self.raft.apply_change(&membership_change(change));
            if change == MemberChange::Remove(self.options.id) {
                base::probe::reached("member: it applies its own removal");
            }
            out.members_changed = true;
            out.removed |= change == MemberChange::Remove(self.options.id);
        }
        self.leases.on_applied(now_millis, &outcome.applied);
        self.finish_renewal(outcome.request_id, out);
        match &outcome.applied {
            Applied::Done(state::Reply::Compact(_)) => out.compaction_begun = true,
            Applied::Done(state::Reply::Alarm(_)) => self.no_space.on_applied(),
            Applied::Done(state::Reply::LeaseRevoke(id, _)) => self.on_revoked(*id, out),
            Applied::Done(state::Reply::None) => out.members_changed = true,
            Applied::Done(_) | Applied::Refused(_) => {}
        }
        if outcome.request_id != 0 {
            out.answers.push((Ticket(outcome.request_id), Answer::Applied(outcome.applied)));
        }
    }

    /// Proposes for nobody, under an id of this member's own lane, which is returned. `None` if it
    /// was not taken; it is asked for again later.
    pub(crate) fn propose_own(&mut self, mut request: pb::InternalRaftRequest) -> Option<u64> {
        let id = self.options.ids.next_id();
        let Identity { user: username, revision: auth_revision } = self.state.own_identity();
        request.header = Some(pb::RequestHeader { id, username, auth_revision });
        self.raft.propose(vec![request.encode_to_vec().into()]).ok()?;
        Some(id)
    }
}

fn committed(entry: Entry) -> Committed {
    let position = entry.position();
    Committed { position, payload: payload(entry) }
}

/// What an entry carries.
#[must_use]
pub fn payload(entry: Entry) -> Payload {
    match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => Payload::Nothing,
        EntryKind::Normal => Payload::Request(entry.data),
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => Payload::MemberChange(entry.data),
    }
}

fn membership_change(change: MemberChange) -> MembershipChange {
    match change {
        MemberChange::AddVoter(id) => MembershipChange::AddVoter(id),
        MemberChange::AddLearner(id) => MembershipChange::AddLearner(id),
        MemberChange::Remove(id) => MembershipChange::Remove(id),
        MemberChange::None => MembershipChange::None,
    }
}
