//! The Lease service. Renewals of one lease that are under way at one time are one renewal.
//!
//! Source: etcd server/proxy/grpcproxy/lease.go. Different from it: a lease is renewed when a
//! client asks and not by the proxy's own clock, so that no answer promises more than is left.

mod renewals;

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::lease_server::Lease;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::caller::Caller;
use crate::kv::Namespace;
use crate::upstream::{Policy, Upstream};

use renewals::{ANSWER_TIME_MAX, Renewals, Renewer};

/// Renewals of one stream that are under way; who asks for more waits.
const UNDER_WAY_MAX: usize = 256;

/// Answers that wait for one client.
const QUEUE_LEN: usize = 16;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct LeaseProxy {
    upstream: Upstream,
    namespace: Namespace,
    renewals: Arc<Renewals>,
}

impl LeaseProxy {
    pub(crate) fn new(upstream: Upstream, namespace: Namespace) -> Self {
        let renewals = Renewals::new(upstream.clone(), ANSWER_TIME_MAX);
        Self { upstream, namespace, renewals }
    }

    fn stub(&self, channel: Channel) -> LeaseClient<Channel> {
        LeaseClient::new(channel).max_decoding_message_size(self.upstream.response_bytes_max())
    }
}

#[tonic::async_trait]
impl Lease for LeaseProxy {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let grant = self.upstream.unary(
            &caller,
            Policy::WriteWhenReady,
            request.into_inner(),
            async |channel, request| self.stub(channel).lease_grant(request).await,
        );
        grant.await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let revoke = self.upstream.unary(
            &caller,
            Policy::Write,
            request.into_inner(),
            async |channel, request| self.stub(channel).lease_revoke(request).await,
        );
        revoke.await.map(Response::new)
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let read = self.upstream.unary(
            &caller,
            Policy::Read,
            request.into_inner(),
            async |channel, request| self.stub(channel).lease_time_to_live(request).await,
        );
        let mut answer = read.await?;
        let keys = std::mem::take(&mut answer.keys);
        answer.keys = keys.iter().filter_map(|key| self.namespace.leave_key(key)).collect();
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let read = self.upstream.unary(
            &caller,
            Policy::Read,
            request.into_inner(),
            async |channel, request| self.stub(channel).lease_leases(request).await,
        );
        read.await.map(Response::new)
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let caller = Caller::of(request.metadata());
        let renewer = self.renewals.renewer(caller.identity);
        let (queue, answers) = mpsc::channel(QUEUE_LEN);
        tokio::spawn(async move {
            tokio::select! {
                () = queue.closed() => {}
                () = keep_alive(renewer, request.into_inner(), &queue) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Answers one stream of a client, each request once.
async fn keep_alive(
    renewer: Arc<Renewer>,
    mut requests: Streaming<LeaseKeepAliveRequest>,
    queue: &mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
) {
    let mut under_way = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        tokio::select! {
            request = requests.message(), if is_open && under_way.len() < UNDER_WAY_MAX => {
                match request {
                    Ok(Some(LeaseKeepAliveRequest { id })) => under_way.push(renewer.renew(id)),
                    Ok(None) => is_open = false,
                    Err(_) => return,
                }
            }
            Some(answer) = under_way.next() => {
                let is_end = answer.is_err();
                if queue.send(answer).await.is_err() || is_end {
                    return;
                }
            }
        }
    }
}
