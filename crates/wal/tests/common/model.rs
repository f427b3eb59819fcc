//! A plain model of a log, and a random but repeatable use of one.

use std::sync::Arc;

use base::{Index, Term};
use raft::{Entry, EntryKind, HardState};
use retcd_wal::{AppendError, CreateError, Mark, Options, Replay, Wal};
use vfs::Dir;

use super::{METADATA, mark, newest};

/// Small, so that a short run closes many segments.
pub(crate) const OPTIONS: Options = Options { segment_bytes: 8192, unsafe_no_sync: false };

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append { entries: Vec<Entry>, state: Option<HardState> },
    Mark(Mark),
    Prepare,
    Release(Index),
}

/// What a log must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// From index 1.
    pub(crate) entries: Vec<Entry>,
    /// Hard states that may be found: the last synced one and those after it.
    pub(crate) states: Vec<HardState>,
    /// Of the calls so far; the newest at most is unknown.
    pub(crate) marks: Vec<Mark>,
}

impl Model {
    fn state(&self) -> HardState {
        self.states.last().copied().unwrap_or_default()
    }

    fn overwrite(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.entries.truncate(usize::try_from(entry.index.0 - 1).unwrap());
            self.entries.push(entry.clone());
        }
    }

    /// The call returned.
    pub(crate) fn done(&mut self, op: &Op) {
        match op {
            Op::Append { entries, state } => {
                self.overwrite(entries);
                self.states.extend(state);
                if !entries.is_empty() {
                    self.states = vec![self.state()];
                }
            }
            Op::Mark(mark) => {
                self.states = vec![self.state()];
                self.marks.push(mark.clone());
            }
            Op::Prepare | Op::Release(_) => {}
        }
    }

    /// What a call that did not return may have left, the call whole at most.
    fn outcomes(&self, unfinished: Option<&Op>) -> Vec<Self> {
        let mut outcomes = vec![self.clone()];
        match unfinished {
            Some(Op::Append { entries, state }) => {
                for count in 1..=entries.len() {
                    let mut outcome = self.clone();
                    outcome.overwrite(&entries[..count]);
                    outcomes.push(outcome);
                }
                if let Some(state) = state {
                    let mut outcome = outcomes.last().unwrap().clone();
                    outcome.states.push(*state);
                    outcomes.push(outcome);
                }
            }
            Some(Op::Mark(mark)) => {
                let mut outcome = self.clone();
                outcome.marks.push(mark.clone());
                outcomes.push(outcome);
            }
            Some(Op::Prepare | Op::Release(_)) | None => {}
        }
        outcomes
    }

    fn explains(&self, replay: &Replay) -> bool {
        let start = usize::try_from(replay.start.position.index.0).unwrap();
        let states =
            if self.states.is_empty() { &[HardState::default()][..] } else { &self.states };
        self.entries.get(start..) == Some(&replay.entries[..])
            && states.contains(&replay.hard_state)
            && (start == 0 || self.marks.contains(&replay.start))
    }

    /// Panics unless the log holds all that was acknowledged and at most the first part of what
    /// was being written. Gives what it holds.
    pub(crate) fn check(&self, replay: &Replay, unfinished: Option<&Op>) -> Self {
        let outcomes = self.outcomes(unfinished);
        let mut found =
            outcomes.into_iter().find(|outcome| outcome.explains(replay)).unwrap_or_else(|| {
                {
                    panic!(
                        "acknowledged {} {:?} {:?}\nunfinished {}\nfound {} {:?} from {:?}, {:?}",
                        positions(&self.entries),
                        self.states,
                        self.marks,
                        unfinished.map_or_else(String::new, describe),
                        positions(&replay.entries),
                        replay.hard_state,
                        replay.start,
                        replay.repaired,
                    )
                }
            });
        found.states = vec![replay.hard_state];
        found
    }
}

