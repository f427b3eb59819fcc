//! Turns the records of a log into what a member starts from.
//!
//! Later records overwrite earlier ones: an entry removes all behind its index, the last hard state
//! wins. Entries at or below the start are in the state already, but they too remove what is behind
//! them, and so does a received snapshot that the log contradicts. (etcd only skips them, and a
//! restart brings back entries that had been given up; with their older term at its end a log would
//! vote for a candidate that lacks committed entries.)

use base::{Index, LogPosition, Term};
use raft::{Entry, HardState};

use crate::scan::{End, Found, OpenSegment, Place, scan};
use crate::{Mark, OpenError};

/// All marks at or below the commit index, by index, the newest segment that has each, and where
/// the log ends.
pub(crate) fn marks(segments: &[OpenSegment]) -> Result<(Vec<Mark>, Vec<usize>, End), OpenError> {
    let mut found_in: Vec<(Mark, usize)> = Vec::new();
    let end = scan(segments, |place, found| {
        match found {
            Found::Mark(mark) => found_in.push((mark, place.nth)),
            Found::Entry(_) => {}
        }
        Ok(())
    })?;
    // A mark ahead of the commit index is of a snapshot whose hard state was not written: it may
    // have been received but never installed.
    found_in.retain(|(mark, _)| mark.position.index <= end.hard_state.commit);
    // Stable: of those with one index the newest record stays last.
    found_in.sort_by_key(|(mark, _)| mark.position.index);
    found_in.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
    let (marks, nths) = found_in.into_iter().unzip();
    Ok((marks, nths, end))
}

/// The entries behind `start`. `segments` begins with the one that holds the first of them.
pub(crate) fn entries(segments: &[OpenSegment], start: &Mark) -> Result<Vec<Entry>, OpenError> {
    let mut replay =
        Entries { start: start.position, entries: Vec::new(), at_start: None, mark_found: false };
    let end = scan(segments, |place, found| replay.on(place, found))?;
    let newest = segments.last().expect("a log has a segment");
    let folder = || newest.path.parent().unwrap_or(&newest.path).to_owned();
    if !replay.mark_found {
        return Err(OpenError::MarkMissing { folder: folder(), start: start.position });
    }
    let HardState { commit, .. } = end.hard_state;
    let last = replay.last().index;
    if commit > last {
        return Err(OpenError::CommittedLost { folder: folder(), last, commit });
    }
    Ok(replay.entries)
}

struct Entries {
    start: LogPosition,
    entries: Vec<Entry>,
    /// The term of the log's own entry at the start, if it has one.
    at_start: Option<Term>,
    mark_found: bool,
}

impl Entries {
    fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.start, Entry::position)
    }

    fn on(&mut self, place: &Place<'_>, found: Found<'_>) -> Result<(), OpenError> {
        match found {
            Found::Entry(entry) if entry.index > self.start.index => {
                let behind = entry.index.0 - self.start.index.0 - 1;
                let kept = usize::try_from(behind).ok().filter(|kept| *kept <= self.entries.len());
                let Some(kept) = kept else {
                    return Err(OpenError::EntryGap {
                        file: place.segment.path.clone(),
                        offset: place.offset,
                        last: self.last().index,
                        found: entry.index,
                    });
                };
                self.entries.truncate(kept);
                let Term(before) = self.entries.last().map_or(Term(0), |entry| entry.term);
                if entry.term.0 < before {
                    return Err(OpenError::GoesBack {
                        file: place.segment.path.clone(),
                        offset: place.offset,
                        what: "the term of entries",
                        before,
                        found: entry.term.0,
                    });
                }
                self.entries.push(entry.to_entry());
                Ok(())
            }
            Found::Entry(entry) => {
                self.entries.clear();
                self.at_start = (entry.index == self.start.index).then_some(entry.term);
                Ok(())
            }
            Found::Mark(mark) if mark.position.index == self.start.index => {
                if mark.position.term != self.start.term {
                    return Err(OpenError::MarkTerm {
                        file: place.segment.path.clone(),
                        index: mark.position.index,
                        expected: self.start.term,
                        found: mark.position.term,
                    });
                }
                self.mark_found = true;
                if self.at_start.is_some_and(|term| term != self.start.term) {
                    base::probe::reached("wal: a start finds entries that a snapshot overtook");
                    self.entries.clear();
                }
                Ok(())
            }
            Found::Mark(_) => Ok(()),
        }
    }
}

/// The segment from which a replay from a mark at `index` starts: the newest that can hold the entries
/// behind it, but none behind the mark's own, which is in `nth`. Entries that came by the log's way
/// later than the mark of a snapshot that was never installed may begin a newer segment.
pub(crate) fn first_needed(segments: &[OpenSegment], index: Index, nth: usize) -> Option<usize> {
    let by_name = segments.iter().rposition(|segment| segment.name.first_index <= index)?;
    Some(by_name.min(nth))
}
