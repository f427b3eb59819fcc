//! How often a client may ping (G-010).
//!
//! The HTTP/2 library answers pings by itself and tells nobody, so the frames of a connection are
//! watched as they pass: the nine bytes before each frame, never what is in it. A client that
//! pings too often is sent away with `ENHANCE_YOUR_CALM` and `too_many_pings`, as clients of gRPC
//! know it, and its connection ends.
//!
//! Rules, as in gRPC's own servers: a ping sooner than allowed after the one before is a strike;
//! with the third strike the connection ends; answers sent since the last ping wipe out all
//! strikes. Without open calls a client has no reason to ping at all.
//!
//! Not enforced on ports that serve calls and plain HTTP over TLS: etcd has them served by its HTTP
//! library, and clients may rely on it.
//!
//! [`Begun`] is beside it because every port that has this policy needs both.
//!
//! Source: grpc-go internal/transport/http2_server.go (`handlePing`), keepalive defaults.

mod begun;
mod frames;

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use begun::{Begun, Counted, HEAD_TIME_MAX};
use frames::{ACK, END_STREAM, Frames, Head, Kind};

/// Strikes that are forgiven.
const STRIKES_MAX: u32 = 2;

/// Between two pings while no call is open.
const IDLE_INTERVAL_MIN: Duration = Duration::from_secs(2 * 60 * 60);

/// Between two pings if the flag leaves it open with a zero.
const DEFAULT_INTERVAL_MIN: Duration = Duration::from_secs(5 * 60);

/// What a connection over HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client that is sent away is told.
const DEBUG_DATA: &[u8] = b"too_many_pings";

/// HTTP/2's name for a peer that behaves badly.
const ENHANCE_YOUR_CALM: u32 = 11;

/// How often clients may ping.
#[derive(Clone, Copy, Debug)]
pub struct PingPolicy {
    interval_min: Duration,
}

impl PingPolicy {
    /// The policy of `--grpc-keepalive-min-time`.
    #[must_use]
    pub fn new(interval_min: Duration) -> Self {
        let given = !interval_min.is_zero();
        Self { interval_min: if given { interval_min } else { DEFAULT_INTERVAL_MIN } }
    }
}

/// What is known of one connection.
#[derive(Debug)]
struct Watched {
    policy: PingPolicy,
    from_client: Frames,
    to_client: Frames,
    open_streams: BTreeSet<u32>,
    newest_stream: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// Whether an answer was sent since the last ping.
    answered: bool,
}

impl Watched {
    fn new(policy: PingPolicy) -> Self {
        Self {
            policy,
            from_client: Frames::default(),
            to_client: Frames::default(),
            open_streams: BTreeSet::new(),
            newest_stream: 0,
            last_ping: None,
            strikes: 0,
            answered: false,
        }
    }

    /// Whether the client has pinged too often with these bytes.
    fn on_received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        let mut from_client = std::mem::take(&mut self.from_client);
        from_client.scan(bytes, |head| match head.kind {
            Kind::Headers if self.newest_stream < head.stream => {
                self.newest_stream = head.stream;
                self.open_streams.insert(head.stream);
            }
            Kind::Reset => self.close(head.stream),
            Kind::Ping if head.flags & ACK == 0 => self.on_ping(now()),
            Kind::Headers | Kind::Data | Kind::Ping | Kind::Other => {}
        });
        self.from_client = from_client;
        STRIKES_MAX < self.strikes
    }

    fn on_sent(&mut self, bytes: &[u8]) {
        let mut to_client = std::mem::take(&mut self.to_client);
        to_client.scan(bytes, |Head { kind, flags, stream }| match kind {
            Kind::Headers | Kind::Data => {
                self.answered = true;
                if flags & END_STREAM != 0 {
                    self.close(stream);
                }
            }
            Kind::Reset => self.close(stream),
            Kind::Ping | Kind::Other => {}
        });
        self.to_client = to_client;
    }

    fn close(&mut self, stream: u32) {
        self.open_streams.remove(&stream);
    }

    fn on_ping(&mut self, now: Instant) {
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
            return;
        }
        let idle = self.open_streams.is_empty();
        let interval_min = if idle { IDLE_INTERVAL_MIN } else { self.policy.interval_min };
        if last.is_some_and(|last| now.duration_since(last) < interval_min) {
            self.strikes += 1;
        }
    }

    /// The frame that sends the client away.
    fn farewell(&self) -> Vec<u8> {
        let mut frame = frames::head(frames::GO_AWAY, 8 + DEBUG_DATA.len()).to_vec();
        frame.extend(self.newest_stream.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(DEBUG_DATA);
        frame
    }
}

