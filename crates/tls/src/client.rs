//! A dialer's side of a handshake.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::error::{FileKind, PolicyError};
use crate::identity::seconds;
use crate::key_pair::KeyPair;
use crate::reload::Reloaded;
use crate::roots::{Roots, Trusted};
use crate::settings::Settings;
use crate::suites::Choice;
use crate::verify::{Allowed, ServerCheck};
use crate::words;

/// A connection to a server that passed.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// What a dialer says that it will speak inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// Nothing: members among themselves, who speak HTTP/1.1.
    Unsaid,
    /// HTTP/2: gRPC.
    Http2,
}

/// How a dialer treats servers; clones share it.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    shared: Arc<Shared>,
}

struct Shared {
    choice: Choice,
    pair: Option<Reloaded<KeyPair>>,
    /// `None` if any server is accepted.
    roots: Option<Reloaded<Roots>>,
    allowed: Allowed,
    server_name: Option<String>,
    protocols: Protocols,
    built: Mutex<Option<Built>>,
}

struct Built {
    pair: Option<Arc<KeyPair>>,
    roots: Option<Arc<Roots>>,
    until: i64,
    config: Arc<ClientConfig>,
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct ConnectError {
    /// Why, in the words of Go's programs.
    pub words: String,
    /// The error itself.
    pub kind: io::ErrorKind,
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        Self::new(error.kind, error)
    }
}

impl ClientPolicy {
    /// Reads every file for the first time.
    ///
    /// # Errors
    ///
    /// A file that is missing or wrong, or settings that leave nothing to speak.
    pub fn new(settings: &Settings, protocols: Protocols) -> Result<Self, PolicyError> {
        let choice = Choice::new(settings)?;
        let pair = Self::pair(settings, &choice)?;
        let roots = if settings.skip_verification {
            None
        } else {
            Some(Roots::reloaded(settings.trusted_ca_file.as_deref())?)
        };
        let shared = Shared {
            choice,
            pair,
            roots,
            allowed: Allowed::new(settings),
            server_name: settings.server_name.clone().filter(|name| !name.is_empty()),
            protocols,
            built: Mutex::new(None),
        };
        shared.config()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The dialer's own pair, else the listener's.
    fn pair(
        settings: &Settings,
        choice: &Choice,
    ) -> Result<Option<Reloaded<KeyPair>>, PolicyError> {
        let text = |path: &Option<std::path::PathBuf>| {
            path.as_deref().unwrap_or_else(|| Path::new("")).display().to_string()
        };
        let own = (&settings.client_cert_file, &settings.client_key_file);
        let common = (&settings.cert_file, &settings.key_file);
        let (cert, key, kinds) = match (own, common) {
            ((Some(cert), Some(key)), _) => {
                (cert, key, (FileKind::ClientCertificate, FileKind::ClientKey))
            }
            ((None, None), (Some(cert), Some(key))) => {
                (cert, key, (FileKind::Certificate, FileKind::Key))
            }
            ((None, None), (None, None)) => return Ok(None),
            ((None, None), (cert, key)) => {
                return Err(PolicyError::HalfPair { key: text(key), cert: text(cert) });
            }
            ((cert, key), _) => {
                return Err(PolicyError::HalfClientPair { key: text(key), cert: text(cert) });
            }
        };
        let provider = choice.provider.clone();
        Ok(Some(KeyPair::reloaded((cert, kinds.0), (key, kinds.1), provider)?))
    }

    /// Makes the handshake with `host`, a name or an address without port. Not bounded in time.
    ///
    /// # Errors
    ///
    /// The server does not pass, or does not let us.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<ClientStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = &self.shared;
        let name = shared.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let failed = |words: String| ConnectError { words, kind: io::ErrorKind::InvalidInput };
        let name = ServerName::try_from(name)
            .map_err(|_| failed(format!("tls: {host:?} is no name that a certificate can have")))?;
        let config = shared.config().map_err(|error| failed(error.to_string()))?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        connecting
            .await
            .map_err(|error| ConnectError { words: words::describe(&error), kind: error.kind() })
    }
}

impl Shared {
    fn config(&self) -> Result<Arc<ClientConfig>, PolicyError> {
        let mut built = self.built.lock();
        let pair = self.pair.as_ref().map(Reloaded::current);
        let roots = self.roots.as_ref().map(Reloaded::current);
        let now = seconds(SystemTime::now());
        if let Some(built) = &*built
            && built.pair.as_ref().map(Arc::as_ptr) == pair.as_ref().map(Arc::as_ptr)
            && built.roots.as_ref().map(Arc::as_ptr) == roots.as_ref().map(Arc::as_ptr)
            && now < built.until
        {
            return Ok(built.config.clone());
        }
        let trusted = roots.as_deref().map(Trusted::now);
        let until = trusted.as_ref().map_or(i64::MAX, |trusted| trusted.until);
        let config = Arc::new(self.build(pair.as_deref(), trusted)?);
        *built = Some(Built { pair, roots, until, config: config.clone() });
        Ok(config)
    }

    fn build(
        &self,
        pair: Option<&KeyPair>,
        trusted: Option<Trusted>,
    ) -> Result<ClientConfig, PolicyError> {
        let Choice { provider, versions, .. } = &self.choice;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?;
        let check = match trusted {
            Some(trusted) => ServerCheck::new(trusted, provider.clone(), self.allowed.clone())?,
            None => ServerCheck::none(provider.clone()),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(check));
        let mut config = match pair {
            Some(pair) => {
                let resolver = SingleCertAndKey::from(pair.certified.clone());
                let resolver: Arc<dyn ResolvesClientCert> = Arc::new(resolver);
                builder.with_client_cert_resolver(resolver)
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match self.protocols {
            Protocols::Unsaid => Vec::new(),
            Protocols::Http2 => vec![b"h2".to_vec()],
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("pair", &self.pair)
            .field("roots", &self.roots)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
