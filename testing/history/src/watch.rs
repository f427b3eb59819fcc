//! The promises of watches: ordered, unique, atomic, without gaps, resumable, with true previous
//! pairs and true marks of progress.
//!
//! Every response moves a cursor: everything at or below it was delivered. What the model has
//! between the old and the new cursor must be exactly what came.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::mvccpb::Event;
use proto::mvccpb::event::EventType;

use crate::chain::Chain;
use crate::reads::Compactions;
use crate::record::{History, Observation, WatchRecord};
use crate::show;
use crate::violation::{Rule, Violation};

pub(crate) fn judge(history: &History, chain: &Chain) -> Vec<Violation> {
    let compactions = Compactions::of(history);
    let mut violations = Vec::new();
    for (index, record) in history.watches.iter().enumerate() {
        let mut watch = Watch {
            record,
            chain,
            compactions: &compactions,
            created: false,
            cancelled: false,
            header: 0,
            cursor: record.request.start_revision - 1,
            // Of a response in fragments.
            fragments: Vec::new(),
        };
        let found = record
            .observations
            .iter()
            .find_map(|observation| watch.step(observation).err())
            .or_else(|| watch.end().err());
        violations.extend(found.map(|found| found.story(index, chain)));
    }
    violations
}

/// What is wrong with a watch.
struct Problem {
    rule: Rule,
    text: String,
    /// Revisions whose requests belong to the story.
    revisions: Vec<i64>,
}

impl Problem {
    fn story(self, watch: usize, chain: &Chain) -> Violation {
        let violation = Violation::new(self.rule, self.text).watch(watch);
        violation.operations(chain.operations(self.revisions))
    }
}

fn problem<T>(rule: Rule, text: String, revisions: &[i64]) -> Result<T, Problem> {
    Err(Problem { rule, text, revisions: revisions.to_vec() })
}

struct Watch<'a> {
    record: &'a WatchRecord,
    chain: &'a Chain,
    compactions: &'a Compactions,
    created: bool,
    cancelled: bool,
    /// The newest header.
    header: i64,
    /// Everything up to here was delivered.
    cursor: i64,
    fragments: Vec<Event>,
}

