//! What clients saw, for the judges that know nothing of the inside.

use base::probe::reached;
use history::search::{Verdict, search_beginning};
use history::{
    Call, Final, History, Observation, Operation, Outcome, Rule, Violation, WatchRecord,
};
use proto::etcdserverpb as pb;
use state::Applied;

use crate::model::answer_of;

/// Nanoseconds in a virtual millisecond.
const NANOSECONDS: u64 = 1_000_000;

/// Calls of which an order is searched, and steps of the search.
const SEARCHED_MAX: usize = 60;
const STEPS_MAX: usize = 20_000;

/// The calls and watches of a life.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    history: History,
    /// The request of each call, as the log has it.
    requests: Vec<u64>,
    /// Each millisecond has room for calls that follow each other.
    last: u64,
}

/// Who asked whom, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) client: usize,
    pub(crate) member: usize,
    pub(crate) session: u64,
    /// From [`Recorder::moment`].
    pub(crate) invoked: u64,
    /// The request's id in the log.
    pub(crate) request: u64,
}

impl Recorder {
    /// A moment behind all that were given out.
    pub(crate) fn moment(&mut self, now_millis: u64) -> u64 {
        self.last = (now_millis * NANOSECONDS).max(self.last + 1);
        self.last
    }

    pub(crate) fn note(&mut self, asked: Asked, call: Call, outcome: Outcome, now_millis: u64) {
        let operation = Operation {
            client: asked.client as u64,
            member: asked.member as u64,
            session: asked.session,
            invoked: asked.invoked,
            returned: self.moment(now_millis),
            call,
            outcome,
        };
        self.history.operations.push(operation);
        self.requests.push(asked.request);
    }

    /// A watch was asked for; its number.
    pub(crate) fn open(
        &mut self,
        client: usize,
        member: usize,
        request: pb::WatchCreateRequest,
        now_millis: u64,
    ) -> usize {
        let opened = self.moment(now_millis);
        let (client, member) = (client as u64, member as u64);
        let record = WatchRecord { client, member, opened, request, ..WatchRecord::default() };
        self.history.watches.push(record);
        self.history.watches.len() - 1
    }

    /// A watch delivered something.
    pub(crate) fn observe(&mut self, watch: usize, response: pb::WatchResponse, now_millis: u64) {
        let received = self.moment(now_millis);
        self.history.watches[watch].observations.push(Observation { received, response });
    }

    /// A watch must have had everything up to a revision.
    pub(crate) fn caught_up(&mut self, watch: usize, revision: i64) {
        self.history.watches[watch].caught_up = Some(revision);
    }

    pub(crate) fn end(&mut self, member: Final) {
        self.history.finals.push(member);
    }

    /// Tells the judges what the log says of calls without an answer, and which leases were ended in
    /// it, so that they need not try anything else as explanations. What was applied counts as
    /// answered at the end, when nobody listened any more.
    pub(crate) fn resolve<'a>(
        &mut self,
        answer: impl Fn(u64) -> Option<&'a Applied>,
        expired: impl Iterator<Item = (i64, i64)>,
        now_millis: u64,
    ) {
        self.history.expired = Some(expired.collect());
        let end = self.moment(now_millis);
        for (operation, request) in self.history.operations.iter_mut().zip(&self.requests) {
            if !operation.is_unknown() {
                continue;
            }
            let outcome = match answer(*request) {
                None => Outcome::Refused("it was never applied".to_owned()),
                Some(Applied::Refused(refusal)) => Outcome::Refused(refusal.to_string()),
                Some(Applied::Done(reply)) => match answer_of(reply.clone()) {
                    Some(said) => Outcome::Answered(said),
                    None => continue,
                },
            };
            (operation.outcome, operation.returned) = (outcome, end);
        }
    }

    /// What the judges say; `false` if they came to no end. With clocks that run at different
    /// speeds, leases may end early by a clock that no member has; [`crate::judge`] knows by how much.
    pub(crate) fn judge(&self, same_clocks: bool) -> Result<bool, String> {
        let Err(violations) = history::judge(&self.history) else { return Ok(true) };
        let grave = grave(&violations, same_clocks);
        match grave.first() {
            None => Ok(!violations.iter().any(is_given_up)),
            Some(first) => {
                let more = grave.len() - 1;
                Err(format!("clients saw: {}\nand {more} more", first.story(&self.history)))
            }
        }
    }

    /// Whether a search that trusts no revision finds an order of the first calls, too: the guard of
    /// the quick judges.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn search(&self) -> Result<(), String> {
        match search_beginning(&self.history, SEARCHED_MAX, STEPS_MAX) {
            (Verdict::Linearizable, found) => {
                if SEARCHED_MAX / 2 <= found {
                    reached("sim: a search finds an order of the first calls");
                }
                Ok(())
            }
            (Verdict::Undecided, _) => Ok(()),
            (Verdict::Impossible, searched) => {
                Err(format!("the first {searched} calls have no order"))
            }
        }
    }
}

