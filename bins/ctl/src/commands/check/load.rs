//! Many clients putting at a given rate, and how long that took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, Options};
use proto::etcdserverpb::PutRequest;
use tokio::sync::{Mutex, mpsc};

use cli::exit::Failure;

use crate::call::connect;

/// What is put.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    /// What every key starts with.
    pub prefix: String,
    /// Length of a key without the prefix.
    pub key_bytes: usize,
    /// Length of a value.
    pub value_bytes: usize,
}

/// How long the requests took.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Seconds of each request that succeeded.
    latencies: Vec<f64>,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub total: Duration,
}

impl Report {
    fn add(&mut self, took: Duration, result: Result<(), client::Error>) {
        match result {
            Ok(()) => self.latencies.push(took.as_secs_f64()),
            Err(error) => *self.errors.entry(error.to_string()).or_default() += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
    fn count(&self) -> f64 {
        self.latencies.len() as f64
    }

    /// Requests that succeeded per second.
    pub(crate) fn throughput(&self) -> f64 {
        self.count() / self.total.as_secs_f64()
    }

    /// Seconds of the slowest request.
    pub(crate) fn slowest(&self) -> f64 {
        self.latencies.iter().copied().fold(0.0, f64::max)
    }

    /// Standard deviation of the latencies, in seconds.
    pub(crate) fn deviation(&self) -> f64 {
        let average = self.latencies.iter().sum::<f64>() / self.count();
        let squares = self.latencies.iter().map(|latency| (latency - average).powi(2));
        (squares.sum::<f64>() / self.count()).sqrt()
    }
}

/// Makes so many clients; each has a connection of its own.
pub(crate) async fn clients(options: &Options, count: usize) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::with_capacity(count);
    let options = options.with_command_timeout(None);
    for _ in 0..count {
        clients.push(connect(options.clone()).await?);
    }
    Ok(clients)
}

/// Lets the clients put what comes out of `requests` until there is no more.
pub(crate) async fn run(
    clients: &[Client],
    requests: mpsc::Receiver<PutRequest>,
    on_done: impl Fn() + Clone + Send + 'static,
) -> Report {
    let start = Instant::now();
    let requests = Arc::new(Mutex::new(requests));
    let workers: Vec<_> = clients
        .iter()
        .map(|client| {
            let (client, requests) = (client.clone(), Arc::clone(&requests));
            tokio::spawn(work(client, requests, on_done.clone()))
        })
        .collect();
    let mut report = Report::default();
    for worker in workers {
        report.merge(worker.await.expect("a worker does not panic"));
    }
    report.total = start.elapsed();
    report
}

async fn work(
    client: Client,
    requests: Arc<Mutex<mpsc::Receiver<PutRequest>>>,
    on_done: impl Fn(),
) -> Report {
    let mut report = Report::default();
    loop {
        let next = requests.lock().await.recv().await;
        let Some(request) = next else {
            return report;
        };
        let start = Instant::now();
        let result = client.put(request).await.map(drop);
        report.add(start.elapsed(), result);
        on_done();
    }
}

/// Makes the requests: keys in no order, values of zeros.
#[derive(Debug)]
pub(crate) struct Requests {
    pairs: Pairs,
    state: u64,
}

impl Requests {
    pub(crate) fn new(pairs: Pairs) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.map_or(1, |since| since.subsec_nanos());
        Self { pairs, state: u64::from(seed) | 1 }
    }

    pub(crate) fn next(&mut self) -> PutRequest {
        // Xorshift: spread matters here, not unpredictability.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let mut key = self.pairs.prefix.clone().into_bytes();
        key.extend_from_slice(&self.state.to_be_bytes());
        key.resize(self.pairs.prefix.len() + self.pairs.key_bytes, 0);
        PutRequest {
            key: Bytes::from(key),
            value: Bytes::from(vec![0; self.pairs.value_bytes]),
            ..PutRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_counts_only_what_succeeded() {
        let mut report = Report { total: Duration::from_secs(2), ..Report::default() };
        report.add(Duration::from_secs(1), Ok(()));
        report.add(Duration::from_secs(3), Ok(()));
        report.add(Duration::from_secs(9), Err(client::Error::NoEndpoints));
        assert!((report.throughput() - 1.0).abs() < 1e-9);
        assert!((report.slowest() - 3.0).abs() < 1e-9);
        assert!((report.deviation() - 1.0).abs() < 1e-9);
        assert_eq!(report.errors.values().sum::<u64>(), 1);
    }

    #[test]
    fn keys_have_the_asked_length_and_differ() {
        let pairs = Pairs { prefix: "/p/".to_owned(), key_bytes: 256, value_bytes: 4 };
        let mut requests = Requests::new(pairs);
        let (first, second) = (requests.next(), requests.next());
        assert_eq!((first.key.len(), first.value.len()), (259, 4));
        assert_ne!(first.key, second.key);
    }
}
