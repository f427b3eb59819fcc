//! `etcd grpc-proxy start` (SRV-176..181): our proxy before our server and before real etcd, and
//! real etcd's proxy beside ours where there is one.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use certificates::{Authority, Holder};
use client::{Client, Options, WatchOptions, Watcher};
use proto::authpb::{Permission, permission::Type};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::v3electionpb::{self, election_client::ElectionClient};
use proto::v3lockpb::{self, lock_client::LockClient};
use retcd_conformance::{Server, ServerOptions, ask, real_etcd};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A proxy, ended with the test.
struct Proxy {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // What is gone already needs no end.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Proxy {
    /// Starts our proxy before a server and waits until it serves.
    fn start(folder: &Path, upstream: &Server, flags: &[&str]) -> anyhow::Result<Self> {
        Self::of(Path::new(OURS), folder, upstream, flags)
    }

    fn of(
        program: &Path,
        folder: &Path,
        upstream: &Server,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        for _ in 0..3 {
            if let Some(proxy) = Self::try_start(program, folder, &upstream.endpoint(), flags)? {
                return Ok(proxy);
            }
        }
        bail!("somebody takes every port");
    }

    fn try_start(
        program: &Path,
        folder: &Path,
        upstream: &str,
        flags: &[&str],
    ) -> anyhow::Result<Option<Self>> {
        let port = ports::free()?;
        let log = folder.join(format!("proxy-{port}"));
        let out = File::create(&log)?;
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program)
            .env_clear()
            .args(["grpc-proxy", "start", "--endpoints", upstream])
            .args(["--listen-addr", &address, "--advertise-client-url", &address])
            .args(flags)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let mut proxy = Self { child, port, log };
        let began = Instant::now();
        while !proxy.log().contains("\"started gRPC proxy\"") {
            if let Some(status) = proxy.child.try_wait()? {
                if proxy.log().contains("address already in use") {
                    return Ok(None);
                }
                bail!("it ended with {status}:\n{}", proxy.log());
            }
            ensure!(began.elapsed() < PATIENCE, "it does not start:\n{}", proxy.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(proxy))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn endpoint(&self) -> String {
        self.address().to_string()
    }

    async fn client(&self) -> anyhow::Result<Client> {
        connect(&self.endpoint()).await
    }

    /// The value of one of its numbers.
    fn number(&self, name: &str) -> anyhow::Result<f64> {
        number(&ask(self.address(), "GET", "/proxy/metrics", "")?.body, name)
    }
}

fn number(metrics: &str, name: &str) -> anyhow::Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name}"))?.parse()?)
}

async fn connect(endpoint: &str) -> anyhow::Result<Client> {
    let options = Options::new(vec![endpoint.to_owned()]);
    Ok(Client::connect(options.with_command_timeout(Some(PATIENCE))).await?)
}

