//! Members that are cut off, gone, or new: calls leave them for others.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use client::Client;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::v3electionpb::{self, election_client::ElectionClient};
use proto::v3lockpb::{self, lock_client::LockClient};
use retcd_conformance::cluster::{Cluster, ClusterOptions};

use super::{OURS, Proxy, events, eventually, get, put, soon, watch};

async fn cluster() -> anyhow::Result<Cluster> {
    Cluster::start(&[Path::new(OURS); 3], ClusterOptions::default()).await
}

/// The endpoints of these members.
fn endpoints(cluster: &Cluster, numbers: &[usize]) -> String {
    let all = cluster.endpoints();
    numbers.iter().map(|number| all[*number].clone()).collect::<Vec<_>>().join(",")
}

/// Kinds of calls that do not go through the store.
const KINDS: [&str; 8] = [
    "alarm",
    "election",
    "hash",
    "lock",
    "renewal",
    "snapshot",
    "user that is read",
    "user that is added",
];

/// Makes one call of a kind.
async fn call(client: &Client, kind: &str, lease: i64) -> anyhow::Result<()> {
    let channel = client.connection().channel;
    match kind {
        "alarm" => drop(client.alarm(pb::AlarmRequest::default()).await?),
        "election" => {
            let (name, value) = (Bytes::from_static(b"e"), Bytes::from_static(b"me"));
            let request = v3electionpb::CampaignRequest { name: name.clone(), lease, value };
            ElectionClient::new(channel.clone()).campaign(request).await?;
            let observe = v3electionpb::LeaderRequest { name };
            let mut observed = ElectionClient::new(channel).observe(observe).await?.into_inner();
            observed.message().await?.context("a leader")?;
        }
        "hash" => drop(client.hash_kv(pb::HashKvRequest::default()).await?),
        "lock" => {
            let request = v3lockpb::LockRequest { name: "l".into(), lease };
            LockClient::new(channel).lock(request).await?;
        }
        "renewal" => drop(client.lease_keep_alive_once(lease).await?),
        "snapshot" => {
            let request = pb::SnapshotRequest {};
            let mut pieces = MaintenanceClient::new(channel).snapshot(request).await?.into_inner();
            while pieces.message().await?.is_some() {}
        }
        "user that is read" => drop(client.user_list(pb::AuthUserListRequest {}).await?),
        _ => {
            let password = "p".to_owned();
            let user = pb::AuthUserAddRequest { name: "u".into(), password, ..Default::default() };
            match client.user_add(user).await {
                // It was heard the time before.
                Err(error) if error.to_string().contains("already exists") => {}
                added => drop(added?),
            }
        }
    }
    Ok(())
}

/// A kind of call goes on, at another member if need be; each failed attempt has an end.
async fn goes_on(proxy: &Proxy, kind: &str, lease: i64) -> anyhow::Result<()> {
    let client = proxy.client().await?;
    let why = Mutex::new(String::new());
    let trying = eventually(async || {
        let attempt = tokio::time::timeout(Duration::from_secs(20), call(&client, kind, lease));
        match attempt.await.map_err(anyhow::Error::from).flatten() {
            Ok(()) => Ok(true),
            Err(error) => {
                *why.lock().unwrap() = error.to_string();
                Ok(false)
            }
        }
    });
    let tried = trying.await;
    tried.with_context(|| format!("{kind}: {}\n{}", why.lock().unwrap(), proxy.log()))
}

/// A lease that outlives the test.
async fn grant(client: &Client) -> anyhow::Result<i64> {
    let grant = pb::LeaseGrantRequest { ttl: 3600, ..Default::default() };
    Ok(client.lease_grant(grant).await?.id)
}

/// SRV-177: a member that dies is left by calls of each kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_leave_a_member_that_is_gone() -> anyhow::Result<()> {
    let mut cluster = cluster().await?;
    let folder = tempfile::tempdir()?;
    let all = endpoints(&cluster, &[0, 1, 2]);
    let proxies = KINDS.map(|kind| anyhow::Ok((kind, Proxy::before(folder.path(), &all, &[])?)));
    let proxies = proxies.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let lease = grant(&cluster.client(&[1]).await?).await?;
    for (kind, proxy) in &proxies {
        goes_on(proxy, kind, lease).await?;
    }
    cluster.kill(0)?;
    for (kind, proxy) in &proxies {
        goes_on(proxy, kind, lease).await?;
    }
    Ok(())
}

