//! Transactions: which branch, what they see, what they refuse.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use proto::etcdserverpb as pb;
use state::Refusal;
use state::auth::gate::Authorized;
use support::{Machine, compact, delete, grant, internal_txn, put, range, txn};

fn compare(key: &str, result: CompareResult, union: TargetUnion) -> pb::Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.to_owned().into(),
        range_end: "".into(),
        target_union: Some(union),
    }
}

fn put_op(key: &str, value: &str) -> Request {
    Request::RequestPut(put(key, value))
}

fn ranged(response: &pb::ResponseOp) -> &pb::RangeResponse {
    let Some(Response::ResponseRange(response)) = &response.response else {
        panic!("{response:?}")
    };
    response
}

/// KV-23: a missing key counts as zero, except for its value.
#[test]
fn compares_hold_or_not() {
    let mut machine = Machine::new();
    machine.done(grant(5, 60));
    machine.put(put("k", "1"));
    machine.put(pb::PutRequest { lease: 5, ..put("k", "v") });
    let mut holds = |compare| machine.txn(txn(vec![compare], vec![], vec![])).succeeded;
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
    assert!(holds(compare("k", Equal, Version(2))));
    assert!(holds(compare("k", Equal, CreateRevision(2))));
    assert!(holds(compare("k", Greater, ModRevision(2))));
    assert!(!holds(compare("k", Greater, ModRevision(3))));
    assert!(holds(compare("k", Equal, Value("v".into()))));
    assert!(holds(compare("k", Less, Value("w".into()))));
    assert!(holds(compare("k", NotEqual, Value("w".into()))));
    assert!(holds(compare("k", Equal, Lease(5))));
    assert!(holds(compare("x", Equal, Version(0))));
    assert!(holds(compare("x", Less, CreateRevision(1))));
    assert!(holds(compare("x", Equal, Lease(0))));
    assert!(!holds(compare("x", Equal, Value("".into()))));
    assert!(!holds(compare("x", NotEqual, Value("v".into()))));
    // The number is of another target, or of none.
    let mixed = pb::Compare {
        target: CompareTarget::Version as i32,
        ..compare("k", Equal, ModRevision(2))
    };
    assert!(!holds(mixed.clone()));
    assert!(holds(pb::Compare { result: Greater as i32, ..mixed }));
    assert!(holds(pb::Compare { target: 9, ..compare("k", Equal, Version(77)) }));
    assert!(holds(pb::Compare { result: 9, ..compare("k", Equal, Version(77)) }));
}

/// KV-24.
#[test]
fn a_range_compare_speaks_of_every_key() {
    let mut machine = Machine::new();
    machine.put(put("a", "v"));
    machine.put(put("b", "v"));
    let mut holds = |value: &'static str, key: &str, end: &'static str| {
        let compare = compare(key, CompareResult::Equal, TargetUnion::Value(value.into()));
        let compare = pb::Compare { range_end: end.into(), ..compare };
        machine.txn(txn(vec![compare], vec![], vec![])).succeeded
    };
    assert!(holds("v", "a", "c"));
    assert!(holds("v", "a", "\0"));
    assert!(!holds("w", "a", "c"));
    assert!(!holds("v", "x", "z"));
}

/// KV-20, KV-21, G-002.
#[test]
fn operations_see_what_came_before_them_in_one_revision() {
    let mut machine = Machine::new();
    machine.put(put("old", "1"));
    let response = machine.txn(txn(
        vec![],
        vec![
            Request::RequestRange(range("a", "\0")),
            put_op("a", "1"),
            Request::RequestRange(range("a", "\0")),
            Request::RequestDeleteRange(delete("old", "")),
            put_op("b", "2"),
            Request::RequestRange(pb::RangeRequest { revision: 2, ..range("a", "\0") }),
        ],
        vec![],
    ));
    assert!(response.succeeded);
    assert_eq!(response.header.unwrap().revision, 3);
    let before = ranged(&response.responses[0]);
    assert_eq!((before.count, before.header.as_ref().unwrap().revision), (1, 2));
    let after = ranged(&response.responses[2]);
    assert_eq!((after.count, after.header.as_ref().unwrap().revision), (2, 3));
    assert_eq!(ranged(&response.responses[5]).count, 1);
    let (a, b) = (machine.get("a").unwrap(), machine.get("b").unwrap());
    assert_eq!((a.mod_revision, b.mod_revision, machine.revision()), (3, 3, 3));
}

