//! The v3 API as JSON over HTTP (features 3; etcd: server/embed/serve.go, grpc-gateway v2).
//!
//! A request becomes the gRPC call it stands for and passes the same door as any other: limits,
//! metadata, counters and, one day, permissions are not written twice. What is here is only the
//! other form: paths, JSON and status codes.

mod arriving;
mod json;
mod metadata;
mod paths;
mod replies;
mod stopping;
mod streaming;
mod websocket;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::path::redirect;
use crate::grpc::{CallKind, MethodIndex, Remote, Services};
use arriving::Arriving;
use json::Form;
use metadata::metadata;
use stopping::Stopping;

/// A flag and four bytes of length before every message of gRPC.
const PREFIX_LEN: usize = 5;

/// CB-77: a certificate that would be taken for a user elsewhere.
const COMMON_NAME_IGNORED: &str = "CommonName of client sending a request against gateway will be ignored and not used as \
     expected";

/// What `/v3/openapi.json` answers: every path of the gateway, described (GW-28).
const OPENAPI: &str = include_str!("../../../../docs/api/openapi.json");

/// The gateway of a member; clones share the services.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    services: Services,
    stopping: Stopping,
}

impl Gateway {
    /// A gateway to `services`, until `stopping` turns true.
    pub(crate) fn new(services: Services, stopping: watch::Receiver<bool>) -> Self {
        Self { services, stopping: Stopping::new(stopping) }
    }

    /// Whether a path is the gateway's to answer (GW-12).
    pub(crate) fn is_path(path: &str) -> bool {
        path == "/v3" || path.starts_with("/v3/") || path.starts_with("/v3beta/")
    }

    /// Answers one request of the client at `remote`.
    pub(crate) async fn answer(
        &self,
        remote: Remote,
        request: http::Request<Incoming>,
    ) -> Response {
        let path = request.uri().path();
        if path == "/v3" {
            let query = request.uri().query();
            return redirect(StatusCode::TEMPORARY_REDIRECT, "/v3/", query, request.method());
        }
        if self.services.takes_for_user(&request) {
            return super::text(StatusCode::BAD_REQUEST, COMMON_NAME_IGNORED);
        }
        if path == "/v3/openapi.json" && request.method() == Method::GET {
            return json_response(StatusCode::OK, OPENAPI);
        }
        if websocket::is_asked_for(&request) {
            return websocket::answer(self, remote, request);
        }
        let asked = match find(path) {
            Ok(asked) if is_post(&request) => asked,
            found => {
                pass_over(request.into_body()).await;
                let otherwise = || Status::unimplemented("Method Not Allowed");
                return refused(&found.err().unwrap_or_else(otherwise));
            }
        };
        let (head, body) = request.into_parts();
        let headers = match metadata(&head.headers) {
            Ok(headers) => headers,
            Err(status) => {
                pass_over(body).await;
                return refused(&status);
            }
        };
        if let CallKind::BidiStream = asked.kind {
            return self.converse(remote, asked, headers, body).await;
        }
        match self.read(body, &asked.form).await {
            Ok(sent) => self.ask(remote, asked, headers, sent).await,
            Err(status) => refused(&status),
        }
    }

    /// Answers a call whose messages come one by one; of those for another kind of call the first
    /// counts.
    async fn answer_stream<B>(
        &self,
        remote: Remote,
        path: &str,
        headers: HeaderMap,
        body: B,
    ) -> Response
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let asked = match find(path) {
            Ok(asked) => asked,
            Err(status) => return refused(&status),
        };
        let headers = match metadata(&headers) {
            Ok(headers) => headers,
            Err(status) => return refused(&status),
        };
        if let CallKind::BidiStream = asked.kind {
            return self.converse(remote, asked, headers, body).await;
        }
        let most = json::text_bytes_max(self.services.message_bytes_max());
        let sent = websocket::first_value(body, most).await;
        let sent = sent.and_then(|text| asked.form.request(text.as_deref().unwrap_or(b"{}")));
        match sent {
            Ok(sent) => self.ask(remote, asked, headers, framed(&sent)).await,
            Err(status) => refused(&status),
        }
    }

    /// A call with many messages in both directions.
    async fn converse<B>(
        &self,
        remote: Remote,
        asked: Asked,
        headers: HeaderMap,
        body: B,
    ) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let Asked { method, form, .. } = asked;
        let body = Arriving::new(body, form.clone(), self.services.message_bytes_max());
        let reply = self.services.call(remote, call(method, headers, body));
        let paced = (method == "/etcdserverpb.Watch/Watch").then(|| self.services.watch_lines());
        streaming::answer(form, reply, paced, &self.stopping).await
    }

    /// A call with one message, framed for gRPC.
    async fn ask(&self, remote: Remote, asked: Asked, headers: HeaderMap, sent: Bytes) -> Response {
        let Asked { method, form, kind } = asked;
        let reply = self.services.call(remote, call(method, headers, Full::new(sent)));
        if let CallKind::ServerStream = kind {
            return streaming::answer(form, reply, None, &self.stopping).await;
        }
        let answering = async {
            let Ok(reply) = reply.await;
            unary(&form, reply).await
        };
        let answer = tokio::select! {
            answer = answering => answer,
            () = self.stopping.over() => Err(stopping::lost()),
        };
        answer.unwrap_or_else(|status| refused(&in_own_words(status)))
    }

    /// The one message of a body, framed for gRPC; a body without any is the empty message.
    async fn read(&self, body: Incoming, form: &Form) -> Result<Bytes, Status> {
        let most = json::text_bytes_max(self.services.message_bytes_max());
        let body = Limited::new(self.services.counted(body), most);
        let text = tokio::time::timeout(BODY_TIME_MAX, body.collect()).await;
        let late = |_| Status::deadline_exceeded("the request's body took too long to arrive");
        let text = text.map_err(late)?.map_err(|error| {
            // Who is cut off hears nothing of it; the other cause is the length.
            Status::resource_exhausted(format!(
                "reading the request's body, of which at most {most} bytes are taken: {error}"
            ))
        })?;
        let text = text.to_bytes();
        let value = json::first_value(&text)?;
        Ok(framed(&form.request(value.unwrap_or(b"{}"))?))
    }
}

