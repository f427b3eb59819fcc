//! Processes begin and end.

use base::probe::reached;
use member::{Outputs, Ticket};

use crate::judge::Verdict;
use crate::machine::Stop;
use crate::world::{Event, World};

impl World {
    pub(crate) fn on_start(&mut self, at: usize) -> Verdict {
        if self.machines[at].process.is_some()
            || self.machines[at].removed
            || self.machines[at].lost
        {
            return Ok(());
        }
        self.counts.restarts += 1;
        self.start(at)
    }

    /// Starts a process on a machine.
    pub(crate) fn start(&mut self, at: usize) -> Verdict {
        let seed = self.random.next();
        let (id, now) = (self.machines[at].id, self.now);
        crate::failpoints::enter(at);
        self.trip_start(at);
        let started = self.machines[at].start(&self.config, now, seed);
        if let Err(stop) = started {
            self.mark_stop(at, "sim: the power goes while a member starts");
            reached("sim: the disk fails while a member starts");
            return self.stop(at, stop);
        }
        if self.is_out(at) {
            return self.power_is_out(at);
        }
        let (clock, epoch) = (self.machines[at].clock(now), self.machines[at].epoch);
        let process = self.process(at);
        let (applied, mut out) = (process.member.applied(), Outputs::default());
        let log: Vec<_> = process.logged.values().cloned().collect();
        let begun = process.member.start(clock, &mut out);
        self.note(|| format!("{id} starts at {applied}"));
        if self.process(at).users.0 {
            reached("sim: a member starts while auth is on");
        }
        let mut before = None;
        for entry in &log {
            self.judge_entry(entry, before)?;
            before = Some(entry.term);
        }
        self.check_vows(at)?;
        if let Err(halt) = begun {
            return self.halt(at, &halt);
        }
        let (tick, commit) = (self.random.below(100), self.random.between(50, 400));
        self.after(tick, Event::Tick { at, epoch });
        self.after(commit, Event::Commit { at, epoch });
        self.after(1, Event::Compact { at, epoch });
        self.absorb(at, out)?;
        self.judge_members(at)
    }

    /// A process ends by its own will or the disk's.
    pub(crate) fn stop(&mut self, at: usize, stop: Stop) -> Verdict {
        let id = self.machines[at].id;
        let power = self.machines[at].plan.is_stopped();
        let what = match stop {
            Stop::Disk(what) | Stop::Broken(what) if self.machines[at].damaged && !power => {
                self.give_up_machine(at, &what);
                return Ok(());
            }
            Stop::Disk(what) => what,
            Stop::Removed => {
                self.note(|| format!("{id} does not start: it was removed"));
                reached("sim: a member that was removed does not start again");
                // Of two, the other may never hear of it.
                let newest = self.newest_members();
                self.may_stall |= newest.is_none_or(|(members, _)| members.len() < 3);
                self.machines[at].removed = true;
                return Ok(());
            }
            // The power went just then: the next start finds it again.
            Stop::Broken(what) if self.machines[at].damaged => what,
            Stop::Broken(what) => return Err(format!("{id} does not go on: {what}")),
        };
        self.note(|| format!("{id} ends: {what}"));
        self.end(at, power);
        let pause = self.random.between(50, 2000);
        self.after(pause, Event::Start { at });
        Ok(())
    }

    /// Whether a machine lost its power in the middle of something.
    pub(crate) fn is_out(&self, at: usize) -> bool {
        self.machines[at].plan.is_stopped()
    }

    /// Nothing that was just done leaves the machine.
    pub(crate) fn power_is_out(&mut self, at: usize) -> Verdict {
        self.stop(at, Stop::Disk("the power is out".to_owned()))
    }

    pub(crate) fn halt(&mut self, at: usize, halt: &state::Halt) -> Verdict {
        match halt {
            _ if self.machines[at].damaged && !self.is_out(at) => {
                self.give_up_machine(at, &format!("{halt:?}"));
                Ok(())
            }
            state::Halt::Unknown { .. } | state::Halt::Forgotten { .. } => {
                Err(format!("{}: {halt}", self.machines[at].id))
            }
            state::Halt::Backend { source: backend::ReadError::Damaged { .. }, .. } => {
                Err(format!("{}: {halt:?}", self.machines[at].id))
            }
            state::Halt::Backend { .. } | state::Halt::Restore { .. } => {
                self.stop(at, Stop::Disk(format!("{halt:?}")))
            }
        }
    }

    /// Ends a process; with `power`, what was not synced may be lost.
    pub(crate) fn end(&mut self, at: usize, power: bool) {
        let seed = self.random.next();
        if power {
            self.machines[at].cut_power(seed);
        } else {
            self.machines[at].kill();
        }
        if let Some(accounts) = &mut self.accounts {
            accounts.forget_member(at);
        }
        if let Some(second) = &mut self.second {
            second.forget_member(at);
        }
        for watcher in &mut self.watchers {
            if watcher.at == at {
                watcher.stream = None;
            }
        }
        let lost: Vec<(usize, Ticket)> =
            self.waiting.range((at, Ticket(0))..=(at, Ticket(u64::MAX))).map(|(k, _)| *k).collect();
        for key in lost {
            if let Some(number) = self.waiting.remove(&key) {
                self.give_up(number, "the member went away");
            }
        }
    }
}
