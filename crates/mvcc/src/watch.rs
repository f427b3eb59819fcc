//! Watching: each stream of watchers pulls from a shared ring of recent events.

use std::fmt::Debug;
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;

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
pub struct WatchHub;

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
        /// For the header: the mod revision of the last event.
        revision: i64,
        /// Encoded `mvccpb.Event` messages, shared between watchers.
        events: Vec<Bytes>,
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

/// The watches of one client stream. Buffers nothing: a watch is a cursor, and who does not pull
/// costs only the ring, then the store.
#[derive(Debug)]
pub struct WatchStream;

impl WatchHub {
    /// Opens a stream of watches.
    #[must_use]
    pub fn stream(&self, _wake: Arc<dyn Wake>) -> WatchStream {
        todo!()
    }
}

impl WatchStream {
    /// Makes a watch.
    ///
    /// # Errors
    ///
    /// The range is empty or the number is in use.
    pub fn create(&mut self, _spec: WatchSpec) -> Result<Created, WatchRefused> {
        todo!()
    }

    /// Ends a watch; `false` if there is none of that number.
    pub fn cancel(&mut self, _id: WatchId) -> bool {
        todo!()
    }

    /// Asks for one `Progress` with no id once every watch of the stream is synced (W-11).
    pub fn request_progress(&mut self) {
        todo!()
    }

    /// Asks for a `Progress` of one watch if it is synced and nothing was delivered since the last
    /// call for it (W-05: the server calls this at its interval).
    pub fn notify_idle(&mut self, _id: WatchId) {
        todo!()
    }

    /// Pulls what is ready, about `bytes_max` of it; `true` if there is more.
    ///
    /// # Errors
    ///
    /// The backend's, when a lagging watch or a previous row needs it.
    pub fn pull(
        &mut self,
        _bytes_max: usize,
        _out: &mut Vec<WatchOutput>,
    ) -> Result<bool, backend::ReadError> {
        todo!()
    }
}
