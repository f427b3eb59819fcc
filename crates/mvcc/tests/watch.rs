//! What watchers are promised: ordered, unique, atomic, without gap, resumable, told of progress.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::sync::atomic::Ordering;

use base::{KeyRange, LeaseId};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use proto::mvccpb::{Event, event::EventType};
use retcd_mvcc::{Filters, Options, WatchOutput, WatchRefused, WatchSpec, WatchStream};
use support::{Change, Fixture, Model, all, drain, one, put, stream, watch};

/// Events as `put key=value@main` and `delete key@main`, with `<value` for the row before.
fn described(events: &[Bytes]) -> Vec<String> {
    let one = |bytes: &Bytes| {
        let event = Event::decode(bytes.clone()).unwrap();
        let kv = event.kv.clone().unwrap();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let previous =
            event.prev_kv.as_ref().map_or_else(String::new, |kv| format!("<{}", text(&kv.value)));
        match event.r#type() {
            EventType::Put => {
                format!("put {}={}@{}{previous}", text(&kv.key), text(&kv.value), kv.mod_revision)
            }
            EventType::Delete => format!("delete {}@{}{previous}", text(&kv.key), kv.mod_revision),
        }
    };
    events.iter().map(one).collect()
}

/// Answers in short.
fn answers(out: &[WatchOutput]) -> Vec<String> {
    let one = |output: &WatchOutput| match output {
        WatchOutput::Events { id, revision, events, fragment } => {
            let more = if *fragment { " more" } else { "" };
            format!("{id}@{revision}{more}: {}", described(events).join(", "))
        }
        WatchOutput::Compacted { id, compact_revision, .. } => {
            format!("{id} compacted {compact_revision}")
        }
        WatchOutput::Progress { id, revision } => format!("{id:?} progress {revision}"),
    };
    out.iter().map(one).collect()
}

/// W-01, W-13, W-14, W-19.
#[test]
fn events_of_a_transaction_come_in_one_answer() {
    let mut fixture = Fixture::small();
    let (mut stream, bell) = stream(&fixture.store);
    assert_eq!(stream.create(watch(all(), 0)).unwrap().revision, 1);
    assert_eq!(answers(&drain(&mut stream)), [""; 0]);
    fixture.txn(|txn| {
        put(txn, "a", "1");
        put(txn, "b", "2");
    });
    fixture.delete("a");
    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "woken once until it pulls");
    assert_eq!(answers(&drain(&mut stream)), ["0@3: put a=1@2, put b=2@2, delete a@3"]);
    fixture.put("b", "3");
    assert_eq!(bell.0.load(Ordering::Relaxed), 2);
    assert_eq!(answers(&drain(&mut stream)), ["0@4: put b=3@4"]);
}

/// W-03: from the past, from now, from the future.
#[test]
fn watches_start_where_they_are_told() {
    let mut fixture = Fixture::small();
    for value in ["1", "2", "3"] {
        fixture.put("k", value);
    }
    let (mut stream, _) = stream(&fixture.store);
    for start in [3, 0, 6] {
        stream.create(watch(one("k"), start)).unwrap();
    }
    assert_eq!(answers(&drain(&mut stream)), ["0@4: put k=2@3, put k=3@4"]);
    fixture.put("k", "4");
    assert_eq!(answers(&drain(&mut stream)), ["0@5: put k=4@5", "1@5: put k=4@5"]);
    fixture.put("k", "5");
    let all_three = ["0@6: put k=5@6", "1@6: put k=5@6", "2@6: put k=5@6"];
    assert_eq!(answers(&drain(&mut stream)), all_three);
}

/// W-03: while a watch catches up, headers have the store's revision, as with etcd 3.5.30.
#[test]
fn header_of_past_events_is_not_older_than_the_creation() {
    let mut fixture = Fixture::small();
    for key in ["k", "k", "other", "other"] {
        fixture.put(key, "1");
    }
    let (mut stream, _) = stream(&fixture.store);
    assert_eq!(stream.create(watch(one("k"), 2)).unwrap().revision, 5);
    assert_eq!(answers(&drain(&mut stream)), ["0@5: put k=1@2, put k=1@3"]);
    fixture.put("k", "2");
    assert_eq!(answers(&drain(&mut stream)), ["0@6: put k=2@6"]);
}

