//! `snapshot status`: what a snapshot file holds, after a check of the whole file.
//!
//! etcd: `etcdutl/etcdutl/snapshot_command.go`, `etcdutl/snapshot/v3_snapshot.go`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use backend::{Bucket, ReadOnly};
use cli::exit::Failure;
use cli::json::Object;
use cli::size;
use prost::Message as _;
use proto::mvccpb::KeyValue;
use vfs::Open;

use super::Command;
use crate::call::Call;
use crate::report::{Column, Report};
use crate::{database, storage};

const LONG: &str = "\
When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are hash, revision, total keys, total size.
";

pub(crate) fn command() -> Command {
    Command::new("status <filename>", "Gets backend snapshot status of a given file")
        .long(LONG)
        .run(run)
}

/// What there is to say of a file.
#[derive(Debug)]
struct Status {
    /// Over all rows of all buckets.
    hash: u32,
    /// The newest one; 0 if nothing was ever written.
    revision: i64,
    /// Keys that are not deleted.
    keys: u64,
    /// Of the database, without a digest behind it.
    bytes: u64,
    /// Of the layout; empty before 3.6.
    version: String,
}

fn run(call: &Call) -> Result<(), Failure> {
    let path = call.file("snapshot status requires exactly one argument")?;
    database::require(&path)?;
    let format = call.format()?;
    let file = database::open_file(&path, Open::Read).map_err(Failure::error)?;
    let database = database::read(file, &path, call.lock_timeout());
    let database = database.map_err(|error| database::failure(&error))?;
    database::check(&database).map_err(|damage| {
        let text = "snapshot file integrity check failed. 1 errors found.";
        Failure::error(format!("{text}\n{damage}"))
    })?;
    Status::read(&database)?.report().print(format)
}

impl Status {
    fn read(database: &ReadOnly) -> Result<Self, Failure> {
        let failure = |error| database::failure(&error);
        let mut history = History::default();
        let scanned =
            database.scan(Bucket::Key, b"", None, &mut |name, row| match history.add(name, row) {
                Ok(()) => ControlFlow::Continue(()),
                Err(text) => {
                    history.wrong = Some(text);
                    ControlFlow::Break(())
                }
            });
        scanned.map_err(failure)?;
        if let Some(text) = history.wrong {
            let bucket = Bucket::Key.name();
            let text = format!("error during bucket key iteration, name: \"{bucket}\" err: {text}");
            return Err(Failure::error(text));
        }
        let version = database.get(Bucket::Meta, storage::STORAGE_VERSION).map_err(failure)?;
        Ok(Self {
            hash: database.hash(&|_, _| false).map_err(failure)?,
            revision: history.revision,
            keys: history.live.len() as u64,
            bytes: database.sizes().map_err(failure)?.total,
            version: version.map(|text| String::from_utf8_lossy(&text).into()).unwrap_or_default(),
        })
    }

    fn report(&self) -> Report {
        let mut json = String::new();
        Object::new(&mut json)
            .always("hash", &self.hash)
            .always("revision", &self.revision)
            .always("totalKey", &self.keys)
            .always("totalSize", &self.bytes)
            .always("version", &self.version)
            .end();
        let column = |title, cell: String, name, value: String| Column { title, cell, name, value };
        Report {
            columns: vec![
                column("hash", format!("{:x}", self.hash), "Hash", self.hash.to_string()),
                column(
                    "revision",
                    self.revision.to_string(),
                    "Revision",
                    self.revision.to_string(),
                ),
                column("total keys", self.keys.to_string(), "Keys", self.keys.to_string()),
                column("total size", size::bytes(self.bytes), "Size", self.bytes.to_string()),
                column("version", self.version.clone(), "Version", self.version.clone()),
            ],
            json,
        }
    }
}

/// What the rows say that were seen so far. Holds every live key.
#[derive(Debug, Default)]
struct History {
    revision: i64,
    live: HashSet<Vec<u8>>,
    wrong: Option<String>,
}

impl History {
    fn add(&mut self, name: &[u8], row: &[u8]) -> Result<(), String> {
        let quoted = cli::quote::quote(name);
        let parsed = mvcc::parse_row_name(name);
        let (revision, is_deletion) =
            parsed.ok_or_else(|| format!("cannot parse revision key: {quoted}"))?;
        let kv = KeyValue::decode(row)
            .map_err(|error| format!("cannot unmarshal value, key: {quoted} err: {error}"))?;
        self.revision = revision.main;
        if is_deletion {
            self.live.remove(&kv.key[..]);
        } else {
            self.live.insert(kv.key.to_vec());
        }
        Ok(())
    }
}
