//! What a put, a get and an event cost here: `cargo bench -p retcd-mvcc`. Measurements, not checks.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement stops at what it does not expect"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use base::{KeyRange, LeaseId};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use retcd_mvcc::{Options, RangeQuery, Want};
use support::{Fixture, all, stream, watch};

const KEYS: usize = 100_000;
static VALUE: Bytes = Bytes::from_static(&[b'v'; 256]);
const PULL_BYTES_MAX: usize = 64 << 10;

fn key(number: usize) -> Bytes {
    let scattered = number.wrapping_mul(2_654_435_761) % KEYS;
    Bytes::from(format!("/registry/pods/{scattered:08}"))
}

fn filled() -> Fixture {
    let mut fixture = Fixture::new(Options::default());
    for first in (0..KEYS).step_by(100) {
        fixture.apply(|writer| {
            for number in first..first + 100 {
                writer.txn().put(key(number), &VALUE, LeaseId::NONE, false).unwrap();
            }
        });
    }
    fixture.backend.commit().unwrap();
    fixture
}

/// Batches as long as the load makes them; each ends with a commit now and then, as in the server.
fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put");
    for batch in [1, 64, 1000] {
        let (mut fixture, mut number) = (filled(), 0);
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                fixture.apply(|writer| {
                    for _ in 0..batch {
                        number += 1;
                        let value = VALUE.clone();
                        writer.txn().put(key(number), &value, LeaseId::NONE, false).unwrap();
                    }
                });
                if 10_000 < fixture.backend.pending() {
                    fixture.backend.commit().unwrap();
                }
            });
        });
    }
}

fn ranges(criterion: &mut Criterion) {
    let fixture = filled();
    let reader = fixture.store.reader();
    let mut number = 0;
    criterion.bench_function("get", |bencher| {
        bencher.iter(|| {
            number += 1;
            let keys = KeyRange::One(key(number));
            let query = RangeQuery { keys, at: None, limit: None, want: Want::Rows };
            reader.range(&query).unwrap()
        });
    });
    criterion.bench_function("range of 10 with count", |bencher| {
        let query = RangeQuery { keys: all(), at: None, limit: Some(10), want: Want::Rows };
        bencher.iter(|| reader.range(&query).unwrap());
    });
}

/// One put and what every watch of its key gets.
fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event to watches of one stream");
    for watches in [1, 100, 10_000] {
        let mut fixture = Fixture::new(Options::default());
        let mut stream = stream(&fixture.store).0;
        for _ in 0..watches {
            stream.create(watch(KeyRange::One(key(0)), 0)).unwrap();
        }
        let mut out = Vec::new();
        group.throughput(Throughput::Elements(watches));
        group.bench_function(BenchmarkId::from_parameter(watches), |bencher| {
            bencher.iter(|| {
                let value = VALUE.clone();
                fixture.txn(|txn| txn.put(key(0), &value, LeaseId::NONE, false).map(drop).unwrap());
                while stream.pull(PULL_BYTES_MAX, &mut out).unwrap() {}
                out.clear();
            });
        });
    }
}

criterion_group!(paths, puts, ranges, events);
criterion_main!(paths);
