//! The watches of one client stream.
//!
//! A stream knows which of its watches may have something to take (`todo`): those that start in the
//! past, and those whose group had news. A pull serves them in turn, from the ring under the hub's
//! read lock, from rows without it. All others are synced: nothing they want is undelivered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use backend::ReadError;
use base::KeyRange;
use bytes::Bytes;

use super::groups::{Group, Inbox};
use super::history::{Past, Piece};
use super::hub::{Batch, State};
use super::ranges::GroupId;
use super::{Created, Filters, Wake, WatchId, WatchOutput, WatchRefused, WatchSpec};
use crate::Reader;
use crate::store::Shared;

/// The watches of one client stream. Buffers nothing: a watch is a cursor, and who does not pull
/// costs only the ring, then the store.
#[derive(Debug)]
pub struct WatchStream {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    slots: Vec<Option<Watch>>,
    free: Vec<Slot>,
    by_id: BTreeMap<WatchId, Slot>,
    by_group: BTreeMap<GroupId, Vec<Slot>>,
    /// Watches that may have something to take. May name slots whose watch is gone.
    todo: VecDeque<Slot>,
    /// Watches that are to be told of progress if they are synced.
    idle: BTreeSet<WatchId>,
    next_id: WatchId,
    progress_requested: bool,
    /// The newest revision that any answer's header had: headers never go back.
    told: i64,
}

type Slot = u32;

#[derive(Debug)]
struct Watch {
    id: WatchId,
    group: GroupId,
    /// Everything before this revision was delivered or was not wanted.
    cursor: i64,
    start: i64,
    shape: Shape,
    /// Whether it is in `todo`.
    queued: bool,
    /// Whether events went out since it was last asked whether it is idle.
    busy: bool,
    /// Whether it began below the compact revision.
    compacted: bool,
}

/// What its events look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    filters: Filters,
    want_previous: bool,
    fragment: bool,
}

/// Rows that one pull may read, in pieces.
const PIECES_PER_PULL: usize = 8;
/// Upper bound of what an answer has beside its events: header and number.
const ANSWER_OVERHEAD_BYTES: usize = 64;
/// Tag and length of one event in an answer, at most.
const EVENT_FRAME_BYTES: usize = 6;

/// How much a pull may still do.
struct Budget {
    bytes: usize,
    pieces: usize,
}

/// Rows of the past and the keys among them that a watch wants.
struct PastEvents<'a> {
    piece: &'a Piece,
    range: &'a KeyRange,
    reader: &'a Reader,
}

/// Where answers go.
struct Answers<'a> {
    told: &'a mut i64,
    /// Size from which an answer is split.
    limit: usize,
    out: &'a mut Vec<WatchOutput>,
}

/// What one watch got from the ring: others of its group that are as far and want the same get the
/// same list.
#[derive(Debug)]
struct Alike {
    group: GroupId,
    cursor: i64,
    shape: Shape,
    /// Where the cursor is afterwards.
    next: i64,
    events: Arc<[Bytes]>,
    /// Main revision of the last event.
    revision: i64,
    bytes: usize,
}

impl Alike {
    fn suits(&self, watch: &Watch, limit: usize) -> bool {
        self.group == watch.group
            && self.cursor == watch.cursor
            && self.shape == watch.shape
            && self.bytes < limit
    }
}

/// What a watch needs that cannot be had under the hub's lock.
enum Need {
    /// Rows before what its group has queued.
    Rows { slot: Slot, until: i64 },
    /// Nothing any more: it was told that it is compacted.
    Removal { slot: Slot },
    /// The rows before these events.
    Previous { slot: Slot, events: Vec<(u64, Arc<Batch>, usize)>, last: i64 },
}

impl WatchStream {
    pub(super) fn new(shared: Arc<Shared>, wake: Arc<dyn Wake>) -> Self {
        Self {
            shared,
            inbox: Inbox::new(wake),
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            by_group: BTreeMap::new(),
            todo: VecDeque::new(),
            idle: BTreeSet::new(),
            next_id: 0,
            progress_requested: false,
            told: 0,
        }
    }

