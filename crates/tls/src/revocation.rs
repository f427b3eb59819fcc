//! Certificates that are no longer accepted. A3, A4.
//!
//! As in etcd the list is a set of serial numbers, whoever made it: the file is trusted, its
//! signature and its date are not looked at.

use std::collections::BTreeSet;
use std::path::Path;

use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::error::{FileError, FileKind, FileProblem};
use crate::identity::serial;
use crate::pem;
use crate::reload::{Content, Reloaded};

/// Serial numbers of revoked certificates.
#[derive(Debug, PartialEq)]
pub(crate) struct Revocations {
    serials: BTreeSet<Vec<u8>>,
}

/// A revoked certificate was shown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("transport: certificate serial {} revoked", hex(.serial))]
pub(crate) struct Revoked {
    serial: Vec<u8>,
}

impl Revocations {
    fn load(path: &Path) -> Result<Self, FileError> {
        let kind = FileKind::Revocations;
        let failed = |problem| FileError { kind, path: path.to_owned(), problem };
        let lists = pem::revocation_lists(&pem::read(path, kind)?).map_err(failed)?;
        let mut serials = BTreeSet::new();
        for (list, number) in lists.iter().zip(1..) {
            let (_, list) = CertificateRevocationList::from_der(list).map_err(|error| {
                let why = error.to_string();
                failed(FileProblem::Malformed { what: "revocation list", number, why })
            })?;
            serials.extend(
                list.iter_revoked_certificates().map(|revoked| serial(revoked.raw_serial())),
            );
        }
        Ok(Self { serials })
    }

    /// Those of a file, and later what replaces them.
    pub(crate) fn reloaded(path: &Path) -> Result<Reloaded<Self>, FileError> {
        let owned = path.to_owned();
        Reloaded::new(vec![path.to_owned()], move || Self::load(&owned))
    }

    /// Refuses if any of these certificates is revoked.
    pub(crate) fn check<'a>(
        &self,
        serials: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> Result<(), Revoked> {
        match serials.into_iter().find(|serial| self.serials.contains(*serial)) {
            Some(serial) => Err(Revoked { serial: serial.clone() }),
            None => Ok(()),
        }
    }
}

impl Content for Revocations {
    fn warn(&self) {}
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
