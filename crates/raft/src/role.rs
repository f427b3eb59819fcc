//! The part a member plays, and what it keeps whatever its part.
//!
//! Each role owns the state that only it needs, so that it is gone with the role. A role's handlers
//! get the rest as [`Common`] and answer with a [`Transition`]; only [`crate::Raft`] changes roles.

use base::{LogPosition, MemberId, Term};

use crate::Config;
use crate::Forgotten;
use crate::candidate::{Candidate, Stage};
use crate::follower::Follower;
use crate::leader::Leader;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Body, Message};
use crate::random::Random;
use crate::ready::{ReadReady, RoleKind};
use crate::trace::{DropReason, Event, Trace};

/// The part a member plays, with the state that belongs to it.
#[derive(Debug)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl Role {
    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Self::Follower(_) => RoleKind::Follower,
            Self::Candidate(candidate) => match candidate.stage {
                Stage::PreVote => RoleKind::PreCandidate,
                Stage::Vote => RoleKind::Candidate,
            },
            Self::Leader(_) => RoleKind::Leader,
        }
    }
}

/// What a handler wants to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Transition {
    Stay,
    /// A follower without a leader, in the same term.
    StepDown,
    /// The leader asks this member to take over.
    TakeOver,
    /// The pre-vote is won.
    Campaign,
    /// The vote is won.
    Lead,
}

/// What a member knows in any role.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) term: Term,
    /// Whom this member voted for in `term`, or nobody.
    pub(crate) vote: MemberId,
    pub(crate) log: Log,
    pub(crate) members: Membership,
    /// Since the leader was heard or a vote given; on a leader, since it last checked its quorum.
    pub(crate) election_elapsed_ticks: u64,
    /// From `election_ticks..2 * election_ticks`, drawn anew on every change of role or term.
    pub(crate) election_timeout_ticks: u64,
    pub(crate) random: Random,
    /// Messages that need not wait for the disk.
    pub(crate) at_once: Vec<Message>,
    /// Messages that vouch for what must be durable first.
    pub(crate) held: Vec<Message>,
    pub(crate) reads: Vec<ReadReady>,
    pub(crate) snapshot_wanted: Vec<MemberId>,
    pub(crate) forgotten: Option<Forgotten>,
    pub(crate) trace: Trace,
}

impl Common {
    pub(crate) fn id(&self) -> MemberId {
        self.config.id
    }

    /// Whether this member may become leader.
    pub(crate) fn is_promotable(&self) -> bool {
        self.members.is_voter(self.id()) && !self.log.awaits_snapshot()
    }

    /// Sends in the own term, without waiting for the disk.
    pub(crate) fn send(&mut self, to: MemberId, body: Body) {
        let term = if body.is_termless() { Term(0) } else { self.term };
        self.send_at_once(Message { from: self.id(), to, term, body });
    }

    pub(crate) fn send_at_once(&mut self, message: Message) {
        assert!(message.to != self.id(), "a message of {} to itself", self.id());
        self.at_once.push(message);
    }

    /// Sends in the own term, once what is known now is durable.
    pub(crate) fn hold(&mut self, to: MemberId, body: Body) {
        self.hold_in_term(to, self.term, body);
    }

    /// Sends in `term`, once what is known now is durable.
    pub(crate) fn hold_in_term(&mut self, to: MemberId, term: Term, body: Body) {
        let message = Message { from: self.id(), to, term, body };
        let early = if matches!(message.body, Body::AppendReply(_)) {
            base::probe::mutant("acknowledges-before-sync")
        } else {
            base::probe::mutant("votes-before-sync")
        };
        if early {
            self.at_once.push(message);
        } else {
            self.held.push(message);
        }
    }

    /// Notes that a message was not handled.
    pub(crate) fn drop_message(&mut self, from: MemberId, kind: &'static str, reason: DropReason) {
        self.trace.note(Event::Dropped { from, kind, reason });
    }

    pub(crate) fn draw_election_timeout(&mut self) {
        let ticks = self.config.election_ticks;
        self.election_timeout_ticks = ticks + self.random.below(ticks);
    }

    /// The end of the own log, as vote requests show it.
    pub(crate) fn last(&self) -> LogPosition {
        self.log.last()
    }
}
