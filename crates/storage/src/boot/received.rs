//! A snapshot that another member sent and that was not installed when the member stopped.
//!
//! The sender's database comes as `<index>.snap.db`; once it is whole the log gets a mark at its
//! index, and then the file takes the place of the database. If the log has the mark and its commit
//! index reaches it, but the database does not, the last step is done here. Every other such file is
//! of no use: without the mark the leader sends a snapshot again. Names and order are etcd's, so that
//! either can end what the other began.
//! Source: etcd server/storage/backend.go (`RecoverSnapshotBackend`), api/snap/snapshotter.go.

use std::cell::Cell;
use std::sync::Arc;

use backend::{Backend, Incoming};
use base::Index;
use state::State;
use vfs::Dir;
use wal::Mark;

use super::remedy::Remedy;
use super::restart::unusable;
use super::{BootError, Database};
use crate::receiving::{SUFFIX, file_name};

/// A whole snapshot that the log counts on.
#[derive(Debug)]
pub(super) struct Received {
    name: String,
    index: Index,
}

/// The file for the log's newest mark, if it is there. Other files are removed.
///
/// # Errors
///
/// The operating system's, from listing the folder or reading the log: to go on as if there were no
/// file would be to take the database for one that lacks it.
pub(super) fn find(
    snap_dir: &Arc<dyn Dir>,
    wal_parent: &Arc<dyn Dir>,
    wal_name: &str,
) -> Result<Option<Received>, BootError> {
    let names = snap_dir.list().map_err(|source| {
        let path = snap_dir.path().display().to_string();
        BootError::DataDir { path, source }
    })?;
    let names: Vec<&String> = names.iter().filter(|name| name.ends_with(SUFFIX)).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let newest = Cell::new(Index(0));
    let look = |marks: &[Mark]| {
        newest.set(marks.last().map_or(Index(0), |mark| mark.position.index));
        None
    };
    match wal::read(wal_parent.as_ref(), wal_name, look) {
        Ok(_) | Err(wal::OpenError::NoMark { .. }) => {}
        Err(
            source @ (wal::OpenError::Folder { .. }
            | wal::OpenError::File { .. }
            | wal::OpenError::Read { .. }),
        ) => return Err(unusable(wal_parent, wal_name, Remedy::Unknown, source)),
        // Whoever opens the log to write finds the same, and says what is wrong with it.
        Err(_) => return Ok(None),
    }
    let index = newest.get();
    let wanted = file_name(index);
    for name in names.iter().filter(|name| ***name != wanted) {
        tracing::info!(path = name.as_str(), "found orphaned .snap.db file; deleting");
        remove(snap_dir.as_ref(), name);
    }
    let found = names.iter().any(|name| **name == wanted);
    if found {
        base::probe::reached("boot: a snapshot came before the crash");
    }
    Ok(found.then_some(Received { name: wanted, index }))
}

/// Removes what was being received or shrunk when the member stopped.
pub(super) fn remove_partial(snap_dir: &dyn Dir) {
    let Ok(names) = snap_dir.list() else { return };
    for name in names.iter().filter(|name| name.starts_with("tmp") || name.starts_with("db.tmp")) {
        tracing::info!(path = name.as_str(), "found a file that was not finished; deleting");
        remove(snap_dir, name);
    }
}

/// Removes checksums of received databases that are gone: installed, refused or removed above.
pub(super) fn remove_sums(database: &Database<'_>) {
    let Some(aux) = &database.backend.aux else { return };
    match backend::remove_orphaned_sums(database.snap_dir.as_ref(), aux.as_ref()) {
        Ok(names) => {
            for path in names {
                tracing::info!(path, "found orphaned checksums of a received database; deleted");
            }
        }
        Err(error) => {
            tracing::warn!(error = %error, "failed to remove orphaned checksums");
        }
    }
}

/// What stays costs room and nothing else.
fn remove(snap_dir: &dyn Dir, name: &str) {
    if let Err(error) = snap_dir.remove(name) {
        tracing::warn!(path = name, error = %error, "failed to remove a file of no use");
    }
}

impl Received {
    /// The database, after this file took its place if it is ahead of it.
    ///
    /// # Errors
    ///
    /// The file is no whole state up to the mark; then the database is as it was.
    pub(super) fn open(&self, database: &Database<'_>) -> Result<(Backend, State), BootError> {
        let snap_dir = database.snap_dir;
        let file = database.path(&self.name);
        let mut applied = Index(0);
        let failed = |source| BootError::Install { file: file.clone(), source };
        if snap_dir.exists("db").map_err(failed)? {
            match database.open() {
                Ok((_, state)) if state.applied().index < self.index => {
                    applied = state.applied().index;
                }
                Ok(opened) => {
                    tracing::info!(
                        "consistent-index" = opened.1.applied().index.0,
                        "snapshot-index" = self.index.0,
                        "Skipping snapshot backend"
                    );
                    remove(snap_dir.as_ref(), &self.name);
                    return Ok(opened);
                }
                // What replaces it is whole.
                Err(BootError::DatabaseDamaged { .. } | BootError::State { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        tracing::info!(
            "consistent-index" = applied.0,
            "snapshot-index" = self.index.0,
            "Recovering from snapshot backend"
        );
        base::probe::reached("boot: the installation of a snapshot is finished");
        self.verify(database)?.take_place("db").map_err(|error| failed(error.source))?;
        database.open()
    }

    /// Reads all of the file.
    fn verify(&self, database: &Database<'_>) -> Result<Incoming, BootError> {
        let file = database.path(&self.name);
        let damaged =
            |source| BootError::ReceivedDamaged { file: file.clone(), source: Box::new(source) };
        let incoming = Incoming::open(database.snap_dir, &self.name, &database.backend);
        let incoming = incoming.map_err(|source| match source {
            backend::OpenError::Damaged { .. } => damaged(BootError::Backend(source)),
            // For want of room, perhaps: then there is a reserve.
            backend::OpenError::Io { .. } | backend::OpenError::Locked { .. } => {
                BootError::Backend(source)
            }
        })?;
        let state = State::open(incoming.backend(), database.state).map_err(|source| {
            damaged(BootError::State { db: file.clone(), remedy: (database.remedy)(), source })
        })?;
        let applied = state.applied().index;
        if applied < self.index {
            return Err(BootError::ReceivedBehind { file, applied, needed: self.index });
        }
        Ok(incoming)
    }
}
