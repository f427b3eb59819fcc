//! Reads that may be old, but never older than what this proxy read before.
//!
//! Source: etcd client/v3/ordering. There the proxy's own reads and transactions go past it; here
//! they do not.

use std::sync::atomic::{AtomicI64, Ordering};

use tonic::{Code, Status};

/// The newest revision that anybody was answered.
#[derive(Debug, Default)]
pub(crate) struct Order {
    newest: AtomicI64,
}

/// Rounds over all endpoints before giving up. The same as etcd's.
const ROUNDS: usize = 5;

impl Order {
    /// What an answer from now on must not be older than.
    pub(crate) fn now(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    /// For a read that begins now, of a cluster with so many endpoints.
    pub(super) fn turns(&self, endpoints: usize) -> Turns {
        Turns { before: self.now(), left: ROUNDS * endpoints }
    }

    /// Notes an answer; whether it is not older than what was read before it was asked for.
    ///
    /// # Errors
    ///
    /// It is, and so were enough others.
    pub(super) fn accept(&self, turns: &mut Turns, revision: i64) -> Result<bool, Status> {
        self.newest.fetch_max(revision, Ordering::AcqRel);
        if turns.before <= revision {
            return Ok(true);
        }
        turns.left = turns.left.checked_sub(1).ok_or_else(|| {
            let text = "etcdclient: no cluster members have a revision higher than the previously \
                        received revision";
            Status::new(Code::Unknown, text)
        })?;
        Ok(false)
    }
}

/// How often one read is still made.
#[derive(Debug, Default)]
pub(super) struct Turns {
    before: i64,
    left: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-179.
    #[test]
    fn older_answers_are_asked_for_again_and_then_refused() {
        let order = Order::default();
        assert!(order.accept(&mut order.turns(1), 7).unwrap());
        let mut turns = order.turns(1);
        for _ in 0..ROUNDS {
            assert!(!order.accept(&mut turns, 6).unwrap());
        }
        assert!(order.accept(&mut turns, 6).is_err());
        assert!(order.accept(&mut order.turns(1), 7).unwrap());
        assert_eq!(order.now(), 7);
    }
}
