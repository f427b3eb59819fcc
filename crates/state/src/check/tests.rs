//! Each rule once, and the duplicate check's ranges against plain ones.

use proptest::prelude::*;

use super::*;

fn put(key: &str) -> Request {
    Request::RequestPut(pb::PutRequest { key: key.to_owned().into(), ..Default::default() })
}

fn delete(key: &str, range_end: &str) -> Request {
    Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    })
}

fn range(key: &str) -> Request {
    Request::RequestRange(pb::RangeRequest { key: key.to_owned().into(), ..Default::default() })
}

fn ops(requests: Vec<Request>) -> Vec<pb::RequestOp> {
    requests.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect()
}

fn txn(success: Vec<Request>, failure: Vec<Request>) -> pb::TxnRequest {
    pb::TxnRequest { compare: Vec::new(), success: ops(success), failure: ops(failure) }
}

fn nested(success: Vec<Request>, failure: Vec<Request>) -> Request {
    Request::RequestTxn(txn(success, failure))
}

/// KV-01, E-01.
#[test]
fn empty_keys_are_refused_everywhere() {
    assert_eq!(check_range(&pb::RangeRequest::default()), Err(Refusal::EmptyKey));
    assert_eq!(check_put(&pb::PutRequest::default()), Err(Refusal::EmptyKey));
    assert_eq!(check_delete(&pb::DeleteRangeRequest::default()), Err(Refusal::EmptyKey));
    for empty in [put(""), range(""), delete("", "")] {
        let untaken = txn(vec![], vec![nested(vec![empty], vec![])]);
        assert_eq!(check_txn(&untaken, 128), Err(Refusal::EmptyKey));
    }
    let compare = pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() };
    assert_eq!(check_txn(&compare, 128), Err(Refusal::EmptyKey));
}

/// KV-05, E-08.
#[test]
fn unknown_sort_options_are_refused() {
    let request = |sort_order, sort_target| pb::RangeRequest {
        key: "k".into(),
        sort_order,
        sort_target,
        ..Default::default()
    };
    assert_eq!(check_range(&request(2, 4)), Ok(()));
    assert_eq!(check_range(&request(3, 0)), Err(Refusal::InvalidSortOption));
    assert_eq!(check_range(&request(0, 5)), Err(Refusal::InvalidSortOption));
}

/// KV-17, KV-18, E-03, E-04.
#[test]
fn what_is_ignored_must_not_be_given() {
    let request = pb::PutRequest { key: "k".into(), ignore_value: true, ..Default::default() };
    assert_eq!(check_put(&request), Ok(()));
    let valued = pb::PutRequest { value: "v".into(), ..request };
    assert_eq!(check_put(&valued), Err(Refusal::ValueProvided));
    let leased =
        pb::PutRequest { key: "k".into(), lease: 1, ignore_lease: true, ..Default::default() };
    assert_eq!(check_put(&leased), Err(Refusal::LeaseProvided));
}

/// KV-25, E-05.
#[test]
fn nested_operations_count_against_the_rest() {
    let many = |count: usize| (0..count).map(|n| put(&format!("{n}"))).collect::<Vec<_>>();
    assert_eq!(check_txn(&txn(many(128), many(128)), 128), Ok(()));
    assert_eq!(check_txn(&txn(many(129), vec![]), 128), Err(Refusal::TooManyOps));
    assert_eq!(check_txn(&txn(vec![], many(129)), 128), Err(Refusal::TooManyOps));
    let inner = |count| txn(vec![nested(many(count), vec![])], vec![]);
    assert_eq!(check_txn(&inner(127), 128), Ok(()));
    assert_eq!(check_txn(&inner(128), 128), Err(Refusal::TooManyOps));
    let compares = pb::Compare { key: "k".into(), ..Default::default() };
    let compares = pb::TxnRequest { compare: vec![compares; 129], ..Default::default() };
    assert_eq!(check_txn(&compares, 128), Err(Refusal::TooManyOps));
}

/// KV-27, E-02.
#[test]
fn an_empty_operation_is_refused() {
    let empty = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
    assert_eq!(check_txn(&empty, 128), Err(Refusal::KeyNotFound));
}

/// L5.
#[test]
fn nesting_has_a_bottom() {
    let deep = |depth: usize| {
        let mut request = txn(vec![], vec![]);
        for _ in 1..depth {
            request = txn(vec![Request::RequestTxn(request)], vec![]);
        }
        request
    };
    assert_eq!(check_txn(&deep(TXN_DEPTH_MAX), 1000), Ok(()));
    assert_eq!(check_txn(&deep(TXN_DEPTH_MAX + 1), 1000), Err(Refusal::TxnTooDeep));
}

/// KV-26, E-06. What etcd lets through by the order of its checks is let through here.
#[test]
fn a_key_is_written_once_per_branch() {
    let check = |success| check_txn(&txn(success, vec![]), 128);
    let duplicate = Err(Refusal::DuplicateKey);
    assert_eq!(check(vec![put("a"), put("a")]), duplicate);
    assert_eq!(check(vec![put("b"), delete("a", "c")]), duplicate);
    assert_eq!(check(vec![delete("b", ""), put("b")]), duplicate);
    assert_eq!(check(vec![put("c"), delete("a", "c")]), Ok(()));
    assert_eq!(check(vec![put("b\0"), delete("b", "")]), Ok(()));
    assert_eq!(check(vec![delete("a", "c"), delete("b", "d")]), Ok(()));
    assert_eq!(check(vec![put("a"), nested(vec![put("a")], vec![])]), duplicate);
    assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")])]), Ok(()));
    assert_eq!(
        check(vec![nested(vec![put("a")], vec![]), nested(vec![put("a")], vec![])]),
        duplicate
    );
    assert_eq!(check(vec![nested(vec![delete("a", "")], vec![]), put("a")]), duplicate);
    assert_eq!(
        check(vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])]),
        Ok(())
    );
    assert_eq!(
        check(vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])]),
        duplicate
    );
    // From this key on: not seen by etcd's check.
    assert_eq!(check(vec![put("b"), delete("a", "\0")]), Ok(()));
    // The two branches are one or the other.
    assert_eq!(check_txn(&txn(vec![put("a")], vec![put("a")]), 128), Ok(()));
}

/// KV-28.
#[test]
fn a_txn_of_ranges_only_reads() {
    assert!(is_read_only(&txn(vec![range("a")], vec![range("b")])));
    assert!(!is_read_only(&txn(vec![range("a")], vec![put("b")])));
    assert!(!is_read_only(&txn(vec![nested(vec![], vec![])], vec![])));
    assert!(!is_serializable(&txn(vec![range("a")], vec![])));
    assert!(is_serializable(&txn(vec![], vec![])));
}

proptest! {
    #[test]
    fn intervals_hold_what_their_ranges_hold(
        ranges in prop::collection::vec((0_u8..20, 0_u8..20), 0..12),
    ) {
        let mut intervals = Intervals::default();
        for (start, end) in &ranges {
            intervals.insert_range(Bytes::copy_from_slice(&[*start]), Bytes::copy_from_slice(&[*end]));
        }
        for key in 0..20 {
            let expected = ranges.iter().any(|(start, end)| (*start..*end).contains(&key));
            prop_assert_eq!(intervals.contains(&Bytes::copy_from_slice(&[key])), expected);
        }
    }
}
