//! What clients saw.
//!
//! Times are nanoseconds of one monotonic clock that all clients of a history share.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Read; linearizable unless the request says serializable.
    Range(pb::RangeRequest),
    /// Write one key.
    Put(pb::PutRequest),
    /// Delete a range.
    Delete(pb::DeleteRangeRequest),
    /// Transaction.
    Txn(pb::TxnRequest),
    /// Forget history.
    Compact(pb::CompactionRequest),
    /// Make a lease.
    Grant(pb::LeaseGrantRequest),
    /// End a lease.
    Revoke(pb::LeaseRevokeRequest),
    /// Renew a lease once.
    KeepAlive(pb::LeaseKeepAliveRequest),
    /// Ask for a lease's remaining time.
    TimeToLive(pb::LeaseTimeToLiveRequest),
}

/// A response, of the kind of its [`Call`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Call::Range`].
    Range(pb::RangeResponse),
    /// To [`Call::Put`].
    Put(pb::PutResponse),
    /// To [`Call::Delete`].
    Delete(pb::DeleteRangeResponse),
    /// To [`Call::Txn`].
    Txn(pb::TxnResponse),
    /// To [`Call::Compact`].
    Compact(pb::CompactionResponse),
    /// To [`Call::Grant`].
    Grant(pb::LeaseGrantResponse),
    /// To [`Call::Revoke`].
    Revoke(pb::LeaseRevokeResponse),
    /// To [`Call::KeepAlive`].
    KeepAlive(pb::LeaseKeepAliveResponse),
    /// To [`Call::TimeToLive`].
    TimeToLive(pb::LeaseTimeToLiveResponse),
}

/// How a call ended for its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// With an error that says that there was no effect.
    Refused(String),
    /// With an error, or never: the effect may have happened, or may still happen, at most once.
    Unknown(String),
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The client. Its calls follow each other.
    pub client: u64,
    /// The member that was asked, as the recorder numbers them.
    pub member: u64,
    /// Changes whenever the client or the member began anew. Serializable reads of one client at
    /// one member never go back while this stays.
    pub session: u64,
    /// When the client began, nanoseconds.
    pub invoked: u64,
    /// When the client had the outcome, nanoseconds; not before `invoked`.
    pub returned: u64,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// A response on a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When it was received, nanoseconds.
    pub received: u64,
    /// It.
    pub response: pb::WatchResponse,
}

/// One watch on one stream, from its creation to its end. A resumed watch is another record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchRecord {
    /// The client.
    pub client: u64,
    /// The member that was asked.
    pub member: u64,
    /// When the creation was sent, nanoseconds.
    pub opened: u64,
    /// What was asked for.
    pub request: pb::WatchCreateRequest,
    /// Everything that came, in order.
    pub observations: Vec<Observation>,
    /// The recorder waited until the watch must have had everything up to this revision.
    pub caught_up: Option<i64>,
}

/// A member's state at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Final {
    /// The member.
    pub member: u64,
    /// The revision that was hashed.
    pub revision: i64,
    /// Its hash.
    pub hash: u32,
    /// The newest compaction.
    pub compact_revision: i64,
    /// All pairs at that revision, if they were asked for.
    pub pairs: Option<Vec<KeyValue>>,
}

/// Everything that clients of one cluster saw.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The revision before the first operation; 1 for a new cluster.
    pub revision: i64,
    /// The pairs at that revision.
    pub pairs: Vec<KeyValue>,
    /// The calls, in any order.
    pub operations: Vec<Operation>,
    /// The watches.
    pub watches: Vec<WatchRecord>,
    /// The members at the end.
    pub finals: Vec<Final>,
    /// Revisions and the leases that were revoked at them, where somebody knows; `None` if any may
    /// have ended by itself at any time.
    pub expired: Option<BTreeSet<(i64, i64)>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            revision: 1,
            pairs: Vec::new(),
            operations: Vec::new(),
            watches: Vec::new(),
            finals: Vec::new(),
            expired: None,
        }
    }
}

impl Call {
    /// Whether the call may change keys, as far as the request alone tells.
    #[must_use]
    pub fn may_change_keys(&self) -> bool {
        match self {
            Self::Put(_) | Self::Delete(_) | Self::Revoke(_) => true,
            Self::Txn(txn) => writes(txn),
            Self::Range(_)
            | Self::Compact(_)
            | Self::Grant(_)
            | Self::KeepAlive(_)
            | Self::TimeToLive(_) => false,
        }
    }

    /// Whether the answer must not be older than what anybody knew before the call.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        match self {
            Self::Range(range) => !range.serializable,
            Self::Txn(txn) => !is_serializable(txn),
            Self::Put(_) | Self::Delete(_) | Self::Revoke(_) | Self::Grant(_) => true,
            Self::Compact(_) | Self::KeepAlive(_) | Self::TimeToLive(_) => false,
        }
    }
}

