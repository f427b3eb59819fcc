//! What users of the database rely on.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::{Model, NAME, Step, assert_same, open, options, position, revision};
use retcd_backend::{Backend, Batch, Bucket, OpenError, Options, ReadOnly, bulk};
use vfs::memory::MemoryDir;
use vfs::{Dir, Open, OsDir};

fn put(main: u64, len: usize) -> Step {
    let value = vec![main.to_be_bytes()[7]; len];
    Step { bucket: Bucket::Key, key: revision(main, 0).to_vec(), value: Some(value) }
}

fn fill(db: &Backend, model: &mut Model, from: u64, to: u64) {
    for start in (from..to).step_by(500) {
        let steps: Vec<Step> = (start..to.min(start + 500)).map(|main| put(main, 100)).collect();
        model.apply(&steps);
        db.apply(model.batch(&steps));
        db.commit().unwrap();
    }
}

fn remove_every(db: &Backend, model: &mut Model, every: usize) {
    let keys = model.rows.keys().filter(|(bucket, _)| *bucket == Bucket::Key);
    let gone: Vec<Step> = keys
        .step_by(every)
        .map(|(bucket, key)| Step { bucket: *bucket, key: key.clone(), value: None })
        .collect();
    for part in gone.chunks(500) {
        model.apply(part);
        db.apply(model.batch(part));
        db.commit().unwrap();
    }
}

fn bytes_of(dir: &Arc<dyn Dir>) -> u64 {
    dir.open(NAME, Open::Read).unwrap().len().unwrap()
}

/// Design 4.3: scattered deletes leave full pages, and their space is used again.
#[test]
fn file_does_not_grow_after_compaction() {
    let dir = MemoryDir::new().shared();
    let db = open(&dir, None);
    let mut model = Model::default();
    fill(&db, &mut model, 1, 10_000);
    let loaded = db.sizes();
    remove_every(&db, &mut model, 2);
    let sizes = db.sizes();
    assert!(sizes.in_use < loaded.in_use * 6 / 10, "{sizes:?} after {loaded:?}");
    fill(&db, &mut model, 20_000, 24_500);
    assert!(db.sizes().total < loaded.total * 11 / 10, "{:?} after {loaded:?}", db.sizes());
    assert_same(&db, &model);
}

/// Design 4.3: space is given back while readers hold a state.
#[test]
fn shrinking_gives_space_back() {
    let dir = MemoryDir::new().shared();
    let aux = dir.subdir("aux").unwrap();
    let db = open(&dir, Some(&aux));
    let mut model = Model::default();
    fill(&db, &mut model, 1, 10_000);
    let (loaded, file) = (db.sizes(), bytes_of(&dir));
    remove_every(&db, &mut model, 2);
    let mut copy = db.copy().unwrap();
    let hash = copy.hash(&|_, _| false).unwrap();
    for _ in 0..10 {
        db.shrink_step().unwrap();
    }
    // The pinned pages are still there.
    assert_eq!(copy.hash(&|_, _| false).unwrap(), hash);
    while !copy.read(50_000).unwrap().is_empty() {}
    drop(copy);
    let mut steps = 0;
    while db.shrink_step().unwrap() {
        steps += 1;
        assert!(steps < 1000, "shrinking does not end");
    }
    db.check().unwrap();
    let sizes = db.sizes();
    assert!(sizes.total < loaded.total * 6 / 10, "{sizes:?} after {loaded:?} in {steps} steps");
    assert!(sizes.total - sizes.in_use < 80 * 1024, "{sizes:?}");
    assert!(bytes_of(&dir) < file * 6 / 10, "the file has {} of {file} bytes", bytes_of(&dir));
    assert_same(&db, &model);
    drop(db);
    assert_same(&open(&dir, Some(&aux)), &model);
}

/// G4.
#[test]
fn applied_position_is_durable_with_the_changes() {
    let dir = MemoryDir::new().shared();
    let db = open(&dir, None);
    let mut batch = Batch::applied(position(7));
    batch.put(Bucket::Lease, b"a", Bytes::from_static(b"1"));
    batch.set_applied(position(9));
    db.apply(batch);
    assert_eq!((db.applied(), db.durable().index.0), (position(9), 0));
    let commit = db.commit().unwrap();
    assert_eq!((commit.durable, db.durable()), (position(9), position(9)));
    assert_eq!(commit.changes, 3);
    let mut upkeep = Batch::upkeep();
    upkeep.delete(Bucket::Lease, b"a");
    db.apply(upkeep);
    assert_eq!(db.commit().unwrap().durable, position(9));
    assert_eq!(db.commit().unwrap().pages, 0, "nothing is left to write");
    let index = db.get(Bucket::Meta, b"consistent_index").unwrap();
    assert_eq!(index.as_deref(), Some(&9_u64.to_be_bytes()[..]));
    drop(db);
    assert_eq!(open(&dir, None).applied(), position(9));
}