/// What a connection is seen to be.
#[derive(Debug)]
enum Speaks {
    /// So many bytes of the preface have arrived.
    Unknown(usize),
    Http2(Box<Watched>),
    /// Anything else, or nobody wants to know.
    Other,
}

/// How far sending the client away has come.
#[derive(Debug)]
enum Ending {
    No,
    /// Wanted as soon as the frame that is being sent is whole.
    Wanted,
    /// These bytes are still to be sent.
    Sending(Vec<u8>),
    Sent,
}

/// A stream on which clients that ping too often are sent away.
#[derive(Debug)]
pub struct Policed<T> {
    io: T,
    policy: Option<PingPolicy>,
    speaks: Speaks,
    ending: Ending,
}

impl<T> Policed<T> {
    /// Watches `io` unless there is no policy.
    #[must_use]
    pub fn new(io: T, policy: Option<PingPolicy>) -> Self {
        let speaks = if policy.is_some() { Speaks::Unknown(0) } else { Speaks::Other };
        Self { io, policy, speaks, ending: Ending::No }
    }

    /// Takes note of what the client sent.
    fn on_received(&mut self, mut bytes: &[u8]) {
        if let (Speaks::Unknown(seen), Some(policy)) = (&mut self.speaks, self.policy) {
            let len = bytes.len().min(PREFACE.len() - *seen);
            let (preface, rest) = bytes.split_at(len);
            if preface != &PREFACE[*seen..*seen + len] {
                self.speaks = Speaks::Other;
                return;
            }
            *seen += len;
            if *seen < PREFACE.len() {
                return;
            }
            self.speaks = Speaks::Http2(Box::new(Watched::new(policy)));
            bytes = rest;
        }
        if let Speaks::Http2(watched) = &mut self.speaks
            && watched.on_received(bytes, Instant::now)
            && matches!(self.ending, Ending::No)
        {
            self.ending = Ending::Wanted;
        }
    }

    /// Takes note of the first `sent` bytes of `buffers`.
    fn on_sent(&mut self, buffers: &[IoSlice<'_>], mut sent: usize) {
        let Speaks::Http2(watched) = &mut self.speaks else { return };
        for buffer in buffers {
            let len = sent.min(buffer.len());
            watched.on_sent(&buffer[..len]);
            sent -= len;
        }
    }

    /// Whether the client is being sent away and the bytes for it may be written now; before that,
    /// how many bytes are missing of the frame that is under way.
    fn is_due(&self) -> Result<bool, usize> {
        match (&self.ending, &self.speaks) {
            (Ending::Wanted, Speaks::Http2(watched)) => match watched.to_client.missing_bytes() {
                0 => Ok(true),
                missing => Err(missing),
            },
            (Ending::Sending(_) | Ending::Sent, _) => Ok(true),
            (Ending::No | Ending::Wanted, _) => Ok(false),
        }
    }
}

impl<T: AsyncWrite + Unpin> Policed<T> {
    /// Sends the farewell; always ends with an error, so that the connection ends.
    fn poll_end<R>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if let (Ending::Wanted, Speaks::Http2(watched)) = (&self.ending, &self.speaks) {
            self.ending = Ending::Sending(watched.farewell());
        }
        while let Ending::Sending(left) = &mut self.ending {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, left))?;
            left.drain(..written);
            if left.is_empty() {
                self.ending = Ending::Sent;
            } else if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the client pings too often");
        Poll::Ready(Err(error))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Policed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_due() == Ok(true) {
            return this.poll_end(context);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        if matches!(this.speaks, Speaks::Other) {
            return Poll::Ready(Ok(()));
        }
        this.on_received(&buffer.filled()[before..]);
        if this.is_due() == Ok(true) {
            buffer.set_filled(before);
            return this.poll_end(context);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Policed<T> {
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
        let this = self.get_mut();
        let written = match this.is_due() {
            Ok(false) => ready!(Pin::new(&mut this.io).poll_write_vectored(context, buffers))?,
            Ok(true) => return this.poll_end(context),
            Err(missing) => {
                let first = buffers.iter().find(|buffer| !buffer.is_empty());
                let first = first.map_or(&[] as &[u8], |buffer| &buffer[..]);
                let rest = &first[..first.len().min(missing)];
                let written = ready!(Pin::new(&mut this.io).poll_write(context, rest))?;
                this.on_sent(&[IoSlice::new(rest)], written);
                return Poll::Ready(Ok(written));
            }
        };
        this.on_sent(buffers, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_due() == Ok(true) {
            return this.poll_end(context);
        }
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
