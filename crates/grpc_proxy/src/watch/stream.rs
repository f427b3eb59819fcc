//! One stream of a client: its requests, and the watches that it has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    RangeRequest, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::sync::oneshot;
use tonic::{Code, Status, Streaming};

use crate::caller::Caller;
use crate::kv::Store;

use super::hub::{Handle, Hub};
use super::queue::{Gone, Queue};
use super::topic::Command;
use super::watcher::{Wanted, Watcher, WatcherKey};

/// The id of an answer that is about no watch.
const NO_WATCH: i64 = -1;

/// What members say.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// Between two questions whether a caller may watch, while nobody is there to say.
const CHECK_PAUSE: Duration = Duration::from_millis(250);

/// One stream of a client.
pub(super) struct ClientStream {
    store: Store,
    hub: Arc<Hub>,
    caller: Caller,
    queue: Queue,
    number: u64,
    watches: HashMap<i64, Watch>,
    next_id: i64,
    /// Whether an answer about progress is awaited.
    asks_progress: Arc<AtomicBool>,
}

/// A watch as its stream knows it.
struct Watch {
    topic: Arc<Handle>,
    key: WatcherKey,
    ended: Arc<AtomicBool>,
}

impl ClientStream {
    pub(super) fn new(store: Store, hub: Arc<Hub>, caller: Caller, queue: Queue) -> Self {
        let number = hub.number();
        let asks_progress = Arc::new(AtomicBool::new(false));
        let (watches, next_id) = (HashMap::new(), 0);
        Self { store, hub, caller, queue, number, watches, next_id, asks_progress }
    }

    /// Serves the stream to its end, and lets go of its watches.
    pub(super) async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let queue = self.queue.clone();
        tokio::select! {
            () = queue.closed() => {}
            () = self.serve(&mut requests) => {}
        }
        for watch in std::mem::take(&mut self.watches).into_values() {
            let (told, _) = oneshot::channel();
            watch.topic.tell(Command::Remove(watch.key, told)).await;
        }
    }

    async fn serve(&mut self, requests: &mut Streaming<WatchRequest>) {
        while let Ok(Some(request)) = requests.message().await {
            let done = match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
                Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => self.progress().await,
                None => Ok(()),
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, response: WatchResponse) -> Result<(), Gone> {
        self.queue.send(Ok(response)).await
    }

    async fn refuse(&self, reason: &str) -> Result<(), Gone> {
        let response = WatchResponse {
            header: Some(ResponseHeader::default()),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        self.answer(response).await
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Gone> {
        if request.start_revision < 0 {
            return self.refuse(COMPACTED).await;
        }
        let checked = match self.check(&request).await {
            Ok(header) => header,
            Err(status) => return self.refuse(status.message()).await,
        };
        let (key, end) = (&request.key, &request.range_end);
        if !end.is_empty() && end <= key && end.as_ref() != [0] {
            return self.refuse(EMPTY_RANGE).await;
        }
        self.watches.retain(|_, watch| !watch.ended.load(Ordering::Acquire));
        if self.watches.contains_key(&request.watch_id) && request.watch_id != 0 {
            return self.refuse(DUPLICATE).await;
        }
        let id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
        let room = self.queue.reserve().await?;
        let identity = self.caller.identity.clone();
        let topic = self.hub.topic(key.clone(), end.clone(), identity);
        let ended = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            key: self.hub.watcher_key(),
            stream: self.number,
            id,
            wanted: Wanted::of(&request),
            next: request.start_revision,
            checked,
            queue: self.queue.clone(),
            room: Some(room),
            last_header: None,
            ended: ended.clone(),
        };
        let watch = Watch { topic: topic.clone(), key: watcher.key, ended };
        self.watches.insert(id, watch);
        topic.tell(Command::Add(Box::new(watcher))).await;
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Asks a member whether the caller may see the range. While there is none, the watch waits.
    async fn check(&self, request: &WatchCreateRequest) -> Result<ResponseHeader, Status> {
        let (mut key, mut range_end) = (request.key.clone(), request.range_end.clone());
        if key.is_empty() {
            (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        }
        let read = RangeRequest {
            key,
            range_end,
            serializable: true,
            count_only: true,
            limit: 1,
            ..RangeRequest::default()
        };
        loop {
            match self.store.range(&self.caller, read.clone()).await {
                Ok(answer) => return Ok(answer.header.unwrap_or_default()),
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(CHECK_PAUSE).await;
                }
                Err(status) => return Err(status),
            }
        }
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        let Some(watch) = self.watches.remove(&id) else { return Ok(()) };
        if watch.ended.load(Ordering::Acquire) {
            return Ok(());
        }
        let (told, header) = oneshot::channel();
        watch.topic.tell(Command::Remove(watch.key, told)).await;
        let header = header.await.ok().flatten();
        let response =
            WatchResponse { header, watch_id: id, canceled: true, ..WatchResponse::default() };
        self.answer(response).await
    }

    /// Answers when every watch of the stream is known to be as far, or not at all: as members do.
    async fn progress(&mut self) -> Result<(), Gone> {
        self.watches.retain(|_, watch| !watch.ended.load(Ordering::Acquire));
        let mut topics: Vec<_> = self.watches.values().map(|watch| watch.topic.clone()).collect();
        topics.sort_by_key(Arc::as_ptr);
        topics.dedup_by_key(|topic| Arc::as_ptr(topic));
        if self.asks_progress.swap(true, Ordering::AcqRel) {
            for topic in &topics {
                topic.tell(Command::ProgressAgain).await;
            }
            return Ok(());
        }
        let asks_progress = Asking(self.asks_progress.clone());
        let mut answers = Vec::new();
        for topic in &topics {
            let (told, answer) = oneshot::channel();
            topic.tell(Command::Progress(self.number, told)).await;
            answers.push(answer);
        }
        let (queue, store, caller) = (self.queue.clone(), self.store.clone(), self.caller.clone());
        tokio::spawn(async move {
            let asking = asks_progress;
            let answered = async {
                if answers.is_empty() {
                    return now(&store, &caller).await;
                }
                let headers = join_all(answers).await.into_iter().collect::<Result<Vec<_>, _>>();
                headers.ok()?.into_iter().min_by_key(|header| header.revision)
            };
            let answered = tokio::select! {
                answered = answered => answered,
                () = queue.closed() => None,
                () = tokio::time::sleep(PROGRESS_TIME_MAX) => None,
            };
            drop(asking);
            if let Some(header) = answered {
                let response = WatchResponse {
                    header: Some(header),
                    watch_id: NO_WATCH,
                    ..WatchResponse::default()
                };
                // The client may be gone.
                queue.send(Ok(response)).await.ok();
            }
        });
        Ok(())
    }
}

/// A demand for progress is forgotten after this time; the client may ask again.
const PROGRESS_TIME_MAX: Duration = Duration::from_secs(30);

/// While it lives, progress is being asked for.
struct Asking(Arc<AtomicBool>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Without any watch nothing is outstanding.
async fn now(store: &Store, caller: &Caller) -> Option<ResponseHeader> {
    let read = RangeRequest {
        key: Bytes::from_static(b"\0"),
        count_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    store.range(caller, read).await.ok()?.header
}
