//! Leases, alarms, members and versions as entries change them, and as a restart finds them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use backend::Bucket;
use base::{LeaseId, MemberId};
use pb::AlarmType::{Corrupt, Nospace};
use pb::alarm_request::AlarmAction::{Activate, Deactivate, Get};
use prost::Message as _;
use proto::raftpb::ConfChangeType;
use proto::{etcdserverpb as pb, leasepb, v2pb};
use state::auth::gate::Authorized;
use state::members::{ChangeContext, MemberObject};
use state::{Applied, Halt, MemberChange, Payload, Refusal, Reply};
use support::{
    Machine, add, alarm, checkpoint, cluster_version, compact, delete, grant, internal,
    internal_delete, internal_put, internal_txn, log, member_change, position, put, range, revoke,
    txn, voter,
};

fn leased(key: &str, lease: i64) -> Payload {
    internal_put(pb::PutRequest { lease, ..put(key, "v") })
}

fn attached(machine: &Machine, id: i64) -> Vec<String> {
    let keys = machine.reads().lease(LeaseId(id), true).unwrap().keys;
    keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
}

/// L-01, L-02, L-03, L-04: E-12, E-13, E-14.
#[test]
fn a_lease_gets_at_least_the_shortest_time() {
    let mut machine = Machine::new();
    for (id, asked, given) in
        [(1, -5, 2), (2, 1, 2), (3, 100, 100), (4, 9_000_000_000, 9_000_000_000)]
    {
        let Reply::LeaseGrant(reply) = machine.done(grant(id, asked)) else { panic!() };
        assert_eq!((reply.id, reply.ttl, reply.error.as_str()), (id, given, ""));
        assert_eq!(reply.header.unwrap().revision, 1);
    }
    assert_eq!(machine.refused(grant(5, 9_000_000_001)), Refusal::LeaseTtlTooLarge);
    assert_eq!(machine.refused(grant(1, 10)), Refusal::LeaseExists);
    assert_eq!(machine.refused(grant(0, 10)), Refusal::LeaseNotFound);
    assert_eq!(machine.reads().leases(), [1, 2, 3, 4].map(LeaseId));
    let stored = machine.backend.get(Bucket::Lease, &3_i64.to_be_bytes()).unwrap().unwrap();
    let expected = leasepb::Lease { id: 3, ttl: 100, remaining_ttl: 0 };
    assert_eq!(leasepb::Lease::decode(stored).unwrap(), expected);
}

/// L-13, L-08.
#[test]
fn a_key_hangs_on_the_lease_of_its_last_put() {
    let mut machine = Machine::new();
    machine.done(grant(1, 60));
    machine.done(grant(2, 60));
    for key in ["c", "a", "b"] {
        machine.done(leased(key, 1));
    }
    assert_eq!(attached(&machine, 1), ["a", "b", "c"]);
    machine.done(leased("a", 2));
    machine.put(put("b", "v"));
    machine.delete(delete("c", ""));
    assert_eq!(attached(&machine, 1), [""; 0]);
    assert_eq!(attached(&machine, 2), ["a"]);
    assert_eq!(machine.refused(leased("a", 3)), Refusal::LeaseNotFound);
    machine.done(leased("d", 1));
    machine.reopen();
    assert_eq!(attached(&machine, 1), ["d"]);
    assert_eq!(attached(&machine, 2), ["a"]);
}

/// L-05, E-12: one revision, keys in byte order.
#[test]
fn a_revoke_takes_the_keys_along() {
    let mut machine = Machine::new();
    machine.done(grant(1, 60));
    for key in ["b", "a\0", "a"] {
        machine.done(leased(key, 1));
    }
    let Reply::LeaseRevoke(LeaseId(1), reply) = machine.done(revoke(1)) else { panic!() };
    assert_eq!(reply.header.unwrap().revision, 5);
    assert_eq!(machine.reads().range(Authorized::own(&range("a", "\0"))).unwrap().count, 0);
    assert_eq!(machine.reads().lease(LeaseId(1), false), None);
    let deleted: Vec<_> = machine
        .contents()
        .into_iter()
        .filter(|(bucket, key, _)| *bucket == Bucket::Key && key.len() == 18)
        .map(|(_, key, value)| {
            (key[8 + 1 + 7], proto::mvccpb::KeyValue::decode(value).unwrap().key)
        })
        .collect();
    assert_eq!(deleted, [(0, "a".into()), (1, "a\0".into()), (2, "b".into())]);
    assert_eq!(machine.backend.get(Bucket::Lease, &1_i64.to_be_bytes()).unwrap(), None);
    assert_eq!(machine.refused(revoke(1)), Refusal::LeaseNotFound);
    machine.done(grant(2, 60));
    machine.done(revoke(2));
    assert_eq!(machine.revision(), 5);
}

