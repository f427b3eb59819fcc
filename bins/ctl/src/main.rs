//! `etcdctl`: the command-line client.
//!
//! It parses, runs one command and leaves with that command's exit code. What is printed where is
//! etcd's contract with scripts: results on standard output, everything else on standard error.
//!
//! `ETCDCTL_API=2` asks for the dialect of the second generation, whose own verbs work without it.
//!
//! etcd: `etcdctl/main.go`, `etcdctl/ctlv3/ctl.go`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod call;
mod commands;
mod concurrency;
mod terminal;
mod v2;
mod words;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use cli::command::{Invocation, Outcome};

use crate::call::{Call, Handler};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let api = std::env::var("ETCDCTL_API").unwrap_or_default();
    if !["", "2", "3"].contains(&api.as_str()) {
        // CTL2-01.
        eprintln!("unsupported API version {api}");
        return ExitCode::FAILURE;
    }
    if v2::is_wanted(&words, &api) {
        return v2::run(&words);
    }
    if let Some(hint) = v2::hint(&words, &api) {
        eprintln!("Error: {hint}");
        return ExitCode::FAILURE;
    }
    match commands::app().resolve(&words) {
        Outcome::Run(invocation) => run(invocation),
        Outcome::Said { stdout, stderr, code } => {
            eprint!("{stderr}");
            if let Some(text) = stdout.strip_suffix('\n') {
                terminal::say!("{text}");
            }
            code.into()
        }
    }
}

fn run(invocation: Invocation<Handler>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: starting: {error}");
            return cli::exit::ExitCode::Error.into();
        }
    };
    let handler = invocation.run;
    let result = runtime.block_on(handler(Call::new(invocation)));
    // A thread that waits for a line of standard input must not keep the process.
    runtime.shutdown_background();
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(message) = &failure.message {
        eprintln!("Error: {message}");
    }
    failure.code.into()
}
