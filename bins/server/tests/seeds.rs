//! What the tutorials show or claim (features 10), command by command, on ours; where a tutorial's
//! own release would say the same, on etcd 3.4 too.
//!
//! Most of it happens at the addresses that the documents give, in a network of the test's own
//! ([`own_network`]). `etcdctl` is ours if it stands beside the server, and etcd's 3.4 if the machine
//! has it; without either the rows that need it are left out, and the test says so.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

mod own_network;
mod seeds_install;
mod seeds_tools;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use own_network::{Members, enter};
use retcd_conformance::http::{HttpAnswer, HttpOpen, ask};
use retcd_conformance::{Ended, PATIENCE, Server, ServerOptions, eventually, real_etcd};
use serde_json::Value;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

const FORM: &str = "application/x-www-form-urlencoded";

/// `curl`: method, URL without its scheme, form.
fn curl(method: &str, url: &str, form: &str) -> anyhow::Result<HttpAnswer> {
    let (address, path) = url.split_at(url.find('/').context("no path")?);
    let address: SocketAddr = address.parse()?;
    ask(address, method, path, if form.is_empty() { "" } else { FORM }, form)
}

fn json(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))
}

fn is_healthy(address: &str) -> bool {
    curl("GET", &format!("{address}/health"), "").is_ok_and(|answer| answer.status == 200)
}

/// The tools to run the documents' commands with.
fn tools() -> Vec<PathBuf> {
    let ours = Path::new(OURS).with_file_name("etcdctl");
    let mut tools: Vec<PathBuf> = ours.is_file().then_some(ours).into_iter().collect();
    tools.extend(real_etcd("3.4").map(|folder| folder.join("etcdctl")));
    if tools.is_empty() {
        println!("skipped: there is no etcdctl");
    }
    tools
}

/// Runs a command of a document; its output with blanks collapsed, since the documents lost some.
fn run(tool: &Path, api: &str, line: &str) -> anyhow::Result<String> {
    let mut command = Command::new(tool);
    command.env("ETCDCTL_API", api).args(words(line)).stdin(Stdio::null());
    // It gives up by itself.
    let output = command.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {line}: {complaint}", tool.display());
    let output = String::from_utf8(output.stdout)?;
    let lines = output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(lines.collect::<Vec<_>>().join("\n").trim_end().to_owned())
}

/// A line's words; what stands between `'` is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 0 {
            words.extend(part.split_whitespace().map(str::to_owned));
        } else {
            words.push(part.to_owned());
        }
    }
    words
}

/// Runs `etcd` in a folder as a shell would, with its log in a file there.
fn start_plainly(members: &mut Members, folder: &Path, log: &str) -> anyhow::Result<()> {
    // Whoever runs the tests may have been started to survive a closed terminal, and whoever it
    // starts then does.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", OURS]).env_clear().current_dir(folder);
    members.start(command, &folder.join(log))
}

fn signal(child: &Child, name: &str) -> anyhow::Result<()> {
    let told = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
    ensure!(told.success(), "the process is gone");
    Ok(())
}

