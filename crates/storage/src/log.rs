//! The log of a member that runs: what consensus wants written, what a snapshot lets it forget, on
//! the disk and in memory.
//!
//! Batches are written in their order, several as one where they can be. One that finds no room
//! waits in its place, and those behind it wait for it. Every `snapshot_entries` applied entries the
//! log is marked at what the database holds durably, and what is before may go.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backend::Backend;
use base::{Index, LogPosition};
use raft::{ConfState, Persist, Persisted, Raft, Restored};
use state::State;
use vfs::Dir;
use wal::{AppendError, Mark, Wal};

use crate::log_window::LogWindow;
use crate::snapshots::{SnapshotError, Snapshots};

/// When the log forgets.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Applied entries between two marks.
    pub snapshot_entries: u64,
    /// Snapshot files of each kind that are kept; `None` for all.
    pub snapshot_files_max: Option<usize>,
    /// Entries that stay in memory for members that lag.
    pub catchup_entries: u64,
    /// Entries from which on forgetting them in memory is worth a step.
    pub forget_step_entries: u64,
    /// Whether batches that wait become durable as one. Only tests do without.
    pub joins_batches: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            snapshot_entries: 10_000,
            snapshot_files_max: Some(5),
            catchup_entries: 5_000,
            forget_step_entries: 100,
            joins_batches: true,
        }
    }
}

/// The log's files and what waits for them.
#[derive(Debug)]
pub struct Log {
    wal: Wal,
    /// More than for a moment only on a full disk, or if the only one is a hint that goes along with
    /// the next.
    waiting: VecDeque<Persist>,
    snapshots: Snapshots,
    window: LogWindow,
    joins_batches: bool,
}

/// What came of writing.
#[derive(Debug)]
#[must_use = "members wait for the messages in it"]
pub enum Written {
    /// Nothing waits.
    Nothing,
    /// The oldest batches are as durable as they must be.
    Done(Done),
    /// There is no room; they are to be tried again.
    Full(AppendError),
}

/// Batches that are written.
#[derive(Debug)]
pub struct Done {
    /// What follows from that.
    pub persisted: Persisted,
    /// The received snapshot that now takes the place of the state, if the batch was one.
    pub snapshot: Option<LogPosition>,
    /// The commit index that was written, if one was.
    pub commit: Option<Index>,
    /// Entries written, and the bytes of what they carry.
    pub entries: usize,
    /// See `entries`.
    pub entry_bytes: usize,
    /// Whether they were synced.
    pub synced: bool,
    /// Whether room had to be made for them.
    pub needed_room: bool,
}

impl Log {
    /// `wal` and `restored` are a start's, `state` its state, and `dir` the folder of snapshots.
    #[must_use]
    pub fn new(
        wal: Wal,
        dir: Arc<dyn Dir>,
        restored: &Restored,
        state: &State,
        options: &LogOptions,
    ) -> Self {
        let snapshots = Snapshots::new(dir, options, restored.snapshot.index);
        snapshots.complete(restored.snapshot, &restored.conf_state, state);
        let window =
            LogWindow::new(options.catchup_entries, options.forget_step_entries, &restored.entries);
        let joins_batches = options.joins_batches;
        Self { wal, waiting: VecDeque::new(), snapshots, window, joins_batches }
    }

