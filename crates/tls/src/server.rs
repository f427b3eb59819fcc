//! A listener's side of a handshake.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{Acceptor, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;

use crate::error::{FileKind, PolicyError};
use crate::first::First;
use crate::identity::{Identity, seconds};
use crate::key_pair::KeyPair;
use crate::names::{self, ReverseLookup};
use crate::reload::Reloaded;
use crate::revocation::Revocations;
use crate::roots::{Roots, Trusted};
use crate::settings::Settings;
use crate::suites::Choice;
use crate::verify::{Allowed, ClientCheck};
use crate::words;

/// A handshake takes at most this long, with everything that is asked on the way (G24).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at the revocation list for a connection that goes on.
const REVOCATION_INTERVAL: Duration = Duration::from_secs(20);

/// A client that is told why it does not pass has this long to hear it, and says no more than it
/// may have said already.
const PARTING_TIMEOUT: Duration = Duration::from_millis(500);
const PARTING_READS_MAX: usize = 64;

/// What is spoken inside, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A connection that passed.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<First<S>>;

/// How a listener treats those who connect; clones share it.
#[derive(Clone, Debug)]
pub struct ServerPolicy {
    shared: Arc<Shared>,
}

struct Shared {
    choice: Choice,
    pair: Reloaded<KeyPair>,
    /// `None` if certificates are not asked for.
    roots: Option<Reloaded<Roots>>,
    revocations: Option<Arc<Reloaded<Revocations>>>,
    allowed: Allowed,
    check_client_address: bool,
    reverse: Option<Arc<dyn ReverseLookup>>,
    built: Mutex<Option<Built>>,
}

/// What the library is given, and from what it was made.
struct Built {
    pair: Arc<KeyPair>,
    roots: Option<Arc<Roots>>,
    until: i64,
    config: Arc<ServerConfig>,
}

/// A connection that passed, and who is at its other end.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: ServerStream<S>,
    /// Who, if certificates are demanded.
    pub identity: Option<Arc<Identity>>,
}

/// A connection that did not pass.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Rejection {
    /// The name that the client asked for.
    pub server_name: String,
    /// What its certificate says, if it showed one that could be verified.
    pub identity: Option<Arc<Identity>>,
    /// Why, in the words of Go's programs.
    pub cause: String,
    /// It only went away.
    pub is_end: bool,
}

impl ServerPolicy {
    /// Reads every file for the first time.
    ///
    /// # Errors
    ///
    /// A file that is missing or wrong, or settings that leave nothing to speak.
    pub fn new(settings: &Settings) -> Result<Self, PolicyError> {
        let choice = Choice::new(settings)?;
        let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) else {
            let text = |path: &Option<std::path::PathBuf>| {
                path.as_deref().unwrap_or_else(|| Path::new("")).display().to_string()
            };
            let (key, cert) = (text(&settings.key_file), text(&settings.cert_file));
            return Err(PolicyError::HalfPair { key, cert });
        };
        let certificate = (cert.as_path(), FileKind::Certificate);
        let key = (key.as_path(), FileKind::Key);
        let pair = KeyPair::reloaded(certificate, key, choice.provider.clone())?;
        let demands = settings.client_cert_auth || settings.trusted_ca_file.is_some();
        let roots = if demands {
            Some(Roots::reloaded(settings.trusted_ca_file.as_deref())?)
        } else {
            None
        };
        let revocations = settings.crl_file.as_deref().map(Revocations::reloaded).transpose()?;
        let shared = Shared {
            choice,
            pair,
            roots,
            revocations: revocations.map(Arc::new),
            allowed: Allowed::new(settings),
            check_client_address: settings.check_client_address,
            reverse: None,
            built: Mutex::new(None),
        };
        shared.config()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same, asking for the names of addresses where a certificate has only names.
    ///
    /// # Panics
    ///
    /// The policy has been cloned already.
    #[must_use]
    pub fn with_reverse_lookup(mut self, reverse: Arc<dyn ReverseLookup>) -> Self {
        let shared = Arc::get_mut(&mut self.shared).expect("nobody else has the policy yet");
        shared.reverse = Some(reverse);
        self
    }

