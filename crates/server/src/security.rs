//! TLS of this member's ports and of its connections to other members, as the configuration says.
//!
//! How a handshake is judged is the business of the crate `tls`; here flags become its settings,
//! certificates are made for those who ask for it, and what is wrong with a file is told with the
//! flag that named it.
//!
//! Source: etcd server/embed/{config,etcd,serve}.go.

use std::sync::Arc;
use std::time::Duration;

use tls::{ClientPolicy, FileError, FileKind, FileProblem, PolicyError, Protocols, ServerPolicy};

use crate::config::{
    Address, Bootstrap, Config, MemberUrl, Refusal, TlsVersion, TransportSecurity,
};
use crate::logging::List;
use crate::peers::dial::PeerDial;
use crate::reverse::ReverseDns;

/// Both kinds of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// For clients and for metrics.
    Client,
    /// For other members.
    Peer,
}

/// The policies of a member; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    /// Of the client and metrics ports, if one has TLS.
    pub(crate) client: Option<ServerPolicy>,
    /// Of the peer ports, if one has TLS.
    pub(crate) peer: Option<ServerPolicy>,
    /// Of connections to other members; `None` if nobody could be trusted.
    dial: Option<ClientPolicy>,
}

/// Why a member has no policies.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A setting or a file.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot make its own certificate.
    #[error("failed to get {role} self-signed certs")]
    SelfSigned {
        /// `client` or `peer`.
        role: &'static str,
        /// Why.
        #[source]
        source: tls::SelfSignedError,
    },
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }

    fn given(self, config: &Config) -> &TransportSecurity {
        match self {
            Self::Client => &config.tls.client,
            Self::Peer => &config.tls.peer,
        }
    }

    /// Whether a port of this kind has TLS.
    fn is_needed(self, config: &Config) -> bool {
        let listen = &config.listen;
        let is_tls = |urls: &[MemberUrl]| urls.iter().any(|url| url.scheme().is_tls());
        match self {
            Self::Client => {
                is_tls(&listen.clients) || is_tls(&listen.clients_http) || is_tls(&listen.metrics)
            }
            Self::Peer => is_tls(&listen.peers),
        }
    }

    fn listens_on(self, config: &Config) -> Vec<&MemberUrl> {
        let listen = &config.listen;
        match self {
            Self::Client => listen.clients.iter().chain(&listen.clients_http).collect(),
            Self::Peer => listen.peers.iter().collect(),
        }
    }

    fn flag(self, kind: FileKind) -> &'static str {
        match (self, kind) {
            (Self::Client, FileKind::Certificate) => "cert-file",
            (Self::Client, FileKind::Key) => "key-file",
            (Self::Client, FileKind::ClientCertificate) => "client-cert-file",
            (Self::Client, FileKind::ClientKey) => "client-key-file",
            (Self::Client, FileKind::Authorities) => "trusted-ca-file",
            (Self::Client, FileKind::Revocations) => "client-crl-file",
            (Self::Peer, FileKind::Certificate) => "peer-cert-file",
            (Self::Peer, FileKind::Key) => "peer-key-file",
            (Self::Peer, FileKind::ClientCertificate) => "peer-client-cert-file",
            (Self::Peer, FileKind::ClientKey) => "peer-client-key-file",
            (Self::Peer, FileKind::Authorities) => "peer-trusted-ca-file",
            (Self::Peer, FileKind::Revocations) => "peer-crl-file",
        }
    }
}

/// Looks at every file that a port with TLS needs, before anything is opened or made. B13, B19.
///
/// # Errors
///
/// What is wrong, with the flag that named it.
pub(crate) fn check_files(config: &Config) -> Result<(), Refusal> {
    for role in [Role::Client, Role::Peer] {
        let given = role.given(config);
        // What it makes for itself is made later.
        if role.is_needed(config) && !given.is_empty() {
            let settings = settings(config, role, given);
            listener(role, &settings)?;
        }
    }
    if !config.tls.peer.is_empty() {
        dialer(config, &settings(config, Role::Peer, &config.tls.peer))?;
    }
    Ok(())
}

fn listener(role: Role, settings: &tls::Settings) -> Result<ServerPolicy, Refusal> {
    let policy = ServerPolicy::new(settings).map_err(|error| refusal(role, error))?;
    let policy = policy.with_reverse_lookup(Arc::new(ReverseDns));
    // etcd reads the pair of a dialer, too, even where the listener does not dial.
    let own = tls::Settings { skip_verification: true, ..settings.clone() };
    ClientPolicy::new(&own, Protocols::Unsaid).map_err(|error| refusal(role, error))?;
    Ok(policy)
}

fn dialer(config: &Config, settings: &tls::Settings) -> Result<ClientPolicy, Refusal> {
    let mut settings = settings.clone();
    if let (Bootstrap::Srv { domain, .. }, None) = (&config.bootstrap, &settings.trusted_ca_file) {
        settings.server_name = Some(domain.clone());
    }
    ClientPolicy::new(&settings, Protocols::Unsaid).map_err(|error| refusal(Role::Peer, error))
}

fn refusal(role: Role, error: PolicyError) -> Refusal {
    match error {
        PolicyError::File(FileError { kind, path, problem }) => {
            let flag = role.flag(kind);
            match problem {
                FileProblem::Read(source) => Refusal::UnreadableFile { flag, path, source },
                FileProblem::Missing { wanted } => Refusal::WrongPem { flag, path, wanted },
                FileProblem::Encrypted => Refusal::EncryptedKey { flag, path },
                problem @ (FileProblem::TooLong { .. }
                | FileProblem::Pem(_)
                | FileProblem::Malformed { .. }
                | FileProblem::Key(_)
                | FileProblem::Mismatch { .. }) => Refusal::TlsFile { flag, path, source: problem },
            }
        }
        PolicyError::HalfPair { key, cert } => Refusal::HalfPair { key, cert },
        error @ (PolicyError::HalfClientPair { .. }
        | PolicyError::NoSuite { .. }
        | PolicyError::NoAuthorities
        | PolicyError::Library(_)) => Refusal::Tls(error),
    }
}

