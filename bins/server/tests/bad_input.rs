//! Bad command lines, configuration files and bytes on the port: each is answered with its cause
//! and remedy, soon, and a server that runs goes on for everybody else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use certificates::{Authority, Holder, write};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use retcd_conformance::frames::{PREFACE, frame};
use retcd_conformance::{Ended, Keys, Server, ServerOptions};
use tonic::{Code, Status};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

fn etcd(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(OURS);
    command.args(arguments).env_clear().current_dir(folder);
    command
}

#[track_caller]
fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// B1, B2, B9, B10: exit code 2, three lines, no page of usage and no stack trace.
#[test]
fn wrong_flags_are_named_with_what_they_take() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (arguments, parts) in [
        // B1
        (&["--listen-client-url=http://a:1"][..], &["not defined", "--listen-client-urls?"][..]),
        (&["--nam=a"], &["not defined: -nam", "--name?"]),
        // B2
        (&["--listen-client-urls=foo"], &["\"foo\"", "-listen-client-urls", "scheme", "http://"]),
        // B9
        (&["--snapshot-count=abc"], &["\"abc\"", "-snapshot-count", "whole number", "'10000'"]),
        (&["--max-txn-ops=-1"], &["\"-1\"", "-max-txn-ops", "from 0", "'128'"]),
        // B10
        (&["--log-level=loud"], &["\"loud\"", "-log-level", "debug, info, warn", "'info'"]),
        (&["--heartbeat-interval"], &["needs an argument", "-heartbeat-interval", "'100'"]),
    ] {
        let ended = Ended::of(&mut etcd(folder.path(), arguments))?;
        assert_eq!(ended.status.code(), Some(2), "{}", ended.output);
        assert!(ended.output.lines().count() <= 3, "{}", ended.output);
        assert_names(&ended.output, parts);
    }
    assert_eq!(fs::read_dir(folder.path())?.count(), 0, "a usage error makes no files");
    Ok(())
}

/// B3 to B8, B12, B16 to B18, B24: exit code 1 and one line that names the flag and the remedy.
#[test]
fn settings_that_cannot_work_are_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    for (arguments, parts) in [
        // B3
        (&["--listen-client-urls=http://127.0.0.1:0"][..], &["--advertise-client-urls is re"][..]),
        // B4
        (&["--name="], &["--name is empty", "set --name"]),
        // B5
        (&["--pre-vote", "false"], &["'false' is not a valid flag", "--name=value"]),
        // B6
        (&["--auto-compaction-retention=-1"], &["--auto-compaction-retention", ">=0", "30m"]),
        (&["--auto-compaction-retention=1x"], &["CompactionRetention", "30m"]),
        // B7
        (&["--heartbeat-interval=100", "--election-timeout=499"], &["5 times", "at least 500"]),
        // B8
        (&["--initial-cluster=bad"], &["--initial-cluster", "\"bad\" at character 1", "a=http"]),
        (&["--initial-cluster=default=http://h:1,b"], &["\"b\" at character 20"]),
        // B12
        (
            &["--listen-client-urls=http://no.such.host:1", "--advertise-client-urls=http://a:1"],
            &["no.such.host", "IP"],
        ),
        // B16
        (&["--data-dir=/proc/etcd"], &["/proc/etcd", "user ", "0700", "--data-dir"]),
        // B18
        (&["--listen-metrics-urls=https://127.0.0.1:0"], &["--cert-file", "metrics", "http URL"]),
        // B24
        (&["--initial-cluster=b=http://localhost:2380"], &["\"default\"", "--name to one of: b"]),
    ] {
        let mut command = etcd(folder.path(), &["--data-dir", &data]);
        let refusal = Ended::refusal(command.args(arguments))?;
        assert_names(&refusal, parts);
    }
    Ok(())
}

/// B11.
#[test]
fn a_negative_quota_is_no_quota() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--quota-backend-bytes", "-5"].map(str::to_owned).into();
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
    let log = server.log();
    let warned = log.lines().find(|line| line.contains("quota") && line.contains("\"warn\""));
    assert!(warned.is_some(), "{log}");
    Ok(())
}

