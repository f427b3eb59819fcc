//! A watch that is pinned to one member, records everything and goes on where it broke off.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use history::{Observation, WatchRecord};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use super::recorder::Recorder;

/// For the first answer to a watch.
const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Between two questions for progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(300);

/// A running watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) member: usize,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// How a watch goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// It asks for progress when nothing comes.
    pub(crate) asks_progress: bool,
    /// Told that history begins at a revision, it goes on behind that one.
    pub(crate) skips_compacted: bool,
}

#[derive(Debug)]
struct State {
    recorder: Arc<Recorder>,
    client: u64,
    member: usize,
    /// The first revision that was not delivered.
    next: AtomicI64,
    habits: Habits,
    /// The record in use; `usize::MAX` before the first.
    record: AtomicUsize,
    /// What ended it last.
    trouble: Mutex<String>,
}

impl Watcher {
    pub(crate) fn start(
        recorder: &Arc<Recorder>,
        member: usize,
        endpoint: String,
        request: pb::WatchCreateRequest,
        habits: Habits,
    ) -> Self {
        let state = Arc::new(State {
            recorder: Arc::clone(recorder),
            client: recorder.number(),
            member,
            next: AtomicI64::new(request.start_revision),
            habits,
            record: AtomicUsize::new(usize::MAX),
            trouble: Mutex::default(),
        });
        let of_task = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                // Whoever waits for the end has a bound.
                if let Err(error) = of_task.follow(&endpoint, &request).await {
                    *of_task.trouble() = format!("{error:#}");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        });
        Self { member, state, task }
    }

    /// Everything below was delivered.
    pub(crate) fn next(&self) -> i64 {
        self.state.next.load(Ordering::Acquire)
    }

    /// What ended it last; it was begun again since, or tries to.
    pub(crate) fn trouble(&self) -> String {
        self.state.trouble().clone()
    }

    /// Ends the watch, which must have had everything up to a revision.
    pub(crate) fn finish(self, caught_up: i64) {
        self.task.abort();
        let record = self.state.record.load(Ordering::Acquire);
        if record != usize::MAX {
            self.state.recorder.set_caught_up(record, caught_up);
        }
    }

    /// Ends the watch.
    pub(crate) fn abort(self) {
        self.task.abort();
    }
}

impl State {
    fn trouble(&self) -> MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, endpoint: &str, request: &pb::WatchCreateRequest) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(CONNECT_TIME_MAX)
            .connect()
            .await?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, receiver) = mpsc::channel(4);
        let start_revision = self.next.load(Ordering::Acquire);
        let request = pb::WatchCreateRequest { start_revision, ..request.clone() };
        let create = RequestUnion::CreateRequest(request.clone());
        requests.send(pb::WatchRequest { request_union: Some(create) }).await?;
        let opened = self.recorder.now();
        // A port of a member that is down may be somebody else's for a while.
        let opening = client.watch(ReceiverStream::new(receiver));
        let mut answers = tokio::time::timeout(OPEN_TIME_MAX, opening).await??.into_inner();
        let record = self.recorder.open_watch(WatchRecord {
            client: self.client,
            member: u64::try_from(self.member).unwrap_or(u64::MAX),
            opened,
            request,
            ..WatchRecord::default()
        });
        self.record.store(record, Ordering::Release);
        loop {
            let answer = tokio::time::timeout(PROGRESS_PAUSE, answers.message());
            let Ok(answer) = answer.await else {
                if self.habits.asks_progress {
                    let question = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    // A full queue means that the last question was not taken yet.
                    requests.try_send(pb::WatchRequest { request_union: Some(question) }).ok();
                }
                continue;
            };
            let Some(response) = answer? else { return Ok(()) };
            let ended = response.canceled;
            self.note(&response);
            let received = self.recorder.now();
            self.recorder.observe(record, Observation { received, response });
            if ended {
                return Ok(());
            }
        }
    }

    /// Remembers where to go on.
    fn note(&self, response: &pb::WatchResponse) {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let events = response.events.iter().filter_map(|event| event.kv.as_ref());
        let newest = events.map(|pair| pair.mod_revision).max();
        if response.canceled {
            let skipped = i64::from(self.habits.skips_compacted);
            self.next.fetch_max(response.compact_revision + skipped, Ordering::AcqRel);
        } else if response.created {
            if self.next.load(Ordering::Acquire) == 0 {
                self.next.store(header + 1, Ordering::Release);
            }
        } else if !response.fragment {
            self.next.fetch_max(newest.unwrap_or(header) + 1, Ordering::AcqRel);
        }
    }
}
