//! The network threads: each runs its own connections on a runtime of its own.
//!
//! A connection stays on the thread it was given to, so that its turn produces everything it can
//! before anything is written (docs/design/0005). The thread that starts them is the first; it
//! accepts for all and gives connections out in turn.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use crate::answers::{self, Given};

/// More network threads than this were never of use.
const SHARDS_MAX: usize = 16;

/// How many network threads this machine gets: half of its cores, but two where there are two. The
/// others are for the node loop, the store and the disk, which mostly wait.
pub(crate) fn count() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    cores.div_ceil(2).max(2).min(cores).min(SHARDS_MAX)
}

/// Where connections are given to; clones share the turn.
#[derive(Clone, Debug)]
pub(crate) struct Shards {
    runtimes: Arc<[Handle]>,
    turn: Arc<AtomicUsize>,
}

/// The threads beside the first.
#[derive(Debug)]
pub(crate) struct ShardThreads {
    threads: Vec<thread::JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Shards {
    /// Makes this thread the first and starts the others, one for each further receiver of answers.
    /// Must be called within the first one's runtime.
    ///
    /// # Errors
    ///
    /// The operating system gave no thread or runtime.
    pub(crate) fn start(receivers: Vec<Receiver<Vec<Given>>>) -> io::Result<(Self, ShardThreads)> {
        let (stop, stopping) = watch::channel(false);
        let mut receivers = receivers.into_iter();
        let mut runtimes = vec![Handle::current()];
        tokio::spawn(answers::deliver(receivers.next().expect("there is a first thread")));
        let mut threads = Vec::new();
        for (number, receiver) in (1..).zip(receivers) {
            let (sender, started) = sync_channel(1);
            let mut stopping = stopping.clone();
            let run = move || {
                let runtime = match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(sender.send(Err(error))),
                };
                answers::set_shard(number);
                drop(sender.send(Ok(runtime.handle().clone())));
                runtime.block_on(async {
                    tokio::spawn(answers::deliver(receiver));
                    // A sender that is gone means stop, too.
                    let _stopped = stopping.wait_for(|stop| *stop).await;
                });
            };
            threads.push(thread::Builder::new().name(format!("network-{number}")).spawn(run)?);
            let handle = started.recv().map_err(|_| io::Error::other("a thread ended early"))?;
            runtimes.push(handle?);
        }
        let shards = Self { runtimes: runtimes.into(), turn: Arc::default() };
        Ok((shards, ShardThreads { threads, stop }))
    }

    /// Runs every connection on this one runtime, which somebody else drives.
    pub(crate) fn on(runtime: Handle) -> Self {
        Self { runtimes: [runtime].into(), turn: Arc::default() }
    }

    /// Runs a connection on the next thread.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.runtimes[turn % self.runtimes.len()].spawn(connection);
    }
}

impl ShardThreads {
    /// Ends the threads and whatever still runs on them.
    pub(crate) fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            thread.join().expect("a network thread does not panic: it aborts");
        }
    }
}
