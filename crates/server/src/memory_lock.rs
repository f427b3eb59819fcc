//! Memory that is not swapped out (SRV-065).
//!
//! etcd locks the pages of its database file, which it maps. This server maps no file: it keeps the
//! pages that are in use in memory of its own, so all of that is locked, now and later. Where the
//! system limits locked memory, some later page could not be had and the process would end, so then
//! it does not start.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Why memory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum MemoryLockError {
    /// The process may lock only so much.
    #[error(
        "--memory-mlock needs an unlimited amount of locked memory and there are {bytes} bytes; set LimitMEMLOCK=infinity in the unit file (ulimit -l unlimited), or leave out --memory-mlock"
    )]
    Limited {
        /// The hard limit.
        bytes: u64,
    },
    /// The system refused.
    #[error("locking memory, which --memory-mlock asks for")]
    System(#[source] io::Error),
}

/// Locks what the process has in memory and will have.
///
/// # Errors
///
/// See [`MemoryLockError`]; nothing is locked then.
pub(crate) fn lock() -> Result<(), MemoryLockError> {
    let limit = getrlimit(Resource::Memlock);
    let unlimited = Rlimit { current: None, maximum: None };
    if limit.current.is_some() && setrlimit(Resource::Memlock, unlimited).is_err() {
        let bytes = limit.maximum.or(limit.current).unwrap_or(0);
        return Err(MemoryLockError::Limited { bytes });
    }
    // Pages are locked when they are first used: most of what is reserved never is.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(|error| MemoryLockError::System(error.into()))?;
    tracing::info!("locked the memory of the process");
    Ok(())
}
