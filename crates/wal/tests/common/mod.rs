//! What the tests of the log share: small values and a choice of mark.

#![allow(dead_code, clippy::unwrap_used, reason = "tests; each file uses a part")]

pub(crate) mod model;

use std::ops::RangeInclusive;

use base::{ClusterId, Index, LogPosition, MemberId, Term};
use raft::{ConfState, Entry, EntryKind, HardState};
use retcd_wal::{Mark, Metadata};

pub(crate) const METADATA: Metadata =
    Metadata { member: MemberId(0x9105_8dd2_9ea8_4bf6), cluster: ClusterId(0x2133_17af_5a15_68f4) };

/// An entry whose payload follows from its position.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    let len = usize::try_from(index * 7 % 61).unwrap();
    Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: Index(index),
        data: vec![index.to_le_bytes()[0] | 1; len].into(),
    }
}

pub(crate) fn entries(indexes: RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indexes.map(|index| entry(index, term)).collect()
}

pub(crate) fn state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: METADATA.member, commit: Index(commit) }
}

pub(crate) fn mark(index: u64, term: u64) -> Mark {
    let voters = [METADATA.member].into();
    let conf_state = (index > 0).then(|| ConfState { voters, ..ConfState::default() });
    Mark { position: LogPosition { index: Index(index), term: Term(term) }, conf_state }
}

pub(crate) fn newest(marks: &[Mark]) -> Option<Mark> {
    marks.last().cloned()
}
