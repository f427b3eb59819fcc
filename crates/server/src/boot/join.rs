//! What a new member asks the members of a running cluster: who they are, and which version the
//! cluster has.
//!
//! Source: etcd server/etcdserver/cluster_util.go (`GetClusterFromRemotePeers`,
//! `isCompatibleWithCluster`), api/membership/cluster.go (`ValidateClusterAndAssignIDs`).

use std::time::Duration;

use base::initial_cluster::same_addresses;
use base::{ClusterId, MemberId, version};
use futures_util::future::join_all;
use serde::Deserialize;
use state::members::MemberObject;

use crate::config::{self, InitialCluster, MemberUrl};
use crate::peers::ask::{Answer, AskError, Asker, Question};

/// A running cluster, as one of its members describes it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) cluster: ClusterId,
    /// By id.
    pub(super) members: Vec<MemberObject>,
    /// Who described it.
    pub(super) url: String,
}

/// Why no member described its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody.
    #[error(
        "could not retrieve cluster information from the given URLs; --initial-cluster must name \
         a member that runs and can be reached"
    )]
    NoAnswer,
    /// The first that answered is in no cluster yet.
    #[error(
        "failed to get raft cluster member(s) from the given URLs; start this member again once \
         the others run"
    )]
    NoMembers,
}

/// Why the members that this one was told of are not those of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MismatchError {
    /// A member was not added, or not named.
    #[error(
        "member count is unequal: the cluster has {found} members, --initial-cluster {given}; add \
         this member to the cluster first (etcdctl member add) and name all members"
    )]
    Count {
        /// In the cluster.
        found: usize,
        /// In the flag.
        given: usize,
    },
    /// Another URL.
    #[error(
        "PeerURLs: no match found for existing member ({id}, [{urls}]), last resolver error \
         ({why}); --initial-cluster must give this member with exactly these URLs"
    )]
    NoMatch {
        /// Whom the cluster knows.
        id: MemberId,
        /// Where.
        urls: String,
        /// How it differs from the last member in the flag.
        why: String,
    },
}

/// Whether it is worth a line that a member does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// No: it is just starting, too.
    Expected,
    /// Yes.
    Told,
}

/// Why one answer to `/members` is none.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("failed to unmarshal cluster response (status {status})")]
    Members {
        status: http::StatusCode,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to parse cluster ID {0:?}")]
    ClusterId(String),
}

/// Asks everybody at once; the first answer in the order of `urls` counts.
pub(super) async fn fetch(
    asker: &Asker,
    urls: &[String],
    timeout: Duration,
    silence: Silence,
) -> Result<Found, FetchError> {
    let question = Question::get("/members", timeout);
    let answers = join_all(urls.iter().map(|url| asker.ask(url, &question))).await;
    for (url, answer) in urls.iter().zip(answers) {
        match answer.map_err(ReadError::Ask).and_then(|answer| read_members(&answer)) {
            Ok((_, members)) if members.is_empty() => return Err(FetchError::NoMembers),
            Ok((cluster, members)) => {
                return Ok(Found { cluster, members, url: url.clone() });
            }
            Err(error) => tell(url, &error, silence),
        }
    }
    Err(FetchError::NoAnswer)
}

/// The members of a running cluster, by id, as the first that answers knows them.
///
/// # Errors
///
/// Nobody answers, or who does is in no cluster.
pub(crate) async fn members_of(
    asker: &Asker,
    urls: &[String],
    timeout: Duration,
) -> Result<Vec<MemberObject>, FetchError> {
    fetch(asker, urls, timeout, Silence::Told).await.map(|found| found.members)
}

