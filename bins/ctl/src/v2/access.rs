//! `user`, `role` and `auth` (CTL2-70 to CTL2-76).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/{user,role,auth}_commands.go, client/auth_{user,role}.go.

use serde_json::{Value, json};

use super::http::{Client, Until};
use super::members::{ApiError, ask, message};
use super::{Call, Done, Failure, escape};
use crate::terminal;
use crate::terminal::say;

/// Asks `/v2/auth/PATH`; every other status than these is an error.
async fn auth(
    client: &Client,
    method: &'static str,
    path: &str,
    body: Option<Value>,
    statuses: &[u16],
    until: Until,
) -> Result<Value, Failure> {
    let answered = ask(client, method, &format!("/v2/auth/{path}"), body.as_ref(), until).await;
    let (status, body) = answered.map_err(Failure::arguments)?;
    if statuses.contains(&status) {
        return Ok(body);
    }
    Err(Failure::arguments(message(status, &body)))
}

async fn connect(call: &Call) -> Result<Client, Failure> {
    let client = call.connect().await?;
    call.show_endpoints(&client);
    Ok(client)
}

fn no_arguments(call: &Call) -> Done {
    if call.own.rest.is_empty() {
        return Ok(());
    }
    Err(Failure::arguments("No arguments accepted"))
}

/// The only argument.
fn name<'c>(call: &'c Call, otherwise: &str) -> Result<&'c str, Failure> {
    match &call.own.rest[..] {
        [name] => Ok(name),
        _ => Err(Failure::arguments(otherwise)),
    }
}

fn user_name(call: &Call) -> Result<&str, Failure> {
    name(call, "Please provide a username")
}

fn role_name(call: &Call) -> Result<&str, Failure> {
    name(call, "Please provide a role name")
}

/// CTL2-75.
pub(super) async fn switch(call: &Call, method: &'static str) -> Done {
    no_arguments(call)?;
    let client = connect(call).await?;
    auth(&client, method, "enable", None, &[200, 201], client.deadline()).await?;
    say!("Authentication {}", if method == "PUT" { "Enabled" } else { "Disabled" });
    Ok(())
}

/// CTL2-72.
pub(super) async fn list_users(call: &Call) -> Done {
    no_arguments(call)?;
    let client = connect(call).await?;
    let users = auth(&client, "GET", "users", None, &[200], client.deadline()).await?;
    for user in users["users"].as_array().into_iter().flatten() {
        say!("{}", user["user"].as_str().unwrap_or_default());
    }
    Ok(())
}

/// CTL2-72.
pub(super) async fn get_user(call: &Call) -> Done {
    let name = user_name(call)?;
    let client = connect(call).await?;
    let path = format!("users/{name}");
    let user = auth(&client, "GET", &path, None, &[200], client.deadline()).await?;
    let roles = user["roles"].as_array().into_iter().flatten();
    let roles: Vec<&str> = roles.filter_map(|role| role["role"].as_str()).collect();
    // The original reads the roles twice, and the first time without their names.
    let blanks = vec![""; roles.len()];
    say!("User: {}", user["user"].as_str().unwrap_or_default());
    say!("Roles: {}", [blanks, roles].concat().join(" "));
    Ok(())
}

fn new_password() -> Result<String, Failure> {
    terminal::ask_password("New password: ")
        .map_err(|error| Failure::arguments(format!("Error reading password: {error}")))
}

/// CTL2-70.
pub(super) async fn add_user(call: &Call) -> Done {
    let given = user_name(call)?;
    let client = connect(call).await?;
    let (name, password) = match given.split_once(':') {
        Some((name, password)) => (name, password.to_owned()),
        None => (given, new_password()?),
    };
    let asked = user(name, Some(&password), None);
    let path = format!("users/{name}");
    auth(&client, "PUT", &path, Some(asked), &[200, 201], client.deadline()).await?;
    say!("User {name} created");
    Ok(())
}

/// What is to be a user; an empty password is none.
fn user(name: &str, password: Option<&str>, change: Option<(&str, &[&str])>) -> Value {
    let mut user = json!({ "user": name });
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        user["password"] = password.into();
    }
    user["roles"] = Value::Null;
    if let Some((change, roles)) = change {
        user[change] = roles.into();
    }
    user
}

/// CTL2-70.
pub(super) async fn remove_user(call: &Call) -> Done {
    let name = user_name(call)?;
    let client = connect(call).await?;
    let path = format!("users/{name}");
    auth(&client, "DELETE", &path, None, &[200, 201], client.deadline()).await?;
    say!("User {name} removed");
    Ok(())
}

