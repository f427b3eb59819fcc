//! Every request against every permission, by a judge that knows nothing of intervals: it asks for
//! each key of a small world whether it is allowed (G26, A-14, A-15).

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use bytes::Bytes;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use state::auth::gate::{Door, Guarded};
use state::{Applied, Identity, Reads, Refusal};
use support::auth::Auth;
use support::{Machine, by, op};

/// Ends of ranges and some keys between; the last is behind every end but the open one.
const WORLD: [&str; 12] =
    ["\0", "a", "a\0", "a1", "b", "b\0", "b1", "c", "c\0", "d", "d1", "\u{10ffff}"];

/// Ranges that are granted and asked for.
const RANGES: [(&str, &str); 11] = [
    ("a", ""),
    ("b", ""),
    ("a", "b"),
    ("b", "c"),
    ("a", "c"),
    ("a1", "b1"),
    ("b", "d"),
    ("c", "\0"),
    ("b", "\0"),
    ("\0", "\0"),
    ("a", "d1"),
];

/// What users may: each a set of permissions.
const GRANTS: [&[(Type, &str, &str)]; 13] = [
    &[],
    &[(Type::Read, "a", "")],
    &[(Type::Write, "a", "")],
    &[(Type::Readwrite, "a", "b")],
    &[(Type::Read, "a", "b"), (Type::Write, "b", "c")],
    &[(Type::Read, "a", "b"), (Type::Read, "b", "c")],
    &[(Type::Write, "a", "b1"), (Type::Write, "a1", "d")],
    &[(Type::Readwrite, "b", "\0")],
    &[(Type::Readwrite, "\0", "\0")],
    &[(Type::Read, "a", "c"), (Type::Readwrite, "c", "\0")],
    &[(Type::Write, "a", "c"), (Type::Read, "b", "d")],
    &[(Type::Readwrite, "a", ""), (Type::Readwrite, "a\0", "b")],
    &[(Type::Read, "\0", "\0"), (Type::Write, "a", "d1")],
];

fn holds(key: &str, end: &str, wanted: &str) -> bool {
    match end {
        "" => key == wanted,
        "\0" => key <= wanted,
        _ => key <= wanted && wanted < end,
    }
}

fn may(grants: &[(Type, &str, &str)], kind: Type, (key, end): (&str, &str)) -> bool {
    let allowed = |wanted: &str| {
        grants.iter().any(|(given, key, end)| {
            (*given == kind || *given == Type::Readwrite) && holds(key, end, wanted)
        })
    };
    WORLD.iter().filter(|wanted| holds(key, end, wanted)).all(|wanted| allowed(wanted))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn range((key, end): (&str, &str)) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

fn delete((key, end): (&str, &str), prev_kv: bool) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv }
}

fn put(key: &str, prev_kv: bool) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), prev_kv, ..Default::default() }
}

/// One operation and what it needs.
fn operations(range_asked: (&'static str, &'static str)) -> Vec<(Request, Vec<Type>)> {
    let mut operations = vec![
        (Request::RequestRange(range(range_asked)), vec![Type::Read]),
        (Request::RequestDeleteRange(delete(range_asked, false)), vec![Type::Write]),
        (Request::RequestDeleteRange(delete(range_asked, true)), vec![Type::Write, Type::Read]),
    ];
    if range_asked.1.is_empty() {
        operations.push((Request::RequestPut(put(range_asked.0, false)), vec![Type::Write]));
        let needs = vec![Type::Write, Type::Read];
        operations.push((Request::RequestPut(put(range_asked.0, true)), needs));
    }
    operations
}

/// Ways to hide an operation in a transaction: the branch, and how deep.
fn hidden(operation: &Request, range_asked: (&str, &str)) -> Vec<pb::TxnRequest> {
    let branch = |request: Request, success: bool| {
        let (taken, other) = (vec![op(request)], Vec::new());
        let (success, failure) = if success { (taken, other) } else { (other, taken) };
        pb::TxnRequest { compare: Vec::new(), success, failure }
    };
    let mut txns = Vec::new();
    for success in [true, false] {
        let mut txn = branch(operation.clone(), success);
        txns.push(txn.clone());
        for deeper in [true, false] {
            txn = branch(Request::RequestTxn(txn), deeper);
            txns.push(txn.clone());
        }
    }
    // The same range as a compare, deep down.
    if matches!(operation, Request::RequestRange(_)) {
        let (key, range_end) = (bytes(range_asked.0), bytes(range_asked.1));
        let compare = vec![pb::Compare { key, range_end, ..Default::default() }];
        let txn = pb::TxnRequest { compare, ..Default::default() };
        txns.push(txn.clone());
        txns.push(branch(Request::RequestTxn(txn), false));
    }
    txns
}

fn judged<R: Guarded>(reads: &Reads, who: &Identity, request: &R) -> bool {
    match reads.authorize(who, request) {
        Ok(_) => true,
        Err(Refusal::PermissionDenied) => false,
        Err(other) => panic!("{other}"),
    }
}

