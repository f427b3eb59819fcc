//! Transports in one process: each with a port of its own and a member that writes down what it
//! hears. Waiting is polling with a generous bound.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may end here")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{ClusterId, Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use raft::{Append, Body, Entry, EntryKind, Message};
use retcd_transport::{
    BoxFuture, Config, IncomingSnapshot, LocalMember, ReceiveSnapshotError, TcpDial, Timed,
    Transport,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

/// What a member heard.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) messages: Vec<Message>,
    pub(crate) batches: usize,
    pub(crate) proposals: Vec<Message>,
    pub(crate) unreachable: Vec<MemberId>,
    pub(crate) snapshots_sent: Vec<(MemberId, bool)>,
    pub(crate) snapshots: Vec<ReceivedSnapshot>,
    pub(crate) told_removed: usize,
}

/// A snapshot that came in.
pub(crate) struct ReceivedSnapshot {
    pub(crate) message: Message,
    pub(crate) data: Bytes,
    /// Length of the database, or how it broke off.
    pub(crate) db: Result<usize, String>,
    /// Sum of all bytes.
    pub(crate) sum: u64,
}

/// Hears each chunk of a database.
pub(crate) type OnChunk = Arc<dyn Fn(&Bytes) + Send + Sync>;

/// A member that only listens.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) heard: Mutex<Heard>,
    pub(crate) removed: Mutex<BTreeSet<MemberId>>,
    /// Called with each chunk of a snapshot.
    pub(crate) on_chunk: Mutex<Option<OnChunk>>,
    /// Whether it has no room for messages.
    pub(crate) full: Mutex<bool>,
    /// Whether its port refuses streams, so that all it says is posted.
    pub(crate) no_streams: Mutex<bool>,
}

/// Lets the trait's methods reach an `Arc`.
pub(crate) struct Shared(pub(crate) Arc<Listener>);

impl LocalMember for Shared {
    fn receive(&self, messages: Vec<Message>) -> usize {
        if *self.0.full.lock() {
            return messages.len();
        }
        let mut heard = self.0.heard.lock();
        heard.batches += 1;
        heard.messages.extend(messages);
        0
    }

    fn receive_proposals(&self, messages: Vec<Message>) -> usize {
        self.0.heard.lock().proposals.extend(messages);
        0
    }

    fn unreachable(&self, peer: MemberId) {
        self.0.heard.lock().unreachable.push(peer);
    }

    fn snapshot_sent(&self, peer: MemberId, succeeded: bool) {
        self.0.heard.lock().snapshots_sent.push((peer, succeeded));
    }

    fn receive_snapshot(
        &self,
        mut snapshot: IncomingSnapshot,
    ) -> BoxFuture<Result<(), ReceiveSnapshotError>> {
        let listener = Arc::clone(&self.0);
        let on_chunk = listener.on_chunk.lock().clone();
        Box::pin(async move {
            let (mut len, mut sum, mut broken) = (0, 0_u64, None);
            while let Some(chunk) = snapshot.db.next().await {
                match chunk {
                    Ok(chunk) => {
                        len += chunk.len();
                        sum += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                        if let Some(on_chunk) = &on_chunk {
                            on_chunk(&chunk);
                        }
                    }
                    Err(error) => broken = Some(error),
                }
            }
            let (message, data) = (snapshot.message, snapshot.data);
            let db = broken.as_ref().map_or(Ok(len), |error| Err(error.to_string()));
            let received = ReceivedSnapshot { message, data, db, sum };
            listener.heard.lock().snapshots.push(received);
            broken.map_or(Ok(()), |error| Err(ReceiveSnapshotError::Save(error)))
        })
    }

    fn is_removed(&self, member: MemberId) -> bool {
        self.0.removed.lock().contains(&member)
    }

    fn removed_from_cluster(&self) {
        self.0.heard.lock().told_removed += 1;
    }
}

/// A member with its port and its transport.
pub(crate) struct Host {
    pub(crate) id: MemberId,
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) listener: Arc<Listener>,
    port: AbortHandle,
}

impl Host {
    pub(crate) async fn start(id: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(id, CLUSTER, socket)
    }

    pub(crate) fn start_on(id: u64, cluster: ClusterId, socket: TcpListener) -> Self {
        let address = socket.local_addr().unwrap();
        let listener = Arc::new(Listener::default());
        let config = Config {
            local: MemberId(id),
            cluster,
            peer_urls: vec![format!("http://{address}")],
            dial_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(5),
        };
        let shared = Arc::new(Shared(Arc::clone(&listener)));
        let transport = Transport::new(config, shared, Arc::new(TcpDial), Handle::current());
        let serving = serve(socket, transport.clone(), Arc::clone(&listener));
        let port = tokio::spawn(serving).abort_handle();
        Self { id: MemberId(id), address, transport, listener, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn entry(&self) -> (MemberId, Vec<String>) {
        (self.id, vec![self.url()])
    }

    pub(crate) fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.listener.heard.lock())
    }

    /// Closes the port and every connection on it.
    pub(crate) fn stop(&self) {
        self.port.abort();
        self.transport.shutdown();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(socket: TcpListener, transport: Transport, listener: Arc<Listener>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = socket.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let (transport, listener) = (transport.clone(), Arc::clone(&listener));
        connections.spawn(async move {
            let answer = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                let transport = transport.clone();
                if *listener.no_streams.lock() && request.uri().path().contains("/stream/") {
                    *request.uri_mut() = "/raft/nothing".parse().unwrap();
                }
                async move { Ok::<_, Infallible>(transport.handle(request).await) }
            });
            let stream = Timed::writes(stream, Some(Timed::<()>::PEER_WRITE_LIMIT));
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            drop(serving.await);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Makes all of them members of each other's cluster and waits until all streams are there.
pub(crate) async fn join(hosts: &[&Host]) {
    let members: Vec<_> = hosts.iter().map(|host| host.entry()).collect();
    for host in hosts {
        host.transport.set_members(&members);
    }
    for from in hosts {
        for to in hosts {
            if from.id != to.id {
                attached(from, to).await;
            }
        }
    }
}

/// Waits until both streams on which one sends to the other are there.
pub(crate) async fn attached(from: &Host, to: &Host) {
    wait("streams", || from.transport.attached_streams(to.id) == 2).await;
}

/// Polls until `done`.
pub(crate) async fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn heartbeat(from: MemberId, to: MemberId, commit: u64) -> Message {
    let body = Body::Heartbeat { commit: Index(commit), context: Bytes::new() };
    Message { from, to, term: Term(1), body }
}

/// An append of one entry at `index`; of none at index 0.
pub(crate) fn append(from: MemberId, to: MemberId, index: u64, data: Bytes) -> Message {
    let entries = if index == 0 {
        vec![]
    } else {
        vec![Entry { kind: EntryKind::Normal, term: Term(1), index: Index(index), data }]
    };
    let previous = LogPosition { index: Index(index).previous(), term: Term(u64::from(1 < index)) };
    let body = Body::Append(Append { previous, entries, commit: Index(0) });
    Message { from, to, term: Term(1), body }
}
