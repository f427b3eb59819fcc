//! Calls that go to a member as they are: users, maintenance, locks, elections.
//!
//! Requests are whole before they leave, so that one that nobody has looked at can go to another
//! member. Answers are whole before they are passed on, so that a client that does not read holds
//! up nobody; those without an end pass as they come, over connections of their own.
//!
//! Source: etcd server/proxy/grpcproxy/{auth,maintenance,lock,election}.go.

use std::future::poll_fn;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, TE};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};
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

/// Calls that are answered with as many messages as there will be.
const STREAMS: [&str; 2] = ["/etcdserverpb.Maintenance/Snapshot", "/v3electionpb.Election/Observe"];

/// Calls that do no harm when they are made twice. The same as etcd's client repeats, and those
/// that read.
const REPEATABLE: [&str; 13] = [
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Observe",
];

/// Sends a call on.
pub(crate) async fn forward(
    upstream: &Upstream,
    request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let message = read(body).await?;
    upstream.check_size(message.len().saturating_sub(FRAME_HEAD_BYTES))?;
    let caller = Caller::of(&MetadataMap::from_headers(head.headers.clone()));
    let path = head.uri.path();
    let policy = if REPEATABLE.contains(&path) { Policy::Read } else { Policy::Write };
    let call = Call { path, headers: headers(&head.headers), message };
    if STREAMS.contains(&path) {
        let begin = async |channel| call.begin(channel).await;
        let (response, place) = upstream.attempt_stream(&caller, policy, begin).await?;
        // It has its place until it ends.
        let keep = move |frame| {
            let _kept = &place;
            frame
        };
        return Ok(response.map(|body| Body::new(body.map_frame(keep))));
    }
    let bytes_max = upstream.response_bytes_max();
    upstream.attempt(&caller, policy, async |channel| call.make(channel, bytes_max).await).await
}

/// A call as every member gets it.
struct Call<'a> {
    path: &'a str,
    headers: HeaderMap,
    message: Bytes,
}

impl Call<'_> {
    /// Makes the call and awaits the head of its answer.
    async fn begin(&self, mut channel: Channel) -> Result<http::Response<Body>, Status> {
        let mut request = http::Request::new(Body::new(Full::new(self.message.clone())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.path.parse().expect("it was a path before");
        *request.headers_mut() = self.headers.clone();
        let sent = async {
            poll_fn(|context| channel.poll_ready(context)).await?;
            channel.call(request).await
        };
        let response = sent.await.map_err(|error| Status::from_error(Box::new(error)))?;
        refusal(Some(response.headers()))?;
        Ok(response)
    }

    /// Makes the call and awaits all of its answer: whoever does not read his must not hold up
    /// what else comes from the member.
    async fn make(
        &self,
        channel: Channel,
        bytes_max: usize,
    ) -> Result<http::Response<Body>, Status> {
        let (head, body) = self.begin(channel).await?.into_parts();
        let limited = Limited::new(body, bytes_max.saturating_add(FRAME_HEAD_BYTES));
        let answer = limited.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let text = format!("grpc: received message larger than max (max {bytes_max})");
                return Status::resource_exhausted(text);
            }
            Status::from_error(error)
        })?;
        refusal(answer.trailers())?;
        Ok(http::Response::from_parts(head, Body::new(answer)))
    }
}

/// What a member says no with, so that it is judged like any other failed call.
fn refusal(headers: Option<&HeaderMap>) -> Result<(), Status> {
    match headers.and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) | None => Ok(()),
    }
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
        if error.is::<LengthLimitError>() {
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