/// G26: at least 3,000 cases; here about ten thousand.
#[test]
fn the_gate_agrees_with_a_judge_that_asks_key_by_key() {
    let names: Vec<String> = (0..GRANTS.len()).map(|number| format!("user-{number}")).collect();
    let users: Vec<_> = names.iter().map(String::as_str).zip(GRANTS).collect();
    let (mut machine, auth) = Auth::on(Machine::new(), &users);
    let reads = machine.reads();
    let mut cases = 0;
    for (name, grants) in users {
        let who = auth.user(name);
        for asked in RANGES {
            for (operation, needs) in operations(asked) {
                let expected = needs.iter().all(|kind| may(grants, *kind, asked));
                let told = |what: &str| format!("{name} {asked:?} {operation:?} {what}");
                for txn in hidden(&operation, asked) {
                    assert_eq!(judged(&reads, &who, &txn), expected, "{}", told("in a txn"));
                    let request = pb::InternalRaftRequest { txn: Some(txn), ..Default::default() };
                    let applied = machine.applied(by(&who, request));
                    let denied = applied == Applied::Refused(Refusal::PermissionDenied);
                    assert_eq!(!denied, expected, "{}: {applied:?}", told("applied"));
                    cases += 2;
                }
                let alone = match &operation {
                    Request::RequestRange(request) => judged(&reads, &who, request),
                    Request::RequestPut(request) => judged(&reads, &who, request),
                    Request::RequestDeleteRange(request) => judged(&reads, &who, request),
                    Request::RequestTxn(_) => unreachable!("none was made"),
                };
                assert_eq!(alone, expected, "{}", told("alone"));
                cases += 1;
            }
            let (key, range_end) = (bytes(asked.0), bytes(asked.1));
            let watch = pb::WatchCreateRequest { key, range_end, ..Default::default() };
            let expected = may(grants, Type::Read, asked);
            assert_eq!(judged(&reads, &who, &watch), expected, "{name} watches {asked:?}");
            cases += 1;
        }
    }
    assert!(3000 <= cases, "{cases} cases");
}

/// G27: what everybody may, whoever is logged in may, and only root may.
#[test]
fn the_door_is_the_same_for_all_who_are_alike() {
    let (machine, auth) = Auth::on(Machine::new(), &[("alice", &[])]);
    let auth_now = machine.reads().auth();
    let (alice, root) = (auth.user("alice"), auth.root());
    let check = |guard: Door, expected: [Result<(), Refusal>; 3]| {
        let callers = [None, Some(&alice), Some(&root)];
        let answers = callers.map(|who| auth_now.check_door(guard, who));
        assert_eq!(answers, expected, "{guard:?}");
    };
    let nobody = Err(Refusal::UserNameEmpty);
    check(Door::Open, [Ok(()), Ok(()), Ok(())]);
    check(Door::Login, [nobody.clone(), Ok(()), Ok(())]);
    check(Door::Root, [nobody, Err(Refusal::PermissionDenied), Ok(())]);
    let root_only = [
        pb::MemberAddRequest::default().guard().door,
        pb::MemberRemoveRequest::default().guard().door,
        pb::MemberUpdateRequest::default().guard().door,
        pb::MemberPromoteRequest::default().guard().door,
        pb::CompactionRequest::default().guard().door,
        pb::DefragmentRequest {}.guard().door,
        pb::SnapshotRequest {}.guard().door,
        pb::HashRequest {}.guard().door,
        pb::HashKvRequest::default().guard().door,
        pb::MoveLeaderRequest::default().guard().door,
        pb::DowngradeRequest::default().guard().door,
        pb::AlarmRequest { action: 1, ..Default::default() }.guard().door,
        pb::AlarmRequest { action: 7, ..Default::default() }.guard().door,
    ];
    assert_eq!(root_only, [Door::Root; 13]);
    let logged_in = [
        pb::MemberListRequest::default().guard().door,
        pb::AlarmRequest::default().guard().door,
        pb::StatusRequest {}.guard().door,
        pb::LeaseGrantRequest::default().guard().door,
        pb::LeaseRevokeRequest::default().guard().door,
        pb::LeaseKeepAliveRequest::default().guard().door,
        pb::LeaseTimeToLiveRequest::default().guard().door,
        pb::LeaseLeasesRequest {}.guard().door,
        pb::TxnRequest::default().guard().door,
    ];
    assert_eq!(logged_in, [Door::Login; 9]);
    // The rest of the open ones are judged where they are evaluated.
    assert!(pb::AuthStatusRequest {}.guard().needs.is_empty());
    assert!(pb::AuthenticateRequest::default().guard().needs.is_empty());
    assert!(!pb::AuthEnableRequest {}.guard().needs.is_empty());
    assert!(!pb::WatchCreateRequest::default().guard().needs.is_empty());
}
