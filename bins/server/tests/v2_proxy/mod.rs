//! `--proxy on|readonly` (features 7.9): a server on every host that forwards to the members.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use client::Client;
use proto::etcdserverpb as pb;
use retcd_conformance::http::HttpAnswer;
use retcd_conformance::{Ended, PATIENCE, eventually};

use crate::v2_support::{OURS, V2, start};

/// A process of ours, a proxy's or a member's, ended with the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // What is gone already needs no end.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Process {
    /// Starts one with its data in `folder/data`, and waits until it listens. `OWN` and `PEER` in
    /// the flags stand for its URLs; somebody may take the ports meanwhile, then it gets others.
    fn start(folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(Path::new(OURS), folder, flags)
    }

    /// As [`Self::start`], of another program.
    pub(crate) fn start_as(program: &Path, folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        for attempt in 0.. {
            let mut proxy = Self::spawn_as(program, folder, flags)?;
            match proxy.await_listening() {
                Err(error) if attempt < 3 && error.to_string().contains("already in use") => {}
                listening => return listening.map(|()| proxy),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn spawn(folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_as(Path::new(OURS), folder, flags)
    }

    fn spawn_as(program: &Path, folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let log = folder.join(format!("log-{port}"));
        let out = File::create(&log)?;
        let url = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", ports::free()?);
        let flags = flags.iter().map(|flag| flag.replace("OWN", &url).replace("PEER", &peer));
        let child = Command::new(program)
            .env_clear()
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--listen-client-urls", &url])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self { child, port, log })
    }

    fn await_listening(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}:\n{log}");
            }
            ensure!(began.elapsed() < PATIENCE, "it does not listen:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn v2(&self) -> anyhow::Result<V2> {
        V2::at(&format!("http://127.0.0.1:{}", self.port))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn endpoints(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.v2()?.get("/config/local/proxy")?;
        ensure!(answer.status == 200, "{answer:?}");
        let list: serde_json::Value = serde_json::from_str(&answer.body)?;
        let mut list: Vec<String> = serde_json::from_value(list["endpoints"].clone())?;
        list.sort_unstable();
        Ok(list)
    }

    pub(crate) fn await_endpoints(&self, expected: &[String]) -> anyhow::Result<()> {
        eventually("it knows the members", || Ok(self.endpoints()? == expected))
            .with_context(|| fs::read_to_string(&self.log).unwrap_or_default())
    }
}

/// Three members, at addresses that a proxy may ask as anybody may.
struct Members {
    members: Vec<Process>,
    peer_urls: Vec<String>,
    folder: tempfile::TempDir,
}

impl Members {
    fn start() -> anyhow::Result<Self> {
        for attempt in 0.. {
            match Self::start_once() {
                Err(error) if attempt < 3 && error.to_string().contains("already in use") => {}
                started => return started,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn start_once() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut peer_urls = Vec::new();
        for _ in 0..3 {
            peer_urls.push(format!("http://127.0.0.1:{}", ports::free()?));
        }
        let mut members = Self { members: Vec::new(), peer_urls, folder };
        let initial = members.initial_cluster();
        for (number, peer) in members.peer_urls.iter().enumerate() {
            let home = members.folder.path().join(format!("m{number}"));
            fs::create_dir(&home)?;
            let flags = [
                "--advertise-client-urls=OWN",
                &format!("--name=m{number}"),
                &format!("--initial-cluster={initial}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
            ];
            members.members.push(Process::spawn(&home, &flags)?);
        }
        for member in &mut members.members {
            member.await_listening()?;
        }
        Ok(members)
    }

    fn initial_cluster(&self) -> String {
        let urls = self.peer_urls.iter().enumerate();
        urls.map(|(number, url)| format!("m{number}={url}")).collect::<Vec<_>>().join(",")
    }

    fn client_urls(&self) -> Vec<String> {
        let urls = self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.port));
        sorted(urls.collect())
    }

    fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.members[number].child.kill()?;
        self.members[number].child.wait()?;
        Ok(())
    }
}

/// Asks again while an election or a member's end gets in the way.
fn insist(ask: impl Fn() -> anyhow::Result<HttpAnswer>) -> anyhow::Result<HttpAnswer> {
    let began = Instant::now();
    loop {
        let answer = ask()?;
        if answer.status < 500 || PATIENCE < began.elapsed() {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sorted(mut urls: Vec<String>) -> Vec<String> {
    urls.sort_unstable();
    urls
}

/// SRV-170 to SRV-174, VER-05, SEED2-04: reading, writing and waiting through a proxy, also while
/// members fail, and again from the file that it keeps.
#[test]
fn a_proxy_forwards_to_whoever_is_there() -> anyhow::Result<()> {
    let mut cluster = Members::start()?;
    let folder = tempfile::tempdir()?;
    let quick = ["--proxy-refresh-interval=1000", "--proxy-failure-wait=1000"];
    let initial = cluster.initial_cluster();
    let flags = [&["--proxy=on", "--initial-cluster", &initial][..], &quick].concat();
    let proxy = Process::start(folder.path(), &flags)?;
    let v2 = proxy.v2()?;
    proxy.await_endpoints(&cluster.client_urls())?;
    let wait = v2.begin("/keys/w?wait=true")?;
    ensure!(wait.head().status == 200);
    let set = insist(|| v2.step("PUT /w value=x"))?;
    ensure!(set.status == 201 || set.status == 200, "{set:?}");
    ensure!(!set.header("x-etcd-index").is_empty(), "{set:?}");
    ensure!(set.header("access-control-allow-origin") == "*", "{set:?}");
    ensure!(wait.finish()?.body.contains("\"value\":\"x\""));
    ensure!(insist(|| v2.get("/keys/w?quorum=true"))?.body.contains("\"value\":\"x\""));
    ensure!(v2.ask("POST", "/config/local/proxy", "", "")?.status == 405);
    ensure!(v2.ask("OPTIONS", "/keys/w", "", "")?.status == 200);

    let known = fs::read_to_string(folder.path().join("data/proxy/cluster"))?;
    let known: serde_json::Value = serde_json::from_str(&known)?;
    ensure!(known["PeerURLs"] == serde_json::json!(sorted(cluster.peer_urls.clone())), "{known}");
    ensure!(!folder.path().join("data/member").exists());

    // One that fails is passed over: nothing that is asked is lost.
    cluster.kill(0)?;
    for number in 0..12 {
        let put = format!("PUT /n value={number}");
        let set = insist(|| v2.step(&put))?;
        ensure!(set.status < 300, "{set:?}");
    }
    let address = ([127, 0, 0, 1], proxy.port).into();
    let metrics = retcd_conformance::ask(address, "GET", "/metrics", "")?;
    ensure!(metrics.body.contains("etcd_proxy_requests_total{method=\"PUT\"}"));
    drop(proxy);

    // The folder says that it is a proxy, and whom to ask; the flags may know nobody.
    let nobody = ["--advertise-client-urls=http://127.0.0.1:1", "--initial-cluster=a=http://b:1"];
    let proxy = Process::start(folder.path(), &[&nobody[..], &quick].concat())?;
    let v2 = proxy.v2()?;
    proxy.await_endpoints(&cluster.client_urls())?;
    ensure!(insist(|| v2.get("/keys/n"))?.body.contains("\"value\":\"11\""));

    cluster.kill(1)?;
    cluster.kill(2)?;
    let unanswered = "{\"message\":\"httpproxy: unable to get response from ";
    let nobody = "{\"message\":\"httpproxy: zero endpoints currently available\"}";
    eventually("nobody is left to ask", || {
        let answer = v2.get("/keys/n")?;
        let gone = answer.status == 502 && answer.body.starts_with(unanswered);
        ensure!(gone || answer.status == 503 && answer.body == nobody, "{answer:?}");
        Ok(answer.status == 503)
    })
}

/// SRV-173.
#[test]
fn a_readonly_proxy_forwards_nothing_but_reads() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let direct = V2::of(&server)?;
    direct.step("PUT /a value=x")?;
    let peer = serde_json::from_str::<serde_json::Value>(&direct.get("/members")?.body)?;
    let peer = peer["members"][0]["peerURLs"][0].as_str().context("a peer URL")?.to_owned();
    let folder = tempfile::tempdir()?;
    let initial = format!("m0={peer}");
    let proxy =
        Process::start(folder.path(), &["--proxy=readonly", "--initial-cluster", &initial])?;
    let v2 = proxy.v2()?;
    proxy.await_endpoints(&[server.endpoint()])?;
    ensure!(v2.get("/keys/a")?.body == direct.get("/keys/a")?.body);
    for method in ["PUT", "POST", "DELETE", "HEAD", "OPTIONS"] {
        let refused = v2.ask(method, "/keys/a", "", "")?;
        ensure!(refused.status == 501 && refused.body.is_empty(), "{method}: {refused:?}");
    }
    // SRV-172.
    fs::create_dir(folder.path().join("data/member"))?;
    let mut both = Command::new(OURS);
    both.env_clear().arg("--data-dir").arg(folder.path().join("data"));
    let refusal = Ended::refusal(&mut both)?;
    ensure!(refusal.starts_with("invalid datadir; both member and proxy directories exist"));
    Ok(())
}

/// SRV-170: who finds the cluster full becomes a proxy of it, if that is wished.
#[test]
fn who_comes_too_late_becomes_a_proxy() -> anyhow::Result<()> {
    let (service, _folder) = start(&[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(client::Options::new(vec![service.endpoint()])).await?;
        let key = "/_etcd/registry/token/_config/size".into();
        client.put(pb::PutRequest { key, value: "1".into(), ..Default::default() }).await?;
        anyhow::Ok(())
    })?;
    let discovery =
        ["--discovery-token=token", &format!("--discovery-endpoints={}", service.endpoint())];
    let at = ["--listen-peer-urls=PEER", "--initial-advertise-peer-urls=PEER"];
    let named = ["--name=first", "--advertise-client-urls=OWN"];
    let home = tempfile::tempdir()?;
    let first = Process::start(home.path(), &[&named[..], &at, &discovery].concat())?;
    first.v2()?.step("PUT /a value=x")?;
    let folder = tempfile::tempdir()?;
    let named = ["--name=late", "--advertise-client-urls=OWN", "--discovery-fallback=proxy"];
    let proxy = Process::start(folder.path(), &[&named[..], &at, &discovery].concat())?;
    // It listens a while before it knows that it is late.
    eventually("it is a proxy", || Ok(folder.path().join("data/proxy/cluster").exists()))?;
    let expected = [format!("http://127.0.0.1:{}", first.port)];
    proxy.await_endpoints(&expected)?;
    ensure!(proxy.v2()?.get("/keys/a")?.body.contains("\"value\":\"x\""));
    ensure!(!folder.path().join("data/member").exists());
    Ok(())
}
