//! One lazily opened HTTP/2 connection per endpoint, and which of them is in use.
//!
//! A connection that breaks is opened again by the next call on it. A failure to open one is told
//! apart from every other failure, because then nothing was sent.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tls::ClientPolicy;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Uri};
use tower_service::Service;

use crate::endpoint::{Address, Endpoint, EndpointError, Security};
use crate::error::Error;
use crate::options::Options;
use crate::preface::Prefaced;

/// Go's gRPC raises smaller intervals to this, and members answer smaller ones by hanging up.
const KEEP_ALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct Connections {
    channels: Vec<(Endpoint, Channel, Arc<Openings>)>,
    /// Index of the channel that answered last; only ever moved on.
    current: AtomicUsize,
    trouble: Trouble,
}

/// How often a channel's connection was opened and closed.
#[derive(Debug, Default)]
struct Openings {
    opened: AtomicU64,
    closed: AtomicU64,
}

/// Held by an open connection.
#[derive(Debug)]
pub(crate) struct Opening(Arc<Openings>);

impl Opening {
    fn new(openings: Arc<Openings>) -> Self {
        openings.opened.fetch_add(1, Ordering::AcqRel);
        Self(openings)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::AcqRel);
    }
}

/// Tells later whether a channel's connection was closed all the time.
#[derive(Debug)]
pub(crate) struct Since {
    openings: Arc<Openings>,
    /// How often it had been opened, if it was closed.
    opened: Option<u64>,
}

impl Since {
    fn now(openings: &Arc<Openings>) -> Self {
        // What is closed meanwhile counts as open, never the other way round.
        let closed = openings.closed.load(Ordering::Acquire);
        let opened = openings.opened.load(Ordering::Acquire);
        Self { openings: Arc::clone(openings), opened: (opened == closed).then_some(opened) }
    }

    /// Whether nothing can have been sent since.
    pub(crate) fn was_closed(&self) -> bool {
        self.opened.is_some_and(|opened| opened == self.openings.opened.load(Ordering::Acquire))
    }
}

/// Why the last attempt to connect failed; nothing after one that did not.
type Trouble = Arc<Mutex<Option<String>>>;

impl Connections {
    pub(crate) fn new(endpoints: Vec<Endpoint>, options: &Options) -> Result<Self, Error> {
        let always = endpoints.iter().any(|endpoint| endpoint.security == Security::Always);
        let is_asked = options.tls.is_some();
        let policy = if is_asked || always { Some(options.policy()?) } else { None };
        let trouble = Trouble::default();
        let channels = endpoints
            .into_iter()
            .map(|endpoint| {
                let policy = policy.clone().filter(|_| match endpoint.security {
                    Security::Always => true,
                    Security::Never => false,
                    Security::IfAsked => is_asked,
                });
                let openings = Arc::new(Openings::default());
                let news = (trouble.clone(), Arc::clone(&openings));
                let channel = channel(&endpoint, options, policy, news)?;
                Ok((endpoint, channel, openings))
            })
            .collect::<Result<_, EndpointError>>()?;
        Ok(Self { channels, current: AtomicUsize::new(0), trouble })
    }

    /// Why the last attempt to connect failed.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The channel to use now, with the ticket for [`Connections::leave`].
    pub(crate) fn current(&self) -> (usize, Channel) {
        let ticket = self.current.load(Ordering::Relaxed);
        (ticket, self.channels[ticket % self.channels.len()].1.clone())
    }

    /// For a call that is about to use the channel of a ticket.
    pub(crate) fn since_now(&self, ticket: usize) -> Since {
        Since::now(&self.channels[ticket % self.channels.len()].2)
    }

    /// Moves on to the next endpoint, unless another call already did.
    pub(crate) fn leave(&self, ticket: usize) {
        // A lost race means that somebody else moved on, which is as good.
        let next = ticket.wrapping_add(1);
        self.current.compare_exchange(ticket, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// The endpoint of a ticket, as it was written.
    pub(crate) fn endpoint(&self, ticket: usize) -> &str {
        &self.channels[ticket % self.channels.len()].0.text
    }

    /// Number of endpoints; at least one.
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The endpoints as they were written.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().map(|(endpoint, ..)| endpoint.text.as_str())
    }
}

fn channel(
    endpoint: &Endpoint,
    options: &Options,
    policy: Option<ClientPolicy>,
    (trouble, openings): (Trouble, Arc<Openings>),
) -> Result<Channel, EndpointError> {
    let error = || EndpointError { text: endpoint.text.clone() };
    let uri = format!("http://{}", endpoint.authority());
    let connector = Connector {
        address: endpoint.address.clone(),
        server_name: endpoint.server_name(),
        policy,
        dial_timeout: options.dial_timeout,
        trouble,
        openings,
    };
    let mut target = tonic::transport::Endpoint::from_shared(uri).map_err(|_| error())?;
    if !options.keep_alive_time.is_zero() {
        target = target
            .http2_keep_alive_interval(options.keep_alive_time.max(KEEP_ALIVE_TIME_MIN))
            .keep_alive_while_idle(options.keep_alive_without_calls);
    }
    Ok(target
        .keep_alive_timeout(options.keep_alive_timeout)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .connect_with_connector_lazy(connector))
}

/// No connection could be opened, hence nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("connection error: desc = \"{0}\"")]
pub(crate) struct ConnectError(String);

/// Opens TCP connections and Unix sockets alike, with TLS or without.
#[derive(Clone, Debug)]
struct Connector {
    address: Address,
    server_name: String,
    policy: Option<ClientPolicy>,
    dial_timeout: Duration,
    trouble: Trouble,
    openings: Arc<Openings>,
}

/// Either kind of open socket.
type Socket = Box<dyn Stream>;

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Prefaced<Socket>>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let (trouble, openings) = (connector.trouble.clone(), connector.openings.clone());
            let opened = connector.open().await;
            let why = opened.as_ref().err().map(ToString::to_string);
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
            opened.map(|stream| TokioIo::new(stream.held_by(Opening::new(openings))))
        })
    }
}

impl Connector {
    /// Dials, makes the handshake and waits for the server's first words, in the dial timeout.
    async fn open(self) -> Result<Prefaced<Socket>, ConnectError> {
        let deadline = Instant::now() + self.dial_timeout;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let dialed = timeout_at(deadline, dial(&self.address)).await;
        let socket = dialed.unwrap_or_else(|_| Err(late())).map_err(|error| {
            let place = describe(&self.address);
            ConnectError(format!("transport: Error while dialing: dial {place}: {}", words(&error)))
        })?;
        let socket: Socket = match &self.policy {
            None => socket,
            Some(policy) => {
                let connecting = policy.connect(&self.server_name, socket);
                let connected = match timeout_at(deadline, connecting).await {
                    Ok(connected) => connected.map_err(|error| error.words),
                    Err(_) => Err("context deadline exceeded".to_owned()),
                };
                Box::new(connected.map_err(|words| {
                    ConnectError(format!("transport: authentication handshake failed: {words}"))
                })?)
            }
        };
        let begun = timeout_at(deadline, Prefaced::new(socket)).await;
        begun.unwrap_or_else(|_| Err(late())).map_err(|error| {
            ConnectError(format!("error reading server preface: {}", tls::describe(&error)))
        })
    }
}

async fn dial(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

fn describe(address: &Address) -> String {
    match address {
        Address::Tcp(host) => format!("tcp {host}"),
        Address::Unix(path) => format!("unix {}", path.display()),
    }
}

/// The system's answer as Go's programs write it.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    match error.raw_os_error() {
        Some(_) => format!("connect: {text}"),
        None => text,
    }
}
