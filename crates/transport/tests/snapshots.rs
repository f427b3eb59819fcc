//! Snapshots between members: large ones in little memory, and ones that break off.
#![allow(clippy::unwrap_used, reason = "a test may end here")]

mod support;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use raft::{Body, ConfState, Message, SnapshotMeta};
use retcd_transport::{ByteStream, OutgoingSnapshot};
use support::{Host, join, wait};

const CHUNK_BYTES: usize = 1 << 18;

fn message(from: MemberId, to: MemberId) -> Message {
    let voters = BTreeSet::from([from, to]);
    let conf_state = ConfState { voters, ..ConfState::default() };
    let position = LogPosition { index: Index(77), term: Term(3) };
    let body = Body::Snapshot(SnapshotMeta { position, conf_state });
    Message { from, to, term: Term(4), body }
}

fn snapshot(from: MemberId, to: MemberId, db: ByteStream, db_bytes: u64) -> OutgoingSnapshot {
    OutgoingSnapshot { message: message(from, to), data: "{\"v2\":1}".into(), db, db_bytes }
}

/// So many chunks of ones; counts the bytes given out.
fn ones(chunks: usize, produced: Arc<AtomicUsize>) -> ByteStream {
    Box::pin(futures_util::stream::iter((0..chunks).map(move |_| {
        produced.fetch_add(CHUNK_BYTES, SeqCst);
        Ok(Bytes::from(vec![1; CHUNK_BYTES]))
    })))
}

/// Waits until a snapshot comes in.
async fn receiving(host: &Host) {
    wait("the begin", || {
        let metrics = host.transport.metrics().peers();
        metrics.iter().any(|(_, peer)| peer.snapshot_receive.in_flight.value() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_pass_in_little_memory() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let produced = Arc::new(AtomicUsize::new(0));
    let ahead_max = Arc::new(AtomicUsize::new(0));
    let consumed = Arc::new(AtomicUsize::new(0));
    let on_chunk = {
        let (produced, ahead_max) = (Arc::clone(&produced), Arc::clone(&ahead_max));
        move |chunk: &Bytes| {
            let len = chunk.len();
            let consumed = consumed.fetch_add(len, SeqCst) + len;
            ahead_max.fetch_max(produced.load(SeqCst) - consumed, SeqCst);
        }
    };
    *b.listener.on_chunk.lock() = Some(Arc::new(on_chunk));
    let bytes = 400 * CHUNK_BYTES;
    let db = ones(400, Arc::clone(&produced));
    a.transport.send_snapshot(snapshot(a.id, b.id, db, bytes as u64));
    wait("the outcome", || a.heard(|heard| !heard.snapshots_sent.is_empty())).await;
    a.heard(|heard| assert_eq!(heard.snapshots_sent, [(b.id, true)]));
    b.heard(|heard| {
        let received = &heard.snapshots[0];
        assert_eq!(received.message, message(a.id, b.id));
        assert_eq!(received.data, "{\"v2\":1}");
        assert_eq!(received.db, Ok(bytes));
        assert_eq!(received.sum, bytes as u64);
    });
    // The sockets' buffers are in it too.
    let ahead = ahead_max.load(SeqCst);
    assert!(ahead < 24 << 20, "{ahead} bytes on their way at once");
    let of_b = a.transport.metrics().peers()[0].1.snapshot_send.successes.value();
    let of_a = b.transport.metrics().peers()[0].1.snapshot_receive.successes.value();
    assert_eq!((of_b, of_a), (1, 1));
}

/// N9, and what 5.6 says: there is no digest, so a broken off database must not look whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_breaks_off_is_an_error_at_both_ends() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let (break_off, breaking) = tokio::sync::oneshot::channel::<()>();
    let begin = futures_util::stream::iter([Ok(Bytes::from_static(b"begin"))]);
    let end = futures_util::stream::once(async move {
        breaking.await.unwrap();
        Err(io::Error::other("the disk is gone"))
    });
    let broken = futures_util::StreamExt::chain(begin, end);
    a.transport.send_snapshot(snapshot(a.id, b.id, Box::pin(broken), 10));
    receiving(&b).await;
    break_off.send(()).unwrap();
    wait("the outcome", || a.heard(|heard| !heard.snapshots_sent.is_empty())).await;
    a.heard(|heard| assert_eq!(heard.snapshots_sent, [(b.id, false)]));
    wait("the other end", || b.heard(|heard| !heard.snapshots.is_empty())).await;
    b.heard(|heard| assert!(heard.snapshots[0].db.is_err(), "{:?}", heard.snapshots[0].db));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_ends_is_a_failure() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let first = futures_util::stream::iter([Ok(Bytes::from_static(b"begin"))]);
    let db = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    a.transport.send_snapshot(snapshot(a.id, b.id, Box::pin(db), 10));
    receiving(&b).await;
    b.stop();
    wait("the outcome", || a.heard(|heard| heard.snapshots_sent == [(b.id, false)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_for_a_stranger_fails_at_once() {
    let a = Host::start(0xa).await;
    let db = ones(1, Arc::default());
    a.transport.send_snapshot(snapshot(a.id, MemberId(9), db, 1));
    a.heard(|heard| assert_eq!(heard.snapshots_sent, [(MemberId(9), false)]));
    // And it does not go the way of other messages.
    a.transport.send(vec![message(a.id, MemberId(9))]);
    a.heard(|heard| assert_eq!(heard.snapshots_sent.len(), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_removed_while_receiving_ends_the_sending() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let db = futures_util::stream::pending();
    a.transport.send_snapshot(snapshot(a.id, b.id, Box::pin(db), 1));
    a.transport.set_members(&[a.entry()]);
    wait("the outcome", || a.heard(|heard| heard.snapshots_sent == [(b.id, false)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_sixteen_are_under_way() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    for _ in 0..17 {
        let db = futures_util::stream::pending();
        a.transport.send_snapshot(snapshot(a.id, b.id, Box::pin(db), 1));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    a.heard(|heard| assert_eq!(heard.snapshots_sent, [(b.id, false)]));
}
