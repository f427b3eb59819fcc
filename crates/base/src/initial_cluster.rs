//! The initial cluster: which members found the cluster, and at which peer URLs.
//!
//! `NAME=URL` separated by commas; a name may stand several times, once per URL. Read only when a
//! member has no data yet: a restart ignores it, wrong or not. Ids are derived elsewhere.
//! Source: etcd client/pkg/types/urlsmap.go, server/config/config.go (checks and texts).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use crate::member_url::{Address, MemberUrl, UrlError, join_urls};
use crate::quote::quote;

/// The addresses of a host and a port; `None` if nobody knows it.
pub type Resolve<'a> = dyn Fn(&str, u16) -> Option<Vec<SocketAddr>> + 'a;

/// Members by name, each with its peer URLs sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster {
    members: BTreeMap<String, Vec<MemberUrl>>,
}

/// Why a cluster string, or this member's place in it, is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A part without `=`.
    #[error("--initial-cluster expects NAME=URL, found {} at character {position}", quote(.part))]
    NotAPair {
        /// The part.
        part: String,
        /// From 1.
        position: usize,
    },
    /// A part with a wrong URL.
    #[error("{why} (in --initial-cluster, {} at character {position})", quote(.part))]
    Url {
        /// The part.
        part: String,
        /// From 1.
        position: usize,
        /// What is wrong.
        why: UrlError,
    },
    /// No member at all.
    #[error("initial cluster unset and no discovery endpoints found")]
    Unset,
    /// This member is not in it.
    #[error("couldn't find local name {} in the initial cluster configuration", quote(.name))]
    LocalNameMissing {
        /// `--name`.
        name: String,
        /// The names in it.
        names: String,
    },
    /// A URL of this member stands in the cluster only.
    #[error(
        "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised} ({why})"
    )]
    NotAdvertised {
        /// `NAME=URL`, separated by commas.
        missing: String,
        /// What is advertised.
        advertised: String,
        /// How they were compared.
        why: String,
    },
    /// A URL of this member is only advertised.
    #[error(
        "--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}"
    )]
    NotInCluster {
        /// URLs separated by commas.
        missing: String,
        /// This member as the cluster string should have it.
        cluster: String,
    },
    /// Two members, or one twice, at the same URL.
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
}

impl ClusterError {
    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NotAPair { .. } | Self::Url { .. } => {
                "write --initial-cluster like a=http://10.0.0.1:2380,b=http://10.0.0.2:2380".to_owned()
            }
            Self::Unset => "set --initial-cluster".to_owned(),
            Self::LocalNameMissing { names, .. } => {
                format!("forgot to set --initial-cluster? set --name to one of: {names}")
            }
            Self::NotAdvertised { .. } | Self::NotInCluster { .. } => {
                "forgot to set --initial-advertise-peer-urls? both flags must give the same URLs for this member".to_owned()
            }
            Self::DuplicateUrl(_) => "give every member URLs of its own".to_owned(),
        }
    }
}

impl InitialCluster {
    /// Reads a cluster string; an empty one is a cluster without members.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotAPair`] and [`ClusterError::Url`], with the place in the string.
    pub fn parse(text: &str) -> Result<Self, ClusterError> {
        let mut members: BTreeMap<String, Vec<MemberUrl>> = BTreeMap::new();
        let mut position = 1;
        for part in text.split(',') {
            let here = position;
            position += part.chars().count() + 1;
            if part.is_empty() {
                continue;
            }
            let (name, url) = part
                .split_once('=')
                .ok_or_else(|| ClusterError::NotAPair { part: part.to_owned(), position: here })?;
            let url = MemberUrl::parse(url).map_err(|why| ClusterError::Url {
                part: part.to_owned(),
                position: here,
                why,
            })?;
            members.entry(name.to_owned()).or_default().push(url);
        }
        for urls in members.values_mut() {
            urls.sort();
        }
        Ok(Self { members })
    }

    /// A cluster of one member.
    #[must_use]
    pub fn of(name: &str, urls: &[MemberUrl]) -> Self {
        let mut urls = urls.to_vec();
        urls.sort();
        Self { members: [(name.to_owned(), urls)].into() }
    }

