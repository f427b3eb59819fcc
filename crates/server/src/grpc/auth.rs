//! The Auth service. Users and roles are not built yet: what can be said without them is said, and
//! everything else is refused instead of being accepted without effect.

use std::future::Future;
use std::pin::Pin;

use proto::etcdserverpb::auth_server::Auth as Service;
use proto::etcdserverpb::{self as pb};
use tonic::{Request, Response, Status};

use super::status;
use crate::handle::Handle;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Auth {
    handle: Handle,
}

impl Auth {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

/// An answer under way, as `async_trait` writes it.
type Answering<'f, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'f>>;

/// Methods that answer "not built". The signatures are spelled out because `async_trait` does not
/// look into macros.
macro_rules! refuse {
    ($($method:ident: $request:ident => $response:ident;)*) => {$(
        fn $method<'s, 'f>(
            &'s self,
            _request: Request<pb::$request>,
        ) -> Answering<'f, pb::$response>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(std::future::ready(Err(status::auth_not_built())))
        }
    )*};
}

#[tonic::async_trait]
impl Service for Auth {
    ///
    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let reads = self.handle.reads();
        Ok(Response::new(pb::AuthStatusResponse {
            header: Some(self.handle.header(reads.keys().revision())),
            enabled: reads.auth_enabled(),
            auth_revision: reads.auth_revision(),
        }))
    }

    ///
    async fn authenticate(
        &self,
        _request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(status::auth_not_enabled())
    }

    refuse! {
        auth_enable: AuthEnableRequest => AuthEnableResponse;
        auth_disable: AuthDisableRequest => AuthDisableResponse;
        user_add: AuthUserAddRequest => AuthUserAddResponse;
        user_get: AuthUserGetRequest => AuthUserGetResponse;
        user_list: AuthUserListRequest => AuthUserListResponse;
        user_delete: AuthUserDeleteRequest => AuthUserDeleteResponse;
        user_change_password: AuthUserChangePasswordRequest => AuthUserChangePasswordResponse;
        user_grant_role: AuthUserGrantRoleRequest => AuthUserGrantRoleResponse;
        user_revoke_role: AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse;
        role_add: AuthRoleAddRequest => AuthRoleAddResponse;
        role_get: AuthRoleGetRequest => AuthRoleGetResponse;
        role_list: AuthRoleListRequest => AuthRoleListResponse;
        role_delete: AuthRoleDeleteRequest => AuthRoleDeleteResponse;
        role_grant_permission:
            AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse;
        role_revoke_permission:
            AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse;
    }
}
