//! A request's body on its way to a service of tonic's: messages are counted, and too large ones refused with
//! grpc-go's text before their bytes are gathered.
//!
//! A client that owes the server one message may not keep it waiting for ever (G24); a stream of
//! messages may be silent as long as it likes.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::load::{HalfOpen, Load};
use super::methods::{CallKind, MethodIndex};
use super::partials::Partial;
use super::status;
use crate::metrics::ConnectionMetrics;

/// How long a message that has begun to arrive may stand still.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// A flag and four bytes of length before every message.
pub(crate) const PREFIX_LEN: usize = 5;

/// The body.
#[derive(Debug)]
pub(crate) struct RequestBody<B> {
    inner: B,
    metrics: ConnectionMetrics,
    load: Arc<Load>,
    method: MethodIndex,
    message_bytes_max: usize,
    /// Something has arrived.
    heard: bool,
    /// While it waits for its message, or its first.
    half_open: Option<HalfOpen>,
    position: Position,
    /// While it waits for the end of a message.
    partial: Option<Partial>,
    idle: Option<Pin<Box<Sleep>>>,
}

/// Where in the stream of messages the body is.
#[derive(Debug, Default)]
pub(crate) struct Position {
    /// The part of a prefix that has arrived.
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    /// Bytes of the current message.
    len: usize,
    /// Those of them that have not arrived.
    missing: usize,
}

impl Position {
    /// Goes over arrived bytes; how many messages they complete the prefix of and how long those
    /// are in all.
    pub(crate) fn advance(
        &mut self,
        mut bytes: &[u8],
        message_bytes_max: usize,
    ) -> Result<(u64, usize), Status> {
        let (mut messages, mut total) = (0, 0);
        while !bytes.is_empty() {
            if 0 < self.missing {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            let taken = (PREFIX_LEN - self.prefix_len).min(bytes.len());
            self.prefix[self.prefix_len..self.prefix_len + taken].copy_from_slice(&bytes[..taken]);
            self.prefix_len += taken;
            bytes = &bytes[taken..];
            if self.prefix_len == PREFIX_LEN {
                self.prefix_len = 0;
                let [_, len @ ..] = self.prefix;
                let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
                if message_bytes_max < len {
                    return Err(status::message_too_large(len, message_bytes_max));
                }
                (self.len, self.missing) = (len, len);
                messages += 1;
                total += len;
            }
        }
        Ok((messages, total))
    }

    /// Bytes that tonic has reserved for a message whose end has not arrived.
    fn partial_bytes(&self) -> usize {
        if self.missing == 0 { self.prefix_len } else { self.len }
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn new(
        inner: B,
        metrics: ConnectionMetrics,
        load: Arc<Load>,
        method: MethodIndex,
        message_bytes_max: usize,
    ) -> Self {
        Self {
            inner,
            metrics,
            load,
            method,
            message_bytes_max,
            heard: false,
            half_open: None,
            position: Position::default(),
            partial: None,
            idle: None,
        }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                (this.heard, this.half_open, this.idle) = (true, None, None);
                let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
                match this.position.advance(data, this.message_bytes_max) {
                    Ok((0, _)) => {}
                    Ok((messages, bytes)) => {
                        this.metrics.calls.on_received(this.method, messages, bytes);
                    }
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(Status::from_error(error.into()))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let streaming = this.method.method().kind == CallKind::BidiStream;
                if this.half_open.is_none() && !(streaming && this.heard) {
                    match this.load.half_open() {
                        Ok(half_open) => this.half_open = Some(half_open),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    }
                }
                match this.position.partial_bytes() {
                    0 => this.partial = None,
                    bytes => {
                        let begin = || this.load.partials().begin();
                        let partial = this.partial.get_or_insert_with(begin);
                        if !partial.waits(bytes, context) {
                            return Poll::Ready(Some(Err(status::request_in_the_way())));
                        }
                    }
                }
                if streaming {
                    return Poll::Pending;
                }
                let idle =
                    this.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE_TIME_MAX)));
                match idle.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(status::request_stalled()))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(len).unwrap().to_be_bytes());
        bytes.resize(PREFIX_LEN + len, 7);
        bytes
    }

    /// Wherever the bytes are cut, the same messages are seen.
    #[test]
    fn messages_are_counted_however_they_arrive() {
        let all: Vec<u8> = [3, 0, 10, 1].into_iter().flat_map(message).collect();
        for cut in 1..all.len() {
            let mut position = Position::default();
            let (mut messages, mut bytes) = (0, 0);
            for part in all.chunks(cut) {
                let (more, longer) = position.advance(part, 10).unwrap();
                messages += more;
                bytes += longer;
            }
            assert_eq!((messages, bytes), (4, 14), "in parts of {cut}");
        }
    }

    /// G-007: the text is grpc-go's, and the prefix alone decides.
    #[test]
    fn a_message_above_the_limit_is_refused_by_its_prefix() {
        let mut position = Position::default();
        let refused = position.advance(&message(11)[..PREFIX_LEN], 10).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message larger than max (11 vs. 10)");
    }
}
