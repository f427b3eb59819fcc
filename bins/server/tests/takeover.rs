//! A data directory goes from real etcd to ours and back, and nobody can tell.

use std::path::Path;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_conformance::{Server, ServerOptions, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// What a server holds.
#[derive(Debug, PartialEq)]
struct Picture {
    revision: i64,
    hash: u32,
    compact_revision: i64,
    kvs: Vec<proto::mvccpb::KeyValue>,
    leases: Vec<(i64, i64, Vec<Bytes>)>,
    members: Vec<pb::Member>,
}

async fn picture(server: &Server) -> anyhow::Result<Picture> {
    let mut kv = KvClient::connect(server.endpoint()).await?;
    let zero = Bytes::from_static(b"\0");
    let all = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
    let range = kv.range(all).await?.into_inner();
    let mut maintenance = MaintenanceClient::connect(server.endpoint()).await?;
    let hash = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await?.into_inner();
    let mut client = LeaseClient::connect(server.endpoint()).await?;
    let mut leases = Vec::new();
    for lease in client.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases {
        let request = pb::LeaseTimeToLiveRequest { id: lease.id, keys: true };
        let told = client.lease_time_to_live(request).await?.into_inner();
        let mut keys = told.keys;
        keys.sort();
        leases.push((lease.id, told.granted_ttl, keys));
    }
    leases.sort();
    let mut cluster = pb::cluster_client::ClusterClient::connect(server.endpoint()).await?;
    let members = cluster.member_list(pb::MemberListRequest::default()).await?.into_inner().members;
    Ok(Picture {
        revision: range.header.map_or(0, |header| header.revision),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        kvs: range.kvs,
        leases,
        members,
    })
}

/// Puts, deletes, leases and a compaction; `round` makes the keys differ.
async fn write(server: &Server, round: i64) -> anyhow::Result<()> {
    let mut kv = KvClient::connect(server.endpoint()).await?;
    let mut lease = LeaseClient::connect(server.endpoint()).await?;
    let id = 1000 + round;
    lease.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id }).await?;
    for number in 0..200 {
        let request = pb::PutRequest {
            key: Bytes::from(format!("key/{:03}", number % 50)),
            value: Bytes::from(format!("value {round} {number}")),
            lease: if number % 7 == 0 { id } else { 0 },
            ..Default::default()
        };
        kv.put(request).await?;
    }
    for number in [3, 7, 9] {
        let key = Bytes::from(format!("key/{number:03}"));
        kv.delete_range(pb::DeleteRangeRequest { key, ..Default::default() }).await?;
    }
    let last = kv
        .put(pb::PutRequest { key: Bytes::from_static(b"last"), ..Default::default() })
        .await?
        .into_inner();
    let revision = last.header.map_or(0, |header| header.revision) - 20;
    kv.compact(pb::CompactionRequest { revision, physical: true }).await?;
    Ok(())
}

async fn there_and_back(line: &str) -> anyhow::Result<()> {
    let Some(real) = real_etcd(line) else { return Ok(()) };
    let (theirs, ours) = (real.join("etcd"), Path::new(OURS));
    let temporary = tempfile::tempdir()?;
    let options = ServerOptions { flags: ["--snapshot-count", "100"].map(str::to_owned).into() };
    let mut server = Server::start(&theirs, temporary.path(), options)?;
    for round in 0..3 {
        write(&server, round * 10).await?;
        let before = picture(&server).await?;
        server.stop()?;
        server.restart(ours)?;
        assert_eq!(picture(&server).await?, before, "{line} to ours, round {round}");
        write(&server, round * 10 + 1).await?;
        let after = picture(&server).await?;
        server.stop()?;
        server.restart(&theirs)?;
        assert_eq!(picture(&server).await?, after, "ours to {line}, round {round}");
    }
    Ok(())
}

/// U5, UTL-17, CB-69.
#[tokio::test]
async fn a_directory_of_3_5_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.5").await
}

/// U5, UTL-17.
#[tokio::test]
async fn a_directory_of_3_4_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.4").await
}
