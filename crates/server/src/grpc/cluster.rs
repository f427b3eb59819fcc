//! The Cluster service: who is a member.

use proto::etcdserverpb::cluster_server::Cluster as Service;
use proto::etcdserverpb::{self as pb};
use tonic::{Request, Response, Status};

use crate::handle::Handle;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    handle: Handle,
}

impl Cluster {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

/// Changing the membership needs messages between members.
fn no_change() -> Status {
    Status::unimplemented("membership changes are not served by this release yet")
}

#[tonic::async_trait]
impl Service for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.handle.linearize().await?;
        }
        // G-002: no revision in the header of this service.
        let header = Some(self.handle.header(0));
        Ok(Response::new(pb::MemberListResponse { header, members: self.handle.reads().members() }))
    }

    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(no_change())
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(no_change())
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(no_change())
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(no_change())
    }
}
