//! Groups: the watches of one range, whatever their stream, and what is queued for them.
//!
//! Invariants: a group exists as long as it has a member; its queue ascends and holds every event
//! of its range from `complete_from` up to the hub's revision; a queued event is in the ring.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;
use parking_lot::Mutex;

use super::ranges::{GroupId, Ranges};
use super::{Wake, WatchLag};

/// Watches of one range.
#[derive(Debug)]
pub(super) struct Group {
    range: KeyRange,
    members: Vec<Member>,
    pub(super) queue: VecDeque<Queued>,
    /// From this main revision on the queue holds all there is.
    pub(super) complete_from: i64,
}

/// A stream and how many of its watches are in the group.
#[derive(Debug)]
struct Member {
    inbox: Arc<Inbox>,
    watches: usize,
}

/// An event of the ring that a group wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) revision: i64,
    /// Number of the ring's batch.
    pub(super) batch: u64,
    /// Which event of it.
    pub(super) event: u32,
}

/// Where a stream is told of news.
#[derive(Debug)]
pub(super) struct Inbox {
    wake: Arc<dyn Wake>,
    news: Mutex<News>,
}

#[derive(Debug, Default)]
struct News {
    groups: BTreeMap<GroupId, FirstNew>,
    woken: bool,
}

/// Where what a stream has not taken of a group begins.
#[derive(Clone, Copy, Debug)]
struct FirstNew {
    /// Number of the ring's batch.
    batch: u64,
    /// Main revision: the group had nothing between what the stream took last and this.
    revision: i64,
}

impl Inbox {
    pub(super) fn new(wake: Arc<dyn Wake>) -> Arc<Self> {
        Arc::new(Self { wake, news: Mutex::default() })
    }

    /// Notes that there is news of a group; `true` if the stream is to be woken for it.
    fn note(&self, group: GroupId, first: FirstNew) -> bool {
        let mut news = self.news.lock();
        news.groups.entry(group).or_insert(first);
        !std::mem::replace(&mut news.woken, true)
    }

    /// Takes what was noted, groups with the main revision of the first news; the next note wakes
    /// again.
    pub(super) fn take(&self) -> impl Iterator<Item = (GroupId, i64)> {
        let news = std::mem::take(&mut *self.news.lock());
        news.groups.into_iter().map(|(group, first)| (group, first.revision))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.news.lock().groups.is_empty()
    }

    pub(super) fn has(&self, group: GroupId) -> bool {
        self.news.lock().groups.contains_key(&group)
    }

    /// The first batch with news of a group that the stream has not taken.
    fn first_new(&self, group: GroupId) -> Option<u64> {
        self.news.lock().groups.get(&group).map(|first| first.batch)
    }

