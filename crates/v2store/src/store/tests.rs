//! Facts of the checklist, one by one.

use super::*;
use crate::{KEYS, Watch};

const SECOND: Nanos = 1_000_000_000;
/// 2026.
const NOW: Nanos = 1_800_000_000 * SECOND;

struct Bench {
    store: Store,
}

impl Bench {
    fn new() -> Self {
        Self { store: Store::new() }
    }

    fn run(&mut self, path: &str, change: Change) -> Result<Arc<Event>, Error> {
        self.with(path, change, None, false)
    }

    fn with(
        &mut self,
        path: &str,
        change: Change,
        ttl: Option<i64>,
        refresh: bool,
    ) -> Result<Arc<Event>, Error> {
        let path = path::join(KEYS, path.trim_start_matches('/'));
        let expires = ttl.map(|ttl| NOW + ttl * SECOND);
        self.store.write(Write { path, change, expires, refresh, at: Some(NOW) })
    }

    fn set(&mut self, path: &str, value: &str) -> Result<Arc<Event>, Error> {
        self.run(path, set(value))
    }

    fn json(&mut self, path: &str, change: Change) -> String {
        match self.run(path, change) {
            Ok(event) => String::from_utf8(event.to_json(0)).unwrap(),
            Err(error) => String::from_utf8(error.to_json()).unwrap(),
        }
    }

    fn get(&self, path: &str, recursive: bool) -> String {
        match self.store.reader().get(&format!("{KEYS}{path}"), recursive, NOW) {
            Ok(event) => String::from_utf8(event.to_json(0)).unwrap(),
            Err(error) => String::from_utf8(error.to_json()).unwrap(),
        }
    }
}

fn set(value: &str) -> Change {
    Change::Set { dir: false, value: value.to_owned() }
}

fn mkdir() -> Change {
    Change::Set { dir: true, value: String::new() }
}

fn create(value: &str) -> Change {
    Change::Create { dir: false, value: value.to_owned(), in_order: false }
}

fn update(value: &str) -> Change {
    Change::Update { value: value.to_owned() }
}

fn swap(expected_value: &str, expected_index: u64, value: &str) -> Change {
    let expected = Expected { value: expected_value.to_owned(), index: expected_index };
    Change::CompareAndSwap { expected, value: value.to_owned() }
}

fn remove(dir: bool, recursive: bool) -> Change {
    Change::Delete { dir, recursive }
}

fn code(result: Result<Arc<Event>, Error>) -> u16 {
    result.unwrap_err().code.number()
}

/// V2-045, V2-011.
#[test]
fn set_makes_and_replaces_and_begins_anew() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.json("/a", set("1")),
        "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"1\",\"modifiedIndex\":1,\
         \"createdIndex\":1}}\n"
    );
    let replaced = bench.set("/a", "2").unwrap();
    assert!(!replaced.is_created());
    assert_eq!(
        String::from_utf8(replaced.to_json(0)).unwrap(),
        "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"2\",\"modifiedIndex\":2,\
         \"createdIndex\":2},\"prevNode\":{\"key\":\"/a\",\"value\":\"1\",\"modifiedIndex\":1,\
         \"createdIndex\":1}}\n"
    );
    assert_eq!(replaced.to_json_without_value(0), b"{\"action\":\"set\"}\n");
}

/// V2-047, V2-048, V2-105, V2-056.
#[test]
fn create_wants_nothing_there_and_update_something() {
    let mut bench = Bench::new();
    assert_eq!(code(bench.run("/a", update("1"))), 100);
    assert!(bench.run("/a", create("1")).unwrap().is_created());
    let error = bench.run("/a", create("2")).unwrap_err();
    assert_eq!((error.code, error.cause.as_str(), error.index), (Code::KeyExists, "/1/a", 1));
    bench.with("/a", update("2"), Some(10), false).unwrap();
    let updated = bench.run("/a", update("3")).unwrap();
    assert_eq!((updated.node.created, updated.node.modified), (1, 3));
    assert_eq!(updated.node.expires, None, "an update without ttl takes it away");
    bench.run("/d", mkdir()).unwrap();
    assert_eq!(code(bench.run("/d", update("x"))), 102);
    let updated = bench.run("/d", update("")).unwrap();
    assert_eq!((updated.node.modified, updated.node.dir), (5, true));
    assert!(bench.get("/d", false).contains("\"modifiedIndex\":4"), "the directory's own stays");
}

