//! Torn ends, flipped bytes, and whatever else a log may be: cut off where that loses nothing,
//! refused otherwise, never believed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;

use common::model::{OPTIONS, Random, open, run};
use common::{METADATA, entries, entry, mark, newest, state};
use proptest::prelude::*;
use retcd_wal::{Damage, OpenError, Options, Replay, Wal, read};
use vfs::memory::MemoryDir;
use vfs::{Dir, Open};

fn names(disk: &MemoryDir) -> Vec<String> {
    let mut names = disk.subdir("wal").unwrap().list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names
}

fn content(disk: &MemoryDir, name: &str) -> Vec<u8> {
    let file = disk.subdir("wal").unwrap().open(name, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn put(disk: &MemoryDir, name: &str, bytes: &[u8]) {
    let file = disk.subdir("wal").unwrap().open(name, Open::CreateOrWrite).unwrap();
    file.set_len(0).unwrap();
    file.write_at(bytes, 0).unwrap();
}

/// Where the records of a segment end, that is, where its zeros begin.
fn end_of(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        if word == 0 {
            break;
        }
        at += 8 + usize::try_from(word & ((1 << 56) - 1)).unwrap().next_multiple_of(8);
    }
    at
}

/// Two segments with every kind of record, commits lagging behind, an overwritten entry.
fn small_log() -> MemoryDir {
    let disk = MemoryDir::new();
    let options = Options { segment_bytes: 2048, ..Options::default() };
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, options).unwrap();
    for index in 1..=14 {
        log.append_and_sync(&entries(index..=index, 1), Some(&state(1, index - 1)), true).unwrap();
    }
    log.mark(&mark(5, 1)).unwrap();
    log.append_and_sync(&entries(14..=16, 2), Some(&state(2, 13)), true).unwrap();
    while log.segments() < 2 {
        let next = log.last_index().0 + 1;
        log.append_and_sync(&entries(next..=next, 2), Some(&state(2, next - 1)), true).unwrap();
    }
    let next = log.last_index().0 + 1;
    log.append_and_sync(&entries(next..=next + 3, 2), None, true).unwrap();
    log.append_and_sync(&[], Some(&state(2, next + 1)), false).unwrap();
    log.mark(&mark(next, 2)).unwrap();
    log.append_and_sync(&[entry(next + 4, 2)], Some(&state(2, next + 3)), true).unwrap();
    disk
}

fn same(found: &Replay, expected: &Replay) -> bool {
    Replay { repaired: None, ..found.clone() } == *expected
}

fn class(error: &OpenError) -> String {
    match error {
        OpenError::Damaged { damage, .. } => match damage {
            Damage::Crc { .. } => "damaged: crc".to_owned(),
            Damage::Kind(_) => "damaged: kind".to_owned(),
            Damage::Synced { .. } => "damaged: torn, but synced".to_owned(),
            other => format!("damaged: {other:?}"),
        },
        other => other.to_string().split(['{', '"', '0']).next().unwrap().to_owned(),
    }
}

/// CB-63, D13, stricter than etcd: every byte of the log, three ways.
#[test]
fn every_flipped_byte_is_detected_or_harmless() {
    let disk = small_log();
    let expected = read(&disk, "wal", newest).unwrap();
    let mut classes: BTreeMap<(bool, String), u32> = BTreeMap::new();
    for name in names(&disk) {
        let bytes = content(&disk, &name);
        let end = end_of(&bytes);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] ^= flip;
                put(&disk, &name, &flipped);
                let class = match read(&disk, "wal", newest) {
                    Err(error) => class(&error),
                    Ok(found) if same(&found, &expected) => {
                        let cut = found.repaired.is_some();
                        (if cut { "harmless: remains are cut off" } else { "harmless" }).to_owned()
                    }
                    Ok(found) => panic!("{name} byte {at} ^ {flip:#x}: {found:?}"),
                };
                *classes.entry((at < end, class)).or_default() += 1;
            }
        }
        put(&disk, &name, &bytes);
    }
    for ((inside, class), count) in &classes {
        println!("{} {class}: {count}", if *inside { "records" } else { "zeros" });
        assert!(!inside || !class.starts_with("harmless"), "every byte of a record matters");
    }
}

