//! Rules of the house that no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// Which of our crates each may use (ARCHITECTURE.md, "Arrows"). A crate that is missing here may
/// use anything: tools and tests.
const ARROWS: [(&str, &[&str]); 22] = [
    ("retcd-base", &[]),
    ("retcd-proto", &[]),
    ("retcd-vfs", &["retcd-base"]),
    ("retcd-raft", &["retcd-base"]),
    ("retcd-wal", &["retcd-base", "retcd-raft", "retcd-proto", "retcd-vfs"]),
    ("retcd-backend", &["retcd-base", "retcd-vfs"]),
    ("retcd-mvcc", &["retcd-base", "retcd-proto", "retcd-backend"]),
    ("retcd-v2store", &["retcd-base"]),
    ("retcd-state", &["retcd-base", "retcd-proto", "retcd-mvcc", "retcd-v2store", "retcd-backend"]),
    (
        "retcd-member",
        &["retcd-base", "retcd-proto", "retcd-raft", "retcd-state", "retcd-mvcc", "retcd-backend"],
    ),
    (
        "retcd-storage",
        &[
            "retcd-base",
            "retcd-proto",
            "retcd-vfs",
            "retcd-raft",
            "retcd-wal",
            "retcd-backend",
            "retcd-v2store",
            "retcd-state",
        ],
    ),
    ("retcd-transport", &["retcd-base", "retcd-proto", "retcd-raft"]),
    ("retcd-tls", &["retcd-base"]),
    ("retcd-ping-policy", &[]),
    (
        "retcd-server",
        &[
            "retcd-base",
            "retcd-proto",
            "retcd-vfs",
            "retcd-raft",
            "retcd-wal",
            "retcd-backend",
            "retcd-mvcc",
            "retcd-v2store",
            "retcd-state",
            "retcd-storage",
            "retcd-member",
            "retcd-transport",
            "retcd-tls",
            "retcd-ping-policy",
            "retcd-client",
        ],
    ),
    (
        "retcd-backup",
        &[
            "retcd-base",
            "retcd-proto",
            "retcd-vfs",
            "retcd-raft",
            "retcd-wal",
            "retcd-backend",
            "retcd-state",
        ],
    ),
    ("retcd-client", &["retcd-base", "retcd-proto", "retcd-tls"]),
    ("retcd-cli", &["retcd-base", "retcd-proto", "retcd-client", "retcd-tls"]),
    (
        "retcd-grpc-proxy",
        &["retcd-base", "retcd-proto", "retcd-client", "retcd-ping-policy", "retcd-tls"],
    ),
    (
        "etcd",
        &[
            "retcd-base",
            "retcd-cli",
            "retcd-client",
            "retcd-grpc-proxy",
            "retcd-server",
            "retcd-tls",
        ],
    ),
    (
        "etcdctl",
        &["retcd-base", "retcd-proto", "retcd-cli", "retcd-client", "retcd-tls", "retcd-backup"],
    ),
    (
        "etcdutl",
        &[
            "retcd-base",
            "retcd-proto",
            "retcd-cli",
            "retcd-vfs",
            "retcd-raft",
            "retcd-wal",
            "retcd-backend",
            "retcd-mvcc",
            "retcd-state",
            "retcd-v2store",
            "retcd-backup",
        ],
    ),
];

/// Below the server nothing depends on these.
const SHELL_ONLY: [&str; 5] = ["tokio", "tonic", "hyper", "axum", "rand"];

/// Crates that may not use [`SHELL_ONLY`]; `proto` carries tonic's generated stubs and is the one
/// exception below the server.
const CORE: [&str; 8] = [
    "retcd-base",
    "retcd-vfs",
    "retcd-raft",
    "retcd-wal",
    "retcd-backend",
    "retcd-mvcc",
    "retcd-v2store",
    "retcd-state",
];

/// Checks everything; the error lists what is wrong.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    check_arrows(&mut wrong)?;
    for file in rust_files(&crate::root())? {
        check_file(&file, &mut wrong)?;
    }
    if !wrong.is_empty() {
        bail!("{} things to tidy:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    Ok(())
}

fn check_arrows(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(crate::root())
        .output()
        .context("running cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading metadata")?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let uses = package["dependencies"].as_array().into_iter().flatten();
        // Tests may look downwards at anything.
        let uses = uses.filter(|used| used["kind"].as_str() != Some("dev"));
        let uses: Vec<&str> = uses.filter_map(|used| used["name"].as_str()).collect();
        if let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) {
            let ours = uses.iter().filter(|used| used.starts_with("retcd-"));
            for used in ours.filter(|used| !allowed.contains(used)) {
                wrong.push(format!("{name} uses {used}: no such arrow"));
            }
        }
        if CORE.contains(&name) {
            for used in uses.iter().filter(|used| SHELL_ONLY.contains(used)) {
                wrong.push(format!("{name} uses {used}: the core knows no network and no chance"));
            }
        }
    }
    Ok(())
}

fn check_file(path: &Path, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    let shown = path.strip_prefix(crate::root()).unwrap_or(path).display().to_string();
    if shown.contains("/generated/") {
        return Ok(());
    }
    if !text.starts_with("//!") {
        wrong.push(format!("{shown}: begins without a module comment"));
    }
    if shown.starts_with("bins/") && shown.ends_with("src/main.rs") && text.lines().count() > 60 {
        wrong.push(format!("{shown}: main is longer than 60 lines"));
    }
    for (number, line) in text.lines().enumerate() {
        let unnumbered = ["TODO", "FIXME", "XXX"]
            .iter()
            .any(|word| line.contains(&format!("// {word}")) && !line.contains('#'));
        if unnumbered {
            wrong.push(format!("{shown}:{}: what is left to do has no number", number + 1));
        }
    }
    Ok(())
}

fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["crates", "bins", "testing", "xtask"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
