//! Calls of clients (MET-20, MET-47, MET-48, MET-68, MET-69), under the names of
//! go-grpc-prometheus: every method and every code exists from the start, except of the services
//! `Lock` and `Election`, which etcd registers later and so shows only what happened.

use std::sync::OnceLock;
use std::time::Instant;

use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec};
use tonic::Code;

use super::register::Register;
use super::striped::Striped;
use crate::grpc::{CallKind, METHODS, MethodIndex};

/// Versions that clients may name and that are counted by name; others count as one, so that a
/// client cannot fill the memory with them.
const CLIENT_VERSIONS_MAX: usize = 64;

/// Upper bounds in seconds for how long a call takes: Prometheus' own.
const HANDLING_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All calls.
#[derive(Debug)]
pub(crate) struct Calls {
    methods: Vec<Method>,
    client_versions: ClientVersions,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    busy: Striped<2>,
    stream_failures: IntCounterVec,
    scrapes: IntCounter,
    scrapes_under_way: Gauge,
    refused_connections: IntCounterVec,
}

/// Places in [`Method::busy`].
mod of_method {
    pub(super) const STARTED: usize = 0;
    pub(super) const RECEIVED: usize = 1;
    pub(super) const SENT: usize = 2;
    pub(super) const HANDLED_WELL: usize = 3;
}

/// Places in [`Calls::busy`].
mod of_all {
    pub(super) const RECEIVED_BYTES: usize = 0;
    pub(super) const SENT_BYTES: usize = 1;
}

#[derive(Debug)]
struct Method {
    started: Listed<IntCounterVec>,
    received: Listed<IntCounterVec>,
    sent: Listed<IntCounterVec>,
    /// By code; those that end well are counted in `busy`.
    handled: Vec<Listed<IntCounterVec>>,
    busy: Striped<4>,
    seconds: Option<Listed<HistogramVec>>,
}

/// One of a family, which is shown from when it is first asked for.
#[derive(Debug)]
struct Listed<V: Family> {
    family: V,
    labels: Vec<&'static str>,
    shown: OnceLock<V::One>,
}

/// Numbers under one name.
trait Family: Clone {
    type One: std::fmt::Debug;

    fn one(&self, labels: &[&str]) -> Self::One;
}

impl Family for IntCounterVec {
    type One = IntCounter;

    fn one(&self, labels: &[&str]) -> IntCounter {
        self.with_label_values(labels)
    }
}

impl Family for HistogramVec {
    type One = Histogram;

    fn one(&self, labels: &[&str]) -> Histogram {
        self.with_label_values(labels)
    }
}

impl<V: Family> Listed<V> {
    fn new(family: &V, labels: &[&'static str], at_once: bool) -> Self {
        let listed =
            Self { family: family.clone(), labels: labels.to_vec(), shown: OnceLock::new() };
        if at_once {
            listed.one();
        }
        listed
    }

    fn one(&self) -> &V::One {
        self.shown.get_or_init(|| self.family.one(&self.labels))
    }
}

/// Tells a counter of `busy`, unless it is to be shown only once it is something.
fn tell(busy: &Striped<4>, place: usize, listed: &Listed<IntCounterVec>) {
    if listed.shown.get().is_some() || busy.total(place) != 0 {
        busy.tell(place, listed.one());
    }
}

/// Codes by number, with the names that Go gives them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl Calls {
    pub(super) fn new(register: &Register<'_>, extensive: bool) -> Self {
        let scrapes = register.counters(
            "promhttp_metric_handler_requests_total",
            "Scrapes by the code of their answer.",
            &["code"],
        );
        for code in ["500", "503"] {
            scrapes.with_label_values(&[code]).reset();
        }
        Self {
            methods: methods(register, extensive),
            client_versions: ClientVersions::new(register.counters(
                "etcd_server_client_requests_total",
                "Requests by the version of the client.",
                &["type", "client_api_version"],
            )),
            received_bytes: register.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of messages received from clients.",
            ),
            sent_bytes: register.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes of messages sent to clients.",
            ),
            busy: Striped::new(),
            stream_failures: register.counters(
                "etcd_network_server_stream_failures_total",
                "Streams that this server could not go on with.",
                &["Type", "API"],
            ),
            scrapes: scrapes.with_label_values(&["200"]),
            scrapes_under_way: register.real_gauge(
                "promhttp_metric_handler_requests_in_flight",
                "Scrapes that are being answered.",
            ),
            refused_connections: register.counters(
                "retcd_network_connections_refused_total",
                "Connections that were closed at once.",
                &["reason"],
            ),
        }
    }

    /// A call began.
    pub(crate) fn on_started(&self, method: MethodIndex) {
        self.methods[method.0].busy.add(of_method::STARTED, 1);
    }

    /// Messages of this many bytes in all were received.
    pub(crate) fn on_received(&self, method: MethodIndex, messages: u64, bytes: usize) {
        self.methods[method.0].busy.add(of_method::RECEIVED, messages);
        self.busy.add(of_all::RECEIVED_BYTES, bytes as u64);
    }

    /// Messages of this many bytes in all were sent.
    pub(crate) fn on_sent(&self, method: MethodIndex, messages: u64, bytes: usize) {
        self.methods[method.0].busy.add(of_method::SENT, messages);
        self.busy.add(of_all::SENT_BYTES, bytes as u64);
    }

    /// A call ended.
    pub(crate) fn on_ended(&self, method: MethodIndex, code: Code, began: Instant) {
        let counters = &self.methods[method.0];
        if code == Code::Ok {
            counters.busy.add(of_method::HANDLED_WELL, 1);
        } else {
            counters.handled[code as usize].one().inc();
        }
        if let Some(seconds) = &counters.seconds {
            seconds.one().observe(began.elapsed().as_secs_f64());
        }
    }

    /// Brings the registered counters up to date.
    pub(super) fn tell(&self) {
        self.busy.tell(of_all::RECEIVED_BYTES, &self.received_bytes);
        self.busy.tell(of_all::SENT_BYTES, &self.sent_bytes);
        for method in &self.methods {
            tell(&method.busy, of_method::STARTED, &method.started);
            tell(&method.busy, of_method::RECEIVED, &method.received);
            tell(&method.busy, of_method::SENT, &method.sent);
            tell(&method.busy, of_method::HANDLED_WELL, &method.handled[Code::Ok as usize]);
        }
        self.client_versions.tell();
    }

    /// Counts a call by the version that the client named (G-006).
    pub(crate) fn on_client(&self, kind: CallKind, version: Option<&str>) {
        self.client_versions.count(kind, version);
    }

    /// A stream broke off because of this server.
    pub(crate) fn on_stream_failure(&self, kind: &str, api: &str) {
        self.stream_failures.with_label_values(&[kind, api]).inc();
    }

    /// Runs one scrape.
    pub(crate) fn scrape<T>(&self, scrape: impl FnOnce() -> T) -> T {
        self.scrapes_under_way.inc();
        let answer = scrape();
        self.scrapes_under_way.dec();
        self.scrapes.inc();
        answer
    }

    /// A connection was closed before it said anything.
    pub(crate) fn on_refused_connection(&self, reason: &str) {
        self.refused_connections.with_label_values(&[reason]).inc();
    }
}

