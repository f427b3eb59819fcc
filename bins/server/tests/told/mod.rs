//! What a member tells of itself, as etcd does: ids, alarms, its database, clocks that differ.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_conformance::cluster::{Cluster, ClusterOptions, PATIENCE};
use retcd_conformance::{Keys, Server, ServerOptions, ask};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::{OURS, client, programs, put, start};

/// Half of the start of a page of bbolt's that tells what file it is.
const MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();

/// CB-03: ids that begin with a zero are written without it, wherever they are hexadecimal.
#[test]
fn ids_are_written_without_leading_zeros() -> anyhow::Result<()> {
    // With this token the member is 008e..., and its cluster 033d...
    let (url, member, cluster) = ("http://127.0.0.1:1", "8ef92b3fd3c830", "33d8fdb44370fa6");
    for program in programs(&["3.4", "3.5"]) {
        let folder = tempfile::tempdir()?;
        let mut flags = vec!["--initial-cluster-token=short-453".to_owned()];
        flags.push(format!("--initial-advertise-peer-urls={url}"));
        flags.push(format!("--initial-cluster=m0={url}"));
        if program != Path::new(OURS) {
            flags.push("--enable-v2".to_owned());
        }
        let server = Server::start(&program, folder.path(), ServerOptions { flags })?;
        let address = SocketAddr::from(([127, 0, 0, 1], server.client_port()));
        let members = ask(address, "GET", "/v2/members", "")?;
        ensure!(members.body.contains(&format!("{{\"id\":\"{member}\",")), "{members:?}");
        ensure!(members.headers["x-etcd-cluster-id"] == cluster, "{members:?}");
        let own = ask(address, "GET", "/v2/stats/self", "")?;
        ensure!(own.body.contains(&format!("\"id\":\"{member}\"")), "{own:?}");
        let (log, told) = (server.log(), format!("\"cluster-id\":\"{cluster}\""));
        ensure!(!log.starts_with('{') || log.contains(&told), "{log}");
        // Numbers in JSON are not hexadecimal.
        let list = ask(address, "POST", "/v3/cluster/member/list", "{}")?;
        let number = u64::from_str_radix(member, 16)?;
        ensure!(list.body.contains(&format!("\"ID\":\"{number}\"")), "{list:?}");
    }
    Ok(())
}

/// M-03: alarms stand in the status in words that scripts look for.
#[tokio::test]
async fn a_status_names_the_alarms() -> anyhow::Result<()> {
    for program in programs(&["3.4", "3.5"]) {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let mut maintenance = MaintenanceClient::connect(server.endpoint()).await?;
        let raise = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate.into(),
            alarm: pb::AlarmType::Nospace.into(),
            member_id: 123,
        };
        maintenance.alarm(raise).await?;
        let status = maintenance.status(pb::StatusRequest {}).await?.into_inner();
        ensure!(status.errors == ["memberID:123 alarm:NOSPACE "], "{status:?}");
    }
    Ok(())
}

/// M-07: the database comes in pieces of 32 KiB with what is left, and its digest behind them.
#[tokio::test]
async fn a_snapshot_comes_in_pieces_with_its_digest() -> anyhow::Result<()> {
    for program in programs(&["3.5"]) {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let keys = Keys::of(&server.endpoint())?;
        for number in 0..10 {
            keys.put(&format!("key {number}"), vec![7; 20_000]).await?;
        }
        let mut maintenance = MaintenanceClient::connect(server.endpoint()).await?;
        let mut stream = maintenance.snapshot(pb::SnapshotRequest {}).await?.into_inner();
        let mut pieces = Vec::new();
        while let Some(piece) = stream.message().await? {
            pieces.push(piece);
        }
        let (digest, pieces) = pieces.split_last().context("a digest at least")?;
        let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.blob.to_vec()).collect();
        ensure!(whole[16..20] == MAGIC && whole.len().is_multiple_of(4096), "no database");
        let mut left = whole.len();
        for piece in pieces {
            ensure!(piece.blob.len() == left.min(32 << 10), "{}", piece.blob.len());
            left -= piece.blob.len();
            ensure!(piece.remaining_bytes == u64::try_from(left)?, "{}", piece.remaining_bytes);
            ensure!(program != Path::new(OURS) || piece.version == "3.7.0", "{}", piece.version);
        }
        ensure!(digest.remaining_bytes == 0, "{}", digest.remaining_bytes);
        ensure!(digest.blob[..] == Sha256::digest(&whole)[..], "another digest");
    }
    Ok(())
}

