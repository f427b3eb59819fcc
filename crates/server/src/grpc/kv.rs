//! The KV service: requests are checked once, here, and become proposals or reads.
//!
//! This is the hot path: no task, no lock of our own, no copy of a key or a value.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use prost::Message;
use proto::etcdserverpb as pb;
use state::{RangeReply, Reply};
use tonic::server::Grpc;
use tonic::{Request, Response, Status};

use super::codec::{DirectCodec, Plain, SplicedRange, WriteWire};
use super::status::refused;
use crate::handle::{Handle, RequestKind};

/// What a service answers with.
pub(crate) type HttpReply = http::Response<tonic::body::Body>;

/// A reply under way.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Result<HttpReply, Infallible>> + Send>>;

/// The service; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Kv {
    handle: Handle,
}

impl Kv {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Answers a call of `/etcdserverpb.KV/<method>`.
    pub(crate) fn call<B>(&self, method: &str, request: http::Request<B>) -> Option<ReplyFuture>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let kv = self.clone();
        Some(match method {
            "Range" => unary(request, async move |message| kv.range(message).await),
            "Put" => unary(request, async move |message| kv.put(message).await.map(Plain)),
            "DeleteRange" => {
                unary(request, async move |message| kv.delete_range(message).await.map(Plain))
            }
            "Txn" => unary(request, async move |message| kv.txn(message).await.map(Plain)),
            "Compact" => unary(request, async move |message| kv.compact(message).await.map(Plain)),
            _ => return None,
        })
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<SplicedRange, Status> {
        state::check_range(&request).map_err(|refusal| refused(&refusal))?;
        if !request.serializable {
            self.handle.linearize().await?;
        }
        let reply: RangeReply =
            self.handle.reads().range(&request).map_err(|refusal| refused(&refusal))?;
        Ok(SplicedRange { header: Some(self.handle.header(reply.revision)), reply })
    }

    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        state::check_put(&request).map_err(|refusal| refused(&refusal))?;
        self.handle.check_room()?;
        match self.handle.propose(RequestKind::Put, &request).await? {
            Reply::Put(mut response) => {
                self.fill(&mut response.header);
                Ok(response)
            }
            reply => unreachable!("a put was answered by {reply:?}"),
        }
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        state::check_delete(&request).map_err(|refusal| refused(&refusal))?;
        match self.handle.propose(RequestKind::DeleteRange, &request).await? {
            Reply::Delete(mut response) => {
                self.fill(&mut response.header);
                Ok(response)
            }
            reply => unreachable!("a deletion was answered by {reply:?}"),
        }
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let ops_max = self.handle.limits().txn_ops_max;
        state::check_txn(&request, ops_max).map_err(|refusal| refused(&refusal))?;
        let mut response = if state::check::is_read_only(&request) {
            if !state::check::is_serializable(&request) {
                self.handle.linearize().await?;
            }
            self.handle.reads().txn(&request).map_err(|refusal| refused(&refusal))?
        } else {
            if state::quota::txn_cost_bytes(&request) > 0 {
                self.handle.check_room()?;
            }
            match self.handle.propose(RequestKind::Txn, &request).await? {
                Reply::Txn(response) => response,
                reply => unreachable!("a txn was answered by {reply:?}"),
            }
        };
        self.fill(&mut response.header);
        Ok(response)
    }

    async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Status> {
        let mut response = match self.handle.propose(RequestKind::Compaction, &request).await? {
            Reply::Compact(response) => response,
            reply => unreachable!("a compaction was answered by {reply:?}"),
        };
        if request.physical {
            self.handle.compacted(request.revision).await?;
        }
        self.fill(&mut response.header);
        Ok(response)
    }

    /// Adds what only the answering member knows.
    fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.handle.header(revision));
    }
}

/// Runs one unary method over an HTTP request.
pub(crate) fn unary<B, M, R, F, Fut>(request: http::Request<B>, method: F) -> ReplyFuture
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
            async move { method(request.into_inner()).await.map(Response::new) }
        });
        let mut grpc = Grpc::new(DirectCodec::<R, M>::default());
        Ok(grpc.unary(service, request).await)
    })
}
