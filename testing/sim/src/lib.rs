//! A cluster's life from one seed.
//!
//! Whole members of the real code (consensus, log, database, key space, leases, watches) live, fail
//! and recover in one thread and in virtual time. Only time, network and disk are simulated: the
//! clock is a number, the network a queue of messages, the disk a memory image that loses what was
//! not synced and decays (`vfs::memory`), fails on purpose or lies (`vfs::fault`).
//!
//! A life has two parts. In the first, faults of the kinds that the seed chose happen while clients
//! work, and after every step the promises of [`judge`] are checked. In the second, the faults end,
//! and the cluster must find a leader and agree within a bound, to the last byte.
//!
//! Not here: sockets, codecs and threads, which process tests exercise.

mod accounts;
mod admission;
mod ambush;
mod calls;
mod client;
mod config;
mod damage;
mod failpoints;
mod faults;
mod finals;
mod gate;
mod judge;
mod machine;
mod marks;
mod members;
mod model;
mod network;
mod random;
mod recorder;
mod running;
mod saves;
mod second;
mod settle;
mod trace;
mod traffic;
mod versions;
mod vows;
mod watcher;
mod world;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::judge::Verdict;
use crate::world::World;

pub use world::Counts;

/// A life that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub counts: Counts,
    /// Entries that were committed.
    pub entries: u64,
    /// Terms that had a leader.
    pub terms: usize,
    /// Mixed from all that happened: the same seed gives the same number.
    pub trace: u64,
}

/// A promise that was broken, or an assertion of the product.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}, at {millis} ms: {what}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When.
    pub millis: u64,
    /// What.
    pub what: String,
    /// How many faults had been drawn.
    pub faults: u64,
    /// Those that happened, in their order: all but the ones that were left out.
    pub happened: Vec<FaultRecord>,
    /// What happened before, a line for each; of a long life the last lines.
    pub story: Vec<String>,
}

impl Failure {
    /// Story, faults and failure, for a person.
    #[must_use]
    pub fn told(&self) -> String {
        let mut lines = vec!["the story, as far as it is kept:".to_owned()];
        lines.extend(self.story.iter().cloned());
        let (happened, drawn) = (self.happened.len(), self.faults);
        lines.push(format!("the faults that happened, {happened} of {drawn} drawn:"));
        lines.extend(self.happened.iter().map(FaultRecord::to_string));
        lines.push(self.to_string());
        lines.join("\n")
    }
}

/// A fault that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// By which it can be left out.
    pub number: u64,
    /// When.
    pub millis: u64,
    /// What, and to whom.
    pub what: String,
}

impl Display for FaultRecord {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>7} fault {}: {}", self.millis, self.number, self.what)
    }
}

/// A life to be lived.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Decides everything.
    pub seed: u64,
    /// Whether its story is printed while it happens.
    pub tell: bool,
    /// Faults that are left out, by their number.
    pub without: BTreeSet<u64>,
}

/// Lives the life of a seed.
///
/// # Errors
///
/// The first promise that was broken, or what a panic said.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    Life { seed, ..Life::default() }.live()
}

impl Life {
    /// Lives it.
    ///
    /// # Errors
    ///
    /// The first promise that was broken, or what a panic said.
    pub fn live(&self) -> Result<Report, Box<Failure>> {
        // The life before, of this thread, may have ended before it came by the places that it chose.
        failpoints::disarm();
        let mut world = World::new(self);
        // The world outlives a panic: its story and its faults say how it came to that. Nothing goes
        // on in it, so it does not matter in which state it is.
        let lived = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
        match lived.unwrap_or_else(|panic| Err(said(&*panic))) {
            Ok(()) => Ok(Report {
                counts: world.counts,
                entries: world.judge.decided(),
                terms: world.judge.leaders(),
                trace: world.trace.sum(),
            }),
            Err(what) => {
                let (story, faults) = (world.story(), world.faults);
                let happened = std::mem::take(&mut world.happened);
                let (seed, millis) = (self.seed, world.now);
                Err(Box::new(Failure { seed, millis, what, faults, happened, story }))
            }
        }
    }
}

/// Makes the bug of this name in all lives of this thread, or none; nothing without the feature
/// `probes`.
pub fn set_mutant(name: Option<&'static str>) {
    #[cfg(feature = "probes")]
    base::probe::set_mutant(name);
    let _unused_without_the_feature = name;
}

/// How often each reach marker was met in the lives of this thread since this was last asked;
/// nothing without the feature `probes`.
#[must_use]
pub fn take_reached() -> BTreeMap<&'static str, u64> {
    #[cfg(feature = "probes")]
    {
        base::probe::take_reached()
    }
    #[cfg(not(feature = "probes"))]
    {
        BTreeMap::new()
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a text"))
}

fn live(world: &mut World) -> Verdict {
    let config = format!("{:?}", world.config);
    world.note(|| config);
    world.begin()?;
    world.run_until(world.config.fault_millis)?;
    if world.over { world.judge_history() } else { world.settle() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_its_message_was() {
        let panic = |text: Box<dyn Any + Send>| said(&*text);
        assert_eq!(panic(Box::new("a literal")), "panicked: a literal");
        assert_eq!(panic(Box::new("a text of 7".to_owned())), "panicked: a text of 7");
        assert_eq!(panic(Box::new(7)), "panicked: without a text");
    }

    /// Each fault that happened is told once, with the number by which it can be left out.
    #[test]
    fn a_failure_is_told_with_its_story_and_its_faults() {
        let fault = FaultRecord { number: 3, millis: 1500, what: "Kill at 100a1".to_owned() };
        let failure = Failure {
            seed: 9,
            millis: 1700,
            what: "two leaders".to_owned(),
            faults: 4,
            happened: vec![fault],
            story: vec!["   1500 100a1 ends".to_owned()],
        };
        let told = failure.told();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "the story, as far as it is kept:",
                "   1500 100a1 ends",
                "the faults that happened, 1 of 4 drawn:",
                "   1500 fault 3: Kill at 100a1",
                "seed 9, at 1700 ms: two leaders",
            ]
        );
    }
}
