//! Sending the log, and counting who has it.
//!
//! Source: Raft §5.3, §5.4.2; etcd raft: raft.go (`maybeSendAppend`, `stepLeader`).

use base::probe::{mutant, reached};
use base::{Index, MemberId};
use bytes::Bytes;

use crate::leader::Leader;
use crate::log;
use crate::message::{Append, AppendReply, Body};
use crate::progress::{Progress, ProgressState};
use crate::role::Common;
use crate::trace::DropReason;

/// Whether an append is worth sending that holds no entry, only the commit index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfEmpty {
    Send,
    Skip,
}

impl Leader {
    /// Sends everyone what they lack, or at least the commit index.
    pub(crate) fn broadcast_append(&mut self, common: &mut Common) {
        for (&to, progress) in &mut self.progress {
            send_append(common, to, progress, IfEmpty::Send);
        }
    }

    /// Sends everyone the entries they lack.
    pub(crate) fn send_entries(&mut self, common: &mut Common) {
        for (&to, progress) in &mut self.progress {
            send_append(common, to, progress, IfEmpty::Skip);
        }
    }

    /// Sends `to` what it lacks, or at least the commit index.
    pub(crate) fn send_append(&mut self, common: &mut Common, to: MemberId) {
        if let Some(progress) = self.progress.get_mut(&to) {
            send_append(common, to, progress, IfEmpty::Send);
        }
    }

    /// Tells everyone that the leader lives, and asks whether they still follow it if a read waits
    /// for that.
    pub(crate) fn broadcast_heartbeat(&mut self, common: &mut Common) {
        let context = self.reads.begin_round();
        for (&to, progress) in &mut self.progress {
            // What is beyond the match may be another log's.
            let commit = if mutant("heartbeat-commits-beyond-match") {
                common.log.commit()
            } else {
                common.log.commit().min(progress.matched)
            };
            common.send(to, Body::Heartbeat { commit, context: context.clone() });
            progress.commit_sent(commit);
        }
    }

    /// Commits what a quorum stores, to be told to everyone, and takes on the reads that waited for
    /// the first commit of the term. Whether there was anything to commit.
    pub(crate) fn advance_commit(&mut self, common: &mut Common) -> bool {
        let stored = common.members.stored(|id| {
            if id == common.id() {
                // The own copy counts when it is durable, like everyone's.
                let counts_unsynced = mutant("own-copy-counts-unsynced");
                Some(if counts_unsynced { common.last().index } else { common.log.stable() })
            } else {
                self.progress.get(&id).map(|progress| progress.matched)
            }
        });
        // Only entries of the own term are committed by counting (Raft §5.4.2); what stands before
        // them is committed with them.
        if stored <= common.log.commit() {
            return false;
        }
        if common.log.term(stored) != Some(common.term) && !mutant("commits-old-term-by-counting") {
            reached("raft: an entry of an old term is on a quorum and not committed by that");
            return false;
        }
        common.log.commit_to(stored);
        self.admit_early_reads(common);
        // Told with the next `Ready`: entries proposed until then tell it as well.
        self.has_commit_news = true;
        true
    }

    /// Tells everyone of the commit index who was not told with entries meanwhile.
    pub(crate) fn tell_commit(&mut self, common: &mut Common) {
        if !std::mem::take(&mut self.has_commit_news) {
            return;
        }
        let commit = common.log.commit();
        for (&to, progress) in &mut self.progress {
            if progress.has_commit_news(commit) {
                send_append(common, to, progress, IfEmpty::Send);
            }
        }
    }

