//! The KV service: requests are checked once, here, and become proposals or reads.
//!
//! This is the hot path: no task, no lock of our own, no copy of a key or a value.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use backend::CommitError;
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;
use state::{RangeReply, Reply};
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};

use super::budget::{Budget, Charge, held_bytes};
use super::codec::{DirectCodec, Framed, Plain, SplicedRange, WriteWire};
use super::load::Load;
use super::messages::{Messages, decode};
use super::slow::{Remote, SlowCalls, Stats, Steps, field};
use super::status::{self, refused};
use super::{message_bytes_max, range_stream};
use crate::auth::Caller;
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::metrics::Operation;
use crate::traces::about;

/// What a service answers with.
pub(crate) type HttpReply = http::Response<tonic::body::Body>;

/// A reply under way.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Result<HttpReply, Infallible>> + Send>>;

/// A unary reply of this service under way.
pub(crate) type UnaryReply = Pin<Box<dyn Future<Output = Result<Framed, Status>> + Send>>;

/// The unary methods.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KvMethod {
    Range,
    Put,
    DeleteRange,
    Txn,
    Compact,
}

/// The service; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Kv {
    pub(super) handle: Handle,
    pub(super) budget: Arc<Budget>,
    slow: SlowCalls,
    /// Of the connection.
    load: Arc<Load>,
}

impl Kv {
    pub(crate) fn new(handle: Handle, slow: SlowCalls, load: Arc<Load>) -> Self {
        Self { handle, budget: Budget::new(), slow, load }
    }

    /// The same service for a connection.
    pub(crate) fn for_connection(&self, load: Arc<Load>) -> Self {
        Self { load, ..self.clone() }
    }

    /// Waits until the connection may be answered `bytes` (0 for few) more.
    pub(super) async fn room(
        &self,
        bytes: impl FnOnce() -> usize,
    ) -> Result<Option<Charge>, ProposeError> {
        self.load.room().await?;
        match bytes() {
            0 => Ok(None),
            bytes => self.budget.admit(&self.load, bytes).await.map(Some),
        }
    }

