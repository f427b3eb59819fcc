//! Watches of clients that one watch of a member serves.

use std::collections::BTreeMap;

use proto::etcdserverpb::{ResponseHeader, WatchResponse};
use proto::mvccpb::Event;

use super::watcher::{Lost, Watcher, WatcherKey};

/// One watch of a member, and whom it serves.
///
/// Every event before `next` was handed to those in it; what one of them has seen already it does
/// not see again.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// 0 until a member has said what is new.
    pub(super) next: i64,
    /// Whether a member has confirmed it on the stream that is open.
    pub(super) is_created: bool,
    /// Whether it has shown all there was at some moment since then: what it shows is new.
    is_current: bool,
    /// The newest revision that a member has told of.
    seen: i64,
    watchers: BTreeMap<WatcherKey, Watcher>,
}

impl Group {
    pub(super) fn starting_at(next: i64) -> Self {
        Self { next, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.watchers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    pub(super) fn remove(&mut self, key: WatcherKey) -> Option<Watcher> {
        self.watchers.remove(&key)
    }

    /// Whether a watch can join without missing anything, or waiting for what is old.
    pub(super) fn fits(&self, watcher: &Watcher) -> bool {
        match (watcher.next, self.next) {
            // Both wait to hear what is new, or want the same that is old.
            (wanted, next) if wanted == next => true,
            // One that begins in the future would not show what happens until then.
            (0, next) => self.is_current && next <= self.seen + 1,
            (_, 0) => false,
            (wanted, next) => self.is_current && next <= wanted,
        }
    }

    pub(super) fn join(&mut self, mut watcher: Watcher) {
        if self.is_created {
            let mut header = watcher.checked;
            if watcher.next == 0 {
                watcher.next = self.next.max(header.revision + 1);
                header.revision = watcher.next - 1;
            }
            header.revision = header.revision.max(self.seen);
            watcher.tell_created(header);
        }
        self.watchers.insert(watcher.key, watcher);
    }

    /// Takes in those of another group that is exactly as far.
    pub(super) fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.next, other.next, "nobody misses or waits for anything");
        self.seen = self.seen.max(other.seen);
        self.is_current |= other.is_current;
        self.watchers.extend(other.watchers);
    }

    /// The member has confirmed the watch.
    pub(super) fn on_created(&mut self, header: ResponseHeader) {
        self.is_created = true;
        self.seen = self.seen.max(header.revision);
        if self.next == 0 {
            self.next = header.revision + 1;
            self.is_current = true;
        }
        for watcher in self.watchers.values_mut() {
            if watcher.next == 0 {
                watcher.next = self.next;
            }
            watcher.tell_created(header);
        }
    }

    /// The stream is gone; the watch goes on, on the next one.
    pub(super) fn on_broken(&mut self) {
        self.is_created = false;
        self.is_current = false;
    }

    /// Hands events on; returns those that could not take them.
    pub(super) fn on_events(
        &mut self,
        header: Option<&ResponseHeader>,
        events: &[Event],
    ) -> Vec<(Watcher, Lost)> {
        let revisions = events.iter().filter_map(|event| event.kv.as_ref());
        let last = revisions.map(|pair| pair.mod_revision).max().unwrap_or(0);
        self.next = self.next.max(last + 1);
        let revision = header.map_or(last, |header| header.revision);
        self.seen = self.seen.max(last).max(revision);
        // Replayed events come with the revision that was reached meanwhile.
        self.is_current |= revision == last;
        self.hand(|watcher| watcher.deliver(header, events))
    }

    /// Nothing is missing up to this revision.
    pub(super) fn on_progress(&mut self, header: ResponseHeader) -> Vec<(Watcher, Lost)> {
        self.is_current |= self.next <= header.revision + 1;
        self.next = self.next.max(header.revision + 1);
        self.seen = self.seen.max(header.revision);
        self.hand(|watcher| watcher.deliver_progress(header))
    }

    fn hand(
        &mut self,
        mut deliver: impl FnMut(&mut Watcher) -> Result<(), Lost>,
    ) -> Vec<(Watcher, Lost)> {
        let mut lost = Vec::new();
        for (key, watcher) in &mut self.watchers {
            if let Err(error) = deliver(watcher) {
                lost.push((*key, error));
            }
        }
        let taken = lost
            .into_iter()
            .filter_map(|(key, error)| self.watchers.remove(&key).map(|watcher| (watcher, error)));
        taken.collect()
    }

