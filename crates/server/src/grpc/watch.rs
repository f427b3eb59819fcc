//! The Watch service: one stream carries many watches.
//!
//! The reply stream is polled by the connection only when the client can take more, and only then
//! are events pulled from the store: a client that does not read holds nothing but its cursors.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::KeyRange;
use bytes::{BufMut, Bytes};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use mvcc::{Filters, Wake, WatchId, WatchOutput, WatchRefused, WatchSpec, WatchStream};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{self as pb};
use tokio::time::{Instant, Sleep};
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};

use super::codec::{DirectCodec, WriteWire};
use super::kv::ReplyFuture;
use super::status;
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

    pub(crate) fn call<B>(&self, request: http::Request<B>) -> ReplyFuture
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let handle = self.handle.clone();
        let max = super::message_bytes_max(&handle);
        Box::pin(async move {
            let service =
                tower::service_fn(move |request: Request<Streaming<pb::WatchRequest>>| {
                    let replies = Replies::new(handle.clone(), request.into_inner());
                    async move { Ok::<_, Status>(Response::new(replies)) }
                });
            let mut grpc = Grpc::new(DirectCodec::<WatchReply, pb::WatchRequest>::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(max);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

/// An answer on the stream.
#[derive(Debug)]
pub(crate) enum WatchReply {
    /// Created, canceled, progress.
    Control(pb::WatchResponse),
    /// Events whose bytes many watches share.
    Events { header: pb::ResponseHeader, id: WatchId, events: Vec<Bytes>, fragment: bool },
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
                for event in events {
                    encode_key(field::EVENTS, WireType::LengthDelimited, buffer);
                    encode_varint(event.len() as u64, buffer);
                    buffer.put_slice(&event);
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
struct Replies {
    handle: Handle,
    requests: Streaming<pb::WatchRequest>,
    requests_ended: bool,
    watches: WatchStream,
    counts: StreamWatches,
    news: Arc<News>,
    /// Answers that are ready, in order.
    ready: VecDeque<WatchReply>,
    outputs: Vec<WatchOutput>,
    /// Watches that want progress, and when one heard last.
    progress: BTreeMap<WatchId, Instant>,
    timer: Pin<Box<Sleep>>,
    failed: bool,
}

impl Replies {
    fn new(handle: Handle, requests: Streaming<pb::WatchRequest>) -> Self {
        let news = Arc::new(News::default());
        let watches = handle.reads().watch().stream(news.clone());
        let interval = handle.limits().watch_progress_interval;
        let counts = StreamWatches::new(handle.metrics().clone());
        Self {
            handle,
            requests,
            requests_ended: false,
            watches,
            counts,
            news,
            ready: VecDeque::new(),
            outputs: Vec::new(),
            progress: BTreeMap::new(),
            timer: Box::pin(tokio::time::sleep(interval)),
            failed: false,
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
            match Pin::new(&mut self.requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => self.on_request(request),
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(None) => self.requests_ended = true,
                Poll::Pending => return Ok(()),
            }
        }
        // More may wait: come back after what is ready was sent.
        context.waker().wake_by_ref();
        Ok(())
    }

    fn on_request(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.on_create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.on_cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watches.request_progress();
                self.news.waiting.store(true, Ordering::Release);
            }
            None => {}
        }
    }

    fn on_cancel(&mut self, id: WatchId) {
        if self.watches.cancel(id) {
            self.counts.ended();
            self.progress.remove(&id);
            let revision = self.handle.reads().keys().revision();
            self.control(id, revision, |response| response.canceled = true);
        }
    }

    fn on_create(&mut self, create: pb::WatchCreateRequest) {
        // W-02: an empty key stands for the first possible one.
        let zero = Bytes::from_static(b"\0");
        let key = if create.key.is_empty() { zero } else { create.key.clone() };
        let keys = KeyRange::from_wire(key, create.range_end.clone());
        let revision = self.handle.reads().keys().revision();
        if create.start_revision < 0 {
            self.refuse(revision, status::WATCH_COMPACTED);
            return;
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
                self.control(created.id, created.revision, |response| response.created = true);
            }
            Err(WatchRefused::EmptyRange) => self.refuse(revision, status::WATCH_EMPTY_RANGE),
            Err(WatchRefused::DuplicateId) => self.refuse(revision, status::WATCH_DUPLICATE_ID),
        }
    }

    /// A watch that never began: created and canceled in one answer.
    fn refuse(&mut self, revision: i64, reason: &str) {
        self.control(NO_WATCH, revision, |response| {
            response.created = true;
            response.canceled = true;
            response.cancel_reason = reason.to_owned();
        });
    }

    fn control(&mut self, id: WatchId, revision: i64, fill: impl FnOnce(&mut pb::WatchResponse)) {
        let header = Some(self.handle.header(revision));
        let mut response = pb::WatchResponse { header, watch_id: id, ..Default::default() };
        fill(&mut response);
        self.ready.push_back(WatchReply::Control(response));
    }

    /// Pulls what the store has for the watches.
    fn pull(&mut self) -> Result<(), Status> {
        self.news.waiting.store(false, Ordering::Release);
        let more = self
            .watches
            .pull(PULL_BYTES_MAX, &mut self.outputs)
            .map_err(|error| status::backend(&error))?;
        if more {
            self.news.waiting.store(true, Ordering::Release);
        }
        for output in std::mem::take(&mut self.outputs) {
            self.on_output(output);
        }
        Ok(())
    }

    fn on_output(&mut self, output: WatchOutput) {
        match output {
            WatchOutput::Events { id, revision, events, fragment } => {
                if let Some(heard) = self.progress.get_mut(&id) {
                    *heard = Instant::now();
                }
                self.counts.sent(events.len());
                let header = self.handle.header(revision);
                self.ready.push_back(WatchReply::Events { header, id, events, fragment });
            }
            WatchOutput::Compacted { id, compact_revision, .. } => {
                self.counts.ended();
                self.progress.remove(&id);
                // etcd's header says no revision here.
                self.control(id, 0, |response| {
                    response.canceled = true;
                    // The reason is for clients to conclude from the revision; etcd gives none.
                    response.compact_revision = compact_revision;
                });
            }
            WatchOutput::Progress { id, revision } => {
                self.control(id.unwrap_or(NO_WATCH), revision, |_| {});
            }
        }
    }

    /// W-05: watches that heard nothing for an interval are told how far they are.
    fn notify_idle(&mut self, context: &mut Context<'_>) {
        if self.progress.is_empty() || self.timer.as_mut().poll(context).is_pending() {
            return;
        }
        let (now, interval) = (Instant::now(), self.interval());
        for (id, heard) in &mut self.progress {
            if *heard + interval <= now {
                *heard = now;
                self.watches.notify_idle(*id);
            }
        }
        let next = self.progress.values().min().map_or(now, |heard| *heard) + interval;
        self.timer.as_mut().reset(next);
        self.news.waiting.store(true, Ordering::Release);
        context.waker().wake_by_ref();
    }
}

impl Stream for Replies {
    type Item = Result<WatchReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        if let Some(reply) = this.ready.pop_front() {
            return Poll::Ready(Some(Ok(reply)));
        }
        this.news.waker.register(context.waker());
        this.notify_idle(context);
        let taken = this.take_requests(context);
        let pulled = taken.and_then(|()| {
            if this.news.waiting.load(Ordering::Acquire) { this.pull() } else { Ok(()) }
        });
        if let Err(status) = pulled {
            this.failed = true;
            return Poll::Ready(Some(Err(status)));
        }
        match this.ready.pop_front() {
            Some(reply) => Poll::Ready(Some(Ok(reply))),
            None if this.requests_ended => Poll::Ready(None),
            None => {
                if this.news.waiting.load(Ordering::Acquire) {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}
