//! One member alone: what it is told, and what it writes and says.

#![allow(dead_code, reason = "each test target uses its own part")]

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use retcd_raft::{
    Append, AppendReply, Body, ConfState, Config, Entry, EntryKind, HardState, Message, Raft,
    Restored, RoleKind, VoteRequest,
};

pub(crate) const ME: MemberId = MemberId(1);
pub(crate) const TWO: MemberId = MemberId(2);
pub(crate) const THREE: MemberId = MemberId(3);

/// One member, and what it has written and said.
pub(crate) struct Alone {
    pub(crate) raft: Raft,
    pub(crate) said: Vec<Message>,
    pub(crate) hard_state: HardState,
    pub(crate) applied: Vec<LogPosition>,
}

/// Member 1 of `voters` with a log that has entries of these terms, in the last of them.
pub(crate) fn alone(voters: u64, terms: &[u64]) -> Alone {
    seeded(voters, terms, 1)
}

pub(crate) fn seeded(voters: u64, terms: &[u64], seed: u64) -> Alone {
    let config = Config { pre_vote: false, check_quorum: false, ..Config::new(ME, seed) };
    let hard_state = HardState {
        term: Term(terms.last().copied().unwrap_or(0)),
        vote: MemberId::NONE,
        commit: Index(0),
    };
    let restored = Restored {
        hard_state,
        conf_state: conf_state(voters),
        entries: entries(1, terms),
        ..Restored::default()
    };
    let raft = Raft::new(config, restored);
    Alone { raft, said: Vec::new(), hard_state, applied: Vec::new() }
}

pub(crate) fn conf_state(voters: u64) -> ConfState {
    ConfState { voters: (1..=voters).map(MemberId).collect(), ..ConfState::default() }
}

pub(crate) fn entries(from: u64, terms: &[u64]) -> Vec<Entry> {
    let entry = |(index, &term): (u64, &u64)| Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: Index(index),
        data: Bytes::new(),
    };
    (from..).zip(terms).map(entry).collect()
}

pub(crate) fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(term) }
}

pub(crate) fn append(previous: LogPosition, terms: &[u64], commit: u64) -> Body {
    let entries = entries(previous.index.0 + 1, terms);
    Body::Append(Append { previous, entries, commit: Index(commit) })
}

pub(crate) fn vote(last: LogPosition) -> Body {
    Body::Vote(VoteRequest { last, forced: false })
}

pub(crate) fn accepted(index: u64) -> Body {
    Body::AppendReply(AppendReply { index: Index(index), rejected: None })
}

impl Alone {
    /// Does all that is wanted.
    pub(crate) fn work(&mut self) {
        while let Some(ready) = self.raft.ready() {
            self.said.extend(ready.at_once);
            if let Some(persist) = ready.persist {
                self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
                let persisted = persist.persist(|_, _, _| Ok::<(), ()>(())).unwrap();
                self.said.extend(persisted.messages);
                self.raft.persisted(persisted.token);
            }
            for entry in ready.committed {
                self.applied.push(entry.position());
                self.raft.applied(entry.index);
            }
        }
    }

    pub(crate) fn hear(&mut self, from: MemberId, term: u64, body: Body) {
        self.raft.step(Message { from, to: ME, term: Term(term), body });
        self.work();
    }

    pub(crate) fn say(&mut self) -> Vec<Message> {
        self.work();
        std::mem::take(&mut self.said)
    }

    pub(crate) fn answer(&mut self) -> Body {
        let mut said = self.say();
        assert_eq!(said.len(), 1, "one answer, not {said:?}");
        said.remove(0).body
    }

    pub(crate) fn role(&self) -> RoleKind {
        self.raft.status().role
    }

    pub(crate) fn term(&self) -> u64 {
        self.raft.status().term.0
    }

    pub(crate) fn commit(&self) -> u64 {
        self.raft.status().commit.0
    }

    pub(crate) fn last(&self) -> LogPosition {
        self.raft.status().last
    }

    /// Wins an election with the vote of member 2 (and 3 of five).
    pub(crate) fn lead(mut self) -> Self {
        self.raft.campaign();
        self.work();
        let term = self.term();
        for from in [TWO, THREE] {
            self.hear(from, term, Body::VoteReply { granted: true });
        }
        assert_eq!(self.role(), RoleKind::Leader);
        self.said.clear();
        self
    }
}
