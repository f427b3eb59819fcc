//! One other member as the leader sees it.
//!
//! Invariants: `matched < next`; what is in flight lies between the two.
//! Source: etcd raft: tracker/progress.go, tracker/inflights.go.

use std::collections::VecDeque;

use base::Index;

/// How far one member's log is known to match, and what is on its way to it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The last entry known to be durable there.
    pub(crate) matched: Index,
    /// The first entry to send.
    pub(crate) next: Index,
    /// The greatest commit index sent.
    sent_commit: Index,
    /// Whether anything was heard since the last check of the quorum.
    pub(crate) recent_active: bool,
    pub(crate) state: ProgressState,
    limits: InFlightLimits,
}

/// How entries are sent.
#[derive(Clone, Debug)]
pub(crate) enum ProgressState {
    /// Where the logs match is unknown: one append, then wait for its answer or a heartbeat's.
    Probe { waiting: bool },
    /// They match up to `next` unless something got lost: send on.
    Replicate { in_flight: InFlight, waiting: bool },
    /// The entries needed are compacted: nothing but the snapshot, which the driver has been asked
    /// for (`None`) or has sent.
    Snapshot { sent: Option<Index> },
}

/// Appends sent and not acknowledged: the last index and the bytes of each.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    sent: VecDeque<(Index, u64)>,
    bytes: u64,
    limits: InFlightLimits,
}

/// When to stop sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Progress {
    pub(crate) fn new(next: Index, limits: InFlightLimits) -> Self {
        assert!(next > Index(0), "index 0 is before the first entry and is never sent");
        Self {
            matched: Index(0),
            next,
            sent_commit: Index(0),
            recent_active: false,
            state: ProgressState::Probe { waiting: false },
            limits,
        }
    }

    /// Whether appends, even empty ones, must wait.
    pub(crate) fn is_paused(&self) -> bool {
        match self.state {
            ProgressState::Probe { waiting } | ProgressState::Replicate { waiting, .. } => waiting,
            ProgressState::Snapshot { .. } => true,
        }
    }

    /// Whether an append may hold entries. An empty one may be sent when it may not, since all that
    /// is in flight may have got lost.
    pub(crate) fn takes_entries(&self) -> bool {
        match &self.state {
            ProgressState::Replicate { in_flight, .. } => !in_flight.is_full(),
            ProgressState::Probe { .. } | ProgressState::Snapshot { .. } => true,
        }
    }

    pub(crate) fn is_probe(&self) -> bool {
        matches!(self.state, ProgressState::Probe { .. })
    }

    pub(crate) fn in_flight(&self) -> usize {
        match &self.state {
            ProgressState::Replicate { in_flight, .. } => in_flight.sent.len(),
            ProgressState::Probe { .. } | ProgressState::Snapshot { .. } => 0,
        }
    }

    /// Finds out anew where the logs match; behind a snapshot that was sent, from there on.
    pub(crate) fn probe(&mut self) {
        let snapshot = match self.state {
            ProgressState::Snapshot { sent } => sent.unwrap_or_default(),
            ProgressState::Probe { .. } | ProgressState::Replicate { .. } => Index(0),
        };
        self.state = ProgressState::Probe { waiting: false };
        self.restart_from(self.matched.max(snapshot).next());
    }

    /// Sends on without waiting for answers.
    pub(crate) fn replicate(&mut self) {
        let in_flight = InFlight { sent: VecDeque::new(), bytes: 0, limits: self.limits };
        self.state = ProgressState::Replicate { in_flight, waiting: false };
        self.next = self.matched.next();
    }

    /// Sends nothing until a snapshot has arrived.
    pub(crate) fn await_snapshot(&mut self) {
        self.state = ProgressState::Snapshot { sent: None };
    }

    /// The snapshot that was awaited is on its way.
    pub(crate) fn snapshot_sent(&mut self, index: Index) {
        self.state = ProgressState::Snapshot { sent: Some(index) };
        self.next = self.matched.max(index).next();
        self.sent_commit = index;
    }

    /// The next append has to wait for an answer.
    pub(crate) fn wait(&mut self) {
        self.set_waiting(true);
    }

    /// Something was heard: an append may be tried.
    pub(crate) fn stop_waiting(&mut self) {
        self.set_waiting(false);
    }

    /// An append with entries up to `last` (`None` if it was empty) and `commit` was sent.
    pub(crate) fn sent(&mut self, last: Option<Index>, bytes: u64, commit: Index) {
        match &mut self.state {
            ProgressState::Replicate { in_flight, waiting } => {
                if let Some(last) = last {
                    self.next = last.next();
                    in_flight.add(last, bytes);
                }
                *waiting = in_flight.is_full();
            }
            ProgressState::Probe { waiting } => *waiting |= last.is_some(),
            ProgressState::Snapshot { .. } => {
                unreachable!("nothing is appended while a snapshot is awaited")
            }
        }
        self.sent_commit = commit;
    }

    pub(crate) fn commit_sent(&mut self, commit: Index) {
        self.sent_commit = commit;
    }

    /// Whether this member was not told of the commit index.
    pub(crate) fn has_commit_news(&self, commit: Index) -> bool {
        self.sent_commit < commit
    }

    /// Whether sending the commit index would tell this member something new that it can use.
    pub(crate) fn needs_commit(&self, commit: Index) -> bool {
        self.sent_commit < commit && self.sent_commit < self.next.previous()
    }

    /// Everything up to `index` is acknowledged; whether that is news.
    pub(crate) fn acknowledge(&mut self, index: Index) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.stop_waiting();
        true
    }

    /// What is in flight up to `index` has arrived.
    pub(crate) fn free(&mut self, index: Index) {
        if let ProgressState::Replicate { in_flight, .. } = &mut self.state {
            in_flight.free(index);
        }
    }

    /// The append behind `rejected` was refused and the logs match at `hint` at best. Whether that
    /// is news; if so, the next append goes further back.
    pub(crate) fn reject(&mut self, rejected: Index, hint: Index) -> bool {
        match self.state {
            // An old answer: it was accepted in the meantime.
            ProgressState::Replicate { .. } if rejected <= self.matched => return false,
            ProgressState::Replicate { .. } => self.probe(),
            // Not the answer to the last probe.
            _ if self.next.previous() != rejected => return false,
            ProgressState::Probe { .. } | ProgressState::Snapshot { .. } => {
                let next = rejected.min(hint.next()).max(self.matched.next());
                if next == self.next {
                    // It rejects what it acknowledged. Asked again at once, it would at once answer
                    // the same; the next heartbeat asks, and tells it what it has lost.
                    return false;
                }
                self.restart_from(next);
                self.stop_waiting();
            }
        }
        true
    }

    fn restart_from(&mut self, next: Index) {
        assert!(self.matched < next, "next {next} not behind the match {}", self.matched);
        self.next = next;
        self.sent_commit = self.sent_commit.min(next.previous());
    }

    fn set_waiting(&mut self, wait: bool) {
        match &mut self.state {
            ProgressState::Probe { waiting } | ProgressState::Replicate { waiting, .. } => {
                *waiting = wait;
            }
            ProgressState::Snapshot { .. } => {}
        }
    }
}

