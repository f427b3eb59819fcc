//! Who becomes leader: timeouts, campaigns, votes, changes of role and term.
//!
//! Invariants: the term never falls; at most one vote per term, durable before it is told; a
//! candidate asks for votes only once its own term and vote are durable, so that after a crash it
//! cannot lead the same term a second time with another log.
//! Source: Raft §5.2, §5.4.1, thesis §4.2.3, §9.6; etcd raft: raft.go (`Step`, `hup`, `campaign`,
//! `become*`).

use std::cmp::Ordering;

use base::probe::{mutant, reached};
use base::{MemberId, Term};

use crate::candidate::{Candidate, Stage};
use crate::follower::Follower;
use crate::leader::Leader;
use crate::message::{AppendReply, Body, Message, VoteRequest};
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::trace::{CampaignRefusal, DropReason, Event};

impl Raft {
    /// Whether the message may be handled in this term; changes the term and the role first where
    /// the message's term demands it.
    pub(crate) fn settle_term(&mut self, message: &Message) -> bool {
        if message.body.is_termless() {
            return true;
        }
        match message.term.cmp(&self.common.term) {
            Ordering::Equal => true,
            Ordering::Less => {
                self.on_stale_term(message);
                false
            }
            Ordering::Greater => self.on_later_term(message),
        }
    }

    fn on_later_term(&mut self, message: &Message) -> bool {
        match message.body {
            // While a leader is heard from, nobody may depose it (thesis §4.2.3), unless it wishes
            // that itself.
            Body::Vote(VoteRequest { forced: false, .. })
            | Body::PreVote(VoteRequest { forced: false, .. })
                if self.hears_leader() =>
            {
                reached("raft: nobody votes while a leader is heard");
                self.common.drop_message(
                    message.from,
                    message.body.name(),
                    DropReason::LeaderIsHeard,
                );
                return false;
            }
            // These speak of a term that need never come.
            Body::PreVote(_) | Body::PreVoteReply { granted: true } => {}
            Body::Append(_) | Body::Heartbeat { .. } | Body::Snapshot(_) => {
                self.become_follower(message.term, Some(message.from));
            }
            Body::Vote(_)
            | Body::PreVoteReply { granted: false }
            | Body::VoteReply { .. }
            | Body::AppendReply(_)
            | Body::HeartbeatReply { .. }
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::ReadIndexReply { .. } => self.become_follower(message.term, None),
            Body::Propose(_) | Body::ReadIndex { .. } => {
                unreachable!("messages without a term are of every term")
            }
        }
        true
    }

    fn on_stale_term(&mut self, message: &Message) {
        let config = &self.common.config;
        reached("raft: a message of a term that is over");
        match message.body {
            // A member that campaigned while it was cut off cannot make itself heard by votes, as
            // nobody gives any while a leader is heard from. This answer tells that leader of the
            // later term.
            Body::Append(_) | Body::Heartbeat { .. } if config.check_quorum || config.pre_vote => {
                let reply = AppendReply { index: base::Index(0), rejected: None };
                self.common.hold(message.from, Body::AppendReply(reply));
            }
            // One that campaigned in this way without pre-votes may have a later term and less of
            // the log; it must be told the term, or nobody could ever win.
            Body::PreVote(_) => {
                self.common.hold(message.from, Body::PreVoteReply { granted: false });
            }
            // So must a candidate, where nobody leads: this member may have counted terms for long
            // in vain, with voters that were removed since, and not know that the other votes.
            // etcd says nothing; two such members then elect nobody until their terms meet by luck.
            Body::Vote(_) if self.leader().is_none() => {
                reached("raft: a candidate of an older term is told the term");
                self.common.hold(message.from, Body::VoteReply { granted: false });
            }
            Body::Append(_)
            | Body::Heartbeat { .. }
            | Body::AppendReply(_)
            | Body::Vote(_)
            | Body::VoteReply { .. }
            | Body::PreVoteReply { .. }
            | Body::Snapshot(_)
            | Body::HeartbeatReply { .. }
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::Propose(_)
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {
                let reason = DropReason::StaleTerm(message.term);
                self.common.drop_message(message.from, message.body.name(), reason);
            }
        }
    }

    /// Whether a leader was heard from within the shortest election timeout.
    fn hears_leader(&self) -> bool {
        self.common.config.check_quorum
            && self.leader().is_some()
            && self.common.election_elapsed_ticks < self.common.config.election_ticks
    }

