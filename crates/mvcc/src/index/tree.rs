//! Nodes of the index's B+tree.
//!
//! Invariants:
//! - all leaves are at one depth; an inner node has one separator less than children; a separator
//!   is above every key to its left and not above any key to its right;
//! - `summaries[i]` is what `children[i]` holds: exactly its live keys, and a main revision that no
//!   row in it is newer than.

use std::ops::ControlFlow;

use super::history::{Change, Entry, Found, Histories, Stamp, Swept};
use super::packed::{PackedKeys, reserve};

// Tests have small nodes, so that few keys make a deep tree.
const LEAF_KEYS_MAX: usize = if cfg!(test) { 8 } else { 128 };
/// A leaf with long keys splits earlier, so that an insertion moves few bytes.
const LEAF_BYTES_MAX: usize = 16 << 10;
const CHILDREN_MAX: usize = if cfg!(test) { 4 } else { 64 };

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    keys: PackedKeys,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Inner {
    separators: PackedKeys,
    children: Vec<Node>,
    summaries: Vec<Summary>,
}

/// What a subtree holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    pub(super) live: usize,
    pub(super) newest: i64,
}

/// What a change of one key did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    /// The live row before.
    pub(crate) before: Option<Found>,
    /// The live row after.
    pub(crate) after: Option<Found>,
}

/// The right half of a node that became too large.
pub(super) struct Split {
    separator: Vec<u8>,
    right: Node,
}

/// Which keys a walk visits and as of when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// First key.
    pub(super) start: &'a [u8],
    /// First key behind; `None` to the last.
    pub(super) end: Option<&'a [u8]>,
    /// As of this main revision; `None` is now.
    pub(super) at: Option<i64>,
}

impl Span<'_> {
    /// Whether the live keys of a subtree are the same now and at `at`.
    fn unchanged(&self, summary: Summary) -> bool {
        self.at.is_none_or(|at| summary.newest <= at)
    }

    fn found(&self, entry: &Entry, histories: &Histories) -> Option<Found> {
        match self.at {
            None => entry.found(),
            Some(at) => entry.found_at(at, histories),
        }
    }
}

/// Where a walk of compaction stopped.
pub(super) enum Progress {
    /// Go on at this key.
    At(Vec<u8>),
    /// There is nothing behind.
    End,
}

impl Node {
    pub(super) fn empty() -> Self {
        Self::Leaf(Box::default())
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = self;
        loop {
            match node {
                Self::Inner(inner) => node = &inner.children[inner.separators.child_of(key)],
                Self::Leaf(leaf) => return leaf.keys.find(key).ok().map(|at| &leaf.entries[at]),
            }
        }
    }

    pub(super) fn summary(&self) -> Summary {
        match self {
            Self::Leaf(leaf) => {
                leaf.entries.iter().fold(Summary::default(), |sum, entry| Summary {
                    live: sum.live + usize::from(entry.is_live()),
                    newest: sum.newest.max(entry.newest().main()),
                })
            }
            Self::Inner(inner) => inner.summaries.iter().fold(Summary::default(), |sum, child| {
                Summary { live: sum.live + child.live, newest: sum.newest.max(child.newest) }
            }),
        }
    }

    /// Adds a row of a key.
    pub(super) fn change(
        &mut self,
        key: &[u8],
        stamp: Stamp,
        change: Change,
        histories: &mut Histories,
    ) -> (Changed, Option<Split>) {
        match self {
            Self::Leaf(leaf) => leaf.change(key, stamp, change, histories),
            Self::Inner(inner) => inner.change(key, stamp, change, histories),
        }
    }

    /// Makes the root that has this node and the half that was split off it as children.
    pub(super) fn grow(self, split: Split) -> Self {
        let mut separators = PackedKeys::default();
        separators.insert(0, &split.separator);
        let summaries = vec![self.summary(), split.right.summary()];
        let children = vec![self, split.right];
        Self::Inner(Box::new(Inner { separators, children, summaries }))
    }