impl InFlight {
    fn is_full(&self) -> bool {
        self.limits.messages <= self.sent.len() || self.limits.bytes <= self.bytes
    }

    fn add(&mut self, last: Index, bytes: u64) {
        assert!(!self.is_full(), "{} appends in flight already", self.sent.len());
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free(&mut self, to: Index) {
        while let Some(&(last, bytes)) = self.sent.front()
            && last <= to
        {
            self.sent.pop_front();
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: InFlightLimits = InFlightLimits { messages: 2, bytes: 100 };

    fn replicating() -> Progress {
        let mut progress = Progress::new(Index(5), LIMITS);
        progress.acknowledge(Index(4));
        progress.replicate();
        progress
    }

    #[test]
    fn a_probe_waits_for_its_answer() {
        let mut progress = Progress::new(Index(5), LIMITS);
        progress.sent(Some(Index(5)), 1, Index(0));
        assert!(progress.is_paused());
        assert!(progress.reject(Index(4), Index(2)));
        assert!(!progress.is_paused());
        assert_eq!(progress.next, Index(3));
        assert!(!progress.reject(Index(4), Index(2)), "an old answer");
    }

    #[test]
    fn appends_stop_when_enough_are_in_flight() {
        let mut progress = replicating();
        progress.sent(Some(Index(5)), 1, Index(0));
        progress.sent(Some(Index(6)), 1, Index(0));
        assert!(progress.is_paused());
        progress.acknowledge(Index(5));
        progress.free(Index(5));
        assert!(progress.takes_entries());
        progress.sent(Some(Index(7)), 100, Index(0));
        assert_eq!((progress.in_flight(), progress.takes_entries()), (2, false));
    }

    #[test]
    fn a_late_rejection_of_what_was_accepted_is_ignored() {
        let mut progress = replicating();
        assert!(!progress.reject(Index(3), Index(1)));
        assert!(progress.reject(Index(5), Index(1)));
        assert!(progress.is_probe());
        assert_eq!(progress.next, Index(5));
    }

    /// D31.
    #[test]
    fn who_rejects_what_it_acknowledged_is_not_asked_again_at_once() {
        let mut progress = replicating();
        let matched = progress.matched;
        assert!(progress.reject(matched.next(), Index(0)));
        assert!(progress.is_probe());
        assert!(!progress.reject(matched, Index(0)));
    }

    #[test]
    fn after_a_snapshot_probing_goes_on_behind_it() {
        let mut progress = Progress::new(Index(1), LIMITS);
        progress.await_snapshot();
        assert!(progress.is_paused());
        progress.snapshot_sent(Index(9));
        progress.probe();
        assert_eq!(progress.next, Index(10));
    }
}
