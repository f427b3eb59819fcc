//! Users and roles of the second generation, as they stand in the tree below `/2`, and who may do
//! what with keys.
//!
//! They are changed by requests of the tree like any key; reading is local, as in etcd. A name or
//! password that is wrong has no access at all; only whoever gives none is a guest.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2auth, v2http/client_auth.go.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use base64::Engine as _;
use proto::v2pb;
use serde::{Deserialize, Serialize};
use v2store::text::to_bytes;
use v2store::{Code, Error};

use super::now;
use crate::auth::is_of_proxy;
use crate::guard::Secured;
use crate::handle::{Handle, ProposeError};

const ROOT: &str = "root";
const GUEST: &str = "guest";

/// A user. Lists that were never set are `null`, as Go writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct User {
    pub(super) user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) password: String,
    pub(super) roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_empty")]
    grant: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_empty")]
    revoke: Option<Vec<String>>,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    pub(super) role: String,
    pub(super) permissions: Permissions,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<Permissions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoke: Option<Permissions>,
}

/// Patterns of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Permissions {
    kv: Patterns,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Patterns {
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
}

fn is_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

impl User {
    pub(super) fn has_roles(&self) -> bool {
        !is_empty(&self.roles)
    }

    pub(super) fn changes_roles(&self) -> bool {
        !is_empty(&self.grant) || !is_empty(&self.revoke)
    }

    /// Root has its role, whatever was said.
    fn with_own_role(mut self) -> Self {
        if self.user == ROOT {
            let roles = self.roles.get_or_insert_default();
            if !roles.iter().any(|role| role == ROOT) {
                roles.push(ROOT.to_owned());
            }
        }
        self
    }
}

impl Role {
    /// Whether it asks for a change of a role.
    pub(super) fn changes(&self) -> bool {
        let asks = |permissions: &Option<Permissions>| {
            permissions.as_ref().is_some_and(|permissions| !permissions.is_empty())
        };
        asks(&self.grant) || asks(&self.revoke)
    }

    fn everything(name: &str) -> Self {
        let all = || Some(vec!["/*".to_owned()]);
        let permissions = Permissions { kv: Patterns { read: all(), write: all() } };
        Self { role: name.to_owned(), permissions, ..Self::default() }
    }

    fn allows(&self, key: &str, write: bool, recursive: bool) -> bool {
        self.role == ROOT || self.permissions.kv.allow(key, write, recursive)
    }
}

impl Permissions {
    pub(super) fn is_empty(&self) -> bool {
        is_empty(&self.kv.read) && is_empty(&self.kv.write)
    }

    fn changed(&self, role: &Role) -> Result<Self, AuthError> {
        let mut kv = self.kv.clone();
        if let Some(Self { kv: grant }) = &role.grant {
            kv.read = Some(granted(&kv.read, &grant.read, "read")?);
            kv.write = Some(granted(&kv.write, &grant.write, "write")?);
        }
        if let Some(Self { kv: revoke }) = &role.revoke {
            kv.read = Some(revoked(&kv.read, &revoke.read));
            kv.write = Some(revoked(&kv.write, &revoke.write));
        }
        Ok(Self { kv })
    }
}

type List = Option<Vec<String>>;

fn granted(have: &List, more: &List, kind: &str) -> Result<Vec<String>, AuthError> {
    let mut all: BTreeSet<String> = have.iter().flatten().cloned().collect();
    for pattern in more.iter().flatten() {
        if !all.insert(pattern.clone()) {
            let text = format!("Granting duplicate {kind} permission {pattern}");
            return Err(refused(StatusCode::CONFLICT, &text));
        }
    }
    Ok(all.into_iter().collect())
}

fn revoked(have: &List, less: &List) -> Vec<String> {
    let less: BTreeSet<&String> = less.iter().flatten().collect();
    let rest: BTreeSet<&String> = have.iter().flatten().filter(|it| !less.contains(it)).collect();
    rest.into_iter().cloned().collect()
}

impl Patterns {
    /// V2-164: for a whole subtree only a pattern with a star counts.
    fn allow(&self, key: &str, write: bool, recursive: bool) -> bool {
        let patterns = if write { &self.write } else { &self.read };
        let key = to_bytes(key);
        patterns.iter().flatten().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix.as_bytes()),
            None => !recursive && *key == *pattern.as_bytes(),
        })
    }
}

/// Why a request about users and roles is not granted.
#[derive(Debug)]
pub(super) enum AuthError {
    /// With etcd's text.
    Refused { status: StatusCode, text: String },
    /// The tree's own refusal.
    Tree(Error),
    /// No answer from the log.
    Failed(ProposeError),
}

fn refused(status: StatusCode, text: &str) -> AuthError {
    AuthError::Refused { status, text: format!("auth: {text}") }
}

