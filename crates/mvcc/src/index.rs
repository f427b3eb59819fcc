//! Which keys there are and which rows each has: the only structure that orders by key.
//!
//! A B+tree whose leaves pack up to 128 keys and whose inner nodes know how many live keys are
//! below them. Values are not here; rows are found in the backend by revision.
//!
//! Not here: locks, revisions' visibility, the backend.
//!
//! Invariants: changes come with ascending revisions; a key is in the index as long as any row of
//! it is kept, deleted or not.

mod history;
mod packed;
#[cfg(test)]
mod tests;
mod tree;

use std::ops::ControlFlow;

use base::KeyRange;

pub(crate) use history::{Change, Found, Stamp, Swept};
pub(crate) use tree::Changed;

use history::Histories;
use tree::{Node, Progress, Span};

/// The keys and their rows.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    root: Node,
    histories: Histories,
    live: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { root: Node::empty(), histories: Histories::default(), live: 0 }
    }
}

impl Index {
    /// Number of live keys.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// The live row of a key, now or as of a main revision.
    pub(crate) fn get(&self, key: &[u8], at: Option<i64>) -> Option<Found> {
        let entry = self.root.get(key)?;
        match at {
            None => entry.found(),
            Some(at) => entry.found_at(at, &self.histories),
        }
    }

    /// Adds a row of a key.
    ///
    /// # Panics
    ///
    /// If the row is not newer than the key's others.
    pub(crate) fn change(&mut self, key: &[u8], stamp: Stamp, change: Change) -> Changed {
        let (changed, split) = self.root.change(key, stamp, change, &mut self.histories);
        if let Some(split) = split {
            let root = std::mem::replace(&mut self.root, Node::empty());
            self.root = root.grow(split);
        }
        self.live += usize::from(changed.after.is_some());
        self.live -= usize::from(changed.before.is_some());
        changed
    }

    /// Number of keys of the range that are live, now or as of a main revision. Logarithmic as of
    /// now; as of an older revision it also walks the leaves that changed since.
    pub(crate) fn count(&self, keys: &KeyRange, at: Option<i64>) -> usize {
        match keys {
            KeyRange::One(key) => usize::from(self.get(key, at).is_some()),
            KeyRange::Between { .. } | KeyRange::From(_) if keys.is_empty() => 0,
            KeyRange::Between { start, end } => {
                self.root.count(Span { start, end: Some(end), at }, &self.histories)
            }
            KeyRange::From(start) => {
                self.root.count(Span { start, end: None, at }, &self.histories)
            }
        }
    }

    /// Visits the live keys of the range in byte order until `visit` breaks, and says whether it did.
    pub(crate) fn visit(
        &self,
        keys: &KeyRange,
        at: Option<i64>,
        visit: &mut dyn FnMut(&[u8], Found) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let span = match keys {
            KeyRange::One(key) => {
                return self
                    .get(key, at)
                    .map_or(ControlFlow::Continue(()), |found| visit(key, found));
            }
            KeyRange::Between { .. } | KeyRange::From(_) if keys.is_empty() => {
                return ControlFlow::Continue(());
            }
            KeyRange::Between { start, end } => Span { start, end: Some(end), at },
            KeyRange::From(start) => Span { start, end: None, at },
        };
        self.root.visit(span, &self.histories, &mut Vec::new(), visit)
    }

    /// Forgets what a compaction at `at` drops, of about `keys_max` keys from `from` on, and gives
    /// the key to go on with.
    pub(crate) fn compact(
        &mut self,
        at: i64,
        from: &[u8],
        keys_max: usize,
        swept: &mut Swept,
    ) -> Option<Vec<u8>> {
        let mut budget = keys_max.max(1);
        let progress = self.root.compact(from, at, &mut budget, &mut self.histories, swept);
        while let Some(child) = self.root.only_child() {
            self.root = child;
        }
        match progress {
            Progress::At(key) => Some(key),
            Progress::End => None,
        }
    }

    /// Visits, for every key, its newest row at or below main revision `at`, in no useful order.
    pub(crate) fn newest_rows(&self, at: i64, visit: &mut dyn FnMut(Stamp)) {
        self.root.for_each(&mut |_, _, entry| {
            if let Some(stamp) = entry.newest_at(at, &self.histories) {
                visit(stamp);
            }
        });
    }

    /// What the index takes in memory.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test of the memory budget"))]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.root.memory_bytes() + self.histories.memory_bytes()
    }
}
