//! The rows of one key: the newest in place, older ones in a side table for keys that have any.
//!
//! Invariants:
//! - rows of a key ascend; the newest is in [`Entry`], all others in its [`History`];
//! - within a generation (from creation to deletion) versions go up by one from row to row, so that
//!   only the last row of a generation carries its version and create revision: in `Entry` for the
//!   newest generation, in `History::ends` for each one that a deletion ended.
//!
//! Source: etcd: server/storage/mvcc/key_index.go (what is kept and what compaction drops).

use base::Revision;

/// Which row: its revision and whether it is a deletion. Orders as the rows do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    main: i64,
    /// Sub revision times two, plus one for a deletion.
    packed_sub: u32,
}

impl Stamp {
    /// # Panics
    ///
    /// If the sub revision is negative or above 2^31: no transaction has that many changes.
    pub(crate) fn new(revision: Revision, deletion: bool) -> Self {
        let sub = u32::try_from(revision.sub).ok().and_then(|sub| sub.checked_mul(2));
        let sub = sub.expect("a transaction has less than 2^31 changes");
        Self { main: revision.main, packed_sub: sub | u32::from(deletion) }
    }

    pub(crate) fn revision(self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.packed_sub >> 1) }
    }

    pub(crate) fn main(self) -> i64 {
        self.main
    }

    pub(crate) fn is_deletion(self) -> bool {
        self.packed_sub & 1 == 1
    }
}

/// A live row and what the index knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) stamp: Stamp,
    pub(crate) create: i64,
    pub(crate) version: i64,
}

/// A change of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// A new row.
    Put,
    /// A row found in the database, with what it says of itself.
    Restore { create: i64, version: i64 },
    /// A deletion.
    Delete,
}

/// The newest row of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Of the newest generation; 0 if only its deletion is left.
    create: i64,
    /// Of the newest put; 0 if only its deletion is left.
    version: i64,
    /// The newest row's stamp, in parts: together with `history` they pack without a gap.
    main: i64,
    packed_sub: u32,
    /// Where the older rows are, plus one; 0 is nowhere.
    history: u32,
}

/// Older rows of one key.
#[derive(Clone, Debug, Default)]
struct History {
    rows: Vec<Stamp>,
    /// One for each deletion in `rows`, in their order.
    ends: Vec<End>,
}

/// What the last put before a deletion was.
#[derive(Clone, Copy, Debug)]
struct End {
    create: i64,
    version: i64,
}

/// The side table.
#[derive(Clone, Debug, Default)]
pub(super) struct Histories {
    slots: Vec<History>,
    free: Vec<u32>,
}

impl Histories {
    fn of(&self, entry: &Entry) -> Option<&History> {
        let at = entry.history.checked_sub(1)?;
        Some(&self.slots[at as usize])
    }

    fn of_mut(&mut self, entry: &mut Entry) -> &mut History {
        if entry.history == 0 {
            let at = self.free.pop().unwrap_or_else(|| {
                self.slots.push(History::default());
                u32::try_from(self.slots.len() - 1).expect("less than 2^32 keys have histories")
            });
            entry.history = at + 1;
        }
        &mut self.slots[entry.history as usize - 1]
    }

