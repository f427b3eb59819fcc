//! The first members of a cluster, and the entries with which every one of their logs begins.

use base::{InitialCluster, MemberId};
use bytes::Bytes;
use prost::Message as _;
use proto::raftpb::{ConfChange, ConfChangeType};

use super::{MemberObject, member_id};

/// The members that a cluster is founded with, by id.
#[must_use]
pub fn founders(cluster: &InitialCluster, token: &str) -> Vec<MemberObject> {
    let members = cluster.members().map(|(name, urls)| {
        let peer_urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        MemberObject {
            id: member_id(&peer_urls, token, None),
            name: name.to_owned(),
            peer_urls,
            ..MemberObject::default()
        }
    });
    let mut members: Vec<MemberObject> = members.collect();
    members.sort_by_key(|member| member.id);
    members
}

/// The id of the founder with this name.
#[must_use]
pub fn founder(members: &[MemberObject], name: &str) -> Option<MemberId> {
    members.iter().find(|member| member.name == name).map(|member| member.id)
}

/// The payload of the entry that makes a founder known. The founders' entries stand at the
/// beginning of the log in the order of their ids, in term 1, and are committed.
#[must_use]
pub fn founding_change(member: &MemberObject) -> Bytes {
    let change = ConfChange {
        id: Some(0),
        r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
        node_id: Some(member.id.0),
        context: Some(member.to_json()),
    };
    change.encode_to_vec().into()
}