async fn eventually<F>(mut check: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let began = Instant::now();
    while !check().await? {
        ensure!(began.elapsed() < PATIENCE, "it does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn soon<T>(awaited: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, awaited).await.context("it does not happen")
}

fn serve(folder: &Path) -> anyhow::Result<Server> {
    Server::start(Path::new(OURS), folder, ServerOptions::default())
}

/// Programs that our proxy stands before.
fn upstreams() -> Vec<PathBuf> {
    let real = real_etcd("3.5").map(|folder| folder.join("etcd"));
    [PathBuf::from(OURS)].into_iter().chain(real).collect()
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The next events of a watch, as `key=value@revision`.
async fn events(watcher: &mut Watcher, count: usize) -> anyhow::Result<Vec<String>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let response = soon(watcher.next()).await?.context("the watch ended")??;
        ensure!(!response.canceled, "cancelled: {}", response.cancel_reason);
        for event in response.events {
            let pair = event.kv.context("every event has a pair")?;
            seen.push(format!("{}={}@{}", text(&pair.key), text(&pair.value), pair.mod_revision));
        }
    }
    Ok(seen)
}

fn watch(key: &str, start_revision: i64) -> WatchOptions {
    let key = Bytes::copy_from_slice(key.as_bytes());
    WatchOptions { key, start_revision, ..WatchOptions::default() }
}

/// A stream of watches as it is on the wire.
struct Raw {
    requests: mpsc::Sender<pb::WatchRequest>,
    /// Go's servers open it with the first answer.
    responses: mpsc::Receiver<Result<pb::WatchResponse, tonic::Status>>,
}

impl Raw {
    async fn open(proxy: &Proxy) -> anyhow::Result<Self> {
        let (requests, receiver) = mpsc::channel(1024);
        let (told, responses) = mpsc::channel(1);
        let channel = proxy.client().await?.connection().channel;
        tokio::spawn(async move {
            let mut stub = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
            let opened = stub.watch(ReceiverStream::new(receiver)).await;
            let mut stream: Streaming<pb::WatchResponse> = match opened {
                Ok(opened) => opened.into_inner(),
                Err(status) => return drop(told.send(Err(status)).await),
            };
            while let Some(response) = stream.message().await.transpose() {
                if told.send(response).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { requests, responses })
    }

    async fn create(&self, request: pb::WatchCreateRequest) -> anyhow::Result<()> {
        self.ask(RequestUnion::CreateRequest(request)).await
    }

    async fn ask(&self, request: RequestUnion) -> anyhow::Result<()> {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.context("the stream is gone")
    }

    async fn next(&mut self) -> anyhow::Result<pb::WatchResponse> {
        Ok(soon(self.responses.recv()).await?.context("the stream ended")??)
    }
}

fn create(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

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

/// SRV-179, SRV-181: a hundred watches of a key are one at the member, and each sees everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watches_are_one() -> anyhow::Result<()> {
    for program in upstreams() {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let proxy = Proxy::start(folder.path(), &server, &[])?;
        let direct = connect(&server.endpoint()).await?;
        direct.put(put("k", "old")).await?;
        let mut raw = Raw::open(&proxy).await?;
        let (count, last) = (100_i64, 21_i64);
        for number in 0..count {
            let old = number % 10 == 0;
            let start_revision = if old { 2 } else { 0 };
            raw.create(pb::WatchCreateRequest { start_revision, ..create("k") }).await?;
        }
        let (mut created, mut seen) = (0, vec![Vec::new(); 100]);
        let mut written = false;
        while created < count || seen.iter().any(|seen: &Vec<i64>| seen.last() != Some(&last)) {
            let response = raw.next().await?;
            ensure!(!response.canceled, "{response:?}");
            created += i64::from(response.created);
            let of = &mut seen[usize::try_from(response.watch_id)?];
            of.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
            if created == count && !std::mem::replace(&mut written, true) {
                for _ in 3..=last {
                    direct.put(put("k", "new")).await?;
                }
            }
        }
        for (number, seen) in seen.iter().enumerate() {
            let first = if number % 10 == 0 { 2 } else { 3 };
            assert_eq!(*seen, (first..=last).collect::<Vec<_>>(), "watch {number}");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.client_port()));
        eventually(async || {
            let metrics = ask(address, "GET", "/metrics", "")?.body;
            Ok(number(&metrics, "etcd_debugging_mvcc_watcher_total")? == 1.0)
        })
        .await?;
        assert_eq!(proxy.number("etcd_grpc_proxy_watchers_coalescing_total")?, 99.0);
        assert!(proxy.number("etcd_grpc_proxy_events_coalescing_total")? >= 99.0);
        drop(raw);
        eventually(async || {
            let metrics = ask(address, "GET", "/metrics", "")?.body;
            Ok(number(&metrics, "etcd_debugging_mvcc_watcher_total")? == 0.0)
        })
        .await?;
        assert_eq!(proxy.number("etcd_grpc_proxy_watchers_coalescing_total")?, 0.0);
    }
    Ok(())
}

/// SRV-179: what one watch asks for is not what another one gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_get_what_they_ask_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let client = proxy.client().await?;
    client.put(put("k", "1")).await?;
    let mut raw = Raw::open(&proxy).await?;
    let mut ids = Vec::new();
    for wanted in [
        pb::WatchCreateRequest { prev_kv: true, ..create("k") },
        pb::WatchCreateRequest { filters: vec![0], ..create("k") },
        pb::WatchCreateRequest { watch_id: 77, ..create("k") },
    ] {
        raw.create(wanted).await?;
        let response = raw.next().await?;
        assert!(response.created && response.header.unwrap().revision == 2, "{response:?}");
        ids.push(response.watch_id);
    }
    assert_eq!(ids, [0, 1, 77]);
    client.put(put("k", "2")).await?;
    client.delete(pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }).await?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let response = raw.next().await?;
        for event in response.events {
            let before = event.prev_kv.map(|pair| text(&pair.value));
            let revision = event.kv.unwrap().mod_revision;
            seen.push((response.watch_id, revision, before));
        }
    }
    seen.sort();
    let before = |value: &str| Some(value.to_owned());
    let expected =
        [(0, 3, before("1")), (0, 4, before("2")), (1, 4, None), (77, 3, None), (77, 4, None)];
    assert_eq!(seen, expected);
    // Progress, the end, and what cannot be watched.
    raw.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await?;
    let response = raw.next().await?;
    assert_eq!((response.watch_id, response.header.unwrap().revision), (-1, 4));
    raw.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })).await?;
    let response = raw.next().await?;
    assert!(response.canceled && response.watch_id == 1, "{response:?}");
    client.compact(pb::CompactionRequest { revision: 4, physical: true }).await?;
    raw.create(pb::WatchCreateRequest { start_revision: 2, ..create("k") }).await?;
    // It may be told that it exists before.
    let mut response = raw.next().await?;
    if !response.canceled {
        response = raw.next().await?;
    }
    assert!(response.canceled && response.compact_revision == 4, "{response:?}");
    raw.create(pb::WatchCreateRequest { range_end: "a".into(), ..create("k") }).await?;
    let response = raw.next().await?;
    assert!(response.created && response.canceled && response.watch_id == -1, "{response:?}");
    Ok(())
}

