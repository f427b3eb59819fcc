//! A committed change of the members is not forgotten.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::convert::Infallible;

use base::{Index, MemberId, Term};
use retcd_raft::{ConfState, Config, Entry, EntryKind, HardState, Raft, Restored};

/// Works until there is nothing to do; whether a batch with only a commit index was to be synced.
fn settle(raft: &mut Raft) -> Vec<bool> {
    let mut synced = Vec::new();
    while let Some(ready) = raft.ready() {
        if let Some(persist) = ready.persist {
            if persist.entries.is_empty() && persist.hard_state.is_some() {
                synced.push(persist.must_sync);
            }
            let Ok(persisted) = persist.persist(|_, _, _| Ok::<(), Infallible>(()));
            raft.persisted(persisted.token);
        }
        for entry in ready.committed {
            raft.applied(entry.index);
        }
    }
    synced
}

/// M2: else a member that lost power would ask one for its vote that was removed and is gone.
#[test]
fn the_commit_of_a_change_is_synced() {
    let id = MemberId(1);
    let conf_state = ConfState { voters: [id].into(), ..ConfState::default() };
    let mut raft = Raft::new(Config::new(id, 1), Restored { conf_state, ..Restored::default() });
    raft.campaign();
    settle(&mut raft);
    raft.propose(vec!["plain".into()]).unwrap();
    assert_eq!(settle(&mut raft), [false]);
    raft.propose_change("change".into()).unwrap();
    assert_eq!(settle(&mut raft), [true]);
}

/// Found by the simulator: the log was then marked beyond the commit index that it holds, and such a
/// mark is none at the next start.
#[test]
fn the_commit_index_that_a_crash_lost_is_written_again() {
    let id = MemberId(1);
    let conf_state = ConfState { voters: [id].into(), ..ConfState::default() };
    let entries = (1..=3).map(|index| Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: Index(index),
        data: bytes::Bytes::new(),
    });
    let restored = Restored {
        conf_state,
        entries: entries.collect(),
        hard_state: HardState { term: Term(1), commit: Index(2), ..HardState::default() },
        applied: Index(3),
        ..Restored::default()
    };
    let mut raft = Raft::new(Config::new(id, 1), restored);
    let persist = raft.ready().and_then(|ready| ready.persist).unwrap();
    assert_eq!(persist.hard_state.map(|state| state.commit), Some(Index(3)));
}
