//! What goes wrong, and what operators do meanwhile.

use base::MemberId;
use base::probe::reached;
use member::{Input, Ticket};
use proto::{etcdserverpb as pb, raftpb};
use state::members::{ChangeContext, MemberObject};
use vfs::fault::{Failure, Kind};

use crate::config::Fault;
use crate::judge::Verdict;
use crate::world::{Event, World, object};

/// Machines that there may ever be.
const MACHINES_MAX: usize = 8;

impl World {
    pub(crate) fn on_fault(&mut self) -> Verdict {
        if !self.faulty {
            return Ok(());
        }
        let (number, own) = self.next_fault();
        let all = std::mem::replace(&mut self.random, own);
        let pause = self.random.between(1, 2 * self.config.fault_every_millis);
        self.after(pause, Event::Fault);
        let happened = number.map_or(Ok(()), |number| self.fault(number));
        self.random = all;
        happened
    }

    fn fault(&mut self, number: u64) -> Verdict {
        let fault = self.random.index(self.config.faults.len());
        let fault = self.config.faults[fault];
        let at = self.random.index(self.machines.len());
        let id = self.machines[at].id;
        self.note(|| format!("fault {number}: {fault:?} at {id}"));
        self.mark_fault(fault, at);
        match fault {
            Fault::Heal => {
                self.network.heal();
                Ok(())
            }
            Fault::Isolate => {
                self.network.isolate(at, self.machines.len());
                Ok(())
            }
            Fault::OneWay => {
                let to = self.random.index(self.machines.len());
                self.network.cut_one_way(at, to);
                Ok(())
            }
            Fault::Split => {
                self.network.split(&mut self.random, self.machines.len());
                Ok(())
            }
            Fault::Kill | Fault::PowerCut => {
                self.end_and_restart(at, fault == Fault::PowerCut);
                Ok(())
            }
            Fault::PowerCutAll => {
                for at in 0..self.machines.len() {
                    self.end_and_restart(at, true);
                }
                Ok(())
            }
            Fault::Transfer => self.transfer(at),
            Fault::Membership => self.change_members(),
            Fault::Compact => self.compact(at),
            Fault::Pause => {
                self.pause(at);
                Ok(())
            }
            Fault::DiskFull => {
                self.fill_disk(at);
                Ok(())
            }
            Fault::DiskHang => {
                self.machines[at].hangs_until = self.now + self.random.between(500, 12_000);
                Ok(())
            }
            Fault::DiskSlow => {
                self.machines[at].slow_until = self.now + self.random.between(1000, 20_000);
                Ok(())
            }
            Fault::DiskLoss => self.lose_disk(at),
            Fault::Defragment => {
                let epoch = self.machines[at].epoch;
                self.after(1, Event::Shrink { at, epoch });
                Ok(())
            }
            Fault::DiskError | Fault::PowerCutAtWrite => {
                self.fail_disk(at, fault == Fault::PowerCutAtWrite);
                Ok(())
            }
        }
    }

    fn end_and_restart(&mut self, at: usize, power: bool) {
        if self.machines[at].process.is_some() {
            self.end(at, power);
            let pause = self.random.between(10, 5000);
            self.after(pause, Event::Start { at });
        }
    }

    fn pause(&mut self, at: usize) {
        let (epoch, pause) = (self.machines[at].epoch, self.random.between(100, 6000));
        if self.machines[at].is_running() {
            self.machines[at].paused = true;
            self.after(pause, Event::Resume { at, epoch });
        }
    }

    fn fill_disk(&mut self, at: usize) {
        let (epoch, pause) = (self.machines[at].epoch, self.random.between(100, 6000));
        let more = self.random.below(10);
        let plan = &self.machines[at].plan;
        plan.tear(self.random.next());
        plan.fail_from(Kind::Write, plan.count(Kind::Write) + 1 + more, Failure::NoSpace);
        self.after(pause, Event::DiskHasRoom { at, epoch });
    }

