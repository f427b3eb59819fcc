//! What the failure of a member costs clients: procedures on a running cluster.
//!
//! Clients here are the client library's, which tries again what etcd's for Go tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::Client;
use proto::etcdserverpb as pb;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, ClusterError, ELECTION_TIMEOUT};
use crate::measurement::{Latency, Measurement, as_f64, latency_histogram, record};

/// Between two writes that look for a leader.
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// Longest time without a leader that is waited for.
const FAILOVER_TIME_MAX: Duration = Duration::from_secs(60);
/// Concurrent writers while members fail.
const WRITERS: usize = 8;
/// A new member has caught up when it lacks no more entries than that.
const LAG_MAX: u64 = 200;

/// Kills the leader, many times; the median until a write is accepted.
///
/// # Errors
/// If the cluster does not recover.
pub(crate) fn failover(cluster: &mut Cluster, times: u32) -> Result<Measurement, ClusterError> {
    let mut taken = Vec::new();
    for _ in 0..times {
        let leader = cluster.leader()?;
        let survivors: Vec<_> = cluster.up().into_iter().filter(|one| *one != leader).collect();
        let clients = survivors.iter().map(|number| cluster.client(&[*number]));
        let clients: Vec<Client> = clients.collect::<Result<_, _>>()?;
        // Connections are open before, so that only the election counts.
        for client in &clients {
            cluster.runtime().block_on(client.put(put("before")))?;
        }
        let begin = Instant::now();
        cluster.kill(leader);
        let accepted = cluster.runtime().block_on(first_accepted(&clients));
        taken.push(if accepted { begin.elapsed() } else { FAILOVER_TIME_MAX });
        cluster.restart(leader)?;
        cluster.wait_until_serving(leader)?;
    }
    let mut measurement = of_times(&taken);
    let election = ELECTION_TIMEOUT.as_secs_f64();
    let extra = &mut measurement.extra;
    extra.insert("failover_election_timeouts", median(&taken).as_secs_f64() / election);
    Ok(measurement)
}

/// Writes at each client every few milliseconds, whatever came of the last; whether one was
/// accepted in time.
async fn first_accepted(clients: &[Client]) -> bool {
    let (sender, mut accepted) = tokio::sync::mpsc::channel(1);
    let begin = Instant::now();
    while begin.elapsed() < FAILOVER_TIME_MAX {
        for client in clients {
            let (client, sender) = (client.clone(), sender.clone());
            tokio::spawn(async move {
                if client.put(put("after")).await.is_ok() {
                    // A full queue means that somebody was first.
                    sender.try_send(()).ok();
                }
            });
        }
        if tokio::time::timeout(PROBE_PAUSE, accepted.recv()).await.is_ok() {
            return true;
        }
    }
    false
}

/// Asks the leader to end, many times, under load; how long until another leads, and how many
/// writes failed.
///
/// # Errors
/// If the cluster does not recover.
pub(crate) fn handover(cluster: &mut Cluster, times: u32) -> Result<Measurement, ClusterError> {
    let mut taken = Vec::new();
    let writers = Writers::start(cluster, &cluster.up())?;
    for _ in 0..times {
        let leader = cluster.leader()?;
        let survivors: Vec<_> = cluster.up().into_iter().filter(|one| *one != leader).collect();
        let old_id = cluster.status(leader)?.leader;
        let begin = Instant::now();
        cluster.signal(leader, "TERM")?;
        cluster.wait("another leader", |cluster| {
            Ok(survivors.iter().any(|number| {
                let status = cluster.status(*number);
                status.is_ok_and(|status| status.leader != 0 && status.leader != old_id)
            }))
        })?;
        taken.push(begin.elapsed());
        cluster.wait_until_ended(leader)?;
        cluster.restart(leader)?;
        cluster.wait_until_serving(leader)?;
    }
    let failed = writers.stop(cluster);
    let mut measurement = of_times(&taken);
    measurement.extra.insert("handover_millis", median(&taken).as_secs_f64() * 1e3);
    measurement.extra.insert("failed_writes", as_f64(failed.failed));
    measurement.first_error = failed.first_error;
    Ok(measurement)
}

