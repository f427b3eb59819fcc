//! What published documents show of the second generation's tool (features 10.1 and 10.3): their
//! command lines, and what they show. The same lines run with etcd 3.4's own programs where
//! `REAL_ETCD_34` names their folder, as the control.
//!
//! Documents collapse blanks, and the numbers of theirs depend on what was there before: both are
//! compared without.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::script::parse;
use support::server::Server;
use support::v2::{PATIENTLY, ours, server_program};

/// How long something may take that must happen.
const EVENTUALLY: Duration = Duration::from_secs(120);

/// A tool and its server, and whether they are ours.
struct Side {
    tool: PathBuf,
    server_program: PathBuf,
    server: Server,
    is_ours: bool,
}

/// Ours, and the control if it is there.
fn sides() -> Vec<Side> {
    let Some(program) = server_program() else { return Vec::new() };
    let server = Server::start(&program);
    let mut sides = vec![Side { tool: ours(), server_program: program, server, is_ours: true }];
    if let Some(folder) = std::env::var_os("REAL_ETCD_34").map(PathBuf::from) {
        let program = folder.join("etcd");
        let server = Server::start_with(&program, CONTROL);
        let tool = folder.join("etcdctl");
        sides.push(Side { tool, server_program: program, server, is_ours: false });
    }
    sides
}

const CONTROL: &[&str] = &["--enable-v2", "--logger", "zap"];

impl Side {
    fn command(&self, api: &str, words: &[String]) -> Command {
        let mut command = Command::new(&self.tool);
        // Whoever removes a member without a quorum gets no answer, however long it is waited for.
        if api == "2" && !words.iter().any(|word| word == "remove") {
            command.args(PATIENTLY);
        }
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ETCDCTL_ENDPOINTS", format!("http://127.0.0.1:{}", self.server.client_port))
            .stdin(Stdio::null())
            .current_dir(self.server.folder.path());
        if !api.is_empty() {
            command.env("ETCDCTL_API", api);
        }
        if words.iter().any(|word| word.starts_with("--endpoints")) {
            command.env_remove("ETCDCTL_ENDPOINTS");
        }
        command
    }

    /// What a line prints on both outputs, as a document shows it, and its exit code.
    fn run_as(&self, api: &str, line: &str) -> (String, i32) {
        let line = parse(&self.expand(line)).remove(0);
        let output = self.command(api, &line.words).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (as_shown(&String::from_utf8(text).unwrap()), output.status.code().unwrap())
    }

    fn run(&self, line: &str) -> (String, i32) {
        self.run_as("2", line)
    }

    fn expand(&self, text: &str) -> String {
        text.replace("$DIR", &self.server.folder.path().display().to_string())
            .replace("$PORT", &self.server.client_port.to_string())
            .replace("$PEER", &self.server.peer_port.to_string())
    }

