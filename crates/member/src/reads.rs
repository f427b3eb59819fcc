//! Linearizable reads that wait: first for a quorum, then for apply.
//!
//! Each batch of tickets is one context of the consensus core. Contexts rise, and start where no
//! earlier process of this member can have been, so that a late answer to a question of that
//! process confirms nothing. An answer to a later question is one to every earlier question too:
//! asked again is therefore only the newest.
//!
//! Source: etcd: server/etcdserver/read/read.go.

use std::collections::{BTreeMap, BTreeSet};

use base::{Index, MemberId};

use crate::Ticket;

/// How long an answer is waited for before the question is asked again, in milliseconds.
const RETRY_MILLIS: u64 = 500;

/// Tickets that may wait.
const TICKETS_MAX: usize = 65_536;

/// Reads by how far they got.
#[derive(Debug)]
pub(crate) struct Reads {
    next_context: u64,
    unconfirmed: BTreeMap<u64, Batch>,
    confirmed: BTreeMap<Index, Vec<Ticket>>,
    /// Tickets of both.
    tickets: usize,
    /// When the newest context was asked for, last.
    asked_millis: u64,
}

/// Reads that were asked for together.
#[derive(Debug)]
struct Batch {
    tickets: Vec<Ticket>,
    begun_millis: u64,
    /// Whom it was sent to.
    leader: Option<MemberId>,
    /// Asked by the member itself, which wants to know whether it leads.
    is_own: bool,
}

impl Reads {
    /// `first_context` is above all that this member ever used.
    pub(crate) fn new(first_context: u64) -> Self {
        Self {
            next_context: first_context,
            unconfirmed: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            tickets: 0,
            asked_millis: 0,
        }
    }

    /// Whether so many tickets more may wait.
    pub(crate) fn has_room_for(&self, tickets: usize) -> bool {
        self.tickets + tickets <= TICKETS_MAX
    }

    /// Begins a batch, without tickets for the member itself; the context to confirm.
    pub(crate) fn begin(
        &mut self,
        tickets: Vec<Ticket>,
        leader: Option<MemberId>,
        now_millis: u64,
    ) -> u64 {
        let context = self.next_context;
        self.next_context += 1;
        self.asked_millis = now_millis;
        self.tickets += tickets.len();
        let is_own = tickets.is_empty();
        let batch = Batch { tickets, begun_millis: now_millis, leader, is_own };
        self.unconfirmed.insert(context, batch);
        context
    }

    /// The context to ask for again, if its answer is late.
    pub(crate) fn overdue(&mut self, now_millis: u64) -> Option<u64> {
        let (&newest, _) = self.unconfirmed.last_key_value()?;
        if now_millis < self.asked_millis + RETRY_MILLIS {
            return None;
        }
        self.asked_millis = now_millis;
        base::probe::reached("member: a read is asked for again");
        Some(newest)
    }

    /// A quorum confirmed that everything acknowledged before this context is at or below `index`.
    /// Returns when the newest batch that this answers was begun.
    pub(crate) fn confirm(&mut self, context: u64, index: Index) -> Option<u64> {
        if self.next_context <= context {
            return None;
        }
        let later = self.unconfirmed.split_off(&(context + 1));
        let answered = std::mem::replace(&mut self.unconfirmed, later);
        let begun = answered.values().map(|batch| batch.begun_millis).max();
        let tickets: Vec<Ticket> = answered.into_values().flat_map(|batch| batch.tickets).collect();
        if !tickets.is_empty() {
            self.confirmed.entry(index).or_default().extend(tickets);
        }
        begun
    }

    /// The reads that `applied` satisfies.
    pub(crate) fn take_applied(&mut self, applied: Index) -> Vec<Ticket> {
        if self.confirmed.is_empty() {
            return Vec::new();
        }
        let later = self.confirmed.split_off(&applied.next());
        let ready = std::mem::replace(&mut self.confirmed, later);
        let tickets: Vec<Ticket> = ready.into_values().flatten().collect();
        self.tickets -= tickets.len();
        tickets
    }

    /// `leader` leads now. Returns the reads that another leader was asked for, which fail, and the
    /// context to ask this one for, if reads have waited for a leader.
    pub(crate) fn on_leader(
        &mut self,
        leader: MemberId,
        now_millis: u64,
    ) -> (Vec<Ticket>, Option<u64>) {
        let mut failed = Vec::new();
        self.unconfirmed.retain(|_, batch| {
            let keep = batch.leader.is_none();
            if keep {
                base::probe::reached("member: a read has waited for a leader");
                batch.leader = Some(leader);
            } else {
                base::probe::reached("member: a read fails because the leader changed");
                failed.append(&mut batch.tickets);
            }
            keep
        });
        self.tickets -= failed.len();
        self.asked_millis = now_millis;
        let newest = self.unconfirmed.last_key_value().map(|(&context, _)| context);
        (failed, newest)
    }

    pub(crate) fn forget(&mut self, forgotten: &BTreeSet<Ticket>) {
        let mut left = 0;
        let unconfirmed = self.unconfirmed.values_mut().map(|batch| &mut batch.tickets);
        for tickets in unconfirmed.chain(self.confirmed.values_mut()) {
            tickets.retain(|ticket| !forgotten.contains(ticket));
            left += tickets.len();
        }
        self.tickets = left;
        // Nobody asks again for those that nobody waits for.
        self.unconfirmed.retain(|_, batch| batch.is_own || !batch.tickets.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: MemberId = MemberId(7);

    fn begin(reads: &mut Reads, tickets: &[u64]) -> u64 {
        reads.begin(tickets.iter().copied().map(Ticket).collect(), Some(LEADER), 0)
    }

    #[test]
    fn a_read_waits_for_its_quorum_and_for_apply() {
        let mut reads = Reads::new(100);
        let first = begin(&mut reads, &[1, 2]);
        let second = begin(&mut reads, &[3]);
        assert!(reads.take_applied(Index(9)).is_empty());
        reads.confirm(first, Index(4));
        reads.confirm(second, Index(5));
        assert!(reads.take_applied(Index(3)).is_empty());
        assert_eq!(reads.take_applied(Index(4)), [Ticket(1), Ticket(2)]);
        assert_eq!(reads.take_applied(Index(9)), [Ticket(3)]);
        assert_eq!(reads.tickets, 0);
    }

    #[test]
    fn a_later_answer_serves_earlier_questions_and_foreign_ones_none() {
        let mut reads = Reads::new(100);
        begin(&mut reads, &[1]);
        let second = begin(&mut reads, &[2]);
        assert_eq!(reads.confirm(second + 1, Index(1)), None);
        assert_eq!(reads.confirm(99, Index(1)), None);
        assert!(reads.take_applied(Index(9)).is_empty());
        assert_eq!(reads.confirm(second, Index(5)), Some(0));
        assert_eq!(reads.take_applied(Index(5)), [Ticket(1), Ticket(2)]);
    }

    #[test]
    fn only_what_another_leader_was_asked_for_fails() {
        let mut reads = Reads::new(100);
        begin(&mut reads, &[1]);
        let waits = reads.begin(vec![Ticket(2)], None, 0);
        assert_eq!(reads.on_leader(LEADER, 10), (vec![Ticket(1)], Some(waits)));
        assert_eq!(reads.overdue(509), None);
        assert_eq!(reads.overdue(510), Some(waits));
        assert_eq!(reads.overdue(511), None);
        reads.forget(&[Ticket(2)].into());
        assert_eq!(reads.overdue(2000), None);
    }
}
