//! What other members ask over HTTP: attaching a stream, a message, a snapshot, a probe.
//!
//! The order of checks, the codes and the texts are etcd's, because its members act on them. Above
//! all 403: its receiver takes itself for removed and ends, so nothing else may answer that.
//! Source: etcd: server/etcdserver/api/rafthttp/http.go; etcdserver/server.go (Process).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::MemberId;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use raft::Message;

use crate::codec::{StreamKind, WholeDecoder};
use crate::headers;
use crate::local_member::{IncomingDb, IncomingSnapshot, ReceiveSnapshotError};
use crate::metrics::PeerMetrics;
use crate::pipeline;
use crate::probe;
use crate::reply::ReplyBody;
use crate::transport::Transport;
use crate::wire::{self, Decoded};

/// Error of a request's body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A posted message is a mebibyte and one entry at most; entries are as large as
/// `--max-request-bytes` allows.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// What may stand before a snapshot's database.
const SNAPSHOT_MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// A sender that is silent for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

impl Transport {
    /// Whether [`Transport::handle`] answers requests for `path`.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        path == "/raft" || path.starts_with("/raft/")
    }

    /// Answers a request of another member. Must run on a runtime with timers; the reply to a
    /// stream goes on until the stream ends.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/raft" => self.on_message(&head, body).await,
            "/raft/snapshot" => self.on_snapshot(&head, body).await,
            "/raft/probing" => reply(StatusCode::OK, probe::answer()),
            path if path.starts_with("/raft/stream/") => self.on_stream(&head),
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    fn on_stream(&self, head: &Parts) -> Response<ReplyBody> {
        if head.method != Method::GET {
            return wrong_method("GET");
        }
        let mut reply = self.attach(head).unwrap_or_else(|reply| *reply);
        let version = HeaderValue::from_static(base::version::COMPATIBLE);
        put(&mut reply, headers::SERVER_VERSION, version);
        self.with_cluster(reply)
    }

    fn attach(&self, head: &Parts) -> Result<Response<ReplyBody>, Box<Response<ReplyBody>>> {
        let shared = &self.inner.shared;
        let refuse = |status, text: &str| Box::new(error(status, text));
        self.check(head)?;
        let path = head.uri.path();
        let (folder, id) = path.rsplit_once('/').unwrap_or((path, ""));
        let kind = match folder {
            "/raft/stream/msgapp" => StreamKind::Append,
            "/raft/stream/message" => StreamKind::Message,
            _ => return Err(refuse(StatusCode::NOT_FOUND, "invalid path")),
        };
        let Ok(from) = u64::from_str_radix(id, 16).map(MemberId) else {
            return Err(refuse(StatusCode::NOT_FOUND, "invalid from"));
        };
        if shared.member.is_removed(from) {
            self.warn("rejected stream from remote peer because it was removed", from);
            return Err(refuse(StatusCode::GONE, "removed member"));
        }
        let Some(peer) = self.inner.peer(from) else {
            if let Some(urls) = text_of(head, headers::PEER_URLS) {
                self.inner.add_remote(from, urls);
            }
            self.warn("failed to find remote peer in cluster", from);
            return Err(refuse(StatusCode::NOT_FOUND, "error sender not found"));
        };
        if text_of(head, headers::TO) != Some(&shared.config.local.to_string()) {
            self.warn("ignored streaming request; ID mismatch", from);
            return Err(refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch"));
        }
        Ok(Response::new(ReplyBody::stream(peer.attach(kind))))
    }

    async fn on_message<B>(&self, head: &Parts, body: B) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if head.method != Method::POST {
            return wrong_method("POST");
        }
        let reply = match self.take_message(head, body).await {
            Ok(()) => no_content(),
            Err(reply) => *reply,
        };
        self.with_cluster(reply)
    }

    async fn take_message<B>(&self, head: &Parts, body: B) -> Result<(), Box<Response<ReplyBody>>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.check(head)?;
        self.remember_sender(head);
        let from = sender(head);
        let refuse = |text: &str| {
            self.count_failure(from);
            self.warn("failed to read Raft message", from);
            Box::new(error(StatusCode::BAD_REQUEST, text))
        };
        let Ok(bytes) = read_all(body).await else {
            return Err(refuse("error reading raft message"));
        };
        let len = bytes.len();
        let message = match wire::decode(bytes) {
            Ok(Decoded::Message(message)) => message,
            Ok(Decoded::LinkHeartbeat | Decoded::Snapshot(..)) => {
                return Err(refuse("wrong raft message type"));
            }
            Err(_) => return Err(refuse("error unmarshalling raft message")),
        };
        if let Some(metrics) = self.known(message.from) {
            metrics.received_bytes.add(len);
        }
        self.check_addresses(&message)?;
        if self.is_cut(message.from) {
            return Ok(());
        }
        let member = &self.inner.shared.member;
        let from = message.from;
        if matches!(message.body, raft::Body::Append(_)) {
            self.inner.shared.metrics.appends.received.count(&[len]);
        }
        let dropped = if matches!(message.body, raft::Body::Propose(_)) {
            member.receive_proposals(vec![message])
        } else {
            member.receive(vec![message])
        };
        if dropped == 0 {
            return Ok(());
        }
        self.count_failure(from);
        self.warn("failed to process Raft message", from);
        let text = "error processing raft message";
        Err(Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, text)))
    }

    async fn on_snapshot<B>(&self, head: &Parts, body: B) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if head.method != Method::POST {
            self.inner.shared.metrics.unknown_snapshot_failures.add(1);
            return wrong_method("POST");
        }
        let began = Instant::now();
        let from = sender(head);
        let reply = match Box::pin(self.take_snapshot(head, body)).await {
            Ok(()) => {
                if let Some(metrics) = self.known(from) {
                    metrics.snapshot_receive.successes.add(1);
                    metrics.snapshot_receive.duration.observe(began.elapsed());
                }
                no_content()
            }
            Err(reply) => {
                match self.known(from) {
                    Some(metrics) => metrics.snapshot_receive.failures.add(1),
                    None => self.inner.shared.metrics.unknown_snapshot_failures.add(1),
                }
                *reply
            }
        };
        self.with_cluster(reply)
    }

    async fn take_snapshot<B>(&self, head: &Parts, body: B) -> Result<(), Box<Response<ReplyBody>>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.check(head)?;
        self.remember_sender(head);
        let from = sender(head);
        let refuse = |status, text: String| {
            self.count_failure(from);
            self.warn("failed to decode Raft message", from);
            Box::new(error(status, &text))
        };
        let mut chunks = chunks(body);
        let mut decoder = WholeDecoder::default();
        let (message, data) = loop {
            let unreadable = match decoder.decode_any(SNAPSHOT_MESSAGE_BYTES_MAX) {
                Ok(Some(Decoded::Snapshot(message, data))) => break (message, data),
                Ok(Some(Decoded::LinkHeartbeat | Decoded::Message(_))) => {
                    let text = "wrong raft message type".to_owned();
                    return Err(refuse(StatusCode::BAD_REQUEST, text));
                }
                Ok(None) => match futures_util::StreamExt::next(&mut chunks).await {
                    Some(Ok(chunk)) => {
                        decoder.push(chunk);
                        continue;
                    }
                    Some(Err(error)) => error.to_string(),
                    None => "unexpected EOF".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            let text = format!("failed to decode raft message ({unreadable})");
            return Err(refuse(StatusCode::BAD_REQUEST, text));
        };
        self.check_addresses(&message)?;
        if self.is_cut(message.from) {
            return Err(Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, "cut off")));
        }
        let rest = decoder.into_rest();
        self.store_snapshot(message, data, rest, chunks).await
    }

    async fn store_snapshot(
        &self,
        message: Message,
        data: Bytes,
        begin: Bytes,
        chunks: Chunks,
    ) -> Result<(), Box<Response<ReplyBody>>> {
        let from = message.from;
        let raft::Body::Snapshot(meta) = &message.body else {
            unreachable!("only snapshots are stored");
        };
        let index = meta.position.index;
        let local = self.inner.shared.config.local;
        tracing::info!(
            "local-member-id" = %local,
            "remote-snapshot-sender-id" = %from,
            "incoming-snapshot-index" = index.0,
            "receiving database snapshot"
        );
        let counted = self.known(from).map(InFlight::begin);
        let metrics = self.known(from);
        let first = (!begin.is_empty()).then_some(Ok(begin));
        let all = futures_util::StreamExt::chain(futures_util::stream::iter(first), chunks);
        let all = futures_util::StreamExt::inspect(all, move |chunk| {
            if let (Some(metrics), Ok(bytes)) = (&metrics, chunk) {
                metrics.received_bytes.add(bytes.len());
            }
        });
        let db = IncomingDb::new(Box::pin(all));
        let snapshot = IncomingSnapshot { message, data, db };
        let stored = self.inner.shared.member.receive_snapshot(snapshot).await;
        drop(counted);
        let text = match stored {
            Ok(()) => {
                tracing::info!(
                    "local-member-id" = %local,
                    "remote-snapshot-sender-id" = %from,
                    "incoming-snapshot-index" = index.0,
                    "received and saved database snapshot"
                );
                return Ok(());
            }
            Err(ReceiveSnapshotError::Save(error)) => {
                format!("failed to save KV snapshot ({error})")
            }
            Err(error @ ReceiveSnapshotError::Process) => {
                format!("failed to process raft message ({error})")
            }
        };
        tracing::warn!(
            "local-member-id" = %local,
            "remote-snapshot-sender-id" = %from,
            "incoming-snapshot-index" = index.0,
            error = text,
            "failed to save incoming database snapshot"
        );
        Err(Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, &text)))
    }

    /// Refuses senders of other clusters and of releases that cannot talk to us.
    fn check(&self, head: &Parts) -> Result<(), Box<Response<ReplyBody>>> {
        let shared = &self.inner.shared;
        headers::check(&shared.config, &head.headers).map_err(|mismatch| {
            let from = sender(head);
            self.count_failure(from);
            if shared.said.may_say(mismatch.text(), from) {
                tracing::warn!(
                    "local-member-id" = %shared.config.local,
                    "local-member-cluster-id" = %shared.config.cluster,
                    "local-member-server-version" = base::version::COMPATIBLE,
                    "remote-peer-server-name" = text_of(head, headers::FROM),
                    "remote-peer-server-version" = text_of(head, headers::SERVER_VERSION),
                    "remote-peer-cluster-id" = text_of(head, headers::CLUSTER),
                    "request from a peer refused: {}", mismatch.text()
                );
            }
            Box::new(error(StatusCode::PRECONDITION_FAILED, mismatch.text()))
        })
    }

    /// The two reasons for which a sender may be told 403.
    fn check_addresses(&self, message: &Message) -> Result<(), Box<Response<ReplyBody>>> {
        let shared = &self.inner.shared;
        let text = if shared.member.is_removed(message.from) {
            self.warn("rejected Raft message from removed member", message.from);
            "cannot process message from removed member"
        } else if message.to != shared.config.local {
            self.warn("rejected Raft message to mismatch member", message.from);
            pipeline::MISLED
        } else {
            return Ok(());
        };
        // As etcd's own errors: JSON instead of plain text.
        let body = serde_json::json!({ "message": text }).to_string();
        let mut reply = reply(StatusCode::FORBIDDEN, body);
        let json = HeaderValue::from_static("application/json");
        reply.headers_mut().insert(header::CONTENT_TYPE, json);
        Err(Box::new(reply))
    }

    fn remember_sender(&self, head: &Parts) {
        if let Some(urls) = text_of(head, headers::PEER_URLS) {
            self.inner.add_remote(sender(head), urls);
        }
    }

    fn with_cluster(&self, mut reply: Response<ReplyBody>) -> Response<ReplyBody> {
        let cluster = self.inner.shared.config.cluster.to_string();
        let cluster = HeaderValue::from_str(&cluster).expect("hex digits are plain");
        put(&mut reply, headers::CLUSTER, cluster);
        reply
    }

    fn is_cut(&self, member: MemberId) -> bool {
        self.inner.peer(member).is_some_and(|peer| peer.target.is_cut())
    }

    fn known(&self, member: MemberId) -> Option<Arc<PeerMetrics>> {
        self.inner.shared.metrics.known_peer(member)
    }

    fn count_failure(&self, from: MemberId) {
        match self.known(from) {
            Some(metrics) => metrics.received_failures.add(1),
            None => self.inner.shared.metrics.refused_requests.add(1),
        }
    }

    /// Says it once a minute for each sender.
    fn warn(&self, cause: &'static str, from: MemberId) {
        let shared = &self.inner.shared;
        if shared.said.may_say(cause, from) {
            tracing::warn!(
                "local-member-id" = %shared.config.local,
                "remote-peer-id-from" = %from,
                "cluster-id" = %shared.config.cluster,
                "{cause}"
            );
        }
    }
}

