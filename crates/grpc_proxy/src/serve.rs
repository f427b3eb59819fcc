//! A proxy from its settings: ports, members, services, in etcd's order.
//!
//! Source: etcd server/etcdmain/grpc_proxy.go.

use std::sync::Arc;
use std::time::Duration;

use client::{Options, TlsOptions};
use proto::etcdserverpb::RangeRequest;
use tls::{ClientPolicy, Protocols, ServerPolicy};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cluster::{self, ClusterProxy};
use crate::dispatch::{Dispatch, Proxies};
use crate::error::ProxyError;
use crate::http::{PROFILES, Plain, Scraper, TURNS};
use crate::kv::{KvProxy, Leasing, Namespace, Store};
use crate::lease::LeaseProxy;
use crate::metrics::Metrics;
use crate::port::{Port, Served, room};
use crate::settings::{Listen, Settings};
use crate::upstream::Upstream;
use crate::watch::WatchProxy;

/// A connection opens in this time. The same as etcd's.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// Between two attempts to learn how far the cluster is.
const RECOVERY_PAUSE: Duration = Duration::from_secs(1);

/// Runs a proxy until `stop` is over. `ready` is called when it serves.
///
/// # Errors
///
/// See [`ProxyError`]; once it serves there is none.
pub async fn serve<R>(
    settings: Settings,
    ready: impl FnOnce(),
    stop: impl Future<Output = R>,
) -> Result<R, ProxyError> {
    // Ends them all when it is dropped.
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    tokio::select! {
        started = start(settings, &mut tasks) => started?,
        stopped = &mut stop => return Ok(stopped),
    }
    ready();
    Ok(stop.await)
}

async fn start(settings: Settings, tasks: &mut JoinSet<()>) -> Result<(), ProxyError> {
    let tls = tls_of(&settings.listen)?;
    let policy = tls.as_ref().map(ServerPolicy::new).transpose().map_err(ProxyError::Tls)?;
    let port = Port::bind(&settings.listen.address, policy.clone()).await?;
    tracing::info!(address = settings.listen.address, "listening for gRPC proxy client requests");
    let upstream = upstream(&settings).await?;
    let scraper = scraper(&settings)?;
    let store = Store::new(
        upstream.clone(),
        Namespace::new(settings.namespace.clone()),
        settings.is_ordered,
    );
    if settings.is_ordered {
        recover(&store).await;
    }
    let interval = settings.upstream.auto_sync_interval;
    if !interval.is_zero() {
        let upstream = upstream.clone();
        tasks.spawn(async move { upstream.sync(interval).await });
    }
    let metrics = Metrics::new();
    let calls = Dispatch::new(
        proxies(&settings, &store, &metrics, tasks),
        upstream,
        metrics.clone(),
        settings.logs_calls,
    );
    let own = own(&settings, tls.as_ref()).map(Arc::new);
    if own.is_some() {
        let url = settings.advertise_client_url;
        tracing::info!("grpcProxyAdvertiseClientURL" = url, "create proxy client");
    }
    let profiles = settings.profiles;
    if profiles.is_some() {
        tracing::info!(path = PROFILES.trim_end_matches('/'), "gRPC proxy enabled pprof");
    }
    let turns = Arc::new(Semaphore::new(TURNS));
    let plain = Plain { store, metrics, scraper, own, profiles, turns };
    let served = Served { calls: Some(calls), plain: plain.clone() };
    let room = room();
    tasks.spawn(port.serve(served, settings.listen.clone(), room.clone()));
    if let Some(url) = &settings.listen.metrics_url {
        let port = metrics_port(url, policy).await?;
        tracing::info!(address = url, "gRPC proxy listening for metrics");
        let plain = Plain { profiles: None, ..plain };
        let served = Served { calls: None, plain };
        tasks.spawn(port.serve(served, settings.listen.clone(), room));
        tracing::info!("gRPC proxy server metrics URL serving");
    }
    tracing::info!(address = settings.listen.address, "started gRPC proxy");
    Ok(())
}

/// The services, and what goes on behind them.
fn proxies(
    settings: &Settings,
    store: &Store,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> Proxies {
    let upstream = store.upstream().clone();
    let advertised = settings.advertise_client_url.clone();
    let mut known = None;
    if let Some(registration) = settings.registration.clone() {
        let followed = Arc::new(cluster::Proxies::default());
        known = Some(followed.clone());
        let (own, prefix) = (store.clone(), registration.prefix.clone());
        tasks.spawn(async move { followed.follow(own, prefix).await });
        tasks.spawn(cluster::register(store.clone(), registration, advertised.clone()));
    }
    let prefix = settings.leasing_prefix.clone();
    let leasing = (!prefix.is_empty()).then(|| Leasing::new(store.clone(), prefix));
    if let Some(leasing) = leasing.clone() {
        tasks.spawn(leasing.run());
    }
    Proxies {
        kv: KvProxy::new(store.clone(), leasing, metrics.clone()),
        watch: WatchProxy::new(store.clone(), metrics.clone()),
        lease: LeaseProxy::new(upstream.clone(), store.namespace().clone()),
        cluster: ClusterProxy::new(upstream, advertised, known),
    }
}

/// How TLS is spoken on the ports, with a certificate that was made if that is wished.
fn tls_of(listen: &Listen) -> Result<Option<tls::Settings>, ProxyError> {
    let tls = match (&listen.tls, &listen.self_signed) {
        (Some(tls), None) => tls.clone(),
        (tls, Some((folder, years))) => {
            let host = listen.address.rsplit_once(':').map_or("", |(host, _)| host);
            let made = tls::self_signed(folder, &[host.to_owned()], *years)?;
            tls::Settings {
                cert_file: Some(made.cert_file),
                key_file: Some(made.key_file),
                ..tls.clone().unwrap_or_default()
            }
        }
        (None, None) => return Ok(None),
    };
    let info = tls_info(&tls);
    tracing::info!("tls-info" = info, "gRPC proxy server TLS");
    Ok(Some(tls))
}

/// As etcd tells of it.
fn tls_info(tls: &tls::Settings) -> String {
    let text = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or_else(String::new, |path| path.display().to_string())
    };
    format!(
        "cert = {}, key = {}, client-cert=, client-key=, trusted-ca = {}, client-cert-auth = false, crl-file = {}",
        text(&tls.cert_file),
        text(&tls.key_file),
        text(&tls.trusted_ca_file),
        text(&tls.crl_file),
    )
}

