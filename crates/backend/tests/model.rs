//! Random use, compared with a plain map.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::sync::Arc;

use common::{Model, NAME, Step, assert_same, count_branches, options, revision};
use proptest::prelude::*;
use retcd_backend::{Backend, Bucket, Options};
use vfs::memory::MemoryDir;
use vfs::{Dir, OsDir};

/// What a test does.
#[derive(Clone, Debug)]
enum Action {
    /// Rows at the right edge of `key`.
    Append {
        count: u64,
        value_len: usize,
    },
    /// Every `every`th row of `key` goes, as compaction does it.
    Compact {
        every: usize,
        from: usize,
        count: usize,
    },
    /// Rows anywhere in a small bucket.
    Scatter {
        bucket: Bucket,
        rows: Vec<(u16, Option<usize>)>,
    },
    /// All rows of a bucket go.
    Clear(Bucket),
    Commit,
    Reopen,
    Shrink,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let bucket = || prop::sample::select(&Bucket::ALL[..]);
    let value_len = || prop_oneof![8 => 0_usize..120, 1 => 300_usize..1100, 1 => 1000_usize..6000];
    let row = (0_u16..400, prop::option::weighted(0.7, value_len()));
    let action = prop_oneof![
        4 => (1_u64..120, value_len())
            .prop_map(|(count, value_len)| Action::Append { count, value_len }),
        3 => (1_usize..6, 0_usize..400, 1_usize..400)
            .prop_map(|(every, from, count)| Action::Compact { every, from, count }),
        4 => (bucket(), prop::collection::vec(row, 1..120))
            .prop_map(|(bucket, rows)| Action::Scatter { bucket, rows }),
        1 => bucket().prop_map(Action::Clear),
        6 => Just(Action::Commit),
        1 => Just(Action::Reopen),
        2 => Just(Action::Shrink),
    ];
    prop::collection::vec(action, 1..30)
}

fn steps(action: &Action, model: &Model, next: &mut u64) -> Vec<Step> {
    let in_bucket = |bucket: Bucket| {
        model.rows.keys().filter(move |(at, _)| *at == bucket).map(|(_, key)| key.clone())
    };
    match action {
        Action::Append { count, value_len } => (0..*count)
            .map(|_| {
                *next += 1;
                let value = vec![next.to_be_bytes()[7]; *value_len];
                Step { bucket: Bucket::Key, key: revision(*next, 0).to_vec(), value: Some(value) }
            })
            .collect(),
        Action::Compact { every, from, count } => in_bucket(Bucket::Key)
            .skip(*from)
            .step_by(*every)
            .take(*count)
            .map(|key| Step { bucket: Bucket::Key, key, value: None })
            .collect(),
        Action::Scatter { bucket, rows } => rows
            .iter()
            .map(|(key, len)| Step {
                bucket: *bucket,
                key: format!("{key:04}/{}", "k".repeat(usize::from(key % 50) * 8)).into_bytes(),
                value: len.map(|len| vec![b'v'; len]),
            })
            .collect(),
        Action::Clear(bucket) => {
            in_bucket(*bucket).map(|key| Step { bucket: *bucket, key, value: None }).collect()
        }
        Action::Commit | Action::Reopen | Action::Shrink => Vec::new(),
    }
}

fn run(dir: &Arc<dyn Dir>, actions: &[Action], page_bytes: usize, sums: bool) {
    let aux = sums.then(|| dir.subdir("aux").unwrap());
    let options = Options { page_bytes, ..options(aux.as_ref()) };
    let open = || Backend::open(dir, NAME, &options).unwrap();
    let mut db = open();
    let mut model = Model::default();
    let mut next = 0;
    for action in actions {
        match action {
            Action::Commit => {
                db.commit().unwrap();
                db.check().unwrap();
                count_branches(dir);
            }
            Action::Reopen => {
                db.commit().unwrap();
                drop(db);
                db = open();
                db.check().unwrap();
            }
            Action::Shrink => shrink(&db),
            Action::Append { .. }
            | Action::Compact { .. }
            | Action::Scatter { .. }
            | Action::Clear(_) => {
                let steps = steps(action, &model, &mut next);
                model.apply(&steps);
                db.apply(model.batch(&steps));
            }
        }
    }
    assert_same(&db, &model);
    db.commit().unwrap();
    db.check().unwrap();
    assert_same(&db, &model);
    drop(db);
    let db = open();
    db.check().unwrap();
    assert_same(&db, &model);
}

fn shrink(db: &Backend) {
    for _ in 0..100 {
        if !db.shrink_step().unwrap() {
            db.check().unwrap();
            return;
        }
    }
    panic!("shrinking does not end");
}

fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if default.cases == 256 { cases } else { default.cases };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

fn page_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(1024), 1 => Just(4096), 1 => Just(16_384)]
}

proptest! {
    #![proptest_config(config(128))]

    /// G4, G11.
    #[test]
    fn database_does_what_a_plain_map_does(
        actions in actions(),
        page_bytes in page_bytes(),
        sums in any::<bool>(),
    ) {
        run(&MemoryDir::new().shared(), &actions, page_bytes, sums);
    }
}

proptest! {
    #![proptest_config(config(12))]

    /// G4, G11.
    #[test]
    fn database_on_the_real_disk_does_what_a_plain_map_does(actions in actions()) {
        let folder = tempfile::tempdir().unwrap();
        run(&OsDir::open(folder.path()).unwrap(), &actions, 1024, true);
    }
}
