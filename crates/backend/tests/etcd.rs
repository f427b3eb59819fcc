//! Files exchanged with real etcd 3.5 and 3.4 (interop.md 3).
//!
//! `REAL_ETCD_35` and `REAL_ETCD_34` name folders with the programs; without them nothing is tested
//! and a note is printed.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Model, Step, revision};
use retcd_backend::bulk::Bulk;
use retcd_backend::{Backend, Batch, Bucket, Options, ReadOnly};
use vfs::{Open, OsDir};

fn programs(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        println!("not tested: {variable} is not set");
    }
    folder
}

/// Output of a program that must succeed.
fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("ETCDCTL_API", "3").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?} {arguments:?}: {text} {errors}");
    text
}

/// A field of the one-line answer of `snapshot status -w json`.
fn field(answer: &str, name: &str) -> u64 {
    let start = answer.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
    let digits: String = answer[start..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// A stored row of bucket `key`: `mvccpb.KeyValue` with small numbers.
fn key_value(key: &str, main: u64, value: &[u8]) -> Vec<u8> {
    let varint = |mut number: u64| {
        let mut bytes = Vec::new();
        while number > 0x7F {
            bytes.push(u8::try_from(number & 0x7F).unwrap() | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).unwrap());
        bytes
    };
    let mut row = vec![0x0A];
    row.extend(varint(key.len() as u64));
    row.extend(key.as_bytes());
    for tag in [0x10, 0x18] {
        row.push(tag);
        row.extend(varint(main));
    }
    row.extend([0x20, 1, 0x2A]);
    row.extend(varint(value.len() as u64));
    row.extend(value);
    row
}

/// The hash that `snapshot status` prints: CRC-32C of every bucket's name, and of its keys and
/// values in order.
fn hash(db: &Backend) -> (u64, u64) {
    let copy = db.copy().unwrap();
    let (mut crc, mut keys, mut last) = (0, 0, String::new());
    let mut start = |crc: u32, name: &str| {
        if last == name {
            return crc;
        }
        last = name.to_owned();
        crc32c::crc32c_append(crc, name.as_bytes())
    };
    // Buckets without rows count with their names.
    let mut rows: Vec<(String, Vec<u8>, Vec<u8>)> = Vec::new();
    copy.scan(&mut |bucket, key, value| {
        rows.push((bucket.to_owned(), key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    for bucket in Bucket::ALL {
        crc = start(crc, bucket.name());
        for (_, key, value) in rows.iter().filter(|(at, ..)| at == bucket.name()) {
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
            keys += 1;
        }
    }
    (u64::from(crc), keys)
}

fn put(main: u64, value_len: usize) -> Step {
    let value = key_value(&format!("key/{main:08}"), main, &vec![b'v'; value_len]);
    Step { bucket: Bucket::Key, key: revision(main, 0).to_vec(), value: Some(value) }
}

/// G38.
#[test]
fn etcdutl_accepts_our_file() {
    let Some(programs) = programs("REAL_ETCD_35") else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = OsDir::open(folder.path()).unwrap();
    let aux = dir.subdir("aux").unwrap();
    let path = folder.path().join("db");
    let etcdutl = programs.join("etcdutl");
    let options = Options { aux: Some(aux), ..Options::default() };
    let db = Backend::open(&dir, "db", &options).unwrap();
    accept(&etcdutl, &db, &path);
    let mut model = Model::default();
    let mut next = 1;
    for round in 0..6_usize {
        for _ in 0..2 {
            let steps: Vec<Step> = (0..4000)
                .map(|nth| {
                    next += 1;
                    put(next, if nth % 500 == 0 { 20_000 } else { 20 + round * 90 })
                })
                .collect();
            model.apply(&steps);
            db.apply(model.batch(&steps));
            db.commit().unwrap();
        }
        accept(&etcdutl, &db, &path);
        let gone: Vec<Step> = model
            .rows
            .keys()
            .filter(|(bucket, _)| *bucket == Bucket::Key)
            .step_by(round % 3 + 2)
            .map(|(bucket, key)| Step { bucket: *bucket, key: key.clone(), value: None })
            .collect();
        for part in gone.chunks(1000) {
            model.apply(part);
            db.apply(model.batch(part));
            db.commit().unwrap();
        }
        accept(&etcdutl, &db, &path);
    }
    restore(&etcdutl, &path, &folder.path().join("restored"));
    // Nearly everything goes, so that levels disappear.
    let mut batch = Batch::upkeep();
    let all: Vec<_> = model.rows.keys().filter(|(at, _)| *at == Bucket::Key).cloned().collect();
    for (bucket, key) in &all[3..] {
        batch.delete(*bucket, key);
    }
    batch.put(Bucket::Lease, &7_u64.to_be_bytes(), Bytes::from_static(b"\x08\x07\x10\x05"));
    db.apply(batch);
    db.commit().unwrap();
    accept(&etcdutl, &db, &path);
    drop(db);
    restore(&etcdutl, &path, &folder.path().join("restored-small"));
}

/// Interop 3.4, 3.5: a copy of a database in use, and a file made in one pass from its rows.
#[test]
fn etcdutl_accepts_copies_and_bulk_files() {
    let Some(programs) = programs("REAL_ETCD_35") else { return };
    let etcdutl = programs.join("etcdutl");
    let folder = tempfile::tempdir().unwrap();
    let dir = OsDir::open(folder.path()).unwrap();
    let db = Backend::open(&dir, "db", &Options::default()).unwrap();
    let mut model = Model::default();
    for round in 0..5 {
        let steps: Vec<Step> = (2..3_000)
            .filter(|main| main % 5 == round)
            .map(|main| put(main, if main % 400 == 0 { 30_000 } else { 150 }))
            .collect();
        model.apply(&steps);
        db.apply(model.batch(&steps));
        db.commit().unwrap();
    }
    let (hash, _) = hash(&db);
    let mut copy = db.copy().unwrap();
    let copied = dir.open("copied", Open::Create).unwrap();
    let mut at = 0;
    loop {
        let bytes = copy.read(32 << 10).unwrap();
        if bytes.is_empty() {
            break;
        }
        copied.write_at(&bytes, at).unwrap();
        at += bytes.len() as u64;
    }
    let mut bulk = Bulk::new(dir.open("bulk", Open::Create).unwrap(), 4096);
    for bucket in Bucket::ALL {
        bulk.bucket(bucket.name()).unwrap();
        db.scan(bucket, b"", None, &mut |key, value| {
            bulk.put(key, value).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    bulk.finish().unwrap();
    for name in ["copied", "bulk"] {
        let path = folder.path().join(name);
        let answer = run(&etcdutl, &["snapshot", "status", path.to_str().unwrap(), "-w", "json"]);
        assert_eq!(field(&answer, "hash"), hash, "{name}: {answer}");
        assert_eq!(field(&answer, "totalSize"), std::fs::metadata(&path).unwrap().len());
        restore(&etcdutl, &path, &folder.path().join(format!("{name}-restored")));
    }
}

fn restore(etcdutl: &Path, db: &Path, into: &Path) {
    let arguments = ["snapshot", "restore", "--skip-hash-check"];
    let paths = [db.to_str().unwrap(), "--data-dir", into.to_str().unwrap()];
    run(etcdutl, &[&arguments[..], &paths[..]].concat());
}

fn accept(etcdutl: &Path, db: &Backend, path: &Path) {
    let (expected, keys) = hash(db);
    // The file is locked while it is open; the program gets a copy of its bytes.
    let copy = path.with_extension("copy");
    std::fs::copy(path, &copy).unwrap();
    let answer = run(etcdutl, &["snapshot", "status", copy.to_str().unwrap(), "-w", "json"]);
    assert_eq!(field(&answer, "hash"), expected, "{answer}");
    assert_eq!(field(&answer, "totalKey"), keys, "{answer}");
    assert_eq!(field(&answer, "totalSize"), db.sizes().total, "{answer}");
}

/// A running etcd on ports of its own.
struct Etcd {
    process: Child,
    url: String,
    control: PathBuf,
}

impl Etcd {
    fn start(programs: &Path, data: &Path) -> Self {
        let (client, peer) = (ports::free_url().unwrap(), ports::free_url().unwrap());
        let process = Command::new(programs.join("etcd"))
            .args(["--name", "a", "--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("a={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { process, url: client, control: programs.join("etcdctl") };
        let start = Instant::now();
        while etcd.try_run(&["get", "x"]).is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "etcd does not start");
        }
        etcd
    }

    fn try_run(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(&self.control)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|| panic!("etcdctl {arguments:?} failed"))
    }

    /// Fills every bucket with something.
    fn fill(&self) {
        for nth in 0..60 {
            self.run(&["put", &format!("key/{nth:03}"), &"v".repeat(nth * 40)]);
        }
        self.run(&["put", "large", &"l".repeat(100_000)]);
        let granted = self.run(&["lease", "grant", "3600"]);
        let lease = granted.split(' ').nth(1).unwrap();
        self.run(&["put", "leased", "value", "--lease", lease]);
        self.run(&["del", "--prefix", "key/01"]);
        self.run(&["role", "add", "reader"]);
        self.run(&["user", "add", "someone:secret"]);
        self.run(&["compact", "40", "--physical=true"]);
    }

    fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.process.wait().unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Stopped already, unless the test failed.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn exchange(programs: &Path, utility: Option<&Path>) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let etcd = Etcd::start(programs, &data);
    etcd.fill();
    etcd.stop();
    let dir = OsDir::open(data.join("member/snap")).unwrap();
    let aux = OsDir::open(folder.path().join("aux")).unwrap();
    let options = Options { aux: Some(aux), ..Options::default() };
    for round in 0..3 {
        // What etcd wrote is what we read.
        let read_only = ReadOnly::open(dir.open("db", Open::Read).unwrap(), "db").unwrap();
        read_only.check().unwrap();
        assert!(read_only.sizes().unwrap().in_use <= read_only.sizes().unwrap().total);
        // Ours adds the one of the second generation's tree, which etcd leaves alone.
        assert_eq!(read_only.buckets().len(), if round == 0 { 10 } else { 11 });
        let before = read_only.hash(&|_, _| false).unwrap();
        if let Some(utility) = utility {
            let path = data.join("member/snap/db");
            let answer =
                run(utility, &["snapshot", "status", path.to_str().unwrap(), "-w", "json"]);
            assert_eq!(field(&answer, "hash"), u64::from(before), "{answer}");
        }
        drop(read_only);

        // We write, with checksums that do not know of etcd's commits.
        let db = Backend::open(&dir, "db", &options).unwrap();
        assert!(db.applied().index.0 > 60, "applied {}", db.applied());
        assert_eq!(db.copy().unwrap().hash(&|_, _| false).unwrap(), before);
        let copied = db.get(Bucket::Key, &revision(62, 0)).unwrap();
        assert_eq!(copied.unwrap().len(), 100_000 + 17, "the large value");
        let mut batch = Batch::upkeep();
        for nth in 0..200_u64 {
            batch.put(Bucket::Lease, &(nth + 1000).to_be_bytes(), lease(nth + 1000));
        }
        db.apply(batch);
        db.commit().unwrap();
        let mut batch = Batch::upkeep();
        (5..200_u64).for_each(|nth| batch.delete(Bucket::Lease, &(nth + 1000).to_be_bytes()));
        db.apply(batch);
        db.commit().unwrap();
        while db.shrink_step().unwrap() {}
        db.check().unwrap();
        drop(db);

        // etcd goes on with what we wrote.
        let etcd = Etcd::start(programs, &data);
        assert_eq!(etcd.run(&["get", "leased", "--print-value-only"]).trim(), "value");
        assert_eq!(etcd.run(&["get", "key/059", "--print-value-only"]).trim().len(), 59 * 40);
        assert_eq!(etcd.run(&["lease", "list"]).lines().count(), 7, "one granted, five added");
        etcd.run(&["put", "round", &round.to_string()]);
        etcd.stop();
    }
}

/// A stored lease of an hour: `leasepb.Lease`.
fn lease(id: u64) -> Bytes {
    let low = u8::try_from(id & 0x7F).unwrap() | 0x80;
    let high = u8::try_from(id >> 7).unwrap();
    Bytes::from(vec![0x08, low, high, 0x10, 0x90, 0x1C])
}

/// G38, interop 3.
#[test]
fn files_go_to_and_fro_with_etcd_35() {
    let Some(programs) = programs("REAL_ETCD_35") else { return };
    exchange(&programs, Some(&programs.join("etcdutl")));
}

/// G38, interop 3.
#[test]
fn files_go_to_and_fro_with_etcd_34() {
    let Some(programs) = programs("REAL_ETCD_34") else { return };
    let utility = std::env::var_os("REAL_ETCD_35").map(|newer| Path::new(&newer).join("etcdutl"));
    exchange(&programs, utility.as_deref());
}
