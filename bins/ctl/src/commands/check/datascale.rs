//! `check datascale`: puts a number of pairs and asks the member how much memory that took.

use cli::exit::{ExitCode, Failure};
use cli::flag::Flag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::load::{self, Pairs, Requests};
use super::{
    Command, PROGRESS, cleanup_flags, compact, defragment, delete_prefix, model, require_unused,
};
use crate::call::Call;
use crate::terminal::{progress_bar, say};

/// Length of a key without its prefix, and of a value; together what the line tells.
const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;
const METRIC: &str = "process_resident_memory_bytes";
const MIB: f64 = 1024.0 * 1024.0;

/// Pairs and clients, for each of the four loads.
const LOADS: [(u64, usize); 4] =
    [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];

pub(super) fn command() -> Command {
    let short = "Check the memory usage of holding data for different workloads on a given server \
                 endpoint.";
    let [compact, defrag] = cleanup_flags();
    Command::new("datascale [options]", short)
        .long(
            "If no endpoint is provided, localhost will be used. If multiple endpoints are \
             provided, first endpoint will be used.",
        )
        .flags([
            Flag::text(
                "load",
                "The datascale check's workload model. Accepted workloads: s(small), m(medium), \
                 l(large), xl(xLarge)",
            )
            .or("s"),
            Flag::text("prefix", "The prefix for writing the datascale check's keys.")
                .or("/etcdctl-check-datascale/"),
            compact,
            defrag,
        ])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let (pair_count, client_count) = LOADS[model(call.flags.text("load"))?];
    let globals = call.globals().await?;
    let prefix = call.flags.text("prefix").to_owned();
    let clients = load::clients(&globals.client, client_count).await?;
    let command = format!("etcdctl del --prefix {prefix}");
    require_unused(&clients[0], &prefix, &command).await?;
    let endpoint = &globals.client.endpoints[0];
    let before = resident_bytes(endpoint, "before").await?;
    say!(
        "Start data scale check for work load [{pair_count} key-value pairs, {} bytes per \
         key-value, {client_count} concurrent clients].",
        KEY_BYTES + VALUE_BYTES
    );
    let (sender, receiver) = mpsc::channel(client_count);
    let pairs = Pairs { prefix: prefix.clone(), key_bytes: KEY_BYTES, value_bytes: VALUE_BYTES };
    let mut requests = Requests::new(pairs);
    tokio::spawn(async move {
        for _ in 0..pair_count {
            if sender.send(requests.next()).await.is_err() {
                return;
            }
        }
    });
    let progress = progress_bar(pair_count, PROGRESS);
    let counted = progress.clone();
    let report = load::run(&clients, receiver, move || counted.inc(1)).await;
    progress.finish_and_clear();
    let after = resident_bytes(endpoint, "after").await?;
    let revision = delete_prefix(&clients[0], &prefix).await.map_err(Failure::error)?;
    if call.flags.bool("auto-compact") {
        compact(&clients[0], revision).await?;
    }
    if call.flags.bool("auto-defrag") {
        defragment(&globals.client).await?;
    }
    if !report.errors.is_empty() {
        say!("FAIL: too many errors");
        for (error, count) in &report.errors {
            say!("FAIL: ERROR({error}) -> {count}");
        }
        return Err(Failure::silent(ExitCode::Error));
    }
    say!("PASS: Approximate system memory used : {:.2} MB.", (after - before) / MIB);
    Ok(())
}

async fn resident_bytes(endpoint: &str, when: &str) -> Result<f64, Failure> {
    let metrics = fetch_metrics(endpoint).await;
    let bytes = match &metrics {
        Ok(text) => read_metric(text),
        Err(error) => {
            say!("fetch error: {error}");
            None
        }
    };
    bytes.ok_or_else(|| {
        say!("FAIL: Could not read {METRIC} {when} the put operations.");
        Failure::silent(ExitCode::Error)
    })
}

fn read_metric(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(METRIC));
    let Some(line) = line else {
        say!("could not find: {METRIC}");
        return None;
    };
    line.trim().parse().ok()
}

/// One plain HTTP/1.0 request; the member closes the connection behind its answer.
async fn fetch_metrics(endpoint: &str) -> std::io::Result<String> {
    let host = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
