//! Requests of the second generation, and what its key tree counts (V2-182; etcd v3.4.23
//! etcdserver/api/v2http/metrics.go, v2store/metrics.go).

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::register::{Buckets, Register};

/// Methods by their names in the labels; a `GET` with quorum has one of its own.
const METHODS: [&str; 6] = ["GET", "QGET", "HEAD", "PUT", "POST", "DELETE"];

/// What is counted of that generation.
#[derive(Debug)]
pub(crate) struct V2 {
    methods: Vec<OfMethod>,
    failed: IntCounterVec,
    reads: IntCounterVec,
    reads_failed: IntCounterVec,
    writes: IntCounterVec,
    writes_failed: IntCounterVec,
    expired: IntCounter,
    watches: IntCounter,
    watchers: IntGauge,
}

#[derive(Debug)]
struct OfMethod {
    received: IntCounter,
    seconds: Histogram,
}

/// A request's method as it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V2Method(usize);

impl V2Method {
    /// Of a request with one of the methods that keys are asked with.
    pub(crate) fn of(method: &Method, quorum: bool) -> Self {
        let name = if quorum && method == Method::GET { "QGET" } else { method.as_str() };
        Self(METHODS.iter().position(|known| *known == name).unwrap_or_default())
    }
}

impl V2 {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let counters = |name, help, label: &'static str| register.counters(name, help, &[label]);
        let received = counters(
            "etcd_http_received_total",
            "Requests for v2 keys that can be read and may be asked, watches left out.",
            "method",
        );
        let seconds = register.histograms(
            "etcd_http_successful_duration_seconds",
            "Time until a request for v2 keys was answered well, watches left out.",
            &["method"],
            Buckets { start: 0.0005, count: 13 }.bounds(),
        );
        let of_method = |name: &&str| OfMethod {
            received: received.with_label_values(&[*name]),
            seconds: seconds.with_label_values(&[*name]),
        };
        let action = "action";
        Self {
            methods: METHODS.iter().map(of_method).collect(),
            failed: register.counters(
                "etcd_http_failed_total",
                "Requests for v2 keys that were refused, by the status of the answer.",
                &["method", "code"],
            ),
            reads: counters("etcd_debugging_store_reads_total", "Reads of v2 keys here.", action),
            reads_failed: counters(
                "etcd_debugging_store_reads_failed_total",
                "Reads of v2 keys here that were refused; among the reads.",
                action,
            ),
            writes: counters("etcd_debugging_store_writes_total", "Changes of v2 keys.", action),
            writes_failed: counters(
                "etcd_debugging_store_writes_failed_total",
                "Changes of v2 keys that were refused; among the changes.",
                action,
            ),
            expired: register.counter(
                "etcd_debugging_store_expires_total",
                "Keys of the v2 store that expired.",
            ),
            watches: register
                .counter("etcd_debugging_store_watch_requests_total", "Watches of the v2 store."),
            watchers: register.gauge("etcd_debugging_store_watchers", "Watchers of the v2 store."),
        }
    }

    /// Counts a request that is going to be answered.
    pub(crate) fn on_request(&self, method: V2Method) {
        self.methods[method.0].received.inc();
    }

    /// Counts one that was answered well.
    pub(crate) fn on_answered(&self, method: V2Method, took: Duration) {
        self.methods[method.0].seconds.observe(took.as_secs_f64());
    }

    /// Counts one that was refused.
    pub(crate) fn on_failed(&self, method: V2Method, status: StatusCode) {
        self.failed.with_label_values(&[METHODS[method.0], status.as_str()]).inc();
    }

    /// Takes over what the tree counts.
    pub(super) fn refresh(&self, reader: &v2store::Reader) {
        let totals = reader.totals();
        for (name, succeeded, failed) in totals.actions {
            let (all, refused) = if name.starts_with("get") {
                (&self.reads, &self.reads_failed)
            } else {
                (&self.writes, &self.writes_failed)
            };
            raise(&all.with_label_values(&[name]), succeeded + failed);
            raise(&refused.with_label_values(&[name]), failed);
        }
        raise(&self.expired, totals.expired);
        raise(&self.watches, totals.watches);
        self.watchers.set(i64::try_from(totals.watchers).unwrap_or(i64::MAX));
    }
}

/// Makes a counter say so much; scrapes do it one at a time.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    /// V2-182.
    #[test]
    fn what_the_tree_counts_is_shown() {
        let registry = Registry::new();
        let metrics = V2::new(&Register::new(&registry));
        let store = v2store::Store::new();
        let reader = store.reader();
        assert!(reader.get("/1/none", false, 0).is_err());
        assert!(reader.get("/1", true, 0).is_ok());
        let watch = v2store::Watch { path: "/1/a".to_owned(), ..v2store::Watch::default() };
        let _watcher = reader.watch(watch).unwrap();
        for _ in 0..2 {
            metrics.refresh(&reader);
        }
        metrics.on_request(V2Method::of(&Method::GET, true));
        metrics.on_failed(V2Method::of(&Method::PUT, false), StatusCode::FORBIDDEN);
        metrics.on_answered(V2Method::of(&Method::POST, false), Duration::from_millis(1));
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for expected in [
            "etcd_debugging_store_reads_total{action=\"get\"} 1",
            "etcd_debugging_store_reads_failed_total{action=\"get\"} 1",
            "etcd_debugging_store_reads_total{action=\"getRecursive\"} 1",
            "etcd_debugging_store_writes_total{action=\"compareAndSwap\"} 0",
            "etcd_debugging_store_watch_requests_total 1",
            "etcd_debugging_store_watchers 1",
            "etcd_http_received_total{method=\"QGET\"} 1",
            "etcd_http_failed_total{code=\"403\",method=\"PUT\"} 1",
            "etcd_http_successful_duration_seconds_count{method=\"POST\"} 1",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is missing:\n{text}");
        }
    }
}
