//! One port for everything: HTTP/1.1 and HTTP/2, gRPC and the plain endpoints.
//!
//! Whoever connects has five seconds to say what it speaks and to send a request's head (G24);
//! whatever a client does, the port goes on accepting.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use transport::Timed;

use crate::afterwards::Afterwards;
use crate::authority::Forgiving;
use crate::coalesce::Coalescing;
use crate::connections::{Connections, Permit};
use crate::grpc::{Call, Remote, ReplyBody, ReplyFuture, Services};
use crate::guard::{Admitted, Guard, Secured};
use crate::http::Plain;
use crate::listen::{Connection, Detached, Listener};
use crate::ports::BoundPort;
use crate::shards::Shards;
use ping_policy::{Begun, Counted, HEAD_TIME_MAX, PingPolicy, Policed};

/// How a port treats its connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortLimits {
    /// Calls one connection may have open.
    pub(crate) concurrent_streams_max: u32,
    /// A connection's idle time before the server asks whether it lives.
    pub(crate) keepalive_interval: Duration,
    /// How long the answer to that may take.
    pub(crate) keepalive_timeout: Duration,
    /// How often clients may ask that of the server.
    pub(crate) pings: PingPolicy,
}

/// Bytes in flight towards the server before it must be read: large, because requests are small
/// and their number is bounded elsewhere.
const WINDOW_BYTES: u32 = 1 << 20;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// How long open calls may go on once the server ends.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Before accepting is tried again when there is no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one connection is served by.
#[derive(Clone, Debug)]
struct Served {
    services: Option<Services>,
    plain: Plain,
    remote: Remote,
    secured: Option<Secured>,
    afterwards: Afterwards,
}

/// An answer of either kind.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and it must not cost an allocation"
)]
enum Answering {
    Grpc(Call),
    Plain(ReplyFuture),
}

impl Future for Answering {
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Grpc(call) => Pin::new(call).poll(context),
            Self::Plain(reply) => {
                reply.as_mut().poll(context).map_ok(|reply| reply.map(ReplyBody::plain))
            }
        }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Served {
    type Response = http::Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: http::Request<Incoming>) -> Answering {
        if let Some(secured) = &self.secured {
            request.extensions_mut().insert(secured.clone());
        }
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        // As etcd's doors; what only looks like a call is the gateway's to answer.
        let is_grpc = request.version() == http::Version::HTTP_2
            && content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        match &self.services {
            Some(services) if is_grpc => Answering::Grpc(services.call(self.remote, request)),
            Some(_) | None => {
                if request.headers().contains_key(http::header::UPGRADE) {
                    request.extensions_mut().insert(self.afterwards.clone());
                }
                Answering::Plain(self.plain.call(self.remote, request))
            }
        }
    }
}

/// What is served on a port; without services only the plain endpoints are.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) services: Option<Services>,
    pub(crate) plain: Plain,
}

/// How much a port takes.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) limits: PortLimits,
    /// How long writing to a connection may make no progress, if it may not for ever.
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) connections: Connections,
}