/// V2-049 to V2-051.
#[test]
fn compare_and_swap_says_what_differs() {
    let mut bench = Bench::new();
    bench.set("/a", "one").unwrap();
    let cause = |result: Result<Arc<Event>, Error>| result.unwrap_err().cause;
    assert_eq!(cause(bench.run("/a", swap("two", 0, "x"))), "[two != one]");
    assert_eq!(cause(bench.run("/a", swap("one", 7, "x"))), "[7 != 1]");
    assert_eq!(cause(bench.run("/a", swap("zz", 7, "x"))), "[zz != one] [7 != 1]");
    let swapped = bench.run("/a", swap("one", 1, "x")).unwrap();
    assert_eq!((swapped.node.created, swapped.node.modified), (1, 2));
    assert_eq!(swapped.prev_node.as_ref().unwrap().value.as_deref(), Some("one"));
    bench.run("/d", mkdir()).unwrap();
    assert_eq!(code(bench.run("/d", swap("x", 0, "y"))), 102);
    assert_eq!(code(bench.run("/n", swap("x", 0, "y"))), 100);
}

/// V2-052 to V2-055, V2-061, V2-099.
#[test]
fn deleting_wants_to_be_told_of_directories() {
    let mut bench = Bench::new();
    bench.set("/d/a", "1").unwrap();
    assert_eq!(code(bench.run("/d", remove(false, false))), 102);
    assert_eq!(code(bench.run("/d", remove(true, false))), 108);
    assert_eq!(code(bench.run("/d", mkdir())), 102);
    assert_eq!(
        bench.json("/d", remove(false, true)),
        "{\"action\":\"delete\",\"node\":{\"key\":\"/d\",\"dir\":true,\"modifiedIndex\":2,\
         \"createdIndex\":1},\"prevNode\":{\"key\":\"/d\",\"dir\":true,\"modifiedIndex\":1,\
         \"createdIndex\":1}}\n"
    );
    assert_eq!(
        bench.get("/d/a", false),
        "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/d\",\"index\":2}\n"
    );
    let error = bench.run("", remove(true, true)).unwrap_err();
    assert_eq!((error.code, error.cause.as_str()), (Code::RootReadOnly, "/"));
    bench.set("/a", "1").unwrap();
    let expected = Expected { value: "2".into(), index: 0 };
    assert_eq!(code(bench.run("/a", Change::CompareAndDelete(expected))), 101);
    let expected = Expected { value: "1".into(), index: 3 };
    let deleted = bench.run("/a", Change::CompareAndDelete(expected)).unwrap();
    assert_eq!((deleted.action, deleted.node.created), (Action::CompareAndDelete, 3));
}

/// V2-057, V2-058, V2-060.
#[test]
fn in_order_names_are_the_index_of_twenty_digits() {
    let mut bench = Bench::new();
    let post = |dir| Change::Create { dir, value: "v".into(), in_order: true };
    let made = bench.run("/queue", post(false)).unwrap();
    assert_eq!(made.node.key, "/1/queue/00000000000000000001");
    assert!(made.is_created());
    assert!(bench.run("/queue", post(true)).unwrap().node.dir);
    assert_eq!(bench.run("", post(false)).unwrap().node.key, "/1/00000000000000000003");
    bench.set("/file", "x").unwrap();
    let error = bench.run("/file", post(false)).unwrap_err();
    assert_eq!((error.code, error.cause.as_str()), (Code::NotDirectory, "/1/file"));
    assert_eq!(code(bench.set("/file/below", "x")), 104);
}

/// V2-062.
#[test]
fn hidden_names_are_read_only_by_their_own_path() {
    let mut bench = Bench::new();
    bench.set("/_h/a", "1").unwrap();
    bench.set("/d/_h", "1").unwrap();
    let listing = bench.get("", true);
    assert!(!listing.contains("_h"), "{listing}");
    assert!(bench.get("/_h/a", false).contains("\"value\":\"1\""));
}

