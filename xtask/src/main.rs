//! The checks that a developer and CI run, and the code generator.

mod codegen;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("codegen") => codegen::run(args.any(|arg| arg == "--check")),
        other => {
            if let Some(other) = other {
                eprintln!("unknown task {other:?}");
            }
            eprintln!("usage: cargo xtask <codegen [--check]>");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
