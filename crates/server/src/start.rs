//! Every part built and joined, from top to bottom.
//!
//! Order (SRV-154): open the data, start the store thread and the node loop, tell the cluster who
//! this member is, then serve clients and say so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::version;
use proto::membershippb;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::boot::{self, BootError, Booted, SrvError, srv};
use crate::compactor;
use crate::config::{
    self, Bootstrap, Config, DataDir, InitialCluster, ListenError, Refusal, StartFacts,
};
use crate::connections::Connections;
use crate::grpc::{self, Services};
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::http::{Plain, SetLogLevel};
use crate::logging;
use crate::node::NodeError;
use crate::options::Options;
use crate::peers::ask::{Asker, Dial};
use crate::peers::{handover, monitor};
use crate::port;
use crate::ports::{self, BoundPort, Ports};
use crate::running::Running;
use crate::security::{Security, SecurityError};
use crate::shards::Shards;
use crate::signals::Signal;

/// Why a server ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// DNS names no cluster for this member.
    #[error("error setting up initial cluster")]
    Srv(#[from] SrvError),
    /// TLS cannot be spoken as asked for.
    #[error(transparent)]
    Security(#[from] SecurityError),
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
    /// Its data is not what the others have.
    #[error(
        "{member} found data inconsistency with peers; remove this member's data directory and \
         the member, and add it again"
    )]
    Corrupt {
        /// This member.
        member: base::MemberId,
    },
}

impl StartError {
    /// Writes the error to the log, as one line.
    pub fn log(&self) {
        match self {
            Self::Refused(refusal) => config::log_refusal("failed to start etcd", refusal),
            Self::Security(SecurityError::Refused(refusal)) => {
                config::log_refusal("failed to start etcd", refusal);
            }
            Self::NotBuilt { .. }
            | Self::Srv(_)
            | Self::Security(SecurityError::SelfSigned { .. })
            | Self::Boot(_)
            | Self::Listen(_)
            | Self::Threads(_)
            | Self::Node(_)
            | Self::Commit(_)
            | Self::Corrupt { .. }
            | Self::Publish(_) => logging::log_failure("failed to start etcd", self),
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
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;
    let (options, security) = prepare(config, &runtime)?;
    // Ports first: a port in use must not cost a recovery.
    let ports = runtime.block_on(Ports::bind(config, &security)).map_err(StartError::Listen)?;
    let dial: Arc<dyn Dial> = Arc::new(security.dial(options.dial_timeout));
    let booted = match boot(&options, &runtime, dial.clone()) {
        Err(BootError::Removed { .. }) if !options.boot.force_new_cluster => return Ok(None),
        booted => booted?,
    };
    let mut running = Running::start(&options, booted, dial)?;
    let served = runtime.block_on(serve(&options, &mut running, ports));
    // Nothing new comes in; what was accepted is answered or told that the server stopped.
    let ended = running.stop();
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended.and(served)
}

/// Takes as many descriptors as the process may have, as programs of Go do: many systems begin with
/// a soft limit of 1,024 for the sake of `select`, which nothing here uses.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = %error, "cannot raise the limit of open files to the hard limit");
    }
}

/// Looks at the data directory and, for a new member, at its cluster, and says what is started.
fn prepare(config: &Config, runtime: &Runtime) -> Result<(Options, Security), StartError> {
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
        cluster = runtime.block_on(initial_cluster(config))?;
        config.check_cluster(&cluster, &config::resolve_host).map_err(Refusal::from)?;
    }
    let security = Security::load(config)?;
    let initial_cluster = cluster.to_string();
    config::log_start(config, &StartFacts { member_initialized: initialized, initial_cluster });
    Ok((Options::new(config, cluster), security))
}

/// The founders as far as they are known before a discovery service is asked.
async fn initial_cluster(config: &Config) -> Result<InitialCluster, StartError> {
    let parse = |text: &str| InitialCluster::parse(text).map_err(Refusal::from);
    match &config.bootstrap {
        Bootstrap::Static(text) => Ok(parse(text)?),
        Bootstrap::Discovery(_) => Ok(InitialCluster::of(&config.name, &config.advertise.peers)),
        Bootstrap::DiscoveryUrl { url, .. } => Err(Refusal::DiscoveryUrl(url.clone()).into()),
        Bootstrap::Srv { domain, service_name } => {
            let dns = srv::Dns::of_system();
            let advertised = &config.advertise.peers;
            let text = srv::find(&dns, domain, service_name, &config.name, advertised).await?;
            let cluster = parse(&text)?;
            if cluster.urls_of(&config.name).is_none() {
                return Err(SrvError::LocalMissing(config.name.clone()).into());
            }
            Ok(cluster)
        }
    }
}

