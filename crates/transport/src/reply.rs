//! The body of an answer to another member: a text, or a stream without end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::outbox::StreamBody;

/// The body of an answer.
#[derive(Debug)]
pub struct ReplyBody {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text(Bytes),
    Stream(Box<StreamBody>),
}

impl ReplyBody {
    pub(crate) fn text(text: Bytes) -> Self {
        Self { kind: Kind::Text(text) }
    }

    pub(crate) fn stream(body: StreamBody) -> Self {
        Self { kind: Kind::Stream(Box::new(body)) }
    }

    /// Whether it goes on until the stream ends: such an answer is not to be waited for when a
    /// port closes.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.kind {
            Kind::Text(text) if text.is_empty() => Poll::Ready(None),
            Kind::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Kind::Stream(body) => body.poll_piece(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Text(text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => {
                SizeHint::with_exact(u64::try_from(text.len()).expect("a length fits 64 bits"))
            }
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
