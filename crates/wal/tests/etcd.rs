//! Logs that real etcd wrote: read whole, and written again byte for byte.
//!
//! Needs the folder that holds the program `etcd` in `REAL_ETCD_35` or `REAL_ETCD_34`; without it
//! a test says so and passes.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::zombie_processes, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::newest;
use prost::Message as _;
use proto::{etcdserverpb, raftpb, walpb};
use raft::EntryKind;
use retcd_wal::{Replay, Wal, read};
use vfs::OsDir;

const KEYS: usize = 60;

struct Etcd {
    process: Child,
    client: u16,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // As a crash: nothing is closed.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn start(program: &Path, folder: &Path) -> Etcd {
    let (client, peer) = (ports::free().unwrap(), ports::free().unwrap());
    let client_url = format!("http://127.0.0.1:{client}");
    let peer_url = format!("http://127.0.0.1:{peer}");
    let process = Command::new(program)
        .args(["--name", "m0", "--snapshot-count", "20", "--data-dir"])
        .arg(folder)
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--initial-cluster", &format!("m0={peer_url}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Etcd { process, client }
}

fn post(port: u16, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// Writes keys whose values have very different lengths.
fn put_keys(etcd: &Etcd) {
    for nth in 0..KEYS {
        // Four digits are the base64 of three bytes.
        let key = format!("{nth:04}");
        let value = "AAAA".repeat(1 + nth * nth);
        let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
        // The server starts meanwhile; its answer is what is waited for.
        let answered = (0..3000).any(|_| {
            let answered = post(etcd.client, "/v3/kv/put", &body).is_some();
            if !answered {
                std::thread::sleep(Duration::from_millis(10));
            }
            answered
        });
        assert!(answered, "etcd does not answer");
    }
}

fn program(variable: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(variable) else {
        println!("{variable} is not set: skipped");
        return None;
    };
    Some(Path::new(&folder).join("etcd"))
}

/// Every record with its place, as prost reads it.
fn records(bytes: &[u8]) -> Vec<(usize, walpb::Record)> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(word) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        if word == 0 {
            break;
        }
        let len = usize::try_from(word & ((1 << 56) - 1)).unwrap();
        records.push((at, walpb::Record::decode(&bytes[at + 8..at + 8 + len]).unwrap()));
        at += 8 + len.next_multiple_of(8);
    }
    records
}

/// Repeats every write of a log that etcd wrote and compares the files.
fn assert_written_the_same(folder: &Path, member: &Path) {
    let name = "0000000000000000-0000000000000000.wal";
    let theirs = std::fs::read(member.join("wal").join(name)).unwrap();
    let parent = OsDir::open(folder).unwrap();
    let all = read(&*OsDir::open(member).unwrap(), "wal", |marks| marks.first().cloned()).unwrap();
    let mut log = Wal::create(&parent, "wal", &all.metadata).unwrap();
    let records = records(&theirs);
    // A mark of 3.4 has no membership, and ours must have one: only the others are repeated.
    let marks_have_members = all.marks.iter().skip(1).all(|mark| mark.conf_state.is_some());
    for (at, record) in &records[3..] {
        let data = record.data.clone().unwrap_or_default();
        match record.r#type.unwrap() {
            2 => {
                let entry = raftpb::Entry::decode(data).unwrap();
                let index = usize::try_from(entry.index.unwrap()).unwrap();
                log.append_and_sync(&all.entries[index - 1..index], None, true).unwrap();
            }
            3 => {
                let state = raftpb::HardState::decode(data).unwrap();
                let state = raft::HardState {
                    term: base::Term(state.term.unwrap()),
                    vote: base::MemberId(state.vote.unwrap()),
                    commit: base::Index(state.commit.unwrap()),
                };
                log.append_and_sync(&[], Some(&state), true).unwrap();
            }
            5 if marks_have_members => {
                let index = walpb::Snapshot::decode(data).unwrap().index.unwrap();
                let mark = all.marks.iter().find(|mark| mark.position.index.0 == index);
                // One ahead of the last commit index was not read back: stop there.
                let Some(mark) = mark else { break };
                log.mark(mark).unwrap();
            }
            5 => break,
            other => panic!("record type {other} at {at}"),
        }
    }
    let ours = std::fs::read(folder.join("wal").join(name)).unwrap();
    let (last, _) = crate::records(&ours).pop().unwrap();
    assert!(last > 5_000, "{last} bytes were compared");
    assert!(ours[..last] == theirs[..last], "the files differ");
    if marks_have_members {
        assert!(ours[..] == theirs[..], "the files differ behind {last}");
    }
}

fn puts(replay: &Replay) -> usize {
    let normal = replay.entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
    let requests =
        normal.filter_map(|entry| etcdserverpb::InternalRaftRequest::decode(&entry.data[..]).ok());
    requests.filter(|request| request.put.is_some()).count()
}

fn check(variable: &str) {
    let Some(program) = program(variable) else { return };
    let folder = tempfile::tempdir().unwrap();
    let etcd = start(&program, folder.path());
    put_keys(&etcd);
    drop(etcd);
    let member = folder.path().join("member");
    let parent = OsDir::open(&member).unwrap();

    let all = read(&*parent, "wal", |marks| marks.first().cloned()).unwrap();
    assert_eq!(puts(&all), KEYS);
    assert!(all.marks.len() > 2, "{:?}", all.marks);
    assert_eq!(all.repaired, None);
    let from_newest = read(&*parent, "wal", newest).unwrap();
    let behind = usize::try_from(from_newest.start.position.index.0).unwrap();
    assert!(behind > 0);
    assert_eq!(from_newest.entries, all.entries[behind..]);
    assert_written_the_same(folder.path(), &member);

    // The log is taken over, and etcd takes it back.
    let (log, _) = Wal::open(&parent, "wal", newest).unwrap();
    let last = log.last_index();
    drop(log);
    let etcd = start(&program, folder.path());
    put_keys(&etcd);
    drop(etcd);
    let all = read(&*parent, "wal", |marks| marks.first().cloned()).unwrap();
    assert_eq!(puts(&all), 2 * KEYS);
    assert!(all.entries.last().unwrap().index > last);
}

/// Interop 1: a log of 3.5.
#[test]
fn log_of_etcd_3_5_is_read_and_written_alike() {
    check("REAL_ETCD_35");
}

/// Interop 1: a log of 3.4, whose marks have no members.
#[test]
fn log_of_etcd_3_4_is_read_and_written_alike() {
    check("REAL_ETCD_34");
}

/// While etcd runs, its log is locked for us, and ours for it.
#[test]
fn lock_is_the_one_that_etcd_takes() {
    let Some(program) = program("REAL_ETCD_35") else { return };
    let folder = tempfile::tempdir().unwrap();
    let etcd = start(&program, folder.path());
    put_keys(&etcd);
    let parent = OsDir::open(folder.path().join("member")).unwrap();
    let error = Wal::open(&parent, "wal", newest).unwrap_err();
    assert!(matches!(error, retcd_wal::OpenError::InUse { .. }), "{error}");
    drop(etcd);
    let (_log, _) = Wal::open(&parent, "wal", newest).unwrap();
    let mut etcd = start(&program, folder.path());
    assert!(!etcd.process.wait().unwrap().success(), "etcd started on a log that is in use");
}
