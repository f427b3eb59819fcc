//! What only a leader knows, and where its messages go.
//!
//! The leader's handlers are split by what they are about: `replication` (appends and their
//! answers), `read_index`, `transfer`, `snapshot`.
//! Source: Raft §5.3, §5.4.2; etcd raft: raft.go (`stepLeader`, `becomeLeader`).

use std::collections::BTreeMap;

use base::probe::{mutant, reached};
use base::{Index, MemberId};
use bytes::Bytes;

use crate::log;
use crate::message::{Body, Message};
use crate::progress::{InFlightLimits, Progress};
use crate::quorum::VoteResult;
use crate::raft::ProposeError;
use crate::read_index::ReadQueue;
use crate::role::{Common, Transition};
use crate::trace::{DropReason, Event};
use crate::{Entry, EntryKind};

/// A member that leads its term.
#[derive(Debug)]
pub(crate) struct Leader {
    /// Every other member that receives the log.
    pub(crate) progress: BTreeMap<MemberId, Progress>,
    /// No change of the members is proposed before this is applied: one may be among the entries
    /// up to here.
    pub(crate) pending_change: Index,
    /// Payload of entries proposed and not applied yet; may be less than that, never more.
    pub(crate) uncommitted_bytes: u64,
    /// Whether the commit index rose and not everyone was told.
    pub(crate) has_commit_news: bool,
    pub(crate) heartbeat_elapsed_ticks: u64,
    pub(crate) reads: ReadQueue,
    /// Who shall lead instead; no proposals are taken meanwhile.
    pub(crate) transfer_to: Option<MemberId>,
}

impl Leader {
    pub(crate) fn new(common: &Common) -> Self {
        let last = common.last().index;
        let mut leader = Self {
            progress: BTreeMap::new(),
            // There may be a change among the entries not yet committed. Waiting for all of them
            // is cheaper than looking.
            pending_change: last,
            uncommitted_bytes: 0,
            has_commit_news: false,
            heartbeat_elapsed_ticks: 0,
            reads: ReadQueue::default(),
            transfer_to: None,
        };
        for id in common.members.everyone() {
            if id != common.id() {
                leader.progress.insert(id, Progress::new(last.next(), limits(common)));
            }
        }
        leader
    }

    /// The new leader appends an empty entry: it may not count replicas of an entry from an earlier
    /// term as committed (Raft §5.4.2), and without its own entry it might wait forever.
    pub(crate) fn begin_term(&mut self, common: &mut Common) {
        append(common, vec![Entry::proposed(EntryKind::Normal, Bytes::new())]);
        self.broadcast_append(common);
    }

    /// Handles a message of the own term.
    pub(crate) fn step(&mut self, common: &mut Common, message: Message) -> Transition {
        let kind = message.body.name();
        let from = message.from;
        if let Body::ReadIndex { context } = message.body {
            self.on_read_index(common, from, context);
            return Transition::Stay;
        }
        if !self.progress.contains_key(&from) {
            common.drop_message(from, kind, DropReason::UnknownMember);
            return Transition::Stay;
        }
        match message.body {
            Body::AppendReply(reply) => self.on_append_reply(common, from, reply),
            Body::HeartbeatReply { context } => self.on_heartbeat_reply(common, from, &context),
            Body::TransferLeader => self.start_transfer(common, from),
            // A second leader in one term: it lies, or somebody forgot a vote.
            Body::Append(_) | Body::Heartbeat { .. } | Body::Snapshot(_) => {
                common.drop_message(from, kind, DropReason::Malformed("two leaders in one term"));
            }
            // Late answers to the election, and what only followers do.
            Body::VoteReply { .. }
            | Body::PreVoteReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndexReply { .. } => {}
            Body::Propose(_) | Body::Vote(_) | Body::PreVote(_) | Body::ReadIndex { .. } => {
                unreachable!("{kind} is handled before")
            }
        }
        Transition::Stay
    }

    /// One tick.
    pub(crate) fn tick(&mut self, common: &mut Common) -> Transition {
        common.election_elapsed_ticks += 1;
        self.heartbeat_elapsed_ticks += 1;
        if common.config.election_ticks <= common.election_elapsed_ticks {
            common.election_elapsed_ticks = 0;
            if common.config.check_quorum && !self.hears_quorum(common) {
                return Transition::StepDown;
            }
            for progress in self.progress.values_mut() {
                progress.recent_active = false;
            }
            // Whoever has not taken over by now will not: lead on.
            self.transfer_to = None;
        }
        if common.config.heartbeat_ticks <= self.heartbeat_elapsed_ticks {
            self.heartbeat_elapsed_ticks = 0;
            self.broadcast_heartbeat(common);
        }
        Transition::Stay
    }

