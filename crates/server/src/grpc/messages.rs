//! The messages of a request's body, one by one: counted, and too large ones refused with grpc-go's
//! text before their bytes are gathered.
//!
//! This is the lean way for the calls that matter most (design A5; docs/design/0008): a message
//! that arrived in one piece is taken as it lies in the connection's buffer, and nothing is
//! allocated for a body that waits. Compressed bodies go through tonic. What comes out may keep a
//! whole buffer of the network alive; who keeps parts of it for long copies them.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::Stream as _;
use http::HeaderMap;
use http_body::Body;
use prost::Message;
use tokio::time::Sleep;
use tonic::codec::{CompressionEncoding, DecodeBuf, Decoder, Streaming};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::load::{HalfOpen, Load};
use super::methods::{CallKind, MethodIndex};
use super::partials::Partial;
use super::request_body::{IDLE_TIME_MAX, PREFIX_LEN, RequestBody};
use super::status;
use crate::metrics::ConnectionMetrics;

/// Bytes reserved for a message that comes in parts until so many have come: what its prefix
/// promises need not come.
const RESERVED_BYTES_MAX: usize = 64 << 10;

/// The messages of one call.
#[derive(Debug)]
pub(crate) struct Messages<B>(Source<B>);

#[derive(Debug)]
enum Source<B> {
    Plain(Plain<B>),
    Compressed(Box<Streaming<Bytes>>),
    /// Not to be read; says why once.
    Refused(Option<Status>),
}

/// A body whose messages are taken as they are.
#[derive(Debug)]
struct Plain<B> {
    /// `None` once it has ended.
    body: Option<B>,
    metrics: ConnectionMetrics,
    load: Arc<Load>,
    method: MethodIndex,
    message_bytes_max: usize,
    /// Something has arrived.
    heard: bool,
    /// While it waits for its message, or its first.
    half_open: Option<HalfOpen>,
    /// What arrived last and was not taken.
    arrived: Bytes,
    /// The beginning of a message whose end has not arrived.
    begun: BytesMut,
    /// While it waits for that.
    partial: Option<Partial>,
    idle: Option<Pin<Box<Sleep>>>,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    pub(crate) fn new(
        headers: &HeaderMap,
        body: B,
        metrics: ConnectionMetrics,
        load: Arc<Load>,
        method: MethodIndex,
        message_bytes_max: usize,
    ) -> Self {
        let encoding = headers.get("grpc-encoding").map(http::HeaderValue::as_bytes);
        Self(match encoding {
            None | Some(b"identity") => Source::Plain(Plain {
                body: Some(body),
                metrics,
                load,
                method,
                message_bytes_max,
                heard: false,
                half_open: None,
                arrived: Bytes::new(),
                begun: BytesMut::new(),
                partial: None,
                idle: None,
            }),
            Some(b"gzip") => {
                let body = RequestBody::new(body, metrics, load, method, message_bytes_max);
                let encoding = Some(CompressionEncoding::Gzip);
                let max = Some(message_bytes_max);
                let messages = Streaming::new_request(AsTheyAre, body, encoding, max);
                Source::Compressed(Box::new(messages))
            }
            Some(other) => Source::Refused(Some(unknown_encoding(other))),
        })
    }

    /// The next message; `None` at the end.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        match &mut self.0 {
            Source::Plain(plain) => plain.poll_next(context),
            Source::Compressed(messages) => Pin::new(messages).poll_next(context),
            Source::Refused(status) => Poll::Ready(status.take().map(Err)),
        }
    }

    /// The only message of a unary call, once the client has said that it is the only one.
    pub(crate) async fn only(mut self) -> Result<Bytes, Status> {
        let first = std::future::poll_fn(|context| self.poll_next(context)).await;
        let first = first.ok_or_else(|| Status::internal("Missing request message."))??;
        while !self.is_at_end() {
            match std::future::poll_fn(|context| self.poll_next(context)).await {
                Some(more) => drop(more?),
                None => break,
            }
        }
        Ok(first)
    }

    fn is_at_end(&self) -> bool {
        let Source::Plain(plain) = &self.0 else { return false };
        let ended = plain.body.as_ref().is_none_or(Body::is_end_stream);
        ended && plain.arrived.is_empty() && plain.begun.is_empty()
    }
}

