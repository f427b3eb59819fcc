//! What an applied request answers.

use std::sync::Arc;

use base::LeaseId;
use proto::authpb::Permission;
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
    /// A request about users and roles.
    Auth {
        /// The store's revision, for the header.
        revision: i64,
        /// The answer.
        reply: AuthReply,
    },
    /// The members after a change.
    Members(Vec<pb::Member>),
    /// A request of the v2 generation; its refusals are answers in their own form.
    V2(Result<Arc<v2store::Event>, v2store::Error>),
    /// Keys of the v2 generation whose time is over were removed.
    V2Expired,
}

/// What a request about users and roles answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthReply {
    /// It was done; there is nothing to tell.
    Done,
    /// Whether users are asked who they are, and the auth revision.
    Status {
        /// Whether they are.
        enabled: bool,
        /// The revision.
        revision: u64,
    },
    /// The user may have a token.
    Authenticated {
        /// The simple token that it got; empty where members sign tokens.
        token: String,
    },
    /// Names of users, of roles, or of the roles of a user.
    Names(Vec<String>),
    /// What a role may do.
    Permissions(Vec<Permission>),
}
