//! A port of the proxy: connections, TLS, HTTP.
//!
//! Whoever connects has five seconds to make itself understood (G24); there are no more connections
//! than files allow.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ping_policy::{Begun, Counted, HEAD_TIME_MAX, PingPolicy, Policed};
use rustix::process::{Resource, getrlimit};
use socket2::{SockRef, TcpKeepalive};
use tls::{Accepted, First, ServerPolicy};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

use crate::dispatch::Dispatch;
use crate::error::ProxyError;
use crate::http::Plain;
use crate::settings::Listen;

/// Together.
const CONNECTIONS_MAX: usize = 10_000;

/// Files that the proxy keeps for itself and its connections to members.
const OWN_FILES: u64 = 150;

/// Before accepting is tried again when there is no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// As Go's sockets do.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes in flight towards the proxy before it must read.
const WINDOW_BYTES: u32 = 1 << 20;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// A bound port.
#[derive(Debug)]
pub(crate) struct Port {
    listener: TcpListener,
    policy: Option<ServerPolicy>,
}

/// What is served on a port; without calls only the plain endpoints are.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) calls: Option<Dispatch>,
    pub(crate) plain: Plain,
}

impl Port {
    /// Takes an address, `host:port`.
    pub(crate) async fn bind(
        address: &str,
        policy: Option<ServerPolicy>,
    ) -> Result<Self, ProxyError> {
        if !address.contains(':') {
            return Err(ProxyError::ListenAddress(address.to_owned()));
        }
        let place = match address.strip_prefix(':') {
            Some(port) => format!("[::]:{port}"),
            None => address.to_owned(),
        };
        let listener = TcpListener::bind(&place).await;
        let listener = listener
            .map_err(|source| ProxyError::Listen { address: address.to_owned(), source })?;
        Ok(Self { listener, policy })
    }

    /// Serves for ever.
    pub(crate) async fn serve(self, served: Served, limits: Listen, room: Arc<Semaphore>) {
        let builder = builder(&limits);
        loop {
            let (stream, remote) = accept(&self.listener).await;
            let Ok(permit) = room.clone().try_acquire_owned() else {
                tracing::debug!(remote = %remote, "refused a connection: there are too many");
                continue;
            };
            keep_alive(&stream);
            // Scrapers keep to no such rule.
            let pings = served.calls.is_some();
            let pings = pings.then(|| PingPolicy::new(limits.ping_interval_min));
            let (served, builder) = (served.clone(), builder.clone());
            let connection = Connection { served, builder, pings, _permit: permit };
            match self.policy.clone() {
                None => drop(tokio::spawn(connection.run(stream))),
                Some(policy) => drop(tokio::spawn(connection.admit(stream, remote, policy))),
            }
        }
    }
}

/// Room for connections, of all ports together: as many as fit beside the proxy's own files.
pub(crate) fn room() -> Arc<Semaphore> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let max = usize::try_from(files - OWN_FILES.min(files / 2)).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(CONNECTIONS_MAX.min(max).max(1)))
}

fn builder(limits: &Listen) -> auto::Builder<TokioExecutor> {
    let interval = Some(limits.keepalive_interval).filter(|interval| !interval.is_zero());
    let timeout = match limits.keepalive_timeout {
        Duration::ZERO => limits.keepalive_interval,
        given => given,
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .max_frame_size(WINDOW_BYTES)
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout);
    builder
}

/// The next connection, however often accepting fails.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %error, "cannot accept a connection; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A socket that is gone already is found out when it is read.
fn keep_alive(stream: &TcpStream) {
    let often = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let _gone = SockRef::from(stream).set_tcp_keepalive(&often);
    let _gone = stream.set_nodelay(true);
}

/// One connection of a client.
struct Connection {
    served: Served,
    builder: auto::Builder<TokioExecutor>,
    pings: Option<PingPolicy>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Makes the handshake first. A certificate only opens the door: no member hears of it.
    async fn admit(self, stream: TcpStream, remote: SocketAddr, policy: ServerPolicy) {
        let Ok(Ok(first)) = tokio::time::timeout(HEAD_TIME_MAX, First::read(stream)).await else {
            return;
        };
        let Accepted { stream, identity } = match policy.accept(first, Some(remote)).await {
            Ok(accepted) => accepted,
            Err(rejection) => {
                tracing::warn!(
                    "remote-addr" = %remote,
                    "server-name" = rejection.server_name,
                    error = %rejection,
                    "rejected connection on client endpoint"
                );
                return;
            }
        };
        let revoked = async {
            match &identity {
                Some(identity) => policy.revoked(identity).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.run(stream) => {}
            () = revoked => {
                tracing::warn!("closed a connection whose certificate was revoked");
            }
        }
    }

    async fn run<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let served = self.served;
        let service = hyper::service::service_fn(move |request| {
            let served = served.clone();
            async move { Ok::<_, Infallible>(served.answer(request).await) }
        });
        let begun = Begun::default();
        let counted = Counted::new(stream, begun.clone());
        let io = TokioIo::new(Policed::new(counted, self.pings));
        begun.run(self.builder.serve_connection(io, service)).await;
    }
}

impl Served {
    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let kind = request.headers().get(CONTENT_TYPE);
        let is_call = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        match &self.calls {
            Some(calls) if is_call => calls.call(request).await,
            Some(_) | None => self.plain.answer(request.method(), request.uri()).await,
        }
    }
}
