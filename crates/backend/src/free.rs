//! Which pages are free: a bitmap with summary levels.
//!
//! Bit `i` of a level above the lowest says that word `i` of the level below has a bit set, so the
//! lowest free page of ten million is found in four steps. One bit a page: 1.25 MiB for 40 GiB.

use crate::num::{to_count, to_len};
use crate::page::PageId;

const WORD: u64 = 64;

/// A set of page ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSet {
    /// The lowest level first; the last one has one word, or there is none at all.
    levels: Vec<Vec<u64>>,
    count: u64,
}

impl PageSet {
    /// An empty set.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// All pages from `start` to `end` (exclusive).
    #[cfg(test)]
    pub(crate) fn of(start: PageId, end: PageId) -> Self {
        let mut set = Self::new();
        for id in start..end {
            set.insert(id);
        }
        set
    }

    /// Number of pages in the set.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Whether a page is in the set.
    pub(crate) fn contains(&self, id: PageId) -> bool {
        let word = self.levels.first().and_then(|level| level.get(to_len(id / WORD)));
        word.is_some_and(|word| word & bit(id) != 0)
    }

    /// Adds a page; `false` if it was there.
    pub(crate) fn insert(&mut self, id: PageId) -> bool {
        if self.contains(id) {
            return false;
        }
        self.cover(id);
        let mut at = id;
        for level in &mut self.levels {
            level[to_len(at / WORD)] |= bit(at);
            at /= WORD;
        }
        self.count += 1;
        true
    }

    /// Takes a page out; `false` if it was not there.
    pub(crate) fn remove(&mut self, id: PageId) -> bool {
        if !self.contains(id) {
            return false;
        }
        let mut at = id;
        for level in &mut self.levels {
            let word = &mut level[to_len(at / WORD)];
            *word &= !bit(at);
            if *word != 0 {
                break;
            }
            at /= WORD;
        }
        self.count -= 1;
        true
    }

    /// The lowest page of the set at or above `from`.
    pub(crate) fn first_from(&self, from: PageId) -> Option<PageId> {
        let mut at = from;
        for depth in 0..self.levels.len() {
            let word = *self.levels[depth].get(to_len(at / WORD))?;
            let rest = word & (u64::MAX << (at % WORD));
            if rest != 0 {
                let mut found = at / WORD * WORD + u64::from(rest.trailing_zeros());
                for below in self.levels[..depth].iter().rev() {
                    let word = below[to_len(found)];
                    found = found * WORD + u64::from(word.trailing_zeros());
                }
                return Some(found);
            }
            at = at / WORD + 1;
        }
        None
    }

    /// The lowest run of `pages` neighbours, taken out.
    pub(crate) fn take(&mut self, pages: u64) -> Option<PageId> {
        let mut start = self.first_from(0)?;
        let mut end = start + 1;
        while end - start < pages {
            if self.contains(end) {
                end += 1;
            } else {
                start = self.first_from(end)?;
                end = start + 1;
            }
        }
        for id in start..end {
            self.remove(id);
        }
        Some(start)
    }

    /// All pages of the set in ascending order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = PageId> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let id = self.first_from(next)?;
            next = id + 1;
            Some(id)
        })
    }

    /// Makes the levels wide and high enough for a page.
    fn cover(&mut self, id: PageId) {
        let mut words = id / WORD + 1;
        let mut depth = 0;
        loop {
            if depth == self.levels.len() {
                // The new top must know about the words that were there before.
                let below = depth.checked_sub(1).map(|below| &self.levels[below]);
                let filled = below.is_some_and(|level| level[0] != 0);
                self.levels.push(vec![u64::from(filled)]);
            }
            let level = &mut self.levels[depth];
            if to_count(level.len()) < words {
                level.resize(to_len(words), 0);
            }
            if level.len() == 1 {
                break;
            }
            words = (to_count(level.len()) - 1) / WORD + 1;
            depth += 1;
        }
    }
}

fn bit(id: PageId) -> u64 {
    1 << (id % WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lowest_run_is_taken() {
        let mut set = PageSet::of(3, 5);
        (70..73).for_each(|id| assert!(set.insert(id)));
        assert_eq!(set.take(3), Some(70));
        assert_eq!(set.take(1), Some(3));
        assert_eq!(set.take(2), None);
        assert_eq!(set.iter().collect::<Vec<_>>(), [4]);
    }

    proptest! {
        #[test]
        fn set_does_what_a_plain_set_does(
            steps in prop::collection::vec((any::<bool>(), 0_u64..300_000), 1..200),
            from in 0_u64..310_000,
        ) {
            let (mut set, mut model) = (PageSet::new(), BTreeSet::new());
            for (add, id) in steps {
                // Spread over the levels: small ids, and ids around the borders of words.
                let id = if id % 3 == 0 { id % 200 } else { id };
                if add {
                    prop_assert_eq!(set.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(set.remove(id), model.remove(&id));
                }
                prop_assert_eq!(set.first_from(from), model.range(from..).next().copied());
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert!(set.iter().eq(model.iter().copied()));
        }
    }
}