    pub(crate) fn on_append_reply(
        &mut self,
        common: &mut Common,
        from: MemberId,
        reply: AppendReply,
    ) {
        if common.last().index < reply.index {
            let reason = DropReason::AckBeyondLog { index: reply.index };
            common.drop_message(from, "MsgAppResp", reason);
            return;
        }
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.recent_active = true;
        let Some(hint) = reply.rejected else {
            self.on_accepted(common, from, reply.index);
            return;
        };
        // Where the leader's term is above the one that the follower has at the hint, the logs
        // cannot match, since terms only rise: skip those entries too.
        let hint = if hint.term.0 == 0 {
            hint.index
        } else {
            common.log.last_match_candidate(hint.index, hint.term).index
        };
        if progress.reject(reply.index, hint) {
            reached("raft: a follower rejects an append and is probed further back");
            send_append(common, from, progress, IfEmpty::Send);
        }
    }

    fn on_accepted(&mut self, common: &mut Common, from: MemberId, index: Index) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        if !progress.acknowledge(index) {
            // An answer without news still answers a probe: the logs do match there. But it may be
            // an old one, so only the next probe follows: were everything behind it sent each time,
            // and overtaken by what was sent before, a network that changes the order would be
            // flooded.
            if progress.matched == index && progress.is_probe() {
                progress.stop_waiting();
                send_append(common, from, progress, IfEmpty::Skip);
            }
            return;
        }
        match progress.state {
            ProgressState::Probe { .. } => progress.replicate(),
            // However it got there, the log reaches on from here.
            ProgressState::Snapshot { .. } if common.log.first() <= progress.matched.next() => {
                reached("raft: a member that needed a snapshot goes on with entries");
                progress.replicate();
                common.snapshot_wanted.retain(|&wanted| wanted != from);
            }
            ProgressState::Snapshot { .. } => {}
            ProgressState::Replicate { .. } => progress.free(index),
        }
        let needs_commit = progress.needs_commit(common.log.commit());
        if !self.advance_commit(common) && needs_commit {
            // Not strictly needed, as heartbeats tell it too; but sooner.
            self.send_append(common, from);
        }
        let Some(progress) = self.progress.get_mut(&from) else { return };
        // The answer may have made room for several messages.
        while send_append(common, from, progress, IfEmpty::Skip) {}
        if self.transfer_to == Some(from) && progress.matched == common.last().index {
            common.send(from, Body::TimeoutNow);
        }
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        common: &mut Common,
        from: MemberId,
        context: &Bytes,
    ) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.recent_active = true;
        progress.stop_waiting();
        // Messages may have got lost: even an empty append finds that out.
        if progress.matched < common.last().index || progress.is_probe() {
            send_append(common, from, progress, IfEmpty::Send);
        }
        if self.reads.acknowledge(from, context) {
            self.confirm_reads(common);
        }
    }

    /// The transport could not reach `peer`: what is in flight is probably lost.
    pub(crate) fn on_unreachable(&mut self, peer: MemberId) {
        if let Some(progress) = self.progress.get_mut(&peer)
            && let ProgressState::Replicate { .. } = progress.state
        {
            progress.probe();
        }
    }
}

/// Sends one append, if `to` may get one now and there is something in it. Asks the driver for a
/// snapshot instead if the entries needed are gone.
fn send_append(
    common: &mut Common,
    to: MemberId,
    progress: &mut Progress,
    if_empty: IfEmpty,
) -> bool {
    if progress.is_paused() {
        reached("raft: an append waits because as much is in flight as may be");
        return false;
    }
    let previous = progress.next.previous();
    let Some(term) = common.log.term(previous) else {
        common.want_snapshot(to, progress);
        return false;
    };
    let entries = if progress.takes_entries() {
        common.log.entries_from(progress.next, common.config.message_bytes_max)
    } else {
        Vec::new()
    };
    if entries.is_empty() && if_empty == IfEmpty::Skip {
        return false;
    }
    let commit = common.log.commit();
    let bytes = entries.iter().map(log::payload_bytes).sum();
    progress.sent(entries.last().map(|entry| entry.index), bytes, commit);
    let previous = base::LogPosition { index: previous, term };
    common.send(to, Body::Append(Append { previous, entries, commit }));
    true
}
