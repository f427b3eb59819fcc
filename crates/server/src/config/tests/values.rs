//! What a configuration becomes.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::logging::{Format, Level, Output};

fn config(arguments: &[&str]) -> Config {
    Given::flags(arguments).config().0
}

/// The cluster that the arguments name, if this member may found or join it.
fn cluster(arguments: &[&str]) -> Result<InitialCluster, ClusterError> {
    let config = config(arguments);
    let Bootstrap::Static(text) = &config.bootstrap else { panic!("{:?}", config.bootstrap) };
    let cluster = InitialCluster::parse(text)?;
    config.check_cluster(&cluster, &|_, _| None).map(|()| cluster)
}

/// The defaults of SRV-040 to SRV-130.
#[test]
fn defaults_are_those_of_etcd() {
    let config = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(join_urls(&config.listen.peers), "http://localhost:2380");
    assert_eq!(join_urls(&config.listen.clients), "http://localhost:2379");
    assert_eq!(join_urls(&config.advertise.peers), "http://localhost:2380");
    assert_eq!(join_urls(&config.advertise.clients), "http://localhost:2379");
    assert!(config.listen.metrics.is_empty() && config.listen.clients_http.is_empty());
    assert_eq!(config.bootstrap, Bootstrap::Static("default=http://localhost:2380".to_owned()));
    assert_eq!(config.storage.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.wal_dir(), PathBuf::from("default.etcd/member/wal"));
    assert_eq!(config.storage.snapshot_entries, 10_000);
    assert_eq!(config.storage.snapshot_catchup_entries, 5_000);
    assert_eq!(config.storage.quota, Quota::Bytes(2 << 30));
    assert_eq!(config.storage.batch_interval, Duration::from_millis(100));
    assert_eq!(config.storage.batch_operations_max, 10_000);
    assert_eq!(
        (config.storage.wal_files_max, config.storage.snapshot_files_max),
        (Some(5), Some(5))
    );
    assert_eq!(config.limits.txn_operations_max, 128);
    assert_eq!(config.limits.request_bytes_max, 1_572_864);
    assert_eq!(config.limits.concurrent_streams_max, u32::MAX);
    assert_eq!(config.limits.keep_alive.interval, Some(Duration::from_secs(7_200)));
    assert_eq!(config.cluster.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.cluster.election_timeout(), Duration::from_secs(1));
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert!(config.cluster.pre_vote && config.cluster.strict_reconfig_check);
    assert_eq!(config.compaction.auto, AutoCompaction::Off);
    assert_eq!(config.compaction.batch_revisions_max, 1_000);
    assert_eq!(config.compaction.sleep_interval, Duration::from_millis(10));
    assert_eq!(config.features.watch_progress_interval, Duration::from_secs(600));
    assert_eq!(config.logging.settings, crate::logging::Settings::default());
    assert_eq!(config.logging.slow_request_min, Duration::from_millis(300));
    assert_eq!(config.logging.slow_apply_min, Duration::from_millis(100));
    assert!(config.http.v2 && config.http.grpc_gateway && !config.http.pprof);
    assert_eq!(config.http.cors, ["*"]);
    assert_eq!(config.auth.token, "simple");
    assert_eq!(config.auth.token_ttl, Duration::from_secs(300));
}

/// SRV-052, B11.
#[test]
fn a_negative_quota_is_none_and_is_told() {
    let (config, notices) = Given::flags(&["--quota-backend-bytes=-5"]).config();
    assert_eq!(config.storage.quota, Quota::Unlimited);
    assert!(notices.contains(&"warn disabled backend quota quota-size-bytes=-5".to_owned()));
    let (_, notices) = Given::flags(&["--quota-backend-bytes=9000000000"]).config();
    assert!(notices.iter().any(|line| line.starts_with("warn quota exceeds")), "{notices:?}");
}

/// SRV-084, SRV-085.
#[test]
fn retention_depends_on_the_mode() {
    for (retention, mode, expected) in [
        ("0", "periodic", AutoCompaction::Off),
        ("5", "periodic", AutoCompaction::Periodic(Duration::from_secs(5 * 3600))),
        ("5m", "periodic", AutoCompaction::Periodic(Duration::from_secs(300))),
        ("1000", "revision", AutoCompaction::Revision(1000)),
        ("0", "revision", AutoCompaction::Off),
    ] {
        let retention = format!("--auto-compaction-retention={retention}");
        let mode = format!("--auto-compaction-mode={mode}");
        assert_eq!(config(&[&retention, &mode]).compaction.auto, expected);
    }
}

