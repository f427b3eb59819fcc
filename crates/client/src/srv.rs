//! Finding a cluster through DNS: SRV records name hosts and ports.
//!
//! A domain has two services of each kind, one with TLS and one without; `NAME` of
//! `--discovery-srv-name` tells clusters of one domain apart. Servers use the same lookup to find
//! each other, with rules of their own.
//! Source: etcd client/pkg/srv/srv.go (`GetClient`, `GetSRVService`).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

/// Asks name servers.
#[derive(Debug)]
pub struct Dns {
    resolver: Result<TokioResolver, String>,
}

/// One SRV record; in the order in which they are to be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Lower ones come first.
    pub priority: u16,
    /// Without the point at its end.
    pub host: String,
    /// At that host.
    pub port: u16,
    /// Its share among those of one priority.
    pub weight: u16,
}

impl Dns {
    /// As this machine resolves names. A machine without name servers fails when it is asked.
    #[must_use]
    pub fn of_system() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        Self { resolver: resolver.map_err(|error| error.to_string()) }
    }

    /// Asks one name server and no other; for tests and for whoever knows it.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Self { resolver: builder.build().map_err(|error| error.to_string()) }
    }

    /// The SRV records of a name such as `_etcd-client._tcp.example.com`.
    ///
    /// # Errors
    ///
    /// Why there are none, in words.
    pub async fn targets(&self, name: &str) -> Result<Vec<Target>, String> {
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        let found = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
        let mut targets: Vec<Target> = found
            .answers()
            .iter()
            .filter_map(|record| {
                let RData::SRV(srv) = &record.data else { return None };
                Some(Target {
                    priority: srv.priority,
                    host: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                    port: srv.port,
                    weight: srv.weight,
                })
            })
            .collect();
        targets.sort();
        Ok(targets)
    }

    /// Where a host is.
    ///
    /// # Errors
    ///
    /// Why nobody knows, in words.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<BTreeSet<SocketAddr>, String> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok([SocketAddr::new(ip, port)].into());
        }
        if host == "localhost" {
            let found = tokio::net::lookup_host((host, port)).await;
            return found.map(Iterator::collect).map_err(|error| error.to_string());
        }
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

/// A domain has no records for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dns lookup errors: {secure} and {plain}")]
pub struct NoEndpoints {
    /// Why there is none with TLS.
    pub secure: String,
    /// Why there is none without.
    pub plain: String,
}

/// The client URLs that a domain names, those with TLS first.
///
/// # Errors
///
/// Neither service can be looked up.
pub async fn endpoints(
    dns: &Dns,
    domain: &str,
    service_name: &str,
) -> Result<Vec<String>, NoEndpoints> {
    let found = client_targets(dns, domain, service_name).await?;
    let url = |(scheme, Target { host, port, .. })| format!("{scheme}://{host}:{port}");
    Ok(found.into_iter().map(url).collect())
}

/// As [`endpoints`]: the scheme, and the record with its priority and weight.
///
/// # Errors
///
/// Neither service can be looked up.
pub async fn client_targets(
    dns: &Dns,
    domain: &str,
    service_name: &str,
) -> Result<Vec<(&'static str, Target)>, NoEndpoints> {
    let suffix = if service_name.is_empty() { String::new() } else { format!("-{service_name}") };
    let targets = async |service: &str| {
        let name = format!("_{service}{suffix}._tcp.{domain}");
        dns.targets(&name).await.map_err(|error| format!("lookup {name}: {error}"))
    };
    match (targets("etcd-client-ssl").await, targets("etcd-client").await) {
        (Err(secure), Err(plain)) => Err(NoEndpoints { secure, plain }),
        (secure, plain) => {
            let secure = secure.unwrap_or_default().into_iter().map(|target| ("https", target));
            let plain = plain.unwrap_or_default().into_iter().map(|target| ("http", target));
            Ok(secure.chain(plain).collect())
        }
    }
}
