//! Numbers that must exist for etcd's tests and dashboards and that stay at zero: a proxy's, which
//! etcd's members register too.

use super::register::Register;

pub(super) fn register(register: &Register<'_>) {
    for (name, help) in COUNTERS {
        register.counter(name, help);
    }
    for (name, help) in GAUGES {
        register.gauge(name, help);
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
