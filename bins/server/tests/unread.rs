//! Clients that ask and do not read what they are answered: they cost the server bounded memory,
//! and other clients their patience at most (reliability 1.3: G22).

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use retcd_conformance::{Server, ServerOptions, ask};
use tonic::transport::Channel;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

fn start() -> anyhow::Result<(Server, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    Ok((Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?, folder))
}

async fn kv(server: &Server) -> anyhow::Result<KvClient<Channel>> {
    let client = KvClient::connect(server.endpoint()).await?;
    Ok(client.max_decoding_message_size(usize::MAX))
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let len = u32::try_from(payload.len())?.to_be_bytes();
    Ok([&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat())
}

/// A connection that asks the same so many times and then does nothing.
fn ask_and_forget(
    server: &Server,
    request: &pb::RangeRequest,
    times: u32,
) -> anyhow::Result<TcpStream> {
    let (path, kind) = ("/etcdserverpb.KV/Range", "application/grpc");
    let head = [
        &[0x83, 0x86, 0x04, u8::try_from(path.len())?][..],
        path.as_bytes(),
        &[0x0F, 0x10, u8::try_from(kind.len())?],
        kind.as_bytes(),
    ]
    .concat();
    let request = request.encode_to_vec();
    let len = u32::try_from(request.len())?.to_be_bytes();
    let message = [&[0][..], &len, &request].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[])?);
    for stream in (0..times).map(|number| number * 2 + 1) {
        bytes.extend(frame(1, 4, stream, &head)?);
        bytes.extend(frame(0, 1, stream, &message)?);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", server.client_port()))?;
    stream.write_all(&bytes)?;
    Ok(stream)
}

/// The most that the server's memory ever was.
fn resident_bytes(server: &Server) -> anyhow::Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kibibytes: i64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kibibytes * 1024)
}

/// Waits until the server has begun so many calls of Range.
async fn expect_begun(server: &Server, calls: u64) -> anyhow::Result<()> {
    const NAME: &str = "grpc_server_started_total{grpc_method=\"Range\"";
    let address = server.endpoint().trim_start_matches("http://").parse()?;
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

/// G22: replies that nobody takes do not keep their room from those who read.
#[tokio::test(flavor = "multi_thread")]
async fn large_replies_that_are_not_read_make_room_for_others() -> anyhow::Result<()> {
    let (server, _folder) = start()?;
    let mut client = kv(&server).await?;
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
