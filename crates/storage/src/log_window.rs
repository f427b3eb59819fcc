//! How much of the log stays in memory for members that lag.
//!
//! A member that needs an entry which is forgotten gets a snapshot of everything, so the newest
//! `--snapshot-catchup-entries` stay, and more for a member that is alive and slow. All of it only
//! within a bound of bytes: large values must not fill the memory of a leader. What a snapshot on its way needs
//! behind it is the member's to keep.

use std::collections::VecDeque;

use base::Index;
use raft::{Entry, PeerState, PeerStatus, Status};

/// Bytes of entries kept behind what is applied.
const BYTES_MAX: u64 = 64 << 20;

/// A member that is alive keeps so many times the usual number of entries from being forgotten.
const LIVE_FACTOR: u64 = 10;

/// Entries are counted in groups of about this many bytes.
const GROUP_BYTES: u64 = 64 << 10;

/// Neighbouring entries.
#[derive(Clone, Copy, Debug)]
struct Group {
    last: Index,
    bytes: u64,
}

/// Knows how large the entries in memory are, and up to where they may be forgotten.
#[derive(Debug)]
pub(crate) struct LogWindow {
    groups: VecDeque<Group>,
    bytes: u64,
    catchup_entries: u64,
    /// What is forgotten is worth a step only from so many entries on.
    step_entries: u64,
}

impl LogWindow {
    pub(crate) fn new(catchup_entries: u64, step_entries: u64, entries: &[Entry]) -> Self {
        let mut window = Self { groups: VecDeque::new(), bytes: 0, catchup_entries, step_entries };
        window.add(entries);
        window
    }

    /// Entries were appended, perhaps in the place of others.
    pub(crate) fn add(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while let Some(group) = self.groups.pop_back_if(|group| first.index <= group.last) {
            self.bytes -= group.bytes;
        }
        for entry in entries {
            let bytes = entry.data.len() as u64;
            self.bytes += bytes;
            match self.groups.back_mut() {
                Some(group) if group.bytes < GROUP_BYTES => {
                    group.last = entry.index;
                    group.bytes += bytes;
                }
                Some(_) | None => self.groups.push_back(Group { last: entry.index, bytes }),
            }
        }
    }

    /// Up to where the log should be forgotten now; `None` if that is not worth it.
    pub(crate) fn target(
        &mut self,
        status: &Status,
        peers: impl Iterator<Item = PeerStatus>,
    ) -> Option<Index> {
        let applied = status.applied.0;
        let usual = applied.saturating_sub(self.catchup_entries);
        let live = peers.filter(|peer| peer.recent_active);
        let live = live.filter(|peer| !matches!(peer.state, PeerState::Snapshot(_)));
        let slowest = live.map(|peer| peer.matched.0).min().unwrap_or(u64::MAX);
        let most = applied.saturating_sub(self.catchup_entries.saturating_mul(LIVE_FACTOR));
        let by_members = usual.min(slowest.max(most));
        // Groups behind what is applied, newest first, as many as fit.
        let mut left = BYTES_MAX;
        let fits = |group: &&Group| {
            left = left.saturating_sub(group.bytes);
            left > 0
        };
        let kept = self.groups.iter().rev().take_while(fits).count();
        let by_bytes = match self.groups.len() - kept {
            0 => 0,
            dropped => self.groups[dropped - 1].last.0.min(applied),
        };
        let target = by_members.max(by_bytes);
        let is_worth_it =
            status.compacted.0 + self.step_entries < target || status.compacted.0 < by_bytes;
        if !is_worth_it {
            return None;
        }
        while let Some(group) = self.groups.pop_front_if(|group| group.last.0 <= target) {
            self.bytes -= group.bytes;
        }
        Some(Index(target))
    }

    /// The whole log was replaced.
    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use base::{LogPosition, MemberId, Term};
    use raft::{EntryKind, RoleKind};

    use super::*;

    fn entries(from: u64, to: u64, bytes: usize) -> Vec<Entry> {
        let entry = |index| Entry {
            kind: EntryKind::Normal,
            term: Term(1),
            index: Index(index),
            data: vec![0; bytes].into(),
        };
        (from..=to).map(entry).collect()
    }

    fn peers(at: &[(u64, bool)]) -> impl Iterator<Item = PeerStatus> {
        at.iter().map(|(matched, recent_active)| PeerStatus {
            matched: Index(*matched),
            next: Index(matched + 1),
            state: PeerState::Replicate,
            is_paused: false,
            in_flight: 0,
            recent_active: *recent_active,
            is_learner: false,
        })
    }

    fn status(applied: u64) -> Status {
        Status {
            id: MemberId(1),
            term: Term(1),
            vote: MemberId(1),
            commit: Index(applied),
            applied: Index(applied),
            last: LogPosition { index: Index(applied), term: Term(1) },
            persisted: Index(applied),
            compacted: Index(0),
            role: RoleKind::Leader,
            leader: Some(MemberId(1)),
            transfer_to: None,
        }
    }

    #[test]
    fn live_members_keep_entries_and_dead_ones_only_the_usual_number() {
        for (at, expected) in [
            (vec![], Some(9_000)),
            (vec![(9_990, true), (9_500, true)], Some(9_000)),
            (vec![(9_990, true), (3_000, true)], Some(3_000)),
            (vec![(9_990, true), (3_000, false)], Some(9_000)),
            (vec![(50, true)], None),
        ] {
            let mut window = LogWindow::new(1000, 100, &entries(1, 10_000, 10));
            let target = window.target(&status(10_000), peers(&at)).map(|index| index.0);
            assert_eq!(target, expected, "{at:?}");
        }
        let mut window = LogWindow::new(100, 100, &entries(1, 10_000, 10));
        let target = window.target(&status(10_000), peers(&[(50, true)]));
        assert_eq!(target, Some(Index(9_000)), "ten times the usual number at most");
    }

    #[test]
    fn bytes_are_bounded_whoever_lags() {
        let mut window = LogWindow::new(5000, 100, &entries(1, 100, 1 << 20));
        let target = window.target(&status(100), peers(&[(1, true)])).unwrap();
        assert!((30..50).contains(&target.0), "{target}");
        assert!(window.bytes <= BYTES_MAX, "{}", window.bytes);
        // Rewritten entries are not counted twice.
        let before = window.bytes;
        window.add(&entries(90, 100, 1 << 20));
        assert_eq!(window.bytes, before);
    }
}
