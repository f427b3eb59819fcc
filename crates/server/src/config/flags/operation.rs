//! Flags about watching and tuning a running member. SRV-110 to SRV-130.

use super::Group::{Features, Logging, Monitoring, Tracing, Unsafe};
use super::{Flag, Kind};

/// What `--log-rotation-config-json` is when not given.
pub(crate) const DEFAULT_LOG_ROTATION: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Monitoring, "enable-pprof", Kind::Bool, "false", "Offer profiles under /debug/pprof/ of the client URLs.").acts(),
    Flag::new(Monitoring, "metrics", Kind::Text, "basic", "How much is measured: 'basic', or 'extensive' for histograms of gRPC calls too.").acts(),
    Flag::new(Monitoring, "listen-metrics-urls", Kind::Urls, "", "URLs to listen on for /metrics and /health alone.").acts(),
    Flag::new(Logging, "logger", Kind::Text, "zap", "Form of the log; only 'zap' is left.").acts(),
    Flag::new(Logging, "log-outputs", Kind::WordSet, "default", "Where the log goes: 'default' (stderr), 'stderr', 'stdout', 'systemd/journal' or files, separated by commas.").acts(),
    Flag::new(Logging, "log-level", Kind::Level, "info", "Least important lines to log: debug, info, warn, error, panic or fatal.").acts(),
    Flag::new(Logging, "log-format", Kind::Text, "json", "Form of a line: json or console.").since("3.6").acts(),
    Flag::new(Logging, "enable-log-rotation", Kind::Bool, "false", "Start a new log file when the present one is full; needs exactly one file in --log-outputs.").since("3.5").acts(),
    Flag::new(Logging, "log-rotation-config-json", Kind::Text, DEFAULT_LOG_ROTATION, "When to start a new file and how many to keep: maxsize in MB, maxage in days, maxbackups; 0 means no limit; compress for files put aside.").since("3.5").acts(),
    Flag::new(Logging, "warning-unary-request-duration", Kind::Duration, "300ms", "Time after which a request is logged as slow.").since("3.6").acts(),
    Flag::new(Tracing, "enable-distributed-tracing", Kind::Bool, "false", "Send traces to a collector.").since("3.6").acts(),
    Flag::new(Tracing, "distributed-tracing-address", Kind::Text, "localhost:4317", "Address of the collector.").since("3.6").acts(),
    Flag::new(Tracing, "distributed-tracing-service-name", Kind::Text, "etcd", "Service name in traces, the same on all members.").since("3.6").acts(),
    Flag::new(Tracing, "distributed-tracing-instance-id", Kind::Text, "", "Instance id in traces, different on every member.").since("3.6").acts(),
    Flag::new(Tracing, "distributed-tracing-sampling-rate", Kind::Signed, "0", "Traces kept of every million.").since("3.6").acts(),
    Flag::new(Features, "corrupt-check-time", Kind::Duration, "0s", "Time between two comparisons of all members' data; 0 for none.").since("3.6").acts(),
    Flag::new(Features, "compact-hash-check-time", Kind::Duration, "1m0s", "Time between two comparisons of compacted data, with the gate CompactHashCheck.").since("3.6").acts(),
    Flag::new(Features, "compaction-batch-limit", Kind::Signed, "1000", "Most revisions removed by one step of a compaction.").since("3.6").acts(),
    Flag::new(Features, "compaction-sleep-interval", Kind::Duration, "10ms", "Pause between two steps of a compaction.").since("3.6").acts(),
    Flag::new(Features, "watch-progress-notify-interval", Kind::Duration, "10m0s", "Time between two progress notices to idle watchers; at least 100ms.").since("3.6").acts(),
    Flag::new(Features, "warning-apply-duration", Kind::Duration, "100ms", "Time after which applying an entry is logged as slow.").since("3.6").acts(),
    Flag::new(Features, "bootstrap-defrag-threshold-megabytes", Kind::Unsigned, "0", "Shrink the database at start when that frees at least so many megabytes; 0 for never.").since("3.6").acts(),
    Flag::new(Features, "max-learners", Kind::Signed, "1", "Most learners in the cluster; the same on all members.").since("3.6").acts(),
    Flag::new(Features, "downgrade-check-time", Kind::Duration, "5s", "Time between two looks at the state of a downgrade.").since("3.6").acts(),
    Flag::new(Features, "snapshot-catchup-entries", Kind::Unsigned, "5000", "Entries kept behind a snapshot for followers that lag.").since("3.6").acts(),
    Flag::new(Unsafe, "force-new-cluster", Kind::Bool, "false", "Make a cluster of this member alone out of its data, forgetting all others.").acts(),
    Flag::new(Unsafe, "unsafe-no-fsync", Kind::Bool, "false", "Do not wait for the disk; a power cut loses data.").since("3.5").acts(),
];
