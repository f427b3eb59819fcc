//! What requests cost of the space quota, and whether it is used up.
//!
//! The quota is a member's own setting, so it decides nothing in apply: a write that commits is
//! applied, and a member that is over its quota then proposes a NOSPACE alarm for itself. In apply
//! only the alarm counts. Source: etcd server/storage/quota.go.

use pb::request_op::Request;
use proto::etcdserverpb as pb;

/// What a lease costs, in bytes (KV-38).
pub const LEASE_COST_BYTES: u64 = 64;

/// What a key costs beside its own bytes and its value's (KV-38).
const PUT_OVERHEAD_BYTES: u64 = 256;

/// The quota of a member that was given none: 2 GiB.
const DEFAULT_BYTES: u64 = 2 << 30;

/// How large the database of a member may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// As large as it likes.
    Unlimited,
    /// Up to this many bytes.
    Bytes(u64),
}

impl Quota {
    /// Reads `--quota-backend-bytes`: negative is unlimited, 0 is the default.
    #[must_use]
    pub fn from_flag(bytes: i64) -> Self {
        match u64::try_from(bytes) {
            Ok(0) => Self::Bytes(DEFAULT_BYTES),
            Ok(bytes) => Self::Bytes(bytes),
            Err(_) => Self::Unlimited,
        }
    }

    /// The bytes, if there is a limit.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// Whether a request of this cost takes a database of this size over the quota. What costs
    /// nothing never does.
    #[must_use]
    pub fn is_exceeded(self, size_bytes: u64, cost_bytes: u64) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Bytes(quota) => cost_bytes != 0 && quota <= size_bytes.saturating_add(cost_bytes),
        }
    }
}

/// What a put costs, in bytes.
#[must_use]
pub fn put_cost_bytes(request: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// What a transaction costs, in bytes: its dearer branch, nested transactions included.
#[must_use]
pub fn txn_cost_bytes(request: &pb::TxnRequest) -> u64 {
    branch_cost_bytes(&request.success).max(branch_cost_bytes(&request.failure))
}

fn branch_cost_bytes(operations: &[pb::RequestOp]) -> u64 {
    let cost = |operation: &pb::RequestOp| match &operation.request {
        Some(Request::RequestPut(request)) => put_cost_bytes(request),
        Some(Request::RequestTxn(request)) => txn_cost_bytes(request),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    };
    operations.iter().map(cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> pb::RequestOp {
        let put = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        pb::RequestOp { request: Some(Request::RequestPut(put)) }
    }

    /// KV-38.
    #[test]
    fn the_dearer_branch_counts_with_nested_ones() {
        let nested = pb::TxnRequest { failure: vec![put("k", "value")], ..Default::default() };
        let nested = pb::RequestOp { request: Some(Request::RequestTxn(nested)) };
        let txn = pb::TxnRequest {
            success: vec![put("k", "")],
            failure: vec![nested, put("key", "v")],
            ..Default::default()
        };
        assert_eq!(txn_cost_bytes(&txn), (256 + 6) + (256 + 4));
        assert_eq!(txn_cost_bytes(&pb::TxnRequest::default()), 0);
    }

    /// A full database still takes what costs nothing.
    #[test]
    fn quota_is_exceeded_when_nothing_is_left() {
        let quota = Quota::from_flag(1000);
        assert!(!quota.is_exceeded(900, 99));
        assert!(quota.is_exceeded(900, 100));
        assert!(!quota.is_exceeded(2000, 0));
        assert!(!Quota::from_flag(-1).is_exceeded(u64::MAX, u64::MAX));
        assert_eq!(Quota::from_flag(0), Quota::Bytes(2 << 30));
    }
}
