//! The log of a real etcd, applied here, leads to the bytes that etcd wrote into its database.
//!
//! Needs `REAL_ETCD_35` and `REAL_ETCD_34` to name folders with `etcd` and `etcdctl` of these
//! releases; skipped without them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
#![allow(clippy::print_stdout, reason = "whoever runs it should know what was skipped")]

extern crate retcd_state as state;

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backend::{Backend, Bucket};
use base::{Index, LogPosition, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::raftpb::{Entry, EntryType};
use proto::walpb::Record;
use state::{Committed, Payload};
use support::Machine;

/// A running etcd of one member.
struct Etcd {
    programs: PathBuf,
    data: tempfile::TempDir,
    client_url: String,
    process: Process,
}

/// Ends with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Etcd {
    fn start(programs: &Path) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (client_url, peer_url) = (ports::free_url().unwrap(), ports::free_url().unwrap());
        let mut command = Command::new(programs.join("etcd"));
        command.arg("--data-dir").arg(data.path().join("d"));
        for (flag, value) in [
            ("--name", "m<0>"),
            ("--listen-client-urls", client_url.as_str()),
            ("--advertise-client-urls", client_url.as_str()),
            ("--listen-peer-urls", peer_url.as_str()),
            ("--initial-advertise-peer-urls", peer_url.as_str()),
            ("--initial-cluster", &format!("m<0>={peer_url}")),
        ] {
            command.arg(flag).arg(value);
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let process = Process(process);
        let etcd = Self { programs: programs.to_owned(), data, client_url, process };
        etcd.ctl(&["endpoint", "health", "--command-timeout=30s"], "");
        etcd
    }

    /// Runs etcdctl and returns what it prints; retried until the member serves.
    fn ctl(&self, arguments: &[&str], input: &str) -> String {
        let (output, done) = self.try_ctl(arguments, input);
        assert!(done, "etcdctl {arguments:?}: {output}");
        output
    }

    fn try_ctl(&self, arguments: &[&str], input: &str) -> (String, bool) {
        let mut child = Command::new(self.programs.join("etcdctl"))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.client_url, "--dial-timeout=30s"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    }

    /// Stops it as an operator does, which commits its database.
    fn stop(mut self) -> tempfile::TempDir {
        let id = self.process.0.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.process.0.wait().unwrap();
        self.data
    }
}

/// The entries of a log, in order. A later record replaces an earlier one of the same index.
fn entries(folder: &Path) -> BTreeMap<u64, Entry> {
    const ENTRY: i64 = 2;
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wal"));
    files.sort();
    let mut entries = BTreeMap::new();
    for file in files {
        let mut bytes = Bytes::from(fs::read(file).unwrap());
        while bytes.len() >= 8 {
            let head = u64::from_le_bytes(bytes.split_to(8)[..].try_into().unwrap());
            if head == 0 {
                break;
            }
            let padding = usize::try_from(head >> 56 & 7).unwrap();
            let record = bytes.split_to(usize::try_from(head & ((1 << 56) - 1)).unwrap());
            let _padding = bytes.split_to(padding);
            let record = Record::decode(record).unwrap();
            if record.r#type() == ENTRY {
                let entry = Entry::decode(record.data.unwrap()).unwrap();
                entries.insert(entry.index(), entry);
            }
        }
    }
    entries
}

fn committed(entry: &Entry) -> Committed {
    let data = entry.data.clone().unwrap_or_default();
    Committed {
        position: LogPosition { index: Index(entry.index()), term: Term(entry.term()) },
        payload: match entry.r#type() {
            EntryType::EntryNormal => Payload::Request(data),
            EntryType::EntryConfChange => Payload::MemberChange(data),
            EntryType::EntryConfChangeV2 => panic!("etcd writes none"),
        },
    }
}

fn exercise(etcd: &Etcd) {
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "")] {
        etcd.ctl(&["put", key, value], "");
    }
    etcd.ctl(&["del", "a", "c"], "");
    etcd.ctl(&["del", "nothing"], "");
    // Twice: the first takes the branch that puts, the second the one that deletes.
    for _ in 0..2 {
        etcd.ctl(&["txn"], "mod(\"t\") = \"0\"\n\nput t 1\nget c\nput a 5\n\ndel c d\nput t 2\n\n");
    }
    assert!(!etcd.try_ctl(&["put", "k", "v", "--lease=77"], "").1);
    let granted = etcd.ctl(&["lease", "grant", "600"], "");
    let lease = granted.split(' ').nth(1).unwrap().to_owned();
    let granted = etcd.ctl(&["lease", "grant", "1"], "");
    let revoked = granted.split(' ').nth(1).unwrap();
    for key in ["y", "x", "z"] {
        etcd.ctl(&["put", key, "leased", "--lease", revoked], "");
    }
    etcd.ctl(&["put", "kept", "leased", "--lease", &lease], "");
    etcd.ctl(&["put", "kept", "--ignore-lease", "again"], "");
    etcd.ctl(&["put", "z", "freed"], "");
    // The short one may have ended by itself by now, which is the same entry.
    etcd.try_ctl(&["lease", "revoke", revoked], "");
    etcd.ctl(&["compact", "5"], "");
    assert!(!etcd.try_ctl(&["compact", "4"], "").1);
    etcd.ctl(&["alarm", "disarm"], "");
    etcd.ctl(&["member", "add", "l", "--learner", "--peer-urls=http://127.0.0.1:1?a=1&b=<2>"], "");
    let members = etcd.ctl(&["member", "list"], "");
    let learner = members.lines().find(|line| line.ends_with("true")).unwrap();
    let learner = learner.split(',').next().unwrap();
    etcd.ctl(&["member", "update", learner, "--peer-urls=http://127.0.0.1:2"], "");
    etcd.ctl(&["member", "remove", learner], "");
    etcd.ctl(&["member", "add", "l", "--learner", "--peer-urls=http://127.0.0.1:2"], "");
    protect(etcd);
}