/// Makes the next call, a legal one.
pub(crate) fn next_op(model: &Model, random: &mut Random) -> Op {
    let state = model.state();
    let last = model.entries.len() as u64;
    // A crash may have kept entries of a term whose hard state it lost.
    let newest = model.entries.last().map_or(1, |entry| entry.term.0);
    match random.below(12) {
        0 if state.commit.0 > 0 => {
            let index = 1 + random.below(state.commit.0);
            let term = model.entries[usize::try_from(index - 1).unwrap()].term.0;
            Op::Mark(mark(index, term))
        }
        1 => Op::Prepare,
        2 => Op::Release(model.marks.last().map_or(Index(0), |mark| mark.position.index)),
        3 | 4 if last > state.commit.0 => {
            let commit = Index(state.commit.0 + 1 + random.below(last - state.commit.0));
            let term = Term(state.term.0.max(newest));
            Op::Append { entries: Vec::new(), state: Some(HardState { term, commit, ..state }) }
        }
        kind => {
            // A new term may overwrite what is not committed.
            let changes = kind == 5 || last == 0;
            let term = Term(state.term.0.max(newest) + u64::from(changes));
            let first = if changes { state.commit.0 + 1 } else { last + 1 };
            let count = 1 + random.below(8);
            let entries: Vec<Entry> =
                (first..first + count).map(|index| any_entry(index, term, random)).collect();
            let commit = Index(state.commit.0.max(first - 1) + random.below(count + 1));
            let commit = commit.min(Index(first + count - 1));
            let state = HardState { term, commit, vote: METADATA.member };
            Op::Append { entries, state: (changes || random.below(2) == 0).then_some(state) }
        }
    }
}

fn any_entry(index: u64, term: Term, random: &mut Random) -> Entry {
    let len = match random.below(6) {
        0 => 0,
        1 => 600 + random.below(2500),
        _ => random.below(200),
    };
    let len = usize::try_from(len).unwrap();
    let byte = random.below(256).to_le_bytes()[0];
    // Zeros look like what a torn write leaves.
    let data = if random.below(4) == 0 { vec![0; len] } else { vec![byte; len] };
    Entry { kind: EntryKind::Normal, term, index: Index(index), data: data.into() }
}

pub(crate) fn call(log: &mut Wal, op: &Op) -> Result<(), AppendError> {
    match op {
        Op::Append { entries, state } => {
            // Entries are synced whatever is asked for, a commit index alone is not.
            log.append_and_sync(entries, state.as_ref(), false)
        }
        Op::Mark(mark) => log.mark(mark),
        // Neither changes what the log holds, whatever becomes of it.
        Op::Prepare => {
            log.prepare_next().ok();
            Ok(())
        }
        Op::Release(index) => {
            log.set_keep(2);
            log.release(*index).ok();
            Ok(())
        }
    }
}

/// Calls until one fails; gives what was acknowledged and what was being done.
pub(crate) fn run(parent: &Arc<dyn Dir>, seed: u64, count: usize) -> (Option<Model>, Option<Op>) {
    let log: Result<Wal, CreateError> = Wal::create_with(parent, "wal", &METADATA, OPTIONS);
    let Ok(mut log) = log else { return (None, None) };
    let mut model = Model::default();
    let mut random = Random(seed);
    for _ in 0..count {
        let op = next_op(&model, &mut random);
        if call(&mut log, &op).is_err() {
            return (Some(model), Some(op));
        }
        model.done(&op);
    }
    (Some(model), None)
}

pub(crate) fn open(parent: &Arc<dyn Dir>) -> (Wal, Replay) {
    Wal::open_with(parent, "wal", newest, OPTIONS).unwrap_or_else(|error| panic!("{error}"))
}

fn positions(entries: &[Entry]) -> String {
    let positions: Vec<String> =
        entries.iter().map(|entry| format!("{}+{}", entry.position(), entry.data.len())).collect();
    positions.join(" ")
}

fn describe(op: &Op) -> String {
    match op {
        Op::Append { entries, state } => format!("append {} {state:?}", positions(entries)),
        Op::Mark(_) | Op::Prepare | Op::Release(_) => format!("{op:?}"),
    }
}
