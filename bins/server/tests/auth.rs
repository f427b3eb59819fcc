//! Users, roles and permissions of running servers: alone, three together, with signed tokens, and
//! in a data directory that real etcd wrote.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use client::{Client, Credentials, Options};
use ports::free_address;
use proto::authpb::{Permission, permission::Type};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::v3electionpb::{self, election_client::ElectionClient};
use proto::v3lockpb::{self, lock_client::LockClient};
use retcd_conformance::cluster::{Cluster, ClusterOptions};
use retcd_conformance::{Server, ServerOptions, real_etcd};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// For anything that is awaited, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cheap hashes: the tests are about what they guard.
const CHEAP: &str = "--bcrypt-cost=4";

fn start(flags: &[&str]) -> anyhow::Result<(Server, tempfile::TempDir)> {
    Server::fresh(Path::new(OURS), flags)
}

async fn login(endpoint: &str, user: &str, password: &str) -> anyhow::Result<Client> {
    let credentials =
        Credentials::Password { user: user.to_owned(), password: password.to_owned() };
    let mut options = Options::new(vec![endpoint.to_owned()]);
    options.credentials = Some(credentials);
    options.dial_timeout = PATIENCE;
    Ok(Client::connect(options.with_command_timeout(Some(PATIENCE))).await?)
}

async fn anonymous(endpoint: &str) -> anyhow::Result<Client> {
    let options = Options::new(vec![endpoint.to_owned()]);
    Ok(Client::connect(options.with_command_timeout(Some(PATIENCE))).await?)
}

/// Makes root and alice, who may do everything under `a/`, and switches auth on.
async fn protect(endpoint: &str) -> anyhow::Result<()> {
    let client = anonymous(endpoint).await?;
    for (name, password) in [("root", "canary-of-root"), ("alice", "canary-of-alice")] {
        let request = pb::AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            ..Default::default()
        };
        client.user_add(request).await?;
    }
    for name in ["root", "writer"] {
        client.role_add(pb::AuthRoleAddRequest { name: name.into() }).await?;
    }
    let perm = Permission {
        perm_type: Type::Readwrite.into(),
        key: Bytes::from_static(b"a/"),
        range_end: Bytes::from_static(b"a0"),
    };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "writer".into(), perm: Some(perm) };
    client.role_grant_permission(grant).await?;
    for (user, role) in [("root", "root"), ("alice", "writer")] {
        let (user, role) = (user.into(), role.into());
        client.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await?;
    }
    client.auth_enable(pb::AuthEnableRequest {}).await?;
    Ok(())
}

async fn root(endpoint: &str) -> anyhow::Result<Client> {
    login(endpoint, "root", "canary-of-root").await
}

async fn alice(endpoint: &str) -> anyhow::Result<Client> {
    login(endpoint, "alice", "canary-of-alice").await
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: Bytes::from(key.to_owned()), ..Default::default() }
}

async fn token(endpoint: &str, name: &str, password: &str) -> Result<String, Status> {
    let channel = channel(endpoint).await;
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    Ok(AuthClient::new(channel).authenticate(request).await?.into_inner().token)
}

async fn channel(endpoint: &str) -> Channel {
    Channel::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap()
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", MetadataValue::try_from(token).unwrap());
    request
}

async fn put_with(endpoint: &str, key: &str, token: &str) -> Result<(), Status> {
    let mut kv = KvClient::new(channel(endpoint).await);
    kv.put(with_token(put(key), token)).await.map(drop)
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<T, client::Error>, text: &str) {
    let error = answer.unwrap_err();
    assert!(error.is(text), "{error} instead of {text}");
}

