//! Ours among real etcd's: a live cluster is taken over member by member, and handed back.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::path::Path;

use retcd_conformance::cluster::{LoadOptions, takeover};
use retcd_conformance::real_etcd;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

async fn there_and_back(line: &str, spares_old_etcd: bool) -> anyhow::Result<()> {
    let Some(folder) = real_etcd(line) else { return Ok(()) };
    let load = LoadOptions { spares_old_etcd, ..LoadOptions::default() };
    let theirs = folder.join("etcd");
    let flags = ["--snapshot-count=100"];
    let verdict = takeover::there_and_back(&theirs, Path::new(OURS), load, &flags).await?;
    println!("{:?}", verdict.report);
    Ok(())
}

/// HTTP-38: a cluster of 3.5 becomes ours and 3.5 again; hashes are equal after every step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_3_5_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.5", false).await
}

/// As above with 3.4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_3_4_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.4", true).await
}
