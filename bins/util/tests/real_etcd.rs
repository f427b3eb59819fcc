//! Snapshots and directories go between etcd 3.5, its tools, and ours.
//!
//! Needs `REAL_ETCD_35`; what concerns our server needs it built beside `etcdutl`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test tells what it skips")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use proto::{raftpb, snappb};
use retcd_conformance::{Server, ServerOptions, real_etcd};
use serde_json::Value;
use support::{etcdutl, log, read_only, rows, run};

/// etcd's programs.
struct Real(PathBuf);

impl Real {
    fn find() -> Option<Self> {
        real_etcd("3.5").map(Self)
    }

    fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }

    /// Runs `etcdctl` against a server; gives its output.
    fn ctl(&self, server: &Server, arguments: &[&str]) -> String {
        let endpoint = server.endpoint();
        let all = [&["--endpoints", &endpoint], arguments].concat();
        run(&self.0.join("etcdctl"), Path::new("/"), &all).ok().stdout
    }

    /// Runs `etcdutl`; gives its output.
    fn utl(&self, folder: &Path, arguments: &[&str]) -> String {
        run(&self.0.join("etcdutl"), folder, arguments).ok().stdout
    }

    /// Keys with a history, a lease, a role; a snapshot of it in `folder/snapshot`.
    fn fill(&self, server: &Server, folder: &Path) -> Contents {
        let long = "x".repeat(10_000);
        for number in 0..120 {
            let key = format!("key/{:02}", number % 40);
            let value = if number % 50 == 7 { long.clone() } else { format!("value {number}") };
            self.ctl(server, &["put", &key, &value]);
        }
        self.ctl(server, &["del", "key/10", "key/20"]);
        self.ctl(server, &["lease", "grant", "10000"]);
        // A server without auth refuses, and then there is no role to be kept.
        let role = ["--endpoints", &server.endpoint(), "role", "add", "reader"];
        run(&self.0.join("etcdctl"), Path::new("/"), &role);
        self.ctl(server, &["compaction", "60"]);
        self.ctl(server, &["put", "last", "one"]);
        let path = folder.join("snapshot");
        self.ctl(server, &["snapshot", "save", path.to_str().unwrap()]);
        self.contents(server)
    }

    fn contents(&self, server: &Server) -> Contents {
        Contents {
            kvs: json(&self.ctl(server, &["get", "", "--prefix", "-w", "json"]))["kvs"].clone(),
            hash:
                json(&self.ctl(server, &["endpoint", "hashkv", "-w", "json"]))[0]["HashKV"]["hash"]
                    .clone(),
            leases: self.ctl(server, &["lease", "list"]),
        }
    }
}

/// What a server serves.
#[derive(Debug, PartialEq)]
struct Contents {
    kvs: Value,
    hash: Value,
    leases: String,
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Our server, if it was built beside `etcdutl`.
fn ours() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_etcdutl")).with_file_name("etcd");
    if !path.is_file() {
        println!("skipped: our server is not built beside etcdutl");
        return None;
    }
    Some(path)
}

fn start(program: &Path, folder: &Path) -> Server {
    Server::start(program, folder, ServerOptions::default()).unwrap()
}

/// A snapshot of a filled server.
struct Taken {
    folder: tempfile::TempDir,
    contents: Contents,
}

fn taken_from(real: &Real, program: &Path) -> Taken {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(program, &folder.path().join("source"));
    let contents = real.fill(&server, folder.path());
    server.stop().unwrap();
    Taken { folder, contents }
}

/// Restores with our tool, or theirs, and starts `program` on the result.
fn restored(taken: &Taken, name: &str, by: Option<&Real>, program: &Path) -> Server {
    let home = taken.folder.path().join(name);
    fs::create_dir(&home).unwrap();
    let arguments = ["snapshot", "restore", "../snapshot", "--data-dir", "data"];
    match by {
        None => drop(etcdutl(&home, &arguments).ok()),
        Some(real) => drop(real.utl(&home, &arguments)),
    }
    start(program, &home)
}

