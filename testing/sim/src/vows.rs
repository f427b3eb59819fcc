//! What a member vouched for before others, and must know again after every crash that its disk
//! survives: the term that it spoke in, whom it voted for, and the entries that it acknowledged
//! (Raft §5.2, §5.3: "persistent state", before it answers).
//!
//! Consensus may forgive a member that forgets, since others remember; so a loss would be seen only
//! in the rare life in which it takes the last copy. Here the first one that forgets is found.

use std::collections::BTreeMap;

use base::{Index, LogPosition, MemberId, Term};
use raft::{Body, Entry, EntryKind, Message, Persist, Status};

use crate::judge::Verdict;
use crate::machine::Process;
use crate::world::World;

/// One member's word.
#[derive(Debug, Default)]
pub(crate) struct Vows {
    term: Term,
    /// The vote it gave last, to itself or another.
    vote: Option<(Term, MemberId)>,
    /// The last entry that it acknowledged, unless another leader's took its place.
    acknowledged: LogPosition,
    /// Up to where it told the leader of each term that it has its log.
    told: BTreeMap<(Term, MemberId), Index>,
    /// Up to where its log was searched for changes of the members, and the last one that it knew
    /// to be committed: whoever is removed by it goes, and votes no more.
    searched: Index,
    change: Index,
}

impl Vows {
    /// It sends this.
    pub(crate) fn on_sent(&mut self, message: &Message, process: &Process) {
        match message.body {
            Body::Vote(_) => self.on_vote(message.term, message.from),
            Body::VoteReply { granted: true } => self.on_vote(message.term, message.to),
            Body::Append(_) => self.term = self.term.max(message.term),
            Body::AppendReply(reply) if reply.rejected.is_none() => {
                self.on_acknowledged(message.term, message.to, reply.index);
                // What was acknowledged may already be about to be replaced.
                let is_replaced = |batch: &Persist| {
                    let first = batch.entries.first();
                    batch.snapshot.is_some() || first.is_some_and(|one| one.index <= reply.index)
                };
                if !process.log.waiting().any(is_replaced)
                    && let Some(entry) = process.logged.get(&reply.index)
                    && self.acknowledged.index < reply.index
                {
                    self.acknowledged = LogPosition { index: entry.index, term: entry.term };
                }
            }
            Body::Propose(_)
            | Body::AppendReply(_)
            | Body::VoteReply { .. }
            | Body::PreVote(_)
            | Body::PreVoteReply { .. }
            | Body::Snapshot(_)
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {}
        }
    }

    fn on_vote(&mut self, term: Term, candidate: MemberId) {
        self.term = self.term.max(term);
        self.vote = Some((term, candidate));
    }

    fn on_acknowledged(&mut self, term: Term, leader: MemberId, index: Index) {
        self.term = self.term.max(term);
        let told = self.told.entry((term, leader)).or_default();
        *told = index.max(*told);
    }

    /// Up to where it told the leader of a term that it has its log; 0 if never.
    pub(crate) fn told(&self, term: Term, leader: MemberId) -> Index {
        self.told.get(&(term, leader)).copied().unwrap_or_default()
    }

    /// It counts itself among those who have its log as far as `status` says.
    pub(crate) fn on_durable(&mut self, status: &Status, log: &BTreeMap<Index, Entry>) {
        let last = log.get(&status.persisted).map_or_else(LogPosition::default, Entry::position);
        if self.acknowledged.index < last.index {
            self.acknowledged = last;
        }
    }

    /// It has written that its log is committed up to there.
    pub(crate) fn on_commit_written(&mut self, commit: Index, log: &BTreeMap<Index, Entry>) {
        if self.searched < commit {
            let mut newer = log.range(self.searched.next()..=commit);
            let change = newer.rfind(|(_, entry)| entry.kind != EntryKind::Normal);
            self.change = change.map_or(self.change, |(index, _)| *index);
            self.searched = commit;
        }
    }

    /// Its log is to change; `log` is what it was.
    pub(crate) fn on_persist(&mut self, batches: &[Persist], log: &BTreeMap<Index, Entry>) {
        for batch in batches {
            let first = batch.entries.first().map(|entry| entry.index);
            let from = match &batch.snapshot {
                Some(meta) => {
                    Some(first.map_or(meta.position.index, |at| at.min(meta.position.index)))
                }
                None => first,
            };
            let Some(from) = from.filter(|from| *from <= self.acknowledged.index) else { continue };
            let kept = from.0.checked_sub(1).and_then(|index| log.get(&Index(index)));
            self.acknowledged = kept.map_or_else(LogPosition::default, |entry| entry.position());
        }
    }

