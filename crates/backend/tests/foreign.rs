//! Files as other programs leave them (interop.md 3.1).
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::sync::Arc;

use common::{Model, NAME, Step, assert_same, options, revision};
use retcd_backend::{Backend, Batch, Bucket, OpenError, Options, ReadOnly, bulk};
use vfs::memory::MemoryDir;
use vfs::{Dir, File, Open};

fn model(rows: u64) -> Model {
    let mut model = Model::default();
    for main in 1..=rows {
        let value = vec![main.to_be_bytes()[7]; 200];
        model.rows.insert((Bucket::Key, revision(main, 0).to_vec()), value);
    }
    model.rows.insert((Bucket::Auth, b"authEnabled".to_vec()), vec![0]);
    model
}

/// A file with these rows in one pass.
fn write(dir: &Arc<dyn Dir>, model: &Model, page_bytes: usize, extra: &[&str]) -> Arc<dyn File> {
    let file = dir.open(NAME, Open::Create).unwrap();
    let mut names: Vec<&str> = Bucket::ALL.iter().map(|bucket| bucket.name()).collect();
    names.extend(extra);
    names.sort_unstable();
    let buckets = names.into_iter().map(|name| {
        let mine = model.rows.iter().filter(move |((bucket, _), _)| bucket.name() == name);
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> =
            mine.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        if extra.contains(&name) {
            rows.extend((0..300_u16).map(|key| (key.to_be_bytes().to_vec(), vec![9; 50])));
        }
        (name, rows)
    });
    bulk::write(Arc::clone(&file), page_bytes, buckets).unwrap();
    file
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// Changes numbers of a meta page and makes its checksum right again.
fn change_meta(file: &Arc<dyn File>, offset: u64, changes: &[(usize, u64)]) {
    let mut bytes = [0; 80];
    file.read_exact_at(&mut bytes, offset).unwrap();
    for (at, value) in changes {
        bytes[*at..*at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let checksum = fnv(&bytes[16..72]);
    bytes[72..80].copy_from_slice(&checksum.to_le_bytes());
    file.write_at(&bytes, offset).unwrap();
}

#[test]
fn every_page_size_opens_with_either_meta_page() {
    for shift in 10..=16 {
        let page_bytes = 1_usize << shift;
        for damaged in 0..2_u64 {
            let dir = MemoryDir::new().shared();
            let mut model = model(700);
            let file = write(&dir, &model, page_bytes, &[]);
            file.write_at(&[0xFF; 40], damaged * page_bytes as u64 + 20).unwrap();
            drop(file);
            let read_only = ReadOnly::open(dir.open(NAME, Open::Read).unwrap(), NAME).unwrap();
            assert_eq!(read_only.page_bytes(), page_bytes);
            read_only.check().unwrap();
            drop(read_only);
            // The size for new files does not matter.
            let db = Backend::open(&dir, NAME, &options(None)).unwrap();
            assert_same(&db, &model);
            for round in 0..3 {
                let key = revision(1_000 + round, 0).to_vec();
                let steps = [Step { bucket: Bucket::Key, key, value: Some(vec![1; 300]) }];
                model.apply(&steps);
                db.apply(model.batch(&steps));
                db.commit().unwrap();
                db.check().unwrap();
            }
            drop(db);
            let db = Backend::open(&dir, NAME, &options(None)).unwrap();
            assert_same(&db, &model);
        }
    }
}

#[test]
fn both_meta_pages_damaged_is_no_new_database() {
    let dir = MemoryDir::new().shared();
    let file = write(&dir, &model(10), 1024, &[]);
    for page in 0..2 {
        file.write_at(&[0; 64], page * 1024 + 16).unwrap();
    }
    drop(file);
    let refused = Backend::open(&dir, NAME, &options(None));
    assert!(matches!(refused, Err(OpenError::Damaged { page: 0, .. })), "{refused:?}");
}

#[test]
fn file_that_ends_too_early_is_damaged() {
    let dir = MemoryDir::new().shared();
    let file = write(&dir, &model(100), 1024, &[]);
    file.set_len(file.len().unwrap() - 1).unwrap();
    drop(file);
    let refused = Backend::open(&dir, NAME, &options(None));
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
}

/// bbolt stores the freelist unless it is told not to. Until our first commit is durable the old
/// meta page counts, so its freelist must not be written over by that commit.
#[test]
fn stored_freelist_stays_until_a_commit_is_durable() {
    let dir = MemoryDir::new().shared();
    let mut model = model(100);
    let file = write(&dir, &model, 1024, &[]);
    let pages = file.len().unwrap() / 1024;
    let mut freelist = [0; 1024];
    freelist[..8].copy_from_slice(&pages.to_le_bytes());
    freelist[8] = 0x10;
    file.write_at(&freelist, pages * 1024).unwrap();
    for page in 0..2 {
        change_meta(&file, page * 1024, &[(48, pages), (56, pages + 1)]);
    }
    let db = Backend::open(&dir, NAME, &options(None)).unwrap();
    for round in 0..4 {
        let key = revision(1_000 + round, 0).to_vec();
        let steps = [Step { bucket: Bucket::Key, key, value: Some(vec![1; 300]) }];
        model.apply(&steps);
        db.apply(model.batch(&steps));
        db.commit().unwrap();
        db.check().unwrap();
        let mut found = [0; 1024];
        file.read_exact_at(&mut found, pages * 1024).unwrap();
        assert!(round > 0 || found == freelist, "the freelist was written over too early");
    }
    let sizes = db.sizes();
    assert!(sizes.total - sizes.in_use < 20 * 1024, "{sizes:?}");
    drop(db);
    assert_same(&Backend::open(&dir, NAME, &options(None)).unwrap(), &model);
}

#[test]
fn unknown_buckets_are_kept() {
    let dir = MemoryDir::new().shared();
    let mut model = model(300);
    drop(write(&dir, &model, 1024, &["aaa", "lessor", "zzz"]));
    let aux = dir.subdir("aux").unwrap();
    let db = Backend::open(&dir, NAME, &options(Some(&aux))).unwrap();
    for round in 0..20 {
        let gone = revision(round * 9 + 1, 0).to_vec();
        let steps = [
            Step { bucket: Bucket::Key, key: gone, value: None },
            Step {
                bucket: Bucket::Key,
                key: revision(1_000 + round, 0).to_vec(),
                value: Some(vec![1; 900]),
            },
        ];
        model.apply(&steps);
        db.apply(model.batch(&steps));
        db.commit().unwrap();
        db.check().unwrap();
    }
    while db.shrink_step().unwrap() {}
    db.check().unwrap();
    drop(db);
    for aux in [None, Some(&aux)] {
        let db = Backend::open(&dir, NAME, &options(aux)).unwrap();
        db.check().unwrap();
        assert_same(&db, &model);
    }
    let db = ReadOnly::open(dir.open(NAME, Open::Read).unwrap(), NAME).unwrap();
    let mut foreign = 0;
    db.scan_all(&mut |bucket, _, value| {
        if ["aaa", "lessor", "zzz"].contains(&bucket) {
            assert_eq!(value, [9; 50]);
            foreign += 1;
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((foreign, db.buckets().len()), (900, 14));
}

#[test]
fn missing_buckets_are_made_by_the_first_commit() {
    let dir = MemoryDir::new().shared();
    let file = dir.open(NAME, Open::Create).unwrap();
    bulk::write(file, 4096, [("key", [(revision(1, 0), b"value")])]).unwrap();
    let db = Backend::open(&dir, NAME, &Options::default()).unwrap();
    assert_eq!(db.get(Bucket::Lease, b"a").unwrap(), None);
    let mut batch = Batch::upkeep();
    batch.delete(Bucket::Lease, b"a");
    db.apply(batch);
    db.commit().unwrap();
    db.check().unwrap();
    drop(db);
    let db = ReadOnly::open(dir.open(NAME, Open::Read).unwrap(), NAME).unwrap();
    let names: Vec<&str> = Bucket::ALL.iter().map(|bucket| bucket.name()).collect();
    assert_eq!(db.buckets(), names);
    assert_eq!(db.get(Bucket::Key, &revision(1, 0)).unwrap().as_deref(), Some(&b"value"[..]));
}
