//! How long the disk takes (MET-27 to MET-33, MET-51, MET-63, MET-64).

use std::time::Duration;

use backend::Took;
use prometheus::{Histogram, IntGauge};
use storage::Done;

use super::register::{Buckets, Register, SECONDS};

/// The log, the database's file and snapshots.
#[derive(Debug)]
pub(crate) struct Disk {
    wal_fsync: Histogram,
    wal_write: Histogram,
    wal_write_bytes: IntGauge,
    backend_commit: Histogram,
    commit_rebalance: Histogram,
    commit_spill: Histogram,
    commit_write: Histogram,
    /// Seconds of one defragmentation.
    pub(crate) defrag: Histogram,
    defrag_inflight: IntGauge,
    /// Seconds of sending one snapshot to a client.
    pub(crate) backend_snapshot: Histogram,
    snap_save: Histogram,
    snap_marshalling: Histogram,
    snap_fsync: Histogram,
    snap_db_save: Histogram,
    snap_db_fsync: Histogram,
    /// Whether a snapshot of the leader is being taken over.
    pub(crate) snapshot_apply_in_progress: IntGauge,
}

impl Disk {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let seconds = |name, help| register.histogram(name, help, SECONDS);
        Self {
            wal_fsync: seconds(
                "etcd_disk_wal_fsync_duration_seconds",
                "Seconds that syncing the log takes.",
            ),
            wal_write: seconds(
                "etcd_disk_wal_write_duration_seconds",
                "Seconds that writing to the log takes.",
            ),
            wal_write_bytes: register
                .gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log."),
            backend_commit: seconds(
                "etcd_disk_backend_commit_duration_seconds",
                "Seconds that a commit of the database takes.",
            ),
            commit_rebalance: seconds(
                "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
                "Seconds that merging small pages takes in a commit: 0, as spilling does it.",
            ),
            commit_spill: seconds(
                "etcd_debugging_disk_backend_commit_spill_duration_seconds",
                "Seconds that making the pages of a commit takes.",
            ),
            commit_write: seconds(
                "etcd_debugging_disk_backend_commit_write_duration_seconds",
                "Seconds that writing the pages of a commit takes.",
            ),
            defrag: register.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Seconds that a defragmentation takes.",
                Buckets { start: 0.1, count: 13 },
            ),
            defrag_inflight: register.gauge(
                "etcd_disk_defrag_inflight",
                "Whether a defragmentation runs: 1 if so, else 0.",
            ),
            backend_snapshot: register.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Seconds that sending a snapshot of the database takes.",
                Buckets { start: 0.01, count: 17 },
            ),
            snap_save: seconds(
                "etcd_debugging_snap_save_total_duration_seconds",
                "Seconds that saving a snapshot file takes.",
            ),
            snap_marshalling: seconds(
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "Seconds that encoding a snapshot file takes.",
            ),
            snap_fsync: seconds(
                "etcd_snap_fsync_duration_seconds",
                "Seconds that syncing a snapshot file takes.",
            ),
            snap_db_save: register.histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "Seconds that saving a received database takes.",
                Buckets { start: 0.1, count: 10 },
            ),
            snap_db_fsync: seconds(
                "etcd_snap_db_fsync_duration_seconds",
                "Seconds that syncing a received database takes.",
            ),
            snapshot_apply_in_progress: register.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "Whether a snapshot of the leader is being taken over: 1 if so, else 0.",
            ),
        }
    }
}

/// What the log writes around an entry's payload.
const RECORD_BYTES: usize = 32;

impl Disk {
    /// Entries were appended to the log. Writing and syncing are one step there, so that its time
    /// counts as that of the sync, if there was one.
    pub(crate) fn on_append(&self, done: &Done, took: Duration) {
        let bytes = done.entry_bytes + done.entries * RECORD_BYTES;
        self.wal_write_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        let is_synced = done.synced || 0 < done.entries;
        let step = if is_synced { &self.wal_fsync } else { &self.wal_write };
        step.observe(took.as_secs_f64());
    }

    /// A defragmentation runs until what is given is dropped.
    pub(crate) fn begin_defrag(&self) -> Inflight {
        self.defrag_inflight.inc();
        Inflight(self.defrag_inflight.clone())
    }

    /// The database was committed.
    pub(crate) fn on_commit(&self, whole: Duration, took: Took) {
        self.backend_commit.observe(whole.as_secs_f64());
        self.commit_rebalance.observe(0.0);
        self.commit_spill.observe(took.building.as_secs_f64());
        self.commit_write.observe(took.writing.as_secs_f64());
    }

    /// A snapshot file was encoded, written, synced and noted in the log.
    pub(crate) fn on_snapshot(&self, took: Duration, encoding: Duration) {
        self.snap_save.observe(took.as_secs_f64());
        self.snap_marshalling.observe(encoding.as_secs_f64());
        self.snap_fsync.observe(took.as_secs_f64());
    }
}

impl Disk {
    /// A database of another member was stored; `sync` is the part that made it durable.
    pub(crate) fn on_received(&self, total: Duration, sync: Duration) {
        self.snap_db_save.observe(total.as_secs_f64());
        self.snap_db_fsync.observe(sync.as_secs_f64());
    }
}

/// Something that runs, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Inflight(IntGauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