/// What no life may have, of what the judges found.
fn grave(violations: &[Violation], same_clocks: bool) -> Vec<&Violation> {
    let has_order = !violations.iter().any(is_given_up);
    let counts = |found: &&Violation| {
        (same_clocks || found.rule != Rule::LeaseEarly)
            && !is_given_up(found)
            && (has_order || stands_alone(found.rule))
    };
    violations.iter().filter(counts).collect()
}

/// Whether the search for the order of all changes met its bound, as it may with very many calls
/// without an answer. The order of the log was judged on the way.
fn is_given_up(violation: &Violation) -> bool {
    violation.text.contains("given up")
}

/// Whether a rule is broken whatever the order of the changes is. Where the search gave up, the others
/// were judged by an order that is only the first guess, and accuse the innocent.
fn stands_alone(rule: Rule) -> bool {
    match rule {
        Rule::RevisionTwice
        | Rule::ChangeInThePast
        | Rule::StaleRead
        | Rule::SessionWentBack
        | Rule::WrongRefusal
        | Rule::ReadBehindCompaction
        | Rule::WatchOutsideItsLife
        | Rule::WatchOrder
        | Rule::WatchCancel
        // The log told which leases ended: none is guessed (`Recorder::resolve`).
        | Rule::LeaseEarly
        | Rule::LeaseAfterDeath
        | Rule::LeaseTwice
        | Rule::MembersDiffer
        | Rule::ForeignCluster => true,
        Rule::RevisionUnexplained
        | Rule::ChangeLost
        | Rule::WrongAnswer
        | Rule::WatchSplit
        | Rule::WatchGap
        | Rule::WatchPhantom
        | Rule::WatchPreviousPair
        | Rule::WatchBookmark
        | Rule::EndDiffers => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: Rule, text: &str) -> Violation {
        Violation { rule, text: text.to_owned(), operations: Vec::new(), watches: Vec::new() }
    }

    fn rules(violations: &[Violation], same_clocks: bool) -> Vec<Rule> {
        grave(violations, same_clocks).iter().map(|found| found.rule).collect()
    }

    #[test]
    fn a_search_that_gave_up_hides_no_broken_promise_that_needs_no_order() {
        let violations = [
            found(Rule::RevisionUnexplained, "revision 9; given up, another explanation may exist"),
            found(Rule::WrongAnswer, "by the order that was guessed"),
            found(Rule::StaleRead, "an answer of revision 3, but revision 7 was known"),
            found(Rule::MembersDiffer, "at revision 9"),
        ];
        assert_eq!(rules(&violations, true), [Rule::StaleRead, Rule::MembersDiffer]);
        assert_eq!(rules(&violations[..2], true), []);
    }

    #[test]
    fn with_the_whole_order_every_rule_counts() {
        let violations = [found(Rule::WrongAnswer, ""), found(Rule::LeaseEarly, "")];
        assert_eq!(rules(&violations, true), [Rule::WrongAnswer, Rule::LeaseEarly]);
    }

    #[test]
    fn where_clocks_differ_nobody_is_accused_of_the_early_end_of_a_lease() {
        assert_eq!(rules(&[found(Rule::LeaseEarly, "")], false), []);
    }
}
