//! What a log gives back at opening is durable from then on.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use base::{ClusterId, Index, LogPosition, MemberId, Term};
use raft::{ConfState, Entry, EntryKind, HardState};
use retcd_wal::{Mark, Metadata, Options, Replay, Wal};
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

/// C8: the mark of a snapshot that was received, but not installed before a crash, is no obstacle
/// once the entries up to it came by the log's way, into a newer segment. Found by the simulator.
#[test]
fn log_starts_at_the_mark_of_a_snapshot_that_was_overtaken() {
    let disk = MemoryDir::new();
    let metadata = Metadata { member: MemberId(1), cluster: ClusterId(2) };
    let options = Options { segment_bytes: 4096, ..Options::default() };
    let up_to = |commit| HardState { term: Term(1), vote: MemberId(1), commit: Index(commit) };
    let mark = |index| Mark {
        position: LogPosition { index: Index(index), term: Term(1) },
        conf_state: Some(ConfState { voters: [MemberId(1)].into(), ..ConfState::default() }),
    };
    let newest = |marks: &[Mark]| marks.last().cloned();
    let mut wal = Wal::create_with(&disk.shared(), "wal", &metadata, options).unwrap();
    let entries: Vec<Entry> = (1..=9).map(entry).collect();
    wal.append_and_sync(&entries[..4], Some(&up_to(4)), true).unwrap();
    wal.mark(&mark(3)).unwrap();
    wal.mark(&mark(5)).unwrap();
    drop(wal);
    let (mut wal, _) = Wal::open_with(&disk.shared(), "wal", newest, options).unwrap();
    assert_eq!(wal.last_index(), Index(4));
    while wal.segments() == 1 {
        wal.mark(&mark(3)).unwrap();
    }
    wal.append_and_sync(&entries[4..], Some(&up_to(9)), true).unwrap();
    drop(wal);
    let (wal, replay) = Wal::open_with(&disk.shared(), "wal", newest, options).unwrap();
    assert_eq!(replay.start, mark(5));
    assert_eq!(replay.entries, entries[5..]);
    assert_eq!(wal.last_index(), Index(9));
}
