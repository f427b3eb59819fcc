//! The cluster harness against the real thing: etcd under faults passes every judge, so that a
//! scenario that ours fails is our fault.
//!
//! This checks the scenarios, not our server, which runs them in `bins/server/tests/faults.rs`; what
//! etcd loses now and then must not stop us. So it runs only where `CHECK_HARNESS` is set: after a
//! change of the harness. `FAULT_ROUNDS` says how often the faults of each scenario are repeated.

#![allow(clippy::print_stdout, reason = "a skipped test says so on the output of the test run")]

use std::path::PathBuf;
use std::time::Duration;

use retcd_conformance::cluster::scenarios::{self, Setup};
use retcd_conformance::cluster::{LoadOptions, takeover};
use retcd_conformance::real_etcd;

/// The folder of etcd's programs, if the harness is to be checked.
fn etcd() -> Option<PathBuf> {
    if std::env::var_os("CHECK_HARNESS").is_none() {
        println!("skipped: CHECK_HARNESS is not set");
        return None;
    }
    real_etcd("3.5")
}

macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident: |$setup:ident| $run:expr;)*) => {$(
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> anyhow::Result<()> {
            let Some(folder) = etcd() else { return Ok(()) };
            let program = folder.join("etcd");
            let mut setup = Setup::new(&program);
            let rounds = std::env::var("FAULT_ROUNDS").ok().and_then(|text| text.parse().ok());
            setup.rounds = rounds.unwrap_or(1);
            let $setup = &setup;
            println!("{:?}", $run.await?.report);
            Ok(())
        }
    )*};
}

scenarios! {
    kills: |setup| scenarios::kills(setup);
    crash_loop: |setup| scenarios::crash_loop(setup);
    paused_leader: |setup| scenarios::paused_leader(setup, Duration::from_secs(1));
    paused_follower: |setup| scenarios::paused_follower(setup, Duration::from_secs(3));
    terminated_leader: |setup| scenarios::terminated_leader(setup);
    isolation: |setup| scenarios::isolation(setup);
    one_way_cuts: |setup| scenarios::one_way_cuts(setup);
    delays: |setup| {
        scenarios::delays(setup, Duration::from_millis(25), Duration::from_millis(125))
    };
    snapshot_after_partition: |setup| scenarios::snapshot_after_partition(setup);
    stalled_snapshot: |setup| scenarios::stalled_snapshot(setup);
    lost_clients: |setup| scenarios::lost_clients(setup);
    membership: |setup| scenarios::membership(setup);
    removed_member_returns: |setup| scenarios::removed_member_returns(setup);
    replaced_member: |setup| scenarios::replaced_member(setup);
    lagging_learner: |setup| scenarios::lagging_learner(setup);
    forced_new_cluster: |setup| scenarios::forced_new_cluster(setup);
    additions_while_down: |setup| scenarios::additions_while_down(setup);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk() -> anyhow::Result<()> {
    let Some(folder) = etcd() else { return Ok(()) };
    let program = folder.join("etcd");
    if let Some(verdict) = scenarios::full_disk(&Setup::new(&program)).await? {
        println!("{:?}", verdict.report);
    }
    Ok(())
}

/// The steps of a takeover are fair: etcd takes over from itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_by_itself() -> anyhow::Result<()> {
    let Some(folder) = etcd() else { return Ok(()) };
    let program = folder.join("etcd");
    let load = LoadOptions::default();
    let verdict = takeover::there_and_back(&program, &program, load, &["--snapshot-count=100"]);
    println!("{:?}", verdict.await?.report);
    Ok(())
}
