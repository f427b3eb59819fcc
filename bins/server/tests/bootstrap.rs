//! How a member finds its cluster, or is told why it cannot: joining, discovery, the last survivor.
//!
//! Refusals are compared with etcd's own words where real etcd is there to say them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use retcd_conformance::{Ended, Keys, Server, ServerOptions, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// How long anything may take that is expected to happen, whatever else the machine does.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What all etcds and ours say when clients are served.
const SERVING: &str = "serving client traffic insecurely; this is strongly discouraged!";

/// Answers by path.
type Answers = BTreeMap<&'static str, String>;

/// Starts what answers questions as a member would, and does nothing else; `answers` is given its
/// URL. Lives as long as the process.
fn peer(answers: impl FnOnce(&str) -> Answers) -> anyhow::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}", listener.local_addr()?);
    let known = Arc::new(answers(&url));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let known = Arc::clone(&known);
            // Who does not listen to the answer is no concern of the test.
            thread::spawn(move || drop(answer(stream, &known)));
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream, known: &Answers) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIME_MAX))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match known.get(path) {
        Some(body) => ("200 OK", body.as_str()),
        None => ("404 Not Found", "404 page not found\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nX-Etcd-Cluster-Id: 1f\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// What `/members` says of members: id, peer URLs, client URLs.
fn members(members: &[(u64, &str, &str)]) -> String {
    let member = |(id, peer, client): &(u64, &str, &str)| {
        format!(r#"{{"id":{id},"peerURLs":["{peer}"],"name":"x","clientURLs":[{client}]}}"#)
    };
    let members: Vec<String> = members.iter().map(member).collect();
    format!("[{}]\n", members.join(","))
}

/// A member `b` on free ports, with its data in `folder`.
fn member_b(program: &Path, folder: &Path, own: &str) -> anyhow::Result<Command> {
    member(program, folder, "b", own)
}

fn member(program: &Path, folder: &Path, name: &str, peer: &str) -> anyhow::Result<Command> {
    let client = ports::free_url()?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .args(["--name", name])
        .arg("--data-dir")
        .arg(folder.join(name))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    Ok(command)
}

/// Runs ours, and real etcd if it is there, which must both refuse with this text.
fn assert_refused(arguments: &[&str], own: &str, text: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut ours = member_b(Path::new(OURS), folder.path(), own)?;
    let refusal = Ended::refusal(ours.args(arguments))?;
    anyhow::ensure!(refusal.contains(text), "{text:?} is not in {refusal:?}");
    if let Some(real) = real_etcd("3.5") {
        let folder = tempfile::tempdir()?;
        let mut etcd = member_b(&real.join("etcd"), folder.path(), own)?;
        let ended = Ended::of(etcd.args(arguments))?;
        anyhow::ensure!(ended.status.code() == Some(1), "etcd: {:?}", ended.status);
        // A quote is written with a backslash in a line of JSON.
        let text = text.replace('"', "\\\"");
        anyhow::ensure!(ended.output.contains(&text), "{text:?} is not in {}", ended.output);
    }
    Ok(())
}

/// The peer URLs of a cluster in which `PEER` is whoever answers and `OWN` who asks.
fn described(listed: &[(u64, &str)], peer: &str, own: &str, version: &str) -> Answers {
    let url = |text: &&str| text.replace("PEER", peer).replace("OWN", own);
    let urls: Vec<(u64, String)> = listed.iter().map(|(id, text)| (*id, url(text))).collect();
    let listed: Vec<(u64, &str, &str)> =
        urls.iter().map(|(id, url)| (*id, url.as_str(), "")).collect();
    Answers::from([
        ("/members", members(&listed)),
        ("/version", format!(r#"{{"etcdserver":"{version}","etcdcluster":"{version}"}}"#)),
        ("/downgrade/enabled", "false".to_owned()),
    ])
}

/// CB-14: what a cluster must say of itself before it is joined.
#[test]
fn a_cluster_that_does_not_fit_is_not_joined() -> anyhow::Result<()> {
    let own = ports::free_url()?;
    let whole = &[(7, "PEER"), (9, "OWN")][..];
    for (listed, version, text) in [
        (&whole[..1], "3.5.0", "member count is unequal"),
        (
            &[(7, "PEER"), (9, "http://127.0.0.1:1")],
            "3.5.0",
            "PeerURLs: no match found for existing member (9, [http://127.0.0.1:1]), last resolver error (resolved urls: ",
        ),
        (whole, "9.0.0", "incompatible with current running cluster"),
        (whole, "not_decided", "incompatible with current running cluster"),
        (
            &[],
            "3.5.0",
            "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given URLs",
        ),
    ] {
        let peer = peer(|peer| described(listed, peer, &own, version))?;
        let cluster = format!("a={peer},b={own}");
        let arguments = ["--initial-cluster-state=existing", "--initial-cluster", &cluster];
        assert_refused(&arguments, &own, text)?;
    }
    let cluster = format!("a={},b={own}", ports::free_url()?);
    let arguments = ["--initial-cluster-state=existing", "--initial-cluster", &cluster];
    let text = "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs";
    assert_refused(&arguments, &own, text)
}

/// CB-13, CB-17: an empty data directory is no way back. The id is that of the URLs and the token.
#[test]
fn a_member_that_the_cluster_knows_is_not_founded_again() -> anyhow::Result<()> {
    let own = ports::free_url()?;
    let folder = tempfile::tempdir()?;
    // Who would it be?
    let lonely = format!("b={own}");
    let mut first = Background::start(
        member(Path::new(OURS), folder.path(), "b", &own)?.args(["--initial-cluster", &lonely]),
        folder.path(),
    )?;
    let id = first.field("starting local member", "local-member-id")?;
    first.kill()?;
    let number = u64::from_str_radix(&id, 16)?;
    let client = r#""http://127.0.0.1:1""#;
    let peer = peer(|_| Answers::from([("/members", members(&[(number, &own, client)]))]))?;
    let cluster = format!("a={peer},b={own}");
    let text = format!("member {id} has already been bootstrapped");
    assert_refused(&["--initial-cluster", &cluster], &own, &text)
}

/// CB-14: the ids are those that the cluster gave, and a restart keeps them without asking.
#[test]
fn a_joining_member_takes_its_ids_from_the_cluster() -> anyhow::Result<()> {
    let own = ports::free_url()?;
    let peer = peer(|peer| described(&[(7, "PEER"), (0xabc, "OWN")], peer, &own, "3.5.0"))?;
    let folder = tempfile::tempdir()?;
    let cluster = format!("a={peer},b={own}");
    let joining = ["--initial-cluster-state=existing", "--initial-cluster", &cluster];
    for arguments in [&joining[..], &["--initial-cluster=nonsense"]] {
        let mut command = member(Path::new(OURS), folder.path(), "b", &own)?;
        let mut started = Background::start(command.args(arguments), folder.path())?;
        for (field, value) in [("local-member-id", "abc"), ("cluster-id", "1f")] {
            assert_eq!(started.field("starting local member", field)?, value);
        }
        started.kill()?;
    }
    Ok(())
}

/// A process whose log is looked at while it runs.
struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    fn start(command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = tempfile::NamedTempFile::new_in(folder)?.into_temp_path().keep()?;
        let file = File::options().append(true).open(&log)?;
        let command = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn()?, log })
    }

    /// A field of the first line with this message, once there is one.
    fn field(&mut self, message: &str, field: &str) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log)?;
            let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
            let found = lines
                .filter(|line: &serde_json::Value| line["msg"] == message)
                .find_map(|line| line[field].as_str().map(str::to_owned));
            if let Some(found) = found {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended with {status}; its log:\n{log}");
            }
            if TIME_MAX < began.elapsed() {
                bail!("no line {message:?} with {field:?}; the log:\n{log}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends processes as a supervisor does, so that what they have applied is on their disks.
    fn stop_all(all: &mut [Self]) -> anyhow::Result<()> {
        for one in &*all {
            let pid = one.child.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status()?;
        }
        all.iter_mut().try_for_each(|one| one.ended().map(drop))
    }

    /// Waits until it ends by itself.
    fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(began.elapsed() < TIME_MAX, "the process does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.kill());
    }
}

/// SRV-192, SRV-197, CB-20, VER-06, M12: the service is etcd, ours and, if it is there, real etcd.
#[test]
fn founders_meet_at_a_discovery_service() -> anyhow::Result<()> {
    let mut services = vec![PathBuf::from(OURS)];
    services.extend(real_etcd("3.5").map(|real| real.join("etcd")));
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    for service in services {
        let folder = tempfile::tempdir()?;
        let service = Server::start(&service, folder.path(), ServerOptions::default())?;
        let keys = Keys::of(&service.endpoint())?;
        let put = |token: &str, size: &'static str| {
            runtime.block_on(keys.put(&format!("/_etcd/registry/{token}/_config/size"), size))
        };
        let founder = |name: &str, token: &str| -> anyhow::Result<Command> {
            let mut command = member(Path::new(OURS), folder.path(), name, &ports::free_url()?)?;
            command.args(["--discovery-token", token]);
            command.args(["--discovery-endpoints", &service.endpoint()]);
            Ok(command)
        };
        let refused = |name: &str, token: &str, text: &str| -> anyhow::Result<()> {
            let refusal = Ended::refusal(&mut founder(name, token)?)?;
            let text = format!("failed to join discovery cluster: {text}");
            anyhow::ensure!(refusal.contains(&text), "{text:?} is not in {refusal:?}");
            Ok(())
        };
        refused("lost", "nothing", "discovery: size key not found")?;
        for (token, size) in [("minus", "-1"), ("zero", "0"), ("word", "three")] {
            put(token, size)?;
            refused("lost", token, "discovery: size key is bad")?;
        }
        put("two", "2")?;
        let mut found = Vec::new();
        let mut running = Vec::new();
        for name in ["a", "b"] {
            running.push(Background::start(&mut founder(name, "two")?, folder.path())?);
        }
        for founder in &mut running {
            found.push(founder.field("discovery joined cluster successfully", "cluster")?);
            found.push(founder.field("starting local member", "cluster-id")?);
        }
        assert_eq!(found[..2], found[2..]);
        assert_eq!(found[0].split(',').count(), 2, "{found:?}");
        refused("c", "two", "discovery: cluster is full")?;
        // A restart asks nobody.
        running.clear();
        let mut again = founder("a", "two")?;
        let mut again = Background::start(again.args(["--discovery-token=gone"]), folder.path())?;
        assert_eq!(again.field("starting local member", "cluster-id")?, found[1]);
    }
    Ok(())
}

/// A member's place: name, ports and folder, whoever runs there.
struct Place {
    name: String,
    folder: PathBuf,
    client: String,
    peer: String,
}

impl Place {
    fn new(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let (client, peer) = (ports::free_url()?, ports::free_url()?);
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), client, peer })
    }

    fn command(&self, program: &Path, cluster: &str, state: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.folder.join(&self.name))
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", cluster, "--initial-cluster-state", state])
            // etcd 3.4 does not write JSON by itself.
            .args(["--logger", "zap", "--snapshot-count", "20"]);
        command
    }

    /// Starts and waits until clients are served.
    fn serve(&self, command: &mut Command) -> anyhow::Result<Background> {
        let mut started = Background::start(command, &self.folder)?;
        started.field(SERVING, "address")?;
        Ok(started)
    }

    /// Names of the members and who of them is a learner.
    async fn members(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let mut client = ClusterClient::connect(self.client.clone()).await?;
        let request = pb::MemberListRequest { linearizable: true };
        let list = client.member_list(request).await?.into_inner();
        Ok(list.members.into_iter().map(|member| (member.name, member.is_learner)).collect())
    }
}

