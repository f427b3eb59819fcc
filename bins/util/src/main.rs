//! `etcdutl`: works on the files of members that are not running, and on snapshots.
//!
//! It parses, runs one command and leaves with that command's exit code. Results go to standard
//! output, everything else to standard error, as scripts expect of etcd's tool.
//!
//! etcd: `etcdutl/main.go`, `etcdutl/ctl.go`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod call;
mod cluster;
mod commands;
mod database;
mod log;
mod report;
mod restore;
mod rewrite;
mod storage;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use cli::command::{Invocation, Outcome};

use crate::call::{Call, Handler};

fn main() -> ExitCode {
    cli::os::survive_file_size_limit();
    let words: Vec<_> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let app = commands::app(&words);
    match app.resolve(&words) {
        Outcome::Run(invocation) => run(invocation),
        Outcome::Said { stdout, stderr, code } => {
            print!("{stdout}");
            eprint!("{stderr}");
            if let Some(hint) = app.hint(&words) {
                eprintln!("hint: {hint}");
            }
            code.into()
        }
    }
}

fn run(invocation: Invocation<Handler>) -> ExitCode {
    let Invocation { run, flags, arguments, .. } = invocation;
    let Err(failure) = run(&Call { flags, arguments }) else {
        return ExitCode::SUCCESS;
    };
    if let Some(message) = &failure.message {
        eprintln!("Error: {message}");
        if let Some(remedy) = cli::os::remedy(message) {
            eprintln!("hint: {remedy}");
        }
    }
    failure.code.into()
}
