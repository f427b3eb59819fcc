//! The order of all changes: one replay by revision.
//!
//! An acknowledged change has its place already. A revision without one must be explained by an
//! unanswered request or the end of a lease; where several would do, they are tried in turn and
//! the replay goes back when a later revision, or a read, contradicts. What watches saw narrows the
//! choice to one in almost every case.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use crate::model::{Store, agrees};
use crate::record::{Answer, Call, History};
use crate::show;
use crate::time::Knowledge;
use crate::violation::{Rule, Violation};

/// Returns to an earlier choice before the judge gives up; a history without watches and with many
/// unanswered requests could take for ever.
const RETURNS_MAX: usize = 300_000;

/// Who made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// A request, by its index.
    Operation(usize),
    /// The end of a lease that nobody asked for.
    Expiry(i64),
}

/// The resolved order.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Every revision that could be explained.
    pub(crate) store: Store,
    /// Who made each.
    pub(crate) authors: BTreeMap<i64, Author>,
}

impl Chain {
    /// The operations that made these revisions.
    pub(crate) fn operations(&self, revisions: impl IntoIterator<Item = i64>) -> Vec<usize> {
        let authors = revisions.into_iter().filter_map(|revision| self.authors.get(&revision));
        authors
            .filter_map(|author| match author {
                Author::Operation(index) => Some(*index),
                Author::Expiry(_) => None,
            })
            .collect()
    }
}

/// What all watches together saw of one revision.
#[derive(Debug, Default)]
struct Sighting {
    /// By key: whether it is a put, the pair, and the watch.
    events: BTreeMap<Bytes, (Event, usize)>,
    /// A watch of all keys delivered it, so there is nothing else.
    complete: bool,
}

/// One revision of the replay.
#[derive(Debug)]
struct Step {
    author: Author,
    /// Explanations that were not tried yet, the next one last.
    others: Vec<Author>,
}

struct Replay<'a> {
    history: &'a History,
    knowledge: &'a Knowledge,
    sightings: BTreeMap<i64, Sighting>,
    acknowledged: BTreeMap<i64, usize>,
    /// Answered ends of leases by the revision of their answer: they may have made it.
    revokes: BTreeMap<i64, Vec<usize>>,
    unknown: Vec<usize>,
    /// Answers without a change by revision: they tell guesses apart.
    reads: BTreeMap<i64, Vec<usize>>,
    /// Pairs that watches told as those before an event, by their revision: they do, too.
    previous: BTreeMap<i64, Vec<KeyValue>>,
    trusts_reads: bool,
    used: BTreeSet<usize>,
    /// Some revision might have been explained in another way.
    ambiguous: bool,
    store: Store,
    steps: Vec<Step>,
    /// The first contradiction at the deepest revision that any choice led to.
    deepest: Option<(i64, Violation)>,
}

/// Replays a history. With violations, the chain ends before the first.
pub(crate) fn resolve(history: &History, knowledge: &Knowledge) -> (Chain, Vec<Violation>) {
    let mut violations = Vec::new();
    let (acknowledged, revokes) = by_revision(history, &mut violations);
    let sightings = sightings(history, &mut violations);
    let unknown = (0..history.operations.len()).filter(|index| {
        let operation = &history.operations[*index];
        operation.is_unknown() && operation.call.may_change_keys()
    });
    let mut replay = Replay {
        history,
        knowledge,
        sightings,
        acknowledged,
        revokes,
        unknown: unknown.collect(),
        reads: reads(history),
        previous: previous(history),
        trusts_reads: true,
        used: BTreeSet::new(),
        ambiguous: false,
        store: Store::new(history.revision, &history.pairs),
        steps: Vec::new(),
        deepest: None,
    };
    let finals = history.finals.iter().map(|member| member.revision);
    let newest = finals.chain(knowledge.newest()).max().unwrap_or(history.revision);
    if replay.run(newest).is_some() {
        // Perhaps only a read is wrong, and the others tell whose fault it is.
        replay.begin_anew();
        violations.extend(replay.run(newest));
    }
    let authors = replay.steps.iter().map(|step| step.author);
    let authors = (history.revision + 1..).zip(authors).collect();
    (Chain { store: replay.store, authors }, violations)
}

/// The answers that changed nothing and that the model knows, by revision.
fn reads(history: &History) -> BTreeMap<i64, Vec<usize>> {
    let mut reads: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let modelled = matches!(operation.call, Call::Range(_) | Call::Delete(_) | Call::Txn(_));
        if let Some(answer) = operation.answer().filter(|answer| {
            modelled && answer.changed_keys() == Some(false) && is_of_kind(&operation.call, answer)
        }) {
            reads.entry(answer.revision()).or_default().push(index);
        }
    }
    reads
}