/// CB-75, CB-79, CB-80: who may, who may not, and that no password is kept
/// anywhere.
#[tokio::test]
async fn only_who_may_does() -> anyhow::Result<()> {
    let (mut server, _folder) = start(&[CHEAP])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let (root, alice, nobody) =
        (root(&endpoint).await?, alice(&endpoint).await?, anonymous(&endpoint).await?);
    alice.put(put("a/1")).await?;
    root.put(put("b/1")).await?;
    assert_refused(alice.put(put("b/1")).await, "etcdserver: permission denied");
    assert_refused(nobody.put(put("a/1")).await, "etcdserver: user name is empty");
    assert_refused(
        nobody.member_list(pb::MemberListRequest::default()).await,
        "etcdserver: user name is empty",
    );
    assert_refused(nobody.status(pb::StatusRequest {}).await, "etcdserver: user name is empty");
    assert_refused(nobody.txn(pb::TxnRequest::default()).await, "etcdserver: user name is empty");
    assert_refused(
        alice.hash_kv(pb::HashKvRequest { revision: 0 }).await,
        "etcdserver: permission denied",
    );
    let status = nobody.auth_status(pb::AuthStatusRequest {}).await?;
    ensure!(status.enabled && status.auth_revision == 8, "{status:?}");
    let wrong = token(&endpoint, "alice", "wrong").await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert_eq!(wrong.message(), "etcdserver: authentication failed, invalid user ID or password");
    let word = token(&endpoint, "alice", "canary-of-alice").await?;
    put_with(&endpoint, "a/2", &word).await?;
    put_with(&endpoint, "a/2", &format!("Bearer {word}")).await?;
    let denied = put_with(&endpoint, "a/2", "none.1").await.unwrap_err();
    assert_eq!(denied.code(), Code::Unauthenticated);
    assert_eq!(denied.message(), "etcdserver: invalid auth token");
    // a lock is its caller's writes.
    let mut locks = LockClient::new(channel(&endpoint).await);
    let lock = |name: &'static str| v3lockpb::LockRequest { name: name.into(), lease: 0 };
    locks.lock(with_token(lock("a/lock"), &word)).await?;
    let denied = locks.lock(with_token(lock("b/lock"), &word)).await.unwrap_err();
    assert_eq!(denied.message(), "etcdserver: permission denied");
    server.stop()?;
    for entry in walk(server.data_dir())? {
        let bytes = std::fs::read(&entry)?;
        let found = bytes.windows(6).any(|window| window == b"canary");
        ensure!(!found, "a password is in {}", entry.display());
    }
    ensure!(!server.log().contains("canary"), "a password is in the log");
    ensure!(!server.log().contains(&word), "a token is in the log");
    // Tokens are gone with the process, users are not.
    server.restart(Path::new(OURS))?;
    let gone = put_with(&endpoint, "a/2", &word).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unauthenticated);
    self::alice(&endpoint).await?.put(put("a/3")).await?;
    Ok(())
}

fn walk(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// W-15: a watch that is denied, and one that ends when its permission is taken away.
#[tokio::test]
async fn a_permission_that_goes_ends_its_watches() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let word = token(&endpoint, "alice", "canary-of-alice").await?;
    let root = root(&endpoint).await?;
    let (requests, stream) = tokio::sync::mpsc::channel(8);
    let mut watch = pb::watch_client::WatchClient::new(channel(&endpoint).await);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let create = |key: &'static str, end: &'static str| {
        let create =
            pb::WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        pb::WatchRequest { request_union: Some(union) }
    };
    requests.send(create("a/1", "")).await?;
    let mut answers = watch.watch(with_token(stream, &word)).await?.into_inner();
    let created = answers.message().await?.context("an answer")?;
    ensure!(created.created && !created.canceled, "{created:?}");
    for (key, end) in [("a/", "\0"), ("b", ""), ("", "\0")] {
        requests.send(create(key, end)).await?;
        let denied = answers.message().await?.context("an answer")?;
        ensure!(denied.created && denied.canceled && denied.watch_id == -1, "{denied:?}");
        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        ensure!(denied.cancel_reason == reason, "{denied:?}");
    }
    root.put(put("a/1")).await?;
    let event = answers.message().await?.context("an event")?;
    ensure!(event.events.len() == 1, "{event:?}");
    let revoke = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "writer".into() };
    root.user_revoke_role(revoke).await?;
    root.put(put("a/1")).await?;
    let ended = tokio::time::timeout(PATIENCE, answers.message()).await??.context("an end")?;
    ensure!(ended.canceled && ended.events.is_empty() && ended.watch_id == 0, "{ended:?}");
    Ok(())
}

