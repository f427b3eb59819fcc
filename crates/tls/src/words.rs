//! Failed handshakes in the words of Go's programs, which scripts and tests look for.
//!
//! Not a decision: only what is written to logs and shown to users.

use std::error::Error as _;
use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::error::{FileError, FileProblem, PolicyError};
use crate::identity::date;

/// What Go's programs say about a handshake that failed so; other errors in their own words.
#[must_use]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library adds kinds, and the rest needs no words of its own"
)]
pub fn describe(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(inner) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => error.to_string(),
        };
    };
    // Only these have words of their own.
    if let Error::AlertReceived(alert) = inner {
        return format!("remote error: {}", alert_words(*alert));
    }
    if let Error::InvalidCertificate(error) = inner {
        return certificate_words(error);
    }
    if let Error::PeerIncompatible(error) = inner {
        return incompatible_words(error);
    }
    if matches!(inner, Error::NoCertificatesPresented) {
        return "tls: client didn't provide a certificate".to_owned();
    }
    if matches!(inner, Error::InvalidMessage(InvalidMessage::InvalidContentType)) {
        return NOT_TLS.to_owned();
    }
    format!("tls: {inner}")
}

/// Why a policy cannot be made, in one line, with Go's words where it has any.
#[must_use]
pub fn describe_policy_error(error: &PolicyError) -> String {
    let PolicyError::File(FileError { path, problem, .. }) = error else {
        return crate::reload::chain(error);
    };
    match problem {
        FileProblem::Read(source) => {
            let text = source.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            format!("open {}: {}", path.display(), text.to_lowercase())
        }
        FileProblem::Mismatch { .. } => format!("{problem}: {}", path.display()),
        FileProblem::TooLong { .. }
        | FileProblem::Pem(_)
        | FileProblem::Missing { .. }
        | FileProblem::Encrypted
        | FileProblem::Malformed { .. }
        | FileProblem::Key(_) => crate::reload::chain(error),
    }
}

/// What is said of somebody who speaks something else.
pub(crate) const NOT_TLS: &str = "tls: first record does not look like a TLS handshake";

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library adds kinds, and the rest needs no words of its own"
)]
fn certificate_words(error: &CertificateError) -> String {
    let unverified = |why: String| format!("tls: failed to verify certificate: x509: {why}");
    match error {
        CertificateError::UnknownIssuer => {
            unverified("certificate signed by unknown authority".to_owned())
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let (now, after) = (seconds(time.as_secs()), seconds(not_after.as_secs()));
            unverified(format!(
                "certificate has expired or is not yet valid: current time {now} is after {after}"
            ))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (now, before) = (seconds(time.as_secs()), seconds(not_before.as_secs()));
            unverified(format!(
                "certificate has expired or is not yet valid: current time {now} is before {before}"
            ))
        }
        // Given by the check of allowed names.
        CertificateError::NotValidForName => "client certificate authentication failed".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            unverified(name_words(expected, presented))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            unverified("certificate specifies an incompatible key usage".to_owned())
        }
        CertificateError::UnhandledCriticalExtension => {
            unverified("unhandled critical extension".to_owned())
        }
        CertificateError::BadSignature => unverified(
            "certificate signed by unknown authority (possibly because its signature is wrong)"
                .to_owned(),
        ),
        CertificateError::Other(error) => {
            let ours = error.source().map(ToString::to_string);
            ours.unwrap_or_else(|| error.to_string())
        }
        _ => format!("tls: failed to verify certificate: {error}"),
    }
}

/// The library writes a presented name as `DnsName("a")` or `IpAddress(127.0.0.1)`.
fn name_words(expected: &ServerName<'_>, presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_end_matches(')').trim_matches('"').to_owned()
    };
    let (addresses, names): (Vec<_>, Vec<_>) =
        presented.iter().map(bare).partition(|name| name.parse::<std::net::IpAddr>().is_ok());
    let host = expected.to_str();
    let is_address = matches!(expected, ServerName::IpAddress(_));
    let valid = if is_address { addresses } else { names };
    if !valid.is_empty() {
        return format!("certificate is valid for {}, not {host}", valid.join(", "));
    }
    if is_address {
        return format!(
            "cannot validate certificate for {host} because it doesn't contain any IP SANs"
        );
    }
    format!("certificate is not valid for any names, but wanted to match {host}")
}

fn seconds(seconds: u64) -> String {
    date(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn incompatible_words(error: &PeerIncompatible) -> String {
    let is_version = matches!(
        error,
        PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
    );
    if is_version {
        return "tls: client offered only unsupported versions".to_owned();
    }
    if matches!(error, PeerIncompatible::NoCipherSuitesInCommon) {
        return "tls: no cipher suite supported by both client and server".to_owned();
    }
    format!("tls: {error:?}")
}

/// Go's names of alerts.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library adds kinds, and the rest needs no words of its own"
)]
fn alert_words(alert: AlertDescription) -> String {
    let words = match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::RecordOverflow => "record overflow",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        AlertDescription::UnrecognisedName => "unrecognized name",
        _ => return format!("tls: alert({})", u8::from(alert)),
    };
    format!("tls: {words}")
}
