//! What calls answer in states of a server that other tests do not look at: alone without a leader,
//! while it ends, under another name, over the data of a newer release.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use backend::{Backend, Batch, Bucket};
use bytes::Bytes;
use client::{Client, Options, WatchOptions};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::mvccpb::event::EventType;
use retcd_conformance::cluster::{Cluster, ClusterOptions, PATIENCE};
use retcd_conformance::{Ended, Keys, Server, ServerOptions, ask};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Streaming};
use vfs::OsDir;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

const NO_LEADER: &str = "etcdserver: no leader";

fn start(folder: &Path, flags: &[&str]) -> anyhow::Result<Server> {
    let options = ServerOptions { flags: flags.iter().map(|&flag| flag.to_owned()).collect() };
    Server::start(Path::new(OURS), folder, options)
}

async fn client(server: &Server) -> anyhow::Result<Client> {
    Ok(Client::connect(Options::new(vec![server.endpoint()])).await?)
}

fn put(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    let (key, value) = (key.as_bytes().to_vec().into(), value.as_bytes().to_vec().into());
    pb::PutRequest { key, value, lease, ..Default::default() }
}

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.as_bytes().to_vec().into(), ..Default::default() }
}

/// A watch of all keys as it comes from the wire; one that wants a leader ends without one.
async fn raw_watch(
    endpoint: String,
    wants_leader: bool,
) -> anyhow::Result<Streaming<pb::WatchResponse>> {
    let zero = Bytes::from_static(b"\0");
    let create =
        pb::WatchCreateRequest { key: zero.clone(), range_end: zero, ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut request = Request::new(tokio_stream::once(create).chain(tokio_stream::pending()));
    if wants_leader {
        request.metadata_mut().insert("hasleader", "true".parse()?);
    }
    let mut stream = WatchClient::connect(endpoint).await?.watch(request).await?.into_inner();
    let confirmed = stream.message().await?.context("the watch is confirmed")?;
    ensure!(confirmed.created && confirmed.watch_id == 0, "{confirmed:?}");
    Ok(stream)
}

/// M-02, M-04, M-05, M-06, KV-32: what a member says of its data, before and after they are put in
/// order.
#[tokio::test]
async fn a_member_tells_of_its_data() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path(), &["--quota-backend-bytes=100000000"])?;
    let client = client(&server).await?;
    for number in 0..200 {
        client.put(put(&format!("k{}", number % 10), &"x".repeat(2_000), 0)).await?;
    }
    let hash = async |revision| client.hash_kv(pb::HashKvRequest { revision }).await;
    let newest = hash(0).await?;
    ensure!(newest.compact_revision == -1 && newest.hash_revision == 201, "{newest:?}");
    ensure!(hash(201).await?.hash == newest.hash, "0 is the newest revision");
    ensure!(hash(200).await?.hash != newest.hash, "each revision has a hash of its own");
    let refused = hash(202).await.unwrap_err();
    ensure!(refused.is("etcdserver: mvcc: required revision is a future revision"), "{refused}");
    client.compact(pb::CompactionRequest { revision: 190, physical: true }).await?;
    let refused = hash(100).await.unwrap_err();
    ensure!(refused.is("etcdserver: mvcc: required revision has been compacted"), "{refused}");
    let compacted = hash(0).await?;
    ensure!(compacted.compact_revision == 190 && compacted.hash_revision == 201, "{compacted:?}");

    let before = client.status(pb::StatusRequest {}).await?;
    ensure!(before.version == "3.7.1" && before.storage_version == "3.7.0", "{before:?}");
    ensure!(before.db_size_quota == 100_000_000 && !before.is_learner, "{before:?}");
    ensure!(before.leader != 0 && before.raft_term != 0 && before.errors.is_empty(), "{before:?}");
    ensure!(before.raft_applied_index <= before.raft_index, "{before:?}");
    ensure!(0 < before.db_size_in_use && before.db_size_in_use < before.db_size, "{before:?}");
    let downgrade = before.downgrade_info.context("the downgrade is always told of")?;
    ensure!(!downgrade.enabled && downgrade.target_version.is_empty(), "{downgrade:?}");
    client.defragment(pb::DefragmentRequest {}).await?;
    let after = client.status(pb::StatusRequest {}).await?;
    ensure!(after.db_size < before.db_size, "{after:?}");
    ensure!(hash(0).await?.hash == compacted.hash, "defragmenting changes no data");
    let maintenance = MaintenanceClient::connect(server.endpoint()).await?;
    let whole = async || {
        let answer = maintenance.clone().hash(pb::HashRequest {}).await;
        answer.map(|answer| answer.into_inner().hash)
    };
    let (first, again) = (whole().await?, whole().await?);
    client.put(put("k0", "y", 0)).await?;
    ensure!(first == again && first != whole().await?, "the hash is that of the whole database");
    Ok(())
}

