//! A cluster's life from one seed.
//!
//! Whole members of the real code (consensus, log, database, key space, leases, watches) live, fail
//! and recover in one thread and in virtual time. Only time, network and disk are simulated: the
//! clock is a number, the network a queue of messages, the disk a memory image that loses what was
//! not synced (`vfs::memory`) or fails on purpose (`vfs::fault`).
//!
//! A life has two parts. In the first, faults of the kinds that the seed chose happen while clients
//! work, and after every step the promises of [`judge`] are checked. In the second, the faults end,
//! and the cluster must find a leader and agree within a bound, to the last byte.
//!
//! Not here: sockets, codecs and threads, which process tests exercise.

mod calls;
mod client;
mod config;
mod faults;
mod judge;
mod machine;
mod model;
mod network;
mod random;
mod recorder;
mod settle;
mod watcher;
mod world;

use crate::judge::Verdict;
use crate::world::World;

pub use world::Counts;

/// A life that went well.
#[derive(Clone, Copy, Debug)]
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
    /// What happened before, a line for each.
    pub story: Vec<String>,
}

/// Lives one life. `tell` prints its story while it happens.
///
/// # Errors
///
/// The first promise that was broken.
pub fn run(seed: u64, tell: bool) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed);
    world.tell = tell;
    let lived = live(&mut world);
    match lived {
        Ok(()) => Ok(Report {
            counts: world.counts,
            entries: world.judge.decided(),
            terms: world.judge.leaders(),
            trace: world.random.next() ^ world.judge.decided(),
        }),
        Err(what) => {
            let story = world.story();
            Err(Box::new(Failure { seed, millis: world.now, what, story }))
        }
    }
}

fn live(world: &mut World) -> Verdict {
    let config = format!("{:?}", world.config);
    world.note(|| config);
    world.begin()?;
    world.run_until(world.config.fault_millis)?;
    world.settle()
}
