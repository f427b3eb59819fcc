//! One stream that this member opens at a peer and on which the peer's messages come in.
//!
//! It is opened again whenever it ends, with at least a tenth of a second between two attempts and
//! the next URL after a failure. All messages of what can be read at once are handed over together.
//! Source: etcd: server/etcdserver/api/rafthttp/stream.go (streamReader).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use raft::{Body, Message};
use tokio::time::{Instant, timeout};

use crate::codec::{Decoder, Received, StreamError, StreamKind};
use crate::headers::{self, Release};
use crate::link::{self, Link, RequestError};
use crate::outbox::BRIEF;
use crate::peer::Target;
use crate::transport::Shared;
use crate::wire;

/// Between the beginnings of two attempts.
const DIAL_PAUSE: Duration = Duration::from_millis(100);

/// What is read before messages are handed over.
const BATCH_BYTES: usize = 1 << 20;

/// Reads the peer's stream until the task is aborted.
pub(crate) async fn run(shared: Arc<Shared>, target: Arc<Target>, kind: StreamKind) {
    let mut reading = Reading { shared, target, kind, doubtful: false };
    loop {
        let began = Instant::now();
        let url = reading.target.urls.pick();
        let (shared, target) = (&reading.shared, &reading.target);
        match open(shared, target, kind, &url).await {
            Ok((link, body)) => {
                if !reading.doubtful {
                    reading.on_established();
                }
                let end = reading.read(link, body).await;
                reading.on_end(&url, &end);
                reading.doubtful = reading.doubtful || began.elapsed() < BRIEF;
            }
            Err(error) => {
                target.urls.failed(&url);
                if matches!(error, RequestError::Removed) {
                    shared.member.removed_from_cluster();
                }
                // Not knowing each other's streams says nothing about being reachable.
                if !matches!(error, RequestError::UnsupportedStream) {
                    target.status.deactivate(kind.name(), "dial", Some(&url), &error.reason());
                }
            }
        }
        tokio::time::sleep_until(began + DIAL_PAUSE).await;
    }
}

