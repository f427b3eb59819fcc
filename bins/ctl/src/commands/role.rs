//! `role`: manages roles and their permissions.
//!
//! etcd: `etcdctl/ctlv3/command/role_command.go`.

use bytes::Bytes;
use cli::exit::Failure;
use cli::flag::{Argument, Flag, Values};
use cli::printer::{Response, RevokedPermission};
use proto::authpb::{Permission, permission};
use proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};

use super::{AUTHENTICATION, Command, REMOVE};
use crate::call::Call;

pub(crate) fn command() -> Command {
    let short = "Role related commands. Use `etcdctl role --help` to see subcommands";
    Command::new("role <subcommand>", short)
        .long("Role related commands")
        .group(AUTHENTICATION)
        .subcommands([
            Command::new("add <role name>", "Adds a new role").run(|call| Box::pin(add(call))),
            Command::new("delete <role name>", "Deletes a role")
                .also(REMOVE)
                .run(|call| Box::pin(delete(call))),
            Command::new("get <role name>", "Gets detailed information of a role")
                .run(|call| Box::pin(get(call))),
            Command::new("list", "Lists all roles").run(|call| Box::pin(list(call))),
            Command::new(
                "grant-permission [options] <role name> <permission type> <key> [endkey]",
                "Grants a key to a role",
            )
            .flags([
                Flag::bool("prefix", "grant a prefix permission"),
                Flag::bool(
                    "from-key",
                    "grant a permission of keys that are greater than or equal to the given key \
                     using byte compare",
                ),
            ])
            .run(|call| Box::pin(grant_permission(call))),
            Command::new(
                "revoke-permission <role name> <key> [endkey]",
                "Revokes a key from a role",
            )
            .flags([
                Flag::bool("prefix", "revoke a prefix permission"),
                Flag::bool(
                    "from-key",
                    "revoke a permission of keys that are greater than or equal to the given key \
                     using byte compare",
                ),
            ])
            .run(|call| Box::pin(revoke_permission(call))),
        ])
}

async fn add(mut call: Call) -> Result<(), Failure> {
    let [role] = call.exactly("role add command requires role name as its argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.role_add(AuthRoleAddRequest { name: role.clone() }).await;
    let response = response.map_err(Failure::error)?;
    printer.print(&Response::RoleAdd { role: &role, response: &response })
}

async fn delete(mut call: Call) -> Result<(), Failure> {
    let [role] = call.exactly("role delete command requires role name as its argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.role_delete(AuthRoleDeleteRequest { role: role.clone() }).await;
    let response = response.map_err(Failure::error)?;
    printer.print(&Response::RoleDelete { role: &role, response: &response })
}

async fn get(mut call: Call) -> Result<(), Failure> {
    let [role] = call.exactly("role get command requires role name as its argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.role_get(AuthRoleGetRequest { role: role.clone() }).await;
    let response = response.map_err(Failure::error)?;
    printer.print(&Response::RoleGet { role: &role, response: &response })
}

async fn list(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("role list command requires no arguments")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.role_list(AuthRoleListRequest {}).await.map_err(Failure::error)?;
    printer.print(&Response::RoleList(&response))
}

async fn grant_permission(mut call: Call) -> Result<(), Failure> {
    if call.arguments.len() < 3 {
        let message = "role grant command requires role name, permission type, and key [endkey] \
            as its argument";
        return Err(Failure::bad_arguments(message));
    }
    let role = call.text(0);
    let perm_type = permission_type(&call.text(1))?.into();
    let (key, range_end) = permission_range(&call.flags, &call.arguments[2..])?;
    let (client, printer) = call.connect_patiently().await?;
    let perm = Some(Permission { perm_type, key, range_end });
    let request = AuthRoleGrantPermissionRequest { name: role.clone(), perm };
    let response = client.role_grant_permission(request).await.map_err(Failure::error)?;
    printer.print(&Response::RoleGrantPermission { role: &role, response: &response })
}

async fn revoke_permission(mut call: Call) -> Result<(), Failure> {
    if call.arguments.len() < 2 {
        let message = "role revoke-permission command requires role name and key [endkey] as its \
            argument";
        return Err(Failure::bad_arguments(message));
    }
    let role = call.text(0);
    let (key, range_end) = permission_range(&call.flags, &call.arguments[1..])?;
    let (client, printer) = call.connect_patiently().await?;
    let request =
        AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end: range_end.clone() };
    let response = client.role_revoke_permission(request).await.map_err(Failure::error)?;
    printer.print(&Response::RoleRevokePermission(RevokedPermission {
        role: &role,
        key: &call.arguments[1],
        range_end: &range_end,
        response: &response,
    }))
}

fn permission_type(word: &str) -> Result<permission::Type, Failure> {
    let kind = permission::Type::from_str_name(&word.to_uppercase());
    kind.ok_or_else(|| Failure::bad_arguments(format!("invalid permission type: {word}")))
}

/// The key and the end that a permission is stored with. The empty key is stored as a zero byte.
fn permission_range(flags: &Values, words: &[Argument]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let exclusive =
        || Failure::bad_arguments("--from-key and --prefix flags are mutually exclusive");
    let zero = || Bytes::from_static(&[0]);
    let key = Bytes::from(words[0].clone());
    if key.is_empty() {
        return match (prefix, from_key) {
            (true, true) => Err(exclusive()),
            (false, false) => Ok((zero(), Bytes::new())),
            (true, false) | (false, true) => Ok((zero(), zero())),
        };
    }
    if let Some(end) = words.get(1) {
        let unexpected = |flag: &str| {
            Failure::bad_arguments(format!("unexpected endkey argument with --{flag} flag"))
        };
        return match (prefix, from_key) {
            (true, _) => Err(unexpected("prefix")),
            (_, true) => Err(unexpected("from-key")),
            (false, false) => Ok((key, Bytes::from(end.clone()))),
        };
    }
    let end = match (prefix, from_key) {
        (true, true) => return Err(exclusive()),
        (true, false) => Bytes::from(client::prefix_end(&key)),
        (false, true) => zero(),
        (false, false) => Bytes::new(),
    };
    Ok((key, end))
}
