//! The protobuf format: the encoded response and nothing else.
//!
//! etcd: `etcdctl/ctlv3/command/printer_protobuf.go`.

use prost::Message;
use proto::etcdserverpb as pb;

use super::Response;

/// Appends the response. False if there is no single message to encode.
pub(super) fn write(response: &Response<'_>, out: &mut Vec<u8>) -> bool {
    let bytes = match response {
        Response::Put(response) => response.encode_to_vec(),
        Response::Get(response) => response.encode_to_vec(),
        Response::Delete(response) => response.encode_to_vec(),
        Response::Txn(response) => response.encode_to_vec(),
        Response::Watch(response) => watch(response).encode_to_vec(),
        // etcd's tool encodes of these only the header that its own structs embed.
        Response::LeaseGrant(response) => header(response.header),
        Response::LeaseKeepAlive(response) => header(response.header),
        Response::LeaseTimeToLive { response, .. } => header(response.header),
        Response::LeaseLeases(response) => header(response.header),
        Response::LeaseRevoke { response, .. } => response.encode_to_vec(),
        Response::MemberAdd(response) => response.encode_to_vec(),
        Response::MemberRemove { response, .. } => response.encode_to_vec(),
        Response::MemberUpdate { response, .. } => response.encode_to_vec(),
        Response::MemberPromote { response, .. } => response.encode_to_vec(),
        Response::MemberList(response) => response.encode_to_vec(),
        Response::EndpointHealth(_) | Response::EndpointStatus(_) | Response::EndpointHashKv(_) => {
            return false;
        }
        Response::MoveLeader { response, .. } => response.encode_to_vec(),
        Response::DowngradeValidate(response)
        | Response::DowngradeEnable(response)
        | Response::DowngradeCancel(response) => response.encode_to_vec(),
        Response::Alarm(response) => response.encode_to_vec(),
        Response::RoleAdd { response, .. } => response.encode_to_vec(),
        Response::RoleGet { response, .. } => response.encode_to_vec(),
        Response::RoleDelete { response, .. } => response.encode_to_vec(),
        Response::RoleList(response) => response.encode_to_vec(),
        Response::RoleGrantPermission { response, .. } => response.encode_to_vec(),
        Response::RoleRevokePermission(revoked) => revoked.response.encode_to_vec(),
        Response::UserAdd { response, .. } => response.encode_to_vec(),
        Response::UserGet { response, .. } => response.encode_to_vec(),
        Response::UserList(response) => response.encode_to_vec(),
        Response::UserChangePassword(response) => response.encode_to_vec(),
        Response::UserGrantRole { response, .. } => response.encode_to_vec(),
        Response::UserRevokeRole { response, .. } => response.encode_to_vec(),
        Response::UserDelete { response, .. } => response.encode_to_vec(),
        Response::AuthStatus(response) => response.encode_to_vec(),
    };
    out.extend_from_slice(&bytes);
    true
}

fn header(header: Option<pb::ResponseHeader>) -> Vec<u8> {
    header.unwrap_or_default().encode_to_vec()
}

/// The watch's id and the reason are not part of what the tool knows.
fn watch(response: &pb::WatchResponse) -> pb::WatchResponse {
    pb::WatchResponse {
        header: response.header,
        events: response.events.clone(),
        compact_revision: response.compact_revision,
        canceled: response.canceled,
        created: response.created,
        ..pb::WatchResponse::default()
    }
}
