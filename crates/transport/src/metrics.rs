//! What is counted for each peer, under the names of etcd's metrics, for whoever exports it.
//!
//! Plain atomic numbers: nothing here knows Prometheus. A peer's numbers stay when it is removed.
//! Source: etcd: server/etcdserver/api/rafthttp/metrics.go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base::MemberId;
use parking_lot::Mutex;

use crate::appends::{Appends, Latency};

/// The numbers of all peers.
#[derive(Debug, Default)]
pub struct Metrics {
    peers: Mutex<BTreeMap<MemberId, Arc<PeerMetrics>>>,
    /// Requests refused or unreadable whose sender is no known peer
    /// (`etcd_network_peer_received_failures_total` of nobody we know).
    pub refused_requests: Counter,
    /// `etcd_network_snapshot_receive_failures{From="UNKNOWN_SNAPSHOT_SENDER"}`.
    pub unknown_snapshot_failures: Counter,
    /// Appends, of all peers together.
    pub appends: Appends,
}

/// The numbers of one peer. Label `To`, `From` or `Remote` is its id.
#[derive(Debug)]
pub struct PeerMetrics {
    /// `etcd_network_peer_sent_bytes_total{To}`.
    pub sent_bytes: Counter,
    /// `etcd_network_peer_received_bytes_total{From}`.
    pub received_bytes: Counter,
    /// `etcd_network_peer_sent_failures_total{To}`.
    pub sent_failures: Counter,
    /// `etcd_network_peer_received_failures_total{From}`.
    pub received_failures: Counter,
    /// `etcd_network_active_peers{Local,Remote}`: 0 or 1.
    pub active: Gauge,
    /// `etcd_network_disconnected_peers_total{Local,Remote}`.
    pub disconnected: Counter,
    /// `etcd_network_peer_round_trip_time_seconds{To}`.
    pub round_trip: Histogram,
    /// `etcd_network_snapshot_send_*{To}`.
    pub snapshot_send: SnapshotMetrics,
    /// `etcd_network_snapshot_receive_*{From}`.
    pub snapshot_receive: SnapshotMetrics,
    /// How long appends to it take until the network has them.
    pub appends: Latency,
}

/// Snapshots in one direction.
#[derive(Debug)]
pub struct SnapshotMetrics {
    /// `..._success`.
    pub successes: Counter,
    /// `..._failures`.
    pub failures: Counter,
    /// `..._inflights_total`.
    pub in_flight: Gauge,
    /// `..._total_duration_seconds`.
    pub duration: Histogram,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// Durations counted in classes, each double the one before.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in nanoseconds, inclusive.
    bounds: Vec<u64>,
    /// One more than there are bounds: the last is for everything above.
    counts: Vec<AtomicU64>,
    sum_nanoseconds: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// Each class's upper bound in seconds and how many were at most that long.
    pub cumulative: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_seconds: f64,
}

impl Metrics {
    /// The numbers of every peer there ever was, by id.
    #[must_use]
    pub fn peers(&self) -> Vec<(MemberId, Arc<PeerMetrics>)> {
        self.peers.lock().iter().map(|(id, peer)| (*id, Arc::clone(peer))).collect()
    }

    /// A peer's numbers, made if it has none yet.
    pub(crate) fn peer(&self, id: MemberId) -> Arc<PeerMetrics> {
        Arc::clone(self.peers.lock().entry(id).or_default())
    }

    /// A peer's numbers, if it was ever known. What a sender calls itself makes no new ones.
    pub(crate) fn known_peer(&self, id: MemberId) -> Option<Arc<PeerMetrics>> {
        self.peers.lock().get(&id).map(Arc::clone)
    }
}

impl Default for PeerMetrics {
    fn default() -> Self {
        Self {
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            sent_failures: Counter::default(),
            received_failures: Counter::default(),
            active: Gauge::default(),
            disconnected: Counter::default(),
            round_trip: Histogram::doubling(Duration::from_micros(100), 16),
            snapshot_send: SnapshotMetrics::default(),
            snapshot_receive: SnapshotMetrics::default(),
            appends: Latency::default(),
        }
    }
}

impl Default for SnapshotMetrics {
    fn default() -> Self {
        Self {
            successes: Counter::default(),
            failures: Counter::default(),
            in_flight: Gauge::default(),
            duration: Histogram::doubling(Duration::from_millis(100), 10),
        }
    }
}

impl Counter {
    /// How much it is now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(u64::try_from(amount).expect("a length fits 64 bits"), Relaxed);
    }
}

impl Gauge {
    /// How much it is now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Relaxed);
    }
}

impl Histogram {
    fn doubling(first: Duration, classes: u32) -> Self {
        let first = nanoseconds(first);
        let bounds: Vec<u64> = (0..classes).map(|class| first << class).collect();
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_nanoseconds: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let duration = nanoseconds(duration);
        let class = self.bounds.partition_point(|bound| *bound < duration);
        self.counts[class].fetch_add(1, Relaxed);
        self.sum_nanoseconds.fetch_add(duration, Relaxed);
    }

    /// What it holds.
    #[must_use]
    pub fn sample(&self) -> HistogramSample {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(self.bounds.len());
        for (bound, class) in self.bounds.iter().zip(&self.counts) {
            count += class.load(Relaxed);
            cumulative.push((Duration::from_nanos(*bound).as_secs_f64(), count));
        }
        count += self.counts.last().map_or(0, |rest| rest.load(Relaxed));
        let sum = Duration::from_nanos(self.sum_nanoseconds.load(Relaxed));
        HistogramSample { cumulative, count, sum_seconds: sum.as_secs_f64() }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MET-39.
    #[test]
    fn round_trips_are_counted_in_the_classes_of_etcd() {
        let histogram = PeerMetrics::default().round_trip;
        for micros in [50, 100, 101, 10_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let sample = histogram.sample();
        assert_eq!(sample.count, 4);
        assert_eq!(sample.cumulative.len(), 16);
        assert_eq!(sample.cumulative[0], (0.0001, 2));
        assert_eq!(sample.cumulative[1], (0.0002, 3));
        assert_eq!(sample.cumulative[15], (3.2768, 3));
        assert!((sample.sum_seconds - 10.000_251).abs() < 1e-9);
    }
}
