//! Any bytes as a request: decoded or not, checked, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::etcdserverpb as pb;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = pb::TxnRequest::decode(bytes) {
        drop(state::check_txn(&request, 128));
        state::check::is_read_only(&request);
    }
    if let Ok(request) = pb::RangeRequest::decode(bytes) {
        drop(state::check_range(&request));
    }
    if let Ok(request) = pb::PutRequest::decode(bytes) {
        drop(state::check_put(&request));
    }
    drop(pb::InternalRaftRequest::decode(bytes));
});
