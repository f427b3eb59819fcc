//! The backup of the v2 generation: a copy of a member's files that begins a cluster of its own.
//!
//! The newest snapshot file and the log behind it are copied, with everything left out that tells
//! who the members were: the copy belongs to a member and a cluster with new ids. What is left out
//! becomes an empty entry, so that indexes stay what they are. A member that is started on the copy
//! with `--force-new-cluster` goes on from there.
//!
//! With the v3 generation's data the database is copied too, which waits until no member has it
//! open; without, its requests are left out and the database begins empty. The member whose files
//! are copied may run otherwise.
//!
//! Not for what has only v3 data: a snapshot is better (`etcdctl snapshot save`).
//!
//! Invariants: the source is never written to; the target's log comes last, so a copy that was
//! interrupted has none and no member starts on it.
//!
//! Source: features LEG-01 to LEG-04, UTL-14; etcd: etcdutl/etcdutl/backup_command.go at v3.5.30,
//! etcdctl/ctlv2/command/backup_command.go at v3.4.23.

mod database;
mod error;
mod log;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base::{ClusterId, LogPosition, MemberId};
use proto::raftpb;
use raft::ConfState;
use state::members::MemberObject;
use state::snapshot_file::SnapshotFile;
use vfs::{Open, OsDir};
use wal::{Mark, Metadata, Wal};

pub use error::BackupError;

/// What is copied, and to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The member's folder.
    pub data_dir: PathBuf,
    /// Its log, if it does not lie in there.
    pub wal_dir: Option<PathBuf>,
    /// Where the copy goes.
    pub backup_dir: PathBuf,
    /// Where the copy of the log goes, if not in there.
    pub backup_wal_dir: Option<PathBuf>,
    /// Whether the v3 generation's data is copied as well.
    pub with_v3: bool,
}

/// What somebody who waits may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A change of members is left out.
    MemberChange,
    /// What a member said of itself is left out.
    MemberAttributes {
        /// Under which key of the v2 tree it stands.
        path: String,
    },
    /// A request of the v3 generation is left out.
    V3Request,
    /// Somebody has the database open.
    Waiting {
        /// The database.
        path: PathBuf,
    },
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemberChange => f.write_str("ignoring EntryConfChange raft entry"),
            Self::MemberAttributes { path } => {
                write!(f, "ignoring member attribute update on {path}")
            }
            Self::V3Request => f.write_str("ignoring v3 raft entry"),
            Self::Waiting { path } => write!(f, "waiting to acquire lock on {}", path.display()),
        }
    }
}

/// Who the copy belongs to.
#[derive(Debug)]
struct Owner {
    member: MemberObject,
    cluster: ClusterId,
}

impl Owner {
    /// Ids that nobody was given before: of this millisecond.
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let first = (milliseconds << 8) & 0x0000_ffff_ffff_ffff;
        let member = MemberObject {
            id: MemberId(first + 1),
            // Who starts it is told who it is, and how to start it.
            name: "etcdctl-v2-backup".to_owned(),
            peer_urls: vec!["http://use-flag--force-new-cluster:2080".to_owned()],
            ..MemberObject::default()
        };
        Self { member, cluster: ClusterId(first + 2) }
    }

    fn conf_state(&self) -> ConfState {
        ConfState { voters: [self.member.id].into(), ..ConfState::default() }
    }
}

/// A snapshot file of the source.
#[derive(Debug)]
struct Snapshot {
    position: LogPosition,
    bytes: Vec<u8>,
}

impl Backup {
    fn source_snap(&self) -> PathBuf {
        self.data_dir.join("member").join("snap")
    }

    fn source_wal(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    fn target_wal(&self) -> PathBuf {
        self.backup_wal_dir.clone().unwrap_or_else(|| self.backup_dir.join("member").join("wal"))
    }

    /// Makes the copy; durable on return. `tell` hears what is going on.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; what was written by then stays, without a log.
    pub fn run(&self, tell: &mut dyn FnMut(&Told)) -> Result<(), BackupError> {
        let target_snap = self.backup_dir.join("member").join("snap");
        require_empty(&target_snap)?;
        let snapshots = snapshots(&self.source_snap())?;
        let owner = Owner::new();
        let replay = log::read(&self.source_wal(), &snapshots)?;
        let copy = log::translate(replay, self.with_v3, tell);

        // A log that begins at its beginning needs no file.
        if let Some(found) = snapshots.iter().find(|snapshot| snapshot.position == copy.start) {
            write_snapshot(&target_snap, found, &owner)?;
        }
        if self.with_v3 {
            database::copy(&self.source_snap().join("db"), &target_snap.join("db"), tell)?;
        }
        database::make_own(&target_snap, &owner, (!self.with_v3).then_some(copy.end()))?;
        self.write_log(&copy, &owner)
    }

    fn write_log(&self, copy: &log::Copy, owner: &Owner) -> Result<(), BackupError> {
        let target = self.target_wal();
        let failed = BackupError::path("write", &target);
        let (parent, name) = (parent_of(&target), file_name(&target));
        let parent = OsDir::open(parent).map_err(failed)?;
        let metadata = Metadata { member: owner.member.id, cluster: owner.cluster };
        let mut wal = Wal::create(&parent, &name, &metadata)?;
        if 0 < copy.start.index.0 {
            let conf_state = Some(owner.conf_state());
            wal.mark(&Mark { position: copy.start, conf_state })?;
        }
        wal.append_and_sync(&copy.entries, Some(&copy.hard_state), true)?;
        Ok(())
    }
}

/// LEG-02. A folder that is not there is made.
fn require_empty(folder: &Path) -> Result<(), BackupError> {
    let failed = BackupError::path("open", folder);
    let dir = OsDir::open(folder).map_err(&failed)?;
    let mut found = dir.list().map_err(&failed)?;
    if found.is_empty() {
        return Ok(());
    }
    found.sort_unstable();
    Err(BackupError::NotEmpty { folder: folder.to_owned(), found })
}

/// Those that can be read, newest first.
fn snapshots(folder: &Path) -> Result<Vec<Snapshot>, BackupError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::path("open", folder)(error)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
    paths.sort_unstable();
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).ok()?;
        SnapshotFile::tree(&bytes)?;
        Some(Snapshot { position: SnapshotFile::position_of(&bytes)?, bytes })
    };
    Ok(paths.iter().rev().filter_map(read).collect())
}

fn write_snapshot(folder: &Path, found: &Snapshot, owner: &Owner) -> Result<(), BackupError> {
    let failed = BackupError::path("write", folder);
    let tree = SnapshotFile::tree(&found.bytes);
    let conf_state =
        raftpb::ConfState { voters: vec![owner.member.id.0], ..raftpb::ConfState::default() };
    let file = SnapshotFile {
        position: found.position,
        conf_state,
        members: std::slice::from_ref(&owner.member),
        removed: &[],
        cluster_version: None,
        v2: tree.as_ref(),
    };
    let write = || {
        let dir = OsDir::open(folder)?;
        let out = dir.open(&file.name(), Open::Create)?;
        out.write_at(&file.encode(), 0)?;
        out.sync_data()?;
        dir.sync()
    };
    write().map_err(failed)
}

fn parent_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
