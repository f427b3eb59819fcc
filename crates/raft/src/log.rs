//! The entries this member knows, and how far they are durable, committed and applied.
//!
//! Everything behind the last compaction is held in memory; the payloads are shared with the
//! network and with apply. Not the disk: what must be written leaves through [`crate::Ready`].
//!
//! Invariants:
//! - `base.index <= last`, and the entries between have no gaps;
//! - `applied <= applying <= commit <= last`;
//! - a committed entry never changes;
//! - only durable entries are handed out to be applied.
//!
//! Source: Raft §5.3, §5.4.2; etcd raft: log.go.

use std::collections::VecDeque;

use base::probe::{mutant, reached};
use base::{Index, LogPosition, MemberId, Term};

use crate::unstable::{Batch, Unstable};
use crate::{Entry, EntryKind, PersistToken, SnapshotMeta};

/// The log of one member.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The entry before the first one kept: where the log was compacted or a snapshot begins.
    base: LogPosition,
    entries: VecDeque<Entry>,
    commit: Index,
    /// Handed out to be applied.
    applying: Index,
    applied: Index,
    /// Bytes handed out to be applied and not reported back.
    applying_bytes: u64,
    unstable: Unstable,
}

/// Why a leader's entries were not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The entry before them is missing or of another term.
    Previous,
    /// One of them contradicts a committed entry.
    Committed(Index),
}

/// Framing of one entry in a message, roughly; only keeps small entries from being free.
const ENTRY_OVERHEAD_BYTES: u64 = 16;

impl Log {
    /// The log as it was read from disk; all of it is durable. `commit` is already at least
    /// `applied`.
    pub(crate) fn new(
        base: LogPosition,
        entries: Vec<Entry>,
        commit: Index,
        applied: Index,
    ) -> Self {
        let mut log = Self {
            base,
            entries: VecDeque::new(),
            commit,
            applying: applied,
            applied,
            applying_bytes: 0,
            unstable: Unstable::new(base.index),
        };
        for entry in entries {
            if entry.term < log.last().term {
                // Entries of a deposed leader that a snapshot overtook: the files keep them, the
                // log they belonged to is gone. Nothing behind them can belong to this log.
                break;
            }
            log.push(entry);
        }
        let last = log.last().index;
        log.unstable = Unstable::new(last);
        assert!(base.index <= applied, "applied {applied} before the log's beginning {base}");
        assert!(applied <= commit, "applied {applied} beyond the commit index {commit}");
        assert!(commit <= last, "commit index {commit} beyond the last entry {last}");
        log
    }

    /// What is behind the applied index was read, and may not be on the disk. The next batch says
    /// for all of it when it is.
    pub(crate) fn doubt(&mut self) {
        self.unstable = Unstable::doubted(self.applied, self.last().index);
    }

    /// The end of the log.
    pub(crate) fn last(&self) -> LogPosition {
        self.entries.back().map_or(self.base, Entry::position)
    }

    /// The first entry that is kept, or would be.
    pub(crate) fn first(&self) -> Index {
        self.base.index.next()
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// How far the log is durable here.
    pub(crate) fn stable(&self) -> Index {
        self.unstable.stable()
    }

    /// Whether a snapshot has replaced the log and is not durable yet.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.unstable.has_snapshot()
    }

    pub(crate) fn is_sync_under_way(&self) -> bool {
        self.unstable.is_sync_under_way()
    }

