//! Requests as they stand in the log: one field of `InternalRaftRequest`, and the header.
//! Source: etcd api/etcdserverpb/raft_internal.proto.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::etcdserverpb as pb;

/// A kind of request, by its field in `InternalRaftRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A request of the v2 generation, which goes into the log bare.
    V2 = 2,
    /// `PutRequest`.
    Put = 4,
    /// `DeleteRangeRequest`.
    DeleteRange = 5,
    /// `TxnRequest`.
    Txn = 6,
    /// `CompactionRequest`.
    Compaction = 7,
    /// `LeaseGrantRequest`.
    LeaseGrant = 8,
    /// `LeaseRevokeRequest`.
    LeaseRevoke = 9,
    /// `AlarmRequest`.
    Alarm = 10,
    /// `AuthEnableRequest`.
    AuthEnable = 1000,
    /// `AuthDisableRequest`.
    AuthDisable = 1011,
    /// `InternalAuthenticateRequest`.
    Authenticate = 1012,
    /// `AuthStatusRequest`.
    AuthStatus = 1013,
    /// `AuthUserAddRequest`.
    AuthUserAdd = 1100,
    /// `AuthUserDeleteRequest`.
    AuthUserDelete = 1101,
    /// `AuthUserGetRequest`.
    AuthUserGet = 1102,
    /// `AuthUserChangePasswordRequest`.
    AuthUserChangePassword = 1103,
    /// `AuthUserGrantRoleRequest`.
    AuthUserGrantRole = 1104,
    /// `AuthUserRevokeRoleRequest`.
    AuthUserRevokeRole = 1105,
    /// `AuthUserListRequest`.
    AuthUserList = 1106,
    /// `AuthRoleListRequest`.
    AuthRoleList = 1107,
    /// `AuthRoleAddRequest`.
    AuthRoleAdd = 1200,
    /// `AuthRoleDeleteRequest`.
    AuthRoleDelete = 1201,
    /// `AuthRoleGetRequest`.
    AuthRoleGet = 1202,
    /// `AuthRoleGrantPermissionRequest`.
    AuthRoleGrantPermission = 1203,
    /// `AuthRoleRevokePermissionRequest`.
    AuthRoleRevokePermission = 1204,
    /// `ClusterVersionSetRequest`.
    ClusterVersionSet = 1300,
    /// `ClusterMemberAttrSetRequest`.
    ClusterMemberAttrSet = 1301,
    /// `DowngradeInfoSetRequest`.
    DowngradeInfoSet = 1302,
}

/// The header's field in `InternalRaftRequest`.
const HEADER_FIELD: u32 = 100;

/// The bytes of an `InternalRaftRequest` with this one request and this header; the same bytes as
/// encoding the whole message, without building it.
pub(super) fn encode(
    kind: RequestKind,
    request: &impl Message,
    header: &pb::RequestHeader,
) -> Bytes {
    let field = kind as u32;
    let (header_len, request_len) = (header.encoded_len(), request.encoded_len());
    let mut bytes = BytesMut::with_capacity(
        key_len(HEADER_FIELD)
            + encoded_len_varint(header_len as u64)
            + header_len
            + key_len(field)
            + encoded_len_varint(request_len as u64)
            + request_len,
    );
    let mut put = |field: u32, message: &dyn Fn(&mut BytesMut), len: usize| {
        encode_key(field, WireType::LengthDelimited, &mut bytes);
        encode_varint(len as u64, &mut bytes);
        message(&mut bytes);
    };
    let body: &dyn Fn(&mut BytesMut) = &|bytes| request.encode_raw(bytes);
    let head: &dyn Fn(&mut BytesMut) = &|bytes| header.encode_raw(bytes);
    if field < HEADER_FIELD {
        put(field, body, request_len);
        put(HEADER_FIELD, head, header_len);
    } else {
        put(HEADER_FIELD, head, header_len);
        put(field, body, request_len);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_encoded_as_the_whole_message_would_be() {
        let put = pb::PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            lease: 7,
            ..Default::default()
        };
        let header = pb::RequestHeader { id: 99, username: "alice".into(), auth_revision: 3 };
        let whole = pb::InternalRaftRequest {
            header: Some(header.clone()),
            put: Some(put.clone()),
            ..Default::default()
        };
        assert_eq!(encode(RequestKind::Put, &put, &header), whole.encode_to_vec());

        let version = proto::membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() };
        let whole = pb::InternalRaftRequest {
            header: Some(header.clone()),
            cluster_version_set: Some(version.clone()),
            ..Default::default()
        };
        assert_eq!(
            encode(RequestKind::ClusterVersionSet, &version, &header),
            whole.encode_to_vec()
        );
    }
}
