//! Starts that a power cut ends at any of their operations: the next one finds a whole member. The
//! simulator finds such cuts by chance; here are all of them.

use base::{Index, MemberId, Term};
use raft::{ConfState, Entry, EntryKind, HardState};
use vfs::fault::{Failure, FaultDir, FaultPlan, Kind};
use vfs::memory::MemoryDir;
use wal::Mark;

use super::tests::{AT, RECEIVED, boot_on, make_database_in};
use super::*;

const KINDS: [Kind; 3] = [Kind::Write, Kind::Sync, Kind::Name];

fn boot_with(disk: &MemoryDir, plan: &Arc<FaultPlan>) -> Result<Booted, BootError> {
    boot_on(&FaultDir::wrap(disk.shared(), plan))
}

/// Starts on a copy of the disk with a power cut at every operation, then again on what is left, as
/// often as there are ways to lose what was not synced; `check` gets every such second start.
fn cut_everywhere(disk: &MemoryDir, check: impl Fn(Result<Booted, BootError>, MemoryDir, &str)) {
    for kind in KINDS {
        for nth in 1.. {
            let (disk, plan) = (disk.copy(), FaultPlan::new());
            if kind == Kind::Write {
                plan.tear(nth);
            }
            plan.stop_at(kind, nth);
            drop(boot_with(&disk, &plan));
            let was_cut = plan.is_stopped();
            for seed in 0..4 {
                let left = if seed == 0 { disk.crash_losing_all() } else { disk.crash(nth + seed) };
                let context = format!("{kind:?} {nth}, seed {seed}");
                check(boot_on(&left.shared()), left, &context);
            }
            if !was_cut {
                assert!(nth > 1, "{kind:?} is never done");
                break;
            }
        }
    }
}

/// D1-D3, D6: it is made, or made again, and what it acknowledges then stays.
#[test]
fn a_first_start_may_end_anywhere() {
    let whole = boot_on(&MemoryDir::new().shared()).unwrap();
    cut_everywhere(&MemoryDir::new(), |booted, disk, context| {
        let mut booted = booted.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!((booted.member, booted.cluster), (whole.member, whole.cluster), "{context}");
        assert_eq!(booted.restored.entries, whole.restored.entries, "{context}");
        let entry =
            Entry { kind: EntryKind::Normal, term: Term(1), index: Index(4), data: "kept".into() };
        let hard_state = HardState { term: Term(1), vote: whole.member, commit: Index(3) };
        booted.wal.append_and_sync(&[entry], Some(&hard_state), true).unwrap();
        drop(booted);
        let left = disk.crash_losing_all();
        let again = boot_on(&left.shared()).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(again.restored.entries.len(), 4, "{context}");
        assert!(again.restarted, "{context}");
    });
}

/// A member that was sent a snapshot, when its log has been told so, and how that ended.
fn receiving(ends: impl Fn(&FaultPlan, &MemoryDir)) -> (MemoryDir, bool) {
    let (disk, plan) = (MemoryDir::new(), FaultPlan::new());
    let mut booted = boot_with(&disk, &plan).unwrap();
    make_database_in(&booted.snap_dir, RECEIVED);
    booted.snap_dir.sync().unwrap();
    let voters = booted.restored.entries.iter().map(|entry| MemberId(entry.index.0)).collect();
    let conf_state = Some(ConfState { voters, ..ConfState::default() });
    ends(&plan, &disk);
    let hard_state = HardState { term: Term(2), vote: MemberId::NONE, commit: AT.index };
    let is_written = booted.wal.mark(&Mark { position: AT, conf_state }).is_ok()
        && booted.wal.append_and_sync(&[], Some(&hard_state), true).is_ok();
    drop(booted);
    (disk, is_written)
}

fn is_installed(booted: &Booted) -> bool {
    booted.state.applied() == AT && booted.restored.snapshot == AT
}

/// C8, D1-D3.
#[test]
fn the_installation_of_a_snapshot_may_end_anywhere() {
    let (disk, is_written) = receiving(|_, _| {});
    assert!(is_written);
    cut_everywhere(&disk, |booted, _, context| {
        let booted = booted.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(is_installed(&booted), "{context}: {:?}", booted.restored);
    });
}

/// C8, D12: a device that fails once is told as that, and not as a database that lacks a snapshot: the
/// next start goes on.
#[test]
fn the_device_may_fail_anywhere_while_a_snapshot_is_installed() {
    for kind in [Kind::Read, Kind::Write, Kind::Sync, Kind::Name] {
        for nth in 1.. {
            let ((disk, _), plan) = (receiving(|_, _| {}), FaultPlan::new());
            plan.fail_at(kind, nth, Failure::InputOutput);
            let failed = boot_with(&disk, &plan);
            let has_failed = plan.count(kind) >= nth;
            let context = format!("{kind:?} {nth}");
            match failed.as_ref().map(is_installed) {
                Ok(installed) => assert!(installed, "{context}"),
                Err(error) => assert!(error.io().is_some(), "{context}: {error:?}"),
            }
            drop(failed);
            let again =
                boot_on(&disk.shared()).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(is_installed(&again), "{context}: {:?}", again.restored);
            if !has_failed {
                assert!(nth > 1, "{kind:?} is never done");
                break;
            }
        }
    }
}

/// C8, D8, D9: what the log says of a snapshot is believed once it is durable, not before: or the
/// database would be ahead of a log that has lost it.
#[test]
fn a_mark_that_is_not_durable_leads_to_no_installation() {
    for (fails, later) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        for seed in 0..(if fails { 2 } else { 1 }) {
            let (disk, is_written) = receiving(|plan, disk| {
                let nth = plan.count(Kind::Sync) + later;
                if fails {
                    plan.forget_at_failed_syncs(disk, seed);
                    plan.fail_at(Kind::Sync, nth, Failure::InputOutput);
                } else {
                    plan.stop_at(Kind::Sync, nth);
                }
            });
            assert!(!is_written);
            cut_everywhere(&disk, |booted, _, context| {
                let context = format!("sync {later} failed: {fails}, {seed}, {context}");
                let booted = booted.unwrap_or_else(|error| panic!("{context}: {error}"));
                let is_before =
                    booted.state.applied().index == Index(0) && booted.restored.entries.len() == 3;
                assert!(is_before || is_installed(&booted), "{context}: {:?}", booted.restored);
            });
        }
    }
}
