//! What is served to scrapers and supervisors, beside the calls.
//!
//! `/metrics` is a member's, `/proxy/metrics` the proxy's own; `/health` asks the members,
//! `/proxy/health` the proxy itself by way of its own address.
//!
//! Source: etcd server/proxy/grpcproxy/{metrics,health}.go.

mod scrape;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Options, code_name};
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::kv::Store;
use crate::metrics::Metrics;
use crate::settings::Profiles;
use crate::upstream::Upstream;

pub(crate) use scrape::Scraper;

/// How long a member may take to show that it is well. The same as etcd's.
const READ_TIME_MAX: Duration = Duration::from_secs(1);
const WATCH_TIME_MAX: Duration = Duration::from_secs(3);

/// Members that want to know who asks are well.
const USER_EMPTY: &str = "etcdserver: user name is empty";

/// The plain endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) scraper: Scraper,
    /// How the proxy reaches itself; `None` without an address.
    pub(crate) own: Option<Arc<Options>>,
    /// Who answers for this process, where that is wished.
    pub(crate) profiles: Option<Profiles>,
    /// Questions over connections of their own that are under way; others wait.
    pub(crate) turns: Arc<Semaphore>,
}

/// So many at a time. A member's health is asked for over the connection of all calls.
pub(crate) const TURNS: usize = 8;

/// What paths of profiles begin with.
pub(crate) const PROFILES: &str = "/debug/pprof/";

impl Plain {
    /// Answers a request that is no call.
    pub(crate) async fn answer(&self, method: &Method, uri: &Uri) -> Response<Body> {
        if let Some(profiles) = self.profiles.filter(|_| uri.path().starts_with(PROFILES)) {
            return profiles(uri.clone()).await.map(|text| Body::new(Full::new(text)));
        }
        let is_question = matches!(uri.path(), "/metrics" | "/proxy/health");
        let _turn = if is_question { self.turns.acquire().await.ok() } else { None };
        match uri.path() {
            "/metrics" => match self.scraper.metrics(&self.store.upstream().client()).await {
                Ok(text) => with_type(StatusCode::OK, "text/plain; version=0.0.4", text),
                Err(error) => {
                    tracing::warn!(error = %error, "no member shows its metrics");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
                }
            },
            "/proxy/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
                with_type(StatusCode::OK, kind, self.metrics.text())
            }
            "/health" | "/proxy/health" if method != Method::GET => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                response
            }
            "/health" => health(self.check().await),
            "/proxy/health" => health(self.check_own().await),
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    /// Whether a member answers; else why not.
    async fn check(&self) -> Result<(), String> {
        let own = Upstream::own();
        let reading = self.store.range(&own, probe());
        judge(tokio::time::timeout(READ_TIME_MAX, reading).await.ok().map(|read| read.map(drop)))
    }

    /// Whether this proxy answers, as its clients see it.
    async fn check_own(&self) -> Result<(), String> {
        let Some(options) = &self.own else { return Err("no connection to proxy".to_owned()) };
        let client = Client::connect(Options::clone(options)).await;
        let client = client.map_err(|error| format!("GET ERROR:{error}"))?;
        let channel = client.connection().channel;
        let mut stub = KvClient::new(channel.clone());
        let reading = stub.range(probe());
        let read = tokio::time::timeout(READ_TIME_MAX, reading).await.ok();
        judge(read.map(|read| read.map(drop).map_err(|status| client::as_told_by_go(&status))))?;
        let watching = async {
            let create = WatchCreateRequest { key: probe().key, ..WatchCreateRequest::default() };
            let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            // The stream stays open: it does not end before the answer.
            let requests = tokio_stream::StreamExt::chain(
                tokio_stream::once(request),
                tokio_stream::pending(),
            );
            let watching = WatchClient::new(channel).watch(requests).await;
            watching?.into_inner().message().await
        };
        match tokio::time::timeout(WATCH_TIME_MAX, watching).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None) | Err(_)) | Err(_) => Err("WATCH TIMEOUT".to_owned()),
        }
    }
}

/// A read of a key that need not exist.
fn probe() -> RangeRequest {
    RangeRequest { key: Bytes::from_static(b"a"), ..RangeRequest::default() }
}

fn judge(read: Option<Result<(), Status>>) -> Result<(), String> {
    let status = match read {
        Some(Ok(())) => return Ok(()),
        Some(Err(status)) => status,
        None => return Err("GET ERROR:context deadline exceeded".to_owned()),
    };
    if status.code() == Code::PermissionDenied || status.message() == USER_EMPTY {
        return Ok(());
    }
    let message = status.message();
    if message.starts_with("etcdserver: ") {
        return Err(format!("GET ERROR:{message}"));
    }
    Err(format!("GET ERROR:rpc error: code = {} desc = {message}", code_name(status.code())))
}

fn health(health: Result<(), String>) -> Response<Body> {
    let (status, reason) = match &health {
        Ok(()) => (StatusCode::OK, ""),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason.as_str()),
    };
    let reason = serde_json::Value::from(reason);
    let mut body = String::new();
    write!(body, "{{\"health\":\"{}\",\"reason\":{reason}}}", health.is_ok())
        .expect("a string takes everything");
    // Go's servers end errors with a newline.
    if health.is_ok() { plain_text(status, body) } else { text(status, &body) }
}

fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn plain_text(status: StatusCode, body: String) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", body)
}

/// A text as Go's servers send errors: with a newline behind it, and not to be taken for anything
/// else.
fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = plain_text(status, format!("{text}\n"));
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;
    use crate::kv::Namespace;

    /// Bounded: however many ask, few connections are made for them.
    #[tokio::test]
    async fn questions_to_members_take_turns() {
        // The system accepts connections to it, and nobody says anything.
        let member = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = member.local_addr().unwrap().to_string();
        let upstream = Upstream::new(Options::new(vec![endpoint])).await.unwrap();
        let plain = Plain {
            store: Store::new(upstream, Namespace::default(), false),
            metrics: Metrics::new(),
            scraper: Scraper { policy: None, asks_tls: false },
            own: None,
            profiles: None,
            turns: Arc::new(Semaphore::new(TURNS)),
        };
        let uri = Uri::from_static("/metrics");
        let asking = join_all((0..100).map(|_| plain.answer(&Method::GET, &uri)));
        let mut asking = Box::pin(asking);
        assert!((&mut asking).now_or_never().is_none());
        assert_eq!(plain.turns.available_permits(), 0);
        drop(asking);
        assert_eq!(plain.turns.available_permits(), TURNS);
        // What is asked of nobody else waits for nobody.
        let uri = Uri::from_static("/proxy/metrics");
        let told = plain.answer(&Method::GET, &uri).now_or_never();
        assert_eq!(told.map(|told| told.status()), Some(StatusCode::OK));
    }
}
