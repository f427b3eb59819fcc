//! What clients saw, as it happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use history::{Final, History, Observation, Operation, WatchRecord};

/// The history of a running test. All its clients share the clock.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    history: Mutex<History>,
    /// Clients and other things that need a number of their own.
    numbers: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), history: Mutex::default(), numbers: AtomicU64::new(1) }
    }
}

impl Recorder {
    /// Nanoseconds since the beginning.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a call that is over.
    pub fn record(&self, operation: Operation) {
        self.history().operations.push(operation);
    }

    /// Adds a watch that begins; its index.
    pub fn open_watch(&self, watch: WatchRecord) -> usize {
        let mut history = self.history();
        history.watches.push(watch);
        history.watches.len() - 1
    }

    /// Adds what a watch delivered.
    pub fn observe(&self, watch: usize, observation: Observation) {
        self.history().watches[watch].observations.push(observation);
    }

    /// Says that a watch must have had everything up to a revision.
    pub fn set_caught_up(&self, watch: usize, revision: i64) {
        self.history().watches[watch].caught_up = Some(revision);
    }

    /// Adds a member's state at the end.
    pub fn record_final(&self, member: Final) {
        self.history().finals.push(member);
    }

    /// How many calls were recorded, and how many of them were answered.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let history = self.history();
        let answered = history.operations.iter().filter(|call| call.answer().is_some()).count();
        (history.operations.len(), answered)
    }

    /// A copy of all.
    #[must_use]
    pub fn snapshot(&self) -> History {
        self.history().clone()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
