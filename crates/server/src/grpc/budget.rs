//! The bytes that large replies may hold at the same time (G22).
//!
//! A reply that a client reads slowly stays in memory until it is sent. Small ones are nobody's
//! business; a large one asks for room before it is read from the store and gives it back when the
//! connection has taken it. Who finds no room waits in line; a line that is too long, or does not
//! move, turns requests away. A reply that its client does not take is broken off after a while
//! (large.rs), and no connection has more than a share of the room.
//!
//! Invariant: what is granted before a read never exceeds the capacity, but for a reply that alone
//! is larger; what a read turns out to hold beyond its estimate is added without asking, so it
//! exceeds the capacity by at most one reply for each thread that reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mvcc::{RangeQuery, Row, Want};
use parking_lot::Mutex;
use proto::etcdserverpb as pb;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::load::Load;
use crate::handle::{Handle, ProposeError};

/// Replies below this many bytes are not counted.
pub(crate) const LARGE_REPLY_BYTES: usize = 1 << 20;

/// All large replies together. Encoding a reply doubles it for a moment, so that with the reads
/// under way the server stays within 256 MiB.
const CAPACITY_BYTES: usize = 128 << 20;

/// What one connection may have of it; it may always have one reply, however large.
pub(crate) const CHARGED_PER_CONNECTION_KIB: usize = CAPACITY_BYTES / 4 / 1024;

/// Requests that may wait for room.
const WAITING_MAX: usize = 256;

/// How long one may wait while nobody before it gets room.
const WAIT_TIME_MAX: Duration = Duration::from_secs(30);

/// A row keeps at least the page alive that it lies in.
const PAGE_BYTES: usize = 4096;

/// What a row of metadata alone takes.
const KEY_ROW_BYTES: usize = 64;

/// Room for replies; shared by all services.
#[derive(Debug)]
pub(crate) struct Budget {
    room: Mutex<Room>,
    /// What a row of recent large reads took.
    row_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Room {
    /// Bytes not granted; below zero when replies turned out larger than expected.
    free: i64,
    capacity: i64,
    waiting: VecDeque<Waiting>,
    /// How often one of those got room.
    granted: u64,
}

#[derive(Debug)]
struct Waiting {
    bytes: i64,
    granted: oneshot::Sender<Charge>,
}

/// Room that a reply holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: i64,
    /// Of the connection's share.
    share: Option<OwnedSemaphorePermit>,
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("what is in memory is far below 2^63 bytes")
}

