//! Measurements of processor time, not checks: run by name, with an optimised build, on Linux.
//!
//! `cargo test -p retcd-mvcc --test measure --config profile.dev.package.retcd-mvcc.opt-level=3 \
//!  --config profile.dev.package.retcd-backend.opt-level=3 -- --ignored --nocapture`
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]
#![allow(clippy::print_stdout, reason = "figures are its result")]

mod support;

use base::{KeyRange, LeaseId};
use bytes::Bytes;
use retcd_mvcc::{RangeQuery, Store, Want};
use support::{Fixture, all, stream, watch};

const KEYS: usize = 1_000_000;

/// 30-byte keys in an order that looks random.
fn key(n: usize) -> Bytes {
    let scattered = n.wrapping_mul(2_654_435_761) % KEYS;
    Bytes::from(format!("/registry/pods/ns-{:03}/{:08}", scattered % 1000, scattered / 1000))
}

/// What this thread has used of a processor, so that other load does not count.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

fn report(what: &str, count: usize, since: u64) {
    let nanos = cpu_nanos() - since;
    println!("{what}: {count} in {} ms, {} ns each", nanos / 1_000_000, nanos / count as u64);
}

fn query(keys: KeyRange, limit: Option<usize>, want: Want) -> RangeQuery {
    RangeQuery { keys, at: None, limit, want }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

#[test]
#[ignore = "a measurement"]
fn a_million_keys() {
    let mut fixture = Fixture::new(retcd_mvcc::Options::default());
    let value = Bytes::from(vec![b'v'; 100]);
    let begin = cpu_nanos();
    for first in (0..KEYS).step_by(100) {
        fixture.apply(|writer| {
            for n in first..first + 100 {
                writer.txn().put(key(n), &value, LeaseId::NONE, false).unwrap();
            }
        });
    }
    report("put", KEYS, begin);

    let before = resident_bytes();
    let begin = cpu_nanos();
    let opened = Store::open(&fixture.backend, &fixture.options).unwrap();
    report("open", KEYS, begin);
    println!("index: {} bytes a key", (resident_bytes() - before) / KEYS);

    let reader = opened.reader();
    let begin = cpu_nanos();
    for n in 0..100_000 {
        let found = reader.range(&query(KeyRange::One(key(n)), None, Want::Rows)).unwrap();
        assert_eq!(found.rows.len(), 1);
    }
    report("get", 100_000, begin);
    let begin = cpu_nanos();
    for _ in 0..10_000 {
        let found = reader.range(&query(all(), Some(10), Want::Rows)).unwrap();
        assert_eq!((found.rows.len(), found.count), (10, KEYS));
    }
    report("limit 10 with count", 10_000, begin);
    let begin = cpu_nanos();
    for _ in 0..100_000 {
        assert_eq!(reader.range(&query(all(), None, Want::Count)).unwrap().count, KEYS);
    }
    report("count", 100_000, begin);
    let begin = cpu_nanos();
    assert_eq!(reader.range(&query(all(), None, Want::Keys)).unwrap().rows.len(), KEYS);
    report("keys only", KEYS, begin);
    let begin = cpu_nanos();
    reader.hash(0).unwrap();
    report("hash", KEYS, begin);
    let begin = cpu_nanos();
    let at = fixture.store.reader().revision();
    fixture.compact(at);
    report("compaction that drops nothing", KEYS, begin);
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_watchers_of_one_key() {
    const WATCHERS: usize = 10_000;
    const PUTS: usize = 200;
    let mut fixture = Fixture::new(retcd_mvcc::Options::default());
    let before = resident_bytes();
    let mut streams: Vec<_> = (0..10).map(|_| stream(&fixture.store).0).collect();
    let begin = cpu_nanos();
    for n in 0..WATCHERS {
        streams[n % 10].create(watch(KeyRange::One(key(0)), 0)).unwrap();
    }
    report("create", WATCHERS, begin);
    println!("{} bytes a watcher", (resident_bytes() - before) / WATCHERS);
    let value = Bytes::from(vec![b'v'; 100]);
    let (mut out, mut events) = (Vec::new(), 0);
    let begin = cpu_nanos();
    for _ in 0..PUTS {
        fixture.txn(|txn| txn.put(key(0), &value, LeaseId::NONE, false).map(|_| ()).unwrap());
        for stream in &mut streams {
            while stream.pull(usize::MAX, &mut out).unwrap() {}
            events += out.len();
            out.clear();
        }
    }
    assert_eq!(events, PUTS * WATCHERS);
    report("event to a watcher", events, begin);
}
