//! What requests about users and roles do.
//!
//! Nothing is checked here of who asks: that is the gate's. A refused request changes nothing.

use backend::{Batch, Bucket};
use bytes::Bytes;
use proto::authpb::{self, Permission, UserAddOptions};
use proto::etcdserverpb as pb;

use super::request::{Change, Question};
use super::{Auth, ROOT, Tokens, password};
use crate::{AuthReply, Refusal};

/// What a request is done with, beside the users and roles.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The entry, which makes tokens unique.
    pub(crate) index: base::Index,
    pub(crate) tokens: &'a Tokens,
    pub(crate) batch: &'a mut Batch,
}

impl Auth {
    /// Answers a request that only reads. A token is named by `index`.
    pub(crate) fn answer(
        &self,
        question: &Question,
        index: base::Index,
        tokens: &Tokens,
    ) -> Result<AuthReply, Refusal> {
        match question {
            Question::Status(_) => {
                Ok(AuthReply::Status { enabled: self.enabled, revision: self.revision })
            }
            Question::Authenticate(request) => self.authenticate(request, index, tokens),
            Question::UserGet(request) => {
                let user = self.user(&request.name).ok_or(Refusal::UserNotFound)?;
                Ok(AuthReply::Names(user.stored.roles.clone()))
            }
            Question::UserList(_) => Ok(AuthReply::Names(texts(self.users.keys()))),
            Question::RoleGet(request) => self.role_get(&request.role),
            Question::RoleList(_) => Ok(AuthReply::Names(texts(self.roles.keys()))),
        }
    }

    /// Does what a request asks for.
    pub(crate) fn manage(
        &mut self,
        change: &Change,
        context: &mut Context<'_>,
    ) -> Result<AuthReply, Refusal> {
        let batch = &mut *context.batch;
        match change {
            Change::Enable(_) => self.enable(batch),
            Change::Disable(_) => {
                self.disable(context);
                Ok(())
            }
            Change::UserAdd(request) => self.user_add(request, context),
            Change::UserDelete(request) => self.user_delete(request, context),
            Change::UserChangePassword(request) => self.user_change_password(request, context),
            Change::UserGrantRole(request) => self.user_grant_role(request, batch),
            Change::UserRevokeRole(request) => self.user_revoke_role(request, batch),
            Change::RoleAdd(request) => self.role_add(request, batch),
            Change::RoleDelete(request) => self.role_delete(request, batch),
            Change::RoleGrantPermission(request) => self.role_grant_permission(request, batch),
            Change::RoleRevokePermission(request) => self.role_revoke_permission(request, batch),
        }?;
        Ok(AuthReply::Done)
    }

