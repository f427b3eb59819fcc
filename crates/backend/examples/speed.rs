//! Measures the engine once: `cargo run --release -p retcd-backend --example speed [FOLDER]`.
//!
//! Rows as etcd writes them (17-byte keys, 256-byte values), 1,000 a commit, every commit durable;
//! then random reads, a scan, scattered deletes as compaction does them, and shrinking. Nothing is
//! asserted: numbers depend on the disk.
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::unwrap_used, reason = "a failure ends it")]

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use base::{Index, LogPosition, Term};
use bytes::Bytes;
use retcd_backend::{Backend, Batch, Bucket, Options};
use vfs::OsDir;

const ROWS: u64 = 1_000_000;
const ROWS_PER_COMMIT: u64 = 1_000;
const GETS: u64 = 500_000;

fn revision(main: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

/// A number that looks random; the same in every run.
fn mixed(at: u64) -> u64 {
    let at = (at ^ (at >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (at ^ (at >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16
}

/// When a measurement began: by the wall and by the processor's clock.
struct Start(Instant, Duration);

impl Start {
    fn now() -> Self {
        Self(Instant::now(), processor_time())
    }
}

/// What this process has used so far, in steps of 10 ms (Linux).
fn processor_time() -> Duration {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = line.rsplit(')').next().unwrap_or_default().split(' ').skip(12).take(2);
    Duration::from_millis(ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

fn report(what: &str, count: u64, start: &Start) {
    let (wall, processor) = (start.0.elapsed(), processor_time().saturating_sub(start.1));
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = |time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "{what:<27} {count:>8} in {wall:>9.3?}: {:>9.0}/s, {:>9.0} per second of processor",
        rate(wall),
        rate(processor)
    );
}

fn value(main: u64) -> Bytes {
    (0..32).flat_map(|part| mixed(main * 32 + part).to_le_bytes()).collect()
}

fn fill(db: &Backend, from: u64, to: u64, index: &mut u64) {
    for first in (from..to).step_by(usize::try_from(ROWS_PER_COMMIT).unwrap()) {
        *index += 1;
        let mut batch = Batch::applied(LogPosition { index: Index(*index), term: Term(1) });
        for main in first..first + ROWS_PER_COMMIT {
            batch.put(Bucket::Key, &revision(main), value(main));
        }
        db.apply(batch);
        db.commit().unwrap();
    }
}

fn gets(db: &Backend, what: &str) {
    let start = Start::now();
    let mut found = 0;
    for at in 0..GETS {
        found += u64::from(db.get(Bucket::Key, &revision(mixed(at) % ROWS)).unwrap().is_some());
    }
    report(what, GETS, &start);
    assert!(found > 0, "no row was found");
}

fn run(folder: &std::path::Path, name: &str, sums: bool) {
    println!("-- {name}");
    let dir = OsDir::open(folder.join(name)).unwrap();
    let aux = sums.then(|| dir.subdir("aux").unwrap());
    let options = Options { cache_bytes_max: 512 << 20, aux, ..Options::default() };
    let db = Backend::open(&dir, "db", &options).unwrap();
    let mut index = 0;
    let start = Start::now();
    for main in 0..ROWS {
        std::hint::black_box(value(main));
    }
    report("(making the values)", ROWS, &start);
    let start = Start::now();
    fill(&db, 0, ROWS, &mut index);
    report("rows committed", ROWS, &start);
    println!("{:?}", db.sizes());
    gets(&db, "random gets, warm");
    let start = Start::now();
    let mut seen = 0;
    db.scan(Bucket::Key, b"", None, &mut |_, _| {
        seen += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    report("rows scanned", seen, &start);
    let start = Start::now();
    let keys: Vec<[u8; 17]> = (0..ROWS).step_by(2).map(revision).collect();
    for part in keys.chunks(usize::try_from(ROWS_PER_COMMIT).unwrap()) {
        let mut batch = Batch::upkeep();
        part.iter().for_each(|key| batch.delete(Bucket::Key, key));
        db.apply(batch);
        db.commit().unwrap();
    }
    report("rows deleted, every second", ROWS / 2, &start);
    println!("{:?}", db.sizes());
    let start = Start::now();
    fill(&db, ROWS, ROWS + ROWS / 4, &mut index);
    report("more rows committed", ROWS / 4, &start);
    println!("{:?}", db.sizes());
    let start = Start::now();
    let (mut steps, mut worst) = (0, Duration::ZERO);
    loop {
        let step = Instant::now();
        let more = db.shrink_step().unwrap();
        worst = worst.max(step.elapsed());
        steps += 1;
        if !more {
            break;
        }
    }
    report("shrink steps", steps, &start);
    println!("worst step {worst:?}, {:?}", db.sizes());
    drop(db);
    let start = Start::now();
    let options = Options { cache_bytes_max: 4 << 20, ..options };
    let db = Backend::open(&dir, "db", &options).unwrap();
    report("open", 1, &start);
    gets(&db, "random gets, 4 MiB cache");
    let start = Start::now();
    db.check().unwrap();
    report("check", 1, &start);
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let at = std::env::args_os().nth(1).map_or_else(|| folder.path().to_owned(), Into::into);
    run(&at, "without-sums", false);
    run(&at, "with-sums", true);
}
