//! From a configuration to a running member: the data folder is looked at, the settings are
//! told, and the parts are started with what the configuration means for them.
//!
//! Source: etcd server/embed/etcd.go (order and messages).

use std::net::SocketAddr;
use std::time::Duration;

use crate::boot::BootOptions;
use crate::config::{
    self, ClusterError, Config, DataDir, InitialCluster, MemberUrl, Notice, Quota, Refusal,
    StartFacts,
};
use crate::handle::Limits;
use crate::logging;
use crate::start::{Options, StartError, run};

/// A connection is never asked whether it lives: longer than any machine runs.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Why a member did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its data folder or its cluster is not what it needs.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A listener of a kind that is not built yet.
    #[error("listening on {0} is not supported yet: use an http URL with an IP address")]
    NotYet(MemberUrl),
    /// Starting or running it failed.
    #[error(transparent)]
    Run(#[from] StartError),
}

impl LaunchError {
    /// Writes the error to the log, as one line.
    pub fn log(&self) {
        match self {
            Self::Refused(refusal) => config::log_refusal("failed to start etcd", refusal),
            Self::NotYet(_) | Self::Run(_) => logging::log_failure("failed to start etcd", self),
        }
    }
}

/// Runs the member that `config` describes until a signal or a failure ends it.
///
/// # Errors
///
/// See [`LaunchError`].
pub fn launch(config: &Config) -> Result<(), LaunchError> {
    let (found, notices) = config::open_data_dir(&config.storage.data_dir)?;
    notices.iter().for_each(Notice::log);
    let member_initialized = has_log(config);
    tracing::info!(
        "data-dir" = %config.storage.data_dir.display(),
        "dir-type" = if found == DataDir::Member { "member" } else { "empty" },
        "{}",
        if member_initialized {
            "server has already been initialized"
        } else {
            "Initialize and start etcd server"
        }
    );
    // A restart ignores the initial cluster, right or wrong.
    let cluster = if member_initialized {
        InitialCluster::default()
    } else {
        config.initial_cluster(&config::resolve_host).map_err(refused)?
    };
    let facts = StartFacts { member_initialized, initial_cluster: cluster.to_string() };
    config::log_start(config, &facts);
    run(&options(config, &cluster)?)?;
    Ok(())
}

fn refused(error: ClusterError) -> LaunchError {
    LaunchError::Refused(error.into())
}

/// Whether the log has a segment.
fn has_log(config: &Config) -> bool {
    let Ok(mut entries) = std::fs::read_dir(config.wal_dir()) else {
        return false;
    };
    entries.any(|entry| {
        entry
            .is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "wal"))
    })
}

fn options(config: &Config, cluster: &InitialCluster) -> Result<Options, LaunchError> {
    let keep_alive = config.limits.keep_alive;
    let urls = |urls: &[MemberUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(Options {
        boot: BootOptions {
            data_dir: config.storage.data_dir.clone(),
            wal_dir: config.storage.wal_dir.clone(),
            name: config.name.clone(),
            initial_cluster: cluster
                .members()
                .map(|(name, peer_urls)| (name.to_owned(), urls(peer_urls)))
                .collect(),
            token: config.cluster.token.clone(),
            backend: backend::Options {
                sync: !config.storage.unsafe_no_fsync,
                ..backend::Options::default()
            },
            state: state_options(config),
        },
        limits: limits(config),
        tick: config.cluster.heartbeat_interval,
        election_ticks: config.cluster.election_ticks.into(),
        pre_vote: config.cluster.pre_vote,
        commit_interval: config.storage.batch_interval,
        commit_changes: size(config.storage.batch_operations_max),
        snapshot_entries: config.storage.snapshot_entries,
        snapshot_catchup_entries: config.storage.snapshot_catchup_entries,
        client_addresses: addresses(&config.listen.clients)?,
        metrics_addresses: addresses(&config.listen.metrics)?,
        advertised_client_urls: urls(&config.advertise.clients),
        concurrent_streams_max: config.limits.concurrent_streams_max,
        keepalive_interval: keep_alive.interval.unwrap_or(NEVER),
        keepalive_timeout: keep_alive.timeout.unwrap_or(NEVER),
    })
}

fn limits(config: &Config) -> Limits {
    Limits {
        request_bytes_max: size(config.limits.request_bytes_max),
        txn_ops_max: size(config.limits.txn_operations_max),
        quota_bytes: match config.storage.quota {
            Quota::Bytes(bytes) => Some(bytes),
            Quota::Unlimited => None,
        },
        request_timeout: config.request_timeout(),
        watch_progress_interval: config.features.watch_progress_interval,
        election_timeout: config.cluster.election_timeout(),
    }
}

fn state_options(config: &Config) -> state::Options {
    // L-02: a lease shorter than one and a half elections could end without a leader.
    let ttl_millis = (config.cluster.election_timeout().as_millis() * 3).div_ceil(2);
    state::Options {
        lease_ttl_seconds_min: i64::try_from(ttl_millis.div_ceil(1_000)).unwrap_or(i64::MAX),
        learners_max: config.cluster.learners_max,
        mvcc: mvcc::Options {
            compact_batch_rows: size(config.compaction.batch_revisions_max),
            ..mvcc::Options::default()
        },
    }
}

fn addresses(urls: &[MemberUrl]) -> Result<Vec<SocketAddr>, LaunchError> {
    let address =
        |url: &MemberUrl| url.socket_address().ok_or_else(|| LaunchError::NotYet(url.clone()));
    urls.iter().map(address).collect()
}

/// More than this machine can count is as good as all it can.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