    /// Makes a watch. If it starts in the past, a pull has something for it.
    ///
    /// # Errors
    ///
    /// The range is empty or the number is in use.
    ///
    /// # Panics
    ///
    /// If the stream has 2^32 watches.
    pub fn create(&mut self, spec: WatchSpec) -> Result<Created, WatchRefused> {
        if spec.keys.is_empty() {
            return Err(WatchRefused::EmptyRange);
        }
        let id = match spec.id {
            0 => self.choose_id(),
            taken if self.by_id.contains_key(&taken) => return Err(WatchRefused::DuplicateId),
            wanted => wanted,
        };
        let mut state = self.shared.hub.write();
        let revision = state.revision;
        let group = state.groups.join(&spec.keys, &self.inbox, revision + 1);
        drop(state);
        let in_past = spec.start != 0 && spec.start <= revision;
        let compact = self.shared.compact_revision();
        let compacted = in_past && (spec.start < compact || spec.start < 0);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot::try_from(self.slots.len() - 1).expect("watches of a stream are in memory")
        });
        self.slots[slot as usize] = Some(Watch {
            id,
            group,
            cursor: if spec.start == 0 { revision + 1 } else { spec.start },
            start: spec.start,
            shape: Shape {
                filters: spec.filters,
                want_previous: spec.want_previous,
                fragment: spec.fragment,
            },
            queued: in_past,
            busy: false,
            compacted,
        });
        self.by_id.insert(id, slot);
        self.by_group.entry(group).or_default().push(slot);
        if in_past {
            self.todo.push_back(slot);
        }
        self.told = self.told.max(revision);
        Ok(Created { id, revision })
    }

    /// Ends a watch; `false` if there is none of that number.
    pub fn cancel(&mut self, id: WatchId) -> bool {
        let Some(slot) = self.by_id.get(&id) else { return false };
        self.remove(*slot);
        true
    }

    /// Asks for one `Progress` with no id once every watch of the stream is synced (W-11). A stream
    /// without watches gets none.
    pub fn request_progress(&mut self) {
        self.progress_requested = true;
    }

    /// Asks for a `Progress` of one watch if it is synced and nothing was delivered since the last
    /// call for it (W-05: the server calls this at its interval).
    pub fn notify_idle(&mut self, id: WatchId) {
        let slot = self.by_id.get(&id);
        let watch = slot.and_then(|slot| self.slots[*slot as usize].as_mut());
        if let Some(watch) = watch
            && !std::mem::take(&mut watch.busy)
        {
            self.idle.insert(id);
        }
    }

    /// Pulls what is ready, about `bytes_max` of it; `true` if there is more.
    ///
    /// # Errors
    ///
    /// The backend's, when a lagging watch or a previous row needs it. Nothing is lost: the next
    /// pull tries again.
    pub fn pull(
        &mut self,
        bytes_max: usize,
        out: &mut Vec<WatchOutput>,
    ) -> Result<bool, ReadError> {
        self.take_news();
        let mut budget = Budget { bytes: bytes_max.max(1), pieces: PIECES_PER_PULL };
        let mut piece = None;
        while let Some(need) = self.pull_ring(&mut budget, out) {
            match need {
                Need::Removal { slot } => self.remove(slot),
                Need::Previous { slot, events, last } => {
                    self.pull_with_previous(slot, &events, last, &mut budget, out)?;
                }
                Need::Rows { slot, until } => {
                    if !self.pull_rows(slot, until, &mut piece, &mut budget, out)? {
                        break;
                    }
                }
            }
        }
        self.tell_progress(out);
        Ok(!self.todo.is_empty() || !self.inbox.is_empty())
    }

    fn choose_id(&mut self) -> WatchId {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Puts the watches of groups with news on the list.
    fn take_news(&mut self) {
        for (group, revision) in self.inbox.take() {
            for slot in self.by_group.get(&group).into_iter().flatten() {
                let watch = self.slots[*slot as usize].as_mut().expect("members are not gone");
                if !std::mem::replace(&mut watch.queued, true) {
                    // It had everything, so a compaction of what was before does not concern it.
                    if !base::probe::mutant("watch-forgets-that-it-had-everything") {
                        watch.cursor = watch.cursor.max(revision);
                    }
                    self.todo.push_back(*slot);
                }
            }
        }
    }

    /// Serves watches from the ring until one needs more than that; `None` if all are served or the
    /// budget is used up.
    fn pull_ring(&mut self, budget: &mut Budget, out: &mut Vec<WatchOutput>) -> Option<Need> {
        let shared = Arc::clone(&self.shared);
        let limit = shared.hub.answer_bytes_max;
        let mut need = None;
        let mut alike = None;
        {
            let state = shared.hub.read();
            while 0 < budget.bytes {
                let Some(slot) = self.todo.front().copied() else { break };
                let Some(watch) = self.slots[slot as usize].as_mut() else {
                    self.todo.pop_front();
                    continue;
                };
                if watch.compacted {
                    let compact = shared.compact_revision();
                    self.told = state.revision;
                    base::probe::reached("mvcc: a watch begins behind a compaction and ends");
                    out.push(watch.end(compact, state.revision));
                    need = Some(Need::Removal { slot });
                    break;
                }
                let group = state.groups.group(watch.group);
                if watch.cursor < group.complete_from {
                    need = Some(Need::Rows { slot, until: group.complete_from });
                    break;
                }
                base::probe::reached("mvcc: a watch takes events from the ring");
                if watch.shape.want_previous {
                    let (events, last) = watch.queued_refs(&state, group, budget.bytes);
                    if !events.is_empty() {
                        need = Some(Need::Previous { slot, events, last });
                        break;
                    }
                    watch.cursor = last + 1;
                } else {
                    let mut answers = Answers { told: &mut self.told, limit, out };
                    let sent =
                        watch.send_queued(&state, group, budget.bytes, &mut alike, &mut answers);
                    budget.bytes = budget.bytes.saturating_sub(sent);
                }
                self.todo.pop_front();
                let watch_done = group.position(watch.cursor) == group.queue.len();
                if watch_done {
                    watch.cursor = watch.cursor.max(state.revision + 1);
                    watch.queued = false;
                } else {
                    self.todo.push_back(slot);
                }
            }
        }
        need
    }

    /// Sends events of the ring with the rows before them. The watch stays first on the list: it
    /// may have more.
    fn pull_with_previous(
        &mut self,
        slot: Slot,
        events: &[(u64, Arc<Batch>, usize)],
        last: i64,
        budget: &mut Budget,
        out: &mut Vec<WatchOutput>,
    ) -> Result<(), ReadError> {
        let reader = Reader { shared: Arc::clone(&self.shared) };
        let mut encoded = Vec::with_capacity(events.len());
        for (number, batch, at) in events {
            let (bytes, grown) = batch.events[*at].with_previous(&reader)?;
            if 0 < grown {
                self.shared.hub.grew(*number, grown);
            }
            encoded.push(bytes);
        }
        let watch = self.slots[slot as usize].as_mut().expect("it is being served");
        watch.cursor = last + 1;
        let revision = events.last().map_or(last, |(_, batch, at)| batch.events[*at].revision);
        let limit = self.shared.hub.answer_bytes_max;
        let mut answers = Answers { told: &mut self.told, limit, out };
        let sent = watch.send(encoded.into(), revision, &mut answers);
        budget.bytes = budget.bytes.saturating_sub(sent);
        Ok(())
    }

    /// Serves a lagging watch from rows; `false` if the budget for reading them is used up.
    fn pull_rows(
        &mut self,
        slot: Slot,
        until: i64,
        piece: &mut Option<Piece>,
        budget: &mut Budget,
        out: &mut Vec<WatchOutput>,
    ) -> Result<bool, ReadError> {
        let watch = self.slots[slot as usize].as_mut().expect("it is being served");
        if piece.as_ref().is_none_or(|piece| !piece.covers(watch.cursor)) {
            if budget.pieces == 0 {
                return Ok(false);
            }
            budget.pieces -= 1;
            base::probe::failpoint("beforeSyncWatchers");
            base::probe::reached("mvcc: a watch reads rows to catch up");
            if base::probe::mutant("watch-skips-a-revision-at-catch-up") && watch.cursor + 1 < until
            {
                watch.cursor += 1;
            }
            match Piece::read(&self.shared, watch.cursor, until)? {
                Past::Piece(read) => *piece = Some(read),
                Past::Compacted(compact) => {
                    let revision = self.shared.hub.read().revision;
                    self.told = revision;
                    base::probe::reached("mvcc: a watch lags behind a compaction and ends");
                    out.push(watch.end(compact, revision));
                    self.todo.pop_front();
                    self.remove(slot);
                    return Ok(true);
                }
            }
        }
        let piece = piece.as_ref().expect("it was just read if it was not there");
        let limit = self.shared.hub.answer_bytes_max;
        let mut answers = Answers { told: &mut self.told, limit, out };
        let reader = Reader { shared: Arc::clone(&self.shared) };
        let range = self.shared.hub.read().groups.group(watch.group).range().clone();
        let past = PastEvents { piece, range: &range, reader: &reader };
        let sent = watch.send_past(&past, budget.bytes, &mut answers)?;
        budget.bytes = budget.bytes.saturating_sub(sent);
        // In turn, so that the others get the same piece.
        self.todo.pop_front();
        self.todo.push_back(slot);
        Ok(true)
    }

    /// Tells of progress where it was asked for and everything is delivered (W-05, W-11).
    fn tell_progress(&mut self, out: &mut Vec<WatchOutput>) {
        if self.idle.is_empty() && !self.progress_requested {
            return;
        }
        base::probe::failpoint("beforeProgressIfSync");
        let state = self.shared.hub.read();
        let revision = state.revision;
        for id in std::mem::take(&mut self.idle) {
            let slot = self.by_id.get(&id);
            let watch = slot.and_then(|slot| self.slots[*slot as usize].as_mut());
            let Some(watch) = watch else { continue };
            let synced = !watch.queued && !self.inbox.has(watch.group)
                || base::probe::mutant("progress-is-told-too-early");
            if synced && watch.start <= revision {
                watch.cursor = watch.cursor.max(revision + 1);
                self.told = revision;
                out.push(WatchOutput::Progress { id: Some(id), revision });
            }
        }
        if self.by_id.is_empty() {
            self.progress_requested = false;
        }
        if self.progress_requested && self.todo.is_empty() && self.inbox.is_empty() {
            // Who waits for a later revision must not hear of an earlier one (etcd issue 20221).
            let all_begun = self.slots.iter().flatten().all(|watch| watch.start <= revision);
            if all_begun {
                self.progress_requested = false;
                self.told = revision;
                out.push(WatchOutput::Progress { id: None, revision });
            }
        }
    }

    fn remove(&mut self, slot: Slot) {
        let watch = self.slots[slot as usize].take().expect("it is there until it is removed");
        self.free.push(slot);
        self.by_id.remove(&watch.id);
        let members = self.by_group.get_mut(&watch.group).expect("a watch is in its group");
        let at = members.iter().position(|member| *member == slot).expect("it is a member");
        members.swap_remove(at);
        if members.is_empty() {
            self.by_group.remove(&watch.group);
        }
        self.shared.hub.write().groups.leave(watch.group, &self.inbox);
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let mut state = self.shared.hub.write();
        for watch in self.slots.iter().flatten() {
            state.groups.leave(watch.group, &self.inbox);
        }
    }
}

