//! The reference model of users and roles: what a request is allowed and what it changes, in the
//! plainest form, and the judge of what members said of it.
//!
//! It is given the committed requests in the order of the log and keeps every state that there was,
//! so that what a member answered from its own, maybe older, state is judged by that one. Ranges are
//! compared by walking along them; nothing is merged or remembered. It shares no code with `state`.
//!
//! Not modelled: how passwords are compared, and when unused tokens end.
//!
//! etcd: server/auth/store.go, server/auth/range_perm_cache.go, server/etcdserver/apply/auth.go.

mod judge;
mod requests;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use proto::authpb::permission::Type;
use proto::authpb::{Permission, Role, User};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;

use crate::record::Call;
pub use judge::AuthJudge;

/// The user and the role that may do everything.
const ROOT: &str = "root";

/// The texts of etcd's errors, without the word before them.
mod text {
    pub(super) const USER_EMPTY: &str = "user name is empty";
    pub(super) const USER_NOT_FOUND: &str = "user name not found";
    pub(super) const USER_EXISTS: &str = "user name already exists";
    pub(super) const ROLE_EMPTY: &str = "role name is empty";
    pub(super) const ROLE_NOT_FOUND: &str = "role name not found";
    pub(super) const ROLE_EXISTS: &str = "role name already exists";
    pub(super) const DENIED: &str = "permission denied";
    pub(super) const OLD: &str = "revision of auth store is old";
    pub(super) const INVALID: &str = "invalid auth management";
    pub(super) const NOT_ENABLED: &str = "authentication is not enabled";
    pub(super) const FAILED: &str = "authentication failed, invalid user ID or password";
    pub(super) const NO_ROOT_USER: &str = "root user does not exist";
    pub(super) const NO_ROOT_ROLE: &str = "root user does not have root role";
    pub(super) const ROLE_NOT_GRANTED: &str = "role is not granted to the user";
    pub(super) const PERMISSION_NOT_GRANTED: &str = "permission is not granted to the role";
    pub(super) const PERMISSION_NOT_GIVEN: &str = "permission not given";
    pub(super) const NO_PASSWORD: &str =
        "authentication failed, password was given for no password user";
}

/// Whether a refusal is one for who asks.
#[must_use]
pub fn is_denial(refusal: &str) -> bool {
    [text::USER_EMPTY, text::USER_NOT_FOUND, text::DENIED, text::OLD].contains(&refusal)
}

/// A refusal, in etcd's words.
pub type Denied = &'static str;

/// Who asks: the user, and the auth revision at which that was made sure; 0 for nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The name.
    pub user: String,
    /// The auth revision.
    pub revision: u64,
}

/// What a request about users and roles is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthSaid {
    /// It was done.
    Done,
    /// Whether auth is on, and its revision.
    Status(bool, u64),
    /// A token.
    Token(String),
    /// Names of users or roles.
    Names(Vec<String>),
    /// What a role may do.
    Permissions(Vec<Permission>),
}

/// The keys of a lease, as whoever evaluates a request sees them.
pub type Attached<'a> = &'a dyn Fn(i64) -> Vec<Bytes>;

/// Users and roles at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    /// `None` if it was never said.
    enabled: Option<bool>,
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    /// A range that ends before its key, and so holds nothing, is allowed where a permission holds its
    /// key; but etcd looks nowhere below one that begins in between and ends before the key. Whether
    /// it then finds the other depends on the shape of its tree, which is no promise: this says that
    /// it does, and both are judged right.
    allows_hidden: bool,
}

impl Auth {
    /// The same, where permissions are found however many others hide them.
    #[must_use]
    pub fn lenient(&self) -> Self {
        Self { allows_hidden: true, ..self.clone() }
    }

