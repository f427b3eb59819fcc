//! What may be read from any thread while entries are applied.

use base::LeaseId;
use mvcc::{Reader, Row, WatchHub};
use proto::etcdserverpb as pb;

use crate::Refusal;

/// A handle for readers; clones share it.
#[derive(Clone, Debug)]
pub struct Reads;

/// A lease as its owner asked for it.
#[derive(Clone, Debug)]
pub struct LeaseView {
    /// Its id.
    pub id: LeaseId,
    /// Seconds it was granted for.
    pub granted_ttl_seconds: i64,
    /// Keys attached, in order; only when asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// The rows of a range, in the order asked for, ready to be spliced into a reply.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether the limit cut the list.
    pub more: bool,
    /// How many keys are in the range.
    pub count: i64,
    /// The store's revision, for the header.
    pub revision: i64,
}

impl Reads {
    /// Answers a Range request (KV-01..11), already checked by `check_range`.
    ///
    /// # Errors
    ///
    /// `Compacted`, `FutureRevision`, `Corrupt` while that alarm is raised or the bytes are damaged.
    pub fn range(&self, _request: &pb::RangeRequest) -> Result<RangeReply, Refusal> {
        todo!()
    }

    /// Answers a transaction without writes (KV-28), already checked by `check_txn`.
    ///
    /// # Errors
    ///
    /// As [`Reads::range`].
    pub fn txn(&self, _request: &pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        todo!()
    }

    /// The key space.
    #[must_use]
    pub fn keys(&self) -> &Reader {
        todo!()
    }

    /// Watching it.
    #[must_use]
    pub fn watch(&self) -> &WatchHub {
        todo!()
    }

    /// One lease.
    #[must_use]
    pub fn lease(&self, _id: LeaseId, _want_keys: bool) -> Option<LeaseView> {
        todo!()
    }

    /// All leases, in order of id.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        todo!()
    }

    /// Members in order of id.
    #[must_use]
    pub fn members(&self) -> Vec<pb::Member> {
        todo!()
    }

    /// Raised alarms in order of member and kind.
    #[must_use]
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        todo!()
    }

    /// The cluster version, `3.7.0`; `None` before it is decided.
    #[must_use]
    pub fn cluster_version(&self) -> Option<String> {
        todo!()
    }
}
