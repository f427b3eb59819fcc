//! The KV service: requests are checked once, here, and become proposals or reads.
//!
//! This is the hot path: no task, no lock of our own, no copy of a key or a value.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;
use state::{RangeReply, Reply};
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};

use super::budget::{Budget, held_bytes};
use super::codec::{DirectCodec, Plain, SplicedRange, WriteWire};
use super::slow::{Remote, SlowCalls, Stats};
use super::status::refused;
use super::{message_bytes_max, range_stream};
use crate::handle::{Handle, RequestKind};
use crate::metrics::Operation;

/// What a service answers with.
pub(crate) type HttpReply = http::Response<tonic::body::Body>;

/// A reply under way.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Result<HttpReply, Infallible>> + Send>>;

/// The service; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Kv {
    handle: Handle,
    budget: Arc<Budget>,
    slow: SlowCalls,
}

impl Kv {
    pub(crate) fn new(handle: Handle, slow: SlowCalls) -> Self {
        Self { handle, budget: Budget::new(), slow }
    }

    /// Answers a call of `/etcdserverpb.KV/<method>`.
    pub(crate) fn call<B>(
        &self,
        method: &str,
        remote: Remote,
        request: http::Request<B>,
    ) -> Option<ReplyFuture>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let kv = self.clone();
        let max = message_bytes_max(&self.handle);
        Some(match method {
            "Range" => unary(request, max, async move |message| kv.range(message, remote).await),
            "RangeStream" => kv.range_stream(request, max),
            "Put" => unary(request, max, async move |message| kv.put(message, remote).await),
            "DeleteRange" => {
                unary(request, max, async move |message| kv.delete_range(message, remote).await)
            }
            "Txn" => unary(request, max, async move |message| kv.txn(message, remote).await),
            "Compact" => unary(request, max, async move |message| kv.compact(message).await),
            _ => return None,
        })
    }

    async fn range(
        &self,
        request: pb::RangeRequest,
        remote: Remote,
    ) -> Result<SplicedRange, Status> {
        let began = Instant::now();
        let answer = self.read(&request).await;
        let took = began.elapsed();
        self.handle.metrics().server.on_answered(Operation::Range, answer.is_ok(), took);
        self.slow.note("/etcdserverpb.KV/Range", remote, began, || {
            let said = answer.as_ref().ok().map(|answer| (answer.reply.count, answer.len()));
            Stats::of_range(&request, said)
        });
        answer
    }

    async fn read(&self, request: &pb::RangeRequest) -> Result<SplicedRange, Status> {
        state::check_range(request).map_err(|refusal| refused(&refusal))?;
        if !request.serializable {
            self.handle.linearize().await?;
        }
        // A large reply waits for room first and is read then: that is as fresh, and holds nothing
        // while it waits.
        let charge = match self.budget.estimate(&self.handle, request) {
            0 => None,
            bytes => Some(self.budget.admit(bytes).await?),
        };
        let metrics = self.handle.metrics();
        let began = Instant::now();
        let reply: Result<RangeReply, _> = self.handle.reads().range(request);
        metrics.store.on_range();
        metrics.server.on_range(reply.is_ok(), began.elapsed());
        let reply = reply.map_err(|refusal| refused(&refusal))?;
        let held = held_bytes(&reply.rows);
        self.budget.learn(reply.rows.len(), held);
        let charge = self.budget.settle(charge, held).map(Arc::new);
        Ok(SplicedRange { header: Some(self.handle.header(reply.revision)), reply, charge })
    }

    /// KV-12.
    fn range_stream<B>(&self, request: http::Request<B>, max: usize) -> ReplyFuture
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let kv = self.clone();
        Box::pin(async move {
            let service = tower::service_fn(move |request: Request<pb::RangeRequest>| {
                let kv = kv.clone();
                async move {
                    let request = request.into_inner();
                    range_stream::check(&request)?;
                    if !request.serializable {
                        kv.handle.linearize().await?;
                    }
                    let chunks = range_stream::chunks(kv.handle, kv.budget, request);
                    Ok::<_, Status>(Response::new(chunks))
                }
            });
            let mut grpc =
                Grpc::new(DirectCodec::<range_stream::Chunk, pb::RangeRequest>::default())
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(max);
            Ok(grpc.server_streaming(service, request).await)
        })
    }

    async fn put(
        &self,
        request: pb::PutRequest,
        remote: Remote,
    ) -> Result<Plain<pb::PutResponse>, Status> {
        let began = Instant::now();
        let answer = self.propose_put(&request).await;
        self.slow.note("/etcdserverpb.KV/Put", remote, began, || {
            Stats::of_put(&request, answer.as_ref().ok())
        });
        answer.map(Plain::new)
    }

    async fn propose_put(&self, request: &pb::PutRequest) -> Result<pb::PutResponse, Status> {
        state::check_put(request).map_err(|refusal| refused(&refusal))?;
        self.handle.admit(state::quota::put_cost_bytes(request)).await?;
        let reply = self.handle.propose(RequestKind::Put, request).await?;
        let Reply::Put(mut response) = reply else {
            unreachable!("a put was answered by {reply:?}")
        };
        self.handle.metrics().store.on_put(request);
        self.fill(&mut response.header);
        Ok(response)
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
        remote: Remote,
    ) -> Result<Plain<pb::DeleteRangeResponse>, Status> {
        let began = Instant::now();
        let answer = self.propose_delete(&request).await;
        self.slow.note("/etcdserverpb.KV/DeleteRange", remote, began, || {
            Stats::of_delete(&request, answer.as_ref().ok())
        });
        answer.map(Plain::new)
    }

    async fn propose_delete(
        &self,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        state::check_delete(request).map_err(|refusal| refused(&refusal))?;
        let reply = self.handle.propose(RequestKind::DeleteRange, request).await?;
        let Reply::Delete(mut response) = reply else {
            unreachable!("a deletion was answered by {reply:?}")
        };
        self.handle.metrics().store.on_delete();
        self.fill(&mut response.header);
        Ok(response)
    }

    async fn txn(
        &self,
        request: pb::TxnRequest,
        remote: Remote,
    ) -> Result<Plain<pb::TxnResponse>, Status> {
        let began = Instant::now();
        let ops_max = self.handle.limits().txn_ops_max;
        state::check_txn(&request, ops_max).map_err(|refusal| refused(&refusal))?;
        let answer = if state::check::is_read_only(&request) {
            let answer = self.read_txn(&request).await;
            let server = &self.handle.metrics().server;
            server.on_answered(Operation::ReadonlyTxn, answer.is_ok(), began.elapsed());
            answer
        } else {
            self.propose_txn(&request).await
        };
        self.slow.note("/etcdserverpb.KV/Txn", remote, began, || {
            Stats::of_txn(&request, answer.as_ref().ok().map(Plain::message))
        });
        answer
    }

    /// KV-28.
    async fn read_txn(&self, request: &pb::TxnRequest) -> Result<Plain<pb::TxnResponse>, Status> {
        if !state::check::is_serializable(request) {
            self.handle.linearize().await?;
        }
        let operations = request.success.iter().chain(&request.failure);
        let estimates = operations.map(|operation| match &operation.request {
            Some(Op::RequestRange(range)) => self.budget.estimate(&self.handle, range),
            Some(_) | None => 0,
        });
        let charge = match estimates.fold(0, usize::saturating_add) {
            0 => None,
            bytes => Some(self.budget.admit(bytes).await?),
        };
        let mut response = self.handle.reads().txn(request).map_err(|refusal| refused(&refusal))?;
        self.handle.metrics().store.on_txn(request, &response);
        self.fill(&mut response.header);
        let charge = self.budget.settle(charge, response.encoded_len());
        Ok(Plain::charged(response, charge))
    }

    async fn propose_txn(
        &self,
        request: &pb::TxnRequest,
    ) -> Result<Plain<pb::TxnResponse>, Status> {
        self.handle.admit(state::quota::txn_cost_bytes(request)).await?;
        let reply = self.handle.propose(RequestKind::Txn, request).await?;
        let Reply::Txn(mut response) = reply else {
            unreachable!("a txn was answered by {reply:?}")
        };
        self.handle.metrics().store.on_txn(request, &response);
        self.fill(&mut response.header);
        let charge = self.budget.settle(None, response.encoded_len());
        Ok(Plain::charged(response, charge))
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<Plain<pb::CompactionResponse>, Status> {
        let reply = self.handle.propose(RequestKind::Compaction, &request).await?;
        let Reply::Compact(mut response) = reply else {
            unreachable!("a compaction was answered by {reply:?}")
        };
        if request.physical {
            self.handle.compacted(request.revision).await?;
        }
        self.fill(&mut response.header);
        Ok(Plain::new(response))
    }

    /// Adds what only the answering member knows.
    fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.handle.header(revision));
    }
}

/// Runs one unary method over an HTTP request.
pub(crate) fn unary<B, M, R, F, Fut>(
    request: http::Request<B>,
    message_bytes_max: usize,
    method: F,
) -> ReplyFuture
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    M: Message + Default + 'static,
    R: WriteWire + Sync,
    F: FnOnce(M) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<R, Status>> + Send,
{
    Box::pin(async move {
        let service = tower::service_fn(move |request: Request<M>| {
            let method = method.clone();
            async move {
                let reply = method(request.into_inner()).await?;
                let charge = reply.charge();
                let mut response = Response::new(reply);
                if let Some(charge) = charge {
                    response.extensions_mut().insert(charge);
                }
                Ok(response)
            }
        });
        let mut grpc = Grpc::new(DirectCodec::<R, M>::default())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(message_bytes_max);
        Ok(grpc.unary(service, request).await)
    })
}
