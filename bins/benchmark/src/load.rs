//! Runs a workload from client threads and counts what comes back.
//!
//! Not the requests themselves (`workload.rs`), nor what the server spent (`process.rs`).
//!
//! Each thread has a runtime of its own and a share of the connections. A connection keeps a
//! fixed number of requests under way and replaces each that was answered (closed loop), or, with
//! a rate, sends at fixed times and counts latency from the time a request was due, so that a
//! stalled server cannot hide its stall.
//!
//! Invariants:
//! * only what is answered while the phase is [`Phase::Measure`] counts, except that a run of a
//!   fixed total counts all that were started in that phase;
//! * every request that was started is answered, failed, or counted as an error at the end.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::connection::{Connection, ConnectionError, Endpoint, Next, Session};
use crate::http2::{Event, Http2, Http2Error};
use crate::measurement::{Latency, Measurement, as_f64, latency_histogram, per, record};
use crate::process::{Process, ProcessError, machine_cpu};
use crate::workload::{Generator, Workload};

/// How much load, from where, for how long.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Servers; connections are spread over them.
    pub(crate) endpoints: Vec<Endpoint>,
    /// TCP connections.
    pub(crate) connections: u32,
    /// Requests under way on each.
    pub(crate) streams: u32,
    /// Client threads.
    pub(crate) threads: u32,
    /// Requests per second over all connections; `None` is as fast as answers come.
    pub(crate) rate: Option<f64>,
    /// Time before measuring starts.
    pub(crate) warmup: Duration,
    /// What ends the run.
    pub(crate) extent: Extent,
    /// Zero of the stamps in values.
    pub(crate) epoch: Instant,
}

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Extent {
    /// Time.
    Duration(Duration),
    /// Number of requests.
    Total(u64),
}

/// Why a run yielded nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A client thread could not start.
    #[error("starting a client thread")]
    Thread(#[source] std::io::Error),
    /// A connection was refused before the run.
    #[error("opening {connections} connections")]
    Connect {
        /// How many were wanted.
        connections: u32,
        /// What happened to the first that failed.
        #[source]
        source: ConnectionError,
    },
    /// The server's figures could not be read.
    #[error("reading the server's processor time")]
    Process(#[from] ProcessError),
}

/// What the threads of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    phase: AtomicU8,
    /// Requests that may still be started; only runs of a fixed total count it down.
    remaining: Option<AtomicI64>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Load without counting.
    WarmUp = 0,
    /// Answers count.
    Measure = 1,
    /// Nothing new is started.
    Stop = 2,
}

/// The counts of one thread, or of all together.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Latencies of what succeeded and counts.
    pub(crate) histogram: Histogram<u64>,
    /// Requests that failed.
    pub(crate) errors: u64,
    /// Requests that were answered with less than asked for; among `errors`.
    pub(crate) short_answers: u64,
    /// Requests answered well in any phase.
    pub(crate) answered: u64,
    /// Requests sent and not yet answered.
    pub(crate) under_way: u64,
    /// The first broken connection.
    pub(crate) first_error: Option<String>,
}

/// A run that ended: its counts and what it took.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All threads' counts.
    pub(crate) tally: Tally,
    /// The measured time.
    pub(crate) elapsed: Duration,
    /// Processor time of the server in it, if its process is known.
    pub(crate) server_cpu: Option<Duration>,
    /// Processor time of this program in it.
    pub(crate) client_cpu: Duration,
    /// Share of the machine's processors that neither of the two used, if both are known: above
    /// a few percent, the figures say less.
    pub(crate) others_share: Option<f64>,
}

/// Client threads whose connections are open and wait for the start.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    start: Vec<mpsc::Sender<()>>,
    finished: mpsc::Receiver<Tally>,
    handles: Vec<JoinHandle<()>>,
}

