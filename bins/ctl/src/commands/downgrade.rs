//! `downgrade`: prepares the cluster for an earlier release.
//!
//! etcd: `etcdctl/ctlv3/command/downgrade_command.go`.

use cli::exit::Failure;
use cli::printer::Response;
use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::{DowngradeRequest, DowngradeResponse};

use super::{Command, MAINTENANCE};
use crate::call::Call;

pub(crate) fn command() -> Command {
    let short = "Downgrade related commands. Use `etcdctl downgrade --help` to see subcommands";
    Command::new("downgrade <TARGET_VERSION>", short)
        .long("Downgrade related commands")
        .group(MAINTENANCE)
        .subcommands([
            Command::new(
                "validate <TARGET_VERSION>",
                "Validate downgrade capability before starting downgrade",
            )
            .run(|call| Box::pin(validate(call))),
            Command::new("enable <TARGET_VERSION>", "Start a downgrade action to cluster")
                .run(|call| Box::pin(enable(call))),
            Command::new("cancel", "Cancel the ongoing downgrade action to cluster")
                .run(|call| Box::pin(cancel(call))),
        ])
}

async fn validate(call: Call) -> Result<(), Failure> {
    let version = target(&call)?;
    run(call, DowngradeAction::Validate, version, |response| Response::DowngradeValidate(response))
        .await
}

async fn enable(call: Call) -> Result<(), Failure> {
    let version = target(&call)?;
    run(call, DowngradeAction::Enable, version, |response| Response::DowngradeEnable(response))
        .await
}

async fn cancel(call: Call) -> Result<(), Failure> {
    run(call, DowngradeAction::Cancel, String::new(), |response| {
        Response::DowngradeCancel(response)
    })
    .await
}

fn target(call: &Call) -> Result<String, Failure> {
    match call.arguments.len() {
        0 => Err(Failure::bad_arguments("TARGET_VERSION not provided")),
        1 if call.arguments[0].is_empty() => {
            Err(Failure::bad_arguments("target version not provided"))
        }
        1 => Ok(call.text(0)),
        _ => Err(Failure::bad_arguments("too many arguments")),
    }
}

async fn run(
    mut call: Call,
    action: DowngradeAction,
    version: String,
    show: fn(&DowngradeResponse) -> Response<'_>,
) -> Result<(), Failure> {
    let (client, printer) = call.connect().await?;
    let response = client.downgrade(DowngradeRequest { action: action.into(), version }).await;
    printer.print(&show(&response.map_err(Failure::error)?))
}