/// UTL-04: the four columns that 3.5 has, of which it counts rows instead of keys.
#[test]
fn status_equals_theirs() {
    let Some(real) = Real::find() else { return };
    let Taken { folder, .. } = taken_from(&real, &real.etcd());
    let theirs = real.utl(folder.path(), &["snapshot", "status", "snapshot"]);
    let ours = etcdutl(folder.path(), &["snapshot", "status", "snapshot"]).ok().stdout;
    let theirs: Vec<_> = theirs.trim_end().split(", ").collect();
    let ours: Vec<_> = ours.trim_end_matches('\n').split(", ").collect();
    assert_eq!((ours[0], ours[1], ours[3], ours[4]), (theirs[0], theirs[1], theirs[3], ""));
    // 40 keys of which 10 are deleted, and the last one.
    assert_eq!(ours[2], "31");
}

/// UTL-05, U6: what we restore is what they restore.
#[test]
fn restored_directory_equals_theirs() {
    let Some(real) = Real::find() else { return };
    let Taken { folder, .. } = taken_from(&real, &real.etcd());
    let cluster = "a=http://h:1,b=http://h:2,c=http://h:3";
    let arguments = |dir: &'static str| {
        let own = ["--name", "b", "--initial-advertise-peer-urls", "http://h:2"];
        let all =
            ["snapshot", "restore", "snapshot", "--data-dir", dir, "--initial-cluster", cluster];
        [&all[..], &own[..]].concat()
    };
    real.utl(folder.path(), &arguments("theirs"));
    etcdutl(folder.path(), &arguments("ours")).ok();
    let member = |dir: &str| folder.path().join(dir).join("member");

    let all_rows = |dir: &str| {
        let mut rows = rows(&member(dir).join("snap/db"));
        // Theirs is still that of the old cluster.
        rows.retain(|(_, key, _)| key != b"confState");
        rows
    };
    assert_eq!(all_rows("ours"), all_rows("theirs"));

    let log_of = |dir: &str| {
        let mut replay = log(&member(dir).join("wal"), false);
        for entry in &mut replay.entries {
            // 3.7 leaves out the change's id, which is 0.
            let mut change = raftpb::ConfChange::decode(entry.data.clone()).unwrap();
            change.id = Some(change.id());
            entry.data = change.encode_to_vec().into();
        }
        replay
    };
    assert_eq!(log_of("ours"), log_of("theirs"));

    let snapshot_of = |dir: &str| {
        let path = member(dir).join("snap/0000000000000001-0000000000000003.snap");
        let outer = snappb::Snapshot::decode(&fs::read(path).unwrap()[..]).unwrap();
        let mut inner = raftpb::Snapshot::decode(outer.data.unwrap()).unwrap();
        let store = json(str::from_utf8(&inner.data.take().unwrap()).unwrap());
        (inner.metadata.unwrap(), leaves(&store["Root"]))
    };
    assert_eq!(snapshot_of("ours"), snapshot_of("theirs"));
}

/// Paths and values of a v2 store; numbers differ, since it counted what we did not do.
fn leaves(node: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all = vec![(text(&node["Path"]), text(&node["Value"]))];
    for child in node["Children"].as_object().into_iter().flat_map(|children| children.values()) {
        all.extend(leaves(child));
    }
    all.sort();
    all
}

/// UTL-17, U6.
#[test]
fn their_server_starts_on_what_we_restore() {
    let Some(real) = Real::find() else { return };
    let taken = taken_from(&real, &real.etcd());
    let server = restored(&taken, "theirs", None, &real.etcd());
    assert_eq!(real.contents(&server), taken.contents);
    real.ctl(&server, &["put", "more", "keys"]);
}

/// UTL-17, CB-69, U5.
#[test]
fn our_server_starts_on_what_either_restores() {
    let (Some(real), Some(ours)) = (Real::find(), ours()) else { return };
    let taken = taken_from(&real, &real.etcd());
    for (name, tool) in [("by-ours", None), ("by-theirs", Some(&real))] {
        let server = restored(&taken, name, tool, &ours);
        assert_eq!(real.contents(&server), taken.contents, "{name}");
        real.ctl(&server, &["put", "more", "keys"]);
    }
}

