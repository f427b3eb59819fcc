//! A server as the operating system and its supervisor see it: what it says at its start, when it
//! serves, signals, file descriptors; and who of several compacts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use client::{Client, Options};
use proto::etcdserverpb as pb;
use retcd_conformance::cluster::{Cluster, ClusterOptions, PATIENCE};
use retcd_conformance::{Server, ask, eventually, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Ours, and etcd's newest where the machine has it.
fn programs() -> impl Iterator<Item = PathBuf> {
    let theirs = real_etcd("3.7").map(|folder| folder.join("etcd"));
    [PathBuf::from(OURS)].into_iter().chain(theirs)
}

/// SRV-151, SRV-159: who is started by hand, without a socket for notices, is told nothing of it; how
/// many processors there are stands in the line that begins.
#[test]
fn a_start_by_hand_is_no_fault() -> anyhow::Result<()> {
    for program in programs() {
        let (server, _folder) = Server::fresh(&program, &[])?;
        let notified = || Ok(server.log().contains("successfully notified init daemon"));
        eventually("readiness is told", notified)?;
        let log = server.log();
        ensure!(!log.contains("Type=notify") && !log.contains("failed to notify"), "{log}");
        let line = log.lines().find(|line| line.contains("starting an etcd server"));
        let line = line.context("it says how it starts")?;
        ensure!(line.contains("\"max-cpu-set\":") && line.contains("\"max-cpu-available\":"));
        ensure!(!log.contains("setting maximum number of CPUs"), "{log}");
    }
    Ok(())
}

/// SRV-153: a process that hangs tells of its threads and ends.
#[test]
fn sigquit_shows_what_the_threads_do() -> anyhow::Result<()> {
    for program in programs() {
        let (mut server, _folder) = Server::fresh(&program, &[])?;
        server.signal("QUIT")?;
        let status = server.wait()?;
        ensure!(status.code() == Some(2), "{status}");
        let log = server.log();
        let (_, told) = log.split_once("SIGQUIT: quit\n").context("it says why")?;
        let each = if program == Path::new(OURS) { "thread " } else { "goroutine " };
        let count = told.lines().filter(|line| line.starts_with(each)).count();
        ensure!(count > 3, "{told}");
    }
    Ok(())
}

/// SRV-153: a leader that is told to end hands over, hears nobody any more, and ends as the signal
/// would have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_hands_over_before_the_end() -> anyhow::Result<()> {
    use std::os::unix::process::ExitStatusExt as _;
    for program in programs() {
        let mut cluster =
            Cluster::start(&[program.as_path(); 3], ClusterOptions::default()).await?;
        let old = cluster.await_leader(&[]).await?;
        let address = cluster.member(old).direct_endpoint().replace("http://", "");
        let status = cluster.stop(old).await?;
        ensure!(status.signal() == Some(15), "{status}");
        let log = cluster.member(old).log();
        // On a slow machine nobody may take it in time.
        ensure!(log.contains("leadership transfer starting") || log.contains("transfer failed"));
        let refused = TcpStream::connect(&address).map(drop).unwrap_err();
        ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
        cluster.await_leader(&cluster.up()).await?;
    }
    Ok(())
}

/// A process that is killed with its handle.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A member of a new cluster of two on these URLs: clients', members'.
fn member_of_two(
    program: &Path,
    folder: &Path,
    number: usize,
    urls: &[(String, String); 2],
) -> anyhow::Result<Killed> {
    let (name, (client, peer)) = (format!("m{number}"), &urls[number]);
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    let child = Command::new(program)
        .env_clear()
        .args(["--name", &name])
        .arg("--data-dir")
        .arg(folder.join(&name))
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("m0={},m1={}", urls[0].1, urls[1].1)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok(Killed(child))
}

