//! A word of warning before the file descriptors are used up (SRV-158).
//!
//! Source: etcd server/etcdserver/metrics.go (`monitorFileDescriptor`).

use std::time::Duration;

use crate::metrics::{open_files, open_files_max};

/// Counting costs a look at each; a limit is rarely used up in a hurry.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Looks now and then how many descriptors are in use.
pub(crate) async fn watch() {
    loop {
        let used = open_files().and_then(|used| u64::try_from(used).ok());
        let (Some(used), Some(limit)) = (used, open_files_max()) else { return };
        if is_scarce(used, limit) {
            tracing::warn!(used, limit, "80% of file descriptors are used");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn is_scarce(used: u64, limit: u64) -> bool {
    limit / 5 * 4 <= used
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-158.
    #[test]
    fn four_fifths_are_many() {
        assert!(is_scarce(80, 100) && is_scarce(820, 1024));
        assert!(!is_scarce(79, 100) && !is_scarce(0, u64::MAX));
    }
}
