//! Watchers: who waits where, and what each has not read yet.
//!
//! A watcher that asks for one event is gone from the table with it; one that streams stays until
//! it is dropped, or until it has not read for so long that its events would pile up (V2-079). Where
//! etcd shows a streaming watcher the removal of its own key twice, this shows it once (V2-081); and
//! one that streams from an old index is told of all since, not of one event and then of nothing.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store/{watcher,watcher_hub}.go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::history::History;
use crate::reader::Shared;
use crate::{Event, path};

/// Events that may wait for a watcher beside those that were there before it.
pub const WATCHER_EVENTS_MAX: usize = 100;

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The node, with the namespace.
    pub path: String,
    /// Whether changes below it count.
    pub recursive: bool,
    /// Whether to go on after the first event.
    pub stream: bool,
    /// The first index that counts; 0 for whatever comes next.
    pub since: u64,
}

/// One that waits; dropping it frees its place.
#[derive(Debug)]
pub struct Watcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) path: String,
    pub(crate) id: u64,
    pub(crate) start_index: u64,
}

impl Watcher {
    /// The store's index when the watch began.
    #[must_use]
    pub fn start_index(&self) -> u64 {
        self.start_index
    }

    /// The next event; `None` once there will be no more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        let mut waiting = self.slot.waiting.lock();
        if let Some(event) = waiting.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => waiting.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// The next event.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.hub.lock().remove(&self.path, self.id);
    }
}

/// A watcher as the table has it.
#[derive(Debug)]
pub(crate) struct Slot {
    recursive: bool,
    stream: bool,
    since: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    /// How many may wait.
    room: usize,
    /// The newest index it was told of.
    newest: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Slot {
    /// Hands over an event; whether the watcher stays.
    fn offer(&self, event: &Arc<Event>) -> bool {
        let mut waiting = self.waiting.lock();
        if event.index < self.since || event.index <= waiting.newest {
            return true;
        }
        if waiting.events.len() < waiting.room {
            waiting.newest = event.index;
            waiting.events.push_back(event.clone());
            waiting.ended = !self.stream;
        } else {
            waiting.ended = true;
        }
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
        !waiting.ended
    }

    fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }
}

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    by_path: BTreeMap<String, BTreeMap<u64, Arc<Slot>>>,
    next_id: u64,
    count: usize,
}

impl Hub {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Adds a watcher, told already of what the history has for it; its id.
    pub(crate) fn add(&mut self, watch: &Watch, history: &History) -> (u64, Arc<Slot>) {
        let mut waiting = Waiting { room: WATCHER_EVENTS_MAX, ..Waiting::default() };
        let mut from = watch.since;
        if base::probe::mutant("v2-wait-overlooks-the-past") {
            from = history.end();
        }
        while let Some(event) = history.scan(&watch.path, watch.recursive, from) {
            waiting.newest = event.index;
            waiting.events.push_back(event.clone());
            if !watch.stream {
                waiting.ended = true;
                break;
            }
            from = event.index + 1;
        }
        waiting.room += waiting.events.len();
        let ended = waiting.ended;
        let slot = Arc::new(Slot {
            recursive: watch.recursive,
            stream: watch.stream,
            since: watch.since,
            waiting: Mutex::new(waiting),
        });
        self.next_id += 1;
        if !ended {
            self.count += 1;
            let place = self.by_path.entry(watch.path.clone()).or_default();
            place.insert(self.next_id, slot.clone());
        }
        (self.next_id, slot)
    }

    fn remove(&mut self, path: &str, id: u64) {
        if let Some(place) = self.by_path.get_mut(path)
            && place.remove(&id).is_some()
        {
            self.count -= 1;
            if place.is_empty() {
                self.by_path.remove(path);
            }
        }
    }

    /// Tells everyone of a change: who watches what was removed with it, then who watches the node
    /// or above.
    pub(crate) fn notify(&mut self, event: &Arc<Event>, removed: &[String]) {
        if self.by_path.is_empty() {
            return;
        }
        for path in removed {
            self.notify_at(path, event, true);
        }
        for path in path::prefixes(&event.node.key) {
            self.notify_at(path, event, false);
        }
    }

    fn notify_at(&mut self, path: &str, event: &Arc<Event>, removed: bool) {
        let Some(place) = self.by_path.get_mut(path) else { return };
        let is_own = event.node.key == path;
        if !is_own
            && !base::probe::mutant("v2-hidden-change-is-told")
            && path::is_hidden_from(path, &event.node.key)
        {
            return;
        }
        let before = place.len();
        place.retain(|_, slot| !(slot.recursive || is_own || removed) || slot.offer(event));
        self.count -= before - place.len();
        if place.is_empty() {
            self.by_path.remove(path);
        }
    }

    /// Another state took the place of the one up to `known`: tells everyone of what its history has
    /// behind that, and lets those go who might miss something.
    pub(crate) fn replaced(&mut self, known: u64, history: &History) {
        if base::probe::mutant("v2-waits-sleep-over-a-snapshot") {
            return;
        }
        self.by_path.retain(|path, place| {
            let before = place.len();
            place.retain(|_, slot| {
                let mut from = slot.since.max(known + 1);
                if from < history.start() {
                    slot.end();
                    return false;
                }
                while let Some(event) = history.scan(path, slot.recursive, from) {
                    if !slot.offer(event) {
                        return false;
                    }
                    from = event.index + 1;
                }
                true
            });
            self.count -= before - place.len();
            !place.is_empty()
        });
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    //! What tests of other modules need of a watcher.

    use super::*;

    /// The next event, if there is one already.
    pub(crate) fn next_now(watcher: &mut Watcher) -> Option<Arc<Event>> {
        match watcher.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }
}
