//! The whole table of measures, run on servers that the suite starts itself.
//!
//! Not the single workloads (`load.rs`, `watch.rs`). Every measure gets a fresh server on an empty
//! data directory, so that no measure inherits another's state, and only one server runs at a
//! time. With several rounds the servers alternate and the median round counts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::{Control, ControlError};
use crate::disk;
use crate::load::{Extent, Load, LoadError, chain, run};
use crate::measurement::{Latency, Measurement, as_f64, median_run};
use crate::measures::{Measure, Procedure};
use crate::process::{Process, ProcessError};
use crate::progress::Progress;
use crate::server::{Server, ServerError};
use crate::target::Comparison;
use crate::v2;
use crate::watch::{WatchError, WatchLoad, watch};
use crate::workload::{Kind, Workload};

/// What to run on what.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// Our server's program.
    pub(crate) ours: Option<PathBuf>,
    /// The other server's.
    pub(crate) theirs: Option<PathBuf>,
    /// Flags that both get besides those of every server.
    pub(crate) arguments: Vec<String>,
    /// Measured time of each workload.
    pub(crate) duration: Duration,
    /// Time before it.
    pub(crate) warmup: Duration,
    /// Client threads.
    pub(crate) threads: u32,
    /// How often each measure is run on each server.
    pub(crate) rounds: u32,
    /// Keys of the memory and restart measure.
    pub(crate) fill_keys: u64,
    /// Where servers keep their data.
    pub(crate) work_folder: PathBuf,
}

