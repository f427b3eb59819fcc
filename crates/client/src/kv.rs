//! Reading and writing keys.
//!
//! etcd: `client/v3/kv.go`.

use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, request_op,
};

use crate::call::{Policy, within};
use crate::client::Client;
use crate::error::{Applied, Error};

impl Client {
    /// Writes one key.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::applied`] says whether the key may have been written.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        self.unary(Policy::Once, request, |channel, request| {
            let mut stub = self.kv_stub(channel);
            async move { stub.put(request).await }
        })
        .await
    }

    /// Reads one key or a range.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn get(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.unary(Policy::Repeatable, request, |channel, request| {
            let mut stub = self.kv_stub(channel);
            async move { stub.range(request).await }
        })
        .await
    }

    /// Reads a range in pieces and returns them as one response.
    ///
    /// # Errors
    ///
    /// See [`Error`]. Members before 3.7 answer that they do not know the call.
    pub async fn get_stream(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let deadline = self.deadline();
        let pieces = self
            .unary(Policy::Repeatable, request, |channel, request| {
                let mut stub = self.kv_stub(channel);
                async move { stub.range_stream(request).await }
            })
            .await?;
        let timeout = || Error::Deadline { applied: Applied::No };
        within(deadline, merge_pieces(pieces)).await.ok_or_else(timeout)?
    }

    /// Deletes one key or a range.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::applied`] says whether keys may have been deleted.
    pub async fn delete(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        self.unary(Policy::Once, request, |channel, request| {
            let mut stub = self.kv_stub(channel);
            async move { stub.delete_range(request).await }
        })
        .await
    }

    /// Runs a transaction. One that only reads is repeated like a read.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::applied`] says whether it may have been applied.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        let policy = if writes(&request) { Policy::Once } else { Policy::Repeatable };
        self.unary(policy, request, |channel, request| {
            let mut stub = self.kv_stub(channel);
            async move { stub.txn(request).await }
        })
        .await
    }

    /// Drops the history before a revision.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        self.unary(Policy::Once, request, |channel, request| {
            let mut stub = self.kv_stub(channel);
            async move { stub.compact(request).await }
        })
        .await
    }
}

/// The pairs of every piece follow each other; the rest is in the last piece.
async fn merge_pieces(
    mut pieces: tonic::Streaming<proto::etcdserverpb::RangeStreamResponse>,
) -> Result<RangeResponse, Error> {
    let mut merged = RangeResponse::default();
    loop {
        let piece = pieces.message().await.map_err(|status| Error::from_status(&status))?;
        let Some(piece) = piece else {
            return Ok(merged);
        };
        let Some(mut range) = piece.range_response else {
            continue;
        };
        merged.kvs.append(&mut range.kvs);
        merged.header = range.header.or(merged.header);
        merged.more |= range.more;
        merged.count = merged.count.max(range.count);
    }
}

/// Whether any branch of the transaction, however deep, writes.
fn writes(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(request_op::Request::RequestRange(_)) | None => false,
        Some(request_op::Request::RequestTxn(inner)) => writes(inner),
        Some(request_op::Request::RequestPut(_) | request_op::Request::RequestDeleteRange(_)) => {
            true
        }
    })
}

/// The first key behind all keys that start with `prefix`; a zero byte, which means "to the last
/// key", if there is none. An empty prefix is not handled here: its range starts at a zero byte.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte < 0xff);
    let Some(last) = kept else {
        return vec![0];
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::RequestOp;

    use super::*;

    /// KV-02.
    #[test]
    fn prefix_ends_behind_its_last_key() {
        assert_eq!(prefix_end(b"foo"), b"fop");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), b"\0");
    }

    #[test]
    fn transaction_writes_if_any_branch_does() {
        let put =
            RequestOp { request: Some(request_op::Request::RequestPut(PutRequest::default())) };
        let read =
            RequestOp { request: Some(request_op::Request::RequestRange(RangeRequest::default())) };
        let inner = TxnRequest { failure: vec![put], ..TxnRequest::default() };
        let nested = RequestOp { request: Some(request_op::Request::RequestTxn(inner)) };
        assert!(!writes(&TxnRequest { success: vec![read.clone()], ..TxnRequest::default() }));
        assert!(writes(&TxnRequest { success: vec![read, nested], ..TxnRequest::default() }));
    }
}
