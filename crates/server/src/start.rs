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

use crate::boot::{self, BootError, Booted, srv};
use crate::compactor;
use crate::config::{
    self, Bootstrap, ClusterError, Config, DataDir, InitialCluster, ListenError, Refusal, SrvError,
    StartFacts,
};
use crate::connections::Connections;
use crate::grpc::{Services, Serving};
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::http::{Plain, SetLogLevel};
use crate::logging;
use crate::node::NodeError;
use crate::options::Options;
use crate::peers::ask::{Asker, PlainDial};
use crate::port;
use crate::ports::{self, Ports};
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
            | Self::Security(SecurityError::SelfSigned { .. })
            | Self::Boot(_)
            | Self::Listen(_)
            | Self::Threads(_)
            | Self::Node(_)
            | Self::Commit(_)
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
    let booted = match boot(&options, &runtime) {
        Err(BootError::Removed { .. }) if !options.boot.force_new_cluster => return Ok(None),
        booted => booted?,
    };
    let mut running = Running::start(&options, booted)?;
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
        cluster = runtime.block_on(initial_cluster(config)).map_err(Refusal::from)?;
        config.check_cluster(&cluster, &config::resolve_host).map_err(Refusal::from)?;
    }
    let security = Security::load(config)?;
    let initial_cluster = cluster.to_string();
    config::log_start(config, &StartFacts { member_initialized: initialized, initial_cluster });
    Ok((Options::new(config, cluster), security))
}

/// The founders as far as they are known before a discovery service is asked.
async fn initial_cluster(config: &Config) -> Result<InitialCluster, ClusterError> {
    match &config.bootstrap {
        Bootstrap::Static(text) => InitialCluster::parse(text),
        Bootstrap::Discovery(_) => Ok(InitialCluster::of(&config.name, &config.advertise.peers)),
        Bootstrap::DiscoveryUrl { url, .. } => Err(ClusterError::DiscoveryUrl(url.clone())),
        Bootstrap::Srv { domain, service_name } => {
            let dns = srv::Dns::of_system();
            let advertised = &config.advertise.peers;
            let text = srv::find(&dns, domain, service_name, &config.name, advertised).await?;
            let cluster = InitialCluster::parse(&text)?;
            if cluster.urls_of(&config.name).is_none() {
                return Err(SrvError::LocalMissing(config.name.clone()).into());
            }
            Ok(cluster)
        }
    }
}

/// Opens the member of the data directory, or makes one after finding out who it is.
fn boot(options: &Options, runtime: &Runtime) -> Result<Booted, BootError> {
    let opened = boot::open(&options.boot)?;
    let mut origin = None;
    if opened.has_log() {
        if options.boot.origin.discovery.is_some() {
            tracing::warn!(
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
    } else {
        let dial = PlainDial { timeout: options.dial_timeout };
        let found =
            async { boot::origin::find(&options.boot.origin, &Asker::new(Arc::new(dial))).await };
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

/// Serves clients until a signal arrives or a thread fails.
async fn serve(
    options: &Options,
    running: &mut Running,
    ports: Ports,
) -> Result<Option<Signal>, StartError> {
    let (shards, shard_threads) =
        Shards::start(running.take_answers()).map_err(StartError::Threads)?;
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
    let services = Services::new(handle, options.slow_calls, Serving::new(options.stops_on_defrag));
    let connections = Connections::new(handle.metrics().clone());
    let compactor = compactor::run(options.auto_compaction, handle.clone(), stopping.clone());
    let mut tasks = vec![tokio::spawn(compactor)];
    let serve_port = |bound, services, plain| {
        let service = port::Service { services, plain };
        let room = port::Room { limits: options.port, connections: connections.clone() };
        tokio::spawn(port::serve(bound, service, room, shards.clone(), stopping.clone()))
    };
    let for_clients =
        || Plain::for_clients(handle.clone(), options.browsers.clone(), set_log_level());
    let is_split = !ports.clients_http.is_empty();
    for bound in ports.clients {
        ports::log_client_port(&bound, if is_split { "grpc" } else { "grpc+http" });
        let plain = if is_split { Plain::for_calls_only(handle.clone()) } else { for_clients() };
        tasks.push(serve_port(bound, Some(services.clone()), plain));
    }
    for bound in ports.clients_http {
        ports::log_client_port(&bound, "http");
        tasks.push(serve_port(bound, None, for_clients()));
    }
    for bound in ports.metrics {
        tracing::info!(address = bound.listener.address(), "serving metrics");
        let plain = Plain::for_metrics(handle.clone());
        tasks.push(serve_port(bound, None, plain));
    }
    for bound in ports.peers {
        tracing::info!(address = bound.listener.address(), "serving peer traffic");
        let plain = Plain::for_peers(handle.clone());
        tasks.push(serve_port(bound, None, plain));
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
    shard_threads.stop();
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