/// G-015, G-022, M-03, W-17, V2-096: who has lost the others still answers for itself, and says
/// what it lacks for the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_leader_answers_for_itself() -> anyhow::Result<()> {
    let options = ClusterOptions::default();
    let mut cluster = Cluster::start(&[Path::new(OURS); 3], options).await?;
    cluster.await_leader(&[0, 1, 2]).await?;
    let everyone = cluster.client(&[]).await?;
    let began = Instant::now();
    while let Err(error) = everyone.put(put("k", "v", 0)).await {
        ensure!(began.elapsed() < PATIENCE, "{error}");
    }
    let left = cluster.client(&[0]).await?;
    let local = pb::RangeRequest { serializable: true, ..range("k") };
    while left.get(local.clone()).await?.count == 0 {
        ensure!(began.elapsed() < PATIENCE, "m0 does not apply");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let endpoint = cluster.member(0).direct_endpoint();
    let mut wants_leader = raw_watch(endpoint.clone(), true).await?;
    let mut wants_none = raw_watch(endpoint, false).await?;
    cluster.kill(1)?;
    cluster.kill(2)?;
    let ended = loop {
        match tokio::time::timeout(PATIENCE, wants_leader.message()).await? {
            Ok(Some(_)) => {}
            Ok(None) => bail!("the watch ends without a reason"),
            Err(status) => break status,
        }
    };
    ensure!(ended.code() == Code::Unavailable && ended.message() == NO_LEADER, "{ended:?}");
    let quiet = tokio::time::timeout(Duration::from_millis(500), wants_none.message()).await;
    ensure!(quiet.is_err(), "who wants no leader goes on: {quiet:?}");

    let found = left.get(local).await.context("a serializable read needs nobody")?;
    ensure!(found.count == 1, "{found:?}");
    let status = left.status(pb::StatusRequest {}).await.context("a status needs nobody")?;
    ensure!(status.leader == 0 && status.errors == [NO_LEADER], "{status:?}");
    left.hash_kv(pb::HashKvRequest { revision: 0 }).await.context("nor does a hash")?;
    left.defragment(pb::DefragmentRequest {}).await.context("nor defragmenting")?;
    let mut snapshot = left.snapshot().await.context("nor a snapshot")?;
    while snapshot.next().await?.is_some() {}
    let keys = Keys::of(&cluster.member(0).direct_endpoint())?;
    let (read, written) = tokio::join!(keys.get("k"), keys.put("k", "w"));
    for refused in [read.unwrap_err(), written.unwrap_err()] {
        let late = refused.message().starts_with("etcdserver: request timed out");
        ensure!(late || refused.message() == NO_LEADER, "{refused:?}");
        ensure!(refused.code() == Code::Unavailable, "{refused:?}");
    }
    Ok(())
}

/// W-21: a watch ends with its server; who resumes behind what it saw misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_its_server_ended() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = start(folder.path(), &[])?;
    let keys = Keys::of(&server.endpoint())?;
    let mut raw = raw_watch(server.endpoint(), false).await?;
    let zero = Bytes::from_static(b"\0");
    let (key, range_end, start_revision) = (zero.clone(), zero, 1);
    let options = WatchOptions { key, range_end, start_revision, ..Default::default() };
    let mut watcher = client(&server).await?.watch(options);
    let first = keys.put("a", "1").await?;
    let mut seen = Vec::new();
    let mut next = async |seen: &mut Vec<i64>| -> anyhow::Result<()> {
        let told = tokio::time::timeout(PATIENCE, watcher.next()).await?;
        let told = told.context("the watch goes on")??;
        seen.extend(told.events.iter().flat_map(|event| &event.kv).map(|kv| kv.mod_revision));
        Ok(())
    };
    while seen.is_empty() {
        next(&mut seen).await?;
    }
    server.stop()?;
    let ended = loop {
        match tokio::time::timeout(PATIENCE, raw.message()).await? {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    ensure!(!matches!(ended, Ok(Some(_))), "a server that ended sends nothing: {ended:?}");
    server.restart(Path::new(OURS))?;
    let began = Instant::now();
    for key in ["b", "c"] {
        while let Err(error) = keys.put(key, "2").await {
            ensure!(began.elapsed() < PATIENCE, "{error}");
        }
    }
    while seen.len() < 3 {
        next(&mut seen).await?;
    }
    ensure!(seen == [first, first + 1, first + 2], "{seen:?}");
    Ok(())
}

/// W-22: what a lease takes with it is one transaction, whether it is revoked or runs out.
#[tokio::test]
async fn a_lease_takes_its_keys_with_it_in_one_revision() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path(), &[])?;
    let client = client(&server).await?;
    let mut watch = raw_watch(server.endpoint(), false).await?;
    for (id, ttl) in [(7, 600), (8, 1)] {
        client.lease_grant(pb::LeaseGrantRequest { ttl, id }).await?;
        for key in ["x", "y", "z"] {
            client.put(put(key, "v", id)).await?;
        }
        if id == 7 {
            client.lease_revoke(pb::LeaseRevokeRequest { id }).await?;
        }
        let mut gone = Vec::new();
        while gone.len() < 3 {
            let told = tokio::time::timeout(PATIENCE, watch.message()).await??;
            let events = told.context("the watch goes on")?.events;
            let deletions = events.iter().filter(|event| event.r#type() == EventType::Delete);
            gone.extend(deletions.flat_map(|event| event.kv.clone()));
        }
        let keys: Vec<&[u8]> = gone.iter().map(|kv| &kv.key[..]).collect();
        ensure!(keys == [b"x", b"y", b"z"], "{gone:?}");
        ensure!(gone.iter().all(|kv| kv.mod_revision == gone[0].mod_revision), "{gone:?}");
    }
    Ok(())
}

