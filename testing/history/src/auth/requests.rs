//! What requests about users and roles do.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proto::authpb::permission::Type;
use proto::authpb::{Permission, Role, User, UserAddOptions};
use proto::etcdserverpb as pb;

use super::{Auth, AuthSaid, Denied, ROOT, end_of, text};

impl Auth {
    /// Does what a request asks for, if whoever asks may.
    pub(super) fn done(
        &mut self,
        request: &pb::InternalRaftRequest,
        named_by: u64,
    ) -> Result<AuthSaid, Denied> {
        let header = request.header.clone().unwrap_or_default();
        let user = header.username;
        let checked = if self.is_enabled() { self.root(&user) } else { Ok(()) };
        if let Some(login) = &request.authenticate {
            return self.login(login, named_by);
        }
        if request.auth_status.is_some() {
            return Ok(AuthSaid::Status(self.is_enabled(), self.revision));
        }
        if let Some(get) = &request.auth_user_get {
            if get.name != user {
                checked?;
            }
            let found = self.users.get(&get.name).ok_or(text::USER_NOT_FOUND)?;
            return Ok(AuthSaid::Names(found.roles.clone()));
        }
        if let Some(get) = &request.auth_role_get {
            if !self.roles_of(&user).contains(&get.role) {
                checked?;
            }
            return self.role_get(&get.role);
        }
        checked?;
        if request.auth_user_list.is_some() {
            return Ok(AuthSaid::Names(self.users()));
        }
        if request.auth_role_list.is_some() {
            return Ok(AuthSaid::Names(self.roles()));
        }
        let changed = self.change(request)?;
        self.revision += u64::from(changed);
        Ok(AuthSaid::Done)
    }

    fn login(
        &self,
        login: &pb::InternalAuthenticateRequest,
        named_by: u64,
    ) -> Result<AuthSaid, Denied> {
        if !self.is_enabled() {
            return Err(text::NOT_ENABLED);
        }
        let has_password = |user: &&User| !user.options.is_some_and(|options| options.no_password);
        self.users.get(&login.name).filter(has_password).ok_or(text::FAILED)?;
        if login.simple_token.is_empty() {
            return Ok(AuthSaid::Token(String::new()));
        }
        Ok(AuthSaid::Token(format!("{}.{named_by}", login.simple_token)))
    }

    fn role_get(&self, role: &str) -> Result<AuthSaid, Denied> {
        let found = self.roles.get(role).ok_or(text::ROLE_NOT_FOUND)?;
        if role == ROOT {
            let perm_type = Type::Readwrite as i32;
            let (key, range_end) = (Bytes::new(), Bytes::from_static(&[0]));
            return Ok(AuthSaid::Permissions(vec![Permission { perm_type, key, range_end }]));
        }
        Ok(AuthSaid::Permissions(found.key_permission.clone()))
    }

    /// Whether it raises the revision.
    fn change(&mut self, request: &pb::InternalRaftRequest) -> Result<bool, Denied> {
        if request.auth_enable.is_some() {
            return self.enable();
        }
        if request.auth_disable.is_some() {
            let was_enabled = self.is_enabled();
            if was_enabled {
                self.enabled = Some(false);
            }
            return Ok(was_enabled);
        }
        if request.auth_user_add.is_some()
            || request.auth_user_delete.is_some()
            || request.auth_user_change_password.is_some()
        {
            return self.change_user(request);
        }
        if request.auth_user_grant_role.is_some() || request.auth_user_revoke_role.is_some() {
            return self.change_roles_of_user(request);
        }
        self.change_role(request)
    }

