//! What is refused, with which words and which exit code.

use super::*;

/// SRV-020 to SRV-031, B3, B4, B5, B6, B7, B10, B12, B18: texts measured on etcd 3.5.30 where it
/// has the same flag, else read in etcd 3.7.1.
#[test]
fn rules_between_settings_are_kept() {
    let jwt_gates = "--feature-gates=LeaseCheckpointPersist=true";
    let advertise = "--advertise-client-urls=http://127.0.0.1:1";
    #[rustfmt::skip]
    let rows: &[(&[&str], &str)] = &[
        (&["--listen-client-urls=http://127.0.0.1:1"], "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        (&["--initial-cluster=a=http://a:1", "--discovery-srv=example.com"], "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\""),
        (&["--election-timeout=400"], "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"),
        (&["--election-timeout=60000"], "--election-timeout[60000ms] is too long, and should be set less than 50000ms"),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (&["--listen-client-urls=http://host:2379", advertise], "expected IP in URL for binding (http://host:2379)"),
        (&["--listen-peer-urls=http://:2380"], "expected IP in URL for binding (http://:2380)"),
        (&["--initial-advertise-peer-urls=http://:2380"], "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host (http://:2380))"),
        (&["--advertise-client-urls=http://:2380"], "--advertise-client-urls \"http://:2380\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:2380))"),
        (&["--discovery-token=t"], "both --discovery-token and --discovery-endpoints must be set"),
        (&["--discovery-endpoints=http://a:1"], "both --discovery-token and --discovery-endpoints must be set"),
        (&["--discovery-token=t", "--discovery-endpoints=http://a:1,"], "--discovery-endpoints must not contain empty endpoints"),
        (&["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
        (&["--auto-compaction-retention=-1"], "--auto-compaction-retention must be >=0 (set to -1)"),
        (&["--auto-compaction-retention=-1h"], "--auto-compaction-retention must be >=0 (set to -1h)"),
        (&["--auto-compaction-retention=5x"], "error parsing CompactionRetention: time: unknown unit \"x\" in duration \"5x\""),
        (&["--tls-min-version=foo"], "unexpected TLS version \"foo\" (must be one of: TLS1.2, TLS1.3)"),
        (&["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"], "min version (TLS1.3) is greater than max version (TLS1.2)"),
        (&["--tls-min-version=TLS1.3", "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], "cipher suites cannot be configured when only TLS1.3 is enabled"),
        (&["--cipher-suites=foo"], "unexpected TLS cipher suite \"foo\""),
        (&[jwt_gates], "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"),
        (&["--experimental-initial-corrupt-check", "--feature-gates=InitialCorruptCheck=true"], "cannot specify both flags: --experimental-initial-corrupt-check=true and --feature-gates=InitialCorruptCheck=true at the same time, please just use --feature-gates=InitialCorruptCheck=true"),
        (&["--enable-log-rotation"], "--log-outputs requires a single file path when --log-rotate-config-json is defined"),
        (&["--enable-log-rotation", "--log-outputs=a,b"], "--log-outputs requires a single file path when --log-rotate-config-json is defined"),
        (&["--enable-log-rotation", "--log-outputs=a", "--log-rotation-config-json={"], "improperly formatted log rotation config: EOF while parsing an object at line 1 column 1"),
        (&["--enable-log-rotation", "--log-outputs=a", "--log-rotation-config-json={\"maxsize\":\"a\"}"], "invalid log rotation config: invalid type: string \"a\", expected u64 at line 1 column 14"),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (&["--logger=foo"], "unknown logger option \"foo\""),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
        (&["--log-outputs=systemd/journal,stderr"], "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \"systemd/journal\"]) are configured with 'default'; override 'default' value with something else"),
        (&["--log-format=xx"], "unknown log format: xx, supported values json, console"),
        (&["--name="], "--name is empty"),
        (&["--name", "a", "foo"], "'foo' is not a valid flag"),
        (&["-"], "'-' is not a valid flag"),
        (&["--listen-client-urls=https://127.0.0.1:1", advertise], "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme"),
        (&["--listen-metrics-urls=https://127.0.0.1:1"], "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"),
        (&["--listen-peer-urls=https://127.0.0.1:1"], "cannot listen on TLS for https://127.0.0.1:1: KeyFile and CertFile are not presented"),
        (&["--cert-file=a"], "KeyFile and CertFile must both be present[key: false, cert: true]"),
        (&["--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b"], "--peer-cert-allowed-cn and --peer-cert-allowed-hostname cannot both be set"),
        (&["--listen-client-urls=http://127.0.0.1:1", advertise, "--listen-client-http-urls=http://127.0.0.1:1"], "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:1"),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (&["--max-learners=-1"], "--max-learners must be >=0 (set to -1)"),
        (&["--compaction-batch-limit=-1"], "--compaction-batch-limit must be >=0 (set to -1)"),
        (&["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=1000001"], "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)"),
    ];
    for (arguments, error) in rows {
        let (exit, text, remedy) = Given::flags(arguments).refused();
        assert_eq!((exit, text.as_str()), (1, *error), "{arguments:?}");
        assert_eq!(format!("{text}{remedy}").lines().count(), 1, "one line each");
    }
}

/// SRV-008, B1, B2, B9, B10, R6: a command line that cannot be understood ends with 2.
#[test]
fn usage_errors_end_with_two() {
    for argument in
        ["--nope", "--name", "--snapshot-count=abc", "--log-level=loud", "--listen-peer-urls=foo"]
    {
        assert_eq!(Given::flags(&[argument]).refused().0, 2, "{argument}");
    }
}

/// SRV-002, B17, R3: whatever the values.
#[test]
fn a_flag_and_its_variable_are_refused_together() {
    for value in ["x", "y", ""] {
        let given = Given::flags(&["--name=x"]).variables(&[("ETCD_NAME", value)]);
        let (exit, error, remedy) = given.refused();
        assert_eq!(exit, 1);
        assert!(error.starts_with(
            "conflicting environment variable is shadowed by corresponding command-line flag"
        ));
        assert_eq!(remedy, "unset ETCD_NAME or leave out --name");
    }
}

/// The text measured on etcd 3.5.30.
#[test]
fn a_wrong_variable_is_named() {
    let given = Given::flags(&[]).variables(&[("ETCD_SNAPSHOT_COUNT", "abc")]);
    let (exit, error, remedy) = given.refused();
    assert_eq!(
        (exit, error.as_str()),
        (1, "invalid value \"abc\" for ETCD_SNAPSHOT_COUNT: parse error")
    );
    assert!(remedy.contains("from 0 to"), "{remedy}");
}

/// Every refusal that does not say by itself what to do has a remedy.
#[test]
fn remedies_name_the_flag() {
    for (arguments, remedy) in [
        (&["--auto-compaction-retention=-1"][..], "such as 30m"),
        (&["--election-timeout=400"], "set --election-timeout to at least 500"),
        (&["--listen-peer-urls=http://host:1"], "0.0.0.0"),
        (&["--name="], "--initial-cluster"),
        (&["foo"], "--name=value"),
        (&["--heartbeat-interval=0"], "default, 100"),
    ] {
        let shown = Given::flags(arguments).refused().2;
        assert!(shown.contains(remedy), "{shown}");
    }
}

/// The line of a conflict, and of a refusal, as the log has it.
#[test]
fn passwords_are_not_repeated() {
    let given = Given::flags(&["--discovery-password=secret", "-discovery-password", "secret2"])
        .variables(&[("ETCD_NAME", "a")]);
    let (_, notices) = given.config();
    assert!(!notices.concat().contains("secret"), "{notices:?}");
    let given = Given::flags(&[]).variables(&[("ETCD_DISCOVERY_PASSWORD", "secret")]);
    assert!(!given.config().1.concat().contains("secret"));
}
