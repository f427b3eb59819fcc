//! Results as text and as JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::measurement::Measurement;
use crate::suite::Report;
use crate::table::render;
use crate::target::{Comparison, Metric, Target, micros};

/// A server's name and what was measured on it.
pub(crate) type Side = (String, Measurement);

/// Renders the measurements of one workload: one server, or a baseline and another.
pub(crate) fn workload_text(sides: &[Side]) -> String {
    let mut text = String::new();
    for (name, measurement) in sides {
        text.push_str(&measurement_text(name, measurement));
    }
    if let [(_, baseline), (_, other)] = sides {
        let figures =
            [Metric::Throughput, Metric::MedianLatency, Metric::P99Latency, Metric::ServerCpu];
        let rows: Vec<_> = figures
            .into_iter()
            .map(|metric| {
                let figure = (metric, Target::Reported);
                let comparison = Comparison::new("", figure, Some(baseline), Some(other));
                let [_, name, theirs, ours, ratio, ..] = comparison_row(&comparison);
                [name, String::new(), theirs, ours, ratio]
            })
            .collect();
        text.push_str(&render(["figure", "", "baseline", "endpoint", "ratio"], &rows));
    }
    text
}

fn measurement_text(name: &str, measurement: &Measurement) -> String {
    let mut lines = vec![
        format!("{name}:"),
        format!(
            "  operations       {} in {:.2} s, {:.1} per second",
            measurement.operations, measurement.seconds, measurement.throughput
        ),
        format!("  errors           {}", measurement.errors),
    ];
    if let Some(error) = &measurement.first_error {
        lines.push(format!("  first error      {error}"));
    }
    if let Some(latency) = measurement.latency {
        lines.push(format!(
            "  latency          mean {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            micros(latency.mean_micros),
            micros(latency.p50_micros),
            micros(latency.p90_micros),
            micros(latency.p99_micros),
            micros(latency.p999_micros),
            micros(latency.max_micros),
        ));
    }
    let per_operation = [
        ("server cpu/op", measurement.server_cpu_micros_per_operation),
        ("client cpu/op", measurement.client_cpu_micros_per_operation),
    ];
    for (title, value) in per_operation {
        if let Some(value) = value {
            lines.push(format!("  {title:<16} {}", micros(value)));
        }
    }
    if let Some(memory) = Metric::PrivateMemory.of(measurement) {
        let memory = Metric::PrivateMemory.format(memory);
        lines.push(format!("  private memory   {memory}"));
    }
    for (title, value) in &measurement.extra {
        lines.push(format!("  {title:<16} {value:.2}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Renders the suite's table and what belongs beside it.
pub(crate) fn suite_text(report: &Report) -> String {
    let rows: Vec<_> = report.comparisons.iter().map(comparison_row).collect();
    let header = ["measure", "figure", "theirs", "ours", "ratio", "target", "met?"];
    let mut text = render(header, &rows);
    text.push_str(&format!(
        "\ndisk: pwrite 256 B and fdatasync, p50 {}, p99 {}: the floor of put-1x1\n",
        micros(report.disk_sync.p50_micros),
        micros(report.disk_sync.p99_micros)
    ));
    text.push_str(&format!("processors: {}, shared with the client\n", report.processors));
    for (side, version) in &report.versions {
        text.push_str(&format!("{side}: version {version}\n"));
    }
    let costs: Vec<_> = report
        .measurements
        .iter()
        .flat_map(|(measure, sides)| sides.iter().map(move |(side, found)| (measure, side, found)))
        .map(|(measure, side, found)| {
            let cost = found.client_cpu_micros_per_operation.map_or_else(String::new, micros);
            let errors = found.errors.to_string();
            let others = found.extra.get("others_cpu_share");
            let others = others.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
            [measure.clone(), (*side).to_owned(), cost, others, errors]
        })
        .collect();
    text.push('\n');
    text.push_str(&render(["measure", "server", "client cpu/op", "others' cpu", "errors"], &costs));
    for (measure, sides) in &report.measurements {
        for (side, found) in sides {
            if let Some(error) = &found.first_error {
                text.push_str(&format!("{measure} on {side}: first error: {error}\n"));
            }
        }
    }
    for (measure, side, error) in &report.failures {
        text.push_str(&format!("{measure} on {side} failed: {error}\n"));
    }
    text
}

fn comparison_row(comparison: &Comparison) -> [String; 7] {
    let metric = comparison.metric;
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| metric.format(v));
    let met = match comparison.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    [
        comparison.measure.clone(),
        metric.name().to_owned(),
        figure(comparison.theirs),
        figure(comparison.ours),
        comparison.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x")),
        comparison.target.describe(metric),
        met.to_owned(),
    ]
}

/// Writes `value` as JSON to `path`, or to the output for `-`.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    if path.as_os_str() == "-" {
        return io::stdout().write_all(text.as_bytes());
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(throughput: f64) -> Measurement {
        Measurement {
            throughput,
            operations: 5,
            seconds: 1.0,
            server_cpu_micros_per_operation: Some(12.0),
            ..Measurement::default()
        }
    }

    #[test]
    fn row_shows_both_sides_ratio_and_verdict() {
        let figure = (Metric::Throughput, Target::RatioAtLeast(4.0));
        let (theirs, ours) = (measurement(100.0), measurement(450.0));
        let row = comparison_row(&Comparison::new("put", figure, Some(&theirs), Some(&ours)));
        assert_eq!(row, ["put", "per second", "100", "450", "4.50x", ">= 4.00x", "yes"]);
        let row = comparison_row(&Comparison::new("put", figure, Some(&theirs), None));
        assert_eq!(row, ["put", "per second", "100", "-", "-", ">= 4.00x", ""]);
    }

    #[test]
    fn two_servers_end_in_a_table_of_ratios() {
        let sides = [("a".to_owned(), measurement(100.0)), ("b".to_owned(), measurement(50.0))];
        let text = workload_text(&sides);
        assert!(text.contains("5 in 1.00 s, 100.0 per second"), "{text}");
        assert!(text.lines().any(|line| line.ends_with("0.50x")), "{text}");
        assert!(text.contains("server cpu/op"), "{text}");
    }

    #[test]
    fn json_leaves_out_what_was_not_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write_json(&path, &measurement(1.0)).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("\"server_cpu_micros_per_operation\": 12.0"), "{text}");
        assert!(!text.contains("latency"), "{text}");
    }
}
