//! v2 discovery (SRV-190, SRV-191): founders that meet at a token in the v2 keys of another server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use retcd_conformance::{Ended, Server, ServerOptions, eventually, real_etcd};
use serde_json::Value;

use crate::v2_proxy::Process;
use crate::v2_support::{OURS, V2, await_index, start};

/// A member's URLs: see [`Process::start_as`].
pub(crate) const AT: [&str; 3] = [
    "--advertise-client-urls=OWN",
    "--listen-peer-urls=PEER",
    "--initial-advertise-peer-urls=PEER",
];

fn is_ours(program: &Path) -> bool {
    program == Path::new(OURS)
}

/// What etcd 3.4 does only if it is told to.
fn flags_of(program: &Path) -> &'static [&'static str] {
    if is_ours(program) { &[] } else { &["--enable-v2", "--logger=zap"] }
}

/// A program's server with v2 keys.
fn registry(program: &Path, folder: &Path) -> anyhow::Result<Server> {
    let flags = flags_of(program).iter().map(|&flag| flag.to_owned()).collect();
    let server = Server::start(program, folder, ServerOptions { flags })?;
    await_index(&V2::of(&server)?, "3")?;
    Ok(server)
}

fn set_size(server: &Server, token: &str, size: &str) -> anyhow::Result<String> {
    let step = format!("PUT /discovery/{token}/_config/size value={size}");
    let set = V2::of(server)?.step(&step)?;
    ensure!(set.status == 201, "{set:?}");
    Ok(format!("{}/v2/keys/discovery/{token}", server.endpoint()))
}

/// Founders of one token, of these programs, with their folders.
fn found(programs: &[&Path], url: &str, folder: &Path) -> anyhow::Result<Vec<(Process, PathBuf)>> {
    let mut founders = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        let home = folder.join(format!("m{number}"));
        std::fs::create_dir_all(&home)?;
        let own = [format!("--name=m{number}"), format!("--discovery={url}")];
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let flags = [&AT[..], &own, flags_of(program)].concat();
        founders.push((Process::start_as(program, &home, &flags)?, home));
    }
    for (founder, _) in &founders {
        eventually("it serves", || Ok(founder.log().contains("serving client traffic insecurely")))
            .with_context(|| founder.log())?;
    }
    Ok(founders)
}

/// They know each other, and what one is told all know.
fn check_cluster(founders: &[(Process, PathBuf)]) -> anyhow::Result<()> {
    let expected: Vec<String> = (0..founders.len()).map(|number| format!("m{number}")).collect();
    for (founder, _) in founders {
        eventually("all are known", || {
            let list: Value = serde_json::from_str(&founder.v2()?.get("/members")?.body)?;
            let members = list["members"].as_array().context("a list")?;
            let mut names: Vec<_> = members.iter().filter_map(|it| it["name"].as_str()).collect();
            names.sort_unstable();
            Ok(names == expected)
        })
        .with_context(|| founder.log())?;
    }
    let first = founders[0].0.v2()?;
    eventually("it writes", || Ok(first.step("PUT /greeting value=hello")?.status < 300))?;
    for (founder, _) in founders {
        let seen = founder.v2()?.get("/keys/greeting?quorum=true")?;
        ensure!(seen.body.contains("\"value\":\"hello\""), "{seen:?}");
    }
    Ok(())
}

/// SRV-190, CB-20, VER-06, SEED4-18 (discovery): three of ours, and of both programs in one
/// cluster, with a token that ours and etcd 3.4 keep.
#[test]
fn founders_meet_at_a_token() -> anyhow::Result<()> {
    let ours = Path::new(OURS);
    let etcd = real_etcd("3.4").map(|folder| folder.join("etcd"));
    let mut clusters = vec![(ours, vec![ours; 3])];
    if let Some(etcd) = &etcd {
        clusters.push((etcd, vec![ours; 3]));
        clusters.push((ours, vec![etcd, ours, etcd]));
    }
    for (keeper, programs) in clusters {
        let folder = tempfile::tempdir()?;
        let keeper = registry(keeper, &folder.path().join("keeper"))?;
        let url = set_size(&keeper, "three", "3")?;
        let mut founders = found(&programs, &url, folder.path())?;
        check_cluster(&founders)?;
        // A restart asks nobody.
        drop(keeper);
        let (gone, home) = founders.remove(1);
        let port = gone.port;
        drop(gone);
        let again = ["--name=m1", "--discovery=http://127.0.0.1:1/gone"];
        let again = [&AT[..], &again, flags_of(programs[1])].concat();
        let again = Process::start_as(programs[1], &home, &again)?;
        eventually("it serves again", || {
            Ok(again.log().contains("serving client traffic insecurely"))
        })
        .with_context(|| format!("first at {port}, then:\n{}", again.log()))?;
    }
    Ok(())
}

