//! A member and its peers at one moment, for operators and for those who decide by it.
//!
//! Source: etcd raft: status.go.

use std::collections::BTreeMap;

use base::{Index, LogPosition, MemberId, Term};

use crate::ConfState;
use crate::progress::{Progress, ProgressState};
use crate::raft::Raft;
use crate::ready::{RoleKind, SoftState};
use crate::role::Role;

/// A member as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How far its log is durable.
    pub persisted: Index,
    /// The last index that is no longer in memory.
    pub compacted: Index,
    /// Its part.
    pub role: RoleKind,
    /// The leader, if known.
    pub leader: Option<MemberId>,
    /// Whom it hands leadership to, if it does.
    pub transfer_to: Option<MemberId>,
    /// The other members, if it leads.
    pub progress: BTreeMap<MemberId, PeerStatus>,
    /// The configuration in force.
    pub conf_state: ConfState,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How this member sees itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let common = &self.common;
        let SoftState { leader, role } = self.soft_state();
        let mut progress = BTreeMap::new();
        let mut transfer_to = None;
        if let Role::Leader(leader) = &self.role {
            transfer_to = leader.transfer_to;
            for (&id, peer) in &leader.progress {
                progress.insert(id, PeerStatus::new(peer, common.members.is_learner(id)));
            }
        }
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
            transfer_to,
            progress,
            conf_state: common.members.conf_state().clone(),
        }
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
