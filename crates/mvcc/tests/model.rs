//! Random transactions, reads, compactions, hashes and restarts against a plain list of all changes.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::collections::BTreeSet;

use base::{KeyRange, LeaseId};
use bytes::Bytes;
use proptest::prelude::*;
use retcd_mvcc::{QueryError, RangeQuery, RangeResult, RevisionError, Row, Want, Writer};
use support::{Fixture, Model, all};

#[derive(Clone, Debug)]
enum Op {
    Put { key: Bytes, value: Bytes, lease: i64 },
    Delete { keys: KeyRange },
}

#[derive(Clone, Debug)]
enum Step {
    /// Transactions applied as one batch.
    Batch {
        txns: Vec<Vec<Op>>,
        previous: bool,
        query: RangeQuery,
    },
    Range(RangeQuery),
    Hash {
        back: i64,
    },
    Compact {
        back: i64,
    },
    RemoveRows,
    Reopen,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0..12_u8).prop_map(|n| Bytes::from(format!("key{n}"))),
        (0..5_usize).prop_map(|n| Bytes::from(vec![0; n + 1])),
        (0..3_usize).prop_map(|n| Bytes::from(vec![0xff; n + 1])),
    ]
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(KeyRange::One),
        1 => key().prop_map(KeyRange::From),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
        1 => Just(all()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    prop_oneof![
        3 => (key(), value, 0..3_i64).prop_map(|(key, value, lease)| Op::Put { key, value, lease }),
        1 => keys().prop_map(|keys| Op::Delete { keys }),
    ]
}

/// `at` counts back from the newest revision; 100 is now.
fn query() -> impl Strategy<Value = RangeQuery> {
    let want = prop_oneof![Just(Want::Rows), Just(Want::Keys), Just(Want::Count)];
    let at = prop_oneof![Just(None), (-1..20_i64).prop_map(Some)];
    (keys(), at, prop::option::of(0..5_usize), want)
        .prop_map(|(keys, at, limit, want)| RangeQuery { keys, at, limit, want })
}

fn step() -> impl Strategy<Value = Step> {
    let txns = prop::collection::vec(prop::collection::vec(op(), 0..4), 1..4);
    prop_oneof![
        6 => (txns, any::<bool>(), query())
            .prop_map(|(txns, previous, query)| Step::Batch { txns, previous, query }),
        3 => query().prop_map(Step::Range),
        1 => (-1..10_i64).prop_map(|back| Step::Hash { back }),
        1 => (-1..10_i64).prop_map(|back| Step::Compact { back }),
        3 => Just(Step::RemoveRows),
        1 => Just(Step::Reopen),
    ]
}

/// Compares an answer with the model's.
fn check_range(
    model: &Model,
    query: &RangeQuery,
    answer: Result<RangeResult, QueryError>,
) -> Result<(), TestCaseError> {
    let at = query.at.filter(|at| 0 < *at).unwrap_or(model.revision);
    if model.revision < at {
        let future = matches!(answer, Err(QueryError::Revision(RevisionError::Future { .. })));
        prop_assert!(future, "{answer:?}");
        return Ok(());
    }
    if at < model.compact {
        let compacted =
            matches!(answer, Err(QueryError::Revision(RevisionError::Compacted { .. })));
        prop_assert!(compacted, "{answer:?}");
        return Ok(());
    }
    let answer = answer.unwrap();
    let mut expected = model.range(&query.keys, at);
    prop_assert_eq!(answer.count, expected.len());
    prop_assert_eq!(answer.revision, model.revision);
    expected.truncate(query.limit.unwrap_or(usize::MAX));
    match query.want {
        Want::Rows => {}
        Want::Keys => expected.iter_mut().for_each(|row| {
            row.value.clear();
            row.lease = 0;
        }),
        Want::Count => expected.clear(),
    }
    prop_assert_eq!(answer.rows.iter().map(Row::decode).collect::<Vec<_>>(), expected);
    Ok(())
}

/// Makes the query's revision absolute.
fn placed(query: &RangeQuery, model: &Model) -> RangeQuery {
    RangeQuery { at: query.at.map(|back| model.revision - back), ..query.clone() }
}