/// A stream with one watch of a user, once it is created.
async fn watch_as(
    endpoint: &str,
    word: &str,
    key: &'static str,
) -> anyhow::Result<(
    tokio::sync::mpsc::Sender<pb::WatchRequest>,
    tonic::Streaming<pb::WatchResponse>,
)> {
    let (requests, stream) = tokio::sync::mpsc::channel(8);
    let create = pb::WatchCreateRequest { key: key.into(), ..Default::default() };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    requests.send(pb::WatchRequest { request_union: Some(union) }).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut watch = pb::watch_client::WatchClient::new(channel(endpoint).await);
    let mut answers = watch.watch(with_token(stream, word)).await?.into_inner();
    let created = answers.message().await?.context("an answer")?;
    ensure!(created.created && !created.canceled, "{created:?}");
    Ok((requests, answers))
}

/// W-15, A-01: enabling auth raises no revision, and is a change all the same.
#[tokio::test]
async fn a_permission_that_goes_while_auth_is_off_ends_its_watches() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let word = token(&endpoint, "alice", "canary-of-alice").await?;
    let (_requests, mut answers) = watch_as(&endpoint, &word, "a/1").await?;
    root(&endpoint).await?.auth_disable(pb::AuthDisableRequest {}).await?;
    let anyone = anonymous(&endpoint).await?;
    let revoke = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "writer".into() };
    anyone.user_revoke_role(revoke).await?;
    anyone.put(put("a/1")).await?;
    let event = answers.message().await?.context("an event")?;
    ensure!(event.events.len() == 1, "{event:?}");
    anyone.auth_enable(pb::AuthEnableRequest {}).await?;
    root(&endpoint).await?.put(put("a/1")).await?;
    let ended = tokio::time::timeout(PATIENCE, answers.message()).await??.context("an end")?;
    ensure!(ended.canceled && ended.events.is_empty(), "{ended:?}");
    Ok(())
}

/// X-06, W-15: an observer is told nothing of what it may not read any more.
#[tokio::test]
async fn a_permission_that_goes_ends_observing() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let words = [
        token(&endpoint, "root", "canary-of-root").await?,
        token(&endpoint, "alice", "canary-of-alice").await?,
    ];
    let mut elections = ElectionClient::new(channel(&endpoint).await);
    let campaign = v3electionpb::CampaignRequest {
        name: "a/e".into(),
        value: "1".into(),
        ..Default::default()
    };
    let leader = elections.campaign(with_token(campaign, &words[0])).await?.into_inner().leader;
    let observed = v3electionpb::LeaderRequest { name: "a/e".into() };
    let mut values = elections.observe(with_token(observed, &words[1])).await?.into_inner();
    let first = values.message().await?.context("a leader")?;
    ensure!(first.kv.as_ref().is_some_and(|row| row.value == "1"), "{first:?}");
    let client = root(&endpoint).await?;
    let revoke = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "writer".into() };
    client.user_revoke_role(revoke).await?;
    let proclaim = v3electionpb::ProclaimRequest { leader, value: "2".into() };
    elections.proclaim(with_token(proclaim, &words[0])).await?;
    let told = tokio::time::timeout(PATIENCE, values.message()).await?;
    ensure!(matches!(told, Ok(None) | Err(_)), "{told:?}");
    Ok(())
}

