//! Calls about users, roles and permissions.
//!
//! etcd: `client/v3/auth.go`.

use proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
};

use crate::call::{Policy, calls};

calls! { auth_stub;
    /// Switches auth on.
    Once auth_enable(AuthEnableRequest) -> AuthEnableResponse = auth_enable;
    /// Switches auth off.
    Once auth_disable(AuthDisableRequest) -> AuthDisableResponse = auth_disable;
    /// Tells whether auth is on.
    Repeatable auth_status(AuthStatusRequest) -> AuthStatusResponse = auth_status;
    /// Adds a user.
    Once user_add(AuthUserAddRequest) -> AuthUserAddResponse = user_add;
    /// Deletes a user.
    Once user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse = user_delete;
    /// Reads a user's roles.
    Repeatable user_get(AuthUserGetRequest) -> AuthUserGetResponse = user_get;
    /// Lists the users.
    Repeatable user_list(AuthUserListRequest) -> AuthUserListResponse = user_list;
    /// Changes a user's password.
    Once user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse
        = user_change_password;
    /// Gives a user a role.
    Once user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse = user_grant_role;
    /// Takes a role from a user.
    Once user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse
        = user_revoke_role;
    /// Adds a role.
    Once role_add(AuthRoleAddRequest) -> AuthRoleAddResponse = role_add;
    /// Deletes a role.
    Once role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse = role_delete;
    /// Reads a role's permissions.
    Repeatable role_get(AuthRoleGetRequest) -> AuthRoleGetResponse = role_get;
    /// Lists the roles.
    Repeatable role_list(AuthRoleListRequest) -> AuthRoleListResponse = role_list;
    /// Gives a role a permission.
    Once role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse
        = role_grant_permission;
    /// Takes a permission from a role.
    Once role_revoke_permission(AuthRoleRevokePermissionRequest)
        -> AuthRoleRevokePermissionResponse = role_revoke_permission;
}
