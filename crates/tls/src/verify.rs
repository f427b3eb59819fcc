//! What both sides ask of the other's certificate: the library's checks of the chain, then etcd's
//! lists of names and of revoked certificates.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::chain::{self, Purpose, unix};
use crate::error::PolicyError;
use crate::identity::Identity;
use crate::reload::Reloaded;
use crate::revocation::Revocations;
use crate::roots::Trusted;
use crate::settings::Settings;

/// The names that are allowed.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    common_names: Vec<String>,
    host_names: Vec<String>,
}

impl Allowed {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            common_names: settings.allowed_common_names.clone(),
            host_names: settings.allowed_host_names.clone(),
        }
    }

    fn check(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let by_common_name = !self.common_names.is_empty();
        if !by_common_name && self.host_names.is_empty() {
            return Ok(());
        }
        let is_allowed = if by_common_name {
            let identity = Identity::of(std::slice::from_ref(end_entity)).unwrap_or_default();
            self.common_names.contains(&identity.common_name)
        } else {
            self.host_names.iter().any(|host| is_valid_for(end_entity, host))
        };
        // The other side is told of a bad certificate, as by etcd. The library itself always says
        // which name it expected.
        let refused = Error::InvalidCertificate(CertificateError::NotValidForName);
        if is_allowed { Ok(()) } else { Err(refused) }
    }
}

/// Whether a certificate speaks for a host name or address.
pub(crate) fn is_valid_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let (Ok(parsed), Ok(name)) =
        (ParsedCertificate::try_from(certificate), ServerName::try_from(host))
    else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// What is trusted, and how it is computed.
#[derive(Debug)]
struct Checks {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
    allowed: Allowed,
}

impl Checks {
    /// Without a valid root nobody can be trusted, and the reason is known.
    fn no_root(&self, time: UnixTime) -> Error {
        let error = match self.trusted.expired {
            Some(validity) if self.trusted.store.is_empty() => {
                if i64::try_from(time.as_secs()).is_ok_and(|now| now < validity.from) {
                    CertificateError::NotValidYetContext { time, not_before: unix(validity.from) }
                } else {
                    CertificateError::ExpiredContext { time, not_after: unix(validity.until) }
                }
            }
            Some(_) | None => CertificateError::UnknownIssuer,
        };
        Error::InvalidCertificate(error)
    }

    fn check_special(
        &self,
        end_entity: &CertificateDer<'_>,
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        chain::check(end_entity, &self.trusted.certificates, algorithms, purpose, now)
            .map_err(Error::InvalidCertificate)
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
        check: SignatureCheck,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if chain::is_special(certificate) {
            return chain::has_signed_handshake(certificate, message, signature, algorithms)
                .map(|()| HandshakeSignatureValid::assertion())
                .map_err(Error::InvalidCertificate);
        }
        check(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

type SignatureCheck = fn(
    &[u8],
    &CertificateDer<'_>,
    &DigitallySignedStruct,
    &rustls::crypto::WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error>;

/// A listener's check of clients.
#[derive(Debug)]
pub(crate) struct ClientCheck {
    checks: Checks,
    library: Option<Arc<dyn ClientCertVerifier>>,
    revocations: Option<Arc<Reloaded<Revocations>>>,
    hints: Vec<DistinguishedName>,
}

impl ClientCheck {
    pub(crate) fn new(
        trusted: Trusted,
        provider: Arc<CryptoProvider>,
        allowed: Allowed,
        revocations: Option<Arc<Reloaded<Revocations>>>,
    ) -> Result<Self, PolicyError> {
        let hints = trusted.store.subjects();
        let library = if trusted.store.is_empty() {
            None
        } else {
            let store = Arc::new(trusted.store.clone());
            let builder = WebPkiClientVerifier::builder_with_provider(store, provider.clone());
            Some(
                builder
                    .build()
                    .map_err(|error| PolicyError::Library(Error::General(error.to_string())))?,
            )
        };
        Ok(Self { checks: Checks { trusted, provider, allowed }, library, revocations, hints })
    }
}

impl ClientCertVerifier for ClientCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.library {
            _ if chain::is_special(end_entity) => {
                self.checks.check_special(end_entity, Purpose::Client, now)?;
            }
            Some(library) => {
                library.verify_client_cert(end_entity, intermediates, now)?;
            }
            None => return Err(self.checks.no_root(now)),
        }
        self.checks.allowed.check(end_entity)?;
        if let Some(revocations) = &self.revocations {
            let shown: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
            let identity = Identity::of(&shown).unwrap_or_default();
            revocations.current().check(&identity.serials).map_err(other)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checks.signature(message, certificate, signature, verify_tls12_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checks.signature(message, certificate, signature, verify_tls13_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.schemes()
    }
}

/// A dialer's check of servers.
#[derive(Debug)]
pub(crate) struct ServerCheck {
    checks: Checks,
    library: Option<Arc<WebPkiServerVerifier>>,
    skip: bool,
}

impl ServerCheck {
    /// Checks everything.
    pub(crate) fn new(
        trusted: Trusted,
        provider: Arc<CryptoProvider>,
        allowed: Allowed,
    ) -> Result<Self, PolicyError> {
        let library = if trusted.store.is_empty() {
            None
        } else {
            let store = Arc::new(trusted.store.clone());
            let builder = WebPkiServerVerifier::builder_with_provider(store, provider.clone());
            Some(
                builder
                    .build()
                    .map_err(|error| PolicyError::Library(Error::General(error.to_string())))?,
            )
        };
        Ok(Self { checks: Checks { trusted, provider, allowed }, library, skip: false })
    }

    /// Checks only that the server has the key of the certificate it shows.
    pub(crate) fn none(provider: Arc<CryptoProvider>) -> Self {
        let trusted = Trusted::nobody();
        let allowed = Allowed { common_names: Vec::new(), host_names: Vec::new() };
        Self { checks: Checks { trusted, provider, allowed }, library: None, skip: true }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.library {
            _ if chain::is_special(end_entity) => {
                self.checks.check_special(end_entity, Purpose::Server, now)?;
                let host = server_name.to_str();
                if !is_valid_for(end_entity, &host) {
                    let identity = Identity::of(std::slice::from_ref(end_entity));
                    let presented = identity.unwrap_or_default().names();
                    let expected = server_name.to_owned();
                    let error = CertificateError::NotValidForNameContext { expected, presented };
                    return Err(Error::InvalidCertificate(error));
                }
            }
            Some(library) => {
                library.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                )?;
            }
            None => return Err(self.checks.no_root(now)),
        }
        self.checks.allowed.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checks.signature(message, certificate, signature, verify_tls12_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.checks.signature(message, certificate, signature, verify_tls13_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.schemes()
    }
}
