//! Users, roles and permissions of the v3 API, as every member has them.
//!
//! They are rows of three buckets in etcd's form, changed by entries only, and kept in memory whole
//! with what each user may read and write already merged. Who asks comes with the entry, or from
//! the member that was asked; that it is true, the member's token or certificate says (`server`).
//!
//! Not here: comparing passwords and making tokens, which need chance, a clock or much time.
//!
//! Invariants:
//! - the auth revision rises by one with every change, but for enabling auth;
//! - what a user may is always the union of the user's roles as they are now.
//!
//! Source: etcd: server/auth/store.go, server/storage/schema/auth*.go; interop 3.2.

pub mod gate;
mod manage;
pub(crate) mod password;
mod ranges;
pub(crate) mod request;
mod tokens;
mod tree;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;

use backend::{Batch, Bucket};
use bytes::Bytes;
use prost::Message as _;
use proto::authpb::permission::Type;
use proto::authpb::{self, Permission};

use crate::schema::{self, Rows};
use crate::{OpenError, Refusal};
pub(crate) use manage::Context;
use ranges::Ranges;
pub use tokens::Tokens;
pub use watches::WatchOwners;

/// In `auth`: one byte, 0 or 1.
const ENABLED: &[u8] = b"authEnabled";
/// In `auth`: a big-endian number.
const REVISION: &[u8] = b"authRevision";

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's name; empty for nobody.
    pub user: String,
    /// The auth revision at which it was made sure; 0 for nobody.
    pub revision: u64,
}

impl Identity {
    /// A caller that did not say who it is.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }
}

/// Users, roles and whether they matter.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<Bytes, Arc<User>>,
    roles: BTreeMap<Bytes, Arc<authpb::Role>>,
}

/// One user.
#[derive(Clone, Debug)]
struct User {
    stored: authpb::User,
    is_root: bool,
    read: Ranges,
    write: Ranges,
}

impl User {
    fn new(stored: authpb::User, roles: &BTreeMap<Bytes, Arc<authpb::Role>>) -> Self {
        let permissions = || {
            let granted = stored.roles.iter().filter_map(|role| roles.get(role.as_bytes()));
            granted.flat_map(|role| &role.key_permission)
        };
        let of = |kind: Type| {
            let allows = move |permission: &&Permission| {
                let given = Type::try_from(permission.perm_type);
                given.is_ok_and(|given| given == kind || given == Type::Readwrite)
            };
            Ranges::union(permissions().filter(allows))
        };
        let (read, write) = (of(Type::Read), of(Type::Write));
        let is_root = stored.roles.iter().any(|role| role == ROOT);
        Self { stored, is_root, read, write }
    }

    fn has_no_password(&self) -> bool {
        self.stored.options.is_some_and(|options| options.no_password)
    }
}

impl Auth {
    /// Reads what a database holds; revision 0 if it never saw auth.
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, OpenError> {
        let enabled = schema::get(rows, Bucket::Auth, ENABLED)?;
        let enabled = enabled.is_some_and(|value| value[..] == [1]);
        let revision = match schema::get(rows, Bucket::Auth, REVISION)? {
            Some(value) => {
                let bytes = value[..].try_into();
                let bytes = bytes.map_err(|_| schema::damaged(Bucket::Auth, REVISION))?;
                u64::from_be_bytes(bytes)
            }
            None => 0,
        };
        let mut roles = BTreeMap::new();
        schema::for_each(rows, Bucket::AuthRoles, |key, value| {
            let role = authpb::Role::decode(value).ok()?;
            roles.insert(Bytes::copy_from_slice(key), Arc::new(role));
            Some(())
        })?;
        let mut users = BTreeMap::new();
        schema::for_each(rows, Bucket::AuthUsers, |key, value| {
            let user = User::new(authpb::User::decode(value).ok()?, &roles);
            users.insert(Bytes::copy_from_slice(key), Arc::new(user));
            Some(())
        })?;
        Ok(Self { enabled, revision, users, roles })
    }