impl Watch {
    fn end(&self, compact_revision: i64, revision: i64) -> WatchOutput {
        WatchOutput::Compacted { id: self.id, compact_revision, revision }
    }

    /// Sends what is queued, whole revisions, about `bytes_max`; gives the bytes sent.
    fn send_queued(
        &mut self,
        state: &State,
        group: &Group,
        bytes_max: usize,
        alike: &mut Option<Alike>,
        answers: &mut Answers<'_>,
    ) -> usize {
        let limit = bytes_max.min(answers.limit);
        if let Some(alike) = alike
            && alike.suits(self, limit)
        {
            self.cursor = alike.next;
            return self.send(Arc::clone(&alike.events), alike.revision, answers);
        }
        let cursor = self.cursor;
        let mut events = Vec::new();
        let (mut bytes, mut revision) = (0, None);
        for queued in group.queue.range(group.position(self.cursor)..) {
            let batch = state.batch(*queued);
            let event = &batch.events[queued.event as usize];
            if self.cursor <= event.revision {
                // A revision begins: the ones before are whole.
                if limit <= bytes {
                    break;
                }
                self.cursor = event.revision + 1;
            }
            if self.shape.filters.pass(event.kind) {
                bytes += event.bytes.len() + EVENT_FRAME_BYTES;
                events.push(event.bytes.clone());
                revision = Some(event.revision);
            }
        }
        let Some(revision) = revision else { return 0 };
        let events: Arc<[Bytes]> = events.into();
        let (group, shape, next) = (self.group, self.shape, self.cursor);
        let events_of_all = Arc::clone(&events);
        *alike = Some(Alike { group, cursor, shape, next, events: events_of_all, revision, bytes });
        self.send(events, revision, answers)
    }

