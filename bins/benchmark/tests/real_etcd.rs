//! Runs the program against a real etcd, whose folder is in `REAL_ETCD_35`. Without it the tests
//! only say that they were skipped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn etcd() -> Option<PathBuf> {
    let folder = std::env::var_os("REAL_ETCD_35");
    if folder.is_none() {
        println!("skipped: REAL_ETCD_35 is not set");
    }
    Some(PathBuf::from(folder?).join("etcd"))
}

fn benchmark(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_benchmark")).args(arguments).output().unwrap()
}

fn suite(etcd: &std::path::Path, more: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let (etcd, work) = (etcd.to_str().unwrap(), folder.path().to_str().unwrap());
    let fixed = ["suite", "--theirs", etcd, "--work-dir", work, "--json", "-"];
    // Long enough for one operation on a machine that does much else.
    let short = ["--duration", "2s", "--warmup", "50ms", "--fill-keys", "2000"];
    let output = benchmark(&[&fixed[..], &short, more].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    report
}

#[test]
fn closed_loops_run_without_errors() {
    let Some(etcd) = etcd() else { return };
    let only = "put-64x1,get-100x10,txn,range-1000,range-limit-10";
    let report = suite(&etcd, &["--only", only]);
    assert_eq!(report["failures"], serde_json::json!([]));
    let measurements = report["measurements"].as_object().unwrap();
    assert_eq!(measurements.len(), 5);
    for (name, sides) in measurements {
        let measurement = &sides["theirs"];
        assert_eq!(measurement["errors"], 0, "{name}: {measurement}");
        assert!(measurement["operations"].as_u64().unwrap() > 0, "{name}: {measurement}");
        assert!(measurement["latency"]["p50_micros"].as_f64().unwrap() > 0.0, "{name}");
    }
}

#[test]
fn watchers_see_every_event() {
    let Some(etcd) = etcd() else { return };
    let report = suite(&etcd, &["--only", "watch-1000"]);
    assert_eq!(report["failures"], serde_json::json!([]));
    let measurement = &report["measurements"]["watch-1000"]["theirs"];
    assert_eq!(measurement["errors"], 0, "{measurement}");
    let puts = measurement["extra"]["puts"].as_f64().unwrap();
    assert!(puts > 0.0);
    assert_eq!(measurement["operations"].as_f64().unwrap(), puts * 1000.0);
}

#[test]
fn filled_server_comes_back() {
    let Some(etcd) = etcd() else { return };
    let report = suite(&etcd, &["--only", "fill"]);
    assert_eq!(report["failures"], serde_json::json!([]));
    let extra = &report["measurements"]["fill"]["theirs"]["extra"];
    assert!(extra["restart_seconds"].as_f64().unwrap() > 0.0, "{extra}");
    assert!(extra["db_bytes"].as_f64().unwrap() > 500_000.0, "{extra}");
}

#[test]
fn interrupted_suite_leaves_nothing_behind() {
    let Some(etcd) = etcd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut suite = Command::new(env!("CARGO_BIN_EXE_benchmark"))
        .args(["suite", "--theirs", etcd.to_str().unwrap(), "--duration", "60s"])
        .args(["--work-dir", folder.path().to_str().unwrap()])
        .spawn()
        .unwrap();
    let own = folder.path().join(format!("retcd-benchmark-{}", suite.id()));
    let log = own.join("put-1x1-theirs/log");
    let begin = std::time::Instant::now();
    while !log.exists() && begin.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let id = suite.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(suite.wait().unwrap().code(), Some(143));
    assert!(!own.exists());
}

#[test]
fn unreachable_server_is_an_error() {
    // Port 1 is reserved and served by nothing.
    let output = benchmark(&["put", "--endpoints", "127.0.0.1:1"]);
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("connecting to 127.0.0.1:1"), "{errors}");
}

#[test]
fn clusters_and_their_faults_are_measured() {
    let Some(etcd) = etcd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (etcd, work) = (etcd.to_str().unwrap(), folder.path().to_str().unwrap());
    let fixed = ["cluster", "--theirs", etcd, "--work-dir", work, "--json", "-"];
    let short = ["--duration", "2s", "--warmup", "50ms", "--failures", "1"];
    let small = ["--pause", "1s", "--catch-up-bytes", "2000000"];
    let output = benchmark(&[&fixed[..], &short, &small].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(report["failures"], serde_json::json!([]));
    let measurements = report["measurements"].as_object().unwrap();
    assert_eq!(measurements.len(), 8);
    for (name, sides) in measurements {
        assert!(sides["theirs"]["operations"].as_u64().unwrap() > 0, "{name}: {sides}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

/// SEED0-61: against the last release with the second generation, whose folder is in
/// `REAL_ETCD_34`.
#[test]
fn the_second_generation_is_measured() {
    let Some(folder) = std::env::var_os("REAL_ETCD_34") else {
        println!("skipped: REAL_ETCD_34 is not set");
        return;
    };
    let report = suite(&PathBuf::from(folder).join("etcd"), &["--only", "v2-"]);
    assert_eq!(report["failures"], serde_json::json!([]));
    let measurements = report["measurements"].as_object().unwrap();
    assert_eq!(measurements.len(), 3);
    for (name, sides) in measurements {
        let measurement = &sides["theirs"];
        assert_eq!(measurement["errors"], 0, "{name}: {measurement}");
        assert!(measurement["operations"].as_u64().unwrap() > 0, "{name}: {measurement}");
    }
}

/// SEED0-61, SEED2-06, SEED3-17, SEED4-18, SEEDX-05, LEG-06: what documents claim of reads and
/// writes each second has a figure in the report. How large it is says the machine.
#[test]
fn figures_that_documents_claim_are_reported() {
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_benchmark")).with_file_name("etcd");
    if !ours.is_file() {
        println!("skipped: the server is not built; test the whole workspace");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ours, work) = (ours.to_str().unwrap(), folder.path().to_str().unwrap());
    let fixed = ["suite", "--ours", ours, "--work-dir", work, "--json", "-"];
    let short = ["--duration", "2s", "--warmup", "50ms", "--fill-keys", "2000"];
    let only = ["--only", "put-64x1,get-64x1,v2-"];
    let output = benchmark(&[&fixed[..], &short, &only].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(report["failures"], serde_json::json!([]));
    let measurements = report["measurements"].as_object().unwrap();
    assert_eq!(measurements.len(), 5, "{measurements:?}");
    for (name, sides) in measurements {
        let figure = sides["ours"]["throughput"].as_f64().unwrap_or_default();
        println!("{name}: {figure:.0} a second");
        assert!(figure > 0.0, "{name}: {sides}");
    }
}
