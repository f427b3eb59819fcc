//! Requests in words, as etcd's log has them: protobuf's text form, without values.
//!
//! Puts, and compares of values, are in the older of the two text forms that etcd's Go libraries
//! write: with a space behind each field, and other escapes.
//! Source: etcd api/etcdserverpb/raft_internal_stringer.go.

use std::fmt::{Display, Write as _};

use proto::etcdserverpb as pb;
use proto::etcdserverpb::RequestOp;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;

/// Fields, in the order of their numbers.
#[derive(Default)]
struct Fields(Vec<String>);

impl Fields {
    fn key(mut self, name: &str, key: &[u8], escape: fn(&[u8]) -> String) -> Self {
        if !key.is_empty() {
            self.0.push(format!("{name}:\"{}\"", escape(key)));
        }
        self
    }

    /// A field that is left out if it has the value it has by itself.
    fn field<T: Display + Default + PartialEq>(self, name: &str, value: T) -> Self {
        if value == T::default() { self } else { self.always(name, value) }
    }

    fn name(self, name: &str, is_set: bool, value: &str) -> Self {
        if is_set { self.always(name, value) } else { self }
    }

    fn always(mut self, name: &str, value: impl Display) -> Self {
        self.0.push(format!("{name}:{value}"));
        self
    }

    fn text(&self) -> String {
        self.0.join(" ")
    }
}

/// Bytes in the newer form: text stays text.
fn newer(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '"' | '\\' => out.extend(['\\', letter]),
                '\0'..' ' | '\u{7f}' => _ = write!(out, "\\x{:02x}", u32::from(letter)),
                '\u{80}'..='\u{9f}' => _ = write!(out, "\\u{:04x}", u32::from(letter)),
                _ => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Bytes in the older form: whatever is not printable ASCII is a number.
fn older(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => _ = write!(out, "\\{byte:03o}"),
        }
    }
    out
}

pub(super) fn range(request: &pb::RangeRequest) -> String {
    Fields::default()
        .key("key", &request.key, newer)
        .key("range_end", &request.range_end, newer)
        .field("limit", request.limit)
        .field("revision", request.revision)
        .name("sort_order", request.sort_order != 0, request.sort_order().as_str_name())
        .name("sort_target", request.sort_target != 0, request.sort_target().as_str_name())
        .field("serializable", request.serializable)
        .field("keys_only", request.keys_only)
        .field("count_only", request.count_only)
        .field("min_mod_revision", request.min_mod_revision)
        .field("max_mod_revision", request.max_mod_revision)
        .field("min_create_revision", request.min_create_revision)
        .field("max_create_revision", request.max_create_revision)
        .text()
}

pub(super) fn put(request: &pb::PutRequest) -> String {
    let text = Fields::default()
        .key("key", &request.key, older)
        .field("value_size", request.value.len())
        .field("lease", request.lease)
        .field("prev_kv", request.prev_kv)
        .field("ignore_value", request.ignore_value)
        .field("ignore_lease", request.ignore_lease)
        .text();
    if text.is_empty() { text } else { text + " " }
}

pub(super) fn delete(request: &pb::DeleteRangeRequest) -> String {
    Fields::default()
        .key("key", &request.key, newer)
        .key("range_end", &request.range_end, newer)
        .field("prev_kv", request.prev_kv)
        .text()
}

pub(super) fn txn(request: &pb::TxnRequest) -> String {
    let compares: Vec<String> = request.compare.iter().map(compare).collect();
    let all = |operations: &[RequestOp]| {
        let texts: Vec<String> = operations.iter().map(operation).collect();
        texts.join(" ")
    };
    let (success, failure) = (all(&request.success), all(&request.failure));
    format!("compare:<{}> success:<{success}> failure:<{failure}>", compares.join(" "))
}

fn operation(operation: &RequestOp) -> String {
    match &operation.request {
        Some(Request::RequestRange(request)) => format!("request_range:{{{}}}", range(request)),
        Some(Request::RequestPut(request)) => format!("request_put:<{}>", put(request)),
        Some(Request::RequestDeleteRange(request)) => {
            format!("request_delete_range:{{{}}}", delete(request))
        }
        Some(Request::RequestTxn(request)) => format!("request_txn:<{}>", txn(request)),
        None => String::new(),
    }
}

