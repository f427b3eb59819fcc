//! The Watch service: one stream carries many watches.
//!
//! The reply body is polled by the connection only when the client can take more, and only then
//! are events pulled from the store: a client that does not read holds nothing but its cursors and
//! what was last pulled for it. Everything that one poll finds leaves as one piece of body, however
//! many messages it is: what costs with thousands of watches on a stream is the way through HTTP/2,
//! not the messages.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::KeyRange;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame};
use mvcc::{Filters, Wake, WatchId, WatchOutput, WatchRefused, WatchSpec, WatchStream};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{self as pb};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::codec::{WriteWire, frame};
use super::kv::HttpReply;
use super::messages::{Messages, decode};
use super::{reply_body, status};
use crate::handle::Handle;
use crate::metrics::StreamWatches;

/// Bytes of events pulled at a time.
const PULL_BYTES_MAX: usize = 64 << 10;

/// Messages of the client taken at a time.
const REQUESTS_PER_POLL_MAX: usize = 64;

/// The id of an answer that belongs to no watch.
const NO_WATCH: WatchId = -1;

/// The service; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    handle: Handle,
}

impl Watch {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Answers a stream of requests.
    pub(crate) fn call<B>(&self, requests: Messages<B>) -> HttpReply
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let replies = Replies::new(self.handle.clone(), requests);
        reply_body::ok_with(tonic::body::Body::new(replies))
    }
}

/// An answer on the stream.
#[derive(Debug)]
pub(crate) enum WatchReply {
    /// Created, canceled, progress.
    Control(pb::WatchResponse),
    /// Events whose bytes many watches share.
    Events { header: pb::ResponseHeader, id: WatchId, events: Arc<[Bytes]>, fragment: bool },
}

mod field {
    pub(super) const HEADER: u32 = 1;
    pub(super) const WATCH_ID: u32 = 2;
    pub(super) const FRAGMENT: u32 = 7;
    pub(super) const EVENTS: u32 = 11;
}

impl WriteWire for WatchReply {
    fn len(&self) -> usize {
        match self {
            Self::Control(response) => response.encoded_len(),
            Self::Events { header, id, events, fragment } => {
                let event = |event: &Bytes| {
                    key_len(field::EVENTS) + encoded_len_varint(event.len() as u64) + event.len()
                };
                let head = pb::WatchResponse {
                    header: Some(*header),
                    watch_id: *id,
                    fragment: *fragment,
                    ..Default::default()
                };
                head.encoded_len() + events.iter().map(event).sum::<usize>()
            }
        }
    }

    fn write(self, buffer: &mut impl BufMut) {
        match self {
            Self::Control(response) => response.encode_raw(buffer),
            Self::Events { header, id, events, fragment } => {
                prost::encoding::message::encode(field::HEADER, &header, buffer);
                if id != 0 {
                    prost::encoding::int64::encode(field::WATCH_ID, &id, buffer);
                }
                if fragment {
                    prost::encoding::bool::encode(field::FRAGMENT, &true, buffer);
                }
                for event in events.iter() {
                    encode_key(field::EVENTS, WireType::LengthDelimited, buffer);
                    encode_varint(event.len() as u64, buffer);
                    buffer.put_slice(event);
                }
            }
        }
    }
}

/// Tells the stream's task that the store has news.
#[derive(Debug, Default)]
struct News {
    waker: AtomicWaker,
    waiting: AtomicBool,
}

