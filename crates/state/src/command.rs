//! What an entry means: the payload decoded, of this generation of etcd and of the one before.
//!
//! Source: etcd api/etcdserverpb/raft_internal.proto; interop 6.1 and 6.3.

use base::MemberId;
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{self as pb, InternalRaftRequest};
use proto::{membershippb, v2pb};
use serde::Deserialize;

use crate::auth::{self, Identity};
use crate::v2;

/// A decoded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The id its proposer gave it; 0 if none.
    pub(crate) id: u64,
    /// Who makes it.
    pub(crate) who: Identity,
    pub(crate) command: Command,
}

/// What to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// A read that some release put into its log; it changes nothing.
    Range,
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseCheckpoint(pb::LeaseCheckpointRequest),
    Alarm(pb::AlarmRequest),
    /// About users and roles.
    Auth(auth::request::Request),
    SetClusterVersion(String),
    SetMemberAttributes {
        id: MemberId,
        attributes: membershippb::Attributes,
    },
    SetDowngrade(membershippb::DowngradeInfoSetRequest),
    /// Written by upstream's tests; known so that such a log can be read.
    DowngradeVersionTest,
    /// A request of the v2 key space.
    V2(v2::Request),
}

impl Request {
    /// Decodes an entry's payload; `None` if this release does not know what it is.
    pub(crate) fn decode(payload: &Bytes) -> Option<Self> {
        if is_v2(payload) {
            return v2pb::Request::decode(payload.clone())
                .ok()
                .map(|request| Self::of_v2(&request));
        }
        let mut request = InternalRaftRequest::decode(payload.clone()).ok()?;
        let header = request.header.take().unwrap_or_default();
        let id = if request.id == 0 { header.id } else { request.id };
        let who = Identity { user: header.username, revision: header.auth_revision };
        Some(Self { id, who, command: Command::of(request)? })
    }

    /// Two v2 requests speak of the cluster, not of v2 keys (interop 6.3).
    fn of_v2(request: &v2pb::Request) -> Self {
        let path = String::from_utf8_lossy(request.path());
        let of_cluster = v2::is_plain_put(request);
        let command = if of_cluster && path == "/0/version" {
            Command::SetClusterVersion(String::from_utf8_lossy(request.val()).into_owned())
        } else {
            of_cluster
                .then(|| attributes(&path, request.val()))
                .flatten()
                .unwrap_or_else(|| Command::V2(v2::Request::decode(request)))
        };
        Self { id: request.id(), who: Identity::nobody(), command }
    }
}

/// `/0/members/<id>/attributes`.
fn attributes(path: &str, value: &[u8]) -> Option<Command> {
    #[derive(Deserialize)]
    struct Attributes {
        #[serde(default)]
        name: String,
        #[serde(rename = "clientURLs", default)]
        client_urls: Option<Vec<String>>,
    }
    let id = path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?;
    let id = MemberId(u64::from_str_radix(id, 16).ok()?);
    let Attributes { name, client_urls } = serde_json::from_slice(value).ok()?;
    let client_urls = client_urls.unwrap_or_default();
    Some(Command::SetMemberAttributes {
        id,
        attributes: membershippb::Attributes { name, client_urls },
    })
}

/// Whether the payload is a v2 `Request`: its first field, or its second behind a number, is field
/// 2 as text, the method. No `InternalRaftRequest` has that field, and writers order theirs.
fn is_v2(payload: &[u8]) -> bool {
    const FIELD_1_NUMBER: u8 = 0x08;
    const FIELD_2_TEXT: u8 = 0x12;
    let rest = match payload {
        [FIELD_1_NUMBER, number @ ..] => {
            let last = number.iter().position(|byte| byte & 0x80 == 0);
            last.map_or(&[][..], |last| &number[last + 1..])
        }
        rest => rest,
    };
    rest.first() == Some(&FIELD_2_TEXT)
}

