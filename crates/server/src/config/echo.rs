//! The line of all settings in force, which supervisors and tests read. SRV-014.
//!
//! Names and order of the fields are those of etcd 3.7's line "starting an etcd server"; what says
//! something about Go is left out.

use std::thread::available_parallelism;

use serde_json::Value;

use super::duration::GoDuration;
use super::help::{architecture, git_sha};
use super::model::{AutoCompaction, Bootstrap, Config, Discovery, Quota};
use super::{Gate, Notice};
use base::member_url::{Address, MemberUrl};

/// What is known about a start beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFacts {
    /// Whether the member has data already.
    pub member_initialized: bool,
    /// The cluster it founds or joins, as text; empty if it has data.
    pub initial_cluster: String,
}

/// Writes the settings in force to the log.
pub fn log_start(config: &Config, facts: &StartFacts) {
    start_notice(config, facts).log();
}

/// The line as a value.
fn start_notice(config: &Config, facts: &StartFacts) -> Notice {
    let cpus = available_parallelism().map_or(1, usize::from);
    let program = vec![
        ("etcd-version", Value::from(base::version::COMPATIBLE)),
        ("git-sha", git_sha().into()),
        ("product-version", base::version::PRODUCT.into()),
        ("go-os", std::env::consts::OS.into()),
        ("go-arch", architecture().into()),
        ("max-cpu-set", cpus.into()),
        ("max-cpu-available", cpus.into()),
        ("member-initialized", facts.member_initialized.into()),
    ];
    let fields = [
        program,
        member_fields(config),
        url_fields(config, facts),
        limit_fields(config),
        check_fields(config),
        discovery_fields(config),
    ];
    let mut notice = Notice::info("starting an etcd server");
    notice.fields = fields.concat();
    notice
}

