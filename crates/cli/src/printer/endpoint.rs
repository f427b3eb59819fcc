//! Facts about endpoints, and the lists of members, as rows.
//!
//! etcd: `etcdctl/ctlv3/command/printer.go`, `ep_command.go`.

use proto::etcdserverpb as pb;

use crate::json::{GoJson, Object};
use crate::size;

/// Whether an endpoint can commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint as it was written.
    pub endpoint: String,
    /// Whether it can.
    pub health: bool,
    /// How long the answer took, as text.
    pub took: String,
    /// Why not; empty if it can.
    pub error: String,
}

/// What a member says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// The endpoint as it was written.
    pub endpoint: String,
    /// The answer.
    pub response: pb::StatusResponse,
}

/// The hash of a member's key space.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointHashKv {
    /// The endpoint as it was written.
    pub endpoint: String,
    /// The answer.
    pub response: pb::HashKvResponse,
}

pub(super) const MEMBER_HEADER: [&str; 6] =
    ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
pub(super) const HEALTH_HEADER: [&str; 4] = ["endpoint", "health", "took", "error"];
pub(super) const STATUS_HEADER: [&str; 16] = [
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
];
pub(super) const HASH_HEADER: [&str; 3] = ["endpoint", "hash", "hash_revision"];

pub(super) fn member_rows(members: &[pb::Member]) -> Vec<Vec<String>> {
    let row = |member: &pb::Member| {
        let status = if member.name.is_empty() { "unstarted" } else { "started" };
        vec![
            format!("{:x}", member.id),
            status.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    members.iter().map(row).collect()
}

pub(super) fn health_rows(list: &[EndpointHealth]) -> Vec<Vec<String>> {
    let row = |health: &EndpointHealth| {
        let endpoint = health.endpoint.clone();
        vec![endpoint, health.health.to_string(), health.took.clone(), health.error.clone()]
    };
    list.iter().map(row).collect()
}

pub(super) fn status_rows(list: &[EndpointStatus]) -> Vec<Vec<String>> {
    list.iter().map(status_row).collect()
}

fn status_row(status: &EndpointStatus) -> Vec<String> {
    let response = &status.response;
    let member = response.header.map_or(0, |header| header.member_id);
    let downgrade = response.downgrade_info.clone().unwrap_or_default();
    vec![
        status.endpoint.clone(),
        format!("{member:x}"),
        response.version.clone(),
        response.storage_version.clone(),
        size::bytes(response.db_size.cast_unsigned()),
        size::bytes(response.db_size_in_use.cast_unsigned()),
        format!("{}%", percentage_free(response.db_size, response.db_size_in_use)),
        size::bytes(response.db_size_quota.cast_unsigned()),
        (response.leader == member).to_string(),
        response.is_learner.to_string(),
        response.raft_term.to_string(),
        response.raft_index.to_string(),
        response.raft_applied_index.to_string(),
        response.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// A file without pages would make etcd's own tool divide by zero; nothing of it is free.
fn percentage_free(size: i64, used: i64) -> i64 {
    if size == 0 { 0 } else { 100 - used.saturating_mul(100) / size }
}

pub(super) fn hash_rows(list: &[EndpointHashKv]) -> Vec<Vec<String>> {
    let row = |hash: &EndpointHashKv| {
        let response = &hash.response;
        let revision = response.hash_revision.to_string();
        vec![hash.endpoint.clone(), response.hash.to_string(), revision]
    };
    list.iter().map(row).collect()
}

impl GoJson for EndpointHealth {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        let mut object = Object::new(out);
        object.always("endpoint", &self.endpoint).always("health", &self.health);
        object.always("took", &self.took).field("error", &self.error).end();
    }
}

impl GoJson for EndpointStatus {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        let mut object = Object::new(out);
        object.always("Endpoint", &self.endpoint).always("Status", &self.response).end();
    }
}

impl GoJson for EndpointHashKv {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        let mut object = Object::new(out);
        object.always("Endpoint", &self.endpoint).always("HashKV", &self.response).end();
    }
}