    fn spawn(&self, line: &str) -> Child {
        let line = parse(&self.expand(line)).remove(0);
        let mut command = self.command("2", &line.words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// One blank instead of several, and no index.
fn as_shown(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((before, index)) = line.rsplit_once('[')
            && index
                .strip_suffix(']')
                .is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_digit()))
        {
            line = format!("{before}[N]");
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < EVENTUALLY, "{what}: it never happened");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Row, command line, what it prints, exit code.
const ROWS: &[(&str, &str, &str, i32)] = &[
    ("SEED0-21", "set testkey 1", "1", 0),
    ("SEED0-21", "set /cluster1/node2/testkey 2", "2", 0),
    (
        "SEED0-21",
        "ls --sort --recursive -p",
        "/cluster1/\n/cluster1/node2/\n/cluster1/node2/testkey\n/testkey",
        0,
    ),
    ("SEED0-22", "set -ttl 0 testkey 3", "3", 0),
    ("SEED0-22", "set --swap-with-value 3 testkey 4", "4", 0),
    (
        "SEED0-22",
        "set --swap-with-value 3 testkey 5",
        "Error: 101: Compare failed ([3 != 4]) [N]",
        4,
    ),
    ("SEED0-22", "set --swap-with-index 0 testkey 5", "5", 0),
    ("SEED0-22", "rm testkey", "PrevNode.Value: 5", 0),
    ("SEED0-22", "rm --recursive cluster1", "", 0),
    ("SEED0-30", "mk /test/key \"Hello world\"", "Hello world", 0),
    (
        "SEED0-31",
        "mk /test/key \"Hello world\"",
        "Error: 105: Key already exists (/test/key) [N]",
        4,
    ),
    ("SEED0-32", "mkdir dir2", "", 0),
    ("SEED0-33", "mkdir dir2", "Error: 105: Key already exists (/dir2) [N]", 4),
    ("SEED0-34", "setdir dir3", "", 0),
    ("SEED0-35", "setdir dir3", "Error: 102: Not a file (/dir3) [N]", 4),
    ("SEED0-36", "updatedir dir2", "", 0),
    ("SEED0-36", "updatedir dir2", "", 0),
    ("SEED0-37", "rmdir dir2", "", 0),
    ("SEED0-37", "rmdir dir2", "Error: 100: Key not found (/dir2) [N]", 4),
    ("SEED0-38", "set /dir/key hi", "hi", 0),
    ("SEED0-39", "rmdir /dir", "Error: 108: Directory not empty (/dir) [N]", 4),
    ("SEED0-40", "ls --sort", "/dir\n/dir3\n/test", 0),
    ("SEED0-41", "ls test", "/test/key", 0),
    ("SEED0-42", "ls --sort --recursive -p", "/dir/\n/dir/key\n/dir3/\n/test/\n/test/key", 0),
    ("SEED0-29", "rm dir3", "Error: 102: Not a file (/dir3) [N]", 4),
    ("SEED0-29", "rm --dir dir3", "", 0),
    (
        "SEED0-29",
        "rm --with-value no test/key",
        "Error: 101: Compare failed ([no != Hello world]) [N]",
        4,
    ),
    ("SEED0-29", "rm --with-index 0 test/key", "PrevNode.Value: Hello world", 0),
    ("SEED0-29", "rm --recursive dir", "", 0),
];

/// SEED0-21, SEED0-22, SEED0-29 to SEED0-42.
#[test]
fn keys_and_directories_are_as_shown() {
    for side in sides() {
        for (row, line, expected, code) in ROWS {
            let said = side.run(line);
            assert_eq!(said, ((*expected).to_owned(), *code), "{row}: {line}");
        }
    }
}

/// SEED0-23 to SEED0-28, SEED2-05.
#[test]
fn keys_live_as_long_as_shown() {
    for side in sides() {
        let is = |row: &str, line: &str, expected: &str| {
            assert_eq!(side.run(line).0, expected, "{row}: {line}");
        };
        let gone = "Error: 100: Key not found (/key) [N]";
        is("SEED0-23", "set --ttl 5 key \"Hello world\"", "Hello world");
        is("SEED0-24", "get key", "Hello world");
        eventually("SEED0-25", || side.run("get key") == (gone.to_owned(), 4));
        is("SEED0-26", "set --ttl 2 key \"Hello world\"", "Hello world");
        is("SEED0-26", "update key \"Hello world2\"", "Hello world2");
        // When this one is gone, the other would be too if it still could.
        is("SEED0-26", "set --ttl 2 later x", "x");
        eventually("SEED0-26", || side.run("get later").1 == 4);
        is("SEED0-26", "get key", "Hello world2");
        is("SEED0-27", "rm key", "PrevNode.Value: Hello world2");
        is("SEED0-28", "rm key", gone);
    }
}

/// SEED0-20, SEED0-56, SEED2-03.
#[test]
fn help_and_version_are_as_shown() {
    for side in sides() {
        let (help, code) = side.run("-h");
        assert_eq!(code, 0);
        for part in ["NAME:", "USAGE:", "COMMANDS:", "GLOBAL OPTIONS:", "exec-watch", "backup"] {
            assert!(help.contains(part), "SEED0-20: {part}");
        }
        assert!(help.contains("http://127.0.0.1:2379,http://127.0.0.1:4001"), "SEED2-03");
        // Ours says so without being asked for this dialect.
        let (version, code) = side.run_as(if side.is_ours { "" } else { "2" }, "-v");
        assert!(version.starts_with("etcdctl version: 3."), "SEED0-56: {version}");
        assert!(version.ends_with("\nAPI version: 2"), "SEED0-56: {version}");
        assert_eq!(code, 0);
    }
}

fn without_time(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| match line.split_once(" I | ") {
        Some((_, text)) => text.to_owned(),
        None => line.to_owned(),
    });
    lines.collect()
}

/// SEED0-43 to SEED0-45, LEG-01, LEG-02, LEG-04.
#[test]
fn backup_of_a_running_member_is_as_shown_and_starts() {
    for side in sides() {
        assert_eq!(side.run("set /message Hello").0, "Hello");
        let folder = side.server.folder.path();
        fs::create_dir_all(folder.join("full/member/snap")).unwrap();
        fs::write(folder.join("full/member/snap/db"), "x").unwrap();
        let (said, code) = side.run("backup --data-dir data --backup-dir $DIR/full");
        let snap = folder.join("full/member/snap").display().to_string();
        let expected = format!(
            "failed creating backup snapshot dir {snap}: expected \"{snap}\" to be empty, got [\"db\"]"
        );
        // etcd complains of the folder's mode first.
        assert_eq!(without_time(&said).last(), Some(&expected), "SEED0-43");
        assert_eq!(code, 1, "SEED0-43");

        let (said, code) = side.run("backup --data-dir data --backup-dir $DIR/backup");
        assert_eq!(code, 0, "SEED0-44: {said}");
        let mut told = without_time(&said);
        // Ours has some from the start.
        told.retain(|line| line != "ignoring v3 raft entry");
        told.dedup();
        assert_eq!(told[0], "ignoring EntryConfChange raft entry", "SEED0-44: {said}");
        let attributes = "ignoring member attribute update on /0/members/";
        assert!(told[1].starts_with(attributes) && told[1].ends_with("/attributes"), "{said}");
        let mode = fs::metadata(folder.join("backup/member")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "SEED0-45");
        starts_on(&side, &folder.join("backup"));
    }
}

/// A member that is started on the copy has the key.
fn starts_on(side: &Side, folder: &Path) {
    let folder = folder.display().to_string();
    let mut flags = vec!["--data-dir", &folder, "--force-new-cluster"];
    if !side.is_ours {
        flags.extend(CONTROL);
    }
    let server = Server::start_with(&side.server_program, &flags);
    let endpoint = format!("http://127.0.0.1:{}", server.client_port);
    eventually("the copy answers", || {
        side.run(&format!("--no-sync --endpoints {endpoint} get /message")).0 == "Hello"
    });
    let said = side.run(&format!("--no-sync --endpoints {endpoint} set /message again"));
    assert_eq!(said.0, "again");
}

/// LEG-01, LEG-04. A copy that our tool makes of etcd 3.4's member starts there as well, and one
/// with the v3 generation's data has it.
#[test]
fn backup_of_etcds_member_starts_on_both() {
    let mut sides = sides();
    if sides.len() < 2 {
        println!("skipped: REAL_ETCD_34 is not set");
        return;
    }
    let (control, our_side) = (sides.pop().unwrap(), sides.pop().unwrap());
    assert_eq!(control.run("set /message Hello").0, "Hello");
    assert_eq!(control.run_as("3", "put v3 value").0, "OK");
    let data = control.server.folder.path().join("data").display().to_string();
    for (name, side) in [("ours", &our_side), ("theirs", &control)] {
        let target = our_side.server.folder.path().join(name);
        let line = format!("backup --data-dir {data} --backup-dir {}", target.display());
        let (said, code) = our_side.run(&line);
        assert_eq!(code, 0, "{said}");
        starts_on(side, &target);
    }
}

/// LEG-03.
#[test]
fn backup_with_v3_has_the_keys_of_both() {
    for mut side in sides() {
        assert_eq!(side.run("set /message Hello").0, "Hello");
        assert_eq!(side.run_as("3", "put v3 value").0, "OK");
        // The log tells that an entry is committed with one of the next.
        for _ in 0..3 {
            assert_eq!(side.run_as("3", "put later x").0, "OK");
        }
        side.server.stop();
        let (said, code) = side.run("backup --with-v3 --data-dir data --backup-dir $DIR/backup");
        assert_eq!(code, 0, "{said}");
        let folder = side.server.folder.path().join("backup").display().to_string();
        let mut flags = vec!["--data-dir", &folder, "--force-new-cluster"];
        if !side.is_ours {
            flags.extend(CONTROL);
        }
        let server = Server::start_with(&side.server_program, &flags);
        let endpoint = format!("http://127.0.0.1:{}", server.client_port);
        eventually("the copy answers", || {
            side.run(&format!("--no-sync --endpoints {endpoint} get /message")).0 == "Hello"
        });
        let said = side.run_as("3", &format!("--endpoints {endpoint} get v3"));
        assert_eq!(said, ("v3\nvalue".to_owned(), 0));
    }
}

/// SEED0-46.
#[test]
fn watch_prints_the_change_and_exec_watch_runs_a_command() {
    for side in sides() {
        let mut child = side.spawn("watch key");
        eventually("SEED0-46: watch ends", || {
            side.run("set key changed");
            child.try_wait().unwrap().is_some()
        });
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"changed\n");
        assert!(output.status.success());

        // The original runs nothing in the order that documents show.
        let line = if side.is_ours {
            "exec-watch key sh -c \"echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE > ran\""
        } else {
            "exec-watch --recursive key -- sh -c \"echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY \
             $ETCD_WATCH_VALUE > ran\""
        };
        let mut child = side.spawn(line);
        let ran = side.server.folder.path().join("ran");
        eventually("SEED0-46: exec-watch runs", || {
            side.run("set key changed");
            fs::read_to_string(&ran).is_ok_and(|text| text == "set /key changed\n")
        });
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "SEED0-46");
    }
}

