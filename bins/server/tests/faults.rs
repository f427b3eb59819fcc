//! Clusters of ours under faults: no acknowledged write is lost, nothing stale is read, watches
//! keep their promises, and members end up equal.
//!
//! The scenarios are those that real etcd passes (testing/conformance). `FAULT_ROUNDS` repeats the
//! faults of each; `FAULT_PAUSE_SECONDS` says how long members are paused.

use std::path::Path;
use std::time::Duration;

use retcd_conformance::cluster::scenarios::{self, Setup};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn pause() -> Duration {
    Duration::from_secs(u64::try_from(number("FAULT_PAUSE_SECONDS", 2)).unwrap_or(2))
}

macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident: |$setup:ident| $run:expr;)*) => {$(
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> anyhow::Result<()> {
            let mut setup = Setup::new(Path::new(OURS));
            setup.rounds = number("FAULT_ROUNDS", 1);
            setup.flags.push("--snapshot-catchup-entries=100".to_owned());
            setup.catch_up_entries = 200;
            let $setup = &setup;
            println!("{:?}", $run.await?.report);
            Ok(())
        }
    )*};
}

scenarios! {
    /// C1.
    no_acknowledged_write_is_lost_by_kills: |setup| scenarios::kills(setup);
    /// C5.
    member_that_dies_again_and_again_while_starting_comes_back: |setup| {
        scenarios::crash_loop(setup)
    };
    /// C9.
    paused_leader_answers_nothing_stale: |setup| scenarios::paused_leader(setup, pause());
    /// C9.
    paused_follower_returns_without_a_new_term: |setup| {
        scenarios::paused_follower(setup, pause())
    };
    /// C10, G16.
    terminated_leader_hands_over_and_ends_well: |setup| scenarios::terminated_leader(setup);
    /// N1.
    isolated_members_refuse_and_return: |setup| scenarios::isolation(setup);
    /// N2.
    one_way_cuts_stop_nobody: |setup| scenarios::one_way_cuts(setup);
    /// N5.
    late_messages_harm_nobody: |setup| {
        scenarios::delays(setup, Duration::from_millis(25), Duration::from_millis(125))
    };
    /// N8.
    watches_survive_a_snapshot: |setup| scenarios::snapshot_after_partition(setup);
    /// N9.
    snapshot_that_breaks_off_is_sent_again: |setup| scenarios::stalled_snapshot(setup);
    /// N10.
    lost_clients_are_told: |setup| scenarios::lost_clients(setup);
    /// M1, M2.
    members_come_and_go_and_crash: |setup| scenarios::membership(setup);
    /// M3.
    removed_member_that_returns_ends: |setup| scenarios::removed_member_returns(setup);
    /// M4.
    lost_member_is_replaced_at_its_addresses: |setup| scenarios::replaced_member(setup);
    /// M5.
    lagging_learner_is_not_promoted: |setup| scenarios::lagging_learner(setup);
    /// M8.
    survivor_becomes_a_cluster_of_one: |setup| scenarios::forced_new_cluster(setup);
    /// M6.
    members_are_added_only_where_the_cluster_can_bear_it: |setup| {
        scenarios::additions_while_down(setup)
    };
}

/// D23.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_of_one_member_loses_nothing() -> anyhow::Result<()> {
    if let Some(verdict) = scenarios::full_disk(&Setup::new(Path::new(OURS))).await? {
        println!("{:?}", verdict.report);
    }
    Ok(())
}