    /// Number of keys of the span; logarithmic where nothing changed since `span.at`.
    pub(super) fn count(&self, span: Span<'_>, histories: &Histories) -> usize {
        #[cfg(test)]
        COUNTED_NODES.set(COUNTED_NODES.get() + 1);
        match self {
            Self::Leaf(leaf) => {
                let entries = &leaf.entries[leaf.range(span)];
                entries.iter().filter(|entry| span.found(entry, histories).is_some()).count()
            }
            Self::Inner(inner) => {
                let (first, last) = inner.range(span);
                let count = |at: usize| {
                    // Only the children at the two ends of the span may have keys outside it.
                    let start = if first < at { &[] } else { span.start };
                    let end = if at < last { None } else { span.end };
                    let whole = start.is_empty() && end.is_none();
                    if whole && span.unchanged(inner.summaries[at]) {
                        return inner.summaries[at].live;
                    }
                    inner.children[at].count(Span { start, end, at: span.at }, histories)
                };
                (first..=last).map(count).sum()
            }
        }
    }

    /// Visits live keys of the span in order; `key` is scratch.
    pub(super) fn visit(
        &self,
        span: Span<'_>,
        histories: &Histories,
        key: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8], Found) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Self::Leaf(leaf) => {
                for at in leaf.range(span) {
                    if let Some(found) = span.found(&leaf.entries[at], histories) {
                        leaf.keys.read(at, key);
                        visit(key, found)?;
                    }
                }
            }
            Self::Inner(inner) => {
                let (first, last) = inner.range(span);
                for at in first..=last {
                    let summary = inner.summaries[at];
                    if summary.live > 0 || !span.unchanged(summary) {
                        inner.children[at].visit(span, histories, key, visit)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits every entry, deleted keys too.
    pub(super) fn for_each(&self, visit: &mut dyn FnMut(&PackedKeys, usize, &Entry)) {
        match self {
            Self::Leaf(leaf) => {
                for (at, entry) in leaf.entries.iter().enumerate() {
                    visit(&leaf.keys, at, entry);
                }
            }
            Self::Inner(inner) => inner.children.iter().for_each(|child| child.for_each(visit)),
        }
    }

    /// Compacts entries from `from` on, whole leaves, until `budget` of them are done.
    pub(super) fn compact(
        &mut self,
        from: &[u8],
        at: i64,
        budget: &mut usize,
        histories: &mut Histories,
        swept: &mut Swept,
    ) -> Progress {
        match self {
            Self::Leaf(leaf) => {
                *budget = budget.saturating_sub(leaf.entries.len());
                leaf.compact(at, histories, swept);
                Progress::End
            }
            Self::Inner(inner) => inner.compact(from, at, budget, histories, swept),
        }
    }

    /// The only child of a root that has no other.
    pub(super) fn only_child(&mut self) -> Option<Self> {
        match self {
            Self::Inner(inner) if inner.children.len() == 1 => inner.children.pop(),
            Self::Inner(_) | Self::Leaf(_) => None,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Leaf(leaf) => {
                let entries = leaf.entries.capacity() * size_of::<Entry>();
                size_of::<Leaf>() + leaf.keys.memory_bytes() + entries
            }
            Self::Inner(inner) => {
                let each = size_of::<Self>() + size_of::<Summary>();
                let children = inner.children.iter().map(Self::memory_bytes).sum::<usize>();
                let own = inner.separators.memory_bytes() + inner.children.capacity() * each;
                size_of::<Inner>() + own + children
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.entries.is_empty(),
            Self::Inner(inner) => inner.children.iter().all(Self::is_empty),
        }
    }

    /// Takes in the right neighbour if both together are well below a full node.
    fn merge(&mut self, separator: &[u8], right: &Self) -> bool {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.merge(right),
            (Self::Inner(left), Self::Inner(right)) => left.merge(separator, right),
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => {
                panic!("neighbours are at different depths")
            }
        }
    }
}

impl Leaf {
    fn range(&self, span: Span<'_>) -> std::ops::Range<usize> {
        let start = self.keys.lower_bound(span.start);
        let end = span.end.map_or(self.entries.len(), |end| self.keys.lower_bound(end));
        start..end.max(start)
    }

    fn change(
        &mut self,
        key: &[u8],
        stamp: Stamp,
        change: Change,
        histories: &mut Histories,
    ) -> (Changed, Option<Split>) {
        match self.keys.find(key) {
            Ok(at) => {
                let entry = &mut self.entries[at];
                let before = entry.found();
                entry.change(stamp, change, histories);
                (Changed { before, after: entry.found() }, None)
            }
            Err(at) => {
                let entry = Entry::new(stamp, change);
                self.keys.insert(at, key);
                reserve(&mut self.entries, 1);
                self.entries.insert(at, entry);
                let too_long = LEAF_BYTES_MAX < self.keys.key_bytes() && 1 < self.entries.len();
                let split = LEAF_KEYS_MAX < self.entries.len() || too_long;
                let split = split.then(|| self.split(at));
                (Changed { before: None, after: entry.found() }, split)
            }
        }
    }

    /// Splits in the middle, or beside the key just inserted if that is at an end: keys that come
    /// in order then leave full leaves behind.
    fn split(&mut self, inserted: usize) -> Split {
        let len = self.entries.len();
        let middle = match inserted {
            0 => 1,
            last if last + 1 == len => last,
            _ => len / 2,
        };
        let right =
            Self { keys: self.keys.slice(middle, len), entries: self.entries.split_off(middle) };
        self.keys = self.keys.slice(0, middle);
        self.entries.shrink_to_fit();
        let separator = self.keys.separator(&right.keys);
        Split { separator, right: Node::Leaf(Box::new(right)) }
    }

    fn compact(&mut self, at: i64, histories: &mut Histories, swept: &mut Swept) {
        let mut kept = Vec::with_capacity(self.entries.len());
        for (position, entry) in self.entries.iter_mut().enumerate() {
            if !entry.compact(at, histories, swept) {
                kept.push(position);
            }
        }
        if kept.len() < self.entries.len() {
            self.keys = self.keys.only(&kept);
            self.entries = kept.iter().map(|position| self.entries[*position]).collect();
        }
    }

    fn merge(&mut self, right: &Self) -> bool {
        let len = self.entries.len() + right.entries.len();
        let bytes = self.keys.key_bytes() + right.keys.key_bytes();
        if LEAF_KEYS_MAX * 3 / 4 < len || LEAF_BYTES_MAX / 2 < bytes {
            return false;
        }
        self.keys.append(&right.keys);
        self.entries.extend_from_slice(&right.entries);
        true
    }
}

impl Inner {
    /// First and last child that may have keys of the span.
    fn range(&self, span: Span<'_>) -> (usize, usize) {
        let first = self.separators.child_of(span.start);
        let last = span.end.map_or(self.children.len() - 1, |end| self.separators.lower_bound(end));
        (first, last.max(first))
    }

    fn change(
        &mut self,
        key: &[u8],
        stamp: Stamp,
        change: Change,
        histories: &mut Histories,
    ) -> (Changed, Option<Split>) {
        let at = self.separators.child_of(key);
        let (changed, split) = self.children[at].change(key, stamp, change, histories);
        let summary = &mut self.summaries[at];
        summary.live += usize::from(changed.after.is_some());
        summary.live -= usize::from(changed.before.is_some());
        summary.newest = summary.newest.max(stamp.main());
        if let Some(Split { separator, right }) = split {
            self.separators.insert(at, &separator);
            self.summaries[at] = self.children[at].summary();
            self.summaries.insert(at + 1, right.summary());
            self.children.insert(at + 1, right);
        }
        let split = (CHILDREN_MAX < self.children.len()).then(|| self.split(at));
        (changed, split)
    }

    fn split(&mut self, changed: usize) -> Split {
        let len = self.children.len();
        let middle = if changed + 2 == len { len - 2 } else { len / 2 };
        let separator = self.separators.key(middle - 1);
        let right = Self {
            separators: self.separators.slice(middle, len - 1),
            children: self.children.split_off(middle),
            summaries: self.summaries.split_off(middle),
        };
        self.separators = self.separators.slice(0, middle - 1);
        Split { separator, right: Node::Inner(Box::new(right)) }
    }

    fn compact(
        &mut self,
        from: &[u8],
        at: i64,
        budget: &mut usize,
        histories: &mut Histories,
        swept: &mut Swept,
    ) -> Progress {
        let first = self.separators.child_of(from);
        let mut progress = Progress::End;
        for child in first..self.children.len() {
            if *budget == 0 {
                progress = Progress::At(self.separators.key(child - 1));
                break;
            }
            let inside = self.children[child].compact(from, at, budget, histories, swept);
            self.summaries[child] = self.children[child].summary();
            if let Progress::At(_) = inside {
                progress = inside;
                break;
            }
        }
        self.tidy();
        progress
    }

    /// Removes empty children and joins small neighbours.
    fn tidy(&mut self) {
        let mut at = 1;
        while at < self.children.len() {
            let separator = self.separators.key(at - 1);
            let (left, right) = self.children.split_at_mut(at);
            let left = &mut left[at - 1];
            if right[0].is_empty() || left.merge(&separator, &right[0]) {
                self.children.remove(at);
                self.summaries.remove(at);
                self.remove_separator(at - 1);
                self.summaries[at - 1] = self.children[at - 1].summary();
            } else if left.is_empty() {
                self.children.remove(at - 1);
                self.summaries.remove(at - 1);
                self.remove_separator(at - 1);
            } else {
                at += 1;
            }
        }
    }

    fn remove_separator(&mut self, at: usize) {
        let kept: Vec<_> = (0..self.separators.len()).filter(|other| *other != at).collect();
        self.separators = self.separators.only(&kept);
    }

    fn merge(&mut self, separator: &[u8], right: &Self) -> bool {
        if CHILDREN_MAX * 3 / 4 < self.children.len() + right.children.len() {
            return false;
        }
        self.separators.insert(self.separators.len(), separator);
        self.separators.append(&right.separators);
        self.children.extend(right.children.iter().cloned());
        self.summaries.extend_from_slice(&right.summaries);
        true
    }
}

#[cfg(test)]
thread_local! {
    /// Nodes that counts have looked into.
    pub(super) static COUNTED_NODES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
impl Node {
    /// Checks every invariant of this subtree.
    pub(super) fn verify(&self, depth: usize) -> usize {
        let Self::Inner(inner) = self else { return depth };
        assert_eq!(inner.separators.len() + 1, inner.children.len());
        assert!(inner.children.len() <= CHILDREN_MAX);
        let mut depths = Vec::new();
        for (at, child) in inner.children.iter().enumerate() {
            assert_eq!(inner.summaries[at].live, child.summary().live, "live keys of child {at}");
            assert!(child.summary().newest <= inner.summaries[at].newest);
            let mut keys = Vec::new();
            child.for_each(&mut |packed, position, _| keys.push(packed.key(position)));
            assert!(keys.is_sorted());
            if let Some(above) = at.checked_sub(1).map(|left| inner.separators.key(left)) {
                assert!(keys.iter().all(|key| above <= *key), "keys right of separator {at}");
            }
            if at < inner.separators.len() {
                let below = inner.separators.key(at);
                assert!(keys.iter().all(|key| *key < below), "keys left of separator {at}");
            }
            depths.push(child.verify(depth + 1));
        }
        assert!(depths.iter().all(|other| *other == depths[0]), "leaves at one depth");
        depths[0]
    }
}
