//! Three of our members on the loopback interface: what one client sees of a cluster. Faults under
//! load are the scenarios of `retcd_conformance`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use client::Client;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_conformance::cluster::{Cluster, ClusterOptions, PATIENCE};
use retcd_conformance::http::{HttpOpen, HttpQuestion};
use retcd_conformance::real_etcd;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

async fn three(flags: &[&str]) -> anyhow::Result<Cluster> {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Cluster::start(&[Path::new(OURS); 3], ClusterOptions { flags, ..ClusterOptions::default() })
        .await
}

/// Writes until that is acknowledged: an election on a busy machine may cost an attempt.
async fn put(client: &Client, key: &str, value: &str) -> anyhow::Result<()> {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    let request = pb::PutRequest { key, value, ..Default::default() };
    let began = Instant::now();
    loop {
        match client.put(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if PATIENCE < began.elapsed() => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Asks until the cluster answers with success or with exactly this text: an election on a busy
/// machine may cost an attempt. Whether it was the text.
async fn ask<T>(
    text: &str,
    request: impl AsyncFn() -> Result<T, client::Error>,
) -> anyhow::Result<bool> {
    let began = Instant::now();
    loop {
        match request().await {
            Ok(_) => return Ok(false),
            Err(error) if error.is(text) => return Ok(true),
            Err(error) if PATIENCE < began.elapsed() => {
                return Err(error).context(format!("instead of {text:?}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn get(client: &Client, key: &str) -> anyhow::Result<Option<Bytes>> {
    let request = pb::RangeRequest { key: Bytes::from(key.to_owned()), ..Default::default() };
    let began = Instant::now();
    loop {
        match client.get(request.clone()).await {
            Ok(response) => return Ok(response.kvs.into_iter().next().map(|found| found.value)),
            Err(error) if PATIENCE < began.elapsed() => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits until a member leads; its number.
async fn leader(cluster: &Cluster) -> anyhow::Result<usize> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        for number in cluster.up() {
            if let Ok(status) = cluster.status(number).await
                && let Some(id) = status.header.map(|header| header.member_id)
                && id == status.leader
            {
                return Ok(number);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("nobody leads:\n{}", cluster.logs())
}

/// Waits until all members that run are equal at the newest revision.
async fn assert_equal(cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let mut hashes = Vec::new();
        for number in cluster.up() {
            let client = cluster.client(&[number]).await?;
            let hash = client.hash_kv(pb::HashKvRequest { revision: 0 }).await?;
            hashes.push((hash.hash_revision, hash.compact_revision, hash.hash));
        }
        if hashes.iter().all(|hash| *hash == hashes[0]) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "members differ: {hashes:?}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// CB-10, CB-52, CB-53: what is written at one member is read at every other at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_takes_writes_and_linearizable_reads() -> anyhow::Result<()> {
    let cluster = three(&[]).await?;
    for writer in 0..3 {
        let key = format!("from{writer}");
        put(&cluster.client(&[writer]).await?, &key, "x").await?;
        for reader in 0..3 {
            let found = get(&cluster.client(&[reader]).await?, &key).await?;
            ensure!(found.as_deref() == Some(b"x"), "m{reader} does not have {key}");
        }
    }
    assert_equal(&cluster).await
}

/// CB-51, M-08, L-07: leadership moves on demand; leases live on and are kept alive at followers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_and_followers_keep_leases_alive() -> anyhow::Result<()> {
    let cluster = three(&[]).await?;
    let old = leader(&cluster).await?;
    let new = (old + 1) % 3;
    let at_follower = cluster.client(&[new]).await?;
    let grant = pb::LeaseGrantRequest { ttl: 600, id: 77 };
    ask("etcdserver: lease already exists", async || at_follower.lease_grant(grant).await).await?;
    let target_id = cluster.member_id(new).await?;
    let request = pb::MoveLeaderRequest { target_id };
    let refused = ask("etcdserver: not leader", async || at_follower.move_leader(request).await);
    ensure!(refused.await?, "it does not lead");
    let at_leader = cluster.client(&[old]).await?;
    let nobody = pb::MoveLeaderRequest { target_id: 1 };
    let text = "etcdserver: bad leader transferee";
    ensure!(ask(text, async || at_leader.move_leader(nobody).await).await?, "there is no member 1");
    ask("etcdserver: not leader", async || at_leader.move_leader(request).await).await?;
    ensure!(leader(&cluster).await? == new, "m{new} leads");
    for number in 0..3 {
        let client = cluster.client(&[number]).await?;
        ask("", async || client.lease_keep_alive_once(77).await).await?;
        let asked = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
        let left = client.lease_time_to_live(asked).await?;
        ensure!(left.granted_ttl == 600 && 500 < left.ttl, "m{number} says {left:?}");
        let asked = pb::LeaseTimeToLiveRequest { id: 78, keys: true };
        let none = client.lease_time_to_live(asked).await?;
        ensure!(none.ttl == -1, "m{number} says {none:?}");
    }
    Ok(())
}

/// CB-50, CB-16: a killed leader is replaced, and catches up once it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_returns() -> anyhow::Result<()> {
    let mut cluster = three(&[]).await?;
    put(&cluster.client(&[]).await?, "before", "x").await?;
    let killed = leader(&cluster).await?;
    cluster.kill(killed)?;
    let others = cluster.up();
    put(&cluster.client(&others).await?, "after", "y").await?;
    cluster.restart(killed)?;
    cluster.await_serving(killed).await?;
    let found = get(&cluster.client(&[killed]).await?, "after").await?;
    ensure!(found.as_deref() == Some(b"y"), "it has what was written meanwhile");
    assert_equal(&cluster).await
}

/// CB-16: who lags further than the log reaches back gets everything at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_too_far_gets_a_snapshot() -> anyhow::Result<()> {
    let mut cluster = three(&["--snapshot-count=20", "--snapshot-catchup-entries=10"]).await?;
    let lagging = (leader(&cluster).await? + 1) % 3;
    let others: Vec<usize> = cluster.up().into_iter().filter(|up| *up != lagging).collect();
    let client = std::sync::Arc::new(cluster.client(&others).await?);
    // How long the log is kept for a member that was there a moment ago depends on time.
    for round in 0.. {
        cluster.kill(lagging)?;
        // Together, so that it takes few turns on a busy machine.
        let mut puts = tokio::task::JoinSet::new();
        for number in 0..300 {
            let client = client.clone();
            puts.spawn(async move { put(&client, &format!("k{number}"), "some value").await });
        }
        while let Some(done) = puts.join_next().await {
            done??;
        }
        cluster.restart(lagging)?;
        cluster.await_serving(lagging).await?;
        assert_equal(&cluster).await?;
        let log = cluster.member(lagging).log();
        if log.contains("applied snapshot") {
            break;
        }
        ensure!(round < 20, "nothing comes by snapshot:\n{log}");
    }
    // What came is durable.
    cluster.kill(lagging)?;
    cluster.restart(lagging)?;
    cluster.await_serving(lagging).await?;
    put(&client, "last", "z").await?;
    assert_equal(&cluster).await
}

/// C-01 to C-08, CB-18: a learner joins, is promoted and removed; who is removed ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_as_learner_is_promoted_and_removed() -> anyhow::Result<()> {
    let mut cluster = three(&[]).await?;
    let client = cluster.client(&[0, 1, 2]).await?;
    put(&client, "a", "x").await?;
    let request = pb::MemberRemoveRequest { id: 1 };
    let text = "etcdserver: member not found";
    ensure!(ask(text, async || client.member_remove(request).await).await?, "there is no member 1");
    let request = pb::MemberPromoteRequest { id: cluster.member_id(0).await? };
    let text = "etcdserver: can only promote a learner member";
    ensure!(ask(text, async || client.member_promote(request).await).await?, "it votes already");
    let learner = cluster.add(Path::new(OURS), true).await?;
    let url = cluster.member(learner).peer_url().to_owned();
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url], is_learner: false };
    let text = "etcdserver: Peer URLs already exists";
    let added = ask(text, async || client.member_add(request.clone()).await).await?;
    ensure!(added, "its address is taken");
    cluster.promote(learner).await?;
    cluster.await_serving(learner).await?;
    put(&cluster.client(&[learner]).await?, "b", "y").await?;
    assert_equal(&cluster).await?;
    cluster.remove(learner).await?;
    let members = client.member_list(pb::MemberListRequest { linearizable: true }).await?.members;
    ensure!(members.len() == 3, "{members:?}");
    put(&client, "c", "z").await?;
    assert_equal(&cluster).await
}

/// CB-38: a leader can be removed; who waits meanwhile is served by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_is_followed_by_another() -> anyhow::Result<()> {
    let mut cluster = three(&[]).await?;
    put(&cluster.client(&[]).await?, "before", "x").await?;
    let removed = leader(&cluster).await?;
    cluster.remove(removed).await?;
    let client = cluster.client(&cluster.up()).await?;
    put(&client, "after", "y").await?;
    ensure!(leader(&cluster).await? != removed, "another member leads");
    assert_equal(&cluster).await
}

/// M-09, CB-57, E-61: a downgrade is enabled, lowers the cluster version, and is cancelled; since
/// 3.6 that is no error where there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downgrade_is_enabled_and_cancelled() -> anyhow::Result<()> {
    use pb::downgrade_request::DowngradeAction;
    let cluster = three(&["--downgrade-check-time=1s"]).await?;
    let client = cluster.client(&[]).await?;
    let request = |action: DowngradeAction, version: &str| {
        let version = version.to_owned();
        let request = pb::DowngradeRequest { action: action.into(), version };
        let client = &client;
        async move || client.downgrade(request.clone()).await
    };
    await_cluster_version(&client, "3.7.0").await?;
    for (version, text) in [
        ("3.6.x", "etcdserver: wrong downgrade target version format"),
        ("v3.6.0", "etcdserver: wrong downgrade target version format"),
        ("3.5.0", "etcdserver: invalid downgrade target version"),
        ("3.7", "etcdserver: invalid downgrade target version"),
    ] {
        for action in [DowngradeAction::Validate, DowngradeAction::Enable] {
            ensure!(ask(text, request(action, version)).await?, "{action:?} {version}");
        }
    }
    ensure!(!ask("", request(DowngradeAction::Validate, "3.6")).await?, "it can be done");
    // As 3.7: nothing is under way, and none is then.
    ensure!(!ask("", request(DowngradeAction::Cancel, "")).await?, "none is under way");
    ensure!(!ask("", request(DowngradeAction::Enable, "3.6.1")).await?, "it is enabled");
    let text = "etcdserver: cluster has a downgrade job in progress";
    let again = request(DowngradeAction::Enable, "3.6.0");
    // The version may be lowered already, and then no other minor version is allowed.
    let other = "etcdserver: invalid downgrade target version";
    match again().await {
        Err(error) if error.is(text) || error.is(other) => {}
        answer => bail!("enabled again: {answer:?}"),
    }
    let status = await_cluster_version(&client, "3.6.0").await?;
    let info = status.downgrade_info.unwrap_or_default();
    ensure!(info.enabled && info.target_version == "3.6.0", "{info:?}");
    put(&client, "meanwhile", "x").await?;
    ensure!(!ask("", request(DowngradeAction::Cancel, "")).await?, "it is cancelled");
    let status = await_cluster_version(&client, "3.7.0").await?;
    let info = status.downgrade_info.unwrap_or_default();
    ensure!(!info.enabled && info.target_version.is_empty(), "{info:?}");
    ensure!(get(&client, "meanwhile").await?.as_deref() == Some(b"x"), "nothing is lost");
    assert_equal(&cluster).await
}

/// Waits until the state is written as that version writes it.
async fn await_cluster_version(
    client: &Client,
    version: &str,
) -> anyhow::Result<pb::StatusResponse> {
    let began = Instant::now();
    loop {
        let status = client.status(pb::StatusRequest {}).await;
        match status {
            Ok(status) if status.storage_version == version => return Ok(status),
            answer => ensure!(began.elapsed() < PATIENCE, "instead of {version}: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// M-08: handing the lead to a member that is away waits as long as the caller does; meanwhile the
/// leader takes writes again. Once the member leads, everybody who waited for that is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_waits_for_a_member_that_is_away() -> anyhow::Result<()> {
    let real = real_etcd("3.7").map(|folder| folder.join("etcd"));
    for program in [PathBuf::from(OURS)].into_iter().chain(real) {
        let mut cluster =
            Cluster::start(&[program.as_path(); 3], ClusterOptions::default()).await?;
        let old = leader(&cluster).await?;
        let away = (old + 1) % 3;
        let target_id = cluster.member_id(away).await?;
        cluster.kill(away)?;
        let endpoint = cluster.member(old).direct_endpoint();
        let waiting = tokio::spawn(async move {
            let mut maintenance = MaintenanceClient::connect(endpoint).await?;
            anyhow::Ok(maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await?)
        });
        // Three elections later the caller gives up; etcd's member may be the first to say so.
        let endpoint = cluster.member(old).direct_endpoint();
        let address = endpoint.trim_start_matches("http://").parse()?;
        let late = HttpOpen::question(
            address,
            &HttpQuestion {
                method: "POST",
                path: "/v3/maintenance/transfer-leadership",
                headers: &[("Grpc-Timeout", "3S")],
                body: &format!("{{\"targetID\":\"{target_id}\"}}"),
            },
        )?;
        let late = late.finish()?;
        let texts = [
            "\"context deadline exceeded\"",
            "\"etcdserver: request timed out, leader transfer took too long\"",
        ];
        let texts = if program == Path::new(OURS) { &texts[..1] } else { &texts };
        ensure!(texts.iter().any(|text| late.body.contains(text)), "{late:?}");
        let client = cluster.client(&[old]).await?;
        put(&client, "meanwhile", "x").await?;
        ensure!(!waiting.is_finished(), "nobody took over");
        cluster.restart(away)?;
        cluster.await_serving(away).await?;
        cluster.move_leader(away).await?;
        let answer = tokio::time::timeout(PATIENCE, waiting).await;
        answer.context("whoever waited is answered")???;
    }
    Ok(())
}
