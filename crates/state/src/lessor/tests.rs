//! The clock by itself, and the wheel against a list.

use proptest::prelude::*;

use super::*;

const ONE: LeaseId = LeaseId(1);

fn term(id: i64, granted: i64, remaining: i64) -> LeaseTerm {
    LeaseTerm { id: LeaseId(id), granted_ttl_seconds: granted, remaining_ttl_seconds: remaining }
}

fn leading(now: u64) -> Lessor {
    let mut lessor = Lessor::new();
    lessor.promote(now, 0, &[]);
    lessor
}

/// L-10.
#[test]
fn only_a_leader_has_a_clock() {
    let mut lessor = Lessor::new();
    lessor.grant(ONE, 5, 0);
    assert_eq!(lessor.renew(ONE, 0), Err(RenewError::NotLeader));
    assert_eq!(lessor.expired(1_000_000, 10), []);
    lessor.promote(0, 0, &[term(1, 5, 5)]);
    assert!(lessor.is_leading());
    lessor.demote();
    assert_eq!(lessor.expired(1_000_000, 10), []);
    assert_eq!(lessor.remaining(ONE, 0), None);
}

/// L-10: G6, the last leader's renewals count.
#[test]
fn a_new_leader_gives_the_whole_time_and_the_election_timeout() {
    let mut lessor = Lessor::new();
    lessor.promote(10_000, 1_000, &[term(1, 5, 5), term(2, 600, 30)]);
    assert_eq!(lessor.remaining(ONE, 10_000), Some(6));
    assert_eq!(lessor.remaining(LeaseId(2), 10_000), Some(31));
    assert_eq!(lessor.expired(15_999, 10), []);
    assert_eq!(lessor.expired(16_000, 10), [ONE]);
}

/// L-06.
#[test]
fn a_renewal_gives_the_granted_time_and_an_ended_lease_has_none() {
    let mut lessor = leading(0);
    lessor.grant(ONE, 5, 0);
    let renewal = Renewal { ttl_seconds: 5, clear_checkpoint: None };
    assert_eq!(lessor.renew(ONE, 4_999), Ok(renewal));
    assert_eq!(lessor.remaining(ONE, 5_000), Some(4));
    assert_eq!(lessor.expired(9_998, 10), []);
    assert_eq!(lessor.renew(ONE, 9_999), Err(RenewError::Ended));
    assert_eq!(lessor.remaining(ONE, 9_999), Some(0));
    assert_eq!(lessor.expired(10_000, 10), [ONE]);
    lessor.revoke(ONE);
    assert_eq!(lessor.renew(ONE, 10_000), Err(RenewError::NotFound));
}

/// L-11.
#[test]
fn a_lost_revoke_is_asked_for_again() {
    let mut lessor = leading(0);
    for id in 1..=3 {
        lessor.grant(LeaseId(id), id, 0);
    }
    assert_eq!(lessor.expired(3_000, 2), [LeaseId(1), LeaseId(2)]);
    assert_eq!(lessor.expired(3_000, 2), [LeaseId(3)]);
    assert_eq!(lessor.expired(3_000, 2), []);
    lessor.revoke(LeaseId(2));
    assert_eq!(lessor.expired(6_000, 9), [LeaseId(1), LeaseId(3)]);
}

/// L-12.
#[test]
fn long_leases_are_checkpointed_once_per_interval() {
    let mut lessor = leading(0);
    lessor.grant(LeaseId(1), 1000, 0);
    lessor.grant(LeaseId(2), 300, 0);
    assert_eq!(lessor.checkpoints_due(299_999, 300_000, 10), []);
    assert_eq!(lessor.checkpoints_due(300_001, 300_000, 10), [(LeaseId(1), 700)]);
    assert_eq!(lessor.checkpoints_due(300_001, 300_000, 10), []);
    // A renewal just now leaves nothing to tell.
    let number = lessor.renew(LeaseId(1), 600_001).unwrap().clear_checkpoint.unwrap();
    lessor.checkpoint_cleared(LeaseId(1), number);
    assert_eq!(lessor.checkpoints_due(600_001, 300_000, 10), []);
    assert_eq!(lessor.renew(LeaseId(1), 600_001).unwrap().clear_checkpoint, None);
}

/// G6: what members know of the rest is cleared before the owner is told of the whole time, and a
/// checkpoint that was sent meanwhile counts.
#[test]
fn clearing_a_checkpoint_does_not_hide_a_later_one() {
    let mut lessor = Lessor::new();
    lessor.promote(0, 0, &[term(1, 1000, 400)]);
    let first = lessor.renew(ONE, 0).unwrap().clear_checkpoint.unwrap();
    assert_eq!(lessor.checkpoints_due(300_000, 300_000, 10), [(ONE, 700)]);
    lessor.checkpoint_cleared(ONE, first);
    let second = lessor.renew(ONE, 300_000).unwrap().clear_checkpoint.unwrap();
    assert_ne!(first, second);
    lessor.checkpoint_cleared(ONE, second);
    assert_eq!(lessor.renew(ONE, 300_000).unwrap().clear_checkpoint, None);
}