/// SEED0-03 to SEED0-18, SEED2-02, SEED2-03, SRV-156, SRV-157, SRV-159, CB-11, SEEDX-02: `./etcd`
/// without a word, twice; closed with its terminal. What etcd 3.3 and 3.4 said in texts stands in the
/// lines of JSON that 3.5 and later write.
#[test]
fn the_plain_command_serves() -> anyhow::Result<()> {
    if !enter("the_plain_command_serves", &[])? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut members = Members::default();
    let mut terms = Vec::new();
    for log in ["first", "second"] {
        start_plainly(&mut members, folder.path(), log)?;
        eventually("it is healthy", || is_healthy("127.0.0.1:2379"))?;
        let read = || fs::read_to_string(folder.path().join(log)).unwrap_or_default();
        for fact in [
            "\"data-dir\":\"default.etcd\"",
            "\"name\":\"default\"",
            "\"heartbeat-interval\":\"100ms\"",
            "\"election-timeout\":\"1s\"",
            "\"advertise-client-urls\":[\"http://localhost:2379\"]",
            "\"max-cpu-set\":",
            "\"max-cpu-available\":",
            "8e9e05c52164694d became leader at term ",
            "raft.node: 8e9e05c52164694d elected leader 8e9e05c52164694d at term ",
            "\"cluster-id\":\"cdf818194e3a8c32\"",
            "published local member to cluster through raft",
            "ready to serve client requests",
            "serving client traffic insecurely; this is strongly discouraged!",
        ] {
            eventually(fact, || read().contains(fact))?;
        }
        let text = read();
        let begun = if log == "first" {
            ["'data-dir' was empty; using default", "initializing etcd server"]
        } else {
            ["server has already been initialized", "restarting local member"]
        };
        for fact in begun {
            ensure!(text.contains(fact), "{fact}:\n{text}");
        }
        let keys = curl("GET", "127.0.0.1:2379/v2/keys", "")?;
        ensure!(keys.header("x-etcd-cluster-id") == "cdf818194e3a8c32", "{keys:?}");
        terms.push(keys.header("x-raft-term").parse::<u64>()?);
        let mode = fs::metadata(folder.path().join("default.etcd"))?.permissions().mode();
        ensure!(mode & 0o777 == 0o700, "{mode:o}");
        // As a terminal does when it is closed.
        let child = members.0.last_mut().context("it runs")?;
        signal(child, "HUP")?;
        child.wait()?;
    }
    ensure!(terms[1] == terms[0] + 1, "{terms:?}");
    Ok(())
}

/// CB-06: where everything listens that was told nothing, and where clients then look for it.
#[test]
fn everybody_listens_where_all_expect_it() -> anyhow::Result<()> {
    if !enter("everybody_listens_where_all_expect_it", &[])? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut members = Members::default();
    start_plainly(&mut members, folder.path(), "etcd")?;
    eventually("it is healthy", || is_healthy("127.0.0.1:2379"))?;
    let peers = curl("GET", "127.0.0.1:2380/members", "")?;
    ensure!(peers.body.contains("\"peerURLs\":[\"http://localhost:2380\"]"), "{peers:?}");
    let keys = curl("GET", "127.0.0.1:2380/v2/keys", "")?;
    ensure!(keys.status == 404, "{keys:?}");
    for kind in ["gateway", "grpc-proxy"] {
        let mut command = Command::new(OURS);
        command.env_clear().args([kind, "start"]);
        members.start(command, &folder.path().join(kind))?;
        eventually(kind, || is_healthy("127.0.0.1:23790"))?;
        let mut gone = members.0.pop().context("it runs")?;
        gone.kill()?;
        gone.wait()?;
    }
    for tool in tools() {
        ensure!(run(&tool, "3", "put a b")? == "OK");
        ensure!(run(&tool, "2", "set a b")? == "b");
    }
    Ok(())
}

/// SEED0-04, SEED0-19: with one dash.
#[test]
fn the_version_has_four_facts() -> anyhow::Result<()> {
    let ended = Ended::of(Command::new(OURS).env_clear().arg("-version"))?;
    ensure!(ended.status.success(), "{}", ended.output);
    // Which compiler made it nobody asks; its own name stands there instead.
    for fact in ["etcd Version: 3.", "Git SHA: ", "Product: ", "OS/Arch: linux/"] {
        ensure!(ended.output.lines().any(|line| line.starts_with(fact)), "{}", ended.output);
    }
    Ok(())
}

