//! Damaged bytes are detected or do not matter (reliability D15, D16, D19, G11).
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{Model, NAME, Step, assert_same, open, options, revision, rows};
use proptest::prelude::*;
use retcd_backend::{Backend, Bucket, ReadError, ReadOnly};
use vfs::memory::MemoryDir;
use vfs::{Dir, Open};

const SUMS: &str = "db.sum";
const PAGE: u64 = 1024;

/// A small database with every sort of page, closed, and what it holds.
fn small() -> (MemoryDir, Model) {
    let disk = MemoryDir::new();
    let dir = disk.shared();
    let db = open(&dir, Some(&dir.subdir("aux").unwrap()));
    let mut model = Model::default();
    for round in 0..4_u64 {
        let mut steps: Vec<Step> = (0..20)
            .map(|sub| Step {
                bucket: Bucket::Key,
                key: revision(round + 1, sub).to_vec(),
                value: Some(vec![b'a' + u8::try_from(round).unwrap(); 100]),
            })
            .collect();
        steps[3].value = Some(vec![b'x'; 1500]);
        steps.push(Step { bucket: Bucket::Auth, key: b"k".to_vec(), value: Some(vec![1]) });
        model.apply(&steps);
        db.apply(model.batch(&steps));
        db.commit().unwrap();
    }
    (disk, model)
}

fn change(dir: &Arc<dyn Dir>, name: &str, at: u64, change: impl Fn(u8) -> u8) {
    let file = dir.open(name, Open::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_at(&[change(byte[0])], at).unwrap();
}

/// Reads all rows; the first failure, if there is one.
fn read(db: &Backend) -> Result<(), ReadError> {
    for bucket in Bucket::ALL {
        db.scan(bucket, b"", None, &mut |_, _| ControlFlow::Continue(()))?;
    }
    Ok(())
}

/// `true` if the damage was noticed; panics if it was believed.
fn noticed(disk: &MemoryDir, model: &Model, context: &str) -> bool {
    let dir = disk.shared();
    let aux = dir.subdir("aux").unwrap();
    let Ok(db) = Backend::open(&dir, NAME, &options(Some(&aux))) else { return true };
    let whole = read(&db);
    for ((bucket, key), value) in &model.rows {
        if let Ok(found) = db.get(*bucket, key) {
            assert_eq!(found.as_deref(), Some(&value[..]), "{context}: {key:?}");
        }
    }
    match whole {
        Err(_) => true,
        Ok(()) => {
            assert_eq!(rows(&db), model.rows, "{context}");
            assert_eq!(db.applied().index.0, model.applied, "{context}");
            db.check().is_err()
        }
    }
}

/// D15.
#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let (disk, model) = small();
    let dir = disk.shared();
    let len = open(&dir, Some(&dir.subdir("aux").unwrap())).sizes().total;
    let mut noticed_count = 0_u64;
    for at in 0..len {
        let damaged = disk.copy();
        change(&damaged.shared(), NAME, at, |byte| byte ^ (1 << (at % 8)));
        let context = format!("byte {at} of page {}", at / PAGE);
        noticed_count += u64::from(noticed(&damaged, &model, &context));
    }
    // The rest lies in free pages, or behind what a meta page says.
    assert!(noticed_count > len / 2, "{noticed_count} of {len} flips were noticed");
}

/// D15, for the side file.
#[test]
fn every_flipped_byte_of_the_sums_is_noticed_or_harmless() {
    let (disk, model) = small();
    let aux = disk.shared().subdir("aux").unwrap();
    let len = aux.open(SUMS, Open::Read).unwrap().len().unwrap();
    for at in (0..1200).chain(4096..len) {
        let damaged = disk.copy();
        change(&damaged.shared().subdir("aux").unwrap(), SUMS, at, |byte| byte ^ 4);
        noticed(&damaged, &model, &format!("byte {at} of the sums"));
    }
}

/// D16.
#[test]
fn zeroed_and_swapped_pages_are_noticed() {
    let (disk, model) = small();
    let pages = {
        let dir = disk.shared();
        open(&dir, Some(&dir.subdir("aux").unwrap())).sizes().total / PAGE
    };
    for page in 0..pages {
        let zeroed = disk.copy();
        let file = zeroed.shared().open(NAME, Open::Write).unwrap();
        file.write_at(&[0; 1024], page * PAGE).unwrap();
        drop(file);
        noticed(&zeroed, &model, &format!("page {page} zeroed"));
        for other in 0..pages {
            let swapped = disk.copy();
            let file = swapped.shared().open(NAME, Open::Write).unwrap();
            let mut bytes = [0; 1024];
            file.read_exact_at(&mut bytes, other * PAGE).unwrap();
            file.write_at(&bytes, page * PAGE).unwrap();
            drop(file);
            noticed(&swapped, &model, &format!("page {other} in place of {page}"));
        }
    }
}