/// How long answers may take after the end before they count as lost.
const DRAIN: Duration = Duration::from_secs(30);
/// How often waiting sessions look at the phase.
pub(crate) const PHASE_POLL: Duration = Duration::from_millis(50);

/// Puts a load on the servers and returns the counts. `server` is the process whose processor
/// time is read.
///
/// # Errors
/// If the load cannot start. What fails afterwards is counted.
pub(crate) fn run(
    load: &Load,
    workload: &Workload,
    server: Option<&Process>,
) -> Result<Outcome, LoadError> {
    let shared = Arc::new(Shared::new(load.extent));
    let numbers = Arc::new(AtomicU64::new(0));
    let sessions = {
        let (load, workload, shared) = (load.clone(), workload.clone(), Arc::clone(&shared));
        move |number, tally: &Arc<Mutex<Tally>>| {
            let generator = workload.generator(u64::from(number), &numbers);
            ClosedLoop::new(&load, number, generator, workload.keeps_streams(), &shared, tally)
        }
    };
    let threads = Threads::connect(load, &shared, sessions)?;
    let mut tallies = Tally::new();
    let mut running = threads.start();
    if !load.warmup.is_zero() {
        running = collect(&threads, &mut tallies, running, load.warmup);
    }
    let client = Process::own();
    let begin = (Instant::now(), server.map(Process::cpu).transpose()?, client.cpu()?);
    let machine_begin = machine_cpu()?;
    shared.set(Phase::Measure);
    let limit = match load.extent {
        Extent::Duration(duration) => duration,
        Extent::Total(_) => Duration::MAX,
    };
    running = collect(&threads, &mut tallies, running, limit);
    let elapsed = begin.0.elapsed();
    let server_cpu = server.map(Process::cpu).transpose()?;
    let client_cpu = client.cpu()?.saturating_sub(begin.2);
    let machine = machine_cpu()?.since(machine_begin);
    shared.set(Phase::Stop);
    collect(&threads, &mut tallies, running, Duration::MAX);
    threads.join();
    let server_cpu = server_cpu.zip(begin.1).map(|(end, begin)| end.saturating_sub(begin));
    let others_share = server_cpu.map(|server| machine.share_beside(server + client_cpu));
    Ok(Outcome { tally: tallies, elapsed, server_cpu, client_cpu, others_share })
}

/// Adds up the tallies of threads that finish within `limit`; returns how many still run.
fn collect(threads: &Threads, sum: &mut Tally, mut running: usize, limit: Duration) -> usize {
    let begin = Instant::now();
    while running > 0 {
        // A bounded wait, because `recv_timeout` cannot take the largest duration.
        let wait = limit.saturating_sub(begin.elapsed()).min(Duration::from_secs(3600));
        match threads.finished.recv_timeout(wait) {
            Ok(tally) => {
                sum.add(tally);
                running -= 1;
            }
            Err(mpsc::RecvTimeoutError::Timeout) if begin.elapsed() < limit => {}
            Err(_) => break,
        }
    }
    running
}

impl Outcome {
    /// The outcome as figures.
    pub(crate) fn measurement(&self) -> Measurement {
        let operations = self.tally.histogram.len();
        let seconds = self.elapsed.as_secs_f64();
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6;
        let short = (self.tally.short_answers > 0).then(|| {
            format!("{} answers lack rows: are all keys written?", self.tally.short_answers)
        });
        let others = self.others_share.map(|share| ("others_cpu_share", share));
        Measurement {
            extra: others.into_iter().collect(),
            operations,
            errors: self.tally.errors,
            first_error: self.tally.first_error.clone().or(short),
            seconds,
            throughput: as_f64(operations) / seconds,
            latency: Latency::of(&self.tally.histogram),
            server_cpu_micros_per_operation: self
                .server_cpu
                .and_then(|cpu| per(micros(cpu), operations)),
            client_cpu_micros_per_operation: per(micros(self.client_cpu), operations),
            ..Measurement::default()
        }
    }
}