/// CTL2-70.
pub(super) async fn change_password(call: &Call) -> Done {
    let name = user_name(call)?;
    let client = connect(call).await?;
    let asked = user(name, Some(&new_password()?), None);
    let path = format!("users/{name}");
    auth(&client, "PUT", &path, Some(asked), &[200], client.deadline()).await?;
    say!("Password updated");
    Ok(())
}

/// CTL2-71; `change` is `grant` or `revoke`.
pub(super) async fn change_roles(call: &Call, change: &str) -> Done {
    let roles = call.own.texts("roles");
    if roles.is_empty() {
        return Err(Failure::arguments("No roles specified; please use `--roles`"));
    }
    let name = user_name(call)?;
    let client = connect(call).await?;
    let asked = user(name, None, Some((change, &roles)));
    let path = format!("users/{name}");
    auth(&client, "PUT", &path, Some(asked), &[200], client.deadline()).await?;
    say!("User {name} updated");
    Ok(())
}

/// CTL2-73.
pub(super) async fn list_roles(call: &Call) -> Done {
    no_arguments(call)?;
    let client = connect(call).await?;
    let answered = ask(&client, "GET", "/v2/auth/roles", None, client.deadline()).await;
    let (status, roles) = answered.map_err(Failure::arguments)?;
    if status != 200 {
        return Err(Failure::arguments(ApiError::unexpected(status)));
    }
    for role in roles["roles"].as_array().into_iter().flatten() {
        say!("{}", role["role"].as_str().unwrap_or_default());
    }
    Ok(())
}

/// CTL2-73.
pub(super) async fn get_role(call: &Call) -> Done {
    let name = role_name(call)?;
    let client = connect(call).await?;
    let path = format!("roles/{name}");
    let role = auth(&client, "GET", &path, None, &[200], client.deadline()).await?;
    say!("Role: {}", role["role"].as_str().unwrap_or_default());
    for (title, kind) in [("KV Read:", "read"), ("KV Write:", "write")] {
        say!("{title}");
        let paths = role["permissions"]["kv"][kind].as_array().into_iter().flatten();
        for path in paths.filter_map(Value::as_str) {
            say!("\t{path}");
        }
    }
    Ok(())
}

fn permissions(read: Value, write: Value) -> Value {
    json!({ "kv": { "read": read, "write": write } })
}

fn role(name: &str) -> Value {
    json!({ "role": name, "permissions": permissions(Value::Null, Value::Null) })
}

/// CTL2-73.
pub(super) async fn add_role(call: &Call) -> Done {
    let name = role_name(call)?;
    let client = connect(call).await?;
    let (path, until) = (format!("roles/{name}"), client.deadline());
    if auth(&client, "GET", &path, None, &[200], until).await.is_ok() {
        return Err(Failure::arguments(format!("Role {name} already exists")));
    }
    auth(&client, "PUT", &path, Some(role(name)), &[200, 201], until).await?;
    say!("Role {name} created");
    Ok(())
}

/// CTL2-73.
pub(super) async fn remove_role(call: &Call) -> Done {
    let name = role_name(call)?;
    let client = connect(call).await?;
    let path = format!("roles/{name}");
    auth(&client, "DELETE", &path, None, &[200, 201], client.deadline()).await?;
    say!("Role {name} removed");
    Ok(())
}

/// CTL2-74; `change` is `grant` or `revoke`.
pub(super) async fn change_permission(call: &Call, change: &str) -> Done {
    let pattern = call.own.text("path").unwrap_or_default();
    if pattern.is_empty() {
        return Err(Failure::arguments("No path specified; please use `--path`"));
    }
    let canonical = escape::canonical(pattern);
    if canonical != pattern {
        let text = format!("Not canonical path; please use `--path={canonical}`");
        return Err(Failure::arguments(text));
    }
    let kinds = ["read", "write", "readwrite"].map(|kind| call.own.is_set(kind));
    if kinds.iter().filter(|given| **given).count() != 1 {
        let text = "Please specify exactly one of --read, --write or --readwrite";
        return Err(Failure::arguments(text));
    }
    let [read, write, both] = kinds;
    let paths = |wanted: bool| if wanted { json!([pattern]) } else { Value::Null };
    let name = role_name(call)?;
    let client = connect(call).await?;
    let (path, until) = (format!("roles/{name}"), client.deadline());
    let before = auth(&client, "GET", &path, None, &[200], until).await?;
    let mut asked = role(name);
    asked[change] = permissions(paths(read || both), paths(write || both));
    let after = auth(&client, "PUT", &path, Some(asked), &[200], until).await?;
    let kv = |role: &Value| role["permissions"]["kv"].clone();
    let unchanged = if kv(&before) == kv(&after) {
        let past = if change == "grant" { "granted" } else { "revoked" };
        format!("Role unchanged; already {past}")
    } else {
        String::new()
    };
    say!("{unchanged}Role {name} updated");
    Ok(())
}
