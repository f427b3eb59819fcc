//! `etcdctl`: the command-line client.
//!
//! It parses, runs one command and leaves with that command's exit code. What is printed where is
//! etcd's contract with scripts: results on standard output, everything else on standard error.
//!
//! There are two dialects, one for each generation of the API; see [`v2::dialect`].
//!
//! etcd: `etcdctl/main.go`, `etcdctl/ctlv3/ctl.go`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod call;
mod commands;
mod concurrency;
mod hint;
mod offline;
mod run;
mod terminal;
mod v2;
mod words;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::os::survive_file_size_limit();
    let words: Vec<_> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let api = std::env::var("ETCDCTL_API").unwrap_or_default();
    if !["", "2", "3"].contains(&api.as_str()) {
        // CTL2-01.
        eprintln!("unsupported API version {api}");
        return ExitCode::FAILURE;
    }
    if v2::dialect::is_wanted(&words, &api) {
        return v2::run(&words, &api);
    }
    if let Some(words) = offline::words(&words) {
        return offline::run(words);
    }
    run::run(&words, &api)
}
