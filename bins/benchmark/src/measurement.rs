//! What a run yielded, in numbers.
//!
//! Not the judgement on it (`target.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies of the successful operations, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Arithmetic mean.
    pub(crate) mean_micros: f64,
    /// Median.
    pub(crate) p50_micros: f64,
    /// 90th percentile.
    pub(crate) p90_micros: f64,
    /// 99th percentile.
    pub(crate) p99_micros: f64,
    /// 99.9th percentile.
    pub(crate) p999_micros: f64,
    /// The slowest.
    pub(crate) max_micros: f64,
}

/// The result of one workload on one server. What was not measured is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Measurement {
    /// Operations that succeeded in the measured time.
    pub(crate) operations: u64,
    /// Operations that failed, or were answered with less than asked for.
    pub(crate) errors: u64,
    /// What the server said to one of the failed ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<String>,
    /// The measured time.
    pub(crate) seconds: f64,
    /// Operations per second.
    pub(crate) throughput: f64,
    /// Distribution of the latencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latency>,
    /// Processor time of the server, user and system, per operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_micros_per_operation: Option<f64>,
    /// Processor time of this program per operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_cpu_micros_per_operation: Option<f64>,
    /// The server's private memory at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_private_bytes: Option<u64>,
    /// Figures that only this workload has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) extra: BTreeMap<&'static str, f64>,
}

/// A histogram of nanoseconds, exact to 0.1 %, from one microsecond to ten minutes.
///
/// # Panics
/// Never: the bounds are valid.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("the bounds are valid")
}

/// Notes one latency; what lies outside the histogram's bounds counts as the nearest bound.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

impl Latency {
    /// Reads the percentiles; `None` if nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| as_f64(histogram.value_at_quantile(quantile)) / 1e3;
        Some(Self {
            mean_micros: histogram.mean() / 1e3,
            p50_micros: at(0.5),
            p90_micros: at(0.9),
            p99_micros: at(0.99),
            p999_micros: at(0.999),
            max_micros: as_f64(histogram.max()) / 1e3,
        })
    }
}

/// A count as a number to calculate with. Counts here stay far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// `amount` per each of `count`, or `None` if there were none.
pub(crate) fn per(amount: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| amount / as_f64(count))
}

/// The run whose throughput is the middle one (the lower of two).
///
/// # Panics
/// If there is no run.
pub(crate) fn median_run(mut runs: Vec<Measurement>) -> Measurement {
    assert!(!runs.is_empty(), "a median needs a run");
    runs.sort_by(|a, b| a.throughput.total_cmp(&b.throughput));
    let middle = (runs.len() - 1) / 2;
    runs.swap_remove(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded_values() {
        let mut histogram = latency_histogram();
        for micros in 1..=1000 {
            record(&mut histogram, Duration::from_micros(micros));
        }
        let latency = Latency::of(&histogram).unwrap();
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted * 0.002;
        assert!(near(latency.mean_micros, 500.5), "{latency:?}");
        assert!(near(latency.p50_micros, 500.0), "{latency:?}");
        assert!(near(latency.p90_micros, 900.0), "{latency:?}");
        assert!(near(latency.p99_micros, 990.0), "{latency:?}");
        assert!(near(latency.p999_micros, 999.0), "{latency:?}");
        assert!(near(latency.max_micros, 1000.0), "{latency:?}");
    }

    #[test]
    fn empty_histogram_has_no_latency() {
        assert_eq!(Latency::of(&latency_histogram()), None);
        assert_eq!(per(1.0, 0), None);
    }

    #[test]
    fn hours_are_recorded_as_the_upper_bound() {
        let mut histogram = latency_histogram();
        record(&mut histogram, Duration::from_secs(86_400));
        assert!(Latency::of(&histogram).unwrap().max_micros >= 599e6);
    }

    #[test]
    fn median_run_is_the_middle_one() {
        let run = |throughput| Measurement { throughput, ..Measurement::default() };
        let median = |runs: &[f64]| median_run(runs.iter().copied().map(run).collect()).throughput;
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[3.0, 1.0]) - 1.0).abs() < 1e-9);
    }
}
