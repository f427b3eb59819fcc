//! The index against plain maps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::{KeyRange, Revision};
use bytes::Bytes;
use proptest::prelude::*;

use super::tree::COUNTED_NODES;
use super::{Change, Found, Index, Stamp, Swept};

/// All rows of all keys, oldest first, with create revision and version.
#[derive(Clone, Debug, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<(Stamp, i64, i64)>>,
    revision: i64,
}

impl Model {
    fn put(&mut self, key: &[u8], stamp: Stamp) {
        let rows = self.keys.entry(key.to_vec()).or_default();
        let (create, version) = match rows.last() {
            Some((last, create, version)) if !last.is_deletion() => (*create, version + 1),
            Some(_) | None => (stamp.main(), 1),
        };
        rows.push((stamp, create, version));
    }

    fn delete(&mut self, key: &[u8], stamp: Stamp) {
        self.keys.get_mut(key).unwrap().push((stamp, 0, 0));
    }

    fn found(&self, key: &[u8], at: Option<i64>) -> Option<Found> {
        let rows = self.keys.get(key)?;
        let last = rows.iter().rfind(|(stamp, ..)| at.is_none_or(|at| stamp.main() <= at))?;
        let (stamp, create, version) = *last;
        (!stamp.is_deletion()).then_some(Found { stamp, create, version })
    }

    fn range(&self, keys: &KeyRange, at: Option<i64>) -> Vec<(Vec<u8>, Found)> {
        let inside = self.keys.keys().filter(|key| keys.contains(key));
        inside.filter_map(|key| Some((key.clone(), self.found(key, at)?))).collect()
    }

    /// KV-29: the newest row at or below the boundary stays, unless it is a deletion before it.
    fn compact(&mut self, at: i64) -> Vec<Stamp> {
        let mut dropped = Vec::new();
        for rows in self.keys.values_mut() {
            let newest = rows.iter().map(|row| row.0).filter(|stamp| stamp.main() <= at).max();
            rows.retain(|(stamp, ..)| {
                let stays = !stamp.is_deletion() || stamp.main() == at;
                let kept = at < stamp.main() || (Some(*stamp) == newest && stays);
                if !kept {
                    dropped.push(*stamp);
                }
                kept
            });
        }
        self.keys.retain(|_, rows| !rows.is_empty());
        dropped.sort_unstable();
        dropped
    }
}

/// What the index holds, in the model's form.
fn dump(index: &Index) -> BTreeMap<Vec<u8>, Vec<(Stamp, i64, i64)>> {
    let mut all = BTreeMap::new();
    index.root.for_each(&mut |keys, at, entry| {
        all.insert(keys.key(at), entry.dump(&index.histories));
    });
    all
}

/// The index as it is built from rows in their order.
fn rebuilt(model: &Model) -> Index {
    let rows = model.keys.iter().flat_map(|(key, rows)| rows.iter().map(move |row| (*row, key)));
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable();
    let mut index = Index::default();
    for ((stamp, create, version), key) in rows {
        let restored = Change::Restore { create, version };
        let change = if stamp.is_deletion() { Change::Delete } else { restored };
        index.change(key, stamp, change);
    }
    index
}

