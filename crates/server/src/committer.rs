//! The store thread: makes what apply left in memory durable, off everyone's path.
//!
//! It commits every interval or once enough changes wait (SRV-053, SRV-054), tells the node loop
//! how far the state is durable, and gives freed space back to the file system in small steps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use backend::{Backend, Commit, CommitError};
use parking_lot::{Mutex, MutexGuard};

use crate::metrics::Metrics;
use crate::node_queue::NodeQueue;

/// When commits happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// At the latest after this time.
    pub(crate) interval: Duration,
    /// Or when this many changes wait.
    pub(crate) changes: usize,
}

/// A disk that was full is asked again this often.
const RETRY: Duration = Duration::from_secs(1);

/// Free bytes below which the file is left as it is.
const SHRINK_FREE_BYTES_MIN: u64 = 32 << 20;

/// What others tell the store thread.
#[derive(Debug)]
enum Nudge {
    Commit,
    Stop,
}

/// Tells the store thread that much waits, or that it should end.
#[derive(Clone, Debug)]
pub(crate) struct CommitterQueue {
    nudges: SyncSender<Nudge>,
    changes: usize,
    writing: Arc<Mutex<()>>,
}

impl CommitterQueue {
    /// Asks for a commit if enough changes wait. Never blocks: a nudge that waits already will do.
    pub(crate) fn consider(&self, backend: &Backend) {
        if self.changes <= backend.pending() {
            let _waits_already = self.nudges.try_send(Nudge::Commit);
        }
    }

    /// Keeps the store thread from writing as long as the guard lives; waits for a commit that is
    /// under way.
    pub(crate) fn hold_off(&self) -> MutexGuard<'_, ()> {
        self.writing.lock()
    }

    /// Asks for the last commit and the end.
    pub(crate) fn stop(&self) {
        let _gone = self.nudges.send(Nudge::Stop);
    }
}

/// The store thread before it runs.
#[derive(Debug)]
pub(crate) struct Committer {
    backend: Backend,
    node: NodeQueue,
    pace: Pace,
    metrics: Arc<Metrics>,
    nudges: Receiver<Nudge>,
    full: bool,
    /// Held while the files grow.
    writing: Arc<Mutex<()>>,
}

impl Committer {
    pub(crate) fn new(
        backend: Backend,
        node: NodeQueue,
        pace: Pace,
        metrics: Arc<Metrics>,
    ) -> (Self, CommitterQueue) {
        let (sender, nudges) = sync_channel(1);
        let writing = Arc::new(Mutex::new(()));
        let queue =
            CommitterQueue { nudges: sender, changes: pace.changes, writing: writing.clone() };
        (Self { backend, node, pace, metrics, nudges, full: false, writing }, queue)
    }

    /// Runs until it is stopped; the last thing it does is a commit.
    ///
    /// # Errors
    ///
    /// The database cannot be written; the process must end.
    pub(crate) fn run(mut self) -> Result<(), CommitError> {
        loop {
            let pause = if self.full { RETRY } else { self.pace.interval };
            let stop = match self.nudges.recv_timeout(pause) {
                Ok(Nudge::Commit) | Err(RecvTimeoutError::Timeout) => false,
                Ok(Nudge::Stop) | Err(RecvTimeoutError::Disconnected) => true,
            };
            self.commit()?;
            if stop {
                return Ok(());
            }
            self.shrink()?;
        }
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        if self.backend.pending() == 0 && self.backend.durable() == self.backend.applied() {
            return Ok(());
        }
        let began = Instant::now();
        let committed = {
            let _writing = self.writing.lock();
            self.backend.commit()
        };
        match committed {
            Ok(Commit { durable, changes, pages, took }) => {
                if self.full {
                    self.full = false;
                    tracing::info!("the disk has room again; the database is durable");
                }
                self.metrics.disk.on_commit(began.elapsed(), took);
                tracing::debug!(changes, pages, took = ?began.elapsed(), "committed");
                self.node.durable(durable);
                Ok(())
            }
            Err(CommitError::NoSpace(error)) => {
                if !self.full {
                    self.full = true;
                    tracing::warn!(
                        error = %error,
                        "no space left for the database; free some on its volume, nothing is lost"
                    );
                }
                self.node.disk_full();
                Ok(())
            }
            Err(error @ (CommitError::Io(_) | CommitError::Read(_))) => Err(error),
        }
    }

    /// One step towards a smaller file, if at least a quarter of it is free.
    fn shrink(&mut self) -> Result<(), CommitError> {
        let sizes = self.backend.sizes();
        let free = sizes.total.saturating_sub(sizes.in_use);
        if self.full || free < SHRINK_FREE_BYTES_MIN || free < sizes.total / 4 {
            return Ok(());
        }
        match self.backend.shrink_step() {
            Ok(_) | Err(CommitError::NoSpace(_)) => Ok(()),
            Err(error @ (CommitError::Io(_) | CommitError::Read(_))) => Err(error),
        }
    }
}
