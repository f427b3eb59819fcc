//! Requests to the members, one member after the other until one answers.
//!
//! A client keeps to the member that answered last. What went wrong is told in the original's words
//! (CTL2-17, CTL2-18).
//!
//! etcd: v3.4.23 client/client.go, client/cluster_error.go, client/curl.go.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use cli::os::error_text;
use cli::quote::quote;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::settings::{ClientSettings, Endpoint};

/// The longest time that opening a connection may take.
const DIAL_TIME_MAX: Duration = Duration::from_secs(30);

/// How often an answer may point elsewhere.
const REDIRECTS_MAX: usize = 10;

/// What to send.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub(super) method: &'static str,
    /// Escaped.
    pub(super) path: String,
    /// Escaped, with its question mark; may be empty.
    pub(super) query: String,
    pub(super) content_type: &'static str,
    pub(super) body: Option<String>,
    /// Whether the answer may take as long as it likes.
    pub(super) waits: bool,
    /// Whether a second member is not asked: the first one may have done it.
    pub(super) is_once: bool,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `X-Etcd-Index`.
    pub(super) index: String,
    location: Option<String>,
    pub(super) body: Bytes,
}

/// Why a member did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    text: String,
    /// Whether there was no connection, or none any more.
    is_connection: bool,
}

impl Reason {
    fn connection(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_connection: true }
    }

    fn other(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_connection: false }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// What each member said.
    #[error("client: etcd cluster is unavailable or misconfigured{}", numbered("; ", .0))]
    Cluster(Vec<Reason>),
    /// What the only one that was asked said.
    #[error("{0}")]
    One(Reason),
    /// The command's time is over.
    #[error("context deadline exceeded")]
    Deadline,
}

fn numbered(before: &str, reasons: &[Reason]) -> String {
    let lines = reasons.iter().enumerate();
    lines.map(|(at, reason)| format!("{before}error #{at}: {reason}\n")).collect()
}

impl ClientError {
    /// Whether nobody could be reached.
    pub(super) fn is_connection(&self) -> bool {
        match self {
            Self::Cluster(reasons) => reasons.iter().all(|reason| reason.is_connection),
            Self::One(reason) => reason.is_connection,
            Self::Deadline => true,
        }
    }

    /// What stands behind the error: a line for each member.
    pub(super) fn details(&self) -> Option<String> {
        match self {
            Self::Cluster(reasons) => Some(numbered("", reasons)),
            Self::One(_) | Self::Deadline => None,
        }
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Moment(Instant),
    Forever,
}

/// The members that are asked.
#[derive(Debug)]
pub(super) struct Client {
    settings: ClientSettings,
    /// Who is asked first.
    pinned: Cell<usize>,
}

impl Client {
    pub(super) fn new(mut settings: ClientSettings) -> Self {
        shuffle(&mut settings.endpoints);
        Self { settings, pinned: Cell::new(0) }
    }

    /// The end of a command that begins now.
    pub(super) fn deadline(&self) -> Until {
        Until::Moment(Instant::now() + self.settings.total_timeout)
    }

    /// Their URLs, as they were given.
    pub(super) fn endpoints(&self) -> Vec<&str> {
        self.settings.endpoints.iter().map(|endpoint| endpoint.text.as_str()).collect()
    }

    /// Asks others from now on.
    pub(super) fn set_endpoints(&mut self, mut endpoints: Vec<Endpoint>) {
        let texts = |list: &[Endpoint]| {
            let mut texts: Vec<String> = list.iter().map(|it| it.text.clone()).collect();
            texts.sort_unstable();
            texts
        };
        if texts(&endpoints) != texts(&self.settings.endpoints) {
            shuffle(&mut endpoints);
            self.settings.endpoints = endpoints;
            self.pinned.set(0);
        }
    }

    /// The first answer of a member that is no failure of the server.
    pub(super) async fn ask(
        &self,
        question: &Question,
        until: Until,
    ) -> Result<Answer, ClientError> {
        match until {
            Until::Forever => self.ask_each(question).await,
            Until::Moment(moment) => timeout_at(moment, self.ask_each(question))
                .await
                .unwrap_or(Err(ClientError::Deadline)),
        }
    }

    async fn ask_each(&self, question: &Question) -> Result<Answer, ClientError> {
        let endpoints = &self.settings.endpoints;
        let mut reasons = Vec::new();
        for at in (0..endpoints.len()).map(|at| (at + self.pinned.get()) % endpoints.len()) {
            let endpoint = &endpoints[at];
            let reason = match self.ask_following(endpoint, question).await {
                Ok(answer) if answer.status < 500 => {
                    self.pinned.set(at);
                    return Ok(answer);
                }
                Ok(answer) => server_error(endpoint, answer.status),
                Err(reason) => reason,
            };
            if question.is_once {
                self.pinned.set((at + 1) % endpoints.len());
                return Err(ClientError::One(reason));
            }
            reasons.push(reason);
        }
        Err(ClientError::Cluster(reasons))
    }

