//! Answers with many messages: a line of JSON for each, sent as it comes (GW-03, GW-16).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as AnyBody;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tonic::Status;

use super::json::{self, Form};
use super::{PREFIX_LEN, ended, http_status, json_response, metadata_of_reply};

/// Answers with the messages of `reply`. The head is sent with the first of them: an error instead
/// of it is told by the status.
pub(super) async fn answer<B>(form: Form, reply: Result<http::Response<B>, Infallible>) -> Response
where
    B: Body<Error = Status> + Send + Unpin + 'static,
    B::Data: Send,
{
    let Ok(reply) = reply;
    let (head, body) = reply.into_parts();
    if let Err(status) = ended(&head.headers) {
        return json_response(http_status(status.code()), error_line(&status));
    }
    let mut lines = Lines { body: Some(body), form, arrived: BytesMut::new(), first: None };
    match lines.frame().await {
        // Nobody has said what it would have been.
        None => Response::new(AnyBody::empty()),
        Some(Err(status)) => json_response(http_status(status.code()), error_line(&status)),
        Some(Ok(frame)) => {
            lines.first = Some(frame);
            let mut response = json_response(StatusCode::OK, AnyBody::new(Told { lines }));
            response.headers_mut().extend(metadata_of_reply());
            response
        }
    }
}

fn error_line(status: &Status) -> String {
    format!("{{\"error\":{}}}\n", json::error(status))
}

/// The lines of a reply.
#[derive(Debug)]
struct Lines<B> {
    /// `None` once it has ended.
    body: Option<B>,
    form: Form,
    /// Bytes of messages that are not whole.
    arrived: BytesMut,
    /// A line that was looked at.
    first: Option<Frame<Bytes>>,
}

impl<B> Lines<B> {
    /// The next message's line, if the message is here.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.arrived.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let len = usize::try_from(len).expect("lengths fit in memory");
        if self.arrived.len() - PREFIX_LEN < len {
            return Ok(None);
        }
        self.arrived.advance(PREFIX_LEN);
        let message = self.arrived.split_to(len);
        let text = self.form.reply(&message)?;
        Ok(Some(Bytes::from(format!("{{\"result\":{text}}}\n"))))
    }
}

impl<B: Body<Error = Status> + Unpin> Body for Lines<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            match this.take() {
                Ok(Some(line)) => return Poll::Ready(Some(Ok(Frame::data(line)))),
                Ok(None) => {}
                Err(status) => {
                    this.body = None;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            let frame = match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => {
                    this.body = None;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    this.body = None;
                    return Poll::Ready(None);
                }
            };
            match frame.into_data() {
                Ok(bytes) => this.arrived.put(bytes),
                Err(frame) => {
                    this.body = None;
                    let ended = frame.trailers_ref().map_or(Ok(()), ended);
                    return Poll::Ready(ended.err().map(Err));
                }
            }
        }
    }
}

/// Lines whose error is the last of them.
#[derive(Debug)]
struct Told<B> {
    lines: Lines<B>,
}

impl<B: Body<Error = Status> + Unpin> Body for Told<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = ready!(Pin::new(&mut self.lines).poll_frame(context));
        Poll::Ready(polled.map(|polled| {
            Ok(polled.unwrap_or_else(|status| Frame::data(Bytes::from(error_line(&status)))))
        }))
    }
}
