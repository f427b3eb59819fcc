//! The thread on which everything between the members runs.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long work that reads or writes the disk may go on at the end.
const STOP_TIME_MAX: Duration = Duration::from_millis(200);

/// The thread and its runtime.
#[derive(Debug)]
pub(crate) struct PeerThread {
    runtime: Handle,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl PeerThread {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// The operating system gave no thread or runtime.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("peers".to_owned()).spawn(move || {
            // A sender that is gone means stop, too.
            let _stopped = runtime.block_on(stopped);
            runtime.shutdown_timeout(STOP_TIME_MAX);
        })?;
        Ok(Self { runtime: handle, stop, thread })
    }

    /// Where to run what has to do with other members.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Ends the thread and whatever still runs on it.
    pub(crate) fn stop(self) {
        drop(self.stop);
        self.thread.join().expect("the thread of the peers does not panic: it aborts");
    }
}
