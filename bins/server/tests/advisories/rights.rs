//! Requests that got around the check of permissions: forgotten calls, nested forms, other names
//! for the same range, and checks that were lost on the way.

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use tonic::{Code, Status};

use super::{Caller, LONG, protect, start};

const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";

/// Cheap hashes: the tests are about what they guard.
const CHEAP: &str = "--bcrypt-cost=4";

fn key(key: &str) -> Bytes {
    Bytes::from(key.to_owned())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, text: &str) {
    let status = answer.expect_err(what);
    assert_eq!(status.message(), text, "{what}");
}

fn put(name: &str) -> pb::PutRequest {
    pb::PutRequest { key: key(name), ..Default::default() }
}

fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn txn(request: pb::request_op::Request) -> pb::TxnRequest {
    pb::TxnRequest { success: vec![operation(request)], ..Default::default() }
}

/// CVE-2026-33413: calls that etcd guarded late or not at all.
#[tokio::test]
async fn calls_that_were_forgotten_are_guarded() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let callers = protect(&server).await?;
    let (alice, nobody) = (&callers.alice, &callers.nobody);

    let mut cluster = ClusterClient::new(nobody.channel.clone());
    let list = || pb::MemberListRequest { linearizable: true };
    refused("MemberList", cluster.member_list(nobody.ask(list())).await, NOBODY);
    cluster.member_list(alice.ask(list())).await?;

    let mut maintenance = MaintenanceClient::new(nobody.channel.clone());
    let alarm = |action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: 0,
        alarm: pb::AlarmType::Nospace.into(),
    };
    let raise = || alarm(pb::alarm_request::AlarmAction::Activate);
    refused("Alarm", maintenance.alarm(nobody.ask(raise())).await, NOBODY);
    refused("Alarm", maintenance.alarm(alice.ask(raise())).await, DENIED);
    let listed = alarm(pb::alarm_request::AlarmAction::Get);
    let alarms = maintenance.alarm(callers.root.ask(listed)).await?.into_inner().alarms;
    assert!(alarms.is_empty(), "a refused alarm is raised: {alarms:?}");

    let mut kv = KvClient::new(nobody.channel.clone());
    let compact = || pb::CompactionRequest { revision: 1, physical: false };
    refused("Compact", kv.compact(nobody.ask(compact())).await, NOBODY);
    refused("Compact", kv.compact(alice.ask(compact())).await, DENIED);

    let mut leases = LeaseClient::new(nobody.channel.clone());
    let grant = || pb::LeaseGrantRequest { ttl: 60, id: 7 };
    refused("LeaseGrant", leases.lease_grant(nobody.ask(grant())).await, NOBODY);
    leases.lease_grant(callers.root.ask(grant())).await?;
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    refused("LeaseRevoke", leases.lease_revoke(nobody.ask(revoke)).await, NOBODY);
    let all = pb::LeaseLeasesRequest {};
    refused("LeaseLeases", leases.lease_leases(nobody.ask(all)).await, NOBODY);
    let live = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
    refused("LeaseTimeToLive", leases.lease_time_to_live(nobody.ask(live)).await, NOBODY);
    let alive = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
    let answer = match leases.lease_keep_alive(nobody.ask(alive)).await {
        Ok(stream) => stream.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    refused("LeaseKeepAlive", answer, NOBODY);
    Ok(())
}

/// CVE-2023-32082: a lease tells the names of its keys only to who may read them.
#[tokio::test]
async fn a_lease_does_not_tell_keys_that_may_not_be_read() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let callers = protect(&server).await?;
    let (root, alice) = (&callers.root, &callers.alice);
    let mut leases = LeaseClient::new(root.channel.clone());
    let mut kv = KvClient::new(root.channel.clone());
    leases.lease_grant(root.ask(pb::LeaseGrantRequest { ttl: 600, id: 7 })).await?;
    kv.put(root.ask(pb::PutRequest { lease: 7, ..put("secret") })).await?;
    let asked = |keys: bool| alice.ask(pb::LeaseTimeToLiveRequest { id: 7, keys });
    refused("keys", leases.lease_time_to_live(asked(true)).await, DENIED);
    let live = leases.lease_time_to_live(asked(false)).await?.into_inner();
    assert!(live.keys.is_empty());
    refused(
        "revoke",
        leases.lease_revoke(alice.ask(pb::LeaseRevokeRequest { id: 7 })).await,
        DENIED,
    );
    Ok(())
}

