//! The table of measures of three members: throughput, and what their faults cost clients.
//!
//! As in `suite.rs` every measure gets a fresh cluster and only one runs at a time. Times of faults
//! are taken from outside, with requests that are sent every few milliseconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, ClusterError};
use crate::disk;
use crate::faults;
use crate::load::{Extent, Load, LoadError, chain, run};
use crate::measurement::{Measurement, as_f64, median_run};
use crate::progress::Progress;
use crate::suite::{Report, SuiteError, fill};
use crate::target::Metric::{
    CatchUp, FailedWrites, Failover, Handover, MedianLatency, P99Growth, P99Latency, Rejoin,
    ServerCpu, TermChanges, Throughput,
};
use crate::target::Target::{AtMost, RatioAtLeast, RatioAtMost, Reported};
use crate::target::{Comparison, Metric, Target};
use crate::workload::{Kind, Workload};

/// What to run on what.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSuite {
    /// Our server's program.
    pub(crate) ours: Option<PathBuf>,
    /// The other server's.
    pub(crate) theirs: Option<PathBuf>,
    /// Flags that both get besides those of every server.
    pub(crate) arguments: Vec<String>,
    /// Members of a cluster.
    pub(crate) members: usize,
    /// Measured time of each workload.
    pub(crate) duration: Duration,
    /// Time before it.
    pub(crate) warmup: Duration,
    /// Client threads.
    pub(crate) threads: u32,
    /// How often each measure is run on each cluster.
    pub(crate) rounds: u32,
    /// How often a leader fails.
    pub(crate) failures: u32,
    /// How long a member is paused.
    pub(crate) pause: Duration,
    /// What a new member has to catch up with.
    pub(crate) catch_up_bytes: u64,
    /// Where members keep their data.
    pub(crate) work_folder: PathBuf,
}

/// Why a measure yielded nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    /// The cluster.
    #[error("running the cluster")]
    Cluster(#[from] ClusterError),
    /// The load.
    #[error("running the load")]
    Load(#[from] LoadError),
    /// The keys.
    #[error("writing keys")]
    Fill(#[from] SuiteError),
}

/// Which members are asked.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Leader,
    Follower,
    All,
}

/// How a measure is taken.
#[derive(Debug, Clone, Copy)]
enum Procedure {
    Put { connections: u32, asked: Asked },
    Get { connections: u32, asked: Asked },
    Failover,
    Handover,
    CatchUp,
    Pause,
}

struct Measure {
    name: &'static str,
    procedure: Procedure,
    figures: &'static [(Metric, Target)],
}

const PUT_MANY: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(3.0)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, RatioAtMost(1.0 / 3.0)),
];
const PUT_ONE: &[(Metric, Target)] =
    &[(MedianLatency, RatioAtMost(0.7)), (P99Latency, Reported), (ServerCpu, Reported)];
const GET_MANY: &[(Metric, Target)] = &[
    (Throughput, RatioAtLeast(2.5)),
    (MedianLatency, Reported),
    (P99Latency, Reported),
    (ServerCpu, Reported),
];

/// The measures in the order in which they are run.
const MEASURES: &[Measure] = &[
    Measure {
        name: "put-64-leader",
        procedure: Procedure::Put { connections: 64, asked: Asked::Leader },
        figures: PUT_MANY,
    },
    Measure {
        name: "put-64-all",
        procedure: Procedure::Put { connections: 64, asked: Asked::All },
        figures: PUT_MANY,
    },
    Measure {
        name: "put-1",
        procedure: Procedure::Put { connections: 1, asked: Asked::Leader },
        figures: PUT_ONE,
    },
    Measure {
        name: "get-64-follower",
        procedure: Procedure::Get { connections: 64, asked: Asked::Follower },
        figures: GET_MANY,
    },
    Measure {
        name: "failover",
        procedure: Procedure::Failover,
        figures: &[(Failover, AtMost(1.5))],
    },
    Measure {
        name: "handover",
        procedure: Procedure::Handover,
        figures: &[(Handover, AtMost(300.0)), (FailedWrites, AtMost(0.0))],
    },
    Measure {
        name: "catch-up",
        procedure: Procedure::CatchUp,
        figures: &[(CatchUp, Reported), (P99Growth, AtMost(2.0))],
    },
    Measure {
        name: "pause",
        procedure: Procedure::Pause,
        figures: &[(FailedWrites, AtMost(0.0)), (TermChanges, AtMost(0.0)), (Rejoin, Reported)],
    },
];

/// The names of the measures.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MEASURES.iter().map(|measure| measure.name)
}

const KEY_SIZE: usize = 16;
const VALUE_SIZE: usize = 256;
const KEY_SPACE: u64 = 10_000;

impl ClusterSuite {
    /// Runs the measures whose names are wanted, and compares. A measure that fails is reported,
    /// and the others still run.
    ///
    /// # Errors
    /// If the work folder is not usable.
    pub(crate) fn run(
        &self,
        wanted: impl Fn(&str) -> bool,
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
        for measure in MEASURES.iter().filter(|measure| wanted(measure.name)) {
            self.run_measure(measure, progress, &mut report);
        }
        Ok(report)
    }

