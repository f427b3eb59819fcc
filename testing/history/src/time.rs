//! What was known when: the newest revision that anybody had seen before an operation began.

use crate::record::History;
use crate::violation::Witness;

/// A revision and who saw it first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) at: u64,
    pub(crate) revision: i64,
    pub(crate) witness: Option<Witness>,
}

/// Every moment at which the newest known revision grew, in order of time.
#[derive(Debug)]
pub(crate) struct Knowledge {
    growth: Vec<Seen>,
}

impl Knowledge {
    pub(crate) fn of(history: &History) -> Self {
        let mut seen = Vec::new();
        for (index, operation) in history.operations.iter().enumerate() {
            if let Some(answer) = operation.answer() {
                let witness = Some(Witness::Operation(index));
                seen.push(Seen { at: operation.returned, revision: answer.revision(), witness });
            }
        }
        for (index, watch) in history.watches.iter().enumerate() {
            for observation in &watch.observations {
                let header = observation.response.header.as_ref();
                let events =
                    observation.response.events.iter().filter_map(|event| event.kv.as_ref());
                let newest = events.map(|pair| pair.mod_revision).max().unwrap_or(0);
                let revision = header.map_or(0, |header| header.revision).max(newest);
                let witness = Some(Witness::Watch(index));
                seen.push(Seen { at: observation.received, revision, witness });
            }
        }
        seen.sort_by_key(|seen| (seen.at, seen.revision));
        let mut newest = history.revision;
        seen.retain(|seen| {
            let grows = newest < seen.revision;
            newest = newest.max(seen.revision);
            grows
        });
        Self { growth: seen }
    }

    /// The newest revision that was known strictly before a time, if any was seen by then.
    pub(crate) fn before(&self, time: u64) -> Option<Seen> {
        let behind = self.growth.partition_point(|seen| seen.at < time);
        self.growth.get(behind.checked_sub(1)?).copied()
    }

    /// When a revision, or a later one, was seen for the first time.
    pub(crate) fn first_seen(&self, revision: i64) -> Option<Seen> {
        let index = self.growth.partition_point(|seen| seen.revision < revision);
        self.growth.get(index).copied()
    }

    /// The newest revision that anybody saw.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.growth.last().map(|seen| seen.revision)
    }
}
