//! Load on the API of the second generation: HTTP/1.1 with connections that are kept, one request
//! at a time on each, as fast as answers come.
//!
//! Not the load of the third generation (`load.rs`), whose counting is used here: only what is
//! answered while the phase is [`Phase::Measure`] counts.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::connection::Endpoint;
use crate::load::{Extent, Load, LoadError, Outcome, Phase, Shared, Tally, chain};
use crate::measurement::{Measurement, record};
use crate::process::{Process, machine_cpu};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum V2Kind {
    /// A key is set.
    Set,
    /// A key is read.
    Get,
    /// A key is set and then read; both together are one operation.
    SetThenGet,
}

/// Keys that are chosen from.
const KEY_SPACE: u32 = 10_000;

const VALUE_BYTES: usize = 256;

/// More than any answer here has before its body.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long connections may take to end.
const DRAIN: Duration = Duration::from_secs(30);

/// Why a connection did not go on.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("talking to the server")]
    Io(#[from] std::io::Error),
    #[error("reading an answer that is no HTTP with a length")]
    Answer,
    #[error("the server answered {0}")]
    Status(u16),
}

/// Puts a load on a server and returns the figures.
///
/// # Errors
/// If the load cannot start. What fails afterwards is counted.
pub(crate) fn run(load: &Load, kind: V2Kind, server: &Process) -> Result<Measurement, LoadError> {
    let shared = Arc::new(Shared::new(Extent::Duration(Duration::ZERO)));
    let threads = load.threads.clamp(1, load.connections.max(1));
    let mut handles = Vec::new();
    for number in 0..threads {
        let (load, shared) = (load.clone(), Arc::clone(&shared));
        let serve = move || serve(&load, kind, number, threads, &shared);
        let handle = thread::Builder::new().name(format!("v2-{number}")).spawn(serve);
        handles.push(handle.map_err(LoadError::Thread)?);
    }
    thread::sleep(load.warmup);
    let client = Process::own();
    let (begin, server_cpu, client_cpu) = (Instant::now(), server.cpu()?, client.cpu()?);
    let machine_begin = machine_cpu()?;
    shared.set(Phase::Measure);
    if let Extent::Duration(duration) = load.extent {
        thread::sleep(duration);
    }
    let elapsed = begin.elapsed();
    let server_cpu = server.cpu()?.saturating_sub(server_cpu);
    let client_cpu = client.cpu()?.saturating_sub(client_cpu);
    let machine = machine_cpu()?.since(machine_begin);
    shared.set(Phase::Stop);
    let mut tally = Tally::new();
    for handle in handles {
        tally.add(handle.join().expect("client threads do not panic"));
    }
    let others_share = Some(machine.share_beside(server_cpu + client_cpu));
    let outcome =
        Outcome { tally, elapsed, server_cpu: Some(server_cpu), client_cpu, others_share };
    Ok(outcome.measurement())
}

/// Drives a thread's connections until the run is over.
fn serve(load: &Load, kind: V2Kind, number: u32, threads: u32, shared: &Arc<Shared>) -> Tally {
    let mut sum = Tally::new();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            sum.first_error = Some(error.to_string());
            return sum;
        }
    };
    runtime.block_on(async {
        let mut sessions = JoinSet::new();
        for connection in (number..load.connections).step_by(threads as usize) {
            let endpoint = load.endpoints[connection as usize % load.endpoints.len()].clone();
            sessions.spawn(session(endpoint, kind, connection, Arc::clone(shared)));
        }
        while let Some(ended) = sessions.join_next().await {
            sum.add(ended.expect("sessions do not panic"));
        }
    });
    sum
}

/// One connection's requests, one after the other.
async fn session(endpoint: Endpoint, kind: V2Kind, seed: u32, shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::new();
    let ended = ask_on(&endpoint, kind, seed, &shared, &mut tally).await;
    if let Err(error) = ended {
        tally.errors += 1;
        tally.first_error = Some(chain(&error));
    }
    tally
}