    /// Answers a request for a vote (`Stage::Vote`) or for the promise of one.
    pub(crate) fn on_vote_request(
        &mut self,
        from: MemberId,
        term: Term,
        request: VoteRequest,
        stage: Stage,
    ) {
        let nobody_yet = self.common.vote.is_none() && self.leader().is_none();
        let next_term = stage == Stage::PreVote && self.common.term < term;
        let free =
            self.common.vote == from || nobody_yet || next_term || mutant("votes-twice-in-a-term");
        // Learners vote too: the candidate may know of a promotion that this member has not
        // applied yet, and its vote may be needed to ever apply it.
        let is_behind = !self.common.log.is_covered_by(request.last);
        let granted = free && (!is_behind || mutant("votes-for-a-shorter-log"));
        match stage {
            Stage::Vote | Stage::PreVote
                if granted && self.common.members.is_learner(self.common.id()) =>
            {
                reached("raft: a learner gives its vote");
            }
            Stage::Vote if granted => reached("raft: a vote is given"),
            Stage::Vote if is_behind => reached("raft: a vote is refused to a shorter log"),
            Stage::Vote => reached("raft: a second vote in a term is refused"),
            Stage::PreVote if granted => reached("raft: a pre-vote is given"),
            Stage::PreVote => reached("raft: a pre-vote is refused"),
        }
        // A vote is told in the candidate's term, which for a pre-vote is ahead of the own; a
        // refusal in the own term, so that a candidate that is behind learns of it.
        let reply_term = if granted { term } else { self.common.term };
        if granted && stage == Stage::Vote {
            self.common.election_elapsed_ticks = 0;
            self.common.vote = from;
        }
        let body = match stage {
            Stage::Vote => Body::VoteReply { granted },
            Stage::PreVote => Body::PreVoteReply { granted },
        };
        self.common.hold_in_term(from, reply_term, body);
        self.common.trace.note(Event::Voted { candidate: from, term, granted });
    }

    /// Begins an election unless this member leads or may not.
    pub(crate) fn start_campaign(&mut self, stage: Stage, forced: bool) {
        if matches!(self.role, Role::Leader(_)) {
            return;
        }
        let refusal = if !self.common.is_promotable() {
            Some(CampaignRefusal::NotPromotable)
        } else if self.common.log.has_unapplied_change()
            && !mutant("campaigns-with-an-unapplied-change")
        {
            reached("raft: no campaign while a change of the members is not applied");
            // It would count the votes of a configuration that is over.
            Some(CampaignRefusal::UnappliedChange)
        } else {
            None
        };
        match refusal {
            Some(refusal) => self.common.trace.note(Event::CampaignRefused(refusal)),
            None => self.ask_for_votes(stage, forced),
        }
    }

    fn ask_for_votes(&mut self, stage: Stage, forced: bool) {
        let request = VoteRequest { last: self.common.last(), forced };
        let own = self.common.id();
        let others = self.common.members.voters().into_iter().filter(|&id| id != own);
        match stage {
            Stage::PreVote => {
                // Neither the term nor the vote changes, so nothing has to be durable first.
                self.set_role(Role::Candidate(Candidate::new(stage)));
                let term = Term(self.common.term.0 + 1);
                for to in others {
                    let body = Body::PreVote(request);
                    self.common.send_at_once(Message { from: own, to, term, body });
                }
                self.count_own_vote();
            }
            Stage::Vote => {
                self.reset(Term(self.common.term.0 + 1));
                self.common.vote = own;
                self.set_role(Role::Candidate(Candidate::new(stage)));
                for to in others {
                    self.common.hold(to, Body::Vote(request));
                }
                // The own vote is counted when it is durable.
            }
        }
    }

    /// Counts the vote this candidate gives itself.
    pub(crate) fn count_own_vote(&mut self) {
        let own = self.common.id();
        if let Role::Candidate(candidate) = &mut self.role {
            let transition = candidate.record(&self.common, own, true);
            self.enter(transition);
        }
    }

    /// Does what a handler asked for.
    pub(crate) fn enter(&mut self, transition: Transition) {
        match transition {
            Transition::Stay => {}
            Transition::StepDown => {
                if matches!(self.role, Role::Leader(_)) {
                    reached("raft: a leader without a quorum steps down");
                } else {
                    reached("raft: an election is lost");
                }
                self.become_follower(self.common.term, None);
            }
            // The leader asks for it, so there is no need to find out first whether one is alive.
            Transition::TakeOver => self.start_campaign(Stage::Vote, true),
            Transition::Campaign => self.ask_for_votes(Stage::Vote, false),
            Transition::Lead => self.become_leader(),
        }
    }

    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<MemberId>) {
        if matches!(self.role, Role::Leader(_)) && self.common.term < term {
            reached("raft: a leader hears of a later term");
        }
        self.reset(term);
        self.set_role(Role::Follower(Follower { leader }));
    }

    fn become_leader(&mut self) {
        assert!(
            matches!(&self.role, Role::Candidate(candidate) if candidate.stage == Stage::Vote),
            "only a candidate becomes leader, not {:?}",
            self.role
        );
        self.reset(self.common.term);
        let mut leader = Leader::new(&self.common);
        leader.begin_term(&mut self.common);
        self.set_role(Role::Leader(Box::new(leader)));
    }

    fn set_role(&mut self, role: Role) {
        self.role = role;
        let soft = self.soft_state();
        self.common.trace.note(Event::Became {
            role: soft.role,
            term: self.common.term,
            leader: soft.leader,
        });
    }

    /// Begins counting time anew, and forgets the vote if the term is a new one.
    fn reset(&mut self, term: Term) {
        assert!(self.common.term <= term, "term falls from {} to {term}", self.common.term);
        if self.common.term < term {
            self.common.term = term;
            self.common.vote = MemberId::NONE;
        }
        self.common.election_elapsed_ticks = 0;
        self.common.draw_election_timeout();
        self.common.snapshot_wanted.clear();
    }
}
