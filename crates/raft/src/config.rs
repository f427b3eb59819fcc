//! How one member takes part in consensus.
//!
//! etcd: server/etcdserver/bootstrap.go (the values), raft.go (their meaning).

use base::MemberId;

/// Settings of one member, fixed for its life.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member; never [`MemberId::NONE`].
    pub id: MemberId,
    /// Ticks without a leader's message before an election starts; the real timeout is drawn from
    /// `election_ticks..2 * election_ticks`.
    pub election_ticks: u64,
    /// Ticks between a leader's heartbeats; less than `election_ticks`.
    pub heartbeat_ticks: u64,
    /// Whether a campaign asks first whether it could be won, without raising the term.
    pub pre_vote: bool,
    /// Whether a leader steps down that has not heard from a quorum for an election timeout, and
    /// whether members that hear from a leader refuse to vote.
    pub check_quorum: bool,
    /// Bytes of entries in one append, and of committed entries not yet applied; one entry may
    /// exceed it.
    pub message_bytes_max: u64,
    /// Appends sent to one member and not yet acknowledged.
    pub inflight_messages_max: usize,
    /// Bytes sent to one member and not yet acknowledged.
    pub inflight_bytes_max: u64,
    /// Bytes of a leader's entries not yet applied; more proposals are refused.
    pub uncommitted_bytes_max: u64,
    /// Start of this member's pseudo-random numbers (election timeouts).
    pub seed: u64,
}

impl Config {
    /// etcd's settings: a heartbeat each tick, elections after 10, messages of 1 MiB, 512 of them
    /// in flight, pre-votes and the quorum check on, no limit by bytes elsewhere.
    #[must_use]
    pub fn new(id: MemberId, seed: u64) -> Self {
        Self {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            check_quorum: true,
            message_bytes_max: 1 << 20,
            inflight_messages_max: 512,
            inflight_bytes_max: u64::MAX,
            uncommitted_bytes_max: u64::MAX,
            seed,
        }
    }

    pub(crate) fn assert_sound(&self) {
        assert!(!self.id.is_none(), "a member's id is never 0");
        assert!(self.heartbeat_ticks > 0, "heartbeats need at least one tick");
        assert!(
            self.heartbeat_ticks < self.election_ticks,
            "election timeout of {} ticks is not above the heartbeat's {}",
            self.election_ticks,
            self.heartbeat_ticks
        );
        assert!(self.inflight_messages_max > 0, "no append could ever be in flight");
    }
}