/// Users and roles as they are applied here.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    handle: Handle,
}

impl Accounts {
    pub(super) fn of(handle: &Handle) -> Self {
        Self { handle: handle.clone() }
    }

    /// Whether anybody is asked who they are.
    pub(super) fn are_enabled(&self) -> bool {
        self.value("/2/enabled").as_deref() == Some("true")
    }

    fn value(&self, path: &str) -> Option<Arc<str>> {
        self.handle.reads().v2().value(path)
    }

    fn names(&self, path: &str) -> Vec<String> {
        let Ok(event) = self.handle.reads().v2().get(path, false, 0) else { return Vec::new() };
        let names = event
            .below
            .into_iter()
            .filter_map(|(_, node)| node.key.rsplit_once('/').map(|(_, name)| name.to_owned()));
        names.collect()
    }

    /// Names of the users, in order.
    pub(super) fn users(&self) -> Vec<String> {
        self.names("/2/users")
    }

    /// Names of the roles, in order, root's among them.
    pub(super) fn roles(&self) -> Vec<String> {
        let mut names = self.names("/2/roles");
        names.push(ROOT.to_owned());
        names.sort_unstable();
        names
    }

    pub(super) fn user(&self, name: &str) -> Result<User, AuthError> {
        let value = self.value(&format!("/2/users/{name}"));
        let user = value.and_then(|value| serde_json::from_slice::<User>(&to_bytes(&value)).ok());
        let missing = || refused(StatusCode::NOT_FOUND, &format!("User {name} does not exist."));
        user.map(User::with_own_role).ok_or_else(missing)
    }

    pub(super) fn role(&self, name: &str) -> Result<Role, AuthError> {
        if name == ROOT {
            return Ok(Role::everything(ROOT));
        }
        let value = self.value(&format!("/2/roles/{name}"));
        let role = value.and_then(|value| serde_json::from_slice(&to_bytes(&value)).ok());
        let missing = || refused(StatusCode::NOT_FOUND, &format!("Role {name} does not exist."));
        role.ok_or_else(missing)
    }

    pub(super) async fn create_user(&self, user: User) -> Result<User, AuthError> {
        let mut user = user.with_own_role();
        let name = user.user.clone();
        if user.password.is_empty() {
            let text = format!("Cannot create user {name} with an empty password");
            return Err(refused(StatusCode::BAD_REQUEST, &text));
        }
        user.password = self.hash(&user.password).await?;
        match self.put(&format!("/2/users/{name}"), &user, false).await {
            Err(AuthError::Tree(error)) if error.code == Code::KeyExists => {
                Err(refused(StatusCode::CONFLICT, &format!("User {name} already exists.")))
            }
            done => done.map(|()| user),
        }
    }

    pub(super) async fn update_user(&self, asked: User) -> Result<User, AuthError> {
        let name = &asked.user;
        self.linearize().await?;
        let old = self.user(name)?;
        let mut roles: BTreeSet<String> = old.roles.iter().flatten().cloned().collect();
        for role in asked.grant.iter().flatten() {
            if !roles.insert(role.clone()) {
                let text = format!("Granting duplicate role {role} for user {name}");
                return Err(refused(StatusCode::CONFLICT, &text));
            }
        }
        for role in asked.revoke.iter().flatten() {
            if !roles.remove(role) {
                let text = format!("Revoking ungranted role {role} for user {name}");
                return Err(refused(StatusCode::CONFLICT, &text));
            }
        }
        let password = match asked.password.is_empty() {
            true => old.password.clone(),
            false => self.hash(&asked.password).await?,
        };
        let roles = Some(roles.into_iter().collect());
        let new = User { user: name.clone(), password, roles, ..User::default() };
        if new == old {
            let text = "User not updated. Use grant/revoke/password to update the user.";
            return Err(refused(StatusCode::BAD_REQUEST, text));
        }
        self.put(&format!("/2/users/{name}"), &new, true).await?;
        Ok(new)
    }

    pub(super) async fn delete_user(&self, name: &str) -> Result<(), AuthError> {
        if self.are_enabled() && name == ROOT {
            let text = "Cannot delete root user while auth is enabled.";
            return Err(refused(StatusCode::FORBIDDEN, text));
        }
        let deleted = self.delete(&format!("/2/users/{name}")).await;
        deleted.map_err(|error| absent(error, &format!("User {name} does not exist")))
    }

    pub(super) async fn create_role(&self, role: &Role) -> Result<(), AuthError> {
        let name = &role.role;
        self.refuse_root(name)?;
        match self.put(&format!("/2/roles/{name}"), role, false).await {
            Err(AuthError::Tree(error)) if error.code == Code::KeyExists => {
                Err(refused(StatusCode::CONFLICT, &format!("Role {name} already exists.")))
            }
            done => done,
        }
    }

