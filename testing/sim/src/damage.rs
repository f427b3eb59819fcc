//! Disks that decay, lie, or come back as they were: what a member cannot be blamed for, as long as
//! it finds out.
//!
//! Such a disk may stop its member for good, which an operator then replaces; so it happens to one
//! member at a time, and only while the others can do without it. What must never happen is that
//! damage is taken for data: clients and the other members are judged as always.
//!
//! Not here: writes to the log that are lost without a trace, since nothing on the disk tells that
//! log from a shorter one, and older disks whose log others relied on. No member can notice those
//! alone; consensus assumes that what a disk acknowledged is there.

use base::MemberId;
use base::probe::reached;
use proto::raftpb;
use vfs::fault::Lie;
use vfs::memory::MemoryDir;

use crate::judge::Verdict;
use crate::machine::Machine;
use crate::world::World;

/// Endings of names of files that a disk may lie about: the database, its checksums, or both.
const LIED_ABOUT: [&str; 3] = ["db", ".sum", ""];

impl World {
    /// Whether the cluster can do without a member's disk. One at a time, and only while the rest
    /// of the voters is a quorum that runs: more is a disaster that nothing survives.
    fn can_do_without(&mut self, at: usize) -> bool {
        let id = self.machines[at].id;
        let Some(leader) = self.leader() else { return false };
        let members = self.process(leader).member.state().members();
        let voters = members.iter().filter(|member| !member.is_learner).count();
        let all_run = members.iter().all(|member| {
            self.by_id.get(&member.id).is_some_and(|&other| self.machines[other].is_running())
        });
        let is_member = members.iter().any(|member| member.id == id);
        let doubtful = self.machines.iter().any(Machine::is_doubtful);
        // Another one's removal may be on its way, and must leave a quorum too.
        let changing = self.config.faults.contains(&crate::config::Fault::Membership);
        let voters_min = if changing { 5 } else { 3 };
        // A member without others may fail, but must not be wrong.
        let alone = members.len() == 1 && !changing;
        is_member && all_run && !doubtful && (alone || voters_min <= voters)
    }

    /// Whether the voters cannot spare this one: a disk of another was damaged or is lost, and with
    /// one removal after the other that one would be half of a quorum (seed 100947590).
    pub(crate) fn relies_on(&self, id: MemberId) -> bool {
        self.machines.iter().any(|machine| machine.id != id && machine.is_doubtful())
    }

    /// A member is gone with its disk; the others remove it.
    pub(crate) fn lose_disk(&mut self, at: usize) -> Verdict {
        let Some(leader) = self.leader().filter(|&leader| leader != at) else { return Ok(()) };
        if !self.can_do_without(at) {
            return Ok(());
        }
        reached("sim: a member loses its disk");
        let id = self.machines[at].id;
        self.end(at, true);
        self.machines[at].lost = true;
        let kind = raftpb::ConfChangeType::ConfChangeRemoveNode;
        self.propose_change(leader, kind, None, id)
    }

    /// A bit changes where it lies.
    pub(crate) fn flip_bit(&mut self, at: usize) {
        if !self.can_do_without(at) {
            return;
        }
        let of_log = self.random.one_in(2);
        let mut files = self.machines[at].disk.files();
        files.retain(|(path, _)| path.starts_with("member/wal") == of_log);
        if files.is_empty() {
            return;
        }
        let (path, len) = files[self.random.index(files.len())].clone();
        let (offset, bit) = (self.random.below(len), self.random.below(8));
        self.note(|| format!("bit {bit} of byte {offset} of {} changes", path.display()));
        self.machines[at].damaged = true;
        self.machines[at].disk.flip(&path, offset, 1 << bit);
        if of_log {
            reached("sim: a bit of the log changes");
        } else {
            reached("sim: a bit of the database or its checksums changes");
        }
    }

