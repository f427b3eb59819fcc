//! What waits to be sent on one attached stream, and the HTTP body that sends it.
//!
//! The node loop puts messages in and wakes the body once for many; the body takes all that waits
//! and encodes it together. Bounded: what does not fit is given back. A stream whose peer takes
//! nothing for five seconds is given up, so that its messages do not wait there in vain.
//! Source: etcd: server/etcdserver/api/rafthttp/stream.go (streamWriter).

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use raft::{Body, Message};
use tokio::time::Sleep;

use crate::codec::{Encoder, StreamKind};
use crate::peer::{Lost, Target};
use crate::pieces::Pieces;

/// Messages that may wait for one stream.
pub(crate) const WAITING_MAX: usize = 4096;

/// What is encoded before the connection gets it: enough for one large write.
const BATCH_BYTES: usize = 512 << 10;

/// How long a peer may take nothing.
const STUCK_TIME: Duration = Duration::from_secs(5);

/// A stream that breaks off sooner is no success.
pub(crate) const BRIEF: Duration = Duration::from_secs(1);

/// Three signs of life in the time in which the reader expects one.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(5000 / 3);

/// The place of one stream of a peer: where the newest attached one is found.
#[derive(Debug)]
pub(crate) struct Slot {
    kind: StreamKind,
    current: Mutex<Option<Arc<Outbox>>>,
    /// Whether the last stream broke off at once: then nobody wants to read of the next ones.
    flaps: AtomicBool,
}

/// What waits for one attached stream.
#[derive(Debug)]
struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Message>,
    /// Since when something waits.
    since: Option<Instant>,
    waker: Option<Waker>,
    closed: Option<Closed>,
}

/// Why an outbox takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    /// The stream shall end properly: replaced by another, or the peer is gone.
    Ended,
    /// The peer does not take anything.
    Stuck,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// It waits; the waker, if any, must be woken when everything was put in.
    Taken(Option<Waker>),
    /// There is no room: the message is lost.
    Full,
    /// No stream is attached.
    Detached(Message),
    /// The stream was given up just now; what waited there is lost.
    Stuck(Message),
}

impl Slot {
    pub(crate) fn new(kind: StreamKind) -> Self {
        Self { kind, current: Mutex::new(None), flaps: AtomicBool::new(false) }
    }

    pub(crate) fn push(&self, message: Message) -> Pushed {
        let mut current = self.current.lock();
        let Some(outbox) = &*current else { return Pushed::Detached(message) };
        let mut inner = outbox.inner.lock();
        if inner.closed.is_some() {
            return Pushed::Detached(message);
        }
        match inner.since {
            Some(since) if STUCK_TIME < since.elapsed() => {
                inner.close(Closed::Stuck);
                drop(inner);
                *current = None;
                return Pushed::Stuck(message);
            }
            Some(_) if inner.waiting.len() == WAITING_MAX => return Pushed::Full,
            Some(_) => {}
            None => inner.since = Some(Instant::now()),
        }
        inner.waiting.push_back(message);
        Pushed::Taken(inner.waker.take())
    }

    /// Attaches a new stream in place of an old one. Returns its body, and whether messages of the
    /// old one were lost.
    pub(crate) fn attach(self: &Arc<Self>, target: &Arc<Target>) -> (StreamBody, bool) {
        let outbox = Arc::new(Outbox { inner: Mutex::default() });
        let old = self.current.lock().replace(Arc::clone(&outbox));
        let lost = old.is_some_and(|old| old.close(Closed::Ended));
        let body = StreamBody {
            slot: Arc::clone(self),
            outbox,
            target: Arc::clone(target),
            encoder: Encoder::new(self.kind),
            taken: VecDeque::new(),
            taken_since: Instant::now(),
            encoding: Pieces::default(),
            pieces: VecDeque::new(),
            attached: Instant::now(),
            heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT_INTERVAL)),
        };
        (body, lost)
    }

    /// Whether the last stream broke off at once.
    pub(crate) fn flaps(&self) -> bool {
        self.flaps.load(Relaxed)
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.current.lock().is_some()
    }

    /// Whether the attached stream has not taken all that waits for it.
    pub(crate) fn has_waiting(&self) -> bool {
        let current = self.current.lock();
        current.as_ref().is_some_and(|outbox| outbox.inner.lock().since.is_some())
    }

    /// Ends the attached stream, if any.
    pub(crate) fn close(&self) {
        if let Some(outbox) = self.current.lock().take() {
            outbox.close(Closed::Ended);
        }
    }

    /// Forgets `outbox` if it is still the attached one.
    fn forget(&self, outbox: &Arc<Outbox>) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|attached| Arc::ptr_eq(attached, outbox)) {
            *current = None;
        }
    }
}

