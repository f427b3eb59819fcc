//! The stream to a member that a topic's watches go over: opened, lost, opened again.

use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::caller::Identity;
use crate::upstream::{Member, Upstream};

/// Pauses before attempts to open a stream double from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What happens on it.
#[derive(Debug)]
pub(super) enum Incident {
    /// It should be opened: requests may be said again.
    Closed,
    Response(Box<WatchResponse>),
    /// It broke, or could not be opened.
    Broken(Status),
}

/// The stream.
pub(super) struct Link {
    upstream: Upstream,
    identity: Identity,
    state: State,
    pause: Duration,
}

enum State {
    Closed {
        until: Instant,
    },
    Opening {
        member: Member,
        requests: Requests,
        opened: BoxFuture<'static, Result<Streaming<WatchResponse>, Status>>,
    },
    Open {
        member: Member,
        requests: Requests,
        responses: Box<Streaming<WatchResponse>>,
    },
}

/// Not bounded by itself: a watch puts its creation and its end there, once on each stream, and
/// there is one demand for progress at a time.
type Requests = mpsc::UnboundedSender<WatchRequest>;

impl Link {
    pub(super) fn new(upstream: Upstream, identity: Identity) -> Self {
        let state = State::Closed { until: Instant::now() };
        Self { upstream, identity, state, pause: PAUSE_MIN }
    }

    /// Begins to open it. What is requested from now on goes over it.
    pub(super) fn open(&mut self) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let request = Upstream::stream(&self.identity, UnboundedReceiverStream::new(receiver));
        let member = self.upstream.member_for_watches();
        let stub = WatchClient::new(member.channel());
        let mut stub = stub.max_decoding_message_size(self.upstream.response_bytes_max());
        let opened = Box::pin(async move { stub.watch(request).await.map(Response::into_inner) });
        self.state = State::Opening { member, requests, opened };
    }

    /// Asks the member for something; nothing happens without a stream.
    pub(super) fn request(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        match &self.state {
            State::Closed { .. } => {}
            State::Opening { requests, .. } | State::Open { requests, .. } => {
                // A stream that is lost says so itself.
                requests.send(request).ok();
            }
        }
    }

    /// Whether another member may answer otherwise.
    pub(super) fn has_choice(&self) -> bool {
        1 < self.upstream.client().endpoints().count()
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Gives the stream up.
    pub(super) fn close(&mut self) {
        self.state = State::Closed { until: Instant::now() };
    }

    /// Waits for the next incident. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Incident {
        loop {
            let broken = match &mut self.state {
                State::Closed { until } => {
                    tokio::time::sleep_until(*until).await;
                    return Incident::Closed;
                }
                State::Opening { opened, .. } => match opened.await {
                    Ok(responses) => {
                        self.on_opened(responses);
                        continue;
                    }
                    Err(status) => status,
                },
                State::Open { responses, .. } => match responses.message().await {
                    Ok(Some(response)) => {
                        self.pause = PAUSE_MIN;
                        return Incident::Response(Box::new(response));
                    }
                    Ok(None) => Status::unavailable("the member has ended the stream"),
                    Err(status) => status,
                },
            };
            let told = client::as_told_by_go(&broken);
            if let State::Opening { member, .. } | State::Open { member, .. } = &self.state {
                member.judge(&told);
            }
            self.state = State::Closed { until: Instant::now() + self.pause };
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return Incident::Broken(told);
        }
    }

    fn on_opened(&mut self, responses: Streaming<WatchResponse>) {
        let closed = State::Closed { until: Instant::now() };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Opening { member, requests, .. } => {
                State::Open { member, requests, responses: Box::new(responses) }
            }
            other @ (State::Closed { .. } | State::Open { .. }) => other,
        };
    }
}
