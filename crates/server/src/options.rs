//! What a server is started with: the configuration in the terms of the parts it is made of.

use std::net::IpAddr;
use std::time::Duration;

use crate::auth::Authentication;
use crate::boot::{BootOptions, DiscoveryService, OriginOptions};
use crate::committer::Pace;
use crate::config::{
    Address, AutoCompaction, Bootstrap, Config, Gate, InitialCluster, MemberUrl, MetricsDetail,
};
use crate::grpc::SlowCalls;
use crate::handle::Limits;
use crate::http::Browsers;
use crate::peers::monitor::Checks;
use crate::port::PortLimits;
use ping_policy::PingPolicy;
use storage::LogOptions;

/// The parts' options.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags that have nothing to do with each other")]
pub(crate) struct Options {
    /// The member's place and first members.
    pub(crate) boot: BootOptions,
    /// Limits of requests.
    pub(crate) limits: Limits,
    /// How callers are known.
    pub(crate) authentication: Authentication,
    /// Limits of connections.
    pub(crate) port: PortLimits,
    /// The longest time to open a connection to another member.
    pub(crate) dial_timeout: Duration,
    /// How long another member may say nothing on a stream.
    pub(crate) peer_read_timeout: Duration,
    /// How long writing to another member may make no progress.
    pub(crate) peer_write_timeout: Duration,
    /// One unit of logical time: the heartbeat interval.
    pub(crate) tick: Duration,
    /// The least time without a leader before an election, in ticks.
    pub(crate) election_ticks: u64,
    /// What of the first election timeout goes by as soon as other members are reached, in ticks.
    pub(crate) initial_advance_ticks: Option<u64>,
    /// Whether a member asks before it stands for election.
    pub(crate) pre_vote: bool,
    /// When the database is made durable.
    pub(crate) commit: Pace,
    /// When the log forgets.
    pub(crate) log: LogOptions,
    /// Segments of the log that are kept; `None` for all.
    pub(crate) wal_files_max: Option<usize>,
    /// Between two steps of a compaction.
    pub(crate) compaction_pause: Duration,
    /// When history is forgotten by itself.
    pub(crate) auto_compaction: AutoCompaction,
    /// What clients are told to connect to.
    pub(crate) advertised_client_urls: Vec<String>,
    /// Where other members reach this one.
    pub(crate) advertised_peer_urls: Vec<String>,
    /// How the members' data is compared.
    pub(crate) checks: Checks,
    /// Whether it is measured how long calls take.
    pub(crate) extensive_metrics: bool,
    /// Which calls are logged.
    pub(crate) slow_calls: SlowCalls,
    /// A batch that takes longer to apply is counted and logged.
    pub(crate) slow_apply: Duration,
    /// Whether the v3 API is offered as JSON, too.
    pub(crate) grpc_gateway: bool,
    /// Below which keys of v3 those of v2 are; empty for a tree of their own. `None` if the v2 API is
    /// not served.
    pub(crate) v2: Option<String>,
    /// Whether profiles are offered.
    pub(crate) profiles: bool,
    /// Who may ask from a browser.
    pub(crate) browsers: Browsers,
    /// Whether a member that defragments says that it does not serve.
    pub(crate) stops_on_defrag: bool,
    /// How leases are kept.
    pub(crate) leases: member::LeaseOptions,
    /// The address that connections to other members leave from, if the system does not choose.
    pub(crate) local_address: Option<IpAddr>,
    /// Switches: name, stage, state.
    pub(crate) features: Vec<(&'static str, &'static str, bool)>,
}

/// How long a member that is just ending may keep the database: it ends within this time (C10), and
/// whoever starts a second member on the same folder learns of it in time (C12).
const LOCK_TIMEOUT: Duration = Duration::from_millis(1500);

/// A wait without an end, for timers that take one.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

