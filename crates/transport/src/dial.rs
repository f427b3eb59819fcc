//! Opening connections, behind a small trait so that TLS and unix sockets are not our business;
//! and connections that do not wait forever.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use url::Url;

use crate::local_member::BoxFuture;

/// Bytes in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Opens connections to peers.
pub trait Dial: Send + Sync + 'static {
    /// Connects to the host of `url`. Names are resolved anew at each call, because a peer may
    /// have moved. The caller limits the time.
    fn dial(&self, url: Url) -> BoxFuture<io::Result<Box<dyn Connection>>>;
}

/// Plain TCP, for `http://`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, url: Url) -> BoxFuture<io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            if url.scheme() != "http" {
                let problem = format!("peer URL {url} needs more than plain TCP");
                return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
            }
            let (host, port) = host_and_port(&url)?;
            // A literal IPv6 address has brackets in a URL only.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

/// The host as the URL spells it, and the port.
///
/// # Errors
/// If the URL lacks one of them.
pub fn host_and_port(url: &Url) -> io::Result<(String, u16)> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, format!("no host in {url}"));
    let host = url.host_str().ok_or_else(missing)?;
    let port = url.port_or_known_default().ok_or_else(missing)?;
    Ok((host.to_owned(), port))
}

/// A connection on which a write, or a read, that makes no progress for a while fails. For the port
/// on which peers attach their streams: one that stopped reading must not be kept; and for whoever
/// waits for an answer.
#[derive(Debug)]
pub struct Timed<T> {
    inner: T,
    reading: Timer,
    writing: Timer,
}

impl<T> Timed<T> {
    /// etcd's limit for writing to a peer.
    pub const PEER_WRITE_LIMIT: Duration = Duration::from_secs(5);

    /// Limits the time that a write to `inner` may make no progress, if it shall be.
    pub fn writes(inner: T, limit: Option<Duration>) -> Self {
        let writing = Timer { limit, waiting: None, late: "write timed out" };
        Self {
            inner,
            reading: Timer { limit: None, waiting: None, late: "read timed out" },
            writing,
        }
    }

    /// Limits the time in which nothing may come, too.
    #[must_use]
    pub fn and_reads(mut self, limit: Option<Duration>) -> Self {
        self.reading.limit = limit;
        self
    }
}

/// How long one direction has made no progress.
#[derive(Debug)]
struct Timer {
    limit: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
    late: &'static str,
}

impl Timer {
    fn limit<R>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let Some(limit) = self.limit else { return Poll::Pending };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, self.late)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.reading.limit(context, polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.writing.limit(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.writing.limit(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.writing.limit(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.writing.limit(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// N11.
    #[tokio::test]
    async fn names_are_resolved() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        drop(TcpDial.dial(url(&format!("http://localhost:{port}"))).await.unwrap());
        drop(TcpDial.dial(url(&format!("http://127.0.0.1:{port}/"))).await.unwrap());
    }

    #[tokio::test]
    async fn what_needs_more_than_tcp_is_refused() {
        let refused = TcpDial.dial(url("https://127.0.0.1:1")).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert_eq!(host_and_port(&url("https://[::1]")).unwrap(), ("[::1]".to_owned(), 443));
        assert!(host_and_port(&url("unix:///a/path")).is_err());
    }

    #[tokio::test]
    async fn a_write_without_progress_fails_and_others_do_not() {
        let (here, there) = tokio::io::duplex(8);
        let mut here = Timed::writes(here, Some(Duration::from_millis(10)));
        here.write_all(b"fits").await.unwrap();
        let failed = here.write_all(b"does not fit").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(there);
    }

    #[tokio::test]
    async fn a_read_of_what_does_not_come_fails_and_others_do_not() {
        let (here, mut there) = tokio::io::duplex(8);
        let mut here = Timed::writes(here, None).and_reads(Some(Duration::from_millis(10)));
        there.write_all(b"came").await.unwrap();
        let mut came = [0; 4];
        here.read_exact(&mut came).await.unwrap();
        let failed = here.read_exact(&mut came).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(there);
    }
}