impl Watch<'_> {
    fn step(&mut self, observation: &Observation) -> Result<(), Problem> {
        let response = &observation.response;
        if self.cancelled {
            let text = "a response came after the end".to_owned();
            return problem(Rule::WatchOutsideItsLife, text, &[]);
        }
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        if header < self.header && !response.canceled {
            let text = format!("the header went from revision {} back to {header}", self.header);
            return problem(Rule::WatchBookmark, text, &[]);
        }
        self.header = self.header.max(header);
        if response.canceled {
            self.cancelled = true;
            return self.on_cancel(observation);
        }
        if response.created {
            return self.on_created(header, response);
        }
        if !self.created {
            let text = "a response came before the confirmation".to_owned();
            return problem(Rule::WatchOutsideItsLife, text, &[]);
        }
        if response.events.is_empty() && self.fragments.is_empty() && !response.fragment {
            return self.on_progress(header);
        }
        if let Some(newest) = response.events.iter().map(revision_of).max()
            && header < newest
        {
            let text = format!("an event of revision {newest} under a header of {header}");
            return problem(Rule::WatchBookmark, text, &[newest]);
        }
        self.fragments.extend(response.events.iter().cloned());
        if response.fragment && self.record.request.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.fragments);
        self.on_events(&events, observation.received)
    }

    fn on_created(&mut self, header: i64, response: &pb::WatchResponse) -> Result<(), Problem> {
        if self.created {
            let text = "it was confirmed twice".to_owned();
            return problem(Rule::WatchOutsideItsLife, text, &[]);
        }
        self.created = true;
        if self.record.request.start_revision == 0 {
            self.cursor = header;
        }
        if response.events.is_empty() {
            return Ok(());
        }
        let text = "the confirmation carries events".to_owned();
        problem(Rule::WatchOutsideItsLife, text, &[])
    }

    fn on_cancel(&mut self, observation: &Observation) -> Result<(), Problem> {
        let compacted = observation.response.compact_revision;
        if compacted == 0 {
            return Ok(());
        }
        let next = self.cursor + 1;
        if compacted <= next {
            let text = format!("it ended for compaction {compacted}, but went on at {next}");
            return problem(Rule::WatchCancel, text, &[]);
        }
        if !self.compactions.may_reach(compacted, observation.received) {
            let text = format!("it ended for compaction {compacted}, which nobody asked for");
            return problem(Rule::WatchCancel, text, &[]);
        }
        Ok(())
    }

    fn on_progress(&mut self, header: i64) -> Result<(), Problem> {
        if let Some(missing) = self.expected(header).first() {
            let text = format!(
                "progress to revision {header} was told, but this never came: {}",
                show::event(missing)
            );
            return problem(Rule::WatchBookmark, text, &[revision_of(missing)]);
        }
        self.cursor = self.cursor.max(header);
        Ok(())
    }

    fn on_events(&mut self, events: &[Event], received: u64) -> Result<(), Problem> {
        let mut last = self.cursor;
        for event in events {
            let revision = revision_of(event);
            if revision <= self.cursor {
                return self.behind(event);
            }
            if revision < last {
                let text = format!("revision {revision} came after {last}");
                return problem(Rule::WatchOrder, text, &[last, revision]);
            }
            last = revision;
        }
        if last <= self.chain.store.revision() {
            self.compare(events, &self.expected(last), received)?;
        }
        self.cursor = last;
        Ok(())
    }

    /// An event at or below the cursor.
    fn behind(&self, event: &Event) -> Result<(), Problem> {
        let revision = revision_of(event);
        let begin = self.record.request.start_revision;
        if begin > 0 && revision < begin {
            let text = format!("an event of revision {revision}, before the begin at {begin}");
            return problem(Rule::WatchPhantom, text, &[revision]);
        }
        let observations = self.record.observations.iter();
        let delivered = observations.flat_map(|observation| &observation.response.events);
        let times = delivered.filter(|delivered| *delivered == event).count();
        if times < 2 && revision == self.cursor {
            let text = format!("revision {revision} came in two responses");
            return problem(Rule::WatchSplit, text, &[revision]);
        }
        let text = format!(
            "{} came when everything up to revision {} had been delivered",
            show::event(event),
            self.cursor
        );
        problem(Rule::WatchOrder, text, &[revision])
    }

    /// What the model has for this watch from behind the cursor up to a revision.
    fn expected(&self, last: i64) -> Vec<&Event> {
        let request = &self.record.request;
        let unwanted = |event: &Event| {
            let filter = match event.r#type() {
                EventType::Put => FilterType::Noput,
                EventType::Delete => FilterType::Nodelete,
            };
            request.filters.contains(&(filter as i32))
        };
        if last <= self.cursor {
            return Vec::new();
        }
        let events = self.chain.store.log(self.cursor + 1..=last).map(|(_, event)| event);
        events
            .filter(|event| event.kv.as_ref().is_some_and(|pair| self.record.wants(&pair.key)))
            .filter(|event| !unwanted(event))
            .collect()
    }

    fn compare(&self, got: &[Event], expected: &[&Event], received: u64) -> Result<(), Problem> {
        let is_same = |got: &Event, expected: &Event| {
            got.kv == expected.kv && got.r#type() == expected.r#type()
        };
        for event in got {
            let revision = revision_of(event);
            let Some(truth) = expected.iter().find(|expected| is_same(event, expected)) else {
                let truth: Vec<Event> = self.chain.store.events(revision).to_vec();
                let text = format!(
                    "it delivered {}; revision {revision} changed {}",
                    show::event(event),
                    show::events(&truth)
                );
                return problem(Rule::WatchPhantom, text, &[revision]);
            };
            self.check_previous(event, truth, received)?;
        }
        for expected in expected {
            let delivered = got.iter().filter(|event| is_same(event, expected)).count();
            let revision = revision_of(expected);
            if delivered == 0 {
                let same_revision = got.iter().any(|event| revision_of(event) == revision);
                let rule = if same_revision { Rule::WatchSplit } else { Rule::WatchGap };
                let text = format!("this never came: {}", show::event(expected));
                return problem(rule, text, &[revision]);
            }
            if delivered > 1 {
                let text = format!("{delivered} times: {}", show::event(expected));
                return problem(Rule::WatchOrder, text, &[revision]);
            }
        }
        Ok(())
    }

    fn check_previous(&self, got: &Event, truth: &Event, received: u64) -> Result<(), Problem> {
        let revision = revision_of(got);
        let wanted = self.record.request.prev_kv;
        let right = match &got.prev_kv {
            Some(_) => wanted && got.prev_kv == truth.prev_kv,
            // What was compacted cannot be told.
            None => {
                !wanted || truth.prev_kv.is_none() || self.compactions.may_reach(revision, received)
            }
        };
        if right {
            return Ok(());
        }
        let text =
            format!("before {} was {:?}, not {:?}", show::event(got), truth.prev_kv, got.prev_kv);
        let before = truth.prev_kv.as_ref().map_or(0, |pair| pair.mod_revision);
        problem(Rule::WatchPreviousPair, text, &[before, revision])
    }

    /// Nothing may be missing that the recorder waited for.
    fn end(&self) -> Result<(), Problem> {
        let Some(awaited) = self.record.caught_up else { return Ok(()) };
        match self.expected(awaited).first() {
            Some(missing) => {
                let text = format!("it never delivered {}", show::event(missing));
                problem(Rule::WatchGap, text, &[revision_of(missing)])
            }
            None => Ok(()),
        }
    }
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |pair| pair.mod_revision)
}
