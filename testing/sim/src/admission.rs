//! Who comes and who goes: machines follow what the cluster decided of its members.

use base::MemberId;
use base::probe::reached;
use member::{Input, Outputs, Proposal, Ticket};
use prost::Message as _;
use proto::raftpb;
use raft::{RoleKind, Status};
use state::members::ChangeContext;

use crate::judge::Verdict;
use crate::machine::{Machine, Process};
use crate::world::{Event, World};

impl World {
    /// Starts the machines of members that were added, and marks those that were removed.
    pub(crate) fn admit_decided(&mut self) {
        for (index, change) in std::mem::take(&mut self.judge.changes) {
            let id = MemberId(change.node_id());
            match change.r#type() {
                raftpb::ConfChangeType::ConfChangeRemoveNode => {
                    self.note(|| format!("{id} is removed at {index}"));
                    self.mark_removed(id);
                    self.counts.changes += 1;
                }
                raftpb::ConfChangeType::ConfChangeAddNode
                | raftpb::ConfChangeType::ConfChangeAddLearnerNode
                    if !self.by_id.contains_key(&id) =>
                {
                    self.note(|| format!("{id} is added at {index}"));
                    if change.r#type() == raftpb::ConfChangeType::ConfChangeAddLearnerNode {
                        reached("sim: a learner is added");
                    } else {
                        reached("sim: a voter is added");
                    }
                    self.counts.changes += 1;
                    let drift = self.config.drift;
                    let rate = 1000 - drift + self.random.below(2 * drift + 1);
                    let at = self.machines.len();
                    self.machines.push(Machine::new(id, rate, None));
                    self.by_id.insert(id, at);
                    self.trip_beginner(at);
                    let pause = self.random.between(10, 1500);
                    self.after(pause, Event::Start { at });
                }
                raftpb::ConfChangeType::ConfChangeAddNode
                | raftpb::ConfChangeType::ConfChangeAddLearnerNode
                | raftpb::ConfChangeType::ConfChangeUpdateNode => {}
            }
        }
    }

    /// A member hears from its leader that it is out, and ends soon, as servers do. Then the leader
    /// knows for ever; where a member finds it out by itself, somebody else must know first.
    pub(crate) fn plan_retirement(&mut self, at: usize, status: &Status, out: &Outputs) {
        let id = self.machines[at].id;
        // Of two, the other may never hear of it; or the one that is out has entries that its leader
        // lost with its power, and so the longer log. Nobody wins then: so it is in etcd.
        let alone = status.leader.is_none_or(|leader| leader == id);
        let voters = self.process(at).member.consensus().conf_state().voters.len();
        self.may_stall |= out.removed && voters < 2 && (alone || self.config.has_slow_disks());
        let hears =
            status.role == RoleKind::Follower && status.leader.is_some_and(|leader| leader != id);
        if out.removed && hears && out.restored.is_none() {
            let (epoch, pause) = (self.machines[at].epoch, self.random.below(2000));
            self.after(pause, Event::Retire { at, epoch });
        }
    }

    pub(crate) fn on_retire(&mut self, at: usize, epoch: u64) {
        // A leader tells what is committed while its own disk learns it. Should that take longer than
        // the one that is out goes on, and the power be cut then, of two members the one that is
        // left would not know that it is alone.
        let Some(leader) = self.leader().filter(|&leader| leader != at) else { return };
        let writer = self.process(leader);
        if writer.is_writing || writer.log.waiting().len() > 0 {
            self.after(100, Event::Retire { at, epoch });
            return;
        }
        if self.is_current(at, epoch) {
            let id = self.machines[at].id;
            self.note(|| format!("{id} retires"));
            reached("sim: a member that hears that it is out ends");
            self.end(at, false);
            self.machines[at].removed = true;
        }
    }

    /// Ends members that were removed, once everybody who stays knows.
    pub(crate) fn retire_removed(&mut self) {
        let Some(newest) = self.newest() else { return };
        let mut removed = newest.member.state().removed_members();
        removed.retain(|id| self.by_id.get(id).is_some_and(|&at| !self.machines[at].removed));
        if removed.is_empty() {
            return;
        }
        let members = newest.member.state().members();
        for id in removed {
            let at = self.by_id[&id];
            if self.machines[at].lost {
                self.machines[at].removed = true;
                continue;
            }
            let known = members.iter().all(|member| {
                self.by_id.get(&member.id).is_none_or(|&other| {
                    // Durably, or a member that lost power would ask the one that is gone for
                    // its vote.
                    self.machines[other].process.as_ref().is_some_and(|process| {
                        process.member.state().is_removed(id)
                            && process.backend.durable() == process.member.applied()
                    })
                })
            });
            if known {
                self.note(|| format!("{id} is retired"));
                reached("sim: a member that was removed is retired");
                self.end(at, false);
                self.machines[at].removed = true;
            }
        }
    }

    /// The members, and those that were removed, as the most advanced process knows them.
    pub(crate) fn newest_members(&self) -> Option<(Vec<MemberId>, Vec<MemberId>)> {
        let state = self.newest()?.member.state();
        let members = state.members().iter().map(|member| member.id).collect();
        Some((members, state.removed_members()))
    }

    fn newest(&self) -> Option<&Process> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        processes.max_by_key(|process| process.member.applied().index)
    }

    /// Proposes a change of the members for nobody.
    pub(crate) fn propose_change(
        &mut self,
        at: usize,
        kind: raftpb::ConfChangeType,
        context: Option<&ChangeContext>,
        id: MemberId,
    ) -> Verdict {
        let ticket = self.process(at).ids.next_id();
        let change = raftpb::ConfChange {
            id: Some(ticket),
            r#type: Some(kind as i32),
            node_id: Some(id.0),
            context: context.map(ChangeContext::to_json),
        };
        let request = change.encode_to_vec().into();
        self.step(at, Input::ProposeChange(Proposal { ticket: Ticket(ticket), request }))
    }
}
