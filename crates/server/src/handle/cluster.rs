//! What a service asks of consensus itself, or of whoever leads: changes of the members, leadership,
//! leases.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base::{LeaseId, MemberId};
use member::{Answer, Input, Proposal, Ticket};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::raftpb;
use state::{Refusal, Reply};

use super::{Handle, ProposeError, applied};
use crate::node_queue::{Question, Standings};
use crate::peers::membership::by_leader;

/// Before it is looked again who leads.
const LEADER_POLL: Duration = Duration::from_millis(50);

impl Handle {
    /// Proposes a change of the members and waits until it is applied here: all members after it.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`]; refused for what the members are.
    pub(crate) async fn change_members(
        &self,
        mut change: raftpb::ConfChange,
    ) -> Result<Vec<pb::Member>, ProposeError> {
        let id = self.next_id();
        change.id = Some(id);
        let ticket = Ticket(id);
        let proposal = Proposal { ticket, request: change.encode_to_vec().into() };
        let reply =
            applied(self.ask(Question::Other(Input::ProposeChange(proposal)), ticket).await?)?;
        let Reply::Members(members) = reply else {
            unreachable!("a change of the members was answered by {reply:?}")
        };
        tracing::info!(
            "local-member-id" = %self.member_id(),
            "raft-conf-change" = change_name(&change),
            "raft-conf-change-node-id" = %MemberId(change.node_id()),
            "applied a configuration change through raft"
        );
        Ok(members)
    }

    /// Hands leadership to another member.
    ///
    /// # Errors
    ///
    /// `NotLeader`, `BadTransferee`, or it did not work within an election timeout.
    pub(crate) async fn transfer_leader(&self, to: MemberId) -> Result<(), ProposeError> {
        let began = Instant::now();
        let own = self.member_id();
        tracing::info!(
            "local-member-id" = %own,
            "current-leader-member-id" = %own,
            "transferee-member-id" = %to,
            "leadership transfer starting"
        );
        let ticket = Ticket(self.next_id());
        match self.ask(Question::Other(Input::TransferLeader(ticket, to)), ticket).await? {
            Answer::Transferred => {
                tracing::info!(
                    "local-member-id" = %own,
                    "old-leader-member-id" = %own,
                    "new-leader-member-id" = %to,
                    took = ?began.elapsed(),
                    "leadership transfer finished"
                );
                Ok(())
            }
            Answer::Failed(failure) => Err(failure.into()),
            answer @ (Answer::Applied(_) | Answer::Read | Answer::Lease(_) | Answer::Leases(_)) => {
                unreachable!("a transfer was answered by {answer:?}")
            }
        }
    }

    /// As [`Handle::transfer_leader`], but waits until `to` leads, however long that takes and
    /// whoever leads meanwhile, as etcd does: how long it is worth waiting for is the caller's to
    /// say. Consensus gives the attempt up after an election timeout and takes proposals again.
    ///
    /// # Errors
    ///
    /// `NotLeader`, `BadTransferee`, `Stopped`, or the queue is full.
    pub(crate) async fn move_leader(&self, to: MemberId) -> Result<(), ProposeError> {
        match self.transfer_leader(to).await {
            Err(
                ProposeError::TransferTooSlow
                | ProposeError::LeaderChanged
                | ProposeError::TimedOut
                | ProposeError::LeaderFailed
                | ProposeError::ConnectionLost,
            ) => {}
            ended => return ended,
        }
        while self.status().leader != to {
            if self.shared.status.stopped.load(Ordering::Relaxed) {
                return Err(ProposeError::Stopped);
            }
            tokio::time::sleep(LEADER_POLL).await;
        }
        Ok(())
    }

    /// Whether a learner has nearly everything that this leader has (CB-36); `None` if this member
    /// does not lead or does not know it.
    ///
    /// # Errors
    ///
    /// `Stopped`, or the queue is full.
    pub(crate) async fn learner_ready(&self, id: MemberId) -> Result<Option<bool>, ProposeError> {
        self.shared.queue.learner_ready(id).await
    }

    /// Who votes and, if this member leads, how far each other one is.
    ///
    /// # Errors
    ///
    /// `Stopped`, or the queue is full.
    pub(crate) async fn standings(&self) -> Result<Standings, ProposeError> {
        self.shared.queue.standings().await
    }

    /// Lets units of logical time go by at once, so that an election comes earlier.
    pub(crate) fn advance(&self, ticks: u64) {
        self.shared.queue.advance(ticks);
    }

