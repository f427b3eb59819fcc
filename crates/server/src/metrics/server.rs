//! Consensus, applying, requests and health (MET-04 to MET-12, MET-18, MET-19, MET-21 to MET-25).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::register::{Buckets, Register, SECONDS};
use crate::handle::{ProposeError, RequestKind};

/// What is measured about a member.
#[derive(Debug)]
pub(crate) struct Server {
    /// Another leader than before was seen.
    pub(crate) leader_changes: IntCounter,
    /// Proposals without an answer from the state machine.
    pub(crate) proposals_failed: IntCounter,
    /// Heartbeats that left more than one interval late.
    pub(crate) heartbeats_late: IntCounter,
    /// Batches of entries, and reads, that took long.
    pub(super) slow_applies: IntCounter,
    /// Linearizable reads that waited too long for other members.
    pub(crate) slow_read_indexes: IntCounter,
    /// Linearizable reads that got no index.
    pub(crate) read_indexes_failed: IntCounter,
    promotions: IntCounter,
    promotions_failed: IntCounterVec,
    /// Answers to whether the server is well.
    pub(crate) health: Health,
    /// Entries that were applied.
    pub(super) applies: Timings<state::Operation>,
    requests: Timings<Operation>,
    ranges: Timings<Operation>,
}

/// What was done, by etcd's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Operation {
    Range,
    ReadonlyTxn,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    Alarm,
    ClusterVersionSet,
    ClusterMemberAttrSet,
    DowngradeInfoSet,
    V2,
    AuthEnable,
    AuthDisable,
    Authenticate,
    AuthStatus,
    AuthUserAdd,
    AuthUserDelete,
    AuthUserGet,
    AuthUserChangePassword,
    AuthUserGrantRole,
    AuthUserRevokeRole,
    AuthUserList,
    AuthRoleList,
    AuthRoleAdd,
    AuthRoleDelete,
    AuthRoleGet,
    AuthRoleGrantPermission,
    AuthRoleRevokePermission,
}

impl Operation {
    const ALL: [Self; 30] = [
        Self::Range,
        Self::ReadonlyTxn,
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Compaction,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::Alarm,
        Self::ClusterVersionSet,
        Self::ClusterMemberAttrSet,
        Self::DowngradeInfoSet,
        Self::V2,
        Self::AuthEnable,
        Self::AuthDisable,
        Self::Authenticate,
        Self::AuthStatus,
        Self::AuthUserAdd,
        Self::AuthUserDelete,
        Self::AuthUserGet,
        Self::AuthUserChangePassword,
        Self::AuthUserGrantRole,
        Self::AuthUserRevokeRole,
        Self::AuthUserList,
        Self::AuthRoleList,
        Self::AuthRoleAdd,
        Self::AuthRoleDelete,
        Self::AuthRoleGet,
        Self::AuthRoleGrantPermission,
        Self::AuthRoleRevokePermission,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Range => "Range",
            Self::ReadonlyTxn => "ReadonlyTxn",
            Self::Put => "Put",
            Self::DeleteRange => "DeleteRange",
            Self::Txn => "Txn",
            Self::Compaction => "Compaction",
            Self::LeaseGrant => "LeaseGrant",
            Self::LeaseRevoke => "LeaseRevoke",
            Self::Alarm => "Alarm",
            Self::ClusterVersionSet => "ClusterVersionSet",
            Self::ClusterMemberAttrSet => "ClusterMemberAttrSet",
            Self::DowngradeInfoSet => "DowngradeInfoSet",
            Self::V2 => "V2",
            Self::AuthEnable => "AuthEnable",
            Self::AuthDisable => "AuthDisable",
            Self::Authenticate => "Authenticate",
            Self::AuthStatus => "AuthStatus",
            Self::AuthUserAdd => "AuthUserAdd",
            Self::AuthUserDelete => "AuthUserDelete",
            Self::AuthUserGet => "AuthUserGet",
            Self::AuthUserChangePassword => "AuthUserChangePassword",
            Self::AuthUserGrantRole => "AuthUserGrantRole",
            Self::AuthUserRevokeRole => "AuthUserRevokeRole",
            Self::AuthUserList => "AuthUserList",
            Self::AuthRoleList => "AuthRoleList",
            Self::AuthRoleAdd => "AuthRoleAdd",
            Self::AuthRoleDelete => "AuthRoleDelete",
            Self::AuthRoleGet => "AuthRoleGet",
            Self::AuthRoleGrantPermission => "AuthRoleGrantPermission",
            Self::AuthRoleRevokePermission => "AuthRoleRevokePermission",
        }
    }
}

