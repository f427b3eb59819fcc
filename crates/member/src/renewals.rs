//! Keeping leases alive: only the leader can, and only while it is certain to lead.

use base::LeaseId;
use proto::etcdserverpb as pb;
use state::CheckpointNumber;

use crate::{Answer, Failure, Member, Outputs, Ticket};

/// A renewal that waits for its checkpoint of 0.
#[derive(Debug)]
pub(crate) struct Clearing {
    pub(crate) ticket: Ticket,
    id: LeaseId,
    number: CheckpointNumber,
    ttl_seconds: i64,
}

impl Member {
    /// A renewal that a client or another member asks for.
    pub(crate) fn on_renewal_asked(
        &mut self,
        now_millis: u64,
        ticket: Ticket,
        id: LeaseId,
        out: &mut Outputs,
    ) {
        if self.raft.is_leader() && !self.leases.options().renews_at_once {
            self.renew_once_applied(now_millis, ticket, id, out);
        } else {
            self.on_renewal(now_millis, ticket, id, out);
        }
    }

    pub(crate) fn on_renewal(
        &mut self,
        now_millis: u64,
        ticket: Ticket,
        id: LeaseId,
        out: &mut Outputs,
    ) {
        if !self.raft.is_leader() {
            out.answers.push((ticket, Answer::Failed(Failure::NotLeader)));
        } else if self.leases.may_renew(now_millis) {
            self.renew(now_millis, ticket, id, out);
        } else if self.leases.wait(ticket, id) {
            base::probe::reached("member: a renewal waits to know that a quorum follows");
            self.ask_whether_leading(now_millis);
        } else {
            out.answers.push((ticket, Answer::Failed(Failure::Overloaded)));
        }
    }

    /// Begins a round that tells whether a quorum follows, unless one is under way.
    fn ask_whether_leading(&mut self, now_millis: u64) {
        if self.leader_question.is_none() {
            let context = self.reads.begin(Vec::new(), self.leader, now_millis);
            self.leader_question = Some(context);
            self.raft.read(context);
        }
    }

    /// Makes the renewals that waited, if they may be made now.
    pub(crate) fn renew_waiting(&mut self, now_millis: u64, out: &mut Outputs) {
        if !self.leases.has_waiting() {
            return;
        }
        if self.leases.may_renew(now_millis) {
            for (ticket, id) in self.leases.take_waiting() {
                self.renew(now_millis, ticket, id, out);
            }
        } else if self.leases.is_leading() {
            self.ask_whether_leading(now_millis);
        }
    }

    /// Answers at once, unless members know of a shorter rest: then the owner is answered when
    /// they know better, or the next leader would end the lease too early.
    fn renew(&mut self, now_millis: u64, ticket: Ticket, id: LeaseId, out: &mut Outputs) {
        let Some((ttl_seconds, clear)) = self.leases.renew(id, now_millis) else {
            self.on_unknown_lease(now_millis, ticket, id, out);
            return;
        };
        let Some(number) = clear else {
            out.answers.push((ticket, Answer::Lease(Some(ttl_seconds))));
            return;
        };
        base::probe::failpoint("beforeCheckpointInLeaseRenew");
        let checkpoints = vec![pb::LeaseCheckpoint { id: id.0, remaining_ttl: 0 }];
        let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
        let request = pb::InternalRaftRequest { lease_checkpoint, ..Default::default() };
        match self.propose_own(request) {
            Some(request) => {
                self.clearing.insert(request, Clearing { ticket, id, number, ttl_seconds });
            }
            None => out.answers.push((ticket, Answer::Failed(Failure::Overloaded))),
        }
    }

    /// A lease that is not known here may have been granted all the same, and its owner told: the
    /// others may have applied what this member, with a slow disk, has not. So whoever asks hears
    /// that it is gone only once everything is applied that was acknowledged before.
    fn on_unknown_lease(
        &mut self,
        now_millis: u64,
        ticket: Ticket,
        id: LeaseId,
        out: &mut Outputs,
    ) {
        if base::probe::mutant("unknown-lease-is-said-to-be-gone") {
            out.answers.push((ticket, Answer::Lease(None)));
        } else {
            base::probe::reached("member: a renewal of a lease that is not known here");
            self.renew_once_applied(now_millis, ticket, id, out);
        }
    }

