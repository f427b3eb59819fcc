//! One range as one identity sees it: its watches, in groups, over one stream to a member.
//!
//! Those who want what is new are in one group. Who wants what is old has a group of its own until
//! it has come as far as another one; then the two become one. A client that does not read leaves
//! its group, and comes back for what it missed when there is room.
//!
//! Invariant: groups are joined only when both are equally far, so that no event is lost between
//! them and nobody waits for what somebody else still has to catch up with.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchResponse,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};

use super::group::Group;
use super::hub::Counted;
use super::link::{Incident, Link};
use super::watcher::{Lost, Watcher, WatcherKey};

/// What streams of clients tell a topic.
#[derive(Debug)]
pub(super) enum Command {
    /// A watch begins.
    Add(Box<Watcher>),
    /// A watch ends; the answer is the header of its last response, and comes after that.
    Remove(WatcherKey, oneshot::Sender<Option<ResponseHeader>>),
    /// How far is everything delivered to this stream? No answer while that cannot be said.
    Progress(u64, oneshot::Sender<ResponseHeader>),
    /// Somebody asks for the second time: members forget a question that they cannot answer.
    ProgressAgain,
}

/// One range as one identity sees it.
pub(super) struct Topic {
    /// What every watch of it asks a member for, but for the revision.
    wanted: WatchCreateRequest,
    namespace: crate::kv::Namespace,
    link: Link,
    commands: mpsc::Receiver<Command>,
    /// By the name of the watch at the member.
    groups: BTreeMap<i64, Group>,
    next_group: i64,
    /// Groups in the order in which a member confirms them.
    unconfirmed: VecDeque<i64>,
    /// What a member calls a group that it was to call otherwise: an older proxy does.
    renamed: HashMap<i64, i64>,
    /// Watches whose clients do not read; without the watch when the client is gone.
    behind: FuturesUnordered<BoxFuture<'static, (WatcherKey, Option<Watcher>)>>,
    /// Watches that ended while they were behind.
    removed: HashSet<WatcherKey>,
    behind_streams: Vec<(WatcherKey, u64)>,
    progress: Vec<(u64, oneshot::Sender<ResponseHeader>)>,
    counted: Counted,
}

/// A stream may ask a topic so often for progress that nobody has told; more are forgotten.
const PROGRESS_LEN_MAX: usize = 1024;

/// What a member says when it has no leader, to those who asked to hear that.
const NO_LEADER: &str = "etcdserver: no leader";

impl Topic {
    pub(super) fn new(
        wanted: WatchCreateRequest,
        namespace: crate::kv::Namespace,
        link: Link,
        commands: mpsc::Receiver<Command>,
        counted: Counted,
    ) -> Self {
        Self {
            wanted,
            namespace,
            link,
            commands,
            groups: BTreeMap::new(),
            next_group: 1,
            unconfirmed: VecDeque::new(),
            renamed: HashMap::new(),
            behind: FuturesUnordered::new(),
            removed: HashSet::new(),
            behind_streams: Vec::new(),
            progress: Vec::new(),
            counted,
        }
    }

