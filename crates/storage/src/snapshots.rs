//! When the log may forget: snapshot files, marks in the log, release of old segments.
//!
//! The state is the database and is durable by itself; a snapshot only says so. Every
//! `snapshot_count` applied entries a `.snap` file and a mark are written at the newest durable
//! index, and what is before is released (interop 1.7).

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::Backend;
use base::{Index, LogPosition, MemberId};
use proto::raftpb;
use raft::ConfState;
use state::snapshot_file::SnapshotFile;
use state::{SnapshotFacts, State};
use vfs::{Dir, Open};
use wal::{Mark, Wal};

use crate::log::LogOptions;
use crate::receiving::SUFFIX;
use crate::reserve::is_no_space;

/// Decides and does it.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: Arc<dyn Dir>,
    every_entries: u64,
    /// How many files of each kind are kept; `None` for all.
    files_max: Option<usize>,
    last: Index,
}

/// Why a snapshot could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file.
    #[error("writing snapshot file {name}")]
    File {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The state at a position behind the file's is not what the file must hold.
    #[error("pinning the state for a snapshot file")]
    Pin(#[source] backend::CommitError),
    /// The pinned state.
    #[error("reading the pinned state for a snapshot file")]
    Read(#[source] state::OpenError),
    /// The mark.
    #[error("marking the snapshot in the log")]
    Mark(#[source] wal::AppendError),
    /// The old segments.
    #[error("releasing the log behind the snapshot")]
    Release(#[source] wal::ReleaseError),
}

impl SnapshotError {
    /// Whether there was only no room: the log is as good as before, and it may be tried again.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::File { source, .. } => is_no_space(source),
            Self::Mark(error) => matches!(error, wal::AppendError::NoSpace { .. }),
            Self::Pin(error) => matches!(error, backend::CommitError::NoSpace(_)),
            Self::Read(_) | Self::Release(_) => false,
        }
    }
}

impl Snapshots {
    /// `last` is the newest mark of the log.
    pub(crate) fn new(dir: Arc<dyn Dir>, options: &LogOptions, last: Index) -> Self {
        let (every_entries, files_max) = (options.snapshot_entries, options.snapshot_files_max);
        Self { dir, every_entries, files_max, last }
    }

    /// Takes a snapshot at `durable` if enough entries lie behind the last one; how long encoding
    /// its file took if it did.
    ///
    /// # Errors
    ///
    /// The file or the mark; the log itself is intact after the first.
    pub(crate) fn consider(
        &mut self,
        mut durable: LogPosition,
        conf_state: &ConfState,
        state: &State,
        backend: &Backend,
        wal: &mut Wal,
    ) -> Result<Option<Duration>, SnapshotError> {
        if durable.index.0 < self.last.0 + self.every_entries {
            return Ok(None);
        }
        let encoding = if state.applied() == durable || !state.v2().is_used() {
            self.write_file(durable, conf_state, state)?
        } else {
            // Whoever starts with the file applies what follows to its tree once more.
            let copy = backend.copy().map_err(SnapshotError::Pin)?;
            let facts = SnapshotFacts::read(&copy).map_err(SnapshotError::Read)?;
            durable = facts.position;
            self.write(&facts.file())?
        };
        wal.mark(&Mark { position: durable, conf_state: Some(conf_state.clone()) })
            .map_err(SnapshotError::Mark)?;
        tracing::info!("snapshot-index" = durable.index.0, "saved snapshot to disk");
        self.release(durable.index, wal)?;
        Ok(Some(encoding))
    }

    /// A snapshot of the leader, whose mark is in the log, took the place of the state.
    ///
    /// # Errors
    ///
    /// As [`Snapshots::consider`].
    pub(crate) fn replaced(
        &mut self,
        position: LogPosition,
        conf_state: &ConfState,
        state: &State,
        wal: &mut Wal,
    ) -> Result<(), SnapshotError> {
        match self.write_file(position, conf_state, state) {
            // The next one will be there for older releases.
            Err(error) if error.is_no_space() => {
                tracing::warn!(error = %error, "no snapshot file until there is room");
            }
            written => drop(written?),
        }
        self.release(position.index, wal)
    }

    /// Writes the file of the log's newest mark if a crash or a full disk came between the two:
    /// releases up to 3.6 need it to start from that mark. Failing to harms nobody else.
    pub(crate) fn complete(&self, mark: LogPosition, conf_state: &ConfState, state: &State) {
        let name = format!("{:016x}-{:016x}.snap", mark.term.0, mark.index.0);
        if mark.index == Index(0) || self.dir.exists(&name).unwrap_or(true) {
            return;
        }
        // Members may have changed since; whoever replays that finds it done.
        match self.write_file(mark, conf_state, state) {
            Ok(_) => tracing::info!(name, "wrote the snapshot file of the newest mark"),
            Err(error) => tracing::warn!(
                error = &error as &(dyn std::error::Error + 'static),
                "no snapshot file for the newest mark"
            ),
        }
    }

    fn release(&mut self, index: Index, wal: &mut Wal) -> Result<(), SnapshotError> {
        let released = wal.release(index).map_err(SnapshotError::Release)?;
        if released > 0 {
            tracing::info!(segments = released, "released old log segments");
        }
        self.remove_old_files();
        self.last = index;
        Ok(())
    }

    fn write_file(
        &self,
        position: LogPosition,
        conf_state: &ConfState,
        state: &State,
    ) -> Result<Duration, SnapshotError> {
        let members = state.members();
        let removed = state.removed_members();
        let cluster_version = state.reads().cluster_version();
        let file = SnapshotFile {
            position,
            conf_state: to_message(conf_state),
            members: &members,
            removed: &removed,
            cluster_version: cluster_version.as_deref(),
            v2: Some(state.v2()),
        };
        self.write(&file)
    }

    fn write(&self, file: &SnapshotFile<'_>) -> Result<Duration, SnapshotError> {
        write(self.dir.as_ref(), file).map_err(|source| {
            // Half a file would make older releases look for another one.
            let _removed = self.dir.remove(&file.name());
            SnapshotError::File { name: file.name(), source }
        })
    }

    /// Old files are a courtesy to older releases; failing to remove one harms nobody.
    fn remove_old_files(&self) {
        let Some(files_max) = self.files_max else { return };
        let Ok(names) = self.dir.list() else { return };
        for kind in [".snap", SUFFIX] {
            let files = names.iter().filter(|name| name.ends_with(kind));
            let mut files: Vec<&String> = files.collect();
            files.truncate(files.len().saturating_sub(files_max));
            for name in files {
                if let Err(error) = self.dir.remove(name) {
                    tracing::warn!(name, error = %error, "cannot remove an old snapshot file");
                }
            }
        }
    }
}

/// Writes a snapshot file; durable on return. How long encoding it took.
fn write(dir: &dyn Dir, snapshot: &SnapshotFile<'_>) -> io::Result<Duration> {
    let file = dir.open(&snapshot.name(), Open::CreateOrWrite)?;
    file.set_len(0)?;
    let began = Instant::now();
    let bytes = snapshot.encode();
    let encoding = began.elapsed();
    file.write_at(&bytes, 0)?;
    file.sync_data()?;
    dir.sync()?;
    Ok(encoding)
}

fn to_message(state: &ConfState) -> raftpb::ConfState {
    let ids = |set: &BTreeSet<MemberId>| set.iter().map(|id| id.0).collect();
    raftpb::ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: Some(state.auto_leave),
    }
}

#[cfg(test)]
mod tests {
    use base::Term;
    use vfs::memory::MemoryDir;

    use super::*;

    #[test]
    fn the_newest_mark_gets_the_file_it_lacks() {
        let dir = MemoryDir::new().shared();
        let backend = Backend::open(&dir, "db", &backend::Options::default()).unwrap();
        let mvcc = mvcc::Options::default();
        let options = state::Options { lease_ttl_seconds_min: 2, learners_max: 1, mvcc };
        let state = State::open(&backend, &options).unwrap();
        let snapshots = Snapshots::new(dir.clone(), &LogOptions::default(), Index(7));
        let names = || {
            let names = dir.list().unwrap();
            names.into_iter().filter(|name| name.ends_with(".snap")).collect::<Vec<_>>()
        };
        snapshots.complete(LogPosition::default(), &ConfState::default(), &state);
        assert_eq!(names(), [""; 0], "a log that is whole needs none");
        let mark = LogPosition { index: Index(7), term: Term(2) };
        snapshots.complete(mark, &ConfState::default(), &state);
        assert_eq!(names(), ["0000000000000002-0000000000000007.snap"]);
        // One that is there stays as it is.
        let file = dir.open(&names()[0], Open::CreateOrWrite).unwrap();
        file.set_len(0).unwrap();
        snapshots.complete(mark, &ConfState::default(), &state);
        assert_eq!(file.len().unwrap(), 0);
    }
}
