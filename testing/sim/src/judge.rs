//! What must hold at every moment, whatever fails.
//!
//! - one leader in a term;
//! - logs with an entry of the same index and term are the same up to there;
//! - nothing is applied that is not committed;
//! - an entry that was applied anywhere is applied at its index everywhere, with the same answer;
//! - no request is applied twice;
//! - answers are those of a plain store that is given the committed requests in order;
//! - users and roles, what they allow, the v2 tree and the members are those of plain models, too;
//! - revisions follow real time: what was answered before a call began is behind it;
//! - a lease lives as long as its owner was told last.

use std::collections::{BTreeMap, BTreeSet};

use base::probe::reached;
use base::{Index, LogPosition, MemberId, Term};
use history::{Answer, Call};
use prost::Message as _;
use proto::{etcdserverpb as pb, raftpb, v2pb};
use raft::{Entry, EntryKind, Persist, RoleKind};
use state::Applied;

use crate::members::Members;
use crate::model::{Model, answer_of, is_second};
use crate::world::World;

/// A promise that was broken, in words.
pub(crate) type Verdict = Result<(), String>;

/// The judge's memory.
#[derive(Debug)]
pub(crate) struct Judge {
    leaders: BTreeMap<Term, MemberId>,
    /// Every entry that was in a log, and the term of the one before, once that is known.
    logged: BTreeMap<(Index, Term), (Entry, Option<Term>)>,
    /// Every entry that was applied anywhere, from index 1 on.
    applied: Vec<Decided>,
    /// Their requests, and where they are.
    requests: BTreeMap<u64, usize>,
    pub(crate) model: Model,
    pub(crate) members: Members,
    /// The newest revision that any client was told.
    pub(crate) told: i64,
    /// The newest entry whose answer anybody was told.
    pub(crate) told_entry: u64,
    /// Until when a lease was promised to live, in true time.
    promised: BTreeMap<i64, u64>,
    /// Leases that their owners wanted to end.
    pub(crate) given_up: BTreeMap<i64, ()>,
    /// When a revoke was first seen in a log.
    revokes: BTreeMap<(Index, Term), (i64, u64)>,
    /// At which revision which lease was revoked.
    revoked: BTreeSet<(i64, i64)>,
    /// The term of each change of the v2 tree.
    second_terms: BTreeMap<u64, Term>,
    /// Changes of the members that were just decided, for the operator.
    pub(crate) changes: Vec<(Index, raftpb::ConfChange)>,
}

/// A committed entry and what it answered.
#[derive(Debug)]
struct Decided {
    entry: Entry,
    answer: Option<Applied>,
}