/// SRV-070, SRV-071: a name alone is a cluster of one.
#[test]
fn the_cluster_follows_the_name_and_the_host_follows_the_route() {
    let alone = config(&["--name=a", "--initial-advertise-peer-urls=http://10.0.0.1:1"]);
    assert_eq!(alone.bootstrap, Bootstrap::Static("a=http://10.0.0.1:1".to_owned()));
    let mut given = Given::flags(&[
        "--name=a",
        "--listen-peer-urls=http://0.0.0.0:5",
        "--listen-client-urls=http://0.0.0.0:6",
        "--advertise-client-urls=http://localhost:2379",
    ]);
    given.host = Some([10, 1, 1, 1].into());
    let (config, notices) = given.config();
    assert_eq!(config.bootstrap, Bootstrap::Static("a=http://10.1.1.1:5".to_owned()));
    assert_eq!(join_urls(&config.advertise.clients), "http://10.1.1.1:6");
    assert!(
        notices.contains(&"info detected default host for advertise host=\"10.1.1.1\"".to_owned())
    );
}

/// CB-21.
#[test]
fn who_is_reached_from_this_host_alone_is_told() {
    let told = |advertised: &str| {
        let advertised = format!("--advertise-client-urls={advertised}");
        let flags = ["--name=a", "--listen-client-urls=http://0.0.0.0:6", &advertised];
        let (_, notices) = Given::flags(&flags).config();
        notices.iter().any(|notice| notice.contains("loopback"))
    };
    assert!(told("http://127.0.0.1:6") && told("http://localhost:6,http://[::1]:6"));
    assert!(!told("http://10.0.0.1:6") && !told("http://localhost:6,http://etcd.example:6"));
    assert!(Given::flags(&[]).config().1.iter().all(|notice| !notice.contains("loopback")));
}

/// SRV-032, SRV-072: a member that joins need not advertise what the cluster says.
#[test]
fn the_cluster_is_checked_for_this_member() {
    let alone = cluster(&["--name=a"]).unwrap();
    assert_eq!(alone.to_string(), "a=http://localhost:2380");
    let other = ["--name=a", "--initial-cluster=a=http://127.0.0.1:9,b=http://127.0.0.1:8"];
    assert!(cluster(&other).is_err());
    let joining = [&other[..], &["--initial-cluster-state=existing"]].concat();
    assert_eq!(cluster(&joining).unwrap().members().count(), 2);
}

/// SRV-027, SRV-075, SRV-078, SRV-079: discovery replaces the default cluster.
#[test]
fn discovery_replaces_the_default_cluster() {
    let discovered = |arguments: &[&str]| config(arguments).bootstrap;
    assert_eq!(
        discovered(&["--discovery-srv=example.com", "--discovery-srv-name=x"]),
        Bootstrap::Srv { domain: "example.com".to_owned(), service_name: "x".to_owned() }
    );
    assert!(matches!(discovered(&["--discovery=http://d/1"]), Bootstrap::DiscoveryUrl { .. }));
    let v3 = discovered(&["--discovery-token=t", "--discovery-endpoints=http://b:1,http://a:1"]);
    let Bootstrap::Discovery(v3) = v3 else { panic!("{v3:?}") };
    assert_eq!(v3.endpoints, ["http://a:1", "http://b:1"]);
}

/// SRV-007, SRV-015, R3.
#[test]
fn variables_are_read_and_unknown_ones_are_told() {
    let given = Given::flags(&[]).variables(&[
        ("ETCD_NAME", "a"),
        ("ETCD_UNSUPPORTED_ARCH", "amd64"),
        ("ETCD_VERSION", "1"),
        ("ETCD_FOO", "bar"),
        ("ETCD_DATA_DIR", ""),
        ("ETCDCTL_API", "3"),
        ("PATH", "/bin"),
    ]);
    let (config, notices) = given.config();
    assert_eq!(config.name, "a");
    assert_eq!(
        notices[..4],
        [
            "info recognized and used environment variable variable-name=\"ETCD_NAME\" variable-value=\"a\"",
            "warn cannot set special environment variable key=\"ETCD_VERSION\" value=\"1\"",
            "warn unrecognized environment variable environment-variable=\"ETCD_FOO=bar\"",
            "warn unrecognized environment variable environment-variable=\"ETCD_DATA_DIR=\"",
        ]
    );
    assert!(!notices.concat().contains("ARCH"));
}

