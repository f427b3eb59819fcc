//! Every part built and joined, from top to bottom.
//!
//! Order (SRV-154): open the data, start the store thread and the node loop, tell the cluster who
//! this member is, then serve clients and say so.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{MemberId, version};
use member::{Member, RequestIds};
use proto::membershippb;
use raft::Raft;
use tokio::sync::watch;

use crate::boot::{self, BootError, Booted};
use crate::committer::Committer;
use crate::compactor;
use crate::config::{
    self, ClusterState, Config, DataDir, InitialCluster, ListenError, MemberUrl, Refusal,
    StartFacts,
};
use crate::connections::Connections;
use crate::grpc::Services;
use crate::handle::{Handle, Parts, ProposeError, Published, RequestKind};
use crate::http::{Plain, SetLogLevel};
use crate::listen::Listener;
use crate::logging;
use crate::metrics::Metrics;
use crate::node::{Node, NodeError, NodeParts, NodeReports};
use crate::options::Options;
use crate::port;
use crate::preparer::{self, PreparerQueue};
use crate::signals::Signal;
use crate::snapshots::Snapshots;

/// Why a server ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What is asked for is not built yet.
    #[error("{what} is not built yet; {remedy}")]
    NotBuilt {
        /// What.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// The member.
    #[error("starting the member")]
    Boot(#[from] BootError),
    /// A port.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Listen(ListenError),
    /// The operating system gave no thread or runtime.
    #[error("starting threads")]
    Threads(#[source] io::Error),
    /// The node loop.
    #[error("the member failed")]
    Node(#[source] NodeError),
    /// The store thread.
    #[error("the database failed")]
    Commit(#[source] backend::CommitError),
    /// The member never got to know itself.
    #[error("publishing the member")]
    Publish(#[source] ProposeError),
}

impl StartError {
    /// Writes the error to the log, as one line.
    pub fn log(&self) {
        if let Self::Refused(refusal) = self {
            config::log_refusal("failed to start etcd", refusal);
        } else {
            logging::log_failure("failed to start etcd", self);
        }
    }
}

/// Runs a server until a signal or a failure ends it. After a signal the process should end by it,
/// so that its supervisor sees what happened (R5).
///
/// # Errors
///
/// See [`StartError`].
pub fn run(config: &Config) -> Result<Option<Signal>, StartError> {
    let options = prepare(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(network_threads())
        .thread_name("network")
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;
    // Ports first: a port in use must not cost a recovery.
    let ports = runtime.block_on(Ports::bind(config))?;
    let running = Running::start(&options)?;
    let served = runtime.block_on(serve(&options, &running, ports));
    // Nothing new comes in; what was accepted is answered or told that the server stopped.
    let ended = running.stop();
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended.and(served)
}

/// Looks at the data directory and, for a new member, at its cluster, and says what is started.
fn prepare(config: &Config) -> Result<Options, StartError> {
    let (found, notices) = config::open_data_dir(&config.storage.data_dir)?;
    notices.iter().for_each(config::Notice::log);
    let initialized = has_log(config);
    tracing::info!(
        "data-dir" = %config.storage.data_dir.display(),
        "dir-type" = if found == DataDir::Member { "member" } else { "empty" },
        "{}",
        if initialized { "server has already been initialized" } else { "initializing etcd server" }
    );
    // A restart ignores the initial cluster, right or wrong.
    let mut cluster = InitialCluster::default();
    if !initialized {
        cluster = config.initial_cluster(&config::resolve_host).map_err(Refusal::from)?;
        if cluster.members().count() > 1 || config.cluster.state == ClusterState::Existing {
            return Err(StartError::NotBuilt {
                what: "a cluster of several members",
                remedy: "start one member with --initial-cluster naming only itself",
            });
        }
    }
    let all = config.listen.clients.iter().chain(&config.listen.metrics);
    if all.chain(&config.listen.peers).any(|url| url.scheme().is_tls()) {
        return Err(StartError::NotBuilt {
            what: "TLS on a listener",
            remedy: "use http:// or unix:// URLs on a trusted network until it is",
        });
    }
    let initial_cluster = cluster.to_string();
    config::log_start(config, &StartFacts { member_initialized: initialized, initial_cluster });
    Ok(Options::new(config, &cluster))
}

/// Whether the log has a segment.
fn has_log(config: &Config) -> bool {
    let Ok(entries) = std::fs::read_dir(config.wal_dir()) else { return false };
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.any(|path| path.extension().is_some_and(|extension| extension == "wal"))
}

/// Threads for connections: half of the cores, the other half is for the node loop, the store and
/// the disk.
fn network_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// Every socket of a member.
#[derive(Debug)]
struct Ports {
    clients: Vec<Listener>,
    metrics: Vec<Listener>,
    peers: Vec<Listener>,
}

impl Ports {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let listen = &config.listen;
        Ok(Self {
            peers: bind(&listen.peers, "listen-peer-urls").await?,
            clients: bind(&listen.clients, "listen-client-urls").await?,
            metrics: bind(&listen.metrics, "listen-metrics-urls").await?,
        })
    }
}

async fn bind(urls: &[MemberUrl], flag: &'static str) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for url in urls {
        listeners.push(Listener::bind(url, flag).await.map_err(StartError::Listen)?);
    }
    Ok(listeners)
}

/// The member's threads.
struct Running {
    handle: Handle,
    node: thread::JoinHandle<Result<(), NodeError>>,
    committer: thread::JoinHandle<Result<(), backend::CommitError>>,
    preparer: thread::JoinHandle<()>,
    preparer_queue: PreparerQueue,
    node_queue: crate::node::NodeQueue,
    committer_queue: crate::committer::CommitterQueue,
    failed: watch::Receiver<bool>,
}

impl Running {
    fn start(options: &Options) -> Result<Self, StartError> {
        let booted = boot::boot(&options.boot)?;
        let Booted { member: id, cluster, restored, state, backend, wal, snap_dir, restarted } =
            booted;
        tracing::info!(
            "local-member-id" = %id,
            "cluster-id" = %cluster,
            "applied-index" = state.applied().index.0,
            "member-initialized" = restarted,
            "starting local member"
        );
        let wall_millis = wall_millis();
        let preparer = wal.preparer();
        let (every, catchup) = (options.snapshot_entries, options.snapshot_catchup_entries);
        let snapshots = Snapshots::new(snap_dir, every, catchup, restored.snapshot.index);
        let raft = Raft::new(raft_config(options, id, wall_millis), restored);
        let (node_queue, commands) = Node::queue();
        let metrics = Metrics::new(options.extensive_metrics);
        let (committer, committer_queue) =
            Committer::new(backend.clone(), node_queue.clone(), options.commit, metrics.clone());
        let status = Arc::new(Published::default());
        let (compacted_sender, compacted) = watch::channel(-1);
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
        });
        let member_options = member_options(options, id, wall_millis);
        let node = Node::new(NodeParts {
            member: Member::new(raft, state, backend.clone(), member_options),
            wal,
            snapshots,
            committer: committer_queue.clone(),
            backend,
            tick: options.tick,
            compaction_pause: options.compaction_pause,
            reports: NodeReports { status, compacted: compacted_sender, metrics },
            slow_apply: options.slow_apply,
            commands,
        });
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
            node,
            committer,
            preparer,
            preparer_queue,
            node_queue,
            committer_queue,
            failed,
        })
    }

    /// Ends the node loop, then the store thread after a last commit.
    fn stop(self) -> Result<(), StartError> {
        self.node_queue.stop();
        let node = self.node.join().expect("the node loop does not panic: it aborts");
        self.preparer_queue.stop();
        self.preparer.join().expect("the preparing thread does not panic: it aborts");
        self.committer_queue.stop();
        let committer = self.committer.join().expect("the store thread does not panic: it aborts");
        node.map_err(StartError::Node)?;
        committer.map_err(StartError::Commit)
    }
}

