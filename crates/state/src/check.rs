//! What is wrong with a request whatever the state is: checked before it is proposed, so that the
//! log holds only requests that make sense.
//!
//! Apply does not check again: a log may hold what another release let through, and every member
//! must apply it alike. Source: etcd server/etcdserver/api/v3rpc/key.go.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use proto::etcdserverpb as pb;

use crate::Refusal;

/// How deep transactions may nest (L5). Clients nest one or two levels; evaluation is recursive,
/// and decoders of other members stop at a hundred messages, two per level.
pub const TXN_DEPTH_MAX: usize = 32;

/// Checks a Range request.
///
/// # Errors
///
/// `EmptyKey` (KV-01), `InvalidSortOption` (KV-05).
pub fn check_range(request: &pb::RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Refusal::InvalidSortOption) }
}

/// Checks a Put request.
///
/// # Errors
///
/// `EmptyKey` (KV-01), `ValueProvided` (KV-17), `LeaseProvided` (KV-18).
pub fn check_put(request: &pb::PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a DeleteRange request.
///
/// # Errors
///
/// `EmptyKey` (KV-01).
pub fn check_delete(request: &pb::DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a Txn request and every operation in it, of the branches that will not be taken too.
///
/// # Errors
///
/// `TooManyOps` (KV-25), `TxnTooDeep` (L5), `DuplicateKey` (KV-26), `KeyNotFound` for an empty
/// operation (KV-27), and what the operations' own checks say.
pub fn check_txn(request: &pb::TxnRequest, max_txn_ops: usize) -> Result<(), Refusal> {
    check_operations(request, max_txn_ops, TXN_DEPTH_MAX)?;
    // Each branch for itself: only one of them is taken. Behind the check of the size, so that
    // this is bounded.
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

/// Whether a transaction only reads and so needs no entry (KV-28). A nested one counts as a write,
/// as in etcd.
#[must_use]
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether a transaction that only reads may be answered from a state that is behind (KV-28).
#[must_use]
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_))
        | None => false,
    })
}

fn check_operations(
    request: &pb::TxnRequest,
    max_txn_ops: usize,
    depth_left: usize,
) -> Result<(), Refusal> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(Refusal::TxnTooDeep);
    };
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(ops_left) = max_txn_ops.checked_sub(ops) else {
        return Err(Refusal::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => check_range(request)?,
            Some(Request::RequestPut(request)) => check_put(request)?,
            Some(Request::RequestDeleteRange(request)) => check_delete(request)?,
            Some(Request::RequestTxn(request)) => check_operations(request, ops_left, depth_left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch writes.
#[derive(Debug, Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Intervals,
}

impl Writes {
    /// Collects the writes of a branch. etcd compares in this order, which decides what it lets
    /// through: a delete of a nested transaction meets the puts behind it, not those before it.
    fn of(operations: &[pb::RequestOp]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        for operation in operations {
            if let Some(Request::RequestDeleteRange(request)) = &operation.request {
                writes.deletes.insert(request);
            }
        }
        for operation in operations {
            if let Some(Request::RequestTxn(request)) = &operation.request {
                writes.add_nested(request)?;
            }
        }
        for operation in operations {
            if let Some(Request::RequestPut(request)) = &operation.request {
                writes.put(&request.key)?;
            }
        }
        Ok(writes)
    }

    fn add_nested(&mut self, request: &pb::TxnRequest) -> Result<(), Refusal> {
        let success = Self::of(&request.success)?;
        let failure = Self::of(&request.failure)?;
        for key in &success.puts {
            self.put(key)?;
        }
        for key in &failure.puts {
            // Only one of the two branches is taken, so both may put a key.
            if success.puts.contains(key) {
                continue;
            }
            self.put(key)?;
        }
        self.deletes.union(success.deletes);
        self.deletes.union(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key.clone()) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

/// Disjoint key ranges, by first key; the value is the first key behind the range.
#[derive(Debug, Default)]
struct Intervals {
    ends: BTreeMap<Bytes, Bytes>,
}

impl Intervals {
    /// Adds what a delete removes. To etcd's check a delete "from this key on" is an empty range,
    /// since it does not read the single zero byte as "to the end"; clients may rely on passing.
    fn insert(&mut self, request: &pb::DeleteRangeRequest) {
        let start = request.key.clone();
        let end = if request.range_end.is_empty() {
            [&start[..], &[0]].concat().into()
        } else {
            request.range_end.clone()
        };
        self.insert_range(start, end);
    }

    fn insert_range(&mut self, mut start: Bytes, mut end: Bytes) {
        if end <= start {
            return;
        }
        // Swallow every range that touches the new one, from the back.
        while let Some((first, behind)) = self.ends.range::<Bytes, _>(..=&end).next_back() {
            if *behind < start {
                break;
            }
            start = start.min(first.clone());
            end = end.max(behind.clone());
            let first = first.clone();
            self.ends.remove(&first);
        }
        self.ends.insert(start, end);
    }

    fn union(&mut self, other: Self) {
        for (start, end) in other.ends {
            self.insert_range(start, end);
        }
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.ends.range::<Bytes, _>(..=key).next_back().is_some_and(|(_, end)| key < end)
    }
}

#[cfg(test)]
mod tests;