/// One stream, opened again and again.
struct Reading {
    shared: Arc<Shared>,
    target: Arc<Target>,
    kind: StreamKind,
    /// Whether streams broke off at once: then the next is believed, and told of, only when
    /// something readable came.
    doubtful: bool,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The peer ended it properly.
    #[error("EOF")]
    Ended,
    #[error("connection broken")]
    Broken(#[source] hyper::Error),
    #[error("nothing heard for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("unreadable stream")]
    Unreadable(#[from] StreamError),
}

impl Reading {
    fn on_established(&mut self) {
        self.doubtful = false;
        self.target.status.activate();
        tracing::info!(
            "stream-reader-type" = self.kind.name(),
            "local-member-id" = %self.shared.config.local,
            "remote-peer-id" = %self.target.id,
            "established TCP streaming connection with remote peer"
        );
    }

    fn on_end(&self, url: &url::Url, end: &End) {
        let mut reason = end.to_string();
        let mut source = std::error::Error::source(end);
        while let Some(error) = source {
            reason = format!("{reason}: {error}");
            source = error.source();
        }
        if matches!(end, End::Unreadable(_)) {
            self.target.metrics.received_failures.add(1);
            self.target.urls.failed(url);
        }
        if !self.doubtful {
            tracing::warn!(
                "stream-reader-type" = self.kind.name(),
                "local-member-id" = %self.shared.config.local,
                "remote-peer-id" = %self.target.id,
                error = reason,
                "lost TCP streaming connection with remote peer"
            );
        }
        if !matches!(end, End::Ended) {
            self.target.status.deactivate(self.kind.name(), "read", Some(url), &reason);
        }
    }

    async fn read(&mut self, mut link: Link, mut body: Incoming) -> End {
        let mut decoder = Decoder::new(self.kind, self.shared.config.local, self.target.id);
        loop {
            let mut read_bytes = 0;
            // Everything that has arrived, up to a bound: the connection is asked again after each
            // chunk, until it has nothing more at hand.
            let reading = poll_fn(|context| {
                while read_bytes < BATCH_BYTES {
                    match link.poll_body(&mut body, context) {
                        Poll::Ready(Some(Ok(bytes))) => {
                            read_bytes += bytes.len();
                            decoder.push(bytes);
                        }
                        Poll::Ready(Some(Err(error))) => {
                            return Poll::Ready(Some(End::Broken(error)));
                        }
                        Poll::Ready(None) => return Poll::Ready(Some(End::Ended)),
                        Poll::Pending if read_bytes == 0 => return Poll::Pending,
                        Poll::Pending => break,
                    }
                }
                Poll::Ready(None)
            });
            let silence_max = self.shared.config.read_timeout;
            let read = timeout(silence_max, reading).await;
            let end = read.unwrap_or(Some(End::Silent(silence_max)));
            self.target.metrics.received_bytes.add(read_bytes);
            match (hand_over(&self.shared, &self.target, &mut decoder), end) {
                (Err(error), _) => return error.into(),
                (Ok(_), Some(end)) => return end,
                (Ok(true), None) if self.doubtful => self.on_established(),
                (Ok(_), None) => {}
            }
        }
    }
}

async fn open(
    shared: &Shared,
    target: &Target,
    kind: StreamKind,
    url: &url::Url,
) -> Result<(Link, Incoming), RequestError> {
    let mut link = Link::open(shared, url).await?;
    let path = format!("/raft/stream/{}/{}", kind.path(), shared.config.local);
    let mut request = link::request(shared, Method::GET, url, &path, link::empty());
    let to = HeaderValue::from_str(&target.id.to_string()).expect("hex digits are plain");
    request.headers_mut().insert(headers::TO, to);
    let answer = timeout(shared.config.read_timeout, link.send(request))
        .await
        .map_err(|_| RequestError::Timeout("opening the stream"))??;
    let (head, mut body) = answer.into_parts();
    let release = Release::of(&head.headers, headers::SERVER_VERSION);
    match head.status {
        StatusCode::OK if release.is_some_and(Release::has_streams) => Ok((link, body)),
        StatusCode::OK => Err(RequestError::UnsupportedStream),
        StatusCode::GONE => Err(RequestError::Removed),
        StatusCode::NOT_FOUND => Err(RequestError::NotFound),
        StatusCode::PRECONDITION_FAILED => {
            let text = link.text(&mut body).await?;
            Err(link::refusal(head.status, &head.headers, &text))
        }
        other => Err(RequestError::Status(other)),
    }
}

/// Decodes all that is complete and gives it to the member. Returns whether there was anything.
fn hand_over(shared: &Shared, target: &Target, decoder: &mut Decoder) -> Result<bool, StreamError> {
    let mut messages = Vec::new();
    let mut proposals = Vec::new();
    let mut result = Ok(false);
    loop {
        match decoder.decode() {
            Ok(Some(Received::Message(message))) => {
                result = Ok(true);
                if message.to != shared.config.local {
                    on_misdirected(shared, target, &message);
                } else if matches!(message.body, Body::Propose(_)) {
                    proposals.push(message);
                } else {
                    messages.push(message);
                }
            }
            Ok(Some(Received::LinkHeartbeat)) => result = Ok(true),
            Ok(None) => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if target.is_cut() {
        return result;
    }
    count_appends(shared, &messages);
    let mut dropped = 0;
    if !messages.is_empty() {
        dropped += shared.member.receive(messages);
    }
    if !proposals.is_empty() {
        dropped += shared.member.receive_proposals(proposals);
    }
    if 0 < dropped {
        target.metrics.received_failures.add(dropped);
        if shared.said.may_say("receiving buffer full", target.id) {
            tracing::warn!(
                "local-member-id" = %shared.config.local,
                "remote-peer-id" = %target.id,
                dropped,
                "dropped Raft message since receiving buffer is full (overloaded network)"
            );
        }
    }
    result
}

fn count_appends(shared: &Shared, messages: &[Message]) {
    let appends = messages.iter().filter(|message| matches!(message.body, Body::Append(_)));
    let sizes: Vec<usize> = appends.map(wire::encoded_len).collect();
    shared.metrics.appends.received.count(&sizes);
}

fn on_misdirected(shared: &Shared, target: &Target, message: &Message) {
    target.metrics.received_failures.add(1);
    if shared.said.may_say("message for another member", target.id) {
        tracing::warn!(
            "local-member-id" = %shared.config.local,
            "remote-peer-id" = %target.id,
            "mismatch-member-id" = %message.to,
            "rejected Raft message to mismatch member"
        );
    }
}