/// L-12, interop 6.4: the rest is stored from 3.6 on.
#[test]
fn checkpoints_are_kept_by_members_that_know_them() {
    let mut machine = Machine::new();
    machine.done(grant(1, 600));
    machine.done(checkpoint(1, 300));
    machine.done(checkpoint(9, 300));
    let remaining =
        |machine: &Machine| machine.state.leases_for_promotion()[0].remaining_ttl_seconds;
    assert_eq!(remaining(&machine), 300);
    machine.reopen();
    assert_eq!(remaining(&machine), 600);
    machine.done(cluster_version("3.7.0"));
    machine.done(checkpoint(1, 200));
    machine.reopen();
    assert_eq!(remaining(&machine), 200);
    assert_eq!(machine.state.leases_for_promotion()[0].granted_ttl_seconds, 600);
    machine.done(checkpoint(1, 0));
    assert_eq!(remaining(&machine), 600);
}

/// M-01.
#[test]
fn alarms_are_raised_and_disarmed_one_by_one() {
    let mut machine = Machine::new();
    let mut request = |action, member, kind| {
        let Reply::Alarm(reply) = machine.done(alarm(action, member, kind)) else { panic!() };
        assert_eq!(reply.header.unwrap().revision, 1);
        reply.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect::<Vec<_>>()
    };
    assert_eq!(request(Activate, 2, Nospace), [(2, Nospace)]);
    assert_eq!(request(Activate, 2, Nospace), [(2, Nospace)]);
    assert_eq!(request(Activate, 1, Corrupt), [(1, Corrupt)]);
    assert_eq!(request(Activate, 1, pb::AlarmType::None), []);
    assert_eq!(request(Get, 0, pb::AlarmType::None), [(1, Corrupt), (2, Nospace)]);
    assert_eq!(request(Get, 7, Nospace), [(2, Nospace)]);
    assert_eq!(request(Deactivate, 1, Nospace), []);
    assert_eq!(request(Deactivate, 1, Corrupt), [(1, Corrupt)]);
    let rows: Vec<_> =
        machine.contents().into_iter().filter(|(bucket, _, _)| *bucket == Bucket::Alarm).collect();
    let key = pb::AlarmMember { member_id: 2, alarm: Nospace as i32 }.encode_to_vec();
    assert_eq!(rows, [(Bucket::Alarm, key.into(), "".into())]);
    machine.reopen();
    assert_eq!(machine.reads().alarms().len(), 1);
}

/// KV-36, KV-38, E-11.
#[test]
fn without_space_only_what_frees_it_is_done() {
    let mut machine = Machine::new();
    machine.done(grant(1, 60));
    machine.put(put("k", "v"));
    machine.done(alarm(Activate, 3, Nospace));
    let put_op = || pb::request_op::Request::RequestPut(put("k", "w"));
    assert_eq!(machine.refused(internal_put(put("k", "w"))), Refusal::NoSpace);
    assert_eq!(machine.refused(grant(2, 60)), Refusal::NoSpace);
    // The dearer branch counts, nested ones too, whether it is taken or not.
    let untaken = txn(vec![], vec![], vec![put_op()]);
    assert_eq!(machine.refused(internal_txn(untaken.clone())), Refusal::NoSpace);
    let nested = txn(vec![], vec![pb::request_op::Request::RequestTxn(untaken)], vec![]);
    assert_eq!(machine.refused(internal_txn(nested)), Refusal::NoSpace);
    assert_eq!(machine.delete(delete("k", "")).deleted, 1);
    machine.txn(txn(
        vec![],
        vec![pb::request_op::Request::RequestDeleteRange(delete("k", ""))],
        vec![],
    ));
    machine.done(compact(2));
    machine.done(revoke(1));
    assert!(machine.reads().range(Authorized::own(&range("k", ""))).is_ok());
    machine.done(alarm(Deactivate, 3, Nospace));
    machine.put(put("k", "w"));
}

