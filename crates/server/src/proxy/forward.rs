//! One request on its way through a proxy (SRV-173).
//!
//! Source: etcd v3.4.23 proxy/httpproxy/{reverse,proxy}.go.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;

use super::director::Director;
use super::upstream::Upstream;
use crate::grpc::Remote;
use crate::http::{Browsers, method_not_allowed, with_type};
use crate::logging::Chain;
use crate::metrics::ProxyMetrics;

/// What a request may bring; a member takes less.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Of one connection only, and so not passed on.
const SINGLE_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// The proxy as its ports see it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(super) director: Director,
    pub(super) upstream: Upstream,
    pub(super) metrics: Arc<ProxyMetrics>,
    /// Whether only `GET` is passed on.
    pub(super) readonly: bool,
    pub(super) browsers: Browsers,
}

#[derive(Debug, Serialize)]
struct Endpoints {
    endpoints: Vec<String>,
}

impl Proxy {
    /// Answers one request of the client at `remote`.
    pub(crate) async fn answer(
        &self,
        remote: Remote,
        request: http::Request<Incoming>,
    ) -> Response {
        let path = request.uri().path();
        if path == "/metrics" {
            let kind = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
            return with_type(StatusCode::OK, kind, self.metrics.text());
        }
        if self.readonly && request.method() != Method::GET {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            return response;
        }
        let origin = self.browsers.allowed_origin(&request);
        let mut response = if request.method() == Method::OPTIONS {
            Response::new(Body::empty())
        } else if path == "/v2/config/local/proxy" {
            self.endpoints(request.method())
        } else {
            self.forward(remote, request).await
        };
        if let Some(origin) = origin {
            Browsers::allow(origin, &mut response);
        }
        response
    }

    fn endpoints(&self, method: &Method) -> Response {
        if method != Method::GET {
            return method_not_allowed("GET");
        }
        let list = Endpoints { endpoints: self.director.endpoints() };
        let text = serde_json::to_string(&list).expect("strings have a JSON form");
        with_type(StatusCode::OK, "text/plain; charset=utf-8", text + "\n")
    }

    async fn forward(&self, remote: Remote, request: http::Request<Incoming>) -> Response {
        let began = Instant::now();
        let method = request.method().clone();
        self.metrics.on_request(&method);
        let (mut head, body) = request.into_parts();
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let text = format!("failed to read request body: {error}");
                return refuse(StatusCode::INTERNAL_SERVER_ERROR, &text);
            }
        };
        prepare(&mut head.headers, remote);
        let endpoints = self.director.endpoints();
        if endpoints.is_empty() {
            self.metrics.on_dropped(&method, "zero_endpoints");
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "zero endpoints currently available");
        }
        for url in &endpoints {
            match self.upstream.send(url, copy(&head, &body)).await {
                Ok(answer) => {
                    self.metrics.on_answered(&method, answer.status(), began.elapsed());
                    let mut response = answer.map(Body::new);
                    remove_single_hop(response.headers_mut());
                    return response;
                }
                Err(error) => {
                    self.metrics.on_dropped(&method, "failed_sending_request");
                    tracing::warn!(
                        endpoint = url,
                        error = %Chain(&error),
                        "failed to direct request"
                    );
                    self.director.failed(url);
                }
            }
        }
        self.metrics.on_dropped(&method, "failed_getting_response");
        let text = format!("unable to get response from {} endpoint(s)", endpoints.len());
        refuse(StatusCode::BAD_GATEWAY, &text)
    }
}

fn refuse(status: StatusCode, text: &str) -> Response {
    tracing::info!("{text}");
    let text = serde_json::json!({ "message": format!("httpproxy: {text}") });
    with_type(status, "application/json", text.to_string())
}

/// The request once more, for the next member.
fn copy(head: &Parts, body: &Bytes) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::new(Full::new(body.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    request
}

/// Headers as they are passed on.
fn prepare(headers: &mut HeaderMap, remote: Remote) {
    remove_single_hop(headers);
    // Of the body as it came; the client library says it anew.
    headers.remove(header::CONTENT_LENGTH);
    let Remote(Some(address)) = remote else { return };
    let mut from: Vec<String> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    from.push(address.ip().to_string());
    if let Ok(value) = HeaderValue::from_str(&from.join(", ")) {
        headers.insert("x-forwarded-for", value);
    }
}

fn remove_single_hop(headers: &mut HeaderMap) {
    for name in SINGLE_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-173.
    #[test]
    fn headers_of_one_connection_stay_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close"),
            ("te", "trailers"),
            ("authorization", "Basic x"),
            ("content-length", "3"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        prepare(&mut headers, Remote(Some(([10, 0, 0, 2], 7).into())));
        let left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2");
        assert_eq!(headers["authorization"], "Basic x");
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
