//! Large replies, and clients that ask and do not read what they are answered: they cost the server
//! bounded memory, and other clients their patience at most (reliability 1.3: G22).

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use retcd_conformance::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, call_head};
use retcd_conformance::{Server, ask};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::codegen::{Service as _, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

fn start() -> anyhow::Result<(Server, tempfile::TempDir)> {
    Server::fresh(Path::new(OURS), &[])
}

async fn kv(server: &Server) -> anyhow::Result<KvClient<Channel>> {
    let client = KvClient::connect(server.endpoint()).await?;
    Ok(client.max_decoding_message_size(usize::MAX))
}

/// Writes forty rows of a megabyte; returns the request for all of them.
async fn write_large(client: &mut KvClient<Channel>) -> anyhow::Result<pb::RangeRequest> {
    for number in 0..40 {
        let key = Bytes::from(format!("large/{number:02}"));
        let value = Bytes::from(vec![number; 1_000_000]);
        client.put(pb::PutRequest { key, value, ..Default::default() }).await?;
    }
    let all = pb::RangeRequest {
        key: Bytes::from("large/"),
        range_end: Bytes::from("large0"),
        ..Default::default()
    };
    // So that the server knows how large the rows are.
    client.range(all.clone()).await?;
    Ok(all)
}

/// A connection that asks the same so many times and then does nothing.
fn ask_and_forget(
    server: &Server,
    request: &pb::RangeRequest,
    times: u32,
) -> anyhow::Result<Frames> {
    let head = call_head("/etcdserverpb.KV/Range")?;
    let request = request.encode_to_vec();
    let len = u32::try_from(request.len())?.to_be_bytes();
    let message = [&[0][..], &len, &request].concat();
    let mut frames = Frames::open(server.address())?;
    for stream in (0..times).map(|number| number * 2 + 1) {
        frames.send(HEADERS, END_HEADERS, stream, &head)?;
        frames.send(DATA, END_STREAM, stream, &message)?;
    }
    Ok(frames)
}

/// The most that the server's memory ever was.
fn resident_bytes(server: &Server) -> anyhow::Result<i64> {
    status_bytes(server, "VmHWM:")
}

/// The server's memory at present, without pages of files.
fn own_bytes(server: &Server) -> anyhow::Result<i64> {
    status_bytes(server, "RssAnon:")
}

fn status_bytes(server: &Server, name: &'static str) -> anyhow::Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
    let kibibytes: i64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kibibytes * 1024)
}

