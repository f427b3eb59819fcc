//! Copies of members' files that `etcdctl backup` and `etcdutl backup` make (LEG-01 to LEG-04), of
//! our member and of etcd's, started on ours, on etcd 3.4 and on etcd 3.5, whose folders are in
//! `REAL_ETCD_34` and `REAL_ETCD_35`.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::server::Server;
use support::v2::{PATIENTLY, ours, server_program};

/// How long something may take that must happen.
const EVENTUALLY: Duration = Duration::from_secs(120);

/// A server program, and the flags with which it has both generations.
struct Program {
    path: PathBuf,
    flags: &'static [&'static str],
}

/// Ours, and etcd's as far as they are there.
fn programs() -> Vec<Program> {
    let Some(own) = server_program() else { return Vec::new() };
    let mut programs = vec![Program { path: own, flags: &[] }];
    for name in ["REAL_ETCD_34", "REAL_ETCD_35"] {
        match std::env::var_os(name).map(PathBuf::from) {
            Some(folder) => {
                let flags = &["--enable-v2", "--logger", "zap"];
                programs.push(Program { path: folder.join("etcd"), flags });
            }
            None => println!("skipped: {name} is not set"),
        }
    }
    programs
}

/// Our other tool, which is built with the workspace beside this one.
fn other_tool() -> Option<PathBuf> {
    let path = ours().with_file_name("etcdutl");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not built", path.display());
    None
}

/// What a tool prints on both outputs, and its exit code.
fn run(tool: &Path, api: &str, words: &[&str]) -> (String, i32) {
    let mut command = Command::new(tool);
    if api == "2" {
        command.args(PATIENTLY);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(words).env_clear().env("PATH", path).env("ETCDCTL_API", api);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code().unwrap())
}

fn ask(server: &Server, api: &str, words: &[&str]) -> String {
    let endpoint = format!("http://127.0.0.1:{}", server.client_port);
    let at = if api == "2" { &["--no-sync", "--endpoints"][..] } else { &["--endpoints"] };
    let (said, _) = run(&ours(), api, &[at, &[&endpoint], words].concat());
    said.trim_end().to_owned()
}

/// A member that is started on a copy has the keys, and takes others.
fn check_starts(program: &Program, copy: &Path, with_v3: bool) {
    let here = format!("{} on {}", program.path.display(), copy.display());
    // A start changes what it starts on.
    let own = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(copy).arg(own.path().join("copy")).status();
    assert!(copied.unwrap().success());
    let folder = own.path().join("copy").display().to_string();
    let flags = [program.flags, &["--data-dir", &folder, "--force-new-cluster"]].concat();
    let server = Server::start_with(&program.path, &flags);
    let began = Instant::now();
    while ask(&server, "2", &["get", "/message"]) != "Hello" {
        assert!(began.elapsed() < EVENTUALLY, "{here}: {}", ask(&server, "2", &["ls"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&server, "2", &["get", "/dir/later"]), "2", "{here}");
    assert_eq!(ask(&server, "2", &["set", "/message", "again"]), "again", "{here}");
    let expected = if with_v3 { "v3\nvalue" } else { "" };
    assert_eq!(ask(&server, "3", &["get", "v3"]), expected, "{here}");
    assert_eq!(ask(&server, "3", &["put", "v3", "more"]), "OK", "{here}");
}

/// LEG-01, LEG-03, LEG-04, UTL-14: whoever's member it was, with both tools, with the v3 generation
/// and without.
#[test]
fn copies_of_every_member_start_everywhere() {
    let (programs, Some(other)) = (programs(), other_tool()) else { return };
    for source in &programs {
        let mut server = Server::start_with(&source.path, source.flags);
        assert_eq!(ask(&server, "2", &["set", "/message", "Hello"]), "Hello");
        assert_eq!(ask(&server, "2", &["set", "/dir/later", "1"]), "1");
        assert_eq!(ask(&server, "2", &["update", "/dir/later", "2"]), "2");
        assert_eq!(ask(&server, "3", &["put", "v3", "value"]), "OK");
        // The log tells that an entry is committed with one of the next.
        for _ in 0..3 {
            assert_eq!(ask(&server, "3", &["put", "later", "x"]), "OK");
        }
        server.stop();
        let data = server.folder.path().join("data").display().to_string();
        for (number, (tool, with_v3)) in
            [(&ours(), true), (&ours(), false), (&other, true), (&other, false)]
                .into_iter()
                .enumerate()
        {
            let copy = server.folder.path().join(format!("copy{number}"));
            let target = copy.display().to_string();
            let mut words = vec!["backup", "--data-dir", &data, "--backup-dir", &target];
            match (tool == &other, with_v3) {
                (false, true) => words.push("--with-v3"),
                (true, false) => words.push("--with-v3=false"),
                (false, false) | (true, true) => {}
            }
            // This dialect's flags of patience are not the other tool's.
            let api = if tool == &other { "3" } else { "2" };
            let (said, code) = run(tool, api, &words);
            assert_eq!(code, 0, "{words:?} of {}: {said}", source.path.display());
            for program in &programs {
                check_starts(program, &copy, with_v3);
            }
        }
    }
}

/// LEG-02, SEEDX-04, UTL-14: the other tool says what is wrong and what to do as well.
#[test]
fn the_other_tool_refuses_with_a_way_out() {
    let Some(other) = other_tool() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (none, full) = (path("none"), path("full"));
    let backup = |data: &str, target: &str| {
        run(&other, "3", &["backup", "--data-dir", data, "--backup-dir", target])
    };
    std::fs::create_dir_all(folder.path().join("full/member/snap/db")).unwrap();
    let (said, code) = backup(&none, &full);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("to be empty, got [\"db\"]"), "{said}");
    assert!(said.contains("\nhint: ") && said.contains("full-2"), "{said}");
    let (said, code) = backup(&none, &path("copy"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("\nhint: --data-dir must name the folder"), "{said}");
}
