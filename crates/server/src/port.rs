//! One port for everything: HTTP/1.1 and HTTP/2, gRPC and the plain endpoints.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::watch;

use crate::coalesce::Coalescing;
use crate::grpc::{HttpReply, ReplyFuture, Services};
use crate::http::Plain;
use crate::listen::{Connection, Listener};

/// How a port treats its connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortLimits {
    /// Calls one connection may have open.
    pub(crate) concurrent_streams_max: u32,
    /// A connection's idle time before the server asks whether it lives.
    pub(crate) keepalive_interval: Duration,
    /// How long the answer to that may take.
    pub(crate) keepalive_timeout: Duration,
}

/// A client has this long to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes in flight towards the server before it must be read: large, because requests are small
/// and their number is bounded elsewhere.
const WINDOW_BYTES: u32 = 1 << 20;

/// How long open calls may go on once the server ends.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What one connection is served by.
#[derive(Clone, Debug)]
struct Served {
    services: Option<Services>,
    plain: Plain,
}

impl hyper::service::Service<http::Request<Incoming>> for Served {
    type Response = HttpReply;
    type Error = Infallible;
    type Future = ReplyFuture;

    fn call(&self, request: http::Request<Incoming>) -> ReplyFuture {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        let is_grpc =
            content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        match &self.services {
            Some(services) if is_grpc => services.clone().call(request),
            Some(_) | None => self.plain.call(request),
        }
    }
}

/// Serves a listener until `stop` turns true; then open calls have a second to end.
///
/// `services` is `None` on a port for metrics only.
pub(crate) async fn serve(
    listener: Listener,
    services: Option<Services>,
    plain: Plain,
    limits: PortLimits,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams_max)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .max_frame_size(WINDOW_BYTES)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let graceful = GracefulShutdown::new();
    let stopping = async move {
        // A sender that is gone means stop, too.
        let _stopped = stop.wait_for(|stop| *stop).await;
    };
    tokio::pin!(stopping);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stopping => break,
        };
        let service = Served { services: services.clone(), plain: plain.clone() };
        match stream {
            Connection::Tcp(stream) => {
                let (stream, drain) = Coalescing::new(stream);
                let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                tokio::spawn(log_end(drain.flushing(graceful.watch(served.into_owned()))));
            }
            Connection::Unix(stream) => {
                let (stream, drain) = Coalescing::new(stream);
                let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                tokio::spawn(log_end(drain.flushing(graceful.watch(served.into_owned()))));
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await.is_err() {
        tracing::debug!("calls were still open at the end");
    }
}

async fn log_end<F, E>(connection: F)
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    if let Err(error) = connection.await {
        tracing::debug!(error = %error, "connection ended");
    }
}