    pub(super) fn wake(&self) {
        self.wake.wake();
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    slots: Vec<Option<Group>>,
    free: Vec<GroupId>,
    ranges: Ranges,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The group of a watch that is in it.
    pub(super) fn group(&self, id: GroupId) -> &Group {
        self.slots[id as usize].as_ref().expect("a group lives as long as its watches")
    }

    /// The group, unless it is gone since the number was noted.
    pub(super) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.slots[id as usize].as_mut()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (GroupId, &mut Group)> {
        let ids = 0..GroupId::try_from(self.slots.len()).expect("group numbers fit");
        ids.zip(&mut self.slots).filter_map(|(id, slot)| slot.as_mut().map(|group| (id, group)))
    }

    /// What streams have not taken; looks at every stream of every group.
    pub(super) fn lag(&self) -> WatchLag {
        let mut lag = WatchLag::default();
        for (slot, id) in self.slots.iter().zip(0..) {
            let of_group = slot.as_ref().map(|group| group.lag(id)).unwrap_or_default();
            lag.watches += of_group.watches;
            lag.events += of_group.events;
        }
        lag
    }

    /// Appends the groups whose range holds the key.
    pub(super) fn find(&mut self, key: &[u8], groups: &mut Vec<GroupId>) {
        self.ranges.find(key, groups);
    }

    /// Adds a watch of a stream to the group of a range. A new group's queue begins at `next`.
    pub(super) fn join(&mut self, range: &KeyRange, inbox: &Arc<Inbox>, next: i64) -> GroupId {
        let id = self.ranges.get(range).unwrap_or_else(|| self.add(range, next));
        let group = self.group_mut(id).expect("it was found or just made");
        match group.members.iter_mut().find(|member| Arc::ptr_eq(&member.inbox, inbox)) {
            Some(member) => member.watches += 1,
            None => group.members.push(Member { inbox: Arc::clone(inbox), watches: 1 }),
        }
        id
    }

    /// Takes a watch of a stream out of its group.
    pub(super) fn leave(&mut self, id: GroupId, inbox: &Arc<Inbox>) {
        let slot = &mut self.slots[id as usize];
        let group = slot.as_mut().expect("a group lives as long as its watches");
        let at = group.members.iter().position(|member| Arc::ptr_eq(&member.inbox, inbox));
        let at = at.expect("a watch is a member of its group");
        group.members[at].watches -= 1;
        if group.members[at].watches == 0 {
            group.members.swap_remove(at);
        }
        if group.members.is_empty() {
            self.ranges.remove(&group.range);
            *slot = None;
            self.free.push(id);
        }
    }

    fn add(&mut self, range: &KeyRange, next: i64) -> GroupId {
        let range = &detached(range);
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            GroupId::try_from(self.slots.len() - 1).expect("less than 2^32 groups")
        });
        self.slots[id as usize] = Some(Group {
            range: range.clone(),
            members: Vec::new(),
            queue: VecDeque::new(),
            complete_from: next,
        });
        self.ranges.insert(range, id);
        id
    }
}

/// A copy of its own: the keys of a request are part of a buffer of the network, which must not
/// live as long as the watch.
fn detached(range: &KeyRange) -> KeyRange {
    let copy = |key: &Bytes| Bytes::copy_from_slice(key);
    match range {
        KeyRange::One(key) => KeyRange::One(copy(key)),
        KeyRange::Between { start, end } => {
            KeyRange::Between { start: copy(start), end: copy(end) }
        }
        KeyRange::From(start) => KeyRange::From(copy(start)),
    }
}

impl Group {
    /// The keys that its watches are about.
    pub(super) fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Tells every member that the group has news of a batch; collects those to be woken.
    pub(super) fn note(&self, id: GroupId, batch: u64, wake: &mut Vec<Arc<Inbox>>) {
        let first = self.queue.partition_point(|queued| queued.batch < batch);
        self.tell(id, FirstNew { batch, revision: self.queue[first].revision }, wake);
    }

    /// Tells every member that rows of the backend from `revision` on may be news.
    pub(super) fn note_rows(&self, id: GroupId, revision: i64, wake: &mut Vec<Arc<Inbox>>) {
        self.tell(id, FirstNew { batch: 0, revision }, wake);
    }

    fn tell(&self, id: GroupId, first: FirstNew, wake: &mut Vec<Arc<Inbox>>) {
        let sleeping = self.members.iter().filter(|member| member.inbox.note(id, first));
        wake.extend(sleeping.map(|member| Arc::clone(&member.inbox)));
    }

    /// What the streams of the group's watches have not taken.
    fn lag(&self, id: GroupId) -> WatchLag {
        let mut lag = WatchLag::default();
        for Member { inbox, watches } in &self.members {
            if let Some(batch) = inbox.first_new(id) {
                let taken = self.queue.partition_point(|queued| queued.batch < batch);
                lag.watches += watches;
                lag.events += watches * (self.queue.len() - taken);
            }
        }
        lag
    }

    /// Forgets queued events of a batch that leaves the ring.
    pub(super) fn evict(&mut self, batch: u64) {
        while let Some(queued) = self.queue.pop_front_if(|queued| queued.batch == batch) {
            self.complete_from = queued.revision + 1;
        }
    }

    /// Position in the queue of the first event of `revision` or later.
    pub(super) fn position(&self, revision: i64) -> usize {
        // Most watches have taken all but the newest.
        match self.queue.back() {
            Some(last) if revision <= last.revision => {
                self.queue.partition_point(|queued| queued.revision < revision)
            }
            Some(_) | None => self.queue.len(),
        }
    }
}