/// M8, LEG-04: a member of three, and a learner beside them, of etcd 3.4 and 3.5, goes on alone
/// with everything that was acknowledged, stays alone without the flag, and can go back.
async fn check_survivors(line: &str) -> anyhow::Result<()> {
    let Some(real) = real_etcd(line).map(|real| real.join("etcd")) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let places: Vec<Place> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| Place::new(name, folder.path()))
        .collect::<Result<_, _>>()?;
    let named = |count: usize| {
        let pairs = places.iter().take(count);
        pairs.map(|place| format!("{}={}", place.name, place.peer)).collect::<Vec<_>>().join(",")
    };
    let mut founders = Vec::new();
    for place in &places[..3] {
        let mut command = place.command(&real, &named(3), "new");
        founders.push(Background::start(&mut command, folder.path())?);
    }
    for founder in &mut founders {
        founder.field(SERVING, "address")?;
    }
    let keys = Keys::of(&places[0].client)?;
    // Enough for a snapshot in every log.
    for number in 0..50 {
        keys.put(&format!("key{number}"), "value").await?;
    }
    let learner = add_learner(&places[0], &places[3].peer).await;
    learner.with_context(|| format!("adding a learner to etcd {line}"))?;
    let mut command = places[3].command(&real, &named(4), "existing");
    founders.push(Background::start(&mut command, folder.path())?);
    await_key(&places[3].client, "key49").await?;
    keys.put("last", "one").await?;
    await_key(&places[3].client, "last").await?;
    await_key(&places[1].client, "last").await?;
    Background::stop_all(&mut founders)?;

    for place in [&places[1], &places[3]] {
        let mut forced = place.command(Path::new(OURS), "", "new");
        let mut running = place.serve(forced.arg("--force-new-cluster"))?;
        let check = async |running: &Background| -> anyhow::Result<()> {
            let log = || fs::read_to_string(&running.log).unwrap_or_default();
            let alone = [(place.name.clone(), false)];
            assert_eq!(place.members().await?, alone, "etcd {line}: {}", log());
            let keys = Keys::of(&place.client)?;
            assert_eq!(keys.get("last").await?.as_deref(), Some(&b"one"[..]));
            assert_eq!(keys.get("key7").await?.as_deref(), Some(&b"value"[..]));
            keys.put("alone", place.name.clone()).await?;
            Ok(())
        };
        check(&running).await?;
        running.kill()?;
        let mut running = place.serve(&mut place.command(Path::new(OURS), "", "new"))?;
        check(&running).await?;
        running.kill()?;
        check(&place.serve(&mut place.command(&real, "", "new"))?).await?;
    }
    Ok(())
}

