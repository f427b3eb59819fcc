//! The SHA-256 behind a snapshot file.
//!
//! Source: interop 3.5; etcd: `etcdutl/snapshot/v3_snapshot.go`.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use vfs::File;

use crate::database::FileError;

/// A database is a whole number of sectors.
const SECTOR_BYTES: u64 = 512;
const DIGEST_BYTES: u64 = 32;

/// Why a snapshot is not trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DigestError {
    /// It is no snapshot but a copied database, or it is cut off.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    Missing,
    /// It was changed, or it is cut off.
    #[error("expected sha256 {}, got {}", decimals(expected), decimals(got))]
    Wrong {
        /// In the file.
        expected: Vec<u8>,
        /// Of the file.
        got: Vec<u8>,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
}

/// As Go prints a list of bytes.
fn decimals(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", bytes.join(" "))
}

/// Compares the digest behind the database with the database. The file's length tells whether there
/// is one.
pub(crate) fn verify(file: &dyn File, path: &Path, skip: bool) -> Result<(), DigestError> {
    if skip {
        return Ok(());
    }
    let len = file.len().map_err(FileError::of("stat", path))?;
    if len % SECTOR_BYTES != DIGEST_BYTES {
        return Err(DigestError::Missing);
    }
    let end = len - DIGEST_BYTES;
    let read = FileError::of("read", path);
    let mut expected = vec![0; 32];
    file.read_exact_at(&mut expected, end).map_err(&read)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..left], at).map_err(&read)?;
        hasher.update(&buffer[..left]);
        at += left as u64;
    }
    let got = hasher.finalize().to_vec();
    if got == expected { Ok(()) } else { Err(DigestError::Wrong { expected, got }) }
}
