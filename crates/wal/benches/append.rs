//! What appending a batch costs without a disk: `cargo bench -p retcd-wal`. Measurements, not
//! checks.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement stops at what it does not expect"
)]

use base::{ClusterId, Index, MemberId, Term};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft::{Entry, EntryKind};
use retcd_wal::{Metadata, Wal};
use vfs::memory::MemoryDir;

const PAYLOAD_BYTES: usize = 300;
/// Appends before a new log is begun, so that memory does not fill up.
const APPENDS: u64 = 16;

fn batch(first: u64, len: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: Index(index),
        data: vec![7; PAYLOAD_BYTES].into(),
    };
    (first..first + len).map(entry).collect()
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for len in [1, 64, 1000] {
        let batches: Vec<_> = (0..APPENDS).map(|n| batch(n * len + 1, len)).collect();
        let new_log = || {
            let parent = MemoryDir::new().shared();
            let metadata = Metadata { member: MemberId(1), cluster: ClusterId(2) };
            Wal::create(&parent, "wal", &metadata).unwrap()
        };
        group.throughput(Throughput::Elements(len * APPENDS));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter_batched(
                new_log,
                |mut log| {
                    for batch in &batches {
                        log.append_and_sync(batch, None, true).unwrap();
                    }
                    log
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(paths, append);
criterion_main!(paths);
