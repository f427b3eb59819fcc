//! Answers with many messages: a line of JSON for each, sent as it comes (GW-03, GW-16).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as AnyBody;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tonic::Status;

use super::json::{self, Form};
use super::replies::Replies;
use super::stopping::{self, Stopping};
use super::{ended, http_status, in_own_words, json_response, metadata_of_reply};
use crate::grpc::WatchLines;

/// Answers with the messages of `reply`. The head is sent with the first of them: an error instead
/// of it is told by the status.
///
/// Those of watches are `paced`: clients that do not read them keep little of them (G21).
pub(super) async fn answer<B>(
    form: Form,
    reply: impl Future<Output = Result<http::Response<B>, Infallible>>,
    paced: Option<WatchLines>,
    stopping: &Stopping,
) -> Response
where
    B: Body<Error = Status> + Send + Unpin + 'static,
    B::Data: Send,
{
    let beginning = async {
        let Ok(reply) = reply.await;
        let (head, body) = reply.into_parts();
        ended(&head.headers)?;
        let arrived = Replies::default();
        let mut lines = Lines { body: Some(body), form, arrived, first: None, paced };
        lines.first = lines.frame().await.transpose()?;
        Ok(lines)
    };
    let begun = tokio::select! {
        biased;
        begun = beginning => begun,
        () = stopping.begun() => Err(stopping::lost()),
    };
    match begun {
        Ok(lines) if lines.first.is_none() => {
            // Nobody has said what it would have been.
            Response::new(open_ended(Bytes::new()))
        }
        Ok(lines) => {
            let told = Told { lines, lost: Some(Box::pin(stopping.clone().into_begun())) };
            let mut response = json_response(StatusCode::OK, AnyBody::new(told));
            response.headers_mut().extend(metadata_of_reply());
            response
        }
        Err(status) => {
            let status = in_own_words(status);
            json_response(http_status(status.code()), open_ended(error_line(&status)))
        }
    }
}

/// A body whose length nobody says before, as etcd's streams have even where it is known.
fn open_ended(text: impl Into<Bytes>) -> AnyBody {
    let frame = Ok::<_, Infallible>(Frame::data(text.into()));
    AnyBody::new(StreamBody::new(stream::iter([frame])))
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
    arrived: Replies,
    /// A line that was looked at.
    first: Option<Frame<Bytes>>,
    paced: Option<WatchLines>,
}

/// The line of a message.
fn line(form: &Form, message: &[u8]) -> Result<String, Status> {
    Ok(format!("{{\"result\":{}}}\n", form.reply(message)?))
}

impl<B> Lines<B> {
    /// What may be handed out of a message's line; a long one that is paced comes in pieces.
    fn begin(&mut self, message: &Bytes) -> Result<Option<Bytes>, Status> {
        let text = line(&self.form, message)?;
        let Some(paced) = &mut self.paced else { return Ok(Some(Bytes::from(text))) };
        let form = self.form.clone();
        let again = move |message: &[u8]| line(&form, message).ok().map(Bytes::from);
        Ok(paced.begin(message, text.into_bytes(), again))
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
            if let Some(paced) = &mut this.paced
                && let Some(piece) = ready!(paced.poll_piece(context))
            {
                if piece.is_err() {
                    this.body = None;
                }
                return Poll::Ready(Some(piece.map(Frame::data)));
            }
            if let Some(message) = this.arrived.take() {
                match this.begin(&message) {
                    Ok(Some(line)) => return Poll::Ready(Some(Ok(Frame::data(line)))),
                    Ok(None) => continue,
                    Err(status) => {
                        this.body = None;
                        return Poll::Ready(Some(Err(status)));
                    }
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
struct Told<B> {
    lines: Lines<B>,
    /// Ends with the server; `None` once that was told.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B: Body<Error = Status> + Unpin> Body for Told<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let polled = match Pin::new(&mut this.lines).poll_frame(context) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                let Some(lost) = &mut this.lost else { return Poll::Ready(None) };
                ready!(lost.as_mut().poll(context));
                (this.lost, this.lines.body, this.lines.paced) = (None, None, None);
                Some(Err(stopping::lost()))
            }
        };
        Poll::Ready(polled.map(|polled| {
            Ok(polled.unwrap_or_else(|status| {
                Frame::data(Bytes::from(error_line(&in_own_words(status))))
            }))
        }))
    }
}
