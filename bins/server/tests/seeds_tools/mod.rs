//! The documents' commands of `etcdctl` with servers of ours (features 10.2, 10.4, 10.5).

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, ensure};
use retcd_conformance::{Server, ServerOptions};

use crate::own_network::{Members, enter};
use crate::{OURS, curl, eventually, is_healthy, run, tools};

/// SEED3-05 to SEED3-11, SEED1-03, SEED1-05, SEED1-07, SEED1-08, SEED1-12, SEED1-13, SEED1-22,
/// SEED1-23, SEED1-25, SEED3-04, SEED4-13 to SEED4-17, SEED0-60.
#[test]
fn keys_of_the_third_generation() -> anyhow::Result<()> {
    for tool in tools() {
        let folder = tempfile::tempdir()?;
        let server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
        let address = server.endpoint().replace("http://", "");
        let at = format!("--endpoints={address}");
        let ask = |line: &str| run(&tool, "3", &format!("{at} {line}"));
        ensure!(ask("put /testkey 'hello world'")? == "OK");
        ensure!(ask("get /testkey")? == "/testkey\nhello world");
        ensure!(ask("put /testkey 'i am Azheng'")? == "OK");
        ensure!(ask("get /testkey")? == "/testkey\ni am Azheng");
        ensure!(ask("del /testkey")? == "1");
        ensure!(ask("get /testkey")?.is_empty());
        ensure!(ask("del /testkey")? == "0");
        ensure!(ask("put /message Hello")? == "OK");
        ensure!(ask("get /message")? == "/message\nHello");
        ensure!(ask("get mess --prefix")?.is_empty());
        ensure!(ask("get /var/ --keys-only")?.is_empty());
        ensure!(ask("get / --prefix --keys-only")? == "/message");
        ensure!(ask("del /message")? == "1");
        for (key, value) in [
            ("name1", "batman"),
            ("name2", "ironman"),
            ("name3", "superman"),
            ("name4", "spiderman"),
        ] {
            ensure!(ask(&format!("put {key} {value}"))? == "OK");
        }
        ensure!(ask("get name3")? == "name3\nsuperman");
        let three = "name1\nbatman\nname2\nironman\nname3\nsuperman";
        ensure!(ask("get name1 name4")? == three);
        ensure!(ask("get --prefix name")? == format!("{three}\nname4\nspiderman"));
        let granted = ask("lease grant 300")?;
        let id = granted.split(' ').nth(1).context("an id")?.to_owned();
        ensure!(granted == format!("lease {id} granted with TTL(300s)"), "{granted}");
        ensure!(ask(&format!("put test_lease 300 --lease={id}"))? == "OK");
        ensure!(ask(&format!("lease revoke {id}"))? == format!("lease {id} revoked"));
        ensure!(ask("get test_lease")?.is_empty());
        let members = ask("member list")?;
        ensure!(members.contains(", started, m0, ") && members.ends_with(", false"), "{members}");
        ensure!(ask("--write-out=table endpoint status")?.contains(&address));
        ensure!(ask("version")?.starts_with("etcdctl version: "));
        watch(&tool, &at, &ask)?;
    }
    Ok(())
}

