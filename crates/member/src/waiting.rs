//! Proposals that wait until they can be made: for a leader, or for the change before them.
//!
//! What waits here was never proposed, so it can be proposed later without being applied twice.
//! Whoever gives up says so (`Input::Forget`), and what it wanted is dropped.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{Proposal, Ticket};

/// Requests that may wait; with a leader they never do for long.
const REQUESTS_MAX: usize = 16 * 1024;

/// Bytes of requests that may wait.
const BYTES_MAX: usize = 64 << 20;

/// Changes of the members that may wait.
const CHANGES_MAX: usize = 64;

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    requests: VecDeque<Proposal>,
    bytes: usize,
    changes: VecDeque<Proposal>,
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

    pub(crate) fn forget(&mut self, tickets: &BTreeSet<Ticket>) {
        self.requests.retain(|proposal| !tickets.contains(&proposal.ticket));
        self.bytes = self.requests.iter().map(|proposal| proposal.request.len()).sum();
        self.changes.retain(|change| !tickets.contains(&change.ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(ticket: u64, len: usize) -> Proposal {
        Proposal { ticket: Ticket(ticket), request: vec![0; len].into() }
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