/// KV-37, E-54.
#[test]
fn a_corrupt_cluster_serves_no_keys() {
    let mut machine = Machine::new();
    machine.done(grant(1, 60));
    machine.done(alarm(Activate, 3, Corrupt));
    machine.done(alarm(Activate, 3, Nospace));
    for payload in [
        internal_put(put("k", "w")),
        internal_delete(delete("k", "")),
        internal_txn(txn(vec![], vec![], vec![])),
        compact(1),
        grant(2, 60),
        revoke(1),
    ] {
        assert_eq!(machine.refused(payload), Refusal::Corrupt);
    }
    // As etcd answers them.
    assert!(machine.reads().range(Authorized::own(&range("k", ""))).is_ok());
    assert!(machine.reads().txn(Authorized::own(&txn(vec![], vec![], vec![]))).is_ok());
    machine.done(checkpoint(1, 5));
}

/// CB-34, CB-36, C-01, C-03, C-06, C-07, CB-18.
#[test]
fn members_come_and_go_by_entries() {
    let mut machine = Machine::new();
    let (applied, change) = machine.change(add(voter(1, "http://a")));
    let Applied::Done(Reply::Members(members)) = applied else { panic!() };
    assert_eq!((members.len(), change), (1, MemberChange::AddVoter(MemberId(1))));
    let learner = MemberObject { is_learner: true, ..voter(2, "http://b") };
    assert_eq!(machine.change(add(learner)).1, MemberChange::AddLearner(MemberId(2)));
    let (applied, change) = machine.change(add(voter(3, "http://b")));
    assert_eq!(applied, Applied::Refused(Refusal::PeerUrlExists));
    assert_eq!(change, MemberChange::None);
    let promotion = ChangeContext::promotion(MemberId(2));
    let promote = member_change(ConfChangeType::ConfChangeAddNode, 2, Some(promotion));
    assert_eq!(machine.change(promote).1, MemberChange::AddVoter(MemberId(2)));
    let moved = ChangeContext::of(voter(2, "http://c"));
    let update = member_change(ConfChangeType::ConfChangeUpdateNode, 2, Some(moved));
    assert_eq!(machine.change(update).1, MemberChange::None);
    let remove = member_change(ConfChangeType::ConfChangeRemoveNode, 1, None);
    assert_eq!(machine.change(remove.clone()).1, MemberChange::Remove(MemberId(1)));
    assert_eq!(machine.change(remove).0, Applied::Refused(Refusal::MemberNotFound));
    machine.reopen();
    let members = machine.reads().members();
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].id, &members[0].peer_ur_ls[..]), (2, &["http://c".to_owned()][..]));
    assert_eq!(machine.state.removed_members(), [MemberId(1)]);
    let row = machine.backend.get(Bucket::MembersRemoved, b"1").unwrap();
    assert_eq!(row.as_deref(), Some(&b"removed"[..]));
    let conf_state = machine.backend.get(Bucket::Meta, b"confState").unwrap().unwrap();
    assert_eq!(&conf_state[..], br#"{"voters":[2],"auto_leave":false}"#);
}