/// SEED0-47, SEEDX-01.
#[test]
fn wrong_dialect_is_told_as_shown_and_ours_names_the_variable() {
    for side in sides() {
        let (said, code) = side.run_as("3", "set key \"Hello world\"");
        assert_eq!(code, 1);
        for part in
            ["Error: unknown command \"set\" for \"etcdctl\"", "Did you mean this?", "\nput\n"]
        {
            assert!(said.contains(part), "SEED0-47: {said}");
        }
        if !side.is_ours {
            continue;
        }
        assert!(said.contains("ETCDCTL_API=3") && said.contains("ETCDCTL_API=2"), "{said}");
        // Without the variable both are understood.
        assert_eq!(side.run_as("", "set /message Hello"), ("Hello".to_owned(), 0));
        let (said, code) = side.run_as("", "get /message");
        assert_eq!(code, 0);
        assert!(said.contains("ETCDCTL_API=2 etcdctl get /message"), "{said}");
        assert_eq!(side.run_as("3", "get /message"), (String::new(), 0));
        assert_eq!(side.run_as("", "put /message v3").0, "OK");
        assert_eq!(side.run_as("", "get /message").0, "/message\nv3");
        assert_eq!(side.run_as("2", "get /message").0, "Hello");
        let (said, code) = side.run_as("2", "put a b");
        assert_eq!(code, 3);
        assert!(said.contains("ETCDCTL_API=3 etcdctl put"), "{said}");
        let (said, code) =
            side.run_as("", "backup --data-dir $DIR/none --backup-dir $DIR/other --wal-dir data");
        assert_eq!(code, 1, "{said}");
    }
}

