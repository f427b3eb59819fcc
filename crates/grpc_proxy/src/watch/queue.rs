//! Responses on their way to one client: so many, and so many bytes of events.
//!
//! What does not fit is not there: whoever wanted to put it waits until the client has read, and
//! reads again from a member's history.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proto::etcdserverpb::WatchResponse;
use proto::mvccpb::{Event, KeyValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::Status;

use super::watcher::Lost;

/// Responses that wait for one client. Who reads no more than that is behind, and what it misses is
/// read again from a member's history.
pub(super) const QUEUE_LEN: usize = 256;

/// Bytes of events among them. A response with more goes into an empty queue.
const BYTES_MAX: u32 = 8 << 20;

/// What an event costs beside its keys and values, about.
const EVENT_BYTES: usize = 64;

/// A response, or why the stream ends.
pub(super) type Said = Result<WatchResponse, Status>;

/// Where the responses of a client's stream go.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    responses: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
}

/// Room for a response without events.
#[derive(Debug)]
pub(super) struct Room(mpsc::OwnedPermit<Queued>);

#[derive(Debug)]
struct Queued {
    said: Said,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl From<Said> for Queued {
    fn from(said: Said) -> Self {
        Self { said, _bytes: None }
    }
}

/// The client is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Queue {
    pub(super) fn new() -> (Self, Responses) {
        let (responses, receiver) = mpsc::channel(QUEUE_LEN);
        let bytes = Arc::new(Semaphore::new(BYTES_MAX as usize));
        (Self { responses, bytes }, Responses(receiver))
    }

    /// Waits until the client is gone.
    pub(super) async fn closed(&self) {
        self.responses.closed().await;
    }

    /// Puts something without events there as soon as there is room.
    pub(super) async fn send(&self, said: Said) -> Result<(), Gone> {
        self.responses.send(said.into()).await.map_err(|_| Gone)
    }

    /// Waits for room that is kept.
    pub(super) async fn reserve(&self) -> Result<Room, Gone> {
        self.responses.clone().reserve_owned().await.map(Room).map_err(|_| Gone)
    }

    /// Puts something without events there if there is room.
    pub(super) fn try_send(&self, response: WatchResponse) -> Result<(), Lost> {
        let room = self.responses.try_reserve().map_err(|error| lost(&error))?;
        room.send(Ok(response).into());
        Ok(())
    }

    /// Sends now, or as soon as there is room. A client that is gone needs no answer.
    pub(super) fn tell_last(self, said: Said) {
        match self.responses.try_send(said.into()) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(last)) => {
                tokio::spawn(async move { self.responses.send(last).await.ok() });
            }
        }
    }

    /// Puts responses with events there: all or none, a revision is not delivered in part. They
    /// are parts of a message of so many bytes, which stays in memory as long as one of them does.
    pub(super) fn try_put(&self, responses: Vec<WatchResponse>, bytes: u32) -> Result<(), Lost> {
        let rooms = self.responses.try_reserve_many(responses.len());
        let rooms = rooms.map_err(|error| lost(&error))?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes.min(BYTES_MAX));
        let mut bytes = Some(bytes.map_err(|_| Lost::Behind)?);
        let last = responses.len().saturating_sub(1);
        for (number, (room, response)) in rooms.zip(responses).enumerate() {
            let bytes = if number == last { bytes.take() } else { None };
            room.send(Queued { said: Ok(response), _bytes: bytes });
        }
        Ok(())
    }

    /// Waits until every event was read and half of the queue is free, so that whoever comes back
    /// is not behind again at once. False if the client is gone.
    pub(super) async fn is_read(&self) -> bool {
        let waiting = async {
            let _bytes = self.bytes.acquire_many(BYTES_MAX).await;
            self.responses.reserve_many(QUEUE_LEN / 2).await.is_ok()
        };
        tokio::select! {
            is_there = waiting => is_there,
            () = self.responses.closed() => false,
        }
    }
}

impl Room {
    pub(super) fn send(self, response: WatchResponse) {
        self.0.send(Ok(response).into());
    }
}

fn lost<T>(error: &mpsc::error::TrySendError<T>) -> Lost {
    match error {
        mpsc::error::TrySendError::Full(_) => Lost::Behind,
        mpsc::error::TrySendError::Closed(_) => Lost::Gone,
    }
}

/// What events cost in memory, about.
pub(super) fn bytes_of(events: &[Event]) -> u32 {
    let of_pair = |pair: &KeyValue| pair.key.len() + pair.value.len();
    let of_event = |event: &Event| {
        let pairs = event.kv.iter().chain(&event.prev_kv);
        EVENT_BYTES + pairs.map(of_pair).sum::<usize>()
    };
    u32::try_from(events.iter().map(of_event).sum::<usize>()).unwrap_or(u32::MAX)
}

/// The other end, which the client reads.
#[derive(Debug)]
pub(crate) struct Responses(mpsc::Receiver<Queued>);

impl Responses {
    #[cfg(test)]
    pub(super) fn try_next(&mut self) -> Option<Said> {
        self.0.try_recv().ok().map(|queued| queued.said)
    }
}

impl Stream for Responses {
    type Item = Said;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Said>> {
        self.0.poll_recv(context).map(|queued| queued.map(|queued| queued.said))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MEGABYTE: u32 = 1 << 20;

    fn response() -> Vec<WatchResponse> {
        vec![WatchResponse::default()]
    }

    /// Bounded memory: a client that does not read costs so many bytes, however few responses.
    #[tokio::test]
    async fn bytes_are_bounded() {
        let (queue, mut responses) = Queue::new();
        let count = (0..100).take_while(|_| queue.try_put(response(), MEGABYTE).is_ok()).count();
        assert_eq!(count, 8);
        assert_eq!(queue.try_put(response(), 1), Err(Lost::Behind));
        // What has no events does not wait for them.
        queue.try_send(WatchResponse::default()).unwrap();
        assert!(queue.is_read().now_or_never().is_none());
        while responses.try_next().is_some() {}
        assert_eq!(queue.is_read().now_or_never(), Some(true));
        // One that is larger than all goes alone, in pieces too, and is there to the last of them.
        queue.try_put([response(), response(), response()].concat(), 12 * MEGABYTE).unwrap();
        for _ in 0..3 {
            assert_eq!(queue.try_put(response(), 1), Err(Lost::Behind));
            assert!(responses.try_next().is_some());
        }
        assert_eq!(queue.is_read().now_or_never(), Some(true));
        drop(responses);
        assert_eq!(queue.try_put(response(), 1), Err(Lost::Gone));
        assert_eq!(queue.is_read().now_or_never(), Some(false));
    }

    /// Bounded memory: previous pairs and keys are in the message, too.
    #[test]
    fn all_of_an_event_counts() {
        let pair = |len| KeyValue { key: vec![0; len].into(), ..KeyValue::default() };
        let event = |kv, prev_kv| Event { kv: Some(pair(kv)), prev_kv, ..Event::default() };
        let (small, large) = (event(1, None), event(1, Some(pair(1000))));
        assert_eq!(bytes_of(&[large]) - bytes_of(&[small]), 1000);
    }

    /// What waits until a client has read ends with the client.
    #[tokio::test]
    async fn nobody_waits_for_a_client_that_is_gone() {
        let (queue, responses) = Queue::new();
        queue.try_put(response(), BYTES_MAX).unwrap();
        let waiting = tokio::spawn(async move { queue.is_read().await });
        tokio::task::yield_now().await;
        drop(responses);
        assert!(!waiting.await.unwrap());
    }
}
