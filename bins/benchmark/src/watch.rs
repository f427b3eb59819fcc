//! Watchers, the puts they see, and what both cost the server.
//!
//! Not part of the closed loop of `load.rs`: watchers only listen. Puts come from a connection of
//! their own, at a fixed rate or as fast as they are answered.
//!
//! Invariant: a run ends when every event of every answered put has arrived, or none arrives any
//! more; what is missing then counts as errors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use prost::Message;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest};

use crate::connection::{Next, Session};
use crate::http2::{Event, Http2, Http2Error};
use crate::load::{
    Extent, Load, LoadError, Outcome, PHASE_POLL, Phase, Shared, Tally, Threads, lock, run,
};
use crate::measurement::{Latency, Measurement, as_f64, latency_histogram, per, record};
use crate::process::Process;
use crate::template::{key, stamp};
use crate::watch_response::scan;
use crate::workload::{WATCH, Workload};

/// Watchers and puts.
#[derive(Debug, Clone)]
pub(crate) struct WatchLoad {
    /// Connections and streams of the watchers; rate, warm-up and extent of the puts.
    pub(crate) load: Load,
    /// Watchers over all streams. They watch the keys of the workload in turn.
    pub(crate) watchers: u32,
    /// The puts; `None` only creates the watchers and reads the memory.
    pub(crate) puts: Option<Workload>,
    /// Bytes of a key.
    pub(crate) key_size: usize,
    /// How many keys are watched.
    pub(crate) key_space: u64,
}

/// Why a run yielded nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// The load failed.
    #[error("watching")]
    Load(#[from] LoadError),
    /// Not all watchers came to be.
    #[error("only {created} of {wanted} watchers exist after {} s", waited.as_secs())]
    Created {
        /// Watchers that were confirmed.
        created: u64,
        /// Watchers that were asked for.
        wanted: u32,
        /// How long was waited.
        waited: Duration,
    },
}

