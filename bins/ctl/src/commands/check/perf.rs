//! `check perf`: puts at a fixed rate for a minute.

use std::time::Duration;

use cli::exit::{ExitCode, Failure};
use cli::flag::Flag;
use client::Client;
use proto::etcdserverpb::PutRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::load::{self, Pairs, Report, Requests};
use super::{
    Command, PROGRESS, cleanup_flags, compact, defragment, delete_prefix, model, require_unused,
};
use crate::call::{CLEANUP_TIMEOUT, Call};
use crate::concurrency::ended;
use crate::terminal::{progress_bar, say};

/// How long it takes.
const DURATION: Duration = Duration::from_secs(60);
/// Length of a key without its prefix, and of a value.
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// Share of the rate that must be reached.
const THROUGHPUT_SHARE_MIN: f64 = 0.9;
/// Bounds for the slowest request and for the deviation.
const SLOWEST_SECONDS_MAX: f64 = 0.5;
const DEVIATION_SECONDS_MAX: f64 = 0.1;

/// Writes per second and clients, for each of the four loads.
const LOADS: [(u32, usize); 4] = [(150, 50), (1000, 200), (8000, 500), (15000, 1000)];

pub(super) fn command() -> Command {
    let [compact, defrag] = cleanup_flags();
    Command::new("perf [options]", "Check the performance of the etcd cluster")
        .flags([
            Flag::text(
                "load",
                "The performance check's workload model. Accepted workloads: s(small), m(medium), \
                 l(large), xl(xLarge). Different workload models use different configurations in \
                 terms of number of clients and expected throughput.",
            )
            .or("s"),
            Flag::text("prefix", "The prefix for writing the performance check's keys.")
                .or("/etcdctl-check-perf/"),
            compact,
            defrag,
        ])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let (rate, client_count) = LOADS[model(call.flags.text("load"))?];
    let globals = call.globals().await?;
    let prefix = call.flags.text("prefix").to_owned();
    let clients = load::clients(&globals.client, client_count).await?;
    let command = format!("'etcdctl del --prefix {prefix}'");
    require_unused(&clients[0], &prefix, &command).await?;
    let (sender, receiver) = mpsc::channel(client_count);
    let pairs = Pairs { prefix: prefix.clone(), key_bytes: KEY_BYTES, value_bytes: VALUE_BYTES };
    let feeder = tokio::spawn(feed(Requests::new(pairs), rate, sender));
    let report = tokio::select! {
        report = load::run(&clients, receiver, || ()) => report,
        () = ended() => {
            feeder.abort();
            clean_up(&clients[0], &prefix, false).await?;
            return Err(Failure::silent(ExitCode::Error));
        }
    };
    clean_up(&clients[0], &prefix, call.flags.bool("auto-compact")).await?;
    if call.flags.bool("auto-defrag") {
        defragment(&globals.client).await?;
    }
    judge(&report, rate)
}

/// Hands out requests at the rate until the time is over.
async fn feed(mut requests: Requests, rate: u32, sender: mpsc::Sender<PutRequest>) {
    let end = Instant::now() + DURATION;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    // Requests that could not leave in time leave as soon as they can.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let progress = progress_bar(DURATION.as_secs(), PROGRESS);
    let start = Instant::now();
    while Instant::now() < end {
        ticks.tick().await;
        if sender.send(requests.next()).await.is_err() {
            return;
        }
        progress.set_position(start.elapsed().as_secs());
    }
    progress.finish_and_clear();
}

/// Deletes the keys; a failure is told but does not decide.
async fn clean_up(client: &Client, prefix: &str, auto_compact: bool) -> Result<(), Failure> {
    let client = client.with_command_timeout(Some(CLEANUP_TIMEOUT));
    match delete_prefix(&client, prefix).await {
        Ok(revision) if auto_compact => compact(&client, revision).await,
        Ok(_) => Ok(()),
        Err(error) => {
            say!("FAIL: Cleanup failed during key deletion: ERROR({error})");
            Ok(())
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of writes is a small positive number"
)]
fn judge(report: &Report, rate: u32) -> Result<(), Failure> {
    let mut ok = true;
    let mut line = |passed: bool, text: String| {
        ok &= passed;
        say!("{text}");
    };
    if !report.errors.is_empty() {
        line(false, "FAIL: too many errors".to_owned());
        for (error, count) in &report.errors {
            line(false, format!("FAIL: ERROR({error}) -> {count}"));
        }
    }
    let throughput = report.throughput();
    let whole = throughput as u64 + 1;
    if throughput / f64::from(rate) <= THROUGHPUT_SHARE_MIN {
        line(false, format!("FAIL: Throughput too low: {whole} writes/s"));
    } else {
        line(true, format!("PASS: Throughput is {whole} writes/s"));
    }
    let slowest = report.slowest();
    if slowest > SLOWEST_SECONDS_MAX {
        line(false, format!("Slowest request took too long: {slowest:.6}s"));
    } else {
        line(true, format!("PASS: Slowest request took {slowest:.6}s"));
    }
    let deviation = report.deviation();
    if deviation > DEVIATION_SECONDS_MAX {
        line(false, format!("Stddev too high: {deviation:.6}s"));
    } else {
        line(true, format!("PASS: Stddev is {deviation:.6}s"));
    }
    say!("{}", if ok { "PASS" } else { "FAIL" });
    if ok { Ok(()) } else { Err(Failure::silent(ExitCode::Error)) }
}
