//! `kill -9` under load: no acknowledged write is lost, no unacknowledged one is half there, and
//! the server always starts.
//!
//! `CRASH_KILLS` says how often the server is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{self as pb, request_op};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use retcd_conformance::{Server, ServerOptions};
use tokio::sync::mpsc;
use tonic::transport::Channel;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Kills of a run that is not told otherwise.
const KILLS: u64 = 20;

/// Clients that write at the same time.
const WRITERS: usize = 8;

/// A write that was tried: its keys get its number as their value, in one transaction.
#[derive(Debug)]
struct Tried {
    writer: usize,
    number: u64,
    acknowledged: bool,
}

fn keys(writer: usize) -> [Bytes; 2] {
    [format!("w{writer}/left"), format!("w{writer}/right")].map(Bytes::from)
}

/// Writes pairs until the server is gone; each pair is one transaction.
async fn write(endpoint: String, writer: usize, first: u64, tried: mpsc::Sender<Tried>) {
    let Ok(mut client) = KvClient::connect(endpoint).await else { return };
    for number in first.. {
        let put = |key: &Bytes| pb::RequestOp {
            request: Some(request_op::Request::RequestPut(pb::PutRequest {
                key: key.clone(),
                value: Bytes::from(number.to_string()),
                ..Default::default()
            })),
        };
        let request = pb::TxnRequest {
            success: keys(writer).iter().map(put).collect(),
            ..Default::default()
        };
        let acknowledged = client.txn(request).await.is_ok();
        if tried.send(Tried { writer, number, acknowledged }).await.is_err() || !acknowledged {
            return;
        }
    }
}

async fn read(client: &mut KvClient<Channel>, key: &Bytes) -> anyhow::Result<u64> {
    let request = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let kvs = client.range(request).await?.into_inner().kvs;
    Ok(match kvs.first() {
        Some(kv) => std::str::from_utf8(&kv.value)?.parse()?,
        None => 0,
    })
}

/// G3, C1, D1: what was acknowledged is there after every kill, and pairs are whole.
#[tokio::test]
async fn no_acknowledged_write_is_lost_by_kills_under_load() -> anyhow::Result<()> {
    let kills = std::env::var("CRASH_KILLS").ok().and_then(|text| text.parse().ok());
    let temporary = tempfile::tempdir()?;
    let options = ServerOptions { flags: ["--snapshot-count", "200"].map(str::to_owned).into() };
    let mut server = Server::start(Path::new(OURS), temporary.path(), options)?;
    let mut random = SmallRng::seed_from_u64(7);
    // What each writer last had acknowledged, and last tried.
    let mut known: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for kill in 0..kills.unwrap_or(KILLS) {
        let (sender, mut tried) = mpsc::channel(1024);
        for writer in 0..WRITERS {
            let first = known.get(&writer).map_or(0, |(_, last)| *last) + 1;
            tokio::spawn(write(server.endpoint(), writer, first, sender.clone()));
        }
        drop(sender);
        let until =
            tokio::time::Instant::now() + Duration::from_millis(random.random_range(1..400));
        let mut killed = false;
        loop {
            let next = if killed {
                tried.recv().await
            } else {
                match tokio::time::timeout_at(until, tried.recv()).await {
                    Ok(next) => next,
                    Err(_) => {
                        server.kill()?;
                        killed = true;
                        continue;
                    }
                }
            };
            let Some(Tried { writer, number, acknowledged }) = next else { break };
            let entry = known.entry(writer).or_default();
            entry.1 = number;
            if acknowledged {
                entry.0 = number;
            }
        }
        server.kill()?;
        server.restart(Path::new(OURS))?;
        let mut client = KvClient::connect(server.endpoint()).await?;
        for (writer, (acknowledged, last)) in &mut known {
            let [left, right] = keys(*writer);
            let (left, right) = (read(&mut client, &left).await?, read(&mut client, &right).await?);
            anyhow::ensure!(left == right, "kill {kill}: half a transaction: {left}, {right}");
            anyhow::ensure!(
                (*acknowledged..=*last).contains(&left),
                "kill {kill}, writer {writer}: found {left}, acknowledged {acknowledged}, last {last}"
            );
            // What was unknown is known now.
            *acknowledged = left;
        }
    }
    anyhow::ensure!(
        known.values().any(|(acknowledged, _)| *acknowledged > 0),
        "nothing was written"
    );
    Ok(())
}