    /// Whether one of the client's watches is in it.
    pub(super) fn serves(&self, stream: u64) -> bool {
        self.watchers.values().any(|watcher| watcher.stream == stream)
    }

    /// The member has ended the watch.
    pub(super) fn end(self, response: &WatchResponse) {
        self.watchers.into_values().for_each(|watcher| watcher.end(response));
    }

    /// Everybody in it.
    pub(super) fn into_watchers(self) -> impl Iterator<Item = Watcher> {
        self.watchers.into_values()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::mvccpb::KeyValue;

    use super::*;
    use crate::watch::queue::{QUEUE_LEN, Queue, Responses};
    use crate::watch::watcher::Wanted;

    fn watcher(key: u64, next: i64) -> (Watcher, Responses) {
        let (queue, responses) = Queue::new();
        let checked = header(10);
        let watcher = Watcher {
            key: WatcherKey(key),
            stream: 0,
            id: 0,
            wanted: Wanted::default(),
            next,
            checked,
            queue,
            room: None,
            last_header: None,
            ended: Arc::default(),
        };
        (watcher, responses)
    }

    fn header(revision: i64) -> ResponseHeader {
        ResponseHeader { revision, ..ResponseHeader::default() }
    }

    fn event(mod_revision: i64) -> Event {
        let pair = KeyValue { mod_revision, ..KeyValue::default() };
        Event { kv: Some(pair), ..Event::default() }
    }

    fn fits(group: &Group, next: i64) -> bool {
        group.fits(&watcher(9, next).0)
    }

    /// SRV-179: nobody misses anything by joining, and nobody waits for what is old.
    #[test]
    fn watches_join_where_they_miss_and_wait_for_nothing() {
        let mut new = Group::default();
        assert!(fits(&new, 0) && !fits(&new, 5));
        new.on_created(header(10));
        assert!(fits(&new, 0) && fits(&new, 11) && fits(&new, 20) && !fits(&new, 10));
        let mut old = Group::starting_at(5);
        assert!(fits(&old, 5) && !fits(&old, 0) && !fits(&old, 4) && !fits(&old, 20));
        old.on_created(header(10));
        old.on_events(Some(&header(10)), &[event(6)]);
        assert!(fits(&old, 7) && !fits(&old, 8) && !fits(&old, 0));
        old.on_events(Some(&header(10)), &[event(10)]);
        assert!(fits(&old, 0) && fits(&old, 12));
        let mut future = Group::starting_at(50);
        future.on_created(header(10));
        future.on_progress(header(12));
        assert!(!fits(&future, 0) && !fits(&future, 13) && fits(&future, 50));
        new.on_broken();
        assert!(!fits(&new, 0));
    }

    /// SRV-179: clients of Go's look into the header of every response.
    #[test]
    fn an_end_has_a_header() {
        let (waiting, mut responses) = watcher(1, 0);
        let mut group = Group::default();
        group.join(waiting);
        group.end(&WatchResponse { canceled: true, ..WatchResponse::default() });
        let end = responses.try_next().unwrap().unwrap();
        assert_eq!((end.canceled, end.header), (true, Some(header(10))));
    }

    /// Bounded memory: what does not fit is not counted as seen.
    #[test]
    fn who_does_not_read_is_taken_out() {
        let (slow, mut responses) = watcher(1, 0);
        let mut group = Group::default();
        group.join(slow);
        group.on_created(header(10));
        let last = 10 + i64::try_from(QUEUE_LEN).unwrap();
        for revision in 11..=last {
            assert!(group.on_events(Some(&header(revision)), &[event(revision)]).is_empty());
        }
        let lost = group.on_events(Some(&header(last + 1)), &[event(last + 1)]);
        let [(slow, Lost::Behind)] = &lost[..] else { panic!("{lost:?}") };
        assert_eq!(slow.next, last + 1);
        assert!(group.is_empty());
        let first = responses.try_next().unwrap().unwrap();
        assert_eq!(first.events[0].kv.as_ref().unwrap().mod_revision, 11);
    }
}