/// UTL-17, U6: our snapshot in their tools, and our own.
#[test]
fn snapshot_of_our_server_is_theirs_too() {
    let (Some(real), Some(ours)) = (Real::find(), ours()) else { return };
    let taken = taken_from(&real, &ours);
    let folder = taken.folder.path();
    let theirs = real.utl(folder, &["snapshot", "status", "snapshot"]);
    let own = etcdutl(folder, &["snapshot", "status", "snapshot"]).ok().stdout;
    let column = |text: &str, at: usize| text.trim_end().split(", ").nth(at).unwrap().to_owned();
    for at in [0, 1, 3] {
        assert_eq!(column(&own, at), column(&theirs, at));
    }
    for (name, tool) in [("by-ours", None), ("by-theirs", Some(&real))] {
        let server = restored(&taken, name, tool, &ours);
        assert_eq!(real.contents(&server), taken.contents, "{name}");
    }
}

/// UTL-07: as etcd's own tests of it look at it.
#[test]
fn bumped_revision_is_compacted_everywhere() {
    let Some(real) = Real::find() else { return };
    let taken = taken_from(&real, &real.etcd());
    let home = taken.folder.path().join("bumped");
    fs::create_dir(&home).unwrap();
    let arguments = ["snapshot", "restore", "../snapshot", "--data-dir", "data"];
    let bump = ["--bump-revision", "1000", "--mark-compacted"];
    etcdutl(&home, &[&arguments[..], &bump[..]].concat()).ok();
    for program in [Some(real.etcd()), ours()].into_iter().flatten() {
        let mut server = start(&program, &home);
        let got = json(&real.ctl(&server, &["get", "", "--prefix", "-w", "json"]));
        assert_eq!(got["kvs"], taken.contents.kvs, "{}", program.display());
        assert!(got["header"]["revision"].as_i64().unwrap() > 1000);
        let endpoint = server.endpoint();
        let old = ["--endpoints", &endpoint, "get", "last", "--rev", "100"];
        let said = run(&real.0.join("etcdctl"), Path::new("/"), &old);
        assert!(said.stderr.contains("required revision has been compacted"), "{said:?}");
        server.stop().unwrap();
    }
}

/// UTL-11, UTL-10: they take what we made smaller, and both tools hash alike.
#[test]
fn their_directory_survives_our_defragmentation() {
    let Some(real) = Real::find() else { return };
    let Taken { folder, contents } = taken_from(&real, &real.etcd());
    let source = folder.path().join("source");
    let path = source.join("data/member/snap/db");
    let before = read_only(&path).sizes().unwrap();
    etcdutl(&source, &["defrag", "--data-dir", "data"]).ok();
    let after = read_only(&path).sizes().unwrap();
    assert!(after.total <= before.total && after.total == after.in_use);
    let hash = etcdutl(&source, &["hashkv", "data/member/snap/db"]).ok().stdout;
    assert_eq!(hash.split(',').next().unwrap(), contents.hash.to_string());
    real.utl(&source, &["defrag", "--data-dir", "data"]);
    let server = start(&real.etcd(), &source);
    assert_eq!(real.contents(&server), contents);
}

/// UTL-12: the log of 3.5 holds requests of the v2 store, which no version minds.
#[test]
fn their_directory_goes_up_and_back() {
    let Some(real) = Real::find() else { return };
    let Taken { folder, contents } = taken_from(&real, &real.etcd());
    let source = folder.path().join("source");
    for (target, expected) in [("3.7", "\"3.7.0\""), ("3.5", "\"3.5.0\"")] {
        let command = ["migrate", "--data-dir", "data", "--target-version", target];
        let said = etcdutl(&source, &command).ok();
        let updated =
            format!("\tupdated storage version\t{{\"new-storage-version\": {expected}}}\n");
        assert!(said.stderr.contains(&updated), "{said:?}");
    }
    let server = start(&real.etcd(), &source);
    assert_eq!(real.contents(&server), contents);
}
