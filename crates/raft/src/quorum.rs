//! Arithmetic of majorities, alone and joint.
//!
//! Pure functions over sets of voters. An empty set agrees with everything, so that the outgoing
//! half of a configuration that is not joint never decides.
//! Source: Raft thesis §4.3; etcd raft: quorum/majority.go, quorum/joint.go.

use std::collections::BTreeSet;

use base::MemberId;

/// What the votes cast so far mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteResult {
    /// A quorum said yes.
    Won,
    /// Open.
    Pending,
    /// A quorum can no longer say yes.
    Lost,
}

/// The greatest value that a majority of `voters` has reached, where one without a value counts as
/// 0. `u64::MAX` without voters.
pub(crate) fn reached(voters: &BTreeSet<MemberId>, value: impl Fn(MemberId) -> Option<u64>) -> u64 {
    let mut values: Vec<u64> = voters.iter().map(|&id| value(id).unwrap_or(0)).collect();
    values.sort_unstable();
    // With n voters, (n - 1) / 2 may be behind.
    match values.len() {
        0 => u64::MAX,
        len => values[(len - 1) / 2],
    }
}

/// What a majority of `voters` says, where `None` is a vote not yet cast.
pub(crate) fn vote_result(
    voters: &BTreeSet<MemberId>,
    vote: impl Fn(MemberId) -> Option<bool>,
) -> VoteResult {
    let needed = if base::probe::mutant("half-is-a-quorum") {
        voters.len().div_ceil(2)
    } else {
        voters.len() / 2 + 1
    };
    let granted = voters.iter().filter(|&&id| vote(id) == Some(true)).count();
    let open = voters.iter().filter(|&&id| vote(id).is_none()).count();
    if voters.is_empty() || needed <= granted {
        VoteResult::Won
    } else if needed <= granted + open {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}

/// What both halves of a joint configuration say together.
pub(crate) fn both(one: VoteResult, other: VoteResult) -> VoteResult {
    match (one, other) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn voters(count: u64) -> BTreeSet<MemberId> {
        (1..=count).map(MemberId).collect()
    }

    /// The definition, by counting.
    fn reached_by_counting(values: &[u64]) -> u64 {
        let quorum = values.len() / 2 + 1;
        let candidates = values.iter().copied().chain([0]);
        candidates
            .filter(|&at| at == 0 || quorum <= values.iter().filter(|&&value| at <= value).count())
            .max()
            .unwrap()
    }

    #[test]
    fn reached_agrees_with_counting() {
        let mut random = Random::new(7);
        for _ in 0..20_000 {
            let count = 1 + random.below(7);
            let values: Vec<u64> = (0..count).map(|_| random.below(6)).collect();
            let value = |id: MemberId| match values[usize::try_from(id.0 - 1).unwrap()] {
                0 => None,
                value => Some(value),
            };
            assert_eq!(reached(&voters(count), value), reached_by_counting(&values), "{values:?}");
        }
    }

    /// Two quorums of the same voters always share one, so two candidates never both win.
    #[test]
    fn two_disjoint_sets_never_both_win() {
        for count in 1..=7_u64 {
            for mask in 0..1_u64 << count {
                let side = |yes: bool| {
                    vote_result(&voters(count), move |id| {
                        Some((mask >> (id.0 - 1) & 1 == 1) == yes)
                    })
                };
                assert!(
                    !(side(true) == VoteResult::Won && side(false) == VoteResult::Won),
                    "{count} voters, {mask:b}"
                );
            }
        }
    }

    #[test]
    fn votes_are_won_pending_or_lost_as_counting_says() {
        for count in 1..=5_u64 {
            for code in 0..3_u64.pow(u32::try_from(count).unwrap()) {
                let digit = |id: MemberId| code / 3_u64.pow(u32::try_from(id.0).unwrap() - 1) % 3;
                let result = vote_result(&voters(count), |id| match digit(id) {
                    0 => None,
                    other => Some(other == 1),
                });
                let of = |wanted| (1..=count).filter(|&id| digit(MemberId(id)) == wanted).count();
                let needed = voters(count).len() / 2 + 1;
                let expected = if needed <= of(1) {
                    VoteResult::Won
                } else if of(1) + of(0) < needed {
                    VoteResult::Lost
                } else {
                    VoteResult::Pending
                };
                assert_eq!(result, expected, "{count} voters, votes {code}");
            }
        }
    }

    #[test]
    fn nobody_agrees_with_everything() {
        assert_eq!(reached(&voters(0), |_| None), u64::MAX);
        assert_eq!(vote_result(&voters(0), |_| None), VoteResult::Won);
    }
}