/// Opens the member of the data directory, or makes one after finding out who it is.
fn boot(options: &Options, runtime: &Runtime, dial: Arc<dyn Dial>) -> Result<Booted, BootError> {
    let opened = boot::open(&options.boot)?;
    let mut origin = None;
    if opened.has_log() {
        if options.boot.origin.discovery.is_some() {
            tracing::warn!(
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
    } else {
        let found = async { boot::origin::find(&options.boot.origin, &Asker::new(dial)).await };
        origin = Some(runtime.block_on(found)?);
    }
    let booted = opened.boot(&options.boot, origin);
    if let Err(error @ BootError::Removed { .. }) = &booted {
        let error: &(dyn std::error::Error + 'static) = error;
        tracing::warn!(error, "server error");
        tracing::warn!("data-dir used by this member must be removed");
    }
    booted
}

/// Whether the log has a segment.
fn has_log(config: &Config) -> bool {
    let Ok(entries) = std::fs::read_dir(config.wal_dir()) else { return false };
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.any(|path| path.extension().is_some_and(|extension| extension == "wal"))
}

/// Serves the other members, then, once they know this one, clients, until a signal arrives or a
/// thread fails.
async fn serve(
    options: &Options,
    running: &mut Running,
    ports: Ports,
) -> Result<Option<Signal>, StartError> {
    let (shards, shard_threads) =
        Shards::start(running.take_answers()).map_err(StartError::Threads)?;
    let (stop, stopping) = watch::channel(false);
    let (_never_stop, always) = watch::channel(false);
    let mut failed = running.failed.clone();
    let ended = crate::signals::wait();
    tokio::pin!(ended);
    let doors = Doors {
        options,
        handle: &running.handle,
        connections: Connections::new(running.handle.metrics().clone()),
        stopping,
        always,
    };
    // These go on until the member itself has stopped.
    let _peer_ports = doors.peers(ports.peers, &Shards::on(running.peer_runtime().clone()));
    let _monitors = doors.monitors();
    let mut tasks = doors.metrics(ports.metrics, &shards);
    let published = tokio::select! {
        published = doors.join() => published,
        _ = failed.wait_for(|failed| *failed) => return Ok(None),
        signal = &mut ended => return Ok(Some(signal)),
    };
    match published {
        // The member's own end, such as its removal, is told by what stops it.
        Err(StartError::Publish(ProposeError::Stopped)) => return Ok(None),
        published => published?,
    }
    tracing::info!("ready to serve client requests");
    doors.clients(ports.clients, ports.clients_http, &shards, &mut tasks);
    crate::signals::notify_ready();
    let signal = tokio::select! {
        signal = &mut ended => Some(signal),
        _ = failed.wait_for(|failed| *failed) => None,
    };
    if signal.is_some() {
        handover::hand_over(&running.handle).await;
    }
    stop.send_replace(true);
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task {
            tracing::warn!(error = %error, "a port ended badly");
        }
    }
    shard_threads.stop();
    Ok(signal)
}

/// What all ports have in common, and what goes on behind them.
struct Doors<'a> {
    options: &'a Options,
    handle: &'a Handle,
    connections: Connections,
    stopping: watch::Receiver<bool>,
    /// Never turns true.
    always: watch::Receiver<bool>,
}

impl Doors<'_> {
    fn port(
        &self,
        port: BoundPort,
        service: port::Service,
        shards: &Shards,
        stopping: &watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let room = port::Room { limits: self.options.port, connections: self.connections.clone() };
        port::serve(port, service, room, shards.clone(), stopping.clone())
    }

    /// Other members, which need this one before it can say who it is.
    fn peers(&self, ports: Vec<BoundPort>, shards: &Shards) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for port in ports {
            tracing::info!(address = port.listener.address(), "serving peer traffic");
            let plain = Plain::for_peers(self.handle.clone());
            let service = port::Service { services: None, plain };
            tasks.spawn(self.port(port, service, shards, &self.always));
        }
        tasks
    }

    /// Whoever scrapes, also while the member waits for others.
    fn metrics(&self, ports: Vec<BoundPort>, shards: &Shards) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for port in ports {
            tracing::info!(address = port.listener.address(), "serving metrics");
            let plain = Plain::for_metrics(self.handle.clone());
            let service = port::Service { services: None, plain };
            tasks.spawn(self.port(port, service, shards, &self.stopping));
        }
        tasks
    }

    /// Clients; `http` are the ports for what is not gRPC, if there are any.
    fn clients(
        &self,
        ports: Vec<BoundPort>,
        http: Vec<BoundPort>,
        shards: &Shards,
        tasks: &mut JoinSet<()>,
    ) {
        let health = grpc::Serving::new(self.options.stops_on_defrag);
        let services = Services::new(self.handle, self.options.slow_calls, health);
        let whole = || {
            let browsers = self.options.browsers.clone();
            Plain::for_clients(self.handle.clone(), browsers, set_log_level())
        };
        let is_split = !http.is_empty();
        for port in ports {
            ports::log_client_port(&port, if is_split { "grpc" } else { "grpc+http" });
            let plain = if is_split { Plain::for_calls_only(self.handle.clone()) } else { whole() };
            let service = port::Service { services: Some(services.clone()), plain };
            tasks.spawn(self.port(port, service, shards, &self.stopping));
        }
        for port in http {
            ports::log_client_port(&port, "http");
            let service = port::Service { services: None, plain: whole() };
            tasks.spawn(self.port(port, service, shards, &self.stopping));
        }
        let (compaction, stopping) = (self.options.auto_compaction, self.stopping.clone());
        tasks.spawn(compactor::run(compaction, self.handle.clone(), stopping));
    }

    /// What a leader looks after.
    fn monitors(&self) -> JoinSet<()> {
        let (handle, checks) = (self.handle, self.options.checks);
        let mut tasks = JoinSet::new();
        tasks.spawn(monitor::watch_version(handle.clone()));
        tasks.spawn(monitor::watch_downgrade(handle.clone(), checks.downgrade));
        if let Some(interval) = checks.periodic {
            tasks.spawn(monitor::watch_state(handle.clone(), interval));
        }
        if let Some(interval) = checks.compactions {
            tasks.spawn(monitor::watch_compactions(handle.clone(), interval));
        }
        tasks
    }

    /// Compares this member with the others, if it shall, and lets them know it.
    async fn join(&self) -> Result<(), StartError> {
        let known = self.handle.reads().members().iter().any(|member| !member.name.is_empty());
        if self.options.checks.initial && known {
            let mismatches = monitor::initial_check(self.handle).await;
            if mismatches > 0 {
                return Err(StartError::Corrupt { member: self.handle.member_id() });
            }
        }
        tokio::select! {
            published = publish(self.options, self.handle) => {
                published.map_err(StartError::Publish)
            }
            () = self.say_who_is_missing() => unreachable!("it never ends"),
        }
    }

    /// Says whom this member waits for while nobody leads, again when that changes; why one is not
    /// reached the transport says itself.
    async fn say_who_is_missing(&self) {
        let mut told = Vec::new();
        loop {
            tokio::time::sleep(self.options.limits.election_timeout).await;
            if !self.handle.status().leader.is_none() {
                continue;
            }
            let members = self.handle.reads().members();
            let own = self.handle.member_id();
            let missing = members.iter().filter(|member| {
                let id = base::MemberId(member.id);
                id != own && self.handle.peers().connected_since(id).is_none()
            });
            let missing: Vec<String> = missing.map(|member| member.peer_ur_ls.join(",")).collect();
            if missing != told {
                tracing::warn!(
                    "local-member-id" = %own,
                    "members-not-reached" = ?logging::List::of(&missing),
                    "waiting for a leader; more than half of the members must run and reach each \
                     other on their peer URLs (firewall, addresses, --initial-cluster)"
                );
                told = missing;
            }
        }
    }
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
            Err(
                error @ (ProposeError::TimedOut
                | ProposeError::LeaderFailed
                | ProposeError::ConnectionLost
                | ProposeError::Overloaded
                | ProposeError::NoLeader
                | ProposeError::LeaderChanged),
            ) => {
                tracing::warn!(
                    error = %error,
                    "failed to publish local member to cluster through raft"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ended => return ended,
        }
    }
}

async fn publish_once(options: &Options, handle: &Handle) -> Result<(), ProposeError> {
    let own = handle.member_id();
    let members = handle.reads().members();
    let known = members.iter().find(|member| member.id == own.0);
    let name = &options.boot.name;
    let urls = &options.advertised_client_urls;
    let current = known.is_some_and(|known| known.name == *name && known.client_ur_ls == *urls);
    if current {
        // Whoever serves must be able to; a proposal would show it, too.
        handle.linearize().await?;
    } else {
        monitor::publish(handle, name, urls).await?;
    }
    tracing::info!(
        "local-member-id" = %own,
        "cluster-id" = %handle.cluster_id(),
        "published local member to cluster through raft"
    );
    // A directory taken over from an older release keeps its version, so that it can go back
    // (docs/design/0004). With other members the leader decides, once it has asked them.
    if members.len() == 1 && handle.reads().cluster_version().is_none() {
        let request = membershippb::ClusterVersionSetRequest { ver: version::CLUSTER.to_owned() };
        handle.propose(RequestKind::ClusterVersionSet, &request).await?;
        tracing::info!("cluster-version" = version::API, "set initial cluster version");
    }
    Ok(())
}