/// Decodes a message as prost does.
pub(crate) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| status::malformed_message(&error))
}

impl<B> Plain<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => {
                    self.end();
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(self.poll_arrived(context)) {
                Some(Ok(())) => {}
                Some(Err(status)) => {
                    self.end();
                    // The client is gone: that is an end like any other.
                    let gone = status.code() == Code::Cancelled;
                    return Poll::Ready(if gone { None } else { Some(Err(status)) });
                }
                None => {
                    let cut_off = !self.begun.is_empty();
                    self.end();
                    let error = || Err(Status::internal("Unexpected EOF decoding stream."));
                    return Poll::Ready(cut_off.then(error));
                }
            }
        }
    }

    fn end(&mut self) {
        self.body = None;
        self.arrived = Bytes::new();
        self.begun = BytesMut::new();
        (self.half_open, self.partial) = (None, None);
    }

    /// More bytes than those that were taken; only called when all were.
    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        loop {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    (self.heard, self.half_open, self.idle) = (true, None, None);
                    // Trailers of a request say nothing.
                    let Ok(data) = frame.into_data() else { continue };
                    self.arrived = data;
                    return Poll::Ready(Some(Ok(())));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let streaming = self.method.method().kind == CallKind::BidiStream;
            if self.half_open.is_none() && !(streaming && self.heard) {
                match self.load.half_open() {
                    Ok(half_open) => self.half_open = Some(half_open),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
            if !self.begun.is_empty() {
                let partial = self.partial.get_or_insert_with(|| self.load.partials().begin());
                if !partial.waits(self.begun.capacity(), context) {
                    return Poll::Ready(Some(Err(status::request_in_the_way())));
                }
            }
            if streaming {
                return Poll::Pending;
            }
            let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE_TIME_MAX)));
            ready!(idle.as_mut().poll(context));
            return Poll::Ready(Some(Err(status::request_stalled())));
        }
    }

    /// A message out of what arrived; whatever remains is the beginning of the next.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if self.begun.is_empty() {
            if let Some((prefix, rest)) = self.arrived.split_first_chunk() {
                let len = self.message_len(*prefix)?;
                if len <= rest.len() {
                    self.arrived.advance(PREFIX_LEN);
                    self.count(len);
                    return Ok(Some(self.arrived.split_to(len)));
                }
            } else if self.arrived.is_empty() {
                return Ok(None);
            }
        }
        self.gather(PREFIX_LEN);
        let Some(prefix) = self.begun.first_chunk() else { return Ok(None) };
        let len = self.message_len(*prefix)?;
        let whole = PREFIX_LEN + len;
        self.reserve(whole.min(RESERVED_BYTES_MAX));
        self.gather(whole.min(RESERVED_BYTES_MAX));
        if !self.arrived.is_empty() && self.begun.len() < whole {
            // At once: growing step by step leaves the allocator with pieces of every size.
            self.reserve(whole);
            self.gather(whole);
        }
        if self.begun.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.begun).freeze();
        self.partial = None;
        message.advance(PREFIX_LEN);
        self.count(len);
        Ok(Some(message))
    }

    fn reserve(&mut self, len: usize) {
        self.begun.reserve(len.saturating_sub(self.begun.len()));
    }

    /// Moves arrived bytes until the beginning has `len`, or none are left.
    fn gather(&mut self, len: usize) {
        let taken = len.saturating_sub(self.begun.len()).min(self.arrived.len());
        self.begun.extend_from_slice(&self.arrived.split_to(taken));
    }

    fn message_len(&self, prefix: [u8; PREFIX_LEN]) -> Result<usize, Status> {
        let [flag, len @ ..] = prefix;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if self.message_bytes_max < len {
            return Err(status::message_too_large(len, self.message_bytes_max));
        }
        match flag {
            0 => Ok(len),
            1 => Err(Status::internal(
                "protocol error: received message with compressed-flag but no grpc-encoding was \
                 specified",
            )),
            other => Err(Status::internal(format!(
                "protocol error: received message with invalid compression flag: {other} (valid \
                 flags are 0 and 1), while sending request"
            ))),
        }
    }

    fn count(&self, len: usize) {
        self.metrics.calls.on_received(self.method, 1, len);
    }
}

