//! The measures of the suite: what is run, which figures count, what they must reach.
//!
//! Only data. The targets are those of the project's promise against etcd 3.5.

use crate::target::Metric::{
    EventsPerCpuSecond, MedianLatency, MemoryGrowth, P99Latency, PrivateMemory, Restart, ServerCpu,
    Throughput,
};
use crate::target::Target::{AtLeast, AtMost, RatioAtLeast, RatioAtMost, Reported};
use crate::target::{Metric, Target};
use crate::v2::V2Kind;
use crate::workload::{Kind, Workload};

/// One measure.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    /// Its name in tables and on the command line.
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) procedure: Procedure,
    /// Rows that an operation answers or writes.
    pub(crate) rows: u32,
    /// The figures that are compared.
    pub(crate) figures: &'static [(Metric, Target)],
}

/// How a measure is taken.
#[derive(Debug, Clone)]
pub(crate) enum Procedure {
    /// Requests in a closed loop.
    Load {
        /// What is asked.
        workload: Workload,
        /// Whether all keys are written first.
        fill: bool,
        /// TCP connections.
        connections: u32,
        /// Requests under way on each.
        streams: u32,
    },
    /// Watchers and puts.
    Watch(WatchShape),
    /// Many keys; memory; kill and start.
    FillAndRestart {
        /// The keys.
        workload: Workload,
    },
    /// Requests of the second generation in a closed loop.
    V2 {
        /// What is asked.
        kind: V2Kind,
        /// TCP connections.
        connections: u32,
    },
    /// Large ranges at the same time; the highest memory.
    MemoryUnderRanges {
        /// The ranges.
        workload: Workload,
        /// How many at the same time.
        connections: u32,
    },
}

/// Watchers of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchShape {
    /// How many.
    pub(crate) watchers: u32,
    /// On how many connections.
    pub(crate) connections: u32,
    /// On how many streams of each.
    pub(crate) streams: u32,
    /// Puts of the watched key; `None` for none.
    pub(crate) puts_per_second: Option<f64>,
}

const KEY_SIZE: usize = 16;
const VALUE_SIZE: usize = 256;
/// Keys that puts and gets choose from.
const KEY_SPACE: u64 = 10_000;
/// Slow enough that no server batches the events of several puts.
const WATCHED_PUTS_PER_SECOND: f64 = 50.0;
const MEBIBYTE: f64 = 1_048_576.0;

const PUT_ONE: &[(Metric, Target)] = &[
    (MedianLatency, RatioAtMost(0.6)),
    (P99Latency, Reported),
    (Throughput, Reported),
    (ServerCpu, Reported),
];
const PUT_MANY: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(4.0)),
    (MedianLatency, Reported),
    (P99Latency, RatioAtMost(0.5)),
    (ServerCpu, Reported),
];
const PUT_STREAMS: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(4.0)),
    (MedianLatency, Reported),
    (P99Latency, RatioAtMost(0.5)),
    (ServerCpu, RatioAtMost(0.25)),
];
const GET_MANY: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(2.5)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];
const GET_STREAMS: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(4.0)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, RatioAtMost(0.25)),
];
const REPORTED: &[(Metric, Target)] = &[
    (Throughput, Reported),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];
const RANGE_ROWS: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(5.0)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];
const RANGE_LIMIT: &[(Metric, Target)] =
    &[(Throughput, RatioAtLeast(50.0)), (MedianLatency, Reported), (ServerCpu, Reported)];
const WATCH_EVENTS: &[(Metric, Target)] = &[
    (EventsPerCpuSecond, RatioAtLeast(10.0)),
    (Throughput, Reported),
    (MedianLatency, Reported),
    (P99Latency, Reported),
];
const WATCH_MEMORY: &[(Metric, Target)] =
    &[(MemoryGrowth, RatioAtMost(0.2)), (PrivateMemory, Reported)];
const FILL: &[(Metric, Target)] =
    &[(PrivateMemory, RatioAtMost(1.0 / 3.0)), (Restart, AtMost(2.0)), (Throughput, Reported)];
const RANGE_MEMORY: &[(Metric, Target)] =
    &[(MemoryGrowth, AtMost(256.0 * MEBIBYTE)), (Throughput, Reported), (MedianLatency, Reported)];