impl Judge {
    pub(crate) fn new() -> Self {
        Self {
            leaders: BTreeMap::new(),
            logged: BTreeMap::new(),
            applied: Vec::new(),
            requests: BTreeMap::new(),
            model: Model::new(),
            members: Members::new(),
            told: 0,
            told_entry: 0,
            promised: BTreeMap::new(),
            given_up: BTreeMap::new(),
            revokes: BTreeMap::new(),
            revoked: BTreeSet::new(),
            second_terms: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// How many entries were decided.
    pub(crate) fn decided(&self) -> u64 {
        self.applied.len() as u64
    }

    /// What a request was answered, if it was applied anywhere.
    pub(crate) fn answer(&self, request: u64) -> Option<&Applied> {
        self.applied[*self.requests.get(&request)?].answer.as_ref()
    }

    /// Somebody is told what a request was answered: the entry that it is.
    pub(crate) fn on_told(&mut self, request: u64) -> u64 {
        let entry = self.requests.get(&request).map_or(0, |at| *at as u64 + 1);
        self.told_entry = self.told_entry.max(entry);
        entry
    }

    /// Every lease that was revoked, by whomever, and the revision then.
    pub(crate) fn revoked_leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.revoked.iter().copied()
    }

    /// How many terms had a leader.
    pub(crate) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn on_role(&mut self, id: MemberId, role: RoleKind, term: Term) -> Verdict {
        if role != RoleKind::Leader {
            return Ok(());
        }
        let first = *self.leaders.entry(term).or_insert(id);
        if first == id { Ok(()) } else { Err(format!("{first} and {id} lead term {term}")) }
    }

    /// A leader put an entry into its log, of which `applied` is applied and `before` are the
    /// entries behind that: while a change of the members is not applied, there must be no other
    /// one, or two majorities may have nobody in common.
    pub(crate) fn on_proposed(
        id: MemberId,
        entry: &Entry,
        mut before: impl Iterator<Item = EntryKind>,
    ) -> Verdict {
        if entry.kind != EntryKind::Normal && before.any(|kind| kind != EntryKind::Normal) {
            return Err(format!("{id} proposes a second change of the members at {}", entry.index));
        }
        Ok(())
    }

    /// An entry was put into a log, behind one of the term `before`, where that is known. Two logs
    /// with an entry of the same index and term hold the same there, and before it (Raft §5.3).
    pub(crate) fn on_logged(
        &mut self,
        entry: &Entry,
        before: Option<Term>,
        now_millis: u64,
    ) -> Verdict {
        let position = (entry.index, entry.term);
        if let Some((first, known)) = self.logged.get_mut(&position) {
            if first != entry {
                return Err(format!("{entry:?} is logged where {first:?} was"));
            }
            return match (*known, before) {
                (Some(known), Some(before)) if known != before => {
                    let at = entry.position();
                    Err(format!("an entry of {before} is before {at}, elsewhere one of {known}"))
                }
                (Some(_), Some(_)) | (_, None) => Ok(()),
                (None, Some(_)) => {
                    *known = before;
                    Ok(())
                }
            };
        }
        self.logged.insert(position, (entry.clone(), before));
        if entry.kind == EntryKind::Normal
            && !is_second(&entry.data)
            && let Ok(request) = pb::InternalRaftRequest::decode(entry.data.clone())
            && let Some(revoke) = request.lease_revoke
        {
            self.revokes.entry(position).or_insert((revoke.id, now_millis));
        }
        Ok(())
    }

    /// A member applied all up to `applied`, and knows that all up to `commit` is committed.
    pub(crate) fn on_progress(id: MemberId, applied: Index, commit: Index) -> Verdict {
        if applied <= commit {
            return Ok(());
        }
        Err(format!("{id} applied {applied}, and knows of {commit} to be committed"))
    }

    /// A lease was told to live on, from no earlier than `from_millis`.
    pub(crate) fn promise(&mut self, lease: i64, from_millis: u64, ttl_seconds: i64, drift: u64) {
        let ttl_millis = u64::try_from(ttl_seconds).unwrap_or(0) * 1000;
        // The leader's clock may run fast, and the last one's slow.
        let until = from_millis + ttl_millis * 1000 / (1000 + 2 * drift);
        let promised = self.promised.entry(lease).or_default();
        *promised = until.max(*promised);
    }

    /// A client was told that a lease is gone.
    pub(crate) fn on_gone(&mut self, lease: i64, now_millis: u64) -> Verdict {
        let promised = self.promised.get(&lease).copied().unwrap_or(0);
        if now_millis < promised && !self.given_up.contains_key(&lease) {
            return Err(format!("lease {lease} is gone, promised until {promised} ms"));
        }
        Ok(())
    }

    /// A member has applied `entry`; `answers` are what it answered next.
    pub(crate) fn on_applied(
        &mut self,
        id: MemberId,
        entry: &Entry,
        answers: &mut dyn Iterator<Item = (u64, Applied)>,
    ) -> Verdict {
        let index = entry.index;
        let request_id = request_id(entry);
        let answer = if request_id == 0 {
            None
        } else {
            let (answered, answer) =
                answers.next().ok_or_else(|| format!("{id} did not answer {index}"))?;
            if answered != request_id {
                return Err(format!("{id} answered {answered:x} at {index}, not {request_id:x}"));
            }
            Some(answer)
        };
        let at = usize::try_from(index.0 - 1).expect("a simulated log is short");
        if let Some(decided) = self.applied.get(at) {
            if decided.entry != *entry {
                return Err(format!("{id} applied {entry:?} where {:?} was", decided.entry));
            }
            if decided.answer != answer {
                let first = &decided.answer;
                return Err(format!("{id} answered {answer:?} at {index}, others {first:?}"));
            }
            return Ok(());
        }
        if at != self.applied.len() {
            return Err(format!("{id} applied {index}, but nobody the entry before"));
        }
        if request_id != 0 && self.requests.insert(request_id, at).is_some() {
            return Err(format!("request {request_id:x} is applied again at {index}"));
        }
        self.decide(entry, answer.as_ref()).map_err(|what| format!("at {index}: {what}"))?;
        self.applied.push(Decided { entry: entry.clone(), answer });
        Ok(())
    }

    fn decide(&mut self, entry: &Entry, answer: Option<&Applied>) -> Verdict {
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => Ok(()),
            EntryKind::Normal if is_second(&entry.data) => {
                let request =
                    v2pb::Request::decode(entry.data.clone()).map_err(|error| error.to_string())?;
                let answer = answer.ok_or("a request without an answer")?;
                let before = self.model.second.index();
                self.model.apply_second(&request, answer)?;
                self.mark_second(before, entry.term);
                Ok(())
            }
            EntryKind::Normal => {
                let request = pb::InternalRaftRequest::decode(entry.data.clone())
                    .map_err(|error| error.to_string())?;
                let answer = answer.ok_or("a request without an answer")?;
                self.check_revoke(entry, answer)?;
                if let (Some(revoke), Applied::Done(reply)) = (&request.lease_revoke, answer)
                    && let Some(said) = answer_of(reply.clone())
                {
                    self.revoked.insert((said.revision(), revoke.id));
                }
                self.model.apply(entry.index.0, &request, answer)
            }
            EntryKind::ConfChange | EntryKind::ConfChangeV2 => {
                let change = raftpb::ConfChange::decode(entry.data.clone())
                    .map_err(|error| error.to_string())?;
                if self.members.on_change(entry.index, &change, answer)? {
                    self.model.on_membership(&change);
                    self.changes.push((entry.index, change));
                }
                Ok(())
            }
        }
    }