/// Milliseconds of the wall clock, for ids that no earlier run gave.
fn wall_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn raft_config(options: &Options, id: MemberId, wall_millis: u64) -> raft::Config {
    let mut config = raft::Config::new(id, wall_millis ^ id.0);
    config.election_ticks = options.election_ticks;
    config.pre_vote = options.pre_vote;
    config
}

fn member_options(options: &Options, id: MemberId, wall_millis: u64) -> member::Options {
    let election_millis = options.limits.election_timeout.as_millis();
    member::Options {
        id,
        quota_bytes: options.limits.quota_bytes,
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

/// Serves clients until a signal arrives or a thread fails.
async fn serve(
    options: &Options,
    running: &Running,
    ports: Ports,
) -> Result<Option<Signal>, StartError> {
    let (stop, stopping) = watch::channel(false);
    let mut failed = running.failed.clone();
    let ended = crate::signals::wait();
    tokio::pin!(ended);
    let published = tokio::select! {
        published = publish(options, &running.handle) => published,
        _ = failed.wait_for(|failed| *failed) => return Ok(None),
        signal = &mut ended => return Ok(Some(signal)),
    };
    published.map_err(StartError::Publish)?;
    tracing::info!("ready to serve client requests");
    let handle = &running.handle;
    handle.metrics().set_features(options.features.iter().copied());
    let services = Services::new(handle, options.slow_calls);
    let connections = Connections::new(handle.metrics().clone());
    let compactor = compactor::run(options.auto_compaction, handle.clone(), stopping.clone());
    let mut tasks = vec![tokio::spawn(compactor)];
    let serve_port = |listener, services, plain| {
        let (limits, connections) = (options.port, connections.clone());
        let stopping = stopping.clone();
        tokio::spawn(port::serve(listener, services, plain, limits, connections, stopping))
    };
    for listener in ports.clients {
        tracing::info!(
            traffic = "grpc+http",
            address = listener.address(),
            "serving client traffic insecurely; this is strongly discouraged!"
        );
        let plain = Plain::for_clients(handle.clone(), options.browsers.clone(), set_log_level());
        tasks.push(serve_port(listener, Some(services.clone()), plain));
    }
    for listener in ports.metrics {
        tracing::info!(address = listener.address(), "serving metrics");
        let plain = Plain::for_metrics(handle.clone());
        tasks.push(serve_port(listener, None, plain));
    }
    for listener in ports.peers {
        tracing::info!(address = listener.address(), "serving peer traffic");
        let plain = Plain::for_peers(handle.clone());
        tasks.push(serve_port(listener, None, plain));
    }
    crate::signals::notify_ready();
    let signal = tokio::select! {
        signal = &mut ended => Some(signal),
        _ = failed.wait_for(|failed| *failed) => None,
    };
    stop.send_replace(true);
    for task in tasks {
        if let Err(error) = task.await {
            tracing::warn!(error = %error, "a port ended badly");
        }
    }
    Ok(signal)
}

/// HTTP-20.
fn set_log_level() -> SetLogLevel {
    Arc::new(|name| {
        let level = logging::Level::parse(name).filter(|_| !name.is_empty());
        let level = level.ok_or_else(|| format!("Invalid log level {name}"))?;
        logging::set_level(level);
        Ok(())
    })
}

/// Tells the cluster this member's name and client URLs, and a new cluster its version, through
/// the log; repeated until it succeeds, as other members may not be there yet (R4).
async fn publish(options: &Options, handle: &Handle) -> Result<(), ProposeError> {
    loop {
        match publish_once(options, handle).await {
            Err(ProposeError::TimedOut | ProposeError::NoLeader | ProposeError::LeaderChanged) => {
                tracing::warn!(
                    "failed to publish local member to cluster through raft; trying again"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ended => return ended,
        }
    }
}

async fn publish_once(options: &Options, handle: &Handle) -> Result<(), ProposeError> {
    let own = handle.member_id();
    let known = handle.reads().members().into_iter().find(|member| member.id == own.0);
    let name = &options.boot.name;
    let urls = &options.advertised_client_urls;
    let current = known.is_some_and(|known| known.name == *name && known.client_ur_ls == *urls);
    if !current {
        let attributes = membershippb::Attributes { name: name.clone(), client_urls: urls.clone() };
        let request = membershippb::ClusterMemberAttrSetRequest {
            member_id: own.0,
            member_attributes: Some(attributes),
        };
        handle.propose(RequestKind::ClusterMemberAttrSet, &request).await?;
    }
    tracing::info!(
        "local-member-id" = %own,
        "cluster-id" = %handle.cluster_id(),
        "published local member to cluster through raft"
    );
    // A directory taken over from an older release keeps its version, so that it can go back
    // (docs/design/0004).
    if handle.reads().cluster_version().is_none() {
        let request = membershippb::ClusterVersionSetRequest { ver: version::CLUSTER.to_owned() };
        handle.propose(RequestKind::ClusterVersionSet, &request).await?;
        tracing::info!("cluster-version" = version::API, "set initial cluster version");
    }
    Ok(())
}
