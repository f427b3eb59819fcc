//! What an evil or broken member might send. Peers are believed about the cluster, and about
//! nothing that would end this process.

use std::net::SocketAddr;
use std::path::Path;

use prost::Message as _;
use proto::raftpb;
use retcd_conformance::{Server, ServerOptions, ask};
use serde_json::Value;

use super::{OURS, exchange, expect_service};

/// A member whose peer port is known.
fn member() -> anyhow::Result<(Server, SocketAddr, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let peer = ports::free_address()?;
    let flags = vec![
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=m0=http://{peer}"),
    ];
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
    Ok((server, peer, folder))
}

/// The cluster's id and the member's, as the peer port tells them.
fn ids(peer: SocketAddr) -> anyhow::Result<(String, u64)> {
    let answer = ask(peer, "GET", "/members", "")?;
    let members: Value = serde_json::from_str(&answer.body)?;
    let id = members[0]["id"].as_u64().unwrap();
    let cluster = answer.headers.get("x-etcd-cluster-id").unwrap();
    Ok((cluster.clone(), id))
}

fn posted(path: &str, cluster: &str, from: u64, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nX-Etcd-Cluster-ID: {cluster}\r\nX-Server-From: {from:x}\r\n\
         X-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\nX-PeerURLs: http://127.0.0.1:1\r\n\
         Content-Type: application/protobuf\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Reliability 6.1 (consensus panic from a peer): a heartbeat that commits what the log does not
/// have, entries from nowhere, snapshots of nothing, terms from the end of time.
#[tokio::test]
async fn messages_that_cannot_be_end_nothing() -> anyhow::Result<()> {
    use raftpb::MessageType as Kind;
    let (server, peer, _folder) = member()?;
    let (cluster, id) = ids(peer)?;
    let stranger = id ^ 1;
    let message = |kind: Kind| raftpb::Message {
        r#type: Some(kind.into()),
        to: Some(id),
        from: Some(stranger),
        term: Some(1),
        commit: Some(1 << 40),
        index: Some(1 << 40),
        log_term: Some(1 << 40),
        ..Default::default()
    };
    let entry = raftpb::Entry {
        term: Some(u64::MAX),
        index: Some(u64::MAX),
        data: Some(vec![0xFF; 32].into()),
        ..Default::default()
    };
    let kinds = [
        Kind::MsgProp,
        Kind::MsgHup,
        Kind::MsgBeat,
        Kind::MsgApp,
        Kind::MsgAppResp,
        Kind::MsgVote,
        Kind::MsgVoteResp,
        Kind::MsgHeartbeat,
        Kind::MsgHeartbeatResp,
        Kind::MsgUnreachable,
        Kind::MsgSnapStatus,
        Kind::MsgCheckQuorum,
        Kind::MsgTransferLeader,
        Kind::MsgTimeoutNow,
        Kind::MsgReadIndex,
        Kind::MsgReadIndexResp,
        Kind::MsgPreVote,
        Kind::MsgPreVoteResp,
    ];
    for kind in kinds {
        for term in [0, 1, 2] {
            let sent =
                raftpb::Message { term: Some(term), entries: vec![entry.clone()], ..message(kind) };
            exchange(peer, &posted("/raft", &cluster, stranger, &sent.encode_to_vec()))?;
        }
    }
    // From the member itself, too.
    let own = raftpb::Message { from: Some(id), ..message(Kind::MsgHeartbeat) };
    exchange(peer, &posted("/raft", &cluster, id, &own.encode_to_vec()))?;
    for garbage in [&[0xFF; 64][..], &[8, 3, 16], b""] {
        exchange(peer, &posted("/raft", &cluster, stranger, garbage))?;
        exchange(peer, &posted("/raft/snapshot", &cluster, stranger, garbage))?;
    }
    expect_service(&server).await
}

/// Reliability 6.1 (unbounded bodies): what members ask each other over HTTP has an end, and so has
/// the message before a snapshot.
#[tokio::test]
async fn bodies_of_members_have_an_end() -> anyhow::Result<()> {
    let (server, peer, _folder) = member()?;
    let (cluster, id) = ids(peer)?;
    let endless = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nX-Etcd-Cluster-ID: {cluster}\r\n\
             X-Server-From: {id:x}\r\nContent-Length: 1099511627776\r\n\r\n"
        )
    };
    let filler = vec![0xFF; 16 << 20];
    for path in ["/leases", "/leases/internal", "/members/promote/1", "/raft", "/raft/snapshot"] {
        let request = [endless(path).as_bytes(), &filler].concat();
        let answer = exchange(peer, &request)?;
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(!status.starts_with('2'), "{path}: {answer}");
    }
    let resident = std::fs::read_to_string(format!("/proc/{}/statm", server.pid()))?;
    let pages: u64 = resident.split(' ').nth(1).unwrap_or_default().parse()?;
    assert!(pages * 4096 < 512 << 20, "{pages} pages");
    expect_service(&server).await
}
