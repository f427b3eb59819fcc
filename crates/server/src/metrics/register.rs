//! Making numbers: every name is given once, with its type, its text and its buckets.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, exponential_buckets,
};

use super::tallied::Tallied;

/// Upper bounds of a histogram: `count` of them from `start`, each twice the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets {
    pub(super) start: f64,
    pub(super) count: usize,
}

/// What etcd uses for most things that take milliseconds: 1 ms to 8 s.
pub(super) const SECONDS: Buckets = Buckets { start: 0.001, count: 14 };

impl Buckets {
    pub(super) fn bounds(self) -> Vec<f64> {
        exponential_buckets(self.start, 2.0, self.count).expect("bounds grow from above zero")
    }
}

/// Where numbers are registered.
#[derive(Debug)]
pub(super) struct Register<'r> {
    registry: &'r Registry,
}

impl<'r> Register<'r> {
    pub(super) fn new(registry: &'r Registry) -> Self {
        Self { registry }
    }

    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let number = made.expect("names and labels are valid");
        self.registry.register(Box::new(number.clone())).expect("every name is registered once");
        number
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub(super) fn real_counter(&self, name: &str, help: &str) -> Counter {
        self.add(Counter::new(name, help))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub(super) fn real_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: Buckets) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.bounds());
        self.add(Histogram::with_opts(options))
    }

    /// For what is observed by the thousand.
    pub(super) fn tallied(&self, name: &str, help: &str, buckets: Buckets) -> Tallied {
        self.add(Tallied::new(name, help, buckets))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: Vec<f64>,
    ) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds), labels))
    }

    pub(super) fn histograms_of(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Buckets,
    ) -> HistogramVec {
        self.histograms(name, help, labels, buckets.bounds())
    }
}
