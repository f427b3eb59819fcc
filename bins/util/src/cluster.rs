//! The members that a restored cluster begins with, from `--initial-cluster`.
//!
//! etcd: `client/pkg/types/urls.go`, `urlsmap.go`, `server/config/config.go` (rules and texts).

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs as _;

use base::MemberId;
use cli::quote::quote;
use state::members::{MemberObject, member_id};

/// Why there is no cluster.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClusterError {
    /// Neither http, https, unix nor unixs.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// http or https without a port.
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    /// http or https with something behind the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
    /// The member itself is missing.
    #[error("couldn't find local name {} in the initial cluster configuration", quote(.0.as_bytes()))]
    LocalName(String),
    /// The cluster knows URLs that the member does not advertise.
    #[error(
        "--initial-cluster has {missing} but missing from \
         --initial-advertise-peer-urls={advertised} ({why})"
    )]
    NotAdvertised {
        /// `name=url` of each.
        missing: String,
        /// What is advertised.
        advertised: String,
        /// What differs.
        why: String,
    },
    /// The member advertises URLs that the cluster does not know.
    #[error(
        "--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}"
    )]
    NotInCluster {
        /// The URLs.
        missing: String,
        /// The member with what it advertises.
        cluster: String,
    },
    /// Two members, or one twice, at one URL.
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
}

/// The members of a new cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Founders {
    /// By id.
    pub(crate) members: Vec<MemberObject>,
    /// Which of them is being restored.
    pub(crate) own: MemberId,
}

/// Names with their URLs in order.
type Cluster = BTreeMap<String, Vec<String>>;

impl Founders {
    /// Reads `cluster` and finds member `name`, which advertises `advertised`, in it.
    ///
    /// # Errors
    ///
    /// [`ClusterError`], looked for in etcd's order.
    pub(crate) fn read(
        name: &str,
        advertised: &str,
        cluster: &str,
        token: &str,
    ) -> Result<Self, ClusterError> {
        let advertised = urls(advertised.split(','))?;
        let cluster = parse(cluster)?;
        let own = cluster.get(name).ok_or_else(|| ClusterError::LocalName(name.to_owned()))?;
        require_same(name, &advertised, own)?;
        let mut seen = BTreeSet::new();
        if cluster.values().flatten().any(|url| !seen.insert(url)) {
            return Err(ClusterError::DuplicateUrl(pairs(&cluster)));
        }
        let own = member_id(own, token, None);
        let members = cluster.into_iter().map(|(name, peer_urls)| MemberObject {
            id: member_id(&peer_urls, token, None),
            name,
            peer_urls,
            ..MemberObject::default()
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|member| member.id);
        Ok(Self { members, own })
    }
}

fn parse(text: &str) -> Result<Cluster, ClusterError> {
    let mut raw: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        raw.entry(name).or_default().push(url);
    }
    raw.into_iter().map(|(name, list)| Ok((name.to_owned(), urls(list.into_iter())?))).collect()
}

fn urls<'a>(list: impl Iterator<Item = &'a str>) -> Result<Vec<String>, ClusterError> {
    let mut urls = list.map(url).collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    Ok(urls)
}

