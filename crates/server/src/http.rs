//! Everything on the ports that is not gRPC: health, version, metrics and what helps debugging
//! (features 8.1; etcd: server/etcdserver/api/etcdhttp).
//!
//! Paths are few and fixed, so a `match` finds them.

mod gateway;
mod health;
mod log_level;
mod path;
mod peers;
mod pprof;
mod v2;
mod vars;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base::version;
use hyper::body::Incoming;

use crate::grpc::{Remote, ReplyFuture};
use crate::guard::Secured;
use crate::handle::Handle;
use crate::peers::others::READS_V2;
use crate::proxy::Proxy;

pub(crate) use gateway::Gateway;
pub use pprof::profile;

/// Changes the level of the log by its name; the error says why not.
pub(crate) type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Who may ask from a browser, and for which host (SRV-085, SRV-086).
#[derive(Clone, Debug, Default)]
pub(crate) struct Browsers {
    /// Origins; `*` for all.
    pub(crate) origins: Vec<String>,
    /// Host names; none or `*` for all.
    pub(crate) hosts: Vec<String>,
}

/// What a client port serves beside what every one does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offers {
    /// The v3 API as JSON.
    pub(crate) gateway: Option<Gateway>,
    /// The v2 API (V2-001), and below which keys of the third generation its keys are (V2-180): empty
    /// for a tree of their own.
    pub(crate) v2: Option<String>,
    /// Profiles (HTTP-18).
    pub(crate) profiles: bool,
}

/// The plain endpoints; clones share the member.
#[derive(Clone)]
pub(crate) struct Plain {
    served: By,
}

/// Who answers.
#[derive(Clone)]
enum By {
    Member(Arc<Shared>),
    Proxy(Arc<Proxy>),
}

struct Shared {
    port: Port,
    handle: Handle,
    browsers: Browsers,
    set_log_level: Option<SetLogLevel>,
    gateway: Option<Gateway>,
    v2: Option<v2::V2>,
    profiles: bool,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.served {
            By::Member(shared) => {
                f.debug_struct("Plain").field("port", &shared.port).finish_non_exhaustive()
            }
            By::Proxy(proxy) => f.debug_tuple("Plain").field(proxy).finish(),
        }
    }
}

/// For whom a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Clients,
    Calls,
    Metrics,
    Peers,
}

impl Plain {
    /// What the client port serves.
    pub(crate) fn for_clients(
        handle: Handle,
        browsers: Browsers,
        set_log_level: SetLogLevel,
        offers: Offers,
    ) -> Self {
        let Offers { gateway, v2, profiles } = offers;
        let set_log_level = Some(set_log_level);
        let port = Port::Clients;
        let v2 = v2.map(|v3_prefix| v2::V2::new(handle.clone(), &v3_prefix));
        Self::of(Shared { port, handle, browsers, set_log_level, gateway, v2, profiles })
    }

    /// What a port for gRPC alone serves: nothing (V2-015).
    pub(crate) fn for_calls_only(handle: Handle) -> Self {
        Self::new(Port::Calls, handle)
    }

    /// Whether it is what [`Plain::for_calls_only`] makes.
    pub(crate) fn is_for_calls_only(&self) -> bool {
        matches!(&self.served, By::Member(shared) if shared.port == Port::Calls)
    }

    /// What a port for metrics serves (HTTP-16).
    pub(crate) fn for_metrics(handle: Handle) -> Self {
        Self::new(Port::Metrics, handle)
    }

    /// What the port for other members serves to everyone (HTTP-30).
    pub(crate) fn for_peers(handle: Handle) -> Self {
        Self::new(Port::Peers, handle)
    }

    fn new(port: Port, handle: Handle) -> Self {
        let browsers = Browsers::default();
        let (set_log_level, gateway, v2) = (None, None, None);
        let profiles = false;
        Self::of(Shared { port, handle, browsers, set_log_level, gateway, v2, profiles })
    }

    fn of(shared: Shared) -> Self {
        Self { served: By::Member(Arc::new(shared)) }
    }

    /// What a proxy serves (SRV-170).
    pub(crate) fn for_proxy(proxy: Arc<Proxy>) -> Self {
        Self { served: By::Proxy(proxy) }
    }

    /// Answers one request of the client at `remote`.
    pub(crate) fn call(&self, remote: Remote, request: http::Request<Incoming>) -> ReplyFuture {
        let served = self.served.clone();
        Box::pin(async move {
            let response = match served {
                By::Member(shared) => shared.answer(remote, request).await,
                By::Proxy(proxy) => proxy.answer(remote, request).await,
            };
            Ok(response.map(tonic::body::Body::new))
        })
    }
}