/// B13, B19.
#[test]
fn certificates_are_looked_at_before_anything_listens() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| write(folder.path(), name, text).display().to_string();
    let authority = Authority::new("authority");
    let pair = authority.issue(&Holder::new("server", &["127.0.0.1"]));
    let other = authority.issue(&Holder::new("other", &[]));
    let cert = file("cert.pem", &pair.certificate);
    let key = file("key.pem", &pair.key);
    let missing = folder.path().join("missing.pem").display().to_string();
    let secret = file("secret.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let wrong = file("wrong.pem", &other.key);
    let cut = file("cut.pem", &pair.certificate[..200]);
    let cases = [
        (&missing, &key, ["cannot read --cert-file", missing.as_str(), "no such file"]),
        (&cert, &missing, ["cannot read --key-file", missing.as_str(), "no such file"]),
        (&cert, &secret, ["--key-file", secret.as_str(), "is encrypted"]),
        (&cert, &cert, ["--key-file", cert.as_str(), "holds no private key"]),
        (&key, &key, ["--cert-file", key.as_str(), "holds no certificate"]),
        (&cert, &wrong, ["--key-file", wrong.as_str(), "private key does not match public key of"]),
        (&cut, &key, ["cannot use --cert-file", cut.as_str(), "a section has no end"]),
    ];
    for (cert, key, named) in cases {
        let url = "https://127.0.0.1:0";
        let urls = ["--listen-client-urls", url, "--advertise-client-urls", url];
        let mut command = etcd(folder.path(), &urls);
        let refusal = Ended::refusal(command.args(["--cert-file", cert, "--key-file", key]))?;
        assert_names(
            &refusal.to_lowercase(),
            &named.map(str::to_lowercase).each_ref().map(String::as_str),
        );
    }
    let suites = ["--tls-max-version=TLS1.2", "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"];
    let urls = ["--listen-peer-urls", "https://127.0.0.1:0", "--peer-cert-file", &cert];
    let mut command = etcd(folder.path(), &urls);
    let refusal = Ended::refusal(command.args(["--peer-key-file", &key]).args(suites))?;
    assert_names(&refusal, &["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS 1.3 is not allowed"]);
    Ok(())
}

/// B14.
#[test]
fn configuration_files_are_refused_by_line_and_column() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("etcd.yml");
    let name = path.display().to_string();
    let refusal = Ended::refusal(&mut etcd(folder.path(), &["--config-file", &name]))?;
    assert_names(&refusal, &[&name, "--config-file"]);
    for (text, place) in [
        ("name: a\n\tdata-dir: b\n", ":2:"),
        ("name: a\nsnapshot-count: many\n", ":2:"),
        ("name: a\nname: b\n", ":2:1"),
        ("- a\n- b\n", ":1:"),
        ("name: [a\n", ":"),
        ("\u{0}\u{1}", ":"),
    ] {
        fs::write(&path, text)?;
        let refusal = Ended::refusal(&mut etcd(folder.path(), &["--config-file", &name]))?;
        assert_names(&refusal, &[&format!("{name}{place}")]);
    }
    // What etcd ignores is told.
    fs::write(&path, "name: ''\nno-such-key: 1\n")?;
    let ended = Ended::of(&mut etcd(folder.path(), &["--config-file", &name]))?;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
    assert_names(&ended.output, &["no-such-key", "unknown key", &format!("{name}:2:1")]);
    Ok(())
}

/// B15.
#[test]
fn a_port_in_use_is_named_with_its_flag() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let held = TcpListener::bind("127.0.0.1:0")?;
    let taken = format!("http://{}", held.local_addr()?);
    let free = "http://127.0.0.1:0";
    for (client, peer, flag) in
        [(taken.as_str(), free, "--listen-client-urls"), (free, &taken, "--listen-peer-urls")]
    {
        let mut command = etcd(folder.path(), &["--listen-client-urls", client]);
        command.args(["--advertise-client-urls", &taken, "--listen-peer-urls", peer]);
        let refusal = Ended::refusal(&mut command)?;
        assert_names(&refusal, &[&taken["http://".len()..], "address already in use", flag]);
    }
    Ok(())
}

/// A running server, and its folder.
fn running() -> anyhow::Result<(Server, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
    Ok((server, folder))
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), ..Default::default() }
}

fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Transactions in one another, so many of them.
fn nested(depth: usize) -> pb::TxnRequest {
    (1..depth).fold(pb::TxnRequest::default(), |inner, _| pb::TxnRequest {
        success: vec![operation(pb::request_op::Request::RequestTxn(inner))],
        ..Default::default()
    })
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, message: &str) {
    let Err(refused) = answer else { panic!("accepted: {answer:?}") };
    assert_eq!((refused.code(), refused.message()), (code, message));
}

