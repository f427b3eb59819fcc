//! Requests to the members, one after the other until one answers.
//!
//! etcd: v3.4.23 client/client.go; texts of errors are its own (CTL2-17, CTL2-18).

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tls::{ClientPolicy, Protocols, Settings};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use super::flags::Parsed;
use super::{Code, Failure};
use crate::terminal;

/// What to send.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub(super) method: &'static str,
    /// With the query.
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// Whether the answer may take as long as it likes.
    pub(super) waits: bool,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `X-Etcd-Index`.
    pub(super) index: String,
    pub(super) body: Bytes,
}

/// Why there is none.
#[derive(Clone, Debug)]
pub(super) enum ClientError {
    /// What each endpoint said, and whether nobody could be reached at all.
    Cluster { errors: Vec<String>, unreached: bool },
    /// The command's time is over.
    Deadline,
}

impl ClientError {
    pub(super) fn is_connection(&self) -> bool {
        match self {
            Self::Cluster { unreached, .. } => *unreached,
            Self::Deadline => true,
        }
    }

    /// One line, and one for each endpoint behind it.
    pub(super) fn with_details(&self) -> String {
        match self {
            Self::Deadline => "context deadline exceeded".to_owned(),
            Self::Cluster { errors, .. } => {
                let list = |before: &str| -> String {
                    let lines = errors.iter().enumerate();
                    lines.map(|(at, error)| format!("{before}error #{at}: {error}\n")).collect()
                };
                let head = "client: etcd cluster is unavailable or misconfigured";
                format!("{head}{}\n{}", list("; "), list(""))
            }
        }
    }
}

/// The members that are asked.
#[derive(Debug)]
pub(super) struct Client {
    endpoints: Vec<Url>,
    policy: Option<ClientPolicy>,
    authorization: Option<String>,
    timeout: Duration,
    total_timeout: Duration,
}

