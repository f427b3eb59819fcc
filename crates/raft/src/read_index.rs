//! Linearizable reads without a log entry.
//!
//! A leader that hears from a quorum after a read arrived was still leader when it arrived, so its
//! commit index then is new enough. One round of heartbeats confirms every read that waits when it
//! begins; the heartbeat carries how many that are, counted from the start of the leadership.
//!
//! Reads are not kept across a change of leader, and not at all where nobody leads: whoever waits
//! asks again after a while, as etcd's members do.
//! Source: Raft §8, thesis §6.4; etcd raft: read_only.go.

use std::collections::{BTreeMap, VecDeque};

use base::probe::{mutant, reached};
use base::{Index, MemberId};
use bytes::Bytes;

use crate::leader::Leader;
use crate::message::Body;
use crate::ready::ReadReady;
use crate::role::Common;
use crate::trace::{DropReason, Event};

/// Reads of a leader that are not confirmed.
#[derive(Debug, Default)]
pub(crate) struct ReadQueue {
    /// Before the first commit of the term, the leader does not know what is committed.
    early: Vec<Asker>,
    /// In the order of arrival, with the commit index then.
    waiting: VecDeque<(Asker, Index)>,
    /// How many were confirmed in this leadership; the first of `waiting` is the next.
    confirmed: u64,
    /// Up to where the newest round of heartbeats asks.
    asked: u64,
    /// Up to where each member has answered.
    answered: BTreeMap<MemberId, u64>,
}

/// Who gets the answer.
#[derive(Clone, Debug)]
enum Asker {
    Own { context: u64 },
    Other { id: MemberId, context: Bytes },
}

/// Reads waiting on one leader. More are dropped, and asked for again by those who wait.
const READS_MAX: usize = 65_536;

impl ReadQueue {
    /// Starts a round and returns the heartbeats' context; empty if nothing waits.
    pub(crate) fn begin_round(&mut self) -> Bytes {
        if self.waiting.is_empty() {
            return Bytes::new();
        }
        self.asked = self.end();
        Bytes::copy_from_slice(&self.asked.to_le_bytes())
    }

    /// Notes an answer; whether it is one to a round.
    pub(crate) fn acknowledge(&mut self, from: MemberId, context: &Bytes) -> bool {
        let Ok(context) = <[u8; 8]>::try_from(&context[..]) else { return false };
        // Nobody can answer what was not asked.
        let position = u64::from_le_bytes(context).min(self.asked);
        let answered = self.answered.entry(from).or_default();
        *answered = position.max(*answered);
        true
    }

    /// Whether a read waits that no round asks for.
    pub(crate) fn needs_round(&self) -> bool {
        self.asked < self.end()
    }

    fn end(&self) -> u64 {
        self.confirmed + u64::try_from(self.waiting.len()).expect("a length fits into 64 bits")
    }

    fn is_full(&self) -> bool {
        READS_MAX <= self.early.len() + self.waiting.len()
    }
}

impl Leader {
    /// A read of this member.
    pub(crate) fn read(&mut self, common: &mut Common, context: u64) {
        if self.reads.is_full() {
            common.trace.note(Event::ReadDropped { context });
            return;
        }
        self.take_on(common, Asker::Own { context });
    }

    /// A read of another member.
    pub(crate) fn on_read_index(&mut self, common: &mut Common, id: MemberId, context: Bytes) {
        if self.reads.is_full() || !common.members.contains(id) {
            common.drop_message(id, "MsgReadIndex", DropReason::NotTaken);
            return;
        }
        self.take_on(common, Asker::Other { id, context });
    }

    fn take_on(&mut self, common: &mut Common, asker: Asker) {
        let knows_commit =
            common.log.has_committed_in(common.term) || mutant("reads-before-own-term-commits");
        if !knows_commit {
            reached("raft: a read waits for the first commit of the term");
            self.reads.early.push(asker);
        } else if common.members.is_single_voter(common.id()) || mutant("reads-without-quorum") {
            answer(common, asker, common.log.commit());
        } else {
            // The round starts with the next `Ready`, so that one round serves all reads of a turn.
            self.reads.waiting.push_back((asker, common.log.commit()));
        }
    }

    /// The leader has committed in its term, so early reads are early no more.
    pub(crate) fn admit_early_reads(&mut self, common: &mut Common) {
        for asker in std::mem::take(&mut self.reads.early) {
            self.take_on(common, asker);
        }
    }

    /// Answers the reads that a quorum has confirmed.
    pub(crate) fn confirm_reads(&mut self, common: &mut Common) {
        let own = common.id();
        let confirmed = common.members.reached(|id| {
            if id == own { Some(self.reads.end()) } else { self.reads.answered.get(&id).copied() }
        });
        while self.reads.confirmed < confirmed
            && let Some((asker, index)) = self.reads.waiting.pop_front()
        {
            self.reads.confirmed += 1;
            // Where the quorum has become the leader alone, nobody needs to be asked any more.
            self.reads.asked = self.reads.asked.max(self.reads.confirmed);
            reached("raft: a read is confirmed by a quorum");
            answer(common, asker, index);
        }
    }
}

/// The leader has answered the read of this follower.
pub(crate) fn on_reply(common: &mut Common, from: MemberId, index: Index, context: &Bytes) {
    match <[u8; 8]>::try_from(&context[..]) {
        Ok(context) => {
            common.reads.push(ReadReady { context: u64::from_be_bytes(context), index });
        }
        Err(_) => {
            let reason = DropReason::Malformed("context of another length");
            common.drop_message(from, "MsgReadIndexResp", reason);
        }
    }
}

/// A read's context as it travels.
pub(crate) fn encode(context: u64) -> Bytes {
    Bytes::copy_from_slice(&context.to_be_bytes())
}

fn answer(common: &mut Common, asker: Asker, index: Index) {
    match asker {
        Asker::Own { context } => common.reads.push(ReadReady { context, index }),
        Asker::Other { id, context } => common.send(id, Body::ReadIndexReply { index, context }),
    }
}
