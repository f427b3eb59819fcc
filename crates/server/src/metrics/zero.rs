//! Numbers that must exist for etcd's tests and dashboards and that stay at zero here: of parts
//! that this server has not, or of work that its storage never does.

use super::register::{Buckets, Register, SECONDS};

pub(super) fn register(register: &Register<'_>) {
    for (name, help) in COUNTERS {
        register.counter(name, help);
    }
    for (name, help) in GAUGES {
        register.gauge(name, help);
    }
    for (name, help, buckets) in HISTOGRAMS {
        register.histogram(name, help, buckets);
    }
}

const COUNTERS: [(&str, &str); 1] = [(
    "etcd_grpc_proxy_events_coalescing_total",
    "Events that a proxy merged; this process is none.",
)];

const GAUGES: [(&str, &str); 4] = [
    ("etcd_grpc_proxy_cache_hits_total", "Hits of a proxy's cache; this process is none."),
    ("etcd_grpc_proxy_cache_keys_total", "Keys in a proxy's cache; this process is none."),
    ("etcd_grpc_proxy_cache_misses_total", "Misses of a proxy's cache; this process is none."),
    (
        "etcd_grpc_proxy_watchers_coalescing_total",
        "Watchers that a proxy merged; this process is none.",
    ),
];

const HISTOGRAMS: [(&str, &str, Buckets); 7] = [
    (
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        "Seconds that rebalancing takes; this database has no such step.",
        SECONDS,
    ),
    (
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        "Seconds that spilling takes; this database has no such step.",
        SECONDS,
    ),
    (
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "Seconds that encoding a snapshot file takes.",
        SECONDS,
    ),
    (
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        "Seconds of one turn of sending events; this server pulls instead.",
        SECONDS,
    ),
    (
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
        "The same for each event.",
        SECONDS,
    ),
    (
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
        "Seconds of sending one control answer; this server pulls instead.",
        SECONDS,
    ),
    (
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
        "Seconds of sending one progress notice; this server pulls instead.",
        SECONDS,
    ),
];
