//! Waiting for changes of emulated keys: the third generation's changes below the prefix, of which
//! those of one revision are one event of the second.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2v3/watcher.go.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use base::KeyRange;
use bytes::Bytes;
use futures_util::StreamExt as _;
use mvcc::{Filters, Wake, WatchOutput, WatchSpec, WatchStream};
use prost::Message as _;
use proto::mvccpb::Event as Row;
use proto::mvccpb::event::EventType;
use state::Refusal;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use v2store::{Action, Code, Error, Event, NodeView, Watch};

use super::layout::{Layout, index_of, is_hidden_from};
use super::{OverV3, internal};
use crate::handle::ProposeError;
use crate::http::v2::{keys, now};

/// Bytes of changes taken at once.
const PULL_BYTES_MAX: usize = 64 << 10;

/// Events that wait for a client; what is behind them waits in the store. One may have many MiB.
const WAITING_MAX: usize = 1;

/// Wakes whoever waits for changes.
#[derive(Debug, Default)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Tells one client.
struct Teller {
    layout: Arc<Layout>,
    asked: Watch,
    stream: WatchStream,
    bell: Arc<Bell>,
    sender: mpsc::Sender<Bytes>,
}

impl OverV3 {
    /// The answer to who waits; its head goes out at once.
    pub(in super::super) fn watch(&self, asked: Watch) -> Result<Response, Error> {
        if self.handle.reads().auth_enabled() {
            return Err(internal(&Refusal::UserNameEmpty.into()));
        }
        let keys = self.handle.reads().keys();
        let index = index_of(keys.revision());
        // Index and revision differ by one.
        let start = match asked.since {
            0 => keys.revision() + 1,
            since => i64::try_from(since).unwrap_or(i64::MAX).saturating_add(1),
        };
        let oldest = keys.compact_revision() + 1;
        if start < oldest {
            let cause = format!(
                "the requested history has been cleared [{}/{}]",
                index_of(oldest),
                asked.since
            );
            return Err(Error { code: Code::EventIndexCleared, cause, index });
        }
        let bell = Arc::<Bell>::default();
        let mut stream = self.handle.reads().watch().stream(bell.clone());
        let (first, end) = self.layout.all();
        let spec = WatchSpec {
            keys: KeyRange::from_wire(first, end),
            start,
            filters: Filters::default(),
            want_previous: true,
            id: 0,
            fragment: false,
        };
        stream.create(spec).map_err(|_| internal(&ProposeError::Overloaded))?;
        if self.handle.reads().auth_enabled() {
            return Err(internal(&Refusal::UserNameEmpty.into()));
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let layout = Arc::clone(&self.layout);
        tokio::spawn(Teller { layout, asked, stream, bell, sender }.run());
        let lines = ReceiverStream::new(receiver).map(Ok::<_, std::convert::Infallible>);
        let mut response = Response::new(Body::from_stream(lines));
        keys::put_indexes(&self.handle, index, response.headers_mut());
        Ok(response)
    }
}

impl Teller {
    /// Until the client has what it waits for, or goes away.
    async fn run(mut self) {
        loop {
            let mut outputs = Vec::new();
            let Ok(more) = self.stream.pull(PULL_BYTES_MAX, &mut outputs) else { return };
            for output in outputs {
                match output {
                    WatchOutput::Events { events, .. } => {
                        if !self.tell(&events).await {
                            return;
                        }
                    }
                    WatchOutput::Compacted { .. } => return,
                    WatchOutput::Progress { .. } => {}
                }
            }
            if more {
                if self.sender.is_closed() {
                    return;
                }
                // The whole history may lie before the first event that concerns the client.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.bell.0.notified() => {}
                () = self.sender.closed() => return,
            }
        }
    }

    /// Tells of whole revisions; whether there may be more to tell.
    async fn tell(&self, events: &[Bytes]) -> bool {
        let rows = events.iter().map(|row| Row::decode(row.clone()).expect("the store encoded it"));
        let rows: Vec<Row> = rows.collect();
        for rows in rows.chunk_by(|one, other| revision(one) == revision(other)) {
            let Some(event) = event_of(&self.layout, rows) else { continue };
            if !concerns(&event, &self.asked) {
                continue;
            }
            let is_sent = self.sender.send(event.to_json(now()).into()).await.is_ok();
            if !is_sent || !self.asked.stream {
                return false;
            }
        }
        true
    }
}

fn revision(row: &Row) -> i64 {
    row.kv.as_ref().map_or(0, |row| row.mod_revision)
}

/// What the changes of one revision are for the second generation; `None` for what others wrote
/// below the prefix.
fn event_of(layout: &Layout, rows: &[Row]) -> Option<Event> {
    let action_key = layout.action();
    let is_action = |row: &&Row| row.kv.as_ref().is_some_and(|row| row.key == action_key);
    let action = &rows.iter().find(is_action)?.kv.as_ref()?.value;
    let action = Action::named(str::from_utf8(action).ok()?)?;
    let nodes = rows.iter().filter(|row| !is_action(row));
    let length = |row: &&Row| row.kv.as_ref().map_or(0, |row| row.key.len());
    // With a node the directories above it are made, and with a directory goes what is below it.
    let node = match action {
        Action::Delete => nodes.min_by_key(length),
        Action::Get
        | Action::Create
        | Action::Set
        | Action::Update
        | Action::CompareAndSwap
        | Action::CompareAndDelete
        | Action::Expire => nodes.max_by_key(length),
    }?;
    let row = node.kv.as_ref()?;
    layout.path(&row.key)?;
    let before = node.prev_kv.as_ref().map(|row| layout.view(row));
    let mut shown = layout.view(row);
    if node.r#type() == EventType::Delete {
        let created = before.as_ref().map_or(0, |before| before.created);
        shown = NodeView { value: None, created, ..shown };
    }
    Some(Event {
        action,
        node: shown,
        prev_node: before,
        below: Vec::new(),
        index: index_of(revision(node)),
        at: None,
        refresh: false,
    })
}

/// Whether who waits is told of an event (V2-076, V2-077).
fn concerns(event: &Event, asked: &Watch) -> bool {
    let (changed, waited) = (event.node.key.as_str(), asked.path.as_str());
    let is_within = |path: &str, dir: &str| {
        path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if changed == waited {
        return true;
    }
    let goes = event.action == Action::Delete && event.node.dir;
    (asked.recursive && is_within(changed, waited) && !is_hidden_from(waited, changed))
        || (goes && is_within(waited, changed))
}