    pub(super) async fn update_role(&self, asked: &Role) -> Result<Role, AuthError> {
        let name = &asked.role;
        self.refuse_root(name)?;
        self.linearize().await?;
        let old = self.role(name)?;
        let permissions = old.permissions.changed(asked)?;
        let new = Role { role: name.clone(), permissions, ..Role::default() };
        if new == old {
            let text = "Role not updated. Use grant/revoke to update the role.";
            return Err(refused(StatusCode::BAD_REQUEST, text));
        }
        self.put(&format!("/2/roles/{name}"), &new, true).await?;
        Ok(new)
    }

    pub(super) async fn delete_role(&self, name: &str) -> Result<(), AuthError> {
        self.refuse_root(name)?;
        let deleted = self.delete(&format!("/2/roles/{name}")).await;
        deleted.map_err(|error| absent(error, &format!("Role {name} doesn't exist.")))
    }

    fn refuse_root(&self, name: &str) -> Result<(), AuthError> {
        if name != ROOT {
            return Ok(());
        }
        let text = format!("Cannot modify role {name}: is root role.");
        Err(refused(StatusCode::FORBIDDEN, &text))
    }

    pub(super) async fn enable(&self) -> Result<(), AuthError> {
        if self.are_enabled() {
            return Err(refused(StatusCode::CONFLICT, "already enabled"));
        }
        self.linearize().await?;
        if self.user(ROOT).is_err() {
            let text = "No root user available, please create one";
            return Err(refused(StatusCode::CONFLICT, text));
        }
        if self.role(GUEST).is_err() {
            self.create_role(&Role::everything(GUEST)).await?;
        }
        self.put("/2/enabled", &true, true).await
    }

    pub(super) async fn disable(&self) -> Result<(), AuthError> {
        if !self.are_enabled() {
            return Err(refused(StatusCode::CONFLICT, "already disabled"));
        }
        self.put("/2/enabled", &false, true).await
    }

    async fn linearize(&self) -> Result<(), AuthError> {
        self.handle.linearize().await.map_err(AuthError::Failed)
    }

    /// Changes the tree, whose directories for this are made before the first change.
    async fn put(
        &self,
        path: &str,
        value: &impl Serialize,
        prev_exist: bool,
    ) -> Result<(), AuthError> {
        self.make_directories().await?;
        let value = serde_json::to_string(value).expect("users and roles have a JSON form");
        self.run("PUT", path, value, false, Some(prev_exist)).await
    }

    async fn delete(&self, path: &str) -> Result<(), AuthError> {
        self.make_directories().await?;
        self.run("DELETE", path, String::new(), false, Some(true)).await
    }

    async fn make_directories(&self) -> Result<(), AuthError> {
        let steps = [("/2", true), ("/2/users", true), ("/2/roles", true), ("/2/enabled", false)];
        for (path, dir) in steps {
            if self.handle.reads().v2().get(path, false, 0).is_ok() {
                continue;
            }
            let value = if dir { String::new() } else { "false".to_owned() };
            match self.run("PUT", path, value, dir, Some(false)).await {
                Err(AuthError::Tree(error)) if error.code == Code::KeyExists => {}
                done => done?,
            }
        }
        Ok(())
    }

    async fn run(
        &self,
        method: &str,
        path: &str,
        value: String,
        dir: bool,
        prev_exist: Option<bool>,
    ) -> Result<(), AuthError> {
        let request = v2pb::Request {
            method: Some(method.to_owned()),
            path: Some(path.to_owned().into()),
            val: Some(value.into()),
            dir: Some(dir),
            prev_exist,
            time: Some(now()),
            ..v2pb::Request::default()
        };
        let done = self.handle.write_v2(request).await.map_err(AuthError::Failed)?;
        done.map(drop).map_err(AuthError::Tree)
    }

    /// Whether a request may do what only root may (V2-168).
    ///
    /// # Errors
    ///
    /// `Overloaded` if too many passwords wait to be compared.
    pub(super) async fn is_root(&self, head: &Parts) -> Result<bool, ProposeError> {
        if !self.are_enabled() {
            return Ok(true);
        }
        let user = match gives_password(head) {
            true => self.of_password(head).await?,
            false => self.of_certificate(head),
        };
        Ok(user.is_some_and(|user| user.roles.iter().flatten().any(|role| role == ROOT)))
    }