/// D16: a lost sector of what was synced is no torn write, except in the last batch.
#[test]
fn zeroed_sector_before_the_last_batch_is_refused() {
    let disk = small_log();
    let expected = read(&disk, "wal", newest).unwrap();
    let names = names(&disk);
    for (nth, name) in names.iter().enumerate() {
        let bytes = content(&disk, name);
        for start in (0..end_of(&bytes)).step_by(512) {
            let mut zeroed = bytes.clone();
            let end = (start + 512).min(zeroed.len());
            zeroed[start..end].fill(0);
            put(&disk, name, &zeroed);
            match read(&disk, "wal", newest) {
                Err(error) => println!("{name} {start}: {error}"),
                Ok(found) => {
                    let last = (end_of(&bytes) - 1) / 512 * 512;
                    assert!(nth + 1 == names.len() && start == last, "{name} {start}: {found:?}");
                    assert!(
                        found.repaired.is_some() && found.entries.len() < expected.entries.len()
                    );
                }
            }
        }
        put(&disk, name, &bytes);
    }
}

/// D16, and the rule of reliability 5.2: a lost sector looks like a torn write, but what follows it
/// was written after it had been synced.
#[test]
fn zeroed_sector_of_a_synced_entry_is_no_torn_write() {
    let disk = MemoryDir::new();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, options).unwrap();
    let mut ends = Vec::new();
    for index in 1..=8 {
        let mut entry = entry(index, 1);
        entry.data = vec![5; 1900].into();
        log.append_and_sync(&[entry], Some(&state(1, index - 1)), true).unwrap();
        if index == 4 {
            log.mark(&mark(3, 1)).unwrap();
        }
        ends.push(end_of(&content(&disk, &names(&disk)[0])));
    }
    drop(log);
    let name = names(&disk).remove(0);
    let bytes = content(&disk, &name);
    // Of the last batch but one nothing but the last batch tells: an entry and a state, which might
    // be of the same batch.
    let (certain, last) = (ends[5], ends[7]);
    let mut synced = 0;
    for start in (0..last).step_by(512) {
        let mut zeroed = bytes.clone();
        zeroed[start..start + 512].fill(0);
        put(&disk, &name, &zeroed);
        match read(&disk, "wal", newest) {
            Err(OpenError::Damaged { damage: Damage::Synced { .. }, .. }) => synced += 1,
            Err(error) => println!("{start}: {error}"),
            Ok(found) => {
                assert!(start + 512 > certain, "{start} of {last}: cut at {:?}", found.repaired);
            }
        }
    }
    assert!(synced > 10, "{synced}");
}

/// A log with an acknowledged part and one batch of many sectors behind it.
fn torn_log(len: usize) -> (MemoryDir, usize, usize) {
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(
        &disk.shared(),
        "wal",
        &METADATA,
        Options { segment_bytes: 32 << 10, ..Options::default() },
    )
    .unwrap();
    for index in 1..=4 {
        log.append_and_sync(&entries(index..=index, 1), Some(&state(1, index - 1)), true).unwrap();
    }
    let from = end_of(&content(&disk, &names(&disk)[0]));
    let mut batch = entries(5..=7, 1);
    batch[1].data = vec![0; len / 3].into();
    batch[2].data = vec![7; len].into();
    // A follower is told of the commit with the entries.
    log.append_and_sync(&batch, Some(&state(1, 7)), true).unwrap();
    let to = end_of(&content(&disk, &names(&disk)[0]));
    (disk, from, to)
}

fn check_torn(disk: &MemoryDir, name: &str, torn: &[u8], what: &str) {
    put(disk, name, torn);
    let before = disk.copy();
    before.subdir("wal").unwrap().open(name, Open::Read).unwrap().sync_data().unwrap();
    drop(open(&before.shared()));
    let (_, again) = open(&before.crash_losing_all().shared());
    assert_eq!(again.repaired, None, "{what}: the repair is durable before anything is appended");
    let (mut log, replay) = open(&disk.shared());
    assert!(replay.entries.len() >= 4, "{what}: {replay:?}");
    assert_eq!(replay.entries[..4], entries(1..=4, 1), "{what}");
    let last = log.last_index();
    let next = entry(last.0 + 1, 2);
    log.append_and_sync(std::slice::from_ref(&next), None, true).unwrap();
    drop(log);
    let (_, again) = open(&disk.shared());
    assert_eq!(again.repaired, None, "{what}");
    assert_eq!(again.entries.last(), Some(&next), "{what}");
    if let Some(repaired) = replay.repaired {
        let folder = disk.subdir("wal").unwrap();
        let backup = repaired.backup.unwrap();
        assert!(folder.exists(&backup).unwrap());
        folder.remove(&backup).unwrap();
    }
}

