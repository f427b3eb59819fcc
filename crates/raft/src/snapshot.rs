//! The state instead of the log: what a leader asks its driver for, and what a follower does with
//! it.
//!
//! The state itself travels beside Raft; here are only its position and its configuration.
//! Source: Raft §7; etcd raft: raft.go (`maybeSendSnapshot`, `handleSnapshot`, `restore`).

use base::MemberId;

use crate::leader::Leader;
use crate::membership::Membership;
use crate::message::{AppendReply, Body, SnapshotMeta};
use crate::progress::{Progress, ProgressState};
use crate::role::Common;
use crate::trace::{DropReason, Event};

impl Leader {
    /// The driver has a snapshot for `to`.
    pub(crate) fn send_snapshot(&mut self, common: &mut Common, to: MemberId, meta: SnapshotMeta) {
        let Some(progress) = self.progress.get_mut(&to) else { return };
        // Only what was asked for: the member may have caught up meanwhile.
        if let ProgressState::Snapshot { sent: None } = progress.state {
            progress.snapshot_sent(meta.position.index);
            common.send(to, Body::Snapshot(meta));
        }
    }

    /// The driver knows how sending ended, or that there is nothing to send.
    pub(crate) fn on_snapshot_sent(&mut self, to: MemberId, ok: bool) {
        let Some(progress) = self.progress.get_mut(&to) else { return };
        if let ProgressState::Snapshot { sent } = &mut progress.state {
            if !ok {
                base::probe::reached("raft: a snapshot did not arrive");
                // Nothing arrived: not to be probed behind it.
                *sent = None;
            }
            progress.probe();
            // After success its acknowledgement comes next; after failure there shall be one
            // attempt per heartbeat.
            progress.wait();
        }
    }
}

impl Common {
    /// Asks the driver for a snapshot for `to`, unless `to` is probably down.
    pub(crate) fn want_snapshot(&mut self, to: MemberId, progress: &mut Progress) {
        if progress.recent_active {
            progress.await_snapshot();
            self.snapshot_wanted.push(to);
        }
    }

    /// A snapshot arrived from the leader.
    pub(crate) fn on_snapshot(&mut self, from: MemberId, meta: SnapshotMeta) {
        let index = if self.restore(from, meta) { self.last().index } else { self.log.commit() };
        self.hold(from, Body::AppendReply(AppendReply { index, rejected: None }));
    }

    /// Lets the snapshot take the place of the log; whether it did.
    fn restore(&mut self, from: MemberId, meta: SnapshotMeta) -> bool {
        let position = meta.position;
        if position.index <= self.log.commit() {
            base::probe::reached("raft: a snapshot arrives that is no news");
            return false;
        }
        let members = Membership::new(meta.conf_state.clone());
        if !members.contains(self.id()) {
            let reason = DropReason::Malformed("snapshot without the receiver among the members");
            self.drop_message(from, "MsgSnap", reason);
            return false;
        }
        if self.log.has_change_between(self.log.applied(), self.log.last().index) {
            base::probe::reached("raft: a snapshot arrives during a change of the members");
        }
        if self.log.matches(position) {
            base::probe::reached("raft: a snapshot arrives of what the log holds");
            // The log holds all of it; only the news that it is committed was missing.
            self.log.commit_to(position.index);
            return false;
        }
        if !base::probe::mutant("snapshot-without-its-members") {
            self.members = members;
        }
        self.log.restore(meta);
        self.trace.note(Event::Restored(position));
        true
    }
}
