//! Numbers of a proxy (SRV-174; etcd v3.4.23 proxy/httpproxy/metrics.go).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use prometheus::{HistogramVec, IntCounterVec, Registry, TextEncoder};

use super::process::Process;
use super::register::{Buckets, Register};

/// What a proxy counts.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    registry: Registry,
    requests: IntCounterVec,
    handled: IntCounterVec,
    dropped: IntCounterVec,
    seconds: HistogramVec,
    process: Mutex<Process>,
}

impl ProxyMetrics {
    /// All numbers at zero.
    pub(crate) fn new() -> Arc<Self> {
        let registry = Registry::new();
        let register = Register::new(&registry);
        let counters = |name, help, labels: &[&str]| register.counters(name, help, labels);
        let seconds = Buckets { start: 0.0005, count: 13 };
        Arc::new(Self {
            requests: counters(
                "etcd_proxy_requests_total",
                "Requests that came in, by method.",
                &["method"],
            ),
            handled: counters(
                "etcd_proxy_handled_total",
                "Requests that a member answered.",
                &["method", "code"],
            ),
            dropped: counters(
                "etcd_proxy_dropped_total",
                "Requests that no member answered, and attempts at one.",
                &["method", "proxying_error"],
            ),
            seconds: register.histograms(
                "etcd_proxy_handling_duration_seconds",
                "Time until the head of a member's answer, by method.",
                &["method"],
                seconds.bounds(),
            ),
            process: Mutex::new(Process::new(&register)),
            registry,
        })
    }

    pub(crate) fn on_request(&self, method: &Method) {
        self.requests.with_label_values(&[name(method)]).inc();
    }

    pub(crate) fn on_answered(&self, method: &Method, status: StatusCode, took: Duration) {
        self.handled.with_label_values(&[name(method), status.as_str()]).inc();
        self.seconds.with_label_values(&[name(method)]).observe(took.as_secs_f64());
    }

    pub(crate) fn on_dropped(&self, method: &Method, why: &str) {
        self.dropped.with_label_values(&[name(method), why]).inc();
    }

    /// The text of a scrape.
    pub(crate) fn text(&self) -> String {
        self.process.lock().refresh();
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.expect("every family that is gathered has a name and a value")
    }
}

/// Methods of HTTP by name, others as one: a client must not fill the memory with names.
fn name(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ];
    if known.contains(method) { method.as_str() } else { "other" }
}
