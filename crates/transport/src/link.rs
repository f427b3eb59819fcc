//! One HTTP/1.1 connection to a peer, and what can go wrong with a request on it.
//!
//! The connection is driven by whoever waits for an answer, in the same task: what comes in costs
//! no second wake-up, and nothing is left behind when the task ends.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use url::Url;

use crate::dial::Connection;
use crate::headers;
use crate::transport::Shared;

/// The body of a request.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// The longest text of an answer that is read.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Why a request to a peer had no success. The texts are the same each time, so that the same
/// cause is recognised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("connecting to {0}")]
    Dial(String, #[source] io::Error),
    #[error("connecting to {0} timed out")]
    DialTimeout(String),
    #[error("talking to the peer")]
    Http(#[from] hyper::Error),
    #[error("{0} timed out")]
    Timeout(&'static str),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("another member answers at the address")]
    Misled,
    #[error("the peer does not know this member (yet)")]
    NotFound,
    #[error("incompatible version")]
    IncompatibleVersion,
    #[error("cluster ID mismatch; the peer's is {0}")]
    ClusterMismatch(String),
    #[error("precondition failed: {0}")]
    Precondition(String),
    #[error("unexpected http status {0}")]
    Status(StatusCode),
    #[error("the peer's release has no streams that are known")]
    UnsupportedStream,
    #[error("the peer said nothing that can be read")]
    Unreadable,
}

impl RequestError {
    /// The text with what it came from.
    pub(crate) fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// A connection to one URL.
pub(crate) struct Link {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Driven>>>,
}

type Driven = http1::Connection<TokioIo<Box<dyn Connection>>, RequestBody>;

impl Link {
    /// Connects within the time given to the transport.
    pub(crate) async fn open(shared: &Shared, url: &Url) -> Result<Self, RequestError> {
        let dialing = shared.dial.dial(url.clone());
        let connection = match tokio::time::timeout(shared.config.dial_timeout, dialing).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(RequestError::Dial(url.to_string(), error)),
            Err(_) => return Err(RequestError::DialTimeout(url.to_string())),
        };
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(connection))
            .await?;
        Ok(Self { sender, connection: Some(Box::pin(connection)) })
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, RequestError> {
        let mut answer = std::pin::pin!(self.sender.send_request(request));
        let connection = &mut self.connection;
        poll_fn(|context| {
            drive(connection, context);
            answer.as_mut().poll(context)
        })
        .await
        .map_err(RequestError::Http)
    }

    /// The next bytes of `body`, an answer on this connection; `None` at its end.
    pub(crate) fn poll_body(
        &mut self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        drive(&mut self.connection, context);
        loop {
            return match std::task::ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Poll::Ready(Some(Ok(bytes))),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(None),
            };
        }
    }

    /// The whole body as text, cut at a sensible length.
    pub(crate) async fn text(&mut self, body: &mut Incoming) -> Result<String, RequestError> {
        let mut text = Vec::new();
        let reading = async {
            while let Some(bytes) = poll_fn(|context| self.poll_body(body, context)).await {
                text.extend_from_slice(&bytes?);
                if TEXT_BYTES_MAX < text.len() {
                    return Err(RequestError::Unreadable);
                }
            }
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(5), reading).await {
            Ok(read) => read?,
            Err(_) => return Err(RequestError::Timeout("reading the answer")),
        }
        Ok(String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned())
    }

    /// Whether another request can be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.is_some() && !self.sender.is_closed()
    }
}

fn drive(connection: &mut Option<Pin<Box<Driven>>>, context: &mut Context<'_>) {
    if let Some(running) = connection
        && running.as_mut().poll(context).is_ready()
    {
        // Its error reaches whoever waits for an answer.
        *connection = None;
    }
}

/// What a status other than success means. `text` is the answer's.
pub(crate) fn refusal(status: StatusCode, head: &http::HeaderMap, text: &str) -> RequestError {
    match status {
        StatusCode::PRECONDITION_FAILED if text == headers::INCOMPATIBLE_VERSION => {
            RequestError::IncompatibleVersion
        }
        StatusCode::PRECONDITION_FAILED if text == headers::CLUSTER_MISMATCH => {
            let cluster = head.get(headers::CLUSTER).and_then(|value| value.to_str().ok());
            RequestError::ClusterMismatch(cluster.unwrap_or("not said").to_owned())
        }
        StatusCode::PRECONDITION_FAILED => RequestError::Precondition(text.to_owned()),
        other => RequestError::Status(other),
    }
}

/// A request to `path` at `url` with what every request says.
pub(crate) fn request(
    shared: &Shared,
    method: http::Method,
    url: &Url,
    path: &str,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths are made of plain letters");
    *request.headers_mut() = shared.request_headers.clone();
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    };
    if let Ok(host) = http::HeaderValue::from_str(&host) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    request
}

/// No body.
pub(crate) fn empty() -> RequestBody {
    UnsyncBoxBody::new(http_body_util::BodyExt::map_err(http_body_util::Empty::new(), |never| {
        match never {}
    }))
}

/// A body that is all there.
pub(crate) fn full(bytes: Bytes) -> RequestBody {
    UnsyncBoxBody::new(http_body_util::BodyExt::map_err(
        http_body_util::Full::new(bytes),
        |never| match never {},
    ))
}
