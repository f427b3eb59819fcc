//! The second generation's API at the members of a cluster: at followers, and while nobody leads.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use retcd_conformance::cluster::{Cluster, ClusterOptions, PATIENCE};
use retcd_conformance::http::HttpAnswer;
use serde_json::Value;

use crate::v2_support::{OURS, V2};

async fn three() -> anyhow::Result<(Cluster, Vec<V2>)> {
    let cluster = Cluster::start(&[Path::new(OURS); 3], ClusterOptions::default()).await?;
    let members = cluster.members().iter().map(|member| V2::at(&member.direct_endpoint()));
    let members = members.collect::<anyhow::Result<_>>()?;
    Ok((cluster, members))
}

/// Asks until the answer is not that something went wrong on the way, such as an election on a busy
/// machine.
fn insist(
    ask: impl Fn() -> anyhow::Result<HttpAnswer>,
    accept: impl Fn(&HttpAnswer) -> bool,
) -> anyhow::Result<HttpAnswer> {
    let began = Instant::now();
    loop {
        let answer = ask()?;
        if accept(&answer) {
            return Ok(answer);
        }
        ensure!(began.elapsed() < PATIENCE, "it stays at {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn json(body: &str) -> anyhow::Result<Value> {
    serde_json::from_str(body).with_context(|| format!("no JSON: {body}"))
}

/// V2-016, V2-030, V2-031, V2-070, V2-074: whatever is asked of any member is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_keys() -> anyhow::Result<()> {
    let (_cluster, members) = three().await?;
    for (number, member) in members.iter().enumerate() {
        let mut waits = Vec::new();
        for other in &members {
            waits.push(other.begin(&format!("/keys/w/{number}?wait=true"))?);
        }
        let mut stream = members[(number + 1) % 3].begin(&format!(
            "/keys/w?wait=true&recursive=true&stream=true&waitIndex={}",
            waits[0].head().header("x-etcd-index").parse::<u64>()? + 1
        ))?;
        // Unconditional, so that it may be said twice.
        let put = format!("PUT /w/{number} value=v{number}");
        let set = insist(|| member.step(&put), |it| it.status < 300)?;
        ensure!(json(&set.body)?["node"]["value"] == format!("v{number}"), "{set:?}");
        for wait in waits {
            let event = json(&wait.finish()?.body)?;
            ensure!(event["node"]["value"] == format!("v{number}"), "{event}");
        }
        // What was said twice before may come first.
        while json(&stream.chunk()?)?["node"]["key"] != format!("/w/{number}") {}
        for other in &members {
            let path = format!("/keys/w/{number}?quorum=true");
            let read = insist(|| other.get(&path), |it| it.status != 500)?;
            ensure!(json(&read.body)?["node"]["value"] == format!("v{number}"), "{read:?}");
        }
    }
    // V2-064: the leader's clock ends it everywhere.
    insist(|| members[0].step("PUT /t value=x&ttl=1"), |it| it.status < 300)?;
    for member in &members {
        insist(|| member.get("/keys/t?quorum=true"), |it| it.status == 404)?;
    }
    Ok(())
}

/// V2-130 to V2-132, SEED1-10, SEED1-11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_counts_what_it_sends() -> anyhow::Result<()> {
    let (_cluster, members) = three().await?;
    let began = Instant::now();
    loop {
        insist(|| members[0].step("PUT /a value=x"), |it| it.status < 300)?;
        if let Ok(()) = statistics(&members) {
            return Ok(());
        }
        if PATIENCE < began.elapsed() {
            return statistics(&members);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn statistics(members: &[V2]) -> anyhow::Result<()> {
    let mut leaders = 0;
    for member in members {
        let own = json(&member.get("/stats/self")?.body)?;
        let answer = member.get("/stats/leader")?;
        let said = json(&answer.body)?;
        let count = |name: &str| own[name].as_u64().unwrap_or_default();
        if own["state"] == "StateFollower" {
            ensure!(answer.status == 403 && said["message"] == "not current leader", "{said}");
            ensure!(0 < count("recvAppendRequestCnt"), "{own}");
            continue;
        }
        leaders += 1;
        ensure!(own["state"] == "StateLeader" && own["leaderInfo"]["leader"] == own["id"], "{own}");
        ensure!(0 < count("sendAppendRequestCnt"), "{own}");
        ensure!(0.0 < own["sendPkgRate"].as_f64().context("no rate")?, "{own}");
        ensure!(0.0 < own["sendBandwidthRate"].as_f64().context("no rate")?, "{own}");
        ensure!(answer.status == 200 && said["leader"] == own["id"], "{said}");
        let followers = said["followers"].as_object().context("no followers")?;
        ensure!(followers.len() == 2, "{said}");
        for follower in followers.values() {
            ensure!(0 < follower["counts"]["success"].as_u64().unwrap_or_default(), "{said}");
            let latency = |name: &str| follower["latency"][name].as_f64().context("no latency");
            let (least, mean, most) =
                (latency("minimum")?, latency("average")?, latency("maximum")?);
            ensure!(0.0 < least && least <= mean && mean <= most, "{said}");
            ensure!(0.0 <= latency("standardDeviation")? && 0.0 < latency("current")?, "{said}");
        }
    }
    ensure!(leaders == 1, "{leaders} lead");
    Ok(())
}

/// V2-016, V2-066, V2-096, V2-138, V2-146: what one of three members answers that is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_reads_and_says_so() -> anyhow::Result<()> {
    let (mut cluster, members) = three().await?;
    insist(|| members[0].step("PUT /a value=x"), |it| it.status < 300)?;
    insist(|| members[2].get("/keys/a?quorum=true"), |it| it.status == 200)?;
    cluster.kill(0)?;
    cluster.kill(1)?;
    let alone = &members[2];
    let during = insist(|| alone.get("/members/leader"), |it| it.status != 200)?;
    ensure!((during.status, during.body.as_str()) == (503, "{\"message\":\"During election\"}"));
    ensure!(json(&alone.get("/keys/a")?.body)?["node"]["value"] == "x");
    for refused in
        [alone.step("PUT /a value=y")?, alone.step("DELETE /b")?, alone.get("/keys/a?quorum=true")?]
    {
        // Which of the three depends on what the member saw of the others' end.
        let causes =
            ["", ", possibly due to previous leader failure", ", possibly due to connection lost"];
        let bodies = causes.map(|cause| {
            format!(
                "{{\"errorCode\":300,\"message\":\"Raft Internal Error\",\
                 \"cause\":\"etcdserver: request timed out{cause}\",\"index\":0}}\n"
            )
        });
        ensure!(refused.status == 500 && bodies.contains(&refused.body), "{refused:?}");
        ensure!(refused.header("x-etcd-index") == "0", "{refused:?}");
        ensure!(refused.header("x-raft-index").is_empty(), "{refused:?}");
    }
    ensure!(alone.step("PUT /a ttl=x")?.status == 400);
    ensure!(alone.get("/members")?.status == 200);
    let own = json(&alone.get("/stats/self")?.body)?;
    ensure!(own["state"] == "StateCandidate" && own["leaderInfo"]["leader"] == "", "{own}");
    let url = "{\"peerURLs\":[\"http://127.0.0.1:9\"]}";
    let failed = alone.ask("POST", "/members", "application/json", url)?;
    ensure!(
        (failed.status, failed.body.as_str()) == (500, "{\"message\":\"Internal Server Error\"}")
    );
    cluster.restart(0)?;
    cluster.await_serving(2).await?;
    insist(|| alone.step("PUT /a value=z"), |it| it.status < 300)?;
    Ok(())
}

/// V2-136, V2-137, V2-140 to V2-146, SEED4-18 (reconfiguration): members come, change and go by v2 calls at any member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_changed() -> anyhow::Result<()> {
    let (cluster, members) = three().await?;
    let v2 = &members[1];
    let ask = |method: &str, path: &str, urls: &[&str]| {
        let body = serde_json::json!({ "peerURLs": urls }).to_string();
        v2.ask(method, path, "application/json", &body)
    };
    let conflict = "{\"message\":\"membership: peerURL exists\"}";
    let settled = |it: &HttpAnswer| it.status != 500;
    let taken = cluster.member(0).peer_url();
    let refused = insist(|| ask("POST", "/members", &[taken]), settled)?;
    ensure!((refused.status, refused.body.as_str()) == (409, conflict), "{refused:?}");
    let ids: Vec<String> = ids(v2)?;
    let own = cluster.id(1).await?;
    ensure!(ids.contains(&format!("{own:x}")), "{ids:?}");
    let refused = insist(|| ask("PUT", &format!("/members/{own:x}"), &[taken]), settled)?;
    ensure!((refused.status, refused.body.as_str()) == (409, conflict), "{refused:?}");
    let url = cluster.member(1).peer_url();
    let same = insist(|| ask("PUT", &format!("/members/{own:x}"), &[url]), settled)?;
    ensure!((same.status, same.body.as_str()) == (204, ""), "{same:?}");
    // Asked again behind a time-out, it would be a conflict: the id is what counts.
    let post = || ask("POST", "/members", &["http://127.0.0.1:9", "http://127.0.0.1:7"]);
    let added = insist(post, settled)?;
    ensure!([201, 409].contains(&added.status), "{added:?}");
    let list = json(&v2.get("/members")?.body)?;
    let all = list["members"].as_array().context("no members")?;
    let new = all.iter().find(|member| member["name"] == "").context("no new member")?;
    ensure!(new["clientURLs"] == serde_json::json!([]), "{new}");
    let urls = serde_json::json!(["http://127.0.0.1:7", "http://127.0.0.1:9"]);
    ensure!(new["peerURLs"] == urls, "{new}");
    let order: Vec<u64> = all
        .iter()
        .map(|member| Ok(u64::from_str_radix(member["id"].as_str().context("an id")?, 16)?))
        .collect::<anyhow::Result<_>>()?;
    ensure!(order.is_sorted(), "{list}");
    ensure!(v2.get("/machines")?.body.split(", ").count() == 3);
    let path = format!("/members/{}", new["id"].as_str().context("an id")?);
    let moved = insist(|| ask("PUT", &path, &["http://127.0.0.1:11"]), settled)?;
    ensure!((moved.status, moved.body.as_str()) == (204, ""), "{moved:?}");
    ensure!(!moved.header("x-etcd-cluster-id").is_empty(), "{moved:?}");
    let gone = insist(|| v2.ask("DELETE", &path, "", ""), settled)?;
    ensure!([204, 410].contains(&gone.status), "{gone:?}");
    let again = insist(|| v2.ask("DELETE", &path, "", ""), settled)?;
    let id = new["id"].as_str().unwrap_or_default();
    let text = format!("{{\"message\":\"Member permanently removed: {id}\"}}");
    ensure!((again.status, again.body.as_str()) == (410, text.as_str()), "{again:?}");
    // As in etcd: an id that was removed can be no member's again, whatever is asked.
    let never = ask("PUT", &path, &["http://127.0.0.1:11"])?;
    ensure!(never.body == "{\"message\":\"Internal Server Error\"}", "{never:?}");
    Ok(())
}

fn ids(v2: &V2) -> anyhow::Result<Vec<String>> {
    let list = json(&v2.get("/members")?.body)?;
    let members = list["members"].as_array().context("no members")?;
    Ok(members.iter().filter_map(|member| Some(member["id"].as_str()?.to_owned())).collect())
}
