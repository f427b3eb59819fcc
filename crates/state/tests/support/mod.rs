//! A state on a backend of its own, and short ways to make requests.

#![allow(dead_code, reason = "every test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

pub(crate) mod auth;

use std::ops::ControlFlow;

use backend::{Backend, Bucket};
use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::mvccpb::KeyValue;
use proto::raftpb::{ConfChange, ConfChangeType};
use state::auth::gate::Authorized;
use state::members::{ChangeContext, MemberObject};
use state::{
    Applied, Committed, Identity, MemberChange, Options, Outcome, Payload, Reads, Refusal, Reply,
    State,
};
use vfs::memory::MemoryDir;

/// One state machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) backend: Backend,
    pub(crate) state: State,
    disk: MemoryDir,
}

pub(crate) fn options() -> Options {
    Options { lease_ttl_seconds_min: 2, learners_max: 1, mvcc: mvcc::Options::default() }
}

pub(crate) fn position(index: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(1) }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::on(MemoryDir::new())
    }

    fn on(disk: MemoryDir) -> Self {
        let backend = Backend::open(&disk.shared(), "db", &backend::Options::default()).unwrap();
        let state = State::open(&backend, &options()).unwrap();
        Self { backend, state, disk }
    }

    /// What is found after a power cut that keeps an arbitrary part of what was not synced.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        Self::on(self.disk.crash(seed))
    }

    /// Forgets all that is only in memory above the backend.
    pub(crate) fn reopen(&mut self) {
        self.state = State::open(&self.backend, &options()).unwrap();
    }

    pub(crate) fn reads(&self) -> Reads {
        self.state.reads()
    }

    /// Applies payloads behind what is applied, as one batch.
    pub(crate) fn batch(&mut self, payloads: Vec<Payload>) -> Vec<Outcome> {
        let entries = log(self.state.applied().index.0 + 1, payloads);
        let mut outcomes = Vec::new();
        self.state.apply(&entries, &mut outcomes).unwrap();
        outcomes
    }

    pub(crate) fn applied(&mut self, payload: Payload) -> Applied {
        self.batch(vec![payload]).pop().unwrap().applied
    }

    pub(crate) fn done(&mut self, payload: Payload) -> Reply {
        match self.applied(payload) {
            Applied::Done(reply) => reply,
            Applied::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    pub(crate) fn refused(&mut self, payload: Payload) -> Refusal {
        match self.applied(payload) {
            Applied::Done(reply) => panic!("not refused: {reply:?}"),
            Applied::Refused(refusal) => refusal,
        }
    }

    pub(crate) fn put(&mut self, request: pb::PutRequest) -> pb::PutResponse {
        let reply = self.done(internal_put(request));
        let Reply::Put(response) = reply else { panic!("{reply:?}") };
        response
    }

    pub(crate) fn delete(&mut self, request: pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let reply = self.done(internal_delete(request));
        let Reply::Delete(response) = reply else { panic!("{reply:?}") };
        response
    }

    pub(crate) fn txn(&mut self, request: pb::TxnRequest) -> pb::TxnResponse {
        let reply = self.done(internal_txn(request));
        let Reply::Txn(response) = reply else { panic!("{reply:?}") };
        response
    }

    pub(crate) fn change(&mut self, payload: Payload) -> (Applied, MemberChange) {
        let outcome = self.batch(vec![payload]).pop().unwrap();
        (outcome.applied, outcome.change.unwrap())
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        let reply = self.reads().range(Authorized::own(&range(key, ""))).unwrap();
        reply.rows.first().map(mvcc::Row::decode)
    }

    pub(crate) fn revision(&self) -> i64 {
        self.reads().keys().revision()
    }

    pub(crate) fn contents(&self) -> Vec<(Bucket, Bytes, Bytes)> {
        contents(&self.backend)
    }
}

/// Everything a backend holds but how far the log is applied: the store's, which is written only at
/// a commit, and the v2 tree's, which every entry moves.
pub(crate) fn contents(backend: &Backend) -> Vec<(Bucket, Bytes, Bytes)> {
    let mut contents = Vec::new();
    for bucket in Bucket::ALL {
        let visit = &mut |key: &Bytes, value: &Bytes| {
            let positions: [&[u8]; 3] = [b"consistent_index", b"term", b"applied"];
            let is_position = positions.contains(&&key[..]) && bucket != Bucket::Key;
            if !is_position {
                contents.push((bucket, key.clone(), value.clone()));
            }
            ControlFlow::Continue(())
        };
        backend.scan(bucket, &[], None, visit).unwrap();
    }
    contents
}

/// Entries from index `first` on.
pub(crate) fn log(first: u64, payloads: impl IntoIterator<Item = Payload>) -> Vec<Committed> {
    let entry = |(index, payload)| Committed { position: position(index), payload };
    (first..).zip(payloads).map(entry).collect()
}

pub(crate) fn internal(request: pb::InternalRaftRequest) -> Payload {
    by(&Identity::nobody(), request)
}

/// A request as the member that somebody asked proposes it.
pub(crate) fn by(who: &Identity, request: pb::InternalRaftRequest) -> Payload {
    let Identity { user, revision } = who.clone();
    let header = pb::RequestHeader { id: 7, username: user, auth_revision: revision };
    let request = pb::InternalRaftRequest { header: Some(header), ..request };
    Payload::Request(request.encode_to_vec().into())
}

pub(crate) fn internal_put(put: pb::PutRequest) -> Payload {
    internal(pb::InternalRaftRequest { put: Some(put), ..Default::default() })
}

pub(crate) fn internal_delete(delete: pb::DeleteRangeRequest) -> Payload {
    internal(pb::InternalRaftRequest { delete_range: Some(delete), ..Default::default() })
}

pub(crate) fn internal_txn(txn: pb::TxnRequest) -> Payload {
    internal(pb::InternalRaftRequest { txn: Some(txn), ..Default::default() })
}

pub(crate) fn compact(revision: i64) -> Payload {
    let compaction = Some(pb::CompactionRequest { revision, physical: false });
    internal(pb::InternalRaftRequest { compaction, ..Default::default() })
}

pub(crate) fn grant(id: i64, ttl: i64) -> Payload {
    let lease_grant = Some(pb::LeaseGrantRequest { ttl, id });
    internal(pb::InternalRaftRequest { lease_grant, ..Default::default() })
}

pub(crate) fn revoke(id: i64) -> Payload {
    let lease_revoke = Some(pb::LeaseRevokeRequest { id });
    internal(pb::InternalRaftRequest { lease_revoke, ..Default::default() })
}

pub(crate) fn checkpoint(id: i64, remaining_ttl: i64) -> Payload {
    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
    let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
    internal(pb::InternalRaftRequest { lease_checkpoint, ..Default::default() })
}

pub(crate) fn alarm(
    action: pb::alarm_request::AlarmAction,
    member_id: u64,
    kind: pb::AlarmType,
) -> Payload {
    let alarm = Some(pb::AlarmRequest { action: action as i32, member_id, alarm: kind as i32 });
    internal(pb::InternalRaftRequest { alarm, ..Default::default() })
}

pub(crate) fn cluster_version(version: &str) -> Payload {
    let version = proto::membershippb::ClusterVersionSetRequest { ver: version.to_owned() };
    internal(pb::InternalRaftRequest { cluster_version_set: Some(version), ..Default::default() })
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn delete(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    }
}

pub(crate) fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

pub(crate) fn txn(
    compare: Vec<pb::Compare>,
    success: Vec<Request>,
    failure: Vec<Request>,
) -> pb::TxnRequest {
    pb::TxnRequest {
        compare,
        success: success.into_iter().map(op).collect(),
        failure: failure.into_iter().map(op).collect(),
    }
}

pub(crate) fn voter(id: u64, url: &str) -> MemberObject {
    MemberObject { id: MemberId(id), peer_urls: vec![url.to_owned()], ..Default::default() }
}

pub(crate) fn member_change(
    kind: ConfChangeType,
    id: u64,
    context: Option<ChangeContext>,
) -> Payload {
    let change = ConfChange {
        id: Some(11),
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: context.map(|context| context.to_json()),
    };
    Payload::MemberChange(change.encode_to_vec().into())
}

pub(crate) fn add(member: MemberObject) -> Payload {
    let kind = if member.is_learner {
        ConfChangeType::ConfChangeAddLearnerNode
    } else {
        ConfChangeType::ConfChangeAddNode
    };
    member_change(kind, member.id.0, Some(ChangeContext::of(member)))
}
