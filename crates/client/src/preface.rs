//! A connection counts as open once the server has begun to speak HTTP/2, as for Go's clients.
//!
//! With TLS 1.3 a server refuses a client's certificate only after the client thinks that all is
//! well; a port that speaks something else accepts connections, too. Both would look like a request
//! that was sent and lost, which a write must not repeat.
//!
//! So the preface of HTTP/2 is sent here, and the first byte of the answer awaited; what the HTTP
//! library writes as preface later is dropped.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tls::First;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::connection::Opening;

/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose server has begun to speak.
#[derive(Debug)]
pub(crate) struct Prefaced<S> {
    stream: First<S>,
    /// Bytes that the HTTP library will write and that were sent already.
    sent: usize,
    /// Dropped with the connection.
    _opening: Option<Opening>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Prefaced<S> {
    /// Sends the preface and waits for the server's first byte.
    pub(crate) async fn new(mut stream: S) -> io::Result<Self> {
        stream.write_all(PREFACE).await?;
        stream.flush().await?;
        Ok(Self { stream: First::read(stream).await?, sent: PREFACE.len(), _opening: None })
    }

    /// Notes that the connection is open until it is dropped.
    pub(crate) fn held_by(self, opening: Opening) -> Self {
        Self { _opening: Some(opening), ..self }
    }

    /// How many of the next bytes were sent already.
    fn skip(&mut self, bytes: &[u8]) -> Option<usize> {
        let skipped = self.sent.min(bytes.len());
        let begun = PREFACE.len() - self.sent;
        debug_assert_eq!(bytes[..skipped], PREFACE[begun..begun + skipped], "the preface is fixed");
        self.sent -= skipped;
        (skipped > 0).then_some(skipped)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefaced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Prefaced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.skip(bytes) {
            Some(skipped) => Poll::Ready(Ok(skipped)),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = buffers.iter().find(|buffer| !buffer.is_empty());
        match first.and_then(|first| self.skip(first)) {
            Some(skipped) => Poll::Ready(Ok(skipped)),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    /// However the library cuts the preface, the server reads it once.
    #[tokio::test]
    async fn the_preface_is_sent_once() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"S").await.unwrap();
        let mut stream = Prefaced::new(near).await.unwrap();
        let written = [PREFACE, b"then"].concat();
        for piece in [&written[..7], &written[7..20], &written[20..]] {
            stream.write_all(piece).await.unwrap();
        }
        drop(stream);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, written);
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_was_never_connected_to() {
        let (near, far) = tokio::io::duplex(1024);
        drop(far);
        assert!(Prefaced::new(near).await.is_err());
    }
}
