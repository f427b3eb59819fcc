//! What the client port answers beside the services: plain HTTP, metrics, and what surrounds every
//! call. The plain answers are compared with real etcd's where there is one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::health::HealthCheckRequest;
use proto::health::health_client::HealthClient;
use retcd_conformance::{Server, ServerOptions, ask, real_etcd};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// The system's number for a process that has too many open files.
const TOO_MANY_FILES: i32 = 24;

/// A server of ours with these flags, and the folder its data is in.
fn start(flags: &[&str]) -> anyhow::Result<(Server, tempfile::TempDir)> {
    Server::fresh(Path::new(OURS), flags)
}

async fn kv(server: &Server) -> anyhow::Result<KvClient<Channel>> {
    let client = KvClient::connect(server.endpoint()).await?;
    Ok(client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX))
}

/// A value of a metric without labels, or with exactly these.
fn metric(address: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let text = ask(address, "GET", "/metrics", "")?.body;
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = lines.find(|(found, _)| *found == name).context(name.to_owned())?;
    Ok(value.parse()?)
}

/// HTTP-01 to HTTP-21: method, path, body where it is the same for every release.
const PLAIN: &[(&str, &str, Option<&str>)] = &[
    ("GET", "/health", Some("{\"health\":\"true\",\"reason\":\"\"}")),
    ("GET", "/health?serializable=true", Some("{\"health\":\"true\",\"reason\":\"\"}")),
    ("GET", "/health?exclude=NOSPACE", Some("{\"health\":\"true\",\"reason\":\"\"}")),
    ("GET", "/health?exclude=FOO&exclude=", Some("{\"health\":\"true\",\"reason\":\"\"}")),
    ("POST", "/health", Some("Method Not Allowed\n")),
    ("GET", "/health/", Some("404 page not found\n")),
    ("GET", "/livez", Some("ok\n")),
    ("GET", "/livez?verbose", Some("[+]serializable_read ok\nok\n")),
    ("GET", "/livez/serializable_read", Some("ok\n")),
    ("GET", "/livez?exclude=serializable_read&verbose", Some("ok\n")),
    ("DELETE", "/livez", Some("Method Not Allowed\n")),
    ("GET", "/readyz", Some("ok\n")),
    ("GET", "/readyz?exclude=nope", Some("ok\n")),
    ("GET", "/readyz/linearizable_read?verbose", Some("[+]linearizable_read ok\nok\n")),
    ("GET", "/readyz/data_corruption", Some("ok\n")),
    ("GET", "/readyz/non_learner", Some("ok\n")),
    ("GET", "/readyz/nope", Some("404 page not found\n")),
    ("POST", "/readyz/non_learner", Some("Method Not Allowed\n")),
    ("GET", "/version", None),
    ("POST", "/version", Some("Method Not Allowed\n")),
    ("GET", "/metrics", None),
    ("GET", "/debug/vars", None),
    ("POST", "/debug/vars", Some("Method Not Allowed\n")),
    ("GET", "/debug/requests", Some("404 page not found\n")),
    ("GET", "/nope", Some("404 page not found\n")),
    ("OPTIONS", "/health", Some("")),
];

#[test]
fn plain_answers_are_etcds() -> anyhow::Result<()> {
    let (ours, _folder) = start(&[])?;
    let ours = ours.address();
    let mut answers = Vec::new();
    for (method, path, body) in PLAIN {
        let answer = ask(ours, method, path, "")?;
        if let Some(body) = body {
            assert_eq!(answer.body, *body, "{method} {path}");
        }
        answers.push(answer);
    }
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let theirs = Server::start(&real.join("etcd"), folder.path(), ServerOptions::default())?;
    let theirs = theirs.address();
    for ((method, path, body), mut ours) in PLAIN.iter().zip(answers) {
        let mut answer = ask(theirs, method, path, "")?;
        for answer in [&mut ours, &mut answer] {
            answer.headers.remove("date");
            // Chunked or not is the libraries' business.
            answer.headers.remove("transfer-encoding");
            if body.is_none() {
                answer.headers.remove("content-length");
                answer.body.clear();
            }
        }
        assert_eq!(ours, answer, "{method} {path}");
    }
    Ok(())
}