fn tell(url: &str, error: &ReadError, silence: Silence) {
    let address = format!("{url}/members");
    let error: &(dyn std::error::Error + 'static) = error;
    match silence {
        Silence::Expected => tracing::debug!(address, error, "no cluster found at a peer URL"),
        Silence::Told => tracing::warn!(address, error, "failed to get cluster response"),
    }
}

fn read_members(answer: &Answer) -> Result<(ClusterId, Vec<MemberObject>), ReadError> {
    let members: Result<Vec<MemberObject>, _> = serde_json::from_slice(&answer.body);
    let mut members =
        members.map_err(|source| ReadError::Members { status: answer.status, source })?;
    members.sort_by_key(|member| member.id);
    let header = answer.header("X-Etcd-Cluster-ID");
    let cluster =
        u64::from_str_radix(header, 16).map_err(|_| ReadError::ClusterId(header.to_owned()))?;
    Ok((ClusterId(cluster), members))
}

/// The id that the cluster gave this member. Both lists are in the order of ids.
pub(super) fn own_id(
    found: &[MemberObject],
    local: &[MemberObject],
    name: &str,
    cluster: &InitialCluster,
) -> Result<MemberId, MismatchError> {
    if found.len() != local.len() {
        return Err(MismatchError::Count { found: found.len(), given: local.len() });
    }
    let mut own = None;
    for member in found {
        let mut why = String::new();
        let same = local.iter().find(|given| {
            let given = cluster.urls_of(&given.name).unwrap_or_default();
            match same_urls(&member.peer_urls, given) {
                Ok(()) => true,
                Err(difference) => {
                    why = difference;
                    false
                }
            }
        });
        let Some(same) = same else {
            let urls = member.peer_urls.join(" ");
            return Err(MismatchError::NoMatch { id: member.id, urls, why });
        };
        if same.name == name {
            own = Some(member.id);
        }
    }
    own.ok_or_else(|| {
        // Two members of the cluster are at the same addresses, and this one at others.
        let given = local.iter().find(|given| given.name == name);
        let given = given.map(|given| given.peer_urls.join(" ")).unwrap_or_default();
        let id = found.first().map_or(MemberId::NONE, |member| member.id);
        let urls = found.first().map(|member| member.peer_urls.join(" ")).unwrap_or_default();
        MismatchError::NoMatch { id, urls, why: format!("nobody is at {given}") }
    })
}

/// Compares as text, then by address.
fn same_urls(found: &[String], given: &[MemberUrl]) -> Result<(), String> {
    let parsed: Result<Vec<MemberUrl>, _> = found.iter().map(|url| MemberUrl::parse(url)).collect();
    let mut found = parsed.map_err(|error| error.to_string())?;
    found.sort();
    same_addresses(&found, given, &config::resolve_host)
}

/// A cluster as etcd prints it in this place.
pub(super) fn describe(cluster: ClusterId, members: &[MemberObject]) -> String {
    let member = |member: &MemberObject| {
        format!(
            "&{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} \
             ClientURLs:[{}]}}}}",
            member.id,
            member.peer_urls.join(" "),
            member.is_learner,
            member.name,
            member.client_urls.join(" ")
        )
    };
    let members: Vec<String> = members.iter().map(member).collect();
    format!("{{ClusterID:{cluster} Members:[{}] RemovedMemberIDs:[]}}", members.join(" "))
}

/// What `/version` answers, as far as it counts here.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(default)]
    etcdcluster: String,
}

/// Whether this release may be a member: at least one other member says which version the cluster
/// has, and none says one that this release cannot be in.
///
/// # Errors
///
/// Why not.
pub(super) async fn check_versions(
    asker: &Asker,
    members: &[MemberObject],
    own: MemberId,
    timeout: Duration,
) -> Result<(), String> {
    let others: Vec<&MemberObject> = members.iter().filter(|member| member.id != own).collect();
    let range = Range::allowed(downgrade_enabled(asker, &others, timeout).await);
    let question = Question::get("/version", timeout);
    let asked = others.iter().map(|member| async {
        let urls = member.peer_urls.iter().map(String::as_str);
        let read = |answer: Answer| {
            serde_json::from_slice::<Versions>(&answer.body)
                .map_err(|source| ReadError::Members { status: answer.status, source })
        };
        asker.ask_each(urls, &question, read, |url, error| failed(member, url, &error)).await
    });
    let mut reasons = Vec::new();
    let mut compatible = false;
    for (member, versions) in others.iter().zip(join_all(asked).await) {
        let id = member.id;
        let Some(Versions { etcdcluster: text }) = versions else {
            reasons.push(format!("member {id} does not answer"));
            continue;
        };
        match parse_version(&text) {
            None => reasons.push(format!("member {id} has cluster version {text:?}")),
            Some(version) => {
                range.check(id, version, &text)?;
                compatible = true;
            }
        }
    }
    if compatible { Ok(()) } else { Err(reasons.join(", ")) }
}

/// Whether the cluster goes back to an older version; the first member that answers knows.
async fn downgrade_enabled(asker: &Asker, others: &[&MemberObject], timeout: Duration) -> bool {
    let question = Question::get("/downgrade/enabled", timeout);
    for member in others {
        let urls = member.peer_urls.iter().map(String::as_str);
        let read = |answer: Answer| {
            let text = answer.text();
            match text.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                // etcd 3.4 does not know the question.
                _ => Err(ReadError::ClusterId(text)),
            }
        };
        let told = |url: &str, error| failed(member, url, &error);
        if let Some(enabled) = asker.ask_each(urls, &question, read, told).await {
            return enabled;
        }
    }
    false
}