/// SEED0-51, SEED0-52: variables count; those that nobody knows are only told of; the same thing
/// twice is refused, since nobody can know which is meant.
#[test]
fn variables_are_read() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut twice = Command::new(OURS);
    twice.env_clear().current_dir(folder.path()).env("ETCD_NAME", "a").args(["--name", "b"]);
    let Ended { status, output } = Ended::of(&mut twice)?;
    ensure!(status.code() == Some(1), "{status}:\n{output}");
    ensure!(output.contains("\"unset ETCD_NAME or leave out --name\""), "{output}");
    let options = ServerOptions { flags: Vec::new() };
    let server = Server::start(Path::new(OURS), folder.path(), options)?;
    let command = server.command();
    let flags: Vec<_> = command.get_args().filter_map(|flag| flag.to_str()).collect();
    let mut by_variables = Command::new(OURS);
    by_variables
        .env_clear()
        .env("ETCD_SNAPSHOT_COUNTER", "1")
        .env("ETCD_ELECTION_TIMEOUT", "99999");
    for pair in flags.chunks(2) {
        let name = pair[0].trim_start_matches("--").replace('-', "_").to_uppercase();
        by_variables.env(format!("ETCD_{name}"), pair[1]);
    }
    // It gets as far as the one that is wrong.
    let Ended { status, output } = Ended::of(&mut by_variables)?;
    ensure!(status.code() == Some(1), "{status}:\n{output}");
    ensure!(output.contains("ETCD_SNAPSHOT_COUNTER"), "{output}");
    ensure!(output.contains("--election-timeout[99999ms] is too long"), "{output}");
    Ok(())
}

/// The lines of `curl` that SEED1-12 and SEED1-14 to SEED1-21 show.
fn tell_keys(client: &str) -> anyhow::Result<()> {
    let keys = format!("{client}/v2/keys");
    let set = curl("PUT", &format!("{keys}/message"), "value=Hello")?;
    let index: u64 = set.header("x-etcd-index").parse()?;
    let node = format!(
        "{{\"key\":\"/message\",\"value\":\"Hello\",\"modifiedIndex\":{index},\
         \"createdIndex\":{index}}}"
    );
    ensure!(set.body == format!("{{\"action\":\"set\",\"node\":{node}}}\n"), "{set:?}");
    let get = curl("GET", &format!("{keys}/message"), "")?;
    ensure!(get.body == format!("{{\"action\":\"get\",\"node\":{node}}}\n"), "{get:?}");
    let all = curl("GET", &keys, "")?;
    let listed = format!("{{\"action\":\"get\",\"node\":{{\"dir\":true,\"nodes\":[{node}]}}}}\n");
    ensure!(all.body == listed, "{all:?}");
    let deleted = curl("DELETE", &format!("{keys}/message"), "")?;
    let gone = index + 1;
    let expected = format!(
        "{{\"action\":\"delete\",\"node\":{{\"key\":\"/message\",\"modifiedIndex\":{gone},\
         \"createdIndex\":{index}}},\"prevNode\":{node}}}\n"
    );
    ensure!(deleted.body == expected, "{deleted:?}");

    let address: SocketAddr = client.parse()?;
    let wait = HttpOpen::begin(address, "GET", "/v2/keys/foo?wait=true", "", "")?;
    let set = curl("PUT", &format!("{keys}/foo"), "value=bar")?;
    let event = wait.finish()?;
    ensure!(event.body == set.body, "{event:?}");
    let index = json(&set.body)?["node"]["modifiedIndex"].as_u64().context("an index")?;
    curl("PUT", &format!("{keys}/foo"), "value=two")?;
    let again = curl("GET", &format!("{keys}/foo?wait=true&waitIndex={index}"), "")?;
    ensure!(again.body == set.body, "{again:?}");
    let exists = curl("PUT", &format!("{keys}/foo?prevExist=false"), "value=three")?;
    ensure!(exists.status == 412, "{exists:?}");
    ensure!(json(&exists.body)?["errorCode"] == 105, "{exists:?}");
    let removed = curl("DELETE", &format!("{keys}/foo?prevValue=two"), "")?;
    ensure!(json(&removed.body)?["action"] == "compareAndDelete", "{removed:?}");
    let made = curl("PUT", &format!("{keys}/foo?prevExist=false"), "value=three")?;
    ensure!(made.status == 201 && json(&made.body)?["action"] == "create", "{made:?}");
    Ok(())
}

