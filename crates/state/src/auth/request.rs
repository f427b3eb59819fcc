//! What an entry asks of users and roles.

use proto::etcdserverpb::{self as pb, InternalRaftRequest};

use super::gate::{Guard, Guarded};

/// One request about users, roles or auth itself.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Read(Question),
    Change(Change),
}

/// A request that changes nothing that is stored.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Status(pb::AuthStatusRequest),
    Authenticate(pb::InternalAuthenticateRequest),
    UserGet(pb::AuthUserGetRequest),
    UserList(pb::AuthUserListRequest),
    RoleGet(pb::AuthRoleGetRequest),
    RoleList(pb::AuthRoleListRequest),
}

/// A request that changes something.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Enable(pb::AuthEnableRequest),
    Disable(pb::AuthDisableRequest),
    UserAdd(pb::AuthUserAddRequest),
    UserDelete(pb::AuthUserDeleteRequest),
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    RoleAdd(pb::AuthRoleAddRequest),
    RoleDelete(pb::AuthRoleDeleteRequest),
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
}

impl Request {
    /// The request in a payload; `None` if there is none. No etcd writes several into one.
    pub(crate) fn of(request: InternalRaftRequest) -> Option<Self> {
        let changes = [
            request.auth_enable.map(Change::Enable),
            request.auth_disable.map(Change::Disable),
            request.auth_user_add.map(Change::UserAdd),
            request.auth_user_delete.map(Change::UserDelete),
            request.auth_user_change_password.map(Change::UserChangePassword),
            request.auth_user_grant_role.map(Change::UserGrantRole),
            request.auth_user_revoke_role.map(Change::UserRevokeRole),
            request.auth_role_add.map(Change::RoleAdd),
            request.auth_role_delete.map(Change::RoleDelete),
            request.auth_role_grant_permission.map(Change::RoleGrantPermission),
            request.auth_role_revoke_permission.map(Change::RoleRevokePermission),
        ];
        let questions = [
            request.authenticate.map(Question::Authenticate),
            request.auth_status.map(Question::Status),
            request.auth_user_get.map(Question::UserGet),
            request.auth_role_get.map(Question::RoleGet),
            request.auth_user_list.map(Question::UserList),
            request.auth_role_list.map(Question::RoleList),
        ];
        let change = changes.into_iter().flatten().next().map(Self::Change);
        change.or_else(|| questions.into_iter().flatten().next().map(Self::Read))
    }
}

impl Request {
    /// Whether only administrators may ask, whatever it names.
    pub(crate) fn is_for_administrators(&self) -> bool {
        match self {
            Self::Change(_) | Self::Read(Question::UserList(_) | Question::RoleList(_)) => true,
            Self::Read(
                Question::Status(_)
                | Question::Authenticate(_)
                | Question::UserGet(_)
                | Question::RoleGet(_),
            ) => false,
        }
    }
}

impl Guarded for Request {
    fn guard(&self) -> Guard<'_> {
        match self {
            Self::Read(question) => question.guard(),
            Self::Change(change) => change.guard(),
        }
    }
}

impl Guarded for Question {
    fn guard(&self) -> Guard<'_> {
        match self {
            Self::Status(request) => request.guard(),
            Self::Authenticate(request) => request.guard(),
            Self::UserGet(request) => request.guard(),
            Self::UserList(request) => request.guard(),
            Self::RoleGet(request) => request.guard(),
            Self::RoleList(request) => request.guard(),
        }
    }
}

impl Guarded for Change {
    fn guard(&self) -> Guard<'_> {
        match self {
            Self::Enable(request) => request.guard(),
            Self::Disable(request) => request.guard(),
            Self::UserAdd(request) => request.guard(),
            Self::UserDelete(request) => request.guard(),
            Self::UserChangePassword(request) => request.guard(),
            Self::UserGrantRole(request) => request.guard(),
            Self::UserRevokeRole(request) => request.guard(),
            Self::RoleAdd(request) => request.guard(),
            Self::RoleDelete(request) => request.guard(),
            Self::RoleGrantPermission(request) => request.guard(),
            Self::RoleRevokePermission(request) => request.guard(),
        }
    }
}
