//! Golden texts of every format.

use bytes::Bytes;
use proto::mvccpb::{Event, KeyValue};

use super::*;

fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 11, member_id: 0x2a, revision: 5, raft_term: 2 })
}

fn pair(key: &'static str, value: &'static str) -> KeyValue {
    KeyValue {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        lease: 0,
    }
}

fn range() -> pb::RangeResponse {
    pb::RangeResponse {
        header: header(),
        kvs: vec![pair("name1", "bat<man")],
        more: false,
        count: 1,
    }
}

fn check(format: Format, hex: bool, response: &Response<'_>, expected: &str) {
    let printer = Printer { format, hex, value_only: false };
    let rendered = printer.render(response).unwrap();
    assert_eq!(String::from_utf8(rendered.stdout).unwrap(), expected, "{format:?}");
}

fn refused(format: Format, response: &Response<'_>) -> Failure {
    Printer { format, hex: false, value_only: false }.render(response).unwrap_err()
}

/// CTL3-20, CTL3-21, CTL3-32.
#[test]
fn pairs_in_every_format() {
    let range = range();
    let response = Response::Get(&range);
    check(Format::Simple, false, &response, "name1\nbat<man\n");
    check(
        Format::Json,
        false,
        &response,
        "{\"header\":{\"cluster_id\":11,\"member_id\":42,\"revision\":5,\"raft_term\":2},\
         \"kvs\":[{\"key\":\"bmFtZTE=\",\"create_revision\":2,\"mod_revision\":3,\"version\":2,\
         \"value\":\"YmF0PG1hbg==\"}],\"count\":1}\n",
    );
    check(
        Format::Fields,
        false,
        &response,
        "\"ClusterID\" : 11\n\"MemberID\" : 42\n\"Revision\" : 5\n\"RaftTerm\" : 2\n\
         \"Key\" : \"name1\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 3\n\"Version\" : 2\n\
         \"Value\" : \"bat<man\"\n\"Lease\" : 0\n\"More\" : false\n\"Count\" : 1\n",
    );
    assert_eq!(
        refused(Format::Table, &response),
        Failure::new(ExitCode::BadFeature, "table not supported as output format")
    );
}

/// CTL3-13.
#[test]
fn hex_changes_texts_and_ids() {
    let range = pb::RangeResponse { kvs: vec![pair("na", "b")], ..range() };
    check(Format::Simple, true, &Response::Get(&range), "\\x6e\\x61\n\\x62\n");
    let members = pb::MemberListResponse {
        header: header(),
        members: vec![pb::Member { id: 0x2a, name: "s1".to_owned(), ..pb::Member::default() }],
    };
    check(
        Format::Json,
        true,
        &Response::MemberList(&members),
        "{\"header\":{\"cluster_id\":\"b\",\"member_id\":\"2a\",\"revision\":5,\"raft_term\":2},\
         \"members\":[{\"ID\":\"2a\",\"name\":\"s1\"}]}\n",
    );
}

/// CTL3-35.
#[test]
fn values_alone() {
    let printer = Printer { format: Format::Simple, hex: false, value_only: true };
    let rendered = printer.render(&Response::Get(&range())).unwrap();
    assert_eq!(rendered.stdout, b"bat<man\n");
}