impl Options {
    pub(crate) fn new(
        config: &Config,
        cluster: InitialCluster,
        authentication: Authentication,
    ) -> Self {
        let election_timeout = config.cluster.election_timeout();
        let texts = |urls: &[MemberUrl]| urls.iter().map(ToString::to_string).collect();
        Self {
            boot: BootOptions {
                data_dir: config.storage.data_dir.clone(),
                wal_dir: config.storage.wal_dir.clone(),
                origin: origin(config, cluster),
                storage: storage(config, election_timeout),
            },
            authentication,
            limits: limits(config, election_timeout),
            port: Self::port_limits(config),
            dial_timeout: Duration::from_secs(1) + election_timeout,
            peer_read_timeout: config.cluster.peer_read_timeout,
            peer_write_timeout: config.cluster.peer_write_timeout,
            tick: config.cluster.heartbeat_interval,
            election_ticks: config.cluster.election_ticks.into(),
            initial_advance_ticks: initial_advance_ticks(config),
            pre_vote: config.cluster.pre_vote,
            commit: Pace {
                interval: config.storage.batch_interval,
                changes: to_usize(config.storage.batch_operations_max),
            },
            log: LogOptions {
                snapshot_entries: config.storage.snapshot_entries,
                snapshot_files_max: config.storage.snapshot_files_max.map(to_usize),
                catchup_entries: config.storage.snapshot_catchup_entries,
                ..LogOptions::default()
            },
            wal_files_max: config.storage.wal_files_max.map(to_usize),
            compaction_pause: config.compaction.sleep_interval,
            auto_compaction: config.compaction.auto,
            advertised_client_urls: texts(&config.advertise.clients),
            advertised_peer_urls: texts(&config.advertise.peers),
            checks: checks(config),
            extensive_metrics: config.metrics == MetricsDetail::Extensive,
            slow_calls: SlowCalls {
                longer_than: config.logging.slow_request_min,
                read_longer_than: config.logging.slow_apply_min,
            },
            slow_apply: config.logging.slow_apply_min,
            grpc_gateway: config.http.grpc_gateway,
            v2: config.http.v2.then(|| config.http.v2_over_v3.clone()),
            profiles: config.http.pprof || config.logging.is_debug(),
            browsers: Browsers {
                origins: config.http.cors.clone(),
                hosts: config.http.host_whitelist.clone(),
            },
            stops_on_defrag: config.features.gates.is_enabled(Gate::StopGRPCServiceOnDefrag),
            leases: leases(config),
            local_address: local_address(config),
            features: features(config),
        }
    }

    /// How a port treats its connections.
    pub(crate) fn port_limits(config: &Config) -> PortLimits {
        let keep_alive = config.limits.keep_alive;
        PortLimits {
            concurrent_streams_max: config.limits.concurrent_streams_max,
            keepalive_interval: keep_alive.interval.unwrap_or(FOR_EVER),
            keepalive_timeout: keep_alive.timeout.unwrap_or(FOR_EVER),
            pings: PingPolicy::new(keep_alive.client_interval_min),
        }
    }
}

fn origin(config: &Config, cluster: InitialCluster) -> OriginOptions {
    let (token, discovery) = match &config.bootstrap {
        // Who meets by a token is one cluster by it, too.
        Bootstrap::Discovery(discovery) => {
            (&discovery.token, Some(DiscoveryService::V3(discovery.clone())))
        }
        Bootstrap::DiscoveryUrl { url, proxy } => {
            (url, Some(DiscoveryService::V2 { url: url.clone(), proxy: proxy.clone() }))
        }
        Bootstrap::Static(_) | Bootstrap::Srv { .. } => (&config.cluster.token, None),
    };
    OriginOptions {
        name: config.name.clone(),
        state: config.cluster.state,
        cluster,
        token: token.clone(),
        discovery,
        learners_max: config.cluster.learners_max,
        request_timeout: config.request_timeout(),
    }
}