/// The flags of one kind of port.
fn settings(config: &Config, role: Role, given: &TransportSecurity) -> tls::Settings {
    let version = |version| match version {
        TlsVersion::V12 => tls::Version::V12,
        TlsVersion::V13 => tls::Version::V13,
    };
    tls::Settings {
        cert_file: given.cert_file.clone(),
        key_file: given.key_file.clone(),
        client_cert_file: given.client_cert_file.clone(),
        client_key_file: given.client_key_file.clone(),
        trusted_ca_file: given.trusted_ca_file.clone(),
        crl_file: given.crl_file.clone(),
        client_cert_auth: given.client_cert_auth,
        allowed_common_names: given.allowed_common_names.clone(),
        allowed_host_names: given.allowed_host_names.clone(),
        check_client_address: role == Role::Peer && !given.skip_client_san_verification,
        cipher_suites: config.tls.cipher_suites.clone(),
        version_min: Some(version(config.tls.version_min)),
        version_max: config.tls.version_max.map(version),
        skip_verification: false,
        server_name: None,
    }
}

impl Security {
    /// Reads the files, or makes them.
    ///
    /// # Errors
    ///
    /// See [`SecurityError`].
    pub(crate) fn load(config: &Config) -> Result<Self, SecurityError> {
        let peer = prepared(config, Role::Peer)?;
        let client = prepared(config, Role::Client)?;
        if peer.cert_file.is_some() {
            log_start(config, Role::Peer, &peer);
        }
        let policy = |role: Role, settings: &tls::Settings| {
            role.is_needed(config).then(|| listener(role, settings)).transpose()
        };
        let dial = match dialer(config, &peer) {
            Ok(dial) => Some(dial),
            Err(error) if peer.cert_file.is_some() || Role::Peer.is_needed(config) => {
                return Err(error.into());
            }
            // Nobody needs it, most likely: then a missing file of the system must not matter.
            Err(_) => None,
        };
        let security =
            Self { client: policy(Role::Client, &client)?, peer: policy(Role::Peer, &peer)?, dial };
        if client.cert_file.is_some() {
            log_start(config, Role::Client, &client);
        }
        Ok(security)
    }

    /// How other members are reached, in at most `timeout`.
    pub(crate) fn dial(&self, timeout: Duration) -> PeerDial {
        PeerDial::new(timeout, self.dial.clone())
    }

    /// How the client ports of members are reached, in at most `timeout`: as one of their clients,
    /// with the flags about clients, or those about members if there are none (SRV-170).
    ///
    /// # Errors
    ///
    /// What is wrong with a file.
    pub(crate) fn dial_clients(
        &self,
        config: &Config,
        timeout: Duration,
    ) -> Result<PeerDial, SecurityError> {
        let given = &config.tls.client;
        if given.is_empty() && !given.auto {
            return Ok(self.dial(timeout));
        }
        let settings = tls::Settings {
            skip_verification: given.auto,
            ..settings(config, Role::Client, given)
        };
        let policy = ClientPolicy::new(&settings, Protocols::Unsaid);
        let policy = policy.map_err(|error| refusal(Role::Client, error))?;
        Ok(PeerDial::new(timeout, Some(policy)))
    }
}

/// The settings of one kind of port, with a certificate that was made if that is wished. SRV-096.
fn prepared(config: &Config, role: Role) -> Result<tls::Settings, SecurityError> {
    let given = role.given(config);
    if !given.auto {
        return Ok(settings(config, role, given));
    }
    let name = role.name();
    if !given.is_empty() {
        tracing::warn!("ignoring {name} auto TLS since certs given");
        return Ok(settings(config, role, given));
    }
    let folder = config.storage.data_dir.join("fixtures").join(name);
    let hosts: Vec<_> = role.listens_on(config).into_iter().map(host).collect();
    let years = config.tls.self_signed_validity_years;
    let made = tls::self_signed(&folder, &hosts, years)
        .map_err(|source| SecurityError::SelfSigned { role: name, source })?;
    let ignored = given.client_cert_auth || given.trusted_ca_file.is_some();
    if ignored || given.crl_file.is_some() {
        tracing::warn!(
            "with {name} auto TLS nobody is asked for a certificate; ignoring the flags about that"
        );
    }
    let files = TransportSecurity {
        cert_file: Some(made.cert_file.clone()),
        key_file: Some(made.key_file.clone()),
        client_cert_file: Some(made.cert_file),
        client_key_file: Some(made.key_file),
        ..TransportSecurity::default()
    };
    // Others made theirs in the same way: there is nothing to check them against.
    Ok(tls::Settings { skip_verification: true, ..settings(config, role, &files) })
}

/// The part before the port, as a certificate has it.
fn host(url: &MemberUrl) -> String {
    match url.address() {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.split(':').next().unwrap_or_default().to_owned()
        }
    }
}

fn log_start(config: &Config, role: Role, settings: &tls::Settings) {
    let text = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or_else(String::new, |path| path.display().to_string())
    };
    let info = format!(
        "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
        text(&settings.cert_file),
        text(&settings.key_file),
        text(&settings.client_cert_file),
        text(&settings.client_key_file),
        text(&settings.trusted_ca_file),
        settings.client_cert_auth,
        text(&settings.crl_file),
    );
    tracing::info!(
        "tls-info" = info,
        "cipher-suites" = ?List::of(&config.tls.cipher_suites),
        "starting with {} TLS",
        role.name()
    );
}
