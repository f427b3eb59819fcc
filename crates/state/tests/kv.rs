//! Put, DeleteRange, Range and compaction as clients see them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use state::auth::gate::Authorized;
use state::{Refusal, Reply};
use support::{Machine, compact, delete, grant, internal_put, put, range};

fn keys(reply: &state::RangeReply) -> Vec<String> {
    reply.rows.iter().map(|row| String::from_utf8(row.decode().key.to_vec()).unwrap()).collect()
}

/// KV-15, KV-16, KV-33, G-002.
#[test]
fn a_put_counts_revision_and_version() {
    let mut machine = Machine::new();
    assert_eq!(machine.revision(), 1);
    let first = machine.put(put("k", "1"));
    assert_eq!(first.header.unwrap(), pb::ResponseHeader { revision: 2, ..Default::default() });
    assert_eq!(first.prev_kv, None);
    let second = machine.put(pb::PutRequest { prev_kv: true, ..put("k", "2") });
    let previous = second.prev_kv.unwrap();
    assert_eq!((previous.version, previous.mod_revision, &previous.value[..]), (1, 2, &b"1"[..]));
    let row = machine.get("k").unwrap();
    assert_eq!((row.create_revision, row.mod_revision, row.version), (2, 3, 2));
}

/// KV-17, KV-18, E-02.
#[test]
fn ignored_fields_are_kept_and_need_a_row() {
    let mut machine = Machine::new();
    let ignore_value = pb::PutRequest { ignore_value: true, lease: 5, ..put("k", "") };
    machine.done(grant(5, 60));
    assert_eq!(machine.refused(internal_put(ignore_value.clone())), Refusal::KeyNotFound);
    assert_eq!(machine.revision(), 1);
    machine.put(put("k", "kept"));
    machine.put(ignore_value);
    let row = machine.get("k").unwrap();
    assert_eq!((&row.value[..], row.lease), (&b"kept"[..], 5));
    machine.put(pb::PutRequest { ignore_lease: true, prev_kv: true, ..put("k", "new") });
    let row = machine.get("k").unwrap();
    assert_eq!((&row.value[..], row.lease, row.version), (&b"new"[..], 5, 3));
}

/// KV-19, KV-02, KV-35.
#[test]
fn a_delete_of_nothing_takes_no_revision() {
    let mut machine = Machine::new();
    for key in ["a", "b", "c"] {
        machine.put(put(key, "v"));
    }
    let none = machine.delete(delete("x", "z"));
    assert_eq!((none.deleted, none.header.unwrap().revision), (0, 4));
    let inverted = machine.delete(delete("c", "a"));
    assert_eq!((inverted.deleted, machine.revision()), (0, 4));
    let two = machine.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete("b", "\0") });
    assert_eq!((two.deleted, two.header.unwrap().revision), (2, 5));
    let keys: Vec<_> = two.prev_kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!(keys, [b"b", b"c"]);
    machine.put(put("b", "again"));
    let row = machine.get("b").unwrap();
    assert_eq!((row.create_revision, row.version), (6, 1));
}

/// KV-03, KV-09, KV-11, G-001.
#[test]
fn a_limit_cuts_rows_and_not_the_count() {
    let mut machine = Machine::new();
    for key in ["a", "b", "c"] {
        machine.put(put(key, "v"));
    }
    let read = |request| machine.reads().range(Authorized::own(&request)).unwrap();
    let two = read(pb::RangeRequest { limit: 2, ..range("a", "\0") });
    assert_eq!((keys(&two).concat(), two.more, two.count), ("ab".to_owned(), true, 3));
    assert_eq!(two.revision, 4);
    let all = read(pb::RangeRequest { limit: 3, ..range("a", "\0") });
    assert_eq!((all.rows.len(), all.more), (3, false));
    let old = read(pb::RangeRequest { revision: 2, limit: 1, ..range("a", "\0") });
    assert_eq!((keys(&old).concat(), old.more, old.count), ("a".to_owned(), false, 1));
    assert_eq!(old.revision, 4);
    let count = read(pb::RangeRequest { count_only: true, limit: 1, ..range("a", "\0") });
    assert_eq!((count.rows.len(), count.more, count.count), (0, false, 3));
    let negative = read(pb::RangeRequest { revision: -3, ..range("a", "\0") });
    assert_eq!(negative.count, 3);
}

