//! Who a member without a log is: a founder of a new cluster, or one that joins a cluster.
//!
//! A founder's identity comes from `--initial-cluster`, from DNS or from a discovery service alone;
//! the other founders are asked only whether there is such a cluster already. A joining member's
//! comes from the cluster. Where an answer decides, it is the first in the order of the URLs, so that
//! all members decide alike.
//! Source: etcd server/etcdserver/bootstrap.go (`bootstrapCluster`).

use std::time::Duration;

use base::{ClusterId, MemberId};
use state::members::{self, MemberObject, founders};
use storage::Origin;

use super::discovery::{self, DiscoveryError};
use super::join::{self, FetchError, MismatchError};
use super::v2_discovery;
use crate::config::{ClusterError, ClusterState, Discovery, InitialCluster};
use crate::peers::ask::Asker;

/// By which founders find each other.
#[derive(Clone, Debug)]
pub(crate) enum DiscoveryService {
    /// The v3 keys of another cluster.
    V3(Box<Discovery>),
    /// A token in the v2 keys of another cluster.
    V2 {
        /// The token's URL.
        url: String,
        /// An HTTP proxy towards it, or empty.
        proxy: String,
    },
}

/// How a member without a log finds out who it is.
#[derive(Clone, Debug)]
pub(crate) struct OriginOptions {
    /// This member's name.
    pub(crate) name: String,
    /// Whether it founds or joins.
    pub(crate) state: ClusterState,
    /// The members, this one among them; with discovery only this one.
    pub(crate) cluster: InitialCluster,
    /// Mixed into the ids of a new cluster.
    pub(crate) token: String,
    /// Where the other founders are found.
    pub(crate) discovery: Option<DiscoveryService>,
    /// How many learners a cluster may have.
    pub(crate) learners_max: usize,
    /// For a question to a member of the cluster that is joined.
    pub(crate) request_timeout: Duration,
}

