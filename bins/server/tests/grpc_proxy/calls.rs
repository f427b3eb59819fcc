//! Calls of every service, their errors, and who makes them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use client::{Client, Options};
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb::request_op::Request as Operation;
use proto::v3electionpb::election_client::ElectionClient;
use proto::v3lockpb::lock_client::LockClient;
use proto::{etcdserverpb as pb, v3electionpb, v3lockpb};
use retcd_conformance::{Server, ServerOptions, real_etcd};
use tonic::Code;

use super::{
    OURS, PATIENCE, Proxy, Raw, create, events, get, put, serve, soon, text, upstreams, watch,
};

/// SRV-179, SRV-180: calls of every service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_through() -> anyhow::Result<()> {
    for program in upstreams() {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let proxy = Proxy::start(folder.path(), &server, &[])?;
        let client = proxy.client().await?;
        client.put(put("k", "1")).await?;
        let before = client.put(pb::PutRequest { prev_kv: true, ..put("k", "2") }).await?;
        assert_eq!(text(&before.prev_kv.unwrap().value), "1");
        let read = client.get(get("k")).await?;
        assert_eq!(text(&read.kvs[0].value), "2");
        let then = pb::RequestOp { request: Some(Operation::RequestPut(put("t", "3"))) };
        let inner = pb::TxnRequest { success: vec![then], ..Default::default() };
        let inner = pb::RequestOp { request: Some(Operation::RequestTxn(inner)) };
        let read = pb::RequestOp { request: Some(Operation::RequestRange(get("k"))) };
        let txn = pb::TxnRequest { success: vec![inner, read], ..Default::default() };
        let done = client.txn(txn).await?;
        assert!(done.succeeded && done.responses.len() == 2);
        let delete = pb::DeleteRangeRequest { key: "t".into(), ..Default::default() };
        assert_eq!(client.delete(delete).await?.deleted, 1);
        let revision = client.get(get("k")).await?.header.unwrap().revision;
        let compaction = pb::CompactionRequest { revision, physical: true };
        client.compact(compaction).await?;
        let old = pb::RangeRequest { revision: 1, ..get("k") };
        let error = client.get(old).await.unwrap_err().to_string();
        assert_eq!(error, "etcdserver: mvcc: required revision has been compacted");
        let error = client.put(put("", "x")).await.unwrap_err().to_string();
        assert_eq!(error, "etcdserver: key is not provided");
        leases(&client).await?;
        others(&client, &proxy).await?;
    }
    Ok(())
}

async fn leases(client: &Client) -> anyhow::Result<()> {
    let grant = pb::LeaseGrantRequest { ttl: 60, ..Default::default() };
    let lease = client.lease_grant(grant).await?.id;
    client.put(pb::PutRequest { lease, ..put("leased", "x") }).await?;
    let renewed = client.lease_keep_alive_once(lease).await?;
    assert_eq!((renewed.id, renewed.ttl), (lease, 60));
    let ask = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    let told = client.lease_time_to_live(ask).await?;
    assert_eq!((told.granted_ttl, told.keys), (60, vec![Bytes::from_static(b"leased")]));
    let all = client.lease_leases(pb::LeaseLeasesRequest {}).await?;
    assert_eq!(all.leases.len(), 1);
    client.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await?;
    assert!(client.get(get("leased")).await?.kvs.is_empty());
    let error = client.lease_keep_alive_once(lease).await.unwrap_err().to_string();
    assert_eq!(error, "etcdserver: requested lease not found");
    Ok(())
}

