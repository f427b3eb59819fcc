//! Readers, watchers and hashes on other threads while the writer writes and compacts.
//!
//! Every transaction sets all of a fixed set of keys to its own revision: whoever reads must see
//! equal values, whichever they are.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]
#![allow(clippy::disallowed_methods, reason = "the threads are the test's")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use prost::Message;
use proto::mvccpb::Event;
use retcd_mvcc::{
    Options, QueryError, RangeQuery, Reader, RevisionError, Row, Want, WatchHub, WatchOutput,
    WatchSpec,
};
use support::{Bell, Fixture, all, put, watch};

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const LAST: i64 = 3000;

fn read(reader: &Reader, done: &AtomicBool) -> usize {
    let mut reads = 0;
    let mut newest = 0;
    while !done.load(Ordering::Relaxed) {
        let back = i64::try_from(reads % 4).unwrap();
        let at = (back != 0).then(|| reader.revision() - back);
        let query = RangeQuery { keys: all(), at, limit: None, want: Want::Rows };
        match reader.range(&query) {
            Ok(found) => {
                let rows: Vec<_> = found.rows.iter().map(Row::decode).collect();
                let expected = at.filter(|at| 0 < *at).unwrap_or(found.revision);
                assert!(rows.iter().all(|row| row.mod_revision == expected), "{rows:?}");
                assert!(rows.len() == KEYS.len() || expected == 1);
                assert!(newest <= found.revision, "revisions go back");
                newest = found.revision;
                reads += 1;
            }
            Err(QueryError::Revision(RevisionError::Compacted { requested, oldest })) => {
                assert!(requested < oldest);
            }
            Err(error) => panic!("{error}"),
        }
    }
    reads
}

fn follow(hub: &WatchHub, want_previous: bool, lazy: bool) -> usize {
    let mut stream = hub.stream(Arc::new(Bell::default()));
    stream.create(WatchSpec { want_previous, ..watch(all(), 2) }).unwrap();
    let mut next = 2;
    let mut restarts = 0;
    while next <= LAST {
        let mut out = Vec::new();
        stream.pull(200, &mut out).unwrap();
        for output in out {
            match output {
                WatchOutput::Events { events, .. } => {
                    let decode = |event: &Bytes| Event::decode(event.clone()).unwrap().kv.unwrap();
                    let got: Vec<_> = events.iter().map(decode).collect();
                    for kvs in got.chunks(KEYS.len()) {
                        let keys: Vec<_> = kvs.iter().map(|kv| kv.key.clone()).collect();
                        assert_eq!(keys, KEYS, "a revision in one piece");
                        assert!(kvs.iter().all(|kv| kv.mod_revision == next), "{next}: {kvs:?}");
                        next += 1;
                    }
                }
                WatchOutput::Compacted { compact_revision, .. } => {
                    assert!(next < compact_revision);
                    next = compact_revision;
                    restarts += 1;
                    stream.create(WatchSpec { want_previous, ..watch(all(), next) }).unwrap();
                }
                WatchOutput::Progress { .. } => panic!("nobody asked"),
            }
        }
        if lazy {
            std::thread::yield_now();
        }
    }
    restarts
}

fn hash(reader: &Reader, done: &AtomicBool) -> usize {
    let mut hashes = 0;
    while !done.load(Ordering::Relaxed) {
        let at = reader.revision();
        match (reader.hash(at), reader.hash(at)) {
            (Ok(one), Ok(two)) if one.compact_revision == two.compact_revision => {
                assert_eq!(one.hash, two.hash, "at {at}");
                hashes += 1;
            }
            (Ok(_), Ok(_)) => {}
            (Err(QueryError::Revision(RevisionError::Compacted { .. })), _)
            | (_, Err(QueryError::Revision(RevisionError::Compacted { .. }))) => {}
            (one, two) => panic!("{one:?} {two:?}"),
        }
    }
    hashes
}

/// KV-21, W-14, W-18, W-20: half a revision is never seen, whatever happens meanwhile.
#[test]
fn nobody_sees_half_of_anything() {
    let mut fixture = Fixture::new(Options {
        compact_batch_rows: 7,
        event_ring_bytes_max: 20_000,
        ..Options::default()
    });
    let done = AtomicBool::new(false);
    let (reader, hub) = (fixture.store.reader(), fixture.store.watch());
    std::thread::scope(|scope| {
        let (reader, hub, done) = (&reader, &hub, &done);
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read(reader, done))).collect();
        let hasher = scope.spawn(|| hash(reader, done));
        let followers: Vec<_> = [(false, false), (true, false), (false, true)]
            .into_iter()
            .map(|(previous, lazy)| scope.spawn(move || follow(hub, previous, lazy)))
            .collect();
        for main in 2..=LAST {
            fixture.txn(|txn| KEYS.iter().for_each(|key| put(txn, key, &main.to_string())));
            if main % 100 == 0 {
                fixture.schedule(main - 3).unwrap();
            }
            fixture.store.compact_step().unwrap();
        }
        for follower in followers {
            follower.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(0 < reader.join().unwrap());
        }
        hasher.join().unwrap();
    });
}