/// SEED1-12, SEED1-14 to SEED1-21, SEEDX-06.
#[test]
fn keys_are_as_curl_shows_them() -> anyhow::Result<()> {
    let mut programs = vec![(PathBuf::from(OURS), Vec::new())];
    programs.extend(
        real_etcd("3.4").map(|folder| (folder.join("etcd"), vec!["--enable-v2".to_owned()])),
    );
    for (program, flags) in programs {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions { flags })?;
        let client = server.endpoint().replace("http://", "");
        eventually("it has said who it is", || {
            curl("GET", &format!("{client}/v2/keys"), "")
                .is_ok_and(|answer| answer.header("x-etcd-index") == "3")
        })?;
        tell_keys(&client)?;
    }
    Ok(())
}

/// SEED1-10, SEED1-11 for one member; for three see `v2`.
#[test]
fn statistics_are_served() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
    let client = server.endpoint().replace("http://", "");
    let leader = json(&curl("GET", &format!("{client}/v2/stats/leader"), "")?.body)?;
    let own = json(&curl("GET", &format!("{client}/v2/stats/self"), "")?.body)?;
    ensure!(leader["leader"] == own["id"] && own["state"] == "StateLeader", "{leader} {own}");
    Ok(())
}

/// SEED3-01: the third port that the document asks about is for metrics and health, plain whatever
/// the others are.
#[test]
fn a_third_port_tells_metrics_and_health() -> anyhow::Result<()> {
    let mut programs = vec![PathBuf::from(OURS)];
    programs.extend(real_etcd("3.4").map(|folder| folder.join("etcd")));
    for program in programs {
        let folder = tempfile::tempdir()?;
        let url = ports::free_url()?;
        let flags = vec![format!("--listen-metrics-urls={url}")];
        let _server = Server::start(&program, folder.path(), ServerOptions { flags })?;
        let third = url.replace("http://", "");
        eventually("it is healthy", || is_healthy(&third))?;
        let metrics = curl("GET", &format!("{third}/metrics"), "")?;
        ensure!(metrics.body.contains("etcd_server_has_leader 1"), "{metrics:?}");
        let keys = curl("GET", &format!("{third}/v2/keys"), "")?;
        ensure!(keys.status == 404, "{keys:?}");
    }
    Ok(())
}

/// SEED4-02: a program is one file, which runs wherever it is moved to, under any name.
#[test]
fn a_program_is_one_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let moved = folder.path().join("etcd-v3");
    fs::copy(OURS, &moved)?;
    let server = Server::start(&moved, &folder.path().join("data"), ServerOptions::default())?;
    let client = server.endpoint().replace("http://", "");
    let set = curl("PUT", &format!("{client}/v2/keys/a"), "value=x")?;
    ensure!(set.status == 201, "{set:?}");
    Ok(())
}

/// SEED1-26: who waits for the others says for whom.
#[test]
fn a_member_says_whom_it_does_not_reach() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut members = Members::default();
    let (client, peer) = (ports::free()?, ports::free()?);
    let [other, third] = [ports::free()?, ports::free()?];
    let mut command = Command::new(OURS);
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let cluster = format!("a={},b={},c={}", url(peer), url(other), url(third));
    command
        .env_clear()
        .current_dir(folder.path())
        .args(["--name", "a", "--initial-cluster", &cluster])
        .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
        .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
    let log = folder.path().join("log");
    members.start(command, &log)?;
    eventually("the log names the missing", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let mut waits = text.lines().filter(|line| line.contains("waiting for a leader"));
        waits.any(|line| [other, third].iter().all(|port| line.contains(&url(*port))))
    })
}

/// SEED4-05: the argument that was cut off.
#[test]
fn a_flag_without_its_value_is_named() -> anyhow::Result<()> {
    let ended = Ended::of(Command::new(OURS).env_clear().args([
        "--name",
        "etcd-1",
        "--initial-cluster-state",
    ]))?;
    ensure!(ended.status.code() == Some(2), "{}", ended.status);
    let expected = "flag needs an argument: -initial-cluster-state";
    ensure!(ended.output.contains(expected), "{}", ended.output);
    Ok(())
}
