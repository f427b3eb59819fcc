//! The command line.
//!
//! Only what was asked for and whether it makes sense; what follows from it is in `main.rs`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use crate::connection::Endpoint;
use crate::load::{Extent, Load};
use crate::template::KEY_BYTES_MIN;
use crate::workload::{Kind, Workload};

/// Puts load on an etcd-compatible server and reports throughput, latencies, processor time and
/// memory; compares two servers.
#[derive(Debug, Parser)]
#[command(name = "benchmark", version)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The workloads.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Writes keys.
    Put(LoadFlags),
    /// Reads a key, or a range of keys.
    Range(RangeFlags),
    /// Compares and writes in one txn.
    Txn(LoadFlags),
    /// Lets watchers see puts.
    Watch(WatchFlags),
    /// Grants leases or keeps them alive.
    Lease(LeaseFlags),
    /// Reads and writes in a random order.
    Mixed(MixedFlags),
    /// Writes every key of the key space once.
    Fill(LoadFlags),
    /// Starts servers and runs the whole table of measures on them.
    Suite(SuiteFlags),
    /// Starts clusters of several members and measures them, and what their faults cost.
    Cluster(ClusterFlags),
}

/// What all workloads have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadFlags {
    /// Servers; connections are spread over them.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Another server, which gets the same load first and whose figures are the ratio's base.
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) baseline: Option<Endpoint>,
    /// The server's process on this machine: its processor time and memory are reported.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// The baseline's process on this machine.
    #[arg(long, requires = "baseline")]
    pub(crate) baseline_pid: Option<u32>,
    /// TCP connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Concurrent requests on each connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) streams: u32,
    /// Client threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// Bytes of a key.
    #[arg(long, default_value_t = 16, value_parser = key_size)]
    pub(crate) key_size: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub(crate) value_size: usize,
    /// Number of different keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=99_000_000))]
    pub(crate) key_space: u64,
    /// Takes keys in order instead of at random.
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Number of requests; ends the run instead of --duration.
    #[arg(long, conflicts_with = "duration")]
    pub(crate) total: Option<u64>,
    /// Measured time, like 500ms, 10s, 2m.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Load before measuring.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Requests per second over all connections, sent at fixed times; as fast as possible if not
    /// given.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Writes every key of the key space before the run.
    #[arg(long)]
    pub(crate) fill: bool,
    /// Writes the result as JSON to a file, or to the output with "-".
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Reads.
#[derive(Debug, Args)]
pub(crate) struct RangeFlags {
    #[command(flatten)]
    pub(crate) load: LoadFlags,
    /// Keys between start and end; 1 is a get of a single key.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keys: u32,
    /// Rows in the answer; 0 is all.
    #[arg(long, default_value_t = 0)]
    pub(crate) limit: u32,
    /// Reads the member's own state without asking for its being current.
    #[arg(long)]
    pub(crate) serializable: bool,
}

/// Watchers. Connections and streams are the watchers'; puts have a connection of their own.
#[derive(Debug, Args)]
pub(crate) struct WatchFlags {
    #[command(flatten)]
    pub(crate) load: LoadFlags,
    /// Number of watchers over all connections and streams.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) watchers: u32,
    /// Number of keys that are watched, by the watchers in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) watched_keys: u32,
    /// Only creates the watchers and reads the server's memory.
    #[arg(long)]
    pub(crate) no_puts: bool,
}

/// Leases.
#[derive(Debug, Args)]
pub(crate) struct LeaseFlags {
    #[command(flatten)]
    pub(crate) load: LoadFlags,
    /// Keeps leases alive, a stream each, instead of granting new ones.
    #[arg(long)]
    pub(crate) keep_alive: bool,
}

/// Reads and writes.
#[derive(Debug, Args)]
pub(crate) struct MixedFlags {
    #[command(flatten)]
    pub(crate) load: LoadFlags,
    /// How many in a hundred requests are gets.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) read_percent: u32,
}