/// CB-40, CB-54: as 3.6 and later write them, and as older ones did (interop 6.3).
#[test]
fn members_publish_themselves_and_agree_on_a_version() {
    let mut machine = Machine::new();
    machine.change(add(voter(0xab, "http://a")));
    let attributes = proto::membershippb::Attributes {
        name: "m0".to_owned(),
        client_urls: vec!["http://client".to_owned()],
    };
    let set = |member_id| {
        internal(pb::InternalRaftRequest {
            cluster_member_attr_set: Some(proto::membershippb::ClusterMemberAttrSetRequest {
                member_id,
                member_attributes: Some(attributes.clone()),
            }),
            ..Default::default()
        })
    };
    machine.done(set(0xab));
    machine.done(set(0xcd));
    assert_eq!(machine.reads().members()[0].name, "m0");
    assert_eq!(machine.reads().cluster_version(), None);
    let v2 = |path: &str, value: &str| {
        let request = v2pb::Request {
            id: Some(1),
            method: Some("PUT".to_owned()),
            path: Some(path.to_owned().into()),
            val: Some(value.to_owned().into()),
            ..Default::default()
        };
        Payload::Request(request.encode_to_vec().into())
    };
    machine.done(v2("/0/version", "3.5.0"));
    assert_eq!(machine.backend.get(Bucket::Meta, b"storageVersion").unwrap(), None);
    machine.done(v2("/0/members/ab/attributes", r#"{"name":"m1","clientURLs":["http://new"]}"#));
    let Reply::V2(Ok(event)) = machine.done(v2("/1/user/key", "value")) else { panic!() };
    // The member, its attributes twice, and the version; the stranger's do not count.
    assert_eq!(event.index, 5);
    machine.reopen();
    let node = machine.reads().v2().get("/1/user/key", false, 0).unwrap().node;
    assert_eq!((node.value.as_deref(), node.modified), (Some("value"), 5));
    assert_eq!(machine.reads().cluster_version().as_deref(), Some("3.5.0"));
    let member = machine.reads().members().pop().unwrap();
    assert_eq!((member.name.as_str(), member.client_ur_ls), ("m1", vec!["http://new".to_owned()]));
    machine.done(cluster_version("3.7.0"));
    machine.done(cluster_version("nonsense"));
    assert_eq!(machine.reads().cluster_version().as_deref(), Some("3.7.0"));
    let storage_version = machine.backend.get(Bucket::Meta, b"storageVersion").unwrap();
    assert_eq!(storage_version.as_deref(), Some(&b"3.7.0"[..]));
}

/// CB-59: a key of the v2 generation ends when the leader's clock, which stands in an entry, says
/// so; a member's own clock, which is far beyond that, says nothing.
#[test]
fn a_v2_key_ends_by_the_clock_in_the_log() {
    let mut machine = Machine::new();
    let request = |method: &str, time: i64, expiration: i64| {
        let request = v2pb::Request {
            id: Some(1),
            method: Some(method.to_owned()),
            path: Some("/1/a".into()),
            val: Some("value".into()),
            time: Some(time),
            expiration: Some(expiration),
            ..Default::default()
        };
        Payload::Request(request.encode_to_vec().into())
    };
    // An end before the year 2000 is none.
    let second = 1_000_000_000;
    let began = 1_700_000_000 * second;
    machine.done(request("PUT", began + 90 * second, began + 100 * second));
    machine.applied(request("SYNC", began + 99 * second, 0));
    assert!(machine.reads().v2().get("/1/a", false, 0).is_ok());
    machine.applied(request("SYNC", began + 100 * second, 0));
    assert!(machine.reads().v2().get("/1/a", false, 0).is_err());
}

/// G4: what did nothing, or was refused, moves the applied index too; what was applied is skipped.
#[test]
fn every_entry_advances_the_applied_index_once() {
    let mut machine = Machine::new();
    let outcomes = machine.batch(vec![
        Payload::Nothing,
        internal_put(pb::PutRequest { lease: 9, ..put("k", "v") }),
        Payload::Request("".into()),
        internal_put(put("k", "v")),
    ]);
    let ids: Vec<_> = outcomes.iter().map(|outcome| outcome.request_id).collect();
    assert_eq!(ids, [0, 7, 0, 7]);
    assert_eq!(machine.backend.applied(), position(4));
    assert_eq!(machine.state.applied(), position(4));
    let again = log(3, vec![internal_put(put("k", "w")); 3]);
    let mut outcomes = Vec::new();
    machine.state.apply(&again, &mut outcomes).unwrap();
    assert_eq!((outcomes.len(), machine.revision()), (1, 3));
    machine.state.apply(&again, &mut outcomes).unwrap();
    assert_eq!((outcomes.len(), machine.revision()), (1, 3));
}

#[test]
fn an_entry_that_is_not_known_stops_the_member_behind_the_ones_before() {
    let mut machine = Machine::new();
    let unknown = Payload::Request(vec![0xc2, 0xb8, 0x02, 0x00].into());
    let entries = [internal_put(put("k", "v")), unknown, internal_put(put("k", "w"))];
    let entries = log(1, entries);
    let mut outcomes = Vec::new();
    let halt = machine.state.apply(&entries, &mut outcomes).unwrap_err();
    assert!(matches!(halt, Halt::Unknown { position: at } if at == position(2)));
    assert_eq!((outcomes.len(), machine.revision()), (1, 2));
    assert_eq!(machine.state.applied(), position(1));
    assert_eq!(machine.backend.applied(), position(1));
}
