//! Random operations against a map that does the same in the simplest way; and the store read back
//! from its rows and from its JSON at the end.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use retcd_v2store::{
    self as v2store, Change, ClusterNode, Code, Expected, KEYS, Nanos, Store, Write,
};

const SECOND: Nanos = 1_000_000_000;
const NOW: Nanos = 1_800_000_000 * SECOND;

#[derive(Clone, Debug)]
enum Op {
    Write { path: String, change: Change, expires: Option<Nanos>, refresh: bool },
    Expire(Nanos),
    Advance,
}

fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "_c"]);
    prop::collection::vec(part, 0..4).prop_map(|parts| {
        let mut path = KEYS.to_owned();
        for part in parts {
            path.push('/');
            path.push_str(part);
        }
        path
    })
}

fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![String::new(), "x".to_owned(), "<y>\u{2028}".to_owned()])
}

fn expected() -> impl Strategy<Value = Expected> {
    (value(), 0_u64..20).prop_map(|(value, index)| Expected { value, index })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<bool>(), value()).prop_map(|(dir, value)| Change::Set { dir, value }),
        2 => (any::<bool>(), value(), any::<bool>())
            .prop_map(|(dir, value, in_order)| Change::Create { dir, value, in_order }),
        2 => value().prop_map(|value| Change::Update { value }),
        2 => (expected(), value())
            .prop_map(|(expected, value)| Change::CompareAndSwap { expected, value }),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(dir, recursive)| Change::Delete { dir, recursive }),
        1 => expected().prop_map(Change::CompareAndDelete),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let expires =
        prop::option::weighted(0.4, (0_i64..6).prop_map(|seconds| NOW + seconds * SECOND));
    prop_oneof![
        12 => (path(), change(), expires, prop::bool::weighted(0.1))
            .prop_map(|(path, change, expires, refresh)| Op::Write { path, change, expires, refresh }),
        1 => (0_i64..6).prop_map(|seconds| Op::Expire(NOW + seconds * SECOND)),
        1 => Just(Op::Advance),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    created: u64,
    modified: u64,
    expires: Option<Nanos>,
    value: Option<String>,
}

#[derive(Debug, Default)]
struct Model {
    index: u64,
    nodes: BTreeMap<String, Entry>,
}

impl Model {
    fn new() -> Self {
        let root = Entry { created: 0, modified: 0, expires: None, value: None };
        let nodes = ["", KEYS].map(|path| (path.to_owned(), root.clone()));
        Self { index: 0, nodes: nodes.into() }
    }

    /// The nearest of the paths above that is a file.
    fn blocked(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        ends.into_iter().any(|at| self.nodes.get(&path[..at]).is_some_and(|n| n.value.is_some()))
    }

    fn children(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        self.nodes.keys().filter(|key| key.starts_with(&below)).cloned().collect()
    }

    fn remove(&mut self, path: &str) {
        for child in self.children(path) {
            self.nodes.remove(&child);
        }
        self.nodes.remove(path);
        self.index += 1;
    }

    fn make(&mut self, path: &str, dir: bool, value: &str, expires: Option<Nanos>) {
        self.index += 1;
        let new = |value| Entry { created: self.index, modified: self.index, expires: None, value };
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        for at in ends {
            self.nodes.entry(path[..at].to_owned()).or_insert_with(|| new(None));
        }
        let node = Entry { expires, ..new((!dir).then(|| value.to_owned())) };
        self.nodes.insert(path.to_owned(), node);
    }

    fn write(
        &mut self,
        path: &str,
        change: &Change,
        expires: Option<Nanos>,
        refresh: bool,
    ) -> Result<(), Code> {
        let mut path = path.to_owned();
        if let Change::Create { in_order: true, .. } = change {
            path = format!("{path}/{:020}", self.index + 1);
        }
        if path == KEYS && !matches!(change, Change::CompareAndDelete(_)) {
            return Err(Code::RootReadOnly);
        }
        let node = self.nodes.get(&path).cloned();
        let gone = if self.blocked(&path) { Code::NotDirectory } else { Code::KeyNotFound };
        match change {
            Change::Set { dir, value } => {
                if gone == Code::NotDirectory {
                    return Err(gone);
                }
                if refresh && node.is_none() {
                    return Err(gone);
                }
                if node.as_ref().is_some_and(|node| node.value.is_none()) {
                    return Err(Code::NotFile);
                }
                let old = node.and_then(|node| node.value);
                let value = if refresh { old.unwrap_or_default() } else { value.clone() };
                self.make(&path, *dir, &value, expires);
            }
            Change::Create { dir, value, .. } => {
                if gone == Code::NotDirectory {
                    return Err(gone);
                }
                if node.is_some() {
                    return Err(Code::KeyExists);
                }
                self.make(&path, *dir, value, expires);
            }
            Change::Update { value } => {
                let node = node.ok_or(gone)?;
                if node.value.is_none() && !value.is_empty() {
                    return Err(Code::NotFile);
                }
                self.rewrite(&path, value, expires, refresh);
            }
            Change::CompareAndSwap { expected, value } => {
                compare(node.as_ref(), expected, gone)?;
                self.rewrite(&path, value, expires, refresh);
            }
            Change::Delete { dir, recursive } => {
                let node = node.ok_or(gone)?;
                if node.value.is_none() {
                    if !dir && !recursive {
                        return Err(Code::NotFile);
                    }
                    if !recursive && !self.children(&path).is_empty() {
                        return Err(Code::DirectoryNotEmpty);
                    }
                }
                self.remove(&path);
            }
            Change::CompareAndDelete(expected) => {
                compare(node.as_ref(), expected, gone)?;
                self.remove(&path);
            }
        }
        Ok(())
    }

