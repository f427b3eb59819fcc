//! Runs a command line of the third generation's dialect.

use std::process::ExitCode;

use cli::command::{Invocation, Outcome};

use crate::call::{Call, Handler};
use crate::{commands, hint, terminal, v2};

/// Runs the words; `api` is the variable `ETCDCTL_API`.
pub(crate) fn run(words: &[Vec<u8>], api: &str) -> ExitCode {
    let app = commands::app();
    match app.resolve(words) {
        Outcome::Run(invocation) => run_command(invocation),
        Outcome::Said { stdout, stderr, code } => {
            eprint!("{stderr}");
            if let Some(text) = stdout.strip_suffix('\n') {
                terminal::say!("{text}");
            }
            let is_refused = code != cli::exit::ExitCode::Success;
            if let Some(hint) = v2::dialect::hint(words, api).filter(|_| is_refused) {
                eprintln!("{hint}");
            }
            if hint::are_wanted()
                && let Some(text) = app.hint(words)
            {
                hint::give(text);
            }
            code.into()
        }
    }
}

fn run_command(invocation: Invocation<Handler>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: starting: {error}");
            return cli::exit::ExitCode::Error.into();
        }
    };
    let handler = invocation.run;
    let endpoints = std::env::var("ETCDCTL_ENDPOINTS")
        .unwrap_or_else(|_| invocation.flags.display("endpoints"));
    let result = runtime.block_on(handler(Call::new(invocation)));
    // A thread that waits for a line of standard input must not keep the process.
    runtime.shutdown_background();
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(message) = &failure.message {
        eprintln!("Error: {message}");
        if let Some(remedy) = cli::os::remedy(message) {
            eprintln!("hint: {remedy}");
        }
        if let Some(hint) = hint::about_failure(message, &endpoints).filter(|_| hint::are_wanted())
        {
            hint::give(hint);
        }
    }
    failure.code.into()
}
