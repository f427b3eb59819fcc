//! Finding the groups whose range holds a key.
//!
//! Three tables by the shape of the range: single keys; prefixes, by their length; everything else
//! as intervals in an array that is searched as a balanced tree. Clients' ranges are nearly always
//! keys or prefixes, and there can be very many of them.
//!
//! Invariant: a range is in exactly one table, and at most once.

use std::collections::BTreeMap;

use base::KeyRange;
use bytes::Bytes;

/// Number of a group.
pub(super) type GroupId = u32;

/// From ranges to groups.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    keys: BTreeMap<Bytes, GroupId>,
    prefixes: BTreeMap<usize, BTreeMap<Bytes, GroupId>>,
    intervals: Intervals,
}

enum Shape {
    Key(Bytes),
    Prefix(Bytes),
    Interval(Interval),
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty() && self.intervals.sorted.is_empty()
    }

    pub(super) fn get(&self, range: &KeyRange) -> Option<GroupId> {
        match shape(range) {
            Shape::Key(key) => self.keys.get(&key).copied(),
            Shape::Prefix(prefix) => self.prefixes.get(&prefix.len())?.get(&prefix).copied(),
            Shape::Interval(interval) => self.intervals.get(&interval),
        }
    }

    pub(super) fn insert(&mut self, range: &KeyRange, group: GroupId) {
        let before = match shape(range) {
            Shape::Key(key) => self.keys.insert(key, group),
            Shape::Prefix(prefix) => {
                self.prefixes.entry(prefix.len()).or_default().insert(prefix, group)
            }
            Shape::Interval(interval) => self.intervals.insert(interval, group),
        };
        assert_eq!(before, None, "{range:?} had a group already");
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        let before = match shape(range) {
            Shape::Key(key) => self.keys.remove(&key),
            Shape::Prefix(prefix) => {
                let same_len = self.prefixes.entry(prefix.len()).or_default();
                let before = same_len.remove(&prefix);
                if same_len.is_empty() {
                    self.prefixes.remove(&prefix.len());
                }
                before
            }
            Shape::Interval(interval) => self.intervals.remove(&interval),
        };
        assert!(before.is_some(), "{range:?} had no group");
    }

    /// Appends the groups whose range holds the key.
    pub(super) fn find(&mut self, key: &[u8], groups: &mut Vec<GroupId>) {
        groups.extend(self.keys.get(key));
        for (len, prefixes) in &self.prefixes {
            match key.get(..*len) {
                Some(prefix) => groups.extend(prefixes.get(prefix)),
                None => break,
            }
        }
        self.intervals.find(key, groups);
    }
}

fn shape(range: &KeyRange) -> Shape {
    match range {
        KeyRange::One(key) => Shape::Key(key.clone()),
        KeyRange::Between { start, end } if is_prefix_range(start, end) => {
            Shape::Prefix(start.clone())
        }
        KeyRange::Between { start, end } => {
            Shape::Interval(Interval { start: start.clone(), end: Some(end.clone()) })
        }
        KeyRange::From(start) => Shape::Interval(Interval { start: start.clone(), end: None }),
    }
}

/// Whether the range holds exactly the keys that begin with `start`.
fn is_prefix_range(start: &[u8], end: &[u8]) -> bool {
    // The first key behind is the prefix with its last byte raised, 0xff bytes at its end cut off.
    let Some(last) = start.iter().rposition(|byte| *byte != 0xff) else { return false };
    end.len() == last + 1 && end[..last] == start[..last] && end[last] == start[last] + 1
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    start: Bytes,
    end: Option<Bytes>,
}

/// Intervals by start. `reach[i]` is the interval that ends last in the subtree whose root is `i`,
/// where the root of a run is its middle; made anew at the first search after a change.
#[derive(Debug, Default)]
struct Intervals {
    sorted: Vec<(Interval, GroupId)>,
    reach: Vec<usize>,
    stale: bool,
}

impl Intervals {
    fn position(&self, interval: &Interval) -> Result<usize, usize> {
        self.sorted.binary_search_by(|(other, _)| other.cmp(interval))
    }