/// CVE-2026-33343, CVE-2026-44283: what a transaction holds is looked at however deep it is, with
/// every field that reads or changes something else than its key.
#[tokio::test]
async fn what_is_nested_is_looked_at() -> anyhow::Result<()> {
    use pb::request_op::Request as Op;
    let (server, _folder) = start(&[CHEAP])?;
    let callers = protect(&server).await?;
    let (root, alice) = (&callers.root, &callers.alice);
    let mut kv = KvClient::new(root.channel.clone());
    let mut leases = LeaseClient::new(root.channel.clone());
    kv.put(root.ask(put("secret"))).await?;
    leases.lease_grant(root.ask(pb::LeaseGrantRequest { ttl: 600, id: 7 })).await?;
    kv.put(root.ask(pb::PutRequest { lease: 7, ..put("secret") })).await?;
    let delete = pb::DeleteRangeRequest { key: key("secret"), ..Default::default() };
    let range = pb::RangeRequest { key: key("secret"), ..Default::default() };
    // A lease whose other keys are somebody else's.
    let attach = pb::PutRequest { lease: 7, ..put("a/1") };
    for request in [
        Op::RequestRange(range.clone()),
        Op::RequestPut(put("secret")),
        Op::RequestDeleteRange(delete),
        Op::RequestPut(attach),
    ] {
        let mut nested = txn(request);
        for depth in 0..4 {
            let answer = kv.txn(alice.ask(nested.clone())).await;
            refused(&format!("{depth}: {nested:?}"), answer, DENIED);
            // What would not be done is no less asked for.
            let other = pb::TxnRequest { failure: nested.success.clone(), ..Default::default() };
            refused(&format!("{depth}, failure"), kv.txn(alice.ask(other)).await, DENIED);
            nested = txn(Op::RequestTxn(nested));
        }
    }
    let compare = pb::Compare {
        key: key("secret"),
        target: pb::compare::CompareTarget::Version.into(),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let guess = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    refused("compare", kv.txn(alice.ask(guess)).await, DENIED);
    // And what she may do in the same forms, she can.
    let own =
        txn(Op::RequestTxn(txn(Op::RequestPut(pb::PutRequest { prev_kv: true, ..put("a/1") }))));
    kv.txn(alice.ask(own)).await?;
    Ok(())
}

/// CVE-2026-73499: a watch of everything from a key on is more than a watch of that key, in
/// whatever way it is written.
#[tokio::test]
async fn a_watch_of_all_that_follows_is_looked_at_as_such() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let callers = protect(&server).await?;
    let alice: &Caller = &callers.alice;
    let mut watches = WatchClient::new(alice.channel.clone());
    for (range_end, may) in [
        (&b""[..], true),
        (b"a0", true),
        (b"\0", false),
        (b"b", false),
        (b"\xFF\xFF\xFF\xFF", false),
    ] {
        let create = pb::WatchCreateRequest {
            key: key("a/"),
            range_end: Bytes::from_static(range_end),
            ..Default::default()
        };
        let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
        let requests = tokio_stream::iter([pb::WatchRequest { request_union }]);
        let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
        let mut request = alice.ask(requests);
        request.set_timeout(LONG);
        let mut replies = watches.watch(request).await?.into_inner();
        let reply = replies.message().await?.expect("a watch is answered");
        assert_eq!(!reply.canceled, may, "{range_end:?}: {reply:?}");
        if !may {
            assert!(reply.cancel_reason.contains("permission denied"), "{reply:?}");
        }
    }
    Ok(())
}

/// The fix of 2026 to etcd 3.5: raising NOSPACE there built the appliers anew, without auth.
#[tokio::test]
async fn an_alarm_does_not_switch_the_checks_off() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let callers = protect(&server).await?;
    let (root, alice, nobody) = (&callers.root, &callers.alice, &callers.nobody);
    let mut maintenance = MaintenanceClient::new(root.channel.clone());
    let raise = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: 0,
        alarm: pb::AlarmType::Nospace.into(),
    };
    maintenance.alarm(root.ask(raise)).await?;
    let mut kv = KvClient::new(root.channel.clone());
    let range = |name: &str| pb::RangeRequest { key: key(name), ..Default::default() };
    let delete = |name: &str| pb::DeleteRangeRequest { key: key(name), ..Default::default() };
    refused("range", kv.range(alice.ask(range("secret"))).await, DENIED);
    refused("delete", kv.delete_range(alice.ask(delete("secret"))).await, DENIED);
    refused("range", kv.range(nobody.ask(range("a/1"))).await, NOBODY);
    kv.delete_range(alice.ask(delete("a/1"))).await?;
    let full = kv.put(alice.ask(put("a/1"))).await.expect_err("there is no space");
    assert_eq!(full.code(), Code::ResourceExhausted);
    Ok(())
}