impl Wake for News {
    fn wake(&self) {
        if !self.waiting.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

/// The answers of one stream.
#[derive(Debug)]
struct Replies<B> {
    handle: Handle,
    requests: Messages<B>,
    requests_ended: bool,
    watches: WatchStream,
    counts: StreamWatches,
    news: Arc<News>,
    /// Messages that are ready, in order; holds memory only while there are some.
    ready: BytesMut,
    /// Watches that want progress, and when one heard last.
    progress: BTreeMap<WatchId, Instant>,
    /// Set while there are such watches.
    timer: Option<Pin<Box<Sleep>>>,
    /// Why the stream ends behind what is ready.
    failed: Option<Status>,
    /// The trailers are out.
    ended: bool,
}

impl<B> Replies<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    fn new(handle: Handle, requests: Messages<B>) -> Self {
        let news = Arc::new(News::default());
        let watches = handle.reads().watch().stream(news.clone());
        let counts = StreamWatches::new(handle.metrics().clone());
        Self {
            handle,
            requests,
            requests_ended: false,
            watches,
            counts,
            news,
            ready: BytesMut::new(),
            progress: BTreeMap::new(),
            timer: None,
            failed: None,
            ended: false,
        }
    }

    fn interval(&self) -> Duration {
        self.handle.limits().watch_progress_interval
    }

    /// Takes what the client sent; an error ends the stream.
    fn take_requests(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..REQUESTS_PER_POLL_MAX {
            if self.requests_ended {
                return Ok(());
            }
            match self.requests.poll_next(context) {
                Poll::Ready(Some(message)) => self.on_request(decode(message?)?)?,
                Poll::Ready(None) => self.requests_ended = true,
                Poll::Pending => return Ok(()),
            }
        }
        // More may wait: come back after what is ready was sent.
        context.waker().wake_by_ref();
        Ok(())
    }

    fn on_request(&mut self, request: pb::WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.on_create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.on_cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watches.request_progress();
                self.news.waiting.store(true, Ordering::Release);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn on_cancel(&mut self, id: WatchId) -> Result<(), Status> {
        if !self.watches.cancel(id) {
            return Ok(());
        }
        self.counts.ended();
        self.progress.remove(&id);
        let revision = self.handle.reads().keys().revision();
        self.control(id, revision, |response| response.canceled = true)
    }

    fn on_create(&mut self, create: pb::WatchCreateRequest) -> Result<(), Status> {
        // W-02: an empty key stands for the first possible one.
        let zero = Bytes::from_static(b"\0");
        let key = if create.key.is_empty() { zero } else { create.key.clone() };
        let keys = KeyRange::from_wire(key, create.range_end.clone());
        let revision = self.handle.reads().keys().revision();
        if create.start_revision < 0 {
            return self.refuse(revision, status::WATCH_COMPACTED);
        }
        let has = |kind: FilterType| create.filters.contains(&(kind as i32));
        let filters =
            Filters { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) };
        let spec = WatchSpec {
            keys,
            start: create.start_revision,
            filters,
            want_previous: create.prev_kv,
            id: create.watch_id,
            fragment: create.fragment,
        };
        match self.watches.create(spec) {
            Ok(created) => {
                // Nobody wakes for history: what lies in the past is there already.
                self.news.waiting.store(true, Ordering::Release);
                self.counts.created();
                if create.progress_notify {
                    self.progress.insert(created.id, Instant::now());
                }
                self.control(created.id, created.revision, |response| response.created = true)
            }
            Err(WatchRefused::EmptyRange) => self.refuse(revision, status::WATCH_EMPTY_RANGE),
            Err(WatchRefused::DuplicateId) => self.refuse(revision, status::WATCH_DUPLICATE_ID),
        }
    }

    /// A watch that never began: created and canceled in one answer.
    fn refuse(&mut self, revision: i64, reason: &str) -> Result<(), Status> {
        self.control(NO_WATCH, revision, |response| {
            response.created = true;
            response.canceled = true;
            response.cancel_reason = reason.to_owned();
        })
    }

    fn control(
        &mut self,
        id: WatchId,
        revision: i64,
        fill: impl FnOnce(&mut pb::WatchResponse),
    ) -> Result<(), Status> {
        let header = Some(self.handle.header(revision));
        let mut response = pb::WatchResponse { header, watch_id: id, ..Default::default() };
        fill(&mut response);
        frame(WatchReply::Control(response), &mut self.ready)
    }

    /// Pulls what the store has for the watches.
    fn pull(&mut self) -> Result<(), Status> {
        self.news.waiting.store(false, Ordering::Release);
        let mut outputs = Vec::new();
        let more = self
            .watches
            .pull(PULL_BYTES_MAX, &mut outputs)
            .map_err(|error| status::backend(&error))?;
        if more {
            self.news.waiting.store(true, Ordering::Release);
        }
        self.ready.reserve(outputs.iter().map(reply_bytes).sum());
        for output in outputs {
            self.on_output(output)?;
        }
        Ok(())
    }

    fn on_output(&mut self, output: WatchOutput) -> Result<(), Status> {
        match output {
            WatchOutput::Events { id, revision, events, fragment } => {
                if let Some(heard) = self.progress.get_mut(&id) {
                    *heard = Instant::now();
                }
                self.counts.sent(events.len());
                let header = self.handle.header(revision);
                frame(WatchReply::Events { header, id, events, fragment }, &mut self.ready)
            }
            WatchOutput::Compacted { id, compact_revision, .. } => {
                self.counts.ended();
                self.progress.remove(&id);
                // etcd's header says no revision here.
                self.control(id, 0, |response| {
                    response.canceled = true;
                    // The reason is for clients to conclude from the revision; etcd gives none.
                    response.compact_revision = compact_revision;
                })
            }
            WatchOutput::Progress { id, revision } => {
                self.control(id.unwrap_or(NO_WATCH), revision, |_| {})
            }
        }
    }

    /// W-05: watches that heard nothing for an interval are told how far they are.
    fn notify_idle(&mut self, context: &mut Context<'_>) {
        if self.progress.is_empty() {
            self.timer = None;
            return;
        }
        let interval = self.interval();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
        if timer.as_mut().poll(context).is_pending() {
            return;
        }
        let now = Instant::now();
        for (id, heard) in &mut self.progress {
            if *heard + interval <= now {
                *heard = now;
                self.watches.notify_idle(*id);
            }
        }
        let next = self.progress.values().min().map_or(now, |heard| *heard) + interval;
        timer.as_mut().reset(next);
        self.news.waiting.store(true, Ordering::Release);
        context.waker().wake_by_ref();
    }

    /// Finds everything there is to send.
    fn find(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        self.news.waker.register(context.waker());
        self.take_requests(context)?;
        self.notify_idle(context);
        if self.news.waiting.load(Ordering::Acquire) { self.pull() } else { Ok(()) }
    }

    /// The end of the stream, behind what is ready.
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        reply_body::trailers_of(status).map(Frame::trailers)
    }
}

/// About how long the message of an output will be.
fn reply_bytes(output: &WatchOutput) -> usize {
    const HEAD_BYTES: usize = 64;
    const EVENT_BYTES: usize = 8;
    match output {
        WatchOutput::Events { events, .. } => {
            HEAD_BYTES + events.iter().map(|event| EVENT_BYTES + event.len()).sum::<usize>()
        }
        WatchOutput::Compacted { .. } | WatchOutput::Progress { .. } => HEAD_BYTES,
    }
}

impl<B> Body for Replies<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let found = match this.failed.take() {
            Some(status) => Err(status),
            None => this.find(context),
        };
        if !this.ready.is_empty() {
            // What was found before the error goes out before it.
            this.failed = found.err();
            let ready = std::mem::take(&mut this.ready).freeze();
            return Poll::Ready(Some(Ok(Frame::data(ready))));
        }
        if let Err(status) = found {
            return Poll::Ready(Some(this.end(&status)));
        }
        if this.requests_ended {
            return Poll::Ready(Some(this.end(&Status::ok(""))));
        }
        if this.news.waiting.load(Ordering::Acquire) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
