//! The KV service: reads that may be old are answered from memory, everything else by a member.
//!
//! What a caller was answered is never given to another one: the memory is one per token.
//!
//! Source: etcd server/proxy/grpcproxy/kv.go.

mod cache;
mod leasing;
mod namespace;
mod order;
mod store;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::kv_server::Kv;
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::response_op::Response as Outcome;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, ResponseOp,
    TxnRequest, TxnResponse,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::caller::Caller;
use crate::metrics::Metrics;

use cache::{Cache, Found, Started};

pub(crate) use leasing::Leasing;
pub(crate) use namespace::Namespace;
pub(crate) use order::Order;
pub(crate) use store::Store;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct KvProxy {
    store: Store,
    /// Instead of the store, for what can be owned.
    leasing: Option<Arc<Leasing>>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

impl KvProxy {
    pub(crate) fn new(store: Store, leasing: Option<Arc<Leasing>>, metrics: Arc<Metrics>) -> Self {
        Self { store, leasing, cache: Arc::new(Cache::new()), metrics }
    }

    /// Forgets all answers: who may see what is about to change, or has changed.
    pub(crate) fn forget_all(&self) {
        self.cache.forget_all();
        if let Some(leasing) = &self.leasing {
            leasing.forget_all();
        }
        self.note_size();
    }

    fn note_size(&self) {
        self.metrics.cache_keys.set(i64::try_from(self.cache.len()).unwrap_or(i64::MAX));
    }

    /// Forgets what a transaction may have changed, and keeps what it read.
    fn on_txn(
        &self,
        caller: &Caller,
        started: Started,
        requests: Vec<RequestOp>,
        responses: &[ResponseOp],
    ) {
        for (request, response) in requests.into_iter().zip(responses) {
            match (request.request, &response.response) {
                (Some(Operation::RequestPut(put)), _) => self.cache.invalidate(&put.key, b""),
                (Some(Operation::RequestDeleteRange(delete)), _) => {
                    self.cache.invalidate(&delete.key, &delete.range_end);
                }
                (Some(Operation::RequestRange(range)), Some(Outcome::ResponseRange(answer))) => {
                    // Its own header has no revision: it is that of the transaction.
                    if answer.header.is_some() {
                        self.cache.add(caller.identity.token(), started, range, answer);
                    }
                }
                (Some(Operation::RequestTxn(txn)), Some(Outcome::ResponseTxn(answer))) => {
                    self.on_branch(caller, started, txn, answer);
                }
                (Some(Operation::RequestRange(_) | Operation::RequestTxn(_)) | None, _) => {}
            }
        }
    }

    fn on_branch(
        &self,
        caller: &Caller,
        started: Started,
        request: TxnRequest,
        response: &TxnResponse,
    ) {
        let branch = if response.succeeded { request.success } else { request.failure };
        self.on_txn(caller, started, branch, &response.responses);
    }
}

/// Answers of a stream that is never one.
type NoStream = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for KvProxy {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let request = request.into_inner();
        if request.serializable {
            match self.cache.get(caller.identity.token(), &request) {
                Found::Answer(answer) if self.store.may_answer(&answer) => {
                    self.metrics.cache_hits.inc();
                    return Ok(Response::new(answer));
                }
                Found::Compacted => {
                    self.metrics.cache_hits.inc();
                    return Err(Status::out_of_range(COMPACTED));
                }
                Found::Answer(_) | Found::Nothing => self.metrics.cache_misses.inc(),
            }
        }
        let started = self.cache.start();
        let answer = match &self.leasing {
            Some(leasing) => leasing.range(&caller, request.clone()).await?,
            None => self.store.range(&caller, request.clone()).await?,
        };
        self.cache.add(caller.identity.token(), started, request, &answer);
        self.note_size();
        Ok(Response::new(answer))
    }

    type RangeStreamStream = NoStream;

    async fn range_stream(&self, _: Request<RangeRequest>) -> Result<Response<NoStream>, Status> {
        Err(Status::unimplemented("RangeStream is not supported by the gRPC proxy"))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let request = request.into_inner();
        let forget = Forget::now(self, [(request.key.clone(), Bytes::new())]);
        let answer = match &self.leasing {
            Some(leasing) => leasing.put(&caller, request).await,
            None => self.store.put(&caller, request).await,
        };
        drop(forget);
        answer.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let request = request.into_inner();
        let forget = Forget::now(self, [(request.key.clone(), request.range_end.clone())]);
        let answer = match &self.leasing {
            Some(leasing) => leasing.delete_range(&caller, request).await,
            None => self.store.delete_range(&caller, request).await,
        };
        drop(forget);
        answer.map(Response::new)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let request = request.into_inner();
        let mut written = Vec::new();
        writes(&request, &mut written);
        // What is compared may be known to be old now.
        let compared = request.compare.iter();
        let compared = compared.map(|compare| (compare.key.clone(), compare.range_end.clone()));
        let started = self.cache.start();
        let forget = Forget::now(self, compared.chain(written));
        let answer = match &self.leasing {
            Some(leasing) => leasing.txn(&caller, request.clone()).await,
            None => self.store.txn(&caller, request.clone()).await,
        };
        drop(forget);
        let answer = answer?;
        self.on_branch(&caller, started, request, &answer);
        self.note_size();
        Ok(Response::new(answer))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let request = request.into_inner();
        let revision = request.revision;
        let answer = self.store.compact(&caller, request).await?;
        self.cache.compact(revision);
        self.note_size();
        Ok(Response::new(answer))
    }
}

/// What a member says of a revision that is gone.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// The ranges that a transaction may write to, however deep.
fn writes(txn: &TxnRequest, ranges: &mut Vec<(Bytes, Bytes)>) {
    for operation in txn.success.iter().chain(&txn.failure) {
        match &operation.request {
            Some(Operation::RequestPut(put)) => ranges.push((put.key.clone(), Bytes::new())),
            Some(Operation::RequestDeleteRange(delete)) => {
                ranges.push((delete.key.clone(), delete.range_end.clone()));
            }
            Some(Operation::RequestTxn(inner)) => writes(inner, ranges),
            Some(Operation::RequestRange(_)) | None => {}
        }
    }
}

/// Forgets ranges when a write begins and when it is over, however it ends: what is read in between
/// may be from before it.
struct Forget<'a> {
    proxy: &'a KvProxy,
    ranges: Vec<(Bytes, Bytes)>,
}

impl<'a> Forget<'a> {
    fn now(proxy: &'a KvProxy, ranges: impl IntoIterator<Item = (Bytes, Bytes)>) -> Self {
        let forget = Self { proxy, ranges: ranges.into_iter().collect() };
        forget.all();
        forget
    }

    fn all(&self) {
        for (key, end) in &self.ranges {
            self.proxy.cache.invalidate(key, end);
        }
        self.proxy.note_size();
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.all();
    }
}
