//! Clients of other languages and makers do with ours what they do with etcd (`testing/clients`).

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

mod client_libraries;
mod patroni;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use client_libraries::{OURS, check, check_node, check_python, folder_of, installs};
use retcd_conformance::cluster::{Cluster, ClusterOptions, Member};

/// Two builds at a time would do the same work twice.
static BUILDING: Mutex<()> = Mutex::new(());

/// It waits most of the time, so its name makes it the first to begin.
#[test]
fn a_cluster_of_patroni_works() -> anyhow::Result<()> {
    patroni::check()
}

#[test]
fn etcd3_of_python_works() -> anyhow::Result<()> {
    check_python("python/etcd3", "etcd3")
}

/// By the gateway.
#[test]
fn etcd3gw_works() -> anyhow::Result<()> {
    check_python("python/etcd3gw", "etcd3gw")
}

#[test]
fn aetcd_works() -> anyhow::Result<()> {
    check_python("python/aetcd", "aetcd")
}

#[test]
fn etcd3_of_npm_works() -> anyhow::Result<()> {
    check_node("node/etcd3", "etcd3")
}

/// The program that uses etcd's own client, built in that folder, where that works.
fn program_of_go(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("client-check");
    let output = program.display().to_string();
    // Only what the file of checksums names.
    let build = ["go", "build", "-mod=readonly", "-o", &output, "."];
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    installs(&folder_of("go"), &build).then_some(program)
}

/// Etcd's own client with all its packages, and the calls of a Kubernetes API server.
#[test]
fn clientv3_works() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(program) = program_of_go(folder.path()) else { return Ok(()) };
    check(&program, &[], &[])
}

/// Etcd's own client finds another member when its own is gone: nothing acknowledged is lost, no
/// event of a watch is missed or seen twice, no read is older than a write, a session lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clientv3_outlives_restarts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(program) = program_of_go(folder.path()) else { return Ok(()) };
    let mut cluster = Cluster::start(&[Path::new(OURS); 3], ClusterOptions::default()).await?;
    let endpoints: Vec<String> = cluster.members().iter().map(Member::direct_endpoint).collect();
    let mut client = Command::new("timeout")
        .args(["--kill-after=10", "600"])
        .arg(program)
        .arg("restarts")
        .args(&endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = client.stdin.take().context("it has an input")?;
    let mut stdout = BufReader::new(client.stdout.take().context("it has an output")?);
    let mut said = String::new();
    stdout.read_line(&mut said)?;
    for number in 0..endpoints.len() {
        cluster.kill(number)?;
        cluster.restart(number)?;
        cluster.await_serving(number).await?;
    }
    for number in 0..endpoints.len() {
        cluster.stop(number).await?;
        cluster.restart(number)?;
        cluster.await_serving(number).await?;
    }
    // The end of its input ends it.
    drop(stdin);
    stdout.read_to_string(&mut said)?;
    let status = client.wait()?;
    ensure!(status.success(), "{status}: {said}");
    println!("{}", said.trim_end());
    Ok(())
}

/// It takes minutes to compile: `FOREIGN_CLIENTS=rust` asks for it.
#[test]
fn the_crate_etcd_client_works() -> anyhow::Result<()> {
    if !std::env::var("FOREIGN_CLIENTS").is_ok_and(|names| names.contains("rust")) {
        println!("skipped: FOREIGN_CLIENTS does not name rust");
        return Ok(());
    }
    let (folder, library) = (tempfile::tempdir()?, "rust/etcd-client");
    let target = folder.path().join("target").display().to_string();
    let manifest = folder_of(library).join("Cargo.toml").display().to_string();
    let build =
        ["cargo", "build", "--locked", "--manifest-path", &manifest, "--target-dir", &target];
    // Compiling it needs the compiler of protocols.
    if !installs(folder.path(), &["protoc", "--version"]) || !installs(folder.path(), &build) {
        return Ok(());
    }
    check(&Path::new(&target).join("debug/v3-client-check"), &[], &[])
}
