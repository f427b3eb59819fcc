//! Calls over a websocket (GW-25): each message of the client is JSON of the call's input, each line
//! of the answer a message of ours. For browsers, which cannot stream a request otherwise.
//!
//! A page cannot set headers, so that its token comes as `Sec-WebSocket-Protocol: Bearer, TOKEN` or
//! in the cookie `token`. Different from etcd: a websocket ends with a close message when the call
//! has ended, and the header `Authorization` counts where neither of the two is.
//!
//! Source: etcd server/embed/serve.go; the protocol of tmc/grpc-websocket-proxy as it uses it.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tonic::Status;

use super::super::text;
use super::{Gateway, json};
use crate::afterwards::Afterwards;
use crate::grpc::Remote;

/// Bytes of a key, which is said in base64.
const KEY_BYTES: usize = 16;

/// Messages that wait for the call to take them; then the client waits.
const WAITING_LEN: usize = 1;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a websocket.
pub(super) fn is_asked_for<B>(request: &http::Request<B>) -> bool {
    has_token(request.headers(), &header::CONNECTION, "upgrade")
        && has_token(request.headers(), &header::UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// Answers a request for a websocket; the call follows behind the answer.
pub(super) fn answer(
    gateway: &Gateway,
    remote: Remote,
    mut request: http::Request<Incoming>,
) -> Response {
    let key = match key(&request) {
        Ok(key) => derive_accept_key(key.as_bytes()),
        Err(status) => return refused(status),
    };
    let Some(afterwards) = request.extensions_mut().remove::<Afterwards>() else {
        // HTTP/2 has another way, which nobody uses here.
        return refused(StatusCode::BAD_REQUEST);
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let key = HeaderValue::try_from(key).expect("base64 fits in a header");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    let protocol = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    if protocol.is_some_and(|protocol| protocol.as_bytes().starts_with(b"Bearer")) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    let asked = Asked {
        gateway: gateway.clone(),
        remote,
        path: request.uri().path().to_owned(),
        headers: token(request.headers()),
    };
    let upgrade = hyper::upgrade::on(request);
    afterwards.set(Box::pin(asked.serve(upgrade)));
    response
}

/// The client's key, if all is as the protocol wants it.
fn key<B>(request: &http::Request<B>) -> Result<&str, StatusCode> {
    use base64::Engine as _;

    if request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !has_token(request.headers(), &header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let key = key.and_then(|key| key.to_str().ok()).ok_or(StatusCode::BAD_REQUEST)?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    let is_key = decoded.is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    is_key.then_some(key).ok_or(StatusCode::BAD_REQUEST)
}

fn refused(status: StatusCode) -> Response {
    let mut response = text(status, status.canonical_reason().unwrap_or_default());
    let known = HeaderValue::from_static("13");
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, known);
    response
}

/// Who asks, as the header that a call has.
fn token(headers: &HeaderMap) -> HeaderMap {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|value| value.split(';'));
    let cookie = cookies.find_map(|cookie| cookie.trim().strip_prefix("token="));
    let protocol = text(header::SEC_WEBSOCKET_PROTOCOL).map(|protocol| {
        protocol.split_once("Bearer,").map_or("", |(_, token)| token.trim_matches(' '))
    });
    let bearer = cookie.or(protocol).filter(|token| !token.is_empty());
    let value = match bearer {
        Some(token) => HeaderValue::try_from(format!("Bearer {token}")).ok(),
        None => headers.get(header::AUTHORIZATION).cloned(),
    };
    value.into_iter().map(|value| (header::AUTHORIZATION, value)).collect()
}

/// A call to be made.
struct Asked {
    gateway: Gateway,
    remote: Remote,
    path: String,
    headers: HeaderMap,
}

impl Asked {
    async fn serve(self, upgrade: OnUpgrade) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(error = %error, "a websocket was not begun");
                return;
            }
        };
        let most = json::text_bytes_max(self.gateway.services.message_bytes_max());
        let config =
            WebSocketConfig::default().max_message_size(Some(most)).max_frame_size(Some(most));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (mut sink, stream) = socket.split();
        let (sender, receiver) = channel(WAITING_LEN);
        let answering = async {
            let mut lines = Box::pin(self.lines(receiver));
            while let Some(line) = lines.next().await {
                sink.send(Message::text(line)).await?;
            }
            sink.close().await
        };
        tokio::select! {
            // A call whose client is gone ends with this.
            () = read(stream, sender) => {}
            ended = answering => if let Err(error) = ended {
                tracing::debug!(error = %error, "a websocket ended");
            },
        }
    }

    /// The lines of the answer.
    fn lines(&self, messages: Receiver<Bytes>) -> impl futures_util::Stream<Item = String> {
        let body = stream::unfold(messages, async |mut messages| {
            let text = messages.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(text)), messages))
        });
        let body = StreamBody::new(Box::pin(body));
        let gateway = self.gateway.clone();
        let (remote, path, headers) = (self.remote, self.path.clone(), self.headers.clone());
        let beginning =
            async move { gateway.answer_stream(remote, &path, headers, body).await.into_body() };
        stream::once(beginning).flat_map(|body| {
            let lines = Lines { body, arrived: BytesMut::new() };
            stream::unfold(lines, async |mut lines| Some((lines.next().await?, lines)))
        })
    }
}