/// The pairs before events, by revision.
fn previous(history: &History) -> BTreeMap<i64, Vec<KeyValue>> {
    let mut previous: BTreeMap<i64, Vec<KeyValue>> = BTreeMap::new();
    let observations = history.watches.iter().flat_map(|watch| &watch.observations);
    for event in observations.flat_map(|seen| &seen.response.events) {
        if let Some(pair) = &event.prev_kv {
            let pairs = previous.entry(pair.mod_revision).or_default();
            if !pairs.contains(pair) {
                pairs.push(pair.clone());
            }
        }
    }
    previous
}

type ByRevision = (BTreeMap<i64, usize>, BTreeMap<i64, Vec<usize>>);

fn by_revision(history: &History, violations: &mut Vec<Violation>) -> ByRevision {
    let mut acknowledged = BTreeMap::new();
    let mut revokes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let Some(answer) = operation.answer() else { continue };
        let revision = answer.revision();
        match answer.changed_keys() {
            Some(false) => {}
            None => revokes.entry(revision).or_default().push(index),
            Some(true) => {
                if let Some(other) = acknowledged.insert(revision, index) {
                    let text = format!("two changes were acknowledged with revision {revision}");
                    let violation = Violation::new(Rule::RevisionTwice, text);
                    violations.push(violation.operations([other, index]));
                }
            }
        }
    }
    (acknowledged, revokes)
}

fn sightings(history: &History, violations: &mut Vec<Violation>) -> BTreeMap<i64, Sighting> {
    let mut sightings: BTreeMap<i64, Sighting> = BTreeMap::new();
    for (index, watch) in history.watches.iter().enumerate() {
        let complete = watch.is_complete();
        for event in watch.observations.iter().flat_map(|seen| &seen.response.events) {
            let Some(pair) = &event.kv else { continue };
            let revision = pair.mod_revision;
            let sighting = sightings.entry(revision).or_default();
            sighting.complete |= complete;
            let bare = Event { prev_kv: None, ..event.clone() };
            let (first, witness) =
                sighting.events.entry(pair.key.clone()).or_insert_with(|| (bare.clone(), index));
            if *first != bare {
                let text = format!(
                    "two watches saw different events of one key at revision {revision}: {} and {}",
                    show::event(first),
                    show::event(event)
                );
                let violation = Violation::new(Rule::WatchPhantom, text);
                violations.push(violation.watch(*witness).watch(index));
            }
        }
    }
    sightings
}