/// D4: any sectors of the last batch are lost, all subsets of them.
#[test]
fn torn_batch_is_cut_off_whatever_sectors_are_left() {
    let (disk, from, to) = torn_log(2200);
    let name = names(&disk).remove(0);
    let bytes = content(&disk, &name);
    let sectors: Vec<usize> = (from / 512..=(to - 1) / 512).collect();
    assert!((6..=9).contains(&sectors.len()), "{sectors:?}");
    for kept in 0..1_u32 << sectors.len() {
        let mut torn = bytes.clone();
        for (nth, sector) in sectors.iter().enumerate() {
            if kept & 1 << nth == 0 {
                let start = (sector * 512).max(from);
                torn[start..(sector + 1) * 512].fill(0);
            }
        }
        check_torn(&disk, &name, &torn, &format!("kept {kept:b}"));
    }
}

/// CB-63, D4: the file was being extended and ends anywhere.
#[test]
fn torn_batch_is_cut_off_wherever_the_file_ends() {
    let (disk, from, to) = torn_log(1500);
    let name = names(&disk).remove(0);
    let bytes = content(&disk, &name);
    for len in from..=to {
        check_torn(&disk, &name, &bytes[..len], &format!("{len} of {to} bytes"));
    }
}

/// D5: half a sector is never lost, so this was damaged later.
#[test]
fn half_zeroed_record_within_a_sector_is_refused() {
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 2)), true).unwrap();
    drop(log);
    let name = names(&disk).remove(0);
    let bytes = content(&disk, &name);
    let end = end_of(&bytes);
    assert!(end < 512);
    let mut damaged = bytes;
    damaged[end - 20..end].fill(0);
    put(&disk, &name, &damaged);
    let error = read(&disk, "wal", newest).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    println!("{error}");
}

/// The upstream weakness: one flipped bit in a length field in the middle of the newest segment
/// makes etcd cut off everything behind it.
#[test]
fn flipped_length_in_the_middle_is_refused() {
    let (disk, _, _) = torn_log(1500);
    let name = names(&disk).remove(0);
    let bytes = content(&disk, &name);
    for bit in 0..48 {
        let mut flipped = bytes.clone();
        // The second record: any word before the last batch will do.
        flipped[16 + bit / 8] ^= 1 << (bit % 8);
        put(&disk, &name, &flipped);
        let error = read(&disk, "wal", newest).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "bit {bit}: {error}");
    }
}

/// D20.
#[test]
fn missing_segment_is_named() {
    let disk = MemoryDir::new();
    run(&disk.shared(), 1, 60);
    let names = names(&disk);
    assert!(names.len() > 2, "{names:?}");
    disk.subdir("wal").unwrap().remove(&names[1]).unwrap();
    let error = read(&disk, "wal", newest).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&names[0]) && text.contains(&names[2]), "{text}");
}

/// D17.
#[test]
fn folder_without_a_segment_is_no_log() {
    let disk = MemoryDir::new();
    assert!(matches!(read(&disk, "wal", newest), Err(OpenError::Missing { .. })));
    assert!(!disk.exists("wal").unwrap(), "looking makes nothing");
    disk.subdir("wal").unwrap();
    assert!(matches!(read(&disk, "wal", newest), Err(OpenError::Missing { .. })));
}

/// D21.
#[test]
fn segment_of_another_member_is_refused() {
    let build = |member| {
        let disk = MemoryDir::new();
        let metadata = retcd_wal::Metadata { member: base::MemberId(member), ..METADATA };
        let options = Options { segment_bytes: 600, ..Options::default() };
        let mut log = Wal::create_with(&disk.shared(), "wal", &metadata, options).unwrap();
        for index in 1..=30 {
            log.append_and_sync(&entries(index..=index, 1), None, true).unwrap();
        }
        disk
    };
    let (ours, theirs) = (build(7), build(8));
    let name = names(&ours).remove(1);
    let mut bytes = content(&theirs, &name);
    // As if the checksums agreed by chance: the first record of a suffix is taken as it is.
    put(&ours, &name, &bytes);
    assert!(read(&ours, "wal", newest).is_err());
    bytes.clear();
    put(&ours, &name, &bytes);
    assert!(read(&ours, "wal", newest).is_err(), "an emptied segment is no segment");
}

#[test]
fn no_mark_for_the_database_is_refused() {
    let disk = small_log();
    let error = read(&disk, "wal", |_| None).unwrap_err();
    assert!(matches!(error, OpenError::NoMark { .. }), "{error}");
    let error = read(&disk, "wal", |_| Some(mark(6, 1))).unwrap_err();
    assert!(matches!(error, OpenError::MarkMissing { .. }), "{error}");
    let error = read(&disk, "wal", |_| Some(mark(5, 2))).unwrap_err();
    assert!(matches!(error, OpenError::MarkTerm { .. }), "{error}");
}