fn run_txn(
    writer: &mut Writer<'_>,
    model: &mut Model,
    ops: &[Op],
    previous: bool,
    query: &RangeQuery,
) -> Result<(), TestCaseError> {
    let main = model.revision + 1;
    let mut txn = writer.txn();
    let mut sub = 0;
    // As etcd's checks see to it, no transaction changes a key twice.
    let mut touched = BTreeSet::new();
    for op in ops {
        prop_assert_eq!(txn.main(), main);
        match op {
            Op::Put { key, value, lease } => {
                if !touched.insert(key.clone()) {
                    continue;
                }
                let before = model.live.get(key).cloned();
                let found = txn.put(key.clone(), value, LeaseId(*lease), previous).unwrap();
                prop_assert_eq!(found.existed, before.is_some());
                prop_assert_eq!(found.row.map(|row| row.decode()), before.filter(|_| previous));
                model.put(main, sub, key, value, *lease);
                sub += 1;
            }
            Op::Delete { keys } => {
                if touched.iter().any(|key| keys.contains(key)) {
                    continue;
                }
                let mut deleted = Vec::new();
                let count = txn.delete_range(keys, previous, &mut |key, row| {
                    deleted.push((key.clone(), row.map(|row| row.decode())));
                });
                let rows = model.delete(main, sub, keys);
                sub += i64::try_from(rows.len()).unwrap();
                prop_assert_eq!(count.unwrap(), rows.len());
                touched.extend(rows.iter().map(|row| row.key.clone()));
                let expected: Vec<_> = rows
                    .into_iter()
                    .map(|row| (row.key.clone(), previous.then_some(row)))
                    .collect();
                prop_assert_eq!(deleted, expected);
            }
        }
        let query = placed(query, model);
        check_range(model, &query, txn.range(&query))?;
    }
    Ok(())
}

fn check_hash(fixture: &Fixture, model: &Model, at: i64) -> Result<(), TestCaseError> {
    match fixture.store.reader().hash(at) {
        Ok(hash) => {
            let at = if at == 0 { model.revision } else { at };
            prop_assert_eq!((hash.revision, hash.current), (at, model.revision));
            // A compaction's hash was made with the boundary before it.
            let then = Model { compact: hash.compact_revision, ..model.clone() };
            if model.any_live(at) && model.any_live(hash.compact_revision.max(0)) {
                prop_assert_eq!(hash.hash, then.hash(at), "hash at {}", at);
            }
        }
        Err(QueryError::Revision(RevisionError::Future { .. })) => {
            prop_assert!(model.revision < at)
        }
        Err(QueryError::Revision(RevisionError::Compacted { .. })) => {
            prop_assert!(at < model.compact)
        }
        Err(QueryError::Backend(error)) => panic!("{error}"),
    }
    Ok(())
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut fixture = Fixture::small();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Batch { txns, previous, query } => {
                fixture.apply(|writer| {
                    for ops in txns {
                        run_txn(writer, &mut model, ops, *previous, query)?;
                    }
                    let query = placed(query, &model);
                    check_range(&model, &query, writer.range(&query))
                })?;
            }
            Step::Range(query) => {
                let query = placed(query, &model);
                check_range(&model, &query, fixture.store.reader().range(&query))?;
            }
            Step::Hash { back } => {
                check_hash(&fixture, &model, (model.revision - back).max(0))?;
            }
            Step::Compact { back } => {
                let at = model.revision - back;
                let allowed = model.compact < at && at <= model.revision;
                prop_assert_eq!(fixture.schedule(at).is_ok(), allowed);
                if allowed {
                    model.compact = at;
                }
            }
            Step::RemoveRows => {
                fixture.store.compact_step().unwrap();
            }
            Step::Reopen => fixture.reopen(),
        }
        let reader = fixture.store.reader();
        prop_assert_eq!(reader.revision(), model.revision);
        prop_assert_eq!(reader.compact_revision(), model.compact);
        prop_assert_eq!(reader.key_count(), model.live.len());
    }
    fixture.finish_compactions();
    let query = RangeQuery { keys: all(), at: None, limit: None, want: Want::Rows };
    check_range(&model, &query, fixture.store.reader().range(&query))
}

proptest! {
    /// KV-02 to KV-04, KV-15, KV-16, KV-19, KV-21, KV-29, KV-33 to KV-35, C7.
    #[test]
    fn store_equals_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps)?;
    }
}
