//! `etcd gateway start`: passes TCP connections on to the members, one member each (SRV-175).
//!
//! It reads nothing of what passes, so TLS goes through it from end to end. A member that cannot be
//! reached is left out until it can again; it is tried once in every retry delay.
//!
//! Different from etcd: dialing is bounded in time, an endpoint is not blamed when this program is
//! out of files, and one direction of a connection may end before the other.
//!
//! Source: etcd server/etcdmain/gateway.go, server/proxy/tcpproxy/userspace.go.

mod endpoints;
mod error;
mod pool;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::srv::Dns;
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::config::GoDuration;
use crate::logging::List;
use crate::signals::{self, Signal};

pub use error::GatewayError;

use pool::{Endpoint, Pool};

/// What a gateway is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect: host and port.
    pub listen_address: String,
    /// Members, as URLs or as host and port; what DNS names goes before them.
    pub endpoints: Vec<String>,
    /// Where else to find members.
    pub discovery: Option<Discovery>,
    /// Between two attempts at an endpoint that cannot be reached; zero for five minutes.
    pub retry_delay: Duration,
}

/// Finding members through DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The domain with the records.
    pub domain: String,
    /// Which of its clusters; empty for the one without a name.
    pub service_name: String,
    /// Whether endpoints count that have no TLS by their records.
    pub insecure: bool,
    /// Who signs their certificates; `None` for whom this machine trusts. Nothing but whether it
    /// can be read counts.
    pub trusted_ca_file: Option<PathBuf>,
}

/// Runs a gateway until a signal ends it. `command_line` is for the log.
///
/// # Errors
///
/// See [`GatewayError`].
pub fn run(settings: &Settings, command_line: &[String]) -> Result<Signal, GatewayError> {
    tracing::info!(args = ?List::of(command_line), "Running: ");
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(GatewayError::Threads)?;
    let ended = runtime.block_on(start(settings));
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// The URLs of members that DNS names and that count.
///
/// # Errors
///
/// The domain has no such records.
pub async fn discover(discovery: &Discovery) -> Result<Vec<String>, GatewayError> {
    let found = endpoints::discover(discovery, &Dns::of_system()).await?;
    Ok(found.iter().map(endpoints::url).collect())
}

async fn start(settings: &Settings) -> Result<Signal, GatewayError> {
    let targets = endpoints::find(settings, &Dns::of_system()).await?;
    let listen = &settings.listen_address;
    let Some((host, port)) = endpoints::split(listen) else {
        return Err(GatewayError::ListenAddress(listen.clone()));
    };
    let Some(own) = endpoints::resolve(host).await else {
        return Err(GatewayError::ListenHost(host.to_owned()));
    };
    for target in &targets {
        let Some(addresses) = endpoints::resolve(&target.host).await else {
            return Err(GatewayError::EndpointHost(target.host.clone()));
        };
        let is_own = |address: &IpAddr| own.iter().any(|own| endpoints::meet(*own, *address));
        if target.port.to_string() == port
            && let Some(address) = addresses.into_iter().find(is_own)
        {
            let (host, port) = (target.host.clone(), target.port);
            return Err(GatewayError::Itself { host, port, address, listen: listen.clone() });
        }
    }
    if targets.is_empty() {
        return Err(GatewayError::NoEndpoints);
    }
    let port = port.parse().map_err(|_| GatewayError::ListenAddress(listen.clone()))?;
    let listener = bind(&own, port).await;
    let listener =
        listener.map_err(|source| GatewayError::Listen { address: listen.clone(), source })?;
    signals::notify_ready();
    let pool = Arc::new(Pool::new(targets));
    tracing::info!(endpoints = ?List::of(pool.addresses()), "ready to proxy client requests");
    let interval = match settings.retry_delay {
        Duration::ZERO => RETRY_DELAY_DEFAULT,
        given => given,
    };
    tokio::select! {
        signal = signals::wait() => Ok(signal),
        () = accept_all(&listener, &pool, interval) => unreachable!("it never ends"),
        () = monitor(&pool, interval) => unreachable!("it never ends"),
    }
}

/// What `--retry-delay 0` means.
const RETRY_DELAY_DEFAULT: Duration = Duration::from_secs(300);

async fn bind(addresses: &[IpAddr], port: u16) -> io::Result<TcpListener> {
    let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    TcpListener::bind(&addresses[..]).await
}

async fn accept_all(listener: &TcpListener, pool: &Arc<Pool>, interval: Duration) {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                told = false;
                tokio::spawn(serve(stream, pool.clone(), interval));
            }
            Err(error) => {
                if !told {
                    told = true;
                    tracing::warn!(error = %error, "cannot accept a connection; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// After a failed attempt to accept: usually there are too many files, and time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One connection of a client, to its end. Without any endpoint it ends at once.
async fn serve(mut client: TcpStream, pool: Arc<Pool>, interval: Duration) {
    let mut member = loop {
        let Some(endpoint) = pool.pick() else { return };
        match dial(endpoint).await {
            Ok(member) => break member,
            Err(error) if is_own_fault(&error) => {
                tracing::warn!(error = %error, "cannot open a connection to an endpoint");
                return;
            }
            Err(error) => {
                endpoint.set_active(false);
                tracing::warn!(
                    address = endpoint.address(),
                    interval = %GoDuration::from(interval),
                    error = error::dial_text(endpoint.address(), &error),
                    "deactivated endpoint"
                );
            }
        }
    };
    keep_alive(&client);
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut member).await {
        tracing::debug!(error = %error, "connection ended");
    }
}

async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let target = endpoint.target();
    let connecting = TcpStream::connect((target.host.as_str(), target.port));
    let stream = timeout(DIAL_TIME_MAX, connecting).await??;
    keep_alive(&stream);
    Ok(stream)
}

/// How long an endpoint may take to accept a connection.
const DIAL_TIME_MAX: Duration = Duration::from_secs(10);

/// Nobody here writes to see whether the other side is still there, and what passes on must not
/// wait for more. A socket that is gone already is found out when it is read.
fn keep_alive(stream: &TcpStream) {
    let often = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let _gone = SockRef::from(stream).set_tcp_keepalive(&often);
    let _gone = stream.set_nodelay(true);
}

/// As Go's sockets do.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Whether the cause lies in this process or machine.
fn is_own_fault(error: &io::Error) -> bool {
    let cause = Errno::from_io_error(error);
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .into_iter()
        .any(|own| cause == Some(own))
}

/// Tries those endpoints again that were left out, for ever.
async fn monitor(pool: &Arc<Pool>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let attempts = pool.inactive().map(|endpoint| async move {
            let address = endpoint.address();
            match dial(endpoint).await {
                Ok(_) => {
                    endpoint.set_active(true);
                    tracing::info!(address, "activated");
                }
                Err(error) => tracing::warn!(
                    address,
                    interval = %GoDuration::from(interval),
                    error = error::dial_text(address, &error),
                    "failed to activate endpoint (stay inactive for another interval)"
                ),
            }
        });
        futures_util::future::join_all(attempts).await;
    }
}