/// A snapshot that was received: the log behind it starts after a gap.
#[test]
fn log_goes_on_behind_a_received_snapshot() {
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    log.append_and_sync(&entries(1..=3, 1), Some(&state(1, 3)), true).unwrap();
    log.mark(&mark(100, 4)).unwrap();
    // Not installed yet: the hard state does not reach it.
    drop(log);
    let (mut log, replay) = open(&disk.shared());
    assert_eq!((replay.start, replay.entries.len()), (mark(0, 0), 3));
    log.mark(&mark(100, 4)).unwrap();
    log.append_and_sync(&[], Some(&state(4, 100)), true).unwrap();
    log.append_and_sync(&entries(101..=102, 4), None, true).unwrap();
    drop(log);
    let (_, replay) = open(&disk.shared());
    assert_eq!((replay.start, replay.entries), (mark(100, 4), entries(101..=102, 4)));
    let older = read(&disk, "wal", |marks| marks.first().cloned()).unwrap_err();
    assert!(matches!(older, OpenError::EntryGap { .. }), "{older}");
}

/// Raft 5.4.1: a log that ends with entries that were given up would vote for the wrong candidate.
#[test]
fn entries_given_up_do_not_come_back_behind_a_snapshot() {
    let given_up = |log: &mut Wal| {
        log.append_and_sync(&entries(1..=16, 2), Some(&state(2, 2)), true).unwrap();
    };
    // Overwritten by a shorter log, and then covered by a snapshot.
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    given_up(&mut log);
    log.append_and_sync(&entries(3..=10, 3), Some(&state(3, 10)), true).unwrap();
    log.mark(&mark(10, 3)).unwrap();
    let found = read(&disk, "wal", newest).unwrap();
    assert_eq!((found.start, found.entries), (mark(10, 3), Vec::new()));
    // Contradicted by a snapshot that was received.
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    given_up(&mut log);
    log.mark(&mark(10, 3)).unwrap();
    log.append_and_sync(&[], Some(&state(3, 10)), true).unwrap();
    let found = read(&disk, "wal", newest).unwrap();
    assert_eq!((found.start, found.entries), (mark(10, 3), Vec::new()));
    // Confirmed by one that was taken.
    let disk = MemoryDir::new();
    let mut log = Wal::create_with(&disk.shared(), "wal", &METADATA, OPTIONS).unwrap();
    given_up(&mut log);
    log.append_and_sync(&[], Some(&state(2, 10)), true).unwrap();
    log.mark(&mark(10, 2)).unwrap();
    let found = read(&disk, "wal", newest).unwrap();
    assert_eq!(found.entries, entries(11..=16, 2));
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut below = |bound: usize| usize::try_from(random.below(bound as u64)).unwrap();
    let len = bytes.len();
    if len == 0 {
        return;
    }
    let (from, to) = (below(len), below(len));
    let count = below(600).min(len - from).min(len - to);
    match below(7) {
        0 => bytes[from] ^= 1 << below(8),
        1 => bytes.truncate(from),
        2 => bytes[from..from + count].fill(0),
        3 => bytes.copy_within(from..from + count, to),
        4 => drop(bytes.drain(from / 8 * 8..(from / 8 * 8 + count / 8 * 8).min(len))),
        5 => {
            let part = bytes[from / 8 * 8..][..count / 8 * 8].to_vec();
            bytes.splice(to / 8 * 8..to / 8 * 8, part);
        }
        _ => {
            let at = from / 8 * 8;
            if at + 8 <= len {
                let word = random.below(u64::MAX).to_le_bytes();
                bytes[at..at + 8].copy_from_slice(&word);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic, no great allocation, and no entry that was never written.
    #[test]
    fn mutated_log_is_refused_or_true(seed: u64) {
        let mut random = Random(seed);
        let disk = small_log();
        let every: Vec<_> = entries(1..=100, 1).into_iter().chain(entries(1..=100, 2)).collect();
        for name in names(&disk) {
            let mut bytes = content(&disk, &name);
            for _ in 0..random.below(3) {
                mutate(&mut bytes, &mut random);
            }
            put(&disk, &name, &bytes);
        }
        if let Ok(found) = read(&disk, "wal", newest) {
            for (nth, entry) in (1..).zip(&found.entries) {
                prop_assert_eq!(entry.index.0, found.start.position.index.0 + nth);
                prop_assert!(every.contains(entry));
            }
        }
    }

    /// A segment of any bytes.
    #[test]
    fn random_segment_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let disk = MemoryDir::new();
        disk.subdir("wal").unwrap();
        put(&disk, "0000000000000000-0000000000000000.wal", &bytes);
        prop_assert!(read(&disk, "wal", newest).is_err());
    }
}