    /// Makes the handshake with who connected from `remote` (`None` through a socket file).
    ///
    /// # Errors
    ///
    /// Whoever does not pass, or takes too long; the connection is gone.
    pub async fn accept<S>(
        &self,
        stream: First<S>,
        remote: Option<SocketAddr>,
    ) -> Result<Accepted<S>, Rejection>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = self.handshake(stream, remote);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await {
            Ok(ended) => ended,
            Err(_) => Err(Rejection::early("i/o timeout".to_owned(), false)),
        }
    }

    async fn handshake<S>(
        &self,
        stream: First<S>,
        remote: Option<SocketAddr>,
    ) -> Result<Accepted<S>, Rejection>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !stream.is_tls() {
            part(stream).await;
            return Err(Rejection::early(words::NOT_TLS.to_owned(), false));
        }
        let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let start = match Pin::new(&mut acceptor).await {
            Ok(start) => start,
            Err(error) => {
                if let Some(stream) = acceptor.take_io() {
                    part(stream).await;
                }
                return Err(Rejection::failed(&error, String::new()));
            }
        };
        let server_name = start.client_hello().server_name().unwrap_or_default().to_owned();
        let config = self.shared.config();
        let config = config.map_err(|error| Rejection::early(error.to_string(), false))?;
        let mut stream = match start.into_stream(config).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                part(stream).await;
                return Err(Rejection::failed(&error, server_name));
            }
        };
        let identity = stream.get_ref().1.peer_certificates().and_then(Identity::of).map(Arc::new);
        if let (true, Some(identity), Some(remote)) =
            (self.shared.check_client_address, &identity, remote)
        {
            let reverse = self.shared.reverse.as_deref();
            if let Err(error) = names::check(identity, remote.ip(), reverse).await {
                // Said in the stream itself; that it cannot be said any more changes nothing.
                let _gone = stream.shutdown().await;
                return Err(Rejection {
                    server_name,
                    identity: Some(identity.clone()),
                    cause: error.to_string(),
                    is_end: false,
                });
            }
        }
        Ok(Accepted { stream, identity })
    }

    /// Waits until a certificate is revoked that was good when its holder connected (A3). For ever
    /// if it never is.
    pub async fn revoked(&self, identity: &Identity) {
        let Some(revocations) = &self.shared.revocations else {
            return std::future::pending().await;
        };
        while revocations.current().check(&identity.serials).is_ok() {
            tokio::time::sleep(REVOCATION_INTERVAL).await;
        }
    }
}

/// Ends a connection so that the other end reads what was said to it: a connection that is closed
/// while bytes of its are unread is reset, and takes the last words with it.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let read_out = async {
        stream.shutdown().await?;
        let mut left = [0; 1024];
        for _ in 0..PARTING_READS_MAX {
            if stream.read(&mut left).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    // However it ends, it is over.
    let _ended = tokio::time::timeout(PARTING_TIMEOUT, read_out).await;
}

impl Shared {
    /// What the library is given for the next handshake.
    fn config(&self) -> Result<Arc<ServerConfig>, PolicyError> {
        let mut built = self.built.lock();
        let pair = self.pair.current();
        let roots = self.roots.as_ref().map(Reloaded::current);
        let now = seconds(SystemTime::now());
        if let Some(built) = &*built
            && Arc::ptr_eq(&built.pair, &pair)
            && built.roots.as_ref().map(Arc::as_ptr) == roots.as_ref().map(Arc::as_ptr)
            && now < built.until
        {
            return Ok(built.config.clone());
        }
        let trusted = roots.as_deref().map(Trusted::now);
        let until = trusted.as_ref().map_or(i64::MAX, |trusted| trusted.until);
        let config = Arc::new(self.build(&pair, trusted)?);
        *built = Some(Built { pair, roots, until, config: config.clone() });
        Ok(config)
    }

    fn build(&self, pair: &KeyPair, trusted: Option<Trusted>) -> Result<ServerConfig, PolicyError> {
        let Choice { provider, versions, ordered } = &self.choice;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?;
        let builder = match trusted {
            Some(trusted) => {
                let check = ClientCheck::new(
                    trusted,
                    provider.clone(),
                    self.allowed.clone(),
                    self.revocations.clone(),
                )?;
                builder.with_client_cert_verifier(Arc::new(check))
            }
            None => builder.with_no_client_auth(),
        };
        let resolver = SingleCertAndKey::from(pair.certified.clone());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(resolver);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        config.ignore_client_order = *ordered;
        // Every handshake looks at the certificates as they are now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl Rejection {
    fn early(cause: String, is_end: bool) -> Self {
        Self { server_name: String::new(), identity: None, cause, is_end }
    }

    fn failed(error: &io::Error, server_name: String) -> Self {
        let gone = [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ];
        let is_end = gone.contains(&error.kind());
        Self { server_name, identity: None, cause: words::describe(error), is_end }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("pair", &self.pair)
            .field("roots", &self.roots)
            .field("revocations", &self.revocations)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}
