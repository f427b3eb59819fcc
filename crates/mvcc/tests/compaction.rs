//! What a compaction keeps, at its borders and over crashes.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use backend::Bucket;
use mvcc::{CompactStep, Options, QueryError, RevisionError};
use retcd_mvcc as mvcc;
use support::{Fixture, all, drain, one, put, stream, watch};

/// A key's life: two puts, a deletion, two puts (main revisions 2 to 6), and one of another key.
fn with_history() -> Fixture {
    let mut fixture = Fixture::small();
    fixture.put("k", "1");
    fixture.put("k", "2");
    fixture.delete("k");
    fixture.put("k", "3");
    fixture.put("k", "4");
    fixture.put("other", "1");
    fixture
}

/// KV-29: the newest row at the boundary stays, unless it is a deletion before it.
#[test]
fn rows_kept_at_each_boundary() {
    let kept = [
        (1, "k@2.0 k@3.0 k@4.0t k@5.0 k@6.0 other@7.0"),
        (2, "k@2.0 k@3.0 k@4.0t k@5.0 k@6.0 other@7.0"),
        (3, "k@3.0 k@4.0t k@5.0 k@6.0 other@7.0"),
        (4, "k@4.0t k@5.0 k@6.0 other@7.0"),
        (5, "k@5.0 k@6.0 other@7.0"),
        (6, "k@6.0 other@7.0"),
        (7, "k@6.0 other@7.0"),
    ];
    for (at, rows) in kept {
        for compact_hash in [true, false] {
            let mut fixture = with_history();
            fixture.options.compact_hash = compact_hash;
            fixture.reopen();
            fixture.compact(at);
            assert_eq!(fixture.stored_rows().join(" "), rows, "compacted at {at}");
            fixture.reopen();
            assert_eq!(fixture.stored_rows().join(" "), rows);
        }
    }
}

/// KV-29: a deletion kept at one boundary goes at the next.
#[test]
fn deletion_at_the_boundary_goes_with_the_next_compaction() {
    let mut fixture = Fixture::small();
    fixture.put("k", "1");
    fixture.delete("k");
    fixture.compact(3);
    assert_eq!(fixture.stored_rows(), ["k@3.0t"]);
    fixture.put("other", "1");
    fixture.compact(4);
    assert_eq!(fixture.stored_rows(), ["other@4.0"]);
}

/// KV-04, KV-29: what is refused, and with which numbers.
#[test]
fn reads_and_compactions_below_the_boundary_are_refused() {
    let mut fixture = with_history();
    fixture.compact(5);
    assert!(matches!(
        fixture.range(all(), Some(4)),
        Err(QueryError::Revision(RevisionError::Compacted { requested: 4, oldest: 5 }))
    ));
    assert_eq!(fixture.range(one("k"), Some(5)).unwrap()[0].value, "3");
    assert!(matches!(
        fixture.schedule(5),
        Err(RevisionError::Compacted { requested: 5, oldest: 5 })
    ));
    assert!(matches!(fixture.schedule(8), Err(RevisionError::Future { requested: 8, newest: 7 })));
    assert!(matches!(
        fixture.range(all(), Some(8)),
        Err(QueryError::Revision(RevisionError::Future { requested: 8, newest: 7 }))
    ));
}

/// KV-35: version and create revision begin anew behind a deletion, also when rows before are gone.
#[test]
fn versions_survive_compaction_and_reopening() {
    let mut fixture = Fixture::small();
    for value in ["1", "2", "3"] {
        fixture.put("k", value);
    }
    fixture.compact(3);
    fixture.reopen();
    fixture.put("k", "4");
    let row = fixture.range(one("k"), None).unwrap().remove(0);
    assert_eq!((row.create_revision, row.mod_revision, row.version), (2, 5, 4));
    let row = fixture.range(one("k"), Some(3)).unwrap().remove(0);
    assert_eq!((row.create_revision, row.mod_revision, row.version), (2, 3, 2));
    fixture.delete("k");
    fixture.put("k", "5");
    let row = fixture.range(one("k"), None).unwrap().remove(0);
    assert_eq!((row.create_revision, row.mod_revision, row.version), (7, 7, 1));
}