/// W-04, W-20: below the boundary is cancelled, at it is not, and who is synced is not.
#[test]
fn compaction_ends_only_watches_that_lag_behind_it() {
    let mut fixture = Fixture::small();
    let (mut stream, _) = stream(&fixture.store);
    stream.create(watch(one("quiet"), 0)).unwrap();
    fixture.put("k", "1");
    fixture.put("k", "2");
    fixture.delete("k");
    fixture.compact(4);
    stream.create(watch(all(), 3)).unwrap();
    stream.create(watch(all(), 4)).unwrap();
    assert_eq!(answers(&drain(&mut stream)), ["1 compacted 4", "2@4: delete k@4"]);
    assert!(!stream.cancel(1), "it is gone");
    fixture.put("quiet", "1");
    let after = ["0@5: put quiet=1@5", "2@5: put quiet=1@5"];
    assert_eq!(answers(&drain(&mut stream)), after);
}

/// W-20, W-18: a stream that does not pull holds no buffer, and learns that it was left behind.
#[test]
fn lagging_watch_is_cancelled_once_its_rows_are_compacted() {
    let mut fixture = Fixture::small();
    let (mut stream, _) = stream(&fixture.store);
    stream.create(watch(all(), 0)).unwrap();
    for n in 0..50 {
        fixture.put("k", &n.to_string());
    }
    fixture.compact(20);
    assert_eq!(answers(&drain(&mut stream)), ["0 compacted 20"]);
}

/// W-20: a watch lacks only what it has not got of its own range. Found by the simulator.
#[test]
fn watch_that_had_everything_is_not_ended_for_an_older_compaction() {
    let options = Options { event_ring_bytes_max: 300, ..Options::default() };
    let mut fixture = Fixture::new(options);
    let (mut stream, _) = stream(&fixture.store);
    stream.create(watch(one("k"), 0)).unwrap();
    for n in 0..50 {
        fixture.put("other", &n.to_string());
    }
    fixture.compact(40);
    // The ring forgets them before the stream pulls: they are read as rows.
    for n in 0..9 {
        fixture.put("k", &n.to_string());
    }
    let got = answers(&drain(&mut stream)).join(" ");
    assert!(got.starts_with("0@59: put k=0@52") && got.ends_with("put k=8@60"), "{got}");
}

/// W-06, W-07.
#[test]
fn filters_and_previous_rows() {
    let mut fixture = Fixture::small();
    let (mut stream, _) = stream(&fixture.store);
    let base = watch(one("k"), 0);
    let no_put = Filters { no_put: true, no_delete: false };
    let no_delete = Filters { no_put: false, no_delete: true };
    stream.create(WatchSpec { filters: no_put, ..base.clone() }).unwrap();
    stream.create(WatchSpec { filters: no_delete, ..base.clone() }).unwrap();
    stream.create(WatchSpec { want_previous: true, ..base }).unwrap();
    fixture.put("k", "1");
    fixture.put("k", "2");
    fixture.delete("k");
    fixture.put("k", "3");
    let mut got = answers(&drain(&mut stream));
    got.sort_unstable();
    let expected = [
        "0@4: delete k@4",
        "1@5: put k=1@2, put k=2@3, put k=3@5",
        "2@5: put k=1@2, put k=2@3<1, delete k@4<2, put k=3@5",
    ];
    assert_eq!(got, expected);
}

/// W-07: what is compacted is left out.
#[test]
fn previous_row_is_absent_once_compacted() {
    let mut fixture = Fixture::small();
    for value in ["1", "2", "3"] {
        fixture.put("k", value);
    }
    fixture.compact(3);
    let (mut stream, _) = stream(&fixture.store);
    stream.create(WatchSpec { want_previous: true, ..watch(all(), 3) }).unwrap();
    assert_eq!(answers(&drain(&mut stream)), ["0@4: put k=2@3, put k=3@4<2"]);
}