/// How long a request's body may take (G24).
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// What a path stands for.
struct Asked {
    method: &'static str,
    form: Form,
    kind: CallKind,
}

/// What the path of a request stands for.
fn find(path: &str) -> Result<Asked, Status> {
    let path = path.strip_prefix("/v3beta/").or_else(|| path.strip_prefix("/v3/"));
    let method = path.and_then(paths::find).ok_or_else(|| Status::not_found("Not Found"))?;
    let known = Form::of(method).zip(MethodIndex::find(method));
    let unknown = || Status::unimplemented(format!("no messages of {method} are known"));
    let (form, index) = known.ok_or_else(unknown)?;
    Ok(Asked { method, form, kind: index.method().kind })
}

/// A form may be said to stand for another method.
fn is_post<B>(request: &http::Request<B>) -> bool {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_form = header("content-type") == Some(&b"application/x-www-form-urlencoded"[..]);
    let meant = header("x-http-method-override").filter(|meant| is_form && !meant.is_empty());
    request.method() == Method::POST
        && meant.is_none_or(|meant| meant.eq_ignore_ascii_case(b"POST"))
}

/// Reads what nobody wants: were the connection closed before, the client might never see the
/// answer. As much of it as Go's servers read.
async fn pass_over<B>(body: B)
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    const PASSED_OVER_BYTES_MAX: usize = 256 << 10;
    let read = Limited::new(body, PASSED_OVER_BYTES_MAX).collect();
    if !matches!(tokio::time::timeout(BODY_TIME_MAX, read).await, Ok(Ok(_))) {
        tracing::debug!("the body of a refused request is left");
    }
}

/// The call that a request stands for.
fn call<B>(path: &'static str, headers: HeaderMap, body: B) -> http::Request<B> {
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

/// A message behind its prefix.
fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_LEN + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("messages are bounded far below 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

/// The answer with one message.
async fn unary<B>(form: &Form, reply: http::Response<B>) -> Result<Response, Status>
where
    B: http_body::Body<Error = Status>,
{
    let (head, body) = reply.into_parts();
    ended(&head.headers)?;
    let body = body.collect().await?;
    if let Some(trailers) = body.trailers() {
        ended(trailers)?;
    }
    let message = body.to_bytes();
    let message = message.get(PREFIX_LEN..).ok_or_else(|| Status::internal("no message came"))?;
    let mut response = json_response(StatusCode::OK, form.reply(message)?);
    response.headers_mut().extend(metadata_of_reply());
    Ok(response)
}

/// What etcd's gateway repeats of the call's metadata.
fn metadata_of_reply() -> HeaderMap {
    let name = HeaderName::from_static("grpc-metadata-content-type");
    HeaderMap::from_iter([(name, HeaderValue::from_static("application/grpc"))])
}

/// Whether the call ended well, if these headers say how it ended.
fn ended(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) | None => Ok(()),
    }
}

/// A call's time and whether its client is there are etcd's gateway's own to watch: it does not wait
/// until the server says so.
fn in_own_words(status: Status) -> Status {
    if status.code() == Code::DeadlineExceeded {
        return metadata::late();
    }
    if status.message() == arriving::BROKEN_OFF {
        return Status::cancelled("context canceled");
    }
    status
}

/// GW-18, GW-19.
fn refused(status: &Status) -> Response {
    let mut response = json_response(http_status(status.code()), json::error(status));
    if status.code() == Code::Unauthenticated
        && let Ok(text) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, text);
    }
    response
}

/// GW-19.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled => {
            StatusCode::from_u16(499).expect("between 100 and 999, which is all that is asked")
        }
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    super::with_type(status, "application/json", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GW-19.
    #[test]
    fn codes_become_the_status_of_the_table() {
        let statuses = |codes: &[i32]| {
            let status = |code: &i32| http_status(Code::from_i32(*code)).as_u16();
            codes.iter().map(status).collect::<Vec<_>>()
        };
        assert_eq!(statuses(&[0, 1, 2, 3, 4, 5]), [200, 499, 500, 400, 504, 404]);
        assert_eq!(statuses(&[6, 7, 8, 9, 10, 11]), [409, 403, 429, 400, 409, 400]);
        assert_eq!(statuses(&[12, 13, 14, 15, 16]), [501, 500, 503, 500, 401]);
    }
}
