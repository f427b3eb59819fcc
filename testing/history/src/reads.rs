//! Everything that changed nothing: reads, transactions that took a branch without effect,
//! refusals; and that nobody went back in time.
//!
//! An answer without a change belongs to the state at its header's revision, which must not be
//! older than what anybody knew before the question. That a read is not newer than its return needs
//! no rule of its own: the change it saw would then have been asked for too late.

use std::collections::BTreeMap;

use crate::chain::{Author, Chain, is_of_kind};
use crate::model::agrees;
use crate::record::{Answer, Call, History, Operation, Outcome};
use crate::show;
use crate::time::Knowledge;
use crate::violation::{Rule, Violation};

const COMPACTED: &str = "required revision has been compacted";
const FUTURE: &str = "required revision is a future revision";

pub(crate) fn judge(history: &History, knowledge: &Knowledge, chain: &Chain) -> Vec<Violation> {
    let mut violations = Vec::new();
    let compactions = Compactions::of(history);
    for (index, operation) in history.operations.iter().enumerate() {
        let found = match &operation.outcome {
            Outcome::Answered(answer) => {
                let order = order(index, operation, answer, knowledge, chain);
                order
                    .or_else(|| body(index, operation, answer, chain))
                    .or_else(|| behind_compaction(index, operation, &compactions))
            }
            Outcome::Refused(text) => refusal(index, operation, text, knowledge, &compactions),
            Outcome::Unknown(_) => too_early(index, operation, knowledge, chain),
        };
        violations.extend(found);
    }
    violations.extend(sessions(history));
    violations.extend(clusters(history));
    violations
}

/// Whether an operation made a revision.
fn made(index: usize, revision: i64, chain: &Chain) -> bool {
    chain.authors.get(&revision) == Some(&Author::Operation(index))
}

/// Real time: who came later does not come earlier in the order.
fn order(
    index: usize,
    operation: &Operation,
    answer: &Answer,
    knowledge: &Knowledge,
    chain: &Chain,
) -> Option<Violation> {
    let seen = knowledge.before(operation.invoked)?;
    let revision = answer.revision();
    let changed = answer.changed_keys() == Some(true) || made(index, revision, chain);
    let (rule, text) = if changed && revision <= seen.revision {
        let text = format!(
            "a change got revision {revision}, but revision {} was known before it was asked for",
            seen.revision
        );
        (Rule::ChangeInThePast, text)
    } else if operation.call.is_linearizable() && revision < seen.revision {
        let text = format!(
            "an answer of revision {revision}, but revision {} was known before the question",
            seen.revision
        );
        (Rule::StaleRead, text)
    } else {
        return None;
    };
    let violation = Violation::new(rule, text).operations([index]).witness(seen.witness);
    Some(violation.operations(chain.operations([seen.revision])))
}

/// An unanswered request that explains a revision which was seen before it was made.
fn too_early(
    index: usize,
    operation: &Operation,
    knowledge: &Knowledge,
    chain: &Chain,
) -> Option<Violation> {
    let seen = knowledge.before(operation.invoked)?;
    let early = chain.authors.iter().find(|(revision, author)| {
        **author == Author::Operation(index) && **revision <= seen.revision
    });
    let (revision, _) = early?;
    let text = format!("revision {revision} was known before its request was made");
    let violation = Violation::new(Rule::ChangeInThePast, text).operations([index]);
    Some(violation.witness(seen.witness))
}

/// The body is the model's at the header's revision.
fn body(index: usize, operation: &Operation, answer: &Answer, chain: &Chain) -> Option<Violation> {
    let revision = answer.revision();
    if !is_of_kind(&operation.call, answer) {
        let text = "an answer of another kind than the request".to_owned();
        return Some(Violation::new(Rule::WrongAnswer, text).operations([index]));
    }
    let is_known = revision <= chain.store.revision() && !made(index, revision, chain);
    if !is_known || answer.changed_keys() == Some(true) {
        return None;
    }
    let modelled = match operation.call {
        Call::Range(_) | Call::Put(_) | Call::Delete(_) | Call::Txn(_) | Call::Revoke(_) => true,
        Call::Compact(_) | Call::Grant(_) | Call::KeepAlive(_) | Call::TimeToLive(_) => false,
    };
    if !modelled {
        return None;
    }
    let executed = match chain.store.execute(&operation.call, revision) {
        Ok(executed) => executed,
        Err(refusal) => {
            let text = format!("answered, but at revision {revision}: {refusal}");
            return Some(Violation::new(Rule::WrongAnswer, text).operations([index]));
        }
    };
    if executed.events.is_empty() && agrees(&operation.call, &executed.answer, answer) {
        return None;
    }
    let text = format!("at revision {revision} the answer is: {}", show::answer(&executed.answer));
    let violation = Violation::new(Rule::WrongAnswer, text).operations([index]);
    Some(violation.operations(chain.operations(difference(&executed.answer, answer))))
}

/// The revisions of the pairs in which two answers to a read differ.
fn difference(expected: &Answer, got: &Answer) -> Vec<i64> {
    let (Answer::Range(expected), Answer::Range(got)) = (expected, got) else {
        return Vec::new();
    };
    let only = |left: &[proto::mvccpb::KeyValue], right: &[proto::mvccpb::KeyValue]| {
        let pairs = left.iter().filter(|pair| !right.contains(pair));
        pairs.map(|pair| pair.mod_revision).take(3).collect::<Vec<_>>()
    };
    [only(&expected.kvs, &got.kvs), only(&got.kvs, &expected.kvs)].concat()
}