/// HTTP-02, HTTP-08, HTTP-09: every check of a good member, in our order.
#[test]
fn a_ready_member_says_why() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let address = server.address();
    let verbose = ask(address, "GET", "/readyz?verbose", "")?;
    assert_eq!(
        verbose.body,
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
         [+]non_learner ok\nok\n"
    );
    let fewer = ask(address, "GET", "/readyz?verbose&exclude=non_learner&exclude=x", "")?;
    assert!(!fewer.body.contains("non_learner"));
    // HEAD is no GET for etcd either.
    let head = ask(address, "HEAD", "/livez", "")?;
    assert_eq!((head.status, head.body.as_str()), (405, ""));
    // HTTP-22.
    let checked = "etcd_server_healthchecks_total{name=\"linearizable_read\",status=\"success\",\
                   type=\"readyz\"}";
    assert_eq!(metric(address, checked)?, 2.0);
    assert_eq!(
        metric(address, "etcd_server_healthcheck{name=\"non_learner\",type=\"readyz\"}")?,
        1.0
    );
    let vars = ask(address, "GET", "/debug/vars", "")?;
    let vars: BTreeMap<String, serde_json::Value> = serde_json::from_str(&vars.body)?;
    assert_eq!(
        vars.keys().collect::<Vec<_>>(),
        ["cmdline", "file_descriptor_limit", "memstats", "raft.status"]
    );
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
    Ok(())
}

