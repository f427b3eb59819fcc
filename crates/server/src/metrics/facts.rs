//! What other parts know and is looked up while scraping.

use base::version;
use prometheus::core::Collector as _;
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{IntGauge, IntGaugeVec};

use super::register::Register;
use crate::handle::Handle;

/// Numbers that are set anew by each scrape.
#[derive(Debug)]
pub(super) struct Facts {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    pending: IntGauge,
    quota_bytes: IntGauge,
    id: IntGaugeVec,
    cluster_version: IntGaugeVec,
    known_peers: IntGaugeVec,
    alarms: IntGaugeVec,
    features: IntGaugeVec,
    auth_revision: IntGauge,
    file_bytes: IntGauge,
    used_bytes: IntGauge,
    keys: IntGauge,
    revision: IntGauge,
    compact_revision: IntGauge,
    slow_watches: IntGauge,
    pending_events: IntGauge,
}

impl Facts {
    #[allow(clippy::too_many_lines, reason = "one list of names")]
    pub(super) fn new(register: &Register<'_>) -> Self {
        let one = |name, help, label, value: &str| {
            register.gauges(name, help, &[label]).with_label_values(&[value]).set(1);
        };
        one(
            "etcd_server_version",
            "The release of etcd that this server behaves like.",
            "server_version",
            version::COMPATIBLE,
        );
        one(
            "etcd_server_go_version",
            "There is no Go in this server; the name is kept for dashboards.",
            "server_go_version",
            "none",
        );
        register
            .gauges("retcd_build_info", "This program's own release.", &["version"])
            .with_label_values(&[version::PRODUCT])
            .set(1);
        register.gauge(
            "etcd_mvcc_db_open_read_transactions",
            "Reads that pin a state of the database.",
        );
        let gauge = |name, help| register.gauge(name, help);
        Self {
            has_leader: gauge("etcd_server_has_leader", "Whether a leader is known."),
            is_leader: gauge("etcd_server_is_leader", "Whether this member leads."),
            is_learner: gauge("etcd_server_is_learner", "Whether this member has no vote."),
            committed: gauge(
                "etcd_server_proposals_committed_total",
                "Index of the newest committed entry.",
            ),
            applied: gauge(
                "etcd_server_proposals_applied_total",
                "Index of the newest applied entry.",
            ),
            pending: gauge("etcd_server_proposals_pending", "Proposals without an answer yet."),
            quota_bytes: gauge(
                "etcd_server_quota_backend_bytes",
                "Bytes of the database above which writes are refused.",
            ),
            id: register.gauges("etcd_server_id", "This member, in hexadecimal.", &["server_id"]),
            cluster_version: register.gauges(
                "etcd_cluster_version",
                "The version that all members agreed on.",
                &["cluster_version"],
            ),
            known_peers: register.gauges(
                "etcd_network_known_peers",
                "Members that this member knows.",
                &["Local", "Remote"],
            ),
            alarms: register.gauges(
                "etcd_debugging_server_alarms",
                "Alarms that are raised.",
                &["server_id", "alarm_type"],
            ),
            features: register.gauges(
                "etcd_server_feature_enabled",
                "Whether a feature is on: 1 if so, else 0.",
                &["name", "stage"],
            ),
            auth_revision: gauge(
                "etcd_debugging_auth_revision",
                "How often users and roles were changed, and one more.",
            ),
            file_bytes: gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database's file."),
            used_bytes: gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of the database's file that are in use.",
            ),
            keys: gauge("etcd_debugging_mvcc_keys_total", "Keys that are live."),
            revision: gauge("etcd_debugging_mvcc_current_revision", "The newest revision."),
            compact_revision: gauge(
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction.",
            ),
            slow_watches: gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watches whose client has not taken what was published for them.",
            ),
            pending_events: gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Events that wait in memory to be sent to watchers.",
            ),
        }
    }

    pub(super) fn set_feature(&self, name: &str, stage: &str, enabled: bool) {
        self.features.with_label_values(&[name, stage]).set(i64::from(enabled));
    }

    pub(super) fn refresh(&self, handle: &Handle) {
        let status = handle.status();
        self.has_leader.set(i64::from(!status.leader.is_none()));
        self.is_leader.set(i64::from(handle.leads()));
        self.is_learner.set(i64::from(status.learner));
        self.committed.set(signed(status.committed));
        self.applied.set(signed(status.applied));
        self.pending.set(handle.pending_proposals());
        self.quota_bytes.set(handle.limits().quota.bytes().map_or(0, signed));
        let own = handle.member_id().to_string();
        self.id.with_label_values(&[own.as_str()]).set(1);
        let sizes = handle.backend().sizes();
        self.file_bytes.set(signed(sizes.total));
        self.used_bytes.set(signed(sizes.in_use));
        let reads = handle.reads();
        self.auth_revision.set(signed(reads.auth().revision()));
        self.keys.set(signed(reads.keys().key_count() as u64));
        self.revision.set(reads.keys().revision());
        self.compact_revision.set(reads.keys().compact_revision());
        let lag = reads.watch().lag();
        self.slow_watches.set(signed(lag.watches as u64));
        self.pending_events.set(signed(lag.events as u64));
        self.refresh_lists(handle, &own);
    }

    /// Numbers whose labels come and go.
    fn refresh_lists(&self, handle: &Handle, own: &str) {
        let reads = handle.reads();
        self.cluster_version.reset();
        if let Some(version) = reads.cluster_version() {
            let short = version.rsplit_once('.').map_or(version.as_str(), |(short, _)| short);
            self.cluster_version.with_label_values(&[short]).set(1);
        }
        self.known_peers.reset();
        for member in reads.members() {
            let remote = base::MemberId(member.id).to_string();
            self.known_peers.with_label_values(&[own, remote.as_str()]).set(1);
        }
        // One that was seen raised is shown as cleared from then on, as in etcd.
        for seen in self.alarms.collect().iter().flat_map(MetricFamily::get_metric) {
            let labels: Vec<&str> = seen.get_label().iter().map(LabelPair::value).collect();
            let [kind, member] = labels[..] else { continue };
            self.alarms.with_label_values(&[member, kind]).set(0);
        }
        for alarm in reads.alarms() {
            let member = base::MemberId(alarm.member_id).to_string();
            self.alarms.with_label_values(&[member.as_str(), alarm.alarm().as_str_name()]).set(1);
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