/// M-08, M-10: a learner tells of itself, serves nothing else, and is never handed the lead; who led
/// last it goes on believing to lead, since it waits for no election.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_tells_of_itself() -> anyhow::Result<()> {
    for program in programs(&["3.5"]) {
        let mut cluster = Cluster::start(&[&program], ClusterOptions::default()).await?;
        let leader = cluster.id(0).await?;
        let learner = cluster.add(&program, true).await?;
        let began = Instant::now();
        let tells = async |cluster: &Cluster| {
            loop {
                match cluster.status(learner).await {
                    Ok(status) if status.is_learner && status.leader == leader => {
                        return anyhow::Ok(status);
                    }
                    told => ensure!(began.elapsed() < PATIENCE, "{told:?}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        ensure!(tells(&cluster).await?.errors.is_empty());
        let keys = Keys::of(&cluster.member(learner).direct_endpoint())?;
        let refused = keys.put("k", "v").await.unwrap_err();
        let text = "etcdserver: rpc not supported for learner";
        // 3.5 has another code for it.
        let codes = [Code::FailedPrecondition, Code::Unavailable];
        ensure!(codes.contains(&refused.code()) && refused.message() == text, "{refused:?}");
        let member = cluster.member(0).direct_endpoint();
        let mut maintenance = MaintenanceClient::connect(member).await?;
        let target_id = cluster.id(learner).await?;
        let transfer = pb::MoveLeaderRequest { target_id };
        let refused = maintenance.move_leader(transfer).await.unwrap_err();
        let text = "etcdserver: bad leader transferee";
        ensure!(
            (refused.code(), refused.message()) == (Code::FailedPrecondition, text),
            "{refused:?}"
        );
        cluster.kill(0)?;
        ensure!(tells(&cluster).await?.errors.is_empty());
    }
    Ok(())
}

/// CB-35, E-23: one learner at a time unless told otherwise, and nobody waits for it.
#[tokio::test]
async fn one_learner_is_enough() -> anyhow::Result<()> {
    for program in programs(&["3.4", "3.5"]) {
        let folder = tempfile::tempdir()?;
        let flags = vec!["--strict-reconfig-check=false".to_owned()];
        let server = Server::start(&program, folder.path(), ServerOptions { flags })?;
        let mut members = ClusterClient::connect(server.endpoint()).await?;
        let mut add = async |port: u16| {
            let peer_ur_ls = vec![format!("http://127.0.0.1:{port}")];
            members.member_add(pb::MemberAddRequest { peer_ur_ls, is_learner: true }).await
        };
        add(1).await?;
        let refused = add(2).await.unwrap_err();
        let text = "etcdserver: too many learner members in cluster";
        ensure!((refused.code(), refused.message()) == (Code::FailedPrecondition, text));
        let keys = Keys::of(&server.endpoint())?;
        keys.put("k", "v").await?;
        ensure!(keys.get("k").await?.is_some(), "whom does it wait for?");
    }
    Ok(())
}

/// CB-37: who runs already looks for a member where it is said to be now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_is_followed() -> anyhow::Result<()> {
    for program in programs(&["3.5"]) {
        let mut cluster =
            Cluster::start(&[program.as_path(); 3], ClusterOptions::default()).await?;
        let id = cluster.id(2).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let client = cluster.client(&[0, 1]).await?;
        let moved = pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.clone()] };
        let began = Instant::now();
        while let Err(refused) = client.member_update(moved.clone()).await {
            ensure!(began.elapsed() < PATIENCE, "{refused:?}");
        }
        // What is open may stay so until it breaks.
        cluster.kill(2)?;
        let (send, comes) = std::sync::mpsc::channel();
        // Ends with the first line, or with the process.
        thread::spawn(move || -> std::io::Result<()> {
            for stream in listener.incoming() {
                let mut line = String::new();
                BufReader::new(stream?).read_line(&mut line)?;
                if send.send(line).is_err() {
                    break;
                }
            }
            Ok(())
        });
        loop {
            let line = comes.recv_timeout(PATIENCE).context("nobody comes to the new address")?;
            // Who watches versions may be there first.
            if line.contains(" /raft") {
                break;
            }
        }
        for number in [0, 1] {
            let status = cluster.client(&[number]).await?;
            let list = status.member_list(pb::MemberListRequest { linearizable: true }).await?;
            let found =
                list.members.iter().find(|member| member.id == id).context("it is there")?;
            ensure!(found.peer_ur_ls == [url.clone()], "{found:?}");
        }
    }
    Ok(())
}

