//! Messages one by one by POST: while no stream is attached, and to joining members that are not
//! known yet. Up to four are under way; a bounded number wait.
//! Source: etcd: server/etcdserver/api/rafthttp/pipeline.go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use raft::{Body, Message};
use tokio::sync::Notify;
use url::Url;

use crate::link::{self, Link, RequestError};
use crate::peer::Target;
use crate::pieces::Pieces;
use crate::transport::Shared;
use crate::wire;

/// Requests under way at the same time.
pub(crate) const WORKERS: usize = 4;

/// Messages that wait.
pub(crate) const WAITING_MAX: usize = 64;

/// How long a connection is kept for the next message.
const KEEP_TIME: Duration = Duration::from_secs(4);

/// What answering takes at least, before a request is given up.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The slowest network on which a large message still passes.
const BYTES_PER_SECOND_MIN: usize = 64 << 10;

/// What waits to be posted.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    waiting: Mutex<VecDeque<Message>>,
    arrived: Notify,
}

impl Pipeline {
    /// Gives the message back if there is no room.
    pub(crate) fn push(&self, message: Message) -> Option<Message> {
        let mut waiting = self.waiting.lock();
        if waiting.len() == WAITING_MAX {
            return Some(message);
        }
        waiting.push_back(message);
        drop(waiting);
        self.arrived.notify_one();
        None
    }

    async fn next(&self) -> Message {
        loop {
            let message = self.waiting.lock().pop_front();
            match message {
                Some(message) => return message,
                None => self.arrived.notified().await,
            }
        }
    }
}

/// Posts messages until the task is aborted.
pub(crate) async fn run(shared: Arc<Shared>, target: Arc<Target>, pipeline: Arc<Pipeline>) {
    let mut kept = None;
    loop {
        // Peers close a connection that is not used, and it would hold a descriptor here.
        let message = match tokio::time::timeout(KEEP_TIME, pipeline.next()).await {
            Ok(message) => message,
            Err(_) => {
                kept = None;
                pipeline.next().await
            }
        };
        let mut pieces = Pieces::default();
        wire::encode(&message, &Bytes::new(), &mut pieces);
        let body = pieces.take_joined();
        let body_bytes = body.len();
        let is_append = matches!(message.body, Body::Append(_));
        let began = Instant::now();
        if is_append {
            target.count_appends(&[body_bytes]);
        }
        let url = target.urls.pick();
        let allowed = ANSWER_TIME
            + Duration::from_secs(1)
                * u32::try_from(body_bytes / BYTES_PER_SECOND_MIN).unwrap_or(u32::MAX);
        let mut may_have_left = false;
        // Posted twice, a proposal would be applied twice; everything else bears it.
        if matches!(message.body, Body::Propose(_)) {
            kept = None;
        }
        let posting = post(&shared, &mut kept, &url, body, &mut may_have_left);
        let posted = match tokio::time::timeout(allowed, posting).await {
            Ok(posted) => posted,
            Err(_) => Err(RequestError::Timeout("posting a message")),
        };
        match posted {
            Ok(()) => {
                target.status.activate();
                target.metrics.sent_bytes.add(body_bytes);
                if is_append {
                    target.metrics.appends.succeeded(1, began.elapsed());
                }
            }
            Err(error) => {
                kept = None;
                target.urls.failed(&url);
                target.metrics.sent_failures.add(1);
                if is_append {
                    target.metrics.appends.failed();
                }
                if matches!(error, RequestError::Removed) {
                    shared.member.removed_from_cluster();
                }
                target.status.deactivate("pipeline", "write", Some(&url), &error.reason());
                shared.member.unreachable(target.id);
                if !may_have_left {
                    shared.give_back(vec![message]);
                }
            }
        }
    }
}

/// What is answered, with etcd's words in JSON, to a message for another member.
pub(crate) const MISLED: &str = "cannot process message to mismatch member";

/// Posts one message, on the connection `kept` from the last one if it still serves: peers close
/// those that are not used, so a failure there is followed by a second attempt.
async fn post(
    shared: &Shared,
    kept: &mut Option<(Url, Link)>,
    url: &Url,
    body: Bytes,
    may_have_left: &mut bool,
) -> Result<(), RequestError> {
    if let Some((_, link)) = kept.as_mut().filter(|(at, link)| at == url && link.is_open()) {
        *may_have_left = true;
        match post_on(shared, link, url, body.clone()).await {
            Err(RequestError::Http(_)) => {}
            answered => return answered,
        }
    }
    *kept = None;
    let (_, link) = kept.insert((url.clone(), Link::open(shared, url).await?));
    *may_have_left = true;
    post_on(shared, link, url, body).await
}

async fn post_on(
    shared: &Shared,
    link: &mut Link,
    url: &Url,
    body: Bytes,
) -> Result<(), RequestError> {
    let mut request = link::request(shared, Method::POST, url, "/raft", link::full(body));
    let kind = HeaderValue::from_static("application/protobuf");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    let answer = link.send(request).await?;
    check(link, answer).await
}

/// What the answer to a message or a snapshot means.
///
/// Unlike etcd's, our member does not end because somebody else answers at a peer's URL: that may be
/// a process that was removed and has not noticed, or was started once more, and whose successor got
/// the same URL.
pub(crate) async fn check(
    link: &mut Link,
    answer: http::Response<hyper::body::Incoming>,
) -> Result<(), RequestError> {
    let (head, mut body) = answer.into_parts();
    let text = link.text(&mut body).await?;
    match head.status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN if text.contains(MISLED) => Err(RequestError::Misled),
        StatusCode::FORBIDDEN => Err(RequestError::Removed),
        other => Err(link::refusal(other, &head.headers, &text)),
    }
}