/// Waits until the server has begun so many calls of Range.
async fn expect_begun(server: &Server, calls: u64) -> anyhow::Result<()> {
    const NAME: &str = "grpc_server_started_total{grpc_method=\"Range\"";
    let address = server.address();
    let began = Instant::now();
    loop {
        let text = ask(address, "GET", "/metrics", "")?.body;
        let line = text.lines().find(|line| line.starts_with(NAME)).context("no such metric")?;
        let (_, count) = line.rsplit_once(' ').context("a value")?;
        if calls <= count.parse::<u64>()? {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(120), "{line}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// G22, G-008: forty clients read forty megabytes each at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn large_reads_wait_for_room() -> anyhow::Result<()> {
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    let all = write_large(&mut client).await?;
    let before = resident_bytes(&server)?;
    let mut readers = Vec::new();
    for _ in 0..40 {
        // A connection each, so that nothing but the server makes them wait.
        let (mut client, all) = (kv(&server).await?, all.clone());
        readers.push(tokio::spawn(async move {
            client.range(all).await.map(|answer| answer.into_inner().kvs.len())
        }));
    }
    for reader in readers {
        assert_eq!(reader.await??, 40);
    }
    let grown = resident_bytes(&server)? - before;
    println!("resident memory grew by {} MiB", grown >> 20);
    assert!(grown < 256 << 20, "grew by {} MiB", grown >> 20);
    Ok(())
}

/// G22: replies that nobody takes do not keep their room from those who read.
#[tokio::test(flavor = "multi_thread")]
async fn large_replies_that_are_not_read_make_room_for_others() -> anyhow::Result<()> {
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    let all = write_large(&mut client).await?;
    let mut stalled = Vec::new();
    for _ in 0..6 {
        stalled.push(ask_and_forget(&server, &all, 1)?);
    }
    expect_begun(&server, 7).await?;
    assert_eq!(client.range(all).await?.into_inner().kvs.len(), 40);
    drop(stalled);
    Ok(())
}

/// G22: replies that are small one by one are bounded for their connection, and who reads gets all
/// of them.
#[tokio::test(flavor = "multi_thread")]
async fn small_replies_that_are_not_read_are_bounded() -> anyhow::Result<()> {
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    let (key, value) = (Bytes::from("key"), Bytes::from(vec![7; 900_000]));
    client.put(pb::PutRequest { key: key.clone(), value, ..Default::default() }).await?;
    let one = pb::RangeRequest { key, ..Default::default() };
    client.range(one.clone()).await?;
    let before = resident_bytes(&server)?;
    let stalled = ask_and_forget(&server, &one, 2_000)?;
    expect_begun(&server, 2_001).await?;
    let mut readers = Vec::new();
    for _ in 0..200 {
        let (mut client, one) = (client.clone(), one.clone());
        readers.push(tokio::spawn(async move { client.range(one).await }));
    }
    for reader in readers {
        assert_eq!(reader.await??.into_inner().kvs[0].value.len(), 900_000);
    }
    let grown = resident_bytes(&server)? - before;
    println!("resident memory grew by {} MiB", grown >> 20);
    assert!(grown < 256 << 20, "grew by {} MiB", grown >> 20);
    drop(stalled);
    Ok(())
}

/// Opens watches of one key, so many to a connection, and reads no more than that they are made.
/// The first begins at a revision of the past, each other so much behind the one before.
async fn watches(
    server: &Server,
    connections: usize,
    each: usize,
    start: Option<i64>,
) -> anyhow::Result<Vec<Streaming<pb::WatchResponse>>> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        // What a stream is sent of its own accord is little, and no other stream's matter.
        let endpoint = Endpoint::new(server.endpoint())?
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(64 << 20);
        let channel = endpoint.connect().await?;
        for _ in 0..each {
            let number = i64::try_from(streams.len())?;
            let create = pb::WatchCreateRequest {
                key: Bytes::from("large"),
                start_revision: start.map_or(0, |first| first + number % i64::from(EVENTS)),
                prev_kv: start.is_some() && number % 2 == 1,
                ..Default::default()
            };
            let create =
                pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            let requests = tokio_stream::once(create).chain(tokio_stream::pending());
            let client = WatchClient::new(channel.clone());
            let mut client = client.max_decoding_message_size(usize::MAX);
            let mut stream = client.watch(requests).await?.into_inner();
            let confirmed = stream.message().await?.context("a watch is confirmed")?;
            anyhow::ensure!(confirmed.created && !confirmed.canceled, "{confirmed:?}");
            streams.push(stream);
        }
    }
    Ok(streams)
}

const EVENTS: u8 = 100;

/// The value of a version of the key.
fn large_value(version: i64) -> anyhow::Result<Bytes> {
    Ok(Bytes::from(vec![u8::try_from(version % 251)?; 1_000_000]))
}

async fn put_events(client: &mut KvClient<Channel>, first_version: i64) -> anyhow::Result<()> {
    for version in first_version..first_version + i64::from(EVENTS) {
        let (key, value) = (Bytes::from("large"), large_value(version)?);
        client.put(pb::PutRequest { key, value, ..Default::default() }).await?;
    }
    Ok(())
}

/// Every event of these versions of the key, in order, each once.
async fn expect_events(
    stream: &mut Streaming<pb::WatchResponse>,
    mut versions: Range<i64>,
) -> anyhow::Result<()> {
    while !versions.is_empty() {
        let answer = tokio::time::timeout(Duration::from_secs(120), stream.message()).await??;
        for event in answer.context("the stream goes on")?.events {
            let next = versions.next().context("no event comes behind the last")?;
            let row = event.kv.context("an event has its row")?;
            anyhow::ensure!(row.version == next, "{} in the place of {next}", row.version);
            anyhow::ensure!(row.value == large_value(next)?, "another value in version {next}");
            if let Some(row) = event.prev_kv {
                anyhow::ensure!(row.version == next - 1, "{} before {next}", row.version);
                anyhow::ensure!(row.value == large_value(next - 1)?, "another before {next}");
            }
        }
    }
    Ok(())
}

/// How many streams there are whose clients do not read.
const STALLED: usize = 200;

