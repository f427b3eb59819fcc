//! `lock`: holds a named lock, for itself or while a program runs.
//!
//! etcd: `etcdctl/ctlv3/command/lock_command.go`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use cli::exit::{ExitCode, Failure};
use cli::flag::{Argument, Flag};
use cli::printer::Response;

use super::watch::{describe, not_started};
use super::{CONCURRENCY, Command};
use crate::call::Call;
use crate::concurrency::{Held, Session, ended, one};

pub(crate) fn command() -> Command {
    Command::new("lock <lockname> [exec-command arg1 arg2 ...]", "Acquires a named lock")
        .group(CONCURRENCY)
        .flags([Flag::int("ttl", "timeout for session").or("10")])
        .run(|call| Box::pin(run(call)))
}

async fn run(mut call: Call) -> Result<(), Failure> {
    let Some((name, program)) = call.arguments.clone().split_first().map(owned) else {
        let message = "lock takes a lock name argument and an optional command to execute";
        return Err(Failure::bad_arguments(message));
    };
    let (client, printer) = call.connect_patiently().await?;
    let mut session = Session::open(&client, call.flags.int("ttl")).await?;
    let held = tokio::select! {
        held = session.acquire(&name, b"") => held?,
        () = ended() => return Err(Failure::error("context canceled")),
    };
    if !program.is_empty() {
        let result = run_program(&program, &held).await;
        let released = session.release(&held).await;
        return result.and(released);
    }
    let response = client.get(one(held.key.clone())).await.map_err(Failure::error)?;
    if response.kvs.is_empty() {
        return Err(Failure::error("lock lost on init"));
    }
    printer.print(&Response::Get(&response))?;
    tokio::select! {
        () = ended() => session.release(&held).await,
        () = session.lost() => Err(Failure::error("session expired")),
    }
}

fn owned((name, program): (&Argument, &[Argument])) -> (Argument, Vec<Argument>) {
    (name.clone(), program.to_vec())
}

async fn run_program(program: &[Argument], held: &Held) -> Result<(), Failure> {
    let words: Vec<_> = program.iter().map(|word| OsStr::from_bytes(word)).collect();
    let status = tokio::process::Command::new(words[0])
        .args(&words[1..])
        .env("ETCD_LOCK_KEY", OsStr::from_bytes(&held.key))
        .env("ETCD_LOCK_REV", held.revision.to_string())
        .status()
        .await
        .map_err(|error| Failure::error(not_started(&program[0], &error)))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(Failure::new(code.map_or(ExitCode::Error, ExitCode::Child), describe(status)))
}
