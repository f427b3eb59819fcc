//! What the calls of one connection hold of this server's memory, and how much they may (G22, L12).
//!
//! Reply bytes count from when the connection's task takes them until the library for HTTP/2 has
//! written them: a client that asks on and on without reading fills its own share and then waits.
//! When it also takes nothing any more, its connection is closed. Calls whose request does not
//! arrive are counted, too: a head costs the client a few bytes and the server kilobytes.
//!
//! What is counted here is counted by the connection's own thread, so that it costs next to
//! nothing; only what exceeds a share that each connection has anyway is counted for all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::{Notify, Semaphore};

use super::budget::CHARGED_PER_CONNECTION_KIB;
use super::partials::Partials;
use crate::handle::ProposeError;

/// Reply bytes that one connection may have before further calls wait.
const UNSENT_BYTES_MAX: usize = 16 << 20;

/// Reply bytes that a connection may have however many the others have.
const UNSENT_BYTES_FREE: usize = 1 << 20;

/// What all connections may have beyond that before each is left with that.
const UNSENT_BYTES_ALL_MAX: usize = 64 << 20;

/// What a reply takes beside its message: the stream, heads, trailers.
const REPLY_BYTES: usize = 512;

/// How long a connection that others wait for may take nothing.
const STALL_TIME_MAX: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };

/// Calls of a connection that wait for it to take replies.
const WAITING_MAX: usize = 10_000;

/// Calls of a connection that may have begun without their message.
const HALF_OPEN_MAX: usize = 10_000;

/// Calls in excess of that which are refused one by one, before all of them are.
const REFUSED_MAX: usize = 10_000;

/// The account of one connection.
#[derive(Debug)]
pub(crate) struct Load {
    unsent: AtomicUsize,
    /// What the connections have beyond their free share, together.
    all: Arc<AtomicUsize>,
    /// What they have of messages, together.
    partials: Arc<Partials>,
    /// Goes up whenever bytes are taken.
    taken: AtomicU64,
    waiting: AtomicUsize,
    room: Notify,
    half_open: AtomicUsize,
    refused: AtomicUsize,
    /// For its large replies, in KiB.
    charged: Arc<Semaphore>,
    broken_off: Notify,
}

/// Part of a reply, counted until it is written.
#[derive(Debug)]
pub(crate) struct ReplyData {
    bytes: Bytes,
    load: Option<Arc<Load>>,
    /// Set whenever bytes are taken.
    moved: Option<Arc<AtomicBool>>,
}

/// A call of which only the head is here.
#[derive(Debug)]
pub(crate) struct HalfOpen(Arc<Load>);

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Load);

/// Of `bytes`, what is not the connection's anyway.
fn excess(bytes: usize) -> usize {
    bytes.saturating_sub(UNSENT_BYTES_FREE)
}

impl Load {
    /// Of a first connection.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Arc::default(), Arc::default())
    }

    /// Of another connection of the same server.
    pub(crate) fn beside(&self) -> Arc<Self> {
        Self::with(self.all.clone(), self.partials.clone())
    }

    fn with(all: Arc<AtomicUsize>, partials: Arc<Partials>) -> Arc<Self> {
        Arc::new(Self {
            unsent: AtomicUsize::new(0),
            all,
            partials,
            taken: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            half_open: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            charged: Arc::new(Semaphore::new(CHARGED_PER_CONNECTION_KIB)),
            broken_off: Notify::new(),
        })
    }

    /// Room for the connection's large replies, in KiB.
    pub(crate) fn charged(&self) -> &Arc<Semaphore> {
        &self.charged
    }

    /// Messages of all connections whose end has not arrived.
    pub(crate) fn partials(&self) -> &Arc<Partials> {
        &self.partials
    }

    /// Changes whenever the client takes something.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        let before = self.unsent.fetch_add(bytes, Ordering::Relaxed);
        let more = excess(before + bytes) - excess(before);
        if 0 < more {
            self.all.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn subtract(&self, bytes: usize) {
        let before = self.unsent.fetch_sub(bytes, Ordering::Relaxed);
        assert!(bytes <= before, "{bytes} bytes were taken of {before}");
        let less = excess(before) - excess(before - bytes);
        if 0 < less {
            self.all.fetch_sub(less, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        if 0 < self.waiting.load(Ordering::Relaxed) && !self.is_full() {
            self.room.notify_one();
        }
    }

    fn is_full(&self) -> bool {
        let own = self.unsent.load(Ordering::Relaxed);
        UNSENT_BYTES_FREE <= own
            && (UNSENT_BYTES_MAX <= own || UNSENT_BYTES_ALL_MAX <= self.all.load(Ordering::Relaxed))
    }

    /// Waits until the client has taken enough of what it was answered. To be asked right before
    /// the answer is read, so that nothing else is answered in between.
    pub(crate) async fn room(&self) -> Result<(), ProposeError> {
        if !self.is_full() {
            return Ok(());
        }
        let _waiting = self.wait()?;
        while self.is_full() {
            let taken = self.taken();
            let notified = tokio::time::timeout(STALL_TIME_MAX, self.room.notified()).await;
            if notified.is_err() && taken == self.taken() {
                self.break_off();
                return Err(ProposeError::Overloaded);
            }
        }
        // If this one's answer leaves room, the next may go on.
        self.room.notify_one();
        Ok(())
    }

    /// Counts a call that waits; too many of them close the connection.
    pub(crate) fn wait(&self) -> Result<Waiting<'_>, ProposeError> {
        let waiting = Waiting(self);
        if WAITING_MAX <= self.waiting.fetch_add(1, Ordering::Relaxed) {
            self.break_off();
            return Err(ProposeError::Overloaded);
        }
        Ok(waiting)
    }

    /// Counts a call whose message has not arrived. Those beyond a limit are refused; a client
    /// that does not mind loses its connection.
    pub(crate) fn half_open(self: &Arc<Self>) -> Result<HalfOpen, ProposeError> {
        let half_open = HalfOpen(self.clone());
        if self.half_open.fetch_add(1, Ordering::Relaxed) < HALF_OPEN_MAX {
            return Ok(half_open);
        }
        if REFUSED_MAX <= self.refused.fetch_add(1, Ordering::Relaxed) {
            self.break_off();
        }
        Err(ProposeError::Overloaded)
    }

    fn break_off(&self) {
        self.broken_off.notify_one();
    }

    /// Returns when the connection is to be closed.
    pub(crate) async fn broken_off(&self) {
        self.broken_off.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        let before = self.0.half_open.fetch_sub(1, Ordering::Relaxed);
        if before < HALF_OPEN_MAX / 2 {
            self.0.refused.store(0, Ordering::Relaxed);
        }
    }
}

impl ReplyData {
    /// Counts these bytes from now on, if for anybody.
    pub(crate) fn new(
        bytes: Bytes,
        load: Option<Arc<Load>>,
        moved: Option<Arc<AtomicBool>>,
    ) -> Self {
        if let Some(load) = &load {
            load.add(REPLY_BYTES + bytes.len());
        }
        Self { bytes, load, moved }
    }
}

impl Buf for ReplyData {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(load) = &self.load {
            load.subtract(count);
        }
        if let Some(moved) = &self.moved {
            moved.store(true, Ordering::Relaxed);
        }
    }

    /// Whole messages for the gateway, without a copy.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let taken = self.bytes.slice(..len);
        self.advance(len);
        taken
    }
}

