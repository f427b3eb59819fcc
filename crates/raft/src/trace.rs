//! What happened inside, for logs, metrics and golden scripts. Nothing depends on it.

use std::collections::VecDeque;

use base::{Index, LogPosition, MemberId, Term};

use crate::RoleKind;
use crate::membership::ChangeRefusal;

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This member has a new role, term or leader.
    Became {
        /// The role.
        role: RoleKind,
        /// The term.
        term: Term,
        /// The leader, if known.
        leader: Option<MemberId>,
    },
    /// A vote or pre-vote was answered.
    Voted {
        /// Who asked.
        candidate: MemberId,
        /// For which term.
        term: Term,
        /// What was said.
        granted: bool,
    },
    /// A campaign was asked for and not begun.
    CampaignRefused(CampaignRefusal),
    /// A message was not handled.
    Dropped {
        /// Who sent it.
        from: MemberId,
        /// Its kind, as raftpb spells it.
        kind: &'static str,
        /// Why.
        reason: DropReason,
    },
    /// A snapshot took the place of the log.
    Restored(LogPosition),
    /// A read could not be taken on; the caller asks again.
    ReadDropped {
        /// Its context.
        context: u64,
    },
    /// A proposed change became an empty entry, since another is not applied yet.
    ChangePostponed {
        /// Up to where a change may be unapplied.
        pending: Index,
    },
    /// A committed change was not put in force.
    ChangeRefused(ChangeRefusal),
}

/// Why a campaign was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignRefusal {
    /// Not a voter, or a snapshot is being stored.
    NotPromotable,
    /// A committed change of the members is not applied yet.
    UnappliedChange,
}

/// Why a message was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// No correct member sends this.
    Malformed(&'static str),
    /// Addressed to another member, or sent in this one's name.
    Misaddressed,
    /// From a term that is over.
    StaleTerm(Term),
    /// A vote was asked for while a leader is heard from.
    LeaderIsHeard,
    /// The sender is not in the configuration.
    UnknownMember,
    /// Nobody to pass it on to, or the leader could not take it.
    NotTaken,
    /// The leader's log disagrees with an entry that is committed here: one of the two lost data.
    ConflictsWithCommitted {
        /// Where.
        index: Index,
        /// What is committed here.
        commit: Index,
    },
    /// The leader believes that this member stores more than it does: it lost data.
    CommitBeyondLog {
        /// What the leader says is committed and stored here.
        commit: Index,
        /// What is here.
        last: Index,
    },
    /// An acknowledgement of entries that were never sent.
    AckBeyondLog {
        /// What was acknowledged.
        index: Index,
    },
}

/// Events not yet taken; the oldest are lost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    events: VecDeque<Event>,
}

/// More than one turn of a driver ever makes; a driver that never asks costs no more than this.
const EVENTS_MAX: usize = 256;

impl Trace {
    pub(crate) fn note(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn take(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}
