//! Every socket of a member, with what is served on it and who may pass.
//!
//! One address may be given with http and with https: then both are spoken there, as in etcd.

use crate::config::{Config, ListenError, MemberUrl};
use crate::guard::Guard;
use crate::listen::{Listener, Reuse};
use crate::security::{Role, Security};

/// A bound socket.
#[derive(Debug)]
pub(crate) struct BoundPort {
    pub(crate) listener: Listener,
    /// `None` if only plain requests pass.
    pub(crate) guard: Option<Guard>,
}

/// Every socket of a member.
#[derive(Debug)]
pub(crate) struct Ports {
    /// For clients: gRPC, and HTTP unless there are ports for that.
    pub(crate) clients: Vec<BoundPort>,
    /// For clients: HTTP only.
    pub(crate) clients_http: Vec<BoundPort>,
    pub(crate) metrics: Vec<BoundPort>,
    pub(crate) peers: Vec<BoundPort>,
}

impl Ports {
    /// Binds the URLs to listen on for clients alone.
    ///
    /// # Errors
    ///
    /// As [`Ports::bind`].
    pub(crate) async fn bind_clients(
        config: &Config,
        security: &Security,
    ) -> Result<Vec<BoundPort>, ListenError> {
        let listen = &config.listen;
        let reuse = Reuse { port: listen.reuse_port, address: listen.reuse_address };
        bind(&listen.clients, "listen-client-urls", Role::Client, security, reuse).await
    }

    /// Binds every URL to listen on.
    ///
    /// # Errors
    ///
    /// An address that cannot be listened on; those bound before are closed again.
    pub(crate) async fn bind(config: &Config, security: &Security) -> Result<Self, ListenError> {
        let listen = &config.listen;
        let client = Role::Client;
        let reuse = Reuse { port: listen.reuse_port, address: listen.reuse_address };
        Ok(Self {
            peers: bind(&listen.peers, "listen-peer-urls", Role::Peer, security, reuse).await?,
            clients: bind(&listen.clients, "listen-client-urls", client, security, reuse).await?,
            clients_http: bind(
                &listen.clients_http,
                "listen-client-http-urls",
                client,
                security,
                reuse,
            )
            .await?,
            metrics: bind(&listen.metrics, "listen-metrics-urls", client, security, reuse).await?,
        })
    }
}

async fn bind(
    urls: &[MemberUrl],
    flag: &'static str,
    role: Role,
    security: &Security,
    reuse: Reuse,
) -> Result<Vec<BoundPort>, ListenError> {
    let mut ports = Vec::new();
    for (number, url) in urls.iter().enumerate() {
        let is_same = |other: &&MemberUrl| other.address() == url.address();
        if urls[..number].iter().any(|other| is_same(&other)) {
            continue;
        }
        let here = || urls.iter().filter(is_same);
        let plain_too = here().any(|url| !url.scheme().is_tls());
        let policy = match role {
            Role::Client => &security.client,
            Role::Peer => &security.peer,
        };
        let guard = if here().any(|url| url.scheme().is_tls()) {
            let policy = policy.clone().expect("a port with TLS has a policy");
            Some(Guard::new(policy, role, plain_too))
        } else {
            None
        };
        ports.push(BoundPort { listener: Listener::bind(url, flag, reuse).await?, guard });
    }
    Ok(ports)
}

/// Says who is served how, once for each way in.
pub(crate) fn log_client_port(port: &BoundPort, traffic: &'static str) {
    let address = port.listener.address();
    if port.guard.as_ref().is_none_or(Guard::is_for_plain_too) {
        tracing::info!(
            traffic,
            address,
            "serving client traffic insecurely; this is strongly discouraged!"
        );
    }
    if port.guard.is_some() {
        tracing::info!(traffic, address, "serving client traffic securely");
    }
}
