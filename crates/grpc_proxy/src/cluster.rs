//! The Cluster service: clients are shown proxies as if they were members, so that they stay with
//! them.
//!
//! Source: etcd server/proxy/grpcproxy/cluster.go.

mod register;

use std::sync::Arc;

use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::cluster_server::Cluster;
use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::caller::Caller;
use crate::upstream::{Policy, Upstream};

pub(crate) use register::{Proxies, register};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ClusterProxy {
    upstream: Upstream,
    /// Empty if clients are to see the members.
    advertised: String,
    /// Who else is registered.
    proxies: Option<Arc<Proxies>>,
}

impl ClusterProxy {
    pub(crate) fn new(
        upstream: Upstream,
        advertised: String,
        proxies: Option<Arc<Proxies>>,
    ) -> Self {
        Self { upstream, advertised, proxies }
    }

    fn stub(&self, channel: Channel) -> ClusterClient<Channel> {
        ClusterClient::new(channel).max_decoding_message_size(self.upstream.response_bytes_max())
    }
}

#[tonic::async_trait]
impl Cluster for ClusterProxy {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let add = self.upstream.unary(
            &caller,
            Policy::Write,
            request.into_inner(),
            async |channel, request| self.stub(channel).member_add(request).await,
        );
        add.await.map(Response::new)
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let remove = self.upstream.unary(
            &caller,
            Policy::Write,
            request.into_inner(),
            async |channel, request| self.stub(channel).member_remove(request).await,
        );
        remove.await.map(Response::new)
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let update = self.upstream.unary(
            &caller,
            Policy::Write,
            request.into_inner(),
            async |channel, request| self.stub(channel).member_update(request).await,
        );
        update.await.map(Response::new)
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if self.advertised.is_empty() {
            let caller = Caller::of(request.metadata());
            let list = self.upstream.unary(
                &caller,
                Policy::Read,
                request.into_inner(),
                async |channel, request| self.stub(channel).member_list(request).await,
            );
            return list.await.map(Response::new);
        }
        let known = self.proxies.as_ref().map(|proxies| proxies.list()).unwrap_or_default();
        let mut members: Vec<_> =
            known.into_iter().map(|(name, address)| member(name, address)).collect();
        if members.is_empty() {
            members.push(member(register::host_name(), self.advertised.clone()));
        }
        Ok(Response::new(MemberListResponse { header: None, members }))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        // As etcd's: the code is "unknown".
        Err(Status::unknown("not implemented"))
    }
}

fn member(name: String, address: String) -> Member {
    Member { name, client_ur_ls: vec![address], ..Member::default() }
}