/// SRV-179: a watch goes on, and misses nothing, when the member comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_be_away() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let client = proxy.client().await?;
    let mut raw = Raw::open(&proxy).await?;
    raw.create(create("k")).await?;
    assert!(raw.next().await?.created);
    client.put(put("k", "1")).await?;
    assert_eq!(raw.next().await?.events.len(), 1);
    server.kill()?;
    let once = client.with_command_timeout(Some(Duration::from_secs(2)));
    let error = once.put(put("k", "lost")).await.unwrap_err().to_string();
    assert!(error.contains("connection refused") || error.contains("deadline"), "{error}");
    let health = ask(proxy.address(), "GET", "/health", "")?;
    assert_eq!(health.status, 503);
    assert!(health.body.starts_with("{\"health\":\"false\",\"reason\":\"GET ERROR:"), "{health:?}");
    server.restart(Path::new(OURS))?;
    let direct = connect(&server.endpoint()).await?;
    direct.put(put("k", "2")).await?;
    let response = raw.next().await?;
    assert_eq!(text(&response.events[0].kv.as_ref().unwrap().value), "2");
    client.put(put("k", "3")).await?;
    assert_eq!(text(&raw.next().await?.events[0].kv.as_ref().unwrap().value), "3");
    let health = ask(proxy.address(), "GET", "/health", "")?;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
    Ok(())
}

/// Bounded memory: who does not read is behind and holds nobody up; it misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_nobody_up() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let mut idle = Raw::open(&proxy).await?;
    idle.create(create("k")).await?;
    assert!(idle.next().await?.created);
    let mut quick = Raw::open(&proxy).await?;
    quick.create(create("k")).await?;
    assert!(quick.next().await?.created);
    let client = proxy.client().await?;
    let (value, count) = ("x".repeat(64 << 10), 600);
    for _ in 0..count {
        client.put(put("k", &value)).await?;
        assert_eq!(quick.next().await?.events.len(), 1);
    }
    let mut next = 2;
    while next < 2 + count {
        for event in idle.next().await?.events {
            assert_eq!(event.kv.unwrap().mod_revision, next);
            next += 1;
        }
    }
    Ok(())
}