fn failed(member: &MemberObject, url: &str, error: &ReadError) {
    let error: &(dyn std::error::Error + 'static) = error;
    tracing::warn!(
        address = url,
        "remote-member-id" = %member.id,
        error,
        "failed to reach the peer URL"
    );
}

/// Major, minor and patch.
type Version = (u64, u64, u64);

/// The cluster versions that this release can be in, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    min: Version,
    max: Version,
}

impl Range {
    fn allowed(downgrade_enabled: bool) -> Self {
        let parse = |text| parse_version(text).expect("a constant that is a version");
        let (major, minor, _) = parse(version::CLUSTER);
        if downgrade_enabled {
            let next = (major, minor + 1, 0);
            return Self { min: next, max: next };
        }
        Self { min: parse(version::MINIMUM_CLUSTER), max: (major, minor, 0) }
    }

    fn check(&self, member: MemberId, version: Version, text: &str) -> Result<(), String> {
        let (bound, what, limit, (major, minor, patch)) = if version < self.min {
            ("low", "minimum", "minimum-cluster-version-supported", self.min)
        } else if self.max < version {
            ("high", "maximum", "maximum-cluster-version-supported", self.max)
        } else {
            return Ok(());
        };
        let supported = format!("{major}.{minor}.{patch}");
        tracing::warn!(
            "remote-member-id" = %member,
            "remote-member-cluster-version" = text,
            limit,
            supported,
            "cluster version of remote member is not compatible; too {}",
            bound
        );
        Err(format!("member {member} has cluster version {text}, the {what} here is {supported}"))
    }
}

/// Reads `3.5.0`.
fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.splitn(3, '.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, urls: &[&str]) -> MemberObject {
        MemberObject {
            id: MemberId(id),
            peer_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..MemberObject::default()
        }
    }

    fn find(found: &[MemberObject], given: &str, name: &str) -> Result<MemberId, String> {
        let cluster = InitialCluster::parse(given).unwrap();
        let local: Vec<MemberObject> = cluster
            .members()
            .map(|(name, _)| MemberObject { name: name.to_owned(), ..member(0, &[]) })
            .collect();
        own_id(found, &local, name, &cluster).map_err(|error| error.to_string())
    }

    /// CB-14: texts of etcd 3.5.30.
    #[test]
    fn the_cluster_says_who_a_new_member_is() {
        let found = [member(7, &["http://10.0.0.2:1"]), member(9, &["http://10.0.0.1:1"])];
        let given = "a=http://10.0.0.1:1,b=http://10.0.0.2:1";
        assert_eq!(find(&found, given, "a"), Ok(MemberId(9)));
        assert_eq!(find(&found, given, "b"), Ok(MemberId(7)));
        let error = find(&found[..1], given, "a").unwrap_err();
        assert!(error.starts_with("member count is unequal: the cluster has 1 "), "{error}");
        let error = find(&found, "a=http://10.0.0.1:1,b=http://10.0.0.3:1", "b").unwrap_err();
        let expected = "PeerURLs: no match found for existing member (7, [http://10.0.0.2:1]), last \
                        resolver error (resolved urls: \"http://10.0.0.2:1\" != \
                        \"http://10.0.0.3:1\")";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn a_cluster_is_described_as_etcd_does() {
        let mut member = member(0xab, &["http://a:1", "http://b:1"]);
        member.name = "n".to_owned();
        assert_eq!(
            describe(ClusterId(0x1f), &[member]),
            "{ClusterID:1f Members:[&{ID:ab RaftAttributes:{PeerURLs:[http://a:1 http://b:1] \
             IsLearner:false} Attributes:{Name:n ClientURLs:[]}}] RemovedMemberIDs:[]}"
        );
    }

    /// CB-14, CB-56.
    #[test]
    fn only_known_cluster_versions_are_joined() {
        for (downgrade, text, good) in [
            (false, "2.3.0", false),
            (false, "3.0.0", true),
            (false, "3.4.0", true),
            (false, "3.7.0", true),
            (false, "3.8.0", false),
            (false, "4.0.0", false),
            (true, "3.7.0", false),
            (true, "3.8.0", true),
            (true, "3.9.0", false),
        ] {
            let version = parse_version(text).unwrap();
            let checked = Range::allowed(downgrade).check(MemberId(1), version, text);
            assert_eq!(checked.is_ok(), good, "{text} {downgrade}");
        }
        assert_eq!(parse_version("not_decided"), None);
        assert_eq!(parse_version("3.5"), None);
    }
}