/// G11: the meta page that counts is restored from the side file, not answered with the state
/// before it.
#[test]
fn damaged_meta_page_is_repaired() {
    let (disk, model) = small();
    for page in 0..2 {
        let damaged = disk.copy();
        let dir = damaged.shared();
        change(&dir, NAME, page * PAGE + 40, |byte| !byte);
        let aux = dir.subdir("aux").unwrap();
        assert_same(&open(&dir, Some(&aux)), &model);
        let file = dir.open(NAME, Open::Write).unwrap();
        drop(file);
        assert_same(&open(&dir, None), &model);
    }
}

/// A12: what is beside the database may always be deleted.
#[test]
fn missing_sums_are_made_again() {
    let (disk, mut model) = small();
    let dir = disk.shared();
    let aux = dir.subdir("aux").unwrap();
    aux.remove(SUMS).unwrap();
    let db = open(&dir, Some(&aux));
    assert_same(&db, &model);
    let steps = [Step { bucket: Bucket::Key, key: revision(9, 0).to_vec(), value: Some(vec![1]) }];
    model.apply(&steps);
    db.apply(model.batch(&steps));
    db.commit().unwrap();
    drop(db);
    change(&dir, NAME, PAGE * 5 + 700, |byte| byte ^ 1);
    noticed(&disk, &model, "after the sums were made again");
}

/// D19: an older copy of the file is not measured with newer sums.
#[test]
fn older_copy_of_the_file_opens() {
    let (disk, model) = small();
    let newer = disk.copy();
    let dir = newer.shared();
    let aux = dir.subdir("aux").unwrap();
    let db = open(&dir, Some(&aux));
    let mut next = model.clone();
    for round in 10..16 {
        let key = revision(round, 0).to_vec();
        let steps = [Step { bucket: Bucket::Key, key, value: Some(vec![7; 900]) }];
        next.apply(&steps);
        db.apply(next.batch(&steps));
        db.commit().unwrap();
    }
    drop(db);
    let old = disk.shared().open(NAME, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(old.len().unwrap()).unwrap()];
    old.read_exact_at(&mut bytes, 0).unwrap();
    let file = dir.open(NAME, Open::Write).unwrap();
    file.write_at(&bytes, 0).unwrap();
    drop(file);
    let db = open(&dir, Some(&aux));
    assert_same(&db, &model);
    db.check().unwrap();
}

/// G11: a copy for another member or for an operator has no byte that fails its checksum.
#[test]
fn copy_stops_at_a_damaged_page() {
    let (disk, _) = small();
    let dir = disk.shared();
    let db = open(&dir, Some(&dir.subdir("aux").unwrap()));
    let whole = db.copy().unwrap();
    let mut refused = 0_u64;
    for page in 2..whole.len() / PAGE {
        change(&dir, NAME, page * PAGE + 900, |byte| !byte);
        let mut copy = db.copy().unwrap();
        let mut read = 0;
        let error = loop {
            match copy.read(1000) {
                Ok(bytes) if bytes.is_empty() => break None,
                Ok(bytes) => read += bytes.len() as u64,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = error {
            assert!(
                matches!(&error, ReadError::Damaged { page: at, .. } if *at == page),
                "{error}"
            );
            assert!(read <= page * PAGE, "{read} bytes were given before page {page}");
            refused += 1;
        }
        change(&dir, NAME, page * PAGE + 900, |byte| !byte);
    }
    assert_eq!(refused, db.sizes().in_use / PAGE - 2, "every page in use matters");
}

fn walk_over(disk: &MemoryDir) {
    let dir = disk.shared();
    let file = dir.open(NAME, Open::Read).unwrap();
    if let Ok(db) = ReadOnly::open(file, NAME) {
        let mut seen = 0_u32;
        drop(db.scan_all(&mut |_, _, _| {
            seen += 1;
            if seen < 100_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }));
        drop((db.check(), db.sizes(), db.applied(), db.buckets()));
        drop(db.get(Bucket::Key, &revision(2, 3)));
    }
    if let Ok(db) = Backend::open(&dir, NAME, &options(None)) {
        drop((db.check(), db.get(Bucket::Key, &revision(2, 3))));
    }
    let aux = dir.subdir("fresh").unwrap();
    drop(Backend::open(&dir, NAME, &options(Some(&aux))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// G28: without checksums damage may be believed, but nothing panics and nothing runs on.
    #[test]
    fn no_bytes_make_a_reader_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let (disk, _) = small();
        let dir = disk.shared();
        let file = dir.open(NAME, Open::Write).unwrap();
        let len = usize::try_from(file.len().unwrap()).unwrap().min(40 * 1024);
        for (at, byte) in changes {
            // Headers and elements are where it hurts.
            let at = at.index(len);
            let at = if at % 3 == 0 { at / 1024 * 1024 + at % 64 } else { at };
            file.write_at(&[byte], at as u64).unwrap();
        }
        if let Some(cut) = cut {
            file.set_len(cut.index(len) as u64).unwrap();
        }
        drop(file);
        walk_over(&disk);
    }
}
