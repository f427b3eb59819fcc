//! Files exchanged with real etcd 3.5 and 3.4 (interop.md 3).
//!
//! `REAL_ETCD_35` and `REAL_ETCD_34` name folders with the programs; without them nothing is tested
//! and a note is printed.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use common::{Model, Step, revision};
use retcd_backend::{Backend, Batch, Bucket, Options};
use vfs::OsDir;

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
