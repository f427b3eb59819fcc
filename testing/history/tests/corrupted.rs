//! The judges' own test: every way to spoil a good history is found, under the right name.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

#[allow(dead_code, unreachable_pub, clippy::wildcard_enum_match_arm, reason = "shared by tests")]
mod support;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use retcd_history::{
    Answer, Call, Final, History, Observation, Operation, Outcome, Rule, Store, judge,
};

/// Spoils a history; false if there was nothing to spoil.
type Spoil = fn(&mut History, &mut SmallRng) -> bool;

/// What is done, what it is called by the judge, and how.
const CORRUPTIONS: &[(&str, &[Rule], Spoil)] = &[
    ("value of an acknowledged put", &[Rule::ChangeLost], put_changed),
    ("put forgotten by the store", &[Rule::RevisionUnexplained], put_never_asked),
    ("refused put happened", &[Rule::RevisionUnexplained], put_refused),
    ("two puts, one revision", &[Rule::RevisionTwice], revision_twice),
    ("revisions of two puts swapped", &[Rule::ChangeLost, Rule::WrongAnswer], revisions_swapped),
    ("put asked for after it was seen", &[Rule::ChangeInThePast], asked_too_late),
    ("unanswered put seen before it was asked for", &[Rule::RevisionUnexplained], unknown_too_late),
    ("put applied twice", &[Rule::RevisionUnexplained, Rule::ChangeLost], applied_twice),
    ("stale read", &[Rule::StaleRead], stale_read),
    ("read of another value", &[Rule::WrongAnswer], read_value),
    ("read misses a key", &[Rule::WrongAnswer], read_misses),
    ("read of a phantom", &[Rule::WrongAnswer], read_phantom),
    ("count of a read", &[Rule::WrongAnswer], read_count),
    ("serializable read of another value", &[Rule::WrongAnswer], serializable_value),
    ("session goes back", &[Rule::SessionWentBack], session_back),
    ("historical read of another value", &[Rule::WrongAnswer], historical_value),
    ("pair before a put", &[Rule::WrongAnswer], put_before),
    ("deleted count", &[Rule::WrongAnswer], deleted_count),
    ("branch of a transaction", &[Rule::WrongAnswer], txn_branch),
    ("refusal for a compaction", &[Rule::WrongRefusal], false_compacted),
    ("refusal for the future", &[Rule::WrongRefusal], false_future),
    ("read behind a compaction", &[Rule::ReadBehindCompaction], read_behind_compaction),
    ("answer of another kind", &[Rule::WrongAnswer], other_kind),
    ("answer of another cluster", &[Rule::ForeignCluster], other_cluster),
    ("watch: response lost", &[Rule::WatchGap], watch_gap),
    ("watch: end missing", &[Rule::WatchGap], watch_end),
    ("watch: event of a revision lost", &[Rule::WatchSplit], watch_event_lost),
    ("watch: responses swapped", &[Rule::WatchBookmark, Rule::WatchGap], watch_swapped),
    ("watch: events swapped", &[Rule::WatchOrder], watch_events_swapped),
    ("watch: response twice", &[Rule::WatchOrder], watch_twice),
    ("watch: revision split", &[Rule::WatchSplit, Rule::WatchOrder], watch_split),
    ("watch: event before the begin", &[Rule::WatchPhantom], watch_before_begin),
    ("watch: event of another key", &[Rule::WatchPhantom], watch_other_key),
    ("watch: event that was filtered out", &[Rule::WatchPhantom], watch_filtered),
    ("watch: created, not modified", &[Rule::ChangeLost, Rule::WatchPhantom], watch_created),
    ("watch: previous pair missing", &[Rule::WatchPreviousPair], watch_previous_missing),
    ("watch: previous pair wrong", &[Rule::WatchPreviousPair], watch_previous_wrong),
    ("watch: progress ahead of events", &[Rule::WatchBookmark], watch_progress),
    ("watch: header below its events", &[Rule::WatchBookmark], watch_header),
    ("watch: response before the confirmation", &[Rule::WatchOutsideItsLife], watch_early),
    ("watch: response after the end", &[Rule::WatchOutsideItsLife], watch_late),
    ("watch: ended for no compaction", &[Rule::WatchCancel], watch_cancel),
    ("lease ended early", &[Rule::LeaseEarly], lease_early),
    ("lease found dead early", &[Rule::LeaseEarly], lease_missing_early),
    ("lease used after its end", &[Rule::LeaseAfterDeath], lease_after_death),
    ("lease granted twice", &[Rule::LeaseTwice], lease_twice),
    ("hash of a member", &[Rule::MembersDiffer], final_hash),
    ("compaction of a member", &[Rule::MembersDiffer], final_compaction),
    ("last writes lost", &[Rule::EndDiffers], final_behind),
    ("value at the end", &[Rule::EndDiffers], final_pairs),
];