/// What all watching sessions count together.
#[derive(Debug)]
struct Seen {
    created: AtomicU64,
    canceled: AtomicU64,
    events: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

const CREATE_TIMEOUT: Duration = Duration::from_secs(60);
/// Events that have not come after a silence of this length are missing.
const SILENCE: Duration = Duration::from_secs(5);
/// Memory is read after the server has had time to settle.
const SETTLE: Duration = Duration::from_secs(1);
const WAIT_POLL: Duration = Duration::from_millis(2);

/// Creates the watchers, puts, counts events.
///
/// The operations of the result are events; its latency is from the put being due to the first
/// event of a response.
///
/// # Errors
/// If the watchers cannot be created.
pub(crate) fn watch(
    watch_load: &WatchLoad,
    server: Option<&Process>,
) -> Result<Measurement, WatchError> {
    let WatchLoad { load, watchers, puts, .. } = watch_load;
    let seen = Arc::new(Seen::new());
    let shared = Arc::new(Shared::new(Extent::Duration(Duration::ZERO)));
    let sessions = {
        let (watch_load, seen, shared) =
            (watch_load.clone(), Arc::clone(&seen), Arc::clone(&shared));
        move |number, tally: &Arc<Mutex<Tally>>| {
            Watching::new(&watch_load, number, &seen, &shared, tally)
        }
    };
    let threads = Threads::connect(load, &shared, sessions)?;
    std::thread::sleep(SETTLE);
    let before = server.map(Process::memory).transpose().map_err(LoadError::from)?;
    threads.start();
    let created = wait_for(&seen.created, u64::from(*watchers), CREATE_TIMEOUT);
    if created < u64::from(*watchers) {
        let (wanted, waited) = (*watchers, CREATE_TIMEOUT);
        return Err(WatchError::Created { created, wanted, waited });
    }
    std::thread::sleep(SETTLE);
    let after = server.map(Process::memory).transpose().map_err(LoadError::from)?;
    let mut measurement = match puts {
        Some(puts) => watch_puts(watch_load, puts, &seen, server)?,
        None => Measurement::default(),
    };
    shared.set(Phase::Stop);
    threads.join();
    let canceled = seen.canceled.load(Ordering::Relaxed);
    measurement.errors += canceled;
    measurement.extra.insert("watchers", f64::from(*watchers));
    if let Some((before, after)) = before.zip(after) {
        measurement.server_private_bytes = Some(after.private_bytes);
        let grown = as_f64(after.private_bytes) - as_f64(before.private_bytes);
        measurement.extra.insert("private_bytes_growth", grown);
        measurement.extra.insert("private_bytes_before", as_f64(before.private_bytes));
        measurement.extra.insert("private_bytes_per_watcher", grown / f64::from(*watchers));
        measurement.extra.insert("anonymous_bytes", as_f64(after.anonymous_bytes));
    }
    Ok(measurement)
}

/// Puts, waits for the last event, and reckons per event.
fn watch_puts(
    watch_load: &WatchLoad,
    puts: &Workload,
    seen: &Seen,
    server: Option<&Process>,
) -> Result<Measurement, WatchError> {
    let writer = Load {
        connections: 1,
        streams: 1,
        threads: 1,
        warmup: Duration::ZERO,
        ..watch_load.load.clone()
    };
    let client = Process::own();
    let cpu =
        || -> Result<_, LoadError> { Ok((server.map(Process::cpu).transpose()?, client.cpu()?)) };
    let begin = (Instant::now(), cpu()?);
    let outcome = run(&writer, puts, None)?;
    let expected = expected_events(&outcome, watch_load);
    let events = wait_for(&seen.events, expected, SILENCE);
    let elapsed = begin.0.elapsed();
    let end = cpu()?;
    let micros = |end: Duration, begin: Duration| end.saturating_sub(begin).as_secs_f64() * 1e6;
    let server_micros = end.0.zip(begin.1.0).map(|(end, begin)| micros(end, begin));
    let latency = Latency::of(&seen.latency.lock().expect("watching does not panic"));
    let mut measurement = Measurement {
        operations: events,
        errors: outcome.tally.errors + expected.saturating_sub(events),
        first_error: outcome.tally.first_error,
        seconds: elapsed.as_secs_f64(),
        throughput: as_f64(events) / elapsed.as_secs_f64(),
        latency,
        server_cpu_micros_per_operation: server_micros.and_then(|micros| per(micros, events)),
        client_cpu_micros_per_operation: per(micros(end.1, begin.1.1), events),
        ..Measurement::default()
    };
    measurement.extra.insert("puts", as_f64(outcome.tally.answered));
    if let Some(micros) = server_micros.filter(|micros| *micros > 0.0) {
        measurement.extra.insert("events_per_server_cpu_second", as_f64(events) / micros * 1e6);
    }
    Ok(measurement)
}

/// Every put is seen by the watchers of its key; with several keys the watchers are spread evenly.
fn expected_events(outcome: &Outcome, watch_load: &WatchLoad) -> u64 {
    outcome.tally.answered * u64::from(watch_load.watchers) / watch_load.key_space.max(1)
}

/// Waits until a count reaches `wanted` or stands still for `silence`; returns it.
fn wait_for(count: &AtomicU64, wanted: u64, silence: Duration) -> u64 {
    let mut last = (count.load(Ordering::Relaxed), Instant::now());
    while last.0 < wanted && last.1.elapsed() < silence {
        std::thread::sleep(WAIT_POLL);
        let now = count.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

impl Seen {
    fn new() -> Self {
        Self {
            created: AtomicU64::new(0),
            canceled: AtomicU64::new(0),
            events: AtomicU64::new(0),
            latency: Mutex::new(latency_histogram()),
        }
    }
}

/// The watchers of one connection.
struct Watching {
    /// The encoded creations of each stream, until they are sent.
    creations: Vec<Vec<Vec<u8>>>,
    epoch: Instant,
    seen: Arc<Seen>,
    shared: Arc<Shared>,
    tally: Arc<Mutex<Tally>>,
}

impl Watching {
    fn new(
        watch_load: &WatchLoad,
        connection: u32,
        seen: &Arc<Seen>,
        shared: &Arc<Shared>,
        tally: &Arc<Mutex<Tally>>,
    ) -> Self {
        let load = &watch_load.load;
        let mut creations = vec![Vec::new(); load.streams as usize];
        for watcher in (connection..watch_load.watchers).step_by(load.connections as usize) {
            let number = u64::from(watcher) % watch_load.key_space.max(1);
            let create = WatchCreateRequest {
                key: key(watch_load.key_size, number).into(),
                ..WatchCreateRequest::default()
            };
            let union = Some(RequestUnion::CreateRequest(create));
            let stream = watcher / load.connections % load.streams;
            let message = WatchRequest { request_union: union }.encode_to_vec();
            creations[stream as usize].push(message);
        }
        Self {
            creations,
            epoch: load.epoch,
            seen: Arc::clone(seen),
            shared: Arc::clone(shared),
            tally: Arc::clone(tally),
        }
    }

    fn record_latency(&self, value: &[u8], now: Instant) {
        let Some(sent) = stamp(value) else { return };
        let arrived = now.saturating_duration_since(self.epoch);
        let latency = arrived.saturating_sub(Duration::from_nanos(sent));
        record(&mut self.seen.latency.lock().expect("recording does not panic"), latency);
    }
}

impl Session for Watching {
    fn refill(&mut self, http2: &mut Http2, now: Instant) -> Result<Next, Http2Error> {
        for (tag, messages) in (0..).zip(std::mem::take(&mut self.creations)) {
            let stream = http2.open(tag, WATCH, true)?;
            for message in messages {
                http2.send(stream, &message, false);
            }
        }
        match self.shared.phase() {
            Phase::Stop => Ok(Next::Done),
            Phase::WarmUp | Phase::Measure => Ok(Next::WaitUntil(now + PHASE_POLL)),
        }
    }

    fn on_event(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Message { bytes, .. } => {
                let response = scan(bytes);
                self.seen.created.fetch_add(u64::from(response.created), Ordering::Relaxed);
                self.seen.canceled.fetch_add(u64::from(response.canceled), Ordering::Relaxed);
                self.seen.events.fetch_add(response.events, Ordering::Relaxed);
                if let Some(value) = response.first_value {
                    self.record_latency(value, now);
                }
            }
            Event::End { .. } => {
                let mut tally = lock(&self.tally);
                tally.errors += 1;
                tally.first_error.get_or_insert_with(|| "a watch stream ended".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_nothing_comes() {
        let count = AtomicU64::new(3);
        assert_eq!(wait_for(&count, 3, Duration::from_secs(60)), 3);
        assert_eq!(wait_for(&count, 4, Duration::from_millis(5)), 3);
    }
}