fn duration(text: Option<&str>, otherwise: u64) -> Result<Duration, Failure> {
    let Some(text) = text else { return Ok(Duration::from_secs(otherwise)) };
    let parsed = cli::duration::parse(text);
    parsed.map_err(|error| Failure::plain(Code::BadArguments, format!("Incorrect Usage: {error}")))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Client {
    /// Reads flags and environment.
    pub(super) fn new(global: &Parsed) -> Result<Self, Failure> {
        let named = |flag: &str, name: &str| {
            let given = global.text(flag).filter(|value| !value.is_empty());
            given.map(ToOwned::to_owned).or_else(|| variable(name))
        };
        let endpoints = named("endpoints", "ETCDCTL_ENDPOINTS")
            .or_else(|| named("endpoint", "ETCDCTL_ENDPOINT"))
            .or_else(|| named("peers", "ETCDCTL_PEERS"))
            .unwrap_or_else(|| "http://127.0.0.1:2379,http://127.0.0.1:4001".to_owned());
        let endpoints: Result<Vec<Url>, Failure> = endpoints.split(',').map(endpoint).collect();
        let settings = Settings {
            cert_file: named("cert-file", "ETCDCTL_CERT_FILE").map(Into::into),
            key_file: named("key-file", "ETCDCTL_KEY_FILE").map(Into::into),
            trusted_ca_file: named("ca-file", "ETCDCTL_CA_FILE").map(Into::into),
            ..Settings::default()
        };
        let endpoints = endpoints?;
        let policy = if endpoints.iter().any(|endpoint| endpoint.scheme() == "https") {
            let policy = ClientPolicy::new(&settings, Protocols::Unsaid);
            Some(policy.map_err(|error| {
                Failure::plain(Code::BadArguments, tls::describe_policy_error(&error))
            })?)
        } else {
            None
        };
        let authorization = match named("username", "ETCDCTL_USERNAME") {
            Some(user) if user.contains(':') => Some(user),
            Some(user) => {
                let password = terminal::ask_password("Password: ");
                let failed = |error| Failure::plain(Code::BadArguments, format!("{error}"));
                Some(format!("{user}:{}", password.map_err(failed)?))
            }
            None => None,
        };
        let encode = |user| base64::engine::general_purpose::STANDARD.encode(user);
        Ok(Self {
            endpoints,
            policy,
            authorization: authorization.map(|user| format!("Basic {}", encode(user))),
            timeout: duration(global.text("timeout"), 2)?,
            total_timeout: duration(global.text("total-timeout"), 5)?,
        })
    }

    /// Asks who the members are and asks them from now on (CTL2-19).
    pub(super) async fn sync(&mut self, global: &Parsed) -> Result<(), Failure> {
        if global.is_set("no-sync") {
            return Ok(());
        }
        let question =
            Question { method: "GET", path: "/v2/members".to_owned(), ..Question::default() };
        match self.ask(&question).await {
            Err(error) if error.is_connection() => Err(Failure::of(&error)),
            Err(_) => Ok(()),
            Ok(answer) => {
                let list: serde_json::Value =
                    serde_json::from_slice(&answer.body).unwrap_or_default();
                let members = list["members"].as_array().into_iter().flatten();
                let urls = members.flat_map(|it| it["clientURLs"].as_array().into_iter().flatten());
                let urls: Vec<Url> =
                    urls.filter_map(|url| Url::parse(url.as_str()?).ok()).collect();
                if !urls.is_empty() && urls.iter().all(|url| self.can_ask(url)) {
                    self.endpoints = urls;
                }
                Ok(())
            }
        }
    }

    fn can_ask(&self, url: &Url) -> bool {
        url.scheme() == "http" || self.policy.is_some()
    }

    /// The first answer of an endpoint that is no failure of the server.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, ClientError> {
        let (mut errors, mut unreached) = (Vec::new(), true);
        let asking = async {
            for endpoint in &self.endpoints {
                let asked = self.ask_one(endpoint, question);
                let answered = if question.waits {
                    asked.await
                } else {
                    match tokio::time::timeout(self.timeout, asked).await {
                        Ok(answered) => answered,
                        Err(_) => {
                            let endpoint = shown(endpoint);
                            Err(format!("client: endpoint {endpoint} exceeded header timeout"))
                        }
                    }
                };
                match answered {
                    Ok(answer) if answer.status < 500 => return Some(answer),
                    Ok(answer) => {
                        unreached = false;
                        errors.push(server_error(endpoint, answer.status));
                    }
                    Err(error) => {
                        unreached &= error.starts_with("dial ");
                        errors.push(error);
                    }
                }
            }
            None
        };
        let answered = if question.waits {
            asking.await
        } else {
            let limited = tokio::time::timeout(self.total_timeout, asking).await;
            limited.map_err(|_| ClientError::Deadline)?
        };
        answered.ok_or(ClientError::Cluster { errors, unreached })
    }

    /// One question to one URL; the error is the line that people see.
    pub(super) async fn ask_one(
        &self,
        endpoint: &Url,
        question: &Question,
    ) -> Result<Answer, String> {
        let host = endpoint.host_str().unwrap_or_default();
        let port = endpoint.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
        let stream =
            stream.map_err(|error| format!("dial tcp {host}:{port}: {}", reason(&error)))?;
        match &self.policy {
            Some(policy) if endpoint.scheme() == "https" => {
                let stream = policy.connect(host, stream).await.map_err(|error| error.words)?;
                self.send(endpoint, stream, question).await
            }
            _ => self.send(endpoint, stream, question).await,
        }
    }

    async fn send<S>(
        &self,
        endpoint: &Url,
        stream: S,
        question: &Question,
    ) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let serving = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(question.method)
            .uri(&question.path)
            .header(header::HOST, endpoint.authority());
        if !question.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, question.content_type);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(question.body.clone())));
        let request = request.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let index = response.headers().get("x-etcd-index").and_then(|it| it.to_str().ok());
        let index = index.unwrap_or_default().to_owned();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(failed)?.to_bytes();
        serving.abort();
        Ok(Answer { status, index, body })
    }
}

fn endpoint(text: &str) -> Result<Url, Failure> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let wrong = |error| Failure::plain(Code::BadArguments, format!("parse {text:?}: {error}"));
    Url::parse(&whole).map_err(wrong)
}

/// As Go writes a URL without a path.
fn shown(endpoint: &Url) -> &str {
    endpoint.as_str().trim_end_matches('/')
}

fn server_error(endpoint: &Url, status: u16) -> String {
    let endpoint = shown(endpoint);
    if matches!(status, 500 | 503) {
        return format!("client: etcd member {endpoint} has no leader");
    }
    let name = hyper::StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason());
    let name = name.unwrap_or_default();
    format!("client: etcd member {endpoint} returns server error [{name}]")
}

/// As Go names what the system says.
fn reason(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        return "connect: connection refused".to_owned();
    }
    error.to_string()
}
