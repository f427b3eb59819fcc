//! `--discovery-srv`: the founders of a cluster stand in DNS, under `_etcd-server-ssl._tcp.DOMAIN`
//! (https) and `_etcd-server._tcp.DOMAIN` (http).
//!
//! This member recognises itself by its address; the others get numbers as names until they say
//! theirs, which changes no id. The two services count together, and one of them is enough.
//! Source: etcd client/pkg/srv/srv.go, server/embed/config.go (`GetDNSClusterNames`).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::config::{Address, MemberUrl, SrvError};

/// Asks name servers.
#[derive(Debug)]
pub(crate) struct Dns {
    resolver: Result<TokioResolver, String>,
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    priority: u16,
    host: String,
    port: u16,
}

impl Dns {
    /// As this machine resolves names. A machine without name servers fails when it is asked.
    pub(crate) fn of_system() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        Self { resolver: resolver.map_err(|error| error.to_string()) }
    }

    async fn targets(&self, name: &str) -> Result<Vec<Target>, String> {
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
                })
            })
            .collect();
        targets.sort();
        Ok(targets)
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<BTreeSet<SocketAddr>, String> {
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

/// The founders as `--initial-cluster` would name them.
///
/// # Errors
///
/// Neither service names a member.
pub(crate) async fn find(
    dns: &Dns,
    domain: &str,
    service_name: &str,
    name: &str,
    advertised: &[MemberUrl],
) -> Result<String, SrvError> {
    let suffix = if service_name.is_empty() { String::new() } else { format!("-{service_name}") };
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        let own = Own { name, advertised };
        let members = members(dns, scheme, &service, domain, &own).await;
        let failure = members.as_ref().err().cloned().unwrap_or_default();
        tracing::info!(
            "service-scheme" = scheme,
            "service-name" = service,
            "server-name" = name,
            "discovery-srv" = domain,
            "found-cluster" = members.as_deref().unwrap_or_default().join(","),
            error = failure,
            "get cluster for {} SRV",
            if scheme == "https" { "etcd-server-ssl" } else { "etcd-server" }
        );
        match members {
            Ok(members) => found.extend(members),
            Err(why) => {
                failures.push(format!("error querying DNS SRV records for _{service} {why}"))
            }
        }
    }
    if found.is_empty() {
        return Err(SrvError::NoRecords(failures.join("; ")));
    }
    for node in &found {
        tracing::info!(node, "got bootstrap from DNS for etcd-server");
    }
    Ok(found.join(","))
}

struct Own<'a> {
    name: &'a str,
    advertised: &'a [MemberUrl],
}

/// `NAME=URL` for each record of one service.
async fn members(
    dns: &Dns,
    scheme: &str,
    service: &str,
    domain: &str,
    own: &Own<'_>,
) -> Result<Vec<String>, String> {
    let mut own_addresses = Vec::new();
    for url in own.advertised {
        if let Address::Tcp { host, port } = url.address() {
            own_addresses.push((dns.addresses(host, *port).await?, url));
        }
    }
    let mut members = Vec::new();
    let mut number = 0;
    let mut failure = None;
    for target in dns.targets(&format!("_{service}._tcp.{domain}")).await? {
        let Target { host, port, .. } = target;
        let addresses = match dns.addresses(&host, port).await {
            Ok(addresses) => addresses,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let here = own_addresses.iter().find(|(own, _)| !own.is_disjoint(&addresses));
        let node = match here {
            Some((_, url)) if url.scheme().as_str() != scheme => {
                failure = Some(format!(
                    "bootstrap at {scheme}://{host}:{port} from DNS for {service} has scheme \
                     mismatch with expected peer {url}"
                ));
                continue;
            }
            Some(_) => own.name.to_owned(),
            None => {
                number += 1;
                (number - 1).to_string()
            }
        };
        members.push(format!("{node}={scheme}://{host}:{port}"));
    }
    match failure {
        Some(failure) if members.is_empty() => Err(failure),
        _ => Ok(members),
    }
}
