//! What was read at the start and may not be on the disk.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::convert::Infallible;

use base::{Index, LogPosition, MemberId, Term};
use retcd_raft::{
    AppendReply, Body, ConfState, Config, Entry, EntryKind, HardState, Message, Raft, Ready,
    Restored,
};

/// One of two, started with three entries of which one is applied and two are committed.
fn unsure() -> Raft {
    let voters = [MemberId(1), MemberId(2)].into();
    let entry = |index| Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: Index(index),
        data: bytes::Bytes::new(),
    };
    let restored = Restored {
        conf_state: ConfState { voters, ..ConfState::default() },
        entries: (1..=3).map(entry).collect(),
        hard_state: HardState { term: Term(1), commit: Index(2), ..HardState::default() },
        applied: Index(1),
        unsure: true,
        ..Restored::default()
    };
    Raft::new(Config::new(MemberId(1), 1), restored)
}

fn probe() -> Message {
    let body = Body::Append(retcd_raft::Append {
        previous: LogPosition { index: Index(3), term: Term(1) },
        entries: Vec::new(),
        commit: Index(2),
    });
    Message { from: MemberId(2), to: MemberId(1), term: Term(1), body }
}

fn acknowledged(messages: &[Message]) -> Vec<Index> {
    let index = |message: &Message| {
        if let Body::AppendReply(AppendReply { index, rejected: None }) = message.body {
            Some(index)
        } else {
            None
        }
    };
    messages.iter().filter_map(index).collect()
}

/// D8, G14: the leader must not count a copy that a power cut can take.
#[test]
fn it_is_neither_acknowledged_nor_applied_before_it_is_durable() {
    let mut raft = unsure();
    raft.step(probe());
    let Ready { at_once, persist, committed, .. } = raft.ready().unwrap();
    assert_eq!((acknowledged(&at_once), committed), (vec![], vec![]));
    let first = persist.unwrap();
    assert!(first.must_sync && first.entries.is_empty(), "{first:?}");
    let Ok(persisted) = first.persist(|_, _, _| Ok::<(), Infallible>(()));
    assert_eq!(acknowledged(&persisted.messages), [Index(3)]);
    raft.persisted(persisted.token);
    let committed = raft.ready().unwrap().committed;
    assert_eq!(committed.iter().map(|entry| entry.index).collect::<Vec<_>>(), [Index(2)]);
}

/// The same, while the first batch waits for room.
#[test]
fn what_is_asked_later_waits_for_it_too() {
    let mut raft = unsure();
    let first = raft.ready().unwrap().persist.unwrap();
    raft.step(probe());
    let later = raft.ready().unwrap();
    assert_eq!((acknowledged(&later.at_once), later.committed), (vec![], vec![]));
    let Ok(persisted) = first.persist(|_, _, _| Ok::<(), Infallible>(()));
    raft.persisted(persisted.token);
    assert_eq!(raft.status().persisted, Index(3));
    let Ok(persisted) = later.persist.unwrap().persist(|_, _, _| Ok::<(), Infallible>(()));
    assert_eq!(acknowledged(&persisted.messages), [Index(3)]);
}
