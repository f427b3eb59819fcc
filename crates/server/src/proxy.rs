//! A server that is no member: it forwards requests of the second generation to those that are
//! (`--proxy on|readonly`, features SRV-170 to SRV-174).
//!
//! It asks the members at their peer URLs who they are, again and again, keeps the peer URLs in
//! `proxy/cluster` of its data directory, and sends what its clients ask to the members' client URLs
//! in turn. It has no vote and no data. Where etcd holds back what it forwards until its buffer is
//! full, this passes on what comes as it comes, so that watches work through it.
//!
//! Source: etcd v3.4.23 etcdmain/etcd.go (`startProxy`), proxy/httpproxy.

mod cluster_file;
mod director;
mod forward;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::initial_cluster::InitialCluster;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, ProxyMode};
use crate::connections::Connections;
use crate::http::{Browsers, Plain};
use crate::metrics::{Metrics, ProxyMetrics};
use crate::options::Options;
use crate::peers::ask::Asker;
use crate::port;
use crate::ports::{self, Ports};
use crate::security::Security;
use crate::shards::Shards;
use crate::signals::{self, Signal};
use crate::start::StartError;

pub(crate) use forward::Proxy;

use cluster_file::ClusterFile;
use director::Director;
use upstream::Upstream;

/// The folder of a proxy in its data directory.
pub(crate) const FOLDER: &str = "proxy";

/// How long members have to say who they are.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs a proxy until a signal ends it. `cluster` names the members to ask first, unless those of an
/// earlier run are known.
///
/// # Errors
///
/// See [`StartError`].
pub(crate) fn run(config: &Config, cluster: &InitialCluster) -> Result<Option<Signal>, StartError> {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(StartError::Threads)?;
    let ended = runtime.block_on(serve(config, cluster, &runtime));
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended.map(Some)
}

async fn serve(
    config: &Config,
    cluster: &InitialCluster,
    runtime: &Runtime,
) -> Result<Signal, StartError> {
    tracing::info!("v2 API proxy starting");
    let security = Security::load(config)?;
    let bound = Ports::bind_clients(config, &security).await.map_err(StartError::Listen)?;
    let file = ClusterFile::open(config.storage.data_dir.join(FOLDER));
    let file = file.map_err(|(path, source)| StartError::ProxyFolder { path, source })?;
    let peer_urls = first_peer_urls(&file, cluster)?;
    let timeouts = config.proxy.timeouts;
    let asker = Asker::new(Arc::new(security.dial(timeouts.dial)));
    let director = Director::new(config.proxy.failure_wait);
    let upstream = Upstream::new(security.dial_clients(config, timeouts.dial)?, timeouts);
    let metrics = ProxyMetrics::new();
    let proxy = Arc::new(Proxy {
        director: director.clone(),
        upstream,
        metrics,
        readonly: config.proxy.mode == ProxyMode::Readonly,
        browsers: Browsers { origins: config.http.cors.clone(), hosts: Vec::new() },
    });
    let refresh = config.proxy.refresh_interval;
    let refreshing = director.run(asker, file, peer_urls, refresh);
    let (stop, stopping) = watch::channel(false);
    let room = port::Room {
        limits: Options::port_limits(config),
        write_timeout: None,
        connections: Connections::new(Metrics::new(false)),
    };
    let shards = Shards::on(runtime.handle().clone());
    let mut tasks = JoinSet::new();
    for bound in bound {
        let host = bound.listener.address();
        tracing::info!(host, "v2 proxy started listening on client requests");
        ports::log_client_port(&bound, "http");
        let service = port::Service { services: None, plain: Plain::for_proxy(proxy.clone()) };
        tasks.spawn(port::serve(bound, service, room.clone(), shards.clone(), stopping.clone()));
    }
    signals::notify_ready();
    let signal = tokio::select! {
        signal = signals::wait() => signal,
        () = refreshing => unreachable!("it never ends"),
    };
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    Ok(signal)
}

/// Where members are asked who they are: what an earlier run knew, else what the flags say.
fn first_peer_urls(
    file: &ClusterFile,
    cluster: &InitialCluster,
) -> Result<Vec<String>, StartError> {
    let known = file.read().map_err(|error| {
        let path = file.path().display().to_string();
        StartError::ProxyFile { path, source: error }
    })?;
    if let Some(urls) = known {
        tracing::info!(
            "peer-urls" = ?urls,
            "cluster-file" = %file.path().display(),
            "proxy using peer URLS from cluster file"
        );
        return Ok(urls);
    }
    let members = cluster.members();
    let mut urls: Vec<String> =
        members.flat_map(|(_, urls)| urls.iter().map(ToString::to_string)).collect();
    urls.sort_unstable();
    tracing::info!("peer-urls" = ?urls, "proxy using peer URLS");
    Ok(urls)
}

/// Whether the folder of a member that never got a log may go, so that a proxy can take its place;
/// it then is gone.
///
/// # Errors
///
/// The system's, with the folder.
pub(crate) fn give_way(member_dir: PathBuf) -> Result<(), StartError> {
    match std::fs::remove_dir_all(&member_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StartError::ProxyFolder { path: member_dir.display().to_string(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