/// HTTP-24: who only looks how a server is needs no name, whatever users there are.
#[tokio::test]
async fn health_and_metrics_need_no_login() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path(), &[])?;
    let client = client(&server).await?;
    let root = "root".to_owned();
    let add =
        pb::AuthUserAddRequest { name: root.clone(), password: root.clone(), ..Default::default() };
    client.user_add(add).await?;
    client.role_add(pb::AuthRoleAddRequest { name: root.clone() }).await?;
    client.user_grant_role(pb::AuthUserGrantRoleRequest { user: root.clone(), role: root }).await?;
    client.auth_enable(pb::AuthEnableRequest {}).await?;
    let refused = client.get(range("k")).await.unwrap_err();
    ensure!(refused.is("etcdserver: user name is empty"), "{refused}");
    let address = server.endpoint().trim_start_matches("http://").parse()?;
    for path in ["/health", "/livez", "/readyz", "/metrics", "/version"] {
        let answer = ask(address, "GET", path, "")?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    Ok(())
}

/// HTTP-37, VER-12: members' port is not for clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_of_members_takes_no_calls() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[Path::new(OURS)], ClusterOptions::default()).await?;
    let keys = Keys::of(cluster.member(0).peer_url())?;
    let refused = keys.put("k", "v").await.unwrap_err();
    ensure!(refused.code() != Code::Ok, "{refused:?}");
    let keys = Keys::of(&cluster.member(0).direct_endpoint())?;
    ensure!(keys.get("k").await?.is_none(), "nothing was written");
    Ok(())
}

/// CB-22: a member may take another name; the others learn it.
#[tokio::test]
async fn a_member_may_change_its_name() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = start(folder.path(), &[])?;
    let id = client(&server).await?.status(pb::StatusRequest {}).await?.header.map(|h| h.member_id);
    server.stop()?;
    server.add_flags(&["--name", "another"]);
    server.restart(Path::new(OURS))?;
    let client = client(&server).await?;
    let began = Instant::now();
    loop {
        let members =
            client.member_list(pb::MemberListRequest { linearizable: true }).await?.members;
        ensure!(members.len() == 1 && Some(members[0].id) == id, "{members:?}");
        if members[0].name == "another" {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{members:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// U4, VER-13, CB-58: the data of a newer release are left alone, with the way back named.
#[tokio::test]
async fn the_data_of_a_newer_release_are_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = start(folder.path(), &[])?;
    Keys::of(&server.endpoint())?.put("k", "v").await?;
    server.stop()?;
    let write = |version: &'static str| -> anyhow::Result<()> {
        let member = OsDir::open(server.data_dir().join("member"))?;
        let (snap, aux) = (member.subdir("snap")?, member.subdir("aux")?);
        let options = backend::Options { aux: Some(aux), ..backend::Options::default() };
        let backend = Backend::open(&snap, "db", &options)?;
        let mut batch = Batch::upkeep();
        batch.put(Bucket::Meta, b"storageVersion", Bytes::from_static(version.as_bytes()));
        backend.apply(batch);
        backend.commit()?;
        Ok(())
    };
    write("3.8.0")?;
    let refusal = Ended::refusal(&mut server.command())?;
    let parts = ["version \"3.8.0\" is not supported", "etcdctl downgrade enable 3.7.0", "/db"];
    for part in parts {
        ensure!(refusal.contains(part), "{part:?} is not in: {refusal}");
    }
    write("3.7.0")?;
    server.restart(Path::new(OURS))?;
    ensure!(Keys::of(&server.endpoint())?.get("k").await?.is_some(), "nothing is lost");
    Ok(())
}