fn url(text: &str) -> Result<String, ClusterError> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    match scheme {
        "unix" | "unixs" => return Ok(text.to_owned()),
        "http" | "https" => {}
        _ => return Err(ClusterError::Scheme(text.to_owned())),
    }
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_len);
    let host = authority.rsplit_once(':').map(|(host, _)| host);
    // Without brackets a second colon leaves it open where the port begins.
    let is_host = |host: &str| !host.contains(':') || host.starts_with('[') && host.ends_with(']');
    if !host.is_some_and(is_host) {
        return Err(ClusterError::HostPort(text.to_owned()));
    }
    if !path.is_empty() {
        return Err(ClusterError::Path(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// A member must advertise exactly the URLs at which the others will look for it; names may stand for
/// addresses.
fn require_same(name: &str, advertised: &[String], own: &[String]) -> Result<(), ClusterError> {
    let Some(why) = difference(advertised, own) else { return Ok(()) };
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        of.iter().filter(|url| !from.contains(url)).cloned().collect()
    };
    let named = |urls: &[String]| {
        let pairs: Vec<_> = urls.iter().map(|url| format!("{name}={url}")).collect();
        pairs.join(",")
    };
    let not_advertised = missing(advertised, own);
    if !not_advertised.is_empty() {
        return Err(ClusterError::NotAdvertised {
            missing: named(&not_advertised),
            advertised: advertised.join(","),
            why,
        });
    }
    Err(ClusterError::NotInCluster {
        missing: missing(own, advertised).join(","),
        cluster: named(advertised),
    })
}

/// How two lists differ, once names are resolved; `None` if they do not.
fn difference(left: &[String], right: &[String]) -> Option<String> {
    if left == right {
        return None;
    }
    if left.len() != right.len() {
        return Some(format!("len({}) != len({})", list(left), list(right)));
    }
    let resolved = |urls: &[String]| {
        let mut urls: Vec<_> = urls.iter().map(|url| resolve(url)).collect();
        urls.sort();
        urls
    };
    let (left, right) = (resolved(left), resolved(right));
    let (left, right) = left.iter().zip(&right).find(|(left, right)| left != right)?;
    Some(format!("resolved urls: {} != {}", quote(left.as_bytes()), quote(right.as_bytes())))
}

/// The URL with the first address of its host, if it has one; `localhost` stays, as in etcd.
fn resolve(url: &str) -> String {
    let address = || {
        let (scheme, authority) = url.split_once("://")?;
        if scheme.starts_with("unix") || authority.starts_with("localhost:") {
            return None;
        }
        let address = authority.to_socket_addrs().ok()?.min()?;
        Some(format!("{scheme}://{address}"))
    };
    address().unwrap_or_else(|| url.to_owned())
}

/// As Go prints a list of strings with `%q`.
fn list(urls: &[String]) -> String {
    let quoted: Vec<_> = urls.iter().map(|url| quote(url.as_bytes())).collect();
    format!("[{}]", quoted.join(" "))
}

fn pairs(cluster: &Cluster) -> String {
    let pairs =
        cluster.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, advertised: &str, cluster: &str) -> String {
        Founders::read(name, advertised, cluster, "etcd-cluster").unwrap_err().to_string()
    }

    /// UTL-08.
    #[test]
    fn default_cluster_has_the_known_id() {
        let url = "http://localhost:2380";
        let cluster = "default=http://localhost:2380";
        let founders = Founders::read("default", url, cluster, "etcd-cluster").unwrap();
        assert_eq!(founders.own, MemberId(0x8e9e_05c5_2164_694d));
        let ids: Vec<_> = founders.members.iter().map(|member| member.id).collect();
        assert_eq!(state::members::cluster_id(&ids).0, 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn members_are_ordered_by_id_and_may_have_several_urls() {
        let cluster = "b=http://h:2,a=http://h:1,b=http://h:0";
        let founders = Founders::read("b", "http://h:2,http://h:0", cluster, "t").unwrap();
        assert!(founders.members[0].id < founders.members[1].id);
        let own = founders.members.iter().find(|member| member.id == founders.own).unwrap();
        assert_eq!((own.name.as_str(), own.peer_urls.len()), ("b", 2));
    }

    /// UTL-06, B23.
    #[test]
    fn refusals_are_etcds() {
        let local = "http://localhost:2380";
        assert_eq!(
            error("m1", local, "default=http://localhost:2380"),
            "couldn't find local name \"m1\" in the initial cluster configuration"
        );
        assert_eq!(
            error("default", local, "a="),
            "URL scheme must be http, https, unix, or unixs: "
        );
        assert_eq!(
            error("default", "http://localhost", ""),
            "URL address does not have the form \"host:port\": http://localhost"
        );
        assert_eq!(
            error("default", "http://localhost:1/a", ""),
            "URL must not contain a path: http://localhost:1/a"
        );
        assert_eq!(
            error("default", local, "default=http://1.2.3.4:1"),
            "--initial-cluster has default=http://1.2.3.4:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \
             \"http://localhost:2380\" != \"http://1.2.3.4:1\")"
        );
        assert_eq!(
            error("a", "http://h:1,http://h:2", "a=http://h:1"),
            "--initial-advertise-peer-urls has http://h:2 but missing from \
             --initial-cluster=a=http://h:1,a=http://h:2"
        );
        assert_eq!(
            error("a", "http://h:1", "b=http://h:1,a=http://h:1"),
            "initial cluster a=http://h:1,b=http://h:1 has duplicate url"
        );
    }
}
