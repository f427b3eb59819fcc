//! How many connections there may be (G19): together, and from one address.
//!
//! A flood from one place must cost neither memory nor the descriptors that the log and the
//! database need. A connection beyond a limit is closed at once and counted; the log has one line
//! a minute about it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::{Metrics, open_files_max};

/// Together.
const CONNECTIONS_MAX: usize = 10_000;

/// From one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_000;

/// Descriptors that the server keeps for itself, as etcd does.
const OWN_FILES: usize = 150;

/// Between two log lines about refused connections.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The open connections; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: usize,
    per_address_max: usize,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    refused_since_log: u64,
    logged: Option<Instant>,
}

/// One open connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    connections: Connections,
    address: Option<IpAddr>,
}

impl Connections {
    /// No connections, and limits that fit the process' own.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let files = open_files_max().and_then(|files| usize::try_from(files).ok());
        let max = connections_max(files.unwrap_or(usize::MAX));
        if max < CONNECTIONS_MAX {
            tracing::info!(max, "the limit of open files bounds the number of connections");
        }
        Self::with_limits(metrics, max, CONNECTIONS_PER_ADDRESS_MAX)
    }

    fn with_limits(metrics: Arc<Metrics>, max: usize, per_address_max: usize) -> Self {
        let open = Mutex::new(Open::default());
        Self { shared: Arc::new(Shared { max, per_address_max, metrics, open }) }
    }

    /// Counts a connection from `address` (`None` for a socket file), or refuses it.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Option<Permit> {
        let mut open = self.shared.open.lock();
        let reason = if self.shared.max <= open.total {
            Some("total")
        } else {
            let from_there = address.and_then(|address| open.by_address.get(&address));
            let full = self.shared.per_address_max <= from_there.copied().unwrap_or(0);
            full.then_some("address")
        };
        if let Some(reason) = reason {
            self.refuse(&mut open, address, reason);
            return None;
        }
        open.total += 1;
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        Some(Permit { connections: self.clone(), address })
    }

    fn refuse(&self, open: &mut Open, address: Option<IpAddr>, reason: &str) {
        self.shared.metrics.calls.on_refused_connection(reason);
        open.refused_since_log += 1;
        if open.logged.is_some_and(|logged| logged.elapsed() < LOG_PAUSE) {
            return;
        }
        open.logged = Some(Instant::now());
        let refused = std::mem::take(&mut open.refused_since_log);
        tracing::warn!(
            reason,
            refused,
            open = open.total,
            remote = address.map(tracing::field::display),
            "refused connections: there are too many"
        );
    }

    fn release(&self, address: Option<IpAddr>) {
        let mut open = self.shared.open.lock();
        open.total -= 1;
        let Some(address) = address else { return };
        let from_there = open.by_address.get_mut(&address).expect("its permit was given");
        *from_there -= 1;
        if *from_there == 0 {
            open.by_address.remove(&address);
        }
    }
}

/// How many connections fit beside the server's own files.
fn connections_max(files: usize) -> usize {
    let own = OWN_FILES.min(files / 2);
    CONNECTIONS_MAX.min(files - own).max(1)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.release(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_refused_above_either_limit() {
        let connections = Connections::with_limits(Metrics::new(false), 3, 2);
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = connections.admit(Some(here)).unwrap();
        let _second = connections.admit(Some(here)).unwrap();
        assert!(connections.admit(Some(here)).is_none());
        let _other = connections.admit(Some(there)).unwrap();
        assert!(connections.admit(None).is_none());
        drop(first);
        let _socket_file = connections.admit(None).unwrap();
        assert!(connections.admit(Some(there)).is_none());
        assert_eq!(connections.shared.open.lock().by_address.len(), 2);
    }

    /// L11.
    #[test]
    fn few_files_mean_few_connections() {
        assert_eq!(connections_max(usize::MAX), CONNECTIONS_MAX);
        assert_eq!(connections_max(1024), 874);
        assert_eq!(connections_max(256), 128);
    }
}