/// W-02, W-08, W-10.
#[test]
fn numbers_and_refusals() {
    let fixture = Fixture::small();
    let (mut stream, _) = stream(&fixture.store);
    let (start, end) = (Bytes::from_static(b"b"), Bytes::from_static(b"a"));
    let empty = watch(KeyRange::Between { start, end }, 0);
    assert_eq!(stream.create(empty).unwrap_err(), WatchRefused::EmptyRange);
    let numbered = |id| WatchSpec { id, ..watch(all(), 0) };
    let mut made = |id| stream.create(numbered(id)).map(|created| created.id);
    assert_eq!(made(1), Ok(1));
    assert_eq!(made(1), Err(WatchRefused::DuplicateId));
    assert_eq!((made(0), made(0)), (Ok(0), Ok(2)));
    assert!(stream.cancel(1));
    assert!(!stream.cancel(1));
}

/// W-09.
#[test]
fn large_answers_are_fragmented_on_request() {
    let mut fixture = Fixture::new(Options { watch_answer_bytes_max: 300, ..Options::default() });
    let (mut stream, _) = stream(&fixture.store);
    stream.create(WatchSpec { fragment: true, ..watch(all(), 0) }).unwrap();
    stream.create(watch(all(), 0)).unwrap();
    fixture.txn(|txn| {
        for key in ["a", "b", "c", "d", "e"] {
            put(txn, key, &"v".repeat(80));
        }
    });
    let sizes = |output: &WatchOutput| match output {
        WatchOutput::Events { id, revision, events, fragment } => {
            (*id, *revision, events.len(), *fragment)
        }
        WatchOutput::Compacted { .. } | WatchOutput::Progress { .. } => panic!("{output:?}"),
    };
    let got: Vec<_> = drain(&mut stream).iter().map(sizes).collect();
    assert_eq!(got, [(0, 2, 2, true), (0, 2, 2, true), (0, 2, 1, false), (1, 2, 5, false)]);
}

/// W-05, W-11: only who has everything is told of progress.
#[test]
fn progress_is_told_when_everything_is_delivered() {
    let mut fixture = Fixture::small();
    fixture.put("k", "1");
    let (mut stream, _) = stream(&fixture.store);
    stream.request_progress();
    assert_eq!(answers(&drain(&mut stream)), [""; 0], "nobody is there to be told");
    stream.create(watch(one("k"), 2)).unwrap();
    stream.create(watch(one("other"), 0)).unwrap();
    stream.request_progress();
    let mut out = Vec::new();
    while stream.pull(1, &mut out).unwrap() {}
    assert_eq!(answers(&out), ["0@2: put k=1@2", "None progress 2"]);

    // Busy since the last call, then idle.
    stream.notify_idle(0);
    stream.notify_idle(1);
    assert_eq!(answers(&drain(&mut stream)), ["Some(1) progress 2"]);
    fixture.put("unwatched", "1");
    stream.notify_idle(0);
    assert_eq!(answers(&drain(&mut stream)), ["Some(0) progress 3"]);

    // Who waits for the future holds the answer back.
    let future = stream.create(watch(one("k"), 5)).unwrap().id;
    stream.request_progress();
    stream.notify_idle(future);
    assert_eq!(answers(&drain(&mut stream)), [""; 0]);
    fixture.put("k", "2");
    fixture.put("k", "3");
    assert_eq!(
        answers(&drain(&mut stream)),
        ["0@5: put k=2@4, put k=3@5", "2@5: put k=3@5", "None progress 5"]
    );
}