    /// The password was compared by the member that was asked, at a revision that it compares
    /// again.
    fn authenticate(
        &self,
        request: &pb::InternalAuthenticateRequest,
        index: base::Index,
        tokens: &Tokens,
    ) -> Result<AuthReply, Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = self.user(&request.name).filter(|user| !user.has_no_password());
        let user = user.ok_or(Refusal::AuthFailed)?;
        let mut token = String::new();
        // Members that sign their tokens send no word, and the index alone could be guessed.
        if !request.simple_token.is_empty() {
            token = format!("{}.{index}", request.simple_token);
            tokens.assign(token.clone(), user.stored.name.clone());
        }
        Ok(AuthReply::Authenticated { token })
    }

    ///
    fn enable(&mut self, batch: &mut Batch) -> Result<(), Refusal> {
        if self.enabled {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(Refusal::RootUserMissing)?;
        if !root.is_root {
            return Err(Refusal::RootRoleMissing);
        }
        self.set_enabled(true, batch);
        Ok(())
    }

    ///
    fn disable(&mut self, context: &mut Context<'_>) {
        if self.enabled {
            self.set_enabled(false, context.batch);
            self.raise_revision(context.batch);
            context.tokens.clear();
        }
    }

    ///
    fn user_add(
        &mut self,
        request: &pb::AuthUserAddRequest,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        if request.name.is_empty() {
            return Err(Refusal::UserNameEmpty);
        }
        if self.user(&request.name).is_some() {
            return Err(Refusal::UserExists);
        }
        let options = request.options.unwrap_or(UserAddOptions { no_password: false });
        let mut hash = Bytes::new();
        if !options.no_password {
            let salt = [request.name.as_bytes(), &context.index.0.to_be_bytes()];
            hash = password::stored(&request.password, &request.hashed_password, &salt)?;
        }
        let user = authpb::User {
            name: Bytes::copy_from_slice(request.name.as_bytes()),
            password: hash,
            roles: Vec::new(),
            options: Some(options),
        };
        self.put_user(user, context.batch);
        self.raise_revision(context.batch);
        Ok(())
    }

    ///
    fn user_delete(
        &mut self,
        request: &pb::AuthUserDeleteRequest,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let name = request.name.as_bytes();
        if self.enabled && request.name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(Refusal::UserNotFound)?;
        context.batch.delete(Bucket::AuthUsers, name);
        self.raise_revision(context.batch);
        if !base::probe::mutant("token-outlives-its-user") {
            context.tokens.forget_user(name);
        }
        Ok(())
    }

    ///
    fn user_change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let user = self.user(&request.name).ok_or(Refusal::UserNotFound)?;
        let mut stored = user.stored.clone();
        stored.password = Bytes::new();
        if !user.has_no_password() {
            let salt = [request.name.as_bytes(), &context.index.0.to_be_bytes()];
            stored.password = password::stored(&request.password, &request.hashed_password, &salt)?;
        }
        self.put_user(stored, context.batch);
        self.raise_revision(context.batch);
        context.tokens.forget_user(request.name.as_bytes());
        Ok(())
    }

    /// The role `root` need not exist to be granted.
    fn user_grant_role(
        &mut self,
        request: &pb::AuthUserGrantRoleRequest,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let user = self.user(&request.user).ok_or(Refusal::UserNotFound)?;
        if request.role != ROOT && !self.roles.contains_key(request.role.as_bytes()) {
            return Err(Refusal::RoleNotFound);
        }
        let Err(place) = user.stored.roles.binary_search(&request.role) else {
            return Ok(());
        };
        let mut stored = user.stored.clone();
        stored.roles.insert(place, request.role.clone());
        self.put_user(stored, batch);
        self.raise_revision(batch);
        Ok(())
    }

    ///
    fn user_revoke_role(
        &mut self,
        request: &pb::AuthUserRevokeRoleRequest,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        let user = self.user(&request.name).ok_or(Refusal::UserNotFound)?;
        let stored = without_role(&user.stored, &request.role).ok_or(Refusal::RoleNotGranted)?;
        self.put_user(stored, batch);
        self.raise_revision(batch);
        Ok(())
    }

    ///
    fn role_add(
        &mut self,
        request: &pb::AuthRoleAddRequest,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        if request.name.is_empty() {
            return Err(Refusal::RoleNameEmpty);
        }
        if self.roles.contains_key(request.name.as_bytes()) {
            return Err(Refusal::RoleExists);
        }
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        self.put_role(authpb::Role { name, key_permission: Vec::new() }, batch);
        self.raise_revision(batch);
        Ok(())
    }

    ///
    fn role_delete(
        &mut self,
        request: &pb::AuthRoleDeleteRequest,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        if self.enabled && request.role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.roles.remove(request.role.as_bytes()).ok_or(Refusal::RoleNotFound)?;
        batch.delete(Bucket::AuthRoles, request.role.as_bytes());
        let users: Vec<_> = self.users.values().cloned().collect();
        for user in users {
            if !base::probe::mutant("deleted-role-stays-with-its-users")
                && let Some(stored) = without_role(&user.stored, &request.role)
            {
                self.put_user(stored, batch);
            }
        }
        self.raise_revision(batch);
        Ok(())
    }

    /// What is stored of the role `root` does not matter: it may do everything.
    fn role_get(&self, role: &str) -> Result<AuthReply, Refusal> {
        let role = self.roles.get(role.as_bytes()).ok_or(Refusal::RoleNotFound)?;
        if role.name == ROOT.as_bytes() {
            let everything = Permission {
                perm_type: authpb::permission::Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            };
            return Ok(AuthReply::Permissions(vec![everything]));
        }
        Ok(AuthReply::Permissions(role.key_permission.clone()))
    }

    /// Only the first permission of a key is looked at for the same range, as in etcd, so a
    /// range may be there twice beside another one that begins alike. Of more than twelve etcd has
    /// those that begin alike in the order that Go's sorting leaves them in.
    fn role_grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let permission = request.perm.as_ref().ok_or(Refusal::PermissionNotGiven)?;
        if !is_valid_range(&permission.key, &permission.range_end) {
            return Err(Refusal::InvalidAuthManagement);
        }
        let role = self.roles.get(request.name.as_bytes()).ok_or(Refusal::RoleNotFound)?;
        let mut role = authpb::Role::clone(role);
        let granted = &mut role.key_permission;
        let place = granted.partition_point(|other| other.key < permission.key);
        match granted.get_mut(place).filter(|other| has_range(other, permission)) {
            Some(same) => same.perm_type = permission.perm_type,
            None => {
                granted.push(permission.clone());
                granted.sort_by(|left, right| left.key.cmp(&right.key));
            }
        }
        self.put_role(role, batch);
        self.raise_revision(batch);
        Ok(())
    }

    ///
    fn role_revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let role = self.roles.get(request.role.as_bytes()).ok_or(Refusal::RoleNotFound)?;
        let mut role = authpb::Role::clone(role);
        let before = role.key_permission.len();
        role.key_permission
            .retain(|other| other.key != request.key || other.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(Refusal::PermissionNotGranted);
        }
        self.put_role(role, batch);
        self.raise_revision(batch);
        Ok(())
    }
}

fn texts<'n>(names: impl Iterator<Item = &'n Bytes>) -> Vec<String> {
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// The user without a role; `None` if it has not got it.
fn without_role(user: &authpb::User, role: &str) -> Option<authpb::User> {
    let mut user = user.clone();
    let before = user.roles.len();
    user.roles.retain(|held| held != role);
    (user.roles.len() < before).then_some(user)
}

fn has_range(left: &Permission, right: &Permission) -> bool {
    left.key == right.key && left.range_end == right.range_end
}

/// One key, a range that holds something, or "from this key on".
fn is_valid_range(key: &Bytes, range_end: &Bytes) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end[..] == [0] || key < range_end)
}
