//! What is appended is found again: on the real file system and byte for byte.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use base::Index;
use common::*;
use retcd_wal::{Options, Wal};
use vfs::OsDir;
use vfs::memory::MemoryDir;

/// A3.
#[test]
fn log_gives_back_what_was_appended() {
    let folder = tempfile::tempdir().unwrap();
    let parent = OsDir::open(folder.path()).unwrap();
    assert!(!Wal::exists(&*parent, "wal").unwrap());
    let mut log = Wal::create(&parent, "wal", &METADATA).unwrap();
    assert!(Wal::exists(&*parent, "wal").unwrap());
    log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 2)), true).unwrap();
    log.append_and_sync(&[], Some(&state(1, 3)), false).unwrap();
    log.mark(&mark(2, 1)).unwrap();
    // A new leader overwrites what was not committed.
    log.append_and_sync(&entries(4..=6, 1), None, true).unwrap();
    log.append_and_sync(&entries(5..=5, 2), Some(&state(2, 4)), true).unwrap();
    drop(log);

    let (log, replay) = Wal::open(&parent, "wal", newest).unwrap();
    assert_eq!(replay.metadata, METADATA);
    assert_eq!(replay.start, mark(2, 1));
    assert_eq!(replay.marks, [mark(0, 0), mark(2, 1)]);
    assert_eq!(replay.hard_state, state(2, 4));
    let mut expected = entries(3..=4, 1);
    expected.extend(entries(5..=5, 2));
    assert_eq!(replay.entries, expected);
    assert_eq!(replay.repaired, None);
    assert_eq!(log.last_index(), Index(5));
}

/// Two processes, or two members in one, never write one log.
#[test]
fn log_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parent = OsDir::open(folder.path()).unwrap();
    let log = Wal::create(&parent, "wal", &METADATA).unwrap();
    let error = Wal::open(&parent, "wal", newest).unwrap_err();
    assert!(matches!(error, retcd_wal::OpenError::InUse { .. }), "{error}");
    retcd_wal::read(&*parent, "wal", newest).unwrap();
    drop(log);
    Wal::open(&parent, "wal", newest).unwrap();
}

/// CB-62: old segments go that nobody needs, but for so many.
#[test]
fn full_segment_is_closed_and_the_log_goes_on_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let parent = OsDir::open(folder.path()).unwrap();
    let options = Options { segment_bytes: 4096, ..Options::default() };
    let mut log = Wal::create_with(&parent, "wal", &METADATA, options).unwrap();
    for index in 1..=200 {
        if index == 100 {
            assert!(log.prepare_next().unwrap(), "the next segment");
            assert!(!log.prepare_next().unwrap(), "it is ready");
        }
        log.append_and_sync(&entries(index..=index, 1), Some(&state(1, index - 1)), true).unwrap();
    }
    let count = log.segments();
    assert!(count > 3, "{count} segments");
    drop(log);
    let (mut log, replay) = Wal::open_with(&parent, "wal", newest, options).unwrap();
    assert_eq!(replay.entries, entries(1..=200, 1));
    assert_eq!(log.segments(), count);
    log.append_and_sync(&entries(201..=201, 1), Some(&state(1, 200)), true).unwrap();
    log.mark(&mark(150, 1)).unwrap();
    log.set_keep(2);
    let removed = log.release(Index(150)).unwrap();
    assert!(removed > 0 && log.segments() < count);
    drop(log);
    let (_, replay) = Wal::open_with(&parent, "wal", newest, options).unwrap();
    assert_eq!(replay.start, mark(150, 1));
    assert_eq!(replay.entries, entries(151..=201, 1));
}

/// The preparer writes zeros into the segment that is being written, and never over a record.
#[test]
fn preparer_on_another_thread_disturbs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let parent = OsDir::open(folder.path()).unwrap();
    let options = Options { segment_bytes: 3 << 20, ..Options::default() };
    let mut log = Wal::create_with(&parent, "wal", &METADATA, options).unwrap();
    let preparer = log.preparer();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if !preparer.run_once().unwrap() {
                    std::thread::yield_now();
                }
            }
        });
        for index in 1..=400 {
            let mut entry = entry(index, 1);
            entry.data = vec![index.to_le_bytes()[0]; 30_000].into();
            log.append_and_sync(&[entry], None, true).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(log.segments() > 3);
    drop(log);
    let (_, replay) = Wal::open_with(&parent, "wal", newest, options).unwrap();
    assert_eq!(replay.repaired, None);
    for (index, entry) in (1_u64..=400).zip(&replay.entries) {
        assert!(entry.data.iter().all(|byte| *byte == index.to_le_bytes()[0]), "entry {index}");
    }
    assert_eq!(replay.entries.len(), 400);
}

/// SRV-130.
#[test]
fn appends_are_not_synced_if_that_is_asked_for() {
    let disk = MemoryDir::new();
    let options = Options { unsafe_no_sync: true, ..Options::default() };
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, options).unwrap();
    let syncs = disk.syncs();
    log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 1)), true).unwrap();
    log.mark(&mark(1, 1)).unwrap();
    assert_eq!(disk.syncs(), syncs);
    log.set_unsafe_no_sync(false);
    log.append_and_sync(&entries(4..=4, 1), None, true).unwrap();
    assert!(disk.syncs() > syncs);
}

/// C5: nobody finds a log that has its name and not its first entries.
#[test]
fn a_log_begins_with_its_first_entries() {
    let disk = MemoryDir::new();
    let log = Wal::create_begun(
        &disk.shared(),
        "wal",
        &METADATA,
        &entries(1..=3, 1),
        &state(1, 3),
        Options::default(),
    );
    let mut log = log.unwrap();
    log.append_and_sync(&entries(4..=4, 1), None, true).unwrap();
    drop(log);
    let (log, replay) = Wal::open(&disk.crash(1).shared(), "wal", newest).unwrap();
    assert_eq!(replay.entries, entries(1..=4, 1));
    assert_eq!(replay.hard_state, state(1, 3));
    assert_eq!(log.last_index(), Index(4));
}