/// Takes messages undecoded.
#[derive(Debug)]
struct AsTheyAre;

impl Decoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }
}

fn unknown_encoding(name: &[u8]) -> Status {
    let name = String::from_utf8_lossy(name);
    let text = format!("Content is compressed with `{name}` which isn't supported");
    let mut status = Status::unimplemented(text);
    let known = MetadataValue::from_static("gzip,identity");
    status.metadata_mut().insert("grpc-accept-encoding", known);
    status
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body::Frame;

    use crate::metrics::Metrics;

    use super::*;

    /// A body of parts that are all there.
    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn messages(bytes: &[u8], cut: usize, encoding: Option<&'static str>) -> Messages<Parts> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert("grpc-encoding", encoding.parse().unwrap());
        }
        let parts = Parts(bytes.chunks(cut).map(Bytes::copy_from_slice).collect());
        let method = MethodIndex::find("/etcdserverpb.Watch/Watch").unwrap();
        Messages::new(&headers, parts, Arc::new(Metrics::new(false)), Load::new(), method, 100)
    }

    fn message(len: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, len];
        bytes.resize(PREFIX_LEN + usize::from(len), len);
        bytes
    }

    async fn all(mut messages: Messages<Parts>) -> Result<Vec<Bytes>, Status> {
        let mut all = Vec::new();
        while let Some(next) = std::future::poll_fn(|context| messages.poll_next(context)).await {
            all.push(next?);
        }
        Ok(all)
    }

    /// Wherever the bytes are cut, the same messages come.
    #[tokio::test]
    async fn messages_are_whole_however_they_arrive() {
        let lens = [3, 0, 100, 1];
        let bytes: Vec<u8> = lens.into_iter().flat_map(message).collect();
        let expected: Vec<Bytes> =
            lens.iter().map(|len| vec![*len; usize::from(*len)].into()).collect();
        for cut in 1..=bytes.len() {
            let got = all(messages(&bytes, cut, None)).await.unwrap();
            assert_eq!(got, expected, "in parts of {cut}");
        }
    }

    #[tokio::test]
    async fn a_unary_call_takes_the_first_message() {
        let bytes = [message(7), message(9)].concat();
        for cut in [1, 6, bytes.len()] {
            assert_eq!(messages(&bytes, cut, None).only().await.unwrap(), vec![7; 7]);
        }
        let missing = messages(&[], 1, None).only().await.unwrap_err();
        assert_eq!(missing.message(), "Missing request message.");
    }

    /// G-007, and what is no message at all.
    #[tokio::test]
    async fn what_cannot_be_a_message_is_refused() {
        let refused = |bytes: &'static [u8], encoding| async move {
            let status = all(messages(bytes, bytes.len(), encoding)).await.unwrap_err();
            (status.code(), status.message().to_owned())
        };
        let (code, text) = refused(&[0, 0, 0, 0, 101], None).await;
        assert_eq!(code, Code::ResourceExhausted);
        assert_eq!(text, "grpc: received message larger than max (101 vs. 100)");
        let (code, text) = refused(&[1, 0, 0, 0, 0], None).await;
        assert_eq!(code, Code::Internal);
        assert!(text.contains("no grpc-encoding"), "{text}");
        let (code, _) = refused(&[7, 0, 0, 0, 0], Some("identity")).await;
        assert_eq!(code, Code::Internal);
        let (code, _) = refused(&[0, 0, 0, 0, 3, 1], None).await;
        assert_eq!(code, Code::Internal);
        let (code, text) = refused(&[0, 0, 0, 0, 0], Some("br")).await;
        assert_eq!(code, Code::Unimplemented);
        assert!(text.contains("`br`"), "{text}");
    }

    /// G-019.
    #[tokio::test]
    async fn messages_that_are_not_compressed_may_come_under_gzip() {
        let bytes = message(5);
        assert_eq!(all(messages(&bytes, 4, Some("gzip"))).await.unwrap(), [vec![5; 5]]);
    }
}
