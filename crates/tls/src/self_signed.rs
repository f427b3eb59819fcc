//! A certificate that a member makes for itself, for encryption without identity (SRV-096).
//!
//! Made once: both files are kept and used again. Source: etcd client/pkg/transport/listener.go.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::identity::date;

/// Days of a year, as etcd counts them.
const YEAR_DAYS: i64 = 365;

/// The files of a self-made certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// It would never be valid.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    Validity,
    /// Making it failed.
    #[error("cannot make a self-signed certificate")]
    Make(#[from] rcgen::Error),
    /// It cannot be kept.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The certificate in `folder`, made if it is not there: for `hosts`, names or addresses, and for
/// some years from now.
///
/// # Errors
///
/// See [`SelfSignedError`].
pub fn self_signed(
    folder: &Path,
    hosts: &[String],
    validity_years: u64,
) -> Result<SelfSigned, SelfSignedError> {
    let years = i64::try_from(validity_years).unwrap_or(i64::MAX).min(1_000);
    if years == 0 {
        return Err(SelfSignedError::Validity);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SelfSignedError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let folder = fs::canonicalize(folder).map_err(failed(folder))?;
    let files = SelfSigned { cert_file: folder.join("cert.pem"), key_file: folder.join("key.pem") };
    if files.cert_file.exists() && files.key_file.exists() {
        return Ok(files);
    }
    let now = OffsetDateTime::now_utc();
    let until = now + Duration::days(years * YEAR_DAYS);
    tracing::warn!(
        "certificate-validity-bound-not-after" = date(until.unix_timestamp()),
        "automatically generate certificates"
    );
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512)?;
    let certificate = params(hosts, now, until)?.self_signed(&key)?;
    // The key first: a certificate without key is made anew.
    write(&files.key_file, 0o600, &key.serialize_pem()).map_err(failed(&files.key_file))?;
    tracing::info!(path = %files.key_file.display(), "created key file");
    write(&files.cert_file, 0o644, &certificate.pem()).map_err(failed(&files.cert_file))?;
    tracing::info!(path = %files.cert_file.display(), "created cert file");
    Ok(files)
}

fn params(
    hosts: &[String],
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = from;
    params.not_after = until;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    Ok(params)
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
