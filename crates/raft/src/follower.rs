//! What a follower does with what arrives.
//!
//! Source: Raft §5.2, §5.3; etcd raft: raft.go (`stepFollower`, `handleAppendEntries`).

use base::probe::reached;
use base::{Index, MemberId};
use bytes::Bytes;

use crate::Forgotten;
use crate::log::Mismatch;
use crate::message::{Append, AppendReply, Body, Message};
use crate::read_index;
use crate::ready::RoleKind;
use crate::role::{Common, Transition};
use crate::trace::{DropReason, Event};

/// A member that follows, or waits for someone to follow.
#[derive(Debug)]
pub(crate) struct Follower {
    /// Who leads this term, as far as known.
    pub(crate) leader: Option<MemberId>,
}

impl Follower {
    /// Handles a message of the own term.
    pub(crate) fn step(&mut self, common: &mut Common, message: Message) -> Transition {
        let kind = message.body.name();
        let Message { from, to: _, term: _, body } = message;
        if body.is_from_leader() {
            common.election_elapsed_ticks = 0;
            if self.leader != Some(from) {
                self.leader = Some(from);
                common.trace.note(Event::Became {
                    role: RoleKind::Follower,
                    term: common.term,
                    leader: self.leader,
                });
            }
        }
        match body {
            Body::Append(append) => on_append(common, from, append),
            Body::Heartbeat { commit, context } => on_heartbeat(common, from, commit, context),
            Body::Snapshot(meta) => common.on_snapshot(from, meta),
            Body::TimeoutNow => {
                reached("raft: a member takes over because the leader asks it to");
                return Transition::TakeOver;
            }
            Body::TransferLeader | Body::ReadIndex { .. } => self.forward(common, from, body),
            Body::ReadIndexReply { index, context } => {
                read_index::on_reply(common, from, index, &context);
            }
            // Answers to a leadership or candidacy this member no longer holds.
            Body::AppendReply(_)
            | Body::HeartbeatReply { .. }
            | Body::VoteReply { .. }
            | Body::PreVoteReply { .. } => {}
            Body::Propose(_) | Body::Vote(_) | Body::PreVote(_) => {
                unreachable!("{kind} is handled alike in every role")
            }
        }
        Transition::Stay
    }

    /// Passes a message on to the leader in the name of `from`.
    pub(crate) fn forward(&self, common: &mut Common, from: MemberId, body: Body) {
        match self.leader {
            Some(to) => {
                let term = if body.is_termless() { base::Term(0) } else { common.term };
                common.send_at_once(Message { from, to, term, body });
            }
            None => common.drop_message(from, body.name(), DropReason::NotTaken),
        }
    }
}

fn on_append(common: &mut Common, from: MemberId, append: Append) {
    let Append { previous, entries, commit } = append;
    let known = common.log.commit();
    if previous.index < known {
        reached("raft: an append repeats what is committed");
        // Old news: everything up to the commit index matches any leader's log.
        common.hold(from, Body::AppendReply(AppendReply { index: known, rejected: None }));
        return;
    }
    let reply = match common.log.append_behind(previous, entries, commit) {
        Ok(last) => AppendReply { index: last, rejected: None },
        Err(Mismatch::Committed(index)) => {
            let reason = DropReason::ConflictsWithCommitted { index, commit: known };
            common.drop_message(from, "MsgApp", reason);
            return;
        }
        Err(Mismatch::Previous) => {
            // Wherever the logs match, the term is not above that of the leader's entry: all of
            // the own later terms can be skipped in one step.
            let end = previous.index.min(common.last().index);
            let hint = common.log.last_match_candidate(end, previous.term);
            AppendReply { index: previous.index, rejected: Some(hint) }
        }
    };
    common.hold(from, Body::AppendReply(reply));
}

fn on_heartbeat(common: &mut Common, from: MemberId, commit: Index, context: Bytes) {
    let last = common.last().index;
    if commit <= last {
        common.log.commit_to(commit);
    } else {
        // The leader only names what this member has acknowledged. It must not be taken for the
        // own last entry instead, which nothing says to be the leader's.
        let reason = DropReason::CommitBeyondLog { commit, last };
        common.drop_message(from, "MsgHeartbeat", reason);
        reached("raft: a member has lost what it acknowledged");
        common.forgotten = Some(Forgotten { leader: from, acknowledged: commit, last });
        return;
    }
    common.send(from, Body::HeartbeatReply { context });
}