/// D24: nobody may stop the writes of all by asking for one that it may not make.
#[tokio::test]
async fn an_anonymous_caller_raises_no_alarm() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP, "--quota-backend-bytes=1000000"])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let large = pb::PutRequest { value: vec![7; 1_200_000].into(), ..put("a/1") };
    let nobody = anonymous(&endpoint).await?;
    assert_refused(nobody.put(large.clone()).await, "etcdserver: user name is empty");
    let alice = alice(&endpoint).await?;
    let elsewhere = pb::PutRequest { key: "b/1".into(), ..large.clone() };
    assert_refused(alice.put(elsewhere).await, "etcdserver: permission denied");
    alice.put(put("a/1")).await?;
    assert_refused(alice.put(large).await, "etcdserver: mvcc: database space exceeded");
    assert_refused(alice.put(put("a/1")).await, "etcdserver: mvcc: database space exceeded");
    Ok(())
}

/// HTTP-32, G27: the port of members promotes nobody for who is not root.
#[tokio::test]
async fn the_port_of_members_asks_who_promotes() -> anyhow::Result<()> {
    let peers = free_address()?;
    let (server, _folder) = start(&[CHEAP, &format!("--listen-peer-urls=http://{peers}")])?;
    let endpoint = server.endpoint();
    let promote = |authorization: &str| ask(peers, "POST", "/members/promote/1", authorization, "");
    // Nobody has this number.
    let unknown = promote("")?;
    ensure!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    protect(&endpoint).await?;
    for word in ["", "bad", &token(&endpoint, "alice", "canary-of-alice").await?] {
        let refused = promote(word)?;
        ensure!(refused.starts_with("HTTP/1.1 500 "), "{refused}");
    }
    let unknown = promote(&token(&endpoint, "root", "canary-of-root").await?)?;
    ensure!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    Ok(())
}

/// CB-76: a signed token is good at a member that only checks, until its time or a change.
#[tokio::test]
async fn signed_tokens_are_believed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "some secret of the members")?;
    let flag = format!("--auth-token=jwt,sign-method=HS256,priv-key={},ttl=10m", secret.display());
    let (mut server, _data) = start(&[CHEAP, &flag])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let word = token(&endpoint, "alice", "canary-of-alice").await?;
    ensure!(word.starts_with("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."), "{word}");
    put_with(&endpoint, "a/1", &word).await?;
    let denied = put_with(&endpoint, "b/1", &word).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    // It needs no memory of the server's.
    server.stop()?;
    server.restart(Path::new(OURS))?;
    put_with(&endpoint, "a/2", &word).await?;
    let root = root(&endpoint).await?;
    root.role_add(pb::AuthRoleAddRequest { name: "other".into() }).await?;
    let old = put_with(&endpoint, "a/3", &word).await.unwrap_err();
    assert_eq!(old.message(), "etcdserver: revision of auth store is old");
    assert_eq!(old.code(), Code::InvalidArgument);
    Ok(())
}

/// GW-22, A-18: the gateway takes the token of its header, and v2 has users of its own.
#[tokio::test]
async fn the_gateway_passes_tokens_on() -> anyhow::Result<()> {
    let (server, _folder) = start(&[CHEAP, "--enable-v2=true"])?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    let word = token(&endpoint, "alice", "canary-of-alice").await?;
    let address: SocketAddr = endpoint.strip_prefix("http://").context("no TLS")?.parse()?;
    let range = |authorization: &str, key: &str| {
        let body = format!("{{\"key\":\"{key}\"}}");
        ask(address, "POST", "/v3/kv/range", authorization, &body)
    };
    // "a/1" and "b".
    ensure!(range(&word, "YS8x")?.starts_with("HTTP/1.1 200 "));
    ensure!(range(&word, "Yg==")?.starts_with("HTTP/1.1 403 "));
    let nobody = range("", "YS8x")?;
    ensure!(nobody.starts_with("HTTP/1.1 400 "), "{nobody}");
    ensure!(nobody.contains("etcdserver: user name is empty"), "{nobody}");
    ensure!(range("bad", "YS8x")?.starts_with("HTTP/1.1 401 "));
    // CB-84.
    let v2 = ask(address, "GET", "/v2/auth/enable", "", "")?;
    ensure!(v2.contains("\"enabled\":false"), "{v2}");
    Ok(())
}

