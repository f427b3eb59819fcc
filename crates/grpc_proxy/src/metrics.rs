//! What a proxy counts, under etcd's names (SRV-181).
//!
//! Source: etcd server/proxy/grpcproxy/metrics.go.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The numbers of one proxy.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) watchers_coalescing: IntGauge,
    pub(crate) events_coalescing: IntCounter,
    pub(crate) cache_keys: IntGauge,
    /// A gauge, as in etcd.
    pub(crate) cache_hits: IntGauge,
    pub(crate) cache_misses: IntGauge,
    calls_started: IntCounterVec,
    calls_handled: IntCounterVec,
}

/// A call, as metrics name it: only calls that exist have one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallName {
    pub(crate) service: &'static str,
    pub(crate) method: &'static str,
    kind: &'static str,
}

impl CallName {
    pub(crate) fn new(service: &'static str, method: &'static str) -> Self {
        let kind = match method {
            "Watch" | "LeaseKeepAlive" => "bidi_stream",
            "Snapshot" | "Observe" | "RangeStream" => "server_stream",
            _ => "unary",
        };
        Self { service, method, kind }
    }
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let options = Opts::new(name, help).namespace("etcd").subsystem("grpc_proxy");
            let gauge = IntGauge::with_opts(options).expect("the name is fine");
            registry.register(Box::new(gauge.clone())).expect("each is registered once");
            gauge
        };
        let watchers_coalescing =
            gauge("watchers_coalescing_total", "Total number of current watchers coalescing");
        let cache_keys = gauge("cache_keys_total", "Total number of keys/ranges cached");
        let cache_hits = gauge("cache_hits_total", "Total number of cache hits");
        let cache_misses = gauge("cache_misses_total", "Total number of cache misses");
        let options = Opts::new("events_coalescing_total", "Total number of events coalescing");
        let options = options.namespace("etcd").subsystem("grpc_proxy");
        let events_coalescing = IntCounter::with_opts(options).expect("the name is fine");
        registry.register(Box::new(events_coalescing.clone())).expect("each is registered once");
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels);
            let counter = counter.expect("the name is fine");
            registry.register(Box::new(counter.clone())).expect("each is registered once");
            counter
        };
        let labels = ["grpc_method", "grpc_service", "grpc_type"];
        let help = "Total number of RPCs started on the server.";
        let calls_started = counter("grpc_server_started_total", help, &labels);
        let labels = ["grpc_code", "grpc_method", "grpc_service", "grpc_type"];
        let help =
            "Total number of RPCs completed on the server, regardless of success or failure.";
        let calls_handled = counter("grpc_server_handled_total", help, &labels);
        Arc::new(Self {
            registry,
            watchers_coalescing,
            events_coalescing,
            cache_keys,
            cache_hits,
            cache_misses,
            calls_started,
            calls_handled,
        })
    }

    pub(crate) fn on_started(&self, CallName { service, method, kind }: &CallName) {
        self.calls_started.with_label_values(&[*method, *service, *kind]).inc();
    }

    pub(crate) fn on_handled(&self, CallName { service, method, kind }: CallName, code: &str) {
        self.calls_handled.with_label_values(&[code, method, service, kind]).inc();
    }

    /// All of them as scrapers read them.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