/// SRV-129, CB-19.
#[tokio::test]
async fn a_survivor_of_etcd_3_4_goes_on_alone() -> anyhow::Result<()> {
    check_survivors("3.4").await
}

#[tokio::test]
async fn a_survivor_of_etcd_3_5_goes_on_alone() -> anyhow::Result<()> {
    check_survivors("3.5").await
}

/// M3, CB-10, CB-14, CB-18: three are founded, a fourth joins, is removed, ends by itself with 0,
/// and does so again on its old data.
#[tokio::test]
async fn a_removed_member_ends_and_cannot_come_back() -> anyhow::Result<()> {
    let ours = Path::new(OURS);
    let folder = tempfile::tempdir()?;
    let places: Vec<Place> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| Place::new(name, folder.path()))
        .collect::<Result<_, _>>()?;
    let named = |count: usize| {
        let pairs = places.iter().take(count);
        pairs.map(|place| format!("{}={}", place.name, place.peer)).collect::<Vec<_>>().join(",")
    };
    let mut running = Vec::new();
    for place in &places[..3] {
        let mut command = place.command(ours, &named(3), "new");
        running.push(Background::start(&mut command, folder.path())?);
    }
    for member in &mut running {
        member.field(SERVING, "address")?;
    }
    Keys::of(&places[0].client)?.put("key", "value").await?;
    let id = retried(async || {
        let mut client = ClusterClient::connect(places[0].client.clone()).await?;
        let request =
            pb::MemberAddRequest { peer_ur_ls: vec![places[3].peer.clone()], is_learner: false };
        let added = client.member_add(request).await?.into_inner();
        Ok(added.member.context("who was added")?.id)
    })
    .await?;
    let mut joining = places[3].command(ours, &named(4), "existing");
    let mut fourth = places[3].serve(&mut joining)?;
    await_key(&places[3].client, "key").await?;
    retried(async || {
        let mut client = ClusterClient::connect(places[0].client.clone()).await?;
        client.member_remove(pb::MemberRemoveRequest { id }).await?;
        Ok(())
    })
    .await?;
    assert_eq!(fourth.ended()?.code(), Some(0));
    let ended = Ended::of(&mut places[3].command(ours, "", "new"))?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    let told = "the member has been permanently removed from the cluster";
    assert!(ended.output.contains(told), "{}", ended.output);
    Ok(())
}

/// Tries until it works: changes of members wait for members that have been connected for long.
async fn retried<T>(call: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        match call().await {
            Ok(done) => return Ok(done),
            Err(error) if TIME_MAX < began.elapsed() => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Adds a learner once the members have been connected for long enough.
async fn add_learner(place: &Place, peer: &str) -> anyhow::Result<()> {
    retried(async || {
        let mut client = ClusterClient::connect(place.client.clone()).await?;
        let request = pb::MemberAddRequest { peer_ur_ls: vec![peer.to_owned()], is_learner: true };
        client.member_add(request).await?;
        Ok(())
    })
    .await
}

/// Waits until a member has a key, by what it has applied itself.
async fn await_key(endpoint: &str, key: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let request = pb::RangeRequest {
            key: key.as_bytes().to_vec().into(),
            serializable: true,
            ..Default::default()
        };
        if let Ok(mut client) = KvClient::connect(endpoint.to_owned()).await
            && let Ok(found) = client.range(request).await
            && found.get_ref().count == 1
        {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < TIME_MAX, "{endpoint} never has {key}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