/// L-09.
#[test]
fn leases_are_listed_by_their_end() {
    let mut lessor = leading(0);
    for (id, ttl) in [(1, 30), (2, 10), (3, 20)] {
        lessor.grant(LeaseId(id), ttl, 0);
    }
    assert_eq!(lessor.by_expiry(), [LeaseId(2), LeaseId(3), LeaseId(1)]);
    lessor.renew(LeaseId(2), 9_000).unwrap();
    lessor.renew(LeaseId(3), 15_000).unwrap();
    assert_eq!(lessor.by_expiry(), [LeaseId(2), LeaseId(1), LeaseId(3)]);
}

#[test]
fn after_an_election_leases_do_not_end_all_at_once() {
    let mut lessor = Lessor::new();
    let terms: Vec<_> = (1..=3000).map(|id| term(id, 10, 10)).collect();
    lessor.promote(0, 1000, &terms);
    let mut ended = 0;
    for second in 0..15 {
        let now = lessor.expired(11_000 + second * 1000, usize::MAX).len();
        assert!(now <= EXPIRIES_PER_SECOND_MAX, "{now} leases ended in second {second}");
        for id in lessor.by_expiry() {
            if lessor.remaining(id, 11_000 + second * 1000) == Some(0) {
                lessor.revoke(id);
            }
        }
        ended += now;
    }
    assert_eq!(ended, 3000);
}

#[derive(Clone, Debug)]
enum Step {
    Grant(i64, i64),
    Revoke(i64),
    Renew(i64),
    Pass(u64),
    Expire(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1_i64..6;
    prop_oneof![
        (id.clone(), prop_oneof![1_i64..20, 300_i64..1200])
            .prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        id.clone().prop_map(Step::Revoke),
        id.prop_map(Step::Renew),
        prop_oneof![0_u64..5_000, 0_u64..900_000].prop_map(Step::Pass),
        (1_usize..4).prop_map(Step::Expire),
    ]
}

proptest! {
    /// The wheel against a list of deadlines.
    #[test]
    fn the_wheel_ends_leases_when_a_list_does(
        start in 0_u64..1_000_000,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut now = start;
        let mut lessor = leading(now);
        // Lease, granted seconds, deadline, when to name it again.
        let mut list: BTreeMap<i64, (i64, u64, u64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Grant(id, ttl) => {
                    lessor.grant(LeaseId(id), ttl, now);
                    let deadline = after(now, ttl);
                    list.insert(id, (ttl, deadline, deadline));
                }
                Step::Revoke(id) => {
                    lessor.revoke(LeaseId(id));
                    list.remove(&id);
                }
                Step::Renew(id) => {
                    let renewed = lessor.renew(LeaseId(id), now).map(|renewal| renewal.ttl_seconds);
                    let expected = match list.get_mut(&id) {
                        None => Err(RenewError::NotFound),
                        Some((_, deadline, _)) if *deadline <= now => Err(RenewError::Ended),
                        Some((ttl, deadline, again)) => {
                            *deadline = after(now, *ttl);
                            *again = *deadline;
                            Ok(*ttl)
                        }
                    };
                    prop_assert_eq!(renewed, expected);
                }
                // Whole ticks: between them the wheel may be a tick late.
                Step::Pass(milliseconds) => {
                    now = (now + milliseconds).next_multiple_of(TICK_MILLISECONDS);
                }
                Step::Expire(max) => {
                    now = now.next_multiple_of(TICK_MILLISECONDS);
                    let expired = lessor.expired(now, max);
                    let mut due: Vec<_> = list
                        .iter()
                        .filter(|(_, (_, _, again))| again.next_multiple_of(TICK_MILLISECONDS) <= now)
                        .map(|(id, (_, _, again))| (*again, LeaseId(*id)))
                        .collect();
                    due.sort_unstable();
                    due.truncate(max);
                    let due: Vec<_> = due.into_iter().map(|(_, id)| id).collect();
                    prop_assert_eq!(&expired, &due);
                    for id in expired {
                        list.get_mut(&id.0).unwrap().2 = now + RETRY_MILLISECONDS;
                    }
                }
            }
            for (id, (_, deadline, _)) in &list {
                let remaining = seconds(deadline.saturating_sub(now));
                prop_assert_eq!(lessor.remaining(LeaseId(*id), now), Some(remaining));
            }
        }
    }
}
