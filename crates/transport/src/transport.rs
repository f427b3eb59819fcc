//! The transport as its member sees it: who the peers are, and sending to them.
//!
//! [`Transport::send`] is called by the node loop, a plain thread: it locks each queue for a
//! moment, wakes each stream once, and never waits. Everything else runs as tasks on the runtime
//! that was given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{ClusterId, MemberId};
use http::HeaderMap;
use parking_lot::{Mutex, RwLock};
use raft::{Body, Message};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::appends::LatencySample;
use crate::dial::Dial;
use crate::headers;
use crate::local_member::{LocalMember, OutgoingSnapshot};
use crate::metrics::Metrics;
use crate::peer::{AfterSend, Peer, Remote};
use crate::said::Said;
use crate::snapshot::{self, Outcome};
use crate::urls::Urls;

/// Members that ask for something before they are known here. More are not remembered: whoever
/// invents ids costs no more than this.
const REMOTES_MAX: usize = 16;

/// Whose transport it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub local: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Where other members reach this one (`--initial-advertise-peer-urls`).
    pub peer_urls: Vec<String>,
    /// How long connecting may take; etcd: one second and ten heartbeats.
    pub dial_timeout: Duration,
    /// How long a stream may be silent; etcd: five seconds.
    pub read_timeout: Duration,
}

/// What all parts share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) member: Arc<dyn LocalMember>,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) runtime: Handle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) said: Said,
    /// What every request says.
    pub(crate) request_headers: HeaderMap,
}

impl Shared {
    /// Gives the member those of the messages back that it may propose again; Raft sends the others
    /// anew by itself.
    pub(crate) fn give_back(&self, unsent: Vec<Message>) {
        let is_proposal = |message: &Message| matches!(message.body, Body::Propose(_));
        let proposals: Vec<Message> = unsent.into_iter().filter(is_proposal).collect();
        if !proposals.is_empty() {
            self.member.undelivered(proposals);
        }
    }
}

/// Sends to and receives from the other members. Clones share everything; it ends with
/// [`Transport::shutdown`] or with the last clone.
#[derive(Clone)]
pub struct Transport {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    /// Replaced as a whole, so that senders hold no lock while they send.
    peers: RwLock<Arc<Peers>>,
    snapshots: SnapshotTasks,
    /// Held while the members are changed.
    changing: Mutex<()>,
}

struct SnapshotTasks {
    permits: Arc<Semaphore>,
    tasks: Mutex<Vec<(MemberId, AbortHandle)>>,
}

