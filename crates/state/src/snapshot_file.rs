//! `.snap` files: what etcd 3.4 to 3.6 look for at start beside the log's snapshot records.
//!
//! Ours hold no state, which is in the database; they hold the members in the form of the v2 store,
//! so that those releases can start on our directory (interop 2.2, 2.3). Whoever has a folder writes
//! the bytes.

use base::{LogPosition, MemberId};
use prost::Message as _;
use proto::{raftpb, snappb};
use serde_json::{Map, Value, json};

use crate::members::MemberObject;

/// What a snapshot file tells.
#[derive(Clone, Debug)]
pub struct SnapshotFile<'a> {
    /// The last entry whose effect the state has.
    pub position: LogPosition,
    /// Who votes there.
    pub conf_state: raftpb::ConfState,
    /// Who is in the cluster.
    pub members: &'a [MemberObject],
    /// Whose ids may never come back.
    pub removed: &'a [MemberId],
    /// The cluster version as text, if there is one.
    pub cluster_version: Option<&'a str>,
}

/// The expiry of what never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl SnapshotFile<'_> {
    /// The file's name: term, then index.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:016x}-{:016x}.snap", self.position.term.0, self.position.index.0)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let snapshot = raftpb::Snapshot {
            data: Some(self.store_json().into()),
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: Some(self.conf_state.clone()),
                index: Some(self.position.index.0),
                term: Some(self.position.term.0),
            }),
        };
        let data = snapshot.encode_to_vec();
        let crc = crc32c::crc32c(&data);
        snappb::Snapshot { crc: Some(crc), data: Some(data.into()) }.encode_to_vec()
    }

    /// The tree of the v2 store with nothing but the cluster's own part.
    #[must_use]
    pub fn store_json(&self) -> Vec<u8> {
        let mut members = Map::new();
        for member in self.members {
            let path = format!("/0/members/{}", member.id);
            let mut raft = json!({ "peerURLs": member.peer_urls });
            if member.is_learner {
                raft["isLearner"] = Value::Bool(true);
            }
            let mut children = Map::new();
            // As etcd does: what a member says of itself is there once it said where clients reach it.
            if !member.client_urls.is_empty() {
                let text = json!({ "name": member.name, "clientURLs": member.client_urls });
                let leaf = node(&format!("{path}/attributes"), &text.to_string(), None);
                children.insert("attributes".into(), leaf);
            }
            let leaf = node(&format!("{path}/raftAttributes"), &raft.to_string(), None);
            children.insert("raftAttributes".into(), leaf);
            members.insert(member.id.to_string(), node(&path, "", Some(children)));
        }
        let mut removed = Map::new();
        for id in self.removed {
            let path = format!("/0/removed_members/{id}");
            removed.insert(id.to_string(), node(&path, "", None));
        }
        let mut cluster = Map::new();
        cluster.insert("members".into(), node("/0/members", "", Some(members)));
        if !removed.is_empty() {
            cluster.insert("removed_members".into(), node("/0/removed_members", "", Some(removed)));
        }
        if let Some(version) = self.cluster_version {
            cluster.insert("version".into(), node("/0/version", version, None));
        }
        let mut root = Map::new();
        root.insert("0".into(), node("/0", "", Some(cluster)));
        root.insert("1".into(), node("/1", "", Some(Map::new())));
        let store =
            json!({ "Root": node("/", "", Some(root)), "CurrentIndex": 1, "CurrentVersion": 2 });
        store.to_string().into_bytes()
    }
}

fn node(path: &str, value: &str, children: Option<Map<String, Value>>) -> Value {
    json!({
        "Path": path,
        "CreatedIndex": 1,
        "ModifiedIndex": 1,
        "ExpireTime": NEVER,
        "Value": value,
        "Children": children,
    })
}

#[cfg(test)]
mod tests {
    use base::{Index, Term};

    use super::*;

    /// Interop 2.2, 2.3: etcd's frame, and of a member that never spoke only where it is reached.
    #[test]
    fn file_has_etcds_frame_and_the_members_as_v2_nodes() {
        let silent = MemberObject {
            id: MemberId(0xa),
            name: "m".to_owned(),
            peer_urls: vec!["http://h:1".to_owned()],
            ..MemberObject::default()
        };
        let started = MemberObject {
            id: MemberId(0xb),
            client_urls: vec!["http://h:2".to_owned()],
            ..silent.clone()
        };
        let file = SnapshotFile {
            position: LogPosition { index: Index(0x12), term: Term(3) },
            conf_state: raftpb::ConfState { voters: vec![10, 11], ..Default::default() },
            members: &[silent, started],
            removed: &[MemberId(0xc)],
            cluster_version: Some("3.5.0"),
        };
        assert_eq!(file.name(), "0000000000000003-0000000000000012.snap");
        let outer = snappb::Snapshot::decode(&file.encode()[..]).unwrap();
        let data = outer.data.unwrap();
        assert_eq!(outer.crc, Some(crc32c::crc32c(&data)));
        let inner = raftpb::Snapshot::decode(data).unwrap();
        assert_eq!(inner.metadata.unwrap().conf_state.unwrap().voters, [10, 11]);
        let store: Value = serde_json::from_slice(&inner.data.unwrap()).unwrap();
        let cluster = &store["Root"]["Children"]["0"]["Children"];
        let members = &cluster["members"]["Children"];
        let url = r#"{"peerURLs":["http://h:1"]}"#;
        assert_eq!(members["a"]["Children"]["raftAttributes"]["Value"], url);
        assert!(members["a"]["Children"]["attributes"].is_null());
        let attributes = r#"{"name":"m","clientURLs":["http://h:2"]}"#;
        assert_eq!(members["b"]["Children"]["attributes"]["Value"], attributes);
        assert_eq!(cluster["removed_members"]["Children"]["c"]["Value"], "");
        assert_eq!(cluster["version"]["Value"], "3.5.0");
    }
}