/// V2-044, V2-046, V2-063, V2-064, V2-068.
#[test]
fn what_ends_is_removed_when_that_is_said() {
    let mut bench = Bench::new();
    let made = bench.with("/d", mkdir(), Some(5), false).unwrap();
    assert!(String::from_utf8(made.to_json(0)).unwrap().contains(",\"ttl\":5,"));
    bench.with("/d/a", set("1"), Some(7), false).unwrap();
    bench.with("/e", set("1"), Some(0), false).unwrap();
    assert!(bench.get("/e", false).contains("\"value\":\"1\",\"expiration\":"));
    assert!(!bench.get("/e", false).contains("ttl"));
    assert!(bench.store.reader().has_expiring());
    bench.store.expire(NOW);
    assert!(bench.get("/e", false).contains("100"));
    let mut watcher = watcher(&bench.store, "/d/a", false, true, 0);
    bench.store.expire(NOW + 5 * SECOND);
    let event = take(&mut watcher).unwrap();
    assert_eq!((event.action, event.node.key.as_str()), (Action::Expire, "/1/d"));
    assert!(!String::from_utf8(event.to_json(0)).unwrap().contains("ttl"));
    assert!(take(&mut watcher).is_none());
    assert!(!bench.store.reader().has_expiring(), "the rest went with its directory");
    assert_eq!(bench.store.reader().index(), 5);
}

/// V2-032, V2-078.
#[test]
fn a_refresh_keeps_the_value_and_wakes_nobody() {
    let mut bench = Bench::new();
    bench.with("/a", set("1"), Some(5), false).unwrap();
    let mut watcher = watcher(&bench.store, "/a", false, false, 0);
    for change in [set("ignored"), update("ignored"), swap("1", 0, "ignored")] {
        let refreshed = bench.with("/a", change, Some(9), true).unwrap();
        assert_eq!(refreshed.node.value.as_deref(), Some("1"));
        assert!(!String::from_utf8(refreshed.to_json(0)).unwrap().contains("refresh"));
    }
    assert!(take(&mut watcher).is_none());
    assert_eq!(code(bench.with("/n", set(""), Some(9), true)), 100);
    // What makes a node is no refresh, whatever was said.
    let mut new = self::watcher(&bench.store, "/m", false, false, 0);
    bench.with("/m", create("1"), Some(9), true).unwrap();
    assert!(take(&mut new).is_some());
    let late = crate::hub::tests_support::next_now(&mut self::watcher(
        &bench.store,
        "/a",
        false,
        false,
        2,
    ));
    assert!(late.is_none(), "the history does not show it either");
}

fn watcher(store: &Store, path: &str, recursive: bool, stream: bool, since: u64) -> crate::Watcher {
    let path = format!("{KEYS}{path}");
    store.reader().watch(Watch { path, recursive, stream, since }).unwrap()
}

fn take(watcher: &mut crate::Watcher) -> Option<Arc<Event>> {
    crate::hub::tests_support::next_now(watcher)
}

/// V2-070 to V2-077, V2-082.
#[test]
fn watchers_hear_of_their_node_and_recursive_ones_of_all_below() {
    let mut bench = Bench::new();
    let mut exact = watcher(&bench.store, "/d", false, true, 0);
    let mut below = watcher(&bench.store, "/d", true, true, 0);
    let mut once = watcher(&bench.store, "/d/a", false, false, 0);
    assert_eq!(bench.store.reader().watchers(), 3);
    bench.set("/d/a", "1").unwrap();
    bench.set("/d/_h", "1").unwrap();
    bench.set("/x", "1").unwrap();
    assert!(take(&mut exact).is_none());
    assert_eq!(take(&mut below).unwrap().node.key, "/1/d/a");
    assert!(take(&mut below).is_none());
    assert_eq!(take(&mut once).unwrap().index, 1);
    assert_eq!(bench.store.reader().watchers(), 2, "it got its one event");
    bench.run("/d", remove(true, true)).unwrap();
    assert_eq!(take(&mut exact).unwrap().action, Action::Delete);
    assert!(take(&mut exact).is_none(), "once, where etcd tells it twice (V2-081)");
    drop((exact, below));
    assert_eq!(bench.store.reader().watchers(), 0);
}

