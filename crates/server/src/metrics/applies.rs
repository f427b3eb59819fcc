//! What the member applied, as the state counts it, told to the numbers that show it (MET-10, MET-21,
//! MET-55 to MET-60): on every member, whoever asked for it.

use std::time::Duration;

use state::{Operation, Tally};

use super::Metrics;
use crate::config::GoDuration;

/// What was told already; the node loop has it.
#[derive(Debug)]
pub(crate) struct Applies {
    told: Tally,
    /// From how long on a batch of entries is slow.
    slow_min: Duration,
}

impl Applies {
    pub(crate) fn new(slow_min: Duration) -> Self {
        Self { told: Tally::default(), slow_min }
    }

    /// Looks whether entries were applied. Each counts with its share of the time, and a slow batch
    /// is told to the log.
    pub(crate) fn look(&mut self, tally: &Tally, took: Duration, metrics: &Metrics) {
        let entries = tally.entries() - self.told.entries();
        if entries == 0 {
            return;
        }
        if self.slow_min < took {
            metrics.server.slow_applies.inc();
            tracing::warn!(
                took = %GoDuration::from(took),
                "expected-duration" = %GoDuration::from(self.slow_min),
                entries,
                "apply request took too long"
            );
        }
        let share = took / u32::try_from(entries).unwrap_or(u32::MAX);
        for operation in Operation::ALL {
            for done in [false, true] {
                for _ in self.told.of(operation, done)..tally.of(operation, done) {
                    metrics.server.applies.observe(operation, done, share);
                }
            }
        }
        metrics.store.on_applied(&self.told, tally);
        self.told = tally.clone();
    }
}
