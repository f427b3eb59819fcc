//! Watching keys, across broken connections.
//!
//! Each watcher has a stream of its own. When it breaks, the watcher opens another, from the
//! revision behind the last one it delivered, so that nothing is lost or repeated.
//!
//! etcd: `client/v3/watch.go`.

use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::client::Client;
use crate::error::{Error, code};

/// Requests of one watcher on their way: the creation and demands for progress.
const REQUEST_QUEUE_LEN: usize = 16;
/// Pauses between attempts to open a stream double from the first to the last.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);

const NO_LEADER: &str = "etcdserver: no leader";

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// First key.
    pub key: Bytes,
    /// As on the wire: empty for one key, a zero byte for "to the last key".
    pub range_end: Bytes,
    /// First revision to deliver; 0 for those after now.
    pub start_revision: i64,
    /// Deliver the pair before each event as well.
    pub previous_pairs: bool,
    /// Deliver empty responses now and then while nothing happens.
    pub progress_notify: bool,
}

/// One watch.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    options: WatchOptions,
    /// First revision not delivered yet; 0 while unknown.
    next_revision: i64,
    stream: Option<WatchStream>,
    /// Progress was asked for while there was no watch to ask about.
    owes_progress: bool,
    finished: bool,
}

#[derive(Debug)]
struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    is_created: bool,
}

impl Client {
    /// Describes a watch; the first [`Watcher::next`] opens it.
    #[must_use]
    pub fn watch(&self, options: WatchOptions) -> Watcher {
        let next_revision = options.start_revision;
        Watcher {
            client: self.clone(),
            options,
            next_revision,
            stream: None,
            owes_progress: false,
            finished: false,
        }
    }
}

impl Watcher {
    /// The next response with events or progress, or the last one, which is marked as cancelled.
    /// `None` behind that.
    ///
    /// Safe to drop before it is done, for instance in a `select`.
    ///
    /// # Errors
    ///
    /// The server refused the stream for good; nothing follows.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        let mut pause = RETRY_PAUSE_MIN;
        while !self.finished {
            match self.step().await {
                Ok(Some(response)) => {
                    self.note(&response);
                    if is_delivered(&response) {
                        return Some(Ok(response));
                    }
                }
                Ok(None) => {}
                Err(status) if is_final(&status) => {
                    self.finished = true;
                    return Some(Err(Error::from_status(&status)));
                }
                Err(_) => {
                    self.stream = None;
                    tokio::time::sleep(pause).await;
                    pause = RETRY_PAUSE_MAX.min(pause * 2);
                }
            }
        }
        None
    }

    /// Asks the server to send a response with its current revision, now or as soon as the watch
    /// exists. Asking again before that changes nothing.
    pub fn request_progress(&mut self) {
        let request = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        };
        let created = self.stream.as_ref().filter(|stream| stream.is_created);
        let sent = created.is_some_and(|stream| stream.requests.try_send(request).is_ok());
        self.owes_progress = !sent;
    }

    async fn step(&mut self) -> Result<Option<WatchResponse>, Status> {
        let Some(stream) = &mut self.stream else {
            self.stream = Some(self.open().await?);
            return Ok(None);
        };
        let answer = stream.answers.message().await?;
        answer.map_or_else(|| Err(Status::unavailable("stream ended")), |answer| Ok(Some(answer)))
    }

    async fn open(&self) -> Result<WatchStream, Status> {
        // Auth tokens may have expired since the last stream.
        let refreshed = self.client.refresh_token().await;
        refreshed.map_err(|error| Status::unavailable(error.to_string()))?;
        let (requests, receiver) = mpsc::channel(REQUEST_QUEUE_LEN);
        let create = WatchCreateRequest {
            key: self.options.key.clone(),
            range_end: self.options.range_end.clone(),
            start_revision: self.next_revision,
            progress_notify: self.options.progress_notify,
            prev_kv: self.options.previous_pairs,
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(request).expect("a new queue has room");
        let (ticket, channel) = self.client.connections.current();
        let request = self.client.stream_request(ReceiverStream::new(receiver));
        let opened = self.client.watch_stub(channel).watch(request).await;
        let answers = opened.inspect_err(|_| self.client.connections.leave(ticket))?.into_inner();
        Ok(WatchStream { requests, answers, is_created: false })
    }

    /// Remembers where to go on if the stream breaks now.
    fn note(&mut self, response: &WatchResponse) {
        let revision = response.header.map_or(0, |header| header.revision);
        if response.canceled {
            self.finished = true;
        } else if response.created {
            // Events after this revision are promised; a watch "from now" must not lose them.
            if self.next_revision == 0 {
                self.next_revision = revision + 1;
            }
            if let Some(stream) = &mut self.stream {
                stream.is_created = true;
            }
            if self.owes_progress {
                self.request_progress();
            }
        } else if let Some(last) = response.events.last() {
            let last = last.kv.as_ref().map_or(0, |pair| pair.mod_revision);
            self.next_revision = self.next_revision.max(last + 1);
        } else {
            self.next_revision = self.next_revision.max(revision + 1);
        }
    }
}

/// The bare confirmation that a watch exists is nobody's business.
fn is_delivered(response: &WatchResponse) -> bool {
    response.canceled || !response.created
}

/// A member that lost its leader, or any answer but "try again", ends a watch.
fn is_final(status: &Status) -> bool {
    let again = matches!(code(status), Code::Unavailable | Code::Internal);
    !again || status.message() == NO_LEADER
}
