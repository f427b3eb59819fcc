//! Do all members hold the same data? Hashes of the key space, compared in three ways.
//!
//! Before a member serves it may compare itself with the others; the leader may compare everyone's
//! newest state from time to time; and it compares what compactions left behind, which is cheap,
//! since the hashes are there already, and therefore on unless it is turned off. Who differs gets
//! the CORRUPT alarm. Hashes say something only where compact revisions are equal.
//! Source: etcd server/etcdserver/corrupt.go.

use std::collections::BTreeMap;

use base::MemberId;
use mvcc::Hash;

/// What another member said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerHash {
    pub(crate) hash: u32,
    pub(crate) compact_revision: i64,
    /// Its newest revision.
    pub(crate) current: i64,
}

/// Why another member said nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerHashError {
    /// It has forgotten that revision.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// It is not there yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
    /// It belongs to another cluster.
    #[error("cluster ID mismatch")]
    OtherCluster,
    /// It could not be asked.
    #[error("asking for a hash: {0}")]
    Unreachable(String),
}

/// A member and its answer.
pub(crate) type Answered = (MemberId, Result<PeerHash, PeerHashError>);

/// Compares the own state at one revision with others', before serving; how many differ.
pub(crate) fn initial_mismatches(own: MemberId, hash: &Hash, peers: &[Answered]) -> usize {
    let mut mismatches = 0;
    for (id, answer) in peers {
        let log = |text: &'static str, detail: &dyn std::fmt::Display| {
            tracing::warn!(
                "local-member-id" = %own,
                "local-member-revision" = hash.revision,
                "local-member-compact-revision" = hash.compact_revision,
                "local-member-hash" = hash.hash,
                "remote-peer-id" = %id,
                detail = %detail,
                "{text}"
            );
        };
        match answer {
            Ok(peer) if peer.hash == hash.hash => {}
            Ok(peer) if peer.compact_revision == hash.compact_revision => {
                log("found different hash values from remote peer", &peer.hash);
                mismatches += 1;
            }
            Ok(peer) => log(
                "found different compact revision values from remote peer",
                &peer.compact_revision,
            ),
            Err(error @ PeerHashError::Future) => {
                log("cannot fetch hash from slow remote peer", error);
            }
            Err(error @ PeerHashError::Compacted) => {
                log("cannot fetch hash from remote peer; local member is behind", error);
            }
            Err(error @ (PeerHashError::OtherCluster | PeerHashError::Unreachable(_))) => {
                log("cannot fetch hash from remote peer", error);
            }
        }
    }
    mismatches
}

/// The leader's newest state before and after it asked the others at the first one's revision: who
/// is corrupt, if anyone; the first found.
pub(crate) fn periodic_culprit(
    own: MemberId,
    before: &Hash,
    after: &Hash,
    peers: &[Answered],
) -> Option<MemberId> {
    if before.hash != after.hash
        && before.revision == after.revision
        && before.compact_revision == after.compact_revision
    {
        tracing::warn!(
            revision = before.revision,
            "hash-1" = before.hash,
            "hash-2" = after.hash,
            "found hash mismatch"
        );
        return Some(own);
    }
    peers.iter().find_map(|(id, answer)| {
        let peer = answer.as_ref().ok()?;
        let wrong = if after.current < peer.current {
            "revision from follower must be less than or equal to leader's"
        } else if after.compact_revision < peer.compact_revision {
            "compact revision from follower must be less than or equal to leader's"
        } else if peer.compact_revision == before.compact_revision && peer.hash != before.hash {
            "same compact revision then hashes must match"
        } else {
            return None;
        };
        tracing::warn!(
            "leader-revision" = after.current,
            "leader-compact-revision" = after.compact_revision,
            "leader-hash" = before.hash,
            "follower-revision" = peer.current,
            "follower-compact-revision" = peer.compact_revision,
            "follower-hash" = peer.hash,
            "follower-peer-id" = %id,
            "{wrong}"
        );
        Some(*id)
    })
}

/// What comparing the hashes of one compaction found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Everyone agrees.
    Same,
    /// Not everyone could be asked; an older compaction may tell more.
    Incomplete,
    /// These differ from the majority; member 0 stands for the cluster if there is none.
    Corrupt(Vec<MemberId>),
}

