//! The bytes that docs/formats/backend.md shows are the bytes that are written.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use base::{Index, LogPosition, Term};
use bytes::Bytes;
use common::{NAME, open, revision};
use retcd_backend::{Batch, Bucket};
use vfs::memory::MemoryDir;
use vfs::{Dir, Open};

fn dump(dir: &Arc<dyn Dir>, name: &str) -> String {
    let file = dir.open(name, Open::Read).unwrap();
    let len = file.len().unwrap().min(8 * 1024);
    let mut text = String::new();
    for offset in (0..len).step_by(16) {
        let mut line = [0; 16];
        let count = file.read_at(&mut line, offset).unwrap();
        // Zeros, and the row's own bytes, say nothing; page 2 is the root before, now free.
        let plain = line[..count].iter().all(|byte| [0, b'v'].contains(byte));
        if plain || name == NAME && offset / 1024 == 2 {
            continue;
        }
        write!(text, "{offset:06x}:").unwrap();
        for byte in &line[..count] {
            write!(text, " {byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn documented_bytes_are_written() {
    let dir = MemoryDir::new().shared();
    let aux = dir.subdir("aux").unwrap();
    let db = open(&dir, Some(&aux));
    let mut batch = Batch::applied(LogPosition { index: Index(5), term: Term(2) });
    for main in 2..5 {
        batch.put(Bucket::Key, &revision(main, 0), Bytes::from(vec![b'v'; 400]));
    }
    batch.put(Bucket::Lease, &7_u64.to_be_bytes(), Bytes::from_static(&[8, 7, 16, 60]));
    db.apply(batch);
    db.commit().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/backend.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sample = &text[text.find("## Golden sample").unwrap()..];
    for (title, found) in [("`db`:", dump(&dir, NAME)), ("`db.sum`:", dump(&aux, "db.sum"))] {
        let part = &sample[sample.find(title).unwrap()..];
        let start = part.find("```text\n").unwrap() + 8;
        let end = part[start..].find("```").unwrap() + start;
        assert_eq!(part[start..end], found, "{title}\n{found}");
    }
}
