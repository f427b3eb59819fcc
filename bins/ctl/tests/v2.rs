//! The dialect of the second generation: command lines and what they print, against a server of
//! ours; `UPDATE=1` writes the expected texts anew.
//!
//! With `REAL_ETCD_34`, which names a folder with etcd 3.4's `etcd` and `etcdctl`, those run every line
//! too, and must print the same and leave with the same code. Lines that differ on purpose are marked
//! `@ours`.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use support::script::{Line, parse};
use support::server::Server;
use support::v2::{Side, ours, server_program};

const SCRIPTS: [&str; 4] = ["keys", "flags", "cluster", "auth"];

/// A script's text, what it must print, and where that stands.
fn script(name: &str) -> (String, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/v2");
    let text = fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
    (text, folder.join(format!("{name}.expected.txt")))
}

fn check(name: &str) -> Vec<String> {
    let Some(server) = server_program() else { return Vec::new() };
    let (text, expected) = script(name);
    let server = Server::start(&server);
    let mut our_side = Side::new(&ours(), &server);
    let control = std::env::var_os("REAL_ETCD_34").map(PathBuf::from);
    let their_server = control.as_ref().map(|folder| {
        Server::start_with(&folder.join("etcd"), &["--enable-v2", "--logger", "zap"])
    });
    let theirs = control.as_ref().zip(their_server.as_ref());
    let mut their_side = theirs.map(|(folder, server)| Side::new(&folder.join("etcdctl"), server));
    let mut printed = String::new();
    let mut differences = Vec::new();
    for line in parse(&text) {
        println!("{name}: {}", line.text);
        let said = our_side.run(&line);
        writeln!(printed, "$ {}\n{said}", line.text).unwrap();
        // Those lines change nothing.
        let is_ours = line.variables.iter().any(|(name, _)| name == "ours");
        if let Some(theirs) = their_side.as_mut().filter(|_| !is_ours) {
            differences.extend(compare(&line, &said, &theirs.run(&line)));
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, &printed).unwrap();
    }
    let expected = fs::read_to_string(&expected).unwrap_or_default();
    for (printed, expected) in printed.split("\n$ ").zip(expected.split("\n$ ")) {
        if printed != expected {
            differences.push(format!("== printed\n{printed}-- expected\n{expected}"));
        }
    }
    assert_eq!(printed.lines().count(), expected.lines().count(), "{name}");
    differences
}

fn compare(line: &Line, ours: &str, theirs: &str) -> Option<String> {
    let text = format!("== {}\n-- ours\n{ours}-- etcd\n{theirs}", line.text);
    (ours != theirs).then_some(text)
}

/// CTL2-02 to CTL2-76.
#[test]
fn command_lines_print_what_etcds_own_prints() {
    let differences: Vec<String> = SCRIPTS.iter().flat_map(|name| check(name)).collect();
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}
