//! Patroni with PostgreSQL, two nodes, on a store of ours, by either API (`testing/clients/patroni`).
//!
//! Needs PostgreSQL, which refuses to be run by root: then it is run by the user that its package
//! made. Where one of both is missing the test says so and passes.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::client_libraries::{OURS, folder_of, has_python, installs};

/// How long all of it may take, in the words of `timeout`, and how long until it is killed then.
const RUN_TIME_MAX: [&str; 2] = ["--kill-after=30", "600"];

/// Leaves root's rights.
const AS_POSTGRES: [&str; 4] =
    ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];

/// Ports of the store, of both Patronis and of both PostgreSQLs.
const PORTS: usize = 6;

/// Where the programs of the newest PostgreSQL here are, by the custom of Debian or on the path.
fn programs_of_postgres() -> Option<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let custom = installed.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = custom.chain(std::env::split_paths(&path));
    found.filter(|folder| folder.join("initdb").is_file()).max_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    })
}

/// Runs the script with the store named as Patroni's configuration does.
fn run(store: &str, user: &[&str], folder: &Path, programs: &Path) -> anyhow::Result<()> {
    let work = folder.join(store);
    fs::create_dir(&work)?;
    if !user.is_empty() {
        let owned = Command::new("chown").arg("postgres").arg(&work).status()?;
        ensure!(owned.success(), "{} cannot be given away", work.display());
    }
    let mut ports = Vec::new();
    for _ in 0..PORTS {
        ports.push(ports::free()?.to_string());
    }
    let output = Command::new("timeout")
        .args(RUN_TIME_MAX)
        .args(user)
        .arg(folder.join("env/bin/python"))
        .args([folder.join("check.py"), PathBuf::from(store), folder.join("program"), work.clone()])
        .arg(programs)
        .arg(ports.join(","))
        .env("HOME", &work)
        .current_dir(&work)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{store}: {}: {said}\n{complaint}", output.status);
    println!("{said}");
    Ok(())
}

/// A cluster begins, follows, changes its leader when told to, replaces one that died, takes it
/// back, and lives through deaths of its store: by API v2 and by API v3.
pub(crate) fn check() -> anyhow::Result<()> {
    let Some(programs) = programs_of_postgres() else {
        println!("skipped: no PostgreSQL here");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    let is_root = Command::new("id").arg("-u").output()?.stdout.trim_ascii() == b"0";
    let user = if is_root { &AS_POSTGRES[..] } else { &[] };
    // The system's interpreter is one that every user may run.
    let interpreters = ["/usr/bin/python3", "python3"];
    let interpreter = interpreters.into_iter().find(|name| Path::new(name).is_file());
    let interpreter = interpreter.unwrap_or("python3");
    let import = [user, &["env/bin/python", "-c", "import patroni, psycopg, psutil"]].concat();
    if !has_python(interpreter, folder, "patroni", "patroni") || !installs(folder, &import) {
        return Ok(());
    }
    // That user may see neither the repository nor what is built there.
    fs::copy(folder_of("patroni").join("check.py"), folder.join("check.py"))?;
    fs::hard_link(OURS, folder.join("program"))
        .or_else(|_| fs::copy(OURS, folder.join("program")).map(drop))?;
    std::thread::scope(|scope| {
        let stores = ["etcd", "etcd3"];
        let runs = stores.map(|store| scope.spawn(|| run(store, user, folder, &programs)));
        for (run, store) in runs.into_iter().zip(stores) {
            let done = run.join().ok().context("a thread that ran Patroni has panicked")?;
            done.with_context(|| format!("Patroni with the store as {store}"))?;
        }
        Ok(())
    })
}
