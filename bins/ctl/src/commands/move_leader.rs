//! `move-leader`: hands leadership to another voter.
//!
//! etcd: `etcdctl/ctlv3/command/move_leader_command.go`.

use cli::exit::Failure;
use cli::number;
use cli::printer::Response;
use proto::etcdserverpb::{MoveLeaderRequest, StatusRequest};

use super::{Command, MAINTENANCE};
use crate::call::{Call, connect};

pub(crate) fn command() -> Command {
    let short = "Transfers leadership to another etcd cluster member.";
    Command::new("move-leader <transferee-member-id>", short)
        .group(MAINTENANCE)
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let [target] = call.exactly("move-leader command needs 1 argument")?;
    let to = number::parse_uint(&target, 16).map_err(Failure::bad_arguments)?;
    let globals = call.globals().await?;
    let options = &globals.client;
    connect(options.clone()).await?;
    for endpoint in &options.endpoints {
        let client = connect(options.at(vec![endpoint.clone()])).await?;
        let status = client.status(StatusRequest {}).await.map_err(Failure::error)?;
        let from = status.leader;
        // Only the leader itself takes this order.
        if status.header.is_none_or(|header| header.member_id != from) {
            continue;
        }
        let response = client.move_leader(MoveLeaderRequest { target_id: to }).await;
        let response = response.map_err(Failure::error)?;
        return globals.printer.print(&Response::MoveLeader { from, to, response: &response });
    }
    let endpoints = options.endpoints.join(" ");
    Err(Failure::bad_arguments(format!("no leader endpoint given at [{endpoints}]")))
}