fn branches(txn: &pb::TxnRequest) -> impl Iterator<Item = &pb::request_op::Request> {
    txn.success.iter().chain(&txn.failure).filter_map(|operation| operation.request.as_ref())
}

fn writes(txn: &pb::TxnRequest) -> bool {
    branches(txn).any(|request| match request {
        pb::request_op::Request::RequestRange(_) => false,
        pb::request_op::Request::RequestTxn(inner) => writes(inner),
        pb::request_op::Request::RequestPut(_) | pb::request_op::Request::RequestDeleteRange(_) => {
            true
        }
    })
}

/// etcd asks no quorum for a transaction all of whose operations are serializable reads.
fn is_serializable(txn: &pb::TxnRequest) -> bool {
    branches(txn).all(|request| match request {
        pb::request_op::Request::RequestRange(range) => range.serializable,
        pb::request_op::Request::RequestTxn(_)
        | pb::request_op::Request::RequestPut(_)
        | pb::request_op::Request::RequestDeleteRange(_) => false,
    })
}

impl Answer {
    /// The header.
    #[must_use]
    pub fn header(&self) -> Option<&pb::ResponseHeader> {
        match self {
            Self::Range(response) => response.header.as_ref(),
            Self::Put(response) => response.header.as_ref(),
            Self::Delete(response) => response.header.as_ref(),
            Self::Txn(response) => response.header.as_ref(),
            Self::Compact(response) => response.header.as_ref(),
            Self::Grant(response) => response.header.as_ref(),
            Self::Revoke(response) => response.header.as_ref(),
            Self::KeepAlive(response) => response.header.as_ref(),
            Self::TimeToLive(response) => response.header.as_ref(),
        }
    }

    /// The header's revision; 0 without a header.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.header().map_or(0, |header| header.revision)
    }

    /// Whether the answer says that keys were changed; `None` if it does not tell.
    #[must_use]
    pub fn changed_keys(&self) -> Option<bool> {
        match self {
            Self::Put(_) => Some(true),
            Self::Delete(response) => Some(response.deleted > 0),
            Self::Txn(response) => Some(changed(response)),
            Self::Revoke(_) => None,
            Self::Range(_)
            | Self::Compact(_)
            | Self::Grant(_)
            | Self::KeepAlive(_)
            | Self::TimeToLive(_) => Some(false),
        }
    }

    /// The same without headers, whose ids and terms no model knows.
    #[must_use]
    pub fn without_headers(&self) -> Self {
        let mut bare = self.clone();
        match &mut bare {
            Self::Range(response) => response.header = None,
            Self::Put(response) => response.header = None,
            Self::Delete(response) => response.header = None,
            Self::Txn(response) => clear_headers(response),
            Self::Compact(response) => response.header = None,
            Self::Grant(response) => response.header = None,
            Self::Revoke(response) => response.header = None,
            Self::KeepAlive(response) => response.header = None,
            Self::TimeToLive(response) => response.header = None,
        }
        bare
    }
}

fn changed(response: &pb::TxnResponse) -> bool {
    let inner = response.responses.iter().filter_map(|inner| inner.response.as_ref());
    inner.into_iter().any(|inner| match inner {
        pb::response_op::Response::ResponseRange(_) => false,
        pb::response_op::Response::ResponsePut(_) => true,
        pb::response_op::Response::ResponseDeleteRange(delete) => delete.deleted > 0,
        pb::response_op::Response::ResponseTxn(txn) => changed(txn),
    })
}

fn clear_headers(response: &mut pb::TxnResponse) {
    response.header = None;
    for inner in response.responses.iter_mut().filter_map(|inner| inner.response.as_mut()) {
        match inner {
            pb::response_op::Response::ResponseRange(range) => range.header = None,
            pb::response_op::Response::ResponsePut(put) => put.header = None,
            pb::response_op::Response::ResponseDeleteRange(delete) => delete.header = None,
            pb::response_op::Response::ResponseTxn(txn) => clear_headers(txn),
        }
    }
}

impl Operation {
    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether nobody knows if it had an effect.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }
}

impl WatchRecord {
    /// Whether it wants this key.
    #[must_use]
    pub fn wants(&self, key: &Bytes) -> bool {
        crate::model::in_range(key, &self.request.key, &self.request.range_end)
    }

    /// Whether it wants every event of every key.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let first = self.request.key.is_empty() || self.request.key == b"\0"[..];
        first && self.request.range_end == b"\0"[..] && self.request.filters.is_empty()
    }
}
