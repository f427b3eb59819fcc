//! Questions to other members over plain HTTP/1.1: `/members`, `/version`, leases, hashes.
//!
//! A question is bounded in time and its answer in size. Connections are kept and used again;
//! how one is opened, with TLS or without, is a [`Dial`]'s business. Redirects are not followed. Not
//! here: Raft's messages and snapshots, which have streams of their own.
//! Source: etcd server/etcdserver/cluster_util.go, api/rafthttp/util.go (`NewRoundTripper`).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use crate::config::{Address, MemberUrl, UrlError};

/// Either end of an open connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub(crate) type Socket = Box<dyn Stream>;

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Opens connections to peer URLs; the scheme says whether with TLS.
pub(crate) trait Dial: fmt::Debug + Send + Sync + 'static {
    /// A connection to `url`, ready for HTTP.
    fn dial(&self, url: &MemberUrl) -> BoxFuture<'static, io::Result<Socket>>;
}

/// What is asked, of whomever it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// `GET` or `POST`.
    pub(crate) method: Method,
    /// From the first slash on, with the query.
    pub(crate) path: String,
    /// Besides those that HTTP needs.
    pub(crate) headers: HeaderMap,
    /// May be empty.
    pub(crate) body: Bytes,
    /// For everything, from opening a connection to the answer's last byte.
    pub(crate) timeout: Duration,
    /// A longer answer is an error.
    pub(crate) answer_bytes_max: usize,
}

impl Question {
    /// A `GET` without headers and body.
    pub(crate) fn get(path: &str, timeout: Duration) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
        }
    }
}

/// More than any member answers to the questions here.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Unused connections to one address.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header as text; empty if it is missing or no text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text without blanks around it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// Why a member did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The URL that the cluster knows is none.
    #[error("asking {url}{path}")]
    Url {
        url: String,
        path: String,
        #[source]
        source: UrlError,
    },
    /// No connection, or it broke.
    #[error("asking {url}{path}")]
    Exchange {
        url: String,
        path: String,
        #[source]
        source: legacy::Error,
    },
    /// The answer broke off or is too long.
    #[error("reading what {url}{path} answers")]
    Body {
        url: String,
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No whole answer in time.
    #[error("asking {url}{path}: no answer within {millis} ms")]
    TimedOut { url: String, path: String, millis: u128 },
}

/// Asks members.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    client: Client<Connector, Full<Bytes>>,
}

