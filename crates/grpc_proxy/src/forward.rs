//! Calls that go to a member as they are: users, maintenance, locks, elections.
//!
//! Requests are whole before they leave, so that one that nobody has looked at can go to another
//! member; answers pass as they come, however large.
//!
//! Source: etcd server/proxy/grpcproxy/{auth,maintenance,lock,election}.go.

use std::future::poll_fn;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, TE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tower_service::Service as _;

use crate::caller::Caller;
use crate::upstream::{Policy, Upstream};

/// As Go's gRPC servers.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Before each message: whether it is compressed, and its length.
const FRAME_HEAD_BYTES: usize = 5;

/// What of a call's head goes on; nothing else says who asks.
const HEADERS: [&str; 6] = [
    "token",
    "hasleader",
    "client-api-version",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
];

/// Sends a call on.
pub(crate) async fn forward(
    upstream: &Upstream,
    request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let message = read(body).await?;
    upstream.check_size(message.len().saturating_sub(FRAME_HEAD_BYTES))?;
    let headers = headers(&head.headers);
    let send = async |channel: Channel| {
        let mut request = http::Request::new(Body::new(Full::new(message.clone())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = head.uri.path().parse().expect("it was a path before");
        *request.headers_mut() = headers.clone();
        let mut channel = channel;
        let sent = async {
            poll_fn(|context| channel.poll_ready(context)).await?;
            channel.call(request).await
        };
        sent.await.map_err(|error| Status::from_error(Box::new(error)))
    };
    let caller = Caller::of(&MetadataMap::from_headers(head.headers.clone()));
    upstream.attempt(&caller, Policy::Write, send).await
}

fn headers(given: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    for name in HEADERS {
        if let Some(value) = given.get(name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    headers
}

/// The one message of a request, with what stands before it.
async fn read(body: Incoming) -> Result<Bytes, Status> {
    let limited = Limited::new(body, REQUEST_BYTES_MAX + FRAME_HEAD_BYTES);
    let collected = limited.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let text = format!("grpc: received message larger than max ({REQUEST_BYTES_MAX})");
            return Status::resource_exhausted(text);
        }
        Status::cancelled("the request was not sent to its end")
    })?;
    let message = collected.to_bytes();
    if message.len() < FRAME_HEAD_BYTES {
        return Err(Status::internal("cardinality violation: received no request message"));
    }
    Ok(message)
}
