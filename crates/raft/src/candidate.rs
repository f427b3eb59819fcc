//! A member that asks for votes, or whether it would get them.
//!
//! Source: Raft §5.2, thesis §9.6 (pre-vote); etcd raft: raft.go (`stepCandidate`).

use std::collections::BTreeMap;

use base::MemberId;

use crate::message::{Body, Message};
use crate::quorum::VoteResult;
use crate::role::{Common, Transition};
use crate::trace::DropReason;

/// A member that wants to lead.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) stage: Stage,
    /// The first answer of each voter.
    votes: BTreeMap<MemberId, bool>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// "Would you vote for me in the next term": nothing is promised.
    PreVote,
    /// "Vote for me": the term is raised, and the own vote given.
    Vote,
}

impl Candidate {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { stage, votes: BTreeMap::new() }
    }

    /// Handles a message of the own term, or a pre-vote for the next one.
    pub(crate) fn step(&mut self, common: &mut Common, message: Message) -> Transition {
        let kind = message.body.name();
        match (message.body, self.stage) {
            (Body::PreVoteReply { granted }, Stage::PreVote)
            | (Body::VoteReply { granted }, Stage::Vote) => {
                self.record(common, message.from, granted)
            }
            // Nobody leads, so nobody can be asked.
            (Body::ReadIndex { .. } | Body::TransferLeader, _) => {
                common.drop_message(message.from, kind, DropReason::NotTaken);
                Transition::Stay
            }
            // Answers to what this member no longer is, or to the other stage.
            (
                Body::PreVoteReply { .. }
                | Body::VoteReply { .. }
                | Body::AppendReply(_)
                | Body::HeartbeatReply { .. }
                | Body::ReadIndexReply { .. }
                // It campaigns already.
                | Body::TimeoutNow,
                _,
            ) => Transition::Stay,
            (
                Body::Append(_)
                | Body::Heartbeat { .. }
                | Body::Snapshot(_)
                | Body::Propose(_)
                | Body::Vote(_)
                | Body::PreVote(_),
                _,
            ) => unreachable!("{kind} is handled alike in every role, or makes a follower first"),
        }
    }

    /// Counts the answer of `from`.
    pub(crate) fn record(&mut self, common: &Common, from: MemberId, granted: bool) -> Transition {
        if !common.members.is_voter(from) {
            return Transition::Stay;
        }
        self.votes.entry(from).or_insert(granted);
        match common.members.vote_result(|id| self.votes.get(&id).copied()) {
            VoteResult::Pending => Transition::Stay,
            VoteResult::Lost => Transition::StepDown,
            VoteResult::Won => match self.stage {
                Stage::PreVote => Transition::Campaign,
                Stage::Vote => Transition::Lead,
            },
        }
    }
}