    /// Whether a request may touch a key, or all below it (V2-153, V2-164 to V2-167).
    ///
    /// # Errors
    ///
    /// As of [`Self::is_root`].
    pub(super) async fn may(
        &self,
        head: &Parts,
        key: &str,
        recursive: bool,
    ) -> Result<bool, ProposeError> {
        if !self.are_enabled() {
            return Ok(true);
        }
        let write = ![Method::GET, Method::HEAD].contains(&head.method);
        let user = if gives_password(head) {
            let Some(user) = self.of_password(head).await? else { return Ok(false) };
            user
        } else {
            let Some(user) = self.of_certificate(head) else {
                let guest = self.role(GUEST);
                return Ok(guest.is_ok_and(|guest| guest.allows(key, write, false)));
            };
            user
        };
        let mut roles = user.roles.iter().flatten().filter_map(|role| self.role(role).ok());
        Ok(roles.any(|role| role.allows(key, write, recursive)))
    }

    /// V2-165.
    async fn of_password(&self, head: &Parts) -> Result<Option<User>, ProposeError> {
        let Some((name, password)) = basic(head) else { return Ok(None) };
        let Ok(user) = self.user(&name) else { return Ok(None) };
        let passwords = self.handle.passwords();
        let is_right = passwords.is_known_or_right(&name, &password, &user.password).await?;
        Ok(is_right.then_some(user))
    }

    /// V2-166. Behind a proxy it is the proxy's certificate, which says nothing of who asks (CB-77).
    fn of_certificate(&self, head: &Parts) -> Option<User> {
        if head.headers.keys().any(|name| is_of_proxy(name.as_str())) {
            return None;
        }
        let identity = head.extensions.get::<Secured>()?.identity.as_ref()?;
        self.user(&identity.common_name).ok()
    }

    /// A password as it is stored, in the form that Go writes.
    async fn hash(&self, password: &str) -> Result<String, AuthError> {
        self.handle.passwords().hash_for_v2(password).await.map_err(AuthError::Failed)
    }
}

/// Whether a request says who asks; an empty header says nothing.
fn gives_password(head: &Parts) -> bool {
    head.headers.get(header::AUTHORIZATION).is_some_and(|value| !value.is_empty())
}

/// The name and password of a request.
fn basic(head: &Parts) -> Option<(String, String)> {
    let text = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (kind, text) = text.split_once(' ')?;
    if !kind.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn absent(error: AuthError, text: &str) -> AuthError {
    match error {
        AuthError::Tree(error) if error.code == Code::KeyNotFound => {
            refused(StatusCode::NOT_FOUND, text)
        }
        error @ (AuthError::Tree(_) | AuthError::Refused { .. } | AuthError::Failed(_)) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-164.
    #[test]
    fn patterns_are_paths_or_begin_them() {
        let list = |patterns: &[&str]| Some(patterns.iter().map(|&it| it.to_owned()).collect());
        let patterns = Patterns { read: list(&["/a", "/b/*"]), write: None };
        for (key, recursive, expected) in [
            ("/a", false, true),
            ("/a", true, false),
            ("/a/b", false, false),
            ("/b/c", false, true),
            ("/b/c", true, true),
            ("/b", true, false),
        ] {
            assert_eq!(patterns.allow(key, false, recursive), expected, "{key} {recursive}");
        }
        assert!(!patterns.allow("/a", true, false));
        let patterns = Patterns { read: list(&["/\u{10ffff}*"]), write: None };
        let key = v2store::text::of_bytes("/\u{10ffff}/x".as_bytes());
        assert!(patterns.allow(&key, false, true));
        assert!(!patterns.allow(&v2store::text::of_bytes(b"/\xff/x"), false, true));
        assert!(Role::everything(ROOT).allows("/x", true, true));
    }

    /// V2-157, V2-162.
    #[test]
    fn users_and_roles_are_stored_as_go_writes_them() {
        let user: User = serde_json::from_str("{\"user\":\"u\",\"password\":\"p\"}").unwrap();
        let text = serde_json::to_string(&user.with_own_role()).unwrap();
        assert_eq!(text, "{\"user\":\"u\",\"password\":\"p\",\"roles\":null}");
        let root = User { user: ROOT.into(), ..User::default() }.with_own_role();
        assert_eq!(
            serde_json::to_string(&root).unwrap(),
            "{\"user\":\"root\",\"roles\":[\"root\"]}"
        );
        let role = Role { role: "r".into(), ..Role::default() };
        assert_eq!(
            serde_json::to_string(&role).unwrap(),
            "{\"role\":\"r\",\"permissions\":{\"kv\":{\"read\":null,\"write\":null}}}"
        );
        let grant: Role =
            serde_json::from_str("{\"role\":\"r\",\"grant\":{\"kv\":{\"read\":[\"/b\",\"/a\"]}}}")
                .unwrap();
        assert!(grant.changes());
        let changed = role.permissions.changed(&grant).unwrap();
        assert_eq!(changed.kv.read.as_deref().unwrap(), ["/a", "/b"]);
        assert!(changed.changed(&grant).is_err());
    }
}
