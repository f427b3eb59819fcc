//! Help texts and errors about the command line, which need no member.
//!
//! `testdata/help.txt` holds command lines and what they print; `UPDATE=1` writes it anew. The
//! texts were compared with those of etcdctl 3.7.1.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const LINES: &str = include_str!("testdata/help_lines.txt");

/// CTL3-02, CTL3-04, CTL3-23, CTL3-25, CTL3-92.
#[test]
fn help_is_that_of_etcdctl_3_7() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/help.txt");
    let mut printed = String::new();
    for line in LINES.lines() {
        let output = Command::new(env!("CARGO_BIN_EXE_etcdctl"))
            .env_clear()
            .env("ETCDCTL_API", "3")
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let code = output.status.code().unwrap();
        writeln!(printed, "$ etcdctl {line}\n{stdout}[stderr] {stderr}[code] {code}\n").unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (printed, expected) in printed.lines().zip(expected.lines()) {
        assert_eq!(printed, expected);
    }
    assert_eq!(printed.len(), expected.len());
}

/// CTL3-24.
#[test]
fn completion_scripts_are_accepted_by_the_shell() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = Command::new(env!("CARGO_BIN_EXE_etcdctl"))
            .args(["completion", shell])
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("endpoint") && script.contains("write-out"), "{shell}");
        if shell == "bash" {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, script.as_bytes()).unwrap();
            let status = Command::new("bash").arg("-n").arg(file.path()).status().unwrap();
            assert!(status.success());
        }
    }
}

/// LEG-05, CTL3-91: keys of v2 are no longer moved to v3, as in etcd since 3.5.
#[test]
fn keys_are_not_moved_between_the_generations() {
    for programs in ["", "REAL_ETCD_35", "REAL_ETCD_37"] {
        let theirs = std::env::var_os(programs).map(|folder| Path::new(&folder).join("etcdctl"));
        let program = match theirs {
            Some(theirs) => theirs,
            None if programs.is_empty() => Path::new(env!("CARGO_BIN_EXE_etcdctl")).to_owned(),
            None => continue,
        };
        let mut command = Command::new(&program);
        command.env_clear().env("ETCDCTL_API", "3").args(["migrate", "--data-dir", "missing"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("Error: unknown command \"migrate\" for \"etcdctl\"\n"), "{said}");
    }
}
