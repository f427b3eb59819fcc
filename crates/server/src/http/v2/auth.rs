//! Users, roles and whether they count: `/v2/auth` (features 1.7).
//!
//! What is stored, and who may do what, is in [`accounts`](super::accounts); here are the paths, the
//! methods and the JSON.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2http/client_auth.go.

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use serde::Serialize;

use super::accounts::{Accounts, AuthError, Role, User};
use super::{JSON, go_json, message, of_cluster, read, refuse_method};
use crate::handle::Handle;
use crate::http::{not_found, with_type};

/// A user with its roles in full.
#[derive(Debug, Serialize)]
struct UserWithRoles {
    user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<Role>,
}

/// Go writes a list that was never begun as `null`.
#[derive(Debug, Serialize)]
struct Users {
    users: Option<Vec<UserWithRoles>>,
}

#[derive(Debug, Serialize)]
struct Roles {
    roles: Vec<Role>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

/// Answers a request for what is below `/v2/auth`.
pub(super) async fn answer(handle: &Handle, head: &Parts, rest: &str, body: Incoming) -> Response {
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    let answered = match parts[..] {
        ["enable"] if !rest.ends_with('/') => enable(handle, head).await,
        ["users"] => users(handle, head).await,
        ["roles"] => roles(handle, head).await,
        ["users", name] => user(handle, head, name, body).await,
        ["roles", name] => role(handle, head, name, body).await,
        ["users" | "roles", ..] => return message(StatusCode::BAD_REQUEST, "Invalid path"),
        _ => return not_found(),
    };
    match answered {
        Ok(response) => of_cluster(handle, response),
        Err(refused) => refused,
    }
}

/// Whether the method is one of these, and the request comes from root, if that counts.
async fn check(handle: &Handle, head: &Parts, methods: &'static str) -> Result<Accounts, Response> {
    if let Some(refused) = refuse_method(&head.method, methods) {
        return Err(refused);
    }
    let accounts = Accounts::of(handle);
    match accounts.is_root(head).await {
        Ok(true) => Ok(accounts),
        Ok(false) => Err(super::unauthorized()),
        Err(error) => Err(super::failed(&error)),
    }
}

/// An answer with a newline at its end, as of Go's encoder for streams.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    with_type(status, JSON, go_json(value) + "\n")
}

/// JSON with the characters that Go escapes.
fn go_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("strings and lists have a JSON form");
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn refuse(handle: &Handle, error: &AuthError) -> Response {
    let response = match error {
        AuthError::Refused { status, text } => message(*status, text),
        AuthError::Tree(error) => super::keys::refuse(error),
        AuthError::Failed(error) => super::failed(error),
    };
    of_cluster(handle, response)
}

fn empty() -> Response {
    with_type(StatusCode::OK, JSON, "")
}

/// V2-150 to V2-152.
async fn enable(handle: &Handle, head: &Parts) -> Result<Response, Response> {
    // V2-168: whether it is enabled everybody may know.
    let accounts = match head.method {
        Method::GET => Accounts::of(handle),
        _ => check(handle, head, "GET,PUT,DELETE").await?,
    };
    let failed = |error| refuse(handle, &error);
    match head.method.as_str() {
        "PUT" => accounts.enable().await.map_err(failed)?,
        "DELETE" => accounts.disable().await.map_err(failed)?,
        _ => return Ok(json(StatusCode::OK, &Enabled { enabled: accounts.are_enabled() })),
    }
    Ok(empty())
}

/// V2-155.
async fn users(handle: &Handle, head: &Parts) -> Result<Response, Response> {
    let accounts = check(handle, head, "GET").await?;
    let mut users = Vec::new();
    for name in accounts.users() {
        let user = accounts.user(&name).map_err(|error| refuse(handle, &error))?;
        let roles = user.roles.unwrap_or_default();
        let roles = roles.iter().filter_map(|role| accounts.role(role).ok()).collect();
        users.push(UserWithRoles { user: user.user, roles });
    }
    let users = (!users.is_empty()).then_some(users);
    Ok(json(StatusCode::OK, &Users { users }))
}

/// V2-162.
async fn roles(handle: &Handle, head: &Parts) -> Result<Response, Response> {
    let accounts = check(handle, head, "GET").await?;
    let roles = accounts.roles().iter().map(|role| accounts.role(role)).collect::<Result<_, _>>();
    let roles = roles.map_err(|error| refuse(handle, &error))?;
    Ok(json(StatusCode::OK, &Roles { roles }))
}

fn wrong(handle: &Handle, text: &str) -> Response {
    of_cluster(handle, message(StatusCode::BAD_REQUEST, text))
}

async fn decode<T: serde::de::DeserializeOwned>(
    handle: &Handle,
    body: Incoming,
) -> Result<T, Response> {
    let body = read(handle, body).await.unwrap_or_default();
    go_json::first(&body).ok_or_else(|| wrong(handle, "Invalid JSON in request body."))
}

/// V2-156 to V2-161.
async fn user(
    handle: &Handle,
    head: &Parts,
    name: &str,
    body: Incoming,
) -> Result<Response, Response> {
    let accounts = check(handle, head, "GET,PUT,DELETE").await?;
    let failed = |error| refuse(handle, &error);
    match head.method.as_str() {
        "PUT" => {
            let user: User = decode(handle, body).await?;
            if user.user != name {
                return Err(wrong(handle, "User JSON name does not match the name in the URL"));
            }
            let (status, mut user) = if user.changes_roles() {
                if user.has_roles() {
                    return Err(wrong(handle, "User JSON contains both roles and grant/revoke"));
                }
                (StatusCode::OK, accounts.update_user(user).await.map_err(failed)?)
            } else if user.has_roles() {
                (StatusCode::OK, accounts.create_user(user).await.map_err(failed)?)
            } else if accounts.user(name).is_ok() {
                (StatusCode::OK, accounts.update_user(user).await.map_err(failed)?)
            } else {
                (StatusCode::CREATED, accounts.create_user(user).await.map_err(failed)?)
            };
            user.password.clear();
            Ok(json(status, &user))
        }
        "DELETE" => accounts.delete_user(name).await.map_err(failed).map(|()| empty()),
        _ => {
            let user = accounts.user(name).map_err(failed)?;
            let roles = user.roles.unwrap_or_default();
            let roles = roles.iter().map(|role| accounts.role(role)).collect::<Result<_, _>>();
            let roles = roles.map_err(failed)?;
            Ok(json(StatusCode::OK, &UserWithRoles { user: user.user, roles }))
        }
    }
}

/// V2-162, V2-163.
async fn role(
    handle: &Handle,
    head: &Parts,
    name: &str,
    body: Incoming,
) -> Result<Response, Response> {
    let accounts = check(handle, head, "GET,PUT,DELETE").await?;
    let failed = |error| refuse(handle, &error);
    match head.method.as_str() {
        "PUT" => {
            let role: Role = decode(handle, body).await?;
            if role.role != name {
                return Err(wrong(handle, "Role JSON name does not match the name in the URL"));
            }
            if !role.changes() {
                accounts.create_role(&role).await.map_err(failed)?;
                return Ok(json(StatusCode::CREATED, &role));
            }
            if !role.permissions.is_empty() {
                return Err(wrong(handle, "Role JSON contains both permissions and grant/revoke"));
            }
            let role = accounts.update_role(&role).await.map_err(failed)?;
            Ok(json(StatusCode::OK, &role))
        }
        "DELETE" => accounts.delete_role(name).await.map_err(failed).map(|()| empty()),
        _ => accounts.role(name).map(|role| json(StatusCode::OK, &role)).map_err(failed),
    }
}