fn compare(compare: &pb::Compare) -> String {
    let is_of_value = matches!(compare.target_union, Some(TargetUnion::Value(_)));
    let escape = if is_of_value { older } else { newer };
    let fields = Fields::default()
        .name("result", compare.result != 0, compare.result().as_str_name())
        .name("target", compare.target != 0, compare.target().as_str_name())
        .key("key", &compare.key, escape);
    let fields = match &compare.target_union {
        Some(TargetUnion::Version(version)) => fields.always("version", version),
        Some(TargetUnion::CreateRevision(revision)) => fields.always("create_revision", revision),
        Some(TargetUnion::ModRevision(revision)) => fields.always("mod_revision", revision),
        Some(TargetUnion::Value(value)) => fields.field("value_size", value.len()),
        Some(TargetUnion::Lease(lease)) => fields.always("lease", lease),
        None => fields,
    };
    fields.key("range_end", &compare.range_end, escape).text()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::etcdserverpb::compare::{CompareResult, CompareTarget};
    use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

    use super::*;

    fn key(key: &'static [u8]) -> Bytes {
        Bytes::from_static(key)
    }

    /// G-020: as etcd 3.7.1 logged them.
    #[test]
    fn requests_are_told_as_by_etcd_and_without_values() {
        let request = pb::PutRequest {
            key: key(b"a\xffa\""),
            value: key(b"secret"),
            lease: 5,
            prev_kv: true,
            ..Default::default()
        };
        assert_eq!(put(&request), r#"key:"a\377a\"" value_size:6 lease:5 prev_kv:true "#);
        let request = pb::RangeRequest {
            key: key(b"\xc3\xa4\xff\x01"),
            range_end: key(b"b"),
            limit: 3,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Mod.into(),
            keys_only: true,
            min_mod_revision: 1,
            ..Default::default()
        };
        assert_eq!(
            range(&request),
            r#"key:"ä\xff\x01" range_end:"b" limit:3 sort_order:ASCEND sort_target:MOD keys_only:true min_mod_revision:1"#
        );
        assert_eq!(delete(&pb::DeleteRangeRequest::default()), "");
    }

    /// G-020.
    #[test]
    fn a_txn_is_told_with_all_that_is_in_it() {
        let of = |request| RequestOp { request: Some(request) };
        let put = |value: &'static [u8]| {
            let value = Bytes::from_static(value);
            of(Request::RequestPut(pb::PutRequest { key: key(b"c"), value, ..Default::default() }))
        };
        let inner = pb::TxnRequest { success: vec![put(b"x")], ..Default::default() };
        let compare = |target: CompareTarget, result: CompareResult, union| pb::Compare {
            target: target.into(),
            result: result.into(),
            key: key(b"a"),
            target_union: Some(union),
            ..Default::default()
        };
        let request = pb::TxnRequest {
            compare: vec![
                compare(CompareTarget::Value, CompareResult::Equal, TargetUnion::Value(key(b"x"))),
                compare(CompareTarget::Mod, CompareResult::Greater, TargetUnion::ModRevision(3)),
                compare(CompareTarget::Version, CompareResult::NotEqual, TargetUnion::Version(0)),
            ],
            success: vec![put(b"ex")],
            failure: vec![
                of(Request::RequestRange(pb::RangeRequest {
                    key: key(b"a"),
                    ..Default::default()
                })),
                of(Request::RequestTxn(inner)),
            ],
        };
        assert_eq!(
            txn(&request),
            "compare:<target:VALUE key:\"a\" value_size:1 \
             result:GREATER target:MOD key:\"a\" mod_revision:3 \
             result:NOT_EQUAL key:\"a\" version:0> \
             success:<request_put:<key:\"c\" value_size:2 >> \
             failure:<request_range:{key:\"a\"} \
             request_txn:<compare:<> success:<request_put:<key:\"c\" value_size:1 >> failure:<>>>"
        );
        assert_eq!(txn(&pb::TxnRequest::default()), "compare:<> success:<> failure:<>");
    }
}
