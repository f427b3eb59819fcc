//! What a certificate says about its holder.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::error::FileKind;
use crate::pem;

/// Who is at the other end, as its verified certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The subject's common name, empty without one. The last if there are several, as in etcd.
    pub common_name: String,
    /// Addresses it speaks for.
    pub ip_addresses: Vec<IpAddr>,
    /// Hosts it speaks for; `*.` may begin a name.
    pub dns_names: Vec<String>,
    /// Serial numbers of the certificates it showed, its own first, without leading zeros.
    pub serials: Vec<Vec<u8>>,
}

impl Identity {
    /// Reads the certificates that were shown; `None` without any.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let parsed = chain.iter().filter_map(parse);
        let mut identity = Self::from_certificate(&parse(chain.first()?)?);
        identity.serials = parsed.map(|certificate| serial(certificate.raw_serial())).collect();
        Some(identity)
    }

    /// Addresses and names as texts.
    pub(crate) fn names(&self) -> Vec<String> {
        let addresses = self.ip_addresses.iter().map(ToString::to_string);
        addresses.chain(self.dns_names.iter().cloned()).collect()
    }

    fn from_certificate(certificate: &X509Certificate<'_>) -> Self {
        let common_name = certificate.subject().iter_common_name().last();
        let common_name = common_name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        let mut identity = Self { common_name: common_name.to_owned(), ..Self::default() };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            if let GeneralName::DNSName(name) = name {
                identity.dns_names.push((*name).to_owned());
            } else if let GeneralName::IPAddress(bytes) = name {
                identity.ip_addresses.extend(address(bytes));
            }
        }
        identity
    }
}

/// The common name in the first certificate of a file, as [`Identity::common_name`]; `None` if it
/// cannot be read.
#[must_use]
pub fn common_name(file: &Path) -> Option<String> {
    let bytes = pem::read(file, FileKind::Certificate).ok()?;
    let chain = pem::certificates(&bytes).ok()?;
    Identity::of(&chain).map(|identity| identity.common_name)
}

/// Parses one certificate.
pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(certificate).ok().map(|(_, certificate)| certificate)
}

/// A number as lists and certificates both have it.
pub(crate) fn serial(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// When a certificate may be used, in seconds since 1970; both ends count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Validity {
    /// `None` for what is no certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        parse(certificate).map(|certificate| Self::from_certificate(&certificate))
    }

    pub(crate) fn from_certificate(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
    }

    pub(crate) fn contains(self, now: i64) -> bool {
        self.from <= now && now <= self.until
    }

    /// Warns of a certificate that others will refuse. B19, B25.
    pub(crate) fn warn(self, path: &Path) {
        let now = seconds(SystemTime::now());
        let path = path.display();
        if now < self.from {
            tracing::warn!(
                file = %path,
                "not-before" = date(self.from),
                "certificate not yet valid, host clock is {}",
                date(now)
            );
        } else if self.until < now {
            tracing::warn!(
                file = %path,
                "not-after" = date(self.until),
                "certificate has expired, host clock is {}",
                date(now)
            );
        }
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A time as Go writes it in its errors.
pub(crate) fn date(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}