fn methods(register: &Register<'_>, extensive: bool) -> Vec<Method> {
    const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
    const LABELS_AND_CODE: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
    let started = register.counters("grpc_server_started_total", "Calls begun.", &LABELS);
    let handled =
        register.counters("grpc_server_handled_total", "Calls ended, by code.", &LABELS_AND_CODE);
    let received =
        register.counters("grpc_server_msg_received_total", "Messages received.", &LABELS);
    let sent = register.counters("grpc_server_msg_sent_total", "Messages sent.", &LABELS);
    let seconds = extensive.then(|| {
        register.histograms(
            "grpc_server_handling_seconds",
            "Seconds from a call to its end.",
            &LABELS,
            HANDLING_SECONDS.to_vec(),
        )
    });
    let method = |method: &'static crate::grpc::Method| {
        let (kind, service, name) = (method.kind.name(), method.service(), method.name());
        let at_once = !method.is_recipe();
        let labels = [kind, service, name];
        let code =
            |code: &&'static str| Listed::new(&handled, &[kind, service, name, *code], at_once);
        Method {
            started: Listed::new(&started, &labels, at_once),
            received: Listed::new(&received, &labels, at_once),
            sent: Listed::new(&sent, &labels, at_once),
            handled: CODES.iter().map(code).collect(),
            busy: Striped::new(),
            seconds: seconds.as_ref().map(|seconds| Listed::new(seconds, &labels, at_once)),
        }
    };
    METHODS.iter().map(method).collect()
}

/// Requests by the version that the client named.
#[derive(Debug)]
struct ClientVersions {
    vector: IntCounterVec,
    unnamed: Pair,
    /// In the order of their first call; no place is empty before one that is not.
    named: Box<[OnceLock<(String, Pair)>]>,
    other: OnceLock<Pair>,
}

/// Of unary calls and of streams; each is shown once there was one.
#[derive(Debug, Default)]
struct Pair {
    busy: Striped<2>,
}

impl Pair {
    fn count(&self, kind: CallKind) {
        self.busy.add(usize::from(kind != CallKind::Unary), 1);
    }

    fn tell(&self, vector: &IntCounterVec, version: &str) {
        for (place, kind) in ["unary", "stream"].into_iter().enumerate() {
            if self.busy.total(place) != 0 {
                self.busy.tell(place, &vector.with_label_values(&[kind, version]));
            }
        }
    }
}

impl ClientVersions {
    fn new(vector: IntCounterVec) -> Self {
        let named = (0..CLIENT_VERSIONS_MAX).map(|_| OnceLock::new()).collect();
        Self { vector, unnamed: Pair::default(), named, other: OnceLock::new() }
    }

    fn count(&self, kind: CallKind, version: Option<&str>) {
        let Some(version) = version else {
            self.unnamed.count(kind);
            return;
        };
        for place in &self.named {
            // Whoever comes first takes the place; the others look further.
            let (name, pair) = place.get_or_init(|| (version.to_owned(), Pair::default()));
            if name == version {
                pair.count(kind);
                return;
            }
        }
        self.other.get_or_init(Pair::default).count(kind);
    }

    fn tell(&self) {
        for (version, pair) in self.named.iter().filter_map(OnceLock::get) {
            pair.tell(&self.vector, version);
        }
        self.unnamed.tell(&self.vector, "unknown");
        if let Some(other) = self.other.get() {
            other.tell(&self.vector, "other");
        }
    }
}
