//! What the log holds and what a member must never forget.

use std::collections::BTreeSet;

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;

/// One slot of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What `data` means.
    pub kind: EntryKind,
    /// The term of the leader that appended it.
    pub term: Term,
    /// Where it stands, from 1.
    pub index: Index,
    /// The payload; empty for the entry a new leader appends. Shared, never copied, between the
    /// log, the network and apply.
    pub data: Bytes,
}

/// What an entry's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A request, or nothing.
    Normal,
    /// A change of one member (raftpb `ConfChange`).
    ConfChange,
    /// A joint change (raftpb `ConfChangeV2`); read, never written.
    ConfChangeV2,
}

/// Term, vote and commit index as they are kept on disk. The commit index may be behind what was
/// applied; it is a hint, never the applied index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this member voted for in that term.
    pub vote: MemberId,
    /// The newest index known to be committed.
    pub commit: Index,
}

/// Who votes and who only listens. The two outgoing sets are empty outside a joint change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Members that vote.
    pub voters: BTreeSet<MemberId>,
    /// Members that receive the log without a vote.
    pub learners: BTreeSet<MemberId>,
    /// Voters of the configuration being left.
    pub voters_outgoing: BTreeSet<MemberId>,
    /// Voters that become learners when the joint change ends.
    pub learners_next: BTreeSet<MemberId>,
    /// Whether the joint change ends by itself.
    pub auto_leave: bool,
}

impl Entry {
    /// An entry that has no place in the log yet.
    pub(crate) fn proposed(kind: EntryKind, data: Bytes) -> Self {
        Self { kind, term: Term(0), index: Index(0), data }
    }

    /// Index and term together.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term }
    }
}

impl HardState {
    /// Whether nothing was ever voted, seen or committed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
