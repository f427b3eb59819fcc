//! `check`: loads a cluster and judges how it bears it.
//!
//! etcd: `etcdctl/ctlv3/command/check.go`, `pkg/report/report.go`.

mod datascale;
mod load;
mod perf;

use cli::exit::{ExitCode, Failure};
use cli::flag::Flag;
use client::{Client, prefix_end};
use proto::etcdserverpb::{CompactionRequest, DefragmentRequest, DeleteRangeRequest, RangeRequest};

use super::{Command, UTILITY};
use crate::call::{CLEANUP_TIMEOUT, connect};
use crate::terminal::say;

pub(crate) fn command() -> Command {
    let short = "commands for checking properties of the etcd cluster. \
                 Use `etcdctl check --help` to see subcommands";
    Command::new("check <subcommand>", short)
        .long("commands for checking properties of the etcd cluster")
        .group(UTILITY)
        .subcommands([perf::command(), datascale::command()])
}

const PROGRESS: &str = "{pos}/{len} {bar:40} {eta}";

/// The flags about what to do when a check is over.
fn cleanup_flags() -> [Flag; 2] {
    [
        Flag::bool("auto-compact", "Compact storage with last revision after test is finished."),
        Flag::bool("auto-defrag", "Defragment storage after test is finished."),
    ]
}

/// Reads the name of a load.
fn model(name: &str) -> Result<usize, Failure> {
    match name {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        _ => Err(Failure::new(ExitCode::BadFeature, format!("unknown load option {name}"))),
    }
}

/// Refuses to run among keys that somebody else wrote.
async fn require_unused(client: &Client, prefix: &str, command: &str) -> Result<(), Failure> {
    let request = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        limit: 1,
        ..RangeRequest::default()
    };
    let response = client.get(request).await.map_err(Failure::error)?;
    if response.kvs.is_empty() {
        return Ok(());
    }
    let quoted = cli::quote::quote(prefix.as_bytes());
    let message = format!("prefix {quoted} has keys. Delete with {command} first");
    Err(Failure::new(ExitCode::InvalidInput, message))
}

/// Deletes what a check wrote and returns the revision of that.
async fn delete_prefix(client: &Client, prefix: &str) -> Result<i64, client::Error> {
    let request = DeleteRangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        ..DeleteRangeRequest::default()
    };
    let response = client.delete(request).await?;
    Ok(response.header.map_or(0, |header| header.revision))
}

async fn compact(client: &Client, revision: i64) -> Result<(), Failure> {
    say!("Compacting with revision {revision}");
    let request = CompactionRequest { revision, physical: true };
    client.compact(request).await.map_err(Failure::error)?;
    say!("Compacted with revision {revision}");
    Ok(())
}

async fn defragment(options: &client::Options) -> Result<(), Failure> {
    for endpoint in &options.endpoints {
        let quoted = cli::quote::quote(endpoint.as_bytes());
        say!("Defragmenting {quoted}");
        let options = options.at(vec![endpoint.clone()]);
        let client = connect(options.with_command_timeout(Some(CLEANUP_TIMEOUT))).await?;
        client.defragment(DefragmentRequest {}).await.map_err(Failure::error)?;
        say!("Defragmented {quoted}");
    }
    Ok(())
}
