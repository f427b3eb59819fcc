//! One write for everything a connection's turn produced, and no more read than a turn's worth.
//!
//! The HTTP/2 library hands each message above a few hundred bytes to the socket by itself: ten
//! answers that are ready together would be ten system calls, which cost more than the answers
//! (docs/design/0005). Here writes are gathered, and go out when the connection's task has done
//! all it could.
//!
//! The library also reads on as long as there is something, and keeps each frame in a table that
//! never shrinks, a few hundred bytes for what may be thirty on the wire. Here a turn ends after
//! [`READ_BYTES_PER_TURN`], so that the calls which were woken take their frames first.
//!
//! Invariants:
//! - bytes leave in the order in which they were written;
//! - nothing waits once the task is idle: [`Flushing`] drains at the end of every poll, and is
//!   woken when a full socket takes more;
//! - at most [`GATHER_BYTES_MAX`] and one message wait in memory; then the writer waits.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes gathered before the socket is tried in the middle of a turn.
const GATHER_BYTES_MAX: usize = 128 << 10;

/// Bytes read before the connection's calls get their turn.
const READ_BYTES_PER_TURN: usize = 16 << 10;

/// An idle connection keeps no more memory than this for its next turn.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// A stream whose writes wait for the end of the turn.
#[derive(Debug)]
pub(crate) struct Coalescing<S> {
    shared: Arc<Mutex<Gathered<S>>>,
}

#[derive(Debug)]
struct Gathered<S> {
    stream: S,
    waiting: BytesMut,
    /// The stream was written to since it was flushed: one with TLS keeps what the socket did not
    /// take.
    unflushed: bool,
    /// Bytes read in this turn.
    read_bytes: usize,
}

pin_project! {
    /// A connection's task together with the stream it writes to.
    #[derive(Debug)]
    pub(crate) struct Flushing<F, S>
    where
        F: Future,
    {
        #[pin]
        task: F,
        shared: Arc<Mutex<Gathered<S>>>,
        ended: Option<F::Output>,
    }
}

/// The end of a stream that [`Coalescing::flushing`] drains.
#[derive(Debug)]
pub(crate) struct Drain<S>(Arc<Mutex<Gathered<S>>>);

impl<S: AsyncWrite + Unpin> Coalescing<S> {
    /// Wraps a stream; the task that owns the result must run inside [`Drain::flushing`].
    pub(crate) fn new(stream: S) -> (Self, Drain<S>) {
        let waiting = BytesMut::new();
        let gathered = Gathered { stream, waiting, unflushed: false, read_bytes: 0 };
        let shared = Arc::new(Mutex::new(gathered));
        (Self { shared: shared.clone() }, Drain(shared))
    }
}

impl<S: AsyncWrite + Unpin> Drain<S> {
    /// Runs `task`, and writes out what it gathered each time it pauses.
    pub(crate) fn flushing<F: Future>(self, task: F) -> Flushing<F, S> {
        Flushing { task, shared: self.0, ended: None }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes until nothing waits or the socket is full.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        if KEPT_BYTES_MAX < self.waiting.capacity() {
            self.waiting = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathered = self.shared.lock();
        if READ_BYTES_PER_TURN <= gathered.read_bytes {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut gathered.stream).poll_read(context, buffer))?;
        gathered.read_bytes += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.shared.lock();
        if GATHER_BYTES_MAX <= gathered.waiting.len() {
            ready!(gathered.poll_drain(context))?;
        }
        let before = gathered.waiting.len();
        for buffer in buffers {
            gathered.waiting.extend_from_slice(buffer);
        }
        Poll::Ready(Ok(gathered.waiting.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says that all is well: what waits leaves at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.shared.lock();
        ready!(gathered.poll_drain(context))?;
        Pin::new(&mut gathered.stream).poll_shutdown(context)
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Future for Flushing<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.shared.lock().read_bytes = 0;
        if this.ended.is_none()
            && let Poll::Ready(output) = this.task.poll(context)
        {
            *this.ended = Some(output);
        }
        // A failed write shows when the task reads or writes next.
        let drained = this.shared.lock().poll_drain(context).is_ready();
        match this.ended.take() {
            Some(output) if drained => Poll::Ready(output),
            ended => {
                *this.ended = ended;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Many small writes of one turn arrive whole and in order, also through a narrow pipe.
    #[tokio::test]
    async fn what_is_gathered_arrives_in_order() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut stream, drain) = Coalescing::new(near);
        let task = drain.flushing(async move {
            for number in 0..2000u32 {
                stream.write_all(&number.to_be_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        });
        let reading = async {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let ((), bytes) = tokio::join!(task, reading);
        let expected: Vec<u8> = (0..2000u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(bytes, expected);
    }

    /// However much has arrived, other tasks get their turn in between.
    #[tokio::test]
    async fn a_turn_reads_only_so_much() {
        const TURNS: usize = 5;
        let (near, mut far) = tokio::io::duplex(READ_BYTES_PER_TURN * TURNS);
        far.write_all(&vec![7; READ_BYTES_PER_TURN * TURNS]).await.unwrap();
        let (mut stream, drain) = Coalescing::new(near);
        let mut reading = Box::pin(drain.flushing(async move {
            let mut bytes = vec![0; READ_BYTES_PER_TURN * TURNS];
            for part in bytes.chunks_mut(1024) {
                stream.read_exact(part).await.unwrap();
            }
            bytes
        }));
        let mut polls = 0;
        let bytes = std::future::poll_fn(|context| {
            polls += 1;
            reading.as_mut().poll(context)
        })
        .await;
        assert!(bytes.iter().all(|byte| *byte == 7));
        assert!(TURNS <= polls, "{polls} turns");
    }
}
