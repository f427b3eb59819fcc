//! Short ways to make users, roles and requests about them.

use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;
use state::Identity;

use super::{Machine, internal};

/// An internal request with one field.
macro_rules! change {
    ($field:ident: $request:expr) => {
        pb::InternalRaftRequest { $field: Some($request), ..Default::default() }
    };
}
#[allow(unused_imports, reason = "every test uses a part of it")]
pub(crate) use change;

pub(crate) fn enable() -> pb::InternalRaftRequest {
    change!(auth_enable: pb::AuthEnableRequest {})
}

pub(crate) fn disable() -> pb::InternalRaftRequest {
    change!(auth_disable: pb::AuthDisableRequest {})
}

/// A user whose password has the hash `hash`.
pub(crate) fn user(name: &str) -> pb::InternalRaftRequest {
    change!(auth_user_add: pb::AuthUserAddRequest {
        name: name.into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    })
}

pub(crate) fn grant_role(user: &str, role: &str) -> pb::InternalRaftRequest {
    let (user, role) = (user.into(), role.into());
    change!(auth_user_grant_role: pb::AuthUserGrantRoleRequest { user, role })
}

pub(crate) fn permission(
    role: &str,
    kind: Type,
    key: &str,
    range_end: &str,
) -> pb::InternalRaftRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    let perm = Some(Permission { perm_type: kind.into(), key, range_end });
    change!(auth_role_grant_permission:
        pb::AuthRoleGrantPermissionRequest { name: role.into(), perm })
}

/// A machine with auth on.
pub(crate) struct Auth {
    revision: u64,
}

/// A user and the permissions of its one role.
pub(crate) type Grants<'a> = (&'a str, &'a [(Type, &'a str, &'a str)]);

impl Auth {
    /// Makes root and these users, each with a role of its own, and switches auth on.
    pub(crate) fn on(mut machine: Machine, users: &[Grants<'_>]) -> (Machine, Self) {
        let mut requests = vec![user("root"), grant_role("root", "root")];
        requests.push(change!(auth_role_add: pb::AuthRoleAddRequest { name: "root".into() }));
        for (name, permissions) in users {
            let role = format!("role-of-{name}");
            requests.push(user(name));
            requests.push(change!(auth_role_add: pb::AuthRoleAddRequest { name: role.clone() }));
            requests.push(grant_role(name, &role));
            for (kind, key, end) in *permissions {
                requests.push(permission(&role, *kind, key, end));
            }
        }
        requests.push(enable());
        for request in requests {
            machine.done(internal(request));
        }
        let revision = machine.reads().auth().revision();
        (machine, Self { revision })
    }

    pub(crate) fn user(&self, name: &str) -> Identity {
        Identity { user: name.into(), revision: self.revision }
    }

    pub(crate) fn root(&self) -> Identity {
        self.user("root")
    }
}
