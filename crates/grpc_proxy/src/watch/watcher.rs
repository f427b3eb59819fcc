//! One watch of one client: what it wants to see, what it has seen, where its responses go.

use prost::Message as _;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use proto::mvccpb::Event;
use proto::mvccpb::event::EventType;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::Status;

use super::queue::{QUEUE_LEN, Queue, Room, bytes_of};

/// A response with more bytes is cut for those who allow it. A little above what a member takes as
/// one request, as in etcd.
const FRAGMENT_BYTES_MAX: usize = 1_536 << 10;

/// What a watch wants to see.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) progress: bool,
    pub(super) previous_pairs: bool,
    pub(super) fragments: bool,
    hides: Hidden,
}

/// Events that are left out.
#[derive(Clone, Copy, Debug, Default)]
struct Hidden {
    puts: bool,
    deletes: bool,
}

impl Wanted {
    pub(super) fn of(request: &WatchCreateRequest) -> Self {
        let has = |filter| request.filters().any(|given| given == filter);
        Self {
            progress: request.progress_notify,
            previous_pairs: request.prev_kv,
            fragments: request.fragment,
            hides: Hidden { puts: has(FilterType::Noput), deletes: has(FilterType::Nodelete) },
        }
    }

    fn shows(self, event: &Event) -> bool {
        match event.r#type() {
            EventType::Put => !self.hides.puts,
            EventType::Delete => !self.hides.deletes,
        }
    }
}

/// Names a watch among all of this proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatcherKey(pub(super) u64);

/// One watch of one client.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) key: WatcherKey,
    /// Its client's stream, as a number.
    pub(super) stream: u64,
    /// Its name on that stream.
    pub(super) id: i64,
    pub(super) wanted: Wanted,
    /// The first revision that was not delivered; 0 for what is new, as long as nobody has said
    /// what that is.
    pub(super) next: i64,
    /// What a member said when it was asked whether the caller may watch.
    pub(super) checked: ResponseHeader,
    pub(super) queue: Queue,
    /// For the response that it exists, until that is told.
    pub(super) room: Option<Room>,
    /// Of the last response.
    pub(super) last_header: Option<ResponseHeader>,
    /// Turns true with its end, for its stream.
    pub(super) ended: Arc<AtomicBool>,
}

/// A watch that cannot take a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its client reads too slowly.
    Behind,
    /// Its client is gone.
    Gone,
}

impl Watcher {
    /// Tells that the watch exists, unless that was told before.
    pub(super) fn tell_created(&mut self, header: ResponseHeader) {
        let Some(room) = self.room.take() else { return };
        self.last_header = Some(header);
        let response = WatchResponse {
            header: Some(header),
            watch_id: self.id,
            created: true,
            ..WatchResponse::default()
        };
        room.send(response);
    }

    /// Delivers what is new and wanted of these events, which are all there is of their revisions.
    ///
    /// # Errors
    ///
    /// Nothing of it was delivered, or not to its end; what was not is not counted as seen.
    pub(super) fn deliver(
        &mut self,
        header: Option<&ResponseHeader>,
        events: &[Event],
    ) -> Result<(), Lost> {
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
        let fresh: Vec<_> = events.iter().filter(|event| self.next <= revision(event)).collect();
        let Some(last) = fresh.iter().map(|event| revision(event)).max() else { return Ok(()) };
        let shown = fresh.into_iter().filter(|event| self.wanted.shows(event));
        let shown: Vec<_> = shown.map(|event| self.cut(event)).collect();
        if !shown.is_empty() {
            // Even the smallest part of what arrived keeps all of it.
            self.send_events(header, shown, bytes_of(events))?;
        }
        self.next = last + 1;
        Ok(())
    }

    fn cut(&self, event: &Event) -> Event {
        let mut event = event.clone();
        if !self.wanted.previous_pairs {
            event.prev_kv = None;
        }
        event
    }

    fn send_events(
        &mut self,
        header: Option<&ResponseHeader>,
        events: Vec<Event>,
        bytes: u32,
    ) -> Result<(), Lost> {
        self.last_header = header.copied();
        let response = |events, fragment| WatchResponse {
            header: header.copied(),
            watch_id: self.id,
            events,
            fragment,
            ..WatchResponse::default()
        };
        let pieces = if self.wanted.fragments { pieces(events) } else { vec![events] };
        let count = pieces.len();
        let pieces = pieces.into_iter().enumerate();
        let pieces = pieces.map(|(number, events)| response(events, number + 1 < count));
        self.queue.try_put(pieces.collect(), bytes)
    }

    /// Tells how far everything is delivered, if that is wanted.
    pub(super) fn deliver_progress(&mut self, header: ResponseHeader) -> Result<(), Lost> {
        if self.wanted.progress {
            let response = WatchResponse {
                header: Some(header),
                watch_id: self.id,
                ..WatchResponse::default()
            };
            self.queue.try_send(response)?;
            self.last_header = Some(header);
        }
        self.next = self.next.max(header.revision + 1);
        Ok(())
    }

    /// Tells the end that a member has put to it. It waits for room: nothing comes after it.
    pub(super) fn end(mut self, response: &WatchResponse) {
        let is_untold = self.room.is_some();
        let response = WatchResponse {
            // Go's clients do not look whether there is one.
            header: response.header.or(self.last_header).or(Some(self.checked)),
            watch_id: self.id,
            created: is_untold,
            canceled: true,
            compact_revision: response.compact_revision,
            cancel_reason: response.cancel_reason.clone(),
            ..WatchResponse::default()
        };
        self.ended.store(true, Ordering::Release);
        match self.room.take() {
            Some(room) => room.send(response),
            None => self.queue.clone().tell_last(Ok(response)),
        }
    }

    /// Ends the whole stream of its client.
    pub(super) fn end_stream(self, status: Status) {
        self.ended.store(true, Ordering::Release);
        self.queue.tell_last(Err(status));
    }
}

/// Events in pieces of bearable size; at least one event in each, and no more pieces than may wait.
fn pieces(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut pieces: Vec<Vec<Event>> = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let event_bytes = event.encoded_len();
        let is_full = FRAGMENT_BYTES_MAX < bytes + event_bytes && pieces.len() < PIECES_MAX;
        let piece = pieces.last_mut().expect("there is always one");
        if is_full && !piece.is_empty() {
            pieces.push(vec![event]);
            bytes = event_bytes;
        } else {
            piece.push(event);
            bytes += event_bytes;
        }
    }
    pieces
}

/// They must fit into a queue together.
const PIECES_MAX: usize = QUEUE_LEN / 2;