impl Command {
    /// In the order in which etcd looks, should a payload hold several.
    fn of(request: InternalRaftRequest) -> Option<Self> {
        if let Some(version) = request.cluster_version_set {
            return Some(Self::SetClusterVersion(version.ver));
        }
        if let Some(set) = request.cluster_member_attr_set {
            let attributes = set.member_attributes.unwrap_or_default();
            return Some(Self::SetMemberAttributes { id: MemberId(set.member_id), attributes });
        }
        if let Some(downgrade) = request.downgrade_info_set {
            return Some(Self::SetDowngrade(downgrade));
        }
        if request.downgrade_version_test.is_some() {
            return Some(Self::DowngradeVersionTest);
        }
        if request.range.is_some() {
            return Some(Self::Range);
        }
        if let Some(put) = request.put {
            return Some(Self::Put(put));
        }
        if let Some(delete) = request.delete_range {
            return Some(Self::Delete(delete));
        }
        if let Some(txn) = request.txn {
            return Some(Self::Txn(txn));
        }
        if let Some(compaction) = request.compaction {
            return Some(Self::Compact(compaction));
        }
        if let Some(grant) = request.lease_grant {
            return Some(Self::LeaseGrant(grant));
        }
        if let Some(revoke) = request.lease_revoke {
            return Some(Self::LeaseRevoke(revoke));
        }
        if let Some(checkpoint) = request.lease_checkpoint {
            return Some(Self::LeaseCheckpoint(checkpoint));
        }
        if let Some(alarm) = request.alarm {
            return Some(Self::Alarm(alarm));
        }
        auth::request::Request::of(request).map(Self::Auth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(method: &str, path: &str, value: &str) -> Request {
        let request = v2pb::Request {
            id: Some(300),
            method: Some(method.to_owned()),
            path: Some(path.to_owned().into()),
            val: Some(value.to_owned().into()),
            ..v2pb::Request::default()
        };
        Request::decode(&request.encode_to_vec().into()).unwrap()
    }

    /// Interop 6.3.
    #[test]
    fn v2_requests_about_the_cluster_are_understood() {
        let version = v2("PUT", "/0/version", "3.5.0");
        assert_eq!(version.id, 300);
        assert!(matches!(version.command, Command::SetClusterVersion(text) if text == "3.5.0"));
        let attributes = v2(
            "PUT",
            "/0/members/8e9e05c52164694d/attributes",
            r#"{"name":"m0","clientURLs":["http://a"]}"#,
        );
        assert!(matches!(
            attributes.command,
            Command::SetMemberAttributes { id: MemberId(0x8e9e_05c5_2164_694d), attributes }
                if attributes.name == "m0" && attributes.client_urls == ["http://a"]
        ));
        assert!(matches!(v2("PUT", "/1/key", "value").command, Command::V2(_)));
        assert!(matches!(v2("DELETE", "/0/version", "").command, Command::V2(_)));
        assert!(matches!(v2("SYNC", "", "").command, Command::V2(_)));
    }

    #[test]
    fn requests_of_this_generation_are_not_taken_for_v2() {
        let put =
            pb::PutRequest { key: "PUT".into(), value: "/0/version".into(), ..Default::default() };
        let request = InternalRaftRequest {
            header: Some(pb::RequestHeader { id: 7, ..Default::default() }),
            put: Some(put),
            ..Default::default()
        };
        let decoded = Request::decode(&request.encode_to_vec().into()).unwrap();
        assert_eq!(decoded.id, 7);
        assert!(matches!(decoded.command, Command::Put(_)));
        let old = InternalRaftRequest { id: 9, ..request };
        assert_eq!(Request::decode(&old.encode_to_vec().into()).unwrap().id, 9);
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        let empty = InternalRaftRequest::default().encode_to_vec();
        assert!(Request::decode(&empty.into()).is_none());
        // Field 5000, which no release writes yet.
        assert!(Request::decode(&Bytes::from_static(&[0xc2, 0xb8, 0x02, 0x00])).is_none());
        assert!(Request::decode(&Bytes::from_static(b"\xff\xff")).is_none());
    }
}
