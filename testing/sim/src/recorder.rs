//! What clients saw, for the judges that know nothing of the inside.

use base::probe::reached;
use history::search::{Verdict, search_beginning};
use history::{Call, Final, History, Observation, Operation, Outcome, Rule, WatchRecord};
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

    /// What the judges say; `false` if they came to no end. With clocks that run at different speeds, leases may end early by a
    /// clock that no member has; [`crate::judge`] knows by how much.
    pub(crate) fn judge(&self, same_clocks: bool) -> Result<bool, String> {
        let Err(violations) = history::judge(&self.history) else { return Ok(true) };
        // With very many calls without an answer the search for an order has a bound; the order of
        // the log was judged on the way.
        if violations.iter().any(|found| found.text.contains("given up")) {
            return Ok(false);
        }
        let counts = |rule: Rule| same_clocks || rule != Rule::LeaseEarly;
        let grave: Vec<_> = violations.iter().filter(|found| counts(found.rule)).collect();
        match grave.first() {
            None => Ok(true),
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
