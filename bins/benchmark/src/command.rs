//! From the command line to a workload, a suite, and their reports.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::cluster_suite::{self, ClusterSuite};
use crate::connection::Endpoint;
use crate::control::{Control, ControlError};
use crate::flags::{ClusterFlags, Command, Flags, LoadFlags, SuiteFlags};
use crate::load::{Load, chain};
use crate::measurement::Measurement;
use crate::process::{Process, ProcessError};
use crate::progress::Progress;
use crate::suite::{Suite, SuiteError};
use crate::watch::WatchLoad;
use crate::workload::{Kind, Workload};
use crate::{interrupt, load, measures, report, suite, watch};

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
enum BenchmarkError {
    #[error("running the workload")]
    Run(#[from] SuiteError),
    #[error("preparing the workload")]
    Control(#[from] ControlError),
    #[error("reading the server's memory")]
    Process(#[from] ProcessError),
    #[error("unknown measure {0:?}; --list shows all")]
    UnknownMeasure(String),
    #[error("listening to signals")]
    Signals(#[source] std::io::Error),
    #[error("writing {}", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What a workload command does to each server.
enum Task {
    Load(Kind),
    Fill,
    KeepAlive,
    Watch { watchers: u32, keys: u64, puts: bool },
}

/// Runs the program; its exit code.
pub(crate) fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<ExitCode, BenchmarkError> {
    let (load, task) = match flags.command {
        Command::Put(load) => (load, Task::Load(Kind::Put)),
        Command::Txn(load) => (load, Task::Load(Kind::Txn)),
        Command::Fill(load) => (load, Task::Fill),
        Command::Mixed(flags) => {
            (flags.load, Task::Load(Kind::Mixed { read_percent: flags.read_percent }))
        }
        Command::Range(flags) => {
            let (keys, limit, serializable) = (flags.keys, flags.limit, flags.serializable);
            (flags.load, Task::Load(Kind::Range { keys, limit, serializable }))
        }
        Command::Lease(flags) if flags.keep_alive => (flags.load, Task::KeepAlive),
        Command::Lease(flags) => (flags.load, Task::Load(Kind::LeaseGrant)),
        Command::Watch(flags) => {
            let (watchers, keys) = (flags.watchers, u64::from(flags.watched_keys));
            (flags.load, Task::Watch { watchers, keys, puts: !flags.no_puts })
        }
        Command::Suite(flags) => return run_suite(flags),
        Command::Cluster(flags) => return run_cluster_suite(flags),
    };
    run_workload(&load, &task)
}

/// Runs a workload on the baseline, if there is one, and on the endpoints.
fn run_workload(flags: &LoadFlags, task: &Task) -> Result<ExitCode, BenchmarkError> {
    let progress = Progress::new();
    let mut sides = Vec::new();
    if let Some(baseline) = &flags.baseline {
        let load = Load { endpoints: vec![baseline.clone()], ..flags.load() };
        progress.say(&format!("baseline {baseline}"));
        sides.push((baseline.to_string(), run_task(flags, task, load, flags.baseline_pid)?));
    }
    let endpoints: Vec<_> = flags.endpoints.iter().map(Endpoint::to_string).collect();
    let endpoints = endpoints.join(",");
    progress.say(&endpoints);
    sides.push((endpoints, run_task(flags, task, flags.load(), flags.pid)?));
    drop(progress);
    let failed = sides.iter().any(|(_, measurement)| measurement.errors > 0);
    write(flags.json.as_ref(), &report::workload_text(&sides), &sides)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_task(
    flags: &LoadFlags,
    task: &Task,
    load: Load,
    process_id: Option<u32>,
) -> Result<Measurement, BenchmarkError> {
    let process = process_id.map(Process::new);
    let control = Control::connect(&load.endpoints[0])?;
    control.linearizable_get()?;
    if flags.fill {
        suite::fill(&load, &flags.workload(Kind::Put), None)?;
    }
    let mut measurement = match task {
        Task::Load(kind) => closed_loop(&control, &load, &flags.workload(kind.clone()), process)?,
        Task::KeepAlive => {
            let leases = control.grant_leases(load.connections.saturating_mul(load.streams))?;
            let kind = Kind::LeaseKeepAlive { leases: leases.into() };
            closed_loop(&control, &load, &flags.workload(kind), process)?
        }
        Task::Fill => suite::fill(&load, &flags.workload(Kind::Put), process.as_ref())?,
        Task::Watch { watchers, keys, puts } => {
            let puts = puts.then(|| Workload {
                key_space: *keys,
                sequential: true,
                ..flags.workload(Kind::StampedPut)
            });
            let watch_load = WatchLoad {
                load,
                watchers: *watchers,
                puts,
                key_size: flags.key_size,
                key_space: *keys,
            };
            watch::watch(&watch_load, process.as_ref()).map_err(SuiteError::from)?
        }
    };
    if let (Some(process), None) = (process, measurement.server_private_bytes) {
        measurement.server_private_bytes = Some(process.memory()?.private_bytes);
    }
    Ok(measurement)
}

fn closed_loop(
    control: &Control,
    load: &Load,
    workload: &Workload,
    process: Option<Process>,
) -> Result<Measurement, BenchmarkError> {
    let outcome = load::run(load, workload, process.as_ref()).map_err(SuiteError::from)?;
    let mut measurement = outcome.measurement();
    if measurement.errors > 0 && measurement.first_error.is_none() {
        measurement.first_error = suite::explain(control, workload);
    }
    Ok(measurement)
}

fn run_suite(flags: SuiteFlags) -> Result<ExitCode, BenchmarkError> {
    let all = measures::all();
    if flags.list {
        for measure in &all {
            println!("{}", measure.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    for name in &flags.only {
        if !all.iter().any(|measure| measure.name.starts_with(name.as_str())) {
            return Err(BenchmarkError::UnknownMeasure(name.clone()));
        }
    }
    let wanted = |name: &str| {
        flags.only.is_empty() || flags.only.iter().any(|only| name.starts_with(only.as_str()))
    };
    let measures: Vec<_> = all.into_iter().filter(|measure| wanted(measure.name)).collect();
    let json = flags.json.clone();
    let work_folder = work_folder(flags.work_dir)?;
    let suite = Suite {
        ours: flags.ours,
        theirs: flags.theirs,
        arguments: flags.server_flags,
        duration: flags.duration,
        warmup: flags.warmup,
        threads: flags.threads,
        rounds: flags.rounds,
        fill_keys: flags.fill_keys,
        work_folder: work_folder.clone(),
    };
    let progress = Progress::new();
    let result = suite.run(&measures, &progress);
    drop(progress);
    finish(result, &work_folder, json.as_ref())
}

fn run_cluster_suite(flags: ClusterFlags) -> Result<ExitCode, BenchmarkError> {
    let ClusterFlags { suite: flags, members, failures, pause, catch_up_bytes } = flags;
    if flags.list {
        cluster_suite::names().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let only = flags.only.clone();
    for name in &only {
        if !cluster_suite::names().any(|measure| measure.starts_with(name.as_str())) {
            return Err(BenchmarkError::UnknownMeasure(name.clone()));
        }
    }
    let wanted =
        |name: &str| only.is_empty() || only.iter().any(|only| name.starts_with(only.as_str()));
    let json = flags.json.clone();
    let work_folder = work_folder(flags.work_dir)?;
    let suite = ClusterSuite {
        ours: flags.ours,
        theirs: flags.theirs,
        arguments: flags.server_flags,
        members: usize::try_from(members).expect("a few members"),
        duration: flags.duration,
        warmup: flags.warmup,
        threads: flags.threads,
        rounds: flags.rounds,
        failures,
        pause,
        catch_up_bytes,
        work_folder: work_folder.clone(),
    };
    let progress = Progress::new();
    let result = suite.run(wanted, &progress);
    drop(progress);
    finish(result, &work_folder, json.as_ref())
}

/// Where servers keep their data; removed when the program is interrupted.
fn work_folder(work_dir: Option<PathBuf>) -> Result<PathBuf, BenchmarkError> {
    let own = format!("retcd-benchmark-{}", std::process::id());
    let work_folder = work_dir.unwrap_or_else(std::env::temp_dir).join(own);
    interrupt::clean_up_on_signals(work_folder.clone()).map_err(BenchmarkError::Signals)?;
    Ok(work_folder)
}

/// Cleans up and reports.
fn finish(
    result: Result<suite::Report, SuiteError>,
    work_folder: &Path,
    json: Option<&PathBuf>,
) -> Result<ExitCode, BenchmarkError> {
    if let Err(error) = std::fs::remove_dir_all(work_folder) {
        eprintln!("Warning: {} is left behind: {error}", work_folder.display());
    }
    let report = result?;
    write(json, &report::suite_text(&report), &report)?;
    let failed = !report.failures.is_empty()
        || report.comparisons.iter().any(|comparison| comparison.met == Some(false));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the text, unless JSON takes its place on the output.
fn write(
    json: Option<&PathBuf>,
    text: &str,
    value: &impl serde::Serialize,
) -> Result<(), BenchmarkError> {
    if json.is_none_or(|path| path.as_os_str() != "-") {
        print!("{text}");
    }
    let Some(path) = json else { return Ok(()) };
    report::write_json(path, value)
        .map_err(|source| BenchmarkError::Json { path: path.clone(), source })
}
