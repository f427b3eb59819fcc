//! Full disks, failed syncs, failed writes and failed reads.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::model::{Model, OPTIONS, Random, call, next_op, open};
use common::{METADATA, entries, newest, state};
use retcd_wal::{AppendError, OpenError, Wal};
use vfs::fault::{Failure, FaultDir, FaultPlan, Kind};
use vfs::memory::MemoryDir;

const CALLS: usize = 40;

/// Runs to the end although the disk is full `failures` times from the `nth` operation on; a call
/// that fails for lack of space is repeated.
fn run_through_full_disk(kind: Kind, nth: u64, failures: u32, seed: u64) -> (u32, bool) {
    let disk = MemoryDir::new();
    let plan = FaultPlan::new();
    let parent = FaultDir::wrap(disk.shared(), &plan);
    let mut log = Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
    let created = plan.count(kind);
    plan.tear(seed);
    plan.fail_from(kind, created + nth, Failure::NoSpace);
    let mut refused = 0;
    let mut model = Model::default();
    let mut random = Random(seed);
    for _ in 0..CALLS {
        let op = next_op(&model, &mut random);
        while let Err(error) = call(&mut log, &op) {
            assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
            // A crash on the full disk: the refused batch may be there in part, no more.
            let (_, replay) = open(&disk.crash(seed + u64::from(refused)).shared());
            model.check(&replay, Some(&op));
            refused += 1;
            if refused >= failures {
                plan.clear();
            }
        }
        model.done(&op);
    }
    let reached = plan.count(kind) >= created + nth;
    plan.clear();
    drop(log);
    let (_, replay) = open(&disk.crash_losing_all().shared());
    model.check(&replay, None);
    assert_eq!(replay.repaired, None);
    (refused, reached)
}

/// D22: at every write, for one try and for several.
#[test]
fn full_disk_refuses_a_batch_whole_and_the_log_goes_on_later() {
    for failures in [1, 3] {
        let mut refused = 0;
        for nth in 1.. {
            let (count, reached) = run_through_full_disk(Kind::Write, nth, failures, 7);
            refused += count;
            if !reached {
                println!("{nth} writes, {refused} refusals");
                break;
            }
        }
        assert!(refused > 0);
    }
}

/// D22: what the refused batch left is gone for good, so that it cannot mix with the next.
#[test]
fn refused_batch_leaves_nothing_behind() {
    for seed in 0..40 {
        let disk = MemoryDir::new();
        let plan = FaultPlan::new();
        let parent = FaultDir::wrap(disk.shared(), &plan);
        let mut log = Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
        log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 2)), true).unwrap();
        plan.tear(seed);
        plan.fail_at(Kind::Write, plan.count(Kind::Write) + 1, Failure::NoSpace);
        let error = log.append_and_sync(&entries(4..=200, 1), None, true).unwrap_err();
        assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
        let (_, replay) = open(&disk.crash(seed).shared());
        assert_eq!((replay.entries, replay.repaired), (entries(1..=3, 1), None));
    }
}

/// D22: no room in the folder. Only a cut makes names, and it can wait.
#[test]
fn full_folder_postpones_the_next_segment() {
    for nth in 1.. {
        let (refused, reached) = run_through_full_disk(Kind::Name, nth, 1, 8);
        assert_eq!(refused, 0);
        if !reached {
            break;
        }
    }
}

/// D22: a log is made whole or not at all.
#[test]
fn log_is_not_made_on_a_full_disk() {
    for kind in [Kind::Write, Kind::Name, Kind::Sync] {
        for nth in 1.. {
            let disk = MemoryDir::new();
            let plan = FaultPlan::new();
            plan.fail_at(kind, nth, Failure::NoSpace);
            let parent = FaultDir::wrap(disk.shared(), &plan);
            match Wal::create_with(&parent, "wal", &METADATA, OPTIONS) {
                Ok(_) => break,
                Err(error) => {
                    println!("{error}");
                    // A failed sync of the parent leaves the log under its name, whole.
                    if !Wal::exists(&*parent, "wal").unwrap() {
                        Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
                    }
                    open(&disk.shared());
                }
            }
        }
    }
}

