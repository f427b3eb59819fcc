//! Files with certificates, keys and revocation lists, decoded with the cause named if they are
//! not what they should be. B19.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::pki_types::pem::{Error, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::error::{FileError, FileKind, FileProblem};

/// A bundle of all public authorities has a quarter of a megabyte; a large revocation list ten.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a whole file.
pub(crate) fn read(path: &Path, kind: FileKind) -> Result<Vec<u8>, FileError> {
    let failed = |problem| FileError { kind, path: path.to_owned(), problem };
    let file = File::open(path).map_err(|error| failed(FileProblem::Read(error)))?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(FileProblem::Read(error)))?;
    if FILE_BYTES_MAX < bytes.len() as u64 {
        return Err(failed(FileProblem::TooLong { max: FILE_BYTES_MAX }));
    }
    Ok(bytes)
}

/// Every certificate; at least one.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let found: Result<Vec<_>, Error> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| broken(&error))?;
    if found.is_empty() {
        return Err(FileProblem::Missing { wanted: "certificate" });
    }
    for (certificate, number) in found.iter().zip(1..) {
        if let Err(error) = x509_parser::parse_x509_certificate(certificate) {
            let why = error.to_string();
            return Err(FileProblem::Malformed { what: "certificate", number, why });
        }
    }
    Ok(found)
}

/// The first key.
pub(crate) fn key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, FileProblem> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("4,ENCRYPTED") {
        return Err(FileProblem::Encrypted);
    }
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(Error::NoItemsFound) => Err(FileProblem::Missing { wanted: "private key" }),
        Err(error) => Err(broken(&error)),
    }
}

/// Every revocation list in a file of either form; at least one.
pub(crate) fn revocation_lists(
    bytes: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, FileProblem> {
    // Lists are often handed out in binary form, which begins with a sequence's tag.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let found: Result<Vec<_>, Error> =
        CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| broken(&error))?;
    if found.is_empty() {
        return Err(FileProblem::Missing { wanted: "revocation list" });
    }
    Ok(found)
}

/// Without the bytes that the library lists, which may be a key's.
fn broken(error: &Error) -> FileProblem {
    FileProblem::Pem(if matches!(error, Error::MissingSectionEnd { .. }) {
        "a section has no end".to_owned()
    } else if matches!(error, Error::IllegalSectionStart { .. }) {
        "a section's first line is wrong".to_owned()
    } else if matches!(error, Error::Base64Decode(_)) {
        "a section is not base64".to_owned()
    } else {
        "it cannot be read".to_owned()
    })
}
