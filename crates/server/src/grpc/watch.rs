//! The Watch service: one stream carries many watches.
//!
//! The reply body is polled by the connection only when the client can take more, and only then
//! are events pulled from the store: a client that does not read holds nothing but its cursors and
//! what was last pulled for it; and of that only what is small, however many such clients there are
//! (G21: unsent.rs, outgoing.rs). Everything that one poll finds leaves as one piece of body, however
//! many messages it is: what costs with thousands of watches on a stream is the way through HTTP/2,
//! not the messages.

mod answers;
mod guard;
mod kept;
mod lines;
mod outgoing;
mod recipe;
mod unsent;

use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::KeyRange;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame};
use mvcc::{Filters, Wake, WatchId, WatchOutput, WatchRefused, WatchSpec, WatchStream};
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{self as pb};
use state::{Identity, Refusal};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::codec::frame;
use super::kv::HttpReply;
use super::messages::{Messages, decode};
use super::{reply_body, status};
use crate::auth::Caller;
use crate::handle::Handle;
use crate::metrics::StreamWatches;
use crate::traces::{Trace, about};
use crate::wakes::Wakes;
use answers::{Control, Pattern, Sent, events_bytes, reply_bytes};
use guard::{GuardedStreams, StreamGuard};
use kept::Kept;
pub(crate) use lines::Lines;
use outgoing::{Outgoing, Parts};
use unsent::Unsent;

/// Messages of the client taken at a time.
const REQUESTS_PER_POLL_MAX: usize = 64;

/// The id of an answer that belongs to no watch.
const NO_WATCH: WatchId = -1;

/// The service; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    handle: Handle,
    guarded: Arc<GuardedStreams>,
    /// What all streams have handed out, and keep beside that.
    unsent: Arc<AtomicUsize>,
    kept: Arc<Kept>,
}

impl Watch {
    /// Must be called within the runtime that will serve.
    pub(crate) fn new(handle: Handle) -> Self {
        let guarded = Arc::<GuardedStreams>::default();
        tokio::spawn(guard::wake_on_change(handle.clone(), Arc::downgrade(&guarded)));
        Self { handle, guarded, unsent: Arc::default(), kept: Arc::default() }
    }

    /// For answers that go out in another form.
    pub(super) fn lines(&self) -> Lines {
        Lines::new(self)
    }

    /// Answers a stream of requests.
    pub(crate) fn call<B>(&self, caller: Caller, requests: Messages<B>) -> HttpReply
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let replies = Replies::new(self, caller, requests);
        reply_body::ok_with(tonic::body::Body::new(replies))
    }
}

/// Tells the stream's task that the store has news.
#[derive(Debug)]
struct News {
    waker: AtomicWaker,
    waiting: AtomicBool,
    /// Of the thread that the stream is on.
    wakes: Arc<Wakes>,
}

