//! The judges of the v2 generation: what is true passes, and every lie of a member is found.

#![allow(clippy::unwrap_used, reason = "a test")]

use proto::v2pb;
use retcd_history::{EVENTS_REMEMBERED, V2Event, V2Refusal, V2Said, V2Store, V2Wait};

const SECOND: i64 = 1_000_000_000;
/// 2026.
const NOW: i64 = 1_800_000_000 * SECOND;

fn request(method: &str, path: &str, value: &str) -> v2pb::Request {
    v2pb::Request {
        method: Some(method.to_owned()),
        path: Some(format!("/1{path}").into()),
        val: Some(value.to_owned().into()),
        time: Some(NOW),
        ..v2pb::Request::default()
    }
}

fn put(path: &str, value: &str) -> v2pb::Request {
    request("PUT", path, value)
}

fn dir(path: &str) -> v2pb::Request {
    v2pb::Request { dir: Some(true), ..put(path, "") }
}

fn delete(path: &str, recursive: bool) -> v2pb::Request {
    v2pb::Request { recursive: Some(recursive), ..request("DELETE", path, "") }
}

fn ending(request: v2pb::Request, seconds: i64) -> v2pb::Request {
    v2pb::Request { expiration: Some(NOW + seconds * SECOND), ..request }
}

fn sync(seconds: i64) -> v2pb::Request {
    v2pb::Request { time: Some(NOW + seconds * SECOND), ..request("SYNC", "", "") }
}

/// A store in which some things happened.
fn store(requests: &[v2pb::Request]) -> V2Store {
    let mut store = V2Store::new();
    for request in requests {
        store.apply(request).transpose().unwrap();
    }
    store
}

fn code(said: Option<V2Said>) -> u16 {
    said.unwrap().unwrap_err().code
}

/// V2-045 to V2-055, V2-090 to V2-108: as etcd answers.
#[test]
fn the_model_answers_as_etcd() {
    let mut store = store(&[put("/a", "1"), put("/d/x", "2")]);
    let set = store.apply(&put("/a", "3")).unwrap().unwrap();
    assert_eq!((set.index, set.node.created, set.node.modified), (3, 3, 3));
    assert_eq!(set.before.unwrap().value.as_deref(), Some("1"));
    assert_eq!(code(store.apply(&put("/a/b", "4"))), 104);
    assert_eq!(code(store.apply(&put("/d", "4"))), 102);
    assert_eq!(code(store.apply(&delete("/d", false))), 102);
    assert_eq!(code(store.apply(&v2pb::Request { dir: Some(true), ..delete("/d", false) })), 108);
    assert_eq!(code(store.apply(&delete("", true))), 107);
    assert_eq!(code(store.apply(&delete("/n/m", true))), 100);
    let create = v2pb::Request { prev_exist: Some(false), ..put("/a", "4") };
    assert_eq!(code(store.apply(&create)), 105);
    let swap =
        v2pb::Request { prev_value: Some("1".into()), prev_index: Some(7), ..put("/a", "4") };
    let refused = store.apply(&swap).unwrap().unwrap_err();
    let cause = "[1 != 3] [7 != 3]".to_owned();
    assert_eq!(refused, V2Refusal { code: 101, cause, index: 3 });
    let swap = v2pb::Request { prev_index: Some(3), ..put("/a", "4") };
    assert_eq!(store.apply(&swap).unwrap().unwrap().node.created, 3);
    let made = store.apply(&request("POST", "/q", "v")).unwrap().unwrap();
    assert_eq!(made.key, "/1/q/00000000000000000005");
    assert_eq!(store.names("/1"), ["a", "d", "q"]);
    let update = v2pb::Request { prev_exist: Some(true), ..put("/d", "") };
    let updated = store.apply(&update).unwrap().unwrap();
    assert_eq!((updated.node.modified, updated.node.dir), (6, true));
    assert_eq!(store.get("/1/d").unwrap().node.modified, 2, "the directory's own stays");
    store.advance(2);
    assert_eq!(store.index(), 8);
}

/// V2-044, V2-063, V2-064.
#[test]
fn what_ends_goes_in_its_order() {
    let mut store = store(&[
        ending(dir("/d"), 5),
        ending(put("/d/a", "1"), 9),
        ending(put("/b", "1"), 4),
        put("/c", "1"),
    ]);
    assert!(store.apply(&sync(3)).is_none());
    assert_eq!(store.index(), 4);
    store.apply(&sync(6));
    let told = |index| store.event(index).map(|event| (event.action.as_str(), event.key.as_str()));
    assert_eq!((told(5), told(6)), (Some(("expire", "/1/b")), Some(("expire", "/1/d"))));
    assert_eq!((store.index(), store.next_end()), (6, None));
}