    /// Whether users are asked who they are.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled == Some(true)
    }

    /// The auth revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The names of all users.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The names of all roles.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// What a role may do.
    #[must_use]
    pub fn permissions(&self, role: &str) -> &[Permission] {
        self.roles.get(role).map_or(&[], |role| &role.key_permission)
    }

    /// The roles of a user.
    #[must_use]
    pub fn roles_of(&self, user: &str) -> &[String] {
        self.users.get(user).map_or(&[], |user| &user.roles)
    }

    /// What is stored of a user's password.
    #[must_use]
    pub fn password(&self, user: &str) -> Option<&Bytes> {
        self.users.get(user).map(|user| &user.password)
    }

    /// The rows that a database must have: bucket, key, value.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, Bytes, Bytes)> {
        let mut rows = Vec::new();
        if let Some(enabled) = self.enabled {
            let value = Bytes::copy_from_slice(&[u8::from(enabled)]);
            rows.push(("auth", Bytes::from_static(b"authEnabled"), value));
        }
        let revision = Bytes::copy_from_slice(&self.revision.to_be_bytes());
        rows.push(("auth", Bytes::from_static(b"authRevision"), revision));
        for role in self.roles.values() {
            rows.push(("authRoles", role.name.clone(), role.encode_to_vec().into()));
        }
        for user in self.users.values() {
            rows.push(("authUsers", user.name.clone(), user.encode_to_vec().into()));
        }
        rows
    }

    /// What the member that is asked checks before it takes a call.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn enter(&self, who: Option<&Who>, call: &Call) -> Result<(), Denied> {
        if !self.is_enabled() {
            return Ok(());
        }
        match call {
            Call::Compact(_) => self.root(who.map_or("", |who| &who.user)),
            Call::Txn(_)
            | Call::Grant(_)
            | Call::Revoke(_)
            | Call::KeepAlive(_)
            | Call::TimeToLive(_) => who.map(drop).ok_or(text::USER_EMPTY),
            Call::Range(_) | Call::Put(_) | Call::Delete(_) => Ok(()),
        }
    }

    /// What is checked where a call is evaluated.
    ///
    /// # Errors
    ///
    /// Why it is not done.
    pub fn check(&self, who: &Who, call: &Call, attached: Attached<'_>) -> Result<(), Denied> {
        if !self.is_enabled() {
            return Ok(());
        }
        match call {
            Call::Range(request) => self.reads(who, &request.key, &request.range_end),
            Call::Put(request) => self.put(who, request, attached),
            Call::Delete(request) => self.delete(who, request),
            Call::Txn(request) => self.txn(who, request, attached),
            Call::Revoke(request) => self.writes_all(who, &attached(request.id)),
            Call::KeepAlive(request) => self.writes_all(who, &attached(request.id)),
            Call::TimeToLive(request) if request.keys => self.reads_all(who, &attached(request.id)),
            Call::TimeToLive(_) | Call::Compact(_) | Call::Grant(_) => Ok(()),
        }
    }

    /// Whether a user may watch a range, whenever it was made sure who that is.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn watch(&self, user: &str, key: &Bytes, range_end: &Bytes) -> Result<(), Denied> {
        if !self.is_enabled() {
            return Ok(());
        }
        let who = Who { user: user.to_owned(), revision: self.revision };
        let first = Bytes::from_static(&[0]);
        self.reads(&who, if key.is_empty() { &first } else { key }, range_end)
    }

    fn put(
        &self,
        who: &Who,
        request: &pb::PutRequest,
        attached: Attached<'_>,
    ) -> Result<(), Denied> {
        self.writes(who, &request.key, &Bytes::new())?;
        self.writes_all(who, &attached(request.lease))?;
        if request.prev_kv { self.reads(who, &request.key, &Bytes::new()) } else { Ok(()) }
    }

    fn delete(&self, who: &Who, request: &pb::DeleteRangeRequest) -> Result<(), Denied> {
        self.writes(who, &request.key, &request.range_end)?;
        if request.prev_kv { self.reads(who, &request.key, &request.range_end) } else { Ok(()) }
    }

    fn txn(
        &self,
        who: &Who,
        request: &pb::TxnRequest,
        attached: Attached<'_>,
    ) -> Result<(), Denied> {
        for compare in &request.compare {
            self.reads(who, &compare.key, &compare.range_end)?;
        }
        for operation in request.success.iter().chain(&request.failure) {
            match &operation.request {
                Some(Op::RequestRange(range)) => self.reads(who, &range.key, &range.range_end)?,
                Some(Op::RequestPut(put)) => self.put(who, put, attached)?,
                Some(Op::RequestDeleteRange(delete)) => self.delete(who, delete)?,
                Some(Op::RequestTxn(txn)) => self.txn(who, txn, attached)?,
                None => {}
            }
        }
        Ok(())
    }

    fn writes_all(&self, who: &Who, keys: &[Bytes]) -> Result<(), Denied> {
        self.all(who, keys, Type::Write)
    }

    fn reads_all(&self, who: &Who, keys: &[Bytes]) -> Result<(), Denied> {
        self.all(who, keys, Type::Read)
    }

    /// Root's request may be of an older revision here.
    fn all(&self, who: &Who, keys: &[Bytes], kind: Type) -> Result<(), Denied> {
        if self.root(&who.user).is_ok() {
            return Ok(());
        }
        keys.iter().try_for_each(|key| self.may(who, key, &Bytes::new(), kind))
    }

    fn reads(&self, who: &Who, key: &Bytes, range_end: &Bytes) -> Result<(), Denied> {
        self.may(who, key, range_end, Type::Read)
    }

    fn writes(&self, who: &Who, key: &Bytes, range_end: &Bytes) -> Result<(), Denied> {
        self.may(who, key, range_end, Type::Write)
    }

    fn may(&self, who: &Who, key: &Bytes, range_end: &Bytes, kind: Type) -> Result<(), Denied> {
        if who.revision == 0 {
            return Err(text::USER_EMPTY);
        }
        if who.revision < self.revision {
            return Err(text::OLD);
        }
        let user = self.users.get(&who.user).ok_or(text::DENIED)?;
        let is_root = user.roles.iter().any(|role| role == ROOT);
        if is_root || self.covers(user, key, range_end, kind) { Ok(()) } else { Err(text::DENIED) }
    }

    /// Whether a user's permissions together hold a range.
    fn covers(&self, user: &User, key: &Bytes, range_end: &Bytes, kind: Type) -> bool {
        if key.is_empty() {
            return false;
        }
        let granted = user.roles.iter().filter_map(|role| self.roles.get(role));
        let granted: Vec<&Permission> = granted
            .flat_map(|role| &role.key_permission)
            .filter(|one| one.perm_type == kind as i32 || one.perm_type == Type::Readwrite as i32)
            .collect();
        let end = end_of(key, range_end);
        if let Some(end) = end.as_ref().filter(|end| *end <= key) {
            let mut around = granted.iter().filter(|one| one.key <= *key);
            let holds = around.clone().any(|one| is_before(key, one));
            let hides = around.any(|one| *end <= one.key && !is_before(key, one));
            return holds && (!hides || self.allows_hidden);
        }
        // From one permission to the next that begins where it ends, or before.
        let mut at = key.clone();
        loop {
            let next = granted.iter().filter(|one| one.key <= at && is_before(&at, one));
            let mut furthest: Option<Bytes> = None;
            for one in next {
                match end_of(&one.key, &one.range_end) {
                    None => return true,
                    Some(reached) => furthest = furthest.max(Some(reached)),
                }
            }
            match (furthest, &end) {
                (Some(reached), Some(end)) if *end <= reached => return true,
                (Some(reached), _) => at = reached,
                (None, _) => return false,
            }
        }
    }

    fn root(&self, user: &str) -> Result<(), Denied> {
        if user.is_empty() {
            return Err(text::USER_EMPTY);
        }
        let user = self.users.get(user).ok_or(text::USER_NOT_FOUND)?;
        let is_root = user.roles.iter().any(|role| role == ROOT);
        if is_root { Ok(()) } else { Err(text::DENIED) }
    }
}

/// Up to where a range goes; `None` for the last key there can be.
fn end_of(key: &Bytes, range_end: &Bytes) -> Option<Bytes> {
    match &range_end[..] {
        [] => Some([&key[..], &[0]].concat().into()),
        [0] => None,
        _ => Some(range_end.clone()),
    }
}

fn is_before(key: &Bytes, permission: &Permission) -> bool {
    end_of(&permission.key, &permission.range_end).is_none_or(|end| *key < end)
}
