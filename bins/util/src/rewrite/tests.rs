//! Databases written anew, in memory.

use backend::{Backend, Batch, Options};
use bytes::Bytes;
use vfs::memory::MemoryDir;
use vfs::{Dir, Open};

use super::*;

fn rows(database: &ReadOnly) -> Vec<String> {
    let mut rows = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    database
        .scan_all(&mut |bucket, key, value| {
            rows.push(format!("{bucket} {}={}", text(key), text(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

fn rewritten(filled: &[(Bucket, &str, &str)], edits: &Edits) -> Vec<String> {
    let dir: Arc<dyn Dir> = MemoryDir::new().shared();
    let backend = Backend::open(&dir, "db", &Options::default()).unwrap();
    let mut batch = Batch::upkeep();
    for (bucket, key, value) in filled {
        batch.put(*bucket, key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()));
    }
    backend.apply(batch);
    backend.commit().unwrap();
    drop(backend);
    let source = ReadOnly::open(dir.open("db", Open::Read).unwrap(), "db").unwrap();
    let file = dir.open("new", Open::Create).unwrap();
    rewrite(&source, edits, Arc::clone(&file), None).unwrap();
    let written = ReadOnly::open(file, "new").unwrap();
    written.check().unwrap();
    assert_eq!(written.buckets(), source.buckets());
    rows(&written)
}

const FILLED: [(Bucket, &str, &str); 4] = [
    (Bucket::Key, "k", "1"),
    (Bucket::Members, "8e", "old"),
    (Bucket::Meta, "consistent_index", "9"),
    (Bucket::Meta, "term", "3"),
];

#[test]
fn without_edits_all_rows_are_kept() {
    let expected = ["key k=1", "members 8e=old", "meta consistent_index=9", "meta term=3"];
    assert_eq!(rewritten(&FILLED, &Edits::default()), expected);
}

#[test]
fn rows_are_set_before_between_and_behind_those_of_the_source() {
    let mut edits = Edits::default();
    edits.empty(Bucket::Members);
    edits.set(Bucket::Members, b"1a", "new");
    edits.set(Bucket::Meta, b"confState", "c");
    edits.set(Bucket::Meta, b"consistent_index", "1");
    edits.set(Bucket::Meta, b"scheduledCompactRev", "s");
    edits.set(Bucket::Meta, b"zzz", "z");
    edits.set(Bucket::Alarm, b"a", "");
    edits.set(Bucket::Key, b"z", "");
    let expected = [
        "alarm a=",
        "key k=1",
        "key z=",
        "members 1a=new",
        "meta confState=c",
        "meta consistent_index=1",
        "meta scheduledCompactRev=s",
        "meta term=3",
        "meta zzz=z",
    ];
    assert_eq!(rewritten(&FILLED, &edits), expected);
}

#[test]
fn an_empty_database_stays_one() {
    assert!(rewritten(&[], &Edits::default()).is_empty());
}
