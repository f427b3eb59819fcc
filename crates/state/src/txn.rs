//! Transactions: which branch is taken, whether its operations can all be done, and doing them.
//!
//! Compares see the state before, of nested transactions too; then every operation of the taken
//! path is checked; only then is anything changed, in order. So a refused transaction has changed
//! nothing and takes no revision. Source: etcd server/etcdserver/txn/txn.go.

use pb::request_op::Request;
use pb::response_op::Response;
use proto::etcdserverpb as pb;

use crate::kv::{self, Changes, header};
use crate::lease::Leases;
use crate::view::{Pinned, Stop, View};
use crate::{RangeReply, Refusal, Steps, compare, range};

/// A transaction with its branch chosen. `nested` holds those of the taken operations that are
/// transactions, in order.
#[derive(Debug)]
pub(crate) struct Path<'r> {
    succeeded: bool,
    taken: &'r [pb::RequestOp],
    nested: Vec<Path<'r>>,
}

/// The revisions a range inside a transaction may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RevisionBounds {
    /// The store's revision before the transaction.
    pub(crate) newest: i64,
    /// The compact revision.
    pub(crate) compacted: i64,
}

impl<'r> Path<'r> {
    /// Evaluates the compares, recursively along the taken path. What that takes is added to
    /// `steps`, here and below.
    pub(crate) fn choose(
        view: &impl View,
        request: &'r pb::TxnRequest,
        steps: &mut Steps,
    ) -> Result<Self, Stop> {
        let succeeded = compare::all_hold(view, &request.compare, &mut steps.ranges)?;
        let taken: &[_] = if succeeded { &request.success } else { &request.failure };
        let mut nested = Vec::new();
        for operation in taken {
            if let Some(Request::RequestTxn(request)) = &operation.request {
                nested.push(Self::choose(view, request, steps)?);
            }
        }
        Ok(Self { succeeded, taken, nested })
    }

    /// Whether every operation of the path can be done.
    pub(crate) fn check(
        &self,
        view: &impl View,
        leases: &Leases,
        bounds: RevisionBounds,
        steps: &mut Steps,
    ) -> Result<(), Stop> {
        let mut nested = self.nested.iter();
        for operation in self.taken {
            match &operation.request {
                Some(Request::RequestRange(request)) => bounds.check(request.revision)?,
                Some(Request::RequestPut(request)) => {
                    kv::check_put(view, leases, request, steps)?;
                }
                Some(Request::RequestTxn(_)) => {
                    let path = nested.next().expect("every taken transaction has its path");
                    path.check(view, leases, bounds, steps)?;
                }
                // An empty operation is refused before it is proposed; if another release let it
                // through, it does nothing.
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Whether every range of a path that only reads can be answered.
    pub(crate) fn check_ranges(&self, bounds: RevisionBounds) -> Result<(), Refusal> {
        for operation in self.taken {
            if let Some(Request::RequestRange(request)) = &operation.request {
                bounds.check(request.revision)?;
            }
        }
        Ok(())
    }

    /// Does the operations in order.
    pub(crate) fn execute(
        &self,
        changes: &mut Changes<'_, '_, '_>,
    ) -> Result<pb::TxnResponse, Stop> {
        let mut nested = self.nested.iter();
        let mut responses = Vec::with_capacity(self.taken.len());
        for operation in self.taken {
            let response = match &operation.request {
                Some(Request::RequestRange(request)) => {
                    changes.steps.ranges += 1;
                    let reply = range::read(changes.view(), request)?;
                    Some(Response::ResponseRange(range_response(reply, changes.revision())))
                }
                Some(Request::RequestPut(request)) => {
                    Some(Response::ResponsePut(changes.put(request)?))
                }
                Some(Request::RequestDeleteRange(request)) => {
                    Some(Response::ResponseDeleteRange(changes.delete(request)?))
                }
                Some(Request::RequestTxn(_)) => {
                    let path = nested.next().expect("every taken transaction has its path");
                    let mut response = path.execute(changes)?;
                    // Only the outermost answer says the revision.
                    response.header = Some(pb::ResponseHeader::default());
                    Some(Response::ResponseTxn(response))
                }
                None => None,
            };
            responses.push(pb::ResponseOp { response });
        }
        Ok(self.response(responses, changes.revision()))
    }

    /// Answers the operations of a transaction that only reads; it has no nested ones.
    ///
    /// # Panics
    ///
    /// If an operation is not a range.
    pub(crate) fn read(
        &self,
        view: Pinned<'_>,
        steps: &mut Steps,
    ) -> Result<pb::TxnResponse, Stop> {
        let mut responses = Vec::with_capacity(self.taken.len());
        for operation in self.taken {
            let Some(Request::RequestRange(request)) = &operation.request else {
                panic!("only ranges need no entry: {operation:?}");
            };
            steps.ranges += 1;
            let reply = range::read(&view, request)?;
            let response = Response::ResponseRange(range_response(reply, view.revision));
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        Ok(self.response(responses, view.revision))
    }

    fn response(&self, responses: Vec<pb::ResponseOp>, revision: i64) -> pb::TxnResponse {
        pb::TxnResponse { header: header(revision), succeeded: self.succeeded, responses }
    }
}

impl RevisionBounds {
    /// Unlike a plain read, a transaction takes a negative revision by its word.
    pub(crate) fn check(self, revision: i64) -> Result<(), Refusal> {
        if revision == 0 {
            Ok(())
        } else if self.newest < revision {
            Err(Refusal::FutureRevision)
        } else if revision < self.compacted {
            Err(Refusal::Compacted)
        } else {
            Ok(())
        }
    }
}

fn range_response(reply: RangeReply, revision: i64) -> pb::RangeResponse {
    pb::RangeResponse {
        header: header(revision),
        kvs: reply.rows.iter().map(mvcc::Row::decode).collect(),
        more: reply.more,
        count: reply.count,
    }
}
