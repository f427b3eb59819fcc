//! The configuration as the server uses it: plain values with their units.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::gates::FeatureGates;
use crate::logging;
use base::initial_cluster::{ClusterError, InitialCluster, Resolve};
use base::member_url::MemberUrl;

// How large the database may become; state decides what it means.
pub use state::Quota;

/// Everything a member is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's name, never empty.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// Where it is reached.
    pub advertise: Advertise,
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// How it finds the cluster when it has no data.
    pub bootstrap: Bootstrap,
    /// What it keeps on disk.
    pub storage: Storage,
    /// What clients may ask for.
    pub limits: Limits,
    /// How history is forgotten.
    pub compaction: Compaction,
    /// What is logged.
    pub logging: Logging,
    /// Certificates.
    pub tls: Tls,
    /// Passwords and tokens.
    pub auth: Auth,
    /// What is served beside gRPC.
    pub http: Http,
    /// How much is measured.
    pub metrics: MetricsDetail,
    /// Checks, notices and feature gates.
    pub features: Features,
    /// Traces.
    pub tracing: Tracing,
    /// Whether it is a proxy rather than a member.
    pub proxy: Proxy,
}

impl Config {
    /// Checks this member's place in the cluster that it founds or joins. `resolve` finds the
    /// addresses of host names, see [`super::resolve_host`].
    ///
    /// # Errors
    ///
    /// [`ClusterError`].
    pub fn check_cluster(
        &self,
        cluster: &InitialCluster,
        resolve: &Resolve<'_>,
    ) -> Result<(), ClusterError> {
        match self.cluster.state {
            ClusterState::New => cluster.check_new(&self.name, &self.advertise.peers, resolve),
            ClusterState::Existing => cluster.check_joining(&self.name),
        }
    }

    /// The folder of the member's own files: `member` in the data folder.
    #[must_use]
    pub fn member_dir(&self) -> PathBuf {
        self.storage.data_dir.join("member")
    }

    /// The folder of the write-ahead log.
    #[must_use]
    pub fn wal_dir(&self) -> PathBuf {
        self.storage.wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// The time a request may take: queues, disk, and two elections.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.cluster.election_timeout()
    }
}

/// What a server does that shall be no member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// It is a member.
    Off,
    /// It forwards what only reads.
    Readonly,
    /// It forwards everything.
    On,
}

/// How requests of the second generation are forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Proxy {
    /// Whether they are.
    pub mode: ProxyMode,
    /// Whether they are if discovery finds that there are members enough.
    pub is_fallback: bool,
    /// For how long a member that does not answer is left out.
    pub failure_wait: Duration,
    /// Between two looks at the list of members.
    pub refresh_interval: Duration,
    /// Of connections to members.
    pub timeouts: ProxyTimeouts,
}

/// How long a proxy waits for members.
#[derive(Clone, Copy, Debug)]
pub struct ProxyTimeouts {
    /// To connect.
    pub dial: Duration,
    /// While nothing can be written.
    pub write: Duration,
    /// While nothing comes; `None` for ever.
    pub read: Option<Duration>,
}

/// Where a member listens. Hosts are IP addresses or `localhost`.
#[derive(Clone, Debug)]
pub struct Listen {
    /// For other members.
    pub peers: Vec<MemberUrl>,
    /// For clients.
    pub clients: Vec<MemberUrl>,
    /// For clients that speak HTTP only; if there are any, `clients` serve gRPC only.
    pub clients_http: Vec<MemberUrl>,
    /// For metrics and health alone.
    pub metrics: Vec<MemberUrl>,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
}

/// Where a member is reached.
#[derive(Clone, Debug)]
pub struct Advertise {
    /// By other members.
    pub peers: Vec<MemberUrl>,
    /// By clients.
    pub clients: Vec<MemberUrl>,
}

/// Whether the cluster is founded or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Founded.
    New,
    /// Joined.
    Existing,
}

impl ClusterState {
    /// As in the flag.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Existing => "existing",
        }
    }
}

