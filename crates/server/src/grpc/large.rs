//! A large unary reply, handed out in pieces as the client takes them (G22).
//!
//! The reply holds its room in the budget of replies. A client that takes no byte of it for a while
//! loses the rest: the room is given back at once, and the stream is reset when the client wants
//! more. The library for HTTP/2 never has more than its own send buffer of it.
//!
//! Invariant: pieces are copies, so that no piece keeps the whole reply in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tonic::Status;

use super::budget::Charge;
use super::status;

/// Bytes handed out at a time.
const PIECE_BYTES: usize = 256 << 10;

/// How often it is looked whether the client takes anything.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// Checks without a byte taken after which a reply is broken off: 30 seconds.
const STILL_CHECKS_MAX: u32 = 15;

/// The same while others wait for its room: 8 seconds.
const STILL_CHECKS_WANTED_MAX: u32 = 4;

/// A reply under way.
#[derive(Debug)]
pub(crate) struct Large {
    left: Mutex<Left>,
    /// Bytes were taken since the last check.
    moved: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Left {
    /// Not handed out yet.
    Some(Bytes, Arc<Charge>),
    /// All is handed out.
    None,
    BrokenOff,
}

impl Large {
    /// Must be called within a runtime, which watches over it.
    pub(crate) fn begin(bytes: Bytes, charge: Arc<Charge>) -> Arc<Self> {
        let moved = Arc::new(AtomicBool::new(true));
        let large = Arc::new(Self { left: Mutex::new(Left::Some(bytes, charge)), moved });
        let watched = Arc::downgrade(&large);
        tokio::spawn(async move {
            let mut still_checks = 0;
            loop {
                tokio::time::sleep(CHECK_PAUSE).await;
                let Some(large) = watched.upgrade() else { return };
                let moved = large.moved.swap(false, Ordering::Relaxed);
                still_checks = if moved { 0 } else { still_checks + 1 };
                if !large.check(still_checks) {
                    return;
                }
            }
        });
        large
    }

    /// To be set when bytes are taken.
    pub(crate) fn moved(&self) -> Arc<AtomicBool> {
        self.moved.clone()
    }

    /// The next piece; `None` at the end.
    pub(crate) fn piece(&self) -> Option<Result<Bytes, Status>> {
        let mut left = self.left.lock();
        match &mut *left {
            Left::Some(bytes, _) if bytes.is_empty() => {
                *left = Left::None;
                None
            }
            Left::Some(bytes, _) => {
                let piece = bytes.split_to(PIECE_BYTES.min(bytes.len()));
                let piece = Bytes::copy_from_slice(&piece);
                if bytes.is_empty() {
                    *left = Left::None;
                }
                Some(Ok(piece))
            }
            Left::None => None,
            Left::BrokenOff => Some(Err(status::reply_not_taken())),
        }
    }

    /// Breaks it off if nothing was taken for too many checks; whether there is more to watch.
    fn check(&self, still_checks: u32) -> bool {
        let mut left = self.left.lock();
        let Left::Some(bytes, charge) = &*left else { return false };
        let max = if charge.is_wanted() { STILL_CHECKS_WANTED_MAX } else { STILL_CHECKS_MAX };
        if still_checks < max {
            return true;
        }
        tracing::debug!(
            left_bytes = bytes.len(),
            "broke off a reply that its client does not take"
        );
        let broken_off = std::mem::replace(&mut *left, Left::BrokenOff);
        drop(left);
        // It gives room to others.
        drop(broken_off);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::load::Load;
    use super::*;

    const MIB: usize = 1 << 20;

    async fn charged(budget: &Arc<Budget>, bytes: usize) -> Arc<Charge> {
        Arc::new(budget.admit(&Load::new(), bytes).await.unwrap())
    }

    #[tokio::test]
    async fn the_pieces_are_the_reply() {
        let bytes: Bytes = (0..3 * MIB + 5).map(|at| at.to_le_bytes()[1]).collect();
        let large = Large::begin(bytes.clone(), charged(&Budget::new(), bytes.len()).await);
        let mut pieces = Vec::new();
        while let Some(piece) = large.piece() {
            pieces.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(pieces, bytes);
        assert!(large.piece().is_none());
    }

    /// G22: who does not take its reply makes room for others, sooner if they wait.
    #[tokio::test]
    async fn a_reply_that_is_not_taken_is_broken_off() {
        let budget = Budget::new();
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let charge = charged(&budget, 32 * MIB).await;
            stalled.push(Large::begin(vec![0; 32 * MIB].into(), charge));
        }
        assert!(stalled[0].check(STILL_CHECKS_WANTED_MAX));
        assert!(!stalled[0].check(STILL_CHECKS_MAX));
        assert!(matches!(stalled[0].piece(), Some(Err(_))));
        let _first = charged(&budget, 32 * MIB).await;
        let second = {
            let budget = budget.clone();
            tokio::spawn(async move { charged(&budget, 32 * MIB).await })
        };
        tokio::task::yield_now().await;
        assert!(stalled[1].check(STILL_CHECKS_WANTED_MAX - 1));
        assert!(!stalled[1].check(STILL_CHECKS_WANTED_MAX));
        second.await.unwrap();
        // Nobody waits any more, and what is handed out needs no watching.
        assert!(stalled[2].check(STILL_CHECKS_WANTED_MAX));
        while stalled[2].piece().is_some() {}
        assert!(!stalled[2].check(0));
    }
}