/// KV-05, KV-06: equal rows keep the order of their keys in both directions.
#[test]
fn rows_are_sorted_before_they_are_cut() {
    let mut machine = Machine::new();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "3"), ("d", "1")] {
        machine.put(put(key, value));
    }
    let sorted = |target: SortTarget, order: SortOrder, limit| {
        let request = pb::RangeRequest {
            sort_target: target as i32,
            sort_order: order as i32,
            limit,
            ..range("a", "\0")
        };
        let reply = machine.reads().range(Authorized::own(&request)).unwrap();
        assert_eq!(reply.count, 4);
        assert_eq!(reply.more, limit != 0);
        keys(&reply).concat()
    };
    assert_eq!(sorted(SortTarget::Key, SortOrder::Descend, 0), "dcba");
    assert_eq!(sorted(SortTarget::Key, SortOrder::Descend, 1), "d");
    assert_eq!(sorted(SortTarget::Value, SortOrder::Ascend, 0), "bdca");
    assert_eq!(sorted(SortTarget::Value, SortOrder::Descend, 0), "acbd");
    assert_eq!(sorted(SortTarget::Version, SortOrder::Descend, 2), "ab");
    assert_eq!(sorted(SortTarget::Create, SortOrder::Descend, 3), "dcb");
    assert_eq!(sorted(SortTarget::Mod, SortOrder::Ascend, 3), "bca");
    assert_eq!(sorted(SortTarget::Value, SortOrder::None, 0), "bdca");
    // etcd takes the first `limit + 1` rows by key when no order is given.
    assert_eq!(sorted(SortTarget::Value, SortOrder::None, 1), "b");
    assert_eq!(sorted(SortTarget::Mod, SortOrder::None, 1), "b");
    assert_eq!(sorted(SortTarget::Create, SortOrder::None, 2), "ab");
}

/// KV-10.
#[test]
fn filters_leave_the_count_alone() {
    let mut machine = Machine::new();
    for key in ["a", "b", "c", "a"] {
        machine.put(put(key, "v"));
    }
    let read = |request| {
        let reply = machine.reads().range(Authorized::own(&request)).unwrap();
        assert_eq!(reply.count, 3);
        (keys(&reply).concat(), reply.more)
    };
    let all = || range("a", "\0");
    assert_eq!(read(pb::RangeRequest { min_mod_revision: 4, ..all() }), ("ac".to_owned(), false));
    assert_eq!(read(pb::RangeRequest { max_mod_revision: 4, ..all() }), ("bc".to_owned(), false));
    assert_eq!(
        read(pb::RangeRequest { max_mod_revision: 4, limit: 1, ..all() }),
        ("b".to_owned(), true)
    );
    assert_eq!(
        read(pb::RangeRequest { min_create_revision: 3, max_create_revision: 3, ..all() }),
        ("b".to_owned(), false)
    );
}

/// KV-08.
#[test]
fn keys_only_leaves_values_out() {
    let mut machine = Machine::new();
    machine.done(grant(5, 60));
    machine.put(pb::PutRequest { lease: 5, ..put("a", "2") });
    machine.put(put("b", "1"));
    let request = pb::RangeRequest { keys_only: true, ..range("a", "\0") };
    let plain = machine.reads().range(Authorized::own(&request)).unwrap();
    let row = plain.rows[0].decode();
    assert_eq!((&row.key[..], row.value.len(), row.lease, row.mod_revision), (&b"a"[..], 0, 0, 2));
    let by_value = pb::RangeRequest { sort_target: SortTarget::Value as i32, ..request };
    let sorted = machine.reads().range(Authorized::own(&by_value)).unwrap();
    assert_eq!(keys(&sorted).concat(), "ba");
    let row = sorted.rows[1].decode();
    assert_eq!((row.value.len(), row.lease), (0, 5));
}

/// KV-04, KV-29, KV-31, E-09, E-10.
#[test]
fn compaction_moves_the_oldest_readable_revision() {
    let mut machine = Machine::new();
    for value in ["1", "2", "3"] {
        machine.put(put("k", value));
    }
    assert_eq!(machine.refused(compact(5)), Refusal::FutureRevision);
    let Reply::Compact(reply) = machine.done(compact(3)) else { panic!() };
    assert_eq!(reply.header.unwrap().revision, 4);
    assert_eq!(machine.refused(compact(3)), Refusal::Compacted);
    let at = |revision| {
        let request = pb::RangeRequest { revision, ..range("k", "") };
        machine.reads().range(Authorized::own(&request)).map(|reply| reply.rows[0].decode().value)
    };
    assert_eq!(at(2), Err(Refusal::Compacted));
    assert_eq!(at(3), Ok("2".into()));
    assert_eq!(at(5), Err(Refusal::FutureRevision));
    machine.reopen();
    assert_eq!(machine.refused(compact(3)), Refusal::Compacted);
}