/// One request, and all that is answered.
fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    authorization: &str,
    body: &str,
) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    if !authorization.is_empty() {
        text.push_str(&format!("Authorization: {authorization}\r\n"));
    }
    let len = body.len();
    text.push_str(&format!("Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"));
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// CB-75, G-013: a token is good at every member once it has applied the login; a member that was
/// away while users were made gets them with a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_know_the_same_users() -> anyhow::Result<()> {
    know_the_same_users([Path::new(OURS); 3], &BY_SNAPSHOT).await
}

/// A member that was away gets a snapshot.
const BY_SNAPSHOT: [&str; 3] =
    [CHEAP, "--snapshot-count=20", "--experimental-snapshot-catchup-entries=5"];

/// The same among members of real etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_cluster_knows_the_same_users() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let theirs = real.join("etcd");
    know_the_same_users([Path::new(OURS), &theirs, Path::new(OURS)], &BY_SNAPSHOT).await?;
    know_the_same_users([&theirs, Path::new(OURS), &theirs], &BY_SNAPSHOT).await
}

/// CB-55: what v3 and its users need is there under the cluster version 3.4. Members of 3.4 name
/// tokens in a way of their own, and want passwords as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_3_4_knows_the_same_users() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.4") else { return Ok(()) };
    let theirs = real.join("etcd");
    know_the_same_users([Path::new(OURS), &theirs, &theirs], &[CHEAP]).await
}

