//! Reads a member's metrics over HTTP/1.1.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Endpoint, Security};
use http::header::HOST;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tls::ClientPolicy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// All that is asked of one member takes no longer.
const TIME_MAX: Duration = Duration::from_secs(5);

/// More is no member's metrics.
const BYTES_MAX: usize = 64 << 20;

/// Who reads.
#[derive(Clone, Debug)]
pub(crate) struct Scraper {
    /// TLS where a member has it; `None` if it cannot be spoken.
    pub(crate) policy: Option<ClientPolicy>,
    /// Members have TLS unless their scheme says otherwise.
    pub(crate) asks_tls: bool,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error("{0} does not answer: {1}")]
    Io(String, #[source] io::Error),
    #[error("{0} does not answer in time")]
    Late(String),
    #[error("there are no endpoints")]
    NoEndpoints,
}

impl Scraper {
    /// The metrics of the first member that shows them.
    pub(crate) async fn metrics(&self, client: &Client) -> Result<Bytes, ScrapeError> {
        let mut why = ScrapeError::NoEndpoints;
        for endpoint in client.endpoints() {
            let Ok(parsed) = Endpoint::parse(endpoint) else { continue };
            match tokio::time::timeout(TIME_MAX, self.read(&parsed)).await {
                Ok(Ok(text)) => return Ok(text),
                Ok(Err(error)) => why = ScrapeError::Io(endpoint.to_owned(), error),
                Err(_) => why = ScrapeError::Late(endpoint.to_owned()),
            }
        }
        Err(why)
    }

    async fn read(&self, endpoint: &Endpoint) -> io::Result<Bytes> {
        let text = endpoint.text.as_str();
        let (host, is_file) = match text.split_once("://") {
            Some(("unix" | "unixs", path)) => (path, true),
            Some((_, host)) => (host.split('/').next().unwrap_or_default(), false),
            None => (text, false),
        };
        let policy = self.policy.as_ref().filter(|_| match endpoint.security {
            Security::Always => true,
            Security::Never => false,
            Security::IfAsked => self.asks_tls,
        });
        if is_file {
            let stream = UnixStream::connect(Path::new(host)).await?;
            return self.over(stream, "localhost", policy).await;
        }
        let stream = TcpStream::connect(host).await?;
        self.over(stream, host, policy).await
    }

    async fn over<S>(
        &self,
        stream: S,
        host: &str,
        policy: Option<&ClientPolicy>,
    ) -> io::Result<Bytes>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match policy {
            None => get(stream, host).await,
            Some(policy) => {
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
                get(policy.connect(name, stream).await?, host).await
            }
        }
    }
}

async fn get<S>(stream: S, host: &str) -> io::Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    let request = http::Request::get("/metrics").header(HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(io::Error::other)?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(io::Error::other(status.to_string())) }
    };
    tokio::pin!(connection, asking);
    tokio::select! {
        answer = &mut asking => answer,
        ended = &mut connection => {
            ended.map_err(io::Error::other)?;
            asking.await
        }
    }
}
