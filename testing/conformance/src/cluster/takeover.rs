//! A cluster goes from one program to another, member by member, under writes, and back.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;

use super::scenarios::await_status;
use super::{Cluster, ClusterOptions, Load, LoadOptions, PATIENCE, POLL, Verdict};

/// Go's members call a cluster healthy that has been connected for as long; changes wait for it.
const HEALTH_INTERVAL: Duration = Duration::from_millis(5200);

/// Answers that show that a step did not stop the cluster.
const ANSWERS: usize = 100;

/// Starts three members of `theirs`; replaces each by one of `ours`, which joins as a learner, is
/// promoted, leads, and lets the others' reads through; then back. After every step all members
/// have the same hash, and at the end the judges decide.
///
/// # Errors
///
/// A step does not succeed; its name is part of the text.
pub async fn there_and_back(
    theirs: &Path,
    ours: &Path,
    load: LoadOptions,
    flags: &[&str],
) -> anyhow::Result<Verdict> {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let mut cluster =
        Cluster::start(&[theirs, theirs, theirs], ClusterOptions { flags, ..Default::default() })
            .await?;
    let mut load = Load::start(&cluster, load).await?;
    load.await_answers(&cluster, ANSWERS).await?;
    for (direction, program) in [("there", ours), ("back", theirs)] {
        for old in cluster.up() {
            replace(&mut cluster, &mut load, old, program)
                .await
                .with_context(|| format!("going {direction}, replacing m{old}"))?;
        }
    }
    cluster.finish(load).await
}

/// Puts a new member in the place of an old one.
async fn replace(
    cluster: &mut Cluster,
    load: &mut Load,
    old: usize,
    program: &Path,
) -> anyhow::Result<()> {
    tokio::time::sleep(HEALTH_INTERVAL).await;
    let new = cluster.add(program, true).await.context("adding a learner")?;
    await_status(cluster, new).await.context("waiting for the learner")?;
    cluster.promote(new).await.context("promoting it")?;
    cluster.await_serving(new).await.context("reading from it")?;
    load.join(cluster, new).await?;
    same_hash(cluster).await.context("comparing after the promotion")?;
    cluster.move_leader(new).await.context("making it the leader")?;
    load.await_answers(cluster, ANSWERS).await.context("writing through it")?;
    read_everywhere(cluster).await.context("reading through it from everywhere")?;
    tokio::time::sleep(HEALTH_INTERVAL).await;
    cluster.remove(old).await.context("removing the old member")?;
    load.await_answers(cluster, ANSWERS).await.context("writing without the old member")?;
    same_hash(cluster).await.context("comparing after the removal")
}

/// Every member answers a linearizable read, with the leader's help.
async fn read_everywhere(cluster: &Cluster) -> anyhow::Result<()> {
    for number in cluster.up() {
        let mut client = KvClient::connect(cluster.member(number).direct_endpoint()).await?;
        let request = pb::RangeRequest { key: b"key1"[..].into(), ..Default::default() };
        let began = std::time::Instant::now();
        while let Err(status) = client.range(request.clone()).await {
            anyhow::ensure!(began.elapsed() < PATIENCE, "m{number}: {status}\n{}", cluster.logs());
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Waits until all members have a revision that one of them has now, and compares.
async fn same_hash(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client(&[]).await?;
    let request = pb::RangeRequest { key: b"key1"[..].into(), ..Default::default() };
    let header = client.get(request).await?.header.context("an answer has a header")?;
    let members = cluster.finals(header.revision).await?;
    let first = members.first().context("there are members")?;
    for member in &members {
        anyhow::ensure!(
            (member.hash, &member.pairs) == (first.hash, &first.pairs),
            "m{} has hash {:08x}, m{} has {:08x} at revision {}\n{}",
            first.member,
            first.hash,
            member.member,
            member.hash,
            header.revision,
            cluster.logs()
        );
    }
    Ok(())
}
