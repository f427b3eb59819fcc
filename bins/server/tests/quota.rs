//! The quota of the database: refused before it is written, known to all, lifted by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_conformance::{Keys, Server, ServerOptions};
use tonic::Code;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Small enough to be reached soon.
const QUOTA_BYTES: usize = 4 << 20;

const VALUE_LEN: usize = 100_000;

/// CB-64, KV-37, KV-38, D24: a put that would take the database over the quota is refused and raises
/// NOSPACE; reads and deletions go on; after a compaction, a defragmentation and a disarm, writes.
#[tokio::test]
async fn a_write_above_the_quota_is_refused_before_it_is_written() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = vec!["--quota-backend-bytes".to_owned(), QUOTA_BYTES.to_string()];
    let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
    let keys = Keys::of(&server.endpoint())?;
    let mut maintenance = MaintenanceClient::connect(server.endpoint()).await?;
    let mut count = 0_i64;
    let refused = loop {
        match keys.put(&format!("key {count:03}"), vec![7; VALUE_LEN]).await {
            Ok(_) => count += 1,
            Err(status) => break status,
        }
        // The size is what is on disk: it lags by a commit, as in etcd.
        anyhow::ensure!(count < 5000, "the quota is never reached");
    };
    expect_full(Some(refused));
    anyhow::ensure!(keys.no_space().await?, "NOSPACE is not raised");
    // What was refused is not there, and what was acknowledged is.
    anyhow::ensure!(keys.get(&format!("key {count:03}")).await?.is_none());
    anyhow::ensure!(keys.get("key 000").await?.is_some_and(|value| value.len() == VALUE_LEN));
    let mut leases = LeaseClient::connect(server.endpoint()).await?;
    let granted = leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await;
    expect_full(granted.err());
    for number in 0..count {
        anyhow::ensure!(keys.delete(&format!("key {number:03}")).await? == 1);
    }
    keys.compact(1 + 2 * count).await?;
    let status = maintenance.status(pb::StatusRequest {}).await?.into_inner();
    let member = status.header.unwrap_or_default().member_id;
    // The compaction removes its rows in the background.
    let began = Instant::now();
    loop {
        maintenance.defragment(pb::DefragmentRequest {}).await?;
        let disarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate.into(),
            alarm: pb::AlarmType::Nospace.into(),
            member_id: member,
        };
        maintenance.alarm(disarm).await?;
        let Err(status) = keys.put("again", vec![7; VALUE_LEN]).await else { break };
        expect_full(Some(status));
        anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "never writable again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop()?;
    Ok(())
}

fn expect_full(status: Option<tonic::Status>) {
    let status = status.expect("there is room for it");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
}
