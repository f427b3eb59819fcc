//! Log lines of changes to users and roles, in etcd's words, so that whoever reads logs for that
//! finds them. The member that was asked writes them, and not every one that applies the change.
//! Source: etcd server/auth/store.go (texts and fields).

use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;

/// A request whose success the log may tell of.
pub(super) trait Told {
    /// Says that it was done; nothing for a question.
    fn tell(&self) {}
}

impl Told for pb::AuthStatusRequest {}
impl Told for pb::AuthUserGetRequest {}
impl Told for pb::AuthUserListRequest {}
impl Told for pb::AuthRoleGetRequest {}
impl Told for pb::AuthRoleListRequest {}

impl Told for pb::AuthEnableRequest {
    fn tell(&self) {
        tracing::info!("enabled authentication");
    }
}

impl Told for pb::AuthDisableRequest {
    fn tell(&self) {
        tracing::info!("disabled authentication");
    }
}

impl Told for pb::AuthUserAddRequest {
    fn tell(&self) {
        tracing::info!("user-name" = self.name, "added a user");
    }
}

impl Told for pb::AuthUserDeleteRequest {
    fn tell(&self) {
        tracing::info!("user-name" = self.name, "deleted a user");
    }
}

impl Told for pb::AuthUserChangePasswordRequest {
    fn tell(&self) {
        tracing::info!("user-name" = self.name, "changed a password of a user");
    }
}

impl Told for pb::AuthUserGrantRoleRequest {
    fn tell(&self) {
        tracing::info!(
            "user-name" = self.user,
            "added-role-name" = self.role,
            "granted a role to a user"
        );
    }
}

impl Told for pb::AuthUserRevokeRoleRequest {
    fn tell(&self) {
        tracing::info!(
            "user-name" = self.name,
            "revoked-role-name" = self.role,
            "revoked a role from a user"
        );
    }
}

impl Told for pb::AuthRoleAddRequest {
    fn tell(&self) {
        tracing::info!("role-name" = self.name, "created a role");
    }
}

impl Told for pb::AuthRoleDeleteRequest {
    fn tell(&self) {
        tracing::info!("role-name" = self.role, "deleted a role");
    }
}

impl Told for pb::AuthRoleGrantPermissionRequest {
    fn tell(&self) {
        let Some(granted) = &self.perm else { return };
        let kind = Type::try_from(granted.perm_type).unwrap_or_default();
        tracing::info!(
            // The role: etcd names the field so.
            "user-name" = self.name,
            "permission-name" = kind.as_str_name(),
            key = %String::from_utf8_lossy(&granted.key),
            "range-end" = %String::from_utf8_lossy(&granted.range_end),
            "granted/updated a permission to a user"
        );
    }
}

impl Told for pb::AuthRoleRevokePermissionRequest {
    fn tell(&self) {
        tracing::info!(
            "role-name" = self.role,
            key = %String::from_utf8_lossy(&self.key),
            "range-end" = %String::from_utf8_lossy(&self.range_end),
            "revoked a permission on range"
        );
    }
}