/// B20.
#[tokio::test]
async fn requests_without_sense_are_refused_in_etcds_words() -> anyhow::Result<()> {
    let (server, _folder) = running()?;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    let (invalid, range) = (Code::InvalidArgument, Code::OutOfRange);
    let no_key = "etcdserver: key is not provided";
    assert_refused(kv.put(put("")).await, invalid, no_key);
    assert_refused(kv.range(pb::RangeRequest::default()).await, invalid, no_key);
    assert_refused(kv.delete_range(pb::DeleteRangeRequest::default()).await, invalid, no_key);
    let ask = |change: &dyn Fn(&mut pb::RangeRequest)| {
        let mut request = pb::RangeRequest { key: "a".into(), ..Default::default() };
        change(&mut request);
        request
    };
    let future = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(kv.range(ask(&|ask| ask.revision = i64::MAX)).await, range, future);
    assert_refused(
        kv.range(ask(&|ask| ask.sort_order = 9)).await,
        invalid,
        "etcdserver: invalid sort option",
    );
    // These mean "now", "no limit" and "nothing" to etcd.
    kv.put(put("a")).await?;
    for revision in [-1, i64::MIN] {
        let found = kv.range(ask(&|ask| ask.revision = revision)).await?.into_inner();
        assert_eq!(found.count, 1, "revision {revision}");
    }
    for limit in [-1, i64::MIN, i64::MAX] {
        let found = kv.range(ask(&|ask| ask.limit = limit)).await?.into_inner();
        assert_eq!((found.count, found.kvs.len()), (1, 1), "limit {limit}");
    }
    let empty = ask(&|ask| {
        ask.key = "z".into();
        ask.range_end = "a".into();
    });
    assert_eq!(kv.range(empty).await?.into_inner().count, 0);
    let value = pb::PutRequest { ignore_value: true, value: "v".into(), ..put("a") };
    assert_refused(kv.put(value).await, invalid, "etcdserver: value is provided");
    let compaction = pb::CompactionRequest { revision: i64::MAX, physical: false };
    assert_refused(kv.compact(compaction).await, range, future);
    let mut lease = LeaseClient::connect(server.endpoint()).await?;
    let large = pb::LeaseGrantRequest { ttl: i64::MAX, id: 0 };
    assert_refused(lease.lease_grant(large).await, range, "etcdserver: too large lease TTL");
    let unknown = pb::LeaseRevokeRequest { id: i64::MIN };
    assert_refused(
        lease.lease_revoke(unknown).await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    Ok(())
}

/// L5.
#[tokio::test]
async fn requests_beyond_the_limits_are_refused() -> anyhow::Result<()> {
    let (server, _folder) = running()?;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    let invalid = Code::InvalidArgument;
    let too_large = "etcdserver: request is too large";
    // Far below 1.5 MiB, just above it, and above what a message may have at all.
    let sized = |len| pb::PutRequest { value: vec![7; len].into(), ..put("large") };
    kv.put(sized(1_500_000)).await?;
    assert_refused(kv.put(sized(1_572_864)).await, invalid, too_large);
    let refused = kv.put(sized(2_097_152)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_names(refused.message(), &["grpc: received message larger than max (", "vs. 2097152)"]);
    let many = |count| pb::TxnRequest {
        success: (0..count)
            .map(|number| operation(pb::request_op::Request::RequestPut(put(&number.to_string()))))
            .collect(),
        ..Default::default()
    };
    kv.txn(many(128)).await?;
    let too_many = "etcdserver: too many operations in txn request";
    assert_refused(kv.txn(many(129)).await, invalid, too_many);
    kv.txn(nested(8)).await?;
    assert_refused(kv.txn(nested(40)).await, invalid, "etcdserver: txn nested too deep");
    // The decoder stops before the stack does.
    for depth in [60, 1000] {
        let refused = kv.txn(nested(depth)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused:?}");
        assert_names(refused.message(), &["grpc: failed to unmarshal"]);
    }
    expect_service(&server).await
}

/// B20: every service, with bytes that are no message.
#[tokio::test]
async fn bytes_that_are_no_message_are_refused() -> anyhow::Result<()> {
    let (server, _folder) = running()?;
    let channel = tonic::transport::Endpoint::from_shared(server.endpoint())?.connect().await?;
    for path in [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.KV/Compact",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Cluster/MemberList",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Snapshot",
    ] {
        // A length that lies, a field that ends early, an unknown wire type.
        for bytes in [&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F][..], &[0x0A, 5, 1], &[0x0F], &[0xFF]] {
            let status = call_raw(&channel, path, bytes).await?;
            assert!(status == "13" || status == "3", "{path} {bytes:?}: {status}");
        }
    }
    assert_eq!(call_raw(&channel, "/etcdserverpb.KV/Nothing", &[]).await?, "12");
    assert_eq!(call_raw(&channel, "/nothing", &[]).await?, "12");
    expect_service(&server).await
}

/// Sends one message as it is; the code of the answer.
async fn call_raw(
    channel: &tonic::transport::Channel,
    path: &str,
    message: &[u8],
) -> anyhow::Result<String> {
    let path: tonic::codegen::http::uri::PathAndQuery = path.parse()?;
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let request = tonic::Request::new(bytes::Bytes::copy_from_slice(message));
    let answer: Result<tonic::Response<bytes::Bytes>, Status> =
        grpc.unary(request, path, RawCodec).await;
    Ok(match answer {
        Ok(_) => "0".to_owned(),
        Err(status) => i32::from(status.code()).to_string(),
    })
}

/// Messages as bytes.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = bytes::Bytes;
    type Decode = bytes::Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = bytes::Bytes;
    type Error = Status;

    fn encode(
        &mut self,
        item: bytes::Bytes,
        buffer: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = bytes::Bytes;
    type Error = Status;

    fn decode(
        &mut self,
        buffer: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<bytes::Bytes>, Status> {
        let len = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, len)))
    }
}