    /// A disk says that it wrote what it did not write, or wrote elsewhere.
    pub(crate) fn lie_of_disk(&mut self, at: usize) {
        if !self.can_do_without(at) {
            return;
        }
        let name_end = self.random.choose(&LIED_ABOUT);
        let nth = 1 + self.random.below(20);
        let lie = match self.random.one_in(2) {
            true => Lie::Lost,
            false => Lie::Misdirected(self.random.next()),
        };
        match lie {
            Lie::Lost => reached("sim: a disk loses a write"),
            Lie::Misdirected(_) => reached("sim: a disk writes to another place"),
        }
        self.note(|| format!("{lie:?}: write {nth} to {name_end:?}"));
        self.machines[at].damaged = true;
        self.machines[at].plan.lie_outside_log(name_end, nth, lie);
    }

    /// A member starts on a disk as it was some time ago, if nobody relies on what that forgot: all
    /// other voters follow the leader of its term and have all of its log.
    pub(crate) fn roll_back_disk(&mut self, at: usize) {
        let Some(older) = self.machines[at].older.take() else {
            // An uncommitted end may be replaced later, and would then be taken for what replaced it.
            let is_settled = self.machines[at].process.as_ref().is_some_and(|process| {
                let status = process.member.status();
                status.last.index == status.commit
            });
            if is_settled {
                self.machines[at].older = Some(self.machines[at].disk.crash_losing_all());
            }
            return;
        };
        if !self.machines[at].is_running() || !self.is_relied_on_by_nobody(at) {
            self.machines[at].older = Some(older);
            return;
        }
        reached("sim: a member starts on an older disk");
        self.end(at, true);
        self.machines[at].disk = older;
        self.machines[at].damaged = true;
        let pause = self.random.between(10, 2000);
        self.after(pause, crate::world::Event::Start { at });
    }

    /// A member starts on an empty disk, under the id that it had, if nobody relies on what it
    /// forgot. Its leader knows better, and it goes no further.
    pub(crate) fn wipe_disk(&mut self, at: usize) {
        if !self.machines[at].is_running() || !self.is_relied_on_by_nobody(at) {
            return;
        }
        reached("sim: a member starts on an empty disk");
        self.end(at, true);
        let machine = &mut self.machines[at];
        (machine.disk, machine.first, machine.damaged) = (MemoryDir::new(), None, true);
        let pause = self.random.between(10, 2000);
        self.after(pause, crate::world::Event::Start { at });
    }

    fn is_relied_on_by_nobody(&mut self, at: usize) -> bool {
        let Some(leader) = self.leader().filter(|&leader| leader != at) else { return false };
        if !self.can_do_without(at) {
            return false;
        }
        let leads = self.machines[leader].id;
        let mine = self.process(at).member.status();
        let members = self.process(leader).member.state().members();
        members.iter().filter(|member| !member.is_learner).all(|member| {
            let Some(&other) = self.by_id.get(&member.id) else { return false };
            let process = self.process(other);
            let status = process.member.status();
            // The same entry, or what is behind it; and durable, a snapshot that is installed too.
            let found = process.logged.get(&mine.last.index).map(|entry| entry.term);
            let has_mine = found == Some(mine.last.term)
                || found.is_none() && mine.last.index <= process.member.applied().index;
            other == at
                || (status.term == mine.term
                    && status.leader == Some(leads)
                    && has_mine
                    && process.log.waiting().len() == 0
                    && mine.last.index <= status.persisted
                    && mine.last.index <= status.last.index)
        })
    }

    /// A member whose disk was damaged does not go on: its operator gives it up.
    pub(crate) fn give_up_machine(&mut self, at: usize, what: &str) {
        let id = self.machines[at].id;
        reached("sim: damage stops a member");
        self.note(|| format!("{id} is given up: {what}"));
        self.end(at, true);
        self.machines[at].lost = true;
        let left = self.machines.iter().filter(|machine| !machine.lost && !machine.removed);
        if left.count() == 0 {
            reached("sim: damage stops the only member");
            self.over = true;
        }
    }
}