    /// Asks one member, and whoever it points to.
    async fn ask_following(
        &self,
        endpoint: &Endpoint,
        question: &Question,
    ) -> Result<Answer, Reason> {
        let mut endpoint = endpoint.clone();
        let mut target = format!("{}{}{}", endpoint.base(), question.path, question.query);
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask_one(&endpoint, &target, question).await?;
            if answer.status / 100 != 3 {
                return Ok(answer);
            }
            target = answer.location.ok_or_else(|| Reason::other("location header not set"))?;
            endpoint = Endpoint::parse(&target)
                .map_err(|_| Reason::other(format!("location header not valid URL: {target}")))?;
        }
        Err(Reason::other("client: too many redirects"))
    }

    /// Asks for a URL.
    pub(super) async fn ask_one(
        &self,
        endpoint: &Endpoint,
        target: &str,
        question: &Question,
    ) -> Result<Answer, Reason> {
        if self.settings.is_debug {
            let data = question.body.as_ref().map(|body| format!(" -d {}", quote(body.as_bytes())));
            let data = data.unwrap_or_default();
            eprintln!("cURL Command: curl -X {} {target}{data}", question.method);
        }
        let asking = self.exchange(endpoint, target, question);
        if question.waits || self.settings.timeout.is_zero() {
            return asking.await;
        }
        timeout(self.settings.timeout, asking).await.unwrap_or_else(|_| {
            let endpoint = &endpoint.text;
            Err(Reason::other(format!("client: endpoint {endpoint} exceeded header timeout")))
        })
    }

    /// One request over a connection of its own.
    pub(super) async fn exchange(
        &self,
        endpoint: &Endpoint,
        target: &str,
        question: &Question,
    ) -> Result<Answer, Reason> {
        match endpoint.scheme() {
            "http" => {
                let stream = self.dial(endpoint).await?;
                self.send(endpoint, stream, target, question).await
            }
            "https" => {
                let stream = self.dial(endpoint).await?;
                let connecting = self.settings.policy.connect(endpoint.host(), stream);
                let stream = connecting.await.map_err(|error| Reason::other(error.words))?;
                self.send(endpoint, stream, target, question).await
            }
            scheme => {
                let scheme = quote(scheme.as_bytes());
                Err(Reason::other(format!("unsupported protocol scheme {scheme}")))
            }
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<TcpStream, Reason> {
        let (host, port) = (endpoint.host(), endpoint.port());
        let limit = match self.settings.total_timeout {
            Duration::ZERO => DIAL_TIME_MAX,
            total => total.min(DIAL_TIME_MAX),
        };
        let dialing = async {
            let found = tokio::net::lookup_host((host, port)).await;
            let Ok(addresses) = found else {
                return Err(format!("dial tcp: lookup {host}: no such host"));
            };
            let mut first = None;
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => {
                        let why = error_text(&error);
                        first.get_or_insert_with(|| format!("dial tcp {address}: connect: {why}"));
                    }
                }
            }
            Err(first.unwrap_or_else(|| format!("dial tcp: lookup {host}: no such host")))
        };
        let dialed = timeout(limit, dialing).await;
        let dialed = dialed.unwrap_or_else(|_| Err(format!("dial tcp {host}:{port}: i/o timeout")));
        dialed.map_err(Reason::connection)
    }

    async fn send<S>(
        &self,
        endpoint: &Endpoint,
        stream: S,
        target: &str,
        question: &Question,
    ) -> Result<Answer, Reason>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let serving = tokio::spawn(connection);
        let path = target.strip_prefix(&format!("{}://", endpoint.scheme())).unwrap_or(target);
        let path = path.find('/').map_or("/", |at| &path[at..]);
        let mut request = Request::builder()
            .method(question.method)
            .uri(path)
            .header(header::HOST, endpoint.authority())
            .header(header::USER_AGENT, "etcdctl");
        if !question.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, question.content_type);
        }
        if let Some(authorization) = &self.settings.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let body = question.body.clone().unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| Reason::other(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let text = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(ToOwned::to_owned)
        };
        let (index, location) = (text("x-etcd-index").unwrap_or_default(), text("location"));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| broken(&error))?;
        serving.abort();
        Ok(Answer { status, index, location, body: body.to_bytes() })
    }
}

/// A connection that did not bring an answer.
fn broken(error: &hyper::Error) -> Reason {
    if error.is_incomplete_message() || error.is_closed() {
        return Reason::other("EOF");
    }
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        Some(cause) => Reason::connection(format!("read: {}", error_text(cause))),
        None => Reason::other(error.to_string()),
    }
}

fn server_error(endpoint: &Endpoint, status: u16) -> Reason {
    let endpoint = &endpoint.text;
    if matches!(status, 500 | 503) {
        return Reason::other(format!("client: etcd member {endpoint} has no leader"));
    }
    let name = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let name = name.unwrap_or_default();
    Reason::other(format!("client: etcd member {endpoint} returns server error [{name}]"))
}

/// Members get their share of the commands (CTL2-19).
fn shuffle(endpoints: &mut [Endpoint]) {
    for last in (1..endpoints.len()).rev() {
        let random = RandomState::new().build_hasher().finish();
        let bound = last as u64 + 1;
        endpoints.swap(last, usize::try_from(random % bound).expect("it is below the length"));
    }
}