/// Why a new member cannot know who it is, or may not be who it would be.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// CB-13.
    #[error(
        "member {member} has already been bootstrapped: {url} knows it, but its data directory is \
         empty; restore the data directory, or remove the member (etcdctl member remove {member}), \
         add it again and start it with --initial-cluster-state=existing"
    )]
    AlreadyBootstrapped {
        /// Who this member would be.
        member: MemberId,
        /// Who knows it.
        url: String,
    },
    /// B24.
    #[error(
        "cluster ID mismatch: {url} is a member of cluster {theirs}, but --initial-cluster and \
         --initial-cluster-token make this member one of cluster {ours}; correct them, or to join \
         the running cluster use etcdctl member add and --initial-cluster-state=existing"
    )]
    OtherCluster {
        /// Who answered.
        url: String,
        /// Its cluster.
        theirs: ClusterId,
        /// The one that was to be founded.
        ours: ClusterId,
    },
    /// CB-14.
    #[error("cannot fetch cluster info from peer urls")]
    Fetch(#[source] FetchError),
    /// CB-14.
    #[error("error validating peerURLs {cluster}")]
    Mismatch {
        /// The cluster as it is, in etcd's words.
        cluster: String,
        /// The difference.
        #[source]
        source: MismatchError,
    },
    /// CB-14.
    #[error("incompatible with current running cluster: {0}")]
    Incompatible(String),
    /// More than `--max-learners`.
    #[error(
        "membership: too many learner members in cluster; set --max-learners to at least {count}, \
         as on the other members"
    )]
    TooManyLearners {
        /// How many there are.
        count: usize,
    },
    /// Joining and discovering exclude each other.
    #[error(
        "discovery URL should not be set when joining existing initial cluster; leave out \
         --discovery, --discovery-token and --discovery-endpoints and set --initial-cluster"
    )]
    DiscoveringExisting,
    /// SRV-197.
    #[error("failed to join discovery cluster")]
    Discovery(#[source] DiscoveryError),
    /// What the discovery service says is no cluster.
    #[error("the cluster found by discovery")]
    Discovered(#[source] Box<ClusterError>),
    /// What the discovery service says is no cluster.
    #[error("discovery cluster {0} has duplicate url")]
    DiscoveredTwice(String),
    /// SRV-032.
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NameMissing(String),
}

/// How long the other founders have to say that they are running (etcd's `BootstrapTimeout`).
const FOUNDER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long each member of a running cluster has to say who is in it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Finds out who this member is.
///
/// # Errors
///
/// See [`OriginError`].
pub(crate) async fn find(options: &OriginOptions, asker: &Asker) -> Result<Origin, OriginError> {
    match options.state {
        ClusterState::Existing => find_joining(options, asker).await,
        ClusterState::New => find_founder(options, asker).await,
    }
}

async fn find_founder(options: &OriginOptions, asker: &Asker) -> Result<Origin, OriginError> {
    let mut members = founders(&options.cluster, &options.token);
    let own = own_id(&members, &options.name)?;
    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    let ours = members::cluster_id(&ids);
    let others = other_urls(&options.cluster, &options.name);
    if let Ok(found) = join::fetch(asker, &others, FOUNDER_TIMEOUT, join::Silence::Expected).await {
        // Nobody is told of a member before it has said where its clients find it.
        let knows = |member: &&MemberObject| member.id == own && !member.client_urls.is_empty();
        if found.members.iter().find(knows).is_some() {
            return Err(OriginError::AlreadyBootstrapped { member: own, url: found.url });
        }
        if found.cluster != ours {
            let (url, theirs) = (found.url, found.cluster);
            return Err(OriginError::OtherCluster { url, theirs, ours });
        }
    }
    if let Some(service) = &options.discovery {
        let text = discover(service, own, &options.cluster.to_string()).await;
        let text = text.map_err(OriginError::Discovery)?;
        let cluster = InitialCluster::parse(&text)
            .map_err(|source| OriginError::Discovered(Box::new(source)))?;
        match cluster.check_joining(&options.name) {
            Ok(()) => {}
            Err(ClusterError::DuplicateUrl(text)) => {
                return Err(OriginError::DiscoveredTwice(text));
            }
            Err(source) => return Err(OriginError::Discovered(Box::new(source))),
        }
        members = founders(&cluster, &options.token);
    }
    Ok(Origin::Founder { own, members })
}

async fn discover(
    service: &DiscoveryService,
    own: MemberId,
    config: &str,
) -> Result<String, DiscoveryError> {
    match service {
        DiscoveryService::V3(settings) => {
            tracing::info!("Bootstrapping cluster using v3 discovery.");
            discovery::join(settings, own, config).await
        }
        DiscoveryService::V2 { url, proxy } => {
            tracing::info!("Bootstrapping cluster using v2 discovery.");
            Ok(v2_discovery::join(url, proxy, own, config).await?)
        }
    }
}

async fn find_joining(options: &OriginOptions, asker: &Asker) -> Result<Origin, OriginError> {
    if options.discovery.is_some() {
        return Err(OriginError::DiscoveringExisting);
    }
    let others = other_urls(&options.cluster, &options.name);
    let found = join::fetch(asker, &others, JOIN_TIMEOUT, join::Silence::Told).await;
    let found = found.map_err(OriginError::Fetch)?;
    let local = founders(&options.cluster, &options.token);
    let own = join::own_id(&found.members, &local, &options.name, &options.cluster);
    let own = own.map_err(|source| OriginError::Mismatch {
        cluster: join::describe(found.cluster, &found.members),
        source,
    })?;
    join::check_versions(asker, &found.members, own, options.request_timeout)
        .await
        .map_err(OriginError::Incompatible)?;
    let count = found.members.iter().filter(|member| member.is_learner).count();
    if options.learners_max < count {
        return Err(OriginError::TooManyLearners { count });
    }
    Ok(Origin::Joining { own, cluster: found.cluster, members: found.members })
}

fn own_id(members: &[MemberObject], name: &str) -> Result<MemberId, OriginError> {
    members::founder(members, name).ok_or_else(|| OriginError::NameMissing(name.to_owned()))
}

/// The peer URLs of all but this member, sorted.
fn other_urls(cluster: &InitialCluster, name: &str) -> Vec<String> {
    let others = cluster.members().filter(|(other, _)| *other != name);
    let mut urls: Vec<String> =
        others.flat_map(|(_, urls)| urls.iter().map(ToString::to_string)).collect();
    urls.sort();
    urls
}
