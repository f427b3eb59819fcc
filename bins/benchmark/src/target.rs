//! Which figure of a measurement is compared, and what it must reach.
//!
//! Not the figures themselves (`measurement.rs`), nor the list of measures (`suite.rs`).

use serde::Serialize;

use crate::measurement::Measurement;

/// A figure of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Operations per second.
    Throughput,
    /// Median latency in microseconds.
    MedianLatency,
    /// 99th percentile in microseconds.
    P99Latency,
    /// Server processor microseconds per operation.
    ServerCpu,
    /// Events per second of server processor time.
    EventsPerCpuSecond,
    /// Private memory in bytes.
    PrivateMemory,
    /// Private memory that watchers or requests added, in bytes.
    MemoryGrowth,
    /// Seconds from a start to the first answer.
    Restart,
    /// Election timeouts from a leader's death to the first accepted write.
    Failover,
    /// Milliseconds from a leader's end to another leader.
    Handover,
    /// Writes that failed though the client tried again where it may.
    FailedWrites,
    /// MiB per second that a new member takes in.
    CatchUp,
    /// The 99th percentile of writes meanwhile, over that before.
    P99Growth,
    /// New terms while a member was away.
    TermChanges,
    /// Seconds until a member that was away has everything.
    Rejoin,
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Only reported.
    Reported,
    /// Ours over theirs, at least.
    RatioAtLeast(f64),
    /// Ours over theirs, at most.
    RatioAtMost(f64),
    /// Ours alone, at most.
    AtMost(f64),
    /// Ours alone, at least.
    AtLeast(f64),
}

/// One compared figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// The measure's name.
    pub(crate) measure: String,
    /// The figure.
    pub(crate) metric: Metric,
    /// The other server's.
    pub(crate) theirs: Option<f64>,
    /// Ours.
    pub(crate) ours: Option<f64>,
    /// Ours over theirs.
    pub(crate) ratio: Option<f64>,
    /// What it must reach.
    pub(crate) target: Target,
    /// Whether it does; `None` if a side is missing or nothing is demanded.
    pub(crate) met: Option<bool>,
}

impl Metric {
    /// Reads the figure; `None` if it was not measured.
    pub(crate) fn of(self, measurement: &Measurement) -> Option<f64> {
        let extra = |name| measurement.extra.get(name).copied();
        match self {
            Self::Throughput => Some(measurement.throughput),
            Self::MedianLatency => measurement.latency.map(|latency| latency.p50_micros),
            Self::P99Latency => measurement.latency.map(|latency| latency.p99_micros),
            Self::ServerCpu => measurement.server_cpu_micros_per_operation,
            Self::EventsPerCpuSecond => extra("events_per_server_cpu_second"),
            Self::PrivateMemory => measurement.server_private_bytes.map(crate::measurement::as_f64),
            Self::MemoryGrowth => extra("private_bytes_growth"),
            Self::Restart => extra("restart_seconds"),
            Self::Failover => extra("failover_election_timeouts"),
            Self::Handover => extra("handover_millis"),
            Self::FailedWrites => extra("failed_writes"),
            Self::CatchUp => extra("catch_up_mebibytes_per_second"),
            Self::P99Growth => extra("put_p99_growth"),
            Self::TermChanges => extra("term_changes"),
            Self::Rejoin => extra("rejoin_seconds"),
        }
    }

    /// The word for it in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "per second",
            Self::MedianLatency => "p50",
            Self::P99Latency => "p99",
            Self::ServerCpu => "server cpu/op",
            Self::EventsPerCpuSecond => "events/cpu-s",
            Self::PrivateMemory => "private memory",
            Self::MemoryGrowth => "memory growth",
            Self::Restart => "restart",
            Self::Failover => "failover",
            Self::Handover => "handover",
            Self::FailedWrites => "failed writes",
            Self::CatchUp => "catch-up",
            Self::P99Growth => "p99 growth",
            Self::TermChanges => "new terms",
            Self::Rejoin => "rejoin",
        }
    }

    /// A value with its unit.
    pub(crate) fn format(self, value: f64) -> String {
        match self {
            Self::Throughput | Self::EventsPerCpuSecond => format!("{value:.0}"),
            Self::MedianLatency | Self::P99Latency | Self::ServerCpu => micros(value),
            Self::PrivateMemory | Self::MemoryGrowth => {
                format!("{:.1} MiB", value / f64::from(1 << 20))
            }
            Self::Restart | Self::Rejoin => format!("{value:.2} s"),
            Self::Failover => format!("{value:.2} elections"),
            Self::Handover => format!("{value:.0} ms"),
            Self::FailedWrites | Self::TermChanges => format!("{value:.0}"),
            Self::CatchUp => format!("{value:.1} MiB/s"),
            Self::P99Growth => format!("{value:.2}x"),
        }
    }
}

