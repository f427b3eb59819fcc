//! The Auth service: every request but a login's goes through the log, where each member judges
//! whether its caller may.

use proto::etcdserverpb::auth_server::Auth as Service;
use proto::etcdserverpb::{self as pb};
use state::AuthReply;
use tonic::{Request, Response, Status};

use super::auth_log::Told;
use super::caller;
use crate::handle::{Handle, Proposed, RequestKind};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Auth {
    handle: Handle,
}

impl Auth {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn manage<R>(
        &self,
        kind: RequestKind,
        request: Request<R>,
    ) -> Result<(Option<pb::ResponseHeader>, AuthReply), Status>
    where
        R: prost::Message + state::auth::gate::Guarded + Told,
    {
        let caller = caller(&request);
        let (header, reply) = self.handle.manage(&caller, kind, request.get_ref()).await?;
        request.get_ref().tell();
        Ok((Some(header), reply))
    }

    async fn names<R>(
        &self,
        kind: RequestKind,
        request: Request<R>,
    ) -> Result<(Option<pb::ResponseHeader>, Vec<String>), Status>
    where
        R: prost::Message + state::auth::gate::Guarded + Told,
    {
        let (header, reply) = self.manage(kind, request).await?;
        let AuthReply::Names(names) = reply else {
            unreachable!("a question for names was answered by {reply:?}")
        };
        Ok((header, names))
    }
}

#[tonic::async_trait]
impl Service for Auth {
    ///
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthEnable, request).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    ///
    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthDisable, request).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    ///
    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (header, reply) = self.manage(RequestKind::AuthStatus, request).await?;
        let AuthReply::Status { enabled, revision: auth_revision } = reply else {
            unreachable!("a question for the status was answered by {reply:?}")
        };
        Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    ///
    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let caller = caller(&request);
        let (header, token) = self.handle.log_in(request.into_inner(), caller.trace()).await?;
        Ok(Response::new(pb::AuthenticateResponse { header: Some(header), token }))
    }

    /// An empty password is hashed as any other.
    async fn user_add(
        &self,
        mut request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let has_password = !request.get_ref().options.is_some_and(|options| options.no_password);
        if has_password {
            let password = std::mem::take(&mut request.get_mut().password);
            let caller = caller(&request);
            let proposed = self.handle.prepare_password(&caller, request.get_ref(), password);
            let Proposed { password, hash } = proposed.await?;
            request.get_mut().password = password;
            request.get_mut().hashed_password = hash;
        }
        let (header, _) = self.manage(RequestKind::AuthUserAdd, request).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    ///
    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (header, roles) = self.names(RequestKind::AuthUserGet, request).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    ///
    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (header, users) = self.names(RequestKind::AuthUserList, request).await?;
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    ///
    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthUserDelete, request).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    ///
    async fn user_change_password(
        &self,
        mut request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let password = std::mem::take(&mut request.get_mut().password);
        if !password.is_empty() {
            let caller = caller(&request);
            let proposed = self.handle.prepare_password(&caller, request.get_ref(), password);
            let Proposed { password, hash } = proposed.await?;
            request.get_mut().password = password;
            request.get_mut().hashed_password = hash;
        }
        let (header, _) = self.manage(RequestKind::AuthUserChangePassword, request).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    ///
    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthUserGrantRole, request).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    ///
    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthUserRevokeRole, request).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    ///
    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthRoleAdd, request).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    ///
    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (header, reply) = self.manage(RequestKind::AuthRoleGet, request).await?;
        let AuthReply::Permissions(perm) = reply else {
            unreachable!("a question for a role was answered by {reply:?}")
        };
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    ///
    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (header, roles) = self.names(RequestKind::AuthRoleList, request).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    ///
    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthRoleDelete, request).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    ///
    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthRoleGrantPermission, request).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    ///
    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let (header, _) = self.manage(RequestKind::AuthRoleRevokePermission, request).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
