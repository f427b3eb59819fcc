//! A member that answers from a list.

#![allow(clippy::unwrap_used, reason = "only tests use this")]

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use proto::etcdserverpb::kv_server::{Kv, KvServer};
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::watch_server::{Watch, WatchServer};
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
    WatchRequest, WatchResponse,
};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

/// What a watch stream sends before it ends as given.
pub(crate) type WatchAnswer = (Vec<WatchResponse>, End);

/// How a stream ends.
#[derive(Debug)]
pub(crate) enum End {
    /// Well.
    Closed,
    /// With an error.
    Failed(Status),
    /// Not by itself.
    Open,
}

/// What the member was asked and what it is going to answer.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Calls so far.
    pub(crate) puts: u32,
    pub(crate) gets: u32,
    /// Statuses for the next calls; after them every call succeeds.
    pub(crate) failures: VecDeque<Status>,
    /// Start revisions of the watches so far.
    pub(crate) watches: Vec<i64>,
    pub(crate) watch_answers: VecDeque<WatchAnswer>,
}

/// A member on a port of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) script: Arc<Mutex<Script>>,
}

impl Member {
    /// Starts to serve and returns where.
    pub(crate) fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = futures_util::stream::unfold(listener, async |listener| {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = tonic::transport::Server::builder()
            .add_service(KvServer::new(self.clone()))
            .add_service(WatchServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }

    fn next_failure(&self) -> Result<(), Status> {
        let failure = self.script.lock().unwrap().failures.pop_front();
        failure.map_or(Ok(()), Err)
    }
}

/// A wire to a member that can be cut.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    cut: tokio::sync::watch::Sender<u32>,
}

impl Wire {
    pub(crate) async fn to(member: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(member).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// Breaks every connection that is open now.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

#[tonic::async_trait]
impl Kv for Member {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.script.lock().unwrap().gets += 1;
        self.next_failure()?;
        Ok(Response::new(RangeResponse::default()))
    }

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let piece = |key: &'static str, count| {
            let pair = proto::mvccpb::KeyValue { key: key.into(), ..Default::default() };
            let range = RangeResponse { kvs: vec![pair], count, ..RangeResponse::default() };
            Ok(RangeStreamResponse { range_response: Some(range) })
        };
        let pieces = [piece("a", 0), piece("b", 2)];
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.script.lock().unwrap().puts += 1;
        self.next_failure()?;
        Ok(Response::new(PutResponse::default()))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tonic::async_trait]
impl Watch for Member {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = request.into_inner().message().await?.unwrap();
        let Some(RequestUnion::CreateRequest(create)) = first.request_union else {
            return Err(Status::invalid_argument("the first request creates"));
        };
        let mut script = self.script.lock().unwrap();
        script.watches.push(create.start_revision);
        let Some((responses, end)) = script.watch_answers.pop_front() else {
            return Ok(Response::new(Box::pin(tokio_stream::pending())));
        };
        let responses: Vec<_> = responses.into_iter().map(Ok).collect();
        let responses = tokio_stream::iter(responses);
        Ok(Response::new(match end {
            End::Closed => Box::pin(responses),
            End::Failed(status) => Box::pin(responses.chain(tokio_stream::once(Err(status)))),
            End::Open => Box::pin(responses.chain(tokio_stream::pending())),
        }))
    }
}