/// HTTP-03, HTTP-13: a member without space is not healthy, but ready.
#[tokio::test]
async fn a_member_without_space_is_not_healthy() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let address = server.address();
    let mut maintenance =
        pb::maintenance_client::MaintenanceClient::connect(server.endpoint()).await?;
    let raise = |alarm: pb::AlarmType| pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: 1,
        alarm: alarm.into(),
    };
    maintenance.alarm(raise(pb::AlarmType::Nospace)).await?;
    let health = ask(address, "GET", "/health", "")?;
    assert_eq!(health.status, 503);
    assert_eq!(health.body, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
    assert_eq!(ask(address, "GET", "/health?exclude=NOSPACE", "")?.status, 200);
    assert_eq!(ask(address, "GET", "/readyz", "")?.status, 200);
    maintenance.alarm(raise(pb::AlarmType::Corrupt)).await?;
    let ready = ask(address, "GET", "/readyz", "")?;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"));
    let health = ask(address, "GET", "/health?exclude=NOSPACE", "")?;
    assert_eq!(health.body, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n");
    assert!(2.0 <= metric(address, "etcd_server_health_failures")?);
    Ok(())
}

/// HTTP-15, HTTP-16: what the port for metrics serves.
#[test]
fn the_port_for_metrics_serves_little() -> anyhow::Result<()> {
    let free = ports::free_address()?;
    let (_server, _folder) = start(&["--listen-metrics-urls", &format!("http://{free}")])?;
    for (path, status) in [
        ("/metrics", 200),
        ("/health", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/version", 404),
        ("/debug/vars", 404),
        ("/config/local/log", 404),
    ] {
        let answer = ask(free, "GET", path, "")?;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    Ok(())
}

/// HTTP-20.
#[test]
fn the_level_of_the_log_is_changed_at_run_time() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let address = server.address();
    let put = |body: &str| ask(address, "PUT", "/config/local/log", body);
    assert_eq!(put("{\"Level\":\"DEBUG\"}")?.status, 204);
    let bad = put("{\"Level\":\"zz\"}")?;
    assert_eq!((bad.status, bad.body.as_str()), (400, "{\"message\":\"Invalid log level zz\"}"));
    assert_eq!(put("zz")?.body, "{\"message\":\"Invalid json body\"}");
    let get = ask(address, "GET", "/config/local/log", "")?;
    assert_eq!((get.status, get.headers["allow"].as_str()), (405, "PUT"));
    Ok(())
}

/// The name of the counter of calls that ended with a code.
fn handled(service: &str, method: &str, kind: &str, code: &str) -> String {
    format!(
        "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",\
         grpc_service=\"etcdserverpb.{service}\",grpc_type=\"{kind}\"}}"
    )
}

/// Sees one event of the past, then goes away as a process that is killed does.
fn watch_and_vanish(endpoint: String, address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let seen = runtime.block_on(async {
        let mut watch = WatchClient::connect(endpoint).await?;
        let key = Bytes::from("b");
        let create = pb::WatchCreateRequest { key, start_revision: 1, ..Default::default() };
        let create = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        let requests = tokio_stream::StreamExt::chain(
            tokio_stream::once(create),
            tokio_stream::pending::<pb::WatchRequest>(),
        );
        let mut answers = watch.watch(requests).await?.into_inner();
        assert!(answers.message().await?.is_some_and(|answer| answer.created));
        assert_eq!(answers.message().await?.map(|answer| answer.events.len()), Some(1));
        assert_eq!(metric(address, "etcd_debugging_mvcc_watcher_total")?, 1.0);
        Ok(())
    });
    runtime.shutdown_background();
    seen
}

/// MET-37, MET-53, MET-56, MET-68: requests are counted as etcd counts them.
#[tokio::test]
async fn requests_are_counted() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--metrics", "extensive"])?;
    let address = server.address();
    let mut kv = kv(&server).await?;
    for key in ["a", "b", "c"] {
        let key = Bytes::from(key);
        kv.put(pb::PutRequest { key, value: Bytes::from("v"), ..Default::default() }).await?;
    }
    kv.delete_range(pb::DeleteRangeRequest { key: Bytes::from("a"), ..Default::default() }).await?;
    let refused = kv.put(pb::PutRequest::default()).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: key is not provided");
    let endpoint = server.endpoint();
    tokio::task::spawn_blocking(move || watch_and_vanish(endpoint, address)).await??;
    let canceled = handled("Watch", "Watch", "bidi_stream", "Canceled");
    for _ in 0..200 {
        if metric(address, &canceled)? == 1.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (name, expected) in [
        ("etcd_mvcc_put_total", 3.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_debugging_mvcc_keys_total", 2.0),
        ("etcd_debugging_mvcc_current_revision", 5.0),
        ("etcd_debugging_mvcc_compact_revision", -1.0),
        ("etcd_debugging_mvcc_events_total", 1.0),
        ("etcd_debugging_mvcc_watcher_total", 0.0),
        ("etcd_debugging_mvcc_watch_stream_total", 0.0),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", 6.0),
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_leader_changes_seen_total", 1.0),
        ("etcd_server_proposals_pending", 0.0),
        ("etcd_server_version{server_version=\"3.7.1\"}", 1.0),
        ("etcd_cluster_version{cluster_version=\"3.7\"}", 1.0),
        (&handled("KV", "Put", "unary", "OK"), 3.0),
        (&handled("KV", "Put", "unary", "InvalidArgument"), 1.0),
        (&canceled, 1.0),
        ("etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"}", 1.0),
    ] {
        assert_eq!(metric(address, name)?, expected, "{name}");
    }
    for name in [
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}",
        "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"}",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_disk_wal_write_bytes_total",
        "process_resident_memory_bytes",
        "grpc_server_handling_seconds_count{grpc_method=\"Put\",\
         grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
    ] {
        assert!(0.0 < metric(address, name)?, "{name}");
    }
    Ok(())
}

/// G-005 to G-007, G-019: what surrounds every call.
#[tokio::test]
async fn calls_are_checked_before_the_services_see_them() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--max-request-bytes", "100000"])?;
    let mut kv = kv(&server).await?;
    let put = |len: usize| pb::PutRequest {
        key: Bytes::from("k"),
        value: Bytes::from(vec![7; len]),
        ..Default::default()
    };
    // The request fits into a message, but not into the log.
    let refused = kv.put(put(200_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: request is too large");
    let refused = kv.put(put(700_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "grpc: received message larger than max (700007 vs. 624288)");
    let mut zipping = kv.clone().send_compressed(CompressionEncoding::Gzip);
    zipping.put(put(90_000)).await?;
    // A small message that becomes a large one.
    let refused = zipping.put(put(50_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let mut asked = Request::new(put(1));
    asked.metadata_mut().insert("hasleader", "true".parse()?);
    asked.metadata_mut().insert("client-api-version", "3.5.30".parse()?);
    asked.set_timeout(Duration::from_secs(60));
    kv.put(asked).await?;
    let mut asked = Request::new(put(1));
    asked.metadata_mut().insert("grpc-timeout", "soon".parse()?);
    let refused = kv.put(asked).await.unwrap_err();
    assert_eq!(refused.message(), "malformed grpc-timeout: \"soon\"");
    let named = "etcd_server_client_requests_total{client_api_version=\"3.5.30\",type=\"unary\"}";
    assert_eq!(metric(server.address(), named)?, 1.0);
    Ok(())
}

/// GW-26, SRV-086, A13, CB-83: a page that gives this machine a name of its own is not answered.
#[test]
fn requests_for_other_hosts_are_refused() -> anyhow::Result<()> {
    let said = |program: &Path, host: &str| -> anyhow::Result<(String, String)> {
        let folder = tempfile::tempdir()?;
        let flags = vec!["--host-whitelist=localhost,good.example,::1".to_owned()];
        let server = Server::start(program, folder.path(), ServerOptions { flags })?;
        let mut stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
        Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
    };
    let ours = Path::new(OURS);
    for host in ["localhost", "good.example:2379", "[::1]:2379"] {
        assert_eq!(said(ours, host)?.0, "HTTP/1.1 200 OK", "{host}");
    }
    for host in ["evil.example", "evil.example:2379", "localhost.evil", ""] {
        let (status, body) = said(ours, host)?;
        assert_eq!(status, "HTTP/1.1 421 Misdirected Request", "{host}");
        assert!(body.contains("--host-whitelist \"") && body.contains("CVE-2018-5702"), "{body}");
        if let Some(real) = real_etcd("3.5") {
            assert_eq!((status, body), said(&real.join("etcd"), host)?, "{host}");
        }
    }
    Ok(())
}

/// E-63: a deadline ends a stream, too.
#[tokio::test]
async fn a_deadline_ends_a_stream() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let mut health = HealthClient::connect(server.endpoint()).await?;
    let mut asked = Request::new(HealthCheckRequest::default());
    asked.set_timeout(Duration::from_secs(3));
    let mut answers = health.watch(asked).await?.into_inner();
    assert_eq!(answers.message().await?.map(|answer| answer.status), Some(1));
    let ended = answers.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert_eq!(ended.message(), "etcdserver: context deadline exceeded");
    Ok(())
}

/// What members ask one another: method, path, body; status, and the text that is always the same.
const OF_MEMBERS: &[(&str, &str, &str, u16, &str)] = &[
    ("GET", "/version", "", 200, ""),
    ("POST", "/version", "", 405, "Method Not Allowed\n"),
    ("GET", "/members", "", 200, ""),
    ("POST", "/members", "", 405, "Method Not Allowed\n"),
    ("GET", "/members/", "", 404, "404 page not found\n"),
    ("GET", "/leases", "", 405, "Method Not Allowed\n"),
    ("POST", "/leases", "\x08\x01", 404, "lease not found\n"),
    ("POST", "/leases/internal", "\n\x02\x08\x01", 404, "lease not found\n"),
    ("GET", "/members/hashkv", "x", 400, "error unmarshalling request\n"),
    ("POST", "/members/hashkv", "{}", 405, "Method Not Allowed\n"),
    (
        "GET",
        "/members/hashkv",
        "{\"revision\":9}",
        400,
        "mvcc: required revision is a future revision\n",
    ),
    ("GET", "/downgrade/enabled", "", 200, "false"),
    ("GET", "/health", "", 404, "404 page not found\n"),
    ("GET", "/metrics", "", 404, "404 page not found\n"),
];

/// HTTP-30, HTTP-31, HTTP-34 to HTTP-36: seen alike at etcd 3.7.1.
#[test]
fn the_port_of_members_answers_as_etcds() -> anyhow::Result<()> {
    let mut programs = vec![PathBuf::from(OURS)];
    programs.extend(real_etcd("3.7").map(|folder| folder.join("etcd")));
    for program in programs {
        let (folder, peer) = (tempfile::tempdir()?, ports::free_address()?);
        let flags = vec![
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=m0=http://{peer}"),
        ];
        let _server = Server::start(&program, folder.path(), ServerOptions { flags })?;
        for (method, path, body, status, expected) in OF_MEMBERS {
            let answer = ask(peer, method, path, body)?;
            let request = format!("{}: {method} {path}", program.display());
            assert_eq!(answer.status, *status, "{request}: {answer:?}");
            if !expected.is_empty() {
                assert_eq!(answer.body, *expected, "{request}");
            }
            let names_cluster = *status == 200 && *path != "/version";
            assert_eq!(
                answer.headers.contains_key("x-etcd-cluster-id"),
                names_cluster,
                "{request}"
            );
        }
        let version = ask(peer, "GET", "/version", "")?.body;
        assert!(
            version.starts_with("{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\""),
            "{version}"
        );
        let members = ask(peer, "GET", "/members", "")?.body;
        assert!(members.starts_with("[{\"id\":") && members.ends_with("}]\n"), "{members}");
        assert!(
            members.contains(&format!("\"peerURLs\":[\"http://{peer}\"],\"name\":\"m0\"")),
            "{members}"
        );
        let hash = ask(peer, "GET", "/members/hashkv", "{\"revision\":0}")?.body;
        let hashed = "\"compact_revision\":-1,\"hash_revision\":1}";
        assert!(hash.starts_with("{\"header\":{\"revision\":1},\"hash\":"), "{hash}");
        assert!(hash.ends_with(hashed), "{hash}");
    }
    Ok(())
}

/// G-016, G-018, A-03, A-04.
#[tokio::test]
async fn health_and_auth_answer() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let mut health = HealthClient::connect(server.endpoint()).await?;
    let checked = health.check(HealthCheckRequest::default()).await?.into_inner();
    assert_eq!(checked.status, 1);
    let other = HealthCheckRequest { service: "other".to_owned() };
    let refused = health.check(other.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "unknown service"));
    let state = health.watch(other).await?.into_inner().message().await?;
    assert_eq!(state.map(|state| state.status), Some(3));
    let mut auth = AuthClient::connect(server.endpoint()).await?;
    let status = auth.auth_status(pb::AuthStatusRequest {}).await?.into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    assert_eq!(status.header.map(|header| header.revision), Some(1));
    let refused = auth.authenticate(pb::AuthenticateRequest::default()).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: authentication is not enabled");
    let refused = auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "etcdserver: root user does not exist");
    assert!(refused.details().is_empty(), "code and text say all");
    // A service that nobody offers.
    let channel = Channel::from_shared(server.endpoint())?.connect().await?;
    let mut nobody = KvClient::with_origin(channel, format!("{}/v9", server.endpoint()).parse()?);
    let refused = nobody.range(pb::RangeRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(refused.message(), "unknown service v9/etcdserverpb.KV");
    Ok(())
}

/// KV-12 to KV-14, VER-14.
#[tokio::test]
async fn a_range_comes_as_a_stream() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let mut kv = kv(&server).await?;
    for number in 0..300 {
        let key = Bytes::from(format!("k{number:03}"));
        let value = Bytes::from(vec![1; 5_000]);
        kv.put(pb::PutRequest { key, value, ..Default::default() }).await?;
    }
    let all = pb::RangeRequest {
        key: Bytes::from("k"),
        range_end: Bytes::from("l"),
        ..Default::default()
    };
    let whole = kv.range(all.clone()).await?.into_inner();
    let mut stream = kv.range_stream(all.clone()).await?.into_inner();
    let (mut kvs, mut sizes, mut last) = (Vec::new(), Vec::new(), None);
    while let Some(chunk) = stream.message().await? {
        assert!(last.is_none(), "a header comes with the last chunk only");
        let chunk = chunk.range_response.context("a chunk")?;
        // What is written meanwhile is not seen.
        let late = Bytes::from(format!("k{:03}x", kvs.len() + 50));
        kv.put(pb::PutRequest { key: late, ..Default::default() }).await?;
        sizes.push(chunk.kvs.len());
        kvs.extend(chunk.kvs);
        last = chunk.header.map(|header| (header.revision, chunk.count, chunk.more));
    }
    assert_eq!(sizes, [10, 20, 40, 80, 150]);
    assert_eq!(kvs, whole.kvs);
    assert_eq!(last, Some((301, 300, false)));
    let limited = pb::RangeRequest { limit: 25, revision: 301, ..all.clone() };
    let mut stream = kv.range_stream(limited).await?.into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await? {
        chunks.push(chunk.range_response.context("a chunk")?);
    }
    assert_eq!(chunks.iter().map(|chunk| chunk.kvs.len()).collect::<Vec<_>>(), [10, 15]);
    assert_eq!((chunks[1].count, chunks[1].more), (300, true));
    let counted = pb::RangeRequest { count_only: true, revision: 301, ..all.clone() };
    let mut stream = kv.range_stream(counted).await?.into_inner();
    let only = stream.message().await?.and_then(|chunk| chunk.range_response).context("one")?;
    assert_eq!((only.count, only.kvs.len()), (300, 0));
    assert!(stream.message().await?.is_none());
    for (request, text) in [
        (
            pb::RangeRequest { sort_order: 2, ..all.clone() },
            "RangeStream does not support custom sort orders",
        ),
        (
            pb::RangeRequest { min_mod_revision: 2, ..all.clone() },
            "RangeStream does not support revision filters",
        ),
    ] {
        let refused = kv.range_stream(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unimplemented, text));
    }
    Ok(())
}

