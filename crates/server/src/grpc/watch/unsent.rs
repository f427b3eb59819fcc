//! What streams of watches have handed out and the connection has not written (G21).
//!
//! A stream gets no more than its share ahead of its client. Once all streams together have used up
//! their room, each goes on with one small piece at a time: who reads takes it at once and gets the
//! next, and who does not read has no more than that. Nobody waits for anybody else.
//!
//! Not here: what a stream keeps of a message until it is handed out (kept.rs).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// What all streams may have beyond their free shares before each is left with one piece.
const UNSENT_BYTES_ALL_MAX: usize = 8 << 20;

/// What one stream may have until then, as many as the library for HTTP/2 takes.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// What a stream may have however many the others have.
const UNSENT_BYTES_FREE: usize = 4 << 10;

/// What a frame takes beside its bytes.
const FRAME_BYTES: usize = 256;

/// Bytes of a frame.
const PIECE_BYTES: usize = 64 << 10;

/// The same when there is no room.
const SMALL_PIECE_BYTES: usize = 16 << 10;

/// What one stream has handed out.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    own: AtomicUsize,
    /// Beyond their free shares, together.
    all: Arc<AtomicUsize>,
    waiting: AtomicBool,
    waker: AtomicWaker,
}

/// The bytes of a frame, counted until the connection drops them.
struct Counted {
    bytes: Vec<u8>,
    unsent: Arc<Unsent>,
}

/// Of `bytes`, what is not the stream's anyway.
fn excess(bytes: usize) -> usize {
    bytes.saturating_sub(UNSENT_BYTES_FREE)
}

impl Unsent {
    /// Of a stream among others.
    pub(super) fn new(all: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { all, ..Self::default() })
    }

    /// Counts a frame from now on.
    pub(super) fn frame(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        let counted = FRAME_BYTES + bytes.len();
        let before = self.own.fetch_add(counted, Ordering::SeqCst);
        let more = excess(before + counted) - excess(before);
        if 0 < more {
            self.all.fetch_add(more, Ordering::Relaxed);
        }
        Bytes::from_owner(Counted { bytes, unsent: self.clone() })
    }

    /// How many bytes the next frame may have; the task is woken when it may have some.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<usize> {
        if let Some(room) = self.room() {
            return Poll::Ready(room);
        }
        self.waker.register(context.waker());
        self.waiting.store(true, Ordering::SeqCst);
        match self.room() {
            Some(room) => Poll::Ready(room),
            None => Poll::Pending,
        }
    }

    fn room(&self) -> Option<usize> {
        let own = self.own.load(Ordering::SeqCst);
        let is_short = UNSENT_BYTES_ALL_MAX <= self.all.load(Ordering::Relaxed);
        let max = if is_short { UNSENT_BYTES_FREE } else { UNSENT_BYTES_MAX };
        (own < max).then_some(if is_short { SMALL_PIECE_BYTES } else { PIECE_BYTES })
    }

    fn taken(&self, counted: usize) {
        let before = self.own.fetch_sub(counted, Ordering::SeqCst);
        let less = excess(before) - excess(before - counted);
        if 0 < less {
            self.all.fetch_sub(less, Ordering::Relaxed);
        }
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unsent.taken(FRAME_BYTES + self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    /// G21: who reads goes on while those who do not have used up the room.
    #[test]
    fn streams_that_read_go_on_beside_those_that_do_not() {
        let all = Arc::<AtomicUsize>::default();
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut stalled = Vec::new();
        while all.load(Ordering::Relaxed) < UNSENT_BYTES_ALL_MAX {
            let unsent = Unsent::new(all.clone());
            while unsent.poll_room(&mut context) == Poll::Ready(PIECE_BYTES) {
                stalled.push(unsent.frame(vec![0; PIECE_BYTES]));
            }
            assert!(unsent.poll_room(&mut context).is_pending());
        }
        let held = all.load(Ordering::Relaxed);
        assert!(held < UNSENT_BYTES_ALL_MAX + UNSENT_BYTES_MAX, "{held} bytes");
        let reading = Unsent::new(all.clone());
        for _ in 0..100 {
            assert_eq!(reading.poll_room(&mut context), Poll::Ready(SMALL_PIECE_BYTES));
            let piece = reading.frame(vec![0; SMALL_PIECE_BYTES]);
            assert!(reading.poll_room(&mut context).is_pending());
            drop(piece);
        }
        drop(stalled);
        assert_eq!(reading.poll_room(&mut context), Poll::Ready(PIECE_BYTES));
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
