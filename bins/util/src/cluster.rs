//! The members that a restored cluster begins with, from `--initial-cluster`.
//!
//! The rules are the server's (`base::initial_cluster`).

use std::net::{SocketAddr, ToSocketAddrs as _};

use base::{ClusterError, InitialCluster, MemberId, MemberUrl};
use state::members::{MemberObject, founders, member_id};

/// The members of a new cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Founders {
    /// By id.
    pub(crate) members: Vec<MemberObject>,
    /// Which of them is being restored.
    pub(crate) own: MemberId,
}

/// Why there is no cluster.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FoundersError {
    /// A URL in either flag.
    #[error(transparent)]
    Url(#[from] base::member_url::UrlError),
    /// `--initial-cluster`.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Founders {
    /// Reads `cluster` and finds member `name`, which advertises `advertised`, in it.
    ///
    /// # Errors
    ///
    /// [`FoundersError`], looked for in etcd's order.
    pub(crate) fn read(
        name: &str,
        advertised: &str,
        cluster: &str,
        token: &str,
    ) -> Result<Self, FoundersError> {
        let mut advertised =
            advertised.split(',').map(MemberUrl::parse).collect::<Result<Vec<_>, _>>()?;
        advertised.sort();
        let cluster = InitialCluster::parse(cluster).map_err(|error| match error {
            // The words of etcd's tool, which tell no place.
            ClusterError::Url { why, .. } => FoundersError::Url(why),
            other @ (ClusterError::NotAPair { .. }
            | ClusterError::Unset
            | ClusterError::LocalNameMissing { .. }
            | ClusterError::NotAdvertised { .. }
            | ClusterError::NotInCluster { .. }
            | ClusterError::DuplicateUrl(_)) => FoundersError::Cluster(other),
        })?;
        if cluster.is_empty() {
            let (name, names) = (name.to_owned(), String::new());
            return Err(ClusterError::LocalNameMissing { name, names }.into());
        }
        cluster.check_new(name, &advertised, &resolve)?;
        let members = founders(&cluster, token);
        let own = cluster.urls_of(name).expect("the member was just found in the cluster");
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        Ok(Self { members, own: member_id(&own, token, None) })
    }
}

fn resolve(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().ok().map(Iterator::collect)
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
