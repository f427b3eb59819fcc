//! Why a configuration that could be read is refused: exit code 1.
//!
//! The texts are etcd's wherever etcd has one, because scripts look for them; what to do about it
//! is a text of its own, which the log carries in the field `remedy`.

use std::io;
use std::path::PathBuf;

use super::duration::DurationError;
use super::file::FileError;
use super::gates::GateError;
use super::value::ValueError;
use crate::logging::RotationError;
use base::initial_cluster::ClusterError;
use base::quote::quote;

/// A configuration that is refused, with the values that disagree.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// An argument that is no flag.
    #[error("'{0}' is not a valid flag")]
    StrayArgument(String),
    /// A variable and a flag for the same setting.
    #[error(
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag)"
    )]
    Shadowed {
        /// The variable.
        variable: String,
        /// The flag, without dashes.
        flag: &'static str,
    },
    /// A variable's value cannot be understood.
    #[error("invalid value {} for {variable}: {why}", quote(.value))]
    Variable {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: Box<ValueError>,
        /// What may stand there.
        expects: String,
    },
    /// The configuration file is missing or wrong.
    #[error(transparent)]
    File(Box<FileError>),
    /// `--logger` names a form of logging that is gone or never was.
    #[error("{0}")]
    Logger(String),
    /// `--log-format` is unknown.
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    /// `default` beside other outputs.
    #[error("multi logoutput for \"default\" is not supported yet")]
    SeveralDefaultOutputs,
    /// The journal beside other outputs.
    #[error(
        "running with systemd/journal but other '--log-outputs' values ({0}) are configured with 'default'; override 'default' value with something else"
    )]
    JournalWithOthers(String),
    /// Rotation without exactly one file.
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationOutputs,
    /// The rotation's settings are no JSON object of numbers and booleans.
    #[error(transparent)]
    RotationConfig(#[from] RotationError),
    /// A host name to listen on.
    #[error("expected IP in URL for binding ({0})")]
    BindHost(String),
    /// An advertised peer URL without host.
    #[error("--initial-advertise-peer-urls {} must be \"host:port\" ({why})", quote(.urls))]
    AdvertisePeer {
        /// All of them.
        urls: String,
        /// What is wrong.
        why: String,
    },
    /// An advertised client URL without host.
    #[error(
        "--advertise-client-urls {} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})",
        quote(.urls)
    )]
    AdvertiseClient {
        /// All of them.
        urls: String,
        /// What is wrong.
        why: String,
    },
    /// The cluster's state is neither `new` nor `existing`.
    #[error("unexpected clusterState {}", quote(.0))]
    ClusterState(String),
    /// More than one way to find the cluster.
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\""
    )]
    SeveralBootstraps,
    /// Only half of what v3 discovery needs.
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    HalfDiscovery,
    /// An empty address of the discovery service.
    #[error("--discovery-endpoints must not contain empty endpoints")]
    EmptyDiscoveryEndpoint,
    /// No name.
    #[error("--name is empty")]
    EmptyName,
    /// A number that must not be 0.
    #[error("--{flag} must be >0 (set to {value})")]
    Zero {
        /// The flag.
        flag: &'static str,
        /// Its value with its unit.
        value: String,
    },
    /// A number below 0.
    #[error("--{flag} must be >=0 (set to {value})")]
    Negative {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// Elections would begin by chance.
    #[error(
        "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
    )]
    ElectionTooShort {
        /// Milliseconds.
        election: u64,
        /// Milliseconds.
        heartbeat: u64,
    },
    /// A failed leader would be noticed too late.
    #[error("--election-timeout[{election}ms] is too long, and should be set less than {max}ms")]
    ElectionTooLong {
        /// Milliseconds.
        election: u64,
        /// Milliseconds.
        max: u64,
    },
    /// Clients would not know where to connect.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseMissing,
    /// The mode is unknown, or empty.
    #[error("{}", if .0.is_empty() { "undefined auto-compaction-mode".to_owned() } else { format!("unknown auto-compaction-mode {}", quote(.0)) })]
    CompactionMode(String),
    /// The retention is neither a number nor a duration.
    #[error("error parsing CompactionRetention")]
    CompactionRetention {
        /// What is wrong.
        #[source]
        why: DurationError,
    },
    /// The retention is below 0.
    #[error("--auto-compaction-retention must be >=0 (set to {0})")]
    CompactionRetentionNegative(String),
    /// Fewer samples than none, or more than there are.
    #[error(
        "distributed tracing configurition is not valid: (tracing sampling rate must be {})",
        if *.0 < 0 { "positive" } else { "less than 1000000" }
    )]
    SamplingRate(i64),
    /// One gate needs another.
    #[error(
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
    )]
    PersistWithoutCheckpoint,
    /// A gate and its older name.
    #[error(
        "cannot specify both flags: --{flag}={value} and --feature-gates={gate}={gate_value} at the same time, please just use --feature-gates={gate}={gate_value}"
    )]
    GateTwice {
        /// The older name.
        flag: &'static str,
        /// Its value.
        value: bool,
        /// The gate.
        gate: &'static str,
        /// Its value in the list.
        gate_value: bool,
    },
    /// A gate list in the configuration file is wrong.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// No TLS version.
    #[error("unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)", quote(.0))]
    TlsVersion(String),
    /// The range is empty.
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsRange {
        /// Oldest.
        min: &'static str,
        /// Newest.
        max: &'static str,
    },
    /// TLS 1.3 chooses its suites itself.
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuitesWithTls13,
    /// No cipher suite has this name.
    #[error("unexpected TLS cipher suite {}", quote(.0))]
    CipherSuite(String),
    /// A client URL needs a certificate.
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme"
    )]
    ClientTlsMissing(String),
    /// A metrics URL needs a certificate.
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    MetricsTlsMissing,
    /// A peer URL needs a certificate.
    #[error("cannot listen on TLS for {0}: KeyFile and CertFile are not presented")]
    PeerTlsMissing(String),
    /// A certificate without key, or the reverse.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair {
        /// `--key-file` or `--peer-key-file`.
        key: String,
        /// `--cert-file` or `--peer-cert-file`.
        cert: String,
    },
    /// Both ways to tell allowed peers.
    #[error("--peer-cert-allowed-cn and --peer-cert-allowed-hostname cannot both be set")]
    AllowedTwice,
    /// The settings leave nothing to speak, or nobody to trust.
    #[error(transparent)]
    Tls(tls::PolicyError),
    /// A file that another flag names holds what it should, but not so that it can be used.
    #[error("cannot use --{flag} {}", .path.display())]
    TlsFile {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: tls::FileProblem,
    },
    /// A file that another flag names cannot be read.
    #[error("cannot read --{flag} {}", .path.display())]
    UnreadableFile {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that another flag names holds something else.
    #[error("--{flag} {} holds no {wanted}", .path.display())]
    WrongPem {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A key that only a password opens.
    #[error("--{flag} {} is encrypted", .path.display())]
    EncryptedKey {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The same URL for gRPC and for HTTP only.
    #[error(
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}"
    )]
    SharedClientUrl(String),
    /// The data folder cannot be used.
    #[error("cannot access data directory: {}", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Who tried, if the system says.
        uid: Option<u32>,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The data folder is a member's and a proxy's.
    #[error("invalid datadir; both member and proxy directories exist")]
    MemberAndProxy(PathBuf),
    /// The cluster string is wrong.
    #[error("error setting up initial cluster")]
    InitialCluster(#[source] Box<ClusterError>),
}

