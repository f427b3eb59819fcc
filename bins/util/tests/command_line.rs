//! Help, mistakes and exit codes.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::path::Path;

use support::etcdutl;

fn here(arguments: &[&str]) -> support::Said {
    etcdutl(Path::new(env!("CARGO_TARGET_TMPDIR")), arguments)
}

/// UTL-01, R8.
#[test]
fn version_names_the_compatible_release() {
    let said = here(&["version"]).ok();
    assert!(said.stdout.starts_with("etcdutl version: 3.7.1\nAPI version: 3.7\n"), "{said:?}");
}

/// R6, as etcd's tool has them.
#[test]
fn exit_codes_and_last_lines() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["foo"], 1, "Error: unknown command \"foo\" for \"etcdutl\""),
        (&["version", "--foo"], 1, "Error: unknown flag: --foo"),
        (&["defrag"], 1, "Error: required flag(s) \"data-dir\" not set"),
        (&["migrate"], 1, "Error: required flag(s) \"data-dir\", \"target-version\" not set"),
        (&["hashkv"], 1, "Error: accepts 1 arg(s), received 0"),
        (&["completion"], 1, "Error: accepts 1 arg(s), received 0"),
        (&["snapshot", "status"], 128, "Error: snapshot status requires exactly one argument"),
        (&["snapshot", "restore"], 128, "Error: snapshot restore requires exactly one argument"),
        (&["snapshot", "status", "none"], 1, "Error: stat none: no such file or directory"),
        (&["hashkv", "none"], 1, "Error: stat none: no such file or directory"),
        (&["hashkv", "none", "-w", "loud"], 4, "Error: unsupported output format"),
        (
            &["defrag", "--data-dir", "none"],
            1,
            "Error: Failed to defragment etcd data[none] (stat none/member/snap/db: no such file or \
             directory)",
        ),
        (
            &["migrate", "--data-dir", "none", "--target-version", "3.6.0"],
            128,
            "Error: wrong target version format, expected \"X.Y\", got \"3.6.0\"",
        ),
        (
            &["migrate", "--data-dir", "none", "--target-version", "3.6"],
            1,
            "Error: stat none/member/snap/db: no such file or directory",
        ),
    ];
    for (arguments, code, last) in cases {
        let said = here(arguments);
        assert_eq!((said.code, said.last_error()), (*code, *last), "{arguments:?}");
        assert_eq!(said.stdout, "");
    }
}

#[test]
fn help_is_the_usage_alone() {
    let said = here(&["snapshot", "--help"]).ok();
    let expected = "Usage:
  etcdutl snapshot [command]

Available Commands:
  restore     Restores an etcd member snapshot to an etcd directory
  status      Gets backend snapshot status of a given file

Flags:
  -h, --help   help for snapshot

Global Flags:
      --timeout duration   time to wait to obtain a file lock on db file, 0 to block indefinitely (default 10s)
  -w, --write-out string   set the output format (fields, json, protobuf, simple, table) (default \"simple\")

Use \"etcdutl snapshot [command] --help\" for more information about a command.
";
    assert_eq!(said.stdout, expected);
    assert!(here(&[]).ok().stdout.starts_with("Usage:\n  etcdutl [command]\n"));
    let said = here(&["help", "bogus"]).ok();
    assert!(said.stderr.starts_with("Unknown help topic [`bogus`]\nUsage:\n"));
    assert!(said.stderr.contains("\n\nFlags:\n      --timeout duration"));
}

/// UTL-16.
#[test]
fn every_shell_gets_a_script() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(here(&["completion", shell]).ok().stdout.contains("snapshot"), "{shell}");
    }
}
