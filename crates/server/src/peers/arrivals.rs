//! What arrives from other members, handed to the node loop; snapshots are stored first.
//!
//! Source: etcd server/etcdserver/api/rafthttp/http.go (`snapshotHandler`).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::Backend;
use base::{Index, MemberId};
use bytes::Bytes;
use raft::{Body, Message};
use state::Reads;
use storage::{Landing, Stored, Turn};
use tokio::sync::mpsc;
use transport::{BoxFuture, IncomingSnapshot, LocalMember, ReceiveSnapshotError};
use vfs::Dir;

use crate::metrics::Metrics;
use crate::node_queue::NodeQueue;

/// Chunks of a snapshot that wait for the disk.
const CHUNKS_WAITING_MAX: usize = 4;

/// This member as the network sees it.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    queue: NodeQueue,
    reads: Reads,
    backend: Backend,
    landing: Landing,
    options: state::Options,
    metrics: Arc<Metrics>,
}

impl Arrivals {
    pub(crate) fn new(
        queue: NodeQueue,
        reads: Reads,
        backend: Backend,
        snap_dir: Arc<dyn Dir>,
        options: state::Options,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { queue, reads, backend, landing: Landing::new(snap_dir), options, metrics }
    }

    async fn take(self, snapshot: IncomingSnapshot) -> Result<(), ReceiveSnapshotError> {
        let IncomingSnapshot { message, data, mut db } = snapshot;
        let Body::Snapshot(meta) = &message.body else {
            return Err(ReceiveSnapshotError::Process);
        };
        let Some(turn) = self.landing.take() else {
            return Err(ReceiveSnapshotError::Process);
        };
        let (meta, from) = (meta.clone(), message.from);
        let index = meta.position.index;
        let (chunks, received) = mpsc::channel(CHUNKS_WAITING_MAX);
        let arrivals = self.clone();
        let storing = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let (stored, sync) = store(turn, index, received)?;
            arrivals.metrics.disk.on_received(began.elapsed(), sync);
            let prepared =
                stored.prepare(&arrivals.backend, meta.position, &arrivals.options, &data);
            prepared.map_err(io::Error::other)
        });
        let mut whole = true;
        while let Some(chunk) = db.next().await {
            if chunk.as_ref().is_ok_and(Bytes::is_empty) {
                continue;
            }
            let broken = chunk.is_err();
            // The disk's error comes out of the task.
            if chunks.send(chunk).await.is_err() || broken {
                whole = false;
                break;
            }
        }
        if whole {
            // Nobody listens any more if the disk failed.
            let _told = chunks.send(Ok(Bytes::new())).await;
        }
        drop(chunks);
        let stored = storing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let received = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(
                    from = %from,
                    "incoming-snapshot-index" = index.0,
                    error = %crate::logging::Chain(&error),
                    "failed to save incoming database snapshot"
                );
                return Err(ReceiveSnapshotError::Save(error));
            }
        };
        let taken = self.queue.receive_snapshot(message, received).await;
        taken.map_err(|_| ReceiveSnapshotError::Process)
    }
}

/// Whether every entry of a proposal is one that this release can apply: an entry that is in the log
/// is applied by all, and whoever cannot has to stop.
fn is_known(message: &Message) -> bool {
    let Body::Propose(entries) = &message.body else { return true };
    let known = entries.iter().cloned().all(|entry| member::payload(entry).is_known());
    if !known {
        tracing::warn!(from = %message.from, "dropped a forwarded proposal of a kind that is not known");
    }
    known
}

/// Writes a database beside ours, as it comes; an empty chunk says that it is whole. How long making
/// it durable took.
fn store(
    turn: Turn,
    index: Index,
    mut chunks: mpsc::Receiver<io::Result<Bytes>>,
) -> io::Result<(Stored, Duration)> {
    let mut receiving = turn.begin(index)?;
    loop {
        let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the sender went away");
        let chunk = chunks.blocking_recv().ok_or_else(broken)??;
        if chunk.is_empty() {
            break;
        }
        receiving.write(&chunk)?;
    }
    let began = Instant::now();
    Ok((receiving.finish()?, began.elapsed()))
}

impl LocalMember for Arrivals {
    fn receive(&self, messages: Vec<Message>) -> usize {
        self.queue.receive(messages)
    }

    fn receive_proposals(&self, mut messages: Vec<Message>) -> usize {
        let came = messages.len();
        messages.retain(is_known);
        let unknown = came - messages.len();
        unknown + self.queue.receive(messages)
    }

    fn unreachable(&self, peer: MemberId) {
        self.queue.unreachable(peer);
    }

    fn undelivered(&self, proposals: Vec<Message>) {
        self.queue.undelivered(proposals);
    }

    fn snapshot_sent(&self, peer: MemberId, succeeded: bool) {
        if !self.queue.try_snapshot_sent(peer, succeeded) {
            // It must arrive, or the peer would never get another one.
            let queue = self.queue.clone();
            tokio::task::spawn_blocking(move || queue.snapshot_sent(peer, succeeded));
        }
    }

    fn receive_snapshot(
        &self,
        snapshot: IncomingSnapshot,
    ) -> BoxFuture<Result<(), ReceiveSnapshotError>> {
        Box::pin(self.clone().take(snapshot))
    }

    fn is_removed(&self, member: MemberId) -> bool {
        self.reads.is_removed(member)
    }

    fn removed_from_cluster(&self) {
        self.queue.removed();
    }
}
