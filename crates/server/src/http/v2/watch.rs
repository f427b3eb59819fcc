//! An answer that waits for events: one, or a line for each as long as the client listens.
//!
//! The head goes out at once (V2-070). A client that goes away drops the body, and with it the
//! watcher's place (V2-080); what waits for a slow one is bounded by `v2store` (V2-079).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use v2store::Watcher;

use super::keys::put_indexes;
use super::now;
use crate::handle::Handle;
use crate::wakes::Wakes;

/// The lines of a watcher.
struct Events(Watcher);

/// Wakes a task together with others of its thread: a change that thousands wait for must not cost
/// whoever applies it as many system calls.
struct Soon {
    wakes: Arc<Wakes>,
    task: Waker,
}

impl Wake for Soon {
    fn wake(self: Arc<Self>) {
        self.wakes.wake(self.task.clone());
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let soon = Soon { wakes: Wakes::here(), task: context.waker().clone() };
        let waker = Waker::from(Arc::new(soon));
        let event = ready!(self.0.poll_next(&mut Context::from_waker(&waker)));
        Poll::Ready(event.map(|event| Ok(Frame::data(event.to_json(now()).into()))))
    }
}

/// V2-070, V2-071.
pub(super) fn answer(handle: &Handle, watcher: Watcher) -> Response {
    let index = watcher.start_index();
    let mut response = Response::new(Body::new(Events(watcher)));
    put_indexes(handle, index, response.headers_mut());
    response
}
