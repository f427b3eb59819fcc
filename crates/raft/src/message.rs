//! What members say to each other, in Raft's words rather than the wire's.
//!
//! The transport maps these to raftpb and back without loss; each body names its counterpart
//! there. Nothing here is trusted: [`Message::fault`] says which messages no correct member sends.
//! Source: etcd raft: raftpb/raft.proto, raft.go.

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;

use crate::membership;
use crate::{ConfState, Entry};

/// One message between two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender; for [`Body::TransferLeader`] the member that shall lead, for a forwarded
    /// [`Body::Propose`] or [`Body::ReadIndex`] the member that asked first.
    pub from: MemberId,
    /// The receiver.
    pub to: MemberId,
    /// The sender's term; the term asked or granted for in pre-votes; 0 in [`Body::Propose`] and
    /// [`Body::ReadIndex`].
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Entries for the leader to append, without term and index (`MsgProp`).
    Propose(Vec<Entry>),
    /// The leader's entries (`MsgApp`).
    Append(Append),
    /// Answer to an append or a snapshot (`MsgAppResp`).
    AppendReply(AppendReply),
    /// "Vote for me" (`MsgVote`).
    Vote(VoteRequest),
    /// The answer (`MsgVoteResp`).
    VoteReply {
        /// Whether the vote was given (raftpb's `reject` says the opposite).
        granted: bool,
    },
    /// "Would you vote for me" (`MsgPreVote`).
    PreVote(VoteRequest),
    /// The answer (`MsgPreVoteResp`).
    PreVoteReply {
        /// Whether the vote would be given.
        granted: bool,
    },
    /// The state itself follows beside this message (`MsgSnap`).
    Snapshot(SnapshotMeta),
    /// The leader lives (`MsgHeartbeat`).
    Heartbeat {
        /// What the receiver may commit.
        commit: Index,
        /// To be echoed; empty if no read waits.
        context: Bytes,
    },
    /// Answer to a heartbeat (`MsgHeartbeatResp`).
    HeartbeatReply {
        /// The heartbeat's.
        context: Bytes,
    },
    /// "Let `from` lead" (`MsgTransferLeader`).
    TransferLeader,
    /// "Campaign now" (`MsgTimeoutNow`).
    TimeoutNow,
    /// "Up to which index must I have applied to read" (`MsgReadIndex`).
    ReadIndex {
        /// To be echoed (raftpb: the data of the only entry).
        context: Bytes,
    },
    /// The answer (`MsgReadIndexResp`).
    ReadIndexReply {
        /// The index that must be applied.
        index: Index,
        /// The request's.
        context: Bytes,
    },
}

/// Entries of the leader, behind one that the follower should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The entry before the first sent (raftpb: `index` and `logTerm`).
    pub previous: LogPosition,
    /// Entries from `previous.index + 1` on, without gaps; may be empty.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: Index,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReply {
    /// If accepted, the last entry known to match; if rejected, the `previous` index of the append.
    pub index: Index,
    /// If rejected, the best guess where the logs still match (raftpb: `rejectHint`, `logTerm`);
    /// its term is 0 if unknown.
    pub rejected: Option<LogPosition>,
}

/// What a candidate shows to get a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// The end of the candidate's log.
    pub last: LogPosition,
    /// Whether the leader itself wants this election, so that members must not refuse because they
    /// hear from it (raftpb: context `CampaignTransfer`).
    pub forced: bool,
}

/// Where a snapshot stands in the log, and who the members were there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry contained.
    pub position: LogPosition,
    /// The configuration after it.
    pub conf_state: ConfState,
}

/// No correct member ever gets here; larger numbers are refused so that sums cannot overflow.
const NUMBER_MAX: u64 = 1 << 62;

impl Body {
    /// The kind's name as raftpb spells it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Propose(_) => "MsgProp",
            Self::Append(_) => "MsgApp",
            Self::AppendReply(_) => "MsgAppResp",
            Self::Vote(_) => "MsgVote",
            Self::VoteReply { .. } => "MsgVoteResp",
            Self::PreVote(_) => "MsgPreVote",
            Self::PreVoteReply { .. } => "MsgPreVoteResp",
            Self::Snapshot(_) => "MsgSnap",
            Self::Heartbeat { .. } => "MsgHeartbeat",
            Self::HeartbeatReply { .. } => "MsgHeartbeatResp",
            Self::TransferLeader => "MsgTransferLeader",
            Self::TimeoutNow => "MsgTimeoutNow",
            Self::ReadIndex { .. } => "MsgReadIndex",
            Self::ReadIndexReply { .. } => "MsgReadIndexResp",
        }
    }

    /// Whether only a leader of the message's term says this.
    pub(crate) fn is_from_leader(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Heartbeat { .. } | Self::Snapshot(_))
    }

    /// Whether it is passed on to the leader whatever the term.
    pub(crate) fn is_termless(&self) -> bool {
        matches!(self, Self::Propose(_) | Self::ReadIndex { .. })
    }
}

impl Message {
    /// Why no correct member would have sent this, if so. What passes can be handled without
    /// overflow and without gaps in the log; it may still be stale or wrong.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.from.is_none() || self.to.is_none() {
            return Some("sender or receiver missing");
        }
        if self.body.is_termless() != (self.term == Term(0)) {
            return Some("term missing or not expected");
        }
        if NUMBER_MAX < self.term.0 {
            return Some("term out of range");
        }
        match &self.body {
            Body::Propose(entries) => entries.is_empty().then_some("nothing proposed"),
            Body::Append(append) => append.fault(self.term),
            Body::AppendReply(AppendReply { index, rejected }) => {
                let hint = rejected.map_or(Index(0), |hint| hint.index);
                (NUMBER_MAX < index.0.max(hint.0)).then_some("index out of range")
            }
            Body::Snapshot(SnapshotMeta { position, conf_state }) => {
                if NUMBER_MAX < position.index.0 || self.term < position.term {
                    Some("position out of range")
                } else if position.term == Term(0) {
                    Some("empty snapshot")
                } else {
                    (!membership::is_sound(conf_state)).then_some("impossible configuration")
                }
            }
            Body::ReadIndexReply { index, .. } | Body::Heartbeat { commit: index, .. } => {
                (NUMBER_MAX < index.0).then_some("index out of range")
            }
            Body::Vote(VoteRequest { last, .. }) | Body::PreVote(VoteRequest { last, .. }) => {
                (NUMBER_MAX < last.index.0).then_some("index out of range")
            }
            Body::VoteReply { .. }
            | Body::PreVoteReply { .. }
            | Body::HeartbeatReply { .. }
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::ReadIndex { .. } => None,
        }
    }
}

impl Append {
    fn fault(&self, term: Term) -> Option<&'static str> {
        if NUMBER_MAX < self.previous.index.0 || NUMBER_MAX < self.commit.0 {
            return Some("index out of range");
        }
        let mut before = self.previous;
        for entry in &self.entries {
            if entry.index != before.index.next() {
                return Some("entries with gaps");
            }
            if entry.term < before.term || entry.term == Term(0) {
                return Some("entries with falling terms");
            }
            before = entry.position();
        }
        (term < before.term).then_some("entry of a later term")
    }
}
