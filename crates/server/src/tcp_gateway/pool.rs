//! The endpoints of a gateway, and which one is next.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use client::srv::Target;

use super::endpoints::join;

/// One in so many connections goes to records without weight where others have one: they are not
/// to be used much, and not to be forgotten.
const UNWEIGHTED_ONE_IN: usize = 100;

/// Where connections go.
#[derive(Debug)]
pub(super) struct Pool {
    endpoints: Vec<Endpoint>,
    turn: AtomicUsize,
    chance: RandomState,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Endpoint {
    target: Target,
    /// Host and port.
    address: String,
    is_active: AtomicBool,
}

impl Endpoint {
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// Whether connections go there from now on.
    pub(super) fn set_active(&self, is_active: bool) {
        self.is_active.store(is_active, Ordering::Relaxed);
    }
}

impl Pool {
    /// All are active at first.
    pub(super) fn new(targets: Vec<Target>) -> Self {
        let endpoint = |target: Target| {
            let address = join(&target.host, target.port);
            Endpoint { target, address, is_active: AtomicBool::new(true) }
        };
        let endpoints = targets.into_iter().map(endpoint).collect();
        Self { endpoints, turn: AtomicUsize::new(0), chance: RandomState::new() }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(Endpoint::address)
    }

    /// Those that are left out.
    pub(super) fn inactive(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| !endpoint.is_active())
    }

    /// The next one: of the active ones with the best priority by weight, or in turn where none has
    /// a weight. `None` if all are left out.
    pub(super) fn pick(&self) -> Option<&Endpoint> {
        let active = || self.endpoints.iter().filter(|endpoint| endpoint.is_active());
        let best = active().map(|endpoint| endpoint.target.priority).min()?;
        let (weighted, unweighted): (Vec<_>, Vec<_>) = active()
            .filter(|endpoint| endpoint.target.priority == best)
            .partition(|endpoint| endpoint.target.weight > 0);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let rarely = || self.below(UNWEIGHTED_ONE_IN, (turn, "rarely")) == 0;
        if weighted.is_empty() || !unweighted.is_empty() && rarely() {
            return Some(unweighted[turn % unweighted.len()]);
        }
        let weights = || weighted.iter().map(|endpoint| usize::from(endpoint.target.weight));
        let mut chosen = self.below(weights().sum(), (turn, "weight"));
        let position = weights().position(|weight| {
            let is_here = chosen < weight;
            chosen = chosen.saturating_sub(weight);
            is_here
        });
        position.map(|position| weighted[position])
    }

    /// A number below `end`, by chance.
    fn below(&self, end: usize, asked: (usize, &str)) -> usize {
        let chance = self.chance.hash_one(asked);
        let end = u64::try_from(end).expect("a usize has at most 64 bits");
        usize::try_from(chance % end).expect("it is below a usize")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pool(endpoints: &[(&str, u16, u16)]) -> Pool {
        let target = |&(host, priority, weight): &(&str, u16, u16)| {
            let host = host.to_owned();
            Target { priority, host, port: 1, weight }
        };
        Pool::new(endpoints.iter().map(target).collect())
    }

    fn picked(pool: &Pool, times: usize) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            let endpoint = pool.pick().unwrap();
            *counts.entry(endpoint.target.host.as_str()).or_default() += 1;
        }
        counts
    }

    /// SRV-175.
    #[test]
    fn endpoints_without_weights_take_turns() {
        let pool = pool(&[("a", 0, 0), ("b", 0, 0), ("c", 0, 0)]);
        let order: Vec<_> = (0..4).map(|_| pool.pick().unwrap().address()).collect();
        assert_eq!(order, ["a:1", "b:1", "c:1", "a:1"]);
        pool.endpoints[1].set_active(false);
        assert_eq!(picked(&pool, 10), [("a", 5), ("c", 5)].into());
        pool.endpoints.iter().for_each(|endpoint| endpoint.set_active(false));
        assert!(pool.pick().is_none());
        assert_eq!(pool.inactive().count(), 3);
    }

    #[test]
    fn lower_priorities_are_used_first() {
        let pool = pool(&[("far", 20, 50), ("near", 10, 0), ("farther", 30, 0)]);
        assert_eq!(picked(&pool, 20), [("near", 20)].into());
        pool.endpoints[1].set_active(false);
        assert_eq!(picked(&pool, 20), [("far", 20)].into());
    }

    /// Bounds that chance passes in all but one of many millions of runs.
    #[test]
    fn weights_are_shares() {
        let pool = pool(&[("heavy", 0, 300), ("light", 0, 100), ("none", 0, 0)]);
        let counts = picked(&pool, 40_000);
        assert!((27_000..32_000).contains(&counts["heavy"]), "{counts:?}");
        assert!((8_000..12_000).contains(&counts["light"]), "{counts:?}");
        assert!((100..1_000).contains(&counts["none"]), "{counts:?}");
    }
}