#[derive(Clone, Default)]
struct Peers {
    stopped: bool,
    members: BTreeMap<MemberId, Arc<Peer>>,
    remotes: BTreeMap<MemberId, Arc<Remote>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("config", &self.inner.shared.config)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport without peers; [`Transport::set_members`] starts them.
    #[must_use]
    pub fn new(
        config: Config,
        member: Arc<dyn LocalMember>,
        dial: Arc<dyn Dial>,
        runtime: Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            request_headers: headers::of_requests(&config),
            config,
            member,
            dial,
            runtime,
            metrics: Arc::new(Metrics::default()),
            said: Said::default(),
        });
        let snapshots = SnapshotTasks {
            permits: Arc::new(Semaphore::new(snapshot::IN_FLIGHT_MAX)),
            tasks: Mutex::default(),
        };
        let inner =
            Inner { shared, peers: RwLock::default(), snapshots, changing: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Makes `members` the peers, each with its URLs: starts, updates and stops what differs from
    /// before. This member itself and members without a usable URL are left out. From any thread.
    pub fn set_members(&self, members: &[(MemberId, Vec<String>)]) {
        let changing = self.inner.changing.lock();
        let mut peers = Peers::clone(&self.inner.peers());
        if peers.stopped {
            return;
        }
        let local = self.inner.shared.config.local;
        let before = std::mem::take(&mut peers.members);
        for (id, texts) in members {
            let urls = Urls::parse(texts);
            if *id == local || urls.is_empty() {
                continue;
            }
            peers.remotes.remove(id);
            let peer = match before.get(id) {
                Some(peer) => {
                    if peer.target.urls.replace(urls) {
                        self.log_change("updated remote peer", *id, texts);
                    }
                    Arc::clone(peer)
                }
                None => {
                    self.log_change("added remote peer", *id, texts);
                    Arc::new(Peer::start(&self.inner.shared, *id, urls))
                }
            };
            peers.members.insert(*id, peer);
        }
        let removed: Vec<_> =
            before.keys().filter(|id| !peers.members.contains_key(id)).copied().collect();
        *self.inner.peers.write() = Arc::new(peers);
        for id in &removed {
            self.log_change("removed remote peer", *id, &[]);
            self.inner.snapshots.abort(|to| to == *id);
        }
        drop(changing);
        // Stops the removed, now that no lock is held.
        drop(before);
    }

    /// Sends messages, in order for each receiver. Never waits: what cannot be queued is dropped
    /// and [`LocalMember::unreachable`] called. Messages to strangers are dropped. From any
    /// thread.
    pub fn send(&self, messages: Vec<Message>) {
        let peers = self.inner.peers();
        let mut after = AfterSend::default();
        for message in messages {
            if matches!(message.body, Body::Snapshot(_)) {
                // It needs its database: `send_snapshot` is the way.
                self.inner.shared.member.snapshot_sent(message.to, false);
            } else if let Some(peer) = peers.members.get(&message.to) {
                peer.send(message, &mut after);
            } else if let Some(remote) = peers.remotes.get(&message.to) {
                remote.send(message, &mut after);
            } else {
                tracing::debug!(
                    "type" = message.body.name(),
                    "unknown-target-peer-id" = %message.to,
                    "ignored message send request; unknown remote peer target"
                );
                // A leader that was removed, most likely: another one will take the proposals.
                after.undelivered.push(message);
            }
        }
        after.finish(&self.inner.shared);
    }

    /// Sends a snapshot by itself; [`LocalMember::snapshot_sent`] tells what became of it, also if
    /// there is no such peer or too many snapshots are under way. From any thread.
    pub fn send_snapshot(&self, snapshot: OutgoingSnapshot) {
        let to = snapshot.message.to;
        let shared = &self.inner.shared;
        let peer = self.inner.peers().members.get(&to).map(Arc::clone);
        let permit = Arc::clone(&self.inner.snapshots.permits).try_acquire_owned();
        let (Some(peer), Ok(permit)) = (peer, permit) else {
            shared.member.snapshot_sent(to, false);
            return;
        };
        if peer.target.is_cut() {
            shared.member.snapshot_sent(to, false);
            return;
        }
        let outcome = Outcome::new(Arc::clone(shared), Arc::clone(&peer.target));
        let task = shared.runtime.spawn(async move {
            snapshot::run(outcome, snapshot).await;
            drop(permit);
        });
        self.inner.snapshots.keep(to, task.abort_handle());
    }

    /// Since when the peer is reached; `None` if it is not, or is no peer.
    #[must_use]
    pub fn active_since(&self, peer: MemberId) -> Option<Instant> {
        self.inner.peers().members.get(&peer)?.active_since()
    }

    /// How many of its two streams the peer has opened here: with 2, nothing is posted.
    #[must_use]
    pub fn attached_streams(&self, peer: MemberId) -> usize {
        self.inner.peers().members.get(&peer).map_or(0, |peer| peer.attached_streams())
    }

    /// How long appends to each peer take until the network has them.
    #[must_use]
    pub fn latencies(&self) -> Vec<(MemberId, LatencySample)> {
        let peers = self.inner.peers();
        let sample =
            |(id, peer): (&MemberId, &Arc<Peer>)| (*id, peer.target.metrics.appends.sample());
        peers.members.iter().map(sample).collect()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.inner.shared.metrics)
    }

    /// Lets nothing pass between this member and the peer, in silence. For tests.
    pub fn cut(&self, peer: MemberId) {
        self.set_cut(peer, true);
    }

    /// Undoes [`Transport::cut`].
    pub fn mend(&self, peer: MemberId) {
        self.set_cut(peer, false);
    }

    fn set_cut(&self, peer: MemberId, cut: bool) {
        if let Some(peer) = self.inner.peers().members.get(&peer) {
            peer.set_cut(cut);
        }
    }

    /// Whether messages wait that no stream has taken; those that were taken still reach the
    /// network behind [`Self::shutdown`].
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.inner.peers().members.values().any(|peer| peer.has_waiting())
    }

    /// Stops everything: streams end, tasks are aborted, later calls do nothing.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    fn log_change(&self, what: &str, peer: MemberId, urls: &[String]) {
        tracing::info!(
            "local-member-id" = %self.inner.shared.config.local,
            "remote-peer-id" = %peer,
            "remote-peer-urls" = ?urls,
            "{what}"
        );
    }
}

impl Inner {
    fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers.read())
    }

    pub(crate) fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.peers().members.get(&id).map(Arc::clone)
    }

    /// Remembers where a member that is not known here yet can be reached.
    pub(crate) fn add_remote(&self, id: MemberId, urls: &str) {
        if id.is_none() || id == self.shared.config.local || self.peers().knows(id) {
            return;
        }
        let texts: Vec<_> = urls.split(',').collect();
        let parsed = Urls::parse(&texts);
        let _changing = self.changing.lock();
        let mut peers = Peers::clone(&self.peers());
        if peers.stopped
            || peers.knows(id)
            || parsed.is_empty()
            || REMOTES_MAX <= peers.remotes.len()
        {
            return;
        }
        peers.remotes.insert(id, Arc::new(Remote::start(&self.shared, id, parsed)));
        *self.peers.write() = Arc::new(peers);
        tracing::info!(
            "local-member-id" = %self.shared.config.local,
            "remote-peer-id" = %id,
            "remote-peer-urls" = ?texts,
            "added new remote peer"
        );
    }

    fn shutdown(&self) {
        let _changing = self.changing.lock();
        let stopped = Arc::new(Peers { stopped: true, ..Peers::default() });
        let before = std::mem::replace(&mut *self.peers.write(), stopped);
        self.snapshots.abort(|_| true);
        drop(before);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Peers {
    fn knows(&self, id: MemberId) -> bool {
        self.members.contains_key(&id) || self.remotes.contains_key(&id)
    }
}

impl SnapshotTasks {
    fn keep(&self, to: MemberId, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|(_, task)| !task.is_finished());
        tasks.push((to, task));
    }

    fn abort(&self, which: impl Fn(MemberId) -> bool) {
        for (_, task) in self.tasks.lock().extract_if(.., |(to, _)| which(*to)) {
            task.abort();
        }
    }
}
