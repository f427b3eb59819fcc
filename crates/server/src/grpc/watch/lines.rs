//! Answers that somebody writes in another form before they go out: the lines of the JSON gateway.
//!
//! They are handed out as calls' own answers are (unsent.rs, outgoing.rs): in pieces, as the client
//! takes them, and a long line that nobody takes is given up and made anew (G21).

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tonic::Status;

use super::Watch;
use super::kept::Kept;
use super::outgoing::{Outgoing, Parts};
use super::recipe::AnswerRecipe;
use super::unsent::Unsent;
use crate::handle::Handle;

/// The lines of one stream.
#[derive(Debug)]
pub(crate) struct Lines {
    handle: Handle,
    unsent: Arc<Unsent>,
    kept: Arc<Kept>,
    outgoing: Option<Arc<Outgoing>>,
    /// Bytes that may be handed out at a time at present.
    piece_bytes: usize,
}

impl Lines {
    pub(super) fn new(watch: &Watch) -> Self {
        Self {
            handle: watch.handle.clone(),
            unsent: Unsent::new(watch.unsent.clone()),
            kept: watch.kept.clone(),
            outgoing: None,
            piece_bytes: 0,
        }
    }

    /// Ready when something may be handed out: the rest of a line, if there is one.
    pub(crate) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        self.piece_bytes = ready!(self.unsent.poll_room(context));
        let Some(outgoing) = &self.outgoing else { return Poll::Ready(None) };
        let reader = self.handle.reads().keys();
        let piece = ready!(outgoing.poll_piece(self.piece_bytes, reader, context));
        if !matches!(piece, Some(Ok(_))) {
            self.outgoing = None;
        }
        Poll::Ready(piece.map(|piece| piece.map(|piece| self.unsent.frame(piece))))
    }

    /// What of a line may be handed out at once; the rest follows. `write` makes the line of the
    /// encoded answer, now and again.
    pub(crate) fn begin(
        &mut self,
        answer: &Bytes,
        line: Vec<u8>,
        write: impl Fn(&[u8]) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Option<Bytes> {
        if line.len() <= self.piece_bytes {
            return Some(self.unsent.frame(line));
        }
        let mut parts = Parts::default();
        match AnswerRecipe::of(answer, &line, Box::new(write)) {
            Some(recipe) => parts.push_known(line.into(), Arc::new(recipe)),
            None => parts.push_own(line),
        }
        self.outgoing = Some(parts.send(self.kept.clone()));
        None
    }
}