/// Serves a port until `stop` turns true; then open calls have a second to end.
pub(crate) async fn serve(
    port: BoundPort,
    service: Service,
    room: Room,
    shards: Shards,
    stop: watch::Receiver<bool>,
) {
    let BoundPort { listener, guard } = port;
    let builder = builder(room.limits);
    let graceful = GracefulShutdown::new();
    let stopping = stopped(stop.clone());
    tokio::pin!(stopping);
    loop {
        let stream = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stopping => break,
        };
        let address = match &stream {
            Connection::Tcp(_, address) => Some(*address),
            Connection::Unix(_) => None,
        };
        let Some(permit) = room.connections.admit(address.map(|address| address.ip())) else {
            continue;
        };
        let Ok(stream) = stream.detach() else { continue };
        let Service { services, plain } = service.clone();
        // Browsers and scrapers keep to no such rule.
        let pings = services.is_some().then_some(room.limits.pings);
        let services = services.map(|services| services.for_connection(|| local(&stream)));
        let (builder, only_calls) = (builder.clone(), plain.is_for_calls_only());
        let (remote, afterwards) = (Remote(address), Afterwards::default());
        let served = Served { services, plain, remote, secured: None, afterwards };
        let watched = Watched { watcher: graceful.watcher(), permit, pings, only_calls };
        let guard = guard.clone().map(|guard| (guard, stop.clone()));
        let timeout = room.write_timeout;
        shards.spawn(async move {
            match stream {
                Detached::Tcp(stream) => match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        let stream = Timed::writes(stream, timeout);
                        begin(stream, guard, &builder, served, watched).await;
                    }
                    Err(error) => tracing::debug!(error = %error, "connection lost"),
                },
                Detached::Unix(stream) => match UnixStream::from_std(stream) {
                    Ok(stream) => {
                        let stream = Timed::writes(stream, timeout);
                        begin(stream, guard, &builder, served, watched).await;
                    }
                    Err(error) => tracing::debug!(error = %error, "connection lost"),
                },
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await.is_err() {
        tracing::debug!("calls were still open at the end");
    }
}

/// Where a connection arrived, if that is an address.
fn local(stream: &Detached) -> Option<SocketAddr> {
    match stream {
        Detached::Tcp(stream) => stream.local_addr().ok(),
        Detached::Unix(_) => None,
    }
}

/// Waits for the end of the server.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means stop, too.
    let _stopped = stop.wait_for(|stop| *stop).await;
}

/// What goes with a connection until it ends.
struct Watched {
    watcher: Watcher,
    permit: Permit,
    pings: Option<PingPolicy>,
    /// Whether the port is for calls alone and not for plain HTTP besides.
    only_calls: bool,
}

/// Serves one connection on this thread, if it may pass.
async fn begin<S>(
    stream: S,
    guard: Option<(Guard, watch::Receiver<bool>)>,
    builder: &auto::Builder<TokioExecutor>,
    mut served: Served,
    mut watched: Watched,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some((guard, stop)) = guard else {
        return connection(stream, builder, served, watched).await;
    };
    let admitting = Box::pin(guard.admit(stream, served.remote.0));
    let admitted = tokio::select! {
        admitted = admitting => admitted,
        () = stopped(stop) => None,
    };
    let Some(Admitted { socket, secured }) = admitted else { return };
    served.secured.clone_from(&secured);
    if secured.is_some() && !watched.only_calls {
        // etcd serves calls through its HTTP library there, which has no such policy.
        watched.pings = None;
    }
    let serving = Box::pin(connection(socket, builder, served, watched));
    tokio::select! {
        () = serving => {}
        () = guard.revoked(secured) => {
            tracing::warn!("closed a connection whose certificate was revoked");
        }
    }
}

/// Serves one connection on this thread.
async fn connection<S>(
    stream: S,
    builder: &auto::Builder<TokioExecutor>,
    served: Served,
    watched: Watched,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Watched { watcher, permit, pings, only_calls: _ } = watched;
    let begun = Begun::default();
    let (stream, drain) = Coalescing::new(Forgiving::new(stream));
    let counted = Counted::new(stream, begun.clone());
    let io = TokioIo::new(Policed::new(counted, pings));
    let (afterwards, services) = (served.afterwards.clone(), served.services.clone());
    let serving = builder.serve_connection_with_upgrades(io, served).into_owned();
    let whole = async {
        let _counted = permit;
        begun.run(watcher.watch(serving)).await;
        afterwards.run().await;
    };
    let broken_off = async {
        match services {
            Some(services) => services.broken_off().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drain.flushing(whole) => {}
        () = broken_off => {
            tracing::warn!("closed a connection whose client asks on and takes no answer");
        }
    }
}

fn builder(limits: PortLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        // As Go writes them, for scripts that look for `X-Etcd-Index:`.
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        // As grpc-go: a call's head says nothing that is not asked for.
        .auto_date_header(false)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .max_frame_size(WINDOW_BYTES)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// The next connection, however often accepting fails.
async fn accept(listener: &Listener) -> Connection {
    let mut told = false;
    loop {
        let error = match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) => error,
        };
        let gone = [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::Interrupted,
        ];
        if gone.contains(&error.kind()) {
            continue;
        }
        if !told {
            told = true;
            tracing::warn!(error = %error, "cannot accept a connection; trying again");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
