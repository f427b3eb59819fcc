//! Questions to a discovery service: one connection each, through an HTTP proxy if there is one.
//!
//! Not the questions of members to each other, which know no proxy and trust other authorities:
//! here they are the system's.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tls::{ClientPolicy, PolicyError, Protocols};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::peers::ask::Socket;

/// How long opening a connection may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// More than a token ever holds.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// More than a proxy says to a tunnel.
const TUNNEL_BYTES_MAX: usize = 8 << 10;

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No URL, or of something else.
    #[error(
        "--discovery={0} is no URL of a v2 discovery token; write it like \
         http://HOST:PORT/v2/keys/TOKEN"
    )]
    Url(String),
    /// No URL of a proxy.
    #[error("invalid proxy address --discovery-proxy={0}; write it like http://HOST:PORT")]
    Proxy(String),
    /// The system's authorities cannot be read.
    #[error("preparing TLS for --discovery")]
    Tls(#[from] PolicyError),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// No connection.
    #[error("connecting to {0}")]
    Connect(String, #[source] io::Error),
    /// It broke.
    #[error("asking")]
    Exchange(#[from] hyper::Error),
    /// The answer broke off or is too long.
    #[error("reading the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No whole answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The service is in trouble.
    #[error("the answer is {0}")]
    Status(StatusCode),
}

/// What is asked: a `GET`, or a `PUT` if there is a form.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Behind the token's URL.
    pub(super) rest: &'a str,
    /// A parameter in the body.
    pub(super) form: Option<(&'a str, &'a str)>,
    /// From the open connection to the answer's end.
    pub(super) timeout: Duration,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `X-Etcd-Index`; 0 without.
    pub(super) index: u64,
    pub(super) body: Bytes,
}

/// Where somebody listens.
#[derive(Debug)]
struct Place {
    host: String,
    port: u16,
    is_tls: bool,
    /// `Basic ...`, if the URL names a user.
    authorization: Option<HeaderValue>,
    path: String,
}

impl Place {
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        let authorization = authority.as_str().rsplit_once('@').and_then(|(user, _)| {
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(user))).ok()
        });
        let host = uri.host().filter(|host| !host.is_empty())?.to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path().trim_end_matches('/').to_owned();
        Some(Self { host, port, is_tls, authorization, path })
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        TcpStream::connect((host, self.port)).await
    }
}

/// Asks the service of one token.
#[derive(Debug)]
pub(super) struct Exchange {
    place: Place,
    proxy: Option<Place>,
    policy: Option<ClientPolicy>,
}

impl Exchange {
    pub(super) fn new(url: &str, proxy: &str) -> Result<Self, PlaceError> {
        // Without a path there is no token.
        let place = Place::parse(url).filter(|place| !place.path.is_empty());
        let place = place.ok_or_else(|| PlaceError::Url(url.to_owned()))?;
        let through = || {
            if proxy.is_empty() {
                return Ok(None);
            }
            let found = Place::parse(proxy).or_else(|| Place::parse(&format!("http://{proxy}")));
            found.map(Some).ok_or_else(|| PlaceError::Proxy(proxy.to_owned()))
        };
        let proxy = through()?;
        let needs_tls = place.is_tls || proxy.as_ref().is_some_and(|proxy| proxy.is_tls);
        let policy = match needs_tls {
            true => Some(ClientPolicy::new(&tls::Settings::default(), Protocols::Unsaid)?),
            false => None,
        };
        Ok(Self { place, proxy, policy })
    }