/// Users and roles, requests that are allowed and such that are not. Auth is left on.
fn protect(etcd: &Etcd) {
    let done = |command: &str| {
        let words: Vec<_> = command.split(' ').collect();
        etcd.ctl(&words, "");
    };
    for command in [
        "user add root:r",
        "user add alice:a",
        "user add bob:b",
        "user add carol --no-password",
        "role add root",
        "role add r1",
        "role add r2",
        "role add r3",
        "role grant-permission r1 readwrite k --prefix",
        "role grant-permission r1 read a",
        "role grant-permission r1 write z --from-key",
        "role grant-permission r1 write k kz",
        "role grant-permission r1 readwrite k kz",
        "role grant-permission r2 write b c",
        "role revoke-permission r1 a",
        "user grant-role alice r2",
        "user grant-role alice r1",
        "user grant-role bob r3",
        "user grant-role root root",
        "user grant-role carol r1",
        "user revoke-role carol r1",
        "role delete r3",
        "auth enable",
        "put k1 v --user alice:a",
        "put b v --user alice:a",
        "get k --prefix --user alice:a",
        "user delete bob --user root:r",
        "user add dave:d --user root:r",
        "put z v --user alice:a",
    ] {
        done(command);
    }
    for command in [
        "put c v --user alice:a",
        "put k1 v",
        "put z v --prev-kv --user alice:a",
        "user add eve:e --user alice:a",
        "user delete root --user root:r",
        "role add r1 --user root:r",
    ] {
        let words: Vec<_> = command.split(' ').collect();
        assert!(!etcd.try_ctl(&words, "").1, "{command}");
    }
}

/// Interop 3.2, 6.3, 6.4; KV-15..29, L-05, L-13, CB-61.
#[test]
fn the_log_of_etcd_3_5_leads_to_the_bytes_of_its_database() {
    // The last one is ours.
    let (_, buckets) = Bucket::ALL.split_last().unwrap();
    check("REAL_ETCD_35", buckets);
}

/// What 3.5 stores besides, 3.4 has in its log and its v2 store only.
#[test]
fn the_log_of_etcd_3_4_leads_to_the_bytes_of_its_database() {
    // Its users' passwords have a hash of their own on every member.
    let buckets = [
        Bucket::Alarm,
        Bucket::Auth,
        Bucket::AuthRoles,
        Bucket::Key,
        Bucket::Lease,
        Bucket::Members,
    ];
    check("REAL_ETCD_34", &buckets);
}

fn check(variable: &str, buckets: &[Bucket]) {
    let Some(programs) = std::env::var_os(variable).map(PathBuf::from) else {
        println!("skipped: {variable} names no folder with etcd");
        return;
    };
    let etcd = Etcd::start(&programs);
    exercise(&etcd);
    let data = etcd.stop();
    let member = data.path().join("d/member");

    let dir = vfs::OsDir::open(member.join("snap")).unwrap();
    let theirs = Backend::open(&dir, "db", &backend::Options::default()).unwrap();
    // A lone member that was stopped in order has applied all of its log. 3.4 stores how far only
    // together with keys, so its database may say less than it holds (interop 2.5).
    let log: Vec<_> = entries(&member.join("wal")).values().map(committed).collect();

    let mut machine = Machine::new();
    machine.state.apply(&log, &mut Vec::new()).unwrap();
    while machine.state.compact_step().unwrap() != mvcc::CompactStep::Idle {}
    assert!(theirs.applied().index <= machine.state.applied().index);
    let (theirs, ours) = (support::contents(&theirs), machine.contents());
    for bucket in buckets {
        let rows = |all: &[(Bucket, Bytes, Bytes)]| -> Vec<(Bytes, Bytes)> {
            let rows = all.iter().filter(|(at, _, _)| at == bucket);
            rows.map(|(_, key, value)| (key.clone(), value.clone())).collect()
        };
        assert_eq!(rows(&ours), rows(&theirs), "bucket {}", bucket.name());
        let used = matches!(bucket, Bucket::Key | Bucket::Lease | Bucket::Members);
        assert!(!used || !rows(&theirs).is_empty(), "bucket {} was not exercised", bucket.name());
    }
}