    fn release(&mut self, entry: &mut Entry) {
        if let Some(at) = entry.history.checked_sub(1) {
            self.slots[at as usize] = History::default();
            self.free.push(at);
            entry.history = 0;
            if self.free.len() == self.slots.len() {
                *self = Self::default();
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let rows = self.slots.iter().map(|one| 16 * (one.rows.capacity() + one.ends.capacity()));
        rows.sum::<usize>()
            + self.slots.capacity() * size_of::<History>()
            + 4 * self.free.capacity()
    }
}

impl Entry {
    /// The entry of a key that had no row.
    pub(super) fn new(newest: Stamp, change: Change) -> Self {
        let (create, version) = match change {
            Change::Put => (newest.main, 1),
            Change::Restore { create, version } => (create, version),
            Change::Delete => (0, 0),
        };
        let Stamp { main, packed_sub } = newest;
        Self { create, version, main, packed_sub, history: 0 }
    }

    pub(super) fn is_live(&self) -> bool {
        !self.newest().is_deletion()
    }

    pub(super) fn newest(&self) -> Stamp {
        Stamp { main: self.main, packed_sub: self.packed_sub }
    }

    /// The live row, if the key is live now.
    pub(super) fn found(&self) -> Option<Found> {
        let Self { create, version, .. } = *self;
        self.is_live().then_some(Found { stamp: self.newest(), create, version })
    }

    /// The row that was live at main revision `at`, after all of that revision's changes.
    pub(super) fn found_at(&self, at: i64, histories: &Histories) -> Option<Found> {
        if self.main <= at {
            return self.found();
        }
        let history = histories.of(self)?;
        let next = history.rows.partition_point(|row| row.main <= at);
        let stamp = *history.rows.get(next.checked_sub(1)?)?;
        if stamp.is_deletion() {
            return None;
        }
        // Versions count backwards from the last put of the generation.
        let (last, puts_after) = match history.rows[next..].iter().position(|r| r.is_deletion()) {
            Some(puts) => {
                let ended_after = history.rows[next + puts..].iter().filter(|r| r.is_deletion());
                (history.ends[history.ends.len() - ended_after.count()], puts)
            }
            None => {
                let End { create, version } = self.end();
                let puts = history.rows.len() - next + usize::from(self.is_live());
                (End { create, version }, puts)
            }
        };
        let puts_after = i64::try_from(puts_after).expect("a count of rows fits");
        Some(Found { stamp, create: last.create, version: last.version - puts_after })
    }

    /// The newest row at or below main revision `at`, deletions too.
    pub(super) fn newest_at(&self, at: i64, histories: &Histories) -> Option<Stamp> {
        if self.main <= at {
            return Some(self.newest());
        }
        let rows = &histories.of(self)?.rows;
        rows.partition_point(|row| row.main <= at).checked_sub(1).map(|last| rows[last])
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If the row is not newer than all others, or a deletion does not end a life.
    pub(super) fn change(&mut self, newest: Stamp, change: Change, histories: &mut Histories) {
        let older = self.newest();
        assert!(older < newest, "rows go back: {older:?} then {newest:?}");
        let end = self.end();
        let history = histories.of_mut(self);
        history.rows.push(older);
        let was_live = !older.is_deletion();
        if !was_live {
            history.ends.push(end);
        }
        Stamp { main: self.main, packed_sub: self.packed_sub } = newest;
        (self.create, self.version) = match change {
            Change::Put if was_live => (self.create, self.version + 1),
            Change::Put => (newest.main, 1),
            Change::Restore { create, version } => (create, version),
            Change::Delete if was_live => (self.create, self.version),
            Change::Delete => (0, 0),
        };
    }

    /// Forgets the rows that a compaction at `at` drops and tells which; `true` if none is left.
    ///
    /// Kept is the newest row at or below `at`, unless it is a deletion before `at`: one exactly at
    /// `at` is kept, so that a watch that starts there sees it (etcd 3.5.16 and later).
    pub(super) fn compact(
        &mut self,
        at: i64,
        histories: &mut Histories,
        swept: &mut Swept,
    ) -> bool {
        if self.main <= at {
            if let Some(history) = histories.of(self) {
                swept.dropped.extend(&history.rows);
                histories.release(self);
            }
            if self.is_live() {
                swept.any_kept = true;
                return false;
            }
            if self.main < at || base::probe::mutant("compaction-takes-a-deletion-at-its-revision")
            {
                swept.dropped.insert(self.newest());
                return true;
            }
            swept.any_kept = true;
            (self.create, self.version) = (0, 0);
            return false;
        }
        if self.history == 0 {
            return false;
        }
        let history = histories.of_mut(self);
        let Some(last) = history.rows.partition_point(|row| row.main <= at).checked_sub(1) else {
            return false;
        };
        let lone_deletion = history.rows[last].is_deletion();
        let drop_last = lone_deletion && history.rows[last].main < at;
        swept.any_kept |= !drop_last;
        let dropped = last + usize::from(drop_last);
        let ended = history.rows[..dropped].iter().filter(|row| row.is_deletion()).count();
        swept.dropped.extend(history.rows.drain(..dropped));
        history.ends.drain(..ended);
        if lone_deletion && !drop_last {
            history.ends[0] = End { create: 0, version: 0 };
        }
        if history.rows.is_empty() {
            histories.release(self);
        } else {
            history.rows.shrink_to(history.rows.len() * 2);
        }
        false
    }

    /// Every row, oldest first, with create revision and version of puts.
    #[cfg(test)]
    pub(super) fn dump(&self, histories: &Histories) -> Vec<(Stamp, i64, i64)> {
        let mut stamps: Vec<_> = histories.of(self).map_or_else(Vec::new, |h| h.rows.clone());
        stamps.push(self.newest());
        let details = stamps.iter().map(|stamp| {
            let found = self.found_at(stamp.main, histories).filter(|f| f.stamp == *stamp);
            (*stamp, found.map_or(0, |f| f.create), found.map_or(0, |f| f.version))
        });
        details.collect()
    }

    fn end(&self) -> End {
        End { create: self.create, version: self.version }
    }
}

/// What a walk of compaction found.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Rows that nothing needs any more.
    pub(crate) dropped: std::collections::BTreeSet<Stamp>,
    /// Whether any row at or below the boundary stays.
    pub(crate) any_kept: bool,
}
