//! Members that talk, and peers that are dead, slow, cut off or hostile.
#![allow(clippy::unwrap_used, reason = "a test may end here")]

mod support;

use std::time::Duration;

use base::{ClusterId, MemberId};
use bytes::Bytes;
use raft::{Body, Entry, EntryKind, Message};
use support::{Host, append, attached, heartbeat, join, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_and_whole() {
    let (a, b, c) = (Host::start(0xa).await, Host::start(0xb).await, Host::start(0xc).await);
    join(&[&a, &b, &c]).await;
    let large = Bytes::from(vec![7; 3 << 20]);
    let mut appends: Vec<_> =
        (1..=1000).map(|index| append(a.id, b.id, index, Bytes::from(index.to_string()))).collect();
    appends.push(append(a.id, b.id, 1001, large));
    let heartbeats: Vec<_> = (0..1000).map(|number| heartbeat(a.id, c.id, number)).collect();
    a.transport.send(appends.iter().chain(&heartbeats).cloned().collect());
    wait("appends", || b.heard(|heard| heard.messages.len()) == appends.len()).await;
    wait("heartbeats", || c.heard(|heard| heard.messages.len()) == heartbeats.len()).await;
    b.heard(|heard| assert!(heard.messages == appends));
    c.heard(|heard| assert!(heard.messages == heartbeats));
    let metrics = a.transport.metrics();
    let of_b = &metrics.peers().into_iter().find(|(id, _)| *id == b.id).unwrap().1;
    assert!(3 << 20 < of_b.sent_bytes.value());
    assert_eq!(of_b.active.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_together_arrives_in_few_batches() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let before = b.heard(|heard| heard.batches);
    for turn in 0..10 {
        let numbers = turn * 100..turn * 100 + 100;
        a.transport.send(numbers.map(|number| heartbeat(a.id, b.id, number)).collect());
    }
    wait("heartbeats", || b.heard(|heard| heard.messages.len()) == 1000).await;
    let batches = b.heard(|heard| heard.batches) - before;
    assert!(batches < 200, "{batches} batches for 1000 messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_are_handed_over_apart() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let entry = Entry {
        kind: EntryKind::Normal,
        term: base::Term(0),
        index: base::Index(0),
        data: "put".into(),
    };
    let body = Body::Propose(vec![entry]);
    let proposal = Message { from: a.id, to: b.id, term: base::Term(0), body };
    a.transport.send(vec![proposal.clone()]);
    wait("the proposal", || b.heard(|heard| !heard.proposals.is_empty())).await;
    b.heard(|heard| assert_eq!(heard.proposals, [proposal]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_streams_messages_are_posted() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    // B does not know A yet, so it opens no stream there.
    a.transport.set_members(&[a.entry(), b.entry()]);
    let sent = heartbeat(a.id, b.id, 5);
    a.transport.send(vec![sent.clone()]);
    wait("the post", || b.heard(|heard| heard.messages.first() == Some(&sent))).await;
    // It remembers where A is, so that it can help it to catch up.
    let answer = heartbeat(b.id, a.id, 6);
    wait("the answer", || {
        b.transport.send(vec![answer.clone()]);
        a.heard(|heard| heard.messages.contains(&answer))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_reported_and_harms_nobody() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let closed = ports::free_address().unwrap();
    let dead = MemberId(0xd);
    let dead_entry = (dead, vec![format!("http://{closed}")]);
    a.transport.set_members(&[a.entry(), b.entry(), dead_entry]);
    for number in 0..1000 {
        a.transport.send(vec![heartbeat(a.id, dead, number), heartbeat(a.id, b.id, number)]);
    }
    wait("heartbeats", || b.heard(|heard| heard.messages.len()) == 1000).await;
    wait("the report", || a.heard(|heard| heard.unreachable.contains(&dead))).await;
    assert_eq!(a.transport.active_since(dead), None);
    a.heard(|heard| assert!(!heard.unreachable.contains(&b.id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_is_given_up_and_harms_nobody() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let slow = MemberId(0x5);
    let closed = ports::free_address().unwrap();
    a.transport.set_members(&[a.entry(), b.entry(), (slow, vec![format!("http://{closed}")])]);
    let mut stream = open_stream(&a, slow, "msgapp").await;
    let data = Bytes::from(vec![1; 1 << 20]);
    // More than any socket's buffers, then more than the queue.
    let mut index = 0;
    wait("the report", || {
        for _ in 0..100 {
            index += 1;
            a.transport.send(vec![append(a.id, slow, index, data.clone())]);
        }
        a.heard(|heard| heard.unreachable.contains(&slow))
    })
    .await;
    let sent: Vec<_> = (0..100).map(|number| heartbeat(a.id, b.id, number)).collect();
    a.transport.send(sent.clone());
    wait("heartbeats", || b.heard(|heard| heard.messages == sent)).await;
    // The stream is given up, then the connection is ended.
    wait("the end", || {
        index += 1;
        a.transport.send(vec![append(a.id, slow, index, data.clone())]);
        a.transport.attached_streams(slow) == 0
    })
    .await;
    let mut rest = vec![0; 1 << 20];
    let read = async { while stream.read(&mut rest).await.is_ok_and(|len| 0 < len) {} };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_stream_takes_the_place_of_the_old() {
    let a = Host::start(0xa).await;
    let closed = ports::free_address().unwrap();
    let peer = MemberId(0xb);
    a.transport.set_members(&[(peer, vec![format!("http://{closed}")])]);
    let mut old = open_stream(&a, peer, "message").await;
    let mut new = open_stream(&a, peer, "message").await;
    // The old one ends properly, with an empty last chunk.
    let reading = async {
        let mut all = Vec::new();
        while !all.ends_with(b"\r\n0\r\n\r\n") && all != b"0\r\n\r\n" {
            all.push(old.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.unwrap();
    a.transport.send(vec![heartbeat(a.id, peer, 1)]);
    let mut some = [0; 8];
    tokio::time::timeout(Duration::from_secs(60), new.read_exact(&mut some))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_come_back_after_a_restart() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    let (address, entries) = (b.address, [a.entry(), b.entry()]);
    drop(b);
    wait("the loss", || a.transport.active_since(MemberId(0xb)).is_none()).await;
    a.transport.send(vec![heartbeat(a.id, MemberId(0xb), 1)]);
    wait("the report", || a.heard(|heard| heard.unreachable.contains(&MemberId(0xb)))).await;
    let mut again = TcpListener::bind(address).await;
    for _ in 0..600 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        again = TcpListener::bind(address).await;
    }
    let b = Host::start_on(0xb, support::CLUSTER, again.unwrap());
    b.transport.set_members(&entries);
    attached(&a, &b).await;
    attached(&b, &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_lets_nothing_pass_until_it_is_mended() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    a.transport.cut(b.id);
    a.transport.send(vec![heartbeat(a.id, b.id, 1)]);
    b.transport.send(vec![heartbeat(b.id, a.id, 2)]);
    // The next one in the same direction passes the same queues.
    a.transport.mend(b.id);
    let after = heartbeat(a.id, b.id, 3);
    a.transport.send(vec![after.clone()]);
    wait("the message after", || b.heard(|heard| !heard.messages.is_empty())).await;
    b.heard(|heard| assert_eq!(heard.messages, [after]));
}

/// What the streams have taken is not lost when its sender ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_arrives_behind_the_end() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    for number in 0..1000 {
        a.transport.send(vec![heartbeat(a.id, b.id, number)]);
    }
    wait("the streams", || !a.transport.has_waiting()).await;
    a.transport.shutdown();
    wait("heartbeats", || b.heard(|heard| heard.messages.len()) == 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_are_tried_in_turn() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    let closed = ports::free_address().unwrap();
    let urls = vec![format!("http://{closed}"), b.url()];
    a.transport.set_members(&[(b.id, urls)]);
    b.transport.set_members(&[a.entry()]);
    attached(&b, &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_urls_are_used() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    let closed = ports::free_address().unwrap();
    a.transport.set_members(&[(b.id, vec![format!("http://{closed}")])]);
    b.transport.set_members(&[a.entry()]);
    wait("b to reach a", || b.transport.active_since(a.id).is_some()).await;
    a.transport.set_members(&[b.entry()]);
    attached(&b, &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_told_so() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    b.listener.removed.lock().insert(a.id);
    b.transport.set_members(&[b.entry()]);
    // By the answer to its streams,
    wait("410", || a.heard(|heard| 0 < heard.told_removed)).await;
    let told = a.heard(|heard| heard.told_removed);
    // and by the answer to its messages.
    wait("403", || {
        a.transport.send(vec![heartbeat(a.id, b.id, 1)]);
        told < a.heard(|heard| heard.told_removed)
    })
    .await;
    b.heard(|heard| assert!(heard.messages.is_empty()));
}

/// A process whose successor has its URL may still run, or be started once more: what it answers to
/// messages for the successor ends nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_at_a_peers_url_is_nobodys_end() {
    let (a, old) = (Host::start(0xa).await, Host::start(0xb).await);
    let successor = MemberId(0xc);
    a.transport.set_members(&[a.entry(), (successor, old.entry().1)]);
    wait("refusals", || {
        a.transport.send(vec![heartbeat(a.id, successor, 1)]);
        a.heard(|heard| 2 < heard.unreachable.len())
    })
    .await;
    old.heard(|heard| assert!(heard.messages.is_empty()));
    a.heard(|heard| assert_eq!(heard.told_removed, 0));
}

/// N12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused_but_nobody_takes_itself_for_removed() {
    let a = Host::start(0xa).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = Host::start_on(0xb, ClusterId(0xc2), socket);
    a.transport.set_members(&[a.entry(), stranger.entry()]);
    stranger.transport.set_members(&[a.entry(), stranger.entry()]);
    wait("refusals", || {
        stranger.transport.send(vec![heartbeat(stranger.id, a.id, 1)]);
        stranger.heard(|heard| 2 < heard.unreachable.len())
    })
    .await;
    a.heard(|heard| assert!(heard.messages.is_empty()));
    stranger.heard(|heard| assert_eq!(heard.told_removed, 0));
    assert_eq!(a.transport.active_since(stranger.id), None);
}

/// N12: as client and as server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_speak_garbage_harm_nobody() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let garbage = (MemberId(0xc), vec![format!("http://{}", socket.local_addr().unwrap())]);
    let talker = tokio::spawn(async move {
        let answers: [&[u8]; 5] = [
            b"\0\xff\xfe nonsense",
            b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.0\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.0\r\nContent-Length: 12\r\n\r\nabcdefghijkl",
            b"HTTP/1.1 200 OK\r\nX-Server-Version: new\r\nContent-Length: 0\r\n\r\n",
            b"",
        ];
        let mut count = 0;
        for answer in answers.into_iter().cycle() {
            let (mut stream, _) = socket.accept().await.unwrap();
            count += 1;
            drop(stream.write_all(answer).await);
            if 20 < count {
                return;
            }
        }
    });
    let members = [a.entry(), b.entry(), garbage.clone()];
    a.transport.set_members(&members);
    b.transport.set_members(&members[..2]);
    tokio::time::timeout(Duration::from_secs(60), talker).await.unwrap().unwrap();
    for bytes in [&b"\0\0\0\0"[..], b"POST /raft HTTP/1.1\r\nContent-Length: 99\r\n\r\nxx"] {
        let mut stream = TcpStream::connect(a.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    }
    attached(&a, &b).await;
    attached(&b, &a).await;
    a.heard(|heard| assert_eq!(heard.told_removed, 0));
}

/// N7: a stream that breaks off anywhere loses what was not whole and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_break_off_at_any_byte() {
    let a = Host::start(0xa).await;
    let peer = MemberId(0xb);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.transport.set_members(&[(peer, vec![format!("http://{}", socket.local_addr().unwrap())])]);
    let message = heartbeat(peer, a.id, 9);
    let mut pieces = retcd_transport::Pieces::default();
    retcd_transport::codec::Encoder::new(retcd_transport::codec::StreamKind::Message)
        .encode(&message, &mut pieces);
    let bytes = pieces.take_joined();
    let head = b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.30\r\n\
                 X-Etcd-Cluster-Id: c1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut cut = 0;
    // One that is cut, and behind it in the next stream one that is whole.
    while cut < bytes.len() {
        let (mut stream, _) = socket.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let len = stream.read(&mut request).await.unwrap();
        if !request[..len].starts_with(b"GET /raft/stream/message/a ") {
            continue;
        }
        let mut answer = head.to_vec();
        answer.extend(format!("{:x}\r\n", bytes.len() + cut).as_bytes());
        answer.extend(&bytes);
        answer.extend(&bytes[..cut]);
        cut += 1;
        drop(stream.write_all(&answer).await);
    }
    wait("the whole ones", || a.heard(|heard| heard.messages.len()) == bytes.len()).await;
    a.heard(|heard| assert!(heard.messages.iter().all(|heard| *heard == message)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_member_is_a_failed_post() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    a.transport.set_members(&[b.entry()]);
    *b.listener.full.lock() = true;
    a.transport.send(vec![heartbeat(a.id, b.id, 1)]);
    wait("the report", || a.heard(|heard| heard.unreachable.contains(&b.id))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_shutdown_nothing_is_left() {
    let (a, b) = (Host::start(0xa).await, Host::start(0xb).await);
    join(&[&a, &b]).await;
    a.transport.shutdown();
    a.transport.shutdown();
    a.transport.set_members(&[b.entry()]);
    a.transport.send(vec![heartbeat(a.id, b.id, 1)]);
    assert_eq!(a.transport.active_since(b.id), None);
    wait("the loss", || b.transport.active_since(a.id).is_none()).await;
}

/// Opens a stream as `peer` and reads the head of the answer.
async fn open_stream(host: &Host, peer: MemberId, kind: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let request = format!(
        "GET /raft/stream/{kind}/{peer} HTTP/1.1\r\nHost: a\r\nX-Server-From: {peer}\r\n\
         X-Server-Version: 3.5.30\r\nX-Min-Cluster-Version: 3.0.0\r\n\
         X-Etcd-Cluster-ID: {}\r\nX-Raft-To: {}\r\n\r\n",
        support::CLUSTER,
        host.id
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    stream
}
