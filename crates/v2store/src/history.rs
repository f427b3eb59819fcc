//! The last thousand events, for watchers that come late.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store/event_history.go.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Action, Event};

/// Events that are kept (V2-072).
pub(crate) const EVENTS_MAX: u64 = 1000;

/// A run of events, one for each index from `start` on.
#[derive(Debug)]
pub(crate) struct History {
    start: u64,
    events: VecDeque<Arc<Event>>,
}

impl History {
    /// Nothing is known of what happened up to `index`.
    pub(crate) fn after(index: u64) -> Self {
        Self { start: index + 1, events: VecDeque::new() }
    }

    /// The first index of which the event is known.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The index after the newest.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.events.len() as u64
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        let next = self.end();
        assert!(event.index == next, "event {} in the place of {next}", event.index);
        self.events.push_back(event);
        if EVENTS_MAX < self.events.len() as u64 {
            self.events.pop_front();
            self.start += 1;
        }
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Arc<Event>> {
        let at = usize::try_from(index.checked_sub(self.start)?).ok()?;
        self.events.get(at)
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// The first event at or after an index that someone who watches `key` is told of; the index is
    /// in the history or behind it.
    pub(crate) fn scan(&self, key: &str, recursive: bool, index: u64) -> Option<&Arc<Event>> {
        let skip = index.saturating_sub(self.start);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.events.iter().skip(skip).find(|event| concerns(event, key, recursive))
    }
}

/// Whether a late watcher is told of an event. As in etcd hidden keys are not left out here, and a
/// directory that goes away concerns every key that begins with its path.
fn concerns(event: &Event, watched: &str, recursive: bool) -> bool {
    if event.refresh {
        return false;
    }
    let key = event.node.key.as_str();
    let is_below = || {
        let rest = key.strip_prefix(watched);
        rest.is_some_and(|rest| watched == "/" || rest.starts_with('/'))
    };
    let removes_dir = || {
        let removes = matches!(event.action, Action::Delete | Action::Expire);
        let before = event.prev_node.as_ref().filter(|before| removes && before.dir);
        before.is_some_and(|before| watched.starts_with(&before.key))
    };
    key == watched || (recursive && is_below()) || removes_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeView;

    fn event(index: u64, key: &str) -> Event {
        let node = NodeView { key: key.to_owned(), modified: index, ..NodeView::default() };
        Event {
            action: Action::Set,
            node,
            prev_node: None,
            below: Vec::new(),
            index,
            at: None,
            refresh: false,
        }
    }

    /// V2-072.
    #[test]
    fn a_thousand_events_are_kept() {
        let mut history = History::after(0);
        for index in 1..=1024 {
            history.push(Arc::new(event(index, "/1/a")));
        }
        assert_eq!(history.start(), 25);
        assert_eq!(history.scan("/1/a", false, 25).unwrap().index, 25);
        assert_eq!(history.scan("/1/a", false, 1024).unwrap().index, 1024);
        assert!(history.scan("/1/a", false, 1025).is_none());
        assert!(history.scan("/1/b", false, 25).is_none());
    }

    /// V2-076, V2-077, V2-078.
    #[test]
    fn watchers_are_told_of_what_concerns_them() {
        assert!(concerns(&event(1, "/1/a/b"), "/1/a", true));
        assert!(concerns(&event(1, "/1/a/b"), "/", true));
        assert!(!concerns(&event(1, "/1/ab"), "/1/a", true));
        assert!(!concerns(&event(1, "/1/a/b"), "/1/a", false));
        let mut removal = event(1, "/1/a");
        removal.action = Action::Delete;
        removal.prev_node = Some(NodeView { key: "/1/a".into(), dir: true, ..NodeView::default() });
        assert!(concerns(&removal, "/1/a/b", false));
        let refresh = Event { refresh: true, ..event(1, "/1/a") };
        assert!(!concerns(&refresh, "/1/a", false));
    }
}
