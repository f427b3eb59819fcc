//! Client libraries of the second generation do with ours what they do with etcd: python-etcd,
//! node-etcd, the crate etcd (`testing/clients`).
//!
//! The libraries come from their registries; where interpreter or registry is missing the test says
//! so and passes. `V2_CLIENTS=rust` adds the crate, which takes minutes to compile.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::v2_support::start;

/// How long an installation may take, in the words of `timeout`.
const INSTALL_TIME_MAX: &str = "300";

/// How long a script may take.
const RUN_TIME_MAX: &str = "240";

fn folder_of(library: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/clients").join(library)
}

/// Runs a step of an installation in silence; whether it worked.
fn installs(folder: &Path, line: &[&str]) -> bool {
    let status = Command::new("timeout")
        .arg(INSTALL_TIME_MAX)
        .args(line)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let done = status.is_ok_and(|status| status.success());
    if !done {
        println!("skipped: {} does not work here", line.join(" "));
    }
    done
}

/// Runs a script with a fresh server of ours, given its host and port.
fn check(program: &Path, arguments: &[&Path], variables: &[(&str, &Path)]) -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let output = Command::new("timeout")
        .arg(RUN_TIME_MAX)
        .arg(program)
        .args(arguments)
        .args(["127.0.0.1", &server.client_port().to_string()])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}\n{complaint}", output.status);
    println!("{}", said.trim_end());
    Ok(())
}

#[test]
fn python_etcd_works() -> anyhow::Result<()> {
    let (folder, script) = (tempfile::tempdir()?, folder_of("python"));
    let requirements = script.join("requirements.txt").display().to_string();
    let pip = ["env/bin/pip", "--disable-pip-version-check", "--retries=1", "--timeout=20"];
    let install = [&pip[..], &["install", "-r", &requirements]].concat();
    if !installs(folder.path(), &["python3", "-m", "venv", "env"])
        || !installs(folder.path(), &install)
        || !installs(folder.path(), &["env/bin/python", "-c", "import etcd.auth"])
    {
        return Ok(());
    }
    check(&folder.path().join("env/bin/python"), &[&script.join("check.py")], &[])
}

#[test]
fn node_etcd_works() -> anyhow::Result<()> {
    let (folder, script) = (tempfile::tempdir()?, folder_of("node"));
    std::fs::copy(script.join("package.json"), folder.path().join("package.json"))?;
    let install = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=1"];
    if !installs(folder.path(), &["node", "--version"])
        || !installs(folder.path(), &install)
        // Part of it is compiled, or not, for this interpreter.
        || !installs(folder.path(), &["node", "-e", "require('node-etcd')"])
    {
        return Ok(());
    }
    let modules = folder.path().join("node_modules");
    check(Path::new("node"), &[&script.join("check.js")], &[("NODE_PATH", &modules)])
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