    /// Under whose leadership v2 keys were made and ended.
    fn mark_second(&mut self, before: u64, term: Term) {
        let second = &self.model.second;
        for event in (before + 1..=second.index()).filter_map(|index| second.event(index)) {
            self.second_terms.insert(event.index, term);
            if event.action != "expire" {
                continue;
            }
            reached("sim: a v2 key ends");
            if self.second_terms.get(&event.node.created).is_some_and(|made| *made != term) {
                reached("sim: a v2 key ends under another leader than it was made");
            }
        }
    }

    fn check_revoke(&mut self, entry: &Entry, answer: &Applied) -> Verdict {
        let Some(&(lease, seen)) = self.revokes.get(&(entry.index, entry.term)) else {
            return Ok(());
        };
        let Applied::Done(_) = answer else { return Ok(()) };
        let promised = self.promised.remove(&lease).unwrap_or(0);
        if seen < promised && !self.given_up.contains_key(&lease) {
            return Err(format!(
                "lease {lease} was promised until {promised} ms, its revoke is of {seen} ms"
            ));
        }
        Ok(())
    }

    /// A client read, linearizably or not, and was told `floor` before it asked.
    pub(crate) fn on_read(&mut self, call: &Call, answer: &Answer, floor: i64) -> Verdict {
        let revision = answer.revision();
        if call.is_linearizable() && revision < floor {
            return Err(format!("{call:?} was answered at {revision} after {floor} was told"));
        }
        self.model.check_read(call, answer)?;
        self.told = self.told.max(revision);
        Ok(())
    }

    /// A client was told that its change has `revision`, and `floor` before it asked.
    pub(crate) fn on_changed(&mut self, revision: i64, floor: i64) -> Verdict {
        if revision <= floor {
            return Err(format!("a change at {revision} after {floor} was told"));
        }
        self.told = self.told.max(revision);
        Ok(())
    }
}

impl World {
    /// Looks at the entries that a member is about to put into its log.
    pub(crate) fn judge_batches(&mut self, at: usize, batches: &[Persist]) -> Verdict {
        let mut last: Option<LogPosition> = None;
        for batch in batches {
            last = batch.snapshot.as_ref().map(|meta| meta.position).or(last);
            for entry in &batch.entries {
                let previous = entry.index.previous();
                let before = match last {
                    Some(last) => (last.index == previous).then_some(last.term),
                    None => {
                        let process = self.machines[at].process.as_ref().expect("it answers");
                        process.logged.get(&previous).map(|entry| entry.term)
                    }
                };
                last = Some(entry.position());
                self.judge_entry(entry, before)?;
            }
        }
        Ok(())
    }

    /// Looks at an entry of a log, behind one of the term `before`, if that is known.
    pub(crate) fn judge_entry(&mut self, entry: &Entry, before: Option<Term>) -> Verdict {
        let judged = self.judge.on_logged(entry, before, self.now);
        if judged.is_err() && self.may_lead_again(entry.term) { Ok(()) } else { judged }
    }

    /// Whether the leader of a term may have forgotten it with its disk: then it may win the same
    /// term again, with the votes that it has already, and say something else in it.
    fn may_lead_again(&self, term: Term) -> bool {
        match self.judge.leaders.get(&term).and_then(|id| self.by_id.get(id)) {
            Some(&at) => self.machines[at].damaged,
            None => self.machines.iter().any(|machine| machine.damaged),
        }
    }
}

/// The id that a member answers an entry under; 0 if it does not.
fn request_id(entry: &Entry) -> u64 {
    match entry.kind {
        EntryKind::Normal if is_second(&entry.data) => {
            v2pb::Request::decode(entry.data.clone()).map_or(0, |request| request.id())
        }
        EntryKind::Normal => pb::InternalRaftRequest::decode(entry.data.clone())
            .ok()
            .and_then(|request| request.header)
            .map_or(0, |header| header.id),
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => {
            raftpb::ConfChange::decode(entry.data.clone()).map_or(0, |change| change.id())
        }
    }
}

#[cfg(test)]
mod tests;
