//! Our `etcdctl` and etcd's own, side by side: the same command lines against two fresh members,
//! line by line, must print the same and leave with the same code.
//!
//! Ids, ports, times and durations are replaced by names before comparing, and etcd's log lines on
//! standard error are left out. `REAL_ETCD_35` names a folder with `etcd` and `etcdctl` 3.5;
//! `REAL_ETCDCTL_37` names an `etcdctl` 3.7 program for the lines where the releases differ.
//! Without them the tests say that they are skipped.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod support;

use std::path::{Path, PathBuf};

use support::script::{Line, Release, parse};
use support::server::Server;
use support::side::{Output, Side};

/// Where etcd's programs are, if the environment says so.
fn programs(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {variable} is not set");
    }
    folder
}

/// Whether every line of the script printed the same; the differences are printed.
fn compare(script: &str, oracle: &Path, server: &Path, release: Release) -> bool {
    let servers = [Server::start(server), Server::start(server)];
    let ours = Path::new(env!("CARGO_BIN_EXE_etcdctl"));
    let mut sides = [Side::new(ours, &servers[0]), Side::new(oracle, &servers[1])];
    let mut differences = Vec::new();
    let mut compared = 0;
    for line in parse(script) {
        let [our_output, their_output] = run_both(&mut sides, &line);
        if line.release.is_some_and(|only| only != release) {
            continue;
        }
        compared += 1;
        if our_output != their_output {
            differences
                .push(format!("== {}\n-- ours\n{our_output}-- theirs\n{their_output}", line.text));
        }
    }
    println!("{compared} command lines compared");
    println!("{} differ\n{}", differences.len(), differences.join("\n"));
    differences.is_empty()
}

/// Every line is run on both sides, whether it is compared or not, so that both members stay alike.
fn run_both(sides: &mut [Side<'_>; 2], line: &Line) -> [Output; 2] {
    if line.is_same_member {
        let theirs = sides[1].program();
        return [sides[0].run(line), sides[0].run_program(&theirs, line)];
    }
    sides.each_mut().map(|side| side.run(line))
}

const SCRIPTS: [&str; 4] = [
    include_str!("testdata/keys.txt"),
    include_str!("testdata/leases.txt"),
    include_str!("testdata/cluster.txt"),
    include_str!("testdata/auth.txt"),
];

/// CTL3-04 to CTL3-84.
#[test]
fn prints_the_same_as_etcdctl_3_5() {
    let Some(folder) = programs("REAL_ETCD_35") else {
        return;
    };
    let mut failed = false;
    for script in SCRIPTS {
        failed |= !compare(script, &folder.join("etcdctl"), &folder.join("etcd"), Release::V3_5);
    }
    assert!(!failed, "outputs differ");
}

/// CTL3-04 to CTL3-92.
#[test]
fn prints_the_same_as_etcdctl_3_7() {
    let (Some(folder), Some(oracle)) = (programs("REAL_ETCD_35"), programs("REAL_ETCDCTL_37"))
    else {
        return;
    };
    let mut failed = false;
    for script in SCRIPTS {
        failed |= !compare(script, &oracle, &folder.join("etcd"), Release::V3_7);
    }
    assert!(!failed, "outputs differ");
}
