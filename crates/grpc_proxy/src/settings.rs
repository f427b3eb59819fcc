//! What a proxy is told at start.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use client::TlsOptions;
use futures_util::future::BoxFuture;

/// Everything a proxy needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: Listen,
    /// The cluster behind.
    pub upstream: Upstream,
    /// Where clients are told that the proxy is; empty to tell them of the members instead.
    pub advertise_client_url: String,
    /// The proxy makes itself known to others of its kind.
    pub registration: Option<Registration>,
    /// What stands before every key of the clients in the cluster; empty for nothing.
    pub namespace: Bytes,
    /// Under which keys the proxy notes what it owns; empty without that.
    pub leasing_prefix: Bytes,
    /// Reads that may be old never go back behind what was read before.
    pub is_ordered: bool,
    /// Every call becomes a line of the log.
    pub logs_calls: bool,
    /// Answers what is asked below `/debug/pprof/`; `None` if nobody may.
    pub profiles: Option<Profiles>,
}

/// Tells of this process.
pub type Profiles = fn(http::Uri) -> BoxFuture<'static, http::Response<Bytes>>;

/// The ports of a proxy.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Host and port.
    pub address: String,
    /// A second port for scrapers, as a URL.
    pub metrics_url: Option<String>,
    /// How TLS is spoken there; `None` for no TLS.
    pub tls: Option<tls::Settings>,
    /// For an own certificate: the folder for it, and the years it is valid.
    pub self_signed: Option<(PathBuf, u64)>,
    /// Calls that one connection may have open.
    pub concurrent_streams_max: u32,
    /// A connection's idle time before the proxy asks whether it lives; zero for never.
    pub keepalive_interval: Duration,
    /// How long the answer to that may take; zero for the interval.
    pub keepalive_timeout: Duration,
    /// How often clients may ask that of the proxy; zero for gRPC's own five minutes.
    pub ping_interval_min: Duration,
}

/// How the members are reached.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Hosts with ports, or URLs.
    pub endpoints: Vec<String>,
    /// How often the members are asked who they are; zero for never.
    pub auto_sync_interval: Duration,
    /// TLS to the members; `None` for none.
    pub tls: Option<TlsOptions>,
    /// Silence after which a connection is probed; zero for never.
    pub keepalive_time: Duration,
    /// How long the answer may take.
    pub keepalive_timeout: Duration,
    /// Connections without calls are probed, too.
    pub keepalive_without_calls: bool,
    /// The largest request.
    pub request_bytes_max: usize,
    /// The largest answer.
    pub response_bytes_max: usize,
}

/// How a proxy makes itself known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The folder of keys that all proxies share.
    pub prefix: String,
    /// How long the others believe in a proxy that is gone.
    pub ttl_seconds: i64,
}