#[test]
fn second_opener_is_told_that_the_file_is_locked() {
    let dir = MemoryDir::new().shared();
    let db = open(&dir, None);
    let refused = Backend::open(&dir, NAME, &options(None));
    assert!(matches!(refused, Err(OpenError::Locked { .. })), "{refused:?}");
    let file = dir.open(NAME, Open::Read).unwrap();
    assert!(matches!(ReadOnly::open(file, NAME), Err(OpenError::Locked { .. })));
    drop(db);
    let file = dir.open(NAME, Open::Read).unwrap();
    ReadOnly::open(file, NAME).unwrap();
}

/// A defragmentation renames a new file over the database while a member waits for its lock.
#[test]
fn who_waited_for_a_file_that_was_replaced_gets_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir: Arc<dyn Dir> = OsDir::open(folder.path()).unwrap();
    let patient = Options { lock_timeout: Some(Duration::from_secs(60)), ..options(None) };
    let holder = open(&dir, None);
    let replacement = Backend::open(&dir, "new", &patient).unwrap();
    let mut model = Model::default();
    fill(&replacement, &mut model, 1, 10);
    drop(replacement);
    let waiting = {
        let dir = Arc::clone(&dir);
        thread::spawn(move || Backend::open(&dir, NAME, &patient).unwrap())
    };
    // Most times it has opened the old file by then; the result is the same if it has not.
    thread::sleep(Duration::from_millis(100));
    dir.rename("new", NAME).unwrap();
    drop(holder);
    let db = waiting.join().unwrap();
    assert_same(&db, &model);
    let refused = Backend::open(&dir, NAME, &options(None));
    assert!(matches!(refused, Err(OpenError::Locked { .. })), "the new file is locked");
}

/// Interop 3.5.
#[test]
fn copy_is_the_state_at_its_start() {
    let dir = MemoryDir::new().shared();
    let aux = dir.subdir("aux").unwrap();
    let db = open(&dir, Some(&aux));
    let mut model = Model::default();
    fill(&db, &mut model, 1, 3_000);
    remove_every(&db, &mut model, 3);
    let mut copy = db.copy().unwrap();
    let (before, hash) = (model.clone(), copy.hash(&|_, _| false).unwrap());
    let target = MemoryDir::new().shared();
    let file = target.open(NAME, Open::Create).unwrap();
    let (len, mut at, mut next) = (copy.len(), 0, 5_000);
    loop {
        // Odd sizes, so that pages are cut.
        let bytes = copy.read(33_333).unwrap();
        if bytes.is_empty() {
            break;
        }
        file.write_at(&bytes, at).unwrap();
        at += bytes.len() as u64;
        fill(&db, &mut model, next, next + 100);
        remove_every(&db, &mut model, 5);
        next += 100;
    }
    assert_eq!(at, len);
    drop((copy, file));
    db.check().unwrap();
    let copied = open(&target, None);
    copied.check().unwrap();
    assert_same(&copied, &before);
    drop(copied);
    let read_only = ReadOnly::open(target.open(NAME, Open::Read).unwrap(), NAME).unwrap();
    assert_eq!(read_only.hash(&|_, _| false).unwrap(), hash);
    assert_same(&db, &model);
}

/// Interop 3.4.
#[test]
fn bulk_file_opens_and_holds_all_rows() {
    for rows in [0, 1, 9, 10, 60, 900, 3_000, 20_000] {
        let dir = MemoryDir::new().shared();
        let mut model = Model::default();
        let steps: Vec<Step> = (1..=rows).map(|main| put(main, 40)).collect();
        model.apply(&steps);
        model.applied = 0;
        let keys = model.rows.iter().map(|((_, key), value)| (key.clone(), value.clone()));
        let buckets = Bucket::ALL.map(|bucket| {
            let mine = if bucket == Bucket::Key { keys.clone().collect() } else { Vec::new() };
            (bucket.name(), mine)
        });
        let file = dir.open(NAME, Open::Create).unwrap();
        let len = bulk::write(Arc::clone(&file), 1024, buckets).unwrap();
        assert_eq!(len, file.len().unwrap());
        drop(file);
        let read_only = ReadOnly::open(dir.open(NAME, Open::Read).unwrap(), NAME).unwrap();
        read_only.check().unwrap();
        let sizes = read_only.sizes().unwrap();
        assert_eq!((sizes.total, sizes.in_use), (len, len), "no page is free");
        assert_eq!(read_only.buckets().len(), 11);
        drop(read_only);
        let db = open(&dir, None);
        db.check().unwrap();
        assert_same(&db, &model);
        remove_every(&db, &mut model, 2);
        db.check().unwrap();
        assert_same(&db, &model);
    }
}