    /// As [`Watch::send_queued`], but only which events these are, and the last revision passed.
    fn queued_refs(
        &self,
        state: &State,
        group: &Group,
        bytes_max: usize,
    ) -> (Vec<(u64, Arc<Batch>, usize)>, i64) {
        let mut events = Vec::new();
        let (mut bytes, mut last) = (0, self.cursor - 1);
        for queued in group.queue.range(group.position(self.cursor)..) {
            let batch = state.batch(*queued);
            let at = queued.event as usize;
            let event = &batch.events[at];
            if last < event.revision {
                if bytes_max <= bytes {
                    break;
                }
                last = event.revision;
            }
            if self.shape.filters.pass(event.kind) {
                // Rows before are about as large as rows after.
                bytes += 2 * event.bytes.len() + EVENT_FRAME_BYTES;
                events.push((queued.batch, Arc::clone(batch), at));
            }
        }
        (events, last)
    }

    /// Sends what a piece of the past has, whole revisions, about `bytes_max`; gives the bytes
    /// sent.
    fn send_past(
        &mut self,
        past: &PastEvents<'_>,
        bytes_max: usize,
        answers: &mut Answers<'_>,
    ) -> Result<usize, ReadError> {
        let PastEvents { piece, range, reader } = *past;
        let limit = bytes_max.min(answers.limit);
        let mut events = Vec::new();
        let (mut bytes, mut revision) = (0, self.cursor - 1);
        let mut cursor = piece.to;
        let first = piece.rows.partition_point(|row| row.revision < self.cursor);
        for row in &piece.rows[first..] {
            if revision < row.revision && limit <= bytes {
                cursor = row.revision;
                break;
            }
            if !range.contains(&row.key) || !self.shape.filters.pass(row.kind) {
                continue;
            }
            let event = row.event();
            let encoded = if self.shape.want_previous {
                event.with_previous(reader)?.0
            } else {
                event.bytes.clone()
            };
            bytes += encoded.len() + EVENT_FRAME_BYTES;
            events.push(encoded);
            revision = row.revision;
        }
        self.cursor = cursor;
        if events.is_empty() {
            return Ok(0);
        }
        Ok(self.send(events.into(), revision, answers))
    }

