//! What the tests of the database share: a plain model, and comparing with it.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{Index, LogPosition, Term};
use bytes::Bytes;
use retcd_backend::{Backend, Batch, Bucket, Options};
use vfs::Dir;

/// Name of the file in all tests.
pub(crate) const NAME: &str = "db";

/// What the database should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<(Bucket, Vec<u8>), Vec<u8>>,
    pub(crate) applied: u64,
}

/// A changed row.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) bucket: Bucket,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Model {
    pub(crate) fn apply(&mut self, steps: &[Step]) {
        self.applied += 1;
        for step in steps {
            let key = (step.bucket, step.key.clone());
            match &step.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
    }

    /// The batch that does to a database what [`Model::apply`] did to this model.
    pub(crate) fn batch(&self, steps: &[Step]) -> Batch {
        let mut batch = Batch::applied(position(self.applied));
        for step in steps {
            match &step.value {
                Some(value) => batch.put(step.bucket, &step.key, Bytes::copy_from_slice(value)),
                None => batch.delete(step.bucket, &step.key),
            }
        }
        batch
    }
}

pub(crate) fn position(index: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(index / 10 + 1) }
}

/// All rows, but for the applied position in `meta`.
pub(crate) fn rows(db: &Backend) -> BTreeMap<(Bucket, Vec<u8>), Vec<u8>> {
    let mut rows = BTreeMap::new();
    for bucket in Bucket::ALL {
        let mut last: Option<Bytes> = None;
        db.scan(bucket, b"", None, &mut |key, value| {
            assert!(last.as_ref().is_none_or(|last| last < key), "{last:?} before {key:?}");
            last = Some(key.clone());
            rows.insert((bucket, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    rows.remove(&(Bucket::Meta, b"consistent_index".to_vec()));
    rows.remove(&(Bucket::Meta, b"term".to_vec()));
    rows
}

/// The state of a database as a model.
pub(crate) fn state(db: &Backend) -> Model {
    Model { rows: rows(db), applied: db.applied().index.0 }
}

/// Panics with what differs.
pub(crate) fn assert_same(db: &Backend, model: &Model) {
    let found = rows(db);
    for (key, value) in &model.rows {
        let stored = found.get(key);
        assert!(stored == Some(value), "{key:?} should be {value:?} and is {stored:?}");
        assert_eq!(db.get(key.0, &key.1).unwrap().as_deref(), Some(&value[..]), "{key:?}");
    }
    for key in found.keys() {
        assert!(model.rows.contains_key(key), "{key:?} should not be there");
    }
    assert_eq!(db.applied(), position_or_zero(model.applied));
}

pub(crate) fn position_or_zero(index: u64) -> LogPosition {
    if index == 0 { LogPosition::default() } else { position(index) }
}

/// A database with small pages and a small cache, so that little data makes deep trees.
pub(crate) fn open(dir: &Arc<dyn Dir>, aux: Option<&Arc<dyn Dir>>) -> Backend {
    Backend::open(dir, NAME, &options(aux)).unwrap()
}

pub(crate) fn options(aux: Option<&Arc<dyn Dir>>) -> Options {
    Options {
        page_bytes: 1024,
        cache_bytes_max: 256 << 10,
        aux: aux.cloned(),
        lock_timeout: Some(std::time::Duration::ZERO),
        ..Options::default()
    }
}

/// Key of a revision in bucket `key`.
pub(crate) fn revision(main: u64, sub: u64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// Walks over the file's bytes without the crate's help and panics if a branch has a single child,
/// at which bbolt would panic when it deletes. Returns how many branches there are.
pub(crate) fn count_branches(dir: &Arc<dyn Dir>) -> usize {
    let file = dir.open(NAME, vfs::Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let number = |at: usize, len: usize| {
        let mut buffer = [0; 8];
        buffer[..len].copy_from_slice(&bytes[at..at + len]);
        usize::try_from(u64::from_le_bytes(buffer)).unwrap()
    };
    let page_bytes = number(24, 4);
    let metas = [0, page_bytes];
    let current = metas.into_iter().max_by_key(|meta| number(meta + 64, 8)).unwrap();
    let mut left = vec![(number(current + 32, 8), true)];
    let mut branches = 0;
    while let Some((page, root)) = left.pop() {
        let start = page * page_bytes;
        let count = number(start + 10, 2);
        if number(start + 8, 2) == 1 {
            assert!(count > 1, "branch {page} has {count} children");
            branches += 1;
            left.extend((0..count).map(|at| (number(start + 16 + at * 16 + 8, 8), root)));
        } else if root {
            for element in (0..count).map(|at| start + 16 + at * 16) {
                let value = element + number(element + 4, 4) + number(element + 8, 4);
                let below = number(value, 8);
                left.extend((below != 0).then_some((below, false)));
            }
        }
    }
    branches
}
