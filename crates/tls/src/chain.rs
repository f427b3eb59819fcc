//! Certificates that Go takes and the library does not: those of version 1, which tools made for
//! decades and which say nothing about their use, and those that are authorities themselves, such
//! as a certificate that is its own and only authority.
//!
//! Such a certificate is accepted if it is trusted itself, or if a trusted one signed it. No chain
//! is built.

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::prelude::{X509Certificate, X509Version};

use crate::der;
use crate::identity::{Validity, parse};

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Client,
    Server,
}

/// A certificate that must be checked here, because the library would refuse it for its form.
pub(crate) fn is_special(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate)
        .is_some_and(|certificate| certificate.version() == X509Version::V1 || certificate.is_ca())
}

/// Whether a special certificate may be used at `now`.
pub(crate) fn check(
    end_entity: &CertificateDer<'_>,
    trusted: &[CertificateDer<'static>],
    algorithms: &WebPkiSupportedAlgorithms,
    purpose: Purpose,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let certificate = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
    check_validity(&certificate, now)?;
    if !is_for(&certificate, purpose) {
        return Err(CertificateError::InvalidPurpose);
    }
    let known = [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    ];
    let mut critical = certificate.extensions().iter().filter(|extension| extension.critical);
    if critical.any(|extension| !known.contains(&extension.oid)) {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    if trusted.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
        return Ok(());
    }
    let signed = der::signed(end_entity).ok_or(CertificateError::BadEncoding)?;
    for issuer in trusted.iter().filter_map(parse) {
        let is_issuer = issuer.subject().as_raw() == certificate.issuer().as_raw();
        if is_issuer && may_sign(&issuer) && has_signed(&issuer, &signed, algorithms) {
            return Ok(());
        }
    }
    Err(CertificateError::UnknownIssuer)
}

fn check_validity(
    certificate: &X509Certificate<'_>,
    time: UnixTime,
) -> Result<(), CertificateError> {
    let validity = Validity::from_certificate(certificate);
    let now = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    if now < validity.from {
        return Err(CertificateError::NotValidYetContext { time, not_before: unix(validity.from) });
    }
    if validity.until < now {
        return Err(CertificateError::ExpiredContext { time, not_after: unix(validity.until) });
    }
    Ok(())
}

/// Seconds since 1970 as the library has them; earlier is 1970.
pub(crate) fn unix(seconds: i64) -> UnixTime {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// A certificate that does not say what it is for is for everything.
fn is_for(certificate: &X509Certificate<'_>, purpose: Purpose) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => {
            let usage = usage.value;
            usage.any
                || match purpose {
                    Purpose::Client => usage.client_auth,
                    Purpose::Server => usage.server_auth,
                }
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

fn may_sign(issuer: &X509Certificate<'_>) -> bool {
    let may_sign = match issuer.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    let is_free =
        issuer.extensions().iter().all(|extension| extension.oid != OID_X509_EXT_NAME_CONSTRAINTS);
    may_sign && is_free && (issuer.version() == X509Version::V1 || issuer.is_ca())
}

fn has_signed(
    issuer: &X509Certificate<'_>,
    signed: &der::Signed<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let candidates = algorithms
        .all
        .iter()
        .filter(|algorithm| algorithm.signature_alg_id().as_ref() == signed.algorithm);
    is_signed(issuer, candidates, signed.message, signed.signature)
}

fn is_signed<'a>(
    signer: &X509Certificate<'_>,
    algorithms: impl Iterator<Item = &'a &'static dyn SignatureVerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Some((kind, key)) = der::public_key(signer.public_key().raw) else { return false };
    let mut fitting = algorithms.filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
    fitting.any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
}

/// Whether the holder of a special certificate signed the handshake.
pub(crate) fn has_signed_handshake(
    certificate: &CertificateDer<'_>,
    message: &[u8],
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), CertificateError> {
    let certificate = parse(certificate).ok_or(CertificateError::BadEncoding)?;
    let found = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
    let candidates = found.map_or(&[][..], |(_, candidates)| *candidates);
    if is_signed(&certificate, candidates.iter(), message, signature.signature()) {
        Ok(())
    } else {
        Err(CertificateError::BadSignature)
    }
}