    /// It starts again, and this is what it knows.
    pub(crate) fn check(&self, status: &Status, log: &BTreeMap<Index, Entry>) -> Verdict {
        let id = status.id;
        if status.term < self.term {
            return Err(format!("{id} starts in {}, and spoke in {}", status.term, self.term));
        }
        if let Some((term, candidate)) = self.vote
            && term == status.term
            && status.vote != candidate
        {
            return Err(format!(
                "{id} voted for {candidate} in {term}, and knows of {}",
                status.vote
            ));
        }
        if status.commit < self.change {
            let (commit, change) = (status.commit, self.change);
            return Err(format!("{id} knew of a change at {change}, and starts at {commit}"));
        }
        let found = log.get(&self.acknowledged.index).map(Entry::position);
        let is_there = match found {
            Some(position) => position == self.acknowledged,
            None => self.acknowledged.index <= status.compacted,
        };
        if is_there {
            return Ok(());
        }
        Err(format!(
            "{id} acknowledged {}, and has {found:?}, to {}",
            self.acknowledged, status.last
        ))
    }
}

impl World {
    pub(crate) fn hear_vows(&mut self, at: usize, status: &Status) {
        let machine = &mut self.machines[at];
        if let Some(process) = &machine.process {
            machine.vows.on_durable(status, &process.logged);
        }
    }

    pub(crate) fn hear_commit(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if let Some(process) = &machine.process {
            machine.vows.on_commit_written(process.commit_written, &process.logged);
        }
    }

    /// A member with a disk that does not lie keeps its word.
    pub(crate) fn check_vows(&mut self, at: usize) -> Verdict {
        let machine = &self.machines[at];
        match &machine.process {
            Some(process) if !machine.damaged => {
                machine.vows.check(&process.member.status(), &process.logged)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::RoleKind;

    use super::*;

    fn entry(index: u64, term: u64, kind: EntryKind) -> (Index, Entry) {
        let index = Index(index);
        (index, Entry { kind, term: Term(term), index, data: Bytes::new() })
    }

    /// Three entries of term 2, the second one a change of the members.
    fn log() -> BTreeMap<Index, Entry> {
        let kinds = [EntryKind::Normal, EntryKind::ConfChange, EntryKind::Normal];
        (1..).zip(kinds).map(|(index, kind)| entry(index, 2, kind)).collect()
    }

    fn status() -> Status {
        Status {
            id: MemberId(1),
            term: Term(3),
            vote: MemberId(2),
            commit: Index(2),
            applied: Index(0),
            last: LogPosition { index: Index(3), term: Term(2) },
            persisted: Index(3),
            compacted: Index(0),
            role: RoleKind::Follower,
            leader: None,
            transfer_to: None,
        }
    }

    /// In term 3 it voted for 2, all of its log counted, and it knew that the change was committed.
    fn vows() -> Vows {
        let mut vows = Vows::default();
        vows.on_vote(Term(3), MemberId(2));
        vows.on_durable(&status(), &log());
        vows.on_commit_written(Index(2), &log());
        vows
    }

    #[test]
    fn a_member_that_forgets_is_found() {
        let with = |last: Option<(Index, Entry)>| {
            let mut log = log();
            log.remove(&Index(3));
            log.extend(last);
            log
        };
        let table = [
            (status(), log(), None),
            (Status { term: Term(2), ..status() }, log(), Some("spoke in 3")),
            (Status { vote: MemberId(4), ..status() }, log(), Some("voted for 2 in 3")),
            (Status { vote: MemberId::NONE, ..status() }, log(), Some("voted for 2 in 3")),
            // In a later term it may have voted for another one.
            (Status { term: Term(4), vote: MemberId(4), ..status() }, log(), None),
            (Status { commit: Index(1), ..status() }, log(), Some("knew of a change at 2")),
            (status(), with(None), Some("acknowledged")),
            (status(), with(Some(entry(3, 1, EntryKind::Normal))), Some("acknowledged")),
            (status(), BTreeMap::new(), Some("acknowledged")),
            // What the log forgot, the state has.
            (Status { compacted: Index(3), ..status() }, BTreeMap::new(), None),
        ];
        for (status, log, words) in table {
            match (vows().check(&status, &log), words) {
                (Ok(()), None) => {}
                (Err(what), Some(words)) => {
                    assert!(what.contains(words), "{what:?}, not {words:?}")
                }
                (judged, _) => panic!("{judged:?} instead of {words:?}, {status:?}"),
            }
        }
    }

    #[test]
    fn what_a_leader_was_told_is_told_for_ever_and_to_nobody_else() {
        let mut vows = Vows::default();
        vows.on_acknowledged(Term(3), MemberId(2), Index(7));
        // An older message may leave later.
        vows.on_acknowledged(Term(3), MemberId(2), Index(5));
        vows.on_acknowledged(Term(4), MemberId(1), Index(6));
        assert_eq!(vows.told(Term(3), MemberId(2)), Index(7));
        assert_eq!(vows.told(Term(4), MemberId(1)), Index(6));
        assert_eq!(vows.told(Term(3), MemberId(1)), Index(0));
    }
}
