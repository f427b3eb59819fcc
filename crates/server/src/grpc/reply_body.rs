//! A reply's body on its way to the connection: counted, ended by deadline or loss of the leader,
//! and a large one handed out in pieces as the client takes them ([`Large`]).

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream as _;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};

use super::codec::Framed;
use super::large::Large;
use super::load::{Load, ReplyData};
use super::methods::{CallKind, MethodIndex};
use super::request_body::Position;
use super::status;
use crate::metrics::ConnectionMetrics;
use crate::traces::Trace;

/// One call as the metrics see it: it has ended when it says so, or as canceled when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    metrics: ConnectionMetrics,
    method: MethodIndex,
    began: Instant,
    ended: bool,
    trace: Trace,
    /// Where in the stream of replies it is.
    sent: Position,
}

impl Account {
    /// Counts a call that begins.
    pub(crate) fn open(metrics: ConnectionMetrics, method: MethodIndex) -> Self {
        metrics.calls.on_started(method);
        let (trace, sent) = (Trace::default(), Position::default());
        Self { metrics, method, began: Instant::now(), ended: false, trace, sent }
    }

    /// Ends this span with the call.
    pub(crate) fn trace(&mut self, trace: Trace) {
        self.trace = trace;
    }

    /// What the call is traced as.
    pub(crate) fn traced(&self) -> Trace {
        self.trace.clone()
    }

    pub(crate) fn method(&self) -> MethodIndex {
        self.method
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The call has ended; later words do not count.
    pub(crate) fn end(&mut self, code: Code) {
        self.end_with(code, String::new);
    }

    /// The call has ended as these headers or trailers say.
    pub(crate) fn end_by(&mut self, headers: &HeaderMap) {
        self.end_with(code_of(headers), || {
            Status::from_header_map(headers).map_or_else(String::new, |it| it.message().to_owned())
        });
    }

    fn end_with(&mut self, code: Code, message: impl FnOnce() -> String) {
        if !self.ended {
            self.ended = true;
            let calls = &self.metrics.calls;
            match self.method.method().kind {
                // A refusal counts as a message, as with etcd.
                CallKind::Unary if code != Code::Ok => calls.on_sent(self.method, 1, 0),
                // And so does the end of what a client sends.
                CallKind::BidiStream => calls.on_received(self.method, 1, 0),
                CallKind::Unary | CallKind::ServerStream => {}
            }
            self.metrics.calls.on_ended(self.method, code, self.began);
            std::mem::take(&mut self.trace).end(code, message);
        }
    }

    /// A call is refused by what its head says. Its message, if it is one, counts all the same.
    pub(crate) fn refuse(&self) {
        if self.method.method().kind == CallKind::Unary {
            self.metrics.calls.on_received(self.method, 1, 0);
        }
    }

    /// Counts messages whose prefix is in bytes that follow those before.
    pub(crate) fn on_sent(&mut self, bytes: &[u8]) {
        let counted = self.sent.advance(bytes, usize::MAX);
        let (messages, total) = counted.expect("no message is too long for memory");
        self.metrics.calls.on_sent(self.method, messages, total);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// What ends a call from outside; most have none of it.
#[derive(Debug, Default)]
pub(crate) struct Limits(Option<Box<Set>>);

#[derive(Debug, Default)]
struct Set {
    /// The client's deadline.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Yields when no leader was seen for too long.
    leader_lost: Option<WatchStream<u64>>,
}

impl Limits {
    /// Nothing ends the call.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn set_deadline(&mut self, deadline: Pin<Box<Sleep>>) {
        self.0.get_or_insert_default().deadline = Some(deadline);
    }

    pub(crate) fn set_leader_lost(&mut self, lost: WatchStream<u64>) {
        self.0.get_or_insert_default().leader_lost = Some(lost);
    }

    /// Ready once the client's deadline has passed.
    pub(crate) fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let deadline = self.0.as_mut().and_then(|set| set.deadline.as_mut());
        let Some(deadline) = deadline else { return Poll::Pending };
        deadline.as_mut().poll(context).map(|()| status::deadline_exceeded())
    }

    /// Why the stream must end now, if it must.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if let Poll::Ready(status) = self.poll_deadline(context) {
            return Poll::Ready(status);
        }
        let lost = self.0.as_mut().and_then(|set| set.leader_lost.as_mut());
        if lost.is_some_and(|lost| Pin::new(lost).poll_next(context).is_ready()) {
            return Poll::Ready(crate::handle::ProposeError::NoLeader.into());
        }
        Poll::Pending
    }
}

