//! Watching: each stream of watchers pulls from a shared ring of recent events.
//!
//! Watches of the same range form a group. A published batch of events is matched against groups,
//! once, and events that a group wants are queued for it by number; streams with watches of such a
//! group are woken. A watch is a cursor: what is in its group's queue behind the cursor it takes
//! from the ring; where the queue does not reach back to the cursor, it reads rows of the backend.
//!
//! Not here: the wire, timers, permission to watch.
//!
//! Invariants (reliability 8.2): events of a watch come in order, each once, none missing, a
//! revision never in two answers unless in fragments of one; progress is told only when every event
//! up to it was.
//!
//! Source: etcd: server/storage/mvcc/watchable_store.go, watcher.go, watcher_group.go;
//! server/etcdserver/api/v3rpc/watch.go (fragments, previous rows, progress).

mod groups;
mod history;
mod hub;
mod ranges;
mod stream;

use std::fmt::Debug;
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;

use crate::store::Shared;

pub(crate) use hub::{Event, Hub, Kind};
pub use stream::WatchStream;

/// Number of a watch on its stream.
pub type WatchId = i64;

/// Told, from the applying thread, that a stream has something to pull. Must be cheap and never
/// block.
pub trait Wake: Debug + Send + Sync {
    /// There may be something to pull.
    fn wake(&self);
}

/// Opens streams; clones share it.
#[derive(Clone, Debug)]
pub struct WatchHub {
    pub(crate) shared: Arc<Shared>,
}

impl WatchHub {
    /// Opens a stream of watches. `wake` is called once between two pulls, when there is something
    /// new; not for what [`WatchStream::create`] or a request for progress makes pullable.
    #[must_use]
    pub fn stream(&self, wake: Arc<dyn Wake>) -> WatchStream {
        WatchStream::new(Arc::clone(&self.shared), wake)
    }

    /// What streams have not pulled yet. Looks at every watched range of every stream under a lock
    /// that publishing takes: for metrics, not for each request.
    #[must_use]
    pub fn lag(&self) -> WatchLag {
        self.shared.hub.read().groups.lag()
    }
}

/// What was published and not pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchLag {
    /// Watches whose stream has not pulled what was published for them.
    pub watches: usize,
    /// Events that wait for that in memory, counted once for each watch.
    pub events: usize,
}

/// What a watch wants.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    /// Which keys.
    pub keys: KeyRange,
    /// First revision to deliver; 0 is "from the next one". Ahead of the store is allowed.
    pub start: i64,
    /// Which kinds of event to leave out.
    pub filters: Filters,
    /// Whether events carry the row before.
    pub want_previous: bool,
    /// The number the client wants; 0 lets the stream choose.
    pub id: WatchId,
    /// Whether answers above the size limit are split.
    pub fragment: bool,
}

/// Kinds of event that are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
}

impl Filters {
    fn pass(self, kind: Kind) -> bool {
        match kind {
            Kind::Create | Kind::Modify => !self.no_put,
            Kind::Delete => !self.no_delete,
        }
    }
}

/// A watch that was made.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    /// Its number.
    pub id: WatchId,
    /// The store's revision for the answer's header.
    pub revision: i64,
}

/// Why a watch was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchRefused {
    /// `end <= start`.
    #[error("watcher range is empty")]
    EmptyRange,
    /// The wanted number is in use.
    #[error("duplicate watch id")]
    DuplicateId,
}

/// Something for the client.
#[derive(Clone, Debug)]
pub enum WatchOutput {
    /// Events of one or more whole revisions, or a fragment of them.
    Events {
        /// Whose.
        id: WatchId,
        /// For the header: the mod revision of the last event, or what the stream was told before
        /// if that is newer, as it is for a watch that starts in the past. So headers of a stream
        /// never go back, and as etcd's they are the store's revision while a watch catches up.
        revision: i64,
        /// Encoded `mvccpb.Event` messages, shared between watchers; watches of a stream that want
        /// the same share the list, too.
        events: Arc<[Bytes]>,
        /// Whether more of the same revisions follows.
        fragment: bool,
    },
    /// The watch ended because what it still needed was compacted.
    Compacted {
        /// Whose.
        id: WatchId,
        /// The compact revision.
        compact_revision: i64,
        /// The store's revision, for the header.
        revision: i64,
    },
    /// Every event up to `revision` was delivered; `None` answers a progress request for the
    /// whole stream (id -1 on the wire).
    Progress {
        /// Whose.
        id: Option<WatchId>,
        /// Up to here.
        revision: i64,
    },
}
