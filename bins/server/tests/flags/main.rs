//! Every flag does what features section 7 says: by what a server that was given it does.
//!
//! `table` holds every flag against the test that proves it; the others are those tests, as far as
//! no other file has them.

mod limits;
mod logs;
mod metrics;
mod profiles;
mod sockets;
mod storage;
mod table;
mod traces;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use retcd_conformance::{Server, ask};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// For anything that is awaited, on a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

/// A server of ours with these flags, and the folder its data is in.
fn start(flags: &[&str]) -> anyhow::Result<(Server, tempfile::TempDir)> {
    Server::fresh(Path::new(OURS), flags)
}

/// The value of a metric without labels, or with exactly these.
fn metric(server: &Server, name: &str) -> anyhow::Result<f64> {
    let text = ask(server.address(), "GET", "/metrics", "")?.body;
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = lines.find(|(found, _)| *found == name).context(name.to_owned())?;
    Ok(value.parse()?)
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_so()? {
        anyhow::ensure!(began.elapsed() < LONG, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