/// Microseconds, or milliseconds where those are many.
pub(crate) fn micros(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.1} ms", value / 1e3) } else { format!("{value:.1} us") }
}

impl Target {
    /// Judges two figures; `None` where one that is needed is missing.
    pub(crate) fn met(self, theirs: Option<f64>, ours: Option<f64>) -> Option<bool> {
        let ratio = ratio(theirs, ours);
        match self {
            Self::Reported => None,
            Self::RatioAtLeast(bound) => ratio.map(|ratio| ratio >= bound),
            Self::RatioAtMost(bound) => ratio.map(|ratio| ratio <= bound),
            Self::AtMost(bound) => ours.map(|ours| ours <= bound),
            Self::AtLeast(bound) => ours.map(|ours| ours >= bound),
        }
    }

    /// The demand in words.
    pub(crate) fn describe(self, metric: Metric) -> String {
        match self {
            Self::Reported => String::new(),
            Self::RatioAtLeast(bound) => format!(">= {bound:.2}x"),
            Self::RatioAtMost(bound) => format!("<= {bound:.2}x"),
            Self::AtMost(bound) => format!("<= {}", metric.format(bound)),
            Self::AtLeast(bound) => format!(">= {}", metric.format(bound)),
        }
    }
}

impl Comparison {
    /// Compares a figure of two measurements, either of which may be missing or without it.
    pub(crate) fn new(
        measure: &str,
        (metric, target): (Metric, Target),
        theirs: Option<&Measurement>,
        ours: Option<&Measurement>,
    ) -> Self {
        let theirs = theirs.and_then(|measurement| metric.of(measurement));
        let ours = ours.and_then(|measurement| metric.of(measurement));
        Self {
            measure: measure.to_owned(),
            metric,
            theirs,
            ours,
            ratio: ratio(theirs, ours),
            target,
            met: target.met(theirs, ours),
        }
    }
}

fn ratio(theirs: Option<f64>, ours: Option<f64>) -> Option<f64> {
    let (theirs, ours) = theirs.zip(ours)?;
    (theirs != 0.0).then(|| ours / theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_ours_over_theirs_and_bounds_are_inclusive() {
        assert_eq!(Target::RatioAtLeast(4.0).met(Some(10.0), Some(40.0)), Some(true));
        assert_eq!(Target::RatioAtLeast(4.0).met(Some(10.0), Some(39.9)), Some(false));
        assert_eq!(Target::RatioAtMost(0.5).met(Some(10.0), Some(5.0)), Some(true));
        assert_eq!(Target::RatioAtMost(0.5).met(Some(10.0), Some(5.1)), Some(false));
    }

    #[test]
    fn absolute_bounds_need_only_ours() {
        assert_eq!(Target::AtMost(2.0).met(None, Some(1.9)), Some(true));
        assert_eq!(Target::AtMost(2.0).met(Some(1.0), None), None);
        assert_eq!(Target::AtLeast(2.0).met(None, Some(1.9)), Some(false));
        assert_eq!(Target::AtLeast(2.0).describe(Metric::Throughput), ">= 2");
    }

    #[test]
    fn missing_or_zero_sides_are_not_judged() {
        assert_eq!(Target::RatioAtLeast(4.0).met(None, Some(1.0)), None);
        assert_eq!(Target::RatioAtLeast(4.0).met(Some(0.0), Some(1.0)), None);
        assert_eq!(Target::Reported.met(Some(1.0), Some(1.0)), None);
    }

    #[test]
    fn demands_are_words_with_units() {
        assert_eq!(Target::RatioAtLeast(4.0).describe(Metric::Throughput), ">= 4.00x");
        let memory = Target::AtMost(f64::from(256 << 20));
        assert_eq!(memory.describe(Metric::MemoryGrowth), "<= 256.0 MiB");
        assert_eq!(Metric::P99Latency.format(12_345.0), "12.3 ms");
        assert_eq!(Metric::ServerCpu.format(45.67), "45.7 us");
    }
}
