//! Proposals that wait until they can be made: for a leader, or for the change before them.
//!
//! What waits here was never proposed, so it can be proposed later without being applied twice.
//! Whoever gives up says so (`Input::Forget`), and what it wanted is dropped.
//!
//! What other members passed on waits, too, while the leadership is handed over: dropped, whoever
//! waits for it there would learn nothing before its time is over. How long such a one still waits
//! is not known here, so none is kept for longer than a transfer may take.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use raft::{Body, Message};

use crate::{Proposal, Ticket};

/// Requests that may wait; with a leader they never do for long.
const REQUESTS_MAX: usize = 16 * 1024;

/// Bytes of requests that may wait.
const BYTES_MAX: usize = 64 << 20;

/// Changes of the members that may wait.
const CHANGES_MAX: usize = 64;

/// Messages with proposals of other members that may wait.
const PASSED_MAX: usize = 1024;

/// Bytes of their requests.
const PASSED_BYTES_MAX: usize = 16 << 20;

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    requests: VecDeque<Proposal>,
    bytes: usize,
    changes: VecDeque<Proposal>,
    /// Proposals that other members passed on, and when.
    passed: VecDeque<(u64, Message)>,
    passed_bytes: usize,
}

impl Waiting {
    pub(crate) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Keeps requests as far as there is room; returns whose there is none for.
    pub(crate) fn keep(&mut self, proposals: Vec<Proposal>) -> Vec<Ticket> {
        let mut refused = Vec::new();
        for proposal in proposals {
            let bytes = self.bytes + proposal.request.len();
            if REQUESTS_MAX <= self.requests.len() || BYTES_MAX < bytes {
                refused.push(proposal.ticket);
                continue;
            }
            self.bytes = bytes;
            self.requests.push_back(proposal);
        }
        refused
    }

    /// Keeps a change; `false` if there is no room.
    pub(crate) fn keep_change(&mut self, change: Proposal) -> bool {
        let room = self.changes.len() < CHANGES_MAX;
        if room {
            self.changes.push_back(change);
        }
        room
    }

    /// All requests, which wait no more.
    pub(crate) fn take_requests(&mut self) -> Vec<Proposal> {
        self.bytes = 0;
        std::mem::take(&mut self.requests).into()
    }

    /// The payload of the next change.
    pub(crate) fn next_change(&self) -> Option<Bytes> {
        self.changes.front().map(|change| change.request.clone())
    }

    /// The next change was proposed.
    pub(crate) fn change_proposed(&mut self) {
        self.changes.pop_front();
    }

    /// Keeps what another member passed on, if there is room.
    pub(crate) fn keep_passed(&mut self, now_millis: u64, message: Message) {
        let bytes = self.passed_bytes + request_bytes(&message);
        if self.passed.len() < PASSED_MAX && bytes <= PASSED_BYTES_MAX {
            self.passed_bytes = bytes;
            self.passed.push_back((now_millis, message));
        }
    }

    /// What other members passed on, which waits no more, but for what came before `oldest_millis`.
    pub(crate) fn take_passed(&mut self, oldest_millis: u64) -> impl Iterator<Item = Message> {
        self.passed_bytes = 0;
        let passed = std::mem::take(&mut self.passed).into_iter();
        passed.filter(move |(since, _)| oldest_millis <= *since).map(|(_, message)| message)
    }

    pub(crate) fn forget(&mut self, tickets: &BTreeSet<Ticket>) {
        self.requests.retain(|proposal| !tickets.contains(&proposal.ticket));
        self.bytes = self.requests.iter().map(|proposal| proposal.request.len()).sum();
        self.changes.retain(|change| !tickets.contains(&change.ticket));
    }
}

fn request_bytes(message: &Message) -> usize {
    let Body::Propose(entries) = &message.body else { return 0 };
    entries.iter().map(|entry| entry.data.len()).sum()
}

#[cfg(test)]
mod tests {
    use base::{Index, MemberId, Term};
    use raft::{Entry, EntryKind};

    use super::*;

    fn proposal(ticket: u64, len: usize) -> Proposal {
        Proposal { ticket: Ticket(ticket), request: vec![0; len].into() }
    }

    fn passed(len: usize) -> Message {
        let (kind, term, index) = (EntryKind::Normal, Term(0), Index(0));
        let entry = Entry { kind, term, index, data: vec![0; len].into() };
        let (from, to) = (MemberId(2), MemberId(1));
        Message { from, to, term: Term(0), body: Body::Propose(vec![entry]) }
    }

    #[test]
    fn what_is_passed_on_is_bounded_by_number_bytes_and_time() {
        let mut waiting = Waiting::default();
        waiting.keep_passed(1, passed(PASSED_BYTES_MAX));
        waiting.keep_passed(2, passed(1));
        assert_eq!(waiting.take_passed(1).count(), 1);
        for now in 0..=PASSED_MAX as u64 {
            waiting.keep_passed(now, passed(1));
        }
        assert_eq!(waiting.take_passed(10).count(), PASSED_MAX - 10);
        assert_eq!(waiting.take_passed(0).count(), 0);
    }

    #[test]
    fn what_waits_is_bounded_by_number_and_bytes() {
        let mut waiting = Waiting::default();
        assert!(waiting.keep(vec![proposal(1, BYTES_MAX)]).is_empty());
        assert_eq!(waiting.keep(vec![proposal(2, 1)]), [Ticket(2)]);
        waiting.forget(&[Ticket(1)].into());
        let many = (0..=REQUESTS_MAX as u64).map(|ticket| proposal(ticket, 1)).collect();
        assert_eq!(waiting.keep(many), [Ticket(REQUESTS_MAX as u64)]);
        assert_eq!(waiting.take_requests().len(), REQUESTS_MAX);
        assert!(waiting.keep(vec![proposal(3, BYTES_MAX)]).is_empty());
    }
}
