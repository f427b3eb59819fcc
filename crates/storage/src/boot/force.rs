//! `--force-new-cluster`: a survivor of a cluster that lost its quorum goes on alone.
//!
//! What was not committed is given up, and behind what was committed the log gets the changes that
//! leave this member as the only voter. They are made durable as committed before anything else
//! happens, so that a later start without the flag goes on with them. Nothing else of the state is
//! touched: the cluster's id, the keys and the leases stay.
//! Source: etcd server/storage/util.go (`CreateConfigChangeEnts`), etcdserver/bootstrap.go.

use std::collections::BTreeSet;

use base::{Index, MemberId, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::raftpb::{ConfChange, ConfChangeType};
use raft::{ConfState, Entry, EntryKind, HardState};
use state::members::{ChangeContext, MemberObject};
use wal::{AppendError, Wal};

/// What the survivor has applied.
pub(super) struct Before<'a> {
    pub(super) own: MemberId,
    /// The configuration there.
    pub(super) conf_state: &'a ConfState,
    pub(super) applied: Index,
}

/// Cuts `entries` at the commit index and appends the changes, to the log as well.
///
/// # Errors
///
/// The log's.
pub(super) fn only_member(
    before: &Before<'_>,
    wal: &mut Wal,
    entries: &mut Vec<Entry>,
    hard_state: &mut HardState,
) -> Result<(), AppendError> {
    let uncommitted = entries.iter().filter(|entry| hard_state.commit < entry.index).count();
    if uncommitted > 0 {
        tracing::info!(
            "commit-index" = hard_state.commit.0,
            "number-of-discarded-entries" = uncommitted,
            "discarding uncommitted WAL entries"
        );
        entries.truncate(entries.len() - uncommitted);
    }
    // A log that was received as a snapshot may know its term only from there.
    let term = hard_state.term.max(entries.last().map_or(Term(1), |entry| entry.term));
    let changes = changes(before.own, &who(before, entries));
    let appended: Vec<Entry> = (hard_state.commit.0 + 1..)
        .zip(changes)
        .map(|(index, data)| Entry { kind: EntryKind::ConfChange, term, index: Index(index), data })
        .collect();
    let Some(last) = appended.last() else { return Ok(()) };
    let forced = HardState { term, vote: hard_state.vote, commit: last.index };
    wal.append_and_sync(&appended, Some(&forced), true)?;
    *hard_state = forced;
    entries.extend(appended);
    Ok(())
}

/// Who is in the cluster once every entry is applied.
fn who(before: &Before<'_>, entries: &[Entry]) -> Who {
    let ConfState { voters, learners, .. } = before.conf_state;
    let mut who = Who { voters: voters.clone(), learners: learners.clone() };
    let unapplied = entries.iter().filter(|entry| before.applied < entry.index);
    for entry in unapplied.filter(|entry| entry.kind == EntryKind::ConfChange) {
        // What cannot be read is found out when it is applied.
        let Ok(change) = ConfChange::decode(entry.data.clone()) else { continue };
        let id = MemberId(change.node_id());
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => {
                who.learners.remove(&id);
                who.voters.insert(id);
            }
            ConfChangeType::ConfChangeAddLearnerNode => {
                who.learners.insert(id);
            }
            ConfChangeType::ConfChangeRemoveNode => {
                who.voters.remove(&id);
                who.learners.remove(&id);
            }
            ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    who
}

#[derive(Debug, Default)]
struct Who {
    voters: BTreeSet<MemberId>,
    learners: BTreeSet<MemberId>,
}

/// The changes' payloads. The survivor comes first: a cluster without voters is impossible.
fn changes(own: MemberId, who: &Who) -> Vec<Bytes> {
    let add = |context: ChangeContext| ConfChange {
        id: None,
        r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
        node_id: Some(own.0),
        context: Some(context.to_json()),
    };
    let mut changes = Vec::new();
    if who.learners.contains(&own) {
        changes.push(add(ChangeContext::promotion(own)));
    } else if !who.voters.contains(&own) {
        let peer_urls = vec!["http://localhost:2380".to_owned()];
        let member = MemberObject { id: own, peer_urls, ..MemberObject::default() };
        changes.push(add(ChangeContext::of(member)));
    }
    let others: BTreeSet<&MemberId> =
        who.voters.union(&who.learners).filter(|id| **id != own).collect();
    changes.extend(others.into_iter().map(|id| ConfChange {
        id: None,
        r#type: Some(ConfChangeType::ConfChangeRemoveNode as i32),
        node_id: Some(id.0),
        context: None,
    }));
    changes.iter().map(|change| change.encode_to_vec().into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>(ids: [u64; N]) -> BTreeSet<MemberId> {
        ids.map(MemberId).into()
    }

    fn entry(index: u64, kind: ConfChangeType, id: u64) -> Entry {
        let change =
            ConfChange { id: None, r#type: Some(kind as i32), node_id: Some(id), context: None };
        Entry {
            kind: EntryKind::ConfChange,
            term: Term(2),
            index: Index(index),
            data: change.encode_to_vec().into(),
        }
    }

    /// Type, member and context of each change.
    fn read(changes: &[Bytes]) -> Vec<(ConfChangeType, u64, String)> {
        let read = |data: &Bytes| {
            let change = ConfChange::decode(data.clone()).unwrap();
            let context = change.context.clone().unwrap_or_default();
            (change.r#type(), change.node_id(), String::from_utf8(context.to_vec()).unwrap())
        };
        changes.iter().map(read).collect()
    }

    /// M8.
    #[test]
    fn the_others_are_removed_and_the_survivor_votes() {
        use ConfChangeType::{ConfChangeAddNode as Add, ConfChangeRemoveNode as Remove};
        let remove = |id| (Remove, id, String::new());
        for (own, voters, learners, expected) in [
            (1, ids([1, 2, 3]), ids([]), vec![remove(2), remove(3)]),
            (
                4,
                ids([1, 2]),
                ids([4]),
                vec![
                    (Add, 4, r#"{"id":4,"peerURLs":null,"isPromote":true}"#.to_owned()),
                    remove(1),
                    remove(2),
                ],
            ),
            (2, ids([2]), ids([7]), vec![remove(7)]),
            (
                9,
                ids([]),
                ids([]),
                vec![(Add, 9, r#"{"id":9,"peerURLs":["http://localhost:2380"]}"#.to_owned())],
            ),
            (2, ids([2]), ids([]), vec![]),
        ] {
            let changes = changes(MemberId(own), &Who { voters, learners });
            assert_eq!(read(&changes), expected);
        }
    }

    #[test]
    fn entries_that_are_not_applied_yet_count() {
        use ConfChangeType::{
            ConfChangeAddLearnerNode as AddLearner, ConfChangeAddNode as Add,
            ConfChangeRemoveNode as Remove,
        };
        let conf_state = ConfState { voters: ids([1, 2]), ..ConfState::default() };
        let before = Before { own: MemberId(1), conf_state: &conf_state, applied: Index(2) };
        let who = who(
            &before,
            &[
                entry(2, Add, 8),
                entry(3, AddLearner, 3),
                entry(4, AddLearner, 4),
                entry(5, Add, 3),
                entry(6, Remove, 2),
            ],
        );
        assert_eq!((who.voters, who.learners), (ids([1, 3]), ids([4])));
    }
}
