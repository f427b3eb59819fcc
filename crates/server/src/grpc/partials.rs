//! Bytes of messages whose end has not arrived, of all connections (L12, G24).
//!
//! A client may send most of a large message and then wait, in thousands of calls. Together they
//! have a limit; above it those calls are refused that have held most for longest. A message that
//! arrives in one go is not among them: it is whole before anybody looks.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;

use super::status;

/// What all of them may have.
const PARTIAL_BYTES_MAX: usize = 64 << 20;

/// What is left when calls have been refused, so that it is not to be done for each.
const PARTIAL_BYTES_LEFT: usize = 48 << 20;

/// What a message takes beside its bytes.
const MESSAGE_BYTES: usize = 512;

/// The messages of all connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    bytes: AtomicUsize,
    all: Mutex<Vec<Weak<Held>>>,
}

/// One message, until it is whole or given up.
#[derive(Debug)]
pub(crate) struct Partial {
    partials: Arc<Partials>,
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    began: Instant,
    /// `None` once it is refused.
    bytes: Mutex<Option<usize>>,
    /// Of the task that waits for the rest.
    waker: AtomicWaker,
}

impl Partials {
    /// Counts another message.
    pub(crate) fn begin(self: &Arc<Self>) -> Partial {
        let (bytes, waker) = (Mutex::new(Some(0)), AtomicWaker::new());
        let held = Arc::new(Held { began: Instant::now(), bytes, waker });
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            all.retain(|held| 0 < held.strong_count());
        }
        all.push(Arc::downgrade(&held));
        Partial { partials: self.clone(), held }
    }

    /// Refuses messages until enough room is left.
    fn make_room(&self) {
        let mut refused = Vec::new();
        {
            let mut all = self.all.lock();
            if self.bytes.load(Ordering::Relaxed) <= PARTIAL_BYTES_MAX {
                // Somebody else was here.
                return;
            }
            all.retain(|held| 0 < held.strong_count());
            let now = Instant::now();
            let mut held: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
            held.sort_by_cached_key(|held| std::cmp::Reverse(held.weight(now)));
            for held in held {
                if self.bytes.load(Ordering::Relaxed) <= PARTIAL_BYTES_LEFT {
                    break;
                }
                let taken = held.bytes.lock().take();
                if let Some(bytes) = taken {
                    self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    refused.push(held);
                }
            }
        }
        tracing::debug!(messages = refused.len(), "refused calls whose messages do not arrive");
        for held in refused {
            held.waker.wake();
        }
    }
}

impl Held {
    /// Bytes, times how long they are here.
    fn weight(&self, now: Instant) -> u128 {
        let bytes = self.bytes.lock().unwrap_or(0);
        bytes as u128 * now.saturating_duration_since(self.began).as_micros()
    }
}

impl Partial {
    /// So many bytes are here now, and the call waits for more; `false` if it is refused. Wakes it
    /// when it is to be.
    pub(crate) fn waits(&self, bytes: usize, context: &mut Context<'_>) -> bool {
        self.held.waker.register(context.waker());
        let bytes = MESSAGE_BYTES + bytes;
        let before = match &mut *self.held.bytes.lock() {
            Some(held) => std::mem::replace(held, bytes),
            None => return false,
        };
        let all = &self.partials.bytes;
        if before < bytes {
            let more = bytes - before;
            if PARTIAL_BYTES_MAX < all.fetch_add(more, Ordering::Relaxed) + more {
                self.partials.make_room();
                return self.held.bytes.lock().is_some();
            }
        } else if bytes < before {
            all.fetch_sub(before - bytes, Ordering::Relaxed);
        }
        true
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(bytes) = self.held.bytes.lock().take() {
            self.partials.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// A body that is one message, and ends with an error when it is refused.
#[derive(Debug)]
pub(crate) struct Counted<B> {
    inner: B,
    partials: Arc<Partials>,
    partial: Option<Partial>,
    /// What has arrived.
    bytes: usize,
}

impl<B> Counted<B> {
    pub(crate) fn new(inner: B, partials: Arc<Partials>) -> Self {
        Self { inner, partials, partial: None, bytes: 0 }
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.bytes += data.map_or(0, Bytes::len);
            let failed = |error: B::Error| Status::from_error(error.into());
            return Poll::Ready(frame.map(|frame| frame.map_err(failed)));
        }
        if this.bytes == 0 {
            return Poll::Pending;
        }
        let partial = this.partial.get_or_insert_with(|| this.partials.begin());
        if partial.waits(this.bytes, context) {
            Poll::Pending
        } else {
            Poll::Ready(Some(Err(status::request_in_the_way())))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    const MIB: usize = 1 << 20;

    /// L12: who has held most for longest makes room for others.
    #[test]
    fn the_largest_and_oldest_are_refused_first() {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let partials = Arc::<Partials>::default();
        let small: Vec<_> = (0..100).map(|_| partials.begin()).collect();
        assert!(small.iter().all(|partial| partial.waits(100, &mut context)));
        let large: Vec<_> = (0..PARTIAL_BYTES_MAX / MIB).map(|_| partials.begin()).collect();
        let mut waiting = 0;
        for partial in &large {
            assert!(partial.waits(MIB / 2, &mut context));
            assert!(partial.waits(MIB, &mut context));
            waiting += 1;
            let held = partials.bytes.load(Ordering::Relaxed);
            if held < waiting * MIB {
                break;
            }
        }
        // The last of them was one too many, and the oldest are gone.
        assert_eq!(waiting, PARTIAL_BYTES_MAX / MIB);
        let held: Vec<_> = large.iter().map(|partial| partial.waits(MIB, &mut context)).collect();
        assert!(!held[0] && held[waiting - 1], "{held:?}");
        assert!(small.iter().all(|partial| partial.waits(200, &mut context)));
        assert!(partials.bytes.load(Ordering::Relaxed) < PARTIAL_BYTES_LEFT + MIB);
        drop((small, large));
        assert_eq!(partials.bytes.load(Ordering::Relaxed), 0);
    }
}
