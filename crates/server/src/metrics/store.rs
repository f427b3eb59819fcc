//! The key space, watches and leases (MET-37, MET-38, MET-52 to MET-60).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use member::Answer;
use mvcc::Removed;
use prometheus::{Histogram, IntCounter, IntGauge};
use state::{Applied, Reply, Steps, Tally};

use super::Metrics;
use super::register::{Buckets, Register};
use super::sending::Sending;
use super::striped::Striped;

/// The key space and watches of it.
#[derive(Debug)]
pub(crate) struct Store {
    ranges: IntCounter,
    debugging_ranges: IntCounter,
    puts: IntCounter,
    deletes: IntCounter,
    txns: IntCounter,
    /// Only the node loop changes it.
    put_bytes: IntGauge,
    watch_streams: IntGauge,
    watchers: IntGauge,
    events: IntCounter,
    /// Seconds of hashing the database.
    pub(crate) hash: Histogram,
    /// Seconds of hashing one revision.
    pub(crate) hash_revision: Histogram,
    compaction_pause: Histogram,
    index_compaction_pause: Histogram,
    compaction_total: Histogram,
    compaction_last: IntGauge,
    compacted_rows: IntCounter,
    busy: Striped<2>,
}

/// Places in [`Store::busy`].
mod busy {
    /// Of reads that take no entry.
    pub(super) const RANGES: usize = 0;
    pub(super) const EVENTS: usize = 1;
}

impl Store {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let hash = Buckets { start: 0.01, count: 15 };
        Self {
            ranges: register.counter("etcd_mvcc_range_total", "Ranges read on this member."),
            debugging_ranges: register
                .counter("etcd_debugging_mvcc_range_total", "Ranges read on this member."),
            puts: register.counter("etcd_mvcc_put_total", "Puts that were applied here."),
            deletes: register
                .counter("etcd_mvcc_delete_total", "Deletions that were applied here."),
            txns: register.counter(
                "etcd_mvcc_txn_total",
                "Transactions of the store that did several things.",
            ),
            put_bytes: register.gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "Bytes of keys and values that were put.",
            ),
            watch_streams: register
                .gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams."),
            watchers: register.gauge("etcd_debugging_mvcc_watcher_total", "Watches."),
            events: register
                .counter("etcd_debugging_mvcc_events_total", "Events sent to watchers."),
            hash: register.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Seconds that hashing the database takes.",
                hash,
            ),
            hash_revision: register.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Seconds that hashing one revision takes.",
                hash,
            ),
            compaction_pause: register.histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Milliseconds that one step of a compaction keeps requests waiting.",
                Buckets { start: 1.0, count: 13 },
            ),
            index_compaction_pause: register.histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Milliseconds that one step of compacting the index keeps requests waiting.",
                Buckets { start: 0.5, count: 14 },
            ),
            compaction_total: register.histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Milliseconds that a compaction takes.",
                Buckets { start: 100.0, count: 14 },
            ),
            compaction_last: register.gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "When the last compaction ended, in Unix seconds; 0 before the first.",
            ),
            compacted_rows: register.counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Rows removed by compactions.",
            ),
            busy: Striped::new(),
        }
    }

    /// Brings the registered numbers up to date.
    pub(super) fn tell(&self) {
        self.busy.tell(busy::RANGES, &self.ranges);
        self.busy.tell(busy::RANGES, &self.debugging_ranges);
        self.busy.tell(busy::EVENTS, &self.events);
    }

    /// A step of a compaction was made: it passed keys of the index, or a batch of rows. `total`
    /// comes with the last one.
    pub(crate) fn on_compaction_step(
        &self,
        took: Duration,
        before: Removed,
        now: Removed,
        total: Option<Duration>,
    ) {
        let millis = took.as_secs_f64() * 1000.0;
        if before.batches == now.batches {
            self.index_compaction_pause.observe(millis);
        } else {
            self.compaction_pause.observe(millis);
        }
        self.compacted_rows.inc_by(now.rows - before.rows);
        let Some(total) = total else { return };
        self.compaction_total.observe(total.as_secs_f64() * 1000.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.compaction_last.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts one range that took no entry.
    pub(crate) fn on_range(&self) {
        self.busy.add(busy::RANGES, 1);
    }

    /// Counts what a transaction that took no entry did.
    pub(crate) fn on_read_txn(&self, steps: Steps) {
        self.busy.add(busy::RANGES, steps.ranges);
        if steps.are_several() {
            self.txns.inc();
        }
    }

    /// Counts what entries did since `before`.
    pub(super) fn on_applied(&self, before: &Tally, now: &Tally) {
        let (was, is) = (before.steps(), now.steps());
        self.busy.add(busy::RANGES, is.ranges - was.ranges);
        self.puts.inc_by(is.puts - was.puts);
        self.deletes.inc_by(is.deletes - was.deletes);
        self.txns.inc_by(now.txns() - before.txns());
        self.put_bytes.set(i64::try_from(is.put_bytes).unwrap_or(i64::MAX));
    }
}

/// The watches of one stream, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamWatches {
    metrics: Arc<Metrics>,
    watches: i64,
}

impl StreamWatches {
    /// Counts a stream.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.store.watch_streams.inc();
        Self { metrics, watches: 0 }
    }

    /// A watch was made.
    pub(crate) fn created(&mut self) {
        self.watches += 1;
        self.metrics.store.watchers.inc();
    }

    /// One ended before its stream.
    pub(crate) fn ended(&mut self) {
        self.watches -= 1;
        self.metrics.store.watchers.dec();
    }

    /// Events were sent.
    pub(crate) fn sent(&self, events: usize) {
        self.metrics.store.busy.add(busy::EVENTS, events as u64);
    }

    /// How long answers take.
    pub(crate) fn sending(&self) -> &Sending {
        &self.metrics.sending
    }
}

impl Drop for StreamWatches {
    fn drop(&mut self) {
        self.metrics.store.watchers.sub(self.watches);
        self.metrics.store.watch_streams.dec();
    }
}

/// Leases.
#[derive(Debug)]
pub(crate) struct Leases {
    granted: IntCounter,
    granted_seconds: Histogram,
    /// Leases that clients ended.
    pub(crate) revoked: IntCounter,
    /// Leases that clients kept alive.
    pub(crate) renewed: IntCounter,
    expired: IntCounter,
}

impl Leases {
    pub(super) fn new(register: &Register<'_>) -> Self {
        Self {
            granted: register.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            granted_seconds: register.histogram(
                "etcd_debugging_lease_ttl_total",
                "Seconds that leases were granted for.",
                Buckets { start: 1.0, count: 24 },
            ),
            revoked: register.counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
            renewed: register.counter("etcd_debugging_lease_renewed_total", "Leases kept alive."),
            expired: register
                .counter("etcd_debugging_server_lease_expired_total", "Leases that expired."),
        }
    }

    /// An entry was applied that no client waits for: the member ends leases that way.
    pub(crate) fn on_unasked(&self, answer: &Answer) {
        if let Answer::Applied(Applied::Done(Reply::LeaseRevoke(..))) = answer {
            self.expired.inc();
        }
    }

    /// A lease was granted for this many seconds.
    pub(crate) fn on_grant(&self, seconds: i64) {
        self.granted.inc();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.granted_seconds.observe(f64::from(seconds));
    }
}
