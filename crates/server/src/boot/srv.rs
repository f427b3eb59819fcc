//! `--discovery-srv`: the founders of a cluster stand in DNS, under `_etcd-server-ssl._tcp.DOMAIN`
//! (https) and `_etcd-server._tcp.DOMAIN` (http).
//!
//! This member recognises itself by its address; the others get numbers as names until they say
//! theirs, which changes no id. The two services count together, and one of them is enough.
//! The lookup itself is the client library's, which finds a cluster for clients in the same way.
//! Source: etcd client/pkg/srv/srv.go, server/embed/config.go (`GetDNSClusterNames`).

use client::srv::{Dns, Target};

use crate::config::{Address, MemberUrl};

/// Why the records of a domain are no cluster for this member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrvError {
    /// No service has a record that can be used.
    #[error(
        "{0}; make SRV records for _etcd-server-ssl._tcp or _etcd-server._tcp of the domain that \
         --discovery-srv names"
    )]
    NoRecords(String),
    /// No record leads to this member.
    #[error(
        "cannot find local etcd member {0:?} in SRV records; one record must lead to a host and \
         port of --initial-advertise-peer-urls, under the service of its scheme"
    )]
    LocalMissing(String),
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

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    /// What a name server knows: names with their SRV records (host, port) and addresses.
    const ZONE: [(&str, &[(&str, u16)]); 7] = [
        ("_etcd-client-ssl._tcp.example.test", &[("one.example.test", 2379)]),
        ("_etcd-client-blue._tcp.example.test", &[("two.example.test", 2379)]),
        ("_etcd-server._tcp.example.test", &[("one.example.test", 2380), ("two.example.test", 1)]),
        ("_etcd-server-ssl._tcp.example.test", &[("two.example.test", 2)]),
        ("_etcd-server-blue._tcp.example.test", &[("gone.example.test", 9)]),
        ("_etcd-server._tcp.tls.test", &[("one.example.test", 2380)]),
        ("_etcd-server-ssl._tcp.only.test", &[("one.example.test", 2380)]),
    ];
    const HOSTS: [(&str, [u8; 4]); 2] =
        [("one.example.test", [10, 0, 0, 1]), ("two.example.test", [10, 0, 0, 2])];

    fn labels(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes
    }

    /// The answer to one question, of type 33 (SRV) or 1 (A).
    fn answer(query: &[u8]) -> Vec<u8> {
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
        let (mut name, mut at) = (Vec::new(), 12);
        while at < end {
            let len = usize::from(query[at]);
            name.push(String::from_utf8_lossy(&query[at + 1..=at + len]).into_owned());
            at += len + 1;
        }
        let name = name.join(".").to_lowercase();
        let kind = query[end + 2];
        let data: Vec<Vec<u8>> = match kind {
            33 => {
                let records = ZONE.iter().find(|(known, _)| *known == name);
                let encode = |(host, port): &(&str, u16)| {
                    [&[0, 1, 0, 1], &port.to_be_bytes()[..], &labels(host)].concat()
                };
                records.into_iter().flat_map(|(_, records)| records.iter().map(encode)).collect()
            }
            1 => {
                HOSTS.iter().filter(|(known, _)| *known == name).map(|(_, ip)| ip.into()).collect()
            }
            _ => Vec::new(),
        };
        let known = !data.is_empty() || HOSTS.iter().any(|(known, _)| *known == name);
        let code = if known { 0x80 } else { 0x83 };
        let count = u8::try_from(data.len()).unwrap();
        let mut bytes = [&query[..2], &[0x81, code, 0, 1, 0, count, 0, 0, 0, 0]].concat();
        bytes.extend(&query[12..end + 5]);
        for data in data {
            bytes.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    /// A name server of this test alone.
    pub(crate) async fn dns() -> Dns {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut query).await {
                let _sent = socket.send_to(&answer(&query[..len]), from).await;
            }
        });
        Dns::at(address)
    }

    /// CTL3-09, SRV-193.
    #[tokio::test]
    async fn clients_find_a_cluster_in_dns() {
        let dns = dns().await;
        let find = async |domain, service| client::srv::endpoints(&dns, domain, service).await;
        let found = find("example.test", "").await;
        assert_eq!(found, Ok(vec!["https://one.example.test:2379".to_owned()]));
        let found = find("example.test", "blue").await;
        assert_eq!(found, Ok(vec!["http://two.example.test:2379".to_owned()]));
        let nothing = find("nowhere.test", "").await.unwrap_err().to_string();
        let expected = "dns lookup errors: lookup _etcd-client-ssl._tcp.nowhere.test: ";
        assert!(nothing.starts_with(expected), "{nothing}");
        assert!(nothing.contains(" and lookup _etcd-client._tcp.nowhere.test: "), "{nothing}");
    }

    /// SRV-193, texts of etcd 3.5.30.
    #[tokio::test]
    async fn founders_are_found_in_dns() {
        let dns = dns().await;
        let find = async |domain, service, advertised: &str| {
            let urls = MemberUrl::parse_list(advertised).unwrap();
            find(&dns, domain, service, "me", &urls).await.map_err(|error| error.to_string())
        };
        let both = "0=https://two.example.test:2,me=http://one.example.test:2380,\
                    0=http://two.example.test:1";
        // By name and by address.
        for own in ["http://one.example.test:2380", "http://10.0.0.1:2380"] {
            assert_eq!(find("example.test", "", own).await.as_deref(), Ok(both));
        }
        // A member that DNS does not know is found missing later.
        let strangers = find("tls.test", "", "http://10.0.0.9:2380").await;
        assert_eq!(strangers.as_deref(), Ok("0=http://one.example.test:2380"));
        let mismatch = find("only.test", "", "http://10.0.0.1:2380").await.unwrap_err();
        let expected = "bootstrap at https://one.example.test:2380 from DNS for etcd-server-ssl has \
                        scheme mismatch with expected peer http://10.0.0.1:2380";
        assert!(mismatch.contains(expected), "{mismatch}");
        let nothing = find("nowhere.test", "", "http://10.0.0.1:2380").await.unwrap_err();
        for service in ["_etcd-server-ssl", "_etcd-server"] {
            let expected = format!("error querying DNS SRV records for {service} ");
            assert!(nothing.contains(&expected), "{nothing}");
        }
        let gone = find("example.test", "blue", "http://10.0.0.1:2380").await.unwrap_err();
        assert!(gone.contains("error querying DNS SRV records for _etcd-server-blue "), "{gone}");
    }
}