/// SEED3-11: of a key that is not there yet.
fn watch(
    tool: &Path,
    at: &str,
    ask: &impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut watch = Command::new(tool)
        .env("ETCDCTL_API", "3")
        .args([at, "watch", "/testwatch"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = watch.stdout.take().context("it is piped")?;
    let told = thread::spawn(move || {
        BufReader::new(output).lines().take(3).collect::<Result<Vec<_>, _>>()
    });
    // When the watch has begun nobody says: what is written again is seen at last.
    let written = eventually("the watch tells", || {
        ask("put /testwatch 'i am Azheng'").is_ok() && told.is_finished()
    });
    watch.kill()?;
    watch.wait()?;
    written?;
    let lines = told.join().ok().context("the reader panicked")??;
    ensure!(lines == ["PUT", "/testwatch", "i am Azheng"], "{lines:?}");
    Ok(())
}

/// SEED3-12, SEED3-13, SEED3-15: saved, moved away, restored with the defaults, started.
#[test]
fn a_snapshot_is_restored() -> anyhow::Result<()> {
    let test = "seeds_tools::a_snapshot_is_restored";
    if tools().is_empty() || !enter(test, &[])? {
        return Ok(());
    }
    for tool in tools() {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("etcd");
        let start = |members: &mut Members| -> anyhow::Result<()> {
            let mut command = Command::new(OURS);
            command.env_clear().arg("--data-dir").arg(&data);
            members.start(command, &folder.path().join("log"))?;
            eventually("it is healthy", || is_healthy("127.0.0.1:2379"))
        };
        let mut members = Members::default();
        start(&mut members)?;
        ensure!(run(&tool, "3", "put /testkey 'hello world'")? == "OK");
        let file = folder.path().join("etcd-1_2021-05-01_10-20-30.bak");
        let saved = run(&tool, "3", &format!("snapshot save {}", file.display()))?;
        ensure!(saved.contains(&format!("Snapshot saved at {}", file.display())), "{saved}");
        drop(members);
        fs::rename(&data, folder.path().join("etcd.old"))?;
        let restore = format!("snapshot restore {} --data-dir={}", file.display(), data.display());
        // A name that is not the default one needs the cluster's URLs; that is said.
        let named = run(&tool, "3", &format!("{restore} --name=m1"));
        let missing = "couldn't find local name \"m1\" in the initial cluster configuration";
        let said = named.unwrap_or_else(|error| error.to_string());
        ensure!(said.contains(missing) || said.contains("install etcdutl"), "{said}");
        ensure!(!data.exists(), "a refused restore leaves nothing behind");
        if run(&tool, "3", &restore).is_err() {
            // As in etcd since 3.6, another tool does it.
            let other = tool.with_file_name("etcdutl");
            if !other.is_file() {
                println!("skipped: {} restores nothing, and there is no etcdutl", tool.display());
                continue;
            }
            run(&other, "3", &restore)?;
        }
        let mut members = Members::default();
        start(&mut members)?;
        ensure!(run(&tool, "3", "get /testkey")? == "/testkey\nhello world");
    }
    Ok(())
}

/// SEED3-18: copies that are made again and again while others write are whole, each as of its time.
#[test]
fn snapshots_are_saved_again_and_again() -> anyhow::Result<()> {
    for tool in tools() {
        let other = tool.with_file_name("etcdutl");
        let checker = if other.is_file() { &other } else { &tool };
        let folder = tempfile::tempdir()?;
        let server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
        let at = format!("--endpoints={}", server.endpoint().replace("http://", ""));
        let mut revisions = Vec::new();
        for round in 0..3 {
            for number in 0..5 {
                run(&tool, "3", &format!("{at} put key{number} {round}"))?;
            }
            let file = folder.path().join(format!("{round}.bak"));
            run(&tool, "3", &format!("{at} snapshot save {}", file.display()))?;
            let said = run(checker, "3", &format!("snapshot status {} -w json", file.display()))?;
            let said = crate::json(&said)?;
            ensure!(said["totalKey"].as_u64() > Some(4), "{said}");
            revisions.push(said["revision"].as_u64().context("a revision")?);
        }
        ensure!(revisions.windows(2).all(|pair| pair[0] + 5 == pair[1]), "{revisions:?}");
        // A copy that was cut short is told from a whole one.
        let file = folder.path().join("0.bak");
        let whole = fs::read(&file)?;
        fs::write(&file, &whole[..whole.len() - 4096])?;
        let data = folder.path().join("restored");
        let line = format!("snapshot restore {} --data-dir={}", file.display(), data.display());
        ensure!(run(checker, "3", &line).is_err(), "a copy without its end is restored");
    }
    Ok(())
}

const DIDI: [(&str, &str); 3] =
    [("etcd-1", "10.255.1.211"), ("etcd-2", "10.255.1.40"), ("etcd-3", "10.255.1.181")];

/// SEED4-01, SEED4-04, SEED4-07 to SEED4-12, SEED1-09, SEED3-03, SEED3-16: the three hosts, byte for
/// byte; and with one of them gone.
#[test]
fn three_hosts_are_healthy() -> anyhow::Result<()> {
    let test = "seeds_tools::three_hosts_are_healthy";
    if tools().is_empty() || !enter(test, &DIDI.map(|(_, ip)| ip))? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut members = Members::default();
    let url = |ip: &str, port: u16| format!("http://{ip}:{port}");
    let cluster: Vec<_> =
        DIDI.iter().map(|(name, ip)| format!("{name}={}", url(ip, 2380))).collect();
    for (number, (name, ip)) in DIDI.iter().enumerate() {
        let (client, peer) = (url(ip, 2379), url(ip, 2380));
        let listen = if number == 0 {
            format!("{client},{}", url("127.0.0.1", 2379))
        } else {
            client.clone()
        };
        let mut command = Command::new(OURS);
        command
            .env_clear()
            .current_dir(folder.path())
            .args(["--name", name, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-peer-urls", &peer, "--listen-client-urls", &listen])
            .args(["--advertise-client-urls", &client])
            .args(["--initial-cluster-token", "etcd-cluster-on-didicloud"])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        members.start(command, &folder.path().join(format!("{number}.log")))?;
    }
    let expected = "member dc6b4b48ae00bf8 is healthy: got healthy result from http://10.255.1.40:2379\n\
                    member d6020117e8a2dc38 is healthy: got healthy result from http://10.255.1.181:2379\n\
                    member e95ffbf99d4aae9c is healthy: got healthy result from http://10.255.1.211:2379\n\
                    cluster is healthy";
    let member = |id: &str, name: &str, ip: &str, leads: bool| {
        format!(
            "{id}: name={name} peerURLs=http://{ip}:2380 clientURLs=http://{ip}:2379 isLeader={leads}"
        )
    };
    let speaks_v2 =
        |tool: &Path| run(tool, "2", "--help").is_ok_and(|it| it.contains("cluster-health"));
    let spoken: Vec<_> = tools().into_iter().filter(|tool| speaks_v2(tool)).collect();
    for tool in &spoken {
        eventually("all are healthy", || {
            run(tool, "2", "cluster-health").is_ok_and(|said| said == expected)
        })?;
        let list = run(tool, "2", "member list")?;
        let possible = (0..3).map(|leader| {
            [
                member("dc6b4b48ae00bf8", "etcd-2", "10.255.1.40", leader == 0),
                member("d6020117e8a2dc38", "etcd-3", "10.255.1.181", leader == 1),
                member("e95ffbf99d4aae9c", "etcd-1", "10.255.1.211", leader == 2),
            ]
            .join("\n")
        });
        ensure!(possible.into_iter().any(|text| text == list), "{list}");
        ensure!(run(tool, "2", "set -ttl 1000 /message Hello")? == "Hello");
        ensure!(run(tool, "2", "get /message")? == "Hello");
        ensure!(run(tool, "2", "rm /message")? == "PrevNode.Value: Hello");
    }
    // SEED3-16 is wrong: two of three go on.
    eventually("they serve", || is_healthy("10.255.1.211:2379"))?;
    members.0[1].kill()?;
    members.0[1].wait()?;
    eventually("two of three write", || {
        curl("PUT", "10.255.1.211:2379/v2/keys/a", "value=x").is_ok_and(|it| it.status < 300)
    })?;
    eventually("two of three read", || {
        curl("GET", "10.255.1.181:2379/v2/keys/a?quorum=true", "")
            .is_ok_and(|it| it.status == 200 && it.body.contains("\"value\":\"x\""))
    })
}