/// SRV-177: a member that clients still reach and the others do not is left, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_leave_a_member_that_is_cut_off() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let folder = tempfile::tempdir()?;
    let all = endpoints(&cluster, &[0, 1, 2]);
    let lease = grant(&cluster.client(&[1]).await?).await?;
    cluster.isolate(0);
    let mut tasks = tokio::task::JoinSet::new();
    // The others answer from what they have.
    for kind in ["election", "lock", "renewal", "user that is added"] {
        let proxy = Proxy::before(folder.path(), &all, &[])?;
        tasks.spawn(async move { goes_on(&proxy, kind, lease).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// SRV-177: who the members are is asked, if that is wished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_found_by_asking_one() -> anyhow::Result<()> {
    let mut cluster = cluster().await?;
    let folder = tempfile::tempdir()?;
    let one = endpoints(&cluster, &[0]);
    let flags = ["--endpoints-auto-sync-interval", "1s"];
    let proxy = Proxy::before(folder.path(), &one, &flags)?;
    let client = proxy.client().await?;
    client.put(put("k", "1")).await?;
    eventually(async || Ok(proxy.log().contains("members have changed"))).await?;
    cluster.kill(0)?;
    eventually(async || Ok(client.put(put("k", "2")).await.is_ok())).await?;
    assert_eq!(soon(client.get(get("k"))).await??.kvs[0].value, "2");
    Ok(())
}

/// SRV-179: no read goes back, whichever member answers; one that is alone and behind says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_reads_do_not_go_back() -> anyhow::Result<()> {
    let mut cluster = cluster().await?;
    let folder = tempfile::tempdir()?;
    let flags = ["--experimental-serializable-ordering"];
    let proxy = Proxy::before(folder.path(), &endpoints(&cluster, &[0, 1]), &flags)?;
    let client = proxy.client().await?;
    client.put(put("k", "old")).await?;
    let others = cluster.client(&[1, 2]).await?;
    eventually(async || Ok(cluster.status(0).await?.raft_applied_index >= 3)).await?;
    cluster.isolate(0);
    // This is answered by another member, and is what no read may go behind from now on.
    eventually(async || Ok(others.put(put("k", "new")).await.is_ok())).await?;
    eventually(async || {
        let read = tokio::time::timeout(Duration::from_secs(20), client.get(get("k"))).await;
        Ok(matches!(read, Ok(Ok(read)) if read.kvs[0].value == "new"))
    })
    .await?;
    // The other one is not there any more: the one that is left knows too little.
    cluster.kill(1)?;
    let old = pb::RangeRequest { serializable: true, ..get("other") };
    let error = soon(client.get(old)).await?.unwrap_err().to_string();
    assert!(
        error.contains("no cluster members have a revision higher than the previously received"),
        "{error}"
    );
    Ok(())
}

/// SRV-177, SRV-179: a watch leaves a member that hangs, whichever it was at, and misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_leave_a_member_that_hangs() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let folder = tempfile::tempdir()?;
    let all = endpoints(&cluster, &[0, 1, 2]);
    let flags = ["--dial-keepalive-time=10s", "--dial-keepalive-timeout=1s"];
    let proxy = Proxy::before(folder.path(), &all, &flags)?;
    let client = proxy.client().await?;
    let mut watcher = client.watch(watch("k", 1));
    let mut seen: Vec<i64> = Vec::new();
    for hanging in 0..3 {
        cluster.pause(hanging)?;
        let others: Vec<_> = (0..3).filter(|number| *number != hanging).collect();
        let writer = cluster.client(&others).await?;
        let value = format!("while {hanging} hangs");
        // An attempt that is not answered may have been written.
        eventually(async || Ok(writer.put(put("k", &value)).await.is_ok())).await?;
        loop {
            let event = events(&mut watcher, 1).await.with_context(|| proxy.log())?.concat();
            let (pair, revision) = event.split_once('@').context("a pair at a revision")?;
            seen.push(revision.parse()?);
            if pair == format!("k={value}") {
                break;
            }
        }
        cluster.resume(hanging)?;
    }
    anyhow::ensure!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
    Ok(())
}