/// Why a measure, or the suite, yielded nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuiteError {
    /// The server does not serve.
    #[error("starting the server")]
    Server(#[from] ServerError),
    /// The load failed.
    #[error("running the load")]
    Load(#[from] LoadError),
    /// The watchers failed.
    #[error("running the watchers")]
    Watch(#[from] WatchError),
    /// The server's figures could not be read.
    #[error("reading the server's memory")]
    Process(#[from] ProcessError),
    /// A call beside the load failed.
    #[error("asking the server")]
    Control(#[from] ControlError),
    /// The keys could not be written.
    #[error("writing keys failed {errors} times: {first}")]
    Fill {
        /// Failed requests.
        errors: u64,
        /// What the first said.
        first: String,
    },
    /// The work folder is not usable.
    #[error("using the work folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Everything the suite found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Processors of the machine, shared by server and generator.
    pub(crate) processors: usize,
    /// `pwrite` and `fdatasync` of 256 bytes.
    pub(crate) disk_sync: Latency,
    /// What each side said its version is.
    pub(crate) versions: BTreeMap<&'static str, String>,
    /// Measurements by measure and side.
    pub(crate) measurements: BTreeMap<String, BTreeMap<&'static str, Measurement>>,
    /// Measures that failed: measure, side, why.
    pub(crate) failures: Vec<(String, &'static str, String)>,
    /// The table.
    pub(crate) comparisons: Vec<Comparison>,
}

const THEIRS: &str = "theirs";
const OURS: &str = "ours";
/// Connections and requests per connection that write keys ahead of a measure.
const FILL_CONNECTIONS: u32 = 4;
const FILL_STREAMS: u32 = 4;
/// Bytes of a fill's txn; servers refuse requests above 1.5 MiB.
const FILL_BYTES_MAX: usize = 1 << 20;
/// Operations of a fill's txn; servers refuse more than 128.
const FILL_BATCH_MAX: usize = 100;
const MEMORY_POLL: Duration = Duration::from_millis(25);
/// Heaps settle, batches are committed.
const SETTLE: Duration = Duration::from_secs(2);

impl Suite {
    /// Runs the measures and compares. A measure that fails is reported, and the others still run.
    ///
    /// # Errors
    /// If the work folder is not usable.
    pub(crate) fn run(
        &self,
        measures: &[Measure],
        progress: &Progress,
    ) -> Result<Report, SuiteError> {
        let folder = |source| SuiteError::Folder { folder: self.work_folder.clone(), source };
        fs::create_dir_all(&self.work_folder).map_err(folder)?;
        progress.say("disk");
        let disk_sync =
            disk::sync_latency(&self.work_folder, Duration::from_secs(2)).map_err(folder)?;
        let mut report = Report {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            disk_sync,
            versions: BTreeMap::new(),
            measurements: BTreeMap::new(),
            failures: Vec::new(),
            comparisons: Vec::new(),
        };
        for measure in measures {
            self.run_measure(measure, progress, &mut report);
        }
        Ok(report)
    }

    fn run_measure(&self, measure: &Measure, progress: &Progress, report: &mut Report) {
        let sides: Vec<(&'static str, &Path)> = [(THEIRS, &self.theirs), (OURS, &self.ours)]
            .into_iter()
            .filter_map(|(side, program)| Some((side, program.as_deref()?)))
            .collect();
        let mut rounds: BTreeMap<&'static str, Vec<Measurement>> = BTreeMap::new();
        for round in 1..=self.rounds {
            for (side, program) in &sides {
                progress.say(&format!("{} on {side}, round {round}", measure.name));
                match self.run_once(measure, program, side, report) {
                    Ok(measurement) => rounds.entry(side).or_default().push(measurement),
                    Err(error) => {
                        report.failures.push((measure.name.to_owned(), side, chain(&error)));
                    }
                }
            }
        }
        let results: BTreeMap<_, _> =
            rounds.into_iter().map(|(side, runs)| (side, median_run(runs))).collect();
        for figure in measure.figures {
            let (theirs, ours) = (results.get(THEIRS), results.get(OURS));
            report.comparisons.push(Comparison::new(measure.name, *figure, theirs, ours));
        }
        report.measurements.insert(measure.name.to_owned(), results);
    }

    fn run_once(
        &self,
        measure: &Measure,
        program: &Path,
        side: &'static str,
        report: &mut Report,
    ) -> Result<Measurement, SuiteError> {
        let folder = self.work_folder.join(format!("{}-{side}", measure.name));
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .map_err(|source| SuiteError::Folder { folder: folder.clone(), source })?;
        }
        let mut arguments = self.arguments.clone();
        if matches!(measure.procedure, Procedure::V2 { .. }) {
            // etcd 3.4 and 3.5 serve that generation only when asked to.
            arguments.push("--enable-v2=true".to_owned());
        }
        let mut server = Server::start(program, &arguments, &folder)?;
        if !report.versions.contains_key(side) {
            let status = Control::connect(&server.endpoint())?.status()?;
            report.versions.insert(side, status.version);
        }
        let measured = self.measure(measure, &mut server);
        server.remove();
        measured
    }

    fn measure(&self, measure: &Measure, server: &mut Server) -> Result<Measurement, SuiteError> {
        let rows = measure.rows;
        match &measure.procedure {
            Procedure::Load { workload, fill, connections, streams } => {
                if *fill {
                    self.fill(server, workload)?;
                }
                let load = self.load(server, *connections, *streams);
                let mut measurement = measured(&load, workload, server)?;
                measurement.extra.insert("rows_per_operation", f64::from(rows));
                Ok(measurement)
            }
            Procedure::Watch(shape) => {
                let load = Load {
                    rate: shape.puts_per_second,
                    ..self.load(server, shape.connections, shape.streams)
                };
                let puts = shape.puts_per_second.map(|_| shape.puts());
                let watch_load = WatchLoad {
                    load,
                    watchers: shape.watchers,
                    puts,
                    key_size: shape.puts().key_size,
                    key_space: 1,
                };
                Ok(watch(&watch_load, Some(&server.process()))?)
            }
            Procedure::FillAndRestart { workload } => {
                let workload = Workload { key_space: self.fill_keys, ..workload.clone() };
                self.fill_and_restart(server, &workload)
            }
            Procedure::V2 { kind, connections } => {
                v2::fill(&server.endpoint())?;
                let load = self.load(server, *connections, 1);
                let process = server.process();
                let mut measurement = v2::run(&load, *kind, &process)?;
                measurement.server_private_bytes = Some(process.memory()?.private_bytes);
                Ok(measurement)
            }
            Procedure::MemoryUnderRanges { workload, connections } => {
                self.memory_under_ranges(server, workload, *connections)
            }
        }
    }

    fn load(&self, server: &Server, connections: u32, streams: u32) -> Load {
        Load {
            endpoints: vec![server.endpoint()],
            connections,
            streams,
            threads: self.threads,
            rate: None,
            warmup: self.warmup,
            extent: Extent::Duration(self.duration),
            epoch: Instant::now(),
        }
    }

    /// Writes every key of a workload once and returns how that went.
    fn fill(&self, server: &Server, workload: &Workload) -> Result<Measurement, SuiteError> {
        let load = self.load(server, FILL_CONNECTIONS, FILL_STREAMS);
        fill(&load, workload, Some(&server.process()))
    }

    fn fill_and_restart(
        &self,
        server: &mut Server,
        workload: &Workload,
    ) -> Result<Measurement, SuiteError> {
        let mut measurement = self.fill(server, workload)?;
        std::thread::sleep(SETTLE);
        let full = server.process().memory()?;
        let status = Control::connect(&server.endpoint())?.status()?;
        let restart = server.restart()?;
        std::thread::sleep(SETTLE);
        let restarted = server.process().memory()?;
        measurement.server_private_bytes = Some(full.private_bytes);
        let extra = &mut measurement.extra;
        extra.insert("anonymous_bytes", as_f64(full.anonymous_bytes));
        extra.insert("private_bytes_after_restart", as_f64(restarted.private_bytes));
        extra.insert("anonymous_bytes_after_restart", as_f64(restarted.anonymous_bytes));
        extra.insert("restart_seconds", restart.as_secs_f64());
        extra.insert("db_bytes", as_f64(u64::try_from(status.db_size).unwrap_or(0)));
        Ok(measurement)
    }

    fn memory_under_ranges(
        &self,
        server: &Server,
        workload: &Workload,
        connections: u32,
    ) -> Result<Measurement, SuiteError> {
        self.fill(server, workload)?;
        // One answer first, so that pages of the file count as before.
        let once = Load { extent: Extent::Total(1), ..self.load(server, 1, 1) };
        run(&Load { warmup: Duration::ZERO, ..once }, workload, None)?;
        std::thread::sleep(SETTLE);
        let process = server.process();
        let before = process.memory()?;
        // Each connection gets its answer twice: an answer may take longer than the duration.
        let extent = Extent::Total(u64::from(connections) * 2);
        let load = Load { warmup: Duration::ZERO, extent, ..self.load(server, connections, 1) };
        let stop = Arc::new(AtomicBool::new(false));
        let peak = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || memory_peak(process, &stop))
        };
        let outcome = run(&load, workload, Some(&process));
        stop.store(true, Ordering::Relaxed);
        let (private, anonymous) = peak.join().expect("sampling does not panic");
        let mut measurement = outcome?.measurement();
        let growth = |peak: u64, before: u64| as_f64(peak) - as_f64(before);
        measurement.server_private_bytes = Some(private);
        let extra = &mut measurement.extra;
        extra.insert("private_bytes_before", as_f64(before.private_bytes));
        extra.insert("private_bytes_growth", growth(private, before.private_bytes));
        extra.insert("anonymous_bytes_growth", growth(anonymous, before.anonymous_bytes));
        Ok(measurement)
    }
}

/// Writes every key of a workload once.
///
/// # Errors
/// If a single write fails.
pub(crate) fn fill(
    load: &Load,
    workload: &Workload,
    server: Option<&Process>,
) -> Result<Measurement, SuiteError> {
    let batch = (FILL_BYTES_MAX / workload.value_size.max(1)).clamp(1, FILL_BATCH_MAX);
    let batch = batch.min(usize::try_from(workload.key_space).unwrap_or(usize::MAX));
    let kind = Kind::Fill { batch: u32::try_from(batch).expect("clamped above") };
    let workload = Workload { kind, ..workload.clone() };
    let extent = Extent::Total(workload.fill_requests());
    let load = Load { warmup: Duration::ZERO, rate: None, extent, ..load.clone() };
    let mut measurement = run(&load, &workload, server)?.measurement();
    if measurement.errors > 0 {
        let first = measurement.first_error.unwrap_or_else(|| "refused".to_owned());
        return Err(SuiteError::Fill { errors: measurement.errors, first });
    }
    // Keys are what was asked for; the latencies are those of the txns that wrote them.
    let txns = measurement.operations;
    let per_key = |micros: f64| micros * as_f64(txns) / as_f64(workload.key_space);
    let server = measurement.server_cpu_micros_per_operation.map(per_key);
    let client = measurement.client_cpu_micros_per_operation.map(per_key);
    measurement.server_cpu_micros_per_operation = server;
    measurement.client_cpu_micros_per_operation = client;
    measurement.operations = workload.key_space;
    measurement.throughput = as_f64(workload.key_space) / measurement.seconds;
    measurement.extra.insert("txns", as_f64(txns));
    Ok(measurement)
}

/// Runs a load and adds the server's memory, and its words about the first error.
fn measured(load: &Load, workload: &Workload, server: &Server) -> Result<Measurement, SuiteError> {
    let process = server.process();
    let mut measurement = run(load, workload, Some(&process))?.measurement();
    if measurement.errors > 0 && measurement.first_error.is_none() {
        measurement.first_error = explain(&Control::connect(&server.endpoint())?, workload);
    }
    measurement.server_private_bytes = Some(process.memory()?.private_bytes);
    Ok(measurement)
}

/// Asks once more, slowly, to learn what the server says to a failing request.
pub(crate) fn explain(control: &Control, workload: &Workload) -> Option<String> {
    if workload.keeps_streams() {
        return Some("a stream ended".to_owned());
    }
    let mut generator = workload.generator(0, &Arc::default());
    let request = generator.next(0);
    let answer = control.call(request.path, bytes::Bytes::copy_from_slice(request.message));
    answer.err().map(|error| chain(&error))
}

/// The highest memory seen until told to stop: private, and the part without files.
fn memory_peak(process: Process, stop: &AtomicBool) -> (u64, u64) {
    let mut peak = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let memory = process.memory().unwrap_or_default();
        peak = (peak.0.max(memory.private_bytes), peak.1.max(memory.anonymous_bytes));
        std::thread::sleep(MEMORY_POLL);
    }
    peak
}
