//! The thread that fills log segments with zeros before they are written: syncing bytes over
//! zeros that are on disk already costs a third less than extending the file (design B 3.1).

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use wal::Preparer;

/// Between two looks at whether the next segment was taken.
const PAUSE: Duration = Duration::from_millis(200);

/// Works until [`PreparerQueue::stop`]. A failure costs speed only: the log prepares its segments
/// itself where it must.
pub(crate) fn run(preparer: &Preparer, stop: &Receiver<()>) {
    let mut told = false;
    loop {
        if let Err(error) = preparer.run_once() {
            if !told {
                tracing::warn!(error = %error, "cannot prepare a log segment ahead of time");
            }
            told = true;
        }
        match stop.recv_timeout(PAUSE) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Ends the thread.
#[derive(Debug)]
pub(crate) struct PreparerQueue(SyncSender<()>);

impl PreparerQueue {
    /// Makes both ends.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (sender, receiver) = sync_channel(1);
        (Self(sender), receiver)
    }

    /// Asks the thread to end.
    pub(crate) fn stop(&self) {
        let _gone = self.0.try_send(());
    }
}
