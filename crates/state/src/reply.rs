//! What an applied request answers.

use std::sync::Arc;

use base::LeaseId;
use proto::etcdserverpb as pb;

/// The answer of one kind of request, its header without cluster, member and term: those are the
/// answering member's, and the server adds them.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing to tell: the entry of a new leader, membership facts.
    None,
    /// A put.
    Put(pb::PutResponse),
    /// A deletion.
    Delete(pb::DeleteRangeResponse),
    /// A transaction.
    Txn(pb::TxnResponse),
    /// A compaction boundary was set.
    Compact(pb::CompactionResponse),
    /// A lease was granted.
    LeaseGrant(pb::LeaseGrantResponse),
    /// This lease was revoked.
    LeaseRevoke(LeaseId, pb::LeaseRevokeResponse),
    /// Alarms changed or listed.
    Alarm(pb::AlarmResponse),
    /// Whether users are asked who they are.
    AuthStatus(pb::AuthStatusResponse),
    /// The members after a change.
    Members(Vec<pb::Member>),
    /// A request of the v2 generation; its refusals are answers in their own form.
    V2(Result<Arc<v2store::Event>, v2store::Error>),
    /// Keys of the v2 generation whose time is over were removed.
    V2Expired,
}
