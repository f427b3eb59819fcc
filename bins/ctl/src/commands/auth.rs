//! `auth`: switches auth on and off.
//!
//! etcd: `etcdctl/ctlv3/command/auth_command.go`.

use cli::exit::Failure;
use cli::printer::Response;
use client::{Client, Error};
use proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

use super::{AUTHENTICATION, Command};
use crate::call::Call;
use crate::terminal::say;

const ROOT: &str = "root";
const ROOT_HAS_NO_ROLE: &str = "etcdserver: root user does not have root role";

pub(crate) fn command() -> Command {
    let short = "Enable or disable authentication. Use `etcdctl auth --help` to see subcommands";
    Command::new("auth <enable or disable>", short)
        .long("Enable or disable authentication")
        .group(AUTHENTICATION)
        .subcommands([
            Command::new("enable", "Enables authentication").run(|call| Box::pin(enable(call))),
            Command::new("disable", "Disables authentication").run(|call| Box::pin(disable(call))),
            Command::new("status", "Returns authentication status")
                .run(|call| Box::pin(status(call))),
        ])
}

async fn enable(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("auth enable command does not accept any arguments")?;
    let (client, _) = call.connect().await?;
    enable_with_root(&client).await.map_err(Failure::error)?;
    say!("Authentication Enabled");
    Ok(())
}

/// Switches auth on, after making sure that root has the role it needs.
async fn enable_with_root(client: &Client) -> Result<(), Error> {
    match client.auth_enable(AuthEnableRequest {}).await {
        Err(error) if error.is(ROOT_HAS_NO_ROLE) => {}
        other => return other.map(drop),
    }
    client.role_add(AuthRoleAddRequest { name: ROOT.to_owned() }).await?;
    let grant = AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
    client.user_grant_role(grant).await?;
    client.auth_enable(AuthEnableRequest {}).await.map(drop)
}

async fn disable(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("auth disable command does not accept any arguments")?;
    let (client, _) = call.connect().await?;
    client.auth_disable(AuthDisableRequest {}).await.map_err(Failure::error)?;
    say!("Authentication Disabled");
    Ok(())
}

async fn status(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("auth status command does not accept any arguments")?;
    let (client, printer) = call.connect().await?;
    let response = client.auth_status(AuthStatusRequest {}).await.map_err(Failure::error)?;
    printer.print(&Response::AuthStatus(&response))
}