#[test]
fn many_keys_are_found_in_the_order_asked() {
    let dir = MemoryDir::new().shared();
    let db = open(&dir, None);
    let mut model = Model::default();
    fill(&db, &mut model, 1, 2_000);
    let steps: Vec<Step> = (2_000..2_300).map(|main| put(main, 10)).collect();
    model.apply(&steps);
    db.apply(model.batch(&steps));
    let asked: Vec<[u8; 17]> = (0..4_000)
        .map(|nth| revision(nth * 7_919 % 2_500, 0))
        .chain((0..600).map(|n| revision(n, 0)))
        .collect();
    let mut found = Vec::new();
    db.get_many(Bucket::Key, &mut asked.iter().copied(), &mut |value| found.push(value)).unwrap();
    assert_eq!(found.len(), asked.len());
    for (key, value) in asked.iter().zip(found) {
        let expected = model.rows.get(&(Bucket::Key, key.to_vec()));
        assert_eq!(value.as_deref(), expected.map(|value| &value[..]), "{key:?}");
    }
}

#[test]
fn scan_stops_where_it_is_told_to() {
    let dir = MemoryDir::new().shared();
    let db = open(&dir, None);
    let mut model = Model::default();
    fill(&db, &mut model, 1, 1_000);
    // More than is copied at once lies in the delta.
    let steps: Vec<Step> = (1_000..4_000).map(|main| put(main, 5)).collect();
    model.apply(&steps);
    db.apply(model.batch(&steps));
    let (from, to) = (revision(990, 0), revision(3_500, 0));
    let mut seen = Vec::new();
    db.scan(Bucket::Key, &from, Some(&to), &mut |key, _| {
        seen.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    let expected: Vec<Vec<u8>> = (990..3_500).map(|main| revision(main, 0).to_vec()).collect();
    assert!(seen == expected, "{} rows instead of {}", seen.len(), expected.len());
    let mut count = 0;
    db.scan(Bucket::Key, b"", None, &mut |_, _| {
        count += 1;
        if count < 2_500 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    assert_eq!(count, 2_500);
}

/// Rule 3 of design 4.3, under real threads.
#[test]
fn readers_never_miss_a_row_while_it_moves() {
    const LAST: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let dir = OsDir::open(folder.path()).unwrap();
    let aux = dir.subdir("aux").unwrap();
    let db = open(&dir, Some(&aux));
    let (newest, oldest, ended) = (AtomicU64::new(0), AtomicU64::new(1), AtomicBool::new(false));
    thread::scope(|scope| {
        for reader in 0..3_u64 {
            let (db, newest, oldest, ended) = (&db, &newest, &oldest, &ended);
            scope.spawn(move || {
                let mut at = reader;
                while !ended.load(Ordering::SeqCst) {
                    let (low, high) =
                        (oldest.load(Ordering::SeqCst), newest.load(Ordering::SeqCst));
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if high <= low {
                        continue;
                    }
                    let main = low + (at >> 33) % (high - low);
                    let value = db.get(Bucket::Key, &revision(main, 0)).unwrap();
                    match value {
                        Some(value) => assert_eq!(value[..8], main.to_be_bytes()),
                        None => assert!(main < oldest.load(Ordering::SeqCst), "{main} is missing"),
                    }
                }
            });
        }
        let mut index = 0;
        for start in (1..LAST).step_by(200) {
            index += 1;
            let mut batch = Batch::applied(position(index));
            for main in start..start + 200 {
                let mut value = vec![0; 64];
                value[..8].copy_from_slice(&main.to_be_bytes());
                batch.put(Bucket::Key, &revision(main, 0), Bytes::from(value));
            }
            db.apply(batch);
            newest.store(start + 200, Ordering::SeqCst);
            if start > 2_000 && index % 3 == 0 {
                let low = oldest.load(Ordering::SeqCst);
                oldest.store(start - 2_000, Ordering::SeqCst);
                let mut batch = Batch::upkeep();
                (low..start - 2_000).for_each(|main| batch.delete(Bucket::Key, &revision(main, 0)));
                db.apply(batch);
            }
            db.commit().unwrap();
            if index % 10 == 0 {
                db.shrink_step().unwrap();
            }
        }
        ended.store(true, Ordering::SeqCst);
    });
    db.check().unwrap();
}
