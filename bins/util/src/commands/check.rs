//! `check v2store`: whether keys, users or roles of the v2 generation are left in a member's files,
//! as 3.5 has it; later releases do not, and it is left out of help.
//!
//! As there, what counts is the newest snapshot file that the log knows. In a directory of ours the
//! database has the tree too, and newer: it is looked at as well. Requests of the log that neither
//! has yet do not change the answer; they are told.
//!
//! Nothing is written, a damaged file is passed over where it lies.
//!
//! etcd: etcdutl/etcdutl/check_command.go, server/etcdserver/api/membership/storev2.go at v3.5.30.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::{fs, io};

use backend::Bucket;
use base::Index;
use cli::exit::Failure;
use cli::flag::Flag;
use prost::Message as _;
use proto::v2pb;
use raft::{Entry, EntryKind};
use state::snapshot_file::SnapshotFile;
use v2store::{CLUSTER, Reader, Store};
use vfs::Open;
use wal::Mark;

use super::Command;
use crate::call::Call;
use crate::database::{self, DatabaseError, FileError};
use crate::log;

pub(crate) fn command() -> Command {
    let v2store = Command::new("v2store", "Check custom content in v2store").flags([
        Flag::text("data-dir", "Required. A data directory not in use by etcd.").required(),
        Flag::text("wal-dir", "Optional. A dedicated WAL directory."),
    ]);
    Command::new("check <subcommand>", "commands for checking properties")
        .subcommands([v2store.run(run)])
}

/// Why it is not known what is there, or that there is something.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    /// A folder or a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The log.
    #[error("reading the log")]
    Log(#[from] wal::OpenError),
    /// The newest snapshot that the log knows.
    #[error("failed to recover v2store from snapshot {}: it holds no tree", .0.display())]
    NoTree(PathBuf),
    /// Our database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Our database.
    #[error("reading the database")]
    Read(#[from] backend::ReadError),
    /// Our database.
    #[error("reading the v2 keys of the database")]
    Row(#[from] v2store::DamagedRow),
    /// Users of the v2 generation would lose something.
    #[error("detected custom content in v2store")]
    Found,
}

fn run(call: &Call) -> Result<(), Failure> {
    let member = call.folder("data-dir").join("member");
    let wal_dir = match call.flags.text("wal-dir") {
        "" => member.join("wal"),
        folder => PathBuf::from(folder),
    };
    check(call, &member.join("snap"), &wal_dir).map_err(|error| database::failure(&error))?;
    println!("No custom content found in v2store.");
    Ok(())
}

fn check(call: &Call, snap_dir: &Path, wal_dir: &Path) -> Result<(), CheckError> {
    let Some((marks, entries)) = read_log(wal_dir)? else { return Ok(()) };
    let snapshot = newest_snapshot(snap_dir, &marks)?;
    let own = own_tree(call, &snap_dir.join("db"))?;
    let mut seen = Index(0);
    // One that is older than the snapshot was not kept: etcd knows nothing of it.
    for (index, tree) in snapshot.into_iter().chain(own) {
        if seen <= index && is_custom(&tree.reader()) {
            return Err(CheckError::Found);
        }
        seen = seen.max(index);
    }
    let behind = entries.iter().filter(|entry| seen < entry.index && is_custom_request(entry));
    let count = behind.count();
    if 0 < count {
        let text = "the log holds requests of v2 clients that no snapshot has yet; they are not \
                    part of this check";
        log::warn(text, &[("requests", count.into()), ("snapshot-index", seen.0.into())]);
    }
    Ok(())
}

/// What is looked at of a log.
type Log = (Vec<Mark>, Vec<Entry>);

/// The log's marks and what follows the newest of them; `None` if there is a folder without a log.
fn read_log(wal_dir: &Path) -> Result<Option<Log>, CheckError> {
    fs::metadata(wal_dir).map_err(FileError::of("open", wal_dir))?;
    let (parent, name) = database::place(wal_dir)?;
    let marks = RefCell::new(Vec::new());
    let choose = |known: &[Mark]| {
        *marks.borrow_mut() = known.to_vec();
        known.last().cloned()
    };
    match wal::read(&*parent, &name, choose) {
        Ok(replay) => Ok(Some((marks.into_inner(), replay.entries))),
        Err(wal::OpenError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The tree of the newest snapshot file that the log knows, and what it stands for.
fn newest_snapshot(folder: &Path, marks: &[Mark]) -> Result<Option<(Index, Store)>, CheckError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = list().map_err(FileError::of("open", folder))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
    paths.sort_unstable();
    for path in paths.into_iter().rev() {
        let bytes = fs::read(&path).map_err(FileError::of("open", &path))?;
        let Some(position) = SnapshotFile::position_of(&bytes) else {
            let fields = [("path", path.display().to_string().into())];
            log::warn("failed to read a snap file", &fields);
            continue;
        };
        if marks.iter().any(|mark| mark.position == position) {
            let tree = SnapshotFile::tree(&bytes).ok_or(CheckError::NoTree(path))?;
            return Ok(Some((position.index, tree)));
        }
    }
    Ok(None)
}

/// In our database's bucket of the tree: the last entry that is in it (docs/formats/v2store.md).
const APPLIED: &[u8] = b"applied";

/// The tree that our database has, if it is ours and has one, and the last entry that is in it.
fn own_tree(call: &Call, path: &Path) -> Result<Option<(Index, Store)>, CheckError> {
    if !path.is_file() {
        return Ok(None);
    }
    let file = database::open_file(path, Open::Read)?;
    let database = database::read(file, path, call.lock_timeout())?;
    let (mut rows, mut applied) = (Vec::new(), Index(0));
    database.scan(Bucket::V2Store, b"", None, &mut |key, value| {
        match <[u8; 8]>::try_from(&value[..]) {
            Ok(bytes) if key == APPLIED => applied = Index(u64::from_be_bytes(bytes)),
            Ok(_) | Err(_) => rows.push((key.clone(), value.clone())),
        }
        ControlFlow::Continue(())
    })?;
    Ok(if rows.is_empty() { None } else { Some((applied, Store::restore(rows)?)) })
}

/// Where users and roles of the v2 generation are.
const USERS: &str = "/2";

/// Whether anything is there that is not the cluster's own. Hidden keys are not looked at, nor is
/// what only says that users and roles were once in use.
fn is_custom(reader: &Reader) -> bool {
    let root = reader.get("/", true, 0).expect("there is a root");
    root.below.iter().any(|(depth, node)| {
        let levels = if is_within(&node.key, USERS) { 3 } else { 2 };
        levels <= *depth && !is_within(&node.key, CLUSTER)
    })
}

/// Whether a v2 client may have made something by it.
fn is_custom_request(entry: &Entry) -> bool {
    let request = v2pb::Request::decode(entry.data.clone()).ok();
    let request = request.filter(|_| entry.kind == EntryKind::Normal);
    request.is_some_and(|request| {
        let is_made = matches!(request.method(), "PUT" | "POST");
        is_made && !is_within(&String::from_utf8_lossy(request.path()), CLUSTER)
    })
}

/// Whether a path is that of a folder or of something in it.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