    /// Names and peer URLs, in the order of the names.
    pub fn members(&self) -> impl Iterator<Item = (&str, &[MemberUrl])> {
        self.members.iter().map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// Whether it has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The peer URLs of one member.
    #[must_use]
    pub fn urls_of(&self, name: &str) -> Option<&[MemberUrl]> {
        self.members.get(name).map(Vec::as_slice)
    }

    /// Checks what a member that founds the cluster needs: itself, with exactly the URLs it
    /// advertises. Texts that differ are resolved by `resolve` before they count as different.
    ///
    /// # Errors
    ///
    /// The first of the other [`ClusterError`]s that applies.
    pub fn check_new(
        &self,
        name: &str,
        advertised: &[MemberUrl],
        resolve: &Resolve<'_>,
    ) -> Result<(), ClusterError> {
        if self.is_empty() {
            return Err(ClusterError::Unset);
        }
        let own = self.own_urls(name)?;
        let Err(why) = same_addresses(advertised, own, resolve) else {
            return Ok(());
        };
        let not_advertised: Vec<_> = own
            .iter()
            .filter(|url| !advertised.contains(url))
            .map(|url| format!("{name}={url}"))
            .collect();
        if !not_advertised.is_empty() {
            return Err(ClusterError::NotAdvertised {
                missing: not_advertised.join(","),
                advertised: join_urls(advertised),
                why,
            });
        }
        let not_in_cluster: Vec<_> =
            advertised.iter().filter(|url| !own.contains(url)).cloned().collect();
        // As etcd, which shows what the cluster should say.
        let cluster: Vec<_> = advertised.iter().map(|url| format!("{name}={url}")).collect();
        Err(ClusterError::NotInCluster {
            missing: join_urls(&not_in_cluster),
            cluster: cluster.join(","),
        })
    }

    /// Checks what a member that joins a running cluster needs: its name, and no URL twice.
    ///
    /// # Errors
    ///
    /// [`ClusterError::LocalNameMissing`] and [`ClusterError::DuplicateUrl`].
    pub fn check_joining(&self, name: &str) -> Result<(), ClusterError> {
        self.own_urls(name).map(|_| ())
    }

    fn own_urls(&self, name: &str) -> Result<&[MemberUrl], ClusterError> {
        let Some(own) = self.urls_of(name) else {
            let names: Vec<_> = self.members.keys().map(String::as_str).collect();
            return Err(ClusterError::LocalNameMissing {
                name: name.to_owned(),
                names: names.join(", "),
            });
        };
        let mut seen = BTreeSet::new();
        if self.members.values().flatten().any(|url| !seen.insert(url)) {
            return Err(ClusterError::DuplicateUrl(self.to_string()));
        }
        Ok(own)
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: BTreeSet<_> = self
            .members()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        f.write_str(&pairs.into_iter().collect::<Vec<_>>().join(","))
    }
}

/// Whether two lists, both sorted, lead to the same places.
///
/// # Errors
///
/// The difference in words.
pub fn same_addresses(
    left: &[MemberUrl],
    right: &[MemberUrl],
    resolve: &Resolve<'_>,
) -> Result<(), String> {
    if left == right {
        return Ok(());
    }
    if left.len() != right.len() {
        return Err(format!("len({}) != len({})", list(left), list(right)));
    }
    let resolved = |urls: &[MemberUrl]| -> Vec<String> {
        let mut texts: Vec<_> = urls.iter().map(|url| resolved_text(url, resolve)).collect();
        texts.sort();
        texts
    };
    let (left, right) = (resolved(left), resolved(right));
    match left.iter().zip(&right).find(|(a, b)| a != b) {
        None => Ok(()),
        Some((a, b)) => Err(format!("resolved urls: {} != {}", quote(a), quote(b))),
    }
}

/// The URL with its host replaced by the first address it resolves to, if any.
fn resolved_text(url: &MemberUrl, resolve: &Resolve<'_>) -> String {
    let Address::Tcp { host, port } = url.address() else {
        return url.to_string();
    };
    // As etcd: what it stands for is a matter of the machine that asks.
    if host == "localhost" {
        return url.to_string();
    }
    let address = url.socket_address().or_else(|| {
        let mut addresses = resolve(host, *port)?;
        addresses.sort();
        addresses.into_iter().next()
    });
    address
        .map_or_else(|| url.to_string(), |address| format!("{}://{address}", url.scheme().as_str()))
}

/// As Go prints a list of strings with `%q`.
fn list(urls: &[MemberUrl]) -> String {
    let quoted: Vec<_> = urls.iter().map(|url| quote(url.as_str())).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cluster: &str, name: &str, advertised: &str) -> Result<(), String> {
        let advertised = MemberUrl::parse_list(advertised).unwrap();
        let resolve = |host: &str, port: u16| match host {
            "a.example" => Some(vec![SocketAddr::new([10, 0, 0, 1].into(), port)]),
            _ => None,
        };
        InitialCluster::parse(cluster)
            .and_then(|cluster| cluster.check_new(name, &advertised, &resolve))
            .map_err(|error| error.to_string())
    }

