//! `elect`: stands for election, or shows who leads.
//!
//! etcd: `etcdctl/ctlv3/command/elect_command.go`.

use bytes::Bytes;
use cli::exit::Failure;
use cli::flag::Flag;
use cli::printer::{Printer, Response};
use client::{Client, WatchOptions, prefix_end};
use proto::etcdserverpb::{RangeResponse, ResponseHeader};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;

use super::{CONCURRENCY, Command};
use crate::call::Call;
use crate::concurrency::{Session, ended, oldest, one};

/// Time to live of a candidate's lease, in seconds.
const TTL_SECONDS: i64 = 60;

pub(crate) fn command() -> Command {
    let short = "Observes and participates in leader election";
    Command::new("elect <election-name> [proposal]", short)
        .group(CONCURRENCY)
        .flags([Flag::bool("listen", "observation mode").short('l')])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let listen = call.flags.bool("listen");
    if call.arguments.is_empty() || call.arguments.len() > 2 {
        let message = "elect takes one election name argument and an optional proposal argument";
        return Err(Failure::bad_arguments(message));
    }
    let (client, printer) = call.connect_patiently().await?;
    match (call.arguments.get(1), listen) {
        (None, false) => Err(Failure::bad_arguments("no proposal argument but -l not set")),
        (Some(_), true) => Err(Failure::bad_arguments("proposal given but -l is set")),
        (None, true) => tokio::select! {
            result = observe(&client, printer, &call.arguments[0]) => result,
            () = ended() => Ok(()),
        },
        (Some(proposal), false) => campaign(&client, printer, &call.arguments[0], proposal).await,
    }
}

async fn campaign(
    client: &Client,
    printer: Printer,
    name: &[u8],
    proposal: &[u8],
) -> Result<(), Failure> {
    let mut session = Session::open(client, TTL_SECONDS).await?;
    let held = tokio::select! {
        held = session.acquire(name, proposal) => held?,
        () = ended() => return Err(Failure::error("context canceled")),
    };
    let response = client.get(one(held.key.clone())).await.map_err(Failure::error)?;
    printer.print(&Response::Get(&response))?;
    tokio::select! {
        () = ended() => session.release(&held).await,
        () = session.lost() => Err(Failure::error("elect: session expired")),
    }
}

/// Shows each leader, and each value a leader proclaims.
async fn observe(client: &Client, printer: Printer, name: &[u8]) -> Result<(), Failure> {
    let prefix = [name, b"/"].concat();
    loop {
        let response = client.get(oldest(&prefix)).await.map_err(Failure::error)?;
        let revision = response.header.map_or(0, |header| header.revision);
        let (revision, leader) = match response.kvs.into_iter().next() {
            Some(pair) => (revision, pair),
            None => first_candidate(client, &prefix, revision).await?,
        };
        show(printer, response.header, leader.clone())?;
        follow(client, printer, leader.key, revision + 1).await?;
    }
}

fn lost() -> Failure {
    Failure::error("elect: observer lost")
}

/// Waits for a first candidate, and returns it with the revision at which it came.
async fn first_candidate(
    client: &Client,
    prefix: &[u8],
    revision: i64,
) -> Result<(i64, KeyValue), Failure> {
    let mut watcher = client.watch(WatchOptions {
        key: Bytes::copy_from_slice(prefix),
        range_end: Bytes::from(prefix_end(prefix)),
        start_revision: revision,
        ..WatchOptions::default()
    });
    while let Some(response) = watcher.next().await {
        let response = response.map_err(|_| lost())?;
        let put = response.events.into_iter().find(|event| event.r#type() == EventType::Put);
        if let Some(pair) = put.and_then(|event| event.kv) {
            return Ok((pair.mod_revision, pair));
        }
    }
    Err(lost())
}

/// Shows what the leader proclaims until its key is deleted.
async fn follow(
    client: &Client,
    printer: Printer,
    key: Bytes,
    start_revision: i64,
) -> Result<(), Failure> {
    let mut watcher = client.watch(WatchOptions { key, start_revision, ..WatchOptions::default() });
    while let Some(response) = watcher.next().await {
        let response = response.map_err(|_| lost())?;
        for event in response.events {
            match (event.r#type(), event.kv) {
                (EventType::Delete, _) => return Ok(()),
                (EventType::Put, pair) => {
                    show(printer, response.header, pair.unwrap_or_default())?;
                }
            }
        }
    }
    Err(lost())
}

fn show(printer: Printer, header: Option<ResponseHeader>, pair: KeyValue) -> Result<(), Failure> {
    let response = RangeResponse { header, kvs: vec![pair], more: false, count: 0 };
    printer.print(&Response::Get(&response))
}