    /// The folder of the segments.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.wal.folder()
    }

    /// Takes what is to be written.
    pub fn push(&mut self, batches: impl IntoIterator<Item = Persist>) {
        self.waiting.extend(batches);
    }

    /// What is to be written, the oldest first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Persist> {
        self.waiting.iter()
    }

    /// Whether nothing waits but a hint, which may wait for the next batch.
    #[must_use]
    pub fn has_only_hint(&self) -> bool {
        self.waiting.len() == 1 && self.has_hint()
    }

    /// Whether a hint is next.
    #[must_use]
    pub fn has_hint(&self) -> bool {
        self.waiting.front().is_some_and(Persist::is_hint)
    }

    /// Writes the oldest batch and those that can become durable with it. If there is no room,
    /// `make_room` is asked once for some, and what it gives is kept until all is written.
    ///
    /// # Errors
    ///
    /// The log's, but for a full disk.
    pub fn write_next<R>(
        &mut self,
        make_room: impl FnOnce() -> Option<R>,
    ) -> Result<Written, AppendError> {
        let Some(batch) = self.next_batch() else { return Ok(Written::Nothing) };
        let snapshot = batch.snapshot.as_ref().map(|meta| meta.position);
        let commit = batch.hard_state.as_ref().map(|state| state.commit);
        let entry_bytes = batch.entries.iter().map(|entry| entry.data.len()).sum();
        let (entries, synced) = (batch.entries.len(), batch.must_sync);
        let mut needed_room = false;
        let (wal, window) = (&mut self.wal, &mut self.window);
        let written = batch.try_persist(|batch| {
            let mut written = append(wal, batch);
            needed_room = matches!(written, Err(AppendError::NoSpace { .. }));
            if needed_room && let Some(_room) = make_room() {
                written = append(wal, batch);
            }
            written?;
            if batch.snapshot.is_some() {
                window.clear();
            }
            window.add(&batch.entries);
            Ok(())
        });
        match written {
            Ok(persisted) => Ok(Written::Done(Done {
                persisted,
                snapshot,
                commit,
                entries,
                entry_bytes,
                synced,
                needed_room,
            })),
            Err(unpersisted) => {
                let raft::Unpersisted { persist, error } = *unpersisted;
                if !matches!(error, AppendError::NoSpace { .. }) {
                    return Err(error);
                }
                self.waiting.push_front(persist);
                Ok(Written::Full(error))
            }
        }
    }

    fn next_batch(&mut self) -> Option<Persist> {
        let mut batch = self.waiting.pop_front()?;
        while self.joins_batches
            && let Some(next) = self.waiting.pop_front()
        {
            if let Err(next) = batch.absorb(next) {
                self.waiting.push_front(*next);
                break;
            }
            base::probe::reached("log: batches are written as one");
        }
        Some(batch)
    }

    /// Takes a snapshot if the database holds enough more than the last one; how long encoding its
    /// file took if it did. Not while a hint waits: a mark beyond the commit index in the log is none
    /// at the next start.
    ///
    /// # Errors
    ///
    /// The file or the mark; the log itself is intact after the first.
    pub fn on_durable(
        &mut self,
        durable: LogPosition,
        conf_state: &ConfState,
        state: &State,
        backend: &Backend,
    ) -> Result<Option<Duration>, SnapshotError> {
        if self.has_hint() {
            return Ok(None);
        }
        self.snapshots.consider(durable, conf_state, state, backend, &mut self.wal)
    }

    /// A received snapshot, whose mark is in the log, took the place of the state.
    ///
    /// # Errors
    ///
    /// As [`Log::on_durable`].
    pub fn on_restored(
        &mut self,
        position: LogPosition,
        conf_state: &ConfState,
        state: &State,
    ) -> Result<(), SnapshotError> {
        self.snapshots.replaced(position, conf_state, state, &mut self.wal)
    }

    /// Up to where consensus should forget its entries now; `None` if that is not worth it.
    pub fn forgettable(&mut self, consensus: &Raft) -> Option<Index> {
        self.window.target(&consensus.status(), consensus.peers().map(|(_, peer)| peer))
    }
}

fn append(wal: &mut Wal, batch: &Persist) -> Result<(), AppendError> {
    if let Some(meta) = &batch.snapshot {
        // The mark first: what follows in the log stands behind the snapshot.
        let conf_state = Some(meta.conf_state.clone());
        wal.mark(&Mark { position: meta.position, conf_state })?;
    }
    wal.append_and_sync(&batch.entries, batch.hard_state.as_ref(), batch.must_sync)
}