    /// Renews a lease, here or at the leader; the seconds it lives on.
    ///
    /// # Errors
    ///
    /// `Refused(LeaseNotFound)` for an unknown or expired one.
    pub(crate) async fn renew_lease(&self, id: LeaseId) -> Result<i64, ProposeError> {
        let deadline = self.deadline();
        loop {
            let answered = if self.leads() {
                self.renew_lease_here(id).await
            } else {
                let others = self.peers().others();
                by_leader(self, deadline, |leader| async move {
                    others.renew_lease(&leader.peer_ur_ls, id).await
                })
                .await
            };
            match answered {
                // Leadership moved meanwhile.
                Err(ProposeError::NotLeader) if Instant::now() < deadline => {
                    tokio::time::sleep(LEADER_POLL).await;
                }
                ended => return ended,
            }
        }
    }

    /// As [`Handle::renew_lease`], if this member leads.
    ///
    /// # Errors
    ///
    /// `NotLeader`, or as [`Handle::renew_lease`].
    pub(crate) async fn renew_lease_here(&self, id: LeaseId) -> Result<i64, ProposeError> {
        let ticket = Ticket(self.next_id());
        let answer = self.ask(Question::Other(Input::RenewLease(ticket, id)), ticket).await?;
        lease_answer(&answer)
    }

    /// Seconds a lease lives on by this leader's clock.
    ///
    /// # Errors
    ///
    /// `Refused(LeaseNotFound)` for an unknown or expired one, `NotLeader`.
    pub(crate) async fn lease_remaining_here(&self, id: LeaseId) -> Result<i64, ProposeError> {
        let ticket = Ticket(self.next_id());
        let answer = self.ask(Question::Other(Input::LeaseRemaining(ticket, id)), ticket).await?;
        lease_answer(&answer)
    }

    /// What the leader knows of a lease.
    ///
    /// # Errors
    ///
    /// `Refused(LeaseNotFound)` for an unknown or expired one.
    pub(crate) async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, ProposeError> {
        let deadline = self.deadline();
        loop {
            let answered = if self.leads() {
                self.lease_time_to_live_here(request).await
            } else {
                let others = self.peers().others();
                by_leader(self, deadline, |leader| async move {
                    others.lease_time_to_live(&leader.peer_ur_ls, request).await
                })
                .await
            };
            match answered {
                Err(ProposeError::NotLeader) if Instant::now() < deadline => {
                    tokio::time::sleep(LEADER_POLL).await;
                }
                ended => return ended,
            }
        }
    }

    /// As [`Handle::lease_time_to_live`], if this member leads.
    ///
    /// # Errors
    ///
    /// `NotLeader`, or as [`Handle::lease_time_to_live`].
    pub(crate) async fn lease_time_to_live_here(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, ProposeError> {
        let id = LeaseId(request.id);
        self.wait_applied().await?;
        let ttl = self.lease_remaining_here(id).await?;
        base::probe::failpoint("beforeLookupWhenLeaseTimeToLive");
        let lease = self.reads().lease(id, request.keys).ok_or(Refusal::LeaseNotFound)?;
        Ok(pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader::default()),
            id: request.id,
            ttl,
            granted_ttl: lease.granted_ttl_seconds,
            keys: lease.keys,
        })
    }

    /// All leases, soonest expiry first.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`].
    pub(crate) async fn leases_by_expiry(&self) -> Result<Vec<LeaseId>, ProposeError> {
        let ticket = Ticket(self.next_id());
        match self.ask(Question::Other(Input::LeasesByExpiry(ticket)), ticket).await? {
            Answer::Leases(ids) => Ok(ids),
            Answer::Failed(failure) => Err(failure.into()),
            answer @ (Answer::Applied(_)
            | Answer::Lease(_)
            | Answer::Read
            | Answer::Transferred) => {
                unreachable!("a list of leases was answered by {answer:?}")
            }
        }
    }
}

/// As etcd names the kind in its log.
fn change_name(change: &raftpb::ConfChange) -> &'static str {
    match change.r#type() {
        raftpb::ConfChangeType::ConfChangeAddNode => "ConfChangeAddNode",
        raftpb::ConfChangeType::ConfChangeRemoveNode => "ConfChangeRemoveNode",
        raftpb::ConfChangeType::ConfChangeUpdateNode => "ConfChangeUpdateNode",
        raftpb::ConfChangeType::ConfChangeAddLearnerNode => "ConfChangeAddLearnerNode",
    }
}

fn lease_answer(answer: &Answer) -> Result<i64, ProposeError> {
    match answer {
        Answer::Lease(Some(seconds)) => Ok(*seconds),
        Answer::Lease(None) => Err(Refusal::LeaseNotFound.into()),
        Answer::Failed(failure) => Err((*failure).into()),
        Answer::Applied(_) | Answer::Read | Answer::Leases(_) | Answer::Transferred => {
            unreachable!("a lease was answered by {answer:?}")
        }
    }
}
