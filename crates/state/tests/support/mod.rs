//! A state on a backend of its own, and short ways to make requests.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::ops::ControlFlow;

use backend::{Backend, Bucket};
use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::mvccpb::KeyValue;
use proto::raftpb::{ConfChange, ConfChangeType};
use state::members::{ChangeContext, MemberObject};
use state::{
    Applied, Committed, MemberChange, Options, Outcome, Payload, Reads, Refusal, Reply, State,
};

/// One state machine.
#[derive(Debug)]
pub struct Machine {
    pub backend: Backend,
    pub state: State,
    _folder: tempfile::TempDir,
}

pub fn options() -> Options {
    Options { lease_ttl_seconds_min: 2, learners_max: 1, mvcc: mvcc::Options::default() }
}

pub fn position(index: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(1) }
}

impl Machine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = vfs::OsDir::open(folder.path()).unwrap();
        let backend = Backend::open(&dir, "db", &backend::Options::default()).unwrap();
        let state = State::open(&backend, &options()).unwrap();
        Self { backend, state, _folder: folder }
    }

    /// Forgets all that is only in memory above the backend.
    pub fn reopen(&mut self) {
        self.state = State::open(&self.backend, &options()).unwrap();
    }

    pub fn reads(&self) -> Reads {
        self.state.reads()
    }

    /// Applies payloads behind what is applied, as one batch.
    pub fn batch(&mut self, payloads: Vec<Payload>) -> Vec<Outcome> {
        let first = self.state.applied().index.0 + 1;
        let entries: Vec<_> = (first..)
            .zip(payloads)
            .map(|(index, payload)| Committed { position: position(index), payload })
            .collect();
        let mut outcomes = Vec::new();
        self.state.apply(&entries, &mut outcomes).unwrap();
        outcomes
    }

    pub fn applied(&mut self, payload: Payload) -> Applied {
        self.batch(vec![payload]).pop().unwrap().applied
    }

    pub fn done(&mut self, payload: Payload) -> Reply {
        match self.applied(payload) {
            Applied::Done(reply) => reply,
            Applied::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    pub fn refused(&mut self, payload: Payload) -> Refusal {
        match self.applied(payload) {
            Applied::Done(reply) => panic!("not refused: {reply:?}"),
            Applied::Refused(refusal) => refusal,
        }
    }

    pub fn put(&mut self, request: pb::PutRequest) -> pb::PutResponse {
        match self.done(internal_put(request)) {
            Reply::Put(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub fn delete(&mut self, request: pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        match self.done(internal_delete(request)) {
            Reply::Delete(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub fn txn(&mut self, request: pb::TxnRequest) -> pb::TxnResponse {
        match self.done(internal_txn(request)) {
            Reply::Txn(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub fn change(&mut self, payload: Payload) -> (Applied, MemberChange) {
        let outcome = self.batch(vec![payload]).pop().unwrap();
        (outcome.applied, outcome.change.unwrap())
    }

    pub fn get(&self, key: &str) -> Option<KeyValue> {
        let reply = self.reads().range(&range(key, "")).unwrap();
        reply.rows.first().map(mvcc::Row::decode)
    }

    pub fn revision(&self) -> i64 {
        self.reads().keys().revision()
    }

    /// Everything the backend holds.
    pub fn contents(&self) -> Vec<(Bucket, Bytes, Bytes)> {
        let mut contents = Vec::new();
        for bucket in Bucket::ALL {
            let visit = &mut |key: &Bytes, value: &Bytes| {
                contents.push((bucket, key.clone(), value.clone()));
                ControlFlow::Continue(())
            };
            self.backend.scan(bucket, &[], None, visit).unwrap();
        }
        contents
    }
}

pub fn internal(request: pb::InternalRaftRequest) -> Payload {
    let header = pb::RequestHeader { id: 7, ..Default::default() };
    let request = pb::InternalRaftRequest { header: Some(header), ..request };
    Payload::Request(request.encode_to_vec().into())
}

pub fn internal_put(put: pb::PutRequest) -> Payload {
    internal(pb::InternalRaftRequest { put: Some(put), ..Default::default() })
}

pub fn internal_delete(delete: pb::DeleteRangeRequest) -> Payload {
    internal(pb::InternalRaftRequest { delete_range: Some(delete), ..Default::default() })
}

pub fn internal_txn(txn: pb::TxnRequest) -> Payload {
    internal(pb::InternalRaftRequest { txn: Some(txn), ..Default::default() })
}

pub fn compact(revision: i64) -> Payload {
    let compaction = Some(pb::CompactionRequest { revision, physical: false });
    internal(pb::InternalRaftRequest { compaction, ..Default::default() })
}

pub fn grant(id: i64, ttl: i64) -> Payload {
    let lease_grant = Some(pb::LeaseGrantRequest { ttl, id });
    internal(pb::InternalRaftRequest { lease_grant, ..Default::default() })
}

pub fn revoke(id: i64) -> Payload {
    let lease_revoke = Some(pb::LeaseRevokeRequest { id });
    internal(pb::InternalRaftRequest { lease_revoke, ..Default::default() })
}

pub fn checkpoint(id: i64, remaining_ttl: i64) -> Payload {
    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
    let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
    internal(pb::InternalRaftRequest { lease_checkpoint, ..Default::default() })
}

pub fn alarm(
    action: pb::alarm_request::AlarmAction,
    member_id: u64,
    kind: pb::AlarmType,
) -> Payload {
    let alarm = Some(pb::AlarmRequest { action: action as i32, member_id, alarm: kind as i32 });
    internal(pb::InternalRaftRequest { alarm, ..Default::default() })
}

pub fn cluster_version(version: &str) -> Payload {
    let version = proto::membershippb::ClusterVersionSetRequest { ver: version.to_owned() };
    internal(pb::InternalRaftRequest { cluster_version_set: Some(version), ..Default::default() })
}

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub fn delete(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    }
}

pub fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    }
}

pub fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

pub fn txn(
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

pub fn voter(id: u64, url: &str) -> MemberObject {
    MemberObject { id: MemberId(id), peer_urls: vec![url.to_owned()], ..Default::default() }
}

pub fn member_change(kind: ConfChangeType, id: u64, context: Option<ChangeContext>) -> Payload {
    let change = ConfChange {
        id: Some(11),
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: context.map(|context| context.to_json()),
    };
    Payload::MemberChange(change.encode_to_vec().into())
}

pub fn add(member: MemberObject) -> Payload {
    let kind = if member.is_learner {
        ConfChangeType::ConfChangeAddLearnerNode
    } else {
        ConfChangeType::ConfChangeAddNode
    };
    member_change(kind, member.id.0, Some(ChangeContext::of(member)))
}
