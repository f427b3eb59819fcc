//! What goes wrong, and what operators do meanwhile.

use base::MemberId;
use base::probe::reached;
use member::{Input, Ticket};
use proto::etcdserverpb::{self as pb, alarm_request};
use proto::raftpb;
use state::members::{ChangeContext, MemberObject};
use vfs::fault::{Failure, Kind};

use crate::ambush::Ambush;
use crate::config::Fault;
use crate::failpoints;
use crate::judge::Verdict;
use crate::world::{Event, World, object};

/// Machines that there may ever be.
const MACHINES_MAX: usize = 10;

/// What an impatient client asks for, at most.
const BURST_MAX: u64 = 120;

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
        self.note_fault(number, format!("{fault:?} at {id}"));
        self.mark_fault(fault, at);
        match fault {
            Fault::Heal
            | Fault::Isolate
            | Fault::OneWay
            | Fault::Bridge
            | Fault::Reset
            | Fault::SlowLink
            | Fault::Split => {
                self.disturb_network(fault, at);
                Ok(())
            }
            Fault::DiskFull
            | Fault::DiskHang
            | Fault::DiskSlow
            | Fault::DiskError
            | Fault::PowerCutAtWrite
            | Fault::BitFlip
            | Fault::DiskLie
            | Fault::ReadError
            | Fault::WipedDisk
            | Fault::OlderDisk => {
                self.disturb_disk(fault, at);
                Ok(())
            }
            Fault::Kill
            | Fault::PowerCut
            | Fault::PowerCutAll
            | Fault::Pause
            | Fault::ClockJump
            | Fault::Ambush
            | Fault::Failpoint => {
                self.disturb_process(fault, at);
                Ok(())
            }
            Fault::DiskLoss => self.lose_disk(at),
            Fault::Burst => self.burst(at),
            Fault::Usurp => self.usurp(),
            Fault::Doze => self.doze(),
            Fault::Transfer => self.transfer(at),
            Fault::Membership => self.change_members(),
            Fault::Compact => self.compact(at),
            Fault::Save => self.save(at),
            Fault::Alarm => self.raise_alarm(at),
            Fault::Update => self.update_member(at),
            Fault::Defragment => {
                let epoch = self.machines[at].epoch;
                self.after(1, Event::Shrink { at, epoch });
                Ok(())
            }
        }
    }

    fn disturb_network(&mut self, fault: Fault, at: usize) {
        let machines = self.machines.len();
        let other = self.random.index(machines);
        if fault == Fault::Heal {
            self.network.heal();
        } else if fault == Fault::Isolate {
            self.network.isolate(at, machines);
        } else if fault == Fault::OneWay {
            self.network.cut_one_way(at, other);
        } else if fault == Fault::Bridge {
            self.network.bridge(at, other);
        } else if fault == Fault::Reset {
            self.network.reset(at, other);
        } else if fault == Fault::SlowLink {
            let millis = self.random.between(50, 1500);
            self.network.slow_down(at, other, millis);
        } else {
            self.network.split(&mut self.random, machines);
        }
    }

    fn disturb_disk(&mut self, fault: Fault, at: usize) {
        if fault == Fault::DiskFull {
            self.fill_disk(at);
        } else if fault == Fault::DiskHang {
            self.machines[at].hangs_until = self.now + self.random.between(500, 12_000);
        } else if fault == Fault::DiskSlow {
            self.machines[at].slow_until = self.now + self.random.between(1000, 20_000);
        } else if fault == Fault::BitFlip {
            self.flip_bit(at);
        } else if fault == Fault::DiskLie {
            self.lie_of_disk(at);
        } else if fault == Fault::OlderDisk {
            self.roll_back_disk(at);
        } else if fault == Fault::WipedDisk {
            self.wipe_disk(at);
        } else if fault == Fault::ReadError {
            self.fail_read(at, 30);
        } else {
            self.fail_disk(at, fault == Fault::PowerCutAtWrite);
        }
    }

    fn disturb_process(&mut self, fault: Fault, at: usize) {
        if fault == Fault::PowerCutAll {
            for at in 0..self.machines.len() {
                self.end_and_restart(at, true);
            }
        } else if fault == Fault::Pause {
            self.pause(at);
        } else if fault == Fault::ClockJump {
            self.set_clock(at);
        } else if fault == Fault::Ambush {
            let ambush =
                self.random.choose(&[Ambush::NewTerm, Ambush::Restored, Ambush::UncertainChange]);
            self.machines[at].ambush = Some(ambush);
        } else if fault == Fault::Failpoint {
            let name = self.random.choose(&failpoints::NAMES);
            let id = self.machines[at].id;
            self.note(|| format!("the power of {id} goes at {name}"));
            failpoints::arm(at, name, &self.machines[at].plan);
        } else {
            self.end_and_restart(at, fault == Fault::PowerCut);
        }
    }

    pub(crate) fn end_and_restart(&mut self, at: usize, power: bool) {
        if self.machines[at].process.is_some() {
            self.end(at, power);
            let pause = self.random.between(10, 5000);
            self.after(pause, Event::Start { at });
        }
    }

    /// The wall clock is set, to a time that it never showed; or the monotonic clock leaps, as on a
    /// machine that slept.
    fn set_clock(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if !self.config.leaps || self.random.one_in(2) {
            self.clocks_set += 1;
            let far = self.clocks_set * 10_000_000;
            if self.random.one_in(2) {
                machine.wall_ahead_millis += far;
            } else {
                machine.wall_ahead_millis -= far;
            }
        } else {
            machine.ahead_millis += self.random.between(100, 8000);
        }
    }

    /// What the leader that is cut off was asked for will be in nobody else's log. It loses power
    /// again when it hears what became of that.
    fn usurp(&mut self) -> Verdict {
        let Some(leader) = self.leader() else { return Ok(()) };
        reached("sim: the leader is cut off and asked for much");
        self.network.isolate(leader, self.machines.len());
        self.machines[leader].ambush = Some(Ambush::Restored);
        let pause = self.random.between(1000, 6000);
        self.after(pause, Event::Heal);
        self.burst(leader)
    }

    /// A client that does not wait for answers.
    fn burst(&mut self, at: usize) -> Verdict {
        let free = (0..self.clients.len()).find(|&number| self.clients[number].call.is_none());
        let Some(number) = free else { return Ok(()) };
        for _ in 0..self.random.between(10, BURST_MAX) {
            if !self.machines[at].is_running() {
                break;
            }
            self.clients[number].at = at;
            let (key, value) = (format!("key-{:02}", self.random.below(self.config.keys)), "burst");
            let put = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            self.call(number, history::Call::Put(put))?;
            self.give_up(number, "nobody waits for the answer");
        }
        Ok(())
    }

    fn pause(&mut self, at: usize) {
        // Longer than callers wait, now and then.
        let longest = self.random.choose(&[1000, 6000, 14_000]);
        let (epoch, pause) = (self.machines[at].epoch, self.random.between(100, longest));
        if self.machines[at].is_running() {
            self.machines[at].paused = true;
            self.after(pause, Event::Resume { at, epoch, first: None });
        }
    }

    /// The leader stands still while another one is elected. When it goes on, the first that it hears
    /// is a client that renews a lease, and it does not know that another one leads; nor does that
    /// one hear of the lease again.
    fn doze(&mut self) -> Verdict {
        let Some(at) = self.leader() else { return Ok(()) };
        let owner = (0..self.clients.len()).find(|&number| !self.clients[number].leases.is_empty());
        let Some(number) = owner else { return Ok(()) };
        reached("sim: the leader stands still and then renews a lease");
        let (epoch, pause) = (self.machines[at].epoch, self.random.between(1500, 5000));
        for due in self.clients[number].leases.values_mut() {
            *due = self.now + pause + 30_000;
        }
        self.machines[at].paused = true;
        self.after(pause, Event::Resume { at, epoch, first: Some(number) });
        Ok(())
    }

    pub(crate) fn on_resume(&mut self, at: usize, epoch: u64, first: Option<usize>) -> Verdict {
        if self.machines[at].epoch != epoch {
            return Ok(());
        }
        self.machines[at].paused = false;
        self.mark_resumed(at);
        let Some(number) = first.filter(|_| self.machines[at].process.is_some()) else {
            return Ok(());
        };
        let Some(&id) = self.clients[number].leases.keys().next() else { return Ok(()) };
        self.give_up(number, "it renews its lease instead");
        self.clients[number].at = at;
        self.call(number, history::Call::KeepAlive(pb::LeaseKeepAliveRequest { id }))
    }

    fn fill_disk(&mut self, at: usize) {
        let (epoch, pause) = (self.machines[at].epoch, self.random.between(100, 6000));
        let more = self.random.below(10);
        let plan = &self.machines[at].plan;
        plan.tear(self.random.next());
        plan.fail_from(Kind::Write, plan.count(Kind::Write) + 1 + more, Failure::NoSpace);
        self.after(pause, Event::DiskHasRoom { at, epoch });
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

    /// One of the next reads fails.
    pub(crate) fn fail_read(&mut self, at: usize, soon: u64) {
        let plan = &self.machines[at].plan;
        let nth = plan.count(Kind::Read) + 1 + self.random.below(soon);
        plan.fail_at(Kind::Read, nth, Failure::InputOutput);
    }

    /// A device may fail while a member reads what it has, at its start.
    pub(crate) fn trip_start(&mut self, at: usize) {
        let fails = self.faulty && self.config.faults.contains(&Fault::ReadError);
        if fails && self.random.one_in(4) {
            self.fail_read(at, 60);
        }
    }

    /// A machine that has nothing yet may lose its power among the first things that it writes.
    pub(crate) fn trip_beginner(&mut self, at: usize) {
        if self.faulty && self.config.faults.contains(&Fault::PowerCutAtWrite) {
            let kind = self.random.choose(&[Kind::Write, Kind::Sync, Kind::Name]);
            let nth = 1 + self.random.below(4);
            let plan = &self.machines[at].plan;
            plan.tear(self.random.next());
            plan.stop_at(kind, nth);
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

    /// Where there are users, those do it.
    fn raise_alarm(&mut self, at: usize) -> Verdict {
        if self.accounts.is_some() || !self.machines[at].is_running() {
            return Ok(());
        }
        reached("sim: an alarm is raised");
        let pause = self.random.between(200, 4000);
        self.after(pause, Event::Disarm);
        self.ask_alarm(at, alarm_request::AlarmAction::Activate, self.machines[at].id.0)
    }

    pub(crate) fn on_disarm(&mut self) -> Verdict {
        let Some(raised) = self.judge.model.alarms().first().cloned() else { return Ok(()) };
        if self.faulty {
            // Where the quota is exceeded it is raised again each time: that must come to an end.
            self.after(500, Event::Disarm);
        }
        let Some(at) = self.leader() else { return Ok(()) };
        self.ask_alarm(at, alarm_request::AlarmAction::Deactivate, raised.member_id)
    }

    fn ask_alarm(
        &mut self,
        at: usize,
        action: alarm_request::AlarmAction,
        member_id: u64,
    ) -> Verdict {
        let (action, alarm) = (action as i32, pb::AlarmType::Nospace as i32);
        let alarm = Some(pb::AlarmRequest { action, member_id, alarm });
        self.propose(at, pb::InternalRaftRequest { alarm, ..Default::default() })
    }

    /// A member moves: it is reached elsewhere from now on.
    fn update_member(&mut self, at: usize) -> Verdict {
        if !self.machines[at].is_running() {
            return Ok(());
        }
        let members = self.process(at).member.state().members();
        if members.is_empty() {
            return Ok(());
        }
        let mut member = members[self.random.index(members.len())].clone();
        let (id, place) = (member.id, self.random.below(1000));
        member.peer_urls = vec![format!("http://{id}-{place}:2380")];
        reached("sim: a member is given other addresses");
        let kind = raftpb::ConfChangeType::ConfChangeUpdateNode;
        self.propose_change(at, kind, Some(&ChangeContext::of(member)), id)
    }

    fn change_members(&mut self) -> Verdict {
        if self.random.one_in(2) {
            let at = self.random.index(self.machines.len());
            self.machines[at].ambush = Some(Ambush::UncertainChange);
        }
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
                // A leader of two that is out may be the only one that knows; if it crashes then,
                // the other needs a vote that nobody gives. So it is in etcd.
                let leads = self.leader().is_some_and(|leader| self.machines[leader].id == id);
                let leaves_too_few = !is_learner && self.relies_on(id);
                let is_risky = voters == 2 && leads && self.random.one_in(2);
                if voters < 2 && !is_learner || is_risky || leaves_too_few {
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
