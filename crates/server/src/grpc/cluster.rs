//! The Cluster service: who is a member, and changing that.

use proto::etcdserverpb::cluster_server::Cluster as Service;
use proto::etcdserverpb::{self as pb};
use tonic::{Request, Response, Status};

use super::{caller, status};
use crate::config::MemberUrl;
use crate::handle::Handle;
use crate::peers::membership;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    handle: Handle,
}

impl Cluster {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// G-002: no revision in the header of this service.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.handle.header(0))
    }
}

/// The URLs of a new member, sorted as ids are made of them.
fn member_urls(texts: &[String]) -> Result<Vec<String>, Status> {
    let urls: Result<Vec<MemberUrl>, _> = texts.iter().map(|text| MemberUrl::parse(text)).collect();
    let mut urls = urls.map_err(|_| status::bad_member_urls())?;
    if urls.is_empty() {
        return Err(status::bad_member_urls());
    }
    urls.sort();
    Ok(urls.iter().map(ToString::to_string).collect())
}

#[tonic::async_trait]
impl Service for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.handle.linearize().await?;
        }
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let members = self.handle.reads().members();
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members }))
    }

    /// C-01, C-02.
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let urls = member_urls(&request.get_ref().peer_ur_ls)?;
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let request = request.into_inner();
        let (member, members) = membership::add(&self.handle, urls, request.is_learner).await?;
        let header = self.header();
        Ok(Response::new(pb::MemberAddResponse { header, member: Some(member), members }))
    }

    /// C-03.
    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let id = base::MemberId(request.into_inner().id);
        let members = membership::remove(&self.handle, id).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members }))
    }

    /// C-04. etcd's server does not look at the URLs here, only its clients do.
    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let members = membership::update(&self.handle, base::MemberId(id), peer_ur_ls).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members }))
    }

    /// C-07.
    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let caller = caller(&request);
        self.handle.enter(&caller, request.get_ref()).await?;
        let id = base::MemberId(request.into_inner().id);
        let members = membership::promote(&self.handle, &caller, id).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}
