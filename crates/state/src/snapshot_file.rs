//! `.snap` files: what etcd 3.4 to 3.6 look for at start beside the log's snapshot records.
//!
//! Ours hold no state, which is in the database; they hold the v2 store, and in it the members, so
//! that those releases can start on our directory (interop 2.2, 2.3). Whoever has a folder writes
//! the bytes.

use base::{Index, LogPosition, MemberId, Term};
use prost::Message as _;
use proto::{raftpb, snappb};
use serde_json::{Value, json};
use v2store::ClusterNode;

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
    /// The tree of the v2 generation at that position; `None` for an empty one.
    pub v2: Option<&'a v2store::Store>,
}

impl SnapshotFile<'_> {
    /// The file's name: term, then index.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:016x}-{:016x}.snap", self.position.term.0, self.position.index.0)
    }

    /// The v2 tree in the bytes of a file that etcd or we wrote; `None` if they are no such file.
    #[must_use]
    pub fn tree(bytes: &[u8]) -> Option<v2store::Store> {
        v2store::Store::from_json(&decode(bytes)?.data?).ok()
    }

    /// What the bytes of a file that etcd or we wrote stand for; `None` if they are no such file.
    #[must_use]
    pub fn position_of(bytes: &[u8]) -> Option<LogPosition> {
        let metadata = decode(bytes)?.metadata?;
        Some(LogPosition { index: Index(metadata.index?), term: Term(metadata.term?) })
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

    /// The tree of the v2 generation, with the cluster's own part.
    #[must_use]
    pub fn store_json(&self) -> Vec<u8> {
        let cluster = self.cluster_nodes();
        match self.v2 {
            Some(store) => store.to_json(&cluster),
            None => v2store::Store::new().to_json(&cluster),
        }
    }

    /// Every directory before what is in it.
    fn cluster_nodes(&self) -> Vec<ClusterNode> {
        let mut nodes = vec![dir("/0/members")];
        for member in self.members {
            let path = format!("/0/members/{}", member.id);
            nodes.push(dir(&path));
            // As etcd does: what a member says of itself is there once it said where clients reach it.
            if !member.client_urls.is_empty() {
                let text = json!({ "name": member.name, "clientURLs": member.client_urls });
                nodes.push(file(&format!("{path}/attributes"), text.to_string()));
            }
            let mut raft = json!({ "peerURLs": member.peer_urls });
            if member.is_learner {
                raft["isLearner"] = Value::Bool(true);
            }
            nodes.push(file(&format!("{path}/raftAttributes"), raft.to_string()));
        }
        if !self.removed.is_empty() {
            nodes.push(dir("/0/removed_members"));
            let removed = self.removed.iter();
            nodes
                .extend(removed.map(|id| file(&format!("/0/removed_members/{id}"), String::new())));
        }
        if let Some(version) = self.cluster_version {
            nodes.push(file("/0/version", version.to_owned()));
        }
        nodes
    }
}

/// The inner message of a file whose checksum is right.
fn decode(bytes: &[u8]) -> Option<raftpb::Snapshot> {
    let outer = snappb::Snapshot::decode(bytes).ok()?;
    let data = outer.data?;
    let is_whole = outer.crc == Some(crc32c::crc32c(&data));
    raftpb::Snapshot::decode(data).ok().filter(|_| is_whole)
}

fn dir(path: &str) -> ClusterNode {
    ClusterNode { path: path.to_owned(), value: None }
}

fn file(path: &str, value: String) -> ClusterNode {
    ClusterNode { path: path.to_owned(), value: Some(value) }
}

#[cfg(test)]
mod tests {
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
            v2: None,
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
        assert!(SnapshotFile::tree(&file.encode()).is_some());
        assert!(SnapshotFile::tree(&file.encode()[1..]).is_none());
    }
}
