//! The network: which links are up, and how long a message takes.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::random::Random;

/// Links between machines, by number.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
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