impl From<RequestKind> for Operation {
    fn from(kind: RequestKind) -> Self {
        match kind {
            RequestKind::Put => Self::Put,
            RequestKind::DeleteRange => Self::DeleteRange,
            RequestKind::Txn => Self::Txn,
            RequestKind::Compaction => Self::Compaction,
            RequestKind::LeaseGrant => Self::LeaseGrant,
            RequestKind::LeaseRevoke => Self::LeaseRevoke,
            RequestKind::Alarm => Self::Alarm,
            RequestKind::ClusterVersionSet => Self::ClusterVersionSet,
            RequestKind::ClusterMemberAttrSet => Self::ClusterMemberAttrSet,
            RequestKind::DowngradeInfoSet => Self::DowngradeInfoSet,
            RequestKind::V2 => Self::V2,
            RequestKind::AuthEnable => Self::AuthEnable,
            RequestKind::AuthDisable => Self::AuthDisable,
            RequestKind::Authenticate => Self::Authenticate,
            RequestKind::AuthStatus => Self::AuthStatus,
            RequestKind::AuthUserAdd => Self::AuthUserAdd,
            RequestKind::AuthUserDelete => Self::AuthUserDelete,
            RequestKind::AuthUserGet => Self::AuthUserGet,
            RequestKind::AuthUserChangePassword => Self::AuthUserChangePassword,
            RequestKind::AuthUserGrantRole => Self::AuthUserGrantRole,
            RequestKind::AuthUserRevokeRole => Self::AuthUserRevokeRole,
            RequestKind::AuthUserList => Self::AuthUserList,
            RequestKind::AuthRoleList => Self::AuthRoleList,
            RequestKind::AuthRoleAdd => Self::AuthRoleAdd,
            RequestKind::AuthRoleDelete => Self::AuthRoleDelete,
            RequestKind::AuthRoleGet => Self::AuthRoleGet,
            RequestKind::AuthRoleGrantPermission => Self::AuthRoleGrantPermission,
            RequestKind::AuthRoleRevokePermission => Self::AuthRoleRevokePermission,
        }
    }
}

impl Server {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let tenths = Buckets { start: 0.0001, count: 20 };
        Self {
            leader_changes: register
                .counter("etcd_server_leader_changes_seen_total", "Changes of the leader seen."),
            proposals_failed: register
                .counter("etcd_server_proposals_failed_total", "Proposals that failed."),
            heartbeats_late: register.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that the leader could not send in time.",
            ),
            slow_applies: register
                .counter("etcd_server_slow_apply_total", "Batches that were applied slowly."),
            slow_read_indexes: register.counter(
                "etcd_server_slow_read_indexes_total",
                "Linearizable reads that timed out waiting for other members.",
            ),
            read_indexes_failed: register.counter(
                "etcd_server_read_indexes_failed_total",
                "Linearizable reads that failed.",
            ),
            promotions: register
                .counter("etcd_server_learner_promote_successes", "Learners that were promoted."),
            promotions_failed: register.counters(
                "etcd_server_learner_promote_failures",
                "Learners that could not be promoted.",
                &["Reason"],
            ),
            health: Health::new(register),
            applies: Timings::new(
                register.histograms_of(
                    "etcd_server_apply_duration_seconds",
                    "Seconds that applying one entry takes.",
                    &["version", "op", "success"],
                    tenths,
                ),
                |operation, success| {
                    let version = if operation.generation() == 2 { "v2" } else { "v3" };
                    vec![version, operation.name(), success]
                },
            ),
            requests: Timings::new(
                register.histograms_of(
                    "etcd_server_request_duration_seconds",
                    "Seconds from a request to its answer.",
                    &["type", "success"],
                    SECONDS,
                ),
                |operation, success| vec![operation.name(), success],
            ),
            ranges: Timings::new(
                register.histograms_of(
                    "etcd_server_range_duration_seconds",
                    "Seconds that reading a range takes.",
                    &["success"],
                    tenths,
                ),
                |_, success| vec![success],
            ),
        }
    }

    /// A read took long.
    pub(crate) fn on_slow_read(&self) {
        self.slow_applies.inc();
    }

    /// One request was answered.
    pub(crate) fn on_answered(&self, operation: Operation, success: bool, took: Duration) {
        self.requests.observe(operation, success, took);
    }

    /// A learner was promoted here, or refused.
    pub(crate) fn on_promotion(&self, refused: Option<&ProposeError>) {
        match refused {
            None => self.promotions.inc(),
            Some(error) => {
                let reason = format!("etcdserver: {error}");
                self.promotions_failed.with_label_values(&[reason.as_str()]).inc();
            }
        }
    }

    /// One range was read.
    pub(crate) fn on_range(&self, success: bool, took: Duration) {
        self.ranges.observe(Operation::Range, success, took);
    }
}

