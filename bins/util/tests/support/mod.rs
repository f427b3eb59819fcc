//! What the tests of `etcdutl` share: running it, and making databases and snapshots without a
//! server.
#![allow(dead_code, reason = "not every test uses everything")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use backend::{Backend, Batch, Bucket, Options};
use base::{Index, KeyRange, LeaseId, LogPosition, Term};
use bytes::Bytes;
use mvcc::{CompactStep, Store};
use sha2::{Digest as _, Sha256};
use vfs::OsDir;

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its results.
    pub(crate) stdout: String,
    /// Everything else.
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Said {
    /// The last line on standard error.
    pub(crate) fn last_error(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// Stops the test if the program failed.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs our `etcdutl` in a folder.
pub(crate) fn etcdutl(folder: &Path, arguments: &[&str]) -> Said {
    run(Path::new(env!("CARGO_BIN_EXE_etcdutl")), folder, arguments)
}

/// Runs a program in a folder.
pub(crate) fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env_clear().env("ETCDCTL_API", "3");
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display())).into()
}

/// Makes a database in `folder/name` with revisions 2 to 7: four keys, one deleted, one put again;
/// compacted at 4. Its newest applied entry is 9 of term 2.
pub(crate) fn database(folder: &Path, name: &str) -> PathBuf {
    let dir = OsDir::open(folder).unwrap();
    let backend = Backend::open(&dir, name, &Options::default()).unwrap();
    let mut store = Store::open(&backend, &mvcc::Options::default()).unwrap();
    let position = LogPosition { index: Index(9), term: Term(2) };
    let mut writer = store.write(position);
    for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k3", "v3"), ("k4", "v4")] {
        let (key, value) = (Bytes::from(key), Bytes::from(value));
        writer.txn().put(key, &value, LeaseId::NONE, false).unwrap();
    }
    let doomed = KeyRange::from_wire(Bytes::from("k2"), Bytes::new());
    writer.txn().delete_range(&doomed, false, &mut |_, _| {}).unwrap();
    writer.txn().put(Bytes::from("k1"), &Bytes::from("z"), LeaseId::NONE, false).unwrap();
    writer.compact(4).unwrap();
    writer.batch().put(
        Bucket::Members,
        b"5",
        Bytes::from(r#"{"id":5,"peerURLs":["http://old:1"]}"#),
    );
    writer.batch().put(Bucket::MembersRemoved, b"6", Bytes::from("removed"));
    writer.batch().put(Bucket::Cluster, b"clusterVersion", Bytes::from("3.7.0"));
    writer.batch().put(
        Bucket::Meta,
        b"confState",
        Bytes::from(r#"{"voters":[5],"auto_leave":false}"#),
    );
    writer.batch().put(Bucket::Meta, b"storageVersion", Bytes::from("3.7.0"));
    writer.finish(position);
    while store.compact_step().unwrap() != CompactStep::Idle {}
    backend.commit().unwrap();
    folder.join(name)
}

/// Makes `folder/name`, a snapshot of that database.
pub(crate) fn snapshot(folder: &Path, name: &str) -> PathBuf {
    let mut bytes = fs::read(database(folder, "source")).unwrap();
    bytes.extend_from_slice(&Sha256::digest(&bytes));
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Changes a row of `meta` of a database, or removes it.
pub(crate) fn set_meta(folder: &Path, name: &str, key: &str, value: Option<&str>) {
    let dir = OsDir::open(folder).unwrap();
    let backend = Backend::open(&dir, name, &Options::default()).unwrap();
    let mut batch = Batch::upkeep();
    match value {
        Some(value) => {
            batch.put(Bucket::Meta, key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()));
        }
        None => batch.delete(Bucket::Meta, key.as_bytes()),
    }
    backend.apply(batch);
    backend.commit().unwrap();
}

/// All rows of a database, as bucket, key and value.
pub(crate) fn rows(path: &Path) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    read_only(path)
        .scan_all(&mut |bucket, key, value| {
            rows.push((bucket.to_owned(), key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// A database opened for reading.
pub(crate) fn read_only(path: &Path) -> backend::ReadOnly {
    let dir = OsDir::open(path.parent().unwrap()).unwrap();
    let file = dir.open(path.file_name().unwrap().to_str().unwrap(), vfs::Open::Read).unwrap();
    loop {
        match backend::ReadOnly::open(Arc::clone(&file), "db") {
            // A process that another test is starting may hold what it inherited.
            Err(backend::OpenError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// The log of a data directory from its newest mark on, or from its beginning.
pub(crate) fn log(wal_dir: &Path, newest: bool) -> wal::Replay {
    let parent = OsDir::open(wal_dir.parent().unwrap()).unwrap();
    let name = wal_dir.file_name().unwrap().to_str().unwrap();
    wal::read(
        &*parent,
        name,
        |marks| {
            if newest { marks.last().cloned() } else { marks.first().cloned() }
        },
    )
    .unwrap()
}
