//! The end of a life: the faults are over, and everybody must agree.

use proto::etcdserverpb as pb;

use crate::judge::Verdict;
use crate::world::{Event, World};

/// How long the cluster has to find together, in virtual milliseconds.
const SETTLE_MILLIS: u64 = 120_000;

impl World {
    /// Ends the faults, waits until all agree, and compares them.
    pub(crate) fn settle(&mut self) -> Verdict {
        self.note(|| "the faults end".to_owned());
        self.faulty = false;
        self.network.heal();
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            machine.paused = false;
            machine.plan.clear();
            if machine.process.is_none() && !machine.removed {
                self.after(10, Event::Start { at });
            }
        }
        let end = self.now + SETTLE_MILLIS;
        let mut quiet = 0;
        while quiet < 3 {
            if end <= self.now {
                return Err(format!("no agreement after the faults: {}", self.states()));
            }
            let until = self.now + 200;
            self.run_until(until)?;
            quiet = if self.agrees() { quiet + 1 } else { 0 };
        }
        self.compare()?;
        for number in 0..self.watchers.len() {
            self.finish_watch(number)?;
        }
        Ok(())
    }

    /// The machines of the members.
    fn members(&self) -> Vec<usize> {
        let members = self.newest_members().map(|(members, _)| members).unwrap_or_default();
        members.iter().filter_map(|id| self.by_id.get(id).copied()).collect()
    }

    fn agrees(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let process = self.machines[leader].process.as_ref().expect("a leader runs");
        let last = process.member.status().last.index;
        let members = self.members();
        members.contains(&leader)
            && members.iter().all(|&at| {
                let process = self.machines[at].process.as_ref();
                process.is_some_and(|process| {
                    let status = process.member.status();
                    status.leader == Some(self.machines[leader].id)
                        && status.last.index == last
                        && process.member.applied().index == last
                        && process.unwritten.is_empty()
                })
            })
    }

    fn states(&self) -> String {
        let state = |at: usize| {
            let machine = &self.machines[at];
            match &machine.process {
                Some(process) => {
                    let (status, batches) = (process.member.status(), process.unwritten.len());
                    format!("{batches} batches unwritten; {status:?}")
                }
                None => format!("{} is down, removed: {}", machine.id, machine.removed),
            }
        };
        (0..self.machines.len()).map(state).collect::<Vec<_>>().join("\n")
    }

    /// All members hold the same, and what the model holds.
    fn compare(&mut self) -> Verdict {
        let rows = self.judge.model.rows();
        let mut first = None;
        for at in self.members() {
            let process = self.process(at);
            // As etcd's, the hash of a store without any live key depends on how far the removal
            // of compacted rows got.
            while process.member.compact_step().map_err(|error| format!("{error:?}"))?
                != mvcc::CompactStep::Idle
            {}
            let reads = process.member.state().reads();
            let hash = reads.keys().hash(0).map_err(|error| format!("{error:?}"))?;
            let all = pb::RangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                ..Default::default()
            };
            let found = reads.range(&all).map_err(|error| format!("{error:?}"))?;
            let found: Vec<_> =
                found.rows.iter().map(|row| row.decode()).map(|row| (row.key, row.value)).collect();
            if found != rows {
                return Err(format!("member {at} holds {found:?} instead of {rows:?}"));
            }
            let leases: Vec<_> = reads.leases().iter().map(|id| reads.lease(*id, true)).collect();
            let facts = format!(
                "{:?} {:?} {:?} {:?} {:?} {leases:?}",
                (hash.hash, hash.revision, hash.compact_revision),
                reads.members(),
                reads.alarms(),
                reads.cluster_version(),
                process.member.state().removed_members(),
            );
            process.backend.check().map_err(|error| format!("member {at}: {error}"))?;
            match &first {
                None => first = Some(facts),
                Some(other) if *other == facts => {}
                Some(other) => return Err(format!("member {at} holds {facts}, not {other}")),
            }
        }
        Ok(())
    }

    /// A watcher gets everything that it has not got.
    fn finish_watch(&mut self, number: usize) -> Verdict {
        let newest = self.judge.model.events.last().map_or(0, |event| event.revision);
        let members = self.members();
        for _ in 0..10_000 {
            if newest < self.watchers[number].next {
                return Ok(());
            }
            // One that was removed may hear nothing any more.
            if !members.contains(&self.watchers[number].at) {
                self.watchers[number].stream = None;
            }
            self.on_watch(number)?;
        }
        let next = self.watchers[number].next;
        Err(format!("a watch waits for {next}, the newest is {newest}"))
    }
}
