//! One lazily opened HTTP/2 connection per endpoint, and which of them is in use.
//!
//! A connection that breaks is opened again by the next call on it. A failure to open one is told
//! apart from every other failure, because then nothing was sent.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Uri};
use tower_service::Service;

use crate::endpoint::{Address, Endpoint, EndpointError};
use crate::options::Options;

/// Go's gRPC raises smaller intervals to this, and members answer smaller ones by hanging up.
const KEEP_ALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// Windows of Go's gRPC client grow with the measured bandwidth; these are large enough for
/// snapshots on a local network.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct Connections {
    channels: Vec<(Endpoint, Channel)>,
    /// Index of the channel that answered last; only ever moved on.
    current: AtomicUsize,
}

impl Connections {
    pub(crate) fn new(endpoints: Vec<Endpoint>, options: &Options) -> Result<Self, EndpointError> {
        let channels = endpoints
            .into_iter()
            .map(|endpoint| {
                let channel = channel(&endpoint, options)?;
                Ok((endpoint, channel))
            })
            .collect::<Result<_, EndpointError>>()?;
        Ok(Self { channels, current: AtomicUsize::new(0) })
    }

    /// The channel to use now, with the ticket for [`Connections::leave`].
    pub(crate) fn current(&self) -> (usize, Channel) {
        let ticket = self.current.load(Ordering::Relaxed);
        (ticket, self.channels[ticket % self.channels.len()].1.clone())
    }

    /// Moves on to the next endpoint, unless another call already did.
    pub(crate) fn leave(&self, ticket: usize) {
        // A lost race means that somebody else moved on, which is as good.
        let next = ticket.wrapping_add(1);
        self.current.compare_exchange(ticket, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Number of endpoints; at least one.
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The endpoints as they were written.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().map(|(endpoint, _)| endpoint.text.as_str())
    }
}

fn channel(endpoint: &Endpoint, options: &Options) -> Result<Channel, EndpointError> {
    let error = || EndpointError { text: endpoint.text.clone() };
    let uri = format!("http://{}", endpoint.authority());
    let connector =
        Connector { address: endpoint.address.clone(), dial_timeout: options.dial_timeout };
    Ok(tonic::transport::Endpoint::from_shared(uri)
        .map_err(|_| error())?
        .http2_keep_alive_interval(options.keep_alive_time.max(KEEP_ALIVE_TIME_MIN))
        .keep_alive_timeout(options.keep_alive_timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(connector))
}

/// No connection could be opened, hence nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("connection error: desc = \"transport: Error while dialing: dial {address}\"")]
pub(crate) struct ConnectError {
    address: String,
    #[source]
    source: io::Error,
}

/// Opens TCP connections and Unix sockets alike.
#[derive(Clone, Debug)]
struct Connector {
    address: Address,
    dial_timeout: Duration,
}

/// Either kind of open socket.
type Socket = Box<dyn Stream>;

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, dial_timeout } = self.clone();
        Box::pin(async move {
            let opened = tokio::time::timeout(dial_timeout, open(&address)).await;
            let error = |source| ConnectError { address: describe(&address), source };
            match opened {
                Ok(Ok(socket)) => Ok(TokioIo::new(socket)),
                Ok(Err(source)) => Err(error(source)),
                Err(_) => Err(error(io::ErrorKind::TimedOut.into())),
            }
        })
    }
}

async fn open(address: &Address) -> io::Result<Socket> {
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