/// The compactions of a history.
#[derive(Debug)]
pub(crate) struct Compactions {
    /// Revision, begin, end of the acknowledged ones, index; in order of their begin.
    all: Vec<(i64, u64, Option<u64>, usize)>,
}

impl Compactions {
    pub(crate) fn of(history: &History) -> Self {
        let mut all = Vec::new();
        for (index, operation) in history.operations.iter().enumerate() {
            let Call::Compact(request) = &operation.call else { continue };
            let end = match &operation.outcome {
                Outcome::Answered(_) => Some(operation.returned),
                Outcome::Unknown(_) => None,
                Outcome::Refused(_) => continue,
            };
            all.push((request.revision, operation.invoked, end, index));
        }
        all.sort_unstable_by_key(|(_, begin, _, _)| *begin);
        Self { all }
    }

    /// Whether a compaction that began before `time` may have reached `revision`.
    pub(crate) fn may_reach(&self, revision: i64, time: u64) -> bool {
        self.all.iter().any(|(reached, begin, _, _)| revision <= *reached && *begin < time)
    }

    /// A compaction to at least `revision` that was over before `time`.
    fn surely_reached(&self, revision: i64, time: u64) -> Option<usize> {
        let over = self
            .all
            .iter()
            .find(|(reached, _, end, _)| revision <= *reached && end.is_some_and(|end| end < time));
        over.map(|(_, _, _, index)| *index)
    }
}

/// A linearizable read of a revision that everybody had been told is gone.
fn behind_compaction(
    index: usize,
    operation: &Operation,
    compactions: &Compactions,
) -> Option<Violation> {
    let revision = match &operation.call {
        Call::Range(request) if request.revision > 0 && !request.serializable => request.revision,
        Call::Range(_)
        | Call::Put(_)
        | Call::Delete(_)
        | Call::Txn(_)
        | Call::Compact(_)
        | Call::Grant(_)
        | Call::Revoke(_)
        | Call::KeepAlive(_)
        | Call::TimeToLive(_) => return None,
    };
    let compaction = compactions.surely_reached(revision + 1, operation.invoked)?;
    let text = format!("revision {revision} was read after it had been compacted");
    let violation = Violation::new(Rule::ReadBehindCompaction, text);
    Some(violation.operations([compaction, index]))
}

/// Refusals that say something about revisions must be true.
fn refusal(
    index: usize,
    operation: &Operation,
    text: &str,
    knowledge: &Knowledge,
    compactions: &Compactions,
) -> Option<Violation> {
    let (revision, compacted) = match &operation.call {
        Call::Range(request) => (request.revision, request.revision + 1),
        Call::Compact(request) => (request.revision, request.revision),
        Call::Put(_)
        | Call::Delete(_)
        | Call::Txn(_)
        | Call::Grant(_)
        | Call::Revoke(_)
        | Call::KeepAlive(_)
        | Call::TimeToLive(_) => return None,
    };
    if text.contains(COMPACTED) && !compactions.may_reach(compacted, operation.returned) {
        let text = format!("revision {revision} is said to be compacted, which nobody asked for");
        return Some(Violation::new(Rule::WrongRefusal, text).operations([index]));
    }
    let seen = knowledge.before(operation.invoked)?;
    if text.contains(FUTURE) && operation.call.is_linearizable() && revision <= seen.revision {
        let text = format!("revision {revision} is said to be in the future, but was known");
        let violation = Violation::new(Rule::WrongRefusal, text).operations([index]);
        return Some(violation.witness(seen.witness));
    }
    None
}

/// Serializable reads of a client at one member never go back within a session.
fn sessions(history: &History) -> Vec<Violation> {
    let mut indices: Vec<usize> = (0..history.operations.len()).collect();
    indices.sort_by_key(|index| history.operations[*index].invoked);
    let mut newest: BTreeMap<(u64, u64, u64), (i64, u64, usize)> = BTreeMap::new();
    let mut violations = Vec::new();
    for index in indices {
        let operation = &history.operations[index];
        let Some(answer) = operation.answer() else { continue };
        if matches!(operation.call, Call::KeepAlive(_) | Call::TimeToLive(_)) {
            continue;
        }
        let session = (operation.client, operation.member, operation.session);
        let revision = answer.revision();
        match newest.get(&session) {
            Some((before, returned, other))
                if revision < *before && *returned < operation.invoked =>
            {
                let text = format!("a session went from revision {before} back to {revision}");
                let violation = Violation::new(Rule::SessionWentBack, text);
                violations.push(violation.operations([*other, index]));
            }
            Some((before, _, _)) if revision < *before => {}
            Some(_) | None => {
                newest.insert(session, (revision, operation.returned, index));
            }
        }
    }
    violations
}

/// All answers come from one cluster.
fn clusters(history: &History) -> Option<Violation> {
    let mut first: Option<(u64, usize)> = None;
    for (index, operation) in history.operations.iter().enumerate() {
        let Some(header) = operation.answer().and_then(Answer::header) else { continue };
        if header.cluster_id == 0 {
            continue;
        }
        let (cluster, other) = *first.get_or_insert((header.cluster_id, index));
        if cluster != header.cluster_id {
            let text = format!("answers of clusters {cluster:x} and {:x}", header.cluster_id);
            let violation = Violation::new(Rule::ForeignCluster, text);
            return Some(violation.operations([other, index]));
        }
    }
    None
}