/// Watches survive the installation of a snapshot: nothing twice, nothing lost (etcd 15271).
#[test]
fn watches_go_on_over_a_restored_store() {
    let mut fixture = Fixture::small();
    let mut ahead = Fixture::small();
    for n in 0..10 {
        ahead.put("k", &n.to_string());
    }
    for n in 0..4 {
        fixture.put("k", &n.to_string());
    }
    let (mut stream, bell) = stream(&fixture.store);
    stream.create(watch(all(), 4)).unwrap();
    stream.create(watch(all(), 12)).unwrap();
    assert_eq!(answers(&drain(&mut stream)), ["0@5: put k=2@4, put k=3@5"]);
    fixture.restore_from(&ahead);
    assert_eq!(fixture.store.reader().revision(), 11);
    assert_eq!(bell.0.load(Ordering::Relaxed), 1);
    let caught_up = (4..10).map(|n| format!("put k={n}@{}", n + 2)).collect::<Vec<_>>();
    assert_eq!(answers(&drain(&mut stream)), [format!("0@11: {}", caught_up.join(", "))]);
    fixture.put("k", "10");
    assert_eq!(answers(&drain(&mut stream)), ["0@12: put k=10@12", "1@12: put k=10@12"]);
}

/// A watch and all that it was sent.
#[derive(Debug)]
struct Watched {
    spec: WatchSpec,
    id: i64,
    /// First revision it may get.
    from: i64,
    events: Vec<Event>,
    /// Up to here everything is known to be delivered.
    told: i64,
    in_fragments: bool,
    ended: Option<i64>,
}

/// A stream and its watches, checked at every answer.
struct Checked {
    stream: WatchStream,
    watches: Vec<Watched>,
    /// The newest revision of any header.
    told: i64,
}

#[derive(Clone, Debug)]
enum Step {
    Change { keys: Vec<u8>, delete: bool },
    Create { stream: usize, spec: WatchSpec, back: Option<i64> },
    Cancel { stream: usize, which: usize },
    Pull { stream: usize, bytes_max: usize },
    Progress { stream: usize },
    Compact { back: i64 },
    RemoveRows,
}

fn key(n: u8) -> Bytes {
    Bytes::from(format!("{}", char::from(b'a' + n)))
}

