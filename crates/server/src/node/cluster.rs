//! What the node loop does because there are other members: messages, snapshots, news of who they
//! are.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base::{LogPosition, MemberId};
use member::{Input, Outputs};
use raft::{Body, Message, Persist, PersistToken, RoleKind};
use state::Received;
use storage::Arrived;

use super::{Node, NodeError, REMOVED_PAUSE};
use crate::config::GoDuration;
use crate::node_queue::{Rare, Standings};
use crate::peers::copies::Copied;
use crate::peers::versions::Release;

impl Node {
    /// Takes what comes rarely.
    pub(super) fn on_news(&mut self, news: Rare, out: &mut Outputs) -> Result<(), NodeError> {
        match news {
            Rare::Forget(ticket) => {
                self.waiters.remove(&ticket);
                self.step(Input::Forget(vec![ticket]), out)
            }
            Rare::Standings(reply) => {
                let consensus = self.member.consensus();
                let voters = consensus.conf_state().voters.clone();
                let peers = consensus.peers().collect();
                let _asker_is_gone = reply.send(Standings { voters, peers });
                Ok(())
            }
            Rare::LearnerReady(id, reply) => {
                let _asker_is_gone = reply.send(self.member.learner_ready(id));
                Ok(())
            }
            Rare::ReceiveSnapshot(message, arrived, reply) => {
                self.on_snapshot(message, arrived, out)?;
                let _sender_is_gone = reply.send(());
                Ok(())
            }
            Rare::Unreachable(peer) => self.step(Input::Unreachable(peer), out),
            Rare::Undelivered(proposals) => {
                self.undelivered.keep(proposals);
                self.propose_undelivered(out)
            }
            Rare::Copied(to, copied) => self.on_copied(to, copied, out),
            Rare::SnapshotSent(to, ok) => self.step(Input::SnapshotSent(to, ok), out),
            Rare::Removed => {
                self.on_removed();
                Ok(())
            }
            Rare::Advance(ticks) => (0..ticks).try_for_each(|_| self.step(Input::Tick, out)),
            Rare::Durable(position) => self.on_durable(position, out),
            Rare::DiskFull => {
                self.room.database_full = true;
                self.on_no_room(out)
            }
        }
    }

    /// A snapshot of the leader arrived; its database lies beside ours, whole and durable.
    fn on_snapshot(
        &mut self,
        message: Message,
        arrived: Arrived,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let Body::Snapshot(meta) = &message.body else {
            unreachable!("a snapshot's message is {}", message.body.name())
        };
        let index = meta.position.index;
        let older = self.received.insert(index, arrived);
        assert!(older.is_none(), "snapshot {index} is received while one of that index is kept");
        let asked = out.persist.len();
        self.step(Input::Receive(vec![message]), out)?;
        let is_wanted = |persist: &Persist| {
            persist.snapshot.as_ref().is_some_and(|wanted| wanted.position.index == index)
        };
        let wanted = out.persist[asked..].iter().any(is_wanted);
        if !wanted && let Some(Arrived { received, turn: _turn }) = self.received.remove(&index) {
            tracing::info!(
                index = index.0,
                "a snapshot of the leader was of no use; it is removed"
            );
            discard(*received);
        }
        Ok(())
    }

    /// Proposes again what never reached a leader that is none any more, for those who still wait.
    fn propose_undelivered(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        let leader = self.member.status().leader;
        let waits = |ticket| self.waiters.contains_key(&ticket);
        for input in self.undelivered.take_due(leader, waits) {
            self.step(input, out)?;
        }
        Ok(())
    }

    /// A copy of the state for a member is there, or cannot be had.
    fn on_copied(
        &mut self,
        to: MemberId,
        copied: Option<Box<Copied>>,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let Some(copied) = copied else {
            return self.step(Input::SnapshotSent(to, false), out);
        };
        let (position, conf_state) = (copied.position(), copied.conf_state());
        self.copies.insert(to, copied);
        self.step(Input::SendSnapshot { to, position, conf_state }, out)?;
        if !out.snapshots.iter().any(|message| message.to == to) {
            // It caught up meanwhile, or another member leads.
            self.copies.remove(&to);
        }
        Ok(())
    }

    /// This member was removed: it ends by itself.
    fn on_removed(&mut self) {
        if self.ends_at.is_none() {
            tracing::warn!(
                error = "the member has been permanently removed from the cluster",
                "server error"
            );
            tracing::warn!("data-dir used by this member must be removed");
            self.ends_at = Some(Instant::now() + REMOVED_PAUSE);
        }
    }

    /// Gives the network what must not wait for this member's disk.
    pub(super) fn send(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        self.peers.send(std::mem::take(&mut out.send));
        for message in out.snapshots.drain(..) {
            let to = message.to;
            if let Some(copied) = self.copies.remove(&to) {
                self.peers.send_snapshot(message, *copied);
            }
        }
        for to in std::mem::take(&mut out.snapshot_wanted) {
            if !self.peers.copy_for(to, &self.backend) {
                self.step(Input::SnapshotSent(to, false), out)?;
            }
        }
        Ok(())
    }

