//! The judge of who belongs to the cluster.
//!
//! - A change of the members is refused exactly when the reference model refuses it, and its
//!   answer lists the model's members;
//! - a member holds the members, and consensus counts the votes, that the model has at the entry
//!   that the member has applied;
//! - what a leader commits, a majority of the voters in force has told it to have.
//!
//! All of that is looked at only where a change was applied, the state was put in place as a whole,
//! or a commit index rose.

use std::collections::{BTreeMap, BTreeSet};

use base::{Index, MemberId};
use history::Membership;
use proto::etcdserverpb as pb;
use proto::raftpb::ConfChange;
use raft::{ConfState, RoleKind, Status};
use state::members::MemberObject;
use state::{Applied, Reply};

use crate::judge::Verdict;
use crate::machine::Machine;
use crate::world::World;

/// What members are started with.
pub(crate) const LEARNERS_MAX: usize = 1;

/// The members after each change that was made.
#[derive(Debug)]
pub(crate) struct Members {
    /// By the entry of the change; at the beginning there is nobody.
    after: BTreeMap<Index, Membership>,
}

impl Members {
    pub(crate) fn new() -> Self {
        Self { after: BTreeMap::from([(Index(0), Membership::default())]) }
    }

    /// The members as all entries up to `index` make them.
    fn at(&self, index: Index) -> &Membership {
        let (_, members) = self.after.range(..=index).next_back().expect("0 is at the beginning");
        members
    }

    /// A change was decided, and answered so; `None` of a founder's, for which nobody asked.
    /// Whether it was made.
    pub(crate) fn on_change(
        &mut self,
        index: Index,
        change: &ConfChange,
        answer: Option<&Applied>,
    ) -> Result<bool, String> {
        let mut members = self.at(index).clone();
        let refusal = members.change(change, LEARNERS_MAX).err();
        let is_right = match (refusal, answer) {
            (None, None) => true,
            (None, Some(Applied::Done(Reply::Members(said)))) => *said == members.members(),
            (Some(refusal), Some(Applied::Refused(said))) => said.to_string() == refusal,
            (None | Some(_), None | Some(Applied::Done(_) | Applied::Refused(_))) => false,
        };
        if !is_right {
            return Err(format!(
                "{change:?} was answered {answer:?}, refusal {refusal:?}, members {members:?}"
            ));
        }
        if refusal.is_none() {
            self.after.insert(index, members);
        }
        Ok(refusal.is_none())
    }

    /// What a member holds that has applied all up to `index`.
    fn check_held(&self, index: Index, held: &[MemberObject], removed: &[MemberId]) -> Verdict {
        let model = self.at(index);
        let held: Vec<pb::Member> = held.iter().map(message).collect();
        if held != model.members() {
            let expected = model.members();
            return Err(format!("members {held:?} at {index} instead of {expected:?}"));
        }
        let removed: BTreeSet<u64> = removed.iter().map(|id| id.0).collect();
        if removed != *model.removed() {
            let expected = model.removed();
            return Err(format!("removed {removed:x?} at {index} instead of {expected:x?}"));
        }
        Ok(())
    }

    /// Whose votes consensus counts at `index`.
    fn check_votes(&self, index: Index, counted: &ConfState) -> Verdict {
        let model = self.at(index);
        let ids = |set: &BTreeSet<u64>| set.iter().copied().map(MemberId).collect();
        let expected = ConfState {
            voters: ids(model.voters()),
            learners: ids(model.learners()),
            ..ConfState::default()
        };
        if *counted == expected {
            return Ok(());
        }
        Err(format!("votes are counted of {counted:?} at {index} instead of {expected:?}"))
    }

    /// Whether a majority of the voters `has` something, in one of the configurations that were in
    /// force from when `first` was applied until `last` was.
    fn has_majority(&self, first: Index, last: Index, has: impl Fn(MemberId) -> bool) -> bool {
        let newer = self.after.range(first..=last).map(|(_, members)| members);
        std::iter::once(self.at(first)).chain(newer).any(|members| {
            let voters = members.voters();
            voters.len() < 2 * voters.iter().filter(|&&id| has(MemberId(id))).count()
        })
    }
}

/// A member as clients see it.
fn message(member: &MemberObject) -> pb::Member {
    let MemberObject { id, peer_urls, is_learner, name, client_urls } = member.clone();
    pb::Member { id: id.0, name, peer_ur_ls: peer_urls, client_ur_ls: client_urls, is_learner }
}

impl World {
    /// Looks at what a member that runs holds of the cluster, and at the votes that it counts.
    pub(crate) fn judge_members(&self, at: usize) -> Verdict {
        let Machine { id, process: Some(process), .. } = &self.machines[at] else { return Ok(()) };
        let (member, judge) = (&process.member, &self.judge.members);
        let (state, applied) = (member.state(), member.applied().index);
        // A snapshot is in force from the moment that it takes the place of the log, before the
        // state is there; nothing is applied meanwhile.
        let in_force = applied.max(member.status().compacted);
        judge
            .check_held(applied, &state.members(), &state.removed_members())
            .and_then(|()| judge.check_votes(in_force, member.consensus().conf_state()))
            .map_err(|what| format!("{id}: {what}"))
    }

    /// A leader was as `before` says, and is as `now`: a majority of the voters must have told it,
    /// in its term, that they have what it committed; its own copy counts when it is durable. What
    /// a machine lost later does not matter here.
    pub(crate) fn judge_majority(&self, at: usize, before: &Status, now: &Status) -> Verdict {
        let leads = (RoleKind::Leader, now.term);
        // If the machine lost its power in this step, it may have applied changes that nobody saw.
        if now.commit <= before.commit
            || (before.role, before.term) != leads
            || (now.role, now.term) != leads
            || self.judge.decided() < now.applied.0
        {
            return Ok(());
        }
        let (id, commit) = (self.machines[at].id, now.commit);
        let has = |voter: MemberId| match self.by_id.get(&voter) {
            Some(&own) if own == at => commit <= now.persisted,
            Some(&other) => commit <= self.machines[other].vows.told(now.term, id),
            None => false,
        };
        // Which entry of this step was applied when the commit was counted, only the leader knows.
        if self.judge.members.has_majority(before.applied, now.applied, has) {
            return Ok(());
        }
        Err(format!("{id} leads {} and commits {commit}, which no majority has", now.term))
    }
}

#[cfg(test)]
mod tests;
