//! `etcd grpc-proxy start` (SRV-176..181): our proxy before our server and before real etcd, and
//! real etcd's proxy beside ours where there is one.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod calls;
mod discovery;
mod doors;
mod flags;
mod keys;
mod members;
#[path = "../own_network/named.rs"]
mod named;
#[path = "../own_network/names.rs"]
mod names;
#[path = "../own_network/mod.rs"]
#[allow(dead_code, reason = "these tests have members of their own")]
mod own_network;
mod streams;
mod table;
mod tls;
mod watches;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use client::{Client, Options, WatchOptions, Watcher};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use retcd_conformance::{Server, ServerOptions, ask, real_etcd};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

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
        Self::before_all(program, folder, &upstream.endpoint(), flags)
    }

    /// Starts our proxy before endpoints, which need not be there.
    fn before(folder: &Path, endpoints: &str, flags: &[&str]) -> anyhow::Result<Self> {
        Self::before_all(Path::new(OURS), folder, endpoints, flags)
    }

    fn before_all(
        program: &Path,
        folder: &Path,
        endpoints: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        for _ in 0..3 {
            if let Some(proxy) = Self::try_start(program, folder, endpoints, flags)? {
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