/// SRV-179: a part of the keys as if it were all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_all_that_clients_see() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &["--namespace", "app/"])?;
    let (client, direct) = (proxy.client().await?, connect(&server.endpoint()).await?);
    direct.put(put("zzz", "not mine")).await?;
    direct.put(put("aaa", "not mine")).await?;
    let mut watcher = client.watch(WatchOptions { range_end: "\0".into(), ..watch("\0", 4) });
    client.put(put("k", "1")).await?;
    assert_eq!(events(&mut watcher, 1).await?, ["k=1@4"]);
    let all = client.get(pb::RangeRequest { range_end: "\0".into(), ..get("\0") }).await?;
    assert_eq!(all.kvs.iter().map(|pair| text(&pair.key)).collect::<Vec<_>>(), ["k"]);
    assert_eq!(direct.get(get("app/k")).await?.count, 1);
    let compare = pb::Compare {
        key: "k".into(),
        target: pb::compare::CompareTarget::Version.into(),
        result: pb::compare::CompareResult::Equal.into(),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true };
    let delete = pb::RequestOp { request: Some(Operation::RequestDeleteRange(delete)) };
    let txn =
        pb::TxnRequest { compare: vec![compare], success: vec![delete], ..Default::default() };
    let done = client.txn(txn).await?;
    let Some(pb::response_op::Response::ResponseDeleteRange(deleted)) = &done.responses[0].response
    else {
        bail!("{done:?}");
    };
    assert_eq!(deleted.prev_kvs[0].key, "k");
    assert_eq!(direct.get(get("zzz")).await?.count + direct.get(get("aaa")).await?.count, 2);
    Ok(())
}

/// SRV-179, SRV-181: reads that may be old come from memory until something is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_answers_are_kept_until_a_write() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let (client, direct) = (proxy.client().await?, connect(&server.endpoint()).await?);
    client.put(put("k", "1")).await?;
    let old = || pb::RangeRequest { serializable: true, ..get("k") };
    let value = async |client: &Client| anyhow::Ok(text(&client.get(old()).await?.kvs[0].value));
    assert_eq!(value(&client).await?, "1");
    // By another way: the proxy does not hear of it.
    direct.put(put("k", "2")).await?;
    assert_eq!(value(&client).await?, "1");
    assert_eq!(proxy.number("etcd_grpc_proxy_cache_hits_total")?, 1.0);
    assert_eq!(proxy.number("etcd_grpc_proxy_cache_misses_total")?, 1.0);
    assert_eq!(text(&client.get(get("k")).await?.kvs[0].value), "2");
    client.put(put("k", "3")).await?;
    assert_eq!(value(&client).await?, "3");
    assert_eq!(proxy.number("etcd_grpc_proxy_cache_keys_total")?, 1.0);
    Ok(())
}

/// SRV-179: two proxies that own keys; nobody reads what was overwritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owned_keys_are_given_up_for_a_write() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let flags = ["--experimental-leasing-prefix", "leased/"];
    let one = Proxy::start(folder.path(), &server, &flags)?;
    let two = Proxy::start(folder.path(), &server, &flags)?;
    let (one, two) = (one.client().await?, two.client().await?);
    let direct = connect(&server.endpoint()).await?;
    one.put(put("k", "0")).await?;
    // It owns the key as soon as it has a session.
    eventually(async || {
        one.get(get("k")).await?;
        Ok(direct.get(get("leased/k")).await?.count == 1)
    })
    .await?;
    // Past the owners: this is what they must not be asked for.
    direct.put(put("k", "unseen")).await?;
    assert_eq!(text(&one.get(get("k")).await?.kvs[0].value), "0");
    for number in 1..20 {
        let value = number.to_string();
        let (writer, reader) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        writer.put(put("k", &value)).await?;
        assert_eq!(text(&reader.get(get("k")).await?.kvs[0].value), value);
        assert_eq!(text(&writer.get(get("k")).await?.kvs[0].value), value);
    }
    let all =
        pb::DeleteRangeRequest { key: "a".into(), range_end: "l".into(), ..Default::default() };
    assert_eq!(one.delete(all).await?.deleted, 1);
    assert_eq!(two.get(get("k")).await?.count, 0);
    let then = pb::RequestOp { request: Some(Operation::RequestPut(put("k", "last"))) };
    let txn = pb::TxnRequest { success: vec![then], ..Default::default() };
    assert!(two.txn(txn).await?.succeeded);
    assert_eq!(text(&one.get(get("k")).await?.kvs[0].value), "last");
    Ok(())
}