    /// Asks once.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Answer, ExchangeError> {
        let socket = match tokio::time::timeout(DIAL_TIMEOUT, self.connect()).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(source)) => {
                let first = self.proxy.as_ref().unwrap_or(&self.place);
                return Err(ExchangeError::Connect(first.authority(), source));
            }
            Err(_) => return Err(ExchangeError::TimedOut),
        };
        let exchange = self.exchange(socket, question);
        let answer = tokio::time::timeout(question.timeout, exchange).await;
        answer.unwrap_or(Err(ExchangeError::TimedOut))
    }

    async fn connect(&self) -> io::Result<Socket> {
        let Some(proxy) = &self.proxy else {
            let stream = self.place.connect().await?;
            return self.secured(&self.place, Box::new(stream)).await;
        };
        let mut socket = self.secured(proxy, Box::new(proxy.connect().await?)).await?;
        if !self.place.is_tls {
            return Ok(socket);
        }
        tunnel(&mut socket, proxy, &self.place.authority()).await?;
        self.secured(&self.place, socket).await
    }

    async fn secured(&self, place: &Place, socket: Socket) -> io::Result<Socket> {
        match (&self.policy, place.is_tls) {
            (Some(policy), true) => Ok(Box::new(policy.connect(&place.host, socket).await?)),
            (_, false) => Ok(socket),
            (None, true) => unreachable!("there is a policy if anybody speaks TLS"),
        }
    }

    async fn exchange(
        &self,
        socket: Socket,
        question: &Question<'_>,
    ) -> Result<Answer, ExchangeError> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // It ends with the sender; what is wrong with it the sender tells.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(self.request(question)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        let index = head.headers.get("x-etcd-index").and_then(|index| index.to_str().ok());
        let index = index.and_then(|index| index.parse().ok()).unwrap_or(0);
        let body = body.map_err(ExchangeError::Body)?.to_bytes();
        Ok(Answer { status: head.status, index, body })
    }

    fn request(&self, question: &Question<'_>) -> Request<Full<Bytes>> {
        let place = &self.place;
        let mut uri = format!("{}{}", place.path, question.rest);
        // A proxy that is no tunnel must know where to.
        let proxy = self.proxy.as_ref().filter(|_| !place.is_tls);
        if proxy.is_some() {
            uri = format!("http://{}{uri}", place.authority());
        }
        let method = if question.form.is_some() { Method::PUT } else { Method::GET };
        let body = question
            .form
            .map_or_else(String::new, |(name, value)| format!("{name}={}", urlencoded(value)));
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().expect("the token's URL was one");
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&place.authority());
        headers.insert(HOST, host.expect("the token's URL was one"));
        if question.form.is_some() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, kind);
        }
        let user = [(AUTHORIZATION, Some(place)), (PROXY_AUTHORIZATION, proxy)];
        for (name, place) in user {
            if let Some(value) = place.and_then(|place| place.authorization.clone()) {
                headers.insert(name, value);
            }
        }
        request
    }
}

/// Lets a proxy open a way to `authority` behind which TLS is spoken.
async fn tunnel(socket: &mut Socket, proxy: &Place, authority: &str) -> io::Result<()> {
    let user = proxy.authorization.as_ref().and_then(|value| value.to_str().ok());
    let user = user.map_or_else(String::new, |it| format!("Proxy-Authorization: {it}\r\n"));
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{user}\r\n");
    socket.write_all(request.as_bytes()).await?;
    socket.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < TUNNEL_BYTES_MAX {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("the proxy answers {line:?}"))),
    }
}

/// As Go's `url.QueryEscape`.
fn urlencoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::net::TcpListener;

    use super::*;

    /// Reads a request's head and answers it; what was read.
    async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    const QUESTION: Question<'_> =
        Question { rest: "/_config/size", form: None, timeout: Duration::from_secs(60) };

    const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-Etcd-Index: 7\r\nContent-Length: 2\r\n\r\n{}";

    /// SRV-190.
    #[tokio::test]
    async fn a_service_is_asked_at_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let exchange = Exchange::new(&format!("http://u:p@{at}/v2/keys/token/"), "").unwrap();
        let serve = async { serve(listener.accept().await.unwrap().0, ANSWER).await };
        let (asked, answer) = tokio::join!(serve, exchange.ask(&QUESTION));
        assert!(asked.starts_with("GET /v2/keys/token/_config/size HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: {at}\r\n")), "{asked}");
        assert!(asked.contains("authorization: Basic dTpw\r\n"), "{asked}");
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.index, &answer.body[..]),
            (StatusCode::OK, 7, &b"{}"[..])
        );
    }

    /// SRV-190: with `--discovery-proxy`.
    #[tokio::test]
    async fn a_proxy_is_told_where_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap().to_string();
        let exchange = Exchange::new("http://registry.example/token", &proxy).unwrap();
        let plain = async { serve(listener.accept().await.unwrap().0, ANSWER).await };
        let (asked, answer) = tokio::join!(plain, exchange.ask(&QUESTION));
        let first = "GET http://registry.example:80/token/_config/size HTTP/1.1\r\n";
        assert!(asked.starts_with(first), "{asked}");
        assert_eq!(answer.unwrap().index, 7);

        let exchange = Exchange::new("https://registry.example/token", &proxy).unwrap();
        let refusal = "HTTP/1.1 403 Forbidden\r\n\r\n";
        let secure = async { serve(listener.accept().await.unwrap().0, refusal).await };
        let (asked, answer) = tokio::join!(secure, exchange.ask(&QUESTION));
        assert!(asked.starts_with("CONNECT registry.example:443 HTTP/1.1\r\n"), "{asked}");
        assert!(matches!(answer, Err(ExchangeError::Connect(..))));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["", "token", "ftp://a/b", "http://", "http://a", "http://a/"] {
            assert!(matches!(Exchange::new(url, ""), Err(PlaceError::Url(_))), "{url}");
        }
        assert!(matches!(Exchange::new("http://a/b", "::"), Err(PlaceError::Proxy(_))));
        assert_eq!(urlencoded("a=http://b:1"), "a%3Dhttp%3A%2F%2Fb%3A1");
    }
}