impl Shared {
    async fn answer(&self, remote: Remote, request: http::Request<Incoming>) -> Response {
        if self.port != Port::Clients {
            return self.route(remote, request).await;
        }
        // A page cannot make a name with a certificate.
        let is_secured = request.extensions().get::<Secured>().is_some();
        if !is_secured && let Some(host) = self.browsers.foreign_host(&request) {
            tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
            return text(StatusCode::MISDIRECTED_REQUEST, &unknown_host(host));
        }
        let origin = self.browsers.allowed_origin(&request);
        if origin.is_none() && is_of_another_page(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "the Origin header names no origin of --cors, and not this server",
            );
        }
        // A browser that asks whether it may ask.
        let mut response = if request.method() == Method::OPTIONS {
            Response::new(Body::empty())
        } else {
            self.route(remote, request).await
        };
        if let Some(origin) = origin
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            Browsers::allow(origin, &mut response);
        }
        response
    }

    async fn route(&self, remote: Remote, mut request: http::Request<Incoming>) -> Response {
        if let Some(v2) = &self.v2
            && v2::is_path(request.uri().path())
        {
            return v2.answer(request).await;
        }
        if let Some(answer) = path::settle(&mut request) {
            return answer;
        }
        if let Some(gateway) = &self.gateway
            && Gateway::is_path(request.uri().path())
        {
            return gateway.answer(remote, request).await;
        }
        let is_get = request.method() == Method::GET;
        let path = request.uri().path();
        match (self.port, path) {
            (Port::Calls, _) => text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this port is for gRPC; HTTP is served at --listen-client-http-urls",
            ),
            (Port::Peers, path) if path == "/raft" || path.starts_with("/raft/") => {
                self.handle.peers().serve(request).await
            }
            (Port::Clients | Port::Metrics, "/metrics") => self.metrics(),
            (Port::Clients | Port::Metrics, path) if health::is_path(path) => {
                if !is_get {
                    tracing::warn!(path, "status-code" = 405, "Health request error");
                    return method_not_allowed("GET");
                }
                health::answer(&self.handle, request.uri()).await
            }
            (Port::Peers, "/version") if is_get => {
                let mut response = self.version();
                response.headers_mut().insert(READS_V2, HeaderValue::from_static("1"));
                response
            }
            (Port::Clients, path) if self.profiles && path.starts_with(pprof::PREFIX) => {
                pprof::answer(request.uri()).await
            }
            (Port::Clients, "/version") if is_get => self.version(),
            (Port::Clients, "/debug/vars") if is_get => vars::answer(&self.handle),
            (Port::Clients | Port::Peers, "/version") | (Port::Clients, "/debug/vars") => {
                method_not_allowed("GET")
            }
            (Port::Clients, "/config/local/log") => match &self.set_log_level {
                Some(set) if request.method() == Method::PUT => {
                    log_level::answer(set, request.into_body()).await
                }
                Some(_) => method_not_allowed("PUT"),
                None => not_found(),
            },
            (Port::Peers, _) => peers::answer(&self.handle, request).await,
            (Port::Clients | Port::Metrics, _) => not_found(),
        }
    }

    /// HTTP-15.
    fn metrics(&self) -> Response {
        let metrics = self.handle.metrics();
        let body = metrics.calls.scrape(|| metrics.text(&self.handle));
        let kind = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
        with_type(StatusCode::OK, kind, body)
    }

    /// HTTP-01: the order of the keys is fixed.
    fn version(&self) -> Response {
        let reads = self.handle.reads();
        let cluster = reads.cluster_version();
        let cluster = cluster.as_deref().unwrap_or("not_decided");
        let storage = reads.storage_version();
        let storage =
            storage.map_or_else(String::new, |storage| format!(",\"storage\":\"{storage}\""));
        let body = format!(
            "{{\"etcdserver\":\"{}\",\"etcdcluster\":\"{cluster}\"{storage}}}",
            version::COMPATIBLE
        );
        with_type(StatusCode::OK, "application/json", body)
    }
}

/// Whether a page of another server sends this to have something done: a browser shows it no answer,
/// but has asked already.
fn is_of_another_page(request: &http::Request<Incoming>) -> bool {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let only_reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method())
        && !headers.contains_key(header::UPGRADE);
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = own.or_else(|| request.uri().authority().map(|host| host.as_str()));
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let is_own = page.zip(own).is_some_and(|((_, page), own)| page.eq_ignore_ascii_case(own));
    !only_reads && !is_own
}

/// An origin as browsers write it: the flag needs a port, and they leave out the usual one.
fn without_usual_port(origin: &[u8]) -> &[u8] {
    let plain = origin.strip_suffix(b":80").filter(|_| origin.starts_with(b"http://"));
    let secure = origin.strip_suffix(b":443").filter(|_| origin.starts_with(b"https://"));
    plain.or(secure).unwrap_or(origin)
}

impl Browsers {
    /// Lets a page of this origin see an answer (V2-005).
    pub(crate) fn allow(origin: HeaderValue, response: &mut Response) {
        let headers = response.headers_mut();
        let allow = HeaderValue::from_static;
        headers
            .insert(header::ACCESS_CONTROL_ALLOW_METHODS, allow("POST, GET, OPTIONS, PUT, DELETE"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            allow("accept, content-type, authorization"),
        );
    }

    /// The host that the request is for, if this server does not go by it: a page that makes a name
    /// of its own point here must not be answered.
    fn foreign_host<'r>(&self, request: &'r http::Request<Incoming>) -> Option<&'r str> {
        if self.hosts.is_empty() || self.hosts.iter().any(|host| host == "*") {
            return None;
        }
        let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let named = named.or_else(|| request.uri().authority().map(|host| host.as_str()));
        let named = named.map_or("", |host| match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                name.trim_start_matches('[').trim_end_matches(']')
            }
            Some(_) | None => host,
        });
        (!self.hosts.iter().any(|host| host == named)).then_some(named)
    }

    pub(crate) fn allowed_origin(&self, request: &http::Request<Incoming>) -> Option<HeaderValue> {
        if self.origins.iter().any(|origin| origin == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.headers().get(header::ORIGIN)?;
        self.origins
            .iter()
            .any(|known| without_usual_port(known.as_bytes()) == origin.as_bytes())
            .then(|| origin.clone())
    }
}

pub(crate) fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A text that browsers must not take for anything else.
fn plain_text(status: StatusCode, body: String) -> Response {
    let mut response = with_type(status, "text/plain; charset=utf-8", body);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// A text as Go's servers send errors: with a newline behind it.
fn text(status: StatusCode, text: &str) -> Response {
    plain_text(status, format!("{text}\n"))
}

/// What somebody is told whose request is for a host that this server does not go by (GW-26).
fn unknown_host(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n"
    )
}

/// HTTP-21.
fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

/// HTTP-06.
pub(crate) fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