/// SEED0-48 to SEED0-50.
#[test]
fn members_are_shown_added_and_not_removed_as_shown() {
    for side in sides() {
        let (said, code) = side.run("member list");
        assert_eq!(code, 0);
        let (id, rest) = said.split_once(": ").unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "SEED0-48: {said}");
        let expected = side.expand(
            "name=s1 peerURLs=http://127.0.0.1:$PEER clientURLs=http://127.0.0.1:$PORT \
             isLeader=true",
        );
        assert_eq!(rest, expected, "SEED0-48");
        let (said, code) = side.run("member add etcd3 http://127.0.0.1:1");
        assert_eq!(code, 0, "SEED0-50: {said}");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("Added member named etcd3 with ID "), "SEED0-50: {said}");
        assert!(lines[0].ends_with(" to cluster"), "SEED0-50: {said}");
        assert_eq!(lines[1..3], ["", "ETCD_NAME=\"etcd3\""], "SEED0-50");
        assert!(lines[3].contains("etcd3=http://127.0.0.1:1"), "SEED0-50: {said}");
        assert_eq!(lines[4], "ETCD_INITIAL_CLUSTER_STATE=\"existing\"", "SEED0-50");
        let (said, code) = side.run(&format!("member remove {id}"));
        assert_eq!(code, 1, "SEED0-49");
        let start = format!(
            "Received an error trying to remove member {id}: client: etcd cluster is unavailable or \
             misconfigured; error #0: client: e"
        );
        assert!(said.starts_with(&start), "SEED0-49: {said}");
        let ends = ["has no leader", "exceeded header timeout"];
        assert!(ends.iter().any(|end| said.ends_with(end)), "SEED0-49: {said}");
    }
}

/// SEED0-60.
#[test]
fn keys_of_the_third_generation_are_listed_as_shown() {
    for side in sides() {
        for key in ["/a", "/b"] {
            assert_eq!(side.run_as("3", &format!("put {key} x")).0, "OK");
        }
        let line = parse(&side.expand("get / --prefix --keys-only --endpoints=127.0.0.1:$PORT"));
        let output = side.command("3", &line[0].words).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "/a\n\n/b\n\n", "SEED0-60");
    }
}

