//! What the services hold: the one way from a request to consensus and to the state.

use base::{ClusterId, LeaseId, MemberId};
use proto::etcdserverpb as pb;
use state::{Reads, Refusal, Reply};

/// The services' access to the member; clones share it.
#[derive(Clone, Debug)]
pub struct Handle;

/// Why a request got no answer from the state machine.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Every member says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// E-25: the encoded request is above the limit.
    #[error("request is too large")]
    TooLarge,
    /// E-26: applying is too far behind committing, or the queue is full.
    #[error("too many requests")]
    Overloaded,
    /// E-44.
    #[error("no leader")]
    NoLeader,
    /// E-46.
    #[error("leader changed")]
    LeaderChanged,
    /// E-48.
    #[error("server stopped")]
    Stopped,
    /// E-49: no answer in 5 s + 2 election timeouts.
    #[error("request timed out")]
    TimedOut,
    /// E-45.
    #[error("not leader")]
    NotLeader,
}

/// What the node loop last said about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeStatus {
    /// The leader it knows; none is 0.
    pub leader: MemberId,
    /// The newest term.
    pub term: u64,
    /// Index of the newest committed entry.
    pub committed: u64,
    /// Index of the newest applied entry.
    pub applied: u64,
    /// Whether this member has no vote.
    pub learner: bool,
}

impl Handle {
    /// Proposes one request (all fields of `InternalRaftRequest` but the header are set by the
    /// caller), waits until it is applied here, and gives its answer.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; after `TimedOut` and `Stopped` the outcome is unknown.
    pub async fn propose(&self, _request: pb::InternalRaftRequest) -> Result<Reply, ProposeError> {
        todo!()
    }

    /// Waits until what this member has applied includes every write acknowledged before the call.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`].
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        todo!()
    }

    /// The state, as far as it is applied here.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        todo!()
    }

    /// Renews a lease at the leader; the seconds it lives on.
    ///
    /// # Errors
    ///
    /// `Refused(LeaseNotFound)` for an unknown or expired one.
    pub async fn renew_lease(&self, _id: LeaseId) -> Result<i64, ProposeError> {
        todo!()
    }

    /// Seconds a lease lives on by the leader's clock.
    ///
    /// # Errors
    ///
    /// `Refused(LeaseNotFound)` for an unknown or expired one.
    pub async fn lease_remaining(&self, _id: LeaseId) -> Result<i64, ProposeError> {
        todo!()
    }

    /// All leases, soonest expiry first.
    pub async fn leases_by_expiry(&self) -> Result<Vec<LeaseId>, ProposeError> {
        todo!()
    }

    /// Waits until a compaction up to `revision` has removed its rows (KV-30).
    pub async fn compacted(&self, _revision: i64) -> Result<(), ProposeError> {
        todo!()
    }

    /// What the node loop last said about itself.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        todo!()
    }

    /// This member.
    #[must_use]
    pub fn member_id(&self) -> MemberId {
        todo!()
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        todo!()
    }

    /// The database, for sizes, copies, defragmentation and the hash of everything.
    #[must_use]
    pub fn backend(&self) -> &backend::Backend {
        todo!()
    }

    /// A header as of now; `revision` 0 leaves the field out.
    #[must_use]
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        let status = self.status();
        pb::ResponseHeader {
            cluster_id: self.cluster_id().0,
            member_id: self.member_id().0,
            revision,
            raft_term: status.term,
        }
    }
}