/// SRV-179, SRV-180: proxies that know each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registered_proxies_are_members() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let flags = ["--resolver-prefix", "___proxies", "--resolver-ttl", "60"];
    let one = Proxy::start(folder.path(), &server, &flags)?;
    let two = Proxy::start(folder.path(), &server, &flags)?;
    let client = one.client().await?;
    let mut expected = vec![one.endpoint(), two.endpoint()];
    expected.sort();
    eventually(async || {
        let members = client.member_list(pb::MemberListRequest::default()).await?.members;
        let addresses: Vec<_> =
            members.into_iter().flat_map(|member| member.client_ur_ls).collect();
        Ok(addresses == expected)
    })
    .await?;
    let direct = connect(&server.endpoint()).await?;
    let key = format!("___proxies/{}", one.endpoint());
    let value = text(&direct.get(get(&key)).await?.kvs[0].value);
    let start =
        format!("{{\"Op\":0,\"Addr\":\"{}\",\"Metadata\":\"{{\\\"name\\\":", one.endpoint());
    assert!(value.starts_with(&start), "{value}");
    Ok(())
}

async fn login(endpoint: &str, user: &str) -> anyhow::Result<Client> {
    let mut options = Options::new(vec![endpoint.to_owned()]);
    let (user, password) = (user.to_owned(), format!("word-of-{user}"));
    options.credentials = Some(client::Credentials::Password { user, password });
    Ok(Client::connect(options.with_command_timeout(Some(PATIENCE))).await?)
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

/// The texts of a program that does not start, without what changes.
fn refusal(
    program: &Path,
    folder: &Path,
    arguments: &[&str],
) -> anyhow::Result<(String, Option<i32>)> {
    let output = Command::new(program)
        .env_clear()
        .args(["grpc-proxy", "start"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    let stderr = text(&output.stderr);
    let stderr: Vec<_> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    let first = stderr.first().copied().unwrap_or_default();
    Ok((first.to_owned(), output.status.code()))
}

/// SRV-176..179: what is refused, in etcd's words.
#[test]
fn wrong_flags_are_refused_as_etcd_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let real = real_etcd("3.5").map(|folder| folder.join("etcd"));
    for (arguments, expected) in [
        (vec!["--nope"], "Error: unknown flag: --nope"),
        (vec!["--endpoints"], "Error: flag needs an argument: --endpoints"),
        (vec!["--resolver-ttl", "5"], "invalid resolver-prefix \"\""),
        (vec!["--resolver-prefix", "a"], "invalid resolver-ttl 0"),
        (
            vec!["--resolver-prefix", "a", "--resolver-ttl", "1", "--advertise-client-url", ""],
            "invalid advertise-client-url \"\"",
        ),
        (
            vec!["--max-concurrent-streams", "4294967296"],
            "Error: invalid argument \"4294967296\" for \"--max-concurrent-streams\" flag: \
             strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            vec!["--tls-min-version", "TLS1.5"],
            "tls-min-version is invalid: unexpected TLS version \"TLS1.5\" (must be one of: \
             TLS1.2, TLS1.3)",
        ),
        (
            vec!["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            vec!["--auto-tls", "--self-signed-cert-validity", "0"],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (
            vec!["--listen-addr", "127.0.0.1"],
            "listen tcp: address 127.0.0.1: missing port in address",
        ),
        (
            vec!["--listen-addr", "192.0.2.1:1"],
            "listen tcp 192.0.2.1:1: bind: cannot assign requested address",
        ),
        (
            vec!["--listen-addr", "127.0.0.1:0", "--cert", "/nope"],
            "KeyFile and CertFile must both be present[key: , cert: /nope]",
        ),
    ] {
        let expected = (expected.to_owned(), Some(1));
        assert_eq!(refusal(Path::new(OURS), folder.path(), &arguments)?, expected);
        if let Some(real) = &real {
            assert_eq!(refusal(real, folder.path(), &arguments)?, expected, "etcd");
        }
    }
    Ok(())
}

/// SRV-176..179: every flag of etcd's is there with its default.
#[test]
fn help_names_every_flag_of_etcd() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let help = |program: &Path| -> anyhow::Result<String> {
        let output =
            Command::new(program).env_clear().args(["grpc-proxy", "start", "--help"]).output()?;
        Ok(text(&output.stdout))
    };
    let ours = help(Path::new(OURS))?;
    for line in help(&real.join("etcd"))?.lines() {
        assert!(ours.lines().any(|own| own == line), "{line}\n{ours}");
    }
    Ok(())
}

/// G24: a connection that never says anything does not stay.
#[test]
fn who_says_nothing_is_sent_away() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    for first in ["", "PRI"] {
        let mut silent = TcpStream::connect(proxy.address())?;
        silent.set_read_timeout(Some(PATIENCE))?;
        silent.write_all(first.as_bytes())?;
        ensure!(silent.read(&mut [0; 64])? == 0, "it was told something after {first:?}");
    }
    Ok(())
}

/// HTTP-15, SRV-180: the plain endpoints, on both ports.
#[test]
fn plain_endpoints_are_served() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let metrics_port = ports::free()?;
    let url = format!("http://127.0.0.1:{metrics_port}");
    let proxy = Proxy::start(folder.path(), &server, &["--metrics-addr", &url])?;
    for address in [proxy.address(), (Ipv4Addr::LOCALHOST, metrics_port).into()] {
        let metrics = ask(address, "GET", "/metrics", "")?;
        assert!(metrics.body.contains("etcd_server_has_leader 1"), "{metrics:?}");
        let own = ask(address, "GET", "/proxy/metrics", "")?;
        assert!(own.body.contains("\netcd_grpc_proxy_cache_hits_total "), "{own:?}");
        for path in ["/health", "/proxy/health"] {
            let health = ask(address, "GET", path, "")?;
            let expected = (200, r#"{"health":"true","reason":""}"#);
            assert_eq!((health.status, health.body.as_str()), expected, "{path}");
            assert_eq!(ask(address, "POST", path, "")?.status, 405);
        }
        let nothing = ask(address, "GET", "/v3/kv/range", "")?;
        assert_eq!((nothing.status, nothing.body.as_str()), (404, "404 page not found\n"));
    }
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

/// SRV-178, reliability 6.1: clients with certificates; the proxy's own must not name anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_have_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let authority = Authority::new("authority");
    let bundle = certificates::write(folder.path(), "authority.pem", authority.certificate());
    let bundle = bundle.to_str().context("a path of ours")?;
    let issue = |name: &str| -> anyhow::Result<(String, String)> {
        let pair = authority.issue(&Holder::new(name, &["127.0.0.1", "localhost"]));
        let (certificate, key) = pair.write(folder.path(), name);
        let text = |path: PathBuf| path.to_str().map(ToOwned::to_owned).context("a path of ours");
        Ok((text(certificate)?, text(key)?))
    };
    let (certificate, key) = issue("proxy")?;
    let flags = ["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", bundle];
    let proxy = Proxy::start(folder.path(), &server, &flags)?;
    let tls = client::TlsOptions {
        certificate: Some(certificate.clone().into()),
        key: Some(key.clone().into()),
        authorities: Some(bundle.into()),
        ..client::TlsOptions::default()
    };
    let options = |tls| {
        let options = Options::new(vec![format!("https://{}", proxy.endpoint())]);
        Options { tls: Some(tls), ..options }
    };
    let client = Client::connect(options(tls.clone()).with_command_timeout(Some(PATIENCE))).await?;
    client.put(put("k", "v")).await?;
    let nobody = client::TlsOptions { certificate: None, key: None, ..tls };
    let nobody = options(nobody).with_command_timeout(Some(Duration::from_secs(3)));
    assert!(Client::connect(nobody).await?.put(put("k", "v")).await.is_err());
    // For members.
    let flags = ["--listen-addr", "127.0.0.1:0", "--cert", &certificate, "--key", &key];
    let expected = format!("cert has non empty Common Name (proxy): {certificate}");
    assert_eq!(refusal(Path::new(OURS), folder.path(), &flags)?, (expected.clone(), Some(1)));
    if let Some(real) = real_etcd("3.5") {
        let program = real.join("etcd");
        assert_eq!(refusal(&program, folder.path(), &flags)?, (expected, Some(1)), "etcd");
    }
    // A certificate of its own.
    let proxy = Proxy::start(folder.path(), &server, &["--auto-tls"])?;
    assert!(folder.path().join("default.proxy/fixtures/proxy/cert.pem").is_file());
    let tls = client::TlsOptions { skip_verification: true, ..client::TlsOptions::default() };
    let options = Options::new(vec![format!("https://{}", proxy.endpoint())]);
    let options = Options { tls: Some(tls), ..options };
    let client = Client::connect(options.with_command_timeout(Some(PATIENCE))).await?;
    assert_eq!(client.get(get("k")).await?.count, 1);
    Ok(())
}
