//! The text of a scrape, byte for byte as Go's library writes it: its numbers have an exponent from a
//! million on, so that bounds of buckets are the labels that recorded series have.
//!
//! Source: the Prometheus text format 0.0.4; Go's `strconv.FormatFloat(value, 'g', -1, 64)`.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The families in the order they are in.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        let name = family.name();
        let help = family.help().replace('\\', "\\\\").replace('\n', "\\n");
        let kind = family.get_field_type();
        let word = match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            kind @ (MetricType::SUMMARY | MetricType::UNTYPED) => {
                unreachable!("{name} is a {kind:?}")
            }
        };
        // Writing to a text cannot fail.
        _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {word}\n");
        for metric in family.get_metric() {
            match kind {
                MetricType::COUNTER => {
                    sample(&mut text, name, metric, None, metric.get_counter().get_value());
                }
                MetricType::GAUGE => {
                    sample(&mut text, name, metric, None, metric.get_gauge().get_value());
                }
                MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => {
                    histogram(&mut text, name, metric);
                }
            }
        }
    }
    text
}

fn histogram(text: &mut String, name: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    let bucket = format!("{name}_bucket");
    let count = real(histogram.get_sample_count());
    for step in histogram.get_bucket() {
        let below = real(step.cumulative_count());
        sample(text, &bucket, metric, Some(step.upper_bound()), below);
    }
    let is_last = |bound: f64| bound == f64::INFINITY;
    if !histogram.get_bucket().last().is_some_and(|step| is_last(step.upper_bound())) {
        sample(text, &bucket, metric, Some(f64::INFINITY), count);
    }
    sample(text, &format!("{name}_sum"), metric, None, histogram.get_sample_sum());
    sample(text, &format!("{name}_count"), metric, None, count);
}

fn sample(text: &mut String, name: &str, metric: &Metric, bound: Option<f64>, value: f64) {
    text.push_str(name);
    let bound = bound.map(number);
    let own = metric.get_label().iter().map(|label: &LabelPair| (label.name(), label.value()));
    let mut before = '{';
    for (label, value) in own.chain(bound.as_deref().map(|bound| ("le", bound))) {
        text.push(before);
        before = ',';
        text.push_str(label);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if before == ',' {
        text.push('}');
    }
    text.push(' ');
    text.push_str(&number(value));
    text.push('\n');
}

/// The shortest text that is this number, with an exponent below 0.0001 and from a million on.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value < 0.0 { "-Inf" } else { "+Inf" }.to_owned();
    }
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("that format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[expect(clippy::cast_precision_loss, reason = "the format counts in floating point")]
fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;

    /// What Go's strconv makes of them.
    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.5, "0.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000_012_5, "1.25e-05"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (123_456.7, "123456.7"),
            (1_234_567.8, "1.2345678e+06"),
            (18_446_744_073_709_551_615.0, "1.8446744073709552e+19"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn a_page_is_written_as_go_writes_it() {
        let registry = Registry::new();
        let seconds = HistogramOpts::new("b_seconds", "Seconds.").buckets(vec![0.5, 1_048_576.0]);
        let seconds = HistogramVec::new(seconds, &["op"]).unwrap();
        registry.register(Box::new(seconds.clone())).unwrap();
        seconds.with_label_values(&["x"]).observe(0.25);
        seconds.with_label_values(&["x"]).observe(2e6);
        let calls = IntCounterVec::new(Opts::new("a_total", "A\\B\nC"), &["z", "a"]).unwrap();
        registry.register(Box::new(calls.clone())).unwrap();
        calls.with_label_values(&["\"q\\\n", "é"]).inc_by(3);
        let size = Gauge::new("c", "C.").unwrap();
        registry.register(Box::new(size.clone())).unwrap();
        size.set(2_147_483_648.0);
        let expected = "\
# HELP a_total A\\\\B\\nC
# TYPE a_total counter
a_total{a=\"é\",z=\"\\\"q\\\\\\n\"} 3
# HELP b_seconds Seconds.
# TYPE b_seconds histogram
b_seconds_bucket{op=\"x\",le=\"0.5\"} 1
b_seconds_bucket{op=\"x\",le=\"1.048576e+06\"} 1
b_seconds_bucket{op=\"x\",le=\"+Inf\"} 2
b_seconds_sum{op=\"x\"} 2.00000025e+06
b_seconds_count{op=\"x\"} 2
# HELP c C.
# TYPE c gauge
c 2.147483648e+09
";
        assert_eq!(encode(&registry.gather()), expected);
    }
}