/// A member that answers otherwise is found.
#[test]
fn a_lie_about_a_change_is_found() {
    let mut before = store(&[put("/a", "1"), ending(put("/b", "2"), 5)]);
    let asked = [
        put("/a", "3"),
        v2pb::Request { prev_value: Some("1".into()), ..put("/a", "3") },
        v2pb::Request { prev_value: Some("1".into()), ..delete("/a", false) },
        v2pb::Request { prev_exist: Some(true), ..put("/b", "3") },
        v2pb::Request { refresh: Some(true), ..ending(put("/b", ""), 9) },
        request("POST", "/q", "3"),
    ];
    let lies: [fn(&mut V2Event); 8] = [
        |event| event.index += 1,
        |event| event.key.push('x'),
        |event| event.action = "update it".to_owned(),
        |event| event.node.modified -= 1,
        |event| event.node.created += 7,
        |event| event.node.expires = Some(5),
        |event| event.refresh = !event.refresh,
        |event| event.before = event.before.take().xor(Some(event.node.clone())),
    ];
    for request in &asked {
        let said = before.clone().apply(request);
        before.clone().on_request(request, said.as_ref()).unwrap();
        before.clone().on_request(request, None).unwrap_err();
        let refused = Err(V2Refusal { code: 101, cause: String::new(), index: 2 });
        before.clone().on_request(request, Some(&refused)).unwrap_err();
        for lie in lies {
            let mut event = said.clone().unwrap().unwrap();
            lie(&mut event);
            before.clone().on_request(request, Some(&Ok(event))).unwrap_err();
        }
    }
    let swap = v2pb::Request { prev_value: Some("x".into()), ..put("/a", "3") };
    let done = before.clone().apply(&put("/a", "3"));
    before.on_request(&swap, done.as_ref()).unwrap_err();
}

fn wait(path: &str, recursive: bool, stream: bool, index: u64, since: u64) -> V2Wait {
    let how = (recursive, stream);
    V2Wait::begin(index, &format!("/1{path}"), how, since, Ok(())).unwrap().unwrap()
}

/// V2-070 to V2-078: who waits hears of everything, once, and of nothing else.
#[test]
fn a_lie_to_who_waits_is_found() {
    let store = store(&[
        put("/d/a", "1"),
        put("/d/_h", "2"),
        put("/x", "3"),
        v2pb::Request { refresh: Some(true), ..ending(put("/d/a", ""), 9) },
        put("/d/a", "4"),
        delete("/d", true),
    ]);
    let event = |index: u64| store.event(index).unwrap();
    let mut below = wait("/d", true, true, 0, 0);
    for index in [1, 5, 6] {
        below.on_event(&store, event(index)).unwrap();
    }
    below.on_quiet(&store, 6).unwrap();

    let told = |indexes: &[u64]| {
        let mut wait = wait("/d", true, true, 0, 0);
        indexes.iter().try_for_each(|index| wait.on_event(&store, event(*index)))?;
        wait.on_quiet(&store, 6)
    };
    told(&[1, 5, 6]).unwrap();
    let hidden = &[1, 2, 5, 6];
    for lie in [&[1, 6][..], &[5, 6], &[1, 5], &[1, 1, 5, 6], &[1, 3, 5, 6], &[1, 4, 5, 6], hidden]
    {
        told(lie).unwrap_err();
    }
    // What is remembered is shown with hidden names.
    let mut late = wait("/d", true, true, 6, 1);
    hidden.iter().for_each(|index| late.on_event(&store, event(*index)).unwrap());
    late.on_quiet(&store, 6).unwrap();
    wait("/d", true, true, 6, 2).on_event(&store, event(5)).unwrap_err();
    // Behind a snapshot it may be either.
    let mut jumped = wait("/d", true, true, 0, 0);
    jumped.on_jump(6);
    for index in [1, 2, 5, 6] {
        jumped.on_event(&store, event(index)).unwrap();
    }
    let mut changed = event(5).clone();
    changed.node.value = Some("5".to_owned());
    wait("/d", true, true, 4, 0).on_event(&store, &changed).unwrap_err();

    let mut once = wait("/d/a", false, false, 0, 0);
    once.on_event(&store, event(1)).unwrap();
    once.on_quiet(&store, 6).unwrap();
    once.on_event(&store, event(5)).unwrap_err();
    // Who waits for what a directory took with it hears of that.
    wait("/d/a", false, false, 5, 0).on_quiet(&store, 6).unwrap_err();
    wait("/d/a", false, false, 5, 0).on_event(&store, event(6)).unwrap();
}

/// V2-072, V2-117.
#[test]
fn a_lie_about_what_is_remembered_is_found() {
    let index = EVENTS_REMEMBERED + 24;
    let cause = "the requested history has been cleared [25/7]".to_owned();
    let cleared = V2Refusal { code: 401, cause, index };
    let elsewhere = V2Refusal { index: 3, ..cleared.clone() };
    let begin = |since, said| V2Wait::begin(index, "/1/a", (false, false), since, said);
    assert!(begin(7, Err(&cleared)).unwrap().is_none());
    begin(7, Ok(())).unwrap_err();
    begin(25, Err(&cleared)).unwrap_err();
    assert!(begin(25, Ok(())).unwrap().is_some());
    begin(7, Err(&elsewhere)).unwrap_err();
}