    /// SRV-071: a name may stand once per URL.
    #[test]
    fn a_member_may_have_several_urls() {
        let text = "b=http://b:1,a=http://a:2,a=http://a:1,";
        let cluster = InitialCluster::parse(text).unwrap();
        let names: Vec<_> = cluster.members().map(|(name, urls)| (name, join_urls(urls))).collect();
        assert_eq!(
            names,
            [("a", "http://a:1,http://a:2".to_owned()), ("b", "http://b:1".to_owned())]
        );
        assert_eq!(cluster.to_string(), "a=http://a:1,a=http://a:2,b=http://b:1");
    }

    /// SRV-032, SRV-033, SRV-034, B4, B8, B24: texts measured on etcd 3.5.30.
    #[test]
    fn wrong_clusters_are_refused() {
        for (cluster, name, advertised, error) in [
            (
                "bad",
                "a",
                "http://1.1.1.1:1",
                "--initial-cluster expects NAME=URL, found \"bad\" at character 1",
            ),
            (
                "a=http://1.1.1.1:1,b=foo",
                "a",
                "http://1.1.1.1:1",
                "URL scheme must be http, https, unix, or unixs: foo (in --initial-cluster, \"b=foo\" at character 20)",
            ),
            ("", "a", "http://1.1.1.1:1", "initial cluster unset and no discovery endpoints found"),
            (
                "a=http://1.1.1.1:1",
                "c",
                "http://1.1.1.1:1",
                "couldn't find local name \"c\" in the initial cluster configuration",
            ),
            (
                "a=http://127.0.0.1:1",
                "a",
                "http://127.0.0.1:23801",
                "--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:23801 (resolved urls: \"http://127.0.0.1:23801\" != \"http://127.0.0.1:1\")",
            ),
            (
                "a=http://127.0.0.1:1,a=http://127.0.0.1:2",
                "a",
                "http://127.0.0.1:1",
                "--initial-cluster has a=http://127.0.0.1:2 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (len([\"http://127.0.0.1:1\"]) != len([\"http://127.0.0.1:1\" \"http://127.0.0.1:2\"]))",
            ),
            (
                "a=http://127.0.0.1:1",
                "a",
                "http://127.0.0.1:1,http://127.0.0.1:2",
                "--initial-advertise-peer-urls has http://127.0.0.1:2 but missing from --initial-cluster=a=http://127.0.0.1:1,a=http://127.0.0.1:2",
            ),
            (
                "a=http://1.1.1.1:1,b=http://1.1.1.1:1",
                "a",
                "http://1.1.1.1:1",
                "initial cluster a=http://1.1.1.1:1,b=http://1.1.1.1:1 has duplicate url",
            ),
        ] {
            assert_eq!(check(cluster, name, advertised).unwrap_err(), error);
        }
    }

    /// SRV-033: names are resolved before giving up.
    #[test]
    fn a_name_and_its_address_are_the_same_url() {
        assert_eq!(check("a=http://a.example:1", "a", "http://10.0.0.1:1"), Ok(()));
        assert!(check("a=http://b.example:1", "a", "http://10.0.0.1:1").is_err());
    }
}
