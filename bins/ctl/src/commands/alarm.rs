//! `alarm`: shows and clears alarms.
//!
//! etcd: `etcdctl/ctlv3/command/alarm_command.go`, `client/v3/maintenance.go`.

use cli::exit::Failure;
use cli::printer::Response;
use client::{Client, Error};
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmRequest, AlarmResponse};

use super::{Command, MAINTENANCE};
use crate::call::Call;

pub(crate) fn command() -> Command {
    let short = "Alarm related commands. Use `etcdctl alarm --help` to see subcommands";
    Command::new("alarm <subcommand>", short)
        .long("Alarm related commands")
        .group(MAINTENANCE)
        .subcommands([
            Command::new("disarm", "Disarms all alarms").run(|call| Box::pin(disarm(call))),
            Command::new("list", "Lists all alarms").run(|call| Box::pin(list(call))),
        ])
}

async fn list(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("alarm list command accepts no arguments")?;
    let (client, printer) = call.connect().await?;
    let response = list_alarms(&client).await.map_err(Failure::error)?;
    printer.print(&Response::Alarm(&response))
}

async fn disarm(mut call: Call) -> Result<(), Failure> {
    let [] = call.exactly("alarm disarm command accepts no arguments")?;
    let (client, printer) = call.connect().await?;
    let raised = list_alarms(&client).await.map_err(Failure::error)?;
    // Like etcd's client, without a header: there is one call per alarm.
    let mut cleared = AlarmResponse::default();
    for alarm in raised.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let mut response = client.alarm(request).await.map_err(Failure::error)?;
        cleared.alarms.append(&mut response.alarms);
    }
    printer.print(&Response::Alarm(&cleared))
}

/// Every alarm of every member.
pub(crate) async fn list_alarms(client: &Client) -> Result<AlarmResponse, Error> {
    let action = AlarmAction::Get.into();
    client.alarm(AlarmRequest { action, ..AlarmRequest::default() }).await
}