    /// A member is gone with its disk; the others remove it. One at a time, and only while the rest
    /// of the voters is a quorum that runs: more is a disaster that nothing survives.
    fn lose_disk(&mut self, at: usize) -> Verdict {
        let id = self.machines[at].id;
        let Some(leader) = self.leader().filter(|&leader| leader != at) else { return Ok(()) };
        let members = self.process(leader).member.state().members();
        let voters = members.iter().filter(|member| !member.is_learner).count();
        let all_run = members.iter().all(|member| {
            self.by_id.get(&member.id).is_some_and(|&other| self.machines[other].is_running())
        });
        let is_member = members.iter().any(|member| member.id == id && !member.is_learner);
        let lost = self.machines.iter().any(|machine| machine.lost && !machine.removed);
        // Another one's removal may be on its way, and must leave a quorum too.
        let changing = self.config.faults.contains(&Fault::Membership);
        let voters_min = if changing { 5 } else { 3 };
        if voters < voters_min || !all_run || !is_member || lost {
            return Ok(());
        }
        reached("sim: a member loses its disk");
        self.end(at, true);
        self.machines[at].lost = true;
        let kind = raftpb::ConfChangeType::ConfChangeRemoveNode;
        self.propose_change(leader, kind, None, id)
    }

    /// One of the next operations of the disk fails, or finds the machine without power.
    fn fail_disk(&mut self, at: usize, power: bool) {
        let kind = self.random.choose(&[Kind::Write, Kind::Sync, Kind::Name]);
        let plan = &self.machines[at].plan;
        let nth = plan.count(kind) + 1 + self.random.below(30);
        if power {
            plan.tear(self.random.next());
            plan.stop_at(kind, nth);
        } else {
            plan.fail_at(kind, nth, Failure::InputOutput);
        }
    }

    fn transfer(&mut self, to: usize) -> Verdict {
        let Some(at) = self.leader() else { return Ok(()) };
        let (ticket, to) = (self.process(at).ids.next_id(), self.machines[to].id);
        self.step(at, Input::TransferLeader(Ticket(ticket), to))
    }

    /// An operator compacts, and waits for the answer like any client.
    fn compact(&mut self, at: usize) -> Verdict {
        let back = i64::try_from(self.random.below(20)).expect("small");
        let revision = self.judge.model.revision() - back;
        let free = (0..self.clients.len()).find(|&number| self.clients[number].call.is_none());
        let (Some(number), true) = (free, self.machines[at].is_running() && 2 <= revision) else {
            return Ok(());
        };
        self.clients[number].at = at;
        let request = pb::CompactionRequest { revision, physical: false };
        self.call(number, history::Call::Compact(request))
    }

    fn change_members(&mut self) -> Verdict {
        let running: Vec<usize> =
            (0..self.machines.len()).filter(|&at| self.machines[at].is_running()).collect();
        if running.is_empty() {
            return Ok(());
        }
        let at = running[self.random.index(running.len())];
        let members = self.process(at).member.state().members();
        if members.is_empty() {
            return Ok(());
        }
        let learner = members.iter().find(|member| member.is_learner).map(|member| member.id);
        let lost = members
            .iter()
            .map(|member| member.id)
            .find(|id| self.by_id.get(id).is_some_and(|&other| self.machines[other].lost));
        if let Some(id) = lost {
            reached("sim: a member whose disk is gone is removed");
            let kind = raftpb::ConfChangeType::ConfChangeRemoveNode;
            return self.propose_change(at, kind, None, id);
        }
        match (self.random.below(3), learner) {
            (0, Some(id)) => self.promote(at, id),
            (0 | 1, _) if self.machines.len() < MACHINES_MAX => {
                let number = self.machines.len() as u64 + 1 + 16 * self.random.below(16);
                let is_learner = self.random.one_in(2);
                let member = MemberObject { name: String::new(), is_learner, ..object(number) };
                let kind = if is_learner {
                    raftpb::ConfChangeType::ConfChangeAddLearnerNode
                } else {
                    raftpb::ConfChangeType::ConfChangeAddNode
                };
                let id = member.id;
                self.propose_change(at, kind, Some(&ChangeContext::of(member)), id)
            }
            _ => {
                let voters = members.iter().filter(|member| !member.is_learner).count();
                let member = &members[self.random.index(members.len())];
                let (id, is_learner) = (member.id, member.is_learner);
                // Of two voters one may be the only one that knows that the other is out; if it
                // crashes then, the other needs a vote that nobody gives. So it is in etcd.
                if voters < 3 && !is_learner {
                    return Ok(());
                }
                let kind = raftpb::ConfChangeType::ConfChangeRemoveNode;
                self.propose_change(at, kind, None, id)
            }
        }
    }

    fn promote(&mut self, at: usize, id: MemberId) -> Verdict {
        let ready = self.process(at).member.learner_ready(id);
        if ready == Some(false) {
            reached("sim: a learner that is behind is not promoted");
            return Ok(());
        }
        let kind = raftpb::ConfChangeType::ConfChangeAddNode;
        self.propose_change(at, kind, Some(&ChangeContext::promotion(id)), id)
    }
}