fn fail_once(kind: Kind, failure: Failure) {
    let mut failed = 0;
    for nth in 1.. {
        let disk = MemoryDir::new();
        let plan = FaultPlan::new();
        let parent = FaultDir::wrap(disk.shared(), &plan);
        let mut log = Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
        plan.fail_at(kind, plan.count(kind) + nth, failure);
        let mut model = Model::default();
        let mut random = Random(3);
        let mut unfinished = None;
        for _ in 0..CALLS {
            let op = next_op(&model, &mut random);
            match call(&mut log, &op) {
                Ok(()) => model.done(&op),
                Err(error) => {
                    assert!(!matches!(error, AppendError::NoSpace { .. }));
                    unfinished = Some(op);
                    break;
                }
            }
        }
        if let Some(op) = &unfinished {
            failed += 1;
            // The disk works again, but what the kernel dropped does not come back.
            let again = catch_unwind(AssertUnwindSafe(|| call(&mut log, op)));
            assert!(again.is_err(), "a poisoned log was used");
        }
        drop(log);
        for seed in 0..5 {
            let (_, replay) = open(&disk.crash(seed).shared());
            model.check(&replay, unfinished.as_ref());
        }
        if plan.count(kind) < nth {
            break;
        }
    }
    assert!(failed > 10, "{failed}");
}

/// D8.
#[test]
fn failed_sync_is_the_end_of_the_log() {
    fail_once(Kind::Sync, Failure::InputOutput);
}

/// D8, D9: the next process finds what was written and not synced, which no sync will write any more
/// unless it is written again; what it found counts as durable from then on.
#[test]
fn what_is_found_after_a_failed_sync_survives_a_power_cut() {
    let mut found_more = 0;
    for nth in 1..60 {
        for seed in 0..8 {
            let disk = MemoryDir::new();
            let plan = FaultPlan::new();
            let parent = FaultDir::wrap(disk.shared(), &plan);
            let mut log = Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
            plan.forget_at_failed_syncs(&disk, seed);
            plan.fail_at(Kind::Sync, plan.count(Kind::Sync) + nth, Failure::InputOutput);
            let mut model = Model::default();
            let mut random = Random(seed);
            let unfinished = (0..CALLS).find_map(|_| {
                let op = next_op(&model, &mut random);
                let called = call(&mut log, &op);
                if called.is_ok() {
                    model.done(&op);
                }
                called.err().map(|_| op)
            });
            drop(log);
            let (log, found) = open(&disk.shared());
            model.check(&found, unfinished.as_ref());
            drop(log);
            for cut in [disk.crash_losing_all(), disk.crash(seed)] {
                let (_, kept) = open(&cut.shared());
                assert_eq!(kept.entries, found.entries, "sync {nth}, seed {seed}");
                assert_eq!(kept.hard_state, found.hard_state, "sync {nth}, seed {seed}");
            }
            found_more += u32::from(unfinished.is_some());
        }
    }
    assert!(found_more > 100, "{found_more}");
}

/// D8, G14: a full disk keeps no member down, but what was found is not gone on with before it is
/// durable (simulator, seed 700242823).
#[test]
fn what_is_found_on_a_full_disk_is_written_again_before_anything_else() {
    for seed in 0..50 {
        let disk = MemoryDir::new();
        let plan = FaultPlan::new();
        let parent = FaultDir::wrap(disk.shared(), &plan);
        let mut log = Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
        log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 3)), true).unwrap();
        plan.forget_at_failed_syncs(&disk, seed);
        plan.fail_at(Kind::Sync, plan.count(Kind::Sync) + 1, Failure::InputOutput);
        log.append_and_sync(&entries(4..=200, 1), Some(&state(1, 3)), true).unwrap_err();
        drop(log);
        plan.clear();
        plan.fail_from(Kind::Write, plan.count(Kind::Write) + 1, Failure::NoSpace);
        let (mut log, found) = open(&parent);
        let next = found.entries.len() as u64 + 1;
        let error = log.append_and_sync(&entries(next..=next, 1), None, true).unwrap_err();
        assert!(matches!(error, AppendError::NoSpace { .. }), "{error:?}");
        plan.clear();
        log.append_and_sync(&entries(next..=next, 1), None, true).unwrap();
        drop(log);
        let (_, kept) = open(&disk.crash_losing_all().shared());
        assert_eq!(kept.entries.len() as u64, next, "seed {seed}");
    }
}

