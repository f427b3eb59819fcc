//! Whether a peer is reached, since when, and saying so once.
//!
//! A peer is active from the first thing that works until the first that fails, whichever of its
//! connections it was. Each reason for not reaching it is logged once until it is reached again.
//! Source: etcd: server/etcdserver/api/rafthttp/peer_status.go.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use base::MemberId;
use parking_lot::Mutex;

use crate::metrics::PeerMetrics;

/// So many different reasons are remembered; with more the oldest is told again.
const REASONS_MAX: usize = 8;

/// A peer's state.
#[derive(Debug)]
pub(crate) struct Status {
    peer: MemberId,
    metrics: Arc<PeerMetrics>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    active_since: Option<Instant>,
    /// Reasons told since the peer was last active.
    told: Vec<String>,
}

impl Status {
    pub(crate) fn new(peer: MemberId, metrics: Arc<PeerMetrics>) -> Self {
        Self { peer, metrics, inner: Mutex::default() }
    }

    pub(crate) fn active_since(&self) -> Option<Instant> {
        self.inner.lock().active_since
    }

    /// Something worked.
    pub(crate) fn activate(&self) {
        let mut inner = self.inner.lock();
        if inner.active_since.is_none() {
            inner.active_since = Some(Instant::now());
            inner.told.clear();
            self.metrics.active.add(1);
            tracing::info!("peer-id" = %self.peer, "peer became active");
        }
    }

    /// `action` failed on `source`, at `url` if that is known.
    pub(crate) fn deactivate(
        &self,
        source: &str,
        action: &str,
        url: Option<&dyn Display>,
        reason: &str,
    ) {
        let mut inner = self.inner.lock();
        let (peer, url) = (self.peer, url.map(tracing::field::display));
        let error = format!("failed to {action} {peer} on {source} ({reason})");
        let was_active = inner.active_since.take().is_some();
        let told_before = inner.told.iter().any(|told| told == reason);
        if !told_before {
            if inner.told.len() == REASONS_MAX {
                inner.told.remove(0);
            }
            inner.told.push(reason.to_owned());
        }
        drop(inner);
        if was_active {
            self.metrics.active.add(-1);
            self.metrics.disconnected.add(1);
            tracing::warn!(
                "peer-id" = %peer,
                address = url,
                error,
                "peer became inactive (message send to peer failed)"
            );
        } else if told_before {
            tracing::debug!("peer-id" = %peer, address = url, error, "peer deactivated again");
        } else {
            tracing::warn!("peer-id" = %peer, address = url, error, "peer is not reached");
        }
    }

    /// The peer is no longer one.
    pub(crate) fn close(&self) {
        if self.inner.lock().active_since.take().is_some() {
            self.metrics.active.add(-1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> (Status, Arc<PeerMetrics>) {
        let metrics = Arc::new(PeerMetrics::default());
        (Status::new(MemberId(1), Arc::clone(&metrics)), metrics)
    }

    /// MET-44, MET-45.
    #[test]
    fn becoming_active_and_inactive_is_counted_once() {
        let (status, metrics) = status();
        status.deactivate("pipeline", "write", None, "refused");
        assert_eq!((metrics.active.value(), metrics.disconnected.value()), (0, 0));
        status.activate();
        let since = status.active_since();
        status.activate();
        assert_eq!(status.active_since(), since);
        assert_eq!((metrics.active.value(), metrics.disconnected.value()), (1, 0));
        status.deactivate("pipeline", "write", None, "refused");
        status.deactivate("pipeline", "write", None, "refused");
        assert_eq!((metrics.active.value(), metrics.disconnected.value()), (0, 1));
        assert_eq!(status.active_since(), None);
    }

    #[test]
    fn reasons_are_remembered_within_bounds() {
        let (status, _) = status();
        for reason in 0..100 {
            status.deactivate("pipeline", "write", None, &reason.to_string());
            status.deactivate("pipeline", "write", None, &reason.to_string());
        }
        assert_eq!(status.inner.lock().told.len(), REASONS_MAX);
        status.activate();
        assert!(status.inner.lock().told.is_empty());
    }
}