fn check(index: &Index, model: &Model, spans: &[KeyRange], ats: &[i64]) {
    index.root.verify(0);
    assert_eq!(dump(index), model.keys);
    let live = model.keys.keys().filter(|key| model.found(key, None).is_some());
    assert_eq!(index.len(), live.count());
    for at in ats.iter().map(|at| Some(*at)).chain([None]) {
        for span in spans {
            let expected = model.range(span, at);
            let mut seen = Vec::new();
            let walk = index.visit(span, at, &mut |key, found| {
                seen.push((key.to_vec(), found));
                ControlFlow::Continue(())
            });
            assert!(walk.is_continue());
            assert_eq!(seen, expected, "rows of {span:?} at {at:?}");
            assert_eq!(index.count(span, at), expected.len(), "count of {span:?} at {at:?}");
        }
        for key in model.keys.keys() {
            assert_eq!(index.get(key, at), model.found(key, at), "{key:?} at {at:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A transaction that puts or deletes these keys.
    Change { keys: Vec<Vec<u8>>, delete: bool },
    /// A compaction this far back from now, this many keys at a time.
    Compact { back: i64, keys: usize },
}

/// Keys with long common beginnings, short ones, and ones that differ only in zero bytes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..60_u8).prop_map(|n| format!("/registry/pods/{n:03}").into_bytes()),
        2 => (0..20_u8).prop_map(|n| format!("/registry/pods/{n:03}/status").into_bytes()),
        2 => (0..30_u8).prop_map(|n| vec![n]),
        1 => (0..6_usize).prop_map(|n| vec![0; n]),
        1 => (0..6_usize).prop_map(|n| vec![0xff; n]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let keys =
        prop::collection::btree_set(key(), 1..12).prop_map(|keys| keys.into_iter().collect());
    prop_oneof![
        8 => (keys, prop::bool::weighted(0.35)).prop_map(|(keys, delete)| Step::Change { keys, delete }),
        1 => (0..20_i64, 1..40_usize).prop_map(|(back, keys)| Step::Compact { back, keys }),
    ]
}

fn span() -> impl Strategy<Value = KeyRange> {
    let bytes = || key().prop_map(Bytes::from);
    prop_oneof![
        bytes().prop_map(KeyRange::One),
        bytes().prop_map(KeyRange::From),
        (bytes(), bytes()).prop_map(|(start, end)| KeyRange::Between { start, end }),
    ]
}

fn apply(index: &mut Index, model: &mut Model, step: &Step) {
    match step {
        Step::Change { keys, delete } => {
            let main = model.revision + 1;
            let mut sub = 0;
            for key in keys {
                if *delete && model.found(key, None).is_none() {
                    continue;
                }
                let stamp = Stamp::new(Revision { main, sub }, *delete);
                let before = model.found(key, None);
                let change = if *delete { Change::Delete } else { Change::Put };
                let changed = index.change(key, stamp, change);
                if *delete {
                    model.delete(key, stamp)
                } else {
                    model.put(key, stamp)
                }
                assert_eq!((changed.before, changed.after), (before, model.found(key, None)));
                sub += 1;
                model.revision = main;
            }
        }
        Step::Compact { back, keys } => {
            let at = model.revision - back;
            let mut swept = Swept::default();
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                from = index.compact(at, &key, *keys, &mut swept);
                index.root.verify(0);
            }
            assert_eq!(swept.dropped.into_iter().collect::<Vec<_>>(), model.compact(at));
            let rows = model.keys.values().flatten();
            assert_eq!(swept.any_kept, rows.clone().any(|(stamp, ..)| stamp.main() <= at));
        }
    }
}

proptest! {
    /// KV-15, KV-29, KV-34, KV-35: whatever happens, the index says what the model says, now and as
    /// of old revisions, and so does an index built anew from the rows.
    #[test]
    fn index_equals_the_model(
        steps in prop::collection::vec(step(), 1..80),
        spans in prop::collection::vec(span(), 1..6),
        back in prop::collection::vec(0..30_i64, 0..3),
    ) {
        let mut index = Index::default();
        let mut model = Model::default();
        let mut boundary = 0;
        for step in &steps {
            apply(&mut index, &mut model, step);
            if let Step::Compact { back, .. } = step {
                boundary = boundary.max(model.revision - back);
            }
        }
        let ats: Vec<_> = back.iter().map(|back| (model.revision - back).max(boundary)).collect();
        check(&index, &model, &spans, &ats);
        check(&rebuilt(&model), &model, &spans, &ats);
    }
}

/// KV-34: ascending, descending and scattered keys all make a sound tree, and a compaction that
/// drops everything leaves an empty one.
#[test]
fn thousands_of_keys_come_and_go() {
    let orders: [fn(i64) -> i64; 3] = [|n| n, |n| 3000 - n, |n| n * 1097 % 3001];
    for order in orders {
        let mut index = Index::default();
        let mut model = Model::default();
        for n in 0..3000 {
            let step =
                Step::Change { keys: vec![order(n).to_string().into_bytes()], delete: false };
            apply(&mut index, &mut model, &step);
        }
        check(&index, &model, &[KeyRange::From(Bytes::new())], &[1500]);
        let keys = model.keys.keys().cloned().collect();
        apply(&mut index, &mut model, &Step::Change { keys, delete: true });
        assert_eq!(index.count(&KeyRange::From(Bytes::new()), None), 0);
        apply(&mut index, &mut model, &Step::Compact { back: -1, keys: 100 });
        assert_eq!(dump(&index).len(), 0);
        assert!(index.memory_bytes() < 200_000, "{} bytes are left", index.memory_bytes());
    }
}

/// KV-03, KV-09: a count looks at the two ends of the range, and as of an older revision also at
/// what changed since, not at every key.
#[test]
fn counts_look_into_few_nodes() {
    let mut index = Index::default();
    let mut main = 1;
    let mut put = |index: &mut Index, n: i64| {
        main += 1;
        let stamp = Stamp::new(Revision { main, sub: 0 }, false);
        index.change(format!("{n:05}").as_bytes(), stamp, Change::Put);
        main
    };
    for n in 0..10_000 {
        put(&mut index, n * 7919 % 10_000);
    }
    let then = put(&mut index, 5000);
    for n in 0..20 {
        put(&mut index, n * 500);
    }
    let visited = |keys: &KeyRange, at, expected| {
        COUNTED_NODES.set(0);
        assert_eq!(index.count(keys, at), expected);
        COUNTED_NODES.get()
    };
    let all = KeyRange::From(Bytes::new());
    let (start, end) = (Bytes::from_static(b"01000"), Bytes::from_static(b"09000"));
    let most = KeyRange::Between { start, end };
    // Nodes of a test have at most four children and leaves eight keys: there are about 2,500, and
    // a path has about ten.
    assert!(visited(&all, None, 10_000) < 20);
    assert!(visited(&most, None, 8000) < 40);
    let since = visited(&all, Some(then), 10_000);
    assert!(since < 21 * 15, "{since} nodes");
}
