//! Messages between members over etcd's peer protocol ("rafthttp"), in both directions, so that
//! our members and etcd's (3.4 to 3.7) share a cluster.
//!
//! A member opens two streams at each peer, by GET, and *receives* on them; the peer's answer never
//! ends. What it sends goes out on the streams that peers have opened here, and by POST while there
//! are none. Snapshots and probes are requests of their own. So there are two halves:
//!
//! - [`Transport`] keeps tasks that open streams, post, and probe; connections come from [`Dial`];
//! - [`Transport::handle`] answers what peers ask, as a function of an HTTP request, so that ports,
//!   TLS and routing are the server's.
//!
//! Below are [`codec`] and [`wire`], which know nothing of sockets and trust no byte.
//!
//! Invariants:
//! - sending never blocks; every queue is bounded, and what does not fit is dropped and reported;
//! - a peer that is slow, dead or hostile costs its own queues and nothing else;
//! - 403 is answered for two reasons only, because its receiver ends (`incoming`).
//!
//! Format: docs/formats/peer.md. Source: etcd: server/etcdserver/api/rafthttp.

mod appends;
pub mod codec;
mod dial;
mod headers;
mod incoming;
mod link;
mod local_member;
mod metrics;
mod outbox;
mod peer;
mod pieces;
mod pipeline;
mod probe;
mod reader;
mod reply;
mod said;
mod snapshot;
mod status;
mod transport;
mod urls;
pub mod wire;

pub use appends::{Appends, Flow, FlowSample, Latency, LatencySample};
pub use dial::{Connection, Dial, TcpDial, Timed, host_and_port};
pub use local_member::{
    BoxFuture, ByteStream, IncomingDb, IncomingSnapshot, LocalMember, OutgoingSnapshot,
    ReceiveSnapshotError,
};
pub use metrics::{
    Counter, Gauge, Histogram, HistogramSample, Metrics, PeerMetrics, SnapshotMetrics,
};
pub use pieces::Pieces;
pub use reply::ReplyBody;
pub use transport::{Config, Transport};