async fn upstream(settings: &Settings) -> Result<Upstream, ProxyError> {
    let given = &settings.upstream;
    if let Some(tls) = &given.tls {
        check_nameless(tls)?;
        if tls.skip_verification {
            tracing::warn!(
                "--insecure-skip-tls-verify was given, this grpc proxy process skips \
                 authentication of etcd server TLS certificates. This option should be enabled \
                 only for testing purposes."
            );
        }
        let info = tls_info(&tls_of_members(tls.clone()));
        tracing::info!("tls-info" = info, "gRPC proxy client TLS");
    }
    let options = Options {
        tls: given.tls.clone(),
        dial_timeout: DIAL_TIME_MAX,
        command_timeout: None,
        keep_alive_time: given.keepalive_time,
        keep_alive_timeout: given.keepalive_timeout,
        keep_alive_without_calls: given.keepalive_without_calls,
        request_bytes_max: given.request_bytes_max,
        response_bytes_max: given.response_bytes_max,
        ..Options::new(given.endpoints.clone())
    };
    Ok(Upstream::new(options).await?)
}

/// A member takes the name in a certificate for the user's if a call has no token: then everybody
/// who asks this proxy would be that user.
fn check_nameless(tls: &TlsOptions) -> Result<(), ProxyError> {
    let Some(path) = &tls.certificate else { return Ok(()) };
    match tls::common_name(path) {
        Some(common_name) if !common_name.is_empty() => {
            Err(ProxyError::CommonName { common_name, path: path.clone() })
        }
        // A file that cannot be read is told of by who reads it.
        Some(_) | None => Ok(()),
    }
}

fn tls_of_members(given: TlsOptions) -> tls::Settings {
    tls::Settings {
        cert_file: given.certificate,
        key_file: given.key,
        trusted_ca_file: given.authorities,
        skip_verification: given.skip_verification,
        ..tls::Settings::default()
    }
}

fn scraper(settings: &Settings) -> Result<Scraper, ProxyError> {
    let tls = tls_of_members(settings.upstream.tls.clone().unwrap_or_default());
    let asks_tls = settings.upstream.tls.is_some();
    match ClientPolicy::new(&tls, Protocols::Unsaid) {
        Ok(policy) => Ok(Scraper { policy: Some(policy), asks_tls }),
        Err(error) if asks_tls => Err(client::Error::from(error).into()),
        // Nobody needs it, most likely: then a missing file of the system must not matter.
        Err(_) => Ok(Scraper { policy: None, asks_tls }),
    }
}

/// Learns how far the cluster is, before anybody is answered.
async fn recover(store: &Store) {
    tracing::info!("waiting for linearized read from cluster to recover ordering");
    let read = RangeRequest { key: "_".into(), keys_only: true, ..RangeRequest::default() };
    while let Err(status) = store.range(&Upstream::own(), read.clone()).await {
        tracing::warn!(error = status.message(), "ordering recovery failed, retrying in 1s");
        tokio::time::sleep(RECOVERY_PAUSE).await;
    }
}

/// How the proxy reaches itself by the address that clients are told.
fn own(settings: &Settings, tls: Option<&tls::Settings>) -> Option<Options> {
    let address = Some(&settings.advertise_client_url).filter(|address| !address.is_empty())?;
    let tls = tls.map(|tls| TlsOptions {
        certificate: tls.cert_file.clone(),
        key: tls.key_file.clone(),
        authorities: tls.trusted_ca_file.clone(),
        server_name: None,
        skip_verification: settings.listen.self_signed.is_some(),
    });
    Some(Options { tls, dial_timeout: DIAL_TIME_MAX, ..Options::new(vec![address.clone()]) })
}

/// A port of its own for scrapers; with TLS only if the URL says so.
async fn metrics_port(url: &str, policy: Option<ServerPolicy>) -> Result<Port, ProxyError> {
    let wrong = || ProxyError::MetricsUrl(url.to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let host = rest.split('/').next().unwrap_or_default();
    match scheme {
        "http" => Port::bind(host, None).await,
        "https" => Port::bind(host, Some(policy.ok_or_else(wrong)?)).await,
        _ => Err(wrong()),
    }
}