/// SRV-131 and the older names of 3.5 and 3.6.
#[test]
fn older_names_set_the_flags_of_today() {
    let (config, notices) = Given::flags(&[
        "--experimental-snapshot-catchup-entries=7",
        "--experimental-warning-apply-duration=1s",
        "--experimental-enable-lease-checkpoint",
        "--experimental-enable-lease-checkpoint-persist=true",
        "--experimental-txn-mode-write-with-shared-buffer=false",
    ])
    .config();
    assert_eq!(config.storage.snapshot_catchup_entries, 7);
    assert_eq!(config.logging.slow_apply_min, Duration::from_secs(1));
    assert_eq!(
        config.features.gates.to_string(),
        "LeaseCheckpoint=true,LeaseCheckpointPersist=true,TxnModeWriteWithSharedBuffer=false"
    );
    assert!(notices.contains(
        &"warn --experimental-snapshot-catchup-entries is deprecated in v3.6 and will be decommissioned in v3.7. Use '--snapshot-catchup-entries' instead.".to_owned()
    ));
}

/// A flag that has no effect is told about, unless it says what is so anyway.
#[test]
fn flags_without_effect_are_told() {
    let (_, notices) =
        Given::flags(&["--log-package-levels=raft=DEBUG", "--force-new-cluster=false", "--vv"])
            .config();
    let told: Vec<_> = notices.iter().filter(|line| line.contains("flag is")).collect();
    assert_eq!(
        told,
        [
            "warn flag is accepted but has no effect flag=\"--log-package-levels\" value=\"raft=DEBUG\" reason=\"the packages were those of another logger; --log-level is for all\"",
            "warn flag is no longer supported - ignoring flag-name=\"vv\"",
        ]
    );
}

/// SRV-036.
#[test]
fn certificates_of_plain_listeners_are_told() {
    let (_, notices) =
        Given::flags(&["--cert-file=a", "--key-file=b", "--client-cert-auth"]).config();
    for text in ["while key and cert files are present", "while --client-cert-auth is enabled"] {
        assert!(notices.iter().any(|line| line.contains(text) && line.contains("client-url")));
    }
}

/// SRV-113 to SRV-118.
#[test]
fn logging_is_configured() {
    let settings =
        config(&["--log-outputs=stdout,/tmp/l,stderr", "--log-format=console", "--log-level=WARN"])
            .logging
            .settings;
    assert_eq!(
        settings.outputs,
        [Output::File(PathBuf::from("/tmp/l")), Output::Stderr, Output::Stdout]
    );
    assert_eq!((settings.format, settings.level), (Format::Console, Level::Warn));
    assert!(config(&["--debug"]).logging.is_debug());
    let rotated = config(&["--enable-log-rotation", "--log-outputs=l"]).logging.settings.rotation;
    assert_eq!(rotated.unwrap().file_bytes_max, 100 << 20);
}

/// SRV-152, R9: sockets and port 0 are legal.
#[test]
fn sockets_and_port_zero_are_legal() {
    let config = config(&[
        "--listen-client-urls=unix://localhost:2379,http://127.0.0.1:0",
        "--advertise-client-urls=unix://localhost:2379",
    ]);
    assert_eq!(config.listen.clients[1].address(), &Address::Unix(PathBuf::from("localhost:2379")));
}

/// SRV-009: other programs under the same name.
#[test]
fn subcommands_are_passed_on() {
    let reading = Given::flags(&["grpc-proxy", "start", "--nope"]).read();
    let Ok(Invocation::Subcommand { name, arguments }) = reading.outcome else { panic!() };
    assert_eq!((name.as_str(), arguments.len()), ("grpc-proxy", 2));
}