    /// Serves until nobody can say anything to it any more.
    pub(super) async fn run(mut self) {
        loop {
            let has_groups = !self.groups.is_empty();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                incident = self.link.next(), if has_groups => self.on_incident(incident),
                Some((key, back)) = self.behind.next() => self.on_back(key, back),
            }
            if self.groups.is_empty() && !self.link.is_closed() {
                self.link.close();
                self.unconfirmed.clear();
            }
            self.counted.set(self.groups.values().map(|group| group.len().saturating_sub(1)).sum());
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Add(watcher) => self.place(*watcher),
            Command::Remove(key, told) => {
                // A stream that does not wait for it has ended itself.
                told.send(self.remove(key)).ok();
            }
            Command::Progress(stream, told) => {
                self.progress.retain(|(_, told)| !told.is_closed());
                if self.progress.len() < PROGRESS_LEN_MAX {
                    self.progress.push((stream, told));
                    self.ask_progress();
                }
            }
            Command::ProgressAgain => self.ask_progress(),
        }
    }

    fn ask_progress(&self) {
        self.link.request(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    fn remove(&mut self, key: WatcherKey) -> Option<ResponseHeader> {
        let found = self.groups.iter_mut().find_map(|(id, group)| Some((*id, group.remove(key)?)));
        let Some((id, watcher)) = found else {
            if self.behind_streams.iter().any(|(behind, _)| *behind == key) {
                self.removed.insert(key);
            }
            return None;
        };
        self.drop_if_empty(id);
        watcher.last_header
    }

    fn drop_if_empty(&mut self, id: i64) {
        if self.groups.get(&id).is_some_and(Group::is_empty) {
            self.groups.remove(&id);
            self.cancel(id);
        }
    }

    fn cancel(&mut self, id: i64) {
        let name = self.renamed.iter().find(|(_, group)| **group == id).map(|(name, _)| *name);
        let watch_id = name.unwrap_or(id);
        self.renamed.remove(&watch_id);
        self.link.request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    /// Puts a watch into the group that is farthest of those that suit it, or into a new one.
    fn place(&mut self, watcher: Watcher) {
        let fitting = self.groups.iter_mut().filter(|(_, group)| group.fits(&watcher));
        if let Some((_, group)) = fitting.max_by_key(|(_, group)| group.next) {
            group.join(watcher);
            return;
        }
        let id = self.next_group;
        self.next_group += 1;
        let mut group = Group::starting_at(watcher.next);
        group.join(watcher);
        self.groups.insert(id, group);
        if !self.link.is_closed() {
            self.create(id);
        }
    }

    fn create(&mut self, id: i64) {
        let start_revision = self.groups[&id].next;
        let create = WatchCreateRequest { watch_id: id, start_revision, ..self.wanted.clone() };
        self.link.request(RequestUnion::CreateRequest(create));
        self.unconfirmed.push_back(id);
    }

    fn on_incident(&mut self, incident: Incident) {
        match incident {
            Incident::Closed => {
                self.link.open();
                self.unconfirmed.clear();
                self.renamed.clear();
                let ids: Vec<_> = self.groups.keys().copied().collect();
                ids.into_iter().for_each(|id| self.create(id));
                if !self.progress.is_empty() {
                    self.ask_progress();
                }
            }
            Incident::Response(response) => self.on_response(*response),
            Incident::Broken(status) => self.on_broken(&status),
        }
    }

    fn on_broken(&mut self, status: &Status) {
        self.unconfirmed.clear();
        self.groups.values_mut().for_each(Group::on_broken);
        if status.message() == NO_LEADER {
            let groups = std::mem::take(&mut self.groups);
            for watcher in groups.into_values().flat_map(Group::into_watchers) {
                watcher.end_stream(status.clone());
            }
            return;
        }
        // A learner says that it is one so.
        let is_elsewhere = status.code() == Code::FailedPrecondition && self.link.has_choice();
        if is_elsewhere
            || matches!(
                status.code(),
                Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled
            )
        {
            tracing::debug!(error = status.message(), "a stream of watches broke");
            return;
        }
        // Asking again brings the same answer.
        let response = WatchResponse {
            canceled: true,
            cancel_reason: status.message().to_owned(),
            ..WatchResponse::default()
        };
        let groups = std::mem::take(&mut self.groups);
        groups.into_values().for_each(|group| group.end(&response));
    }

    fn on_response(&mut self, mut response: WatchResponse) {
        let mut id = response.watch_id;
        if response.created {
            // One that is refused has no name.
            let known = self.unconfirmed.iter().position(|unconfirmed| *unconfirmed == id);
            let confirmed = self.unconfirmed.remove(known.unwrap_or(0));
            let confirmed = confirmed.unwrap_or(id);
            if confirmed != id && !response.canceled {
                self.renamed.insert(id, confirmed);
            }
            id = confirmed;
        } else {
            id = self.renamed.get(&id).copied().unwrap_or(id);
        }
        let header = response.header.unwrap_or_default();
        if response.canceled {
            if let Some(group) = self.groups.remove(&id) {
                group.end(&response);
            }
            return;
        }
        if id == ALL_WATCHES && response.events.is_empty() && !response.created {
            self.on_progress(header);
            return;
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        let mut lost = Vec::new();
        if response.created {
            group.on_created(header);
        }
        if !response.events.is_empty() {
            self.namespace.leave_events(&mut response.events);
            self.counted.on_events(group.len());
            lost = group.on_events(response.header.as_ref(), &response.events);
        } else if !response.created {
            lost = group.on_progress(header);
        }
        for (watcher, why) in lost {
            self.on_lost(watcher, why);
        }
        self.merge(id);
        self.drop_if_empty(id);
    }

    /// Makes one group of two that are equally far.
    fn merge(&mut self, id: i64) {
        let Some(group) = self.groups.get(&id) else { return };
        let (next, is_created) = (group.next, group.is_created);
        let twin = self.groups.iter().find(|(other, group)| {
            **other != id && group.is_created && is_created && group.next == next
        });
        let Some((twin, _)) = twin else { return };
        let twin = *twin;
        let other = self.groups.remove(&id).expect("just seen");
        self.groups.get_mut(&twin).expect("just seen").merge(other);
        self.cancel(id);
    }

    /// Everything up to this revision has been said on the stream.
    fn on_progress(&mut self, header: ResponseHeader) {
        let behind = std::mem::take(&mut self.behind_streams);
        for (stream, told) in std::mem::take(&mut self.progress) {
            let is_behind = behind.iter().any(|(_, other)| *other == stream);
            let is_ready =
                self.groups.values().all(|group| group.is_created || !group.serves(stream));
            if !is_behind && is_ready {
                // Whoever asked may be gone.
                told.send(header).ok();
            }
        }
        self.behind_streams = behind;
    }

    fn on_lost(&mut self, watcher: Watcher, why: Lost) {
        if why == Lost::Gone {
            return;
        }
        tracing::debug!(watch = watcher.id, "a client does not read its watch responses");
        self.behind_streams.push((watcher.key, watcher.stream));
        let queue = watcher.queue.clone();
        self.behind.push(Box::pin(async move {
            let is_there = queue.is_read().await;
            (watcher.key, is_there.then_some(watcher))
        }));
    }

    fn on_back(&mut self, key: WatcherKey, back: Option<Watcher>) {
        self.behind_streams.retain(|(behind, _)| *behind != key);
        let is_removed = self.removed.remove(&key);
        if let Some(watcher) = back
            && !is_removed
        {
            self.place(watcher);
        }
    }
}

/// Stands for all watches of a stream.
const ALL_WATCHES: i64 = -1;
