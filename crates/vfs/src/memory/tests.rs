//! Crashes of the memory disk.

use super::*;

fn content(dir: &dyn Dir, name: &str) -> Vec<u8> {
    let file = dir.open(name, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// D1.
#[test]
fn synced_bytes_under_a_synced_name_survive_every_crash() {
    let disk = MemoryDir::new();
    let file = disk.open("a", Open::Create).unwrap();
    file.write_at(&[7; 3000], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync().unwrap();
    file.write_at(&[8; 100], 3000).unwrap();
    for seed in 0..200 {
        let found = content(&disk.crash(seed), "a");
        assert!(found.len() == 3000 || found.len() == 3100);
        assert_eq!(found[..3000], [7; 3000], "seed {seed}");
    }
    assert_eq!(content(&disk.crash_losing_all(), "a"), [7; 3000]);
    assert_eq!(content(&disk.copy(), "a").len(), 3100);
}

/// D6: the content was synced, the name was not.
#[test]
fn unsynced_name_may_be_lost_and_may_be_kept() {
    let disk = MemoryDir::new();
    disk.open("a", Open::Create).unwrap().sync_data().unwrap();
    let kept = (0..100).filter(|seed| disk.crash(*seed).exists("a").unwrap()).count();
    assert!((1..100).contains(&kept), "kept {kept} of 100");
    assert!(!disk.crash_losing_all().exists("a").unwrap());
}

/// D7.
#[test]
fn rename_is_seen_whole_or_not_at_all() {
    let disk = MemoryDir::new();
    for (name, byte) in [("new", 1), ("old", 0)] {
        let file = disk.open(name, Open::Create).unwrap();
        file.write_at(&[byte], 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync().unwrap();
    disk.rename("new", "old").unwrap();
    for seed in 0..100 {
        let after = disk.crash(seed);
        match content(&after, "old")[..] {
            [0] => assert!(after.exists("new").unwrap()),
            [1] => assert!(!after.exists("new").unwrap()),
            ref other => panic!("{other:?}"),
        }
    }
}

/// D3.
#[test]
fn some_crash_keeps_a_later_sector_and_loses_an_earlier_one() {
    let disk = MemoryDir::new();
    let file = disk.open("a", Open::Create).unwrap();
    file.set_len(8192).unwrap();
    file.sync_data().unwrap();
    disk.sync().unwrap();
    file.write_at(&[1; 8192], 0).unwrap();
    let torn = (0..100).filter(|seed| {
        let found = content(&disk.crash(*seed), "a");
        for sector in found.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are whole");
        }
        found.windows(2).any(|pair| pair == [0, 1])
    });
    assert!(torn.count() > 10);
}

#[test]
fn crash_is_the_same_again_from_the_same_seed() {
    let disk = MemoryDir::new();
    let file = disk.open("a", Open::Create).unwrap();
    disk.sync().unwrap();
    file.write_at(&[3; 20_000], 100).unwrap();
    for seed in 0..20 {
        assert_eq!(content(&disk.crash(seed), "a"), content(&disk.crash(seed), "a"));
    }
}

#[test]
fn cut_and_regrown_file_reads_as_zeros() {
    let disk = MemoryDir::new();
    let file = disk.open("a", Open::Create).unwrap();
    file.write_at(&[9; 10_000], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync().unwrap();
    file.set_len(100).unwrap();
    file.set_len(10_000).unwrap();
    let mut expected = vec![9; 100];
    expected.resize(10_000, 0);
    assert_eq!(content(&disk, "a"), expected);
    file.sync_data().unwrap();
    assert_eq!(content(&disk.crash_losing_all(), "a"), expected);
}

#[test]
fn lock_belongs_to_the_open_file() {
    let disk = MemoryDir::new();
    let first = disk.open("a", Open::Create).unwrap();
    let second = disk.open("a", Open::Write).unwrap();
    assert!(first.try_lock(Lock::Record).unwrap());
    assert!(!second.try_lock(Lock::Record).unwrap());
    assert!(second.try_lock(Lock::WholeFileShared).unwrap());
    assert!(!first.try_lock(Lock::WholeFile).unwrap());
    drop(first);
    assert!(second.try_lock(Lock::Record).unwrap());
}

#[test]
fn renamed_folder_is_found_under_its_new_name_only() {
    let disk = MemoryDir::new();
    let old = disk.subdir("old").unwrap();
    old.open("a", Open::Create).unwrap().write_at(b"x", 0).unwrap();
    disk.rename("old", "new").unwrap();
    assert!(old.open("a", Open::Read).is_err());
    assert_eq!(content(&*disk.subdir("new").unwrap(), "a"), b"x");
    disk.remove_dir_all("new").unwrap();
    assert!(!disk.exists("new").unwrap());
}

#[test]
fn sector_written_twice_may_keep_its_first_content() {
    let disk = MemoryDir::new();
    let file = disk.open("a", Open::Create).unwrap();
    file.set_len(512).unwrap();
    file.sync_data().unwrap();
    disk.sync().unwrap();
    file.write_at(&[1; 512], 0).unwrap();
    file.write_at(&[2; 512], 0).unwrap();
    let mut seen = [0; 3];
    for seed in 0..200 {
        seen[usize::from(content(&disk.crash(seed), "a")[0])] += 1;
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    file.sync_data().unwrap();
    assert_eq!(content(&disk.crash(1), "a"), [2; 512]);
}

/// D9: after a failed sync the next one says that all is well, and what the first did not write is
/// written only if its page is.
#[test]
fn what_a_failed_sync_lost_is_kept_by_no_later_one() {
    let mut kept = [0, 0];
    for seed in 0..64 {
        for (nth, rewrites) in [false, true].into_iter().enumerate() {
            let disk = MemoryDir::new();
            let file = disk.open("a", Open::Create).unwrap();
            Dir::sync(&disk).unwrap();
            file.write_at(b"old", 0).unwrap();
            file.sync_data().unwrap();
            file.write_at(b"new", 0).unwrap();
            disk.fail_sync(file.identity().unwrap(), seed);
            let mut seen = [0; 3];
            file.read_exact_at(&mut seen, 0).unwrap();
            assert_eq!(&seen, b"new");
            if rewrites {
                file.write_at(b"!", 4000).unwrap();
            }
            file.sync_data().unwrap();
            let after = disk.crash(seed);
            after.open("a", Open::Read).unwrap().read_exact_at(&mut seen, 0).unwrap();
            kept[nth] += u32::from(&seen == b"new");
        }
    }
    assert!((1..64).contains(&kept[0]), "{kept:?}");
    assert_eq!(kept[1], 64);
}