impl Refusal {
    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::StrayArgument(argument) => format!(
                "no argument may stand alone; write flags as --name=value (is '{argument}' the value of a boolean flag?)"
            ),
            Self::Shadowed { variable, flag } => format!("unset {variable} or leave out --{flag}"),
            Self::Variable { variable, expects, .. } => format!("set {variable} to {expects}"),
            Self::File(error) => error.remedy(),
            Self::BindHost(_) => "listen on an IP address, on 0.0.0.0 or [::] for all, or on localhost".to_owned(),
            Self::ClusterState(_) => "set --initial-cluster-state to new or existing".to_owned(),
            Self::EmptyName => "set --name to this member's name in --initial-cluster".to_owned(),
            Self::CompactionMode(_) => "set --auto-compaction-mode to periodic or revision".to_owned(),
            Self::CompactionRetention { .. } | Self::CompactionRetentionNegative(_) => {
                "set --auto-compaction-retention to 0 (off), hours such as 8, a duration such as 30m, or with --auto-compaction-mode=revision a number of revisions such as 10000".to_owned()
            }
            Self::ElectionTooShort { heartbeat, .. } => format!(
                "set --election-timeout to at least {}",
                heartbeat.saturating_mul(5)
            ),
            Self::ElectionTooLong { max, .. } => format!("set --election-timeout to at most {max}"),
            Self::AdvertiseMissing => "set --advertise-client-urls to the URLs clients connect to".to_owned(),
            Self::CipherSuite(_) => "use names such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, or leave --cipher-suites empty".to_owned(),
            Self::WrongPem { flag, wanted, .. } => {
                format!("set --{flag} to a PEM file with a {wanted}")
            }
            Self::EncryptedKey { path, .. } => format!(
                "store the key without password: openssl pkey -in {0} -out {0}.plain",
                path.display()
            ),
            Self::UnreadableFile { flag, .. } => format!("correct --{flag} or make the file readable"),
            Self::DataDir { path, uid, .. } => format!(
                "let user {} read, write and enter {} (mode 0700), or set --data-dir to another folder",
                uid.map_or_else(|| "this".to_owned(), |uid| uid.to_string()),
                path.display()
            ),
            Self::MemberAndProxy(path) => format!("move {} away", path.join("proxy").display()),
            Self::InitialCluster(error) => error.remedy(),
            Self::Logger(_) => "leave out --logger or set it to zap".to_owned(),
            Self::RotationConfig(_) => format!("write it like {}", super::DEFAULT_LOG_ROTATION),
            Self::Zero { flag, .. } | Self::Negative { flag, .. } => {
                let default = super::flags::find(flag).map_or("", |flag| flag.default);
                format!("leave out --{flag} for its default, {default}")
            }
            Self::SamplingRate(_) => {
                "set --distributed-tracing-sampling-rate to a number from 0 to 1000000".to_owned()
            }
            Self::HalfPair { .. } => "give both the key and the certificate".to_owned(),
            Self::TlsFile { flag, .. } => format!("make the file anew, or set --{flag} to another"),
            Self::ClientTlsMissing(_) | Self::MetricsTlsMissing | Self::PeerTlsMissing(_) => {
                "give the certificate and the key, or use an http URL".to_owned()
            }
            // These say themselves what to do.
            Self::LogFormat(_)
            | Self::SeveralDefaultOutputs
            | Self::JournalWithOthers(_)
            | Self::RotationOutputs
            | Self::AdvertisePeer { .. }
            | Self::AdvertiseClient { .. }
            | Self::SeveralBootstraps
            | Self::HalfDiscovery
            | Self::EmptyDiscoveryEndpoint
            | Self::PersistWithoutCheckpoint
            | Self::GateTwice { .. }
            | Self::Gate(_)
            | Self::TlsVersion(_)
            | Self::TlsRange { .. }
            | Self::CipherSuitesWithTls13
            | Self::AllowedTwice
            | Self::Tls(_)
            | Self::SharedClientUrl(_) => String::new(),
        }
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl From<ClusterError> for Refusal {
    fn from(error: ClusterError) -> Self {
        Self::InitialCluster(Box::new(error))
    }
}