/// Histories tried for each corruption.
const SEEDS: u64 = 12;

#[test]
fn every_corruption_is_found_and_named() {
    let mut missed = Vec::new();
    for (name, rules, spoil) in CORRUPTIONS {
        let mut tried = 0;
        for seed in 0..SEEDS {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut history = support::good(seed, 250);
            if !spoil(&mut history, &mut random) {
                continue;
            }
            tried += 1;
            match judge(&history) {
                Ok(_) => missed.push(format!("{name}, seed {seed}: not found")),
                Err(found) if !found.iter().any(|found| rules.contains(&found.rule)) => {
                    let stories: Vec<_> = found.iter().map(|found| found.story(&history)).collect();
                    missed.push(format!("{name}, seed {seed}: taken for {}", stories.join("\n")));
                }
                Err(found) => {
                    for violation in &found {
                        assert!(violation.operations.len() <= 8, "{}", violation.story(&history));
                    }
                }
            }
        }
        if tried == 0 {
            missed.push(format!("{name}: never possible"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn pick(
    history: &History,
    random: &mut SmallRng,
    wanted: impl Fn(&Operation) -> bool,
) -> Option<usize> {
    let operations = history.operations.iter().enumerate();
    let found: Vec<usize> =
        operations.filter(|(_, operation)| wanted(operation)).map(|(index, _)| index).collect();
    found.choose(random).copied()
}

fn is_put(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Answered(Answer::Put(_)))
}

fn revision(operation: &Operation) -> i64 {
    operation.answer().map_or(0, Answer::revision)
}

fn range_answer(operation: &mut Operation) -> &mut pb::RangeResponse {
    match &mut operation.outcome {
        Outcome::Answered(Answer::Range(response)) => response,
        other => panic!("no range: {other:?}"),
    }
}

fn range_request(operation: &Operation) -> Option<&pb::RangeRequest> {
    match (&operation.call, &operation.outcome) {
        (Call::Range(request), Outcome::Answered(_)) => Some(request),
        _ => None,
    }
}

fn fresh_read(operation: &Operation) -> bool {
    range_request(operation).is_some_and(|request| !request.serializable && request.revision == 0)
}

fn shows_pairs(operation: &Operation) -> bool {
    matches!(&operation.outcome, Outcome::Answered(Answer::Range(response)) if !response.kvs.is_empty())
}

/// The whole order, from the watch of everything.
fn store(history: &History) -> Store {
    let mut store = Store::new(1, &[]);
    let events = history.watches[0].observations.iter().flat_map(|seen| &seen.response.events);
    let mut by_revision = std::collections::BTreeMap::<i64, Vec<_>>::new();
    for event in events {
        let pair = event.kv.clone().unwrap();
        by_revision.entry(pair.mod_revision).or_default().push((event.r#type, pair));
    }
    for changes in by_revision.into_values() {
        use pb::request_op::Request;
        let operations = changes.into_iter().map(|(kind, pair)| {
            let KeyValue { key, value, lease, .. } = pair;
            let request = if kind == 0 {
                Request::RequestPut(pb::PutRequest { key, value, lease, ..Default::default() })
            } else {
                Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
            };
            pb::RequestOp { request: Some(request) }
        });
        let txn = pb::TxnRequest { success: operations.collect(), ..Default::default() };
        store.apply(&Call::Txn(txn)).unwrap();
    }
    store
}

fn put_changed(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = pick(history, random, is_put) else { return false };
    let Call::Put(request) = &mut history.operations[index].call else { return false };
    request.value = Bytes::from_static(b"another");
    true
}

fn put_never_asked(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = pick(history, random, is_put) else { return false };
    history.operations.remove(index);
    true
}

fn put_refused(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = pick(history, random, is_put) else { return false };
    history.operations[index].outcome = Outcome::Refused("etcdserver: no space".to_owned());
    true
}

fn set_revision(operation: &mut Operation, revision: i64) {
    if let Outcome::Answered(Answer::Put(response)) = &mut operation.outcome {
        response.header.as_mut().unwrap().revision = revision;
    }
}

fn revision_twice(history: &mut History, random: &mut SmallRng) -> bool {
    let (left, right) = (pick(history, random, is_put), pick(history, random, is_put));
    let (Some(left), Some(right)) = (left, right) else { return false };
    let number = revision(&history.operations[left]);
    set_revision(&mut history.operations[right], number);
    left != right
}

fn revisions_swapped(history: &mut History, random: &mut SmallRng) -> bool {
    let (left, right) = (pick(history, random, is_put), pick(history, random, is_put));
    let (Some(left), Some(right)) = (left, right) else { return false };
    let numbers = (revision(&history.operations[left]), revision(&history.operations[right]));
    set_revision(&mut history.operations[right], numbers.0);
    set_revision(&mut history.operations[left], numbers.1);
    left != right
}

fn ask_too_late(history: &mut History, random: &mut SmallRng) -> Option<usize> {
    let index = pick(history, random, is_put)?;
    let end = history.watches[0].observations.last().unwrap().received;
    history.operations[index].invoked = end + 1;
    history.operations[index].returned = end + 2;
    Some(index)
}

fn asked_too_late(history: &mut History, random: &mut SmallRng) -> bool {
    ask_too_late(history, random).is_some()
}

fn unknown_too_late(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = ask_too_late(history, random) else { return false };
    history.operations[index].outcome = Outcome::Unknown("not heard".to_owned());
    true
}

/// One of two puts of the same pair, next to each other, was never asked for.
fn applied_twice(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(first) = pick(history, random, is_put) else { return false };
    let Some(second) = pick(history, random, is_put) else { return false };
    if first == second {
        return false;
    }
    // The second's place is taken by the first's repetition, in every watch.
    let number = revision(&history.operations[second]);
    let Call::Put(request) = history.operations[first].call.clone() else { return false };
    history.operations.remove(second);
    for event in events_mut(history, 0) {
        let pair = event.kv.as_mut().unwrap();
        if pair.mod_revision == number {
            (pair.key, pair.value) = (request.key.clone(), request.value.clone());
        }
    }
    true
}

fn events_mut(
    history: &mut History,
    watch: usize,
) -> impl Iterator<Item = &mut proto::mvccpb::Event> {
    let observations = history.watches[watch].observations.iter_mut();
    observations.flat_map(|seen| &mut seen.response.events)
}

fn stale_read(history: &mut History, random: &mut SmallRng) -> bool {
    let store = store(history);
    let Some(index) = pick(history, random, |read| fresh_read(read) && revision(read) > 30) else {
        return false;
    };
    let read = &mut history.operations[index];
    let old = revision(read) - 20;
    let executed = store.execute(&read.call, old).unwrap();
    let Answer::Range(mut response) = executed.answer else { return false };
    response.header = Some(pb::ResponseHeader {
        cluster_id: support::CLUSTER,
        revision: old,
        ..Default::default()
    });
    read.outcome = Outcome::Answered(Answer::Range(response));
    true
}

fn spoil_pairs(
    history: &mut History,
    random: &mut SmallRng,
    wanted: impl Fn(&pb::RangeRequest) -> bool,
    spoil: impl Fn(&mut pb::RangeResponse),
) -> bool {
    let found =
        pick(history, random, |read| shows_pairs(read) && range_request(read).is_some_and(&wanted));
    let Some(index) = found else { return false };
    spoil(range_answer(&mut history.operations[index]));
    true
}

fn another_value(response: &mut pb::RangeResponse) {
    response.kvs[0].value = Bytes::from_static(b"another");
}

fn read_value(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_pairs(history, random, |read| !read.serializable, another_value)
}

fn serializable_value(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_pairs(history, random, |read| read.serializable, another_value)
}

fn historical_value(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_pairs(history, random, |read| read.revision > 0, another_value)
}

fn read_misses(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_pairs(
        history,
        random,
        |_| true,
        |response| {
            response.kvs.pop();
            response.count -= 1;
        },
    )
}

fn read_phantom(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_pairs(
        history,
        random,
        |_| true,
        |response| {
            let phantom = KeyValue { key: Bytes::from_static(b"kz"), ..response.kvs[0].clone() };
            response.kvs.push(phantom);
            response.count += 1;
        },
    )
}

fn read_count(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_pairs(history, random, |_| true, |response| response.count += 1)
}

fn session_back(history: &mut History, random: &mut SmallRng) -> bool {
    let store = store(history);
    let found = pick(history, random, |read| {
        range_request(read).is_some_and(|request| request.serializable && request.revision == 0)
            && revision(read) > 20
    });
    let Some(index) = found else { return false };
    let mut again = history.operations[index].clone();
    (again.invoked, again.returned) = (again.returned + 1, again.returned + 2);
    let old = revision(&again) - 10;
    let executed = store.execute(&again.call, old).unwrap();
    let Answer::Range(mut response) = executed.answer else { return false };
    response.header = Some(pb::ResponseHeader { revision: old, ..Default::default() });
    again.outcome = Outcome::Answered(Answer::Range(response));
    history.operations.push(again);
    true
}

fn put_before(history: &mut History, random: &mut SmallRng) -> bool {
    let found = pick(
        history,
        random,
        |put| matches!(&put.outcome, Outcome::Answered(Answer::Put(response)) if response.prev_kv.is_some()),
    );
    let Some(index) = found else { return false };
    if let Outcome::Answered(Answer::Put(response)) = &mut history.operations[index].outcome {
        response.prev_kv.as_mut().unwrap().version += 1;
    }
    true
}

fn deleted_count(history: &mut History, random: &mut SmallRng) -> bool {
    let found = pick(
        history,
        random,
        |delete| matches!(&delete.outcome, Outcome::Answered(Answer::Delete(response)) if response.deleted > 0),
    );
    let Some(index) = found else { return false };
    if let Outcome::Answered(Answer::Delete(response)) = &mut history.operations[index].outcome {
        response.deleted += 1;
    }
    true
}

fn txn_branch(history: &mut History, random: &mut SmallRng) -> bool {
    let found =
        pick(history, random, |txn| matches!(&txn.outcome, Outcome::Answered(Answer::Txn(_))));
    let Some(index) = found else { return false };
    if let Outcome::Answered(Answer::Txn(response)) = &mut history.operations[index].outcome {
        response.succeeded = !response.succeeded;
    }
    true
}

fn refuse(history: &mut History, random: &mut SmallRng, number: i64, text: &str) -> bool {
    let Some(index) = pick(history, random, fresh_read) else { return false };
    let read = &mut history.operations[index];
    let Call::Range(request) = &mut read.call else { return false };
    request.revision = number;
    read.outcome = Outcome::Refused(text.to_owned());
    // Late enough that its revision was known.
    read.invoked += 10_000_000_000;
    read.returned += 10_000_000_000;
    true
}

fn false_compacted(history: &mut History, random: &mut SmallRng) -> bool {
    let last = history.finals[0].revision;
    refuse(history, random, last, "etcdserver: mvcc: required revision has been compacted")
}

fn false_future(history: &mut History, random: &mut SmallRng) -> bool {
    let last = history.finals[0].revision;
    refuse(history, random, last, "etcdserver: mvcc: required revision is a future revision")
}

fn read_behind_compaction(history: &mut History, random: &mut SmallRng) -> bool {
    let store = store(history);
    let compaction = history.operations.iter().find_map(|operation| match &operation.call {
        Call::Compact(request) if operation.answer().is_some() => {
            Some((request.revision, operation.returned))
        }
        _ => None,
    });
    let Some((compacted, over)) = compaction else { return false };
    let found = pick(history, random, |read| fresh_read(read) && read.invoked > over);
    let Some(index) = found else { return false };
    let read = &mut history.operations[index];
    let number = revision(read);
    let Call::Range(request) = &mut read.call else { return false };
    request.revision = compacted - 1;
    let executed = store.execute(&read.call, number).unwrap();
    let Answer::Range(mut response) = executed.answer else { return false };
    response.header = Some(pb::ResponseHeader { revision: number, ..Default::default() });
    read.outcome = Outcome::Answered(Answer::Range(response));
    compacted > 2
}

fn other_kind(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = pick(history, random, fresh_read) else { return false };
    let header = history.operations[index].answer().unwrap().header().copied();
    let response = pb::CompactionResponse { header };
    history.operations[index].outcome = Outcome::Answered(Answer::Compact(response));
    true
}

fn other_cluster(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = pick(history, random, fresh_read) else { return false };
    let response = range_answer(&mut history.operations[index]);
    response.header.as_mut().unwrap().cluster_id += 1;
    true
}

/// The indices of a watch's responses with events.
fn with_events(history: &History, watch: usize) -> Vec<usize> {
    let observations = history.watches[watch].observations.iter().enumerate();
    observations
        .filter(|(_, seen)| !seen.response.events.is_empty())
        .map(|(index, _)| index)
        .collect()
}

fn watch_gap(history: &mut History, random: &mut SmallRng) -> bool {
    // Not the last: whether that is missing only the end can tell.
    let found = with_events(history, 1);
    let Some((_, found)) = found.split_last() else { return false };
    let Some(index) = found.choose(random) else { return false };
    let observations = &mut history.watches[1].observations;
    // A mark of progress in between would be the one that is wrong.
    observations.remove(*index);
    while observations.get(*index).is_some_and(|seen| seen.response.events.is_empty()) {
        observations.remove(*index);
    }
    *index < observations.len()
}

fn watch_end(history: &mut History, _: &mut SmallRng) -> bool {
    let found = with_events(history, 1);
    let Some(last) = found.last() else { return false };
    history.watches[1].observations.truncate(*last);
    true
}

fn watch_event_lost(history: &mut History, random: &mut SmallRng) -> bool {
    let mut found = Vec::new();
    for (index, seen) in history.watches[1].observations.iter().enumerate() {
        for (number, events) in seen.response.events.windows(2).enumerate() {
            let [left, right] = events else { continue };
            let revision = |event: &proto::mvccpb::Event| event.kv.as_ref().unwrap().mod_revision;
            if revision(left) == revision(right) {
                found.push((index, number));
            }
        }
    }
    let Some((index, number)) = found.choose(random) else { return false };
    history.watches[1].observations[*index].response.events.remove(*number);
    true
}

fn watch_swapped(history: &mut History, random: &mut SmallRng) -> bool {
    let found = with_events(history, 1);
    let pairs: Vec<_> = found.windows(2).filter(|pair| pair[0] + 1 == pair[1]).collect();
    let Some(pair) = pairs.choose(random) else { return false };
    let observations = &mut history.watches[1].observations;
    let header = |seen: &Observation| seen.response.header.unwrap().revision;
    let differ = header(&observations[pair[0]]) != header(&observations[pair[1]]);
    observations.swap(pair[0], pair[1]);
    differ
}

fn watch_events_swapped(history: &mut History, random: &mut SmallRng) -> bool {
    let mut found = Vec::new();
    for (index, seen) in history.watches[1].observations.iter().enumerate() {
        let events = &seen.response.events;
        let revisions: Vec<i64> =
            events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
        let unequal = revisions.windows(2).position(|pair| pair[0] != pair[1]);
        found.extend(unequal.map(|number| (index, number)));
    }
    let Some((index, number)) = found.choose(random) else { return false };
    history.watches[1].observations[*index].response.events.swap(*number, *number + 1);
    true
}

fn watch_twice(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = with_events(history, 1).choose(random).copied() else { return false };
    let again = history.watches[1].observations[index].clone();
    history.watches[1].observations.insert(index + 1, again);
    true
}

fn watch_split(history: &mut History, random: &mut SmallRng) -> bool {
    let mut found = Vec::new();
    for (index, seen) in history.watches[0].observations.iter().enumerate() {
        let events = &seen.response.events;
        let revisions: Vec<i64> =
            events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
        let equal = revisions.windows(2).position(|pair| pair[0] == pair[1]);
        found.extend(equal.map(|number| (index, number + 1)));
    }
    let Some((index, at)) = found.choose(random) else { return false };
    let observations = &mut history.watches[0].observations;
    let mut second = observations[*index].clone();
    observations[*index].response.events.truncate(*at);
    second.response.events.drain(..*at);
    observations.insert(index + 1, second);
    true
}

fn watch_before_begin(history: &mut History, random: &mut SmallRng) -> bool {
    history.watches[0].request.start_revision = 2 + random.random_range(1..5);
    true
}

fn watch_other_key(history: &mut History, _: &mut SmallRng) -> bool {
    history.watches[1].request.range_end = Bytes::from_static(b"k2");
    with_events(history, 1).len() > 20
}

fn watch_filtered(history: &mut History, _: &mut SmallRng) -> bool {
    history.watches[1].request.filters = vec![0];
    with_events(history, 1).len() > 20
}

fn spoil_event(
    history: &mut History,
    random: &mut SmallRng,
    wanted: impl Fn(&proto::mvccpb::Event) -> bool,
    spoil: impl Fn(&mut proto::mvccpb::Event),
) -> bool {
    let events: Vec<_> = events_mut(history, 0).filter(|event| wanted(event)).collect();
    if events.is_empty() {
        return false;
    }
    let chosen = random.random_range(0..events.len());
    events.into_iter().nth(chosen).map(spoil).is_some()
}

fn watch_created(history: &mut History, random: &mut SmallRng) -> bool {
    let modified =
        |event: &proto::mvccpb::Event| event.r#type == 0 && event.kv.as_ref().unwrap().version > 1;
    spoil_event(history, random, modified, |event| {
        let pair = event.kv.as_mut().unwrap();
        pair.create_revision = pair.mod_revision;
    })
}

fn no_compactions(history: &mut History) {
    history.operations.retain(|operation| !matches!(operation.call, Call::Compact(_)));
}

fn watch_previous_missing(history: &mut History, random: &mut SmallRng) -> bool {
    no_compactions(history);
    spoil_event(history, random, |event| event.prev_kv.is_some(), |event| event.prev_kv = None)
}

fn watch_previous_wrong(history: &mut History, random: &mut SmallRng) -> bool {
    spoil_event(
        history,
        random,
        |event| event.prev_kv.is_some(),
        |event| {
            event.prev_kv.as_mut().unwrap().version += 1;
        },
    )
}

fn watch_progress(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = with_events(history, 1).choose(random).copied() else { return false };
    let mut progress = history.watches[1].observations[index].clone();
    progress.response.events.clear();
    history.watches[1].observations.insert(index, progress);
    true
}

fn watch_header(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = with_events(history, 0).choose(random).copied() else { return false };
    let response = &mut history.watches[0].observations[index].response;
    response.header.as_mut().unwrap().revision -= 5;
    true
}

fn watch_early(history: &mut History, _: &mut SmallRng) -> bool {
    history.watches[0].observations.remove(0);
    true
}

fn watch_late(history: &mut History, random: &mut SmallRng) -> bool {
    let Some(index) = with_events(history, 1).choose(random).copied() else { return false };
    let mut end = history.watches[1].observations[index].clone();
    end.response = pb::WatchResponse { canceled: true, ..Default::default() };
    history.watches[1].observations.insert(index, end);
    true
}

fn watch_cancel(history: &mut History, _: &mut SmallRng) -> bool {
    let last = history.watches[1].observations.last().unwrap().received;
    let compact_revision = history.finals[0].revision - 1;
    let response = pb::WatchResponse { canceled: true, compact_revision, ..Default::default() };
    history.watches[1].observations.push(Observation { received: last + 1, response });
    true
}

fn lease_early(history: &mut History, _: &mut SmallRng) -> bool {
    // Leases end by themselves after 20 ms here.
    for operation in &mut history.operations {
        if let Outcome::Answered(Answer::Grant(response)) = &mut operation.outcome {
            response.ttl = 100;
        }
    }
    judge(history).is_err()
}

fn lease_missing_early(history: &mut History, _: &mut SmallRng) -> bool {
    no_revokes(history);
    let found = history.operations.iter_mut().find_map(|operation| {
        let returned = operation.returned;
        match &mut operation.outcome {
            Outcome::Answered(Answer::Grant(response)) => {
                response.ttl = 100;
                Some((response.id, returned))
            }
            _ => None,
        }
    });
    let Some((id, returned)) = found else { return false };
    let mut question = history.operations[0].clone();
    (question.invoked, question.returned) = (returned + 1, returned + 2);
    question.call = Call::TimeToLive(pb::LeaseTimeToLiveRequest { id, keys: false });
    let response = pb::LeaseTimeToLiveResponse { id, ttl: -1, ..Default::default() };
    question.outcome = Outcome::Answered(Answer::TimeToLive(response));
    history.operations.push(question);
    true
}

fn no_revokes(history: &mut History) {
    for operation in &mut history.operations {
        if let Call::Revoke(request) = &mut operation.call {
            request.id = 1;
        }
    }
}

fn lease_after_death(history: &mut History, random: &mut SmallRng) -> bool {
    let found = pick(history, random, |operation| {
        matches!(operation.outcome, Outcome::Answered(Answer::Revoke(_)))
    });
    let Some(index) = found else { return false };
    let Call::Revoke(request) = history.operations[index].call else { return false };
    let mut renewal = history.operations[index].clone();
    (renewal.invoked, renewal.returned) = (renewal.returned + 1, renewal.returned + 2);
    renewal.call = Call::KeepAlive(pb::LeaseKeepAliveRequest { id: request.id });
    let response = pb::LeaseKeepAliveResponse { id: request.id, ttl: 5, ..Default::default() };
    renewal.outcome = Outcome::Answered(Answer::KeepAlive(response));
    let granted = history.operations.iter().any(|operation| {
        matches!(&operation.outcome, Outcome::Answered(Answer::Grant(grant)) if grant.id == request.id)
    });
    history.operations.push(renewal);
    granted
}

fn lease_twice(history: &mut History, random: &mut SmallRng) -> bool {
    let found = pick(history, random, |operation| {
        matches!(operation.outcome, Outcome::Answered(Answer::Grant(_)))
    });
    let Some(index) = found else { return false };
    let again = history.operations[index].clone();
    history.operations.push(again);
    true
}

fn last(history: &mut History) -> &mut Final {
    history.finals.last_mut().unwrap()
}

fn final_hash(history: &mut History, _: &mut SmallRng) -> bool {
    last(history).hash += 1;
    true
}

fn final_compaction(history: &mut History, _: &mut SmallRng) -> bool {
    last(history).compact_revision += 1;
    true
}

fn final_behind(history: &mut History, _: &mut SmallRng) -> bool {
    let store = store(history);
    for member in &mut history.finals {
        member.revision -= 1;
        member.pairs = Some(store.pairs(member.revision));
    }
    true
}

fn final_pairs(history: &mut History, _: &mut SmallRng) -> bool {
    let pairs = last(history).pairs.as_mut().unwrap();
    pairs.pop().is_some()
}
