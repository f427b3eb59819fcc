//! The end of the database's file given back before a member starts (SRV-126).
//!
//! A member that runs gives it back by itself, in steps beside its work; here it is done at once,
//! if there is enough of it.
//! Source: etcd server/etcdserver/bootstrap.go.

use std::time::Instant;

use backend::{Backend, CommitError};

use super::BootError;

/// Shrinks the database if that frees at least `threshold_bytes`.
///
/// # Errors
///
/// The database cannot be written. That the disk is full is none: a member must come up then.
pub(super) fn shrink(backend: &Backend, threshold_bytes: u64) -> Result<(), BootError> {
    let before = backend.sizes();
    if before.total.saturating_sub(before.in_use) < threshold_bytes {
        tracing::info!(
            "current-db-size-bytes" = before.total,
            "current-db-size-in-use-bytes" = before.in_use,
            "bootstrap-defrag-threshold-bytes" = threshold_bytes,
            "Skipping defragmentation"
        );
        return Ok(());
    }
    let began = Instant::now();
    tracing::info!("starting defragmentation");
    loop {
        match backend.shrink_step() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error @ CommitError::NoSpace(_)) => {
                tracing::warn!(error = %error, "cannot shrink the database");
                break;
            }
            Err(error @ (CommitError::Io(_) | CommitError::Read(_))) => {
                return Err(BootError::Shrink(error));
            }
        }
    }
    let after = backend.sizes();
    tracing::info!(
        "current-db-size-bytes-diff" = i64::try_from(after.total).unwrap_or(i64::MAX)
            - i64::try_from(before.total).unwrap_or(i64::MAX),
        "current-db-size-bytes" = after.total,
        "current-db-size-in-use-bytes" = after.in_use,
        took = ?began.elapsed(),
        "finished defragmentation"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use backend::{Batch, Bucket, Options};
    use bytes::Bytes;

    use super::*;

    /// SRV-126.
    #[test]
    fn what_is_worth_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let dir = vfs::OsDir::open(folder.path()).unwrap();
        let backend = Backend::open(&dir, "db", &Options::default()).unwrap();
        let key = |number: u32| number.to_be_bytes();
        let mut batch = Batch::upkeep();
        for number in 0..500 {
            batch.put(Bucket::Key, &key(number), Bytes::from_static(&[7; 4000]));
        }
        backend.apply(batch);
        backend.commit().unwrap();
        let mut batch = Batch::upkeep();
        for number in 0..500 {
            batch.delete(Bucket::Key, &key(number));
        }
        backend.apply(batch);
        for _ in 0..3 {
            backend.commit().unwrap();
        }
        let full = backend.sizes();
        assert!(1 << 20 < full.total - full.in_use, "{full:?}");
        shrink(&backend, 1 << 30).unwrap();
        assert_eq!(backend.sizes().total, full.total);
        shrink(&backend, 1 << 20).unwrap();
        assert!(backend.sizes().total < full.total / 2, "{:?} of {full:?}", backend.sizes());
    }
}
