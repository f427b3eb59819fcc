//! Large events that streams keep while their answers are handed out (G21).
//!
//! An event that many streams keep counts once: it is there once. When there is no room, a stream
//! that needs a large event waits for those that are taking theirs, which is soon; those whose
//! clients take nothing meanwhile give up what they have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::outgoing::Outgoing;

/// What all streams may keep; it is exceeded by what one of them needs at a time.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Between two looks at who takes nothing, while somebody waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The events of all streams.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often each is kept, by where it lies and how long it is.
    events: BTreeMap<(usize, usize), usize>,
    bytes: usize,
    /// Streams that may keep some.
    streams: Vec<Weak<Outgoing>>,
    waiting: VecDeque<Waker>,
    /// Somebody looks for room for those.
    attended: bool,
    /// One may go on without room.
    is_granted: bool,
}

/// What tells events apart while they are kept.
fn name(bytes: &Bytes) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}

impl State {
    fn is_full(&self) -> bool {
        KEPT_BYTES_MAX <= self.bytes
    }
}

impl Kept {
    pub(super) fn add<'a>(&self, events: impl Iterator<Item = &'a Bytes>) {
        let mut state = self.0.lock();
        for event in events {
            let times = state.events.entry(name(event)).or_default();
            *times += 1;
            if *times == 1 {
                state.bytes += event.len();
            }
        }
    }

    pub(super) fn remove<'a>(&self, events: impl Iterator<Item = &'a Bytes>) {
        let mut events = events.peekable();
        if events.peek().is_none() {
            return;
        }
        let next = {
            let mut state = self.0.lock();
            for event in events {
                let name = name(event);
                let times = state.events.get_mut(&name).expect("what is removed was added");
                *times -= 1;
                if *times == 0 {
                    state.events.remove(&name);
                    state.bytes -= event.len();
                }
            }
            if state.is_full() { None } else { state.waiting.pop_front() }
        };
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Notes a stream that keeps some of these.
    pub(super) fn note(&self, outgoing: &Arc<Outgoing>) {
        let mut state = self.0.lock();
        if state.streams.len() == state.streams.capacity() {
            state.streams.retain(|outgoing| 0 < outgoing.strong_count());
        }
        state.streams.push(Arc::downgrade(outgoing));
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.lock().is_full()
    }

    /// Whether there is room; else wakes the task when there may be. Within a runtime.
    pub(super) fn has_room(self: &Arc<Self>, context: &mut Context<'_>) -> bool {
        let mut state = self.0.lock();
        if !state.is_full() || std::mem::take(&mut state.is_granted) {
            return true;
        }
        if !state.waiting.iter().any(|waiting| waiting.will_wake(context.waker())) {
            state.waiting.push_back(context.waker().clone());
        }
        if !std::mem::replace(&mut state.attended, true) {
            let kept = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    let Some(kept) = kept.upgrade() else { return };
                    if !kept.look() {
                        return;
                    }
                }
            });
        }
        false
    }

    /// Takes from those that stand still and wakes who waits; whether anybody did.
    fn look(&self) -> bool {
        let streams: Vec<_> = {
            let mut state = self.0.lock();
            if state.waiting.is_empty() {
                state.attended = false;
                return false;
            }
            state.streams.iter().filter_map(Weak::upgrade).collect()
        };
        for stream in streams {
            stream.look();
        }
        // All of them: one that has gone meanwhile must not be waited for.
        let waiting = {
            let mut state = self.0.lock();
            if state.is_full() {
                // What is kept may be what nobody can give up: nobody waits for ever for that.
                state.is_granted = true;
                state.waiting.pop_front().into_iter().collect()
            } else {
                std::mem::take(&mut state.waiting)
            }
        };
        for waiting in waiting {
            waiting.wake();
        }
        true
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.lock().bytes
    }
}