/// B20: a watch of nonsense is canceled, and its stream goes on.
#[tokio::test]
async fn a_bad_watch_is_canceled_and_the_stream_goes_on() -> anyhow::Result<()> {
    let (server, _folder) = running()?;
    let mut watches = WatchClient::connect(server.endpoint()).await?;
    let (requests, queue) = tokio::sync::mpsc::channel(8);
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    let send = |union| requests.send(pb::WatchRequest { request_union: union });
    send(None).await?;
    send(Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 77 }))).await?;
    let empty =
        pb::WatchCreateRequest { key: "z".into(), range_end: "a".into(), ..Default::default() };
    send(Some(RequestUnion::CreateRequest(empty))).await?;
    let mut events = watches.watch(stream).await?.into_inner();
    let refused = events.message().await?.unwrap_or_default();
    assert!(refused.created && refused.canceled, "{refused:?}");
    let create = |start_revision| {
        let key = "a".into();
        let create = pb::WatchCreateRequest { key, start_revision, ..Default::default() };
        Some(RequestUnion::CreateRequest(create))
    };
    // W-03.
    send(create(-5)).await?;
    let refused = events.message().await?.unwrap_or_default();
    assert!(refused.canceled, "{refused:?}");
    assert_names(&refused.cancel_reason, &["has been compacted"]);
    send(create(0)).await?;
    let created = events.message().await?.unwrap_or_default();
    assert!(created.created && !created.canceled, "{created:?}");
    Keys::of(&server.endpoint())?.put("a", "").await?;
    assert_eq!(events.message().await?.unwrap_or_default().events.len(), 1);
    Ok(())
}

/// Whether other clients are served as if nothing had happened.
async fn expect_service(server: &Server) -> anyhow::Result<()> {
    let keys = Keys::of(&server.endpoint())?;
    keys.put("still", "here").await?;
    anyhow::ensure!(keys.get("still").await? == Some("here".into()));
    let log = server.log();
    for bad in ["\"level\":\"error\"", "\"level\":\"panic\"", "panicked"] {
        anyhow::ensure!(!log.contains(bad), "{log}");
    }
    Ok(())
}

/// L12, G24: garbage closes its own connection, at once or with the limit for heads, and no other.
#[tokio::test]
async fn garbage_on_the_port_harms_only_its_connection() -> anyhow::Result<()> {
    let (server, _folder) = running()?;
    let http2 = |frames: &[Vec<u8>]| [PREFACE, &frame(4, 0, 0, &[]), &frames.concat()].concat();
    let noise = (0..50_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[1]);
    let noise: Vec<u8> = noise.collect();
    let garbage = [
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3],
        noise.clone(),
        [PREFACE, &[0xFF], &noise].concat(),
        // Frames that are too long, of no kind, in no order, for no stream.
        http2(&[vec![0xFF; 9]]),
        http2(&[frame(1, 4, 0, &[0x82])]),
        http2(&[frame(0, 0, 1, b"data without a head")]),
        http2(&[frame(9, 0, 1, &[0x82])]),
        http2(&[frame(1, 4, 1, &[0xFF; 20])]),
        http2(&[frame(3, 0, 1, &[0; 3])]),
        http2(&[frame(8, 0, 0, &[0xFF; 4]), frame(8, 0, 0, &[0x7F; 4])]),
        http2(&[frame(6, 0, 0, &[1; 7])]),
        http2(&[frame(4, 0, 0, &[1; 5])]),
    ];
    let mut open = Vec::new();
    for bytes in &garbage {
        let mut stream = TcpStream::connect(("127.0.0.1", server.client_port()))?;
        // A server that has heard enough may close before all is written.
        drop(stream.write_all(bytes));
        open.push(stream);
    }
    expect_service(&server).await?;
    // Half-open: these never say a word, or stop in the middle of one.
    let mut silent = Vec::new();
    for start in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.client_port()))?;
        stream.write_all(start.as_bytes())?;
        silent.push(stream);
    }
    expect_service(&server).await?;
    let limit = Instant::now() + Duration::from_secs(60);
    for (number, mut stream) in open.into_iter().chain(silent).enumerate() {
        let left = limit.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let timed_out = ended.as_ref().err().is_some_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        });
        anyhow::ensure!(!timed_out, "connection {number} stays open");
    }
    expect_service(&server).await
}