impl Asker {
    /// Must be used within one tokio runtime: the connections' tasks live there.
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(Connector::new(dial));
        Self { client }
    }

    /// Asks one member at one of its peer URLs.
    ///
    /// # Errors
    ///
    /// No whole answer; an answer with a bad status is one.
    pub(crate) async fn ask(&self, url: &str, question: &Question) -> Result<Answer, AskError> {
        let exchange = self.exchange(url, question);
        tokio::time::timeout(question.timeout, exchange).await.unwrap_or_else(|_| {
            Err(AskError::TimedOut {
                url: url.to_owned(),
                path: question.path.clone(),
                millis: question.timeout.as_millis(),
            })
        })
    }

    /// Asks at several URLs in turn until `read` accepts an answer.
    ///
    /// Each failure is given to `told`, with the URL, before the next is asked.
    pub(crate) async fn ask_each<T, E: From<AskError>>(
        &self,
        urls: impl IntoIterator<Item = &str>,
        question: &Question,
        mut read: impl FnMut(Answer) -> Result<T, E>,
        mut told: impl FnMut(&str, E),
    ) -> Option<T> {
        for url in urls {
            match self.ask(url, question).await.map_err(E::from).and_then(&mut read) {
                Ok(read) => return Some(read),
                Err(error) => told(url, error),
            }
        }
        None
    }

    async fn exchange(&self, url: &str, question: &Question) -> Result<Answer, AskError> {
        let own = || (url.to_owned(), question.path.clone());
        let parsed = MemberUrl::parse(url).map_err(|source| {
            let (url, path) = own();
            AskError::Url { url, path, source }
        })?;
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = to_uri(&parsed, &question.path).ok_or_else(|| {
            let (url, path) = own();
            AskError::Url { source: UrlError::Scheme(url.clone()), url, path }
        })?;
        *request.headers_mut() = question.headers.clone();
        let response = self.client.request(request).await.map_err(|source| {
            let (url, path) = own();
            AskError::Exchange { url, path, source }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, question.answer_bytes_max).collect().await;
        let body = body.map_err(|source| {
            let (url, path) = own();
            AskError::Body { url, path, source }
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// Ends the host under which the HTTP client knows a Unix socket; its beginning is the path in hex.
const UNIX_HOST: &str = ".unix-socket";

/// A URL as the HTTP client takes it, from which [`from_uri`] makes it again.
pub(crate) fn to_uri(url: &MemberUrl, path: &str) -> Option<Uri> {
    let authority = match url.address() {
        Address::Tcp { .. } => url.as_str().split_once("//")?.1.to_owned(),
        Address::Unix(file) => {
            let bytes = file.as_os_str().as_encoded_bytes();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{UNIX_HOST}")
        }
    };
    let scheme = if url.scheme().is_tls() { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

fn from_uri(uri: &Uri) -> Option<MemberUrl> {
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let Some(hex) = authority.strip_suffix(UNIX_HOST) else {
        return MemberUrl::parse(&format!("{scheme}://{authority}")).ok();
    };
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let scheme = if scheme == "https" { "unixs" } else { "unix" };
    MemberUrl::parse(&format!("{scheme}://{}", String::from_utf8(bytes?).ok()?)).ok()
}

/// Lets the HTTP client open connections with a [`Dial`].
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    dial: Arc<dyn Dial>,
}

impl Connector {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(url) = from_uri(&uri) else {
            return Box::pin(async { Err(io::ErrorKind::InvalidInput.into()) });
        };
        let opening = self.dial.dial(&url);
        Box::pin(async move { opening.await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::peers::dial::PeerDial;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn asker() -> Asker {
        Asker::new(Arc::new(PeerDial::new(TIMEOUT, None)))
    }

    /// Reads one request's head and answers it; what was read.
    async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).await.unwrap();
            request.push(byte[0]);
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn a_member_is_asked_by_tcp_and_by_socket() {
        let answer = "HTTP/1.1 412 x\r\nX-Etcd-Cluster-Id: 1f\r\nContent-Length: 3\r\n\r\nab\n";
        let mut question = Question::get("/members?a=b", TIMEOUT);
        question.headers.insert("x-test", "yes".parse().unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let asked = asker();
        let (served, answered) = tokio::join!(
            async { serve(tcp.accept().await.unwrap().0, answer).await },
            asked.ask(&url, &question)
        );
        assert!(served.starts_with("GET /members?a=b HTTP/1.1\r\n"), "{served}");
        assert!(served.contains("x-test: yes\r\n"), "{served}");
        let answered = answered.unwrap();
        assert_eq!(answered.status, 412);
        assert_eq!(answered.header("X-Etcd-Cluster-ID"), "1f");
        assert_eq!(answered.text(), "ab");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer:2380");
        let unix = UnixListener::bind(&path).unwrap();
        let url = format!("unix://{}", path.display());
        let (_, answered) = tokio::join!(
            async { serve(unix.accept().await.unwrap().0, answer).await },
            asked.ask(&url, &question)
        );
        assert_eq!(answered.unwrap().text(), "ab");
    }

    #[tokio::test]
    async fn what_does_not_answer_is_passed_over() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let urls = [
            "nonsense".to_owned(),
            format!("http://{}", silent.local_addr().unwrap()),
            format!("http://{}", good.local_addr().unwrap()),
        ];
        let mut question = Question::get("/", Duration::from_secs(3));
        question.answer_bytes_max = 2;
        let mut failures = Vec::new();
        let answer = "HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nab";
        let asked = asker();
        let (_, found) = tokio::join!(
            async { serve(good.accept().await.unwrap().0, answer).await },
            asked.ask_each(
                urls.iter().map(String::as_str),
                &question,
                |answer| Ok::<_, AskError>(answer.text()),
                |url, error| failures.push((url.to_owned(), error.to_string())),
            )
        );
        assert_eq!(found.as_deref(), Some("ab"));
        assert_eq!(failures.len(), 2);
        assert_eq!(failures[0].1, "asking nonsense/");
        assert!(failures[1].1.ends_with("no answer within 3000 ms"), "{failures:?}");
    }

    #[tokio::test]
    async fn an_answer_has_a_limit() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let mut question = Question::get("/", TIMEOUT);
        question.answer_bytes_max = 2;
        let answer = "HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\nabc";
        let asked = asker();
        let (_, answered) = tokio::join!(
            async { serve(tcp.accept().await.unwrap().0, answer).await },
            asked.ask(&url, &question)
        );
        assert!(matches!(answered, Err(AskError::Body { .. })), "{answered:?}");
    }
}
