//! What a log gives back at opening is durable from then on.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use base::{ClusterId, Index, MemberId, Term};
use raft::{Entry, EntryKind};
use retcd_wal::{Mark, Metadata, Replay, Wal};
use vfs::fault::{Failure, FaultDir, FaultPlan, Kind};
use vfs::memory::MemoryDir;

fn entry(index: u64) -> Entry {
    let data = format!("entry {index}").into();
    Entry { kind: EntryKind::Normal, term: Term(1), index: Index(index), data }
}

fn open(disk: &MemoryDir) -> Replay {
    let (_wal, replay) = Wal::open(&disk.shared(), "wal", |marks: &[Mark]| marks.last().cloned())
        .expect("the log opens");
    replay
}

/// D8, C1: a process that ends at a failed sync leaves its entry to the kernel alone. The next one
/// reads it and vouches for it, so it must not be lost any more.
#[test]
fn what_was_read_survives_a_power_cut() {
    let disk = MemoryDir::new();
    let plan = FaultPlan::new();
    let dir = FaultDir::wrap(disk.shared(), &plan);
    let metadata = Metadata { member: MemberId(1), cluster: ClusterId(2) };
    let mut wal = Wal::create(&dir, "wal", &metadata).unwrap();
    wal.append_and_sync(&[entry(1)], None, true).unwrap();
    plan.fail_at(Kind::Sync, plan.count(Kind::Sync) + 1, Failure::InputOutput);
    wal.append_and_sync(&[entry(2)], None, true).unwrap_err();
    drop(wal);

    let disk = disk.copy();
    let entries = open(&disk).entries;
    assert_eq!(entries, [entry(1), entry(2)]);
    assert_eq!(open(&disk.crash_losing_all()).entries, entries);
}