/// SEED1-24: as printed it is no command; ours names the one that is meant.
#[test]
fn a_command_without_its_first_word_is_refused_and_ours_names_it() {
    for side in sides() {
        let (said, code) = side.run_as("3", "keep-alive 2be7547fbc6a5afa");
        assert_eq!(code, 1, "SEED1-24: {said}");
        assert!(said.contains("unknown command \"keep-alive\" for \"etcdctl\""), "{said}");
        let hint = "hint: the command is \"etcdctl lease keep-alive\"";
        assert_eq!(said.contains(hint), side.is_ours, "SEED1-24: {said}");
        let (granted, _) = side.run_as("3", "lease grant 300");
        let id = granted.split(' ').nth(1).unwrap();
        let (said, code) = side.run_as("3", &format!("lease keep-alive --once {id}"));
        assert_eq!((said, code), (format!("lease {id} keepalived with TTL(300)"), 0));
    }
}

/// SEED3-04: a key that ends in a slash is a key, not a directory.
#[test]
fn a_key_without_prefix_is_only_itself() {
    for side in sides() {
        assert_eq!(side.run_as("3", "put /var/a x").0, "OK");
        assert_eq!(side.run_as("3", "get /var/ --keys-only"), (String::new(), 0), "SEED3-04");
        assert_eq!(side.run_as("3", "get /var/ --prefix --keys-only").0.trim_end(), "/var/a");
    }
}

/// SEED0-62, SEED1-27, SEED2-07, but for TLS and several members: see `v2_more` and the server's
/// tests. Old versions, transactions, directories, queues, comparing, waiting, ends, elections,
/// locks; by HTTP with JSON and by gRPC.
#[test]
fn what_documents_claim_is_there() {
    for side in sides() {
        let is = |api: &str, line: &str, expected: &str| {
            assert_eq!(side.run_as(api, line).0, expected, "{line}");
        };
        // Directories and queues.
        is("2", "mkdir /queue", "");
        is("2", "mk --in-order /queue one", "one");
        is("2", "mk --in-order /queue two", "two");
        let (list, _) = side.run("ls --sort /queue");
        let keys: Vec<&str> = list.lines().collect();
        assert_eq!(keys.len(), 2, "{list}");
        is("2", &format!("get {}", keys[0]), "one");
        // Comparing and ends: the rest is in the rows above.
        is("2", "set --ttl 100 /a 1", "1");
        is("2", "set --swap-with-value 1 /a 2", "2");
        // Old versions.
        is("3", "put /k old", "OK");
        let (json, _) = side.run_as("3", "get /k -w json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let revision = json["header"]["revision"].as_u64().unwrap();
        is("3", "put /k new", "OK");
        is("3", &format!("get /k --rev={revision}"), "/k\nold");
        // Several keys at once.
        let mut txn = side.command("3", &["txn".to_owned()]);
        let mut child = txn.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let questions = "value(\"/k\") = \"new\"\n\nput /m 1\nput /n 2\n\nput /m 0\n\n";
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), questions.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = as_shown(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(said, "SUCCESS\n\nOK\n\nOK");
        is("3", "get /n", "/n\n2");
        // A lock is held while a command runs; an election knows who leads.
        is("3", "lock mutex echo locked", "locked");
        let words = ["elect", "election", "candidate"].map(str::to_owned);
        let mut elect = side.command("3", &words);
        let mut elected = elect.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("somebody is elected", || {
            side.run_as("3", "get election/ --prefix").0.ends_with("\ncandidate")
        });
        elected.kill().unwrap();
        elected.wait().unwrap();
    }
}

/// SEEDX-04, VER-02: messages with cause and remedy where no dialect is asked for.
#[test]
fn hints_are_given_where_no_dialect_is_asked_for() {
    let Some(side) = sides().into_iter().next() else { return };
    let (said, _) = side.run_as("2", "member list");
    let id = said.split(':').next().unwrap().to_owned();
    let (said, code) = side.run_as("", &format!("member remove {id}"));
    assert_eq!(code, 1);
    assert!(said.contains("hint:") && said.contains("is the only voting member"), "{said}");
    let (said, _) = side.run_as("3", &format!("member remove {id}"));
    assert!(!said.contains("hint:"), "{said}");
    fs::create_dir_all(side.server.folder.path().join("full/member/snap/db")).unwrap();
    let (said, code) = side.run_as("", "backup --data-dir data --backup-dir $DIR/full");
    assert_eq!(code, 1);
    assert!(said.contains("hint:") && said.contains("full-2"), "{said}");
    let (said, _) = side.run_as("", "member add etcd3 --peer-urls=http://127.0.0.1:1");
    assert!(said.contains("until etcd3 is started"), "{said}");
    let (said, _) = side.run_as("", "member add etcd4 --peer-urls=http://127.0.0.1:2");
    assert!(!said.is_empty());
}
