//! Configuration files.

use std::time::Duration;

use super::*;

/// A file as packages ship it: every key of etcd's sample, past ones too.
const SAMPLE: &str = "
# comment
name: 'default'
data-dir:
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:2380
advertise-client-urls: http://localhost:2379
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
proxy-read-timeout: 0
client-transport-security:
  cert-file:
  client-cert-auth: false
  auto-tls: false
peer-transport-security:
  cert-file:
  allowed-cn:
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: \"1\"
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
";

/// SRV-003, SRV-004.
#[test]
fn the_sample_file_is_understood() {
    let (config, notices) = Given::file(SAMPLE).config();
    assert!(config.logging.is_debug());
    assert!(!config.cluster.strict_reconfig_check);
    assert_eq!(config.compaction.auto, AutoCompaction::Periodic(Duration::from_secs(3600)));
    assert_eq!(config.tls.cipher_suites.len(), 2);
    assert!(!notices.concat().contains("unknown key"), "{notices:?}");
    assert!(notices[0].starts_with("info loaded server configuration, other configuration command line flags and environment variables will be ignored"));
}

/// SRV-003: everything else is ignored, also what would be refused.
#[test]
fn a_file_replaces_flags_and_variables() {
    let mut given = Given::file("name: f\n").variables(&[("ETCD_NAME", "v")]);
    given.arguments.push("--name=c".to_owned());
    assert_eq!(given.config().0.name, "f");
    let by_variable = Given { file: Some("{\"name\": \"j\"}".to_owned()), ..Given::default() }
        .variables(&[("ETCD_CONFIG_FILE", "etcd.json")]);
    assert_eq!(by_variable.config().0.name, "j");
    assert_eq!(Given::file("{\n\t\"name\": \"t\"\n}").config().0.name, "t");
    assert_eq!(Given::file("# nothing\n").config().0.name, "default");
    assert_eq!(Given::file("").config().0.name, "default");
}

