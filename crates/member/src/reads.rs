//! Linearizable reads that wait: first for a quorum, then for apply.

use std::collections::BTreeMap;

use base::Index;

use crate::Ticket;

/// Reads by how far they got. Each batch of tickets is one context of the consensus core.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    next_context: u64,
    unconfirmed: BTreeMap<u64, Vec<Ticket>>,
    confirmed: BTreeMap<Index, Vec<Ticket>>,
}

impl Reads {
    /// Begins a batch; the context to confirm.
    pub(crate) fn begin(&mut self, tickets: Vec<Ticket>) -> u64 {
        self.next_context += 1;
        self.unconfirmed.insert(self.next_context, tickets);
        self.next_context
    }

    /// A quorum confirmed that everything acknowledged before this context is at or below `index`.
    pub(crate) fn confirm(&mut self, context: u64, index: Index) {
        if let Some(tickets) = self.unconfirmed.remove(&context) {
            self.confirmed.entry(index).or_default().extend(tickets);
        }
    }

    /// The reads that `applied` satisfies.
    pub(crate) fn take_applied(&mut self, applied: Index) -> Vec<Ticket> {
        let later = self.confirmed.split_off(&applied.next());
        let ready = std::mem::replace(&mut self.confirmed, later);
        ready.into_values().flatten().collect()
    }

    /// Reads that nobody will confirm any more: the leader they asked is gone.
    pub(crate) fn take_unconfirmed(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.unconfirmed).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_waits_for_its_quorum_and_for_apply() {
        let mut reads = Reads::default();
        let first = reads.begin(vec![Ticket(1), Ticket(2)]);
        let second = reads.begin(vec![Ticket(3)]);
        assert!(reads.take_applied(Index(9)).is_empty());
        reads.confirm(second, Index(5));
        reads.confirm(first, Index(4));
        assert!(reads.take_applied(Index(3)).is_empty());
        assert_eq!(reads.take_applied(Index(4)), [Ticket(1), Ticket(2)]);
        assert_eq!(reads.take_applied(Index(9)), [Ticket(3)]);
    }
}