impl Replay<'_> {
    /// Goes through all revisions; the contradiction, if there is no way through.
    fn run(&mut self, newest: i64) -> Option<Violation> {
        let mut returns = 0;
        let mut waiting: Option<Vec<Author>> = None;
        while self.store.revision() < newest {
            let mut candidates = match waiting.take() {
                Some(candidates) => candidates,
                None => self.candidates(),
            };
            let revision = self.store.revision() + 1;
            let mut problem = None;
            let mut chosen = None;
            while let Some(author) = candidates.pop() {
                match self.attempt(author) {
                    Ok(()) => {
                        chosen = Some(author);
                        break;
                    }
                    Err(violation) => problem = Some(violation),
                }
            }
            if let Some(author) = chosen {
                self.ambiguous |= !candidates.is_empty();
                self.steps.push(Step { author, others: candidates });
                continue;
            }
            let problem = match problem {
                // Of several explanations that fail none is worth more than the others.
                Some(violation) if self.acknowledged.contains_key(&revision) => violation,
                Some(_) | None => self.unexplained(revision),
            };
            if self.deepest.as_ref().is_none_or(|(deepest, _)| *deepest < revision) {
                self.deepest = Some((revision, problem));
            }
            waiting = self.go_back();
            returns += 1;
            if waiting.is_none() || RETURNS_MAX < returns {
                break;
            }
        }
        if newest <= self.store.revision() {
            return None;
        }
        let (deepest, mut violation) =
            self.deepest.take().expect("a contradiction stopped the replay");
        if RETURNS_MAX < returns {
            violation.text.push_str("; given up, another explanation may exist");
        }
        // The other judges get as much of the order as there is.
        self.greedy(deepest - 1);
        Some(violation)
    }

    fn begin_anew(&mut self) {
        self.store = Store::new(self.history.revision, &self.history.pairs);
        self.steps.clear();
        self.used.clear();
        self.trusts_reads = false;
        self.deepest = None;
    }

    /// Replays up to a revision that some choice reached, without going back.
    fn greedy(&mut self, revision: i64) {
        while self.store.revision() < revision {
            let mut candidates = self.candidates();
            let found = loop {
                let Some(author) = candidates.pop() else { return };
                if self.attempt(author).is_ok() {
                    break author;
                }
            };
            self.steps.push(Step { author: found, others: Vec::new() });
        }
    }

    /// Takes revisions back until one has another explanation; those.
    fn go_back(&mut self) -> Option<Vec<Author>> {
        while let Some(step) = self.steps.pop() {
            self.store.undo();
            if let Author::Operation(index) = step.author {
                self.used.remove(&index);
            }
            if !step.others.is_empty() {
                return Some(step.others);
            }
        }
        None
    }

    /// Who may have made the next revision, the likeliest last.
    fn candidates(&self) -> Vec<Author> {
        let revision = self.store.revision() + 1;
        if let Some(index) = self.acknowledged.get(&revision) {
            return vec![Author::Operation(*index)];
        }
        let unknown = self.unknown.iter().filter(|index| {
            let invoked = self.history.operations[**index].invoked;
            let known = self.knowledge.before(invoked);
            !self.used.contains(index) && known.is_none_or(|seen| seen.revision < revision)
        });
        // An unanswered request is likelier the older it is.
        let expired = self.history.expired.as_ref();
        let may_expire =
            |lease: &i64| expired.is_none_or(|known| known.contains(&(revision, *lease)));
        let expiries = self.store.leases().filter(may_expire).map(Author::Expiry);
        let mut candidates: Vec<Author> = expiries.collect();
        candidates.extend(unknown.rev().map(|index| Author::Operation(*index)));
        let revokes = self.revokes.get(&revision).into_iter().flatten().filter(|index| {
            let known = self.knowledge.before(self.history.operations[**index].invoked);
            known.is_none_or(|seen| seen.revision < revision)
        });
        candidates.extend(revokes.map(|index| Author::Operation(*index)));
        candidates
    }

    /// Makes the next revision so; the store is unchanged if that contradicts what was seen.
    fn attempt(&mut self, author: Author) -> Result<(), Violation> {
        let revision = self.store.revision() + 1;
        let (call, index) = match author {
            Author::Operation(index) => (self.history.operations[index].call.clone(), Some(index)),
            Author::Expiry(id) => (Call::Revoke(pb::LeaseRevokeRequest { id }), None),
        };
        let contradiction = |rule, text| {
            let violation = Violation::new(rule, text).operations(index);
            // Guesses fail often and nobody reads why.
            let is_fact = self.acknowledged.contains_key(&revision);
            let neighbours = if is_fact { self.neighbours(&call) } else { Vec::new() };
            Err(violation.operations(neighbours))
        };
        let executed = match self.store.execute(&call, self.store.revision()) {
            Ok(executed) => executed,
            Err(refusal) => {
                let text = format!("the change of revision {revision} was impossible: {refusal}");
                return contradiction(Rule::WrongAnswer, text);
            }
        };
        if executed.events.is_empty() {
            let text = format!("the request acknowledged with revision {revision} changed nothing");
            return contradiction(Rule::WrongAnswer, text);
        }
        let answer = index.and_then(|index| self.history.operations[index].answer());
        if let Some(answer) = answer
            && !agrees(&call, &executed.answer, answer)
        {
            let expected = show::answer(&executed.answer);
            let text = format!("at revision {revision} the answer must be: {expected}");
            return contradiction(Rule::WrongAnswer, text);
        }
        if let Some((text, watches)) = self.disagreement(revision, &executed.events) {
            let violation = Violation::new(Rule::ChangeLost, text).operations(index);
            return Err(watches.into_iter().fold(violation, Violation::watch));
        }
        self.store.apply(&call).expect("the same call was executed just now");
        let is_guess = !self.acknowledged.contains_key(&revision);
        if (self.ambiguous || is_guess) && self.contradicts_reads(revision) {
            self.store.undo();
            let text = format!("a read contradicts the explanation of revision {revision}");
            return Err(Violation::new(Rule::WrongAnswer, text));
        }
        if let Some(index) = index
            && self.history.operations[index].is_unknown()
        {
            self.used.insert(index);
        }
        Ok(())
    }

    /// Whether the model would not give some answer of the newest revision.
    fn contradicts_reads(&self, revision: i64) -> bool {
        if !self.trusts_reads {
            return false;
        }
        let mut reads = self.reads.get(&revision).into_iter().flatten();
        let wrong_read = reads.any(|index| {
            let operation = &self.history.operations[*index];
            let Some(answer) = operation.answer() else { return false };
            let executed = self.store.execute(&operation.call, revision);
            !executed.is_ok_and(|executed| {
                executed.events.is_empty() && agrees(&operation.call, &executed.answer, answer)
            })
        });
        let mut previous = self.previous.get(&revision).into_iter().flatten();
        let mut ends = self.history.finals.iter().filter(|member| member.revision == revision);
        wrong_read
            || previous.any(|pair| self.store.pair(&pair.key, revision) != Some(pair))
            || ends.any(|member| {
                member.pairs.as_ref().is_some_and(|pairs| *pairs != self.store.pairs(revision))
            })
    }

    /// Where a change differs from what watches saw of its revision.
    fn disagreement(&self, revision: i64, events: &[Event]) -> Option<(String, Vec<usize>)> {
        let sighting = self.sightings.get(&revision)?;
        let expected: BTreeMap<&Bytes, &Event> = events
            .iter()
            .filter_map(|event| event.kv.as_ref().map(|pair| (&pair.key, event)))
            .collect();
        for (key, (seen, watch)) in &sighting.events {
            let same = expected
                .get(key)
                .is_some_and(|event| event.kv == seen.kv && event.r#type() == seen.r#type());
            if !same {
                let text = format!(
                    "a watch saw {} at revision {revision}, where the change was {}",
                    show::event(seen),
                    show::events(events)
                );
                return Some((text, vec![*watch]));
            }
        }
        if sighting.complete && expected.len() != sighting.events.len() {
            let text = format!(
                "a watch of all keys saw {} events at revision {revision}, where the change was {}",
                sighting.events.len(),
                show::events(events)
            );
            let watches = sighting.events.values().map(|(_, watch)| *watch).collect();
            return Some((text, watches));
        }
        None
    }

    /// The operations that last changed what a call is about.
    fn neighbours(&self, call: &Call) -> Vec<usize> {
        let executed = self.store.execute(call, self.store.revision());
        let mut revisions = BTreeSet::new();
        if let Ok(executed) = executed {
            let before = executed.events.iter().filter_map(|event| event.prev_kv.as_ref());
            revisions.extend(before.map(|pair| pair.mod_revision));
        }
        if let Call::Put(put) = call {
            let last = self
                .store
                .log(..)
                .filter(|(_, event)| event.kv.as_ref().is_some_and(|pair| pair.key == put.key));
            revisions.extend(last.map(|(revision, _)| revision).last());
        }
        let first = self.history.revision + 1;
        let steps = revisions
            .into_iter()
            .filter_map(|revision| self.steps.get(usize::try_from(revision - first).ok()?));
        steps
            .filter_map(|step| match step.author {
                Author::Operation(index) => Some(index),
                Author::Expiry(_) => None,
            })
            .collect()
    }

    fn unexplained(&self, revision: i64) -> Violation {
        let seen = match self.sightings.get(&revision) {
            Some(sighting) => {
                let events: Vec<Event> =
                    sighting.events.values().map(|(event, _)| event.clone()).collect();
                format!("watches saw {}", show::events(&events))
            }
            None => "no watch saw it".to_owned(),
        };
        let text = format!("no request explains revision {revision}; {seen}");
        let mut violation = Violation::new(Rule::RevisionUnexplained, text);
        let witness = self.knowledge.first_seen(revision);
        violation = violation.witness(witness.and_then(|seen| seen.witness));
        let Some(sighting) = self.sightings.get(&revision) else { return violation };
        // Whoever wrote the same pair: the request that was applied twice, if it was that.
        let same = |index: &usize| {
            let Call::Put(put) = &self.history.operations[*index].call else { return false };
            sighting.events.get(&put.key).is_some_and(|(event, _)| {
                event.r#type() == EventType::Put
                    && event.kv.as_ref().is_some_and(|pair| pair.value == put.value)
            })
        };
        let writers: Vec<usize> = (0..self.history.operations.len()).filter(same).take(3).collect();
        violation.operations(writers)
    }
}

/// Whether an answer is one of the kind of its call.
#[must_use]
pub fn is_of_kind(call: &Call, answer: &Answer) -> bool {
    matches!(
        (call, answer),
        (Call::Range(_), Answer::Range(_))
            | (Call::Put(_), Answer::Put(_))
            | (Call::Delete(_), Answer::Delete(_))
            | (Call::Txn(_), Answer::Txn(_))
            | (Call::Compact(_), Answer::Compact(_))
            | (Call::Grant(_), Answer::Grant(_))
            | (Call::Revoke(_), Answer::Revoke(_))
            | (Call::KeepAlive(_), Answer::KeepAlive(_))
            | (Call::TimeToLive(_), Answer::TimeToLive(_))
    )
}
