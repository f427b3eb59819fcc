//! A member and its peers at one moment, for operators and for those who decide by it.
//!
//! Source: etcd raft: status.go.

use base::{Index, LogPosition, MemberId, Term};

use crate::progress::{Progress, ProgressState};
use crate::raft::Raft;
use crate::ready::{RoleKind, SoftState};
use crate::role::Role;

/// A member as it sees itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: MemberId,
    /// Its term.
    pub term: Term,
    /// Its vote in that term, or nobody.
    pub vote: MemberId,
    /// Its commit index.
    pub commit: Index,
    /// Its applied index.
    pub applied: Index,
    /// The end of its log.
    pub last: LogPosition,
    /// How far its log is durable; a snapshot counts as soon as it takes the place of the log.
    pub persisted: Index,
    /// The last index that is no longer in memory.
    pub compacted: Index,
    /// Its part.
    pub role: RoleKind,
    /// The leader, if known.
    pub leader: Option<MemberId>,
    /// Whom it hands leadership to, if it does.
    pub transfer_to: Option<MemberId>,
}

/// A member's log ends before what it told its leader to have stored: its disk lost data, or is an
/// older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The leader.
    pub leader: MemberId,
    /// The entry up to which the leader knows this member's log to be stored, and everything to be
    /// committed.
    pub acknowledged: Index,
    /// The end of this member's log.
    pub last: Index,
}

/// Another member as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The last entry known to be durable there.
    pub matched: Index,
    /// The first entry not sent.
    pub next: Index,
    /// How entries are sent.
    pub state: PeerState,
    /// Whether sending waits for an answer.
    pub is_paused: bool,
    /// Appends sent and not acknowledged.
    pub in_flight: usize,
    /// Whether it was heard from since the last check of the quorum.
    pub recent_active: bool,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// How a leader sends entries to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It is looking for where the logs match.
    Probe,
    /// It sends on without waiting.
    Replicate,
    /// It sends the state instead; the index is known once the driver has given one.
    Snapshot(Option<Index>),
}

impl Raft {
    /// How this member sees itself: no more than a few numbers, so that it may be asked for at
    /// every step. See also [`Raft::peers`] and [`Raft::conf_state`].
    #[must_use]
    pub fn status(&self) -> Status {
        let common = &self.common;
        let SoftState { leader, role } = self.soft_state();
        Status {
            id: common.id(),
            term: common.term,
            vote: common.vote,
            commit: common.log.commit(),
            applied: common.log.applied(),
            last: common.last(),
            persisted: common.log.stable(),
            compacted: common.log.first().previous(),
            role,
            leader,
            transfer_to: self.transfer_to(),
        }
    }

    /// The other members as this one sees them, in the order of their ids; none unless it leads.
    pub fn peers(&self) -> impl Iterator<Item = (MemberId, PeerStatus)> {
        let leader = match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::Candidate(_) => None,
        };
        let progress = leader.into_iter().flat_map(|leader| &leader.progress);
        progress.map(|(&id, peer)| (id, PeerStatus::new(peer, self.common.members.is_learner(id))))
    }
}

impl PeerStatus {
    fn new(peer: &Progress, is_learner: bool) -> Self {
        Self {
            matched: peer.matched,
            next: peer.next,
            state: match peer.state {
                ProgressState::Probe { .. } => PeerState::Probe,
                ProgressState::Replicate { .. } => PeerState::Replicate,
                ProgressState::Snapshot { sent } => PeerState::Snapshot(sent),
            },
            is_paused: peer.is_paused(),
            in_flight: peer.in_flight(),
            recent_active: peer.recent_active,
            is_learner,
        }
    }
}
