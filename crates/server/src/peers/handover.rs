//! A leader that is asked to end hands over first, so that nobody waits for an election.
//!
//! Source: etcd server/etcdserver/server.go (`TryTransferLeadershipOnShutdown`).

use std::cmp::Reverse;
use std::time::Instant;

use base::MemberId;
use raft::PeerState;

use crate::handle::Handle;
use crate::node_queue::Standings;

/// Hands leadership to the member that can take it soonest, if this one leads others; returns
/// when it is taken, or after an election timeout at the latest.
pub(crate) async fn hand_over(handle: &Handle) {
    let own = handle.member_id();
    if !handle.leads() {
        tracing::info!(
            "local-member-id" = %own,
            "current-leader-member-id" = %handle.status().leader,
            "skipped leadership transfer; local server is not leader"
        );
        return;
    }
    let Ok(standings) = handle.standings().await else { return };
    if standings.voters.iter().all(|id| *id == own) {
        tracing::info!(
            "local-member-id" = %own,
            "skipped leadership transfer for single voting member cluster"
        );
        return;
    }
    let connected_since = |id| handle.peers().connected_since(id);
    let Some(to) = successor(&standings, connected_since) else {
        tracing::warn!(
            "local-member-id" = %own,
            error = "unhealthy cluster",
            "leadership transfer failed"
        );
        return;
    };
    let transfer = handle.transfer_leader(to);
    let ended = tokio::time::timeout(handle.limits().election_timeout, transfer).await;
    if let Ok(Err(error)) = ended {
        tracing::warn!(
            "local-member-id" = %own,
            error = %error,
            "leadership transfer failed"
        );
    }
}

/// The connected voter with most of the log; of those, the one connected longest. One that was heard
/// from lately goes before all others: who was is forgotten at each check of the quorum, though, so
/// that just then nobody is.
fn successor(
    standings: &Standings,
    connected_since: impl Fn(MemberId) -> Option<Instant>,
) -> Option<MemberId> {
    let voters = standings.peers.iter().filter(|(id, peer)| {
        let is_voter = !peer.is_learner && standings.voters.contains(id);
        is_voter && !matches!(peer.state, PeerState::Snapshot(_))
    });
    let connected = voters.filter_map(|(id, peer)| Some((*id, peer, connected_since(*id)?)));
    let best = connected
        .max_by_key(|(_, peer, since)| (peer.recent_active, peer.matched, Reverse(*since)));
    best.map(|(id, _, _)| id)
}
