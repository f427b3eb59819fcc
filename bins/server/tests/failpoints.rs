//! etcd's failpoints in a real process, with the interface of gofail (process-contract 6). Only
//! with the feature: `cargo test -p etcd --features failpoints --test failpoints`.
#![cfg(feature = "failpoints")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use retcd_conformance::{Keys, Server, ServerOptions};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Until when something that was provoked must have happened.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that sets what the environment of the server is to hold, and becomes the server.
fn program(folder: &Path, environment: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join("etcd-with-failpoints");
    fs::write(&path, format!("#!/bin/sh\nexec env {environment} '{OURS}' \"$@\"\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Asks the server of failpoints: code and body.
fn ask(port: u16, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let len = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let code = head.split(' ').nth(1).context("an answer has a code")?;
    Ok((code.parse()?, body.to_owned()))
}

async fn until_ended(server: &mut Server) -> anyhow::Result<()> {
    let began = Instant::now();
    while !server.has_ended() {
        anyhow::ensure!(began.elapsed() < PATIENCE, "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = server.wait()?;
    anyhow::ensure!(!status.success(), "it ended with {status}");
    Ok(())
}

/// C2. Failpoints are listed, set, counted and removed over HTTP; a panic ends the process after
/// its answer, and what was acknowledged is there afterwards.
#[tokio::test]
async fn failpoints_are_set_over_http_and_end_the_process() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let failing = program(folder.path(), &format!("GOFAIL_HTTP=127.0.0.1:{port}"))?;
    let mut server = Server::start(&failing, folder.path(), ServerOptions::default())?;

    let (code, list) = ask(port, "GET", "/", "")?;
    anyhow::ensure!(code == 200 && list.lines().any(|line| line == "raftBeforeSave="), "{list}");
    anyhow::ensure!(list.lines().count() == 48 && list.lines().is_sorted(), "{list}");
    anyhow::ensure!(ask(port, "GET", "/nonsense", "")?.0 == 404);
    anyhow::ensure!(ask(port, "PUT", "/nonsense", "panic")?.0 == 400);
    anyhow::ensure!(ask(port, "PUT", "/raftBeforeSave", "explode")?.0 == 400);

    let sleeping = ask(port, "PUT", "/raftBeforeSave", "1*sleep(20)")?;
    anyhow::ensure!(sleeping.0 == 204, "{sleeping:?}");
    Keys::of(&server.endpoint())?.put("kept", "1").await?;
    anyhow::ensure!(ask(port, "GET", "/raftBeforeSave/count", "")?.1 == "1");
    anyhow::ensure!(ask(port, "GET", "/raftBeforeSave", "")?.1.trim() == "1*sleep(20)");
    anyhow::ensure!(ask(port, "DELETE", "/raftBeforeSave", "")?.0 == 204);
    anyhow::ensure!(ask(port, "DELETE", "/raftBeforeSave", "")?.0 == 400);

    for name in ["raftBeforeSave", "raftAfterSave", "walBeforeSync", "beforeApplyOneEntryNormal"] {
        let told = ask(port, "PUT", "/failpoints", &format!("{name}=panic"))?;
        anyhow::ensure!(told.0 == 204, "{name}: {told:?}");
        // Whether it is answered is open; what matters is that the process ends.
        drop(Keys::of(&server.endpoint())?.put("perhaps", name).await);
        until_ended(&mut server).await.with_context(|| name.to_owned())?;
        server.restart(&failing)?;
        let kept = Keys::of(&server.endpoint())?.get("kept").await?;
        anyhow::ensure!(kept.as_deref() == Some(&b"1"[..]), "{name}: {kept:?}");
    }
    Ok(())
}

/// `GOFAIL_FAILPOINTS` counts from the start.
#[tokio::test]
async fn failpoints_are_set_by_the_environment() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let text = r#"GOFAIL_FAILPOINTS='beforePublishing=sleep("10ms");walBeforeSync=panic'"#;
    let failing = program(folder.path(), text)?;
    let started = Server::start(&failing, folder.path(), ServerOptions::default());
    let Err(error) = started else { anyhow::bail!("it started") };
    let text = format!("{error:#}");
    anyhow::ensure!(text.contains("failpoint panic: walBeforeSync"), "{text}");
    Ok(())
}
