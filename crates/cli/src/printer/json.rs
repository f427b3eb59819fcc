//! The JSON format: one object on one line.
//!
//! etcd: `etcdctl/ctlv3/command/printer_json.go`, and the Go client's own structs for leases and
//! watches, which are flat or have capitals.

use proto::etcdserverpb as pb;

use super::Response;
use crate::json::{GoJson, Object};

/// Appends the response. JSON knows them all.
pub(super) fn write(hex: bool, response: &Response<'_>, out: &mut Vec<u8>) -> bool {
    let json = if hex { to_hex_json(response) } else { None };
    out.extend_from_slice(json.unwrap_or_else(|| to_json(response)).as_bytes());
    out.push(b'\n');
    true
}

fn to_json(response: &Response<'_>) -> String {
    match response {
        Response::Put(response) => response.to_json(),
        Response::Get(response) => response.to_json(),
        Response::Delete(response) => response.to_json(),
        Response::Txn(response) => response.to_json(),
        Response::Watch(response) => watch(response),
        Response::LeaseGrant(response) => lease_grant(response),
        Response::LeaseRevoke { response, .. } => response.to_json(),
        Response::LeaseKeepAlive(response) => lease_keep_alive(response),
        Response::LeaseTimeToLive { response, .. } => lease_time_to_live(response),
        Response::LeaseLeases(response) => lease_leases(response),
        Response::MemberAdd(response) => response.to_json(),
        Response::MemberRemove { response, .. } => response.to_json(),
        Response::MemberUpdate { response, .. } => response.to_json(),
        Response::MemberPromote { response, .. } => response.to_json(),
        Response::MemberList(response) => response.to_json(),
        Response::EndpointHealth(list) => list.to_json(),
        Response::EndpointStatus(list) => list.to_json(),
        Response::EndpointHashKv(list) => list.to_json(),
        Response::MoveLeader { response, .. } => response.to_json(),
        Response::DowngradeValidate(response)
        | Response::DowngradeEnable(response)
        | Response::DowngradeCancel(response) => response.to_json(),
        Response::Alarm(response) => response.to_json(),
        Response::RoleAdd { response, .. } => response.to_json(),
        Response::RoleGet { response, .. } => response.to_json(),
        Response::RoleDelete { response, .. } => response.to_json(),
        Response::RoleList(response) => response.to_json(),
        Response::RoleGrantPermission { response, .. } => response.to_json(),
        Response::RoleRevokePermission(revoked) => revoked.response.to_json(),
        Response::UserAdd { response, .. } => response.to_json(),
        Response::UserGet { response, .. } => response.to_json(),
        Response::UserList(response) => response.to_json(),
        Response::UserChangePassword(response) => response.to_json(),
        Response::UserGrantRole { response, .. } => response.to_json(),
        Response::UserRevokeRole { response, .. } => response.to_json(),
        Response::UserDelete { response, .. } => response.to_json(),
        Response::AuthStatus(response) => response.to_json(),
    }
}

fn watch(response: &pb::WatchResponse) -> String {
    let mut out = String::new();
    Object::new(&mut out)
        .always("Header", &response.header.unwrap_or_default())
        .always("Events", &response.events)
        .always("CompactRevision", &response.compact_revision)
        .always("Canceled", &response.canceled)
        .always("Created", &response.created)
        .always("CancelReason", &response.cancel_reason)
        .end();
    out
}

/// Go embeds the header in its lease responses, so that its fields are on the top level.
fn flat(object: &mut Object<'_>, header: Option<pb::ResponseHeader>) {
    let header = header.unwrap_or_default();
    object
        .field("cluster_id", &header.cluster_id)
        .field("member_id", &header.member_id)
        .field("revision", &header.revision)
        .field("raft_term", &header.raft_term);
}

fn lease_grant(response: &pb::LeaseGrantResponse) -> String {
    let mut out = String::new();
    let mut object = Object::new(&mut out);
    flat(&mut object, response.header);
    object.always("ID", &response.id).always("TTL", &response.ttl);
    object.always("Error", &response.error).end();
    out
}

fn lease_keep_alive(response: &pb::LeaseKeepAliveResponse) -> String {
    let mut out = String::new();
    let mut object = Object::new(&mut out);
    flat(&mut object, response.header);
    object.always("ID", &response.id).always("TTL", &response.ttl).end();
    out
}

fn lease_time_to_live(response: &pb::LeaseTimeToLiveResponse) -> String {
    let mut out = String::new();
    let mut object = Object::new(&mut out);
    flat(&mut object, response.header);
    object.always("id", &response.id).always("ttl", &response.ttl);
    object.always("granted-ttl", &response.granted_ttl).always("keys", &response.keys).end();
    out
}

struct LeaseId(i64);

impl GoJson for LeaseId {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        Object::new(out).always("id", &self.0).end();
    }
}

fn lease_leases(response: &pb::LeaseLeasesResponse) -> String {
    let mut out = String::new();
    let mut object = Object::new(&mut out);
    flat(&mut object, response.header);
    let ids: Vec<_> = response.leases.iter().map(|lease| LeaseId(lease.id)).collect();
    if ids.is_empty() {
        object.always("leases", &EmptyList);
    } else {
        object.always("leases", &ids);
    }
    object.end();
    out
}

/// A list that was made but not filled, which Go tells from a nil one.
struct EmptyList;

impl GoJson for EmptyList {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        out.push_str("[]");
    }
}

struct HexHeader(pb::ResponseHeader);

impl GoJson for HexHeader {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        Object::new(out)
            .always("cluster_id", &format!("{:x}", self.0.cluster_id))
            .always("member_id", &format!("{:x}", self.0.member_id))
            .field("revision", &self.0.revision)
            .field("raft_term", &self.0.raft_term)
            .end();
    }
}

struct HexMember<'a>(&'a pb::Member);

impl GoJson for HexMember<'_> {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        Object::new(out)
            .always("ID", &format!("{:x}", self.0.id))
            .field("name", &self.0.name)
            .field("peerURLs", &self.0.peer_ur_ls)
            .field("clientURLs", &self.0.client_ur_ls)
            .field("isLearner", &self.0.is_learner)
            .end();
    }
}

/// Only responses about members have a form with hexadecimal ids.
#[allow(clippy::wildcard_enum_match_arm, reason = "all others have no such form")]
fn to_hex_json(response: &Response<'_>) -> Option<String> {
    let (header, member, members) = match response {
        Response::MemberAdd(response) => {
            (response.header, Some(&response.member), &response.members)
        }
        Response::MemberRemove { response, .. } => (response.header, None, &response.members),
        Response::MemberUpdate { response, .. } => (response.header, None, &response.members),
        Response::MemberPromote { response, .. } => (response.header, None, &response.members),
        Response::MemberList(response) => (response.header, None, &response.members),
        _ => return None,
    };
    let mut out = String::new();
    let mut object = Object::new(&mut out);
    object.always("header", &header.map(HexHeader));
    if let Some(member) = member {
        object.always("member", &member.as_ref().map(HexMember));
    }
    let members: Vec<_> = members.iter().map(HexMember).collect();
    if members.is_empty() {
        object.always("members", &EmptyList).end();
    } else {
        object.always("members", &members).end();
    }
    Some(out)
}
