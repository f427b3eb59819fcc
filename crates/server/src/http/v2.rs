//! The API of the second generation: `/v2/keys`, `/v2/members`, `/v2/machines`, `/v2/stats`,
//! `/v2/auth`.
//!
//! Headers, texts and statuses are those of etcd 3.4. What keys are and do is in `v2store`; a change
//! goes through the log, a read with `quorum` waits for everything acknowledged before it, and any
//! other is answered from what is applied here.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2http; features 1.

mod accounts;
mod auth;
mod form;
mod go_json;
mod keys;
mod media_type;
mod members;
mod over_v3;
mod stats;
mod watch;

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use self::over_v3::OverV3;
use super::path::{self, bad_request};
use super::{not_found, text, with_type};
use crate::handle::{Handle, ProposeError};

const JSON: &str = "application/json";

/// How long a request's body may take (G24).
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of a body that Go's forms take.
const FORM_BYTES_MAX: usize = 10 << 20;

static CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
static ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
static RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
static RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");

/// Whether a path, as it came, is of this API, cleaned or not; or not readable at all.
pub(super) fn is_path(raw: &str) -> bool {
    if path::is_clean(raw) {
        return raw == "/v2" || raw.starts_with("/v2/");
    }
    path::decode(raw).is_none_or(|path| {
        let path = path::clean(&path);
        path == "/v2" || path.starts_with("/v2/")
    })
}

/// The API on a port.
#[derive(Debug)]
pub(super) struct V2 {
    handle: Handle,
    started: SystemTime,
    /// Where keys are, if not in the tree (V2-180).
    over_v3: Option<OverV3>,
}

impl V2 {
    /// `v3_prefix` is below which keys of the third generation the keys are, if it is not empty.
    pub(super) fn new(handle: Handle, v3_prefix: &str) -> Self {
        let over_v3 = (!v3_prefix.is_empty()).then(|| OverV3::new(&handle, v3_prefix));
        Self { handle, started: SystemTime::now(), over_v3 }
    }

    /// Answers a path of which [`is_path`] is true.
    pub(super) async fn answer(&self, request: http::Request<Incoming>) -> Response {
        answer(self, request).await
    }
}

async fn answer(v2: &V2, request: http::Request<Incoming>) -> Response {
    let handle = &v2.handle;
    let (head, body) = request.into_parts();
    let path = match head.uri.path() {
        raw if path::is_clean(raw) => Cow::Borrowed(raw),
        raw => {
            let Some(asked) = path::decode(raw) else { return bad_request() };
            let path = path::clean(&asked);
            if path != asked {
                let status = StatusCode::MOVED_PERMANENTLY;
                return path::redirect(status, &path, head.uri.query(), &head.method);
            }
            Cow::Owned(path)
        }
    };
    let method = &head.method;
    let below = |prefix: &str| {
        let rest = path.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    };
    if let Some(key) = below("/v2/keys") {
        return keys::answer(v2, &head, key, body).await;
    }
    if let Some(rest) = below("/v2/members") {
        let rest = rest.trim_start_matches('/');
        return members::answer(handle, &head, rest, body).await;
    }
    if let Some(rest) = below("/v2/auth") {
        return auth::answer(handle, &head, rest, body).await;
    }
    match &*path {
        "/v2/machines" => members::machines(handle, method),
        "/v2/stats/self" => stats::own(v2, method),
        "/v2/stats/leader" => stats::leader(handle, method),
        "/v2/stats/store" => stats::store(handle, method),
        _ => not_found(),
    }
}

/// Nanoseconds since 1970, by the clock of the wall.
fn now() -> v2store::Nanos {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Refuses a method that is none of these; etcd lists them without a space.
fn refuse_method(method: &Method, allowed: &'static str) -> Option<Response> {
    if allowed.split(',').any(|allowed| allowed == method.as_str()) {
        return None;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Some(response)
}

/// Says which cluster answers (V2-007).
fn of_cluster(handle: &Handle, mut response: Response) -> Response {
    let cluster = HeaderValue::from_str(&handle.cluster_id().to_string());
    response.headers_mut().insert(CLUSTER_ID.clone(), cluster.expect("hexadecimal digits"));
    response
}

/// The body of every error but those of keys (V2-122).
fn message(status: StatusCode, text: &str) -> Response {
    with_type(status, JSON, serde_json::json!({ "message": text }).to_string())
}

/// Whoever may not (V2-167); of keys it is said otherwise.
fn unauthorized() -> Response {
    message(StatusCode::UNAUTHORIZED, "Insufficient credentials")
}

/// Whoever asked for something but keys gets no reason (V2-146).
fn failed(error: &ProposeError) -> Response {
    tracing::warn!(error = %error, "a v2 request failed");
    message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// Where the log is (V2-009).
fn put_raft(handle: &Handle, headers: &mut HeaderMap) {
    let status = handle.status();
    headers.insert(RAFT_INDEX.clone(), status.committed.into());
    headers.insert(RAFT_TERM.clone(), status.term.into());
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyError {
    TooLarge,
    Broken,
}

async fn read(handle: &Handle, body: Incoming) -> Result<Bytes, BodyError> {
    // Percent signs may triple a value.
    let max = handle.limits().request_bytes_max.saturating_mul(3).saturating_add(1 << 16);
    let body = Limited::new(body, max.min(FORM_BYTES_MAX)).collect();
    match tokio::time::timeout(BODY_TIME_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(BodyError::Broken),
    }
}
