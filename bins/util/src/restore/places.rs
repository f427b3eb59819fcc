//! Where a restored member is built, and how it gets its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::{Dir, OsDir};

use super::RestoreError;
use crate::database::folder_of;

/// Where the member is built.
const STAGED_MEMBER: &str = "member.tmp";
/// Behind the name of a log that does not lie below the member.
const STAGED_WAL: &str = ".restoring";

/// Refuses to build where something is.
pub(crate) fn require_free(data_dir: &Path, wal_dir: &Path) -> Result<(), RestoreError> {
    let is_empty = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_empty {
        return Err(RestoreError::DataDir(data_dir.to_owned()));
    }
    if fs::symlink_metadata(wal_dir).is_ok() {
        return Err(RestoreError::WalDir(wal_dir.to_owned()));
    }
    Ok(())
}

/// Folders that nobody takes for a member's yet.
#[derive(Debug)]
pub(crate) struct Places {
    data: Arc<dyn Dir>,
    member: Arc<dyn Dir>,
    /// The folder of the database and of snapshot files.
    pub(crate) snap: Arc<dyn Dir>,
    /// Where the log is to be made.
    pub(crate) wal_parent: Arc<dyn Dir>,
    /// And under which name.
    pub(crate) wal_name: String,
    /// The log's own name, if it does not come to its place with the member.
    wal_outside: Option<String>,
    made_data_dir: bool,
}

impl Places {
    pub(crate) fn stage(data_dir: &Path, wal_dir: &Path) -> io::Result<Self> {
        let made_data_dir = !data_dir.exists();
        let data = OsDir::open(data_dir)?;
        let member = data.subdir(STAGED_MEMBER)?;
        let snap = member.subdir("snap")?;
        let name = wal_dir.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let name = name.to_string_lossy().into_owned();
        let below = wal_dir.strip_prefix(data_dir.join("member")).ok().and_then(Path::parent);
        let (wal_parent, wal_name, wal_outside) = match below {
            Some(below) => (OsDir::open(member.path().join(below))?, name, None),
            None => (OsDir::open(folder_of(wal_dir))?, format!("{name}{STAGED_WAL}"), Some(name)),
        };
        Ok(Self { data, member, snap, wal_parent, wal_name, wal_outside, made_data_dir })
    }

    /// Gives everything its name; durable on return. The log comes last: a member whose database has
    /// no log refuses to start, one with a log and no database might not.
    pub(crate) fn publish(&self) -> io::Result<()> {
        self.snap.sync()?;
        self.member.sync()?;
        self.data.rename(STAGED_MEMBER, "member")?;
        self.data.sync()?;
        OsDir::open(folder_of(&self.data.path()))?.sync()?;
        if let Some(name) = &self.wal_outside {
            self.wal_parent.rename(&self.wal_name, name)?;
            self.wal_parent.sync()?;
        }
        Ok(())
    }

    /// Removes what was built. What cannot be removed stays for the operator to see.
    pub(crate) fn discard(&self) {
        drop(self.data.remove_dir_all(STAGED_MEMBER));
        if self.wal_outside.is_some() {
            drop(self.wal_parent.remove_dir_all(&self.wal_name));
        }
        if self.made_data_dir {
            let path: PathBuf = self.data.path();
            // Only if nothing is in it.
            drop(fs::remove_dir(path));
        }
    }
}
