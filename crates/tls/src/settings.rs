//! What the flags say about one kind of connection, before any file is read.

use std::path::PathBuf;

/// A version of TLS; a later one is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Everything a policy needs to know. What is not given is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The certificate of a listener, and of a dialer that has no own.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The certificate of a dialer, if another one.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// Authorities; given to a listener, they also make it demand certificates. Without, those of
    /// the system.
    pub trusted_ca_file: Option<PathBuf>,
    /// Certificates no longer accepted by a listener.
    pub crl_file: Option<PathBuf>,
    /// A listener demands certificates.
    pub client_cert_auth: bool,
    /// A certificate must have one of these common names; empty for any.
    pub allowed_common_names: Vec<String>,
    /// A certificate must be valid for one of these hosts; empty for any.
    pub allowed_host_names: Vec<String>,
    /// The addresses and names in a client's certificate must fit where it connects from.
    pub check_client_address: bool,
    /// TLS 1.2 suites by Go's names, best first; empty for a good choice.
    pub cipher_suites: Vec<String>,
    /// Oldest version; `None` for TLS 1.2.
    pub version_min: Option<Version>,
    /// Newest version; `None` for the newest known.
    pub version_max: Option<Version>,
    /// A dialer accepts any certificate.
    pub skip_verification: bool,
    /// A dialer expects this name instead of the host it dials.
    pub server_name: Option<String>,
}