    fn run_measure(&self, measure: &Measure, progress: &Progress, report: &mut Report) {
        let sides = [("theirs", &self.theirs), ("ours", &self.ours)];
        let mut rounds: BTreeMap<&'static str, Vec<Measurement>> = BTreeMap::new();
        for round in 1..=self.rounds {
            for (side, program) in sides {
                let Some(program) = program else { continue };
                progress.say(&format!("{} on {side}, round {round}", measure.name));
                let folder = self.work_folder.join(format!("{}-{side}-{round}", measure.name));
                match self.run_once(measure, program, side, &folder, report) {
                    Ok(measurement) => rounds.entry(side).or_default().push(measurement),
                    Err(error) => {
                        report.failures.push((measure.name.to_owned(), side, chain(&error)));
                    }
                }
                // What cannot be removed lies below the work folder, whose removal is reported.
                fs::remove_dir_all(&folder).ok();
            }
        }
        let results: BTreeMap<_, _> =
            rounds.into_iter().map(|(side, runs)| (side, median_run(runs))).collect();
        for figure in measure.figures {
            let (theirs, ours) = (results.get("theirs"), results.get("ours"));
            report.comparisons.push(Comparison::new(measure.name, *figure, theirs, ours));
        }
        report.measurements.insert(measure.name.to_owned(), results);
    }

    fn run_once(
        &self,
        measure: &Measure,
        program: &Path,
        side: &'static str,
        folder: &Path,
        report: &mut Report,
    ) -> Result<Measurement, MeasureError> {
        let mut cluster = Cluster::start(program, &self.arguments, folder, self.members)?;
        if !report.versions.contains_key(side) {
            report.versions.insert(side, cluster.status(0)?.version);
        }
        match measure.procedure {
            Procedure::Put { connections, asked } => {
                let load = self.load(&cluster, connections, asked)?;
                measured(&cluster, &load, &workload(Kind::Put))
            }
            Procedure::Get { connections, asked } => {
                let kind = Kind::Range { keys: 1, limit: 0, serializable: false };
                let load = self.load(&cluster, connections, asked)?;
                fill(&self.load(&cluster, 4, Asked::Leader)?, &workload(Kind::Put), None)?;
                measured(&cluster, &load, &workload(kind))
            }
            Procedure::Failover => Ok(faults::failover(&mut cluster, self.failures)?),
            Procedure::Handover => Ok(faults::handover(&mut cluster, self.failures)?),
            Procedure::CatchUp => {
                let value_size = 8 << 10;
                let key_space = (self.catch_up_bytes / value_size).max(1);
                let value_size = usize::try_from(value_size).expect("a few kilobytes");
                let keys = Workload { value_size, key_space, ..workload(Kind::Put) };
                fill(&self.load(&cluster, 4, Asked::Leader)?, &keys, None)?;
                let bytes = key_space * as_u64(value_size);
                Ok(faults::catch_up(&mut cluster, bytes, self.duration)?)
            }
            Procedure::Pause => Ok(faults::pause(&mut cluster, self.pause)?),
        }
    }

    fn load(
        &self,
        cluster: &Cluster,
        connections: u32,
        asked: Asked,
    ) -> Result<Load, MeasureError> {
        let leader = cluster.leader()?;
        let numbers = match asked {
            Asked::Leader => vec![leader],
            Asked::Follower => {
                let others = cluster.up().into_iter().filter(|number| *number != leader);
                others.take(1).collect()
            }
            Asked::All => cluster.up(),
        };
        Ok(Load {
            endpoints: cluster.endpoints(&numbers),
            connections,
            streams: 1,
            threads: self.threads,
            rate: None,
            warmup: self.warmup,
            extent: Extent::Duration(self.duration),
            epoch: Instant::now(),
        })
    }
}

fn workload(kind: Kind) -> Workload {
    Workload {
        kind,
        key_size: KEY_SIZE,
        value_size: VALUE_SIZE,
        key_space: KEY_SPACE,
        sequential: false,
    }
}

fn as_u64(size: usize) -> u64 {
    u64::try_from(size).expect("sizes fit")
}

/// Runs a load, with the processor time of all members.
fn measured(
    cluster: &Cluster,
    load: &Load,
    workload: &Workload,
) -> Result<Measurement, MeasureError> {
    // Warmed up by a run of its own, so that all of what is counted below is measured.
    if !load.warmup.is_zero() {
        let extent = Extent::Duration(load.warmup);
        run(&Load { warmup: Duration::ZERO, extent, ..load.clone() }, workload, None)?;
    }
    let begin = cluster.cpu()?;
    let outcome = run(&Load { warmup: Duration::ZERO, ..load.clone() }, workload, None)?;
    let used = cluster.cpu()?.saturating_sub(begin);
    let mut measurement = outcome.measurement();
    let per_operation = used.as_secs_f64() * 1e6 / as_f64(measurement.operations.max(1));
    measurement.server_cpu_micros_per_operation = Some(per_operation);
    Ok(measurement)
}