    /// Answers a unary call.
    pub(crate) fn call<B>(
        self: &Arc<Self>,
        method: KvMethod,
        remote: Remote,
        caller: Caller,
        messages: Messages<B>,
    ) -> UnaryReply
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let kv = Arc::clone(self);
        match method {
            KvMethod::Range => {
                unary(messages, async move |message| kv.range(message, remote, caller).await)
            }
            KvMethod::Put => {
                unary(messages, async move |message| kv.put(message, remote, caller).await)
            }
            KvMethod::DeleteRange => {
                unary(messages, async move |message| kv.delete_range(message, remote, caller).await)
            }
            KvMethod::Txn => {
                unary(messages, async move |message| kv.txn(message, remote, caller).await)
            }
            KvMethod::Compact => {
                unary(messages, async move |message| kv.compact(message, caller).await)
            }
        }
    }

    async fn range(
        &self,
        request: pb::RangeRequest,
        remote: Remote,
        caller: Caller,
    ) -> Result<SplicedRange, Status> {
        // Before anything else, as for the calls that a learner never answers.
        if !request.serializable && self.handle.is_learner() {
            return Err(ProposeError::NotForLearners.into());
        }
        // As with etcd, what is no request at all is in no measure of requests.
        state::check_range(&request).map_err(|refusal| refused(&refusal))?;
        let mut steps = Steps::begin();
        let began = steps.began();
        let answer = self.read(&request, caller, &mut steps).await;
        let took = began.elapsed();
        let server = &self.handle.metrics().server;
        server.on_answered(Operation::Range, answer.is_ok(), took);
        if self.slow.note_range(began, &request, &answer) {
            server.on_slow_read();
        }
        steps.note("range", || {
            let mut fields = vec![
                field("range_begin", String::from_utf8_lossy(&request.key)),
                field("range_end", String::from_utf8_lossy(&request.range_end)),
            ];
            if let Ok(answer) = &answer {
                fields.push(field("response_count", answer.reply.rows.len()));
                fields.push(field("response_revision", answer.reply.revision));
            }
            fields
        });
        self.slow.note("/etcdserverpb.KV/Range", remote, began, || {
            let said = answer.as_ref().ok().map(|answer| (answer.reply.count, answer.len()));
            Stats::of_range(&request, said)
        });
        answer
    }

    async fn read(
        &self,
        request: &pb::RangeRequest,
        caller: Caller,
        steps: &mut Steps,
    ) -> Result<SplicedRange, Status> {
        let caller = caller.within("range", || about::range(request));
        if !request.serializable {
            self.handle.linearize().await?;
            steps.step(AGREED);
        }
        let who = self.handle.enter(&caller, request).await?;
        let authorized =
            self.handle.authorize(&who, request).map_err(|refusal| refused(&refusal))?;
        steps.step(AUTHORIZED);
        // A large reply waits for room first and is read then: that is as fresh, and holds nothing
        // while it waits.
        let charge = self.room(|| self.budget.estimate(&self.handle, request)).await?;
        let metrics = self.handle.metrics();
        let began = Instant::now();
        let reply: Result<RangeReply, _> = self.handle.reads().range(authorized);
        steps.step("range keys from bolt db");
        metrics.store.on_range();
        metrics.server.on_range(reply.is_ok(), began.elapsed());
        let reply = reply.map_err(|refusal| refused(&refusal))?;
        self.handle.check_still(&who, request).map_err(|refusal| refused(&refusal))?;
        let held = held_bytes(&reply.rows);
        self.budget.learn(reply.rows.len(), held);
        let charge = self.budget.settle(charge, held).map(Arc::new);
        Ok(SplicedRange { header: Some(self.handle.header(reply.revision)), reply, charge })
    }

    /// KV-12.
    pub(crate) fn range_stream<B>(self: &Arc<Self>, request: http::Request<B>) -> ReplyFuture
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let kv = Arc::clone(self);
        let max = message_bytes_max(&self.handle);
        Box::pin(async move {
            let service = tower::service_fn(move |request: Request<pb::RangeRequest>| {
                let kv = Arc::clone(&kv);
                async move {
                    let caller = super::caller(&request);
                    let request = request.into_inner();
                    range_stream::check(&request)?;
                    let caller = caller.within("range_streaming", || about::stream(&request));
                    if !request.serializable {
                        kv.handle.linearize().await?;
                    }
                    let who = kv.handle.enter(&caller, &request).await?;
                    let chunks = range_stream::chunks(Arc::clone(&kv), request, who);
                    // Its span is that of the whole stream.
                    let chunks = chunks.inspect(move |_| _ = &caller);
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
        caller: Caller,
    ) -> Result<Plain<pb::PutResponse>, Status> {
        let mut steps = Steps::begin();
        let began = steps.began();
        let answer = self.propose_put(&request, caller).await;
        if let Ok(answer) = &answer {
            steps.step(PROPOSED);
            steps.note("put", || {
                vec![
                    field("key", String::from_utf8_lossy(&request.key)),
                    field("req_size", request.encoded_len()),
                    field("response_revision", revision(answer.header.as_ref())),
                ]
            });
        }
        self.slow.note("/etcdserverpb.KV/Put", remote, began, || {
            Stats::of_put(&request, answer.as_ref().ok())
        });
        answer.map(Plain::new)
    }

    async fn propose_put(
        &self,
        request: &pb::PutRequest,
        caller: Caller,
    ) -> Result<pb::PutResponse, Status> {
        state::check_put(request).map_err(|refusal| refused(&refusal))?;
        let cost_bytes = state::quota::put_cost_bytes(request);
        self.load.room().await?;
        self.handle.admit_for(&caller, request, cost_bytes).await?;
        let caller = caller.within("put", || about::put(request));
        let reply = self.handle.propose_for(&caller, RequestKind::Put, request).await?;
        let Reply::Put(mut response) = reply else {
            unreachable!("a put was answered by {reply:?}")
        };
        self.fill(&mut response.header);
        Ok(response)
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
        remote: Remote,
        caller: Caller,
    ) -> Result<Plain<pb::DeleteRangeResponse>, Status> {
        let began = Instant::now();
        let answer = self.propose_delete(&request, caller).await;
        self.slow.note("/etcdserverpb.KV/DeleteRange", remote, began, || {
            Stats::of_delete(&request, answer.as_ref().ok())
        });
        answer.map(Plain::new)
    }

    async fn propose_delete(
        &self,
        request: &pb::DeleteRangeRequest,
        caller: Caller,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        state::check_delete(request).map_err(|refusal| refused(&refusal))?;
        self.load.room().await?;
        let caller = caller.within("delete_range", || about::delete(request));
        let reply = self.handle.propose_for(&caller, RequestKind::DeleteRange, request).await?;
        let Reply::Delete(mut response) = reply else {
            unreachable!("a deletion was answered by {reply:?}")
        };
        self.fill(&mut response.header);
        Ok(response)
    }

    async fn txn(
        &self,
        request: pb::TxnRequest,
        remote: Remote,
        caller: Caller,
    ) -> Result<Plain<pb::TxnResponse>, Status> {
        let mut steps = Steps::begin();
        let began = steps.began();
        let ops_max = self.handle.limits().txn_ops_max;
        state::check_txn(&request, ops_max).map_err(|refusal| refused(&refusal))?;
        let read_only = state::check::is_read_only(&request);
        let answer = if read_only {
            let answer = self.read_txn(&request, caller, &mut steps).await;
            let server = &self.handle.metrics().server;
            server.on_answered(Operation::ReadonlyTxn, answer.is_ok(), began.elapsed());
            if self.slow.note_read_txn(began, &request, &answer) {
                server.on_slow_read();
            }
            answer
        } else {
            let answer = self.propose_txn(&request, caller).await;
            steps.step(PROPOSED);
            answer
        };
        steps.note("transaction", || {
            let mut fields = vec![field("read_only", read_only)];
            if let Ok(answer) = &answer {
                let answer = answer.message();
                fields.push(field("number_of_response", answer.responses.len()));
                fields.push(field("response_revision", revision(answer.header.as_ref())));
            }
            fields
        });
        self.slow.note("/etcdserverpb.KV/Txn", remote, began, || {
            Stats::of_txn(&request, answer.as_ref().ok().map(Plain::message))
        });
        answer
    }

    /// KV-28.
    async fn read_txn(
        &self,
        request: &pb::TxnRequest,
        caller: Caller,
        steps: &mut Steps,
    ) -> Result<Plain<pb::TxnResponse>, Status> {
        let caller = caller.within("txn", || about::txn(request));
        if !state::check::is_serializable(request) {
            self.handle.linearize().await?;
            steps.step(AGREED);
        }
        let who = self.handle.enter(&caller, request).await?;
        let authorized =
            self.handle.authorize(&who, request).map_err(|refusal| refused(&refusal))?;
        steps.step(AUTHORIZED);
        let charge = self.room(|| self.estimate(request)).await?;
        let (txn_steps, answer) = self.handle.reads().counted_txn(authorized);
        self.handle.metrics().store.on_read_txn(txn_steps);
        let mut response = answer.map_err(|refusal| refused(&refusal))?;
        self.handle.check_still(&who, request).map_err(|refusal| refused(&refusal))?;
        self.fill(&mut response.header);
        let charge = self.budget.settle(charge, response.encoded_len());
        Ok(Plain::charged(response, charge))
    }

    /// About how many bytes the reply to a txn will hold; 0 for few.
    fn estimate(&self, request: &pb::TxnRequest) -> usize {
        let operations = request.success.iter().chain(&request.failure);
        let estimates = operations.map(|operation| match &operation.request {
            Some(Op::RequestRange(range)) => self.budget.estimate(&self.handle, range),
            Some(_) | None => 0,
        });
        estimates.fold(0, usize::saturating_add)
    }

    async fn propose_txn(
        &self,
        request: &pb::TxnRequest,
        caller: Caller,
    ) -> Result<Plain<pb::TxnResponse>, Status> {
        let cost_bytes = state::quota::txn_cost_bytes(request);
        self.load.room().await?;
        self.handle.admit_for(&caller, request, cost_bytes).await?;
        let caller = caller.within("txn", || about::txn(request));
        let reply = self.handle.propose_for(&caller, RequestKind::Txn, request).await?;
        let Reply::Txn(mut response) = reply else {
            unreachable!("a txn was answered by {reply:?}")
        };
        self.fill(&mut response.header);
        let charge = self.budget.settle(None, response.encoded_len());
        Ok(Plain::charged(response, charge))
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
        caller: Caller,
    ) -> Result<Plain<pb::CompactionResponse>, Status> {
        let caller = caller.within("compact", || about::compaction(&request));
        let mut steps = Steps::begin();
        let reply = self.handle.propose_for(&caller, RequestKind::Compaction, &request).await?;
        let Reply::Compact(mut response) = reply else {
            unreachable!("a compaction was answered by {reply:?}")
        };
        steps.step(PROPOSED);
        if request.physical {
            self.handle.compacted(request.revision).await?;
            // As etcd: a crash after the answer does not bring the rows back.
            let backend = self.handle.backend().clone();
            match tokio::task::spawn_blocking(move || backend.commit()).await {
                // On a full disk a compaction is the way out: a later commit takes its changes.
                Ok(Ok(_) | Err(CommitError::NoSpace(_))) => {}
                Ok(Err(error)) => return Err(status::backend(&error)),
                Err(_) => return Err(ProposeError::Stopped.into()),
            }
            steps.step("physically toApply compaction");
        }
        self.fill(&mut response.header);
        steps.note("compact", || {
            vec![
                field("revision", request.revision),
                field("response_revision", revision(response.header.as_ref())),
            ]
        });
        Ok(Plain::new(response))
    }

    /// Adds what only the answering member knows.
    fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.handle.header(revision));
    }
}

/// The steps of requests, in etcd's words.
const AGREED: &str = "agreement among raft nodes before linearized reading";
const AUTHORIZED: &str = "get authentication metadata";
const PROPOSED: &str = "process raft request";

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Runs one unary method on the message of a call.
fn unary<B, M, R, Fut>(
    messages: Messages<B>,
    method: impl FnOnce(M) -> Fut + Send + 'static,
) -> UnaryReply
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    M: Message + Default + 'static,
    R: WriteWire,
    Fut: Future<Output = Result<R, Status>> + Send,
{
    Box::pin(async move {
        let message = messages.only().await?;
        Framed::new(method(decode(message)?).await?)
    })
}