/// The cluster a member belongs to.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag")]
pub struct Cluster {
    /// Whether a member without data founds or joins it.
    pub state: ClusterState,
    /// Mixed into ids.
    pub token: String,
    /// Time between heartbeats: one tick.
    pub heartbeat_interval: Duration,
    /// At least five.
    pub election_ticks: u32,
    /// After a start, wait for the last tick of an election timeout only.
    pub initial_election_tick_advance: bool,
    /// Ask for votes without a new term first.
    pub pre_vote: bool,
    /// Refuse changes that lose the quorum.
    pub strict_reconfig_check: bool,
    /// Most learners.
    pub learners_max: usize,
    /// Make a cluster of this member alone.
    pub force_new_cluster: bool,
    /// Time without data after which reading from a peer fails.
    pub peer_read_timeout: Duration,
    /// Time after which writing to a peer fails.
    pub peer_write_timeout: Duration,
}

impl Cluster {
    /// Time without heartbeat before an election: whole ticks.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        self.heartbeat_interval * self.election_ticks
    }
}

/// How a member without data finds its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// By the text of `--initial-cluster`, not yet understood: a restart ignores it.
    Static(String),
    /// By a v2 discovery URL.
    DiscoveryUrl {
        /// The URL.
        url: String,
        /// An HTTP proxy towards it, or empty.
        proxy: String,
    },
    /// By v3 discovery.
    Discovery(Box<Discovery>),
    /// By DNS.
    Srv {
        /// The domain.
        domain: String,
        /// Suffix of the service name, or empty.
        service_name: String,
    },
}

/// v3 discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Names the cluster.
    pub token: String,
    /// Of the service.
    pub endpoints: Vec<String>,
    /// To connect.
    pub dial_timeout: Duration,
    /// For one request.
    pub request_timeout: Duration,
    /// Between pings.
    pub keepalive_time: Duration,
    /// For the answer to a ping.
    pub keepalive_timeout: Duration,
    /// Without TLS.
    pub insecure_transport: bool,
    /// Without verification.
    pub insecure_skip_verify: bool,
    /// Certificate file, or empty.
    pub cert_file: String,
    /// Key file, or empty.
    pub key_file: String,
    /// File of authorities, or empty.
    pub ca_file: String,
    /// To log in, or empty.
    pub user: String,
    /// To log in, or empty.
    pub password: Secret,
}

impl Default for Discovery {
    /// The flags' defaults: no service, and how one would be asked.
    fn default() -> Self {
        Self {
            token: String::new(),
            endpoints: Vec::new(),
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            insecure_transport: true,
            insecure_skip_verify: false,
            cert_file: String::new(),
            key_file: String::new(),
            ca_file: String::new(),
            user: String::new(),
            password: Secret::default(),
        }
    }
}

/// Text that must not be logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, to be used and not to be shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is kept on disk.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Folder of all data.
    pub data_dir: PathBuf,
    /// Folder of the log, if it is another one.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries between two snapshots, at least 1.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_catchup_entries: u64,
    /// Snapshot files kept; `None` keeps all.
    pub snapshot_files_max: Option<u64>,
    /// Log files kept; `None` keeps all.
    pub wal_files_max: Option<u64>,
    /// Size of the database.
    pub quota: Quota,
    /// Longest time between commits.
    pub batch_interval: Duration,
    /// Most changes between commits.
    pub batch_operations_max: u64,
    /// Do not wait for the disk.
    pub unsafe_no_fsync: bool,
    /// Keep the process from being swapped out.
    pub memory_mlock: bool,
    /// Shrink the database at start if that frees so many bytes; `None` for never.
    pub bootstrap_defrag_threshold_bytes: Option<u64>,
}

/// How connections are kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Shortest time between a client's pings.
    pub client_interval_min: Duration,
    /// Between pings to an idle client; `None` sends none.
    pub interval: Option<Duration>,
    /// For the answer to a ping; `None` waits for ever.
    pub timeout: Option<Duration>,
}