type Fields = Vec<(&'static str, Value)>;

fn member_fields(config: &Config) -> Fields {
    let wal_dir =
        config.storage.wal_dir.as_ref().map_or(String::new(), |dir| dir.display().to_string());
    vec![
        ("name", config.name.as_str().into()),
        ("data-dir", config.storage.data_dir.display().to_string().into()),
        ("wal-dir", wal_dir.as_str().into()),
        ("wal-dir-dedicated", wal_dir.into()),
        ("member-dir", config.member_dir().display().to_string().into()),
        ("force-new-cluster", config.cluster.force_new_cluster.into()),
        ("heartbeat-interval", duration(config.cluster.heartbeat_interval)),
        ("election-timeout", duration(config.cluster.election_timeout())),
        ("initial-election-tick-advance", config.cluster.initial_election_tick_advance.into()),
        ("snapshot-count", config.storage.snapshot_entries.into()),
        ("max-wals", config.storage.wal_files_max.unwrap_or(0).into()),
        ("max-snapshots", config.storage.snapshot_files_max.unwrap_or(0).into()),
        ("snapshot-catchup-entries", config.storage.snapshot_catchup_entries.into()),
    ]
}

fn url_fields(config: &Config, facts: &StartFacts) -> Fields {
    vec![
        ("initial-advertise-peer-urls", urls(&config.advertise.peers)),
        ("listen-peer-urls", urls(&config.listen.peers)),
        ("advertise-client-urls", urls(&config.advertise.clients)),
        ("listen-client-urls", urls(&config.listen.clients)),
        ("listen-metrics-urls", urls(&config.listen.metrics)),
        ("local-address", local_address(config).into()),
        ("cors", config.http.cors.clone().into()),
        ("host-whitelist", config.http.host_whitelist.clone().into()),
        ("initial-cluster", facts.initial_cluster.as_str().into()),
        ("initial-cluster-state", config.cluster.state.as_str().into()),
        ("initial-cluster-token", config.cluster.token.as_str().into()),
    ]
}

fn limit_fields(config: &Config) -> Fields {
    let quota = match config.storage.quota {
        Quota::Bytes(bytes) => bytes.into(),
        Quota::Unlimited => Value::from(-1),
    };
    vec![
        ("quota-backend-bytes", quota),
        ("max-request-bytes", config.limits.request_bytes_max.into()),
        ("max-concurrent-streams", config.limits.concurrent_streams_max.into()),
        ("pre-vote", config.cluster.pre_vote.into()),
        ("feature-gates", config.features.gates.to_string().into()),
    ]
}

fn check_fields(config: &Config) -> Fields {
    let (mode, retention) = match config.compaction.auto {
        AutoCompaction::Off => ("periodic", GoDuration::from_nanoseconds(0)),
        AutoCompaction::Periodic(time) => ("periodic", time.into()),
        // etcd prints the count as if it were nanoseconds.
        AutoCompaction::Revision(count) => {
            ("revision", GoDuration::from_nanoseconds(i64::try_from(count).unwrap_or(i64::MAX)))
        }
    };
    let features = &config.features;
    vec![
        ("initial-corrupt-check", features.gates.is_enabled(Gate::InitialCorruptCheck).into()),
        (
            "corrupt-check-time-interval",
            duration(features.corrupt_check_interval.unwrap_or_default()),
        ),
        ("compact-check-time-interval", duration(features.compact_hash_check_interval)),
        ("auto-compaction-mode", mode.into()),
        ("auto-compaction-retention", retention.to_string().into()),
        ("auto-compaction-interval", retention.to_string().into()),
    ]
}

fn discovery_fields(config: &Config) -> Fields {
    let none = Discovery::default();
    let (url, discovery) = match &config.bootstrap {
        Bootstrap::DiscoveryUrl { url, .. } => (url.as_str(), &none),
        Bootstrap::Discovery(discovery) => ("", &**discovery),
        Bootstrap::Static(_) | Bootstrap::Srv { .. } => ("", &none),
    };
    vec![
        ("discovery-url", url.into()),
        ("discovery-token", discovery.token.as_str().into()),
        ("discovery-endpoints", discovery.endpoints.join(",").into()),
        ("discovery-dial-timeout", duration(discovery.dial_timeout)),
        ("discovery-request-timeout", duration(discovery.request_timeout)),
        ("discovery-keepalive-time", duration(discovery.keepalive_time)),
        ("discovery-keepalive-timeout", duration(discovery.keepalive_timeout)),
        ("discovery-insecure-transport", discovery.insecure_transport.into()),
        ("discovery-insecure-skip-tls-verify", discovery.insecure_skip_verify.into()),
        ("discovery-cert", discovery.cert_file.as_str().into()),
        ("discovery-key", discovery.key_file.as_str().into()),
        ("discovery-cacert", discovery.ca_file.as_str().into()),
        ("discovery-user", discovery.user.as_str().into()),
        ("downgrade-check-interval", duration(config.features.downgrade_check_interval)),
        ("max-learners", config.cluster.learners_max.into()),
        ("enable-v2", config.http.v2.into()),
        ("v2-deprecation", "write-only".into()),
    ]
}

/// The address connections to peers leave from, if the gate SetMemberLocalAddr is on: the first
/// advertised address that others can reach. SRV-145.
fn local_address(config: &Config) -> String {
    if !config.features.gates.is_enabled(Gate::SetMemberLocalAddr) {
        return String::new();
    }
    let addresses = config.advertise.peers.iter().filter_map(|url| match url.address() {
        Address::Tcp { host, .. } => host.parse::<std::net::IpAddr>().ok(),
        Address::Unix(_) => None,
    });
    addresses
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .map(|address| address.to_string())
        .next()
        .unwrap_or_default()
}

fn duration(duration: std::time::Duration) -> Value {
    GoDuration::from(duration).to_string().into()
}

fn urls(urls: &[MemberUrl]) -> Value {
    urls.iter().map(MemberUrl::as_str).collect::<Vec<_>>().into()
}

#[cfg(test)]
pub(super) fn start_fields(config: &Config) -> serde_json::Map<String, Value> {
    let facts = StartFacts { member_initialized: false, initial_cluster: "a=b".to_owned() };
    let fields = start_notice(config, &facts).fields;
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
