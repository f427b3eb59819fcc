//! All topics, by range and identity. A topic lives as long as a watch has a handle on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::etcdserverpb::WatchCreateRequest;
use tokio::sync::mpsc;

use crate::caller::Identity;
use crate::kv::Namespace;
use crate::metrics::Metrics;
use crate::upstream::Upstream;

use super::link::Link;
use super::topic::{Command, Topic};
use super::watcher::WatcherKey;

/// Commands that wait for a topic; who has more of them waits too.
const COMMANDS_LEN: usize = 64;

/// Who sees what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TopicKey {
    key: Bytes,
    range_end: Bytes,
    identity: Identity,
}

/// All topics.
#[derive(Debug)]
pub(super) struct Hub {
    upstream: Upstream,
    namespace: Namespace,
    metrics: Arc<Metrics>,
    topics: Mutex<HashMap<TopicKey, Weak<Handle>>>,
    numbers: AtomicU64,
}

/// A watch's hold on its topic.
#[derive(Debug)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    hub: Weak<Hub>,
    key: TopicKey,
}

impl Hub {
    pub(super) fn new(
        upstream: Upstream,
        namespace: Namespace,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (topics, numbers) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { upstream, namespace, metrics, topics, numbers })
    }

    /// A number that nobody else has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A name for a watch.
    pub(super) fn watcher_key(&self) -> WatcherKey {
        WatcherKey(self.number())
    }

    /// The topic of a range, begun if there is none.
    pub(super) fn topic(
        self: &Arc<Self>,
        key: Bytes,
        range_end: Bytes,
        identity: Identity,
    ) -> Arc<Handle> {
        let topic_key = TopicKey { key, range_end, identity };
        let mut topics = self.topics.lock();
        if let Some(handle) = topics.get(&topic_key).and_then(Weak::upgrade) {
            return handle;
        }
        let (commands, receiver) = mpsc::channel(COMMANDS_LEN);
        let mut wanted = WatchCreateRequest {
            key: topic_key.key.clone(),
            range_end: topic_key.range_end.clone(),
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        self.namespace.enter(&mut wanted.key, &mut wanted.range_end);
        let link = Link::new(self.upstream.clone(), topic_key.identity.clone());
        let counted = Counted { metrics: self.metrics.clone(), joined: 0 };
        let topic = Topic::new(wanted, self.namespace.clone(), link, receiver, counted);
        tokio::spawn(topic.run());
        let hub = Arc::downgrade(self);
        let handle = Arc::new(Handle { commands, hub, key: topic_key.clone() });
        topics.insert(topic_key, Arc::downgrade(&handle));
        handle
    }
}

impl Handle {
    /// Tells the topic something.
    pub(super) async fn tell(&self, command: Command) {
        let told = self.commands.send(command).await;
        debug_assert!(told.is_ok(), "a topic lives as long as there are handles");
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut topics = hub.topics.lock();
        // Somebody may have begun another one already.
        if topics.get(&self.key).is_some_and(|topic| topic.strong_count() == 0) {
            topics.remove(&self.key);
        }
    }
}

/// What a topic adds to the numbers of all.
#[derive(Debug)]
pub(super) struct Counted {
    metrics: Arc<Metrics>,
    joined: i64,
}

impl Counted {
    /// So many watches are served by the watch of another one.
    pub(super) fn set(&mut self, joined: usize) {
        let joined = i64::try_from(joined).unwrap_or(i64::MAX);
        if joined != self.joined {
            self.metrics.watchers_coalescing.add(joined - self.joined);
            self.joined = joined;
        }
    }

    /// A response for so many watches has arrived.
    pub(super) fn on_events(&self, watchers: usize) {
        self.metrics.events_coalescing.inc_by(watchers.saturating_sub(1) as u64);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.watchers_coalescing.sub(self.joined);
    }
}
