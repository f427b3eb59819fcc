//! Reach markers of what only the simulator sees: which faults met whom, and when.

use base::MemberId;
use base::probe::reached;
use raft::RoleKind;

use crate::config::Fault;
use crate::world::World;

impl World {
    fn role(&self, at: usize) -> Option<RoleKind> {
        let process = self.machines[at].process.as_ref()?;
        Some(process.member.status().role)
    }

    fn is_learner(&self, at: usize) -> bool {
        let id = self.machines[at].id;
        self.machines[at].process.as_ref().is_some_and(|process| {
            process.member.state().members().iter().any(|one| one.id == id && one.is_learner)
        })
    }

    /// Whether the disk of a machine answers nothing now.
    pub(crate) fn is_hanging(&self, at: usize) -> bool {
        self.now < self.machines[at].hangs_until
    }

    /// A fault is about to happen to a machine.
    pub(crate) fn mark_fault(&self, fault: Fault, at: usize) {
        let leads = self.role(at) == Some(RoleKind::Leader);
        let follows = self.role(at).is_some() && !leads;
        let votes = matches!(self.role(at), Some(RoleKind::Candidate | RoleKind::PreCandidate));
        match fault {
            Fault::Kill if leads => reached("sim: the leader is killed"),
            Fault::Kill if votes => reached("sim: a candidate is killed"),
            Fault::Kill if self.is_learner(at) => reached("sim: a learner is killed"),
            Fault::Kill if follows => reached("sim: a follower is killed"),
            Fault::PowerCut if leads => reached("sim: the leader loses power"),
            Fault::PowerCut if votes => reached("sim: a candidate loses power"),
            Fault::PowerCut if self.is_learner(at) => reached("sim: a learner loses power"),
            Fault::PowerCut if follows => reached("sim: a follower loses power"),
            Fault::PowerCutAll if 1 < self.machines.len() => {
                reached("sim: all members lose power at once");
            }
            Fault::PowerCutAll => reached("sim: the only member loses power"),
            Fault::Pause if leads => reached("sim: the leader stands still"),
            Fault::Pause if follows => reached("sim: a follower stands still"),
            Fault::Isolate if leads => reached("sim: the leader is cut off"),
            Fault::Isolate if follows => reached("sim: a follower is cut off"),
            Fault::OneWay if leads => reached("sim: the leader is heard by one less"),
            Fault::OneWay => reached("sim: a link works in one direction"),
            Fault::ClockJump if leads => reached("sim: the leader's clock jumps"),
            Fault::ClockJump => reached("sim: a clock jumps"),
            Fault::Bridge => reached("sim: two members do not hear each other"),
            Fault::SlowLink => reached("sim: a link is slow"),
            Fault::Burst if leads => reached("sim: an impatient client asks the leader"),
            Fault::Split => reached("sim: the cluster falls into two parts"),
            Fault::Heal => reached("sim: links come back"),
            Fault::DiskFull if leads => reached("sim: the leader's disk is full"),
            Fault::DiskFull if follows => reached("sim: a follower's disk is full"),
            Fault::DiskHang if leads => reached("sim: the leader's disk hangs"),
            Fault::DiskHang if follows => reached("sim: a follower's disk hangs"),
            Fault::DiskSlow if leads => reached("sim: the leader's disk is slow"),
            Fault::Transfer if leads => reached("sim: the leader is asked to lead"),
            Fault::Transfer => reached("sim: another member is asked to lead"),
            Fault::ReadError => reached("sim: a device fails while something is read"),
            Fault::Kill
            | Fault::PowerCut
            | Fault::PowerCutAtWrite
            | Fault::Pause
            | Fault::Isolate
            | Fault::DiskFull
            | Fault::DiskError
            | Fault::DiskHang
            | Fault::DiskSlow
            | Fault::DiskLoss
            | Fault::Defragment
            | Fault::Membership
            | Fault::Failpoint
            | Fault::BitFlip
            | Fault::DiskLie
            | Fault::OlderDisk
            | Fault::Reset
            | Fault::Burst
            | Fault::Usurp
            | Fault::Doze
            | Fault::Ambush
            | Fault::WipedDisk
            | Fault::Save
            | Fault::Alarm
            | Fault::Update
            | Fault::Compact => {}
        }
    }

    /// A process ends because of its disk; `name` is met if that is because of the power.
    pub(crate) fn mark_stop(&self, at: usize, name: &'static str) {
        if self.machines[at].plan.is_stopped() {
            reached(name);
        }
    }

    /// A process that stood still goes on.
    pub(crate) fn mark_resumed(&self, at: usize) {
        if self.role(at) == Some(RoleKind::Leader) {
            reached("sim: a leader goes on after standing still");
            if self.leader() != Some(at) {
                reached("sim: a leader goes on while another one leads");
            }
        }
    }

    /// A member knows another leader.
    pub(crate) fn mark_leader(&self, at: usize) {
        if self.role(at) != Some(RoleKind::Leader) {
            return;
        }
        let leads = |&other: &usize| other != at && self.role(other) == Some(RoleKind::Leader);
        if (0..self.machines.len()).any(|other| leads(&other)) {
            reached("sim: two members lead, each its term");
        }
        if self.accounts.is_some()
            && let Some(process) = &self.machines[at].process
            && process.member.state().reads().auth_enabled()
        {
            reached("sim: a leader is elected while auth is on");
        }
        match self.machines.len() {
            1 => reached("sim: a cluster of one has a leader"),
            2 => reached("sim: a cluster of two has a leader"),
            3 | 4 => reached("sim: a cluster of three or four has a leader"),
            _ => reached("sim: a larger cluster has a leader"),
        }
    }

    /// A snapshot took the place of a member's state.
    pub(crate) fn mark_restored(&self, at: usize) {
        if self.is_learner(at) {
            reached("sim: a learner is restored from a snapshot");
        } else {
            reached("sim: a voter is restored from a snapshot");
        }
        if self.watchers.iter().any(|watcher| watcher.at == at && watcher.stream.is_some()) {
            reached("sim: a member with watchers is restored from a snapshot");
        }
        if self.clients.iter().any(|client| client.at == at && client.call.is_some()) {
            reached("sim: a member that owes answers is restored from a snapshot");
        }
        if self.second.as_ref().is_some_and(|second| second.waits_at(at)) {
            reached("sim: a member where v2 clients wait is restored from a snapshot");
        }
    }

    /// What a member knows of users moved on; `restored` if by a snapshot.
    pub(crate) fn mark_users(&mut self, at: usize, restored: bool) {
        if self.accounts.is_none() {
            return;
        }
        let process = self.machines[at].process.as_mut().expect("it was just stepped");
        let now = process.member.state().reads().auth().version();
        let before = std::mem::replace(&mut process.users, now);
        match (restored, before, now) {
            (true, (true, _), (false, _)) => reached("sim: auth is disabled by a snapshot"),
            (true, (false, _), (true, _)) => reached("sim: auth is enabled by a snapshot"),
            (true, before, now) if before != now => {
                reached("sim: users and roles come with a snapshot");
            }
            (true | false, _, _) => {}
        }
    }

    /// A member was removed.
    pub(crate) fn mark_removed(&self, id: MemberId) {
        let Some(&at) = self.by_id.get(&id) else { return };
        match self.role(at) {
            Some(RoleKind::Leader) => reached("sim: the leader is removed"),
            Some(_) => reached("sim: a member is removed"),
            None => reached("sim: a member that is down is removed"),
        }
    }
}
