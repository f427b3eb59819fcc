//! A search for an order, which trusts nothing but the model: the guard of the fast judge.
//!
//! Wing and Gong's method with Lowe's memory: of all operations that began before the first
//! unfinished one ended, each is tried as the next; a set of finished operations with a state is
//! tried once. An unanswered operation may be left out. Exponential in the number of concurrent
//! operations: for small histories only.

use std::collections::BTreeSet;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;

use crate::model::{Store, agrees};
use crate::record::{Call, History, Operation, Outcome};

/// Something whose operations take effect one after the other.
pub trait Model {
    /// What operations change; equal states behave alike.
    type State: Clone + Ord;
    /// An operation with its result, or without one if that is unknown.
    type Operation;

    /// The state after an operation, if its result is possible in this state.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation with its times.
#[derive(Clone, Debug)]
pub struct Interval<O> {
    /// When it began.
    pub invoked: u64,
    /// When it ended; `None` if it may take effect at any later time, or never.
    pub returned: Option<u64>,
    /// It.
    pub operation: O,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Impossible,
    /// The budget was used up first.
    Undecided,
}

/// Searches an order of the operations, trying at most as many steps as given.
pub fn search<M: Model>(
    model: &M,
    begin: &M::State,
    operations: &[Interval<M::Operation>],
    steps_max: usize,
) -> Verdict {
    let mut order: Vec<usize> = (0..operations.len()).collect();
    order.sort_by_key(|index| operations[*index].invoked);
    let mut search = Search { model, operations, order, tried: BTreeSet::new(), left: steps_max };
    let mut done = vec![false; operations.len()];
    search.from(begin, &mut done)
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [Interval<M::Operation>],
    /// By begin.
    order: Vec<usize>,
    tried: BTreeSet<(Vec<bool>, M::State)>,
    left: usize,
}

impl<M: Model> Search<'_, M> {
    /// Depth is the number of operations, which is small.
    fn from(&mut self, state: &M::State, done: &mut Vec<bool>) -> Verdict {
        let open = |index: &usize| !done[*index];
        let first_end = self
            .order
            .iter()
            .filter(|index| open(index))
            .filter_map(|index| self.operations[*index].returned)
            .min();
        let Some(first_end) = first_end else {
            // What is left was never answered.
            return Verdict::Linearizable;
        };
        let next: Vec<usize> = self
            .order
            .iter()
            .copied()
            .filter(open)
            .take_while(|index| self.operations[*index].invoked <= first_end)
            .collect();
        for index in next {
            if self.left == 0 {
                return Verdict::Undecided;
            }
            self.left -= 1;
            let step = self.model.step(state, &self.operations[index].operation);
            let Some(after) = step else { continue };
            done[index] = true;
            if self.tried.insert((done.clone(), after.clone())) {
                match self.from(&after, done) {
                    Verdict::Impossible => {}
                    found @ (Verdict::Linearizable | Verdict::Undecided) => return found,
                }
            }
            done[index] = false;
        }
        Verdict::Impossible
    }
}

/// The key space as a model: revisions are part of the results and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeySpace;

/// A state is a revision and its pairs; the past does not matter.
type Pairs = (i64, Vec<(bytes::Bytes, bytes::Bytes, i64, i64, i64, i64)>);

impl Model for KeySpace {
    type State = Pairs;
    type Operation = Operation;

    fn step(&self, state: &Pairs, operation: &Operation) -> Option<Pairs> {
        let mut store = open(state);
        let executed = store.apply(&operation.call).ok()?;
        if let Outcome::Answered(answer) = &operation.outcome {
            let same = agrees(&operation.call, &executed.answer, answer)
                && answer.revision() == store.revision();
            if !same {
                return None;
            }
        }
        Some(close(&store))
    }
}

fn open((revision, pairs): &Pairs) -> Store {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value, create_revision, mod_revision, version, lease)| {
            proto::mvccpb::KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: *create_revision,
                mod_revision: *mod_revision,
                version: *version,
                lease: *lease,
            }
        })
        .collect();
    Store::new(*revision, &pairs)
}

fn close(store: &Store) -> Pairs {
    let revision = store.revision();
    let pairs = store.pairs(revision).into_iter().map(|pair| {
        let (create, change) = (pair.create_revision, pair.mod_revision);
        (pair.key, pair.value, create, change, pair.version, pair.lease)
    });
    (revision, pairs.collect())
}

/// Searches an order of a history's changes and linearizable reads of the present.
#[must_use]
pub fn search_history(history: &History, steps_max: usize) -> Verdict {
    let begin = close(&Store::new(history.revision, &history.pairs));
    let intervals: Vec<_> = history
        .operations
        .iter()
        .filter(|operation| is_searched(operation))
        .map(|operation| Interval {
            invoked: operation.invoked,
            returned: (!operation.is_unknown()).then_some(operation.returned),
            operation: operation.clone(),
        })
        .collect();
    search(&KeySpace, &begin, &intervals, steps_max)
}

/// Searches an order of a history's first operations, at most so many, up to the first that gives a
/// key to a lease: leases end by themselves, which no operation tells. What was answered later than
/// the last of them began may have seen others, and counts as unknown. How many were searched, too.
#[must_use]
pub fn search_beginning(
    history: &History,
    operations_max: usize,
    steps_max: usize,
) -> (Verdict, usize) {
    let mut operations: Vec<&Operation> = history.operations.iter().collect();
    operations.sort_by_key(|operation| operation.invoked);
    let first_leased = operations.iter().position(|operation| gives_to_lease(&operation.call));
    operations.truncate(first_leased.unwrap_or(usize::MAX).min(operations_max));
    let end = operations.last().map_or(0, |operation| operation.invoked);
    let as_known_then = |operation: &&Operation| {
        let mut operation = (*operation).clone();
        if end < operation.returned {
            operation.outcome = Outcome::Unknown("the window ends before".to_owned());
        }
        operation
    };
    let beginning = History {
        revision: history.revision,
        pairs: history.pairs.clone(),
        operations: operations.iter().map(as_known_then).collect(),
        ..History::default()
    };
    (search_history(&beginning, steps_max), operations.len())
}

fn gives_to_lease(call: &Call) -> bool {
    match call {
        Call::Put(put) => put.lease != 0,
        Call::Txn(txn) => gives_in_txn(txn),
        Call::Range(_)
        | Call::Delete(_)
        | Call::Compact(_)
        | Call::Grant(_)
        | Call::Revoke(_)
        | Call::KeepAlive(_)
        | Call::TimeToLive(_) => false,
    }
}

fn gives_in_txn(txn: &pb::TxnRequest) -> bool {
    let inner = txn.success.iter().chain(&txn.failure).filter_map(|one| one.request.as_ref());
    inner.into_iter().any(|one| match one {
        Request::RequestPut(put) => put.lease != 0,
        Request::RequestTxn(txn) => gives_in_txn(txn),
        Request::RequestRange(_) | Request::RequestDeleteRange(_) => false,
    })
}

fn is_searched(operation: &Operation) -> bool {
    let answered_or_unknown = match &operation.outcome {
        Outcome::Answered(_) => true,
        Outcome::Unknown(_) => operation.call.may_change_keys(),
        Outcome::Refused(_) => false,
    };
    let modelled = match &operation.call {
        Call::Range(request) => !request.serializable && request.revision == 0,
        Call::Put(_) | Call::Delete(_) | Call::Txn(_) | Call::Revoke(_) => {
            operation.call.is_linearizable()
        }
        Call::Compact(_) | Call::Grant(_) | Call::KeepAlive(_) | Call::TimeToLive(_) => false,
    };
    answered_or_unknown && modelled
}