/// What is measured operation by operation.
pub(super) trait Measured: Copy + 'static {
    const ALL: &'static [Self];

    /// Its place in [`Measured::ALL`].
    fn place(self) -> usize;
}

impl Measured for Operation {
    const ALL: &'static [Self] = &Self::ALL;

    fn place(self) -> usize {
        self as usize
    }
}

impl Measured for state::Operation {
    const ALL: &'static [Self] = &Self::ALL;

    fn place(self) -> usize {
        self as usize
    }
}

/// A histogram for each operation and outcome, resolved when first needed, so that what never
/// happened is not shown.
#[derive(Debug)]
pub(super) struct Timings<O> {
    vector: HistogramVec,
    labels: fn(O, &'static str) -> Vec<&'static str>,
    children: Vec<[OnceLock<Histogram>; 2]>,
}

impl<O: Measured> Timings<O> {
    fn new(vector: HistogramVec, labels: fn(O, &'static str) -> Vec<&'static str>) -> Self {
        let children = O::ALL.iter().map(|_| [OnceLock::new(), OnceLock::new()]).collect();
        Self { vector, labels, children }
    }

    pub(super) fn observe(&self, operation: O, success: bool, took: Duration) {
        let child = self.children[operation.place()][usize::from(success)].get_or_init(|| {
            let success = if success { "true" } else { "false" };
            self.vector.with_label_values(&(self.labels)(operation, success))
        });
        child.observe(took.as_secs_f64());
    }
}

/// Answers to whether the server is well (HTTP-22).
#[derive(Debug)]
pub(crate) struct Health {
    good: IntCounter,
    bad: IntCounter,
    results: IntGaugeVec,
    checks: IntCounterVec,
}

impl Health {
    fn new(register: &Register<'_>) -> Self {
        Self {
            good: register.counter("etcd_server_health_success", "Times /health said true."),
            bad: register.counter("etcd_server_health_failures", "Times /health said false."),
            results: register.gauges(
                "etcd_server_healthcheck",
                "What a check said last: 1 for good, 0 for bad.",
                &["type", "name"],
            ),
            checks: register.counters(
                "etcd_server_healthchecks_total",
                "Times a check was made.",
                &["type", "name", "status"],
            ),
        }
    }

    /// `/health` was answered.
    pub(crate) fn on_health(&self, good: bool) {
        if good { self.good.inc() } else { self.bad.inc() }
    }

    /// A check of `/livez` or `/readyz` was made.
    pub(crate) fn on_check(&self, kind: &str, name: &str, good: bool) {
        self.results.with_label_values(&[kind, name]).set(i64::from(good));
        let status = if good { "success" } else { "error" };
        self.checks.with_label_values(&[kind, name, status]).inc();
    }
}
