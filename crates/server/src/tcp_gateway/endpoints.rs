//! Where a gateway may pass connections to: what the flags name, or what DNS does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use client::srv::{Dns, NoEndpoints, Target, client_targets};
use tls::{ClientPolicy, Protocols};
use tokio::net::TcpStream;

use super::{Discovery, GatewayError, Settings};
use crate::logging::List;

/// How long an endpoint of DNS has to accept a connection.
const VALIDATE_TIME_MAX: Duration = Duration::from_secs(5);

/// The endpoints of DNS, else those of the flags.
pub(super) async fn find(settings: &Settings, dns: &Dns) -> Result<Vec<Target>, GatewayError> {
    if let Some(discovery) = &settings.discovery {
        let found = discover(discovery, dns).await?;
        if !found.is_empty() {
            return Ok(found.into_iter().map(|(_, target)| target).collect());
        }
    }
    settings.endpoints.iter().map(|endpoint| parse(endpoint)).collect()
}

/// An endpoint of the flags, as a URL or as host and port.
fn parse(endpoint: &str) -> Result<Target, GatewayError> {
    let stripped = without_scheme(endpoint);
    let parsed = split(stripped).and_then(|(host, port)| {
        let port = port.parse().ok()?;
        Some(Target { priority: 0, host: host.to_owned(), port, weight: 0 })
    });
    parsed.ok_or_else(|| GatewayError::Endpoint(stripped.to_owned()))
}

/// The host and port of a URL; what is no URL stays as it is.
fn without_scheme(endpoint: &str) -> &str {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return endpoint };
    let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if is_scheme && !host.is_empty() { host } else { endpoint }
}