/// SRV-154: other members are answered at once, clients only when the cluster has come together; who
/// asked before gets the answer then.
#[test]
fn clients_are_served_once_the_cluster_is_there() -> anyhow::Result<()> {
    for program in programs() {
        let folder = tempfile::tempdir()?;
        let pair = || anyhow::Ok((ports::free_url()?, ports::free_url()?));
        let urls = [pair()?, pair()?];
        let _first = member_of_two(&program, folder.path(), 0, &urls)?;
        let peer = urls[0].1.replace("http://", "").parse()?;
        let is_heard = || Ok(ask(peer, "GET", "/version", "").is_ok_and(|it| it.status == 200));
        eventually("other members are answered", is_heard)?;
        let mut early = TcpStream::connect(urls[0].0.replace("http://", ""))?;
        early
            .write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        early.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = [0; 12];
        let waits = early.read(&mut answer).unwrap_err();
        let late = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
        ensure!(late.contains(&waits.kind()), "{waits}");
        let log = || std::fs::read_to_string(folder.path().join("m0.log")).unwrap_or_default();
        ensure!(!log().contains("ready to serve client requests"), "{}", log());
        let _second = member_of_two(&program, folder.path(), 1, &urls)?;
        early.set_read_timeout(Some(PATIENCE))?;
        early.read_exact(&mut answer)?;
        ensure!(answer == *b"HTTP/1.1 200", "{answer:?}");
        ensure!(log().contains("ready to serve client requests"), "{}", log());
    }
    Ok(())
}

/// SRV-158: descriptors are counted.
#[test]
fn file_descriptors_are_counted() -> anyhow::Result<()> {
    for program in programs() {
        let (server, _folder) = Server::fresh(&program, &[])?;
        let metrics = ask(server.address(), "GET", "/metrics", "")?.body;
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            anyhow::Ok(line.context("no such metric")?.trim().parse::<f64>()?)
        };
        let (used, limit) = (value("os_fd_used ")?, value("os_fd_limit ")?);
        ensure!(0.0 < used && used < limit, "{used} of {limit}");
        ensure!(!server.log().contains(FEW_FILES), "{}", server.log());
    }
    Ok(())
}

const FEW_FILES: &str = "\"msg\":\"80% of file descriptors are used\"";

/// SRV-158: whoever has hardly any descriptors left is warned. Etcd serves nobody with less than 150.
#[test]
fn few_file_descriptors_are_told() -> anyhow::Result<()> {
    let (mut server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count();
    server.stop()?;
    // Fewer and fewer, until it is told; with too few nothing starts.
    for limit in (used..2 * used).rev().step_by(2) {
        let command = server.command();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""))
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut errors = child.stderr.take().context("it is piped")?;
        let child = Killed(child);
        let mut log = String::new();
        let mut bytes = [0; 4096];
        // The first look comes before.
        while !log.contains("ready to serve client requests") {
            match errors.read(&mut bytes)? {
                0 => bail!("it does not start with {limit} descriptors:\n{log}"),
                count => log.push_str(&String::from_utf8_lossy(&bytes[..count])),
            }
        }
        drop(child);
        errors.read_to_string(&mut log)?;
        if let Some(line) = log.lines().find(|line| line.contains(FEW_FILES)) {
            ensure!(line.contains(&format!("\"limit\":{limit}")), "{line}");
            ensure!(line.contains("\"level\":\"warn\""), "{line}");
            return Ok(());
        }
    }
    bail!("nothing is told")
}

/// SRV-194, SRV-196: who leads compacts, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_compacts_by_itself() -> anyhow::Result<()> {
    const COMPLETED: &str = "completed auto periodic compaction";
    let flags = ["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"];
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let options = ClusterOptions { flags, ..ClusterOptions::default() };
    let cluster = Cluster::start(&[Path::new(OURS); 3], options).await?;
    let endpoints = (0..3).map(|number| cluster.member(number).direct_endpoint()).collect();
    let client = Client::connect(Options::new(endpoints)).await?;
    let until_compacted_by = async |number: usize| {
        let began = Instant::now();
        while !cluster.member(number).log().contains(COMPLETED) {
            ensure!(began.elapsed() < PATIENCE, "it never compacts:\n{}", cluster.logs());
            let put = pb::PutRequest { key: "k".into(), ..Default::default() };
            // An election may cost one.
            client.put(put).await.ok();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    let first = cluster.await_leader(&[]).await?;
    until_compacted_by(first).await?;
    let next = (first + 1) % 3;
    cluster.move_leader(next).await?;
    until_compacted_by(next).await?;
    for number in 0..3 {
        let log = cluster.member(number).log();
        // On a slow machine others may have led meanwhile.
        let has_led = log.contains("became leader at term");
        ensure!(has_led || !log.contains("auto periodic compaction"), "m{number}:\n{log}");
    }
    Ok(())
}
