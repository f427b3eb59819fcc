//! Whether a connection has begun to say anything.
//!
//! The HTTP library waits for ever for the bytes that tell which version a client speaks; its time
//! limit for a request's head counts from there. So the first bytes are counted below it.

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The log shows what has a name of this project before it.
const TARGET: &str = "retcd_ping_policy";

/// A client has this long to begin, and to send its request's head (G24).
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// What HTTP/2 begins with is this long, and so is any head of HTTP/1.1 at least.
const PREFACE_BYTES: usize = super::PREFACE.len();

/// What a connection with TLS begins with, and no request.
const TLS_FIRST_BYTE: u8 = 22;

/// How much of a connection's beginning has arrived.
#[derive(Clone, Debug, Default)]
pub struct Begun {
    bytes: Arc<AtomicUsize>,
}

impl Begun {
    /// Whether it is enough to tell what a client speaks.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        PREFACE_BYTES <= self.bytes.load(Ordering::Relaxed)
    }

    /// Runs a connection to its end; one that has said nothing by [`HEAD_TIME_MAX`] ends there.
    pub async fn run<E: Display>(self, connection: impl Future<Output = Result<(), E>>) {
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = tokio::time::sleep(HEAD_TIME_MAX) => {
                if !self.is_begun() {
                    tracing::debug!(target: TARGET, "closed a connection that sent no request");
                    return;
                }
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(target: TARGET, error = %error, "connection ended");
        }
    }

    /// Whether these were the first.
    fn add(&self, bytes: usize) -> bool {
        !self.is_begun() && self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0
    }
}

/// A stream whose first bytes are counted.
#[derive(Debug)]
pub struct Counted<T> {
    io: T,
    begun: Begun,
}

impl<T> Counted<T> {
    /// Counts into `begun` what is read from a stream.
    #[must_use]
    pub fn new(io: T, begun: Begun) -> Self {
        Self { io, begun }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        let is_first = self.begun.add(buffer.filled().len() - before);
        // Somebody who speaks TLS to a plain port understands no answer; etcd gives none either.
        if is_first && buffer.filled().get(before) == Some(&TLS_FIRST_BYTE) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "this is TLS")));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