impl Budget {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_capacity(CAPACITY_BYTES)
    }

    fn with_capacity(capacity: usize) -> Arc<Self> {
        let capacity = signed(capacity);
        let room = Room { free: capacity, capacity, waiting: VecDeque::new(), granted: 0 };
        Arc::new(Self { room: Mutex::new(room), row_bytes: AtomicUsize::new(KEY_ROW_BYTES) })
    }

    /// Waits for room for a reply of about this many bytes to a connection: first for its own
    /// share, so that it is not in the way of others.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        load: &Load,
        bytes: usize,
    ) -> Result<Charge, ProposeError> {
        let kib = (bytes / 1024).min(CHARGED_PER_CONNECTION_KIB);
        let kib = u32::try_from(kib).expect("a share is below 4 TiB");
        let share = {
            let _waiting = load.wait()?;
            let share = load.charged().clone().acquire_many_owned(kib);
            while_it_moves(share, || load.taken()).await?
        };
        let mut charge = self.grant(bytes).await?;
        charge.share = Some(share.map_err(|_| ProposeError::Overloaded)?);
        Ok(charge)
    }

    async fn grant(self: &Arc<Self>, bytes: usize) -> Result<Charge, ProposeError> {
        let granted = {
            let mut room = self.room.lock();
            // A reply larger than everything gets everything.
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).min(room.capacity);
            if room.waiting.is_empty() && bytes <= room.free {
                room.free -= bytes;
                return Ok(Charge { budget: self.clone(), bytes, share: None });
            }
            if WAITING_MAX <= room.waiting.len() {
                return Err(ProposeError::Overloaded);
            }
            let (sender, granted) = oneshot::channel();
            room.waiting.push_back(Waiting { bytes, granted: sender });
            granted
        };
        let granted = while_it_moves(granted, || self.room.lock().granted).await?;
        granted.map_err(|_| ProposeError::Overloaded)
    }

    /// Makes a charge what the reply really holds; small replies hold none.
    pub(crate) fn settle(self: &Arc<Self>, charge: Option<Charge>, bytes: usize) -> Option<Charge> {
        if bytes < LARGE_REPLY_BYTES {
            return None;
        }
        let mut charge =
            charge.unwrap_or_else(|| Charge { budget: self.clone(), bytes: 0, share: None });
        charge.adjust(signed(bytes));
        Some(charge)
    }

    /// Gives freed room to those who wait longest.
    fn release(self: &Arc<Self>, bytes: i64) {
        let mut granted = Vec::new();
        {
            let mut room = self.room.lock();
            room.free += bytes;
            assert!(
                room.free <= room.capacity,
                "{} bytes are free of {}",
                room.free,
                room.capacity
            );
            let Room { free, waiting, granted: times, .. } = &mut *room;
            while let Some(next) = waiting.pop_front_if(|next| next.bytes <= *free) {
                *free -= next.bytes;
                *times += 1;
                granted.push(next);
            }
        }
        // Outside the lock: who has given up drops the charge, and that comes back here.
        for Waiting { bytes, granted } in granted {
            let _gone = granted.send(Charge { budget: self.clone(), bytes, share: None });
        }
    }

    /// About how many bytes a reply to this request will hold; 0 for few. Asks the index how many
    /// keys there are, if that matters.
    pub(crate) fn estimate(&self, handle: &Handle, request: &pb::RangeRequest) -> usize {
        if request.range_end.is_empty() || request.count_only {
            return 0;
        }
        let row_bytes =
            if request.keys_only { KEY_ROW_BYTES } else { self.row_bytes.load(Ordering::Relaxed) };
        let limit = usize::try_from(request.limit).ok().filter(|limit| 0 < *limit);
        // Sorting and filtering look at every row of the range.
        let limit = limit.filter(|_| request.sort_order == 0 && request.sort_target == 0);
        if let Some(limit) = limit
            && limit.saturating_mul(row_bytes) < LARGE_REPLY_BYTES
        {
            return 0;
        }
        let query = RangeQuery {
            keys: base::KeyRange::from_wire(request.key.clone(), request.range_end.clone()),
            at: (0 < request.revision).then_some(request.revision),
            limit: None,
            want: Want::Count,
        };
        // The read itself says what is wrong with the request.
        let count = handle.reads().keys().range(&query).map_or(0, |found| found.count);
        let rows = limit.map_or(count, |limit| limit.min(count));
        let bytes = rows.saturating_mul(row_bytes);
        if bytes < LARGE_REPLY_BYTES { 0 } else { bytes }
    }

    /// Learns from a reply how large rows are: at once when they grow, slowly when they shrink.
    pub(crate) fn learn(&self, rows: usize, bytes: usize) {
        if rows < 2 {
            return;
        }
        let (seen, known) = (bytes / rows, self.row_bytes.load(Ordering::Relaxed));
        let next = if known < seen { seen } else { known - (known - seen) / 8 };
        self.row_bytes.store(next.max(KEY_ROW_BYTES), Ordering::Relaxed);
    }
}

impl Charge {
    /// Whether others wait for what this holds.
    pub(crate) fn is_wanted(&self) -> bool {
        self.budget.room.lock().waiting.iter().any(|waiting| !waiting.granted.is_closed())
    }

