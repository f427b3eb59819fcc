//! G14, D22, D23: a full disk ends nothing. What makes the files grow is refused with NOSPACE,
//! everything else goes on, and once there is room again so do writes, without a restart.
//!
//! The disk is a small `tmpfs`; where it cannot be mounted the tests say that they were skipped.

#![allow(clippy::print_stdout, reason = "a skipped test says so on the output of the test run")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use retcd_conformance::{Keys, Server, ServerOptions};
use tonic::Code;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// A value of a put that fills the disk.
const VALUE_LEN: usize = 100_000;

/// A bound for what comes at once on an idle machine; tests share theirs with others.
const SOON: Duration = Duration::from_secs(60);

/// What is deleted to make room.
const BALLAST_LEN: usize = 32 << 20;

/// A mounted `tmpfs`.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    /// Mounts one of `mebibytes` at `folder`, and puts the ballast there; `None`, with a note,
    /// where that is not allowed.
    fn mount(folder: PathBuf, mebibytes: u32) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(&folder)?;
        let size = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: a tmpfs cannot be mounted here");
            return Ok(None);
        }
        let disk = Self(folder);
        fs::write(disk.0.join("ballast"), vec![0; BALLAST_LEN])?;
        Ok(Some(disk))
    }

    fn make_room(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since a server that a failed test leaves behind may still hold it.
        let told = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !told.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.0.display());
        }
    }
}

fn key(number: usize) -> String {
    format!("key {number:04}")
}

fn value(number: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).unwrap_or_default(); VALUE_LEN]
}

/// Puts until that is refused; how many were acknowledged.
async fn fill(server: &mut Server, keys: &Keys) -> anyhow::Result<usize> {
    for number in 0..2000 {
        match keys.put(&key(number), value(number)).await {
            Ok(_) => {}
            Err(status) => {
                anyhow::ensure!(!server.has_ended(), "it ended:\n{}", server.log());
                anyhow::ensure!(
                    status.code() == Code::ResourceExhausted
                        && status.message() == "etcdserver: mvcc: database space exceeded",
                    "{status:?}; the log:\n{}",
                    server.log()
                );
                return Ok(number);
            }
        }
    }
    anyhow::bail!("the disk is never full")
}

async fn expect_all(keys: &Keys, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    for number in numbers {
        let found = keys.get(&key(number)).await?;
        anyhow::ensure!(found.is_some_and(|found| found == value(number)), "{}", key(number));
    }
    Ok(())
}

/// Waits until `wanted` holds, at most `limit`.
async fn within(
    limit: Duration,
    what: &str,
    mut wanted: impl AsyncFnMut() -> bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !wanted().await {
        anyhow::ensure!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// While the disk is full: everything but growth.
async fn expect_everything_but_growth(server: &Server, keys: &Keys) -> anyhow::Result<()> {
    within(SOON, "the alarm", async || keys.no_space().await.unwrap_or(false)).await?;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    let mut leases = LeaseClient::connect(server.endpoint()).await?;
    for _ in 0..3 {
        let put = pb::PutRequest { key: "small".into(), ..Default::default() };
        let op = pb::request_op::Request::RequestPut(put.clone());
        let op = pb::RequestOp { request: Some(op) };
        let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
        let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
        let refusals = [
            kv.put(put).await.err(),
            kv.txn(txn).await.err(),
            leases.lease_grant(grant).await.err(),
        ];
        for refused in refusals {
            let code = refused.map(|status| status.code());
            anyhow::ensure!(code == Some(Code::ResourceExhausted), "{code:?}");
        }
    }
    // Many small entries: what is kept for deletions lasts.
    for number in 0..10 {
        anyhow::ensure!(keys.delete(&key(number)).await? == 1, "{}", key(number));
    }
    for _ in 0..100 {
        anyhow::ensure!(keys.delete("absent").await? == 0);
    }
    Ok(())
}

async fn expect_recovery(keys: &Keys) -> anyhow::Result<()> {
    within(SOON, "writes", async || keys.put("again", "").await.is_ok()).await?;
    within(SOON, "no alarm", async || keys.no_space().await.is_ok_and(|on| !on)).await?;
    for number in 0..10 {
        keys.put(&key(number), value(number)).await?;
    }
    Ok(())
}

async fn full(flags: &[String], folder: &Path, disk: &Disk) -> anyhow::Result<()> {
    let options = ServerOptions { flags: flags.to_vec() };
    let mut server = Server::start(Path::new(OURS), folder, options)?;
    let keys = Keys::of(&server.endpoint())?;
    let count = fill(&mut server, &keys).await?;
    anyhow::ensure!(count > 50, "only {count} puts fit");
    expect_everything_but_growth(&server, &keys).await?;
    let revision = keys.put("small", "").await.err().map(|status| status.code());
    anyhow::ensure!(revision == Some(Code::ResourceExhausted));
    keys.compact(2).await?;
    expect_all(&keys, 10..count).await?;
    anyhow::ensure!(!server.has_ended(), "it ended:\n{}", server.log());
    disk.make_room()?;
    let recovered = expect_recovery(&keys).await;
    recovered.with_context(|| format!("the log:\n{}", server.log()))?;
    expect_all(&keys, 0..count).await?;
    server.kill()?;
    server.restart(Path::new(OURS))?;
    let keys = Keys::of(&server.endpoint())?;
    expect_all(&keys, 0..count).await?;
    let status = server.stop()?;
    anyhow::ensure!(status.code().is_none(), "{status}");
    Ok(())
}

/// G14, D22: log and database on one volume.
#[tokio::test]
async fn a_full_volume_stops_only_growth() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Disk::mount(folder.path().join("data"), 64)? else { return Ok(()) };
    full(&[], folder.path(), &disk).await
}

/// D23.
#[tokio::test]
async fn a_full_volume_of_the_log_stops_only_growth() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Disk::mount(folder.path().join("log-disk"), 48)? else { return Ok(()) };
    let flags = ["--wal-dir".to_owned(), disk.0.join("wal").display().to_string()];
    full(&flags, folder.path(), &disk).await
}

