//! What a scrape shows before anything has happened.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

/// Names and types in order.
fn families(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split_once(' ').unwrap()).collect()
}

/// MET-01 to MET-74: `testdata/metrics.txt` is the list; `UPDATE=1` rewrites it.
#[test]
fn names_exist_from_the_start() {
    let metrics = Metrics::new(false);
    metrics.set_features([("Gate", "ALPHA", false)]);
    let text = metrics.encode();
    let mut list = String::new();
    for (name, kind) in families(&text) {
        writeln!(list, "{name} {kind}").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/metrics.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &list).unwrap();
    }
    assert_eq!(list, std::fs::read_to_string(path).unwrap());
}

/// MET-68: every code of every method exists before the first call.
#[test]
fn calls_are_shown_at_zero_with_every_code() {
    let text = Metrics::new(true).encode();
    for expected in [
        "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"RangeStream\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"server_stream\"} 0",
        "grpc_server_msg_sent_total{grpc_method=\"Watch\",grpc_service=\"grpc.health.v1.Health\",grpc_type=\"server_stream\"} 0",
        "grpc_server_handling_seconds_bucket{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"0.005\"} 0",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is missing");
    }
    let handled = text.lines().filter(|line| line.starts_with("grpc_server_handled_total{"));
    assert_eq!(handled.count(), 45 * 17);
    // Locks and elections are shown once there was one.
    assert!(!text.contains("v3lockpb.Lock") && !text.contains("v3electionpb.Election"));
}

/// G-006: a client cannot make up any number of labels.
#[test]
fn versions_of_clients_are_bounded() {
    let metrics = Metrics::new(false);
    for number in 0..1000 {
        let version = format!("3.{number}.0");
        metrics.calls.on_client(crate::grpc::CallKind::Unary, Some(&version));
    }
    metrics.calls.on_client(crate::grpc::CallKind::Unary, Some("3.0.0"));
    metrics.calls.on_client(crate::grpc::CallKind::BidiStream, None);
    let text = metrics.encode();
    let lines = text.lines().filter(|line| line.starts_with("etcd_server_client_requests_total{"));
    assert!(lines.count() < 150);
    for expected in [
        "etcd_server_client_requests_total{client_api_version=\"3.0.0\",type=\"unary\"} 2",
        "etcd_server_client_requests_total{client_api_version=\"other\",type=\"unary\"} 936",
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"} 1",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is missing");
    }
}

#[test]
fn the_process_is_read() {
    let registry = Registry::new();
    let process = Process::new(&Register::new(&registry));
    process.refresh();
    for family in registry.gather() {
        let value = family.get_metric()[0].get_gauge().get_value()
            + family.get_metric()[0].get_counter().get_value();
        // A fresh process may have used less than a tick of processor time.
        assert!(0.0 < value || family.name() == "process_cpu_seconds_total", "{}", family.name());
    }
}
