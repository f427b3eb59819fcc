//! Streams that are passed on, and clients that do not read them.

use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::v3electionpb::{self, election_client::ElectionClient};
use retcd_conformance::{Server, ServerOptions};
use tonic::Streaming;

use super::{OURS, Proxy, Raw, create, get, put, serve, soon, text};

/// So many of these are more than a connection has room for.
const IDLE: usize = 40;

/// A stream that the client begins to read and never reads again: its own windows are small.
async fn unread(proxy: &Proxy) -> anyhow::Result<Streaming<pb::SnapshotResponse>> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", proxy.endpoint()))?
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    let mut client = MaintenanceClient::new(endpoint.connect().await?);
    Ok(soon(client.snapshot(pb::SnapshotRequest {})).await??.into_inner())
}

/// Reliability 6: a passed-on stream that nobody reads holds up neither calls nor other streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_streams_hold_nobody_up() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let client = proxy.client().await?;
    let value = "x".repeat(1 << 20);
    for number in 0..8 {
        client.put(put(&format!("large{number}"), &value)).await?;
    }
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(unread(&proxy).await?);
    }
    // Each of those is stuck by now or soon; everything else goes on.
    let mut elections = ElectionClient::new(client.connection().channel);
    let grant = pb::LeaseGrantRequest { ttl: 600, ..Default::default() };
    let lease = client.lease_grant(grant).await?.id;
    let (name, value) = (Bytes::from_static(b"e"), Bytes::from_static(b"me"));
    let campaign = v3electionpb::CampaignRequest { name: name.clone(), lease, value };
    soon(elections.campaign(campaign)).await??;
    let observing = elections.observe(v3electionpb::LeaderRequest { name });
    let mut observed = soon(observing).await??.into_inner();
    assert_eq!(soon(observed.message()).await??.context("a leader")?.kv.unwrap().value, "me");
    for number in 0..8 {
        let read = client.get(get(&format!("large{number}"))).await?;
        assert_eq!(read.kvs[0].value.len(), 1 << 20);
        client.put(put("small", &number.to_string())).await?;
        client.user_list(pb::AuthUserListRequest {}).await?;
    }
    assert_eq!(text(&client.get(get("small")).await?.kvs[0].value), "7");
    let mut snapshots = MaintenanceClient::new(client.connection().channel);
    let mut pieces = soon(snapshots.snapshot(pb::SnapshotRequest {})).await??.into_inner();
    let mut bytes = 0;
    while let Some(piece) = soon(pieces.message()).await?? {
        bytes += piece.blob.len();
    }
    assert!(8 << 20 < bytes && bytes % 512 == 32, "{bytes}");
    // Who reads late gets everything, too.
    let mut late = idle.pop().context("many")?;
    let mut bytes = 0;
    while let Some(piece) = soon(late.message()).await?? {
        bytes += piece.blob.len();
    }
    assert!(8 << 20 < bytes && bytes % 512 == 32, "{bytes}");
    Ok(())
}

/// Reliability 6: where members allow few streams, watches leave room for calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_leave_room_for_calls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = vec!["--max-concurrent-streams=4".to_owned()];
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let mut raw = Raw::open(&proxy).await?;
    for number in 0..8 {
        raw.create(create(&format!("k{number}"))).await?;
    }
    for _ in 0..4 {
        assert!(raw.next().await?.created);
    }
    let client = proxy.client().await?;
    for number in 0..8 {
        soon(client.put(put("other", &number.to_string()))).await??;
        assert_eq!(text(&soon(client.get(get("other"))).await??.kvs[0].value), number.to_string());
    }
    Ok(())
}
