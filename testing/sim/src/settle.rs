//! The end of a life: the faults are over, and everybody must agree.

use base::probe::reached;

use crate::config::Fault;
use crate::finals::Facts;
use crate::judge::Verdict;
use crate::world::{Event, World};

/// How long the cluster has to find together, in virtual milliseconds.
const SETTLE_MILLIS: u64 = 60_000;

/// One life in so many has an order of its first calls searched for.
const LIVES_FOR_A_SEARCH: u64 = 50;

impl World {
    /// Ends the faults, waits until all agree, and compares them.
    pub(crate) fn settle(&mut self) -> Verdict {
        self.note(|| "the faults end".to_owned());
        self.faulty = false;
        crate::failpoints::disarm();
        self.network.heal();
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            machine.paused = false;
            machine.plan.clear();
            machine.ambush = None;
            (machine.hangs_until, machine.slow_until) = (0, 0);
            if machine.process.is_none() && !machine.removed && !machine.lost {
                self.after(10, Event::Start { at });
            }
        }
        // With an entry in each message, whoever is hundreds behind needs longer for them.
        let one_by_one = self.config.message_bytes_max == 1;
        let end = self.now + if one_by_one { 5 * SETTLE_MILLIS } else { SETTLE_MILLIS };
        let mut quiet = 0;
        let leases_end = self.side.one_in(2);
        while quiet < 3 {
            if end <= self.now && self.may_stall {
                // Too rare to be asked for: none in most ten thousands of lives.
                self.note(|| "of two members the other never hears that it is alone".to_owned());
                self.counts.stalled += 1;
                return self.judge_history();
            }
            if end <= self.now {
                let leases =
                    if self.judge.model.has_leases() { "leases live" } else { "no leases" };
                return Err(format!("no agreement after the faults, {leases}: {}", self.states()));
            }
            let until = self.now + 200;
            self.run_until(until)?;
            if self.over {
                return self.judge_history();
            }
            self.remove_lost()?;
            quiet = if self.agrees(leases_end) { quiet + 1 } else { 0 };
        }
        // Of one with a damaged disk only what it says is judged, not whether it can say it.
        let mut members = self.members();
        members.retain(|&at| !self.machines[at].damaged);
        if !members.is_empty() {
            for number in 0..self.watchers.len() {
                self.finish_watch(number, &members)?;
            }
        }
        self.decay();
        self.compare()?;
        self.judge_history()
    }

    /// One disk decays when all is done: what is read of it after that is right, or is not read.
    fn decay(&mut self) {
        if self.config.faults.contains(&Fault::BitFlip) && self.random.one_in(4) {
            let members = self.members();
            let at = members[self.random.index(members.len())];
            self.flip_bit(at);
        }
    }

    /// What clients saw is judged as a whole.
    pub(crate) fn judge_history(&mut self) -> Verdict {
        for number in 0..self.clients.len() {
            self.give_up(number, "the end came first");
        }
        let judge = &self.judge;
        let answer = |request| judge.answer(request);
        self.recorder.resolve(answer, judge.revoked_leases(), self.now);
        let judged =
            self.recorder.judge(self.config.drift == 0 && !self.config.has_clock_jumps())?;
        self.counts.unjudged += u64::from(!judged);
        if self.side.one_in(LIVES_FOR_A_SEARCH) { self.recorder.search() } else { Ok(()) }
    }

    /// Whoever lost its disk does not come back: the others go on without it.
    fn remove_lost(&mut self) -> Verdict {
        let Some(leader) = self.leader() else { return Ok(()) };
        let members = self.process(leader).member.state().members();
        let lost = members
            .iter()
            .map(|member| member.id)
            .find(|id| self.by_id.get(id).is_some_and(|&at| self.machines[at].lost));
        let kind = proto::raftpb::ConfChangeType::ConfChangeRemoveNode;
        match lost {
            Some(id) => self.propose_change(leader, kind, None, id),
            None => Ok(()),
        }
    }

    /// The machines of the members.
    fn members(&self) -> Vec<usize> {
        let members = self.newest_members().map(|(members, _)| members).unwrap_or_default();
        members.iter().filter_map(|id| self.by_id.get(id).copied()).collect()
    }

    /// Whether nothing is left to be done. Nobody renews leases any more: if `leases_end`, the last one
    /// must have ended, within seconds.
    fn agrees(&self, leases_end: bool) -> bool {
        let Some(leader) = self.leader() else { return false };
        let process = self.machines[leader].process.as_ref().expect("a leader runs");
        let last = process.member.status().last.index;
        let members = self.members();
        // A v2 key that should have ended is something that is still to happen.
        members.contains(&leader)
            && !(leases_end && self.judge.model.has_leases())
            && !(self.second.is_some() && self.is_second_overdue(self.wall_nanos(leader)))
            && members.iter().all(|&at| {
                let process = self.machines[at].process.as_ref();
                process.is_some_and(|process| {
                    let status = process.member.status();
                    status.leader == Some(self.machines[leader].id)
                        && status.last.index == last
                        && process.member.applied().index == last
                        && process.log.waiting().len() == 0
                })
            })
    }

    fn states(&self) -> String {
        let state = |at: usize| {
            let machine = &self.machines[at];
            match &machine.process {
                Some(process) => {
                    let (status, batches) = (process.member.status(), process.log.waiting().len());
                    let consensus = process.member.consensus();
                    let peers: Vec<_> = consensus.peers().collect();
                    let members = consensus.conf_state();
                    format!("{batches} batches unwritten; {status:?}, {members:?}, {peers:?}")
                }
                None => format!("{} is down, removed: {}", machine.id, machine.removed),
            }
        };
        (0..self.machines.len()).map(state).collect::<Vec<_>>().join("\n")
    }

    /// A member holds what the models of users, alarms, versions and the v2 tree say.
    fn compare_models(&mut self, at: usize, facts: &Facts) -> Verdict {
        let model = &self.judge.model;
        let rows = model.auth.now().rows();
        let expected: Vec<_> = rows.iter().map(|(name, key, value)| (*name, key, value)).collect();
        let buckets = ["auth", "authRoles", "authUsers"];
        let found: Vec<_> = buckets.into_iter().flat_map(|name| facts.rows_of(name)).collect();
        if found != expected {
            return Err(format!("users and roles are {found:?} instead of {expected:?}"));
        }
        let reads = self.machines[at].process.as_ref().expect("it runs").member.state().reads();
        let (version, downgrade) = (reads.cluster_version(), reads.downgrade());
        let downgrade = downgrade.enabled.then_some(downgrade.target_version);
        let is_old = version.as_deref() == Some("3.5.0");
        let storage = version.clone().filter(|_| !is_old);
        if (&version, &downgrade) != (&model.version, &model.downgrade)
            || reads.storage_version() != storage
        {
            return Err(format!("the versions are {version:?}, {downgrade:?}, {storage:?}"));
        }
        if reads.alarms() != model.alarms() {
            return Err(format!("alarms {:?}, not {:?}", reads.alarms(), model.alarms()));
        }
        let rows = facts.rows_of("v2store").count();
        if self.second.is_some() { self.compare_second(at, rows) } else { Ok(()) }
    }

    /// All members hold the same, and what the model holds.
    fn compare(&mut self) -> Verdict {
        let pairs = self.judge.model.pairs();
        let mut first: Option<Facts> = None;
        let mut is_compared_with_models = false;
        let reopens = self.accounts.is_some() || self.second.is_some() || self.config.versions;
        for at in self.members() {
            let (end, facts) = match self.process(at).all(at as u64, reopens) {
                Ok(all) => all,
                Err(what) if self.machines[at].damaged => {
                    reached("sim: damage is found at the end");
                    self.note(|| format!("member {at}: {what}"));
                    continue;
                }
                Err(what) => return Err(format!("member {at}: {what}")),
            };
            if self.machines[at].damaged {
                reached("sim: a member lives to the end with a damaged disk");
            }
            if end.pairs.as_ref() != Some(&pairs) {
                return Err(format!("member {at} holds {:?} instead of {pairs:?}", end.pairs));
            }
            self.recorder.end(end);
            if !is_compared_with_models && !self.machines[at].damaged {
                self.compare_models(at, &facts)?;
                is_compared_with_models = true;
            }
            let Some(first) = &first else {
                first = Some(facts);
                continue;
            };
            if let Some(difference) = facts.difference(first) {
                return Err(format!("member {at} holds {difference}"));
            }
        }
        Ok(())
    }
}
