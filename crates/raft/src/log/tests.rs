//! Facts about the log that no whole cluster is needed for.

use super::*;
use crate::ConfState;
use bytes::Bytes;

const BALLOT: (Term, MemberId) = (Term(1), MemberId(1));

fn entry(term: u64, index: u64) -> Entry {
    let data = Bytes::from_static(b"0123456789");
    Entry { kind: EntryKind::Normal, term: Term(term), index: Index(index), data }
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(term) }
}

/// Everything durable, nothing committed.
fn log(terms: &[u64]) -> Log {
    let entries = (1..).zip(terms).map(|(index, &term)| entry(term, index)).collect();
    Log::new(LogPosition::default(), entries, Index(0), Index(0))
}

/// A batch with all that is new leaves for the disk.
fn hand_out(log: &mut Log) -> (PersistToken, Vec<Entry>) {
    let (entries, snapshot) = log.take_unstable();
    let index = snapshot.map(|meta| meta.position.index);
    (log.hand_out(index, true, BALLOT), entries)
}

#[test]
fn entries_leave_for_the_disk_once() {
    let mut log = log(&[1]);
    log.append([entry(1, 2)]);
    let (first, entries) = hand_out(&mut log);
    assert_eq!(entries, [entry(1, 2)]);
    log.append([entry(1, 3)]);
    let (second, entries) = hand_out(&mut log);
    assert_eq!(entries, [entry(1, 3)]);
    log.persisted(first);
    assert_eq!(log.stable(), Index(2));
    log.persisted(second);
    assert_eq!(log.stable(), Index(3));
}

/// Written in term 2, replaced in term 3, and replaced again by entries like those of term 2: the
/// first completion says nothing about the third.
#[test]
fn a_late_completion_does_not_vouch_for_what_replaced_it() {
    let mut log = log(&[1]);
    log.append_behind(position(1, 1), vec![entry(2, 2), entry(2, 3)], Index(0)).unwrap();
    let (first, _) = hand_out(&mut log);
    log.append_behind(position(1, 1), vec![entry(3, 2)], Index(0)).unwrap();
    let (second, entries) = hand_out(&mut log);
    assert_eq!(entries, [entry(3, 2)]);
    log.append_behind(position(1, 1), vec![entry(4, 2), entry(4, 3)], Index(0)).unwrap();
    let (third, _) = hand_out(&mut log);
    log.persisted(first);
    assert_eq!(log.stable(), Index(1));
    log.persisted(second);
    assert_eq!(log.stable(), Index(1));
    log.persisted(third);
    assert_eq!(log.stable(), Index(3));
}

#[test]
fn only_durable_entries_are_applied() {
    let mut log = log(&[1]);
    log.append([entry(1, 2)]);
    log.commit_to(Index(2));
    assert_eq!(log.take_committed(1000), [entry(1, 1)]);
    assert_eq!(log.take_committed(1000), []);
    let (token, _) = hand_out(&mut log);
    log.persisted(token);
    assert_eq!(log.take_committed(1000), [entry(1, 2)]);
}

#[test]
fn applying_goes_no_further_ahead_than_allowed() {
    let mut log = log(&[1, 1, 1]);
    log.commit_to(Index(3));
    assert_eq!(log.take_committed(30).len(), 1, "one entry is always allowed");
    assert_eq!(log.take_committed(30).len(), 1);
    assert_eq!(log.take_committed(30).len(), 0);
    assert_eq!(log.applied_to(Index(1)), 10);
    assert_eq!(log.applied_to(Index(1)), 0);
    assert_eq!(log.take_committed(30).len(), 1);
}

#[test]
fn compaction_stops_at_what_is_applied() {
    let mut log = log(&[1, 2, 2]);
    log.commit_to(Index(3));
    log.take_committed(1000);
    log.applied_to(Index(2));
    log.compact(Index(3));
    assert_eq!(log.first(), Index(3));
    assert_eq!(log.term(Index(2)), Some(Term(2)), "the entry before the first is still known");
    assert_eq!(log.term(Index(1)), None);
    assert_eq!(log.entries_from(Index(3), 1), [entry(2, 3)]);
    assert!(log.append_behind(position(2, 2), vec![entry(2, 3), entry(2, 4)], Index(0)).is_ok());
}

#[test]
fn a_contradiction_of_what_is_committed_changes_nothing() {
    let mut log = log(&[1, 1]);
    log.commit_to(Index(2));
    let refusal = log.append_behind(position(1, 1), vec![entry(2, 2)], Index(2)).unwrap_err();
    assert_eq!(refusal, Mismatch::Committed(Index(2)));
    assert_eq!(log.last(), position(1, 2));
}

#[test]
fn a_snapshot_is_in_force_when_it_is_durable() {
    let mut log = log(&[1, 1, 1]);
    log.append([entry(1, 4)]);
    let (old, _) = hand_out(&mut log);
    let meta = SnapshotMeta { position: position(2, 3), conf_state: ConfState::default() };
    log.restore(meta);
    log.append([entry(2, 4)]);
    log.commit_to(Index(4));
    log.persisted(old);
    assert_eq!((log.stable(), log.applied()), (Index(3), Index(0)));
    assert_eq!(log.take_committed(1000), []);
    let (token, entries) = hand_out(&mut log);
    assert_eq!(entries, [entry(2, 4)]);
    log.persisted(token);
    assert_eq!((log.stable(), log.applied()), (Index(4), Index(3)));
    assert_eq!(log.take_committed(1000), [entry(2, 4)]);
}

/// A snapshot overtook them, and the files of the log keep what was there before.
#[test]
fn entries_of_falling_terms_are_not_read_back() {
    let log = Log::new(position(3, 2), vec![entry(1, 3), entry(1, 4)], Index(2), Index(2));
    assert_eq!(log.last(), position(3, 2));
}

#[test]
#[should_panic(expected = "commit index 3 beyond the last entry 2")]
fn a_log_that_lost_committed_entries_is_not_opened() {
    let entries = vec![entry(1, 1), entry(1, 2)];
    drop(Log::new(LogPosition::default(), entries, Index(3), Index(0)));
}
