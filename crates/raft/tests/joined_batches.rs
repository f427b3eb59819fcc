//! Several batches for the disk that become durable as one.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::convert::Infallible;

use base::{LogPosition, MemberId, Term};
use bytes::Bytes;
use retcd_raft::{
    Append, Body, ConfState, Config, Entry, EntryKind, Message, Persist, Raft, Restored,
};

const LEADER: MemberId = MemberId(2);

fn follower() -> Raft {
    let id = MemberId(1);
    let conf_state = ConfState { voters: [id, LEADER].into(), ..ConfState::default() };
    Raft::new(Config::new(id, 1), Restored { conf_state, ..Restored::default() })
}

/// The leader's entries of a term behind a position; the batch that they cause.
fn append(raft: &mut Raft, term: u64, previous: (u64, u64), last: u64, commit: u64) -> Persist {
    let (term, index) = (Term(term), base::Index(previous.0));
    let entry = |index| Entry {
        kind: EntryKind::Normal,
        term,
        index: base::Index(index),
        data: Bytes::from_static(b"x"),
    };
    let entries = (previous.0 + 1..=last).map(entry).collect();
    let previous = LogPosition { index, term: Term(previous.1) };
    let body = Body::Append(Append { previous, entries, commit: base::Index(commit) });
    raft.step(Message { from: LEADER, to: MemberId(1), term, body });
    raft.ready().unwrap().persist.unwrap()
}

fn written(batch: Persist) -> retcd_raft::Persisted {
    let Ok(persisted) = batch.persist(|_, _, _| Ok::<(), Infallible>(()));
    persisted
}

#[test]
fn joined_batches_release_what_each_of_them_held() {
    let mut raft = follower();
    let mut batch = append(&mut raft, 1, (0, 0), 2, 0);
    batch.absorb(append(&mut raft, 1, (2, 1), 3, 0)).unwrap();
    assert_eq!(batch.entries.len(), 3);
    assert!(batch.must_sync);
    let persisted = written(batch);
    assert_eq!(persisted.messages.len(), 2, "{:?}", persisted.messages);
    raft.persisted(persisted.token);
    assert_eq!(raft.status().persisted.0, 3);
}

#[test]
fn a_hint_goes_along_with_entries() {
    let mut raft = follower();
    let first = written(append(&mut raft, 1, (0, 0), 1, 0));
    raft.persisted(first.token);
    // A notice of the commit is acknowledged at once, so only the hint is left.
    let mut hint = append(&mut raft, 1, (1, 1), 1, 1);
    assert!(hint.is_hint(), "{hint:?}");
    let commit = hint.hard_state.unwrap().commit;
    hint.absorb(append(&mut raft, 1, (1, 1), 2, 1)).unwrap();
    assert_eq!((hint.is_hint(), hint.must_sync), (false, true));
    assert_eq!(hint.hard_state.unwrap().commit, commit);
    raft.persisted(written(hint).token);
    assert_eq!(raft.status().persisted.0, 2);
}

#[test]
fn entries_that_replace_others_are_not_joined() {
    let mut raft = follower();
    let mut old = append(&mut raft, 1, (0, 0), 2, 0);
    let new = append(&mut raft, 3, (1, 1), 2, 0);
    let new = *old.absorb(new).unwrap_err();
    assert_eq!((old.entries.len(), new.entries.len()), (2, 1));
    raft.persisted(written(old).token);
    raft.persisted(written(new).token);
    assert_eq!(raft.status().persisted.0, 2);
}