/// Against etcd 3.4, the last with that generation; and what the tutorials claim (SEED0-61).
const V2_SET: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(3.0)),
    (Throughput, AtLeast(16_000.0)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];
const V2_GET: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(3.0)),
    (Throughput, AtLeast(2_000.0)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];
const V2_SET_GET: &[(Metric, Target)] = &[
    (Throughput, AtLeast(12_000.0)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];

/// All measures in the order in which they are run.
pub(crate) fn all() -> Vec<Measure> {
    let put = || workload(Kind::Put, VALUE_SIZE, KEY_SPACE);
    let get = |serializable| {
        workload(Kind::Range { keys: 1, limit: 0, serializable }, VALUE_SIZE, KEY_SPACE)
    };
    let range = |keys, limit, space| {
        workload(Kind::Range { keys, limit, serializable: false }, VALUE_SIZE, space)
    };
    let txn = workload(Kind::Txn, VALUE_SIZE, KEY_SPACE);
    vec![
        load("put-1x1", put(), false, (1, 1), PUT_ONE),
        load("put-64x1", put(), false, (64, 1), PUT_MANY),
        load("put-100x10", put(), false, (100, 10), PUT_STREAMS),
        load("get-1x1", get(false), true, (1, 1), REPORTED),
        load("get-64x1", get(false), true, (64, 1), GET_MANY),
        load("get-100x10", get(false), true, (100, 10), GET_STREAMS),
        load("get-serializable-100x10", get(true), true, (100, 10), REPORTED),
        load("txn-64x16", txn, false, (64, 16), REPORTED),
        Measure {
            rows: 1000,
            ..load("range-1000", range(1000, 0, KEY_SPACE), true, (8, 1), RANGE_ROWS)
        },
        Measure {
            rows: 10,
            ..load("range-limit-10", range(100_000, 10, 100_000), true, (8, 1), RANGE_LIMIT)
        },
        watchers("watch-1000", (1_000, 1), Some(WATCHED_PUTS_PER_SECOND), WATCH_EVENTS),
        watchers("watch-10000-memory", (10_000, 1), None, WATCH_MEMORY),
        watchers("watch-10000-streams-memory", (10_000, 1_000), None, WATCH_MEMORY),
        Measure {
            name: "fill",
            procedure: Procedure::FillAndRestart { workload: put() },
            rows: 1,
            figures: FILL,
        },
        Measure {
            name: "range-40mb",
            procedure: Procedure::MemoryUnderRanges {
                // 40,000 rows of a kilobyte.
                workload: Workload { value_size: 1000, ..range(40_000, 0, 40_000) },
                connections: 40,
            },
            rows: 40_000,
            figures: RANGE_MEMORY,
        },
        v2("v2-set", V2Kind::Set, V2_SET),
        v2("v2-get", V2Kind::Get, V2_GET),
        v2("v2-set-get", V2Kind::SetThenGet, V2_SET_GET),
    ]
}

impl WatchShape {
    /// The puts that the watchers see.
    pub(crate) fn puts(&self) -> Workload {
        workload(Kind::StampedPut, VALUE_SIZE, 1)
    }
}

fn load(
    name: &'static str,
    workload: Workload,
    fill: bool,
    (connections, streams): (u32, u32),
    figures: &'static [(Metric, Target)],
) -> Measure {
    let procedure = Procedure::Load { workload, fill, connections, streams };
    Measure { name, procedure, rows: 1, figures }
}

fn v2(name: &'static str, kind: V2Kind, figures: &'static [(Metric, Target)]) -> Measure {
    Measure { name, procedure: Procedure::V2 { kind, connections: 64 }, rows: 1, figures }
}

fn watchers(
    name: &'static str,
    (watchers, streams): (u32, u32),
    puts_per_second: Option<f64>,
    figures: &'static [(Metric, Target)],
) -> Measure {
    let shape = WatchShape { watchers, connections: 10, streams, puts_per_second };
    Measure { name, procedure: Procedure::Watch(shape), rows: 1, figures }
}

fn workload(kind: Kind, value_size: usize, key_space: u64) -> Workload {
    Workload { kind, key_size: KEY_SIZE, value_size, key_space, sequential: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_every_measure_has_figures() {
        let all = all();
        let names: std::collections::BTreeSet<_> = all.iter().map(|measure| measure.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|measure| !measure.figures.is_empty()));
    }
}