    fn adjust(&mut self, bytes: i64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.budget.release(before - bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Waits in a line as long as that goes on: `moves` must change from time to time.
async fn while_it_moves<T>(
    wait: impl Future<Output = T>,
    moves: impl Fn() -> u64,
) -> Result<T, ProposeError> {
    let mut wait = std::pin::pin!(wait);
    loop {
        let before = moves();
        match tokio::time::timeout(WAIT_TIME_MAX, wait.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) if before != moves() => {}
            Err(_) => return Err(ProposeError::Overloaded),
        }
    }
}

/// Bytes that rows keep in memory: their own, or the page's where few rows of a page are wanted.
pub(crate) fn held_bytes(rows: &[Row]) -> usize {
    let mut last = 0_usize;
    let held = rows.iter().map(|row| {
        let at = row.0.as_ptr().addr();
        let near = at.abs_diff(last) < PAGE_BYTES;
        last = at;
        if near { row.0.len() } else { row.0.len().max(PAGE_BYTES) }
    });
    held.sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MIB: usize = 1 << 20;

    /// G22: what does not fit waits in order, and goes on when room is given back.
    #[tokio::test]
    async fn who_finds_no_room_waits_in_line() {
        let budget = Budget::with_capacity(10 * MIB);
        let first = budget.grant(8 * MIB).await.unwrap();
        let waits = |bytes| {
            let budget = budget.clone();
            tokio::spawn(async move { budget.grant(bytes).await.unwrap() })
        };
        let second = waits(4 * MIB);
        tokio::task::yield_now().await;
        // It would fit, but somebody came before.
        let third = waits(MIB);
        tokio::task::yield_now().await;
        assert_eq!(budget.room.lock().waiting.len(), 2);
        drop(first);
        let (second, third) = (second.await.unwrap(), third.await.unwrap());
        assert_eq!((second.bytes, third.bytes), (signed(4 * MIB), signed(MIB)));
        drop((second, third));
        assert_eq!(budget.room.lock().free, signed(10 * MIB));
    }

    #[tokio::test]
    async fn a_line_that_is_full_turns_away() {
        let budget = Budget::with_capacity(MIB);
        let held = budget.grant(5 * MIB).await.unwrap();
        let mut line = Vec::new();
        for _ in 0..WAITING_MAX {
            let budget = budget.clone();
            line.push(tokio::spawn(async move { budget.grant(1).await.map(drop) }));
            tokio::task::yield_now().await;
        }
        assert!(matches!(budget.grant(1).await, Err(ProposeError::Overloaded)));
        drop(held);
        for waiting in line {
            waiting.await.unwrap().unwrap();
        }
        assert_eq!(budget.room.lock().free, signed(MIB));
    }

    #[tokio::test]
    async fn a_reply_that_is_larger_than_expected_counts_in_full() {
        let budget = Budget::with_capacity(10 * MIB);
        let charge = budget.grant(2 * MIB).await.unwrap();
        let charge = budget.settle(Some(charge), 40 * MIB);
        assert_eq!(budget.room.lock().free, signed(10 * MIB) - signed(40 * MIB));
        drop(charge);
        assert_eq!(budget.room.lock().free, signed(10 * MIB));
        let charge = budget.grant(8 * MIB).await.unwrap();
        assert!(budget.settle(Some(charge), 100).is_none());
        assert_eq!(budget.room.lock().free, signed(10 * MIB));
    }

    #[test]
    fn a_lonely_row_holds_its_page() {
        let page = Bytes::from(vec![0; 8 * PAGE_BYTES]);
        let row = |at: usize| Row(page.slice(at..at + 100));
        assert_eq!(held_bytes(&[row(0), row(200), row(400)]), PAGE_BYTES + 200);
        assert_eq!(held_bytes(&[row(0), row(2 * PAGE_BYTES)]), 2 * PAGE_BYTES);
    }

    /// G22: one connection leaves room for others, and may still read as much at once as before.
    #[tokio::test]
    async fn a_connection_has_a_share() {
        let budget = Budget::new();
        let (one, other) = (Load::new(), Load::new());
        let first = budget.admit(&one, 40 * MIB).await.unwrap();
        let second = {
            let (budget, one) = (budget.clone(), one.clone());
            tokio::spawn(async move { budget.admit(&one, 20 * MIB).await.unwrap() })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished() && !first.is_wanted());
        drop(budget.admit(&other, 40 * MIB).await.unwrap());
        drop(first);
        let second = second.await.unwrap();
        drop(budget.admit(&one, 10 * MIB).await.unwrap());
        drop(second);
        drop(budget.admit(&one, 2 * CAPACITY_BYTES).await.unwrap());
        assert_eq!(budget.room.lock().free, signed(CAPACITY_BYTES));
    }
}
