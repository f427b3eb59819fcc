//! The hub: the ring of recent events, and publishing to it.
//!
//! Only events that some group wants are kept. The oldest batches leave the ring when it holds too
//! many bytes; who has not taken them yet reads rows of the backend instead.
//!
//! Invariant: the ring's batches are numbered without gaps; every event up to `revision` was
//! matched against the groups there were.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use backend::ReadError;
use base::KeyRange;
use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::groups::{Groups, Inbox, Queued};
use super::ranges::GroupId;
use crate::row;
use crate::{Options, QueryError, RangeQuery, Reader, RevisionError, Want};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Modify,
    Delete,
}

/// One change, encoded once for all watchers.
#[derive(Debug)]
pub(crate) struct Event {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
    /// With the row before, made when first wanted.
    with_previous: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(revision: i64, key: Bytes, kind: Kind, bytes: Bytes) -> Self {
        Self { revision, key, kind, bytes, with_previous: OnceLock::new() }
    }

    /// The encoded event with the row before, if there was one and it is not compacted; and how
    /// many bytes it keeps for that from now on.
    pub(super) fn with_previous(&self, reader: &Reader) -> Result<(Bytes, usize), ReadError> {
        if self.kind == Kind::Create {
            return Ok((self.bytes.clone(), 0));
        }
        if let Some(bytes) = self.with_previous.get() {
            return Ok((bytes.clone(), 0));
        }
        let query = RangeQuery {
            keys: KeyRange::One(self.key.clone()),
            at: Some(
                self.revision - i64::from(!base::probe::mutant("previous-pair-is-the-new-one")),
            ),
            limit: None,
            want: Want::Rows,
        };
        let bytes = match reader.range(&query) {
            Ok(found) => match found.rows.first() {
                Some(row) => row::event_with_previous(&self.bytes, &row.0),
                None => self.bytes.clone(),
            },
            Err(QueryError::Revision(RevisionError::Compacted { .. })) => {
                base::probe::reached("mvcc: the pair before an event is compacted");
                self.bytes.clone()
            }
            Err(QueryError::Backend(error)) => return Err(error),
            Err(QueryError::Revision(RevisionError::Future { requested, newest })) => {
                panic!("event at {} is published, but newest is {newest}", requested + 1)
            }
        };
        let mut grown = 0;
        let bytes = self.with_previous.get_or_init(|| {
            grown = bytes.len();
            bytes
        });
        Ok((bytes.clone(), grown))
    }
}

/// What a kept event costs beside its bytes: itself and its place in queues.
const EVENT_OVERHEAD_BYTES: usize = 160;
const QUEUED_BYTES: usize = size_of::<Queued>();

/// Shared by the writer and all streams.
#[derive(Debug)]
pub(crate) struct Hub {
    state: RwLock<State>,
    ring_bytes_max: usize,
    pub(super) answer_bytes_max: usize,
    /// Bytes that events of the ring got since they were published.
    grown_bytes: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct State {
    /// Every event up to here was published.
    pub(super) revision: i64,
    pub(super) groups: Groups,
    ring: VecDeque<Arc<Batch>>,
    /// Number of the oldest batch of the ring.
    oldest: u64,
    bytes: usize,
}

/// Events published together that some group wants.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// The groups that have events of it queued.
    groups: Vec<GroupId>,
    bytes: usize,
    /// What its events took up since.
    grown_bytes: AtomicUsize,
}

impl State {
    /// The batch that a queued event is in.
    pub(super) fn batch(&self, queued: Queued) -> &Arc<Batch> {
        let at = usize::try_from(queued.batch - self.oldest).expect("the ring is in memory");
        &self.ring[at]
    }

    /// Forgets the oldest batch and gives what it had grown by.
    fn evict_oldest(&mut self) -> usize {
        let Some(batch) = self.ring.pop_front() else { return 0 };
        for id in &batch.groups {
            if let Some(group) = self.groups.group_mut(*id) {
                group.evict(self.oldest);
            }
        }
        self.bytes -= batch.bytes;
        self.oldest += 1;
        batch.grown_bytes.load(Ordering::Relaxed)
    }
}

