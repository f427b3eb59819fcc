//! A committed change of the members is not forgotten.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::convert::Infallible;

use base::MemberId;
use retcd_raft::{ConfState, Config, Raft, Restored};

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
