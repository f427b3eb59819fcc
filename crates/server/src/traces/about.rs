//! What the spans within calls say of their requests.
//!
//! Values are left out. Keys are text, as far as they can be; of long ones the beginning is told,
//! since spans wait in memory.
//! Source: etcd server/etcdserver/{v3_server,tracing}.go, api/v3rpc/watch.go.

use opentelemetry::KeyValue;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::RequestOp;
use proto::etcdserverpb::request_op::Request;

/// Bytes of a key that a span holds.
const KEY_BYTES_MAX: usize = 4 << 10;

fn text(key: &[u8]) -> String {
    let shown = key.get(..KEY_BYTES_MAX).unwrap_or(key);
    String::from_utf8_lossy(shown).into_owned()
}

fn count<T>(of: &[T]) -> i64 {
    i64::try_from(of.len()).unwrap_or(i64::MAX)
}

/// Of a range that is answered at once.
pub(crate) fn range(request: &pb::RangeRequest) -> Vec<KeyValue> {
    let mut about = stream(request);
    about.push(KeyValue::new("keys_only", request.keys_only));
    about
}

/// Of a range that is answered in pieces.
pub(crate) fn stream(request: &pb::RangeRequest) -> Vec<KeyValue> {
    vec![
        KeyValue::new("range_begin", text(&request.key)),
        KeyValue::new("range_end", text(&request.range_end)),
        KeyValue::new("rev", request.revision),
        KeyValue::new("limit", request.limit),
        KeyValue::new("count_only", request.count_only),
    ]
}

pub(crate) fn put(request: &pb::PutRequest) -> Vec<KeyValue> {
    vec![KeyValue::new("key", text(&request.key))]
}

pub(crate) fn delete(request: &pb::DeleteRangeRequest) -> Vec<KeyValue> {
    vec![
        KeyValue::new("range_begin", text(&request.key)),
        KeyValue::new("range_end", text(&request.range_end)),
    ]
}

pub(crate) fn txn(request: &pb::TxnRequest) -> Vec<KeyValue> {
    let pb::TxnRequest { compare, success, failure } = request;
    let compared = compare.iter().map(|compare| &compare.key[..]).find(|key| !key.is_empty());
    vec![
        KeyValue::new("compare_first_key", text(compared.unwrap_or_default())),
        KeyValue::new("success_first_key", text(first_key(success))),
        KeyValue::new("success_first_type", first_kind(success)),
        KeyValue::new("success_first_lease", first_lease(success)),
        KeyValue::new("compare_len", count(compare)),
        KeyValue::new("success_len", count(success)),
        KeyValue::new("failure_len", count(failure)),
        KeyValue::new("read_only", state::check::is_read_only(request)),
    ]
}

/// The first key that is named.
fn first_key(operations: &[RequestOp]) -> &[u8] {
    let keys = operations.iter().map(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => &range.key[..],
        Some(Request::RequestPut(put)) => &put.key[..],
        Some(Request::RequestDeleteRange(delete)) => &delete.key[..],
        Some(Request::RequestTxn(_)) | None => &[],
    });
    keys.into_iter().find(|key| !key.is_empty()).unwrap_or_default()
}

fn first_kind(operations: &[RequestOp]) -> &'static str {
    let first = operations.iter().find_map(|operation| operation.request.as_ref());
    first.map_or("", |request| match request {
        Request::RequestRange(_) => "range",
        Request::RequestPut(_) => "put",
        Request::RequestDeleteRange(_) => "delete_range",
        Request::RequestTxn(_) => "txn",
    })
}

/// The lease of the first put; -1 if there is none.
fn first_lease(operations: &[RequestOp]) -> i64 {
    let lease = operations.iter().find_map(|operation| match &operation.request {
        Some(Request::RequestPut(put)) => Some(put.lease),
        Some(
            Request::RequestRange(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_),
        )
        | None => None,
    });
    lease.unwrap_or(-1)
}

pub(crate) fn compaction(request: &pb::CompactionRequest) -> Vec<KeyValue> {
    vec![KeyValue::new("is_physical", request.physical), KeyValue::new("rev", request.revision)]
}

/// Of a lease that has its id.
pub(crate) fn grant(request: &pb::LeaseGrantRequest) -> Vec<KeyValue> {
    vec![KeyValue::new("id", request.id), KeyValue::new("ttl", request.ttl)]
}

/// Of what is done to a lease.
pub(crate) fn lease(id: i64) -> Vec<KeyValue> {
    vec![KeyValue::new("id", id)]
}

/// An empty key and an end of one zero byte are what they stand for.
pub(crate) fn watch(request: &pb::WatchCreateRequest) -> Vec<KeyValue> {
    let key: &[u8] = if request.key.is_empty() { b"\0" } else { &request.key };
    let end: &[u8] = if *request.range_end == *b"\0" { b"" } else { &request.range_end };
    vec![
        KeyValue::new("key", text(key)),
        KeyValue::new("range_end", text(end)),
        KeyValue::new("start_rev", request.start_revision),
        KeyValue::new("progress_notify", request.progress_notify),
        KeyValue::new("prev_kv", request.prev_kv),
        KeyValue::new("fragment", request.fragment),
    ]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn operation(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    /// SRV-121.
    #[test]
    fn a_txn_is_told_by_its_first_keys() {
        let put = |key: &'static [u8], lease| {
            let key = Bytes::from_static(key);
            operation(Request::RequestPut(pb::PutRequest { key, lease, ..Default::default() }))
        };
        let range = operation(Request::RequestRange(pb::RangeRequest::default()));
        let operations = [range.clone(), put(b"a\xff", 7), put(b"b", 8)];
        assert_eq!(text(first_key(&operations)), "a\u{fffd}");
        assert_eq!((first_kind(&operations), first_lease(&operations)), ("range", 7));
        assert_eq!((first_kind(&[]), first_lease(&[range])), ("", -1));
        assert_eq!(text(&[b'k'; 2 * KEY_BYTES_MAX]).len(), KEY_BYTES_MAX);
    }
}