/// They cost little, delay nobody, and miss nothing. How much memory they cost.
async fn stall_watches(connections: usize) -> anyhow::Result<i64> {
    let events = i64::from(EVENTS);
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    let mut reading = watches(&server, 1, 1, None).await?;
    let reading = tokio::spawn(async move {
        expect_events(&mut reading[0], 1..2 * events + 1).await.map(|()| reading)
    });
    // What the server keeps in any case of what happened lately.
    put_events(&mut client, 1).await?;
    let mut stalled = watches(&server, connections, STALLED / connections, None).await?;
    let before = own_bytes(&server)?;
    put_events(&mut client, events + 1).await?;
    let reading = reading.await??;
    let grown = own_bytes(&server)? - before;
    assert!(grown < 100 << 20, "grew by {} MiB", grown >> 20);
    for at in [0, STALLED / 2, STALLED - 1] {
        expect_events(&mut stalled[at], events + 1..2 * events + 1).await?;
    }
    let at_last = own_bytes(&server)? - before;
    assert!(at_last < 100 << 20, "grew by {} MiB", at_last >> 20);
    drop((reading, stalled));
    Ok(grown)
}

/// G21, L3: each on a connection of its own.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_are_not_read_are_bounded() -> anyhow::Result<()> {
    let grown = stall_watches(STALLED).await?;
    println!("memory grew by {} MiB", grown >> 20);
    Ok(())
}

/// G21, L3: many on each connection.
#[tokio::test(flavor = "multi_thread")]
async fn watches_of_few_connections_that_are_not_read_are_bounded() -> anyhow::Result<()> {
    let grown = stall_watches(4).await?;
    println!("memory grew by {} MiB", grown >> 20);
    Ok(())
}

/// A watch of the key by JSON, whose lines come without any framing of HTTP's.
fn watch_by_json(server: &Server) -> anyhow::Result<BufReader<TcpStream>> {
    const BODY: &str = r#"{"create_request":{"key":"bGFyZ2U="}}"#;
    let mut stream = TcpStream::connect(server.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let len = BODY.len();
    write!(stream, "POST /v3/watch HTTP/1.0\r\nContent-Length: {len}\r\n\r\n{BODY}")?;
    let mut lines = BufReader::with_capacity(1000, stream);
    let mut line = String::new();
    while !line.contains("created") {
        line.clear();
        anyhow::ensure!(0 < lines.read_line(&mut line)?, "the stream goes on");
    }
    Ok(lines)
}

/// G21, L3, GW-16: so are those of the gateway, whose lines are longer.
#[tokio::test(flavor = "multi_thread")]
async fn watches_of_the_gateway_that_are_not_read_are_bounded() -> anyhow::Result<()> {
    const EVENTS: i64 = 10;
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    put_events(&mut client, 1).await?;
    let first = i64::from(self::EVENTS) + 1;
    let mut stalled = Vec::new();
    for _ in 0..STALLED / 2 {
        stalled.push(watch_by_json(&server)?);
    }
    let before = own_bytes(&server)?;
    for version in first..first + EVENTS {
        let (key, value) = (Bytes::from("large"), large_value(version)?);
        client.put(pb::PutRequest { key, value, ..Default::default() }).await?;
    }
    for mut lines in stalled.drain(..2) {
        let mut line = String::new();
        for version in first..first + EVENTS {
            line.clear();
            anyhow::ensure!(0 < lines.read_line(&mut line)?, "the stream goes on");
            let answer: serde_json::Value = serde_json::from_str(&line)?;
            let events = answer["result"]["events"].as_array().context("events")?;
            assert_eq!(events.len(), 1);
            assert_eq!(events[0]["kv"]["version"], version.to_string());
            let value = events[0]["kv"]["value"].as_str().context("a value")?;
            assert_eq!(value.len(), large_value(version)?.len().div_ceil(3) * 4);
        }
    }
    let grown = own_bytes(&server)? - before;
    println!("memory grew by {} MiB", grown >> 20);
    assert!(grown < 200 << 20, "grew by {} MiB", grown >> 20);
    Ok(())
}

/// G21, L3: those that stand still at different events go on from the store, and end when it has
/// forgotten what they still need.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_stand_still_at_different_events_are_bounded() -> anyhow::Result<()> {
    let events = i64::from(EVENTS);
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    put_events(&mut client, 1).await?;
    let before = own_bytes(&server)?;
    let mut stalled = watches(&server, 4, STALLED / 4, Some(2)).await?;
    let mut reading = watches(&server, 1, 2, Some(2)).await?;
    expect_events(&mut reading[0], 1..events + 1).await?;
    expect_events(&mut reading[1], 2..events + 1).await?;
    let grown = own_bytes(&server)? - before;
    println!("memory grew by {} MiB", grown >> 20);
    assert!(grown < 100 << 20, "grew by {} MiB", grown >> 20);
    for (at, first) in [(0, 1), (1, 2), (70, 71), (171, 72)] {
        expect_events(&mut stalled[at], first..events + 1).await?;
    }
    let compact = pb::CompactionRequest { revision: events + 1, physical: true };
    client.compact(compact).await?;
    let mut given_up = 0;
    for (at, stream) in stalled.iter_mut().enumerate().take(50).skip(2) {
        // The one that is under way, unless others needed the memory, and no other.
        let mut versions = i64::try_from(at)? + 1..events + 1;
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(120), stream.message()).await?;
            match answer {
                Ok(answer) => {
                    let answer = answer.context("the stream goes on")?;
                    if answer.canceled {
                        assert_eq!(answer.compact_revision, events + 1);
                        break;
                    }
                    for event in answer.events {
                        let version = event.kv.context("an event has its row")?.version;
                        assert_eq!(versions.next(), Some(version));
                    }
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status}");
                    given_up += 1;
                    break;
                }
            }
        }
    }
    println!("{given_up} of 48 were given up");
    Ok(())
}

