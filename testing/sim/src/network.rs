//! The network: which links are up, and how long a message takes.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::random::Random;

/// Links between machines, by number.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cut: BTreeSet<(usize, usize)>,
    /// Milliseconds that links take more.
    slow: BTreeMap<(usize, usize), u64>,
    /// How often a connection was lost with all that was on its way.
    resets: BTreeMap<(usize, usize), u64>,
}

impl Network {
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }

    /// The connection that a link has now, by number.
    pub(crate) fn connection(&self, from: usize, to: usize) -> u64 {
        self.resets.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Both connections between two machines are lost, and others made.
    pub(crate) fn reset(&mut self, one: usize, other: usize) {
        for link in [(one, other), (other, one)] {
            *self.resets.entry(link).or_insert(0) += 1;
        }
    }

    /// Makes one direction of one link slow.
    pub(crate) fn slow_down(&mut self, from: usize, to: usize, millis: u64) {
        self.slow.insert((from, to), millis);
    }

    pub(crate) fn extra_millis(&self, from: usize, to: usize) -> u64 {
        self.slow.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Two machines do not hear each other, but all others hear both.
    pub(crate) fn bridge(&mut self, one: usize, other: usize) {
        self.cut.insert((one, other));
        self.cut.insert((other, one));
    }

    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub(crate) fn isolate(&mut self, one: usize, machines: usize) {
        for other in (0..machines).filter(|&other| other != one) {
            self.cut.insert((one, other));
            self.cut.insert((other, one));
        }
    }

    /// Cuts every link between the two parts that chance makes.
    pub(crate) fn split(&mut self, random: &mut Random, machines: usize) {
        let left: Vec<bool> = (0..machines).map(|_| random.one_in(2)).collect();
        for from in 0..machines {
            for to in 0..machines {
                if left[from] != left[to] {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// How long each copy of a message takes; none if it is lost.
    pub(crate) fn delays(random: &mut Random, config: &Config, faulty: bool) -> Vec<u64> {
        let delay = |random: &mut Random| {
            let usual = random.below(config.latency_millis + 1);
            if faulty && random.one_in(config.outliers) {
                usual + random.below(2000)
            } else {
                usual
            }
        };
        let first = delay(random);
        if faulty && config.loss != 0 && random.one_in(config.loss) {
            return Vec::new();
        }
        if faulty && config.duplication != 0 && random.one_in(config.duplication) {
            return vec![first, delay(random)];
        }
        vec![first]
    }
}