/// What a reply consists of.
#[derive(Debug)]
enum Content {
    /// Of a service.
    Body(tonic::body::Body),
    /// One message, with its prefix, and trailers that say that all is well.
    Message(Bytes),
    /// Such a message, in pieces.
    Large(Arc<Large>),
    /// These trailers.
    Trailers,
    Nothing,
}

/// The body of any reply of this server.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    content: Content,
    call: Option<Account>,
    limits: Limits,
    broken_off: bool,
    /// Where what is handed out counts until it is written.
    load: Option<Arc<Load>>,
}

impl ReplyBody {
    /// A body that no call stands behind.
    pub(crate) fn plain(inner: tonic::body::Body) -> Self {
        Self::of(Content::Body(inner), None)
    }

    /// Counts what is handed out for this connection.
    pub(crate) fn counted(mut self, load: Arc<Load>) -> Self {
        self.load = Some(load);
        self
    }

    /// The body of a unary call that succeeded, all of which is counted already.
    pub(crate) fn of_message(message: Framed) -> Self {
        let Framed { bytes, charge } = message;
        let content = match charge {
            None => Content::Message(bytes),
            Some(charge) => Content::Large(Large::begin(bytes, charge)),
        };
        Self::of(content, None)
    }

    fn of(content: Content, call: Option<Account>) -> Self {
        Self { content, call, limits: Limits::none(), broken_off: false, load: None }
    }

    /// The body of a call's reply.
    pub(crate) fn of_call(inner: tonic::body::Body, call: Account, limits: Limits) -> Self {
        Self { limits, ..Self::of(Content::Body(inner), Some(call)) }
    }

    fn on_frame(&mut self, frame: &Frame<Bytes>) {
        let Some(call) = &mut self.call else { return };
        if let Some(data) = frame.data_ref() {
            call.on_sent(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            call.end_by(trailers);
        }
    }
}

impl Content {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Self::Body(body) = self {
            return Pin::new(body).poll_frame(context);
        }
        if let Self::Large(large) = self {
            match large.piece() {
                Some(piece) => return Poll::Ready(Some(piece.map(Frame::data))),
                None => *self = Self::Trailers,
            }
        }
        Poll::Ready(match std::mem::replace(self, Self::Nothing) {
            Self::Message(message) => {
                *self = Self::Trailers;
                Some(Ok(Frame::data(message)))
            }
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Self::Body(_) | Self::Large(_) | Self::Nothing => None,
        })
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Body(body) => body.is_end_stream(),
            Self::Message(_) | Self::Large(_) | Self::Trailers => false,
            Self::Nothing => true,
        }
    }
}

/// A reply that begins well, whatever comes in its body.
pub(crate) fn ok_with<T>(body: T) -> http::Response<T> {
    let mut reply = http::Response::new(body);
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    *reply.headers_mut() = headers;
    reply
}

/// What a stream ends with.
pub(crate) fn trailers_of(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

/// The code in a reply's headers or trailers; none is success.
pub(crate) fn code_of(headers: &HeaderMap) -> Code {
    let code = headers.get("grpc-status");
    code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

impl Body for ReplyBody {
    type Data = ReplyData;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyData>, Status>>> {
        let this = &mut *self;
        if this.broken_off {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = this.limits.poll(context) {
            this.broken_off = true;
            this.content = Content::Nothing;
            if let Some(call) = &mut this.call {
                if call.method.method().kind != CallKind::Unary
                    && status.code() == Code::Unavailable
                {
                    call.metrics.calls.on_stream_failure("send", "stream");
                }
                call.end_with(status.code(), || status.message().to_owned());
            }
            return Poll::Ready(Some(trailers_of(&status).map(Frame::trailers)));
        }
        let polled = this.content.poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => this.on_frame(frame),
            Poll::Ready(Some(Err(status))) => {
                if let Some(call) = &mut this.call {
                    call.end_with(status.code(), || status.message().to_owned());
                }
            }
            Poll::Ready(None) => {
                if let Some(call) = &mut this.call {
                    call.end(Code::Ok);
                }
            }
            Poll::Pending => {}
        }
        let moved = match &this.content {
            Content::Large(large) => Some(large.moved()),
            Content::Body(_) | Content::Message(_) | Content::Trailers | Content::Nothing => None,
        };
        let load = &this.load;
        polled.map_ok(|frame| frame.map_data(|data| ReplyData::new(data, load.clone(), moved)))
    }

    fn is_end_stream(&self) -> bool {
        self.broken_off || self.content.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Body(body) => body.size_hint(),
            // The length of a gRPC reply is nobody's business.
            Content::Message(_) | Content::Large(_) | Content::Trailers | Content::Nothing => {
                SizeHint::default()
            }
        }
    }
}
