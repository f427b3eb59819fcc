//! Linearizable reads that wait: first for a quorum, then for apply.
//!
//! Each batch of tickets is one context of the consensus core. Contexts rise, and start where no
//! earlier process of this member can have been, so that a late answer to a question of that
//! process confirms nothing. An answer to a later question is one to every earlier question too:
//! asked again is therefore only the newest.
//!
//! While a question is under way, reads that come wait for its answer and are then asked for
//! together: under load a question is worth a dozen wake-ups all over the cluster, and the more
//! reads share it the better.
//!
//! Source: etcd: server/etcdserver/read/read.go.

use std::collections::{BTreeMap, BTreeSet};

use base::{Index, MemberId};

use crate::Ticket;

/// How long an answer is waited for before the question is asked again, in milliseconds.
const RETRY_MILLIS: u64 = 500;

/// How long reads wait for the answer to the question before theirs: longer than a round takes
/// under load, so that they share the next one, and short enough if a message got lost.
const SHARE_MILLIS: u64 = 20;

/// Tickets that may wait.
const TICKETS_MAX: usize = 65_536;

/// Reads by how far they got.
#[derive(Debug)]
pub(crate) struct Reads {
    next_context: u64,
    unconfirmed: BTreeMap<u64, Batch>,
    /// Not asked for yet: they came while a question was under way.
    behind: Vec<Ticket>,
    confirmed: BTreeMap<Index, Vec<Ticket>>,
    /// Tickets of all three.
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
            behind: Vec::new(),
            confirmed: BTreeMap::new(),
            tickets: 0,
            asked_millis: 0,
        }
    }

    /// Whether so many tickets more may wait.
    pub(crate) fn has_room_for(&self, tickets: usize) -> bool {
        self.tickets + tickets <= TICKETS_MAX
    }

    /// Takes reads on; the context to confirm, unless they are to wait for an answer first.
    pub(crate) fn ask(
        &mut self,
        tickets: Vec<Ticket>,
        leader: Option<MemberId>,
        now_millis: u64,
    ) -> Option<u64> {
        self.tickets += tickets.len();
        self.behind.extend(tickets);
        self.ask_next(leader, now_millis)
    }

    /// Begins a batch of those that wait, unless a question is under way and not late; its context.
    pub(crate) fn ask_next(&mut self, leader: Option<MemberId>, now_millis: u64) -> Option<u64> {
        let is_soon_answered =
            !self.unconfirmed.is_empty() && now_millis < self.asked_millis + SHARE_MILLIS;
        if self.behind.is_empty() || is_soon_answered {
            return None;
        }
        let tickets = std::mem::take(&mut self.behind);
        self.tickets -= tickets.len();
        Some(self.begin(tickets, leader, now_millis))
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

    /// The context to ask for again, if its answer is late, or for the first time, if the callers
    /// that others waited for are gone.
    pub(crate) fn overdue(&mut self, leader: Option<MemberId>, now_millis: u64) -> Option<u64> {
        if let Some(first) = self.ask_next(leader, now_millis) {
            return Some(first);
        }
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
        let asked = self.ask_next(Some(leader), now_millis);
        if asked.is_some() {
            return (failed, asked);
        }
        let newest = self.unconfirmed.last_key_value().map(|(&context, _)| context);
        (failed, newest)
    }

    pub(crate) fn forget(&mut self, forgotten: &BTreeSet<Ticket>) {
        let mut left = 0;
        let unconfirmed = self.unconfirmed.values_mut().map(|batch| &mut batch.tickets);
        let waiting = unconfirmed.chain([&mut self.behind]);
        for tickets in waiting.chain(self.confirmed.values_mut()) {
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
        assert_eq!(reads.overdue(Some(LEADER), 509), None);
        assert_eq!(reads.overdue(Some(LEADER), 510), Some(waits));
        assert_eq!(reads.overdue(Some(LEADER), 511), None);
        reads.forget(&[Ticket(2)].into());
        assert_eq!(reads.overdue(Some(LEADER), 2000), None);
    }

    #[test]
    fn reads_that_come_during_a_question_share_the_next_one() {
        let mut reads = Reads::new(100);
        let first = reads.ask(vec![Ticket(1)], Some(LEADER), 0).unwrap();
        assert_eq!(reads.ask(vec![Ticket(2)], Some(LEADER), 0), None);
        assert_eq!(reads.ask(vec![Ticket(3)], Some(LEADER), 0), None);
        assert_eq!(reads.ask_next(Some(LEADER), 0), None, "the first is under way");
        reads.confirm(first, Index(4));
        assert_eq!(reads.take_applied(Index(9)), [Ticket(1)]);
        let second = reads.ask_next(Some(LEADER), 0).unwrap();
        reads.confirm(second, Index(5));
        assert_eq!(reads.take_applied(Index(9)), [Ticket(2), Ticket(3)]);
        assert_eq!((reads.tickets, reads.ask_next(Some(LEADER), 0)), (0, None));
    }

    #[test]
    fn reads_wait_for_no_answer_that_is_late() {
        let mut reads = Reads::new(100);
        reads.ask(vec![Ticket(1)], Some(LEADER), 0).unwrap();
        assert_eq!(reads.ask(vec![Ticket(2)], Some(LEADER), SHARE_MILLIS - 1), None);
        let next = reads.ask(vec![Ticket(3)], Some(LEADER), SHARE_MILLIS).unwrap();
        reads.confirm(next, Index(4));
        assert_eq!(reads.take_applied(Index(4)), [Ticket(1), Ticket(2), Ticket(3)]);
    }

    #[test]
    fn reads_behind_a_question_that_nobody_answers_are_asked_for_themselves() {
        // Its callers are gone.
        let mut reads = Reads::new(100);
        reads.ask(vec![Ticket(1)], Some(LEADER), 0).unwrap();
        reads.ask(vec![Ticket(2), Ticket(3)], Some(LEADER), 0);
        reads.forget(&[Ticket(1), Ticket(3)].into());
        assert!(reads.overdue(Some(LEADER), 1).is_some());
        assert_eq!(reads.tickets, 1);
        // Its leader is gone: what was never asked for does not fail.
        reads.ask(vec![Ticket(4)], Some(LEADER), 2);
        let other = MemberId(8);
        let (failed, asked) = reads.on_leader(other, 3);
        assert_eq!(failed, [Ticket(2)]);
        reads.confirm(asked.unwrap(), Index(7));
        assert_eq!(reads.take_applied(Index(7)), [Ticket(4)]);
    }
}
