//! Client libraries of others, from their registries, and what their scripts in `testing/clients`
//! say of a server of ours.
//!
//! Where interpreter or registry is missing the test says so and passes. A script that fails is
//! run with etcd 3.5 too, where the machine has it, so that the error says whose fault it is.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::bail;
use retcd_conformance::{Server, ServerOptions, real_etcd};

pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// How long a step of an installation may take, in the words of `timeout`: registries that do not
/// answer cost a skipped test no more than this.
const INSTALL_TIME_MAX: &str = "180";

/// How long a script may take.
const RUN_TIME_MAX: &str = "300";

/// How long something may take that was told to end.
const END_TIME_MAX: &str = "--kill-after=10";

/// Where the script of a library is.
pub(crate) fn folder_of(library: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/clients").join(library)
}

/// Runs a step of an installation; whether it worked. Where it did not, its last word is told.
pub(crate) fn installs(folder: &Path, line: &[&str]) -> bool {
    let output = Command::new("timeout")
        .args([END_TIME_MAX, INSTALL_TIME_MAX])
        .args(line)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    let (done, last_word) = match output {
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let last_word = complaint.lines().rfind(|line| !line.trim().is_empty());
            (output.status.success(), last_word.unwrap_or("without a word").to_owned())
        }
        Err(error) => (false, error.to_string()),
    };
    if !done {
        println!("skipped: {} does not work here: {last_word}", line.join(" "));
    }
    done
}

/// An environment of its own with what the library's file of requirements names, made by that
/// interpreter; whether it is there now, in `env` of the folder.
pub(crate) fn has_python(interpreter: &str, folder: &Path, library: &str, import: &str) -> bool {
    let requirements = folder_of(library).join("requirements.txt").display().to_string();
    let pip = ["env/bin/pip", "--disable-pip-version-check", "--retries=1", "--timeout=20"];
    installs(folder, &[interpreter, "-m", "venv", "env"])
        && installs(folder, &[&pip[..], &["install", "-r", &requirements]].concat())
        && installs(folder, &["env/bin/python", "-c", &format!("import {import}")])
}

/// Runs the script of a library of Python with a server of ours.
pub(crate) fn check_python(library: &str, import: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    if !has_python("python3", folder.path(), library, import) {
        return Ok(());
    }
    let program = folder.path().join("env/bin/python");
    let shared = folder_of("python/shared");
    // What is compiled would be left in the sources.
    let variables = [("PYTHONPATH", &*shared), ("PYTHONDONTWRITEBYTECODE", Path::new("1"))];
    check(&program, &[&folder_of(library).join("check.py")], &variables)
}

/// Runs the script of a package of Node with a server of ours.
pub(crate) fn check_node(library: &str, package: &str) -> anyhow::Result<()> {
    let (folder, script) = (tempfile::tempdir()?, folder_of(library));
    std::fs::copy(script.join("package.json"), folder.path().join("package.json"))?;
    let install = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=1"];
    if !installs(folder.path(), &["node", "--version"])
        || !installs(folder.path(), &install)
        // Parts of some are compiled, or not, for this interpreter.
        || !installs(folder.path(), &["node", "-e", &format!("require('{package}')")])
    {
        return Ok(());
    }
    let modules = folder.path().join("node_modules");
    check(Path::new("node"), &[&script.join("check.js")], &[("NODE_PATH", &modules)])
}

/// Runs a script with a fresh server of ours, given its host and port.
pub(crate) fn check(
    program: &Path,
    arguments: &[&Path],
    variables: &[(&str, &Path)],
) -> anyhow::Result<()> {
    let run = |server: &Path, options: ServerOptions| -> anyhow::Result<Output> {
        let folder = tempfile::tempdir()?;
        let server = Server::start(server, folder.path(), options)?;
        Ok(Command::new("timeout")
            .args([END_TIME_MAX, RUN_TIME_MAX])
            .arg(program)
            .args(arguments)
            .args(["127.0.0.1", &server.client_port().to_string()])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()?)
    };
    let output = run(Path::new(OURS), ServerOptions::default())?;
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        println!("{}", said.trim_end());
        return Ok(());
    }
    let options = ServerOptions { flags: vec!["--enable-v2".to_owned()] };
    let theirs = match real_etcd("3.5") {
        None => "unknown".to_owned(),
        Some(real) => run(&real.join("etcd"), options)?.status.to_string(),
    };
    bail!("{}, with etcd 3.5 {theirs}: {said}\n{complaint}", output.status)
}
