//! A member whose disk lost what it acknowledged finds out, and says so.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use base::{Index, MemberId, Term};
use retcd_raft::{Body, ConfState, Config, Forgotten, HardState, Message, Raft, Restored};

const MEMBER: MemberId = MemberId(1);
const LEADER: MemberId = MemberId(2);

fn follower() -> Raft {
    let conf_state = ConfState { voters: [MEMBER, LEADER].into(), ..ConfState::default() };
    let hard_state = HardState { term: Term(3), ..HardState::default() };
    let restored = Restored { conf_state, hard_state, ..Restored::default() };
    Raft::new(Config::new(MEMBER, 1), restored)
}

fn heartbeat(commit: u64) -> Message {
    let body = Body::Heartbeat { commit: Index(commit), context: bytes::Bytes::new() };
    Message { from: LEADER, to: MEMBER, term: Term(3), body }
}

/// D31, P4: a leader names no more than what the member told it to have.
#[test]
fn member_that_lost_acknowledged_entries_is_told_by_its_leader() {
    let mut raft = follower();
    raft.step(heartbeat(0));
    assert_eq!(raft.forgotten(), None);
    raft.step(heartbeat(7));
    let forgotten = Forgotten { leader: LEADER, acknowledged: Index(7), last: Index(0) };
    assert_eq!(raft.forgotten(), Some(forgotten));
    let replies = raft.ready().map(|ready| ready.at_once).unwrap_or_default();
    assert_eq!(replies.len(), 1, "only the first heartbeat is answered");
}