/// Where the connections of one address go that another process is to open.
const FLOODED: &str = "RETCD_TEST_FLOODED";

/// G19: one address cannot take every connection.
#[test]
fn connections_of_one_address_are_bounded() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let address = server.address();
    // Where fewer files than that may be open, all connections together are bounded first.
    let refused = ["address", "total"]
        .map(|reason| format!("retcd_network_connections_refused_total{{reason=\"{reason}\"}}"));
    // On a machine so busy that opening takes longer than silence is borne, once more.
    for _ in 0..5 {
        // In a process of its own: the other tests of this one need files, too.
        let flood = Command::new("sh")
            .args(["-c", "ulimit -Sn \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe()?)
            .args(["--exact", "flood_of_connections", "--nocapture"])
            .env(FLOODED, address.to_string())
            .output()?;
        let said = String::from_utf8_lossy(&flood.stdout);
        anyhow::ensure!(flood.status.success(), "{said}{}", String::from_utf8_lossy(&flood.stderr));
        for name in &refused {
            if 1.0 <= counted(address, name)? {
                return Ok(());
            }
        }
    }
    anyhow::bail!("1,001 connections of one address were let in")
}

/// The other process of [`connections_of_one_address_are_bounded`]; no test by itself.
#[test]
fn flood_of_connections() -> anyhow::Result<()> {
    let Ok(address) = std::env::var(FLOODED) else { return Ok(()) };
    let mut open = Vec::new();
    for _ in 0..1_000 {
        match TcpStream::connect(&address) {
            Ok(stream) => open.push(stream),
            // As many as there may be files: then the server takes fewer still.
            Err(error) if error.raw_os_error() == Some(TOO_MANY_FILES) => {
                open.truncate(open.len() - 1);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // The next one is closed at once.
    let mut next = TcpStream::connect(&address)?;
    next.set_read_timeout(Some(Duration::from_secs(60)))?;
    anyhow::ensure!(matches!(next.read(&mut [0; 1]), Ok(0) | Err(_)));
    // G24: those that say nothing are closed after five seconds.
    let silent = &mut open[0];
    silent.set_read_timeout(Some(Duration::from_secs(60)))?;
    anyhow::ensure!(matches!(silent.read(&mut [0; 1]), Ok(0)));
    Ok(())
}

/// A count; 0 if it is not there. Asked again while the server still closes other connections.
fn counted(address: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let began = std::time::Instant::now();
    loop {
        match ask(address, "GET", "/metrics", "") {
            Err(_) if began.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(answer) if !answer.body.contains(name) => return Ok(0.0),
            Ok(_) => return metric(address, name),
            Err(error) => return Err(error),
        }
    }
}

/// G-010, and what `crates/server/src/authority.rs` is for: tools of etcd 3.4 give the endpoint as
/// it was typed for the name of the host.
#[test]
fn tools_of_etcd_3_4_may_name_one_endpoint_by_its_url() -> anyhow::Result<()> {
    let Some(programs) = real_etcd("3.4") else { return Ok(()) };
    let (server, _folder) = start(&[])?;
    for words in [&["endpoint", "status"][..], &["endpoint", "hashkv"], &["defrag"]] {
        let output = Command::new(programs.join("etcdctl"))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &server.endpoint(), "--command-timeout=60s"])
            .args(words)
            .output()?;
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    Ok(())
}