impl Shared {
    /// The shared state of a run that has not started.
    pub(crate) fn new(extent: Extent) -> Self {
        let remaining = match extent {
            Extent::Duration(_) => None,
            Extent::Total(total) => Some(AtomicI64::new(i64::try_from(total).unwrap_or(i64::MAX))),
        };
        Self { phase: AtomicU8::new(Phase::WarmUp as u8), remaining }
    }

    /// Moves every thread to a phase.
    pub(crate) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Where the run is.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measure,
            _ => Phase::Stop,
        }
    }

    /// Whether one more request may be started in this phase; takes it from the total.
    fn take(&self, phase: Phase) -> bool {
        match (phase, &self.remaining) {
            (Phase::Stop, _) => false,
            (Phase::Measure, Some(remaining)) => remaining.fetch_sub(1, Ordering::Relaxed) > 0,
            (Phase::WarmUp, _) | (Phase::Measure, None) => true,
        }
    }
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new() -> Self {
        Self {
            histogram: latency_histogram(),
            errors: 0,
            short_answers: 0,
            answered: 0,
            under_way: 0,
            first_error: None,
        }
    }

    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.errors += other.errors + other.under_way;
        self.short_answers += other.short_answers;
        self.answered += other.answered;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}

impl Threads {
    /// Starts the threads and opens all connections.
    ///
    /// # Errors
    /// If a thread or a connection fails.
    pub(crate) fn connect<S, F>(
        load: &Load,
        shared: &Arc<Shared>,
        sessions: F,
    ) -> Result<Self, LoadError>
    where
        S: Session + Send + 'static,
        F: Fn(u32, &Arc<Mutex<Tally>>) -> S + Clone + Send + 'static,
    {
        let count = load.threads.clamp(1, load.connections.max(1));
        let (ready_sender, ready) = mpsc::channel();
        let (finished_sender, finished) = mpsc::channel();
        let mut threads =
            Self { shared: Arc::clone(shared), start: Vec::new(), finished, handles: Vec::new() };
        for thread in 0..count {
            let (start, started) = mpsc::channel();
            threads.start.push(start);
            let connections: Vec<_> = (thread..load.connections)
                .step_by(count as usize)
                .map(|number| {
                    (number, load.endpoints[number as usize % load.endpoints.len()].clone())
                })
                .collect();
            let (ready, finished) = (ready_sender.clone(), finished_sender.clone());
            let (shared, sessions) = (Arc::clone(shared), sessions.clone());
            let handle = std::thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || {
                    let opened = open(&connections);
                    let (runtime, open) = match opened {
                        Ok(opened) => opened,
                        Err(error) => return drop(ready.send(Err(error))),
                    };
                    if ready.send(Ok(())).is_ok() && started.recv().is_ok() {
                        let tally = runtime.block_on(serve(open, &shared, sessions));
                        drop(finished.send(tally));
                    }
                })
                .map_err(LoadError::Thread)?;
            threads.handles.push(handle);
        }
        for _ in 0..count {
            let opened = ready.recv().expect("every thread says whether it is ready");
            opened.map_err(|error| match error {
                OpenError::Runtime(source) => LoadError::Thread(source),
                OpenError::Connection(source) => {
                    LoadError::Connect { connections: load.connections, source }
                }
            })?;
        }
        Ok(threads)
    }

    /// Lets the sessions begin; returns the number of threads.
    pub(crate) fn start(&self) -> usize {
        for start in &self.start {
            // A thread that ended meanwhile has nothing to start.
            start.send(()).ok();
        }
        self.start.len()
    }

    /// Waits for the threads, which must have been told to stop.
    ///
    /// # Panics
    /// If one of them did.
    pub(crate) fn join(mut self) {
        self.start.clear();
        for handle in self.handles.drain(..) {
            handle.join().expect("client threads do not panic");
        }
    }
}