/// A founder's refusal.
fn refusal(name: &str, url: &str, peer: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(OURS);
    command
        .env_clear()
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--name", name, "--discovery", url])
        .args(["--listen-client-urls", &ports::free_url()?])
        .args(["--advertise-client-urls", "http://127.0.0.1:1"])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    Ended::refusal(&mut command)
}

/// SRV-190: the errors.
#[test]
fn a_token_that_leads_nowhere_is_refused() -> anyhow::Result<()> {
    let (keeper, _folder) = start(&[])?;
    let refused = |name: &str, url: &str, peer: &str, text: &str| {
        let said = refusal(name, url, peer)?;
        ensure!(said.contains(text), "{text:?} is not in {said:?}");
        Ok(())
    };
    let peer = ports::free_url()?;
    let keys = format!("{}/v2/keys", keeper.endpoint());
    let joining = "failed to join discovery cluster: discovery: ";
    let missing = format!("{joining}size key not found");
    refused("a", &format!("{keys}/nothing"), &peer, &missing)?;
    for (token, size) in [("word", "three"), ("zero", "0"), ("minus", "-1")] {
        let url = set_size(&keeper, token, size)?;
        refused("a", &url, &peer, &format!("{joining}size key is bad"))?;
    }
    let elsewhere = format!("{joining}bad discovery endpoint");
    refused("a", &format!("{}/nothing", keeper.endpoint()), &peer, &elsewhere)?;
    refused("a", "ftp://a/b", &peer, "is no URL of a v2 discovery token")?;

    // Who registered and lost its data must not found again; another one comes too late.
    let v2 = V2::of(&keeper)?;
    let url = set_size(&keeper, "one", "1")?;
    let folder = tempfile::tempdir()?;
    let flags = ["--name=a", &format!("--discovery={url}"), "--advertise-client-urls=OWN"];
    let at =
        [&format!("--listen-peer-urls={peer}"), &format!("--initial-advertise-peer-urls={peer}")];
    let at = at.map(String::as_str);
    let first = Process::start_as(Path::new(OURS), folder.path(), &[&flags[..], &at].concat())?;
    eventually("it is ready", || Ok(first.log().contains("ready to serve client requests")))?;
    drop(first);
    let listed = v2.get("/keys/discovery/one")?;
    ensure!(listed.body.contains(&format!("\"value\":\"a={peer}\"")), "{listed:?}");
    refused("a", &url, &peer, &format!("{joining}found duplicate id"))?;
    refused("b", &url, &ports::free_url()?, &format!("{joining}cluster is full"))?;
    // Two of one name are no cluster.
    let url = set_size(&keeper, "two", "2")?;
    v2.step("PUT /discovery/two/1 value=a=http://127.0.0.1:1")?;
    refused("a", &url, &peer, &format!("{joining}found duplicate name"))
}

/// SRV-191: a service that does not answer is asked again; who comes too late may forward, and so
/// may who was never to be a member.
#[test]
fn a_service_may_come_later_and_a_member_too_late() -> anyhow::Result<()> {
    let (mut keeper, _folder) = start(&[])?;
    let url = set_size(&keeper, "token", "1")?;
    keeper.kill()?;
    let home = tempfile::tempdir()?;
    let named = ["--name=first", &format!("--discovery={url}")];
    let first = [&AT[..], &named].concat();
    let first = Process::start_as(Path::new(OURS), home.path(), &first)?;
    eventually("it asks again", || {
        Ok(first.log().contains("retry connecting to discovery service"))
    })?;
    keeper.restart(Path::new(OURS))?;
    eventually("it is ready", || Ok(first.log().contains("ready to serve client requests")))
        .with_context(|| first.log())?;
    first.v2()?.step("PUT /a value=x")?;
    let expected = [format!("http://127.0.0.1:{}", first.port)];
    for as_proxy in ["--discovery-fallback=proxy", "--proxy=on"] {
        let folder = tempfile::tempdir()?;
        let named = ["--name=late", as_proxy, &format!("--discovery={url}")];
        let late = Process::start_as(Path::new(OURS), folder.path(), &[&AT[..], &named].concat())?;
        // It listens a while before it knows that it is late.
        eventually("it is a proxy", || Ok(folder.path().join("data/proxy/cluster").exists()))
            .with_context(|| late.log())?;
        late.await_endpoints(&expected)?;
        ensure!(late.v2()?.get("/keys/a")?.body.contains("\"value\":\"x\""));
    }
    Ok(())
}