    /// Looks at the renewal again once everything is applied that is committed now.
    fn renew_once_applied(
        &mut self,
        now_millis: u64,
        ticket: Ticket,
        id: LeaseId,
        out: &mut Outputs,
    ) {
        if self.reads.has_room_for(1) {
            self.unknown.insert(ticket, id);
            self.read(now_millis, vec![ticket], out);
        } else {
            out.answers.push((ticket, Answer::Failed(Failure::Overloaded)));
        }
    }

    /// Everything is applied that was acknowledged when this was asked.
    pub(crate) fn on_read(&mut self, now_millis: u64, ticket: Ticket, out: &mut Outputs) {
        let answer = match self.unknown.remove(&ticket) {
            None => Answer::Read,
            Some(_) if !self.raft.is_leader() => Answer::Failed(Failure::NotLeader),
            Some(id) if self.leases.remaining(id, now_millis).is_some_and(|rest| 0 < rest) => {
                self.on_renewal(now_millis, ticket, id, out);
                return;
            }
            // It has ended, but puts may still name it: nobody hears that it is gone before it is.
            Some(id) if self.leases.remaining(id, now_millis).is_some() => {
                if base::probe::mutant("ended-lease-is-said-to-be-gone") {
                    out.answers.push((ticket, Answer::Lease(None)));
                    return;
                }
                base::probe::reached(
                    "member: a renewal of a lease that has ended waits for its revoke",
                );
                self.ended.entry(id).or_default().push(ticket);
                return;
            }
            Some(_) => Answer::Lease(None),
        };
        out.answers.push((ticket, answer));
    }

    /// A lease is gone.
    pub(crate) fn on_revoked(&mut self, id: LeaseId, out: &mut Outputs) {
        let waiting = self.ended.remove(&id).into_iter().flatten();
        out.answers.extend(waiting.map(|ticket| (ticket, Answer::Lease(None))));
    }

    /// The checkpoint that a renewal waited for may have been applied.
    pub(crate) fn finish_renewal(&mut self, request: u64, out: &mut Outputs) {
        if let Some(clearing) = self.clearing.remove(&request) {
            self.leases.checkpoint_cleared(clearing.id, clearing.number);
            out.answers.push((clearing.ticket, Answer::Lease(Some(clearing.ttl_seconds))));
        }
    }

    /// Another member leads, or none: whoever waits is to ask there.
    pub(crate) fn drop_renewals(&mut self, out: &mut Outputs) {
        let waiting = self.leases.take_waiting().into_iter().map(|(ticket, _)| ticket);
        let clearing = std::mem::take(&mut self.clearing).into_values().map(|one| one.ticket);
        let ended = std::mem::take(&mut self.ended).into_values().flatten();
        for ticket in waiting.chain(clearing).chain(ended) {
            base::probe::reached("member: a renewal is dropped because leadership ends");
            out.answers.push((ticket, Answer::Failed(Failure::NotLeader)));
        }
    }

    /// Proposes what the lease clock asks for. Only as leader: what is appended in a term that is
    /// over is never committed, so a leader that does not know of its end revokes nothing (G6).
    pub(crate) fn drive_leases(&mut self, now_millis: u64) {
        if !self.raft.is_leader() && !base::probe::mutant("deposed-leader-ends-leases") {
            return;
        }
        let due = self.leases.due(now_millis);
        if !due.revoke.is_empty() {
            base::probe::reached("member: a lease ends by the leader's clock");
        }
        for id in due.revoke {
            let lease_revoke = Some(pb::LeaseRevokeRequest { id: id.0 });
            self.propose_own(pb::InternalRaftRequest { lease_revoke, ..Default::default() });
        }
        for checkpoint in due.checkpoint {
            let lease_checkpoint = Some(checkpoint);
            self.propose_own(pb::InternalRaftRequest { lease_checkpoint, ..Default::default() });
        }
    }
}