/// M-09: a number that stands for nothing does nothing, not even ask whether it could be done.
#[tokio::test]
async fn an_unknown_step_of_a_downgrade_is_refused() -> anyhow::Result<()> {
    for (program, version) in programs(&["3.5"]).into_iter().zip(["3.6.0", "3.4.0"]) {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let mut maintenance = MaintenanceClient::connect(server.endpoint()).await?;
        let request = pb::DowngradeRequest { action: 7, version: version.to_owned() };
        let refused = maintenance.downgrade(request).await.unwrap_err();
        let told = (refused.code(), refused.message());
        ensure!(told == (Code::Unknown, "etcdserver: unknown method"), "{refused:?}");
    }
    Ok(())
}

/// A member that only tells the time, an old one.
fn tell_an_old_time(listener: &TcpListener) {
    let answer = |mut stream: TcpStream| -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
            head.extend(byte);
        }
        let asked = String::from_utf8_lossy(&head);
        let body = "{\"OK\":true,\"Now\":\"2001-02-03T04:05:06Z\"}\n";
        let (status, body) =
            if asked.contains("/raft/probing") { ("200 OK", body) } else { ("404 Not Found", "") };
        let len = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
    };
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer(stream));
    }
}

/// CB-15: a member whose clock shows another time is told of.
#[tokio::test]
async fn a_clock_that_differs_is_told() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}", listener.local_addr()?);
    // Both end with the process.
    thread::spawn(move || tell_an_old_time(&listener));
    for program in programs(&["3.5"]) {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let mut members = ClusterClient::connect(server.endpoint()).await?;
        let request = pb::MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: true };
        let began = Instant::now();
        let added = loop {
            match members.member_add(request.clone()).await {
                Ok(added) => break added.into_inner().member.context("who was added")?,
                Err(refused) => ensure!(began.elapsed() < PATIENCE, "{refused:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let named = format!("\"remote-peer-id\":\"{:x}\"", added.id);
        let is_told = |line: &str| {
            let words = ["\"level\":\"warn\"", "prober found high clock drift", "clock-drift"];
            words.iter().chain([&&*named]).all(|word| line.contains(word))
        };
        while !server.log().lines().any(is_told) {
            ensure!(began.elapsed() < PATIENCE, "{}", server.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// KV-30: what is compacted in the file, too, is gone from there at once.
#[tokio::test]
async fn what_a_physical_compaction_frees_is_free() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = start(folder.path(), &[])?;
    let client = client(&server).await?;
    for _ in 0..20 {
        client.put(put("k", &"x".repeat(200_000), 0)).await?;
    }
    let request = pb::CompactionRequest { revision: 21, physical: true };
    client.compact(request).await?;
    let status = client.status(pb::StatusRequest {}).await?;
    ensure!(status.db_size_in_use < 1_000_000, "{status:?}");
    Ok(())
}
