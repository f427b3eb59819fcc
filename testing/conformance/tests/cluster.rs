//! The cluster harness against the real thing: etcd under faults passes every judge.

use std::path::PathBuf;
use std::time::Duration;

use retcd_conformance::cluster::{Cluster, ClusterOptions, Load, LoadOptions, Node};
use retcd_conformance::real_etcd;

/// Three members of etcd 3.5 with load.
async fn start() -> anyhow::Result<Option<(Cluster, Load)>> {
    let Some(folder) = real_etcd("3.5") else { return Ok(None) };
    let program: PathBuf = folder.join("etcd");
    let options = ClusterOptions { flags: vec!["--snapshot-count=200".to_owned()] };
    let cluster = Cluster::start(&[&program, &program, &program], options).await?;
    let load = Load::start(&cluster, LoadOptions::default()).await?;
    load.await_answers(&cluster, 200).await?;
    Ok(Some((cluster, load)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_consistent_under_kills() -> anyhow::Result<()> {
    let Some((mut cluster, load)) = start().await? else { return Ok(()) };
    let leader = cluster.await_leader(&[]).await?;
    cluster.kill(leader)?;
    let others: Vec<usize> = cluster.up();
    cluster.await_leader(&others).await?;
    load.await_answers(&cluster, 200).await?;
    cluster.restart(leader)?;
    load.await_answers(&cluster, 200).await?;
    let verdict = cluster.finish(load).await?;
    println!("{:?}", verdict.report);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_consistent_under_cuts() -> anyhow::Result<()> {
    let Some((mut cluster, load)) = start().await? else { return Ok(()) };
    let leader = cluster.await_leader(&[]).await?;
    cluster.isolate(leader);
    let others: Vec<usize> = cluster.up().into_iter().filter(|other| *other != leader).collect();
    let next = cluster.await_leader(&others).await?;
    load.await_answers(&cluster, 200).await?;
    cluster.network().heal();
    load.await_answers(&cluster, 200).await?;
    let follower = others.into_iter().find(|other| *other != next).unwrap_or(leader);
    cluster.network().cut(Node::Member(next), Node::Member(follower));
    load.await_answers(&cluster, 300).await?;
    let verdict = cluster.finish(load).await?;
    println!("{:?}", verdict.report);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_consistent_under_pauses_and_delays() -> anyhow::Result<()> {
    let Some((mut cluster, load)) = start().await? else { return Ok(()) };
    let leader = cluster.await_leader(&[]).await?;
    cluster.pause(leader)?;
    let others: Vec<usize> = cluster.up().into_iter().filter(|other| *other != leader).collect();
    cluster.await_leader(&others).await?;
    load.await_answers(&cluster, 200).await?;
    cluster.resume(leader)?;
    for from in 0..3 {
        for to in 0..3 {
            cluster.network().change(Node::Member(from), Node::Member(to), |link| {
                link.delay = (Duration::from_millis(25), Duration::from_millis(75));
            });
        }
    }
    load.await_answers(&cluster, 300).await?;
    let verdict = cluster.finish(load).await?;
    println!("{:?}", verdict.report);
    Ok(())
}
