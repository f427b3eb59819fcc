//! `user`: manages users.
//!
//! etcd: `etcdctl/ctlv3/command/user_command.go`.

use cli::exit::Failure;
use cli::flag::Flag;
use cli::printer::Response;
use proto::authpb::UserAddOptions;
use proto::etcdserverpb::{
    AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

use super::{AUTHENTICATION, Command, REMOVE};
use crate::call::Call;
use crate::terminal::{ask_password, read_word, say};

pub(crate) fn command() -> Command {
    let short = "User related commands. Use `etcdctl user --help` to see subcommands";
    Command::new("user <subcommand>", short)
        .long("User related commands")
        .group(AUTHENTICATION)
        .subcommands([
            add_command(),
            Command::new("delete <user name>", "Deletes a user")
                .also(REMOVE)
                .run(|call| Box::pin(delete(call))),
            Command::new("get <user name> [options]", "Gets detailed information of a user")
                .flags([Flag::bool("detail", "Show permissions of roles granted to the user")])
                .run(|call| Box::pin(get(call))),
            Command::new("list", "Lists all users").run(|call| Box::pin(list(call))),
            Command::new("passwd <user name> [options]", "Changes password of user")
                .also(&["password"])
                .flags([Flag::bool(
                    "interactive",
                    "If true, read password from stdin instead of interactive terminal",
                )
                .or("true")])
                .run(|call| Box::pin(change_password(call))),
            Command::new("grant-role <user name> <role name>", "Grants a role to a user")
                .run(|call| Box::pin(grant_role(call))),
            Command::new("revoke-role <user name> <role name>", "Revokes a role from a user")
                .run(|call| Box::pin(revoke_role(call))),
        ])
}

fn add_command() -> Command {
    Command::new("add <user name or user:password> [options]", "Adds a new user")
        .flags([
            Flag::bool("interactive", "Read password from stdin instead of interactive terminal")
                .or("true"),
            Flag::text("new-user-password", "Supply password from the command line flag"),
            Flag::bool("no-password", "Create a user without password (CN based auth only)"),
        ])
        .run(|call| Box::pin(add(call)))
}

async fn add(mut call: Call) -> Result<(), Failure> {
    let [word] = call.exactly("user add command requires user name as its argument")?;
    let no_password = call.flags.bool("no-password");
    let (user, password) =
        if no_password { (word, String::new()) } else { name_and_password(&call, word)? };
    let (client, printer) = call.connect_patiently().await?;
    let request = AuthUserAddRequest {
        name: user.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        ..AuthUserAddRequest::default()
    };
    let response = client.user_add(request).await.map_err(Failure::error)?;
    printer.print(&Response::UserAdd { user: &user, response: &response })
}

fn name_and_password(call: &Call, word: String) -> Result<(String, String), Failure> {
    let from_flag = call.flags.text("new-user-password");
    if !from_flag.is_empty() {
        return Ok((word, from_flag.to_owned()));
    }
    match word.split_once(':') {
        Some(("", _)) => Err(Failure::bad_arguments("empty user name is not allowed")),
        Some((user, password)) => Ok((user.to_owned(), password.to_owned())),
        None => {
            let password = new_password(call, &word)?;
            Ok((word, password))
        }
    }
}

/// Asks twice, or takes the next word of standard input.
fn new_password(call: &Call, user: &str) -> Result<String, Failure> {
    if !call.flags.bool("interactive") {
        return Ok(read_word());
    }
    let ask = |prompt: String| {
        ask_password(&prompt)
            .map_err(|error| Failure::bad_arguments(format!("failed to ask password: {error}")))
    };
    let password = ask(format!("Password of {user}: "))?;
    if password.is_empty() {
        return Err(Failure::bad_arguments("empty password"));
    }
    if ask(format!("Type password of {user} again for confirmation: "))? != password {
        return Err(Failure::bad_arguments("given passwords are different"));
    }
    Ok(password)
}

async fn delete(mut call: Call) -> Result<(), Failure> {
    let [user] = call.exactly("user delete command requires user name as its argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.user_delete(AuthUserDeleteRequest { name: user.clone() }).await;
    let response = response.map_err(Failure::error)?;
    printer.print(&Response::UserDelete { user: &user, response: &response })
}

async fn get(mut call: Call) -> Result<(), Failure> {
    let [user] = call.exactly("user get command requires user name as its argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.user_get(AuthUserGetRequest { name: user.clone() }).await;
    let response = response.map_err(Failure::error)?;
    if !call.flags.bool("detail") {
        return printer.print(&Response::UserGet { user: &user, response: &response });
    }
    say!("User: {user}");
    for role in response.roles {
        say!("");
        let answer = client.role_get(AuthRoleGetRequest { role: role.clone() }).await;
        let answer = answer.map_err(Failure::error)?;
        printer.print(&Response::RoleGet { role: &role, response: &answer })?;
    }
    Ok(())
}

async fn list(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("user list command requires no arguments")?;
    let (client, printer) = call.connect_patiently().await?;
    let response = client.user_list(AuthUserListRequest {}).await.map_err(Failure::error)?;
    printer.print(&Response::UserList(&response))
}

async fn change_password(mut call: Call) -> Result<(), Failure> {
    let [user] = call.exactly("user passwd command requires user name as its argument")?;
    let password = new_password(&call, &user)?;
    let (client, printer) = call.connect_patiently().await?;
    let request = AuthUserChangePasswordRequest {
        name: user,
        password,
        ..AuthUserChangePasswordRequest::default()
    };
    let response = client.user_change_password(request).await.map_err(Failure::error)?;
    printer.print(&Response::UserChangePassword(&response))
}

async fn grant_role(mut call: Call) -> Result<(), Failure> {
    let wrong = "user grant command requires user name and role name as its argument";
    let [user, role] = call.exactly(wrong)?;
    let (client, printer) = call.connect_patiently().await?;
    let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
    let response = client.user_grant_role(request).await.map_err(Failure::error)?;
    printer.print(&Response::UserGrantRole { user: &user, role: &role, response: &response })
}

async fn revoke_role(mut call: Call) -> Result<(), Failure> {
    let wrong = "user revoke-role requires user name and role name as its argument";
    let [user, role] = call.exactly(wrong)?;
    let (client, printer) = call.connect_patiently().await?;
    let request = AuthUserRevokeRoleRequest { name: user.clone(), role: role.clone() };
    let response = client.user_revoke_role(request).await.map_err(Failure::error)?;
    printer.print(&Response::UserRevokeRole { user: &user, role: &role, response: &response })
}
