//! Another member as seen over the network: its streams, its pipeline, its probes.
//!
//! Messages prefer the stream meant for them, then the other, then the pipeline. Whatever is slow
//! or dead about one peer stays in its own queues.
//! Source: etcd: server/etcdserver/api/rafthttp/{peer,remote}.go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;
use std::time::Instant;

use base::MemberId;
use raft::{Body, Message};
use tokio::task::AbortHandle;
use url::Url;

use crate::codec::StreamKind;
use crate::metrics::PeerMetrics;
use crate::outbox::{Pushed, Slot, StreamBody};
use crate::pipeline::{self, Pipeline};
use crate::status::Status;
use crate::transport::Shared;
use crate::urls::Urls;
use crate::{probe, reader};

/// What all tasks of one peer share.
pub(crate) struct Target {
    pub(crate) id: MemberId,
    pub(crate) urls: Urls,
    pub(crate) status: Status,
    pub(crate) metrics: Arc<PeerMetrics>,
    shared: Arc<Shared>,
    cut: AtomicBool,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Target {
    fn new(shared: &Arc<Shared>, id: MemberId, urls: Vec<Url>) -> Arc<Self> {
        let metrics = shared.metrics.peer(id);
        Arc::new(Self {
            id,
            urls: Urls::new(urls),
            status: Status::new(id, Arc::clone(&metrics)),
            metrics,
            shared: Arc::clone(shared),
            cut: AtomicBool::new(false),
        })
    }

    /// Counts appends that were sent, by their bytes.
    pub(crate) fn count_appends(&self, sizes: &[usize]) {
        self.shared.metrics.appends.sent.count(sizes);
    }

    /// Whether nothing shall pass, for a test.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// The stream on which we send broke off.
    pub(crate) fn stream_lost(&self, kind: StreamKind, lost: Lost) {
        let Lost { undelivered, quietly, unsent } = lost;
        if !quietly {
            self.warn_of_loss(kind);
        }
        if undelivered {
            self.metrics.sent_failures.add(1);
            self.status.deactivate(kind.name(), "write", None, "connection lost");
        }
        self.shared.member.unreachable(self.id);
        self.shared.give_back(unsent);
    }

    fn warn_of_loss(&self, kind: StreamKind) {
        tracing::warn!(
            "stream-writer-type" = kind.name(),
            "local-member-id" = %self.shared.config.local,
            "remote-peer-id" = %self.id,
            "lost TCP streaming connection with remote peer"
        );
    }
}

/// What a stream that broke off leaves.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Whether something was sent into it that may not have arrived.
    pub(crate) undelivered: bool,
    /// Whether it was told before that this stream comes and goes.
    pub(crate) quietly: bool,
    /// What never left.
    pub(crate) unsent: Vec<Message>,
}

/// What one call of `send` leaves to be done when all queues are unlocked.
#[derive(Default)]
pub(crate) struct AfterSend {
    wakers: Vec<Waker>,
    unreachable: Vec<MemberId>,
    pub(crate) undelivered: Vec<Message>,
}

impl AfterSend {
    fn on_lost(&mut self, peer: MemberId) {
        if self.unreachable.last() != Some(&peer) {
            self.unreachable.push(peer);
        }
    }

    pub(crate) fn finish(self, shared: &Shared) {
        for waker in self.wakers {
            waker.wake();
        }
        for peer in self.unreachable {
            shared.member.unreachable(peer);
        }
        shared.give_back(self.undelivered);
    }
}

/// A member of the cluster.
pub(crate) struct Peer {
    pub(crate) target: Arc<Target>,
    messages: Arc<Slot>,
    appends: Arc<Slot>,
    pipeline: Arc<Pipeline>,
    tasks: Vec<AbortHandle>,
}

impl Peer {
    /// Starts everything. Can be called from any thread.
    pub(crate) fn start(shared: &Arc<Shared>, id: MemberId, urls: Vec<Url>) -> Self {
        tracing::info!("remote-peer-id" = %id, "starting remote peer");
        let target = Target::new(shared, id, urls);
        let pipeline = Arc::new(Pipeline::default());
        let mut tasks = start_pipeline(shared, &target, &pipeline);
        for kind in [StreamKind::Append, StreamKind::Message] {
            let reading = reader::run(Arc::clone(shared), Arc::clone(&target), kind);
            tasks.push(shared.runtime.spawn(reading).abort_handle());
        }
        let probing = probe::run(Arc::clone(shared), Arc::clone(&target));
        tasks.push(shared.runtime.spawn(probing).abort_handle());
        tracing::info!("remote-peer-id" = %id, "started remote peer");
        Self {
            target,
            messages: Arc::new(Slot::new(StreamKind::Message)),
            appends: Arc::new(Slot::new(StreamKind::Append)),
            pipeline,
            tasks,
        }
    }