impl Hub {
    pub(crate) fn new(revision: i64, options: &Options) -> Self {
        let state = State {
            revision,
            groups: Groups::default(),
            ring: VecDeque::new(),
            oldest: 0,
            bytes: 0,
        };
        Self {
            state: RwLock::new(state),
            ring_bytes_max: options.event_ring_bytes_max,
            answer_bytes_max: options.watch_answer_bytes_max,
            grown_bytes: AtomicUsize::new(0),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// Matches the events of all revisions up to `revision` and wakes who wants some.
    pub(crate) fn publish(&self, revision: i64, events: Vec<Event>) {
        let mut sleeping = Vec::new();
        {
            let mut state = self.state.write();
            state.revision = revision;
            if events.is_empty() || state.groups.is_empty() {
                return;
            }
            state.add(events, &mut sleeping);
            self.trim(&mut state);
        }
        for inbox in sleeping {
            inbox.wake();
        }
    }

    /// Begins anew at another revision after the store was replaced: watches go on from rows.
    pub(crate) fn restore(&self, revision: i64) {
        let mut sleeping = Vec::new();
        {
            let mut state = self.state.write();
            while !state.ring.is_empty() {
                self.grown_bytes.fetch_sub(state.evict_oldest(), Ordering::Relaxed);
            }
            let before = std::mem::replace(&mut state.revision, revision);
            for (id, group) in state.groups.all_mut() {
                if base::probe::mutant("watches-sleep-over-a-snapshot") {
                    break;
                }
                base::probe::reached("mvcc: watches go on over a snapshot");
                group.complete_from = revision + 1;
                group.note_rows(id, before + 1, &mut sleeping);
            }
        }
        for inbox in sleeping {
            inbox.wake();
        }
    }

    /// Keeps the ring within its bytes; the newest batch stays in any case, so that who keeps up
    /// never reads rows.
    fn trim(&self, state: &mut State) {
        while 1 < state.ring.len()
            && self.ring_bytes_max < state.bytes + self.grown_bytes.load(Ordering::Relaxed)
        {
            self.grown_bytes.fetch_sub(state.evict_oldest(), Ordering::Relaxed);
        }
    }

    /// Counts bytes that events of a batch got after they were published.
    pub(super) fn grew(&self, number: u64, bytes: usize) {
        let state = self.state.read();
        // Under the lock, so that it cannot leave the ring between the two.
        if state.oldest <= number {
            let at = usize::try_from(number - state.oldest).expect("the ring is in memory");
            state.ring[at].grown_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.grown_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl State {
    fn add(&mut self, events: Vec<Event>, sleeping: &mut Vec<Arc<Inbox>>) {
        let number = self.oldest + self.ring.len() as u64;
        let mut batch = Batch::default();
        let mut wanting = Vec::new();
        for event in events {
            wanting.clear();
            self.groups.find(&event.key, &mut wanting);
            if wanting.is_empty() {
                continue;
            }
            let at = u32::try_from(batch.events.len()).expect("events of a batch are in memory");
            let queued = Queued { revision: event.revision, batch: number, event: at };
            for id in &wanting {
                let group = self.groups.group_mut(*id).expect("it was found by its range");
                group.queue.push_back(queued);
            }
            batch.groups.extend_from_slice(&wanting);
            batch.bytes += event.bytes.len() + EVENT_OVERHEAD_BYTES + wanting.len() * QUEUED_BYTES;
            batch.events.push(event);
        }
        if batch.events.is_empty() {
            return;
        }
        batch.groups.sort_unstable();
        batch.groups.dedup();
        for id in &batch.groups {
            self.groups.group(*id).note(*id, number, sleeping);
        }
        self.bytes += batch.bytes;
        self.ring.push_back(Arc::new(batch));
    }
}
