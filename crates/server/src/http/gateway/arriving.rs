//! A stream of JSON values as the body of a gRPC call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::json::{self, Form, Values};

/// What a call hears whose request breaks off. Not that it is cancelled: tonic takes that for the
/// end of the messages, and a watch would go on.
pub(super) const BROKEN_OFF: &str = "the request broke off";

/// The body; it ends with the first value that is no message, as etcd's does.
#[derive(Debug)]
pub(super) struct Arriving<B> {
    /// `None` once it has ended.
    body: Option<B>,
    form: Form,
    values: Values,
    text_bytes_max: usize,
}

impl<B> Arriving<B> {
    pub(super) fn new(body: B, form: Form, message_bytes_max: usize) -> Self {
        let text_bytes_max = json::text_bytes_max(message_bytes_max);
        Self { body: Some(body), form, values: Values::default(), text_bytes_max }
    }

    /// The next message, if its text is here.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(value) = self.values.take()? else {
            if self.text_bytes_max < self.values.len() {
                return Err(Status::resource_exhausted("a message is too long"));
            }
            return Ok(None);
        };
        Ok(Some(super::framed(&self.form.request(&value)?)))
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if this.body.is_none() {
                return Poll::Ready(None);
            }
            match this.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) => {}
                Err(status) => {
                    tracing::debug!(error = %status, "a message of a stream cannot be read");
                    // Were the connection closed with the end of the answer, the client that
                    // still writes might not see the answer.
                    if let Some(body) = this.body.take() {
                        tokio::spawn(super::pass_over(body));
                    }
                    continue;
                }
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        this.values.push(&bytes);
                    }
                }
                Some(Err(error)) => {
                    this.body = None;
                    let error: Box<dyn std::error::Error> = error.into();
                    tracing::debug!(error, "the client of a stream is gone");
                    return Poll::Ready(Some(Err(Status::unknown(BROKEN_OFF))));
                }
                None => this.body = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use proto::etcdserverpb::LeaseKeepAliveRequest;

    use super::*;

    fn leases(parts: &'static [&'static str], message_bytes_max: usize) -> Vec<i64> {
        let parts =
            stream::iter(parts.iter().map(|part| {
                Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(part.as_bytes())))
            }));
        let form = Form::of("/etcdserverpb.Lease/LeaseKeepAlive").unwrap();
        let body = Arriving::new(StreamBody::new(parts.boxed()), form, message_bytes_max);
        let bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let mut bytes = &bytes[..];
        let mut leases = Vec::new();
        while let Some((prefix, rest)) = bytes.split_at_checked(super::super::PREFIX_LEN) {
            let len = usize::from(prefix[4]);
            let message: LeaseKeepAliveRequest = prost::Message::decode(&rest[..len]).unwrap();
            leases.push(message.id);
            bytes = &rest[len..];
        }
        leases
    }

    #[test]
    fn values_may_be_split_anywhere() {
        assert_eq!(leases(&[r#"{"ID":"1"}{"I"#, r#"D":2} "#, "\n{", r#""ID":3}"#], 100), [1, 2, 3]);
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream() {
        assert_eq!(leases(&[r#"{"ID":"1"}"#, "{bad", r#"{"ID":"2"}"#], 100), [1]);
        assert_eq!(leases(&[r#"{"ID":"1"}{"ID"#], 100), [1]);
    }
}