    /// Looks at what changed of the cluster.
    pub(super) fn take_news(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        let restored = out.restored.take();
        if let Some(position) = restored {
            self.compaction_due = Some(Instant::now());
            let conf_state = self.member.consensus().conf_state();
            let state = self.member.state();
            let released = self.log.on_restored(position, conf_state, state);
            released.map_err(NodeError::Snapshot)?;
            self.reports
                .compacted
                .send_replace(self.member.state().reads().keys().compact_revision());
        }
        if std::mem::take(&mut out.removed) {
            self.on_removed();
        }
        let changed = std::mem::take(&mut out.members_changed);
        if changed {
            let reads = self.member.state().reads();
            if let Some(cluster) = reads.cluster_version()
                && Release::parse(&cluster).is_some_and(|version| Release::own() < version)
            {
                return Err(NodeError::TooOld { own: base::version::COMPATIBLE, cluster });
            }
            let members = self.member.state().members();
            // Whoever joins knows more before its log tells it anything.
            if !members.is_empty() {
                self.peers.set_members(&members);
            }
        }
        let leader_changed = std::mem::take(&mut out.leader_changed);
        if leader_changed {
            self.log_role();
            self.log_leader();
            self.propose_undelivered(out)?;
        }
        if leader_changed || changed {
            self.reports.status.news.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Puts a received snapshot, whose mark is durable, in the place of the state.
    pub(super) fn restore(
        &mut self,
        token: PersistToken,
        position: LogPosition,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let arrived = self.received.remove(&position.index);
        // The next one may come only once this one has its place.
        let Arrived { received, turn: _turn } =
            arrived.expect("consensus stores what was received");
        let before = self.member.applied();
        tracing::info!(
            "current-applied-index" = before.index.0,
            "incoming-leader-snapshot-index" = position.index.0,
            "incoming-leader-snapshot-term" = position.term.0,
            "applying snapshot"
        );
        let in_progress = &self.reports.metrics.disk.snapshot_apply_in_progress;
        in_progress.set(1);
        let now_millis = self.now_millis();
        let stepped = self.member.step(now_millis, Input::Restore(token, received), out);
        in_progress.set(0);
        stepped.map_err(NodeError::Apply)?;
        tracing::info!(
            "current-applied-index" = before.index.0,
            "incoming-leader-snapshot-index" = position.index.0,
            "incoming-leader-snapshot-term" = position.term.0,
            "applied snapshot"
        );
        Ok(())
    }

    /// Lets memory forget of the log what nobody is likely to need.
    pub(super) fn forget_log(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        match self.log.forgettable(self.member.consensus()) {
            Some(index) => self.step(Input::Compact(index), out),
            None => Ok(()),
        }
    }

    /// Forgets callers that could not say that they went away.
    pub(super) fn forget_gone(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        let gone = self.gone.take(|ticket| self.waiters.contains_key(&ticket));
        if gone.is_empty() {
            return Ok(());
        }
        for ticket in &gone {
            self.waiters.remove(ticket);
        }
        self.step(Input::Forget(gone), out)
    }

    /// Tells of heartbeats that leave late, `late` behind their time, in the words of etcd's log.
    /// Source: etcd server/etcdserver/raft.go, pkg/contention.
    pub(super) fn look_after_heartbeats(&self, late: Duration) {
        if late <= self.tick {
            return;
        }
        // Only a leader has any.
        for (to, _) in self.member.consensus().peers() {
            self.reports.metrics.server.heartbeats_late.inc();
            tracing::warn!(
                %to,
                "heartbeat-interval" = %GoDuration::from(self.tick),
                "expected-duration" = %GoDuration::from(2 * self.tick),
                "exceeded-duration" = %GoDuration::from(late - self.tick),
                "leader failed to send out heartbeat on time; took too long, leader is overloaded \
                 likely from slow disk"
            );
        }
    }

    /// Says what part this member plays, in the words of etcd's log. What it was only for a moment
    /// is left out.
    pub(super) fn log_role(&mut self) {
        let status = self.member.status();
        let (id, term, role) = (status.id, status.term, status.role);
        if self.told_role.replace((role, term)) == Some((role, term)) {
            return;
        }
        match role {
            RoleKind::Follower => tracing::info!("{id} became follower at term {term}"),
            RoleKind::PreCandidate => {
                tracing::info!("{id} is starting a new election at term {term}");
                tracing::info!("{id} became pre-candidate at term {term}");
            }
            RoleKind::Candidate => tracing::info!("{id} became candidate at term {term}"),
            RoleKind::Leader => tracing::info!("{id} became leader at term {term}"),
        }
    }

    /// Says who leads, in the words of etcd's log.
    fn log_leader(&mut self) {
        let status = self.member.status();
        let (id, term) = (status.id, status.term);
        let before = MemberId(self.reports.status.leader.load(Ordering::Relaxed));
        match status.leader {
            None if before.is_none() => {}
            None => tracing::info!("raft.node: {id} lost leader {before} at term {term}"),
            Some(leader) if before.is_none() => {
                tracing::info!("raft.node: {id} elected leader {leader} at term {term}");
            }
            Some(leader) => tracing::info!(
                "raft.node: {id} changed leader from {before} to {leader} at term {term}"
            ),
        }
    }
}

/// Removes a snapshot that is not wanted; what cannot be removed now is at the next start.
fn discard(received: Received) {
    if let Err(error) = received.discard() {
        tracing::warn!(error = %error, "cannot remove a snapshot that was received");
    }
}