/// Locks, elections, maintenance, users, members.
async fn others(client: &Client, proxy: &Proxy) -> anyhow::Result<()> {
    let channel = client.connection().channel;
    let grant = pb::LeaseGrantRequest { ttl: 60, ..Default::default() };
    let lease = client.lease_grant(grant).await?.id;
    let mut locks = LockClient::new(channel.clone());
    let lock = v3lockpb::LockRequest { name: "l".into(), lease };
    let key = locks.lock(lock).await?.into_inner().key;
    locks.unlock(v3lockpb::UnlockRequest { key }).await?;
    let mut elections = ElectionClient::new(channel.clone());
    let (name, value) = (Bytes::from_static(b"e"), Bytes::from_static(b"me"));
    let campaign = v3electionpb::CampaignRequest { name: name.clone(), lease, value };
    elections.campaign(campaign).await?;
    let mut observed = elections.observe(v3electionpb::LeaderRequest { name }).await?.into_inner();
    let leader = soon(observed.message()).await??.context("a leader")?;
    assert_eq!(leader.kv.unwrap().value, "me");
    let status = client.status(pb::StatusRequest {}).await?;
    assert!(status.leader != 0 && status.db_size > 0);
    let alarm = pb::AlarmRequest::default();
    assert!(client.alarm(alarm).await?.alarms.is_empty());
    let mut snapshots = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let mut pieces = snapshots.snapshot(pb::SnapshotRequest {}).await?.into_inner();
    let mut bytes = 0;
    while let Some(piece) = soon(pieces.message()).await?? {
        bytes += piece.blob.len();
    }
    assert_eq!(bytes % 512, 32, "a database and its digest");
    let add =
        pb::AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() };
    client.user_add(add.clone()).await?;
    let error = client.user_add(add).await.unwrap_err().to_string();
    assert_eq!(error, "etcdserver: user name already exists");
    // SRV-180.
    let members = client.member_list(pb::MemberListRequest { linearizable: true }).await?;
    let [member] = &members.members[..] else { bail!("{members:?}") };
    assert_eq!((member.id, &member.client_ur_ls), (0, &vec![proxy.endpoint()]));
    let promote = pb::MemberPromoteRequest { id: 1 };
    let error = client.member_promote(promote).await.unwrap_err().to_string();
    assert_eq!(error, "rpc error: code = Unknown desc = not implemented");
    let mut stub = pb::kv_client::KvClient::new(channel);
    let refused = stub.range_stream(get("k")).await.err().context("refused")?;
    assert_eq!(refused.message(), "RangeStream is not supported by the gRPC proxy");
    assert_eq!(refused.code(), Code::Unimplemented);
    Ok(())
}

/// What went wrong in a row of calls, and what clients see of it.
async fn misuse(proxy: &Proxy) -> anyhow::Result<Vec<String>> {
    let client = proxy.client().await?;
    let mut told = Vec::new();
    let mut note = |error: client::Error| told.push(error.to_string());
    note(client.put(put("", "x")).await.unwrap_err());
    note(client.put(pb::PutRequest { lease: 77, ..put("k", "x") }).await.unwrap_err());
    note(client.put(pb::PutRequest { ignore_value: true, ..put("no", "") }).await.unwrap_err());
    note(client.put(put("k", &"x".repeat(1_572_863))).await.unwrap_err());
    note(client.get(pb::RangeRequest { revision: 1 << 40, ..get("k") }).await.unwrap_err());
    note(client.get(get("")).await.unwrap_err());
    let twice = || pb::RequestOp { request: Some(Operation::RequestPut(put("k", "x"))) };
    let txn = pb::TxnRequest { success: vec![twice(), twice()], ..Default::default() };
    note(client.txn(txn).await.unwrap_err());
    let future = pb::CompactionRequest { revision: 1 << 40, physical: false };
    note(client.compact(future).await.unwrap_err());
    note(client.lease_revoke(pb::LeaseRevokeRequest { id: 77 }).await.unwrap_err());
    let grant = pb::LeaseGrantRequest { ttl: 1 << 40, ..Default::default() };
    note(client.lease_grant(grant).await.unwrap_err());
    note(client.auth_enable(pb::AuthEnableRequest {}).await.unwrap_err());
    let user = pb::AuthUserGetRequest { name: "nobody".into() };
    note(client.user_get(user).await.unwrap_err());
    note(client.member_remove(pb::MemberRemoveRequest { id: 77 }).await.unwrap_err());
    note(client.member_promote(pb::MemberPromoteRequest { id: 77 }).await.unwrap_err());
    note(client.move_leader(pb::MoveLeaderRequest { target_id: 77 }).await.unwrap_err());
    let ttl = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
    told.push(client.lease_time_to_live(ttl).await?.ttl.to_string());
    let mut raw = Raw::open(proxy).await?;
    for wanted in [
        pb::WatchCreateRequest { start_revision: -1, ..create("k") },
        pb::WatchCreateRequest { range_end: "a".into(), ..create("k") },
    ] {
        raw.create(wanted).await?;
        let response = raw.next().await?;
        told.push(format!("{} {} {}", response.watch_id, response.created, response.canceled));
    }
    Ok(told)
}