impl Wake for News {
    fn wake(&self) {
        if !self.waiting.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.take()
        {
            self.wakes.wake(waker);
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
    guard: StreamGuard,
    /// What the stream is traced as, and its watches, if it is.
    trace: Trace,
    traces: BTreeMap<WatchId, Trace>,
    news: Arc<News>,
    /// Messages that are ready, in order; holds memory only while there are some.
    ready: Vec<u8>,
    /// What goes before them: answers that are large, and those around them.
    parts: Parts,
    /// Such answers on their way out; nothing is pulled meanwhile.
    outgoing: Option<Arc<Outgoing>>,
    unsent: Arc<Unsent>,
    kept: Arc<Kept>,
    /// Bytes that may be handed out at a time at present; longer answers go in pieces.
    piece_bytes: usize,
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
    fn new(service: &Watch, caller: Caller, requests: Messages<B>) -> Self {
        let handle = service.handle.clone();
        let news = Arc::new(News {
            waker: AtomicWaker::new(),
            waiting: AtomicBool::new(false),
            wakes: Wakes::here(),
        });
        let watches = handle.reads().watch().stream(news.clone());
        let counts = StreamWatches::new(handle.metrics().clone());
        let trace = caller.trace().clone();
        let guard = StreamGuard::new(caller, service.guarded.clone());
        Self {
            handle,
            guard,
            trace,
            traces: BTreeMap::new(),
            requests,
            requests_ended: false,
            watches,
            counts,
            news,
            ready: Vec::new(),
            parts: Parts::default(),
            outgoing: None,
            unsent: Unsent::new(service.unsent.clone()),
            kept: service.kept.clone(),
            piece_bytes: 0,
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
            match self.guard.poll_entered(context) {
                Poll::Ready(Some((create, entered))) => {
                    self.on_entered(create, entered)?;
                    continue;
                }
                Poll::Ready(None) => {}
                Poll::Pending => return Ok(()),
            }
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
        self.forget(id);
        let revision = self.handle.reads().keys().revision();
        self.control(id, revision, |response| response.canceled = true)
    }

    /// A watch has ended.
    fn forget(&mut self, id: WatchId) {
        self.counts.ended();
        self.progress.remove(&id);
        self.traces.remove(&id);
        self.guard.remove(id);
    }

    fn on_create(&mut self, create: pb::WatchCreateRequest) -> Result<(), Status> {
        if create.start_revision < 0 {
            let revision = self.handle.reads().keys().revision();
            return self.refuse(revision, status::WATCH_COMPACTED);
        }
        if self.handle.reads().auth_enabled() {
            // Who asks may be known only when this member has caught up; the answer comes then.
            self.guard.enter(&self.handle, create);
            return Ok(());
        }
        self.create(create, None)
    }

    /// W-15.
    fn on_entered(
        &mut self,
        create: pb::WatchCreateRequest,
        entered: Result<Identity, Refusal>,
    ) -> Result<(), Status> {
        let allowed = entered.and_then(|who| {
            self.handle.authorize(&who, &create)?;
            Ok(who.user)
        });
        match allowed {
            Ok(user) => self.create(create, Some(user)),
            Err(refusal) => {
                let revision = self.handle.reads().keys().revision();
                self.refuse(revision, &status::watch_denied(&refusal))
            }
        }
    }

    /// `user` is who is answerable for it, if auth is on.
    fn create(
        &mut self,
        create: pb::WatchCreateRequest,
        user: Option<String>,
    ) -> Result<(), Status> {
        // W-02: an empty key stands for the first possible one.
        let zero = Bytes::from_static(b"\0");
        let key = if create.key.is_empty() { zero } else { create.key.clone() };
        let keys = KeyRange::from_wire(key, create.range_end.clone());
        let revision = self.handle.reads().keys().revision();
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
                if self.trace.is_on() {
                    let trace = self.trace.within("watch", || about::watch(&create));
                    self.traces.insert(created.id, trace);
                }
                if create.progress_notify {
                    self.progress.insert(created.id, Instant::now());
                }
                if let Some(user) = user {
                    let news: Arc<dyn Wake + Send + Sync> = self.news.clone();
                    self.guard.add(created.id, user, create, &news);
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
        let (is_created, began) = (response.created, Instant::now());
        let framed = frame(Control(response), &mut self.ready);
        if is_created {
            self.counts.sending().on_control(began.elapsed());
        }
        framed
    }

    /// Pulls what the store has for the watches, about a piece.
    fn pull(&mut self) -> Result<(), Status> {
        self.news.waiting.store(false, Ordering::Release);
        let mut outputs = Vec::new();
        let more = self
            .watches
            .pull(self.piece_bytes, &mut outputs)
            .map_err(|error| status::backend(&error))?;
        if more {
            self.news.waiting.store(true, Ordering::Release);
        }
        // Behind the pull: what was pulled after a permission was taken away is not sent.
        let denied = self.guard.denied(&self.handle);
        for id in &denied {
            self.watches.cancel(*id);
            self.forget(*id);
            let revision = self.handle.reads().keys().revision();
            self.control(*id, revision, |response| {
                response.canceled = true;
                response.cancel_reason = status::watch_denied(&Refusal::PermissionDenied);
            })?;
        }
        outputs.retain(|output| match output {
            WatchOutput::Events { id, .. } | WatchOutput::Compacted { id, .. } => {
                !denied.contains(id)
            }
            WatchOutput::Progress { id, .. } => id.is_none_or(|id| !denied.contains(&id)),
        });
        let events = outputs.iter().map(|output| match output {
            WatchOutput::Events { events, .. } => u32::try_from(events.len()).unwrap_or(u32::MAX),
            WatchOutput::Compacted { .. } | WatchOutput::Progress { .. } => 0,
        });
        let (events, began): (Vec<u32>, _) = (events.collect(), Instant::now());
        let small = outputs.iter().map(reply_bytes).filter(|bytes| *bytes <= self.piece_bytes);
        self.ready.reserve(small.sum());
        let mut pattern = None;
        for output in outputs {
            self.on_output(output, &mut pattern)?;
        }
        self.counts.sending().on_answers(&events, began.elapsed());
        Ok(())
    }

    fn on_events(&mut self, sent: Sent, pattern: &mut Option<Pattern>) -> Result<(), Status> {
        if let Some(heard) = self.progress.get_mut(&sent.id) {
            *heard = Instant::now();
        }
        self.counts.sent(sent.events.len());
        if let Some(pattern) = pattern
            && pattern.fits(&sent)
        {
            return pattern.repeat(sent.id, &mut self.ready);
        }
        let header = self.handle.header(sent.revision);
        if self.piece_bytes < events_bytes(&sent.events) {
            // What lies in the buffer goes on before it.
            *pattern = None;
            return sent.split(header, &mut self.ready, &mut self.parts);
        }
        *pattern = Some(Pattern::write(sent, header, &mut self.ready)?);
        Ok(())
    }

    fn on_output(
        &mut self,
        output: WatchOutput,
        pattern: &mut Option<Pattern>,
    ) -> Result<(), Status> {
        base::probe::failpoint("beforeSendWatchResponse");
        match output {
            WatchOutput::Events { id, revision, events, fragment } => {
                self.on_events(Sent { id, revision, events, fragment }, pattern)
            }
            WatchOutput::Compacted { id, compact_revision, .. } => {
                self.forget(id);
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
        self.counts.sending().on_progress(now.elapsed());
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

    /// Hands out what was found.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(outgoing) = &self.outgoing {
            let reader = self.handle.reads().keys();
            match ready!(outgoing.poll_piece(self.piece_bytes, reader, context)) {
                Some(Ok(piece)) => {
                    return Poll::Ready(Some(Ok(Frame::data(self.unsent.frame(piece)))));
                }
                Some(Err(status)) => {
                    self.outgoing = None;
                    return Poll::Ready(Some(self.end(&status)));
                }
                None => self.outgoing = None,
            }
        }
        if self.parts.is_empty() && self.ready.len() <= 2 * self.piece_bytes {
            let ready = std::mem::take(&mut self.ready);
            let frame = (!ready.is_empty()).then(|| Ok(Frame::data(self.unsent.frame(ready))));
            return Poll::Ready(frame);
        }
        let mut parts = std::mem::take(&mut self.parts);
        parts.push_own(std::mem::take(&mut self.ready));
        self.outgoing = Some(parts.send(self.kept.clone()));
        self.poll_next(context)
    }

    /// The end of the stream, behind what is ready.
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        reply_body::trailers_of(status).map(Frame::trailers)
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
        this.piece_bytes = ready!(this.unsent.poll_room(context));
        if this.outgoing.is_some()
            && let Some(frame) = ready!(this.poll_next(context))
        {
            return Poll::Ready(Some(frame));
        }
        let found = match this.failed.take() {
            Some(status) => Err(status),
            None => this.find(context),
        };
        // What was found before the error goes out before it.
        this.failed = found.err();
        if let Some(frame) = ready!(this.poll_next(context)) {
            return Poll::Ready(Some(frame));
        }
        if let Some(status) = this.failed.take() {
            return Poll::Ready(Some(this.end(&status)));
        }
        // A client that will send no more is still told what happens, as by etcd.
        if this.news.waiting.load(Ordering::Acquire) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
