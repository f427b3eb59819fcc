//! A member's threads: the node loop, the store thread and the one that prepares log segments.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base::{ClusterId, MemberId};
use member::{Member, RequestIds};
use raft::{Raft, Restored};
use storage::{Booted, Log, Reserve};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use crate::answers::{self, Given};
use crate::committer::{Committer, CommitterQueue};
use crate::handle::{Handle, Parts, Published};
use crate::metrics::Metrics;
use crate::node::{Node, NodeError, NodeParts, NodeReports};
use crate::node_queue::{self, NodeQueue};
use crate::options::Options;
use crate::peers::arrivals::Arrivals;
use crate::peers::ask::Dial;
use crate::peers::thread::PeerThread;
use crate::peers::{Identity, Peers};
use crate::preparer::{self, PreparerQueue};
use crate::shards;
use crate::start::StartError;

/// The threads of a member that runs.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    /// Answers of the node loop, to be delivered where callers wait.
    answers: Vec<Receiver<Vec<Given>>>,
    /// Turns true when a thread ended by itself.
    pub(crate) failed: watch::Receiver<bool>,
    node: thread::JoinHandle<Result<(), NodeError>>,
    committer: thread::JoinHandle<Result<(), backend::CommitError>>,
    preparer: thread::JoinHandle<()>,
    preparer_queue: PreparerQueue,
    node_queue: NodeQueue,
    committer_queue: CommitterQueue,
    peer_thread: PeerThread,
    /// The database's file, for messages.
    database: PathBuf,
}

/// The parts of a member, joined and not yet running.
struct Joined {
    handle: Handle,
    answers: Vec<Receiver<Vec<Given>>>,
    node: Node,
    committer: Committer,
    preparer: wal::Preparer,
    node_queue: NodeQueue,
    committer_queue: CommitterQueue,
}

