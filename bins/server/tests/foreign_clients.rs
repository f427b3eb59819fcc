//! Clients of other languages and makers do with ours what they do with etcd (`testing/clients`).

mod client_libraries;
mod patroni;

use std::path::Path;

use client_libraries::{check, check_node, check_python, folder_of, installs};

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

/// Etcd's own client with all its packages, and the calls of a Kubernetes API server.
#[test]
fn clientv3_works() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("client-check");
    let output = program.display().to_string();
    // Only what the file of checksums names.
    let build = ["go", "build", "-mod=readonly", "-o", &output, "."];
    if !installs(&folder_of("go"), &build) {
        return Ok(());
    }
    check(&program, &[], &[])
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