/// Compares the leader's hash of a compaction with others'.
pub(crate) fn compare_compaction(leader: MemberId, own: &Hash, peers: &[Answered]) -> Compared {
    let mut by_hash = BTreeMap::from([(own.hash, vec![leader])]);
    let mut checked = 0;
    for (id, answer) in peers {
        let reason = match answer {
            Ok(peer) if peer.compact_revision == own.compact_revision => {
                checked += 1;
                by_hash.entry(peer.hash).or_default().push(*id);
                continue;
            }
            Ok(peer) => format!(
                "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                peer.compact_revision, own.compact_revision
            ),
            Err(error) => format!("no response: {error}"),
        };
        tracing::warn!("peer-id" = %id, reason, "Skipped peer's hash");
    }
    if by_hash.len() == 1 {
        if checked == peers.len() {
            tracing::info!(
                "number-of-peers-checked" = checked,
                revision = own.revision,
                compactRevision = own.compact_revision,
                "successfully checked hash on whole cluster"
            );
            return Compared::Same;
        }
        tracing::warn!(
            "number-of-peers-checked" = checked,
            "number-of-peers" = peers.len(),
            revision = own.revision,
            "skipped revision in compaction hash check; was not able to check all peers"
        );
        return Compared::Incomplete;
    }
    let quorum = peers.len().div_ceil(2) + 1;
    let majority = by_hash.values().any(|ids| quorum <= ids.len());
    let minority = || by_hash.values().filter(|ids| ids.len() < quorum).flatten().copied();
    let corrupt: Vec<MemberId> = if majority { minority().collect() } else { vec![MemberId::NONE] };
    for (hash, ids) in by_hash.iter().filter(|(_, ids)| !majority || ids.len() < quorum) {
        tracing::error!(
            "leader-id" = %leader,
            "leader-revision" = own.revision,
            "leader-compact-revision" = own.compact_revision,
            "leader-hash" = own.hash,
            "peer-hash" = hash,
            "peer-ids" = ?ids,
            "quorum-exist" = majority,
            "Detected compaction hash mismatch"
        );
    }
    Compared::Corrupt(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: MemberId = MemberId(1);

    fn own(hash: u32) -> Hash {
        Hash { hash, compact_revision: 5, revision: 10, current: 12 }
    }

    fn said(id: u64, hash: u32, compact_revision: i64) -> Answered {
        (MemberId(id), Ok(PeerHash { hash, compact_revision, current: 12 }))
    }

    fn silent(id: u64) -> Answered {
        (MemberId(id), Err(PeerHashError::Future))
    }

    /// CB-65: the minority is named, or the cluster if there is no majority.
    #[test]
    fn who_differs_from_the_majority_is_corrupt() {
        for (peers, expected) in [
            (vec![said(2, 7, 5), said(3, 7, 5)], Compared::Same),
            (vec![said(2, 7, 5), silent(3)], Compared::Incomplete),
            (vec![said(2, 7, 5), said(3, 8, 4)], Compared::Incomplete),
            (vec![said(2, 7, 5), said(3, 8, 5)], Compared::Corrupt(vec![MemberId(3)])),
            (vec![said(2, 8, 5), said(3, 8, 5)], Compared::Corrupt(vec![LEADER])),
            (vec![said(2, 8, 5)], Compared::Corrupt(vec![MemberId::NONE])),
            (vec![said(2, 8, 5), said(3, 9, 5)], Compared::Corrupt(vec![MemberId::NONE])),
            (
                vec![said(2, 7, 5), said(3, 8, 5), said(4, 7, 5), said(5, 9, 5)],
                Compared::Corrupt(vec![MemberId(3), MemberId(5)]),
            ),
        ] {
            assert_eq!(compare_compaction(LEADER, &own(7), &peers), expected, "{peers:?}");
        }
    }

    #[test]
    fn a_different_hash_counts_only_at_an_equal_compact_revision() {
        let peers = [said(2, 8, 5), said(3, 8, 4), said(4, 7, 5), silent(5)];
        assert_eq!(initial_mismatches(LEADER, &own(7), &peers), 1);
        assert_eq!(initial_mismatches(LEADER, &own(7), &peers[1..]), 0);
    }

    #[test]
    fn the_leader_finds_who_is_corrupt() {
        let (before, after) = (own(7), own(7));
        let culprit = |after: &Hash, peers: &[Answered]| {
            periodic_culprit(LEADER, &before, after, peers).map(|id| id.0)
        };
        assert_eq!(culprit(&after, &[said(2, 7, 5), silent(3)]), None);
        assert_eq!(culprit(&after, &[said(2, 7, 5), said(3, 8, 5)]), Some(3));
        assert_eq!(culprit(&after, &[said(2, 8, 4)]), None);
        assert_eq!(culprit(&after, &[said(2, 7, 6)]), Some(2));
        assert_eq!(culprit(&own(8), &[]), Some(1));
        let ahead = PeerHash { hash: 7, compact_revision: 5, current: 13 };
        assert_eq!(culprit(&after, &[(MemberId(9), Ok(ahead))]), Some(9));
    }
}