impl Running {
    /// Starts the member's threads.
    ///
    /// # Errors
    ///
    /// No threads.
    pub(crate) fn start(
        options: &Options,
        booted: Booted,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, StartError> {
        let database = booted.backend.path();
        let peer_thread = PeerThread::start().map_err(StartError::Threads)?;
        let Joined { handle, answers, node, committer, preparer, node_queue, committer_queue } =
            Joined::new(options, booted, dial, &peer_thread);
        let (preparer_queue, preparer_stop) = PreparerQueue::new();
        let preparer = spawn("log-prepare", move || preparer::run(&preparer, &preparer_stop))?;
        let (failed_sender, failed) = watch::channel(false);
        let failing = failed_sender.clone();
        let node = spawn("node", move || {
            let ended = node.run();
            failing.send_replace(true);
            ended
        })?;
        let committer = spawn("store", move || {
            let ended = committer.run();
            failed_sender.send_replace(true);
            ended
        })?;
        Ok(Self {
            handle,
            answers,
            failed,
            node,
            committer,
            preparer,
            preparer_queue,
            node_queue,
            committer_queue,
            peer_thread,
            database,
        })
    }

    /// Where what has to do with other members runs.
    pub(crate) fn peer_runtime(&self) -> &tokio::runtime::Handle {
        self.peer_thread.runtime()
    }

    /// The answers of the node loop, a receiver for each network thread; only the first call gets
    /// them.
    pub(crate) fn take_answers(&mut self) -> Vec<Receiver<Vec<Given>>> {
        std::mem::take(&mut self.answers)
    }

    /// Ends the node loop, then the store thread after a last commit.
    ///
    /// # Errors
    ///
    /// What a thread ended with.
    pub(crate) fn stop(self) -> Result<(), StartError> {
        self.node_queue.stop();
        let node = self.node.join().expect("the node loop does not panic: it aborts");
        self.handle.peers().flush();
        self.handle.peers().stop();
        self.peer_thread.stop();
        self.preparer_queue.stop();
        self.preparer.join().expect("the preparing thread does not panic: it aborts");
        self.committer_queue.stop();
        let committer = self.committer.join().expect("the store thread does not panic: it aborts");
        node.map_err(StartError::Node)?;
        committer.map_err(|source| StartError::Commit { path: self.database, source })
    }
}

impl Joined {
    fn new(
        options: &Options,
        booted: Booted,
        dial: Arc<dyn Dial>,
        peer_thread: &PeerThread,
    ) -> Self {
        log_start(&booted);
        let (node_queue, commands) = node_queue::queue();
        let metrics = metrics(options);
        let arrivals = arrivals(options, &booted, &node_queue, &metrics);
        let Booted {
            member: id,
            cluster,
            restored,
            state,
            backend,
            mut wal,
            wal_dir,
            snap_dir,
            remotes,
            ..
        } = booted;
        let wall_millis = wall_millis();
        let (committer, committer_queue) =
            Committer::new(backend.clone(), node_queue.clone(), options.commit, metrics.clone());
        let status = Arc::new(Published::default());
        let (answers_in, answers) = answers::channels(shards::count());
        let (compacted_sender, compacted) = watch::channel(-1);
        let (identity, runtime) = (identity(options, id, cluster), peer_thread.runtime().clone());
        let peers = Peers::new(identity, arrivals, dial, runtime, node_queue.clone());
        if !remotes.is_empty() {
            peers.set_members(&remotes);
        }
        metrics.set_peers(id, peers.metrics());
        let handle = Handle::new(Parts {
            member: id,
            cluster,
            limits: options.limits,
            queue: node_queue.clone(),
            reads: state.reads(),
            backend: backend.clone(),
            ids: RequestIds::for_services(id, wall_millis),
            status: status.clone(),
            compacted,
            metrics: metrics.clone(),
            peers: peers.clone(),
            authentication: options.authentication.clone(),
        });
        wal.set_keep(options.wal_files_max.unwrap_or(0));
        let preparer = wal.preparer();
        let log = Log::new(wal, snap_dir, &restored, &state, &options.log);
        let raft = consensus(options, id, wall_millis, restored);
        let config = member(options, id, wall_millis);
        let mut member = Member::new(raft, state, backend.clone(), config);
        member.set_leases(options.leases);
        let reports =
            NodeReports { answers: answers_in, status, compacted: compacted_sender, metrics };
        let node = Node::new(NodeParts {
            member,
            log,
            reserve: Reserve::open(wal_dir),
            committer: committer_queue.clone(),
            backend,
            tick: options.tick,
            compaction_pause: options.compaction_pause,
            reports,
            slow_apply: options.slow_apply,
            commands,
            peers,
        });
        Self { handle, answers, node, committer, preparer, node_queue, committer_queue }
    }
}

fn arrivals(
    options: &Options,
    booted: &Booted,
    queue: &NodeQueue,
    metrics: &Arc<Metrics>,
) -> Arrivals {
    Arrivals::new(
        queue.clone(),
        booted.state.reads(),
        booted.backend.clone(),
        booted.snap_dir.clone(),
        options.boot.storage.state.clone(),
        metrics.clone(),
    )
}

fn metrics(options: &Options) -> Arc<Metrics> {
    let metrics = Metrics::new(options.extensive_metrics);
    metrics.set_features(options.features.iter().copied());
    metrics
}

fn wall_millis() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

fn identity(options: &Options, member: MemberId, cluster: ClusterId) -> Identity {
    Identity {
        member,
        cluster,
        peer_urls: options.advertised_peer_urls.clone(),
        dial_timeout: options.dial_timeout,
        read_timeout: options.peer_read_timeout,
        request_timeout: options.limits.request_timeout,
    }
}

fn log_start(booted: &Booted) {
    tracing::info!(
        "local-member-id" = %booted.member,
        "cluster-id" = %booted.cluster,
        "applied-index" = booted.state.applied().index.0,
        "member-initialized" = booted.restarted,
        "starting local member"
    );
}

fn consensus(options: &Options, id: MemberId, wall_millis: u64, restored: Restored) -> Raft {
    let mut config = raft::Config::new(id, wall_millis ^ id.0);
    config.election_ticks = options.election_ticks;
    config.pre_vote = options.pre_vote;
    config.uncommitted_bytes_max = UNCOMMITTED_BYTES_MAX;
    config.inflight_bytes_max = INFLIGHT_BYTES_MAX;
    Raft::new(config, restored)
}

/// What a leader has taken and not applied yet stays in memory; etcd bounds only the number of the
/// entries.
const UNCOMMITTED_BYTES_MAX: u64 = 1 << 30;

/// What was sent to one member and not acknowledged is in memory, too, and far more than a network
/// has under way.
const INFLIGHT_BYTES_MAX: u64 = 256 << 20;

fn member(options: &Options, id: MemberId, wall_millis: u64) -> member::Options {
    let election_millis = options.limits.election_timeout.as_millis();
    member::Options {
        id,
        quota_bytes: options.limits.quota.bytes(),
        election_millis: u64::try_from(election_millis).unwrap_or(u64::MAX),
        ids: RequestIds::for_member(id, wall_millis),
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, StartError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(StartError::Threads)
}
