//! Who belongs to the cluster, as Raft counts them.
//!
//! A change is in force when it is applied, not when it is appended: every member of the cluster,
//! etcd's own included, must use the same rule. Joint configurations are understood (quorums need
//! both halves) and never entered.
//!
//! Invariants: voters and learners are disjoint; once there is a voter there always is one.
//! Source: etcd raft: confchange/confchange.go, tracker/tracker.go.

use std::collections::BTreeSet;

use base::{Index, MemberId};

use crate::ConfState;
use crate::quorum::{self, VoteResult};

/// One applied change of the members (raftpb `ConfChange`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// A new voter, or a learner that becomes one.
    AddVoter(MemberId),
    /// A new learner, or a voter that loses its vote.
    AddLearner(MemberId),
    /// Out of the cluster.
    Remove(MemberId),
    /// A change that was refused, or that concerns no votes.
    None,
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// It would leave no voter.
    NoVoterLeft,
    /// A joint change is under way.
    Joint,
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    state: ConfState,
}

impl Membership {
    pub(crate) fn new(state: ConfState) -> Self {
        Self { state }
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.state
    }

    pub(crate) fn is_voter(&self, id: MemberId) -> bool {
        self.state.voters.contains(&id) || self.state.voters_outgoing.contains(&id)
    }

    pub(crate) fn is_learner(&self, id: MemberId) -> bool {
        self.state.learners.contains(&id)
    }

    pub(crate) fn contains(&self, id: MemberId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// Whether `id` alone is a quorum.
    pub(crate) fn is_single_voter(&self, id: MemberId) -> bool {
        !self.is_joint() && self.state.voters.len() == 1 && self.state.voters.contains(&id)
    }

    pub(crate) fn voters(&self) -> BTreeSet<MemberId> {
        &self.state.voters | &self.state.voters_outgoing
    }

    /// Everyone who receives the log.
    pub(crate) fn everyone(&self) -> BTreeSet<MemberId> {
        &self.voters() | &self.state.learners
    }

    fn is_joint(&self) -> bool {
        !self.state.voters_outgoing.is_empty()
    }

    /// The greatest value that a quorum has reached.
    pub(crate) fn reached(&self, value: impl Fn(MemberId) -> Option<u64>) -> u64 {
        let incoming = quorum::reached(&self.state.voters, &value);
        incoming.min(quorum::reached(&self.state.voters_outgoing, &value))
    }

    /// The greatest index that a quorum stores.
    pub(crate) fn stored(&self, matched: impl Fn(MemberId) -> Option<Index>) -> Index {
        Index(self.reached(|id| matched(id).map(|index| index.0)))
    }

    pub(crate) fn vote_result(&self, vote: impl Fn(MemberId) -> Option<bool>) -> VoteResult {
        quorum::both(
            quorum::vote_result(&self.state.voters, &vote),
            quorum::vote_result(&self.state.voters_outgoing, &vote),
        )
    }

    /// Puts `change` in force; leaves everything as it is if that is refused.
    pub(crate) fn change(&mut self, change: &MembershipChange) -> Result<(), ChangeRefusal> {
        if *change == MembershipChange::None {
            return Ok(());
        }
        if self.is_joint() {
            return Err(ChangeRefusal::Joint);
        }
        let mut state = self.state.clone();
        match *change {
            MembershipChange::AddVoter(id) => {
                if state.learners.remove(&id) {
                    base::probe::reached("raft: a learner becomes a voter");
                }
                state.voters.insert(id);
            }
            MembershipChange::AddLearner(id) => {
                state.voters.remove(&id);
                state.learners.insert(id);
            }
            MembershipChange::Remove(id) => {
                state.voters.remove(&id);
                state.learners.remove(&id);
            }
            MembershipChange::None => {}
        }
        if state.voters.is_empty() {
            return Err(ChangeRefusal::NoVoterLeft);
        }
        self.state = state;
        Ok(())
    }
}

/// Whether a configuration that came from outside can be in force: someone votes, nobody is voter
/// and learner at once, and who becomes a learner later still votes now.
pub(crate) fn is_sound(state: &ConfState) -> bool {
    let voters = &state.voters | &state.voters_outgoing;
    !state.voters.is_empty()
        && !voters.contains(&MemberId::NONE)
        && !state.learners.contains(&MemberId::NONE)
        && voters.is_disjoint(&state.learners)
        && state.learners_next.is_subset(&state.voters_outgoing)
        && (!state.voters_outgoing.is_empty() || !state.auto_leave)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        Membership::new(ConfState {
            voters: voters.iter().copied().map(MemberId).collect(),
            learners: learners.iter().copied().map(MemberId).collect(),
            ..ConfState::default()
        })
    }

    #[test]
    fn a_learner_is_promoted_and_a_voter_demoted() {
        let mut members = membership(&[1, 2], &[3]);
        members.change(&MembershipChange::AddVoter(MemberId(3))).unwrap();
        members.change(&MembershipChange::AddLearner(MemberId(1))).unwrap();
        assert_eq!(members.conf_state(), membership(&[2, 3], &[1]).conf_state());
    }

    #[test]
    fn the_last_voter_stays() {
        let mut members = membership(&[1], &[2]);
        let refusal = members.change(&MembershipChange::Remove(MemberId(1))).unwrap_err();
        assert_eq!(refusal, ChangeRefusal::NoVoterLeft);
        assert!(members.is_single_voter(MemberId(1)));
    }

    /// CB-39: nobody asks for it, and in a log of others' it counts but takes no change.
    #[test]
    fn a_joint_configuration_takes_no_change() {
        let mut state = membership(&[1, 2, 3], &[]).state;
        state.voters_outgoing = [1, 2].map(MemberId).into();
        let mut members = Membership::new(state.clone());
        for change in [
            MembershipChange::AddVoter(MemberId(4)),
            MembershipChange::AddLearner(MemberId(4)),
            MembershipChange::Remove(MemberId(1)),
        ] {
            assert_eq!(members.change(&change), Err(ChangeRefusal::Joint));
        }
        members.change(&MembershipChange::None).unwrap();
        assert_eq!(members.conf_state(), &state);
    }

    #[test]
    fn a_joint_quorum_needs_both_halves() {
        let mut state = membership(&[1, 2, 3], &[]).state;
        state.voters_outgoing = [4, 5, 6].map(MemberId).into();
        let members = Membership::new(state);
        assert_eq!(members.stored(|id| Some(Index(if id.0 <= 3 { 9 } else { 4 }))), Index(4));
        assert_eq!(members.vote_result(|id| (id.0 <= 3).then_some(true)), VoteResult::Pending);
    }

    #[test]
    fn configurations_from_outside_are_checked() {
        assert!(is_sound(membership(&[1], &[2]).conf_state()));
        assert!(!is_sound(membership(&[], &[2]).conf_state()));
        assert!(!is_sound(membership(&[1], &[1]).conf_state()));
        assert!(!is_sound(membership(&[0], &[]).conf_state()));
    }
}