/// D23.
#[tokio::test]
async fn a_full_volume_of_the_database_stops_only_growth() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Disk::mount(folder.path().join("data"), 48)? else { return Ok(()) };
    let flags = ["--wal-dir".to_owned(), folder.path().join("wal").display().to_string()];
    full(&flags, folder.path(), &disk).await
}

/// G14: etcd cannot start again on a full disk.
#[tokio::test]
async fn a_server_starts_on_a_full_disk() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Disk::mount(folder.path().join("data"), 64)? else { return Ok(()) };
    let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
    let keys = Keys::of(&server.endpoint())?;
    let count = fill(&mut server, &keys).await?;
    for kill in [true, false] {
        if kill {
            server.kill()?;
        } else {
            server.stop()?;
        }
        // Not healthy, so the harness cannot wait for it.
        server.restart_unready(Path::new(OURS))?;
        let keys = Keys::of(&server.endpoint())?;
        within(SOON, "reads", async || keys.get(&key(0)).await.is_ok())
            .await
            .with_context(|| format!("the log:\n{}", server.log()))?;
        expect_all(&keys, 0..count).await?;
        let refused = keys.put("more", value(0)).await.err().map(|status| status.code());
        anyhow::ensure!(refused == Some(Code::ResourceExhausted), "{refused:?}");
        anyhow::ensure!(keys.delete("absent").await? == 0);
    }
    server.kill()?;
    // Room that comes between two processes is noticed, too.
    disk.make_room()?;
    server.restart_unready(Path::new(OURS))?;
    let keys = Keys::of(&server.endpoint())?;
    within(SOON, "reads", async || keys.get(&key(0)).await.is_ok()).await?;
    expect_recovery(&keys).await?;
    expect_all(&keys, 0..count).await
}

/// The log's volume without even the reserve: nothing is written, nobody waits longer than a
/// request may, reads go on, and nothing acknowledged is lost.
#[tokio::test]
async fn a_log_without_any_room_answers_and_goes_on() -> anyhow::Result<()> {
    without_reserve(false).await
}

/// C10: a log that takes nothing does not keep the process from ending.
#[tokio::test]
async fn a_log_without_any_room_does_not_hold_up_the_end() -> anyhow::Result<()> {
    without_reserve(true).await
}

async fn without_reserve(restart: bool) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(disk) = Disk::mount(folder.path().join("log-disk"), 48)? else { return Ok(()) };
    let flags = ["--wal-dir".to_owned(), disk.0.join("wal").display().to_string()];
    let options = ServerOptions { flags: flags.to_vec() };
    let mut server = Server::start(Path::new(OURS), folder.path(), options)?;
    let keys = Keys::of(&server.endpoint())?;
    let count = fill(&mut server, &keys).await?;
    // A stranger takes what is left, and what was kept, too.
    let stranger = fs::File::create(disk.0.join("stranger"))?;
    let reserve = disk.0.join("wal/reserve.tmp");
    fs::File::options().write(true).open(&reserve)?.set_len(0)?;
    fill_file(&stranger)?;
    let mut unknown = Vec::new();
    for number in 0..400 {
        let name = format!("late {number}");
        let deleted = tokio::time::timeout(Duration::from_millis(100), keys.delete(&name)).await;
        match deleted {
            // Room for one more came from somewhere.
            Ok(Ok(_)) => {}
            Ok(Err(status)) if status.code() == Code::ResourceExhausted => break,
            Ok(Err(status)) => anyhow::bail!("{status:?}"),
            Err(_) => unknown.push(name),
        }
    }
    expect_all(&keys, 0..count).await?;
    let told = keys.delete("late").await.map_err(|status| status.code());
    anyhow::ensure!(told == Ok(0) || told == Err(Code::ResourceExhausted), "{told:?}");
    anyhow::ensure!(!server.has_ended(), "it ended:\n{}", server.log());
    if restart {
        server.stop()?;
    }
    disk.make_room()?;
    if restart {
        server.restart_unready(Path::new(OURS))?;
        within(SOON, "reads", async || keys.get(&key(0)).await.is_ok()).await?;
    }
    let recovered = expect_recovery(&keys).await;
    recovered.with_context(|| format!("the log:\n{}", server.log()))?;
    expect_all(&keys, 0..count).await
}

/// Writes until there is no room at all.
fn fill_file(mut file: &fs::File) -> anyhow::Result<()> {
    use std::io::Write as _;
    for len in [1 << 16, 1 << 12] {
        let zeros = vec![0; len];
        while file.write_all(&zeros).is_ok() {}
    }
    Ok(())
}
