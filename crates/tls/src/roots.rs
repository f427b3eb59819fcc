//! Authorities that certificates are checked against.
//!
//! Go refuses a chain whose root has expired, the library here does not look: only roots that are
//! valid now are given to it.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::error::{FileError, FileKind, PolicyError};
use crate::identity::{Validity, seconds};
use crate::pem;
use crate::reload::{Content, Reloaded};

/// The authorities of one file.
#[derive(Debug, PartialEq)]
pub(crate) struct Roots {
    path: PathBuf,
    certificates: Vec<(CertificateDer<'static>, Validity)>,
    /// Whether somebody chose the file, and wants to hear about what is in it.
    chosen: bool,
}

impl Roots {
    fn load(path: &Path, chosen: bool) -> Result<Self, FileError> {
        let kind = FileKind::Authorities;
        let found = pem::certificates(&pem::read(path, kind)?).map_err(|problem| FileError {
            kind,
            path: path.to_owned(),
            problem,
        })?;
        let dated = found.into_iter().filter_map(|certificate| {
            let validity = Validity::of(&certificate)?;
            Some((certificate, validity))
        });
        Ok(Self { path: path.to_owned(), certificates: dated.collect(), chosen })
    }

    /// Those of a file, or of the system, and later what replaces them.
    pub(crate) fn reloaded(path: Option<&Path>) -> Result<Reloaded<Self>, PolicyError> {
        let chosen = path.is_some();
        let path = match path {
            Some(path) => path.to_owned(),
            None => system_file().ok_or(PolicyError::NoAuthorities)?,
        };
        let paths = vec![path.clone()];
        Ok(Reloaded::new(paths, move || Self::load(&path, chosen))?)
    }

    /// What may be trusted at `now`.
    pub(crate) fn trusted_at(&self, now: i64) -> Trusted {
        let valid = self.certificates.iter().filter(|(_, validity)| validity.contains(now));
        let certificates: Vec<_> = valid.map(|(certificate, _)| certificate.clone()).collect();
        let mut store = RootCertStore::empty();
        // What the library cannot use as a root is passed over; the system's file has some.
        store.add_parsable_certificates(certificates.iter().cloned());
        let bounds = self.certificates.iter();
        let bounds = bounds.flat_map(|(_, validity)| [validity.from, validity.until + 1]);
        let until = bounds.filter(|bound| now < *bound).min().unwrap_or(i64::MAX);
        let expired = self
            .certificates
            .iter()
            .map(|(_, validity)| *validity)
            .find(|validity| !validity.contains(now));
        Trusted { certificates, store, until, expired }
    }
}

impl Content for Roots {
    fn warn(&self) {
        if self.chosen {
            self.certificates.iter().for_each(|(_, validity)| validity.warn(&self.path));
        }
    }
}

/// The roots that are valid at one time.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) store: RootCertStore,
    /// When others will be.
    pub(crate) until: i64,
    /// One that is not.
    pub(crate) expired: Option<Validity>,
}

impl Trusted {
    pub(crate) fn nobody() -> Self {
        let store = RootCertStore::empty();
        Self { certificates: Vec::new(), store, until: i64::MAX, expired: None }
    }

    pub(crate) fn now(roots: &Roots) -> Self {
        roots.trusted_at(seconds(std::time::SystemTime::now()))
    }
}

/// Where systems keep the authorities that everybody trusts; the same places as Go looks at.
fn system_file() -> Option<PathBuf> {
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/tls/cacert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    if let Some(chosen) = std::env::var_os("SSL_CERT_FILE") {
        return Some(PathBuf::from(chosen));
    }
    usual.iter().map(PathBuf::from).find(|path| path.exists())
}
