//! Signals: how a server ends, under load, twice, and while it is starting.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use retcd_conformance::{Keys, Server, ServerOptions};
use tonic::Code;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// C10 and R5 say 1.5 s on a machine of its own; tests share theirs.
const END_TIME_MAX: Duration = Duration::from_secs(60);

const TERMINATE: i32 = 15;
const INTERRUPT: i32 = 2;

/// Writers that go on until they are refused; what they had acknowledged, and the refusals.
struct Load {
    acknowledged: Arc<AtomicUsize>,
    writers: Vec<tokio::task::JoinHandle<(usize, tonic::Status)>>,
}

impl Load {
    fn start(server: &Server) -> anyhow::Result<Self> {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut writers = Vec::new();
        for writer in 0..8 {
            let (keys, total) = (Keys::of(&server.endpoint())?, Arc::clone(&acknowledged));
            writers.push(tokio::spawn(async move {
                for number in 0.. {
                    if let Err(status) = keys.put(&key(writer, number), "").await {
                        return (number, status);
                    }
                    total.fetch_add(1, Ordering::Relaxed);
                }
                unreachable!("nobody counts that far")
            }));
        }
        Ok(Self { acknowledged, writers })
    }

    async fn until_busy(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < 200 {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "nothing is written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn key(writer: usize, number: usize) -> String {
    format!("writer {writer} key {number:06}")
}

/// Sends the signals one after the other under load; the server must end by `expected`.
async fn end_under_load(signals: &[&str], expected: i32) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
    let load = Load::start(&server)?;
    load.until_busy().await?;
    let began = Instant::now();
    for (sent, signal) in signals.iter().enumerate() {
        // The first one may have ended it already.
        let told = server.signal(signal);
        anyhow::ensure!(sent > 0 || told.is_ok(), "{told:?}");
    }
    // The runtime of the test must go on meanwhile.
    while !server.has_ended() {
        anyhow::ensure!(began.elapsed() < END_TIME_MAX, "it does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    let status = server.wait()?;
    anyhow::ensure!(status.signal() == Some(expected), "{status}");
    anyhow::ensure!(took <= END_TIME_MAX, "{took:?}");
    let mut acknowledged = Vec::new();
    for writer in load.writers {
        let (count, refused) = writer.await?;
        // With a source, it is the client's own word for a connection that is gone.
        let by_client = std::error::Error::source(&refused).is_some();
        anyhow::ensure!(by_client || refused.code() == Code::Unavailable, "{refused:?}");
        acknowledged.push(count);
    }
    server.restart(Path::new(OURS))?;
    let keys = Keys::of(&server.endpoint())?;
    for (writer, count) in acknowledged.into_iter().enumerate() {
        for number in 0..count {
            let found = keys.get(&key(writer, number)).await?;
            anyhow::ensure!(found.is_some(), "{} is lost", key(writer, number));
        }
    }
    Ok(())
}

/// C10 and R5 say 1.5 s on a machine of its own; tests share theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_soon_and_loses_nothing() -> anyhow::Result<()> {
    end_under_load(&["TERM"], TERMINATE).await
}

/// R5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_ends_as_sigterm_does() -> anyhow::Result<()> {
    end_under_load(&["INT"], INTERRUPT).await
}

/// C10: impatience changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_does_no_harm() -> anyhow::Result<()> {
    end_under_load(&["TERM", "TERM", "TERM"], TERMINATE).await
}

/// C10: streams without an end do not hold it up.
#[tokio::test]
async fn open_streams_do_not_hold_up_the_end() -> anyhow::Result<()> {
    use proto::etcdserverpb as pb;
    use proto::etcdserverpb::lease_client::LeaseClient;
    use proto::etcdserverpb::watch_client::WatchClient;
    use proto::etcdserverpb::watch_request::RequestUnion;
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
    let mut watches = WatchClient::connect(server.endpoint()).await?;
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    let mut events = watches.watch(stream).await?.into_inner();
    anyhow::ensure!(events.message().await?.is_some_and(|created| created.created));
    let mut leases = LeaseClient::connect(server.endpoint()).await?;
    let (renewals, queue) = tokio::sync::mpsc::channel(1);
    renewals.send(pb::LeaseKeepAliveRequest { id: 1 }).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    let mut answers = leases.lease_keep_alive(stream).await?.into_inner();
    anyhow::ensure!(answers.message().await?.is_some());
    // A connection that never said anything.
    let silent = std::net::TcpStream::connect(("127.0.0.1", server.client_port()))?;
    let began = Instant::now();
    let status = tokio::task::spawn_blocking(move || server.stop()).await??;
    anyhow::ensure!(status.signal() == Some(TERMINATE), "{status}");
    anyhow::ensure!(began.elapsed() <= END_TIME_MAX, "{:?}", began.elapsed());
    drop((requests, renewals, silent));
    Ok(())
}

/// C5, C11: killed or told to end again and again while it starts, it makes progress, keeps
/// everything, and its log does not grow.
#[tokio::test]
async fn a_crash_loop_at_start_loses_nothing_and_fills_nothing() -> anyhow::Result<()> {
    const COUNT: usize = 300;
    let folder = tempfile::tempdir()?;
    let flags = ["--snapshot-count", "100"].map(str::to_owned).into();
    let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
    let keys = Keys::of(&server.endpoint())?;
    for number in 0..COUNT {
        keys.put(&key(0, number), vec![7; 1000]).await?;
    }
    server.kill()?;
    let before = log_bytes(&server)?;
    for round in 0..20 {
        server.restart_unready(Path::new(OURS))?;
        std::thread::sleep(Duration::from_millis(5 + round * 45 / 19));
        if round % 2 == 0 {
            server.kill()?;
        } else {
            let began = Instant::now();
            let status = server.stop()?;
            anyhow::ensure!(status.signal() == Some(TERMINATE), "{status}");
            anyhow::ensure!(began.elapsed() <= END_TIME_MAX, "{:?}", began.elapsed());
        }
    }
    let after = log_bytes(&server)?;
    // Each round is an election: two records of some fifty bytes.
    anyhow::ensure!(after < before + 20 * 200, "the log grew from {before} to {after} bytes");
    server.restart(Path::new(OURS))?;
    let keys = Keys::of(&server.endpoint())?;
    for number in 0..COUNT {
        let found = keys.get(&key(0, number)).await?;
        anyhow::ensure!(found.is_some_and(|value| value.len() == 1000), "{}", key(0, number));
    }
    Ok(())
}

/// Bytes of the log that are in use.
fn log_bytes(server: &Server) -> anyhow::Result<usize> {
    let mut total = 0;
    for entry in fs::read_dir(server.data_dir().join("member/wal"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            let bytes = fs::read(&path)?;
            total += bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
        }
    }
    Ok(total)
}
