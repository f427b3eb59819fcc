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
mod model;
mod network;
mod random;
mod recorder;
mod running;
mod second;
mod settle;
mod trace;
mod traffic;
mod versions;
mod vows;
mod watcher;
mod world;

use std::collections::{BTreeMap, BTreeSet};

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

/// A promise that was broken.
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
    /// What happened before, a line for each.
    pub story: Vec<String>,
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
/// The first promise that was broken.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    Life { seed, ..Life::default() }.live()
}

impl Life {
    /// Lives it.
    ///
    /// # Errors
    ///
    /// The first promise that was broken.
    pub fn live(&self) -> Result<Report, Box<Failure>> {
        let mut world = World::new(self);
        match live(&mut world) {
            Ok(()) => Ok(Report {
                counts: world.counts,
                entries: world.judge.decided(),
                terms: world.judge.leaders(),
                trace: world.trace.sum(),
            }),
            Err(what) => {
                let (story, faults) = (world.story(), world.faults);
                let (seed, millis) = (self.seed, world.now);
                Err(Box::new(Failure { seed, millis, what, faults, story }))
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

fn live(world: &mut World) -> Verdict {
    let config = format!("{:?}", world.config);
    world.note(|| config);
    world.begin()?;
    world.run_until(world.config.fault_millis)?;
    if world.over { world.judge_history() } else { world.settle() }
}