async fn know_the_same_users(programs: [&Path; 3], flags: &[&str]) -> anyhow::Result<()> {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let options = ClusterOptions { flags, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(&programs, options).await?;
    let endpoints: Vec<_> =
        cluster.members().iter().map(|member| member.direct_endpoint()).collect();
    cluster.stop(2).await?;
    protect(&endpoints[0]).await?;
    let writer = alice(&endpoints[0]).await?;
    for number in 0..60 {
        writer.put(put(&format!("a/{number}"))).await?;
    }
    cluster.restart(2)?;
    // Whoever catches up by a snapshot has no tokens of before, so this one is made behind it.
    let began = Instant::now();
    while let Err(error) = alice(&endpoints[2]).await {
        ensure!(began.elapsed() < PATIENCE, "{error}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let word = token(&endpoints[1], "alice", "canary-of-alice").await?;
    for endpoint in &endpoints {
        let began = Instant::now();
        loop {
            match put_with_patience(endpoint, "a/x", &word).await {
                Ok(()) => break,
                Err(status) if PATIENCE < began.elapsed() => bail!("{endpoint}: {status}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let denied = put_with(endpoint, "b", &word).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{endpoint}: {denied}");
        let nobody = KvClient::new(channel(endpoint).await).put(put("a/x")).await.unwrap_err();
        assert_eq!(nobody.message(), "etcdserver: user name is empty", "{endpoint}");
    }
    // A lease of alice's ends by itself, whoever leads: the leader revokes it as root.
    let lease = writer.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await?.id;
    writer.put(pb::PutRequest { lease, ..put("a/leased") }).await?;
    let began = Instant::now();
    let key = Bytes::from_static(b"a/leased");
    loop {
        let found = writer.get(pb::RangeRequest { key: key.clone(), ..Default::default() });
        if found.await?.kvs.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the lease did not end\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A member that starts does not take connections yet.
async fn put_with_patience(endpoint: &str, key: &str, token: &str) -> Result<(), Status> {
    let channel = Channel::from_shared(endpoint.to_owned()).unwrap().connect().await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    KvClient::new(channel).put(with_token(put(key), token)).await.map(drop)
}

/// U5: users, hashes of passwords and permissions go from real etcd to ours and back.
#[tokio::test]
async fn a_protected_directory_of_3_5_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.5").await
}

/// U5.
#[tokio::test]
async fn a_protected_directory_of_3_4_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.4").await
}

async fn there_and_back(line: &str) -> anyhow::Result<()> {
    let Some(real) = real_etcd(line) else { return Ok(()) };
    let theirs = real.join("etcd");
    let temporary = tempfile::tempdir()?;
    let options = ServerOptions { flags: vec![CHEAP.to_owned()] };
    let mut server = Server::start(&theirs, temporary.path(), options)?;
    let endpoint = server.endpoint();
    protect(&endpoint).await?;
    for program in [Path::new(OURS), &theirs, Path::new(OURS)] {
        server.stop()?;
        server.restart(program)?;
        let (root, alice) = (root(&endpoint).await?, alice(&endpoint).await?);
        alice.put(put("a/1")).await?;
        assert_refused(alice.put(put("b")).await, "etcdserver: permission denied");
        // Each leaves the next one a change: bob comes, or goes.
        let users = root.user_list(pb::AuthUserListRequest {}).await?.users;
        if users.contains(&"bob".to_owned()) {
            login(&endpoint, "bob", "secret").await?;
            root.user_delete(pb::AuthUserDeleteRequest { name: "bob".into() }).await?;
        } else {
            let (name, password) = ("bob".into(), "secret".into());
            root.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
        }
    }
    Ok(())
}

/// One call of a table: its name, and what it answers to a caller with this token.
macro_rules! calls {
    ($channel:expr, $token:expr; $($client:ident :: $service:ident . $method:ident($message:expr);)*) => {{
        let mut answers = Vec::new();
        $(
            let mut client = pb::$client::$service::new($channel.clone());
            let mut request = Request::new($message);
            if let Some(token) = $token {
                request.metadata_mut().insert("token", MetadataValue::try_from(token).unwrap());
            }
            let answer = client.$method(request).await;
            let answer = answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()));
            answers.push((stringify!($method), answer));
        )*
        answers
    }};
}

type Answers = Vec<(&'static str, Result<(), (Code, String)>)>;

#[allow(clippy::too_many_lines, reason = "a table")]
/// What every RPC answers to somebody who may hardly do anything by it.
async fn answers(endpoint: &str, token: Option<&str>) -> Answers {
    let channel = channel(endpoint).await;
    let range = |key: &'static str, end: &'static str| pb::RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    let read = |key: &'static str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(range(key, ""))),
    };
    let write = |key: &'static str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put(key))),
    };
    let nested = |operation: pb::RequestOp| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestTxn(pb::TxnRequest {
            failure: vec![operation],
            ..Default::default()
        })),
    };
    let txn = |success: pb::RequestOp, failure: pb::RequestOp| pb::TxnRequest {
        compare: vec![pb::Compare { key: "a/c".into(), ..Default::default() }],
        success: vec![success],
        failure: vec![failure],
    };
    let name = || "nobody".to_owned();
    calls! { channel, token;
        kv_client::KvClient.range(range("a/1", ""));
        kv_client::KvClient.range(range("a/", "a0"));
        kv_client::KvClient.range(range("a/", "\0"));
        kv_client::KvClient.range(pb::RangeRequest { serializable: true, ..range("b", "") });
        kv_client::KvClient.put(put("a/1"));
        kv_client::KvClient.put(put("b"));
        kv_client::KvClient.put(pb::PutRequest { lease: 77, ..put("a/1") });
        kv_client::KvClient.delete_range(pb::DeleteRangeRequest { key: "b".into(), ..Default::default() });
        kv_client::KvClient.txn(txn(read("a/1"), write("a/1")));
        kv_client::KvClient.txn(txn(read("a/1"), write("b")));
        kv_client::KvClient.txn(txn(read("b"), read("a/1")));
        kv_client::KvClient.txn(txn(nested(write("b")), write("a/1")));
        kv_client::KvClient.txn(txn(nested(nested(read("b"))), nested(write("a/1"))));
        kv_client::KvClient.compact(pb::CompactionRequest { revision: 1000, physical: false });
        lease_client::LeaseClient.lease_grant(pb::LeaseGrantRequest { ttl: 100, id: 0 });
        lease_client::LeaseClient.lease_revoke(pb::LeaseRevokeRequest { id: 5 });
        lease_client::LeaseClient.lease_revoke(pb::LeaseRevokeRequest { id: 77 });
        lease_client::LeaseClient.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 77, keys: true });
        lease_client::LeaseClient.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 77, keys: false });
        lease_client::LeaseClient.lease_leases(pb::LeaseLeasesRequest {});
        cluster_client::ClusterClient.member_list(pb::MemberListRequest { linearizable: true });
        cluster_client::ClusterClient.member_list(pb::MemberListRequest::default());
        cluster_client::ClusterClient.member_remove(pb::MemberRemoveRequest { id: 1 });
        cluster_client::ClusterClient.member_promote(pb::MemberPromoteRequest { id: 1 });
        maintenance_client::MaintenanceClient.alarm(pb::AlarmRequest::default());
        maintenance_client::MaintenanceClient.alarm(pb::AlarmRequest { action: 2, ..Default::default() });
        auth_client::AuthClient.auth_enable(pb::AuthEnableRequest {});
        auth_client::AuthClient.user_get(pb::AuthUserGetRequest { name: "alice".into() });
        auth_client::AuthClient.user_get(pb::AuthUserGetRequest { name: name() });
        auth_client::AuthClient.user_list(pb::AuthUserListRequest {});
        auth_client::AuthClient.user_delete(pb::AuthUserDeleteRequest { name: name() });
        auth_client::AuthClient.user_change_password(pb::AuthUserChangePasswordRequest {
            name: name(), password: "p".into(), ..Default::default()
        });
        auth_client::AuthClient.user_grant_role(pb::AuthUserGrantRoleRequest { user: name(), role: name() });
        auth_client::AuthClient.user_revoke_role(pb::AuthUserRevokeRoleRequest { name: name(), role: name() });
        auth_client::AuthClient.role_get(pb::AuthRoleGetRequest { role: "writer".into() });
        auth_client::AuthClient.role_get(pb::AuthRoleGetRequest { role: name() });
        auth_client::AuthClient.role_list(pb::AuthRoleListRequest {});
        auth_client::AuthClient.role_delete(pb::AuthRoleDeleteRequest { role: name() });
        auth_client::AuthClient.role_grant_permission(pb::AuthRoleGrantPermissionRequest::default());
        auth_client::AuthClient.role_revoke_permission(pb::AuthRoleRevokePermissionRequest::default());
        auth_client::AuthClient.role_add(pb::AuthRoleAddRequest::default());
    }
}