fn storage(config: &Config, election_timeout: Duration) -> storage::BootOptions {
    let unsafe_no_sync = config.storage.unsafe_no_fsync;
    storage::BootOptions {
        wal: wal::Options { unsafe_no_sync, ..wal::Options::default() },
        backend: backend::Options {
            sync: !unsafe_no_sync,
            lock_timeout: Some(LOCK_TIMEOUT),
            ..backend::Options::default()
        },
        state: state_options(config, election_timeout),
        force_new_cluster: config.cluster.force_new_cluster,
        shrink_bytes_min: config.storage.bootstrap_defrag_threshold_bytes,
    }
}

fn state_options(config: &Config, election_timeout: Duration) -> state::Options {
    // L-02: one and a half election timeouts, in whole seconds, rounded up.
    let lease_millis = election_timeout.as_millis() * 3 / 2;
    state::Options {
        lease_ttl_seconds_min: i64::try_from(lease_millis.div_ceil(1000)).unwrap_or(i64::MAX),
        learners_max: config.cluster.learners_max,
        mvcc: mvcc::Options {
            compact_batch_rows: to_usize(config.compaction.batch_revisions_max),
            ..mvcc::Options::default()
        },
    }
}

/// All but two ticks, in which a leader would be heard. Source: etcd server/etcdserver/server.go
/// (`adjustTicks`).
fn initial_advance_ticks(config: &Config) -> Option<u64> {
    let ticks = u64::from(config.cluster.election_ticks).saturating_sub(2);
    config.cluster.initial_election_tick_advance.then_some(ticks)
}

fn limits(config: &Config, election_timeout: Duration) -> Limits {
    Limits {
        request_bytes_max: to_usize(config.limits.request_bytes_max),
        txn_ops_max: to_usize(config.limits.txn_operations_max),
        quota: config.storage.quota,
        // G-012: five seconds for the disk, two elections for the leader.
        request_timeout: Duration::from_secs(5) + election_timeout * 2,
        watch_progress_interval: config.features.watch_progress_interval,
        election_timeout,
        strict_reconfiguration: config.cluster.strict_reconfig_check,
        urgent_first: config.features.gates.is_enabled(Gate::PriorityRequest),
    }
}

fn checks(config: &Config) -> Checks {
    let features = &config.features;
    let gates = &features.gates;
    Checks {
        initial: gates.is_enabled(Gate::InitialCorruptCheck),
        periodic: features.corrupt_check_interval,
        // The hashes are there anyway: compared unless that is turned off (G5).
        compactions: (gates.chosen(Gate::CompactHashCheck) != Some(false))
            .then_some(features.compact_hash_check_interval),
        downgrade: features.downgrade_check_interval,
    }
}

fn leases(config: &Config) -> member::LeaseOptions {
    let gates = &config.features.gates;
    member::LeaseOptions {
        // Without them a lease may live on for ever, so only who says so goes without.
        checkpoints: gates.chosen(Gate::LeaseCheckpoint) != Some(false),
        renews_at_once: gates.is_enabled(Gate::FastLeaseKeepAlive),
    }
}

/// SRV-145. Source: etcd server/embed/config.go (`InferLocalAddr`).
fn local_address(config: &Config) -> Option<IpAddr> {
    if !config.features.gates.is_enabled(Gate::SetMemberLocalAddr) {
        return None;
    }
    let advertised = config.advertise.peers.iter();
    let suitable = advertised.filter_map(|url| match url.address() {
        Address::Tcp { host, .. } => host.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
        Address::Unix(_) => None,
    });
    let found =
        suitable.into_iter().find(|address| !address.is_loopback() && !address.is_unspecified());
    match found {
        Some(address) => tracing::info!(LocalAddr = %address, "setting member local address"),
        None => tracing::warn!(
            "unable to set a member local address due to lack of suitable local addresses"
        ),
    }
    found
}

fn features(config: &Config) -> Vec<(&'static str, &'static str, bool)> {
    let gates = &config.features.gates;
    let feature = |gate: Gate| (gate.name(), gate.stage().name(), gates.is_enabled(gate));
    let groups = gates.groups().map(|(name, stage, on)| (name, stage.name(), on));
    groups.chain(Gate::ALL.into_iter().map(feature)).collect()
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
