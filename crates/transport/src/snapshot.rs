//! Sending a snapshot: one request, whose body is the message behind its length and then the
//! database, read only as fast as the peer takes it.
//! Source: etcd: server/etcdserver/api/rafthttp/snapshot_sender.go.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use raft::{Body, Message};
use tokio::time::Instant;
use url::Url;

use crate::link::{self, Link, RequestError};
use crate::local_member::{ByteStream, OutgoingSnapshot};
use crate::peer::Target;
use crate::pieces::Pieces;
use crate::transport::Shared;
use crate::{pipeline, wire};

/// Snapshots under way to all peers together, as in etcd.
pub(crate) const IN_FLIGHT_MAX: usize = 16;

/// A peer that takes nothing for so long is given up.
const STALL_TIME: Duration = Duration::from_secs(30);

/// What a peer may take to store and load a snapshot once it has it.
const STORE_TIME: Duration = Duration::from_secs(300);

/// Sends the snapshot and says what became of it, also if the task is aborted.
pub(crate) async fn run(outcome: Outcome, snapshot: OutgoingSnapshot) {
    let mut outcome = outcome;
    let (shared, target) = (Arc::clone(&outcome.shared), Arc::clone(&outcome.target));
    let began = Instant::now();
    let url = target.urls.pick();
    let index = position(&snapshot.message);
    let bytes = snapshot.db_bytes;
    tracing::info!(
        "snapshot-index" = index,
        "remote-peer-id" = %target.id,
        bytes,
        "sending database snapshot"
    );
    match send(&shared, &url, snapshot).await {
        Ok(sent_bytes) => {
            outcome.succeeded = true;
            target.status.activate();
            target.metrics.sent_bytes.add(sent_bytes);
            target.metrics.snapshot_send.duration.observe(began.elapsed());
            tracing::info!(
                "snapshot-index" = index,
                "remote-peer-id" = %target.id,
                bytes,
                "sent database snapshot"
            );
        }
        Err(error) => {
            let reason = error.reason();
            tracing::warn!(
                "snapshot-index" = index,
                "remote-peer-id" = %target.id,
                bytes,
                error = reason,
                "failed to send database snapshot"
            );
            target.urls.failed(&url);
            target.metrics.sent_failures.add(1);
            if matches!(error, RequestError::Removed) {
                shared.member.removed_from_cluster();
            }
            target.status.deactivate("sendMsgSnap", "post", Some(&url), &reason);
            shared.member.unreachable(target.id);
        }
    }
}

/// What became of a snapshot; told when dropped.
pub(crate) struct Outcome {
    shared: Arc<Shared>,
    target: Arc<Target>,
    succeeded: bool,
}

impl Outcome {
    /// A failure unless something better happens.
    pub(crate) fn new(shared: Arc<Shared>, target: Arc<Target>) -> Self {
        target.metrics.snapshot_send.in_flight.add(1);
        Self { shared, target, succeeded: false }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let metrics = &self.target.metrics.snapshot_send;
        metrics.in_flight.add(-1);
        if self.succeeded { &metrics.successes } else { &metrics.failures }.add(1);
        self.shared.member.snapshot_sent(self.target.id, self.succeeded);
    }
}

fn position(message: &Message) -> u64 {
    let Body::Snapshot(meta) = &message.body else {
        panic!("{} sent as a snapshot", message.body.name());
    };
    meta.position.index.0
}

/// Returns how many bytes were sent.
async fn send(
    shared: &Shared,
    url: &Url,
    snapshot: OutgoingSnapshot,
) -> Result<usize, RequestError> {
    let mut message = Pieces::default();
    wire::encode(&snapshot.message, &snapshot.data, &mut message);
    let message = message.take_joined();
    let mut head = Pieces::default();
    head.put_u64(u64::try_from(message.len()).expect("a length fits 64 bits"));
    head.put_bytes(&message);
    let progress = Arc::new(Mutex::new(Progress::begin()));
    let body = SnapshotBody {
        head: Some(head.take_joined()),
        db: snapshot.db,
        progress: Arc::clone(&progress),
    };
    let mut link = Link::open(shared, url).await?;
    let body = UnsyncBoxBody::new(body);
    let mut request = link::request(shared, Method::POST, url, "/raft/snapshot", body);
    let kind = HeaderValue::from_static("application/octet-stream");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    let answered = async {
        let answer = link.send(request).await?;
        pipeline::check(&mut link, answer).await
    };
    tokio::select! {
        answered = answered => answered?,
        error = stalled(&progress) => return Err(error),
    }
    let sent = progress.lock().sent_bytes;
    Ok(sent)
}

/// Ready once the peer takes nothing, or does not answer, for too long.
async fn stalled(progress: &Mutex<Progress>) -> RequestError {
    loop {
        let (since, ended) = {
            let progress = progress.lock();
            (progress.since, progress.ended)
        };
        let (limit, what) = if ended {
            (STORE_TIME, "the answer to the snapshot")
        } else {
            (STALL_TIME, "sending the snapshot")
        };
        if since.elapsed() < limit {
            tokio::time::sleep_until(since + limit).await;
        } else {
            return RequestError::Timeout(what);
        }
    }
}

/// How far the body has come.
struct Progress {
    sent_bytes: usize,
    ended: bool,
    /// When the connection last wanted more.
    since: Instant,
}

impl Progress {
    fn begin() -> Self {
        Self { sent_bytes: 0, ended: false, since: Instant::now() }
    }
}

struct SnapshotBody {
    head: Option<Bytes>,
    db: ByteStream,
    progress: Arc<Mutex<Progress>>,
}

impl http_body::Body for SnapshotBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = match self.head.take() {
            Some(head) => Poll::Ready(Some(Ok(head))),
            None => self.db.as_mut().poll_next(context),
        };
        if let Poll::Ready(item) = &polled {
            let mut progress = self.progress.lock();
            progress.since = Instant::now();
            match item {
                Some(Ok(bytes)) => progress.sent_bytes += bytes.len(),
                Some(Err(_)) => {}
                None => progress.ended = true,
            }
        }
        polled.map_ok(Frame::data)
    }
}