fn range() -> impl Strategy<Value = KeyRange> {
    let any_key = || (0..6_u8).prop_map(key);
    prop_oneof![
        2 => any_key().prop_map(KeyRange::One),
        1 => any_key().prop_map(KeyRange::From),
        1 => (any_key(), any_key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
        1 => Just(all()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let keys =
        prop::collection::btree_set(0..6_u8, 1..4).prop_map(|keys| keys.into_iter().collect());
    let spec = (range(), any::<[bool; 4]>()).prop_map(|(keys, flags)| WatchSpec {
        keys,
        start: 0,
        filters: Filters { no_put: flags[0] && flags[1], no_delete: flags[0] && !flags[1] },
        want_previous: flags[2],
        id: 0,
        fragment: flags[3],
    });
    let back = prop::option::of(-5..15_i64);
    prop_oneof![
        8 => (keys, any::<bool>()).prop_map(|(keys, delete)| Step::Change { keys, delete }),
        2 => (0..2_usize, spec, back).prop_map(|(stream, spec, back)| Step::Create { stream, spec, back }),
        1 => (0..2_usize, any::<usize>()).prop_map(|(stream, which)| Step::Cancel { stream, which }),
        4 => (0..2_usize, 1..400_usize).prop_map(|(stream, bytes_max)| Step::Pull { stream, bytes_max }),
        1 => (0..2_usize).prop_map(|stream| Step::Progress { stream }),
        1 => (0..12_i64).prop_map(|back| Step::Compact { back }),
        2 => Just(Step::RemoveRows),
    ]
}

impl Watched {
    fn wants(&self, change: &Change) -> bool {
        let filters = self.spec.filters;
        let filtered = if change.row.is_some() { filters.no_put } else { filters.no_delete };
        self.from <= change.main && self.spec.keys.contains(&change.key) && !filtered
    }

    /// Everything due from what it was sent up to and including `through`.
    fn check_delivered(&self, model: &Model, through: i64) -> Result<(), TestCaseError> {
        let due =
            model.changes.iter().filter(|change| self.wants(change) && change.main <= through);
        prop_assert_eq!(self.events.len(), due.count(), "{:?} up to {}", self, through);
        Ok(())
    }

    fn on_events(
        &mut self,
        model: &Model,
        revision: i64,
        events: &[Bytes],
        fragment: bool,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.ended, None);
        prop_assert!(!events.is_empty());
        let due: Vec<_> = model.changes.iter().filter(|change| self.wants(change)).collect();
        for bytes in events {
            let event = Event::decode(bytes.clone()).unwrap();
            let Some(change) = due.get(self.events.len()) else {
                return Err(TestCaseError::fail(format!("{self:?} got {event:?} too much")));
            };
            let kv = event.kv.as_ref().unwrap();
            prop_assert_eq!((&kv.key, kv.mod_revision), (&change.key, change.main), "{:?}", self);
            prop_assert!(self.told < change.main, "progress went ahead of {:?}", change);
            let put = event.r#type() == EventType::Put;
            prop_assert_eq!(Some(kv).filter(|_| put), change.row.as_ref());
            match &event.prev_kv {
                Some(previous) => {
                    prop_assert!(self.spec.want_previous);
                    prop_assert_eq!(Some(previous), change.previous.as_ref());
                }
                None if self.spec.want_previous && model.compact < change.main => {
                    prop_assert_eq!(None, change.previous.as_ref());
                }
                None => {}
            }
            self.events.push(event);
        }
        prop_assert!(self.spec.fragment || !fragment);
        self.in_fragments = fragment;
        let last = self.events.last().and_then(|event| event.kv.as_ref()).unwrap().mod_revision;
        if !fragment {
            prop_assert!(last <= revision);
            // Whole revisions: the next event due is of a later one.
            prop_assert!(due.get(self.events.len()).is_none_or(|next| last < next.main));
        }
        Ok(())
    }
}

impl Checked {
    fn pull(&mut self, model: &Model, bytes_max: usize) -> Result<bool, TestCaseError> {
        let mut out = Vec::new();
        let more = self.stream.pull(bytes_max, &mut out).unwrap();
        for output in &out {
            let (WatchOutput::Events { revision, .. }
            | WatchOutput::Compacted { revision, .. }
            | WatchOutput::Progress { revision, .. }) = output;
            prop_assert!(self.told <= *revision && *revision <= model.revision);
            self.told = *revision;
            match output {
                WatchOutput::Events { id, revision, events, fragment } => {
                    let watched = self.watched(*id);
                    watched.on_events(model, *revision, events, *fragment)?;
                }
                WatchOutput::Compacted { id, compact_revision, .. } => {
                    let watched = self.watched(*id);
                    prop_assert_eq!(*compact_revision, model.compact);
                    let due = model.changes.iter().filter(|change| watched.wants(change));
                    let due = due.map(|change| change.main).nth(watched.events.len());
                    let lost = due.is_some_and(|main| main <= model.compact);
                    prop_assert!(lost || watched.from < model.compact, "{:?}", watched);
                    watched.ended = Some(*compact_revision);
                }
                WatchOutput::Progress { id: Some(id), revision } => {
                    let watched = self.watched(*id);
                    watched.told = *revision;
                    watched.check_delivered(model, *revision)?;
                }
                WatchOutput::Progress { id: None, revision } => {
                    for watched in self.watches.iter_mut().filter(|one| one.ended.is_none()) {
                        watched.told = *revision;
                        watched.check_delivered(model, *revision)?;
                    }
                }
            }
        }
        prop_assert!(self.watches.iter().all(|one| !one.in_fragments), "fragments are closed");
        Ok(more)
    }

    fn watched(&mut self, id: i64) -> &mut Watched {
        self.watches.iter_mut().rfind(|one| one.id == id).unwrap()
    }
}

fn change(fixture: &mut Fixture, model: &mut Model, keys: &[u8], delete: bool) {
    let main = model.revision + 1;
    fixture.txn(|txn| {
        let mut sub = 0;
        for n in keys {
            let (key, value) = (key(*n), Bytes::from(vec![b'v'; 30]));
            if delete {
                let keys = KeyRange::One(key);
                txn.delete_range(&keys, false, &mut |_, _| {}).unwrap();
                sub += i64::try_from(model.delete(main, sub, &keys).len()).unwrap();
            } else {
                txn.put(key.clone(), &value, LeaseId::NONE, false).unwrap();
                model.put(main, sub, &key, &value, 0);
                sub += 1;
            }
        }
    });
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut fixture = Fixture::new(Options {
        compact_batch_rows: 3,
        event_ring_bytes_max: 2000,
        watch_answer_bytes_max: 250,
        ..Options::default()
    });
    let mut model = Model::default();
    let open = |_| Checked { stream: stream(&fixture.store).0, watches: Vec::new(), told: 0 };
    let mut streams: Vec<_> = (0..2).map(open).collect();
    for step in steps {
        match step {
            Step::Change { keys, delete } => change(&mut fixture, &mut model, &keys, delete),
            Step::Create { stream, spec, back } => {
                let start = back.map_or(0, |back| (model.revision - back).max(1));
                let spec = WatchSpec { start, ..spec };
                let checked = &mut streams[stream];
                let Ok(created) = checked.stream.create(spec.clone()) else {
                    prop_assert!(spec.keys.is_empty());
                    continue;
                };
                prop_assert_eq!(created.revision, model.revision);
                checked.told = created.revision;
                let from = if start == 0 { model.revision + 1 } else { start };
                let (events, told) = (Vec::new(), 0);
                let id = created.id;
                let ended = None;
                let in_fragments = false;
                checked.watches.push(Watched { spec, id, from, events, told, in_fragments, ended });
            }
            Step::Cancel { stream, which } => {
                let checked = &mut streams[stream];
                if !checked.watches.is_empty() {
                    let watched = checked.watches.swap_remove(which % checked.watches.len());
                    let known = checked.stream.cancel(watched.id);
                    prop_assert_eq!(known, watched.ended.is_none());
                }
            }
            Step::Pull { stream, bytes_max } => {
                streams[stream].pull(&model, bytes_max)?;
            }
            Step::Progress { stream } => {
                let checked = &mut streams[stream];
                checked.stream.request_progress();
                for watched in &checked.watches {
                    checked.stream.notify_idle(watched.id);
                }
            }
            Step::Compact { back } => {
                let at = model.revision - back;
                if fixture.schedule(at).is_ok() {
                    model.compact = at;
                }
            }
            Step::RemoveRows => {
                fixture.store.compact_step().unwrap();
            }
        }
    }
    for checked in &mut streams {
        while checked.pull(&model, 300)? {}
        for watched in checked.watches.iter().filter(|one| one.ended.is_none()) {
            watched.check_delivered(&model, model.revision)?;
        }
    }
    Ok(())
}

proptest! {
    /// Reliability 8.2; W-04, W-06, W-07, W-09, W-11, W-14, W-18 to W-20.
    #[test]
    fn watch_guarantees_hold(steps in prop::collection::vec(step(), 1..120)) {
        run(steps)?;
    }
}

/// MET-56, MET-57.
#[test]
fn what_streams_have_not_pulled_is_counted() {
    let mut fixture = Fixture::small();
    let (mut slow, _) = stream(&fixture.store);
    let (mut quick, _) = stream(&fixture.store);
    for watched in [all(), all(), one("a")] {
        slow.create(watch(watched, 0)).unwrap();
    }
    quick.create(watch(all(), 0)).unwrap();
    let lag = |fixture: &Fixture| {
        let lag = fixture.store.watch().lag();
        (lag.watches, lag.events)
    };
    fixture.put("b", "1");
    drain(&mut slow);
    drain(&mut quick);
    assert_eq!(lag(&fixture), (0, 0));
    fixture.put("b", "2");
    assert_eq!(lag(&fixture), (3, 3));
    fixture.txn(|txn| {
        put(txn, "a", "3");
        put(txn, "b", "3");
    });
    drain(&mut quick);
    assert_eq!(lag(&fixture), (3, 2 * 3 + 1));
    drain(&mut slow);
    assert_eq!(lag(&fixture), (0, 0));
    fixture.put("a", "4");
    drop(slow);
    assert_eq!(lag(&fixture), (1, 1));
}