    fn enable(&mut self) -> Result<bool, Denied> {
        if self.is_enabled() {
            return Ok(false);
        }
        let root = self.users.get(ROOT).ok_or(text::NO_ROOT_USER)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(text::NO_ROOT_ROLE);
        }
        self.enabled = Some(true);
        Ok(false)
    }

    fn change_user(&mut self, request: &pb::InternalRaftRequest) -> Result<bool, Denied> {
        if let Some(add) = &request.auth_user_add {
            if add.name.is_empty() {
                return Err(text::USER_EMPTY);
            }
            if self.users.contains_key(&add.name) {
                return Err(text::USER_EXISTS);
            }
            let options = add.options.unwrap_or(UserAddOptions { no_password: false });
            let password = stored(&add.hashed_password, options.no_password)?;
            let name = Bytes::copy_from_slice(add.name.as_bytes());
            let user = User { name, password, roles: Vec::new(), options: Some(options) };
            self.users.insert(add.name.clone(), user);
        } else if let Some(delete) = &request.auth_user_delete {
            if self.is_enabled() && delete.name == ROOT {
                return Err(text::INVALID);
            }
            self.users.remove(&delete.name).ok_or(text::USER_NOT_FOUND)?;
        } else if let Some(change) = &request.auth_user_change_password {
            let user = self.users.get_mut(&change.name).ok_or(text::USER_NOT_FOUND)?;
            let without = user.options.is_some_and(|options| options.no_password);
            user.password = stored(&change.hashed_password, without)?;
        }
        Ok(true)
    }

    fn change_roles_of_user(&mut self, request: &pb::InternalRaftRequest) -> Result<bool, Denied> {
        if let Some(grant) = &request.auth_user_grant_role {
            let user = self.users.get_mut(&grant.user).ok_or(text::USER_NOT_FOUND)?;
            if grant.role != ROOT && !self.roles.contains_key(&grant.role) {
                return Err(text::ROLE_NOT_FOUND);
            }
            let mut roles: BTreeSet<String> = user.roles.drain(..).collect();
            let is_new = roles.insert(grant.role.clone());
            user.roles = roles.into_iter().collect();
            return Ok(is_new);
        }
        let revoke = request.auth_user_revoke_role.as_ref().expect("there is one of the two");
        if self.is_enabled() && revoke.name == ROOT && revoke.role == ROOT {
            return Err(text::INVALID);
        }
        let user = self.users.get_mut(&revoke.name).ok_or(text::USER_NOT_FOUND)?;
        let before = user.roles.len();
        user.roles.retain(|role| *role != revoke.role);
        if user.roles.len() == before { Err(text::ROLE_NOT_GRANTED) } else { Ok(true) }
    }

    fn change_role(&mut self, request: &pb::InternalRaftRequest) -> Result<bool, Denied> {
        if let Some(add) = &request.auth_role_add {
            if add.name.is_empty() {
                return Err(text::ROLE_EMPTY);
            }
            if self.roles.contains_key(&add.name) {
                return Err(text::ROLE_EXISTS);
            }
            let name = Bytes::copy_from_slice(add.name.as_bytes());
            self.roles.insert(add.name.clone(), Role { name, key_permission: Vec::new() });
        } else if let Some(delete) = &request.auth_role_delete {
            if self.is_enabled() && delete.role == ROOT {
                return Err(text::INVALID);
            }
            self.roles.remove(&delete.role).ok_or(text::ROLE_NOT_FOUND)?;
            for user in self.users.values_mut() {
                user.roles.retain(|role| *role != delete.role);
            }
        } else if let Some(grant) = &request.auth_role_grant_permission {
            let permission = grant.perm.clone().ok_or(text::PERMISSION_NOT_GIVEN)?;
            let Permission { key, range_end, .. } = &permission;
            let holds = end_of(key, range_end).is_none_or(|end| *key < end);
            if key.is_empty() || !holds {
                return Err(text::INVALID);
            }
            let role = self.roles.get_mut(&grant.name).ok_or(text::ROLE_NOT_FOUND)?;
            permit(&mut role.key_permission, permission);
        } else if let Some(revoke) = &request.auth_role_revoke_permission {
            let role = self.roles.get_mut(&revoke.role).ok_or(text::ROLE_NOT_FOUND)?;
            let before = role.key_permission.len();
            role.key_permission
                .retain(|one| (&one.key, &one.range_end) != (&revoke.key, &revoke.range_end));
            if role.key_permission.len() == before {
                return Err(text::PERMISSION_NOT_GRANTED);
            }
        }
        Ok(true)
    }
}

/// A range that is there is changed, if it is the first of its key; another one comes behind those
/// of its key.
fn permit(granted: &mut Vec<Permission>, permission: Permission) {
    let first = granted.iter().position(|one| permission.key <= one.key);
    let first = first.unwrap_or(granted.len());
    if let Some(one) = granted.get_mut(first)
        && (&one.key, &one.range_end) == (&permission.key, &permission.range_end)
    {
        one.perm_type = permission.perm_type;
        return;
    }
    let behind = granted.iter().position(|one| permission.key < one.key);
    granted.insert(behind.unwrap_or(granted.len()), permission);
}

fn stored(hash: &str, no_password: bool) -> Result<Bytes, Denied> {
    if no_password {
        return Ok(Bytes::new());
    }
    STANDARD.decode(hash).map(Bytes::from).map_err(|_| text::NO_PASSWORD)
}
