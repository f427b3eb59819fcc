//! The program's exit codes and first lines, as supervisors and scripts see them, and the same
//! command lines given to a real etcd 3.5 when `REAL_ETCD_35` names the folder it is in.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Command, Stdio};

struct Run {
    code: Option<i32>,
    /// Standard output and standard error.
    output: String,
}

impl Run {
    /// What is wrong: the first line of a usage error, else the error of the last line.
    fn complaint(&self) -> &str {
        if self.code == Some(2) {
            return self.output.lines().next().unwrap_or_default();
        }
        let line = self.output.lines().rev().find(|line| line.contains("failed to verify flags"));
        line.and_then(|line| line.split("\"error\":\"").nth(1)).map_or("", |rest| {
            let end = rest.find("\",\"remedy\":").unwrap_or_else(|| rest.rfind('"').unwrap());
            &rest[..end]
        })
    }
}

/// Runs a program to its end; only for command lines that no program starts with.
fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let folder = new_folder();
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = [output.stdout, output.stderr].concat();
    Run { code: output.status.code(), output: String::from_utf8(text).unwrap() }
}

/// A new folder below the one cargo keeps for tests.
fn new_folder() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("command-line-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn etcd() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_etcd"))
}

/// R6, SRV-008 to SRV-011.
#[test]
fn exit_codes_are_zero_two_and_one() {
    for (arguments, code, first) in [
        (&["--version"][..], 0, "etcd Version: 3.7.1"),
        (&["--help"], 0, "Usage:"),
        (&["--nope"], 2, "flag provided but not defined: -nope"),
        (&["--name"], 2, "flag needs an argument: -name"),
        (
            &["--v2-deprecation=not-yet"],
            2,
            "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
        ),
    ] {
        let run = run(etcd(), arguments, &[]);
        assert_eq!((run.code, run.output.lines().next()), (Some(code), Some(first)));
    }
    assert_eq!(run(etcd(), &["foo"], &[]).code, Some(1));
}

/// Process contract, section 4: every line is an object with the four keys.
#[test]
fn every_line_is_json() {
    let environment = [("ETCD_NAME", "a"), ("ETCD_FOO", "b"), ("ETCD_UNSUPPORTED_ARCH", "amd64")];
    let run = run(etcd(), &["--heartbeat-interval=0", "--vv"], &environment);
    assert_eq!(run.code, Some(1));
    for line in run.output.lines() {
        for key in ["{\"level\":\"", "\",\"ts\":\"", "Z\",\"caller\":\"", "\",\"msg\":\""] {
            assert!(line.contains(key), "{line}");
        }
        assert!(line.ends_with('}'), "{line}");
    }
    assert!(run.output.contains("recognized and used environment variable"));
    assert!(run.output.contains("unrecognized environment variable"));
}

/// SRV-002, VER-03, B17, R3.
#[test]
fn a_shadowed_variable_is_fatal() {
    let run = run(etcd(), &["--name=a"], &[("ETCD_NAME", "a")]);
    assert_eq!(run.code, Some(1));
    assert!(run.output.starts_with("{\"level\":\"fatal\","), "{}", run.output);
    assert!(run.output.contains("\"environment-variable\":\"ETCD_NAME\""), "{}", run.output);
}

/// Command lines that both refuse, in the same words and with the same code.
const SAME: &str = r"--nope
-name
---x
--=x
-
foo
-- foo
--name= --nope
--initial-cluster-state=foo
--initial-cluster-state=
--snapshot-count=
--snapshot-count=abc
--snapshot-count=0x
--snapshot-count=08
--snapshot-count=_10
--snapshot-count=99999999999999999999
--quota-backend-bytes=99999999999999999999
--quota-backend-bytes=--5
--force-new-cluster=yes
--pre-vote=tRue
--backend-batch-interval=.
--backend-batch-interval=1h1
--backend-batch-interval=9999999999h
--listen-client-urls=http://
--listen-client-urls=http
--listen-client-urls=http://:
--listen-client-urls=http://a:b:1
--listen-client-urls=http://[::1]
--listen-client-urls=http://[::1]:x
--listen-client-urls=http://[::1:22
--listen-client-urls=http://%zz:1
--listen-client-urls=http://127.0.0.1:1/
--listen-client-urls=http://127.0.0.1:1,
--listen-client-urls=tcp://127.0.0.1:1
--listen-client-urls=127.0.0.1:1
--listen-client-urls=localhost:1
--listen-client-urls=:foo
--listen-client-urls=http://127.0.0.1:1
--listen-peer-urls=http://host:1
--initial-advertise-peer-urls=http://:2380
--max-concurrent-streams=
--max-concurrent-streams=-1
--max-concurrent-streams=99999999999
--v2-deprecation=gone,bad
--discovery-fallback=x
--cors=foo
--cors=*,http://a:1
--proxy=x
--log-outputs=default,stderr
--log-outputs=systemd/journal,stderr
--logger=
--logger=capnslog
--enable-log-rotation
--auto-compaction-mode=foo
--heartbeat-interval=0
--heartbeat-interval=100 --election-timeout=499
--election-timeout=50001
--tls-min-version=TLS1.1
--tls-max-version=x
--tls-min-version=TLS1.3 --tls-max-version=TLS1.2
--tls-min-version=TLS1.3 --cipher-suites=TLS_AES_128_GCM_SHA256
--version=x";

/// VER-03, VER-04 (only zap is left), SRV-008, SRV-009, SRV-022 to SRV-029.
#[test]
fn refusals_are_those_of_etcd() {
    let Some(folder) = std::env::var_os("REAL_ETCD_35") else {
        println!("skipped: REAL_ETCD_35 is not set");
        return;
    };
    let real = Path::new(&folder).join("etcd");
    for line in SAME.lines() {
        let arguments: Vec<_> = line.split(' ').collect();
        let (ours, theirs) = (run(etcd(), &arguments, &[]), run(&real, &arguments, &[]));
        assert_eq!(
            (ours.code, ours.complaint()),
            (theirs.code, theirs.complaint()),
            "{line}\n{}",
            ours.output
        );
    }
}
