//! What a client is told before it connects.
//!
//! etcd: `client/v3/config.go`.

use std::path::PathBuf;
use std::time::Duration;

use tls::{ClientPolicy, PolicyError, Protocols};

/// Everything a [`crate::Client`] needs to know. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where members listen, as users write it; see [`crate::Endpoint::parse`].
    pub endpoints: Vec<String>,
    /// Wish for TLS where an endpoint's scheme leaves it open, and how it is spoken anywhere.
    pub tls: Option<TlsOptions>,
    /// Who asks.
    pub credentials: Option<Credentials>,
    /// Longest time to open a connection and to be authenticated.
    pub dial_timeout: Duration,
    /// Longest time of one call, retries included; `None` waits for ever.
    pub command_timeout: Option<Duration>,
    /// Silence after which a call's connection is probed; zero for never. At least ten seconds are
    /// used, because members cut off clients that probe more often.
    pub keep_alive_time: Duration,
    /// Probe connections without calls, too.
    pub keep_alive_without_calls: bool,
    /// Time a probe's answer may take.
    pub keep_alive_timeout: Duration,
    /// Largest request.
    pub request_bytes_max: usize,
    /// Largest response.
    pub response_bytes_max: usize,
    /// Bytes that a member may send on one call before they are read.
    pub stream_window_bytes: u32,
    /// The same for all calls of a connection together.
    pub connection_window_bytes: u32,
    /// Hears, when a call runs out of time, why the last attempt to connect failed.
    pub on_unreachable: fn(&str),
}

/// Files and switches of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The client's certificate.
    pub certificate: Option<PathBuf>,
    /// The certificate's key.
    pub key: Option<PathBuf>,
    /// Authorities that may have signed the server's certificate.
    pub authorities: Option<PathBuf>,
    /// The name that the server's certificate must carry, if not the endpoint's host.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub skip_verification: bool,
}

/// Who asks, and how it is proved.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Name and password, exchanged for a token when connecting.
    Password {
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
    /// A token made elsewhere.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    // Secrets stay out of logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(formatter, "Password({user:?})"),
            Self::Token(_) => write!(formatter, "Token"),
        }
    }
}

/// etcd's clients send no more by default: a member refuses more than 1.5 MiB anyway.
const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Windows of Go's gRPC client grow with the measured bandwidth; these are large enough for
/// snapshots on a local network.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

impl TlsOptions {
    fn settings(&self) -> tls::Settings {
        tls::Settings {
            cert_file: self.certificate.clone(),
            key_file: self.key.clone(),
            trusted_ca_file: self.authorities.clone(),
            server_name: self.server_name.clone(),
            skip_verification: self.skip_verification,
            ..tls::Settings::default()
        }
    }
}

impl Options {
    /// How TLS is spoken. Files are read.
    pub(crate) fn policy(&self) -> Result<ClientPolicy, PolicyError> {
        let settings = self.tls.as_ref().map(TlsOptions::settings).unwrap_or_default();
        ClientPolicy::new(&settings, Protocols::Http2)
    }

    /// The defaults of the command line for these endpoints.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            tls: None,
            credentials: None,
            dial_timeout: Duration::from_secs(2),
            command_timeout: Some(Duration::from_secs(5)),
            keep_alive_time: Duration::from_secs(2),
            keep_alive_without_calls: false,
            keep_alive_timeout: Duration::from_secs(6),
            request_bytes_max: REQUEST_BYTES_MAX,
            response_bytes_max: usize::MAX,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            on_unreachable: |_| {},
        }
    }

    /// The same for another set of endpoints.
    #[must_use]
    pub fn at(&self, endpoints: Vec<String>) -> Self {
        Self { endpoints, ..self.clone() }
    }

    /// The same with another limit on the time of each call.
    #[must_use]
    pub fn with_command_timeout(&self, timeout: Option<Duration>) -> Self {
        Self { command_timeout: timeout, ..self.clone() }
    }
}