    /// Whether a quorum answered since the last time this was asked.
    fn hears_quorum(&self, common: &Common) -> bool {
        let heard = |id| {
            Some(id == common.id() || self.progress.get(&id).is_some_and(|one| one.recent_active))
        };
        common.members.vote_result(heard) == VoteResult::Won
    }

    /// Appends entries and sends them.
    ///
    /// # Errors
    ///
    /// Nothing was appended.
    pub(crate) fn propose(
        &mut self,
        common: &mut Common,
        mut entries: Vec<Entry>,
    ) -> Result<(), ProposeError> {
        if !common.members.contains(common.id()) {
            return Err(ProposeError::NotMember);
        }
        if let Some(to) = self.transfer_to {
            reached("raft: a proposal while leadership is handed over");
            return Err(ProposeError::Transferring { to });
        }
        let bytes: u64 = entries.iter().map(log::payload_bytes).sum();
        let max = common.config.uncommitted_bytes_max;
        // The first one may be as large as it likes, or it could never be taken.
        if 0 < self.uncommitted_bytes
            && 0 < bytes
            && max < self.uncommitted_bytes.saturating_add(bytes)
        {
            let uncommitted_bytes = self.uncommitted_bytes;
            return Err(ProposeError::Overloaded { bytes, uncommitted_bytes, max });
        }
        self.uncommitted_bytes += bytes;
        self.postpone_changes(common, &mut entries);
        append(common, entries);
        self.broadcast_append(common);
        Ok(())
    }

    /// Lets at most one change of the members through; others become empty entries, which tells
    /// the proposer nothing and harms nobody.
    fn postpone_changes(&mut self, common: &mut Common, entries: &mut [Entry]) {
        let mut index = common.last().index;
        for entry in entries {
            index = index.next();
            if entry.kind == EntryKind::Normal {
                continue;
            }
            let is_free =
                self.pending_change <= common.log.applied() || mutant("two-changes-at-once");
            let may_change = entry.kind == EntryKind::ConfChange && is_free;
            if may_change {
                self.pending_change = index;
            } else {
                reached("raft: a second change of the members is postponed");
                *entry = Entry::proposed(EntryKind::Normal, Bytes::new());
                common.trace.note(Event::ChangePostponed { pending: self.pending_change });
            }
        }
    }

    /// Entries with `payload_bytes` were applied.
    pub(crate) fn on_applied(&mut self, payload_bytes: u64) {
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(payload_bytes);
    }

    /// A change of the members is in force.
    pub(crate) fn on_members_changed(&mut self, common: &mut Common) {
        let everyone = common.members.everyone();
        self.progress.retain(|id, _| everyone.contains(id));
        let next = common.last().index.max(Index(1));
        for id in everyone {
            if id != common.id() {
                self.progress.entry(id).or_insert_with(|| {
                    let mut progress = Progress::new(next, limits(common));
                    // A new member gets one election timeout to be heard from, or adding it could
                    // cost the leader its quorum at once.
                    progress.recent_active = true;
                    progress
                });
            }
        }
        if !common.members.contains(common.id()) || common.members.is_learner(common.id()) {
            // It leads on until somebody else does, without counting itself.
            reached("raft: a leader applies its own removal");
            return;
        }
        if !self.advance_commit(common) {
            // Somebody new need not wait for a heartbeat.
            self.send_entries(common);
        }
        if self.transfer_to.is_some_and(|to| !common.members.is_voter(to)) {
            self.transfer_to = None;
        }
        self.confirm_reads(common);
    }
}

/// Appends to the own log, in the own term. It counts for the quorum once it is durable.
fn append(common: &mut Common, entries: Vec<Entry>) {
    let mut index = common.last().index;
    let term = common.term;
    common.log.append(entries.into_iter().map(|entry| {
        index = index.next();
        Entry { term, index, ..entry }
    }));
}

fn limits(common: &Common) -> InFlightLimits {
    InFlightLimits {
        messages: common.config.inflight_messages_max,
        bytes: common.config.inflight_bytes_max,
    }
}