    pub(crate) fn active_since(&self) -> Option<Instant> {
        self.target.status.active_since()
    }

    pub(crate) fn attached_streams(&self) -> usize {
        usize::from(self.messages.is_attached()) + usize::from(self.appends.is_attached())
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.messages.has_waiting() || self.appends.has_waiting()
    }

    /// Lets nothing pass in either direction, or lets everything pass again.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.target.cut.store(cut, Relaxed);
    }

    /// Puts a message into the right queue.
    pub(crate) fn send(&self, message: Message, after: &mut AfterSend) {
        if self.target.is_cut() {
            return;
        }
        let append = matches!(message.body, Body::Append(_));
        let message = if append {
            match self.push(&self.appends, StreamKind::Append, message, after) {
                None => return,
                Some(message) => message,
            }
        } else {
            message
        };
        if let Some(message) = self.push(&self.messages, StreamKind::Message, message, after)
            && let Some(message) = self.pipeline.push(message)
        {
            on_full(&self.target, "pipeline", after);
            after.undelivered.push(message);
        }
    }

    /// Gives the message back if there is no such stream.
    fn push(
        &self,
        slot: &Slot,
        kind: StreamKind,
        message: Message,
        after: &mut AfterSend,
    ) -> Option<Message> {
        match slot.push(message) {
            Pushed::Taken(waker) => {
                after.wakers.extend(waker);
                None
            }
            Pushed::Full => {
                on_full(&self.target, kind.name(), after);
                None
            }
            Pushed::Detached(message) => Some(message),
            Pushed::Stuck(message) => {
                self.target.warn_of_loss(kind);
                self.target.metrics.sent_failures.add(1);
                self.target.status.deactivate(kind.name(), "write", None, "write timed out");
                after.on_lost(self.target.id);
                Some(message)
            }
        }
    }

    /// Takes the stream that the peer wants, in place of an older one.
    pub(crate) fn attach(&self, kind: StreamKind) -> StreamBody {
        let slot = match kind {
            StreamKind::Message => &self.messages,
            StreamKind::Append => &self.appends,
        };
        let (body, lost) = slot.attach(&self.target);
        if lost {
            self.target.shared.member.unreachable(self.target.id);
        }
        if slot.flaps() {
            return body;
        }
        self.target.status.activate();
        tracing::info!(
            "stream-writer-type" = kind.name(),
            "local-member-id" = %self.target.shared.config.local,
            "remote-peer-id" = %self.target.id,
            "established TCP streaming connection with remote peer"
        );
        body
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        tracing::info!("remote-peer-id" = %self.target.id, "stopping remote peer");
        for task in &self.tasks {
            task.abort();
        }
        self.messages.close();
        self.appends.close();
        self.target.status.close();
        tracing::info!("remote-peer-id" = %self.target.id, "stopped remote peer");
    }
}

/// A member that asked for something but is not known here yet: it is only sent to, so that it can
/// catch up.
pub(crate) struct Remote {
    target: Arc<Target>,
    pipeline: Arc<Pipeline>,
    tasks: Vec<AbortHandle>,
}

impl Remote {
    pub(crate) fn start(shared: &Arc<Shared>, id: MemberId, urls: Vec<Url>) -> Self {
        let target = Target::new(shared, id, urls);
        let pipeline = Arc::new(Pipeline::default());
        let tasks = start_pipeline(shared, &target, &pipeline);
        Self { target, pipeline, tasks }
    }

    pub(crate) fn send(&self, message: Message, after: &mut AfterSend) {
        if let Some(message) = self.pipeline.push(message) {
            on_full(&self.target, "pipeline", after);
            after.undelivered.push(message);
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.target.status.close();
    }
}

fn start_pipeline(
    shared: &Arc<Shared>,
    target: &Arc<Target>,
    pipeline: &Arc<Pipeline>,
) -> Vec<AbortHandle> {
    let start = |_| {
        let posting = pipeline::run(Arc::clone(shared), Arc::clone(target), Arc::clone(pipeline));
        shared.runtime.spawn(posting).abort_handle()
    };
    (0..pipeline::WORKERS).map(start).collect()
}

/// A message was dropped because a queue is full.
fn on_full(target: &Target, name: &str, after: &mut AfterSend) {
    target.metrics.sent_failures.add(1);
    after.on_lost(target.id);
    if target.shared.said.may_say("sending buffer full", target.id) {
        tracing::warn!(
            "local-member-id" = %target.shared.config.local,
            "remote-peer-id" = %target.id,
            "remote-peer-name" = name,
            "remote-peer-active" = target.status.active_since().is_some(),
            "dropped internal Raft message since sending buffer is full"
        );
    }
}
