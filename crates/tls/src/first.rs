//! A connection whose first byte is known: TLS begins with a byte that no request begins with.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The type of the record that every TLS connection begins with.
const HANDSHAKE: u8 = 22;

/// A connection whose first byte was read, and is given again to who reads it.
#[derive(Debug)]
pub struct First<S> {
    stream: S,
    first: u8,
    is_given: bool,
}

impl<S: AsyncRead + Unpin> First<S> {
    /// Waits for the first byte.
    ///
    /// # Errors
    ///
    /// The connection broke, or ended before it.
    pub async fn read(mut stream: S) -> io::Result<Self> {
        let first = stream.read_u8().await?;
        Ok(Self { stream, first, is_given: false })
    }

    /// Whether the other end speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.first == HANDSHAKE
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for First<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_given && buffer.remaining() > 0 {
            buffer.put_slice(&[self.first]);
            self.is_given = true;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for First<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
