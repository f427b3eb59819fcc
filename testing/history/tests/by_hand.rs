//! The classic anomalies, in as few operations as they need, and the story that is told of each.

#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use retcd_history::search::{Verdict, search_history};
use retcd_history::{Answer, Call, History, Operation, Outcome, Rule, judge};

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 2 })
}

fn operation(client: u64, invoked: u64, returned: u64, call: Call, outcome: Outcome) -> Operation {
    Operation { client, member: 0, session: 0, invoked, returned, call, outcome }
}

fn put_call(value: &'static str) -> Call {
    Call::Put(pb::PutRequest {
        key: Bytes::from_static(b"a"),
        value: Bytes::from_static(value.as_bytes()),
        ..Default::default()
    })
}

fn put(client: u64, times: (u64, u64), value: &'static str, revision: i64) -> Operation {
    let answer = Answer::Put(pb::PutResponse { header: header(revision), prev_kv: None });
    operation(client, times.0, times.1, put_call(value), Outcome::Answered(answer))
}

fn unknown_put(client: u64, times: (u64, u64), value: &'static str) -> Operation {
    let outcome = Outcome::Unknown("connection reset".to_owned());
    operation(client, times.0, times.1, put_call(value), outcome)
}

/// A read that sees `value` as the `version`th, created at revision 2.
fn get(
    client: u64,
    times: (u64, u64),
    seen: Option<(&'static str, i64)>,
    revision: i64,
) -> Operation {
    let request = pb::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let pairs = seen.map(|(value, version)| KeyValue {
        key: Bytes::from_static(b"a"),
        value: Bytes::from_static(value.as_bytes()),
        create_revision: 2,
        mod_revision: version + 1,
        version,
        lease: 0,
    });
    let kvs: Vec<_> = pairs.into_iter().collect();
    let count = i64::try_from(kvs.len()).unwrap();
    let answer = pb::RangeResponse { header: header(revision), kvs, more: false, count };
    operation(
        client,
        times.0,
        times.1,
        Call::Range(request),
        Outcome::Answered(Answer::Range(answer)),
    )
}

/// Both judges say so.
fn refused(operations: Vec<Operation>, rule: Rule) -> String {
    let history = History { operations, ..History::default() };
    assert_eq!(search_history(&history, 10_000), Verdict::Impossible);
    let violations = judge(&history).unwrap_err();
    let found = violations.iter().find(|found| found.rule == rule);
    let found = found.unwrap_or_else(|| panic!("taken for {violations:?}"));
    found.story(&history)
}

fn accepted(operations: Vec<Operation>) {
    let history = History { operations, ..History::default() };
    assert_eq!(search_history(&history, 10_000), Verdict::Linearizable);
    judge(&history).unwrap_or_else(|violations| panic!("{}", violations[0].story(&history)));
}

#[test]
fn lost_write() {
    let story =
        refused(vec![put(1, (0, 10), "x", 2), get(2, (20, 30), None, 2)], Rule::WrongAnswer);
    let expected = "\
WrongAnswer: at revision 2 the answer is: [a=x (created 2, changed 2, version 1)] of 1
  operation 0: 0.000ms..0.000ms client 1 member 0: put a=x -> revision 2: ok
  operation 1: 0.000ms..0.000ms client 2 member 0: get a -> revision 2: [] of 0";
    assert_eq!(story, expected);
}

#[test]
fn stale_read() {
    refused(
        vec![
            put(1, (0, 10), "x", 2),
            put(1, (20, 30), "y", 3),
            get(2, (40, 50), Some(("x", 1)), 2),
        ],
        Rule::StaleRead,
    );
}

#[test]
fn read_may_be_before_or_after_a_concurrent_write() {
    for (seen, revision) in [(("x", 1), 2), (("y", 2), 3)] {
        accepted(vec![
            put(1, (0, 10), "x", 2),
            put(1, (20, 50), "y", 3),
            get(2, (30, 40), Some(seen), revision),
        ]);
    }
}

#[test]
fn second_reader_must_not_see_less_than_the_first() {
    refused(
        vec![
            put(1, (0, 10), "x", 2),
            put(1, (20, 90), "y", 3),
            get(2, (30, 40), Some(("y", 2)), 3),
            get(3, (50, 60), Some(("x", 1)), 2),
        ],
        Rule::StaleRead,
    );
}

#[test]
fn unanswered_write_may_show_later_or_never() {
    accepted(vec![
        put(1, (0, 10), "x", 2),
        unknown_put(2, (20, 30), "y"),
        get(1, (40, 50), Some(("x", 1)), 2),
        get(1, (60, 70), Some(("y", 2)), 3),
    ]);
    accepted(vec![unknown_put(2, (0, 10), "y"), put(1, (20, 30), "x", 2)]);
}

#[test]
fn unanswered_write_shows_at_most_once() {
    refused(
        vec![
            unknown_put(2, (0, 10), "y"),
            get(1, (20, 30), Some(("y", 1)), 2),
            get(1, (40, 50), Some(("y", 2)), 3),
        ],
        Rule::RevisionUnexplained,
    );
}

#[test]
fn write_is_not_seen_before_it_is_asked_for() {
    refused(
        vec![get(1, (0, 10), Some(("y", 1)), 2), put(2, (20, 30), "y", 2)],
        Rule::ChangeInThePast,
    );
}

#[test]
fn revisions_have_no_holes() {
    refused(vec![put(1, (0, 10), "x", 2), put(1, (20, 30), "y", 4)], Rule::RevisionUnexplained);
}

#[test]
fn later_write_gets_the_later_revision() {
    refused(vec![put(1, (0, 10), "x", 3), put(2, (20, 30), "y", 2)], Rule::ChangeInThePast);
}

#[test]
fn two_writes_share_no_revision() {
    refused(vec![put(1, (0, 10), "x", 2), put(2, (0, 10), "y", 2)], Rule::RevisionTwice);
}
