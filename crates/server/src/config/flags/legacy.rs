//! Names of earlier releases: renamed flags, flags that became feature gates, flags without
//! effect. SRV-012, SRV-068, SRV-086, SRV-118, SRV-131, SRV-170, SRV-171.

use super::Group::Older;
use super::{Flag, Kind, Role};

pub(super) const FLAGS: &[Flag] = &[
    renamed("experimental-corrupt-check-time", "corrupt-check-time", Kind::Duration),
    renamed("experimental-compact-hash-check-time", "compact-hash-check-time", Kind::Duration),
    renamed("experimental-compaction-batch-limit", "compaction-batch-limit", Kind::Signed),
    renamed("experimental-compaction-sleep-interval", "compaction-sleep-interval", Kind::Duration),
    renamed(
        "experimental-watch-progress-notify-interval",
        "watch-progress-notify-interval",
        Kind::Duration,
    ),
    renamed("experimental-warning-apply-duration", "warning-apply-duration", Kind::Duration),
    renamed(
        "experimental-warning-unary-request-duration",
        "warning-unary-request-duration",
        Kind::Duration,
    ),
    renamed(
        "experimental-bootstrap-defrag-threshold-megabytes",
        "bootstrap-defrag-threshold-megabytes",
        Kind::Unsigned,
    ),
    renamed("experimental-max-learners", "max-learners", Kind::Signed),
    renamed("experimental-memory-mlock", "memory-mlock", Kind::Bool),
    renamed("experimental-snapshot-catchup-entries", "snapshot-catchup-entries", Kind::Unsigned),
    renamed("experimental-snapshot-catch-up-entries", "snapshot-catchup-entries", Kind::Unsigned),
    renamed("experimental-downgrade-check-time", "downgrade-check-time", Kind::Duration),
    renamed(
        "experimental-peer-skip-client-san-verification",
        "peer-skip-client-san-verification",
        Kind::Bool,
    ),
    renamed("experimental-backend-bbolt-freelist-type", "backend-bbolt-freelist-type", Kind::Text),
    renamed("experimental-enable-distributed-tracing", "enable-distributed-tracing", Kind::Bool),
    renamed("experimental-distributed-tracing-address", "distributed-tracing-address", Kind::Text),
    renamed(
        "experimental-distributed-tracing-service-name",
        "distributed-tracing-service-name",
        Kind::Text,
    ),
    renamed(
        "experimental-distributed-tracing-instance-id",
        "distributed-tracing-instance-id",
        Kind::Text,
    ),
    renamed(
        "experimental-distributed-tracing-sampling-rate",
        "distributed-tracing-sampling-rate",
        Kind::Signed,
    ),
    renamed("log-output", "log-outputs", Kind::WordSet).since("up to 3.4"),
    gate("experimental-initial-corrupt-check", "InitialCorruptCheck", "false"),
    gate("experimental-compact-hash-check-enabled", "CompactHashCheck", "false"),
    gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint", "false"),
    gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist", "false"),
    gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer", "true"),
    gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag", "false"),
    gate("experimental-set-member-localaddr", "SetMemberLocalAddr", "false"),
    Flag::new(
        Older,
        "experimental-enable-v2v3",
        Kind::Text,
        "",
        "Hold the v2 keys in the v3 store, under this prefix; without times to live. For trying out.",
    )
    .since("3.3 to 3.5")
    .acts(),
    Flag::new(Older, "debug", Kind::Bool, "false", "The same as --log-level=debug.")
        .since("up to 3.4")
        .acts(),
    Flag::new(Older, "log-package-levels", Kind::Text, "", "Log levels of single packages.")
        .since("up to 3.4")
        .idle("the packages were those of another logger; --log-level is for all"),
    Flag::new(
        Older,
        "proxy",
        Kind::Choice(&["off", "readonly", "on"]),
        "off",
        "Forward v2 requests instead of being a member.",
    )
    .since("up to 3.5")
    .acts(),
    Flag::new(
        Older,
        "proxy-failure-wait",
        Kind::Unsigned,
        "5000",
        "Milliseconds for which the proxy avoids a failed endpoint.",
    )
    .since("up to 3.5")
    .acts(),
    Flag::new(
        Older,
        "proxy-refresh-interval",
        Kind::Unsigned,
        "30000",
        "Milliseconds between two looks of the proxy at the member list.",
    )
    .since("up to 3.5")
    .acts(),
    Flag::new(
        Older,
        "proxy-dial-timeout",
        Kind::Unsigned,
        "1000",
        "Milliseconds for the proxy to connect.",
    )
    .since("up to 3.5")
    .acts(),
    Flag::new(
        Older,
        "proxy-write-timeout",
        Kind::Unsigned,
        "5000",
        "Milliseconds for the proxy to write.",
    )
    .since("up to 3.5")
    .acts(),
    Flag::new(
        Older,
        "proxy-read-timeout",
        Kind::Unsigned,
        "0",
        "Milliseconds for the proxy to read, 0 for ever.",
    )
    .since("up to 3.5")
    .acts(),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];

const fn renamed(name: &'static str, target: &'static str, kind: Kind) -> Flag {
    // The default is never read for an older name; it only has to be a value of the kind.
    let default = match kind {
        Kind::Bool => "false",
        Kind::Unsigned | Kind::Signed => "0",
        Kind::Duration => "0s",
        Kind::Unsigned32
        | Kind::Text
        | Kind::Urls
        | Kind::Origins
        | Kind::Words
        | Kind::WordSet
        | Kind::Choice(_)
        | Kind::Choices(_)
        | Kind::Level
        | Kind::Gates
        | Kind::Ignored => "",
    };
    Flag::new(Older, name, kind, default, "Another name of the flag of today.")
        .since("up to 3.6")
        .alias(target)
}

const fn gate(name: &'static str, gate: &'static str, default: &'static str) -> Flag {
    let mut flag = Flag::new(Older, name, Kind::Bool, default, "Another name of a feature gate.")
        .since("up to 3.6");
    flag.role = Role::Gate(gate);
    flag.acts()
}

const fn ignored(name: &'static str) -> Flag {
    let mut flag = Flag::new(Older, name, Kind::Ignored, "", "").since("0.4");
    flag.role = Role::Ignored;
    flag.acts()
}