/// E-27 to E-43: each of these answers every caller as etcd 3.5 does, in code and
/// text. Status, which 3.5 gives to root only, and what 3.5 gives no code are as of 3.7.
#[tokio::test]
async fn every_caller_is_answered_as_by_real_etcd() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut sides = Vec::new();
    for (name, program) in [("theirs", real.join("etcd").as_path()), ("ours", Path::new(OURS))] {
        let options = ServerOptions { flags: vec![CHEAP.to_owned()] };
        let server = Server::start(program, &folder.path().join(name), options)?;
        let endpoint = server.endpoint();
        let client = anonymous(&endpoint).await?;
        client.lease_grant(pb::LeaseGrantRequest { ttl: 1000, id: 77 }).await?;
        client.put(pb::PutRequest { lease: 77, ..put("b") }).await?;
        protect(&endpoint).await?;
        let mut side = vec![("nobody", answers(&endpoint, None).await)];
        for (name, password) in [("alice", "canary-of-alice"), ("root", "canary-of-root")] {
            let word = token(&endpoint, name, password).await?;
            side.push((name, answers(&endpoint, Some(&word)).await));
        }
        side.push(("a stranger", answers(&endpoint, Some("word.1")).await));
        side.push(("a liar", answers(&endpoint, Some("nonsense")).await));
        sides.push(side);
    }
    let (theirs, ours) = (&sides[0], &sides[1]);
    for ((caller, theirs), (_, ours)) in theirs.iter().zip(ours) {
        for (theirs, ours) in theirs.iter().zip(ours) {
            ensure!(theirs == ours, "to {caller}: theirs {theirs:?}, ours {ours:?}");
        }
    }
    Ok(())
}
