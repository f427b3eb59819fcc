//! `benchmark`: load on etcd-compatible servers, and ratios of two of them.
//!
//! Not a checker of correctness, beyond counting failed requests and answers that lack rows.
//! Processor time and memory of servers are read from Linux' process table.
//!
//! Source of the workloads: etcd: tools/benchmark.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod cluster;
mod cluster_suite;
mod command;
mod connection;
mod control;
mod disk;
mod faults;
mod flags;
mod hpack;
mod http2;
mod interrupt;
mod load;
mod measurement;
mod measures;
mod process;
mod progress;
mod report;
mod server;
mod suite;
mod table;
mod target;
mod template;
mod v2;
mod watch;
mod watch_response;
mod workload;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::main()
}
