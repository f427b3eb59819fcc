//! Help texts and errors about the command line, which need no member.
//!
//! `testdata/help.txt` holds command lines and what they print; `UPDATE=1` writes it anew. The
//! texts were compared with those of etcdctl 3.7.1.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

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

/// VER-02, VER-07: what works on files moved to `etcdutl`, and says so; an old name for it is still
/// there, and in the dialect of v2 it never was.
#[test]
fn what_moved_to_another_tool_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &Path, api: Option<&str>, line: &str| -> (Output, String) {
        let mut command = Command::new(program);
        command.env_clear().args(line.split(' ')).current_dir(folder.path());
        if let Some(api) = api {
            command.env("ETCDCTL_API", api);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap();
        (output, said)
    };
    let mut programs = vec![Path::new(env!("CARGO_BIN_EXE_etcdctl")).to_owned()];
    if let Some(theirs) = std::env::var_os("REAL_ETCD_35") {
        programs.push(Path::new(&theirs).join("etcdctl"));
    }
    for program in programs {
        // Ours hands over to it, and it is not built where only this package is tested.
        let is_there = program.with_file_name("etcdutl").is_file();
        for verb in ["status", "restore"] {
            for api in [None, Some("3")] {
                let (output, said) = run(&program, api, &format!("snapshot {verb} missing"));
                let hint = format!("Deprecated: Use `etcdutl snapshot {verb}` instead.");
                assert!(said.lines().any(|line| line == hint), "{said}");
                assert_eq!(output.status.code(), Some(1), "{said}");
                assert!(!is_there || said.contains("missing: no such file or directory"), "{said}");
            }
        }
        let (_, said) = run(&program, Some("2"), "snapshot status missing");
        assert!(!said.contains("etcdutl"), "{said}");
    }
}

/// D11: output that reaches the limit of a file's size is an error with a remedy, not a silent end.
#[test]
fn a_limit_of_file_sizes_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 1; exec \"$0\" completion bash > script"])
        .arg(env!("CARGO_BIN_EXE_etcdctl"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    for expected in ["/dev/stdout", "ile too large", "hint: ", "ulimit -f"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