impl Drop for ReplyData {
    fn drop(&mut self) {
        if let Some(load) = &self.load {
            load.subtract(REPLY_BYTES + self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(load: &Arc<Load>, len: usize) -> ReplyData {
        ReplyData::new(Bytes::from(vec![0; len]), Some(load.clone()), None)
    }

    /// G22: a connection that does not read waits, the others do not.
    #[tokio::test]
    async fn who_does_not_read_waits_with_further_calls() {
        let load = Load::new();
        let mut kept = data(&load, UNSENT_BYTES_MAX);
        let other = load.beside();
        other.room().await.unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let load = load.clone();
                tokio::spawn(async move { load.room().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(load.waiting.load(Ordering::Relaxed), 3);
        // What is taken makes room for all of them.
        kept.advance(REPLY_BYTES + 1);
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
        drop(kept);
        assert_eq!(load.unsent.load(Ordering::Relaxed), 0);
        assert_eq!(load.all.load(Ordering::Relaxed), 0);
    }

    /// G22: many connections that do not read leave each its free share.
    #[tokio::test]
    async fn all_together_have_a_limit_beyond_their_free_shares() {
        let first = Load::new();
        let each = UNSENT_BYTES_MAX - 2 * REPLY_BYTES;
        let kept: Vec<_> = (0..=UNSENT_BYTES_ALL_MAX / (each - UNSENT_BYTES_FREE))
            .map(|_| data(&first.beside(), each))
            .collect();
        let few = data(&first, 1000);
        assert!(!first.is_full());
        let more = data(&first, UNSENT_BYTES_FREE);
        assert!(first.is_full());
        drop(kept);
        assert!(!first.is_full());
        drop((few, more));
        assert_eq!(first.all.load(Ordering::Relaxed), 0);
    }

    /// G22: a connection that takes nothing is closed when calls wait for it.
    #[tokio::test]
    async fn a_connection_that_takes_nothing_is_broken_off() {
        let load = Load::new();
        let _kept = data(&load, UNSENT_BYTES_MAX);
        assert!(matches!(load.room().await, Err(ProposeError::Overloaded)));
        load.broken_off().await;
    }

    /// L12: heads without bodies are refused beyond a number, and cost the connection beyond more.
    #[tokio::test]
    async fn calls_without_their_message_are_bounded() {
        let load = Load::new();
        let mut open: Vec<_> = (0..HALF_OPEN_MAX).map(|_| load.half_open().unwrap()).collect();
        assert!(load.half_open().is_err());
        open.truncate(HALF_OPEN_MAX - 1);
        open.push(load.half_open().unwrap());
        for _ in 0..REFUSED_MAX {
            assert!(load.half_open().is_err());
        }
        load.broken_off().await;
        drop(open);
        assert_eq!(load.half_open.load(Ordering::Relaxed), 0);
    }
}