/// Passes on what the client says until it has said all.
async fn read(mut stream: SplitStream<Socket>, sender: Sender<Bytes>) {
    while let Some(message) = stream.next().await {
        let text = match message {
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Binary(bytes)) => bytes,
            // The library answers these, and after a close there is nothing more.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                continue;
            }
            Err(error) => {
                tracing::debug!(error = %error, "a websocket cannot be read");
                return;
            }
        };
        let mut line = BytesMut::from(&text[..]);
        line.extend_from_slice(b"\n");
        // A call that takes one message wants no more of them.
        let _unwanted = sender.send(line.freeze()).await;
    }
}

/// The first value that arrives; `None` if none does.
pub(super) async fn first_value<B>(mut body: B, most: usize) -> Result<Option<Bytes>, Status>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Unpin,
{
    let mut values = json::Values::default();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(bytes) = frame.into_data() {
            values.push(&bytes);
        }
        if let Some(value) = values.take()? {
            return Ok(Some(value));
        }
        if most < values.len() {
            return Err(Status::resource_exhausted("a message is too long"));
        }
    }
    Ok(None)
}

/// The body of an answer, line by line; empty ones are left out.
struct Lines {
    body: Body,
    arrived: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Option<String> {
        loop {
            while let Some(end) = self.arrived.iter().position(|byte| *byte == b'\n') {
                let line = self.arrived.split_to(end + 1);
                if end > 0 {
                    return Some(String::from_utf8_lossy(&line[..end]).into_owned());
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.arrived.extend_from_slice(&bytes);
                    }
                }
                Some(Err(_)) | None if self.arrived.is_empty() => return None,
                Some(Err(_)) | None => {
                    let line = self.arrived.split();
                    return Some(String::from_utf8_lossy(&line).into_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GW-25: texts of etcd's proxy.
    #[test]
    fn the_token_comes_in_a_header_that_a_page_can_set() {
        let token = |given: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(*name, HeaderValue::try_from(*value).unwrap());
            }
            let token = token(&headers);
            token.get("authorization").map(|value| value.to_str().unwrap().to_owned())
        };
        let protocol = "sec-websocket-protocol";
        let bearer = Some("Bearer t.1".to_owned());
        assert_eq!(token(&[(protocol, "Bearer, t.1")]), bearer);
        assert_eq!(token(&[(protocol, "Bearer,t.1")]), bearer);
        assert_eq!(token(&[(protocol, "Bearer, x"), ("cookie", "a=b; token=t.1")]), bearer);
        assert_eq!(token(&[("authorization", "t.1")]).as_deref(), Some("t.1"));
        assert_eq!(token(&[(protocol, "chat")]), None);
    }

    #[test]
    fn a_websocket_is_asked_for_in_any_case() {
        let request = |connection: &str, upgrade: &str| {
            let request = http::Request::builder().header("connection", connection);
            request.header("upgrade", upgrade).body(()).unwrap()
        };
        assert!(is_asked_for(&request("keep-alive, Upgrade", "WebSocket")));
        assert!(!is_asked_for(&request("keep-alive", "websocket")));
        assert!(!is_asked_for(&request("upgrade", "h2c")));
    }
}