/// SRV-180: errors are those of etcd's own proxy, each before a server of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_those_of_etcds_proxy() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let ours = Proxy::start(folder.path(), &server, &[])?;
    let etcds = Proxy::of(&real.join("etcd"), folder.path(), &server, &[])?;
    assert_eq!(misuse(&ours).await?, misuse(&etcds).await?);
    Ok(())
}

/// Debian's `etcdctl` through our proxy.
#[test]
fn etcds_own_tool_works_through_it() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let run = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(real.join("etcdctl"))
            .env_clear()
            .args(["--endpoints", &proxy.endpoint(), "--command-timeout", "60s"])
            .args(arguments)
            .current_dir(folder.path())
            .output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    };
    assert_eq!(run(&["put", "k", "v"])?, "OK\n");
    assert_eq!(run(&["get", "k"])?, "k\nv\n");
    assert!(run(&["member", "list"])?.contains(&format!(", {}, false", proxy.endpoint())));
    assert!(run(&["endpoint", "status"])?.contains("true"));
    assert!(run(&["endpoint", "hashkv"])?.starts_with(&proxy.endpoint()));
    assert_eq!(run(&["user", "add", "u:p"])?, "User u created\n");
    assert_eq!(run(&["role", "add", "r"])?, "Role r created\n");
    let granted = run(&["lease", "grant", "100"])?;
    let id = granted.split(' ').nth(1).context("an id")?;
    assert_eq!(
        run(&["lease", "keep-alive", "--once", id])?,
        format!("lease {id} keepalived with TTL(100)\n")
    );
    assert_eq!(run(&["lock", "l", "/bin/echo", "held"])?, "held\n");
    assert!(run(&["snapshot", "save", "copy.db"])?.contains("copy.db"));
    assert!(folder.path().join("copy.db").is_file());
    assert_eq!(run(&["del", "k"])?, "1\n");
    Ok(())
}

/// Reliability 6.1: everybody is who their token says, whatever others were answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_borrows_the_token_of_another() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = vec!["--bcrypt-cost=4".to_owned()];
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let client = proxy.client().await?;
    for name in ["root", "alice", "bob"] {
        let password = format!("word-of-{name}");
        let user = pb::AuthUserAddRequest { name: name.into(), password, ..Default::default() };
        client.user_add(user).await?;
    }
    for name in ["root", "writer"] {
        client.role_add(pb::AuthRoleAddRequest { name: name.into() }).await?;
    }
    let perm = Permission {
        perm_type: Type::Readwrite.into(),
        key: Bytes::from_static(b"a"),
        range_end: Bytes::new(),
    };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "writer".into(), perm: Some(perm) };
    client.role_grant_permission(grant).await?;
    for (user, role) in [("root", "root"), ("alice", "writer")] {
        let (user, role) = (user.into(), role.into());
        client.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await?;
    }
    client.auth_enable(pb::AuthEnableRequest {}).await?;
    let (alice, bob) =
        (login(&proxy.endpoint(), "alice").await?, login(&proxy.endpoint(), "bob").await?);
    alice.put(put("a", "secret")).await?;
    let old = pb::RangeRequest { serializable: true, ..get("a") };
    let mut watching = alice.watch(watch("a", 2));
    assert_eq!(events(&mut watching, 1).await?, ["a=secret@2"]);
    assert_eq!(alice.get(old.clone()).await?.count, 1);
    for (who, why) in
        [(&bob, "etcdserver: permission denied"), (&client, "etcdserver: user name is empty")]
    {
        assert_eq!(who.get(old.clone()).await.unwrap_err().to_string(), why);
        let mut refused = who.watch(watch("a", 2));
        let response = soon(refused.next()).await?.context("an end")??;
        assert!(response.canceled && response.cancel_reason == why, "{response:?}");
    }
    Ok(())
}

async fn login(endpoint: &str, user: &str) -> anyhow::Result<Client> {
    let mut options = Options::new(vec![endpoint.to_owned()]);
    let (user, password) = (user.to_owned(), format!("word-of-{user}"));
    options.credentials = Some(client::Credentials::Password { user, password });
    Ok(Client::connect(options.with_command_timeout(Some(PATIENCE))).await?)
}
