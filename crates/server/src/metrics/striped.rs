//! Counters that every call touches: each network thread has its own, in a cache line that no other
//! thread writes. What they say together is told to the registered counters when somebody scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;

use crate::answers;
use crate::shards;

/// `N` counters for each network thread.
#[derive(Debug)]
pub(super) struct Striped<const N: usize>(Box<[Line<N>]>);

/// Two lines, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> Striped<N> {
    pub(super) fn new() -> Self {
        let line = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..shards::count()).map(line).collect())
    }

    /// Adds to a counter; threads that are no network threads share the first one's.
    pub(super) fn add(&self, counter: usize, count: u64) {
        let line = &self.0[answers::shard() % self.0.len()];
        line.0[counter].fetch_add(count, Ordering::Relaxed);
    }

    /// Brings a registered counter up to what all threads counted. One call at a time.
    pub(super) fn tell(&self, counter: usize, registered: &IntCounter) {
        registered.inc_by(self.total(counter).saturating_sub(registered.get()));
    }

    /// What all threads counted.
    pub(super) fn total(&self, counter: usize) -> u64 {
        let counts = self.0.iter().map(|line| line.0[counter].load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

impl<const N: usize> Default for Striped<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_counted_is_told_once() {
        let (striped, registered) = (Striped::<2>::new(), IntCounter::new("n", "n").unwrap());
        striped.add(0, 3);
        striped.add(1, 50);
        striped.tell(0, &registered);
        striped.tell(0, &registered);
        assert_eq!(registered.get(), 3);
        striped.add(0, 4);
        striped.tell(0, &registered);
        assert_eq!(registered.get(), 7);
    }
}