/// L12: cheap frames in great number cost the server little and nobody else anything.
#[tokio::test]
async fn floods_of_frames_disturb_nobody() -> anyhow::Result<()> {
    let (server, _folder) = running()?;
    let pings = frame(6, 0, 0, &[0; 8]).repeat(20_000);
    let settings = frame(4, 0, 0, &[]).repeat(20_000);
    let windows = frame(8, 0, 0, &1_u32.to_be_bytes()).repeat(20_000);
    // Begun and taken back at once: ":method: POST", ":scheme: http", ":path: /", no end.
    let resets: Vec<u8> = (0..10_000_u32)
        .flat_map(|number| {
            let stream = number * 2 + 1;
            [frame(1, 4, stream, &[0x83, 0x86, 0x84]), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    // Heads of `/etcdserverpb.KV/Range` whose bodies never come.
    let path = "/etcdserverpb.KV/Range";
    let path_len = u8::try_from(path.len())?;
    let kind = "application/grpc";
    let kind_len = u8::try_from(kind.len())?;
    let head = [&[0x83, 0x86, 0x04, path_len][..], path.as_bytes()].concat();
    let head = [&head[..], &[0x0F, 0x10, kind_len], kind.as_bytes()].concat();
    let heads: Vec<u8> =
        (0..300_000_u32).flat_map(|number| frame(1, 4, number * 2 + 1, &head)).collect();
    // A head that never ends.
    let endless = [frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[]).repeat(20_000)].concat();
    let before = resident_bytes(&server)?;
    let mut threads = Vec::new();
    for flood in [pings, settings, windows, resets, heads, endless] {
        let port = server.client_port();
        threads.push(std::thread::spawn(move || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_write_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(PREFACE)?;
            stream.write_all(&frame(4, 0, 0, &[]))?;
            // Nobody reads the answers; the server may close or stop reading.
            drop(stream.write_all(&flood));
            Ok(())
        }));
    }
    for _ in 0..10 {
        expect_service(&server).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for thread in threads {
        anyhow::ensure!(thread.join().is_ok_and(|sent| sent.is_ok()), "the server is gone");
    }
    expect_service(&server).await?;
    let grown = resident_bytes(&server)? - before;
    println!("resident memory grew by {} MiB", grown >> 20);
    anyhow::ensure!(grown < 256 << 20, "grew by {} MiB", grown >> 20);
    Ok(())
}

/// The most that the server's memory ever was.
fn resident_bytes(server: &Server) -> anyhow::Result<i64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.unwrap_or_default().parse::<i64>()? * 1024)
}

/// L11: without descriptors new connections wait or are refused, old ones go on.
#[tokio::test]
async fn a_server_without_descriptors_keeps_its_connections() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let wrapper = folder.path().join("few-files.sh");
    fs::write(&wrapper, format!("#!/bin/sh\nulimit -n 64\nexec {OURS} \"$@\"\n"))?;
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut server = Server::start(&wrapper, folder.path(), ServerOptions::default())?;
    let keys = Keys::of(&server.endpoint())?;
    keys.put("a", "").await?;
    let mut taken = Vec::new();
    for _ in 0..100 {
        taken.push(TcpStream::connect(("127.0.0.1", server.client_port()))?);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for number in 0..50 {
        keys.put(&format!("key {number}"), vec![7; 10_000]).await?;
    }
    anyhow::ensure!(!server.has_ended(), "it ended:\n{}", server.log());
    drop(taken);
    let began = Instant::now();
    loop {
        let fresh = Keys::of(&server.endpoint())?;
        let asked = tokio::time::timeout(Duration::from_secs(1), fresh.get("a")).await;
        if asked.is_ok_and(|found| found.is_ok()) {
            break;
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "no new connection");
    }
    server.stop()?;
    Ok(())
}