/// V2-072 to V2-074.
#[test]
fn the_past_is_told_and_what_is_forgotten_is_said() {
    let mut bench = Bench::new();
    for _ in 0..1024 {
        bench.set("/a", "1").unwrap();
    }
    let path = format!("{KEYS}/a");
    let watch = Watch { path, since: 7, ..Watch::default() };
    let error = bench.store.reader().watch(watch).unwrap_err();
    assert_eq!(error.code, Code::EventIndexCleared);
    assert_eq!(error.cause, "the requested history has been cleared [25/7]");
    assert_eq!(error.index, 1024);
    let mut late = watcher(&bench.store, "/a", false, false, 25);
    assert_eq!(take(&mut late).unwrap().index, 25);
    assert_eq!(late.start_index(), 1024);
    let mut future = watcher(&bench.store, "/a", false, false, 1026);
    bench.set("/a", "1").unwrap();
    assert!(take(&mut future).is_none());
    bench.set("/a", "1").unwrap();
    assert_eq!(take(&mut future).unwrap().index, 1026);
    let mut all = watcher(&bench.store, "/a", false, true, 27);
    let told: Vec<u64> = std::iter::from_fn(|| take(&mut all)).map(|event| event.index).collect();
    assert_eq!(told, (27..=1026).collect::<Vec<_>>());
}

/// V2-079.
#[test]
fn a_watcher_that_is_not_read_is_let_go() {
    let mut bench = Bench::new();
    let mut slow = watcher(&bench.store, "/a", false, true, 0);
    for _ in 0..=crate::WATCHER_EVENTS_MAX {
        bench.set("/a", "1").unwrap();
    }
    assert_eq!(bench.store.reader().watchers(), 0);
    let told = std::iter::from_fn(|| take(&mut slow)).count();
    assert_eq!(told, crate::WATCHER_EVENTS_MAX);
}

/// V2-083: nobody misses an event without being told.
#[test]
fn watchers_hear_of_what_another_state_knows() {
    let mut bench = Bench::new();
    bench.set("/a", "1").unwrap();
    let mut other = Bench { store: Store::restore(rows(&bench.store)).unwrap() };
    let mut one = watcher(&bench.store, "/a", false, false, 0);
    let mut stream = watcher(&bench.store, "", true, true, 0);
    other.set("/a", "2").unwrap();
    other.set("/b", "3").unwrap();
    bench.store.replace(other.store);
    assert_eq!(take(&mut one).unwrap().index, 2);
    assert_eq!(take(&mut stream).unwrap().index, 2);
    assert_eq!(take(&mut stream).unwrap().index, 3);
    assert_eq!(bench.store.reader().index(), 3);

    let mut far = Bench { store: Store::restore(rows(&bench.store)).unwrap() };
    for _ in 0..1100 {
        far.set("/c", "1").unwrap();
    }
    bench.store.replace(far.store);
    assert_eq!(bench.store.reader().watchers(), 0, "it might have missed something");
}

fn rows(store: &Store) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    store.all_rows().into_iter().map(|row| (row.key, row.value.unwrap())).collect()
}

#[test]
fn the_cluster_raises_the_index() {
    let mut bench = Bench::new();
    bench.store.advance();
    bench.store.advance();
    assert_eq!(bench.set("/a", "1").unwrap().index, 3);
    assert_eq!(
        take(&mut watcher(&bench.store, "", true, false, 1)).unwrap().index,
        3,
        "nobody sees the cluster's own part"
    );
}

/// V2-061: a directory that was made far below is there with all above it, and a path may be longer
/// than a row's key.
#[test]
fn long_paths_are_kept() {
    let mut bench = Bench::new();
    let path = format!("/{}", vec!["d".repeat(200).as_str(); 200].join("/"));
    bench.set(&path, "deep").unwrap();
    let restored = Bench { store: Store::restore(rows(&bench.store)).unwrap() };
    assert!(restored.get(&path, false).contains("deep"));
    assert_eq!(restored.get("", true), bench.get("", true));
    let loaded = Bench { store: Store::from_json(&bench.store.to_json(&[])).unwrap() };
    assert_eq!(loaded.get("", true), bench.get("", true));
    bench.run(&format!("/{}", "d".repeat(200)), remove(true, true)).unwrap();
    assert_eq!(bench.get("", true), "{\"action\":\"get\",\"node\":{\"dir\":true}}\n");
}