    /// The term of the entry at `index`; `None` if it is compacted or does not exist.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    pub(crate) fn matches(&self, position: LogPosition) -> bool {
        self.term(position.index) == Some(position.term)
    }

    /// Whether a log that ends at `other` has at least what this one has (Raft §5.4.1).
    pub(crate) fn is_covered_by(&self, other: LogPosition) -> bool {
        let own = self.last();
        (own.term, own.index) <= (other.term, other.index)
    }

    /// Whether the commit index stands at an entry of `term`.
    pub(crate) fn has_committed_in(&self, term: Term) -> bool {
        self.term(self.commit) == Some(term)
    }

    /// Appends at the end.
    ///
    /// # Panics
    ///
    /// If an entry leaves a gap or its term falls.
    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.push(entry);
        }
    }

    /// Appends a leader's entries behind `previous`, replaces those that contradict them, and
    /// commits what the leader has committed of them. Returns the last index known to match.
    ///
    /// # Errors
    ///
    /// [`Mismatch`]; nothing was changed then.
    pub(crate) fn append_behind(
        &mut self,
        previous: LogPosition,
        entries: Vec<Entry>,
        commit: Index,
    ) -> Result<Index, Mismatch> {
        if !self.matches(previous) {
            return Err(Mismatch::Previous);
        }
        let last = entries.last().map_or(previous.index, |entry| entry.index);
        // Only a contradiction shortens the log: an old message that repeats a part of what is
        // known must not take away what came after it (Raft §5.3).
        let keeps = mutant("keeps-contradicting-entries");
        let is_known = |entry: &Entry| {
            self.matches(entry.position()) || keeps && self.term(entry.index).is_some()
        };
        let known = entries.iter().take_while(|entry| is_known(entry)).count();
        if let Some(unknown) = entries.get(known) {
            if unknown.index <= self.commit {
                return Err(Mismatch::Committed(unknown.index));
            }
            if unknown.index <= self.last().index {
                reached("raft: entries of a deposed leader are replaced");
                if unknown.index <= self.stable() {
                    reached("raft: entries that are durable are replaced");
                }
            }
            self.truncate(unknown.index);
            self.append(entries.into_iter().skip(known));
        }
        self.commit_to(commit.min(last));
        Ok(last)
    }

    /// Raises the commit index to `index` if that is further.
    ///
    /// # Panics
    ///
    /// If there is no entry at `index`.
    pub(crate) fn commit_to(&mut self, index: Index) {
        let last = self.last().index;
        assert!(index <= last, "commit index {index} beyond the last entry {last}");
        self.commit = self.commit.max(index);
    }

    /// The last position at or before `index` whose term is at most `term`: where logs may still
    /// match if the other one has nothing above `term` there. Term 0 if it is compacted. Walks
    /// back over the entries of later terms.
    pub(crate) fn last_match_candidate(&self, index: Index, term: Term) -> LogPosition {
        let mut at = index;
        while at > Index(0) {
            match self.term(at) {
                Some(own) if term < own => at = at.previous(),
                own => return LogPosition { index: at, term: own.unwrap_or_default() },
            }
        }
        LogPosition::default()
    }

    /// Entries from `from` on, at least one if there is one, else up to `bytes_max`.
    pub(crate) fn entries_from(&self, from: Index, bytes_max: u64) -> Vec<Entry> {
        self.entries_between(from, self.last().index, bytes_max)
    }

    /// Whether a change of the members is committed and not applied.
    pub(crate) fn has_unapplied_change(&self) -> bool {
        self.has_change_between(self.applied, self.commit)
    }

    /// Whether a change of the members stands behind `from`, up to `to`.
    pub(crate) fn has_change_between(&self, from: Index, to: Index) -> bool {
        self.range(from.next(), to).any(|entry| entry.kind != EntryKind::Normal)
    }

    /// Committed, durable entries that were not handed out yet; none while `bytes_max` of them are
    /// being applied.
    pub(crate) fn take_committed(&mut self, bytes_max: u64) -> Vec<Entry> {
        if self.awaits_snapshot() || bytes_max <= self.applying_bytes {
            return Vec::new();
        }
        if self.stable() < self.commit {
            reached("raft: an entry is committed by others before it is durable here");
        }
        let until = if mutant("applies-before-sync") {
            self.commit
        } else {
            self.commit.min(self.stable())
        };
        let budget = bytes_max - self.applying_bytes;
        let entries = self.entries_between(self.applying.next(), until, budget);
        if let Some(last) = entries.last() {
            self.applying = last.index;
            self.applying_bytes += entries.iter().map(entry_bytes).sum::<u64>();
        }
        entries
    }

    /// Entries up to `index` are applied. Returns the bytes of payload among those newly so.
    ///
    /// # Panics
    ///
    /// If `index` is not committed.
    pub(crate) fn applied_to(&mut self, index: Index) -> u64 {
        assert!(index <= self.commit, "applied {index} beyond the commit index {}", self.commit);
        if index <= self.applied {
            return 0;
        }
        let (mut bytes, mut payload) = (0, 0);
        for entry in self.range(self.applied.next(), index) {
            bytes += entry_bytes(entry);
            payload += payload_bytes(entry);
        }
        self.applying_bytes = self.applying_bytes.saturating_sub(bytes);
        self.applied = index;
        self.applying = self.applying.max(index);
        payload
    }

    /// Forgets entries up to and including `to`, but none that is not applied.
    pub(crate) fn compact(&mut self, to: Index) {
        let to = to.min(self.applied);
        if to <= self.base.index || self.awaits_snapshot() {
            return;
        }
        let term = self.term(to).expect("an applied entry behind the base is in memory");
        self.entries.drain(..self.offset(to) + 1);
        self.base = LogPosition { index: to, term };
    }

    /// Replaces everything by a snapshot, which is committed.
    pub(crate) fn restore(&mut self, meta: SnapshotMeta) {
        let position = meta.position;
        assert!(
            self.commit < position.index,
            "snapshot at {position} goes behind the commit index {}",
            self.commit
        );
        self.entries.clear();
        self.base = position;
        self.commit = position.index;
        self.applying = position.index;
        self.applying_bytes = 0;
        self.unstable.restore(meta);
    }

    /// What must be made durable and was not handed out before.
    pub(crate) fn take_unstable(&mut self) -> (Vec<Entry>, Option<SnapshotMeta>) {
        let entries = self.range(self.unstable.handed().next(), self.last().index);
        (entries.cloned().collect(), self.unstable.take_snapshot())
    }

    /// Everything taken by [`Log::take_unstable`] leaves for the disk.
    pub(crate) fn hand_out(
        &mut self,
        snapshot: Option<Index>,
        must_sync: bool,
        ballot: (Term, MemberId),
    ) -> PersistToken {
        self.unstable.hand_out(self.last().index, snapshot, must_sync, ballot)
    }

    /// A batch is durable, and all before it.
    ///
    /// # Panics
    ///
    /// If it is not under way.
    pub(crate) fn persisted(&mut self, token: PersistToken) -> Batch {
        let (batch, snapshot) = self.unstable.persisted(token);
        if let Some(index) = snapshot {
            // From here on the state machine starts from the snapshot.
            self.applied = self.applied.max(index);
        }
        batch
    }

    fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.index == last.index.next(), "entry {} behind {last}", entry.position());
        assert!(last.term <= entry.term, "term falls from {last} to {}", entry.position());
        self.entries.push_back(entry);
    }

    fn truncate(&mut self, from: Index) {
        assert!(self.commit < from, "entry {from} replaced, {} is committed", self.commit);
        if from <= self.last().index {
            self.entries.truncate(self.offset(from));
            self.unstable.truncate(from);
        }
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        if index <= self.base.index {
            return None;
        }
        self.entries.get(self.offset(index))
    }

    /// Where `index`, which is behind the base, stands in `entries`.
    fn offset(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.base.index.0 - 1).unwrap_or(usize::MAX)
    }

    /// Those entries from `from` to `to`, both included, that are in memory.
    fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &Entry> {
        let from = from.max(self.first());
        let to = to.min(self.last().index);
        let range = if from <= to { self.offset(from)..self.offset(to) + 1 } else { 0..0 };
        self.entries.range(range)
    }

    fn entries_between(&self, from: Index, to: Index, bytes_max: u64) -> Vec<Entry> {
        let mut bytes = 0;
        let within = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry_bytes(entry);
            first || bytes <= bytes_max
        };
        self.range(from, to).take_while(within).cloned().collect()
    }
}

/// What an entry takes in a message.
fn entry_bytes(entry: &Entry) -> u64 {
    payload_bytes(entry) + ENTRY_OVERHEAD_BYTES
}

/// What an entry takes in memory, apart from its place.
pub(crate) fn payload_bytes(entry: &Entry) -> u64 {
    u64::try_from(entry.data.len()).expect("a length fits into 64 bits")
}

#[cfg(test)]
mod tests;