/// What clients may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In one transaction.
    pub txn_operations_max: u64,
    /// Of one request.
    pub request_bytes_max: u64,
    /// Of one connection.
    pub concurrent_streams_max: u32,
    /// Pings.
    pub keep_alive: KeepAlive,
}

/// When history is forgotten by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// What is more revisions ago than this.
    Revision(u64),
}

/// How history is forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// By itself.
    pub auto: AutoCompaction,
    /// Revisions removed by one step.
    pub batch_revisions_max: u64,
    /// Between two steps.
    pub sleep_interval: Duration,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Where, how and from which level.
    pub settings: logging::Settings,
    /// A request that takes longer is logged.
    pub slow_request_min: Duration,
    /// An entry whose applying takes longer is logged.
    pub slow_apply_min: Duration,
}

impl Logging {
    /// Whether even unimportant lines are logged, which also opens some debugging pages.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.settings.level == logging::Level::Debug
    }
}

/// A version of TLS; a later one is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

impl TlsVersion {
    /// As in the flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "TLS1.2",
            Self::V13 => "TLS1.3",
        }
    }
}

/// Certificates for both kinds of listeners.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Clients.
    pub client: TransportSecurity,
    /// Other members.
    pub peer: TransportSecurity,
    /// TLS 1.2 suites by Go's names, best first; empty for a good choice.
    pub cipher_suites: Vec<String>,
    /// Oldest version.
    pub version_min: TlsVersion,
    /// Newest version; `None` for the newest known.
    pub version_max: Option<TlsVersion>,
    /// Of certificates made by the member itself.
    pub self_signed_validity_years: u64,
}

/// Certificates for one kind of listener. Files that are not given are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportSecurity {
    /// Certificate of the listener.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Certificate as a client.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// Authorities.
    pub trusted_ca_file: Option<PathBuf>,
    /// Revoked certificates.
    pub crl_file: Option<PathBuf>,
    /// Demand certificates.
    pub client_cert_auth: bool,
    /// Make a certificate.
    pub auto: bool,
    /// Names of which a certificate must carry one; empty for any.
    pub allowed_common_names: Vec<String>,
    /// Host names of which a certificate must carry one; empty for any.
    pub allowed_host_names: Vec<String>,
    /// Do not compare names with addresses.
    pub skip_client_san_verification: bool,
}

impl TransportSecurity {
    /// Whether there is no certificate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_none() && self.key_file.is_none()
    }
}

/// Passwords and tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    /// `simple`, or `jwt` with options.
    pub token: String,
    /// Of unused simple tokens.
    pub token_ttl: Duration,
    /// From 4 to 31.
    pub bcrypt_cost: u32,
}

/// What is served beside gRPC.
#[derive(Clone, Debug)]
pub struct Http {
    /// Origins; `*` for all.
    pub cors: Vec<String>,
    /// Host names; `*` for all.
    pub host_whitelist: Vec<String>,
    /// The v2 API.
    pub v2: bool,
    /// Below which keys of v3 those of v2 are, or empty.
    pub v2_over_v3: String,
    /// The JSON gateway.
    pub grpc_gateway: bool,
    /// Profiles.
    pub pprof: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Counters and gauges.
    Basic,
    /// Histograms of calls too.
    Extensive,
}

/// Checks, notices and feature gates.
#[derive(Clone, Debug)]
pub struct Features {
    /// Switches.
    pub gates: FeatureGates,
    /// Between comparisons of all members' data; `None` for never.
    pub corrupt_check_interval: Option<Duration>,
    /// Between comparisons of compacted data.
    pub compact_hash_check_interval: Duration,
    /// Between progress notices to watchers.
    pub watch_progress_interval: Duration,
    /// Between looks at the state of a downgrade.
    pub downgrade_check_interval: Duration,
}

/// Traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Whether they are sent.
    pub enabled: bool,
    /// Where to.
    pub address: String,
    /// Of the service.
    pub service_name: String,
    /// Of this member, or empty.
    pub instance_id: String,
    /// Kept of every million.
    pub samples_per_million: u32,
}