/// The body of a call: what there is of it, and no end.
struct Endless(Option<Bytes>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

/// L12, G24: calls that have sent most of their messages and then wait are bounded together, and
/// others are not refused for them.
#[tokio::test(flavor = "multi_thread")]
async fn messages_without_their_ends_are_bounded() -> anyhow::Result<()> {
    const CALLS: usize = 400;
    const METHODS: [(&str, &str); 4] = [
        ("/etcdserverpb.KV/Put", "application/grpc"),
        ("/etcdserverpb.Watch/Watch", "application/grpc"),
        ("/etcdserverpb.Lease/LeaseGrant", "application/grpc"),
        ("/v3/kv/put", "application/json"),
    ];
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
    let before = resident_bytes(&server)?;
    let len = u32::try_from(1_500_000)?.to_be_bytes();
    let part = Bytes::from([&[0][..], &len, &[7; 1_400_000]].concat());
    let mut calls = JoinSet::new();
    for number in 0..CALLS / 100 {
        let channel = Endpoint::new(server.endpoint())?.connect().await?;
        for call in 0..100 {
            let mut channel = channel.clone();
            let (path, kind) = METHODS[(number + call) % METHODS.len()];
            let request = http::Request::post(format!("{}{path}", server.endpoint()))
                .header("content-type", kind)
                .body(tonic::body::Body::new(Endless(Some(part.clone()))))?;
            calls.spawn(async move {
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
                let answer = channel.call(request).await?;
                if let Some(status) = Status::from_header_map(answer.headers()) {
                    return Ok(status);
                }
                if answer.status() == http::StatusCode::TOO_MANY_REQUESTS {
                    return Ok(Status::resource_exhausted("as the gateway says it"));
                }
                // A stream that began well: its end says why it ended.
                let mut body = answer.into_body();
                loop {
                    let next = std::future::poll_fn(|context| {
                        http_body::Body::poll_frame(Pin::new(&mut body), context)
                    });
                    let frame = next.await.context("a stream has trailers")??;
                    if let Some(trailers) = frame.trailers_ref() {
                        return Status::from_header_map(trailers).context("a status");
                    }
                }
            });
        }
    }
    for number in 0..CALLS - 100 {
        let answered = tokio::time::timeout(Duration::from_secs(120), calls.join_next()).await?;
        let status: Status = answered.context("calls are left")???;
        // On a slow machine some have not moved for long enough.
        let is_late = status.code() == Code::DeadlineExceeded && 0 < number;
        assert!(is_late || status.code() == Code::ResourceExhausted, "{status}");
    }
    for version in 0..3 {
        let (key, value) = (Bytes::from("large"), large_value(version)?);
        client.put(pb::PutRequest { key, value, ..Default::default() }).await?;
    }
    let grown = resident_bytes(&server)? - before;
    println!("memory grew by {} MiB", grown >> 20);
    assert!(grown < 300 << 20, "grew by {} MiB", grown >> 20);
    Ok(())
}