async fn ask_on(
    endpoint: &Endpoint,
    kind: V2Kind,
    seed: u32,
    shared: &Shared,
    tally: &mut Tally,
) -> Result<(), SessionError> {
    let stream = TcpStream::connect(endpoint.address()).await?;
    stream.set_nodelay(true)?;
    let mut connection = Http1 { stream, read: Vec::new() };
    let mut random = SmallRng::seed_from_u64(u64::from(seed));
    let value = "x".repeat(VALUE_BYTES);
    while shared.phase() != Phase::Stop {
        let key = random.random_range(0..KEY_SPACE);
        let began = Instant::now();
        let asked = tokio::time::timeout(DRAIN, async {
            if kind != V2Kind::Get {
                connection.ask(&set(key, &value)).await?;
            }
            if kind != V2Kind::Set {
                connection.ask(&get(key)).await?;
            }
            Ok::<(), SessionError>(())
        });
        match asked.await {
            Ok(answered) => answered?,
            Err(elapsed) => return Err(std::io::Error::from(elapsed).into()),
        }
        tally.answered += 1;
        if shared.phase() == Phase::Measure {
            record(&mut tally.histogram, began.elapsed());
        }
    }
    Ok(())
}

/// Writes every key once.
///
/// # Errors
/// If the load cannot start.
pub(crate) fn fill(endpoint: &Endpoint) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let filled = runtime.map_err(LoadError::Thread)?.block_on(async {
        let mut writers = JoinSet::new();
        for first in 0..FILL_CONNECTIONS {
            let endpoint = endpoint.clone();
            writers.spawn(async move {
                let stream = TcpStream::connect(endpoint.address()).await?;
                let mut connection = Http1 { stream, read: Vec::new() };
                let value = "x".repeat(VALUE_BYTES);
                for key in (first..KEY_SPACE).step_by(FILL_CONNECTIONS as usize) {
                    connection.ask(&set(key, &value)).await?;
                }
                Ok::<(), SessionError>(())
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.expect("writers do not panic")?;
        }
        Ok::<(), SessionError>(())
    });
    filled.map_err(|error| LoadError::Thread(std::io::Error::other(chain(&error))))
}

const FILL_CONNECTIONS: u32 = 64;

fn set(key: u32, value: &str) -> String {
    format!(
        "PUT /v2/keys/bench/{key:08} HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\nvalue={value}",
        "value=".len() + value.len()
    )
}

fn get(key: u32) -> String {
    format!("GET /v2/keys/bench/{key:08} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A connection with what was read and not used yet.
struct Http1 {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http1 {
    /// Sends a request and reads its whole answer, which must be a success.
    async fn ask(&mut self, request: &str) -> Result<(), SessionError> {
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            if let Some((status, len)) = answer(&self.read)? {
                self.read.drain(..len);
                return if status < 300 { Ok(()) } else { Err(SessionError::Status(status)) };
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// Status and length of the answer at the beginning, if it is all there.
fn answer(read: &[u8]) -> Result<Option<(u16, usize)>, SessionError> {
    let Some(head) = read.windows(4).position(|end| end == b"\r\n\r\n") else {
        return if HEAD_BYTES_MAX < read.len() { Err(SessionError::Answer) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&read[..head]).map_err(|_| SessionError::Answer)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut headers = text.lines().filter_map(|line| line.split_once(':'));
    let len = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let len = len.and_then(|(_, len)| len.trim().parse::<usize>().ok());
    let (status, len) = status.zip(len).ok_or(SessionError::Answer)?;
    let whole = head + 4 + len;
    Ok((whole <= read.len()).then_some((status, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_it_is_whole() {
        let text = b"HTTP/1.1 201 Created\r\nA: b\r\ncontent-LENGTH: 3\r\n\r\nabcHTTP/1.1";
        assert!(answer(&text[..20]).unwrap().is_none());
        assert!(answer(&text[..text.len() - 9]).unwrap().is_none());
        let (status, len) = answer(text).unwrap().unwrap();
        assert_eq!((status, &text[len - 3..len]), (201, &b"abc"[..]));
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(answer(&[b'x'; HEAD_BYTES_MAX + 1]).is_err());
    }
}