impl Drop for Threads {
    /// A run that is given up must not leave its load behind.
    fn drop(&mut self) {
        self.shared.set(Phase::Stop);
    }
}

enum OpenError {
    Runtime(std::io::Error),
    Connection(ConnectionError),
}

type Opened = (tokio::runtime::Runtime, Vec<(u32, Connection)>);

fn open(connections: &[(u32, Endpoint)]) -> Result<Opened, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(OpenError::Runtime)?;
    let mut open = Vec::with_capacity(connections.len());
    for (number, endpoint) in connections {
        let connection =
            runtime.block_on(Connection::connect(endpoint)).map_err(OpenError::Connection)?;
        open.push((*number, connection));
    }
    Ok((runtime, open))
}

/// Drives a thread's connections until all sessions are done, or, after the end of the run, for
/// at most [`DRAIN`].
async fn serve<S: Session + Send + 'static>(
    connections: Vec<(u32, Connection)>,
    shared: &Shared,
    sessions: impl Fn(u32, &Arc<Mutex<Tally>>) -> S,
) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::new()));
    let mut tasks = JoinSet::new();
    for (number, mut connection) in connections {
        let mut session = sessions(number, &tally);
        tasks.spawn(async move { connection.drive(&mut session).await });
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended.expect("sessions do not panic") {
                lock(&tally).first_error.get_or_insert_with(|| chain(&error));
            }
        }
    };
    let patience = async {
        while shared.phase() != Phase::Stop {
            tokio::time::sleep(PHASE_POLL).await;
        }
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = all => {}
        () = patience => {
            let text = format!("no answer within {} s after the end", DRAIN.as_secs());
            lock(&tally).first_error.get_or_insert(text);
        }
    }
    std::mem::replace(&mut *lock(&tally), Tally::new())
}

/// An error with its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The counts of a thread; only its own tasks ever hold them.
pub(crate) fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().expect("no task panics while it counts")
}

/// The session that keeps a fixed number of requests under way.
struct ClosedLoop {
    generator: Generator,
    keeps_streams: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    pace: Option<Pace>,
    epoch: Instant,
    shared: Arc<Shared>,
    tally: Arc<Mutex<Tally>>,
}

/// One request under way, or the place for one.
struct Slot {
    stream: Option<u32>,
    busy: bool,
    /// Started while measuring, in a run of a fixed total.
    counted: bool,
    started: Instant,
    response_bytes: usize,
    response_bytes_min: usize,
}

/// Fixed times of sending.
struct Pace {
    due: Instant,
    interval: Duration,
    /// The last wait was for the clock, not for an answer. The clock wakes up to a millisecond
    /// late, which is not the server's doing: latency then counts from the sending.
    waited_for_clock: bool,
}

impl ClosedLoop {
    fn new(
        load: &Load,
        number: u32,
        generator: Generator,
        keeps_streams: bool,
        shared: &Arc<Shared>,
        tally: &Arc<Mutex<Tally>>,
    ) -> Self {
        let now = Instant::now();
        let slot = || Slot {
            stream: None,
            busy: false,
            counted: false,
            started: now,
            response_bytes: 0,
            response_bytes_min: 0,
        };
        let pace = load.rate.map(|rate| {
            let interval = Duration::from_secs_f64(f64::from(load.connections) / rate);
            // Connections take turns instead of sending all at once.
            let due = now + interval * number / load.connections;
            Pace { due, interval, waited_for_clock: true }
        });
        Self {
            generator,
            keeps_streams,
            slots: (0..load.streams).map(|_| slot()).collect(),
            free: (0..load.streams).rev().collect(),
            pace,
            epoch: load.epoch,
            shared: Arc::clone(shared),
            tally: Arc::clone(tally),
        }
    }