/// KV-21: the two compares see the state before, whatever ran meanwhile.
#[test]
fn nested_compares_see_the_state_before() {
    let mut machine = Machine::new();
    let missing = || compare("k", CompareResult::Equal, TargetUnion::Version(0));
    let inner =
        txn(vec![missing()], vec![put_op("inner", "missing")], vec![put_op("inner", "there")]);
    let outer = txn(vec![missing()], vec![put_op("k", "1"), Request::RequestTxn(inner)], vec![]);
    let response = machine.txn(outer);
    let Some(Response::ResponseTxn(nested)) = &response.responses[1].response else { panic!() };
    assert!(nested.succeeded);
    assert_eq!(nested.header, Some(pb::ResponseHeader::default()));
    assert_eq!(&machine.get("inner").unwrap().value[..], b"missing");
    assert_eq!(machine.revision(), 2);
}

/// KV-20: no writes, no revision.
#[test]
fn a_txn_that_changes_nothing_takes_no_revision() {
    let mut machine = Machine::new();
    let response =
        machine.txn(txn(vec![], vec![Request::RequestDeleteRange(delete("k", ""))], vec![]));
    assert_eq!((response.header.unwrap().revision, machine.revision()), (1, 1));
}

/// KV-22, L-15, KV-17: E-02, E-09, E-10, E-12.
#[test]
fn a_refused_txn_has_changed_nothing() {
    let mut machine = Machine::new();
    for value in ["1", "2", "3"] {
        machine.put(put("k", value));
    }
    machine.done(compact(3));
    let contents = machine.contents();
    let mut refused = |last: Request| {
        let inner = txn(vec![], vec![last], vec![]);
        let request = txn(vec![], vec![put_op("k", "4"), Request::RequestTxn(inner)], vec![]);
        machine.refused(internal_txn(request))
    };
    let at = |revision| Request::RequestRange(pb::RangeRequest { revision, ..range("k", "") });
    assert_eq!(refused(at(2)), Refusal::Compacted);
    assert_eq!(refused(at(-1)), Refusal::Compacted);
    assert_eq!(refused(at(5)), Refusal::FutureRevision);
    let leased = pb::PutRequest { lease: 9, ..put("x", "v") };
    assert_eq!(refused(Request::RequestPut(leased)), Refusal::LeaseNotFound);
    let ignoring = pb::PutRequest { ignore_lease: true, ..put("x", "v") };
    assert_eq!(refused(Request::RequestPut(ignoring)), Refusal::KeyNotFound);
    assert_eq!(machine.contents(), contents);
    // What is not taken is not checked.
    let never = compare("k", CompareResult::Less, TargetUnion::Version(0));
    assert!(!machine.txn(txn(vec![never], vec![at(2)], vec![])).succeeded);
}

/// A delete from a key on is not seen by the check for duplicate keys, so that the row a put
/// keeps may be gone when its turn comes; it must not be refused half way.
#[test]
fn a_put_that_keeps_what_was_just_deleted_keeps_nothing() {
    let mut machine = Machine::new();
    machine.put(put("k", "v"));
    let keep = pb::PutRequest { ignore_value: true, ..put("k", "") };
    let request = txn(
        vec![],
        vec![Request::RequestDeleteRange(delete("a", "\0")), Request::RequestPut(keep)],
        vec![],
    );
    assert_eq!(state::check_txn(&request, 128), Ok(()));
    machine.txn(request);
    let row = machine.get("k").unwrap();
    assert_eq!((row.value.len(), row.version, row.create_revision), (0, 1, 3));
}

/// KV-28.
#[test]
fn a_txn_that_only_reads_needs_no_entry() {
    let mut machine = Machine::new();
    machine.put(put("k", "1"));
    machine.put(put("k", "2"));
    let there = compare("k", CompareResult::Equal, TargetUnion::Version(2));
    let at = |revision| Request::RequestRange(pb::RangeRequest { revision, ..range("k", "") });
    let request = txn(vec![there], vec![at(0), at(2)], vec![]);
    let response = machine.reads().txn(Authorized::own(&request)).unwrap();
    assert_eq!(response, machine.txn(request));
    assert_eq!(response.header.unwrap().revision, 3);
    assert_eq!(&ranged(&response.responses[1]).kvs[0].value[..], b"1");
    let future = txn(vec![], vec![at(4)], vec![]);
    assert_eq!(machine.reads().txn(Authorized::own(&future)), Err(Refusal::FutureRevision));
}
