//! A page of the database goes bad under a running member.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use backend::Backend;
use proto::etcdserverpb as pb;
use state::auth::gate::Authorized;
use state::{Halt, Refusal, State};
use support::{
    internal_delete, internal_put, internal_txn, log, options, position, put, range, txn,
};
use vfs::Open;
use vfs::memory::MemoryDir;

/// A state whose row of `bad` lies on a damaged page and in no cache, at index 40.
fn damaged() -> (Backend, State) {
    let disk = MemoryDir::new();
    let dir = disk.shared();
    let options_of_backend = backend::Options { cache_bytes_max: 0, ..backend::Options::default() };
    let filled = Backend::open(&dir, "db", &options_of_backend).unwrap();
    let mut state = State::open(&filled, &options()).unwrap();
    // Values as large as a page, so that each has pages of its own.
    let large = |key: &str, fill: &str| internal_put(put(key, &fill.repeat(5000)));
    let mut payloads = vec![large("bad", "b"), large("good", "g")];
    payloads.extend((2..40).map(|_| large("other", "o")));
    state.apply(&log(1, payloads), &mut Vec::new()).unwrap();
    filled.commit().unwrap();
    drop((state, filled));

    let disk = disk.copy();
    let dir = disk.shared();
    let backend = Backend::open(&dir, "db", &options_of_backend).unwrap();
    let state = State::open(&backend, &options()).unwrap();
    let file = dir.open("db", Open::Write).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    // The page's own number is wrong then: a page that was written to the wrong place.
    let value = b"b".repeat(2000);
    let place = bytes.windows(value.len()).position(|window| window == value).unwrap();
    file.write_at(&[0xff; 8], (place / 4096 * 4096) as u64).unwrap();
    (backend, state)
}

/// G11: bytes that fail their check are not served, others are.
#[test]
fn a_damaged_row_is_not_served() {
    let (_backend, state) = damaged();
    assert_eq!(
        state.reads().range(Authorized::own(&range("bad", ""))).unwrap_err(),
        Refusal::Corrupt
    );
    let read = txn(vec![], vec![pb::request_op::Request::RequestRange(range("bad", ""))], vec![]);
    assert_eq!(state.reads().txn(Authorized::own(&read)).unwrap_err(), Refusal::Corrupt);
    assert_eq!(state.reads().range(Authorized::own(&range("good", ""))).unwrap().rows.len(), 1);
}

/// Reliability 5.3: the member stops before it diverges; the entries before are applied.
#[test]
fn an_entry_that_needs_a_damaged_row_halts_the_member() {
    let previous = pb::PutRequest { prev_kv: true, ..put("bad", "v") };
    let keeping = pb::PutRequest { ignore_value: true, ..put("bad", "") };
    let delete = pb::DeleteRangeRequest { prev_kv: true, ..support::delete("bad", "") };
    let compare = pb::Compare {
        target: pb::compare::CompareTarget::Value as i32,
        key: "bad".into(),
        ..Default::default()
    };
    let payloads = [
        internal_put(previous),
        internal_put(keeping),
        internal_delete(delete),
        internal_txn(txn(vec![compare], vec![], vec![])),
    ];
    for payload in payloads {
        let (backend, mut state) = damaged();
        let entries = log(41, [internal_put(put("good", "v")), payload]);
        let mut outcomes = Vec::new();
        let halt = state.apply(&entries, &mut outcomes).unwrap_err();
        assert!(matches!(halt, Halt::Backend { position: at, .. } if at == position(42)), "{halt}");
        assert_eq!(outcomes.len(), 1);
        assert_eq!((state.applied(), backend.applied()), (position(41), position(41)));
        let good = state.reads().range(Authorized::own(&range("good", ""))).unwrap();
        assert_eq!(&good.rows[0].decode().value[..], b"v");
    }
}