/// The suite.
#[derive(Debug, Args)]
pub(crate) struct SuiteFlags {
    /// Our server's program.
    #[arg(long, value_name = "PROGRAM", required_unless_present_any = ["theirs", "list"])]
    pub(crate) ours: Option<PathBuf>,
    /// The other server's program.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) theirs: Option<PathBuf>,
    /// Names of measures, or beginnings of names; all if not given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Lists the measures.
    #[arg(long)]
    pub(crate) list: bool,
    /// Measured time of each measure.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Load before measuring.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Client threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// How often each measure is run on each server; the median counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Keys of the measure "fill".
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) fill_keys: u64,
    /// One more flag for both servers; may be repeated.
    #[arg(long = "server-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) server_flags: Vec<String>,
    /// Where servers keep their data; a folder in the system's temporary folder if not given.
    /// What the suite puts there is removed at the end.
    #[arg(long)]
    pub(crate) work_dir: Option<PathBuf>,
    /// Writes everything as JSON to a file, or to the output with "-".
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The suite of clusters.
#[derive(Debug, Args)]
pub(crate) struct ClusterFlags {
    /// Programs, times, places.
    #[command(flatten)]
    pub(crate) suite: SuiteFlags,
    /// Members of each cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=7))]
    pub(crate) members: u32,
    /// How often a leader fails.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) failures: u32,
    /// How long a member is paused.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) pause: Duration,
    /// Bytes that a new member has to catch up with.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) catch_up_bytes: u64,
}

impl LoadFlags {
    /// The load of the flags.
    pub(crate) fn load(&self) -> Load {
        Load {
            endpoints: self.endpoints.clone(),
            connections: self.connections,
            streams: self.streams,
            threads: self.threads,
            rate: self.rate,
            warmup: self.warmup,
            extent: self.total.map_or(Extent::Duration(self.duration), Extent::Total),
            epoch: Instant::now(),
        }
    }

    /// A workload with the sizes of the flags.
    pub(crate) fn workload(&self, kind: Kind) -> Workload {
        Workload {
            kind,
            key_size: self.key_size,
            value_size: self.value_size,
            key_space: self.key_space,
            sequential: self.sequential,
        }
    }
}

/// Reads a time like `1.5s`, `200ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| character.is_ascii_alphabetic());
    let (number, unit) = text.split_at(digits.ok_or("a unit is missing: ms, s, m or h")?);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.001..=1e8).contains(&rate) { Ok(rate) } else { Err("not between 0.001 and 1e8".into()) }
}

fn key_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (KEY_BYTES_MIN..=4096).contains(&size) {
        Ok(size)
    } else {
        Err(format!("not between {KEY_BYTES_MIN} and 4096"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn load_flags(arguments: &[&str]) -> LoadFlags {
        let line = ["benchmark", "put"].iter().chain(arguments);
        let Command::Put(flags) = Flags::try_parse_from(line).unwrap().command else {
            panic!("the line says put")
        };
        flags
    }

    #[test]
    fn command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["5", "s", "5x", "-1s", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn defaults_are_one_request_at_a_time_for_ten_seconds() {
        let load = load_flags(&[]).load();
        assert_eq!((load.connections, load.streams, load.threads), (1, 1, 1));
        assert_eq!(load.extent, Extent::Duration(Duration::from_secs(10)));
        assert_eq!(load.rate, None);
    }

    #[test]
    fn total_takes_the_place_of_the_duration() {
        assert_eq!(load_flags(&["--total", "7"]).load().extent, Extent::Total(7));
        let both = ["benchmark", "put", "--total", "7", "--duration", "1s"];
        assert!(Flags::try_parse_from(both).is_err());
    }

    #[test]
    fn endpoints_are_separated_by_commas() {
        let flags = load_flags(&["--endpoints", "127.0.0.1:1,http://127.0.0.1:2"]);
        let endpoints: Vec<_> = flags.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["127.0.0.1:1", "127.0.0.1:2"]);
    }

    #[test]
    fn unusable_values_are_refused() {
        for wrong in [
            ["--key-size", "4"],
            ["--rate", "0"],
            ["--connections", "0"],
            ["--endpoints", "https://127.0.0.1:1"],
        ] {
            let line = ["benchmark", "put"].iter().chain(&wrong);
            assert!(Flags::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn suite_needs_a_server() {
        assert!(Flags::try_parse_from(["benchmark", "suite"]).is_err());
        assert!(Flags::try_parse_from(["benchmark", "suite", "--theirs", "etcd"]).is_ok());
    }
}