/// CTL3-44, CTL3-49.
#[test]
fn watch_shows_type_and_pairs() {
    let event = Event { r#type: 1, kv: Some(pair("k", "")), prev_kv: Some(pair("k", "old")) };
    let watch =
        pb::WatchResponse { header: header(), events: vec![event], ..pb::WatchResponse::default() };
    check(Format::Simple, false, &Response::Watch(&watch), "DELETE\nk\nold\nk\n\n");
    let empty = pb::WatchResponse { header: header(), ..pb::WatchResponse::default() };
    check(
        Format::Json,
        false,
        &Response::Watch(&empty),
        "{\"Header\":{\"cluster_id\":11,\"member_id\":42,\"revision\":5,\"raft_term\":2},\
         \"Events\":null,\"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\
         \"CancelReason\":\"\"}\n",
    );
}

/// CTL3-40.
#[test]
fn txn_separates_results_by_blank_lines() {
    use pb::response_op::Response as Inner;
    let put = pb::ResponseOp { response: Some(Inner::ResponsePut(pb::PutResponse::default())) };
    let get = pb::ResponseOp { response: Some(Inner::ResponseRange(range())) };
    let txn = pb::TxnResponse { header: None, succeeded: true, responses: vec![put, get] };
    check(Format::Simple, false, &Response::Txn(&txn), "SUCCESS\n\nOK\n\nname1\nbat<man\n");
    let txn = pb::TxnResponse { responses: txn.responses[..1].to_vec(), ..txn };
    check(
        Format::Json,
        false,
        &Response::Txn(&txn),
        "{\"succeeded\":true,\"responses\":[{\"Response\":{\"response_put\":{}}}]}\n",
    );
}

/// CTL3-50, CTL3-52, CTL3-55.
#[test]
fn leases() {
    let granted =
        pb::LeaseGrantResponse { header: header(), id: 0x2be, ttl: 300, error: String::new() };
    let response = Response::LeaseGrant(&granted);
    check(Format::Simple, false, &response, "lease 00000000000002be granted with TTL(300s)\n");
    check(
        Format::Json,
        false,
        &response,
        "{\"cluster_id\":11,\"member_id\":42,\"revision\":5,\"raft_term\":2,\"ID\":702,\
         \"TTL\":300,\"Error\":\"\"}\n",
    );
    let lives = pb::LeaseTimeToLiveResponse {
        header: header(),
        id: 0x2be,
        ttl: 59,
        granted_ttl: 60,
        keys: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
    };
    check(
        Format::Simple,
        false,
        &Response::LeaseTimeToLive { response: &lives, keys: true },
        "lease 00000000000002be granted with TTL(60s), remaining(59s), attached keys([a b])\n",
    );
    let gone = pb::LeaseTimeToLiveResponse { ttl: -1, granted_ttl: 0, ..lives };
    check(
        Format::Simple,
        false,
        &Response::LeaseTimeToLive { response: &gone, keys: false },
        "lease 00000000000002be already expired\n",
    );
    let none = pb::LeaseLeasesResponse { header: None, leases: Vec::new() };
    check(Format::Json, false, &Response::LeaseLeases(&none), "{\"leases\":[]}\n");
}

/// CTL3-67.
#[test]
fn endpoint_status_has_sixteen_columns() {
    let response = pb::StatusResponse {
        header: header(),
        version: "3.7.1".to_owned(),
        storage_version: "3.7.0".to_owned(),
        db_size: 20_480,
        db_size_in_use: 16_384,
        db_size_quota: 2_147_483_648,
        leader: 0x2a,
        raft_term: 2,
        raft_index: 9,
        raft_applied_index: 8,
        ..pb::StatusResponse::default()
    };
    let list = [EndpointStatus { endpoint: "h:1".to_owned(), response }];
    let response = Response::EndpointStatus(&list);
    check(
        Format::Simple,
        false,
        &response,
        "h:1, 2a, 3.7.1, 3.7.0, 20 kB, 16 kB, 20%, 2.1 GB, true, false, 2, 9, 8, , , false\n",
    );
    refused(Format::Protobuf, &response);
    check(Format::Json, false, &Response::EndpointStatus(&[]), "null\n");
}

/// CTL3-65.
#[test]
fn unhealthy_endpoints_go_to_standard_error() {
    let list = [EndpointHealth {
        endpoint: "h:1".to_owned(),
        health: false,
        took: "1ms".to_owned(),
        error: "context deadline exceeded".to_owned(),
    }];
    let printer = Printer { format: Format::Simple, hex: false, value_only: false };
    let rendered = printer.render(&Response::EndpointHealth(&list)).unwrap();
    assert_eq!(rendered.stdout, b"");
    assert_eq!(
        rendered.stderr,
        b"h:1 is unhealthy: failed to commit proposal: context deadline exceeded\n"
    );
}

/// CTL3-82, CTL3-84.
#[test]
fn permissions_are_keys_ranges_or_prefixes() {
    let permission =
        |key: &'static [u8], end: &'static [u8], perm_type| proto::authpb::Permission {
            perm_type,
            key: Bytes::from_static(key),
            range_end: Bytes::from_static(end),
        };
    let role = pb::AuthRoleGetResponse {
        header: None,
        perm: vec![
            permission(b"/r/", b"/r0", 2),
            permission(b"k1", b"", 0),
            permission(b"z", b"\0", 1),
        ],
    };
    check(
        Format::Simple,
        false,
        &Response::RoleGet { role: "r1", response: &role },
        "Role r1\nKV Read:\n\t[/r/, /r0) (prefix /r/)\n\tk1\nKV Write:\n\t[/r/, /r0) (prefix /r/)\n\
         \t[z, <open ended>\n",
    );
    let root = pb::AuthRoleGetResponse::default();
    check(
        Format::Simple,
        false,
        &Response::RoleGet { role: "root", response: &root },
        "Role root\nKV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n",
    );
    let answer = pb::AuthRoleRevokePermissionResponse::default();
    let revoked = RevokedPermission { role: "r1", key: b"a", range_end: b"c", response: &answer };
    check(
        Format::Simple,
        false,
        &Response::RoleRevokePermission(revoked),
        "Permission of range [a, c) is revoked from role r1\n",
    );
}

/// CTL3-22.
#[test]
fn protobuf_is_the_encoded_response() {
    let printer = Printer { format: Format::Protobuf, hex: false, value_only: false };
    let range = range();
    let rendered = printer.render(&Response::Get(&range)).unwrap();
    assert_eq!(rendered.stdout, prost::Message::encode_to_vec(&range));
}