/// C7: a crash behind any step leaves a store that reads the same and finishes the work.
#[test]
fn compaction_is_resumed_behind_any_crash() {
    for compact_hash in [true, false] {
        for steps in 0..12 {
            let mut fixture =
                Fixture::new(Options { compact_batch_rows: 1, compact_hash, ..Options::default() });
            for n in 0..4 {
                fixture.put("a", &n.to_string());
                fixture.put("b", &n.to_string());
            }
            fixture.delete("b");
            fixture.schedule(10).unwrap();
            for _ in 0..steps {
                fixture.store.compact_step().unwrap();
            }
            fixture.reopen();
            assert_eq!(fixture.store.reader().compact_revision(), 10, "after {steps} steps");
            assert_eq!(fixture.store.reader().revision(), 10);
            assert_eq!(fixture.range(all(), None).unwrap().len(), 1);
            let (mut stream, _) = stream(&fixture.store);
            stream.create(watch(one("b"), 10)).unwrap();
            assert_eq!(drain(&mut stream).len(), 1, "the deletion at the boundary is seen");
            fixture.finish_compactions();
            assert_eq!(fixture.stored_rows(), ["a@8.0", "b@10.0t"]);
        }
    }
}

/// Interop 3.2, C7, etcd issue 17780: the newest rows may all be gone, the revision never goes back.
#[test]
fn revision_is_never_below_the_compaction_marks() {
    let mut fixture = Fixture::small();
    fixture.put("k", "1");
    fixture.delete("k");
    fixture.compact(3);
    // An old version removes the deletion at the boundary, too.
    let mut batch = backend::Batch::upkeep();
    let mut name = retcd_row_name(3);
    name.push(b't');
    batch.delete(Bucket::Key, &name);
    fixture.backend.apply(batch);
    fixture.reopen();
    assert_eq!(fixture.store.reader().revision(), 3);
    assert_eq!(fixture.store.reader().compact_revision(), 3);
    fixture.put("k", "2");
    assert_eq!(fixture.range(one("k"), None).unwrap()[0].mod_revision, 4);
}

fn retcd_row_name(main: i64) -> Vec<u8> {
    let mut name = main.to_be_bytes().to_vec();
    name.push(b'_');
    name.extend(0_i64.to_be_bytes());
    name
}

/// KV-32: steps are bounded, and a boundary set meanwhile is worked on next.
#[test]
fn boundaries_set_during_a_compaction_are_done_behind_it() {
    let mut fixture = Fixture::small();
    for n in 0..20 {
        fixture.put("k", &n.to_string());
    }
    fixture.schedule(5).unwrap();
    assert_eq!(fixture.store.compact_step().unwrap(), CompactStep::More);
    fixture.schedule(8).unwrap();
    fixture.schedule(15).unwrap();
    let mut finished = Vec::new();
    loop {
        let before = fixture.stored_rows().len();
        match fixture.store.compact_step().unwrap() {
            CompactStep::Idle => break,
            CompactStep::More => {}
            CompactStep::Finished(at) => finished.push(at),
        }
        assert!(before - fixture.stored_rows().len() <= 2, "a step removes at most its batch");
    }
    assert_eq!(finished, [5, 15]);
    assert_eq!(fixture.stored_rows().len(), 7);
}

/// Rows of the batch itself are below a boundary that the batch sets.
#[test]
fn boundary_may_be_set_behind_changes_of_the_same_batch() {
    let mut fixture = Fixture::small();
    fixture.apply(|writer| {
        put(&mut writer.txn(), "k", "1");
        put(&mut writer.txn(), "k", "2");
        writer.compact(3).unwrap();
        assert!(matches!(writer.compact(3), Err(RevisionError::Compacted { .. })));
        put(&mut writer.txn(), "k", "3");
    });
    fixture.finish_compactions();
    assert_eq!(fixture.stored_rows(), ["k@3.0", "k@4.0"]);
}
