//! What clients saw, for the judges that know nothing of the inside.

use history::{Call, Final, History, Observation, Operation, Outcome, Rule, WatchRecord};
use proto::etcdserverpb as pb;

use crate::judge::Verdict;

/// Nanoseconds in a virtual millisecond.
const NANOSECONDS: u64 = 1_000_000;

/// The calls and watches of a life.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    history: History,
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

    /// What the judges say. With clocks that run at different speeds, leases may end early by a
    /// clock that no member has; [`crate::judge`] knows by how much.
    pub(crate) fn judge(&self, same_clocks: bool) -> Verdict {
        let Err(violations) = history::judge(&self.history) else { return Ok(()) };
        let counts = |rule: Rule| same_clocks || rule != Rule::LeaseEarly;
        let grave: Vec<_> = violations.iter().filter(|found| counts(found.rule)).collect();
        match grave.first() {
            None => Ok(()),
            Some(first) => {
                let more = grave.len() - 1;
                Err(format!("clients saw: {}\nand {more} more", first.story(&self.history)))
            }
        }
    }
}