/// Host and port, the host without the brackets of IPv6.
pub(super) fn split(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

/// The reverse of [`split`].
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The addresses of a host; `None` if nobody knows it.
pub(super) async fn resolve(host: &str) -> Option<Vec<IpAddr>> {
    if host.is_empty() {
        return None;
    }
    let found = tokio::net::lookup_host((host, 0)).await.ok()?;
    let addresses: Vec<_> = found.map(|address| address.ip()).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Whether a connection to `endpoint` arrives where `own` listens, if the ports are the same.
pub(super) fn meet(own: IpAddr, endpoint: IpAddr) -> bool {
    if endpoint.is_unspecified() {
        // A connection to no address in particular goes to this machine.
        return own.is_unspecified() || own.is_loopback();
    }
    let is_here = || UdpSocket::bind((endpoint, 0)).is_ok();
    own == endpoint || own.is_unspecified() && takes(own, endpoint) && is_here()
}

/// Whether a socket for all addresses has this kind among them.
fn takes(all: IpAddr, one: IpAddr) -> bool {
    all == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        || all == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && one.is_ipv4()
}

/// An endpoint with the scheme it is found under.
pub(super) type Found = (&'static str, Target);

/// The endpoints of DNS that count, perhaps none.
pub(super) async fn discover(discovery: &Discovery, dns: &Dns) -> Result<Vec<Found>, NoEndpoints> {
    let Discovery { domain, service_name, .. } = discovery;
    let found = client_targets(dns, domain, service_name).await?;
    let urls = || List::of(found.iter().map(url));
    tracing::info!("srv-server" = domain, endpoints = ?urls(), "discovered cluster from SRV");
    if discovery.insecure {
        return Ok(found);
    }
    tracing::info!("srv-server" = domain, endpoints = ?urls(), "validating discovered SRV endpoints");
    let (validated, failures) = validate(discovery, found).await;
    let endpoints = List::of(validated.iter().map(url));
    if failures.is_empty() {
        tracing::info!(
            "srv-server" = domain,
            ?endpoints,
            "using validated discovered SRV endpoints"
        );
    } else {
        tracing::warn!(
            "srv-server" = domain,
            ?endpoints,
            error = failures.join(","),
            "failed to validate discovered endpoints"
        );
    }
    Ok(validated)
}

/// A URL of it.
pub(super) fn url((scheme, target): &Found) -> String {
    format!("{scheme}://{}", join(&target.host, target.port))
}

/// Those that have TLS by their records and are there, and what is wrong with the others. As etcd
/// does it, nobody looks at a certificate here: whoever speaks TLS with them does.
async fn validate(discovery: &Discovery, found: Vec<Found>) -> (Vec<Found>, Vec<String>) {
    let settings = tls::Settings {
        trusted_ca_file: discovery.trusted_ca_file.clone(),
        server_name: Some(discovery.domain.clone()),
        ..tls::Settings::default()
    };
    if let Err(error) = ClientPolicy::new(&settings, Protocols::Unsaid) {
        return (Vec::new(), vec![tls::describe_policy_error(&error)]);
    }
    let (mut validated, mut failures) = (Vec::new(), Vec::new());
    for found in found {
        let (url, (scheme, target)) = (url(&found), &found);
        if *scheme != "https" {
            failures.push(format!("{url:?} is insecure"));
            continue;
        }
        let dialing = tokio::time::timeout(VALIDATE_TIME_MAX, dial(target)).await;
        match dialing.unwrap_or_else(|_| Err("i/o timeout".to_owned())) {
            Ok(()) => validated.push(found),
            Err(why) => failures.push(format!("{url:?} failed to dial ({why})")),
        }
    }
    (validated, failures)
}

async fn dial(target: &Target) -> Result<(), String> {
    let address = join(&target.host, target.port);
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await;
    stream.map(drop).map_err(|error| super::error::dial_text(&address, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::srv::tests::dns;

    fn settings(endpoints: &[&str], discovery: Option<Discovery>) -> Settings {
        Settings {
            listen_address: "127.0.0.1:23790".to_owned(),
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            discovery,
            retry_delay: Duration::from_secs(60),
        }
    }

    /// SRV-175.
    #[test]
    fn endpoints_are_urls_or_hosts_with_ports() {
        for (given, address) in [
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("http://etcd.test:2379", "etcd.test:2379"),
            ("https://user:word@[::1]:2/path?x#y", "[::1]:2"),
            ("localhost:1", "localhost:1"),
        ] {
            let target = parse(given).unwrap();
            assert_eq!(join(&target.host, target.port), address);
        }
        for (given, quoted) in [
            ("bad", "bad"),
            ("::1:2", "::1:2"),
            ("http://a", "a"),
            ("a:b", "a:b"),
            ("a:70000", "a:70000"),
            ("[::1:2", "[::1:2"),
        ] {
            let expected = format!("error parsing endpoint \"{quoted}\"");
            assert_eq!(parse(given).unwrap_err().to_string(), expected);
        }
    }

    /// N13.
    #[test]
    fn a_gateway_to_itself_is_found_out() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (own, endpoint, same) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("::", "127.0.0.1", true),
            ("0.0.0.0", "0.0.0.0", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0", "::1", false),
            // An address for documents: no machine has it.
            ("0.0.0.0", "192.0.2.1", false),
        ] {
            assert_eq!(meet(ip(own), ip(endpoint)), same, "{own} {endpoint}");
        }
    }

    /// SRV-175, SRV-193.
    #[tokio::test]
    async fn members_are_found_in_dns() {
        let dns = dns().await;
        let discovery = |domain: &str, insecure| Discovery {
            domain: domain.to_owned(),
            service_name: String::new(),
            insecure,
            trusted_ca_file: Some("no such file".into()),
        };
        let given = settings(&["given.test:1"], Some(discovery("example.test", true)));
        let found = find(&given, &dns).await.unwrap();
        let record = Target { priority: 1, host: "one.example.test".into(), port: 2379, weight: 1 };
        assert_eq!(found, [record]);
        // Nobody passes without authorities; then the flags count, as in etcd.
        let given = settings(&["given.test:1"], Some(discovery("example.test", false)));
        let found = find(&given, &dns).await.unwrap();
        assert_eq!(found[0].host, "given.test");
        let given = settings(&[], Some(discovery("nowhere.test", false)));
        let error = find(&given, &dns).await.unwrap_err();
        assert!(error.to_string().starts_with("dns lookup errors: "), "{error}");
    }
}
