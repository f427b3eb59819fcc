//! `endpoint`: asks each endpoint about itself.
//!
//! etcd: `etcdctl/ctlv3/command/ep_command.go`.

use std::time::Instant;

use cli::duration;
use cli::exit::{ExitCode, Failure};
use cli::flag::Flag;
use cli::global::GlobalFlags;
use cli::printer::{EndpointHashKv, EndpointHealth, EndpointStatus, Response};
use client::{Client, Options};
use futures_util::future::join_all;
use proto::etcdserverpb::{
    AlarmType, HashKvRequest, MemberListRequest, RangeRequest, StatusRequest,
};

use super::alarm::list_alarms;
use super::{Command, MAINTENANCE};
use crate::call::{Call, connect};

const STATUS_LONG: &str = "When --write-out is set to simple, this command prints out \
comma-separated status lists for each endpoint.
The items in the lists are endpoint, ID, version, db size, is leader, is learner, raft term, raft \
index, raft applied index, errors.
";

/// Any key will do: being answered is what counts.
const HEALTH_KEY: &[u8] = b"health";

pub(crate) fn command() -> Command {
    let short = "Endpoint related commands. Use `etcdctl endpoint --help` to see subcommands";
    Command::new("endpoint <subcommand>", short)
        .long("Endpoint related commands")
        .group(MAINTENANCE)
        .persistent_flags([cluster_flag()])
        .subcommands([
            Command::new(
                "health",
                "Checks the healthiness of endpoints specified in `--endpoints` flag",
            )
            .run(|call| Box::pin(health(call))),
            Command::new(
                "status",
                "Prints out the status of endpoints specified in `--endpoints` flag",
            )
            .long(STATUS_LONG)
            .run(|call| Box::pin(status(call))),
            Command::new("hashkv", "Prints the KV history hash for each endpoint in --endpoints")
                .persistent_flags([Flag::int(
                    "rev",
                    "maximum revision to hash (default: latest revision)",
                )])
                .run(|call| Box::pin(hash_kv(call))),
        ])
}

/// The flag that replaces the endpoints by those of all members.
pub(crate) fn cluster_flag() -> Flag {
    Flag::bool("cluster", "use all endpoints from the cluster member list")
}

/// The endpoints to ask: those given, or with `--cluster` those of all members.
pub(crate) async fn endpoints(call: &Call, globals: &GlobalFlags) -> Result<Vec<String>, Failure> {
    if !call.flags.bool("cluster") {
        return Ok(globals.client.endpoints.clone());
    }
    let client = Client::connect(globals.client.clone()).await.map_err(Failure::error)?;
    let members = client.member_list(MemberListRequest { linearizable: true }).await;
    let members = members.map_err(|error| {
        let doing = "failed to fetch endpoints from etcd cluster member list";
        Failure::error(format!("{doing}: {error}"))
    })?;
    Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

async fn health(mut call: Call) -> Result<(), Failure> {
    let globals = call.globals().await?;
    let endpoints = endpoints(&call, &globals).await?;
    let checks = endpoints.into_iter().map(|endpoint| {
        let options = globals.client.at(vec![endpoint.clone()]);
        check_health(endpoint, options)
    });
    let list = join_all(checks).await;
    globals.printer.print(&Response::EndpointHealth(&list))?;
    if list.iter().all(|health| health.error.is_empty()) {
        return Ok(());
    }
    Err(Failure::error("unhealthy cluster"))
}

async fn check_health(endpoint: String, options: Options) -> EndpointHealth {
    let unhealthy = |took: String, error: String| EndpointHealth {
        endpoint: endpoint.clone(),
        health: false,
        took,
        error,
    };
    let client = match Client::connect(options).await {
        Ok(client) => client,
        Err(error) => return unhealthy(String::new(), error.to_string()),
    };
    let start = Instant::now();
    let request = RangeRequest { key: HEALTH_KEY.into(), ..RangeRequest::default() };
    let answer = client.get(request).await;
    let took = duration::format(start.elapsed());
    // To refuse a user the cluster has to agree on the users first, which is health enough.
    if let Err(error) = answer.as_ref().map_err(|error| error.to_string())
        && error != "etcdserver: permission denied"
    {
        return unhealthy(took, error);
    }
    let Ok(alarms) = list_alarms(&client).await else {
        return unhealthy(took, "Unable to fetch the alarm list".to_owned());
    };
    if alarms.alarms.is_empty() {
        return EndpointHealth { endpoint, health: true, took, error: String::new() };
    }
    let names = alarms.alarms.iter().map(|alarm| match alarm.alarm() {
        AlarmType::Nospace => "NOSPACE ",
        AlarmType::Corrupt => "CORRUPT ",
        AlarmType::None => "UNKNOWN ",
    });
    unhealthy(took, format!("Active Alarm(s): {}", names.collect::<String>()))
}

async fn status(mut call: Call) -> Result<(), Failure> {
    let globals = call.globals().await?;
    let mut list = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&call, &globals).await? {
        let client = connect(globals.client.at(vec![endpoint.clone()])).await?;
        match client.status(StatusRequest {}).await {
            Ok(response) => list.push(EndpointStatus { endpoint, response }),
            Err(error) => {
                failed = true;
                eprintln!("Failed to get the status of endpoint {endpoint} ({error})");
            }
        }
    }
    globals.printer.print(&Response::EndpointStatus(&list))?;
    if failed { Err(Failure::silent(ExitCode::Error)) } else { Ok(()) }
}

async fn hash_kv(mut call: Call) -> Result<(), Failure> {
    let globals = call.globals().await?;
    let mut list = Vec::new();
    let mut last_error = None;
    for endpoint in endpoints(&call, &globals).await? {
        let client = connect(globals.client.at(vec![endpoint.clone()])).await?;
        match client.hash_kv(HashKvRequest { revision: call.flags.int("rev") }).await {
            Ok(response) => list.push(EndpointHashKv { endpoint, response }),
            Err(error) => {
                eprintln!("Failed to get the hash of endpoint {endpoint} ({error})");
                last_error = Some(error);
            }
        }
    }
    globals.printer.print(&Response::EndpointHashKv(&list))?;
    last_error.map_or(Ok(()), |error| Err(Failure::error(error)))
}
