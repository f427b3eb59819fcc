//! Long polling under load (V2-070, V2-071, V2-080): thousands wait while a thousand changes a
//! second are made, and each is told of every change that concerns it.
//!
//! `V2_WAITERS` says how many wait; each costs a descriptor here, so that there are never more than
//! the limit of this process allows. Connections come from several addresses of the loopback
//! network, since a server takes a thousand from each.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use retcd_conformance::{PATIENCE, Server, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Interval, timeout};

use crate::v2_support::{V2, start};

/// Where nobody says otherwise.
const WAITERS: usize = 200;

/// Connections from one address.
const PER_ADDRESS: usize = 500;

/// Descriptors that this process needs for other things, other tests among them.
const OTHER_FILES: usize = 500;

/// One of the tests here runs at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Those that write.
const WRITERS: usize = 16;

/// Changes of each key.
const CHANGES: u64 = 6;

/// Between two changes.
const PACE: Duration = Duration::from_millis(1);

/// How many may wait: as asked for, as far as descriptors go.
fn waiters() -> anyhow::Result<usize> {
    let wanted = std::env::var("V2_WAITERS").map_or(Ok(WAITERS), |text| text.parse())?;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let files = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    let possible = files.map_or(wanted, |files| files.saturating_sub(OTHER_FILES).max(1));
    if possible < wanted {
        println!("{possible} wait instead of {wanted}: there are {files:?} descriptors");
    }
    Ok(wanted.min(possible))
}

/// A connection for one question after the other.
struct Connection(BufReader<TcpStream>);

/// The head of an answer.
struct Head {
    status: u16,
    headers: BTreeMap<String, String>,
}

impl Connection {
    async fn open(server: SocketAddr, number: usize) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let host = u8::try_from(2 + number / PER_ADDRESS)?;
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        let stream = timeout(PATIENCE, socket.connect(server)).await??;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn ask(&mut self, method: &str, path: &str, form: &str) -> anyhow::Result<Head> {
        let text = format!(
            "{method} /v2/keys{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
            form.len()
        );
        self.0.get_mut().write_all(text.as_bytes()).await?;
        let status = self.line().await?;
        let status = status.split(' ').nth(1).context("no status")?.parse()?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Ok(Head { status, headers })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line)).await??;
        ensure!(read > 0, "the connection ended");
        Ok(line.trim_end().to_owned())
    }

    /// The next chunk; empty at the end.
    async fn chunk(&mut self) -> anyhow::Result<Vec<u8>> {
        let len = usize::from_str_radix(&self.line().await?, 16)?;
        self.bytes(len + 2).await.map(|mut bytes| {
            bytes.truncate(len);
            bytes
        })
    }

    async fn bytes(&mut self, len: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await??;
        Ok(bytes)
    }

    /// The rest of an answer.
    async fn rest(&mut self, head: &Head) -> anyhow::Result<Vec<u8>> {
        if let Some(len) = head.headers.get("content-length") {
            return self.bytes(len.parse()?).await;
        }
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }
}

fn value_of(event: &[u8]) -> anyhow::Result<u64> {
    let event: Value = serde_json::from_slice(event)?;
    Ok(event["node"]["value"].as_str().context("no value")?.parse()?)
}

/// Asks for the next change of its key again and again; says each time when it is being waited for.
async fn poll(
    mut connection: Connection,
    number: usize,
    ready: mpsc::Sender<(usize, u64)>,
) -> anyhow::Result<()> {
    for change in 1..=CHANGES {
        let head = connection.ask("GET", &format!("/load/{number}?wait=true"), "").await?;
        ensure!(head.status == 200, "{}", head.status);
        ready.send((number, change)).await?;
        let value = value_of(&connection.rest(&head).await?)?;
        ensure!(value == change, "{number} heard of change {value} instead of {change}");
    }
    Ok(())
}

/// Hears of every change of its key on one answer.
async fn stream(
    mut connection: Connection,
    number: usize,
    ready: mpsc::Sender<(usize, u64)>,
) -> anyhow::Result<()> {
    let path = format!("/load/{number}?wait=true&stream=true");
    let head = connection.ask("GET", &path, "").await?;
    ensure!(head.status == 200, "{}", head.status);
    for change in 1..=CHANGES {
        ready.send((number, change)).await?;
        let value = value_of(&connection.chunk().await?)?;
        ensure!(value == change, "{number} heard of change {value} instead of {change}");
    }
    Ok(())
}