    fn start(
        &mut self,
        slot: u32,
        started: Instant,
        counted: bool,
        http2: &mut Http2,
    ) -> Result<(), Http2Error> {
        let stamp = if self.generator.is_stamped() {
            let elapsed = started.saturating_duration_since(self.epoch);
            u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
        } else {
            0
        };
        let request = self.generator.next(stamp);
        let state = &mut self.slots[slot as usize];
        let stream = match state.stream {
            Some(stream) => stream,
            None => http2.open(slot, request.path, false)?,
        };
        http2.send(stream, request.message, !self.keeps_streams);
        *state = Slot {
            stream: self.keeps_streams.then_some(stream),
            busy: true,
            counted,
            started,
            response_bytes: 0,
            response_bytes_min: request.response_bytes_min,
        };
        lock(&self.tally).under_way += 1;
        Ok(())
    }

    fn finish(&mut self, slot: u32, answered: bool, now: Instant) {
        let state = &mut self.slots[slot as usize];
        state.busy = false;
        self.free.push(slot);
        let counts = state.counted
            || (self.shared.remaining.is_none() && self.shared.phase() == Phase::Measure);
        let mut tally = lock(&self.tally);
        tally.under_way -= 1;
        if !answered {
            tally.errors += 1;
        } else if state.response_bytes < state.response_bytes_min {
            tally.errors += 1;
            tally.short_answers += 1;
        } else {
            tally.answered += 1;
            if counts {
                record(&mut tally.histogram, now.saturating_duration_since(state.started));
            }
        }
    }
}

impl Session for ClosedLoop {
    fn refill(&mut self, http2: &mut Http2, now: Instant) -> Result<Next, Http2Error> {
        let phase = self.shared.phase();
        let mut stopped = phase == Phase::Stop;
        while !stopped && !self.free.is_empty() {
            let mut started = now;
            if let Some(pace) = &mut self.pace {
                if pace.due > now {
                    pace.waited_for_clock = true;
                    return Ok(Next::WaitUntil(pace.due.min(now + PHASE_POLL)));
                }
                started = if pace.waited_for_clock { now } else { pace.due };
                pace.due += pace.interval;
            }
            if !self.shared.take(phase) {
                stopped = true;
                break;
            }
            let slot = self.free.pop().expect("checked above");
            let counted = phase == Phase::Measure && self.shared.remaining.is_some();
            self.start(slot, started, counted, http2)?;
        }
        if stopped && self.free.len() == self.slots.len() {
            return Ok(Next::Done);
        }
        if let Some(pace) = &mut self.pace {
            pace.waited_for_clock = false;
        }
        Ok(Next::Wait)
    }

    fn on_event(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Message { tag, len, .. } => {
                let slot = &mut self.slots[tag as usize];
                slot.response_bytes = len;
                if self.keeps_streams && slot.busy {
                    self.finish(tag, true, now);
                }
            }
            Event::End { tag, messages } => {
                let slot = &mut self.slots[tag as usize];
                slot.stream = None;
                if slot.busy {
                    self.finish(tag, messages > 0 && !self.keeps_streams, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_total_is_handed_out_once_and_only_while_measuring() {
        let shared = Shared::new(Extent::Total(2));
        assert!(shared.take(Phase::WarmUp) && shared.take(Phase::WarmUp));
        let taken = [(); 4].map(|()| shared.take(Phase::Measure));
        assert_eq!(taken, [true, true, false, false]);
        let timed = Shared::new(Extent::Duration(Duration::from_secs(1)));
        assert!(timed.take(Phase::Measure) && !timed.take(Phase::Stop));
    }

    #[test]
    fn unanswered_requests_count_as_errors() {
        let mut sum = Tally::new();
        sum.add(Tally { under_way: 3, errors: 1, ..Tally::new() });
        assert_eq!(sum.errors, 4);
    }

    #[test]
    fn chained_errors_are_one_line() {
        let error = LoadError::Thread(std::io::Error::other("no threads left"));
        assert_eq!(chain(&error), "starting a client thread: no threads left");
    }
}
