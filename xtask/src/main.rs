//! The checks that a developer and CI run, and the code generator.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task tells its developer what it does"
)]

mod ci;
mod codegen;
mod dist;
mod openapi;
mod sim;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

tasks:
  codegen [--check]   make crates/proto/src/generated from proto/, or tell whether it is current
  tidy                module comments, arrows between crates, sizes of main files
  sim [--seeds N] [--from S] [--jobs J] [--seconds T]
                      lives of the simulator, and the situations that they never met
  sim --kept          the lives that once found something (testing/sim/seeds.txt)
  sim --mutants [...] how many lives find each bug of the bank; --mutant PART for some of them
  dist [--programs DIR] [--out DIR]
                      a tar.gz and a .deb with their checksums below the target folder's dist/;
                      builds the release unless DIR has the programs
  ci [job]            what CI runs: fmt, clippy, tidy, codegen, test, failpoints, sim,
                      fuzz, deny; all of them by default";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["codegen"] => codegen::run(false),
        ["codegen", "--check"] => codegen::run(true),
        ["tidy"] => tidy::run(),
        ["dist", ref words @ ..] => {
            dist::Options::parse(words).and_then(|options| dist::run(&options))
        }
        ["ci"] => ci::run(None),
        ["ci", job] => ci::run(Some(job)),
        ["sim", ref words @ ..] => {
            sim::Options::parse(words).and_then(|options| sim::run(&options))
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder: of whoever runs this, since a target folder may serve several copies of
/// the sources and the program may have been built for another one.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    package.parent().expect("xtask is below the root").to_owned()
}
