//! What a judge found: the rule that does not hold, and who contradicts whom.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use crate::record::History;
use crate::show;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Two changes have the same revision.
    RevisionTwice,
    /// A revision that no request explains: a phantom, or a request that was applied twice.
    RevisionUnexplained,
    /// An acknowledged change is not what happened at its revision.
    ChangeLost,
    /// An answer differs from what the model answers at that point.
    WrongAnswer,
    /// A change got a revision that somebody had seen before the change was asked for.
    ChangeInThePast,
    /// A linearizable answer is older than what somebody knew before the question.
    StaleRead,
    /// A session went back in time.
    SessionWentBack,
    /// A refusal for a compaction or a future revision without a reason.
    WrongRefusal,
    /// History was readable behind a compaction.
    ReadBehindCompaction,
    /// Watch: something came before the confirmation, or after the end.
    WatchOutsideItsLife,
    /// Watch: revisions out of order, or delivered twice.
    WatchOrder,
    /// Watch: a revision was split over several responses.
    WatchSplit,
    /// Watch: an event is missing.
    WatchGap,
    /// Watch: an event that never happened, or that was not asked for.
    WatchPhantom,
    /// Watch: the pair before an event is missing or wrong.
    WatchPreviousPair,
    /// Watch: a header or a mark of progress is wrong.
    WatchBookmark,
    /// Watch: it ended for a compaction that does not concern it.
    WatchCancel,
    /// Lease: it ended before its promised time.
    LeaseEarly,
    /// Lease: it was used after its end.
    LeaseAfterDeath,
    /// Lease: the same id was given twice.
    LeaseTwice,
    /// Members differ at the end.
    MembersDiffer,
    /// The end is older than what was acknowledged, or differs from the model.
    EndDiffers,
    /// Members of different clusters answered.
    ForeignCluster,
}

/// A broken promise and the records that contradict each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// What is wrong.
    pub text: String,
    /// Indices into the history's operations.
    pub operations: Vec<usize>,
    /// Indices into the history's watches.
    pub watches: Vec<usize>,
}

impl Violation {
    pub(crate) fn new(rule: Rule, text: String) -> Self {
        Self { rule, text, operations: Vec::new(), watches: Vec::new() }
    }

    pub(crate) fn operations(mut self, operations: impl IntoIterator<Item = usize>) -> Self {
        let operations: BTreeSet<usize> = self.operations.into_iter().chain(operations).collect();
        self.operations = operations.into_iter().collect();
        self
    }

    pub(crate) fn watch(mut self, watch: usize) -> Self {
        self.watches.push(watch);
        self
    }

    pub(crate) fn witness(self, witness: Option<Witness>) -> Self {
        match witness {
            Some(Witness::Operation(index)) => self.operations([index]),
            Some(Witness::Watch(index)) => self.watch(index),
            None => self,
        }
    }

    /// The violation with its records, for a person.
    #[must_use]
    pub fn story(&self, history: &History) -> String {
        Story { violation: self, history }.to_string()
    }
}

/// Who saw a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// An operation's answer.
    Operation(usize),
    /// A response on a watch.
    Watch(usize),
}

impl Display for Violation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.rule, self.text)
    }
}

struct Story<'a> {
    violation: &'a Violation,
    history: &'a History,
}

impl Display for Story<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.violation)?;
        for index in &self.violation.operations {
            let operation = &self.history.operations[*index];
            write!(formatter, "\n  operation {index}: {}", show::operation(operation))?;
        }
        for index in &self.violation.watches {
            let watch = &self.history.watches[*index];
            write!(formatter, "\n  watch {index}: {}", show::watch(watch))?;
        }
        Ok(())
    }
}