/// Keys that are waited for, given out at a bounded pace.
struct Ready {
    keys: mpsc::Receiver<(usize, u64)>,
    pace: Interval,
}

impl Ready {
    async fn next(&mut self) -> Option<(usize, u64)> {
        self.pace.tick().await;
        self.keys.recv().await
    }
}

async fn write(
    server: SocketAddr,
    ready: Arc<Mutex<Ready>>,
    written: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(server, 0).await?;
    loop {
        let next = ready.lock().await.next().await;
        let Some((number, change)) = next else { return Ok(()) };
        let (path, form) = (format!("/load/{number}"), format!("value={change}"));
        let head = connection.ask("PUT", &path, &form).await?;
        let body = connection.rest(&head).await?;
        ensure!(head.status < 300, "{}: {}", head.status, String::from_utf8_lossy(&body));
        written.fetch_add(1, Ordering::Relaxed);
    }
}

fn watchers(server: &Server) -> anyhow::Result<u64> {
    let stats: Value = serde_json::from_str(&V2::of(server)?.get("/stats/store")?.body)?;
    stats["watchers"].as_u64().context("no number of watchers")
}

async fn all(tasks: &mut tokio::task::JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// V2-070, V2-071, V2-079: nobody misses a change; every third waiter streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_misses_a_change() -> anyhow::Result<()> {
    let _turn = TURN.lock().await;
    let (server, _folder) = start(&[])?;
    let address = SocketAddr::from(([127, 0, 0, 1], server.client_port()));
    let waiters = waiters()?;
    let (ready_in, keys) = mpsc::channel(waiters);
    let ready = Arc::new(Mutex::new(Ready { keys, pace: tokio::time::interval(PACE) }));
    let written = Arc::new(AtomicU64::new(0));
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..waiters {
        let connection = Connection::open(address, number).await?;
        if number % 3 == 0 {
            waiting.spawn(stream(connection, number, ready_in.clone()));
        } else {
            waiting.spawn(poll(connection, number, ready_in.clone()));
        }
    }
    drop(ready_in);
    let own = server_waits(&server, waiters as u64)?;
    let began = Instant::now();
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        writing.spawn(write(address, ready.clone(), written.clone()));
    }
    all(&mut waiting).await?;
    all(&mut writing).await?;
    let seconds = began.elapsed().as_secs_f64();
    let count = written.load(Ordering::Relaxed);
    ensure!(count == waiters as u64 * CHANGES, "{count} changes were made");
    println!("{own} waited; {count} changes in {seconds:.1} s");
    eventually("nobody waits", || Ok(watchers(&server)? == 0))
}

/// Waits until so many wait there.
fn server_waits(server: &Server, count: u64) -> anyhow::Result<u64> {
    eventually("all wait", || Ok(watchers(server)? == count))?;
    Ok(count)
}

/// Bytes of a process that are in memory.
fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kibibytes * 1024)
}

/// V2-080: who goes away frees place and memory, without any change that would find it out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_is_forgotten() -> anyhow::Result<()> {
    let _turn = TURN.lock().await;
    let (server, _folder) = start(&[])?;
    let address = SocketAddr::from(([127, 0, 0, 1], server.client_port()));
    let waiters = waiters()?;
    let mut resident = Vec::new();
    for _ in 0..6 {
        let mut waiting = Vec::new();
        for number in 0..waiters {
            let mut connection = Connection::open(address, number).await?;
            let kind = if number % 2 == 0 { "&stream=true&recursive=true" } else { "" };
            let path = format!("/gone/{number}?wait=true{kind}");
            let head = connection.ask("GET", &path, "").await?;
            if head.status != 200 {
                bail!("{number} is answered {}", head.status);
            }
            waiting.push(connection);
        }
        server_waits(&server, waiters as u64)?;
        waiting.truncate(waiters / 2);
        server_waits(&server, waiters as u64 / 2)?;
        drop(waiting);
        server_waits(&server, 0)?;
        resident.push(resident_bytes(server.pid())?);
    }
    println!("{waiters} came and went, six times; bytes in memory: {resident:?}");
    // Each would cost tens of thousands of bytes if it stayed; the first rounds only warm up.
    let grown = resident[5].saturating_sub(resident[1]);
    let bound = (16 << 20).max(waiters as u64 * 4 * 8_192);
    ensure!(grown < bound, "{resident:?}");
    Ok(())
}
