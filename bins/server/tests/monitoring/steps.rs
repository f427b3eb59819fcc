//! What each request of a client adds to the numbers: the same as with etcd 3.7.
//!
//! `steps.txt` holds it. With `REAL_ETCD_37` real etcd is asked as well, and with `UPDATE=1` what it
//! shows is written there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use retcd_conformance::{Server, ask, real_etcd};

use super::OURS;
use super::clients::{Clients, STEPS};

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/monitoring/steps.txt");

/// How long numbers may take to follow what was answered.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The numbers that are compared: those that say how often and not how long.
const COMPARED: [&str; 22] = [
    "etcd_server_apply_duration_seconds_count",
    "etcd_server_request_duration_seconds_count",
    "etcd_server_range_duration_seconds_count",
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_db_compaction_keys_total",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_server_alarms",
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds_count",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds_count",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds_count",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
];

/// The compared numbers of a page.
fn numbers(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let numbers = lines.filter_map(|line| line.rsplit_once(' '));
    // What a member says of itself and of the cluster comes when it comes.
    let asked = numbers.filter(|(series, _)| !series.contains("\"Cluster"));
    let compared = asked.filter(|(series, _)| {
        COMPARED.contains(&series.split('{').next().expect("the first part of a split"))
    });
    compared.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect()
}

/// What is another number than before, or new, line by line.
fn growth(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> String {
    let mut text = String::new();
    for (series, value) in now {
        let grown = value - before.get(series).copied().unwrap_or(0.0);
        if grown != 0.0 || !before.contains_key(series) {
            writeln!(text, "{series} {grown:+}").expect("a text takes everything");
        }
    }
    for series in before.keys().filter(|series| !now.contains_key(*series)) {
        writeln!(text, "{series} is gone").expect("a text takes everything");
    }
    text
}

/// A server and what it told last.
pub(crate) struct Watched {
    server: Server,
    _folder: tempfile::TempDir,
    told: BTreeMap<String, f64>,
}

impl Watched {
    pub(crate) fn start(program: &Path) -> anyhow::Result<Self> {
        let (server, folder) = Server::fresh(program, &[])?;
        let mut watched = Self { server, _folder: folder, told: BTreeMap::new() };
        // What a member says of itself and of the cluster comes first.
        let began = Instant::now();
        while !watched.page()?.contains("etcd_cluster_version{cluster_version=\"3.7\"} 1") {
            anyhow::ensure!(began.elapsed() < LONG, "no cluster version");
            std::thread::sleep(Duration::from_millis(20));
        }
        watched.told = watched.settled()?;
        Ok(watched)
    }

    pub(crate) fn page(&self) -> anyhow::Result<String> {
        Ok(ask(self.server.address(), "GET", "/metrics", "")?.body)
    }

    /// The numbers once they have been the same for a while. Only for what is written down.
    fn settled(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let began = Instant::now();
        let (mut last, mut since) = (numbers(&self.page()?), began);
        while since.elapsed() < Duration::from_millis(500) {
            anyhow::ensure!(began.elapsed() < LONG, "the numbers do not stand still");
            std::thread::sleep(Duration::from_millis(50));
            let now = numbers(&self.page()?);
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// Waits until the numbers have grown as expected.
    fn expect(&mut self, name: &str, expected: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let now = numbers(&self.page()?);
            let grown = growth(&self.told, &now);
            if grown == expected {
                self.told = now;
                return Ok(());
            }
            let shown = began.elapsed() < LONG;
            anyhow::ensure!(shown, "{name}: shown is\n{grown}and expected\n{expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The steps in their order, from the file.
fn expected() -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(EXPECTED)?;
    let mut steps = BTreeMap::new();
    for part in text.split("== ").skip(1) {
        let (name, growth) = part.split_once('\n').expect("a name has its line");
        steps.insert(name.to_owned(), growth.to_owned());
    }
    Ok(steps)
}

async fn run(program: &Path) -> anyhow::Result<()> {
    let expected = expected()?;
    let mut watched = Watched::start(program)?;
    let mut clients = Clients::of(&watched.server.endpoint()).await?;
    for name in STEPS {
        clients.step(name).await;
        let none = String::new();
        watched.expect(name, expected.get(name).unwrap_or(&none))?;
    }
    Ok(())
}

async fn write_down(program: &Path) -> anyhow::Result<()> {
    let mut watched = Watched::start(program)?;
    let mut clients = Clients::of(&watched.server.endpoint()).await?;
    let mut text = String::new();
    for name in STEPS {
        clients.step(name).await;
        let now = watched.settled()?;
        write!(text, "== {name}\n{}", growth(&watched.told, &now))?;
        watched.told = now;
    }
    Ok(std::fs::write(EXPECTED, text)?)
}

/// MET-10, MET-20, MET-21, MET-55 to MET-60, MET-68.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_adds_what_it_adds_with_etcd() -> anyhow::Result<()> {
    match real_etcd("3.7") {
        None => println!("not compared with real etcd: REAL_ETCD_37 is not set"),
        Some(real) if std::env::var_os("UPDATE").is_some() => {
            write_down(&real.join("etcd")).await?
        }
        Some(real) => run(&real.join("etcd")).await?,
    }
    run(Path::new(OURS)).await
}