impl Outbox {
    /// Returns whether messages are lost.
    fn close(&self, how: Closed) -> bool {
        let (lost, waker) = {
            let mut inner = self.inner.lock();
            let lost = !inner.waiting.is_empty();
            inner.close(how);
            (lost, inner.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        lost
    }
}

impl Inner {
    fn close(&mut self, how: Closed) {
        self.closed.get_or_insert(how);
        self.waiting.clear();
    }
}

/// The endless body of the answer to a peer that attached a stream.
#[derive(Debug)]
pub(crate) struct StreamBody {
    slot: Arc<Slot>,
    outbox: Arc<Outbox>,
    target: Arc<Target>,
    encoder: Encoder,
    /// Taken from the outbox but not encoded yet.
    taken: VecDeque<Message>,
    /// Since when the first of these waited.
    taken_since: Instant,
    /// Empty between two calls; keeps its memory.
    encoding: Pieces,
    /// Encoded but not given to the connection yet.
    pieces: VecDeque<Bytes>,
    attached: Instant,
    heartbeat: Pin<Box<Sleep>>,
}

impl StreamBody {
    pub(crate) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.taken.is_empty() {
                let mut inner = self.outbox.inner.lock();
                match inner.closed {
                    Some(Closed::Ended) => return Poll::Ready(None),
                    Some(Closed::Stuck) => {
                        let error = io::Error::from(io::ErrorKind::TimedOut);
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => {}
                }
                let since = inner.since.take();
                if inner.waiting.is_empty() {
                    match &mut inner.waker {
                        Some(waker) => waker.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                } else {
                    self.taken_since = since.unwrap_or(self.taken_since);
                    std::mem::swap(&mut self.taken, &mut inner.waiting);
                }
            }
            if self.taken.is_empty() {
                std::task::ready!(self.heartbeat.as_mut().poll(context));
                self.encoder.encode_heartbeat(&mut self.encoding);
                self.heartbeat.as_mut().reset(tokio::time::Instant::now() + HEARTBEAT_INTERVAL);
            }
            self.encode_taken();
            self.target.metrics.sent_bytes.add(self.encoding.len());
            self.pieces.extend(self.encoding.take());
        }
    }

    /// Encodes what is taken, up to a bound.
    fn encode_taken(&mut self) {
        let mut appends = Vec::new();
        while self.encoding.len() < BATCH_BYTES
            && let Some(message) = self.taken.pop_front()
        {
            let before = self.encoding.len();
            self.encoder.encode(&message, &mut self.encoding);
            if matches!(message.body, Body::Append(_)) {
                appends.push(self.encoding.len() - before);
            }
        }
        if !appends.is_empty() {
            self.target.metrics.appends.succeeded(appends.len(), self.taken_since.elapsed());
            self.target.count_appends(&appends);
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let (was_open, waiting) = {
            let mut inner = self.outbox.inner.lock();
            (inner.closed.is_none(), std::mem::take(&mut inner.waiting))
        };
        let lost = self.outbox.close(Closed::Ended);
        self.slot.forget(&self.outbox);
        if was_open {
            let unsent: Vec<Message> = self.taken.drain(..).chain(waiting).collect();
            let undelivered = lost || !unsent.is_empty() || !self.pieces.is_empty();
            let brief = self.attached.elapsed() < BRIEF;
            let flapped = self.slot.flaps.swap(brief, Relaxed);
            let lost = Lost { undelivered, quietly: brief && flapped, unsent };
            self.target.stream_lost(self.slot.kind, lost);
        }
    }
}