    fn get(&self, interval: &Interval) -> Option<GroupId> {
        self.position(interval).ok().map(|at| self.sorted[at].1)
    }

    fn insert(&mut self, interval: Interval, group: GroupId) -> Option<GroupId> {
        self.stale = true;
        match self.position(&interval) {
            Ok(at) => Some(self.sorted[at].1),
            Err(at) => {
                self.sorted.insert(at, (interval, group));
                None
            }
        }
    }

    fn remove(&mut self, interval: &Interval) -> Option<GroupId> {
        self.stale = true;
        self.position(interval).ok().map(|at| self.sorted.remove(at).1)
    }

    fn find(&mut self, key: &[u8], groups: &mut Vec<GroupId>) {
        if self.sorted.is_empty() {
            return;
        }
        if std::mem::take(&mut self.stale) {
            self.reach = vec![0; self.sorted.len()];
            self.measure(0, self.sorted.len());
        }
        self.find_in(0, self.sorted.len(), key, groups);
    }

    fn find_in(&self, from: usize, to: usize, key: &[u8], groups: &mut Vec<GroupId>) {
        if from == to {
            return;
        }
        let root = usize::midpoint(from, to);
        if !self.ends_behind(self.reach[root], key) {
            return;
        }
        self.find_in(from, root, key, groups);
        if self.sorted[root].0.start <= key {
            if self.ends_behind(root, key) {
                groups.push(self.sorted[root].1);
            }
            self.find_in(root + 1, to, key, groups);
        }
    }

    fn ends_behind(&self, at: usize, key: &[u8]) -> bool {
        self.sorted[at].0.end.as_ref().is_none_or(|end| key < &end[..])
    }

    fn measure(&mut self, from: usize, to: usize) -> Option<usize> {
        if from == to {
            return None;
        }
        let root = usize::midpoint(from, to);
        let below = [self.measure(from, root), self.measure(root + 1, to)];
        let candidates = below.into_iter().flatten().chain([root]);
        // No end is behind every end.
        let furthest = candidates.max_by_key(|at| {
            let end = &self.sorted[*at].0.end;
            (end.is_none(), end.clone())
        });
        self.reach[root] = furthest.unwrap_or(root);
        furthest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small_key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)], 0..4)
            .prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            small_key().prop_map(KeyRange::One),
            small_key().prop_map(KeyRange::From),
            (small_key(), small_key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
            small_key().prop_map(|start| {
                let mut end = start.to_vec();
                while end.last() == Some(&0xff) {
                    end.pop();
                }
                match end.last_mut() {
                    Some(last) => {
                        *last += 1;
                        KeyRange::Between { start, end: end.into() }
                    }
                    None => KeyRange::From(start),
                }
            }),
        ]
    }

    proptest! {
        /// W-02: every shape of range finds exactly the keys it holds.
        #[test]
        fn groups_are_those_whose_range_holds_the_key(
            steps in prop::collection::vec((range(), any::<bool>()), 1..30),
            keys in prop::collection::vec(small_key(), 1..20),
        ) {
            let mut model: Vec<(KeyRange, GroupId)> = Vec::new();
            let mut ranges = Ranges::default();
            for (number, (range, remove)) in steps.into_iter().enumerate() {
                if range.is_empty() {
                    continue;
                }
                let known = model.iter().position(|(other, _)| *other == range);
                prop_assert_eq!(ranges.get(&range), known.map(|at| model[at].1));
                match known {
                    Some(at) if remove => {
                        ranges.remove(&range);
                        model.remove(at);
                    }
                    Some(_) => {}
                    None => {
                        let group = GroupId::try_from(number).unwrap();
                        ranges.insert(&range, group);
                        model.push((range, group));
                    }
                }
                for key in &keys {
                    let mut found = Vec::new();
                    ranges.find(key, &mut found);
                    found.sort_unstable();
                    let held = model.iter().filter(|(range, _)| range.contains(key));
                    let mut held: Vec<_> = held.map(|(_, group)| *group).collect();
                    held.sort_unstable();
                    prop_assert_eq!(found, held);
                }
            }
        }
    }
}