    /// A database that never saw auth gets its first revision, as etcd gives it at its first start.
    pub(crate) fn begin(&mut self) -> Option<Batch> {
        if self.revision != 0 {
            return None;
        }
        let mut batch = Batch::upkeep();
        self.raise_revision(&mut batch);
        Some(batch)
    }

    /// Whether users are asked who they are.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// How often users and roles were changed, and one more.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether users matter, and at which revision: another one after every change, also after the
    /// enabling that raises no revision.
    #[must_use]
    pub fn version(&self) -> (bool, u64) {
        (self.enabled, self.revision)
    }

    /// The hash that a user's password is compared with, and the revision at which it holds.
    ///
    /// # Errors
    ///
    /// `AuthNotEnabled`, `AuthFailed` for an unknown user, `NoPasswordUser`.
    pub fn password_hash(&self, user: &str) -> Result<(Bytes, u64), Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = self.user(user).ok_or(Refusal::AuthFailed)?;
        if user.has_no_password() {
            return Err(Refusal::NoPasswordUser);
        }
        Ok((user.stored.password.clone(), self.revision))
    }

    /// Checks that a user has the role `root`, whatever the revision of the request. Auth is on.
    fn check_root(&self, user: &str) -> Result<(), Refusal> {
        if user.is_empty() {
            return Err(Refusal::UserNameEmpty);
        }
        let user = self.user(user).ok_or(Refusal::UserNotFound)?;
        if user.is_root { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    fn check_read(&self, who: &Identity, key: &Bytes, range_end: &Bytes) -> Result<(), Refusal> {
        self.check_range(who, |user| user.read.cover(key, range_end))
    }

    fn check_write(&self, who: &Identity, key: &Bytes, range_end: &Bytes) -> Result<(), Refusal> {
        self.check_range(who, |user| user.write.cover(key, range_end))
    }

    fn check_range(
        &self,
        who: &Identity,
        covers: impl FnOnce(&User) -> bool,
    ) -> Result<(), Refusal> {
        if who.revision == 0 {
            return Err(Refusal::UserNameEmpty);
        }
        if who.revision < self.revision && !base::probe::mutant("old-auth-revision-will-do") {
            return Err(Refusal::AuthRevisionOld);
        }
        let user = self.user(&who.user).ok_or(Refusal::PermissionDenied)?;
        if user.is_root || covers(user) { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name.as_bytes())
    }

    fn has_role(&self, user: &str, role: &str) -> bool {
        self.user(user).is_some_and(|user| user.stored.roles.iter().any(|held| held == role))
    }

    fn raise_revision(&mut self, batch: &mut Batch) {
        self.revision += 1;
        let value = Bytes::copy_from_slice(&self.revision.to_be_bytes());
        if !base::probe::mutant("auth-revision-is-not-stored") {
            batch.put(Bucket::Auth, REVISION, value);
        }
    }

    fn set_enabled(&mut self, enabled: bool, batch: &mut Batch) {
        self.enabled = enabled;
        let value = Bytes::from_static(if enabled { &[1] } else { &[0] });
        batch.put(Bucket::Auth, ENABLED, value);
    }

    fn put_user(&mut self, stored: authpb::User, batch: &mut Batch) {
        let name = stored.name.clone();
        batch.put(Bucket::AuthUsers, &name, stored.encode_to_vec().into());
        self.users.insert(name, Arc::new(User::new(stored, &self.roles)));
    }

    fn put_role(&mut self, role: authpb::Role, batch: &mut Batch) {
        let name = role.name.clone();
        batch.put(Bucket::AuthRoles, &name, role.encode_to_vec().into());
        self.roles.insert(name.clone(), Arc::new(role));
        if !base::probe::mutant("permissions-are-merged-at-the-next-start") {
            self.merge_again(&name);
        }
    }

    /// Users with a role that changed may something else now.
    fn merge_again(&mut self, role: &[u8]) {
        for user in self.users.values_mut() {
            if user.stored.roles.iter().any(|held| held.as_bytes() == role) {
                *user = Arc::new(User::new(user.stored.clone(), &self.roles));
            }
        }
    }
}
