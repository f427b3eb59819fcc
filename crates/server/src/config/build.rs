//! From settings, which are values by flag name, to the [`Config`] the server uses.
//!
//! Numbers that mean "the default" or "no limit" become that here, so that nobody else has to
//! know about them.

use std::path::PathBuf;
use std::time::Duration;

use super::duration::{GoDuration, parse_duration};
use super::model::{
    Advertise, Auth, AutoCompaction, Bootstrap, Cluster, ClusterState, Compaction, Config,
    Discovery, Features, Http, KeepAlive, Limits, Listen, Logging, MetricsDetail, Proxy, ProxyMode,
    ProxyTimeouts, Quota, Storage, Tls, TlsVersion, Tracing, TransportSecurity,
};
use super::notice::Notice;
use super::refusal::Refusal;
use super::settings::Settings;
use super::tls;
use crate::logging::{self, Format, Level, Output, Rotation};

/// Above it, defragmentation and snapshots take too long.
const QUOTA_BYTES_RECOMMENDED: u64 = 8 * 1024 * 1024 * 1024;
/// Above it, one request can hold up a member.
const REQUEST_BYTES_RECOMMENDED: u64 = 10 * 1024 * 1024;
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Shorter, and a slow disk would look like a lost peer.
const PEER_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// Costs bcrypt knows, and the one it takes for others.
const BCRYPT_COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
const MEGABYTE: u64 = 1024 * 1024;

/// Builds the configuration; `settings` have passed `validate`.
pub(crate) fn build(settings: &Settings, notices: &mut Vec<Notice>) -> Result<Config, Refusal> {
    let builder = &mut Builder { settings, notices };
    Ok(Config {
        name: settings.text("name").to_owned(),
        listen: builder.listen(),
        advertise: Advertise {
            peers: settings.urls("initial-advertise-peer-urls").to_vec(),
            clients: settings.urls("advertise-client-urls").to_vec(),
        },
        cluster: builder.cluster()?,
        bootstrap: builder.bootstrap(),
        storage: builder.storage()?,
        limits: builder.limits(),
        compaction: builder.compaction()?,
        logging: builder.logging()?,
        tls: builder.tls()?,
        auth: builder.auth(),
        http: Http {
            cors: settings.words("cors").to_vec(),
            host_whitelist: settings.words("host-whitelist").to_vec(),
            v2: settings.bool("enable-v2"),
            v2_over_v3: settings.text("experimental-enable-v2v3").to_owned(),
            grpc_gateway: settings.bool("enable-grpc-gateway"),
            pprof: settings.bool("enable-pprof"),
        },
        metrics: builder.metrics(),
        features: builder.features(),
        tracing: Tracing {
            enabled: settings.bool("enable-distributed-tracing"),
            address: settings.text("distributed-tracing-address").to_owned(),
            service_name: settings.text("distributed-tracing-service-name").to_owned(),
            instance_id: settings.text("distributed-tracing-instance-id").to_owned(),
            samples_per_million: u32::try_from(
                settings.signed("distributed-tracing-sampling-rate"),
            )
            .unwrap_or(0),
        },
        proxy: proxy(settings),
    })
}

/// SRV-170, SRV-171.
fn proxy(settings: &Settings) -> Proxy {
    let millis = |flag: &str| Duration::from_millis(settings.unsigned(flag));
    Proxy {
        mode: match settings.text("proxy") {
            "on" => ProxyMode::On,
            "readonly" => ProxyMode::Readonly,
            _ => ProxyMode::Off,
        },
        is_fallback: settings.text("discovery-fallback") == "proxy",
        failure_wait: millis("proxy-failure-wait"),
        refresh_interval: millis("proxy-refresh-interval"),
        timeouts: ProxyTimeouts {
            dial: millis("proxy-dial-timeout"),
            write: millis("proxy-write-timeout"),
            read: Some(millis("proxy-read-timeout")).filter(|limit| !limit.is_zero()),
        },
    }
}

struct Builder<'a> {
    settings: &'a Settings,
    notices: &'a mut Vec<Notice>,
}