    /// Sends events, in fragments if they are too large for one answer and the watch wants that
    /// (W-09); gives the bytes sent.
    fn send(&mut self, events: Arc<[Bytes]>, last: i64, answers: &mut Answers<'_>) -> usize {
        self.busy = true;
        let id = self.id;
        let revision = last.max(*answers.told);
        *answers.told = revision;
        let size = |event: &Bytes| event.len() + EVENT_FRAME_BYTES;
        let bytes = ANSWER_OVERHEAD_BYTES + events.iter().map(size).sum::<usize>();
        if !self.shape.fragment || bytes < answers.limit || events.len() < 2 {
            answers.out.push(WatchOutput::Events { id, revision, events, fragment: false });
            return bytes;
        }
        let mut part = Vec::new();
        let mut part_bytes = ANSWER_OVERHEAD_BYTES;
        for event in events.iter() {
            if !part.is_empty() && answers.limit <= part_bytes + size(event) {
                let events = std::mem::take(&mut part).into();
                answers.out.push(WatchOutput::Events { id, revision, events, fragment: true });
                part_bytes = ANSWER_OVERHEAD_BYTES;
            }
            part_bytes += size(event);
            part.push(event.clone());
        }
        let events = part.into();
        answers.out.push(WatchOutput::Events { id, revision, events, fragment: false });
        bytes
    }
}
