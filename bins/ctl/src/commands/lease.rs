//! `lease`: grants, revokes, shows and renews leases.
//!
//! etcd: `etcdctl/ctlv3/command/lease_command.go`.

use cli::exit::{ExitCode, Failure};
use cli::flag::Flag;
use cli::number;
use cli::printer::{Format, Response};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::{Command, KEY_VALUE, REMOVE};
use crate::call::{Call, lease_id};
use crate::terminal::say;

pub(crate) fn command() -> Command {
    let short = "Lease related commands. Use `etcdctl lease --help` to see subcommands";
    Command::new("lease <subcommand>", short)
        .long("Lease related commands")
        .group(KEY_VALUE)
        .subcommands([
            Command::new("grant <ttl>", "Creates leases")
                .also(&["create", "add"])
                .run(|call| Box::pin(grant(call))),
            Command::new("revoke <leaseID>", "Revokes leases")
                .also(REMOVE)
                .run(|call| Box::pin(revoke(call))),
            Command::new("timetolive <leaseID> [options]", "Get lease information")
                .also(&["ttl", "get"])
                .flags([Flag::bool("keys", "Get keys attached to this lease")])
                .run(|call| Box::pin(time_to_live(call))),
            Command::new("list", "List all active leases").run(|call| Box::pin(list(call))),
            Command::new("keep-alive [options] <leaseID>", "Keeps leases alive (renew)")
                .also(&["renew"])
                .flags([Flag::bool(
                    "once",
                    "Resets the keep-alive time to its original value and cobrautl.Exits \
                     immediately",
                )])
                .run(|call| Box::pin(keep_alive(call))),
        ])
}

async fn grant(mut call: Call) -> Result<(), Failure> {
    let [ttl] = call.exactly("lease grant command needs TTL argument")?;
    let ttl = number::parse_int(&ttl, 10)
        .map_err(|error| Failure::bad_arguments(format!("bad TTL ({error})")))?;
    let (client, printer) = call.connect().await?;
    let response = client.lease_grant(LeaseGrantRequest { ttl, id: 0 }).await;
    let response =
        response.map_err(|error| Failure::error(format!("failed to grant lease ({error})")))?;
    printer.print(&Response::LeaseGrant(&response))
}

async fn revoke(mut call: Call) -> Result<(), Failure> {
    let [id] = call.exactly("lease revoke command needs 1 argument")?;
    let id = lease_id(&id)?;
    let (client, printer) = call.connect().await?;
    let response = client.lease_revoke(LeaseRevokeRequest { id }).await;
    let response =
        response.map_err(|error| Failure::error(format!("failed to revoke lease ({error})")))?;
    printer.print(&Response::LeaseRevoke { id, response: &response })
}

async fn time_to_live(mut call: Call) -> Result<(), Failure> {
    let [id] = call.exactly("lease timetolive command needs lease ID as argument")?;
    let (client, printer) = call.connect_patiently().await?;
    let keys = call.flags.bool("keys");
    let request = LeaseTimeToLiveRequest { id: lease_id(&id)?, keys };
    let response = client.lease_time_to_live(request).await.map_err(bad_connection)?;
    printer.print(&Response::LeaseTimeToLive { response: &response, keys })
}

async fn list(mut call: Call) -> Result<(), Failure> {
    let (client, printer) = call.connect_patiently().await?;
    let response = client.lease_leases(LeaseLeasesRequest {}).await.map_err(bad_connection)?;
    printer.print(&Response::LeaseLeases(&response))
}

async fn keep_alive(mut call: Call) -> Result<(), Failure> {
    let [id] = call.exactly("lease keep-alive command needs lease ID as argument")?;
    let id = lease_id(&id)?;
    let (client, printer) = call.connect_patiently().await?;
    if call.flags.bool("once") {
        let response = client.lease_keep_alive_once(id).await.map_err(bad_connection)?;
        return printer.print(&Response::LeaseKeepAlive(&response));
    }
    let mut renewals = client.lease_keep_alive(id);
    while let Some(response) = renewals.next().await {
        printer.print(&Response::LeaseKeepAlive(&response))?;
    }
    if printer.format == Format::Simple {
        say!("lease {id:016x} expired or revoked.");
    }
    Ok(())
}

fn bad_connection(error: client::Error) -> Failure {
    Failure::new(ExitCode::BadConnection, error)
}
