//! The other members as the transport counts them (MET-39 to MET-46, MET-50).
//!
//! The transport counts in plain numbers; here they get their names when somebody scrapes. Of a
//! member that was never known there is nothing to show, as in etcd.

use std::sync::Arc;

use base::MemberId;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use transport::{HistogramSample, Metrics, PeerMetrics};

/// Shows the transport's numbers.
#[derive(Debug)]
pub(super) struct Network {
    own: MemberId,
    peers: Arc<Metrics>,
    descriptions: Vec<Desc>,
}

/// One number of one member.
enum Number {
    Counter(u64),
    Gauge(i64),
    Histogram(HistogramSample),
}

/// A name, its text, which labels tell the members apart, and where the number is.
struct Family {
    name: &'static str,
    help: &'static str,
    labels: Labels,
    number: fn(&PeerMetrics) -> Number,
}

#[derive(Clone, Copy)]
enum Labels {
    To,
    From,
    LocalAndRemote,
}

impl Labels {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::To => &["To"],
            Self::From => &["From"],
            Self::LocalAndRemote => &["Local", "Remote"],
        }
    }

    fn of(self, own: MemberId, peer: MemberId) -> Vec<LabelPair> {
        let pair = |name: &str, id: MemberId| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(id.to_string());
            pair
        };
        match self {
            Self::To => vec![pair("To", peer)],
            Self::From => vec![pair("From", peer)],
            Self::LocalAndRemote => vec![pair("Local", own), pair("Remote", peer)],
        }
    }
}

const fn family(
    name: &'static str,
    help: &'static str,
    labels: Labels,
    number: fn(&PeerMetrics) -> Number,
) -> Family {
    Family { name, help, labels, number }
}

const FAMILIES: [Family; 15] = [
    family(
        "etcd_network_peer_round_trip_time_seconds",
        "Seconds to another member and back.",
        Labels::To,
        |peer| Number::Histogram(peer.round_trip.sample()),
    ),
    family(
        "etcd_network_peer_sent_bytes_total",
        "Bytes sent to another member.",
        Labels::To,
        |peer| Number::Counter(peer.sent_bytes.value()),
    ),
    family(
        "etcd_network_peer_received_bytes_total",
        "Bytes received from another member.",
        Labels::From,
        |peer| Number::Counter(peer.received_bytes.value()),
    ),
    family(
        "etcd_network_peer_sent_failures_total",
        "Failures to send to another member.",
        Labels::To,
        |peer| Number::Counter(peer.sent_failures.value()),
    ),
    family(
        "etcd_network_peer_received_failures_total",
        "Failures to receive from another member.",
        Labels::From,
        |peer| Number::Counter(peer.received_failures.value()),
    ),
    family(
        "etcd_network_active_peers",
        "Whether another member is reached: 1 if so, else 0.",
        Labels::LocalAndRemote,
        |peer| Number::Gauge(peer.active.value()),
    ),
    family(
        "etcd_network_disconnected_peers_total",
        "Times that another member was lost.",
        Labels::LocalAndRemote,
        |peer| Number::Counter(peer.disconnected.value()),
    ),
    family("etcd_network_snapshot_send_success", "Snapshots sent.", Labels::To, |peer| {
        Number::Counter(peer.snapshot_send.successes.value())
    }),
    family(
        "etcd_network_snapshot_send_failures",
        "Snapshots that could not be sent.",
        Labels::To,
        |peer| Number::Counter(peer.snapshot_send.failures.value()),
    ),
    family(
        "etcd_network_snapshot_send_inflights_total",
        "Snapshots that are being sent.",
        Labels::To,
        |peer| Number::Gauge(peer.snapshot_send.in_flight.value()),
    ),
    family(
        "etcd_network_snapshot_send_total_duration_seconds",
        "Seconds that sending a snapshot takes.",
        Labels::To,
        |peer| Number::Histogram(peer.snapshot_send.duration.sample()),
    ),
    family("etcd_network_snapshot_receive_success", "Snapshots received.", Labels::From, |peer| {
        Number::Counter(peer.snapshot_receive.successes.value())
    }),
    family(
        "etcd_network_snapshot_receive_failures",
        "Snapshots that could not be received.",
        Labels::From,
        |peer| Number::Counter(peer.snapshot_receive.failures.value()),
    ),
    family(
        "etcd_network_snapshot_receive_inflights_total",
        "Snapshots that are being received.",
        Labels::From,
        |peer| Number::Gauge(peer.snapshot_receive.in_flight.value()),
    ),
    family(
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Seconds that receiving a snapshot takes.",
        Labels::From,
        |peer| Number::Histogram(peer.snapshot_receive.duration.sample()),
    ),
];

impl Network {
    pub(super) fn new(own: MemberId, peers: Arc<Metrics>) -> Self {
        let describe = |family: &Family| {
            let labels = family.labels.names().iter().map(|name| (*name).to_owned()).collect();
            let (name, help) = (family.name.to_owned(), family.help.to_owned());
            Desc::new(name, help, labels, std::collections::HashMap::new())
                .expect("names and labels are valid")
        };
        Self { own, peers, descriptions: FAMILIES.iter().map(describe).collect() }
    }
}

impl Collector for Network {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let peers = self.peers.peers();
        let families = FAMILIES.iter().map(|family| {
            let mut kind = MetricType::COUNTER;
            let metrics = peers.iter().map(|(id, numbers)| {
                let mut metric = Metric::default();
                metric.set_label(family.labels.of(self.own, *id));
                kind = fill(&mut metric, (family.number)(numbers));
                metric
            });
            let metrics: Vec<Metric> = metrics.collect();
            let mut shown = MetricFamily::default();
            shown.set_name(family.name.to_owned());
            shown.set_help(family.help.to_owned());
            shown.set_field_type(kind);
            shown.set_metric(metrics);
            shown
        });
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// Sets a metric to a number; its type.
fn fill(metric: &mut Metric, number: Number) -> MetricType {
    match number {
        Number::Counter(value) => {
            let mut counter = Counter::default();
            counter.set_value(real(value));
            metric.set_counter(counter);
            MetricType::COUNTER
        }
        Number::Gauge(value) => {
            let mut gauge = Gauge::default();
            // At most as many as there are members.
            gauge.set_value(f64::from(i32::try_from(value).unwrap_or(i32::MAX)));
            metric.set_gauge(gauge);
            MetricType::GAUGE
        }
        Number::Histogram(sample) => {
            let mut histogram = Histogram::default();
            histogram.set_sample_count(sample.count);
            histogram.set_sample_sum(sample.sum_seconds);
            let buckets = sample.cumulative.iter().map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(*count);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            metric.set_histogram(histogram);
            MetricType::HISTOGRAM
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
fn real(number: u64) -> f64 {
    number as f64
}
