//! `.snap` files: what etcd 3.4 to 3.6 look for at start beside the log's snapshot records.
//!
//! Ours hold no state, which is in the database; they hold the members in the form of the v2 store,
//! so that those releases can start on our directory (interop 2.2, 2.3).

use std::io;

use base::{LogPosition, MemberId};
use prost::Message as _;
use proto::{raftpb, snappb};
use raft::ConfState;
use serde_json::{Map, Value, json};
use state::members::MemberObject;
use vfs::{Dir, Open};

/// What a snapshot file tells.
#[derive(Debug)]
pub(crate) struct SnapshotFile<'a> {
    pub(crate) position: LogPosition,
    pub(crate) conf_state: &'a ConfState,
    pub(crate) members: &'a [MemberObject],
    pub(crate) removed: &'a [MemberId],
    pub(crate) cluster_version: Option<&'a str>,
}

/// The expiry of what never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl SnapshotFile<'_> {
    /// The file's name: term, then index.
    pub(crate) fn name(&self) -> String {
        format!("{:016x}-{:016x}.snap", self.position.term.0, self.position.index.0)
    }

    /// Writes the file; durable on return.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(crate) fn write(&self, dir: &dyn Dir) -> io::Result<()> {
        let file = dir.open(&self.name(), Open::CreateOrWrite)?;
        let bytes = self.encode();
        file.set_len(0)?;
        file.write_at(&bytes, 0)?;
        file.sync_data()?;
        dir.sync()
    }

    fn encode(&self) -> Vec<u8> {
        let snapshot = raftpb::Snapshot {
            data: Some(self.store_json().into()),
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: Some(conf_state(self.conf_state)),
                index: Some(self.position.index.0),
                term: Some(self.position.term.0),
            }),
        };
        let data = snapshot.encode_to_vec();
        let crc = crc32c::crc32c(&data);
        snappb::Snapshot { crc: Some(crc), data: Some(data.into()) }.encode_to_vec()
    }

    /// The tree of the v2 store with nothing but the cluster's own part.
    fn store_json(&self) -> Vec<u8> {
        let mut members = Map::new();
        for member in self.members {
            let path = format!("/0/members/{}", member.id);
            let mut raft = json!({ "peerURLs": member.peer_urls });
            if member.is_learner {
                raft["isLearner"] = Value::Bool(true);
            }
            let mut children = Map::new();
            if !member.name.is_empty() || !member.client_urls.is_empty() {
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

fn conf_state(state: &ConfState) -> raftpb::ConfState {
    let ids = |set: &std::collections::BTreeSet<MemberId>| set.iter().map(|id| id.0).collect();
    raftpb::ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: Some(state.auto_leave),
    }
}
