//! The changes of some keys, one by one, for who waits within the server.

use std::collections::VecDeque;
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;
use mvcc::{Filters, Wake, WatchOutput, WatchSpec, WatchStream};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use state::{Identity, Refusal};
use tokio::sync::Notify;

use super::RecipeError;
use crate::handle::Handle;

/// Bytes of changes taken at once.
const PULL_BYTES_MAX: usize = 64 << 10;

/// Wakes whoever waits for changes.
#[derive(Debug, Default)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// The changes from a revision on.
#[derive(Debug)]
pub(super) struct Changes {
    handle: Handle,
    /// For whom, unless auth was off, and what was asked for then.
    watcher: Option<(String, pb::WatchCreateRequest)>,
    stream: WatchStream,
    bell: Arc<Bell>,
    ready: VecDeque<Bytes>,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It was written: the row.
    Put(KeyValue),
    /// It was deleted.
    Deletion,
}

impl Change {
    /// The row, if the key was written.
    pub(super) fn put(self) -> Option<KeyValue> {
        match self {
            Self::Put(row) => Some(row),
            Self::Deletion => None,
        }
    }
}

impl Changes {
    /// Watches keys from a revision on, which may lie in the past, for somebody who may.
    pub(super) fn watch(
        handle: &Handle,
        keys: KeyRange,
        revision: i64,
        (who, request): (Identity, pb::WatchCreateRequest),
    ) -> Result<Self, RecipeError> {
        let bell = Arc::<Bell>::default();
        let mut stream = handle.reads().watch().stream(bell.clone());
        let spec = WatchSpec {
            keys,
            start: revision,
            filters: Filters::default(),
            want_previous: false,
            id: 0,
            fragment: false,
        };
        stream.create(spec).map_err(|_| RecipeError::LostWatch)?;
        // As with any watch, what began while auth was off goes on.
        let watcher = (who.revision != 0).then_some((who.user, request));
        Ok(Self { handle: handle.clone(), watcher, stream, bell, ready: VecDeque::new() })
    }

    /// The next change, for whoever may still see it.
    pub(super) async fn next(&mut self) -> Result<Change, RecipeError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                // Behind the pull, as with any watch (W-15).
                if let Some((user, request)) = &self.watcher
                    && !self.handle.may_still(user, request)
                {
                    return Err(Refusal::PermissionDenied.into());
                }
                let event = Event::decode(event).expect("the store encoded it");
                return Ok(match (event.r#type(), event.kv) {
                    (EventType::Put, Some(row)) => Change::Put(row),
                    (EventType::Put, None) | (EventType::Delete, _) => Change::Deletion,
                });
            }
            let mut outputs = Vec::new();
            let pulled = self.stream.pull(PULL_BYTES_MAX, &mut outputs);
            let more = pulled.map_err(|_| RecipeError::LostWatch)?;
            for output in outputs {
                match output {
                    WatchOutput::Events { events, .. } => self.ready.extend(events.iter().cloned()),
                    WatchOutput::Compacted { .. } => return Err(RecipeError::LostWatch),
                    WatchOutput::Progress { .. } => {}
                }
            }
            if self.ready.is_empty() && !more {
                // A bell that rang before is heard at once.
                self.bell.0.notified().await;
            }
        }
    }
}