/// SRV-004 to SRV-006.
#[test]
fn blocks_lists_and_durations_are_read() {
    let (config, _) = Given::file(
        "
name: a
backend-batch-interval: 20000000
grpc-keepalive-timeout: 30s
log-outputs: [stdout, /tmp/x.log]
listen-peer-urls: http://127.0.0.1:1,http://127.0.0.1:2
feature-gates: InitialCorruptCheck=true
host-whitelist: b,a
client-transport-security: {cert-file: c.pem, key-file: k.pem, allowed-hostname: [x, z]}
peer-transport-security:
  allowed-cn: [cn]
  skip-client-san-verification: true
socket-options: {reuse-port: true}
discovery-config:
  token: t
  client:
    endpoints: [http://d:1]
    dial-timeout: 5000000000
    secure: {insecure-transport: false}
log-rotation-config-json: '{\"maxsize\": 1}'
",
    )
    .config();
    assert_eq!(config.storage.batch_interval, Duration::from_millis(20));
    assert_eq!(config.limits.keep_alive.timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.logging.settings.outputs.len(), 2);
    assert_eq!(config.listen.peers.len(), 2);
    assert!(config.features.gates.is_enabled(Gate::InitialCorruptCheck));
    assert_eq!(config.http.host_whitelist, ["a", "b"]);
    assert_eq!(config.tls.client.cert_file, Some("c.pem".into()));
    assert_eq!(config.tls.client.allowed_host_names, ["x", "z"]);
    assert_eq!(config.tls.peer.allowed_common_names, ["cn"]);
    assert!(config.tls.peer.skip_client_san_verification && config.listen.reuse_port);
    let Bootstrap::Discovery(discovery) = config.bootstrap else { panic!() };
    assert_eq!(discovery.endpoints, ["http://d:1"]);
    assert_eq!(discovery.dial_timeout, Duration::from_secs(5));
    assert!(!discovery.insecure_transport);
}

/// SRV-004: unknown keys are ignored, and told.
#[test]
fn unknown_keys_are_told() {
    let (_, notices) =
        Given::file("foo: 1\npeer-transport-security:\n  bar: x\ncert-file: x\n").config();
    let told: Vec<_> = notices.iter().filter(|line| line.contains("unknown key")).collect();
    assert_eq!(
        told,
        [
            "warn unknown key in the configuration file; it is ignored path=\"etcd.yml:1:1\" key=\"foo\"",
            "warn unknown key in the configuration file; it is ignored path=\"etcd.yml:3:3\" key=\"peer-transport-security.bar\"",
            "warn unknown key in the configuration file; it is ignored path=\"etcd.yml:4:1\" key=\"cert-file\"",
        ]
    );
}

/// B14: file, line and column.
#[test]
fn mistakes_are_placed() {
    for (text, error) in [
        (
            "name: abc\nsnapshot-count: abc\n",
            "etcd.yml:2:17: snapshot-count is text, not a whole number from 0 to 18446744073709551615",
        ),
        ("name: 5\n", "etcd.yml:1:7: name is a whole number, not text (in quotation marks)"),
        ("pre-vote: 1\n", "etcd.yml:1:11: pre-vote is a whole number, not true or false"),
        ("cors: 3\n", "etcd.yml:1:7: cors is a whole number, not * or URLs separated by commas"),
        (
            "cors: foo\n",
            "etcd.yml:1:7: invalid value for cors: URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            "listen-peer-urls: foo\n",
            "etcd.yml:1:19: invalid value for listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            "peer-transport-security:\n  cert-file: [a]\n",
            "etcd.yml:2:14: peer-transport-security.cert-file is a list, not text (in quotation marks)",
        ),
        (
            "initial-cluster-state: foo\n",
            "etcd.yml:1:24: invalid value for initial-cluster-state: invalid value",
        ),
        ("- a\n- b\n", "etcd.yml:1:1: the document is a list, not a map of keys and values"),
        (
            "snapshot-count: 1.5\n",
            "etcd.yml:1:17: snapshot-count is a number with a fraction, not a whole number from 0 to 18446744073709551615",
        ),
        ("max-txn-ops: -1\n", "etcd.yml:1:14: invalid value for max-txn-ops: parse error"),
    ] {
        assert_eq!(
            Given::file(text).refused(),
            (1, error.to_owned(), Given::file(text).refused().2),
            "{text}"
        );
    }
}

/// B14. etcd takes the last one without a word.
#[test]
fn a_key_that_stands_twice_is_named() {
    for (text, error, line) in [
        ("name: abc\nname: def\n", "etcd.yml:2:1: name is set twice", "line 2"),
        (
            "peer-transport-security:\n  cert-file: a\n  cert-file: b\n",
            "etcd.yml:3:3: cert-file is set twice",
            "line 3",
        ),
    ] {
        let (exit, found, remedy) = Given::file(text).refused();
        assert_eq!((exit, found.as_str()), (1, error));
        assert!(remedy.contains(line) && !remedy.contains("tabs"), "{remedy}");
    }
}

/// B14: what is no YAML is placed by its reader.
#[test]
fn broken_yaml_is_placed() {
    for (text, place) in
        [("name: abc\n\tfoo: 3\n", "etcd.yml:2:1: "), ("name: [abc\n", "etcd.yml:")]
    {
        let (exit, error, remedy) = Given::file(text).refused();
        assert_eq!(exit, 1);
        assert!(error.starts_with(place), "{error}");
        assert!(!error.contains('\n') && remedy.contains("tabs"), "{error}");
    }
}

/// As in etcd, where only flags and variables need both.
#[test]
fn a_file_may_leave_out_what_is_advertised() {
    let (config, _) = Given::file("listen-client-urls: http://127.0.0.1:1\n").config();
    assert_eq!(join_urls(&config.advertise.clients), "http://localhost:2379");
}

/// B14: a missing file.
#[test]
fn a_missing_file_is_named() {
    let (exit, error, remedy) = Given::flags(&["--config-file=nope.yml"]).refused();
    assert_eq!((exit, error.as_str()), (1, "open nope.yml: no such file or directory"));
    assert!(remedy.contains("--config-file"));
}