/// A snapshot that is coming in, counted until dropped.
struct InFlight(Arc<PeerMetrics>);

impl InFlight {
    fn begin(metrics: Arc<PeerMetrics>) -> Self {
        metrics.snapshot_receive.in_flight.add(1);
        Self(metrics)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.snapshot_receive.in_flight.add(-1);
    }
}

/// The chunks of a request's body.
type Chunks = Pin<Box<dyn futures_util::Stream<Item = io::Result<Bytes>> + Send>>;

fn chunks<B>(body: B) -> Chunks
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let body = Box::pin(body);
    Box::pin(futures_util::stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        loop {
            let item = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => return Some((Ok(bytes), Some(body))),
                    Err(_trailers) => continue,
                },
                Ok(Some(Err(error))) => {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, error.into()))
                }
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            return Some((item, None));
        }
    }))
}

async fn read_all<B>(body: B) -> io::Result<Bytes>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut chunks = chunks(body);
    let mut all = BytesMut::new();
    while let Some(chunk) = futures_util::StreamExt::next(&mut chunks).await {
        all.extend_from_slice(&chunk?);
        if MESSAGE_BYTES_MAX < all.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
    }
    Ok(all.freeze())
}

fn text_of<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// Whom a request says it is from; nobody if that cannot be read.
fn sender(head: &Parts) -> MemberId {
    let id = text_of(head, headers::FROM).and_then(|text| u64::from_str_radix(text, 16).ok());
    id.map_or(MemberId::NONE, MemberId)
}

fn no_content() -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::text(Bytes::new()));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

fn reply(status: StatusCode, text: String) -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::text(text.into()));
    *reply.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, plain);
    reply
}

/// A text as Go's `http.Error` sends it.
fn error(status: StatusCode, text: &str) -> Response<ReplyBody> {
    let mut reply = reply(status, format!("{text}\n"));
    let no_guess = HeaderValue::from_static("nosniff");
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, no_guess);
    reply
}

fn wrong_method(allowed: &'static str) -> Response<ReplyBody> {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    reply
}

fn put(reply: &mut Response<ReplyBody>, name: &'static str, value: HeaderValue) {
    reply.headers_mut().insert(HeaderName::from_static(name), value);
}
