//! Client libraries of the second generation do with ours what they do with etcd: python-etcd,
//! node-etcd, the crate etcd (`testing/clients`).
//!
//! The libraries come from their registries; where interpreter or registry is missing the test says
//! so and passes. `V2_CLIENTS=rust` adds the crate, which takes minutes to compile.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use crate::client_libraries::{check, check_node, check_python, folder_of, installs};

#[test]
fn python_etcd_works() -> anyhow::Result<()> {
    check_python("python", "etcd.auth")
}

#[test]
fn node_etcd_works() -> anyhow::Result<()> {
    check_node("node", "node-etcd")
}

#[test]
fn the_crate_etcd_works() -> anyhow::Result<()> {
    if !std::env::var("V2_CLIENTS").is_ok_and(|names| names.contains("rust")) {
        println!("skipped: V2_CLIENTS does not name rust");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("target").display().to_string();
    let manifest = folder_of("rust").join("Cargo.toml").display().to_string();
    let build = ["cargo", "build", "--manifest-path", &manifest, "--target-dir", &target];
    if !installs(folder.path(), &build) {
        return Ok(());
    }
    check(&folder.path().join("target/debug/v2-client-check"), &[], &[])
}