/// Replaces a follower by one with nothing; how fast it catches up, and what the others' writes
/// cost meanwhile.
///
/// # Errors
/// If it does not come.
pub(crate) fn catch_up(
    cluster: &mut Cluster,
    bytes: u64,
    calm: Duration,
) -> Result<Measurement, ClusterError> {
    let leader = cluster.leader()?;
    let up = cluster.up();
    let lost = up.into_iter().find(|number| *number != leader);
    let lost = lost.expect("a cluster has followers");
    let survivors: Vec<_> = cluster.up().into_iter().filter(|one| *one != lost).collect();
    cluster.kill(lost);
    let writers = Writers::start(cluster, &survivors)?;
    std::thread::sleep(calm);
    let before = writers.stop(cluster);
    let new = cluster.replace(lost)?;
    let writers = Writers::start(cluster, &survivors)?;
    let begin = Instant::now();
    cluster.wait("the catching up of a member", |cluster| {
        let (Ok(ahead), Ok(behind)) = (cluster.status(leader), cluster.status(new)) else {
            return Ok(false);
        };
        let has_state = behind.db_size >= ahead.db_size_in_use / 2;
        Ok(has_state && ahead.raft_applied_index <= behind.raft_applied_index + LAG_MAX)
    })?;
    let taken = begin.elapsed();
    let during = writers.stop(cluster);
    let mut measurement = of_times(&[taken]);
    let p99 = |writes: &Writes| Latency::of(&writes.histogram).map(|latency| latency.p99_micros);
    if let (Some(before), Some(during)) = (p99(&before), p99(&during)) {
        measurement.extra.insert("put_p99_micros_before", before);
        measurement.extra.insert("put_p99_micros_during", during);
        measurement.extra.insert("put_p99_growth", during / before);
    }
    let mebibytes = as_f64(bytes) / f64::from(1 << 20);
    measurement.extra.insert("catch_up_mebibytes_per_second", mebibytes / taken.as_secs_f64());
    measurement.extra.insert("failed_writes", as_f64(during.failed));
    Ok(measurement)
}

/// Stops a follower's clock for a while, under load at the others; failed writes, new terms, and
/// how long it takes to have everything again.
///
/// # Errors
/// If it does not come back.
pub(crate) fn pause(cluster: &mut Cluster, length: Duration) -> Result<Measurement, ClusterError> {
    let leader = cluster.leader()?;
    let others: Vec<_> = cluster.up().into_iter().filter(|one| *one != leader).collect();
    let paused = *others.first().expect("a cluster has followers");
    let survivors: Vec<_> = cluster.up().into_iter().filter(|one| *one != paused).collect();
    let writers = Writers::start(cluster, &survivors)?;
    let term = cluster.status(leader)?.raft_term;
    cluster.signal(paused, "STOP")?;
    std::thread::sleep(length);
    cluster.signal(paused, "CONT")?;
    let begin = Instant::now();
    cluster.wait("the return of a member", |cluster| {
        let (Ok(ahead), Ok(behind)) = (cluster.status(leader), cluster.status(paused)) else {
            return Ok(false);
        };
        Ok(ahead.raft_applied_index <= behind.raft_applied_index + LAG_MAX)
    })?;
    let taken = begin.elapsed();
    let writes = writers.stop(cluster);
    let mut measurement = of_times(&[taken]);
    let terms = cluster.status(leader)?.raft_term.saturating_sub(term);
    measurement.extra.insert("term_changes", as_f64(terms));
    measurement.extra.insert("failed_writes", as_f64(writes.failed));
    measurement.extra.insert("rejoin_seconds", taken.as_secs_f64());
    measurement.first_error = writes.first_error;
    Ok(measurement)
}

/// Clients that write one after the other until they are stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Writes>>,
}

/// What writers saw.
struct Writes {
    histogram: hdrhistogram::Histogram<u64>,
    failed: u64,
    first_error: Option<String>,
}

impl Writers {
    fn start(cluster: &Cluster, numbers: &[usize]) -> Result<Self, ClusterError> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for _ in 0..WRITERS {
            let client = cluster.client(numbers)?;
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            tasks.push(cluster.runtime().spawn(async move {
                let mut writes =
                    Writes { histogram: latency_histogram(), failed: 0, first_error: None };
                while !stop.load(Ordering::Relaxed) {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    let begin = Instant::now();
                    match client.put(put(&format!("writer{}", number % 1000))).await {
                        Ok(_) => record(&mut writes.histogram, begin.elapsed()),
                        Err(error) => {
                            writes.failed += 1;
                            writes.first_error.get_or_insert_with(|| error.to_string());
                        }
                    }
                }
                writes
            }));
        }
        Ok(Self { stop, tasks })
    }

    fn stop(self, cluster: &Cluster) -> Writes {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Writes { histogram: latency_histogram(), failed: 0, first_error: None };
        for task in self.tasks {
            let writes = cluster.runtime().block_on(task).expect("writers do not panic");
            sum.histogram.add(&writes.histogram).expect("all histograms have the same bounds");
            sum.failed += writes.failed;
            sum.first_error = sum.first_error.or(writes.first_error);
        }
        sum
    }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: vec![b'v'; 256].into(),
        ..Default::default()
    }
}

/// The times as latencies.
fn of_times(times: &[Duration]) -> Measurement {
    let mut histogram = latency_histogram();
    for time in times {
        record(&mut histogram, *time);
    }
    let seconds: f64 = times.iter().map(Duration::as_secs_f64).sum();
    Measurement {
        operations: histogram.len(),
        seconds,
        throughput: if seconds > 0.0 { as_f64(histogram.len()) / seconds } else { 0.0 },
        latency: Latency::of(&histogram),
        ..Measurement::default()
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