impl Builder<'_> {
    fn listen(&self) -> Listen {
        let settings = self.settings;
        Listen {
            peers: settings.urls("listen-peer-urls").to_vec(),
            clients: settings.urls("listen-client-urls").to_vec(),
            clients_http: settings.urls("listen-client-http-urls").to_vec(),
            metrics: settings.urls("listen-metrics-urls").to_vec(),
            reuse_port: settings.bool("socket-reuse-port"),
            reuse_address: settings.bool("socket-reuse-address"),
        }
    }

    fn cluster(&mut self) -> Result<Cluster, Refusal> {
        let settings = self.settings;
        let heartbeat = settings.unsigned("heartbeat-interval");
        let ticks = settings.unsigned("election-timeout") / heartbeat;
        let learners = settings.signed("max-learners");
        Ok(Cluster {
            state: match settings.text("initial-cluster-state") {
                "existing" => ClusterState::Existing,
                _ => ClusterState::New,
            },
            token: settings.text("initial-cluster-token").to_owned(),
            heartbeat_interval: Duration::from_millis(heartbeat),
            election_ticks: u32::try_from(ticks).expect("an election takes at most 50000 ms"),
            initial_election_tick_advance: settings.bool("initial-election-tick-advance"),
            pre_vote: settings.bool("pre-vote"),
            strict_reconfig_check: settings.bool("strict-reconfig-check"),
            learners_max: usize::try_from(learners).map_err(|_| Refusal::Negative {
                flag: "max-learners",
                value: learners.to_string(),
            })?,
            force_new_cluster: settings.bool("force-new-cluster"),
            peer_read_timeout: self.peer_timeout("raft-read-timeout"),
            peer_write_timeout: self.peer_timeout("raft-write-timeout"),
        })
    }

    fn peer_timeout(&mut self, flag: &str) -> Duration {
        let given = self.duration(flag);
        if given < PEER_TIMEOUT_MIN {
            let min = GoDuration::from(PEER_TIMEOUT_MIN);
            self.notices.push(Notice::info(format!("{flag} increased to minimum value: {min}")));
        }
        given.max(PEER_TIMEOUT_MIN)
    }

    fn bootstrap(&self) -> Bootstrap {
        let settings = self.settings;
        let text = |flag: &str| settings.text(flag).to_owned();
        if !settings.text("discovery").is_empty() {
            return Bootstrap::DiscoveryUrl {
                url: text("discovery"),
                proxy: text("discovery-proxy"),
            };
        }
        if !settings.text("discovery-srv").is_empty() {
            return Bootstrap::Srv {
                domain: text("discovery-srv"),
                service_name: text("discovery-srv-name"),
            };
        }
        if settings.text("discovery-token").is_empty() {
            return Bootstrap::Static(text("initial-cluster"));
        }
        Bootstrap::Discovery(Box::new(Discovery {
            token: text("discovery-token"),
            endpoints: settings.words("discovery-endpoints").to_vec(),
            dial_timeout: self.duration("discovery-dial-timeout"),
            request_timeout: self.duration("discovery-request-timeout"),
            keepalive_time: self.duration("discovery-keepalive-time"),
            keepalive_timeout: self.duration("discovery-keepalive-timeout"),
            insecure_transport: settings.bool("discovery-insecure-transport"),
            insecure_skip_verify: settings.bool("discovery-insecure-skip-tls-verify"),
            cert_file: text("discovery-cert"),
            key_file: text("discovery-key"),
            ca_file: text("discovery-cacert"),
            user: text("discovery-user"),
            password: text("discovery-password").into(),
        }))
    }

    fn storage(&mut self) -> Result<Storage, Refusal> {
        let settings = self.settings;
        let keep = |flag: &str| Some(settings.unsigned(flag)).filter(|files| *files > 0);
        Ok(Storage {
            data_dir: PathBuf::from(settings.text("data-dir")),
            wal_dir: self.path("wal-dir"),
            snapshot_entries: self.or_default("snapshot-count", 10_000),
            snapshot_catchup_entries: self.or_default("snapshot-catchup-entries", 5_000),
            snapshot_files_max: keep("max-snapshots"),
            wal_files_max: keep("max-wals"),
            quota: self.quota(),
            batch_interval: self.interval_or("backend-batch-interval", Duration::from_millis(100)),
            batch_operations_max: self.count_or("backend-batch-limit", 10_000)?,
            unsafe_no_fsync: settings.bool("unsafe-no-fsync"),
            memory_mlock: settings.bool("memory-mlock"),
            bootstrap_defrag_threshold_bytes: Some(
                settings.unsigned("bootstrap-defrag-threshold-megabytes").saturating_mul(MEGABYTE),
            )
            .filter(|bytes| *bytes > 0),
        })
    }

    /// B11: a negative quota is none, and that is said.
    fn quota(&mut self) -> Quota {
        let given = self.settings.signed("quota-backend-bytes");
        let quota = Quota::from_flag(given);
        match quota {
            Quota::Unlimited => self
                .notices
                .push(Notice::warn("disabled backend quota").with("quota-size-bytes", given)),
            Quota::Bytes(bytes) if bytes > QUOTA_BYTES_RECOMMENDED => self.notices.push(
                Notice::warn("quota exceeds the maximum value")
                    .with("quota-size-bytes", bytes)
                    .with("quota-maximum-size-bytes", QUOTA_BYTES_RECOMMENDED),
            ),
            Quota::Bytes(_) => {}
        }
        quota
    }

    fn limits(&mut self) -> Limits {
        let settings = self.settings;
        let request_bytes_max = settings.unsigned("max-request-bytes");
        if request_bytes_max > REQUEST_BYTES_RECOMMENDED {
            self.notices.push(
                Notice::warn("exceeded recommended request limit")
                    .with("max-request-bytes", request_bytes_max)
                    .with("recommended-request-bytes", REQUEST_BYTES_RECOMMENDED),
            );
        }
        let unless_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
        Limits {
            txn_operations_max: settings.unsigned("max-txn-ops"),
            request_bytes_max,
            concurrent_streams_max: u32::try_from(settings.unsigned("max-concurrent-streams"))
                .expect("the flag is read as 32 bits"),
            keep_alive: KeepAlive {
                client_interval_min: self.duration("grpc-keepalive-min-time"),
                interval: unless_zero(self.duration("grpc-keepalive-interval")),
                timeout: unless_zero(self.duration("grpc-keepalive-timeout")),
            },
        }
    }

    fn compaction(&mut self) -> Result<Compaction, Refusal> {
        Ok(Compaction {
            auto: self.auto_compaction()?,
            batch_revisions_max: self.count_or("compaction-batch-limit", 1_000)?,
            sleep_interval: self
                .interval_or("compaction-sleep-interval", Duration::from_millis(10)),
        })
    }

    /// SRV-084, SRV-085, B6.
    fn auto_compaction(&mut self) -> Result<AutoCompaction, Refusal> {
        let retention = match self.settings.text("auto-compaction-retention") {
            "" => "0",
            text => text,
        };
        let by_revision = self.settings.text("auto-compaction-mode") == "revision";
        if retention.parse::<i64>().is_ok_and(|number| number < 0) {
            return Err(Refusal::CompactionRetentionNegative(retention.to_owned()));
        }
        let number = retention.parse::<u64>().ok();
        let nanoseconds = match number {
            Some(_) => None,
            None => {
                let why = |why| Refusal::CompactionRetention { why };
                let nanoseconds = parse_duration(retention).map_err(why)?;
                let negative = |_| Refusal::CompactionRetentionNegative(retention.to_owned());
                Some(u64::try_from(nanoseconds).map_err(negative)?)
            }
        };
        Ok(match (number, nanoseconds, by_revision) {
            (Some(0), ..) | (_, Some(0), _) => AutoCompaction::Off,
            (Some(revisions), _, true) => AutoCompaction::Revision(revisions),
            (Some(hours), _, false) => {
                AutoCompaction::Periodic(Duration::from_secs(hours.saturating_mul(3_600)))
            }
            (None, Some(nanoseconds), false) => {
                AutoCompaction::Periodic(Duration::from_nanos(nanoseconds))
            }
            // What etcd does with a duration in this mode; nobody can have meant it.
            (None, Some(nanoseconds), true) => {
                self.notices.push(
                    Notice::warn(
                        "--auto-compaction-retention is a duration while --auto-compaction-mode is revision; it is taken for that many nanoseconds of revisions",
                    )
                    .with("auto-compaction-retention", retention)
                    .with("revisions", nanoseconds),
                );
                AutoCompaction::Revision(nanoseconds)
            }
            (None, None, _) => unreachable!("a retention is a number or a duration"),
        })
    }

    fn logging(&mut self) -> Result<Logging, Refusal> {
        let settings = self.settings;
        let level = match settings.bool("debug") {
            true => Level::Debug,
            false => settings.level("log-level"),
        };
        let words = settings.words("log-outputs");
        let mut outputs: Vec<_> = words.iter().map(|word| Output::parse(word)).collect();
        if words.is_empty() {
            outputs.push(Output::Stderr);
        }
        let rotation = match settings.bool("enable-log-rotation") {
            true => Some(Rotation::parse(settings.text("log-rotation-config-json"))?),
            false => None,
        };
        Ok(Logging {
            settings: logging::Settings {
                level,
                format: Format::parse(settings.text("log-format")).unwrap_or(Format::Json),
                outputs,
                rotation,
            },
            slow_request_min: self
                .interval_or("warning-unary-request-duration", Duration::from_millis(300)),
            slow_apply_min: self.duration("warning-apply-duration"),
        })
    }

    fn tls(&self) -> Result<Tls, Refusal> {
        let settings = self.settings;
        Ok(Tls {
            client: TransportSecurity {
                cert_file: self.path("cert-file"),
                key_file: self.path("key-file"),
                client_cert_file: self.path("client-cert-file"),
                client_key_file: self.path("client-key-file"),
                trusted_ca_file: self.path("trusted-ca-file"),
                crl_file: self.path("client-crl-file"),
                client_cert_auth: settings.bool("client-cert-auth"),
                auto: settings.bool("auto-tls"),
                allowed_common_names: Vec::new(),
                allowed_host_names: settings.words("client-cert-allowed-hostname").to_vec(),
                skip_client_san_verification: false,
            },
            peer: TransportSecurity {
                cert_file: self.path("peer-cert-file"),
                key_file: self.path("peer-key-file"),
                client_cert_file: self.path("peer-client-cert-file"),
                client_key_file: self.path("peer-client-key-file"),
                trusted_ca_file: self.path("peer-trusted-ca-file"),
                crl_file: self.path("peer-crl-file"),
                client_cert_auth: settings.bool("peer-client-cert-auth"),
                auto: settings.bool("peer-auto-tls"),
                allowed_common_names: settings.words("peer-cert-allowed-cn").to_vec(),
                allowed_host_names: settings.words("peer-cert-allowed-hostname").to_vec(),
                skip_client_san_verification: settings.bool("peer-skip-client-san-verification"),
            },
            cipher_suites: settings.words("cipher-suites").to_vec(),
            version_min: tls::version(settings.text("tls-min-version"))?.unwrap_or(TlsVersion::V12),
            version_max: tls::version(settings.text("tls-max-version"))?,
            self_signed_validity_years: settings.unsigned("self-signed-cert-validity").max(1),
        })
    }

    fn auth(&mut self) -> Auth {
        let given = self.settings.unsigned("bcrypt-cost");
        let cost = u32::try_from(given).ok().filter(|_| BCRYPT_COSTS.contains(&given));
        if cost.is_none() {
            self.notices.push(
                Notice::warn("use default bcrypt cost instead of the invalid given cost")
                    .with("min-cost", *BCRYPT_COSTS.start())
                    .with("max-cost", *BCRYPT_COSTS.end())
                    .with("default-cost", BCRYPT_COST_DEFAULT)
                    .with("given-cost", given),
            );
        }
        Auth {
            token: self.settings.text("auth-token").to_owned(),
            token_ttl: Duration::from_secs(self.settings.unsigned("auth-token-ttl")),
            bcrypt_cost: cost.unwrap_or(BCRYPT_COST_DEFAULT),
        }
    }

    fn metrics(&mut self) -> MetricsDetail {
        match self.settings.text("metrics") {
            "extensive" => MetricsDetail::Extensive,
            "basic" => MetricsDetail::Basic,
            other => {
                self.notices.push(
                    Notice::warn("unknown --metrics; basic metrics are kept")
                        .with("metrics", other),
                );
                MetricsDetail::Basic
            }
        }
    }

    fn features(&mut self) -> Features {
        let settings = self.settings;
        let progress = self.interval_or("watch-progress-notify-interval", Duration::from_secs(600));
        if progress < WATCH_PROGRESS_INTERVAL_MIN {
            let min = GoDuration::from(WATCH_PROGRESS_INTERVAL_MIN).to_string();
            self.notices.push(
                Notice::warn("adjusting watch progress notify interval to minimum period")
                    .with("min-watch-progress-notify-interval", min),
            );
        }
        let corrupt_check = self.duration("corrupt-check-time");
        Features {
            gates: settings.gates("feature-gates").clone(),
            corrupt_check_interval: (!corrupt_check.is_zero()).then_some(corrupt_check),
            compact_hash_check_interval: self.duration("compact-hash-check-time"),
            watch_progress_interval: progress.max(WATCH_PROGRESS_INTERVAL_MIN),
            downgrade_check_interval: self.duration("downgrade-check-time"),
        }
    }

    fn path(&self, flag: &str) -> Option<PathBuf> {
        Some(self.settings.text(flag)).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// A negative duration is none.
    fn duration(&self, flag: &str) -> Duration {
        Duration::from_nanos(u64::try_from(self.settings.duration(flag)).unwrap_or(0))
    }

    fn interval_or(&self, flag: &str, default: Duration) -> Duration {
        Some(self.duration(flag)).filter(|given| !given.is_zero()).unwrap_or(default)
    }

    /// 0 is the default, and that is said as etcd says it.
    fn or_default(&mut self, flag: &'static str, default: u64) -> u64 {
        match self.settings.unsigned(flag) {
            0 => {
                self.notices
                    .push(Notice::info(format!("updating {flag} to default")).with(flag, default));
                default
            }
            number => number,
        }
    }

    fn count_or(&self, flag: &'static str, default: u64) -> Result<u64, Refusal> {
        let given = self.settings.signed(flag);
        match u64::try_from(given) {
            Ok(0) => Ok(default),
            Ok(count) => Ok(count),
            Err(_) => Err(Refusal::Negative { flag, value: given.to_string() }),
        }
    }
}