    fn rewrite(&mut self, path: &str, value: &str, expires: Option<Nanos>, refresh: bool) {
        self.index += 1;
        let node = self.nodes.get_mut(path).unwrap();
        node.expires = expires;
        if let Some(old) = &mut node.value {
            node.modified = self.index;
            if !refresh {
                value.clone_into(old);
            }
        }
    }

    fn expire(&mut self, cutoff: Nanos) {
        loop {
            let due = self.nodes.iter().filter_map(|(path, node)| Some((node.expires?, path)));
            let Some((_, path)) = due.filter(|(at, _)| *at <= cutoff).min() else { return };
            self.remove(&path.clone());
        }
    }
}

fn compare(node: Option<&Entry>, expected: &Expected, gone: Code) -> Result<(), Code> {
    let node = node.ok_or(gone)?;
    let value = node.value.as_ref().ok_or(Code::NotFile)?;
    let same = (expected.value.is_empty() || expected.value == *value)
        && (expected.index == 0 || expected.index == node.modified);
    if same { Ok(()) } else { Err(Code::CompareFailed) }
}

/// What a recursive read of everything shows, hidden names by their own paths.
fn check(store: &Store, model: &Model) {
    assert_eq!(store.reader().index(), model.index);
    for (path, node) in model.nodes.iter().filter(|(path, _)| !path.is_empty()) {
        let found = store.reader().get(path, false, NOW).unwrap().node;
        let found = Entry {
            created: found.created,
            modified: found.modified,
            expires: found.expires,
            value: found.value.map(|value| value.to_string()),
        };
        assert_eq!(&found, node, "{path}");
    }
    let listed = store.reader().get(KEYS, true, NOW).unwrap().below;
    let listed: Vec<String> = listed.into_iter().map(|(_, node)| node.key).collect();
    let mut expected = model.children(KEYS);
    expected.retain(|path| !path.contains("/_"));
    expected.sort_by_key(|path| path.split('/').map(ToOwned::to_owned).collect::<Vec<_>>());
    assert_eq!(listed, expected);
}

fn same(left: &Store, right: &Store) {
    assert_eq!(left.all_rows(), right.all_rows());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 1..60)) {
        let (mut store, mut model) = (Store::new(), Model::new());
        let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Write { path, change, expires, refresh } => {
                    let expected = model.write(&path, &change, expires, refresh);
                    let write = Write { path, change, expires, refresh, at: Some(NOW) };
                    let done = store.write(write.clone());
                    prop_assert_eq!(
                        done.as_ref().map(|_| ()).map_err(|error| error.code),
                        expected,
                        "{:?}", write
                    );
                    let index = done.map_or_else(|error| error.index, |event| event.index);
                    prop_assert_eq!(index, model.index);
                }
                Op::Expire(cutoff) => {
                    store.expire(cutoff);
                    model.expire(cutoff);
                }
                Op::Advance => {
                    store.advance();
                    model.index += 1;
                }
            }
            for row in store.take_rows() {
                match row.value {
                    Some(value) => drop(rows.insert(row.key, value)),
                    None => drop(rows.remove(&row.key)),
                }
            }
            check(&store, &model);
        }
        let restored = Store::restore(rows).unwrap();
        same(&restored, &store);
        check(&restored, &model);
        let cluster = [
            ClusterNode { path: "/0/members".into(), value: None },
            ClusterNode { path: "/0/members/a".into(), value: None },
            ClusterNode { path: "/0/members/a/raftAttributes".into(), value: Some("{}".into()) },
            ClusterNode { path: "/0/version".into(), value: Some("3.5.0".into()) },
        ];
        let json = store.to_json(&cluster);
        let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(&parsed["Root"]["Children"]["0"]["Children"]["version"]["Value"], "3.5.0");
        let loaded = Store::from_json(&json).unwrap();
        check(&loaded, &model);
        let index = loaded.reader().index();
        for since in 1..=index {
            for path in [KEYS, "/1/a", "/1/a/b"] {
                let told = |store: &Store| {
                    let watch = v2store::Watch {
                        path: path.into(), recursive: true, stream: false, since,
                    };
                    let mut watcher = store.reader().watch(watch).unwrap();
                    let waker = std::task::Waker::noop();
                    match watcher.poll_next(&mut std::task::Context::from_waker(waker)) {
                        std::task::Poll::Ready(event) => event.map(|event| event.index),
                        std::task::Poll::Pending => None,
                    }
                };
                prop_assert_eq!(told(&loaded), told(&store));
            }
        }
    }
}

#[test]
fn what_is_no_store_is_refused() {
    for text in ["", "{}", "[]", "{\"Root\":{\"Path\":\"/\"", "{\"Root\":{\"Path\":\"a/../b\"}}"] {
        assert!(Store::from_json(text.as_bytes()).is_err(), "{text}");
    }
    let mut store = Store::new();
    store.advance();
    let rows: Vec<_> = store.all_rows().into_iter().map(|r| (r.key, r.value.unwrap())).collect();
    for at in 0..rows.len() {
        let mut rows = rows.clone();
        rows[at].1.truncate(3);
        assert!(Store::restore(rows).is_err());
    }
    assert!(Store::restore(rows[..1].to_vec()).is_err(), "an event without the index");
}
