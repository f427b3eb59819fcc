//! The permissions of a stream's watches: looked at when one is made, and again whenever users or
//! roles change, so that a permission that is taken away ends the watches that needed it (W-15,
//! reliability 6.2). etcd looks only once.
//!
//! A watch lives on when its token ends (W-16): what counts is whose it is. One that was made while
//! auth was off is nobody's, and lives on, too.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use mvcc::{Wake, WatchId};
use parking_lot::Mutex;
use proto::etcdserverpb as pb;
use state::auth::WatchOwners;
use state::{Identity, Refusal};

use crate::auth::Caller;
use crate::handle::{Handle, ProposeError};

/// How often it is looked whether users or roles changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Wakes a stream.
type Waker = dyn Wake + Send + Sync;

/// Streams with watches that belong to somebody.
#[derive(Debug, Default)]
pub(super) struct GuardedStreams {
    streams: Mutex<Vec<Weak<Waker>>>,
}

impl GuardedStreams {
    fn add(&self, stream: Weak<Waker>) {
        let mut streams = self.streams.lock();
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(stream);
    }

    fn wake(&self) {
        self.streams.lock().retain(|stream| match stream.upgrade() {
            Some(stream) => {
                stream.wake();
                true
            }
            None => false,
        });
    }
}

/// Wakes all streams with guarded watches when users or roles have changed, so that those who hear
/// nothing else hear of that; until the service is gone.
pub(super) async fn wake_on_change(handle: Handle, streams: Weak<GuardedStreams>) {
    let mut seen = handle.reads().auth().version();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(streams) = streams.upgrade() else { return };
        let version = handle.reads().auth().version();
        if version != seen {
            seen = version;
            streams.wake();
        }
    }
}

/// A request for a watch whose caller is being made sure of.
type Entering = Pin<Box<dyn Future<Output = Entered> + Send>>;

/// The request, and who makes it.
pub(super) type Entered = (pb::WatchCreateRequest, Result<Identity, Refusal>);

/// The permissions of one stream.
pub(super) struct StreamGuard {
    caller: Caller,
    entering: Option<Entering>,
    /// Watches that belong to somebody.
    watches: WatchOwners,
    /// Once is enough, however often the last watch goes and a first one comes.
    is_known: bool,
    streams: Arc<GuardedStreams>,
}

impl std::fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamGuard").field("watches", &self.watches).finish_non_exhaustive()
    }
}

impl StreamGuard {
    pub(super) fn new(caller: Caller, streams: Arc<GuardedStreams>) -> Self {
        let (entering, watches) = (None, WatchOwners::default());
        Self { caller, entering, watches, is_known: false, streams }
    }

    /// Begins to make sure who asks for a watch. One at a time.
    pub(super) fn enter(&mut self, handle: &Handle, create: pb::WatchCreateRequest) {
        assert!(self.entering.is_none(), "requests are taken one by one");
        let (handle, caller) = (handle.clone(), self.caller.clone());
        self.entering = Some(Box::pin(async move {
            let entered = handle.enter(&caller, &create).await.map_err(|error| {
                let ProposeError::Refused(refusal) = error else {
                    unreachable!("a caller is let in or refused, and not {error}")
                };
                refusal
            });
            (create, entered)
        }));
    }

    /// The request that was entered; `None` if there is none.
    pub(super) fn poll_entered(&mut self, context: &mut Context<'_>) -> Poll<Option<Entered>> {
        let Some(entering) = &mut self.entering else { return Poll::Ready(None) };
        let entered = std::task::ready!(entering.as_mut().poll(context));
        self.entering = None;
        Poll::Ready(Some(entered))
    }

    /// Notes whose a new watch is.
    pub(super) fn add(
        &mut self,
        id: WatchId,
        user: String,
        request: pb::WatchCreateRequest,
        stream: &Arc<Waker>,
    ) {
        if !self.is_known {
            self.streams.add(Arc::downgrade(stream));
            self.is_known = true;
        }
        self.watches.add(id, user, request);
    }

    pub(super) fn remove(&mut self, id: WatchId) {
        self.watches.remove(id);
    }

    /// Watches that may not go on. Costs a look at the revision unless something changed.
    pub(super) fn denied(&mut self, handle: &Handle) -> Vec<WatchId> {
        self.watches.denied(handle.reads())
    }
}