/// A sync that says "no space" has lost data too.
#[test]
fn failed_sync_for_lack_of_space_is_the_end_of_the_log() {
    fail_once(Kind::Sync, Failure::NoSpace);
}

/// D11.
#[test]
fn failed_write_is_the_end_of_the_log() {
    fail_once(Kind::Write, Failure::InputOutput);
}

/// D12: the file and the offset are named, and nothing is changed.
#[test]
fn failed_read_is_an_error_that_names_the_place() {
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    for index in 1..=100 {
        log.append_and_sync(&entries(index..=index, 1), Some(&state(1, index)), true).unwrap();
    }
    drop(log);
    for nth in 1.. {
        let plan = FaultPlan::new();
        plan.fail_at(Kind::Read, nth, Failure::InputOutput);
        let parent = FaultDir::wrap(disk.shared(), &plan);
        match Wal::open_with(&parent, "wal", newest, OPTIONS) {
            Ok(_) => break,
            Err(error) => {
                assert!(matches!(error, OpenError::Read { .. }), "{error}");
                assert!(error.to_string().contains(".wal"), "{error}");
            }
        }
    }
    let (_, replay) = open(&disk.shared());
    assert_eq!(replay.entries, entries(1..=100, 1));
}

/// D8, G14: what a start found and could not write again for want of room is not settled, and the open
/// log says so until an append has done it.
#[test]
fn a_full_disk_leaves_in_doubt_what_was_read() {
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 2)), true).unwrap();
    drop(log);
    let plan = FaultPlan::new();
    plan.fail_from(Kind::Write, 1, Failure::NoSpace);
    let parent = FaultDir::wrap(disk.shared(), &plan);
    let Err(OpenError::File { source, .. }) = retcd_wal::settle(&*parent, "wal", newest) else {
        panic!("it is settled on a full disk");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    let (mut log, _) = Wal::open_with(&parent, "wal", newest, OPTIONS).unwrap();
    assert!(log.is_unsure());
    let error = log.append_and_sync(&[], None, true).unwrap_err();
    assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    plan.clear();
    log.append_and_sync(&[], None, true).unwrap();
    assert!(!log.is_unsure());
}

/// D6, D8: a log whose making failed, or was killed, at any sync is made again or, once it has its
/// name, goes on; what is acknowledged then is not lost with the name by a power cut.
#[test]
fn log_that_was_being_made_keeps_what_it_acknowledges_later() {
    let mut went_on = 0;
    for nth in 1.. {
        let disk = MemoryDir::new();
        let plan = FaultPlan::new();
        plan.fail_at(Kind::Sync, nth, Failure::InputOutput);
        let parent = FaultDir::wrap(disk.shared(), &plan);
        if Wal::create_with(&parent, "wal", &METADATA, OPTIONS).is_ok() {
            break;
        }
        let mut log = if Wal::exists(&*disk.shared(), "wal").unwrap() {
            went_on += 1;
            open(&disk.shared()).0
        } else {
            Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap()
        };
        log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 2)), true).unwrap();
        drop(log);
        let cut = disk.crash_losing_all().shared();
        assert!(Wal::exists(&*cut, "wal").unwrap(), "sync {nth}: the log is gone");
        assert_eq!(open(&cut).1.entries, entries(1..=3, 1), "sync {nth}");
    }
    assert!(went_on > 0, "no sync follows the renaming");
}
