//! The machine stops at every sync, write and name, and the disk keeps what it likes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use common::model::{Model, OPTIONS, Op, Random, call, next_op, open, run};
use common::{METADATA, newest};
use retcd_wal::Wal;
use vfs::fault::{FaultDir, FaultPlan, Kind};
use vfs::memory::MemoryDir;

const CALLS: usize = 60;

/// What was acknowledged is there; then the log goes on, and the next crash loses nothing either.
fn check(disk: &MemoryDir, model: Option<&Model>, unfinished: Option<&Op>, seed: u64) -> u32 {
    let parent = disk.shared();
    let Some(model) = model else {
        // The crash was in `create`: a whole log or none, and in the second case a new one.
        if Wal::exists(&*parent, "wal").unwrap() {
            open(&parent);
        } else {
            Wal::create_with(&parent, "wal", &METADATA, OPTIONS).unwrap();
        }
        return 0;
    };
    let (mut log, replay) = open(&parent);
    let mut found = model.check(&replay, unfinished);
    let mut random = Random(seed);
    for _ in 0..3 {
        let op = next_op(&found, &mut random);
        call(&mut log, &op).unwrap();
        found.done(&op);
    }
    drop(log);
    let (_, replay) = open(&disk.crash(seed ^ 1).shared());
    found.check(&replay, None);
    u32::from(replay.repaired.is_some())
}

/// Also the repair of a torn end is cut short, wherever it can be.
fn check_interrupted_repair(disk: &MemoryDir, model: &Model, unfinished: Option<&Op>, seed: u64) {
    for kind in [Kind::Write, Kind::Sync, Kind::Name] {
        for nth in 1.. {
            let disk = disk.copy();
            let plan = FaultPlan::new();
            plan.stop_at(kind, nth);
            plan.tear(seed);
            let opened =
                Wal::open_with(&FaultDir::wrap(disk.shared(), &plan), "wal", newest, OPTIONS);
            if !plan.is_stopped() {
                break;
            }
            assert!(opened.is_err());
            drop(opened);
            let (_, replay) = open(&disk.crash(seed).shared());
            model.check(&replay, unfinished);
        }
    }
}

fn crash_at_every(kind: Kind, workload: u64, seeds: u64) {
    let plan = FaultPlan::new();
    let (_, unfinished) = run(&FaultDir::wrap(MemoryDir::new().shared(), &plan), workload, CALLS);
    assert!(unfinished.is_none());
    let count = plan.count(kind);
    assert!(count > 10, "{count} operations");
    let mut repaired = 0;
    for nth in 1..=count {
        let disk = MemoryDir::new();
        let plan = FaultPlan::new();
        plan.stop_at(kind, nth);
        plan.tear(nth);
        let (model, unfinished) = run(&FaultDir::wrap(disk.shared(), &plan), workload, CALLS);
        assert!(plan.is_stopped());
        for seed in 0..seeds {
            let seed = nth * 1000 + seed;
            let image = disk.crash(seed);
            if let Some(model) = &model {
                check_interrupted_repair(&image, model, unfinished.as_ref(), seed);
            }
            repaired += check(&image, model.as_ref(), unfinished.as_ref(), seed);
        }
        check(&disk.crash_losing_all(), model.as_ref(), unfinished.as_ref(), nth);
    }
    println!("{kind:?}: {count} stops, {repaired} repairs after the second crash");
}

/// D1, D2, D3, D4, D6, D7.
#[test]
fn stop_at_every_sync_loses_nothing_acknowledged() {
    for workload in 0..2 {
        crash_at_every(Kind::Sync, workload, 12);
    }
}

/// D3, D4: the write itself is torn.
#[test]
fn stop_at_every_write_loses_nothing_acknowledged() {
    for workload in 10..12 {
        crash_at_every(Kind::Write, workload, 6);
    }
}

/// D6, D7.
#[test]
fn stop_at_every_change_of_names_loses_nothing_acknowledged() {
    for workload in 20..22 {
        crash_at_every(Kind::Name, workload, 12);
    }
}

/// K of section 7.1: the process ends, the machine does not.
#[test]
fn end_of_the_process_loses_nothing_written() {
    for seed in 0..30 {
        let disk = MemoryDir::new();
        let (model, _) = run(&disk.shared(), seed, CALLS);
        let mut model = model.unwrap();
        model.states = model.states.split_off(model.states.len().saturating_sub(1));
        let (_, replay) = open(&disk.shared());
        model.check(&replay, None);
        assert_eq!(replay.repaired, None);
    }
}
