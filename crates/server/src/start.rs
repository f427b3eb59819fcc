//! Every part built and joined, from top to bottom.
//!
//! Order (SRV-154): open the data, start the store thread and the node loop, tell the cluster who
//! this member is, then serve clients and say so.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use storage::{BootError, Booted};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::auth::{Authentication, TokenError};
use crate::boot::origin::OriginError;
use crate::boot::{self, SrvError, srv};
use crate::config::{
    self, Bootstrap, Config, DataDir, InitialCluster, ListenError, ProxyMode, Refusal, StartFacts,
};
use crate::connections::Connections;
use crate::doors::Doors;
use crate::handle::ProposeError;
use crate::logging;
use crate::memory_lock::{self, MemoryLockError};
use crate::node::NodeError;
use crate::options::Options;
use crate::peers::ask::{Asker, Dial};
use crate::peers::handover;
use crate::ports::Ports;
use crate::proxy;
use crate::running::Running;
use crate::security::{Security, SecurityError};
use crate::shards::Shards;
use crate::signals::Signal;
use crate::traces::{Tracer, Traces, TracesError};

/// Why a server ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// TLS cannot be spoken as asked for.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Memory cannot be locked as asked for.
    #[error(transparent)]
    MemoryLock(#[from] MemoryLockError),
    /// Calls cannot be traced as asked for.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// Tokens cannot be made as asked for.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// DNS names no cluster for this member.
    #[error("error setting up initial cluster")]
    Srv(#[from] SrvError),
    /// The member.
    #[error("starting the member")]
    Boot(#[from] BootError),
    /// Who a new member is.
    #[error("starting the member")]
    Origin(#[from] OriginError),
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
    #[error("the database {} failed", path.display())]
    Commit {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: backend::CommitError,
    },
    /// The member never got to know itself.
    #[error("publishing the member")]
    Publish(#[source] ProposeError),
    /// The folder of a proxy.
    #[error("making the folder of the proxy, {path}")]
    ProxyFolder {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file of a proxy.
    #[error(
        "reading {path}, the peer URLs that the proxy knew; remove it to begin with the flags'"
    )]
    ProxyFile {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
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
            Self::Security(SecurityError::SelfSigned { .. })
            | Self::Token(_)
            | Self::MemoryLock(_)
            | Self::Traces(_)
            | Self::Srv(_)
            | Self::Boot(_)
            | Self::Origin(_)
            | Self::Listen(_)
            | Self::Threads(_)
            | Self::Node(_)
            | Self::Commit { .. }
            | Self::Corrupt { .. }
            | Self::ProxyFolder { .. }
            | Self::ProxyFile { .. }
            | Self::Publish(_) => self.log_failure(),
        }
    }

    fn log_failure(&self) {
        const TEXT: &str = "failed to start etcd";
        if self.is_file_too_large() {
            let remedy = "raise the limit of the size of a file: \"ulimit -f\" in a shell, \
                          LimitFSIZE= in a unit of systemd, or that of the file system";
            let error: &(dyn Error + 'static) = self;
            tracing::error!(target: logging::FATAL, error, remedy, "{TEXT}");
        } else {
            logging::log_failure(TEXT, self);
        }
    }

    /// D11: whether a file reached the limit of its size.
    fn is_file_too_large(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            let source = error.downcast_ref::<io::Error>();
            if source.is_some_and(|source| source.kind() == io::ErrorKind::FileTooLarge) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Runs a server until a signal or a failure ends it. After a signal the process should end by it,
/// so that its supervisor sees what happened (R5).
///
/// # Errors
///
/// See [`StartError`].
pub fn run(config: &Config) -> Result<Option<Signal>, StartError> {
    #[cfg(feature = "failpoints")]
    crate::failpoints::start();
    raise_file_limit();
    if config.storage.memory_mlock {
        memory_lock::lock()?;
    }
    let (found, notices) = config::open_data_dir(&config.storage.data_dir)?;
    notices.iter().for_each(config::Notice::log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;
    // As in etcd, what the folder is for goes before what the flags say.
    let shall_forward = found == DataDir::Empty && config.proxy.mode != ProxyMode::Off;
    if found == DataDir::Proxy || shall_forward {
        return forward(config, found, &runtime);
    }
    let (options, security) = prepare(config, found, &runtime)?;
    // Ports first: a port in use must not cost a recovery.
    let ports = runtime.block_on(Ports::bind(config, &security)).map_err(StartError::Listen)?;
    let dial: Arc<dyn Dial> =
        Arc::new(security.dial(options.dial_timeout).leaving_from(options.local_address));
    let booted = match boot(&options, &runtime, dial.clone()) {
        Err(StartError::Boot(BootError::Removed { .. }))
            if !options.boot.storage.force_new_cluster =>
        {
            return Ok(None);
        }
        Err(StartError::Origin(OriginError::Discovery(error)))
            if error.is_full() && config.proxy.is_fallback =>
        {
            tracing::warn!(
                "fallback-proxy" = "proxy",
                "discovery cluster is full, falling back to proxy"
            );
            drop(ports);
            proxy::give_way(config.member_dir())?;
            return forward(config, DataDir::Empty, &runtime);
        }
        booted => booted?,
    };
    let traces = config.tracing.enabled.then(|| Traces::start(&config.tracing)).transpose()?;
    let mut running = Running::start(&options, booted, dial)?;
    let tracer = traces.as_ref().map(Traces::tracer);
    let served = runtime.block_on(serve(&options, &mut running, ports, tracer));
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

/// Runs a proxy.
fn forward(
    config: &Config,
    found: DataDir,
    runtime: &Runtime,
) -> Result<Option<Signal>, StartError> {
    let mut cluster = InitialCluster::default();
    if found == DataDir::Empty {
        cluster = match &config.bootstrap {
            Bootstrap::Discovery(discovery) => {
                let text = runtime.block_on(boot::founders_of(discovery));
                let text = text.map_err(OriginError::Discovery)?;
                InitialCluster::parse(&text).map_err(Refusal::from)?
            }
            Bootstrap::DiscoveryUrl { url, proxy } => {
                let text = runtime.block_on(boot::founders_of_token(url, proxy));
                let text = text.map_err(|error| OriginError::Discovery(error.into()));
                InitialCluster::parse(&text?).map_err(Refusal::from)?
            }
            // A proxy needs no place of its own among the members.
            Bootstrap::Srv { domain, service_name } => {
                let dns = client::srv::Dns::of_system();
                let found = srv::find(&dns, domain, service_name, "proxy", &[]);
                InitialCluster::parse(&runtime.block_on(found)?).map_err(Refusal::from)?
            }
            Bootstrap::Static(_) => runtime.block_on(initial_cluster(config))?,
        };
    }
    proxy::run(config, &cluster)
}

/// Looks, for a new member, at its cluster, and says what is started.
fn prepare(
    config: &Config,
    found: DataDir,
    runtime: &Runtime,
) -> Result<(Options, Security), StartError> {
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
    let authentication = Authentication::new(&config.auth, config.tls.client.client_cert_auth)?;
    Ok((Options::new(config, cluster, authentication), security))
}

/// The founders as far as they are known before a discovery service is asked.
async fn initial_cluster(config: &Config) -> Result<InitialCluster, StartError> {
    let parse = |text: &str| InitialCluster::parse(text).map_err(Refusal::from);
    match &config.bootstrap {
        Bootstrap::Static(text) => Ok(parse(text)?),
        Bootstrap::Discovery(_) | Bootstrap::DiscoveryUrl { .. } => {
            Ok(InitialCluster::of(&config.name, &config.advertise.peers))
        }
        Bootstrap::Srv { domain, service_name } => {
            let dns = client::srv::Dns::of_system();
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
fn boot(options: &Options, runtime: &Runtime, dial: Arc<dyn Dial>) -> Result<Booted, StartError> {
    let opened = options.boot.open()?;
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
    let booted = opened.boot(&options.boot.storage, origin);
    if let Err(error @ BootError::Removed { .. }) = &booted {
        let error: &(dyn Error + 'static) = error;
        tracing::warn!(error, "server error");
        tracing::warn!("data-dir used by this member must be removed");
    }
    Ok(booted?)
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
    tracer: Option<Tracer>,
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
        tracer,
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
