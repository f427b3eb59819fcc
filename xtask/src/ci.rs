//! What CI runs and what a developer runs: the same commands.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

/// A job: its name and the commands it runs in order.
const JOBS: [(&str, &[&[&str]]); 6] = [
    ("fmt", &[&["cargo", "fmt", "--all", "--check"]]),
    (
        "clippy",
        &[&["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]],
    ),
    ("tidy", &[]),
    ("codegen", &[]),
    ("test", &[&["cargo", "test", "--workspace", "--locked"]]),
    ("deny", &[&["cargo", "deny", "--offline", "check", "bans", "licenses", "sources"]]),
];

/// Runs one job, or all of them until one fails.
pub(crate) fn run(only: Option<&str>) -> anyhow::Result<()> {
    let known = JOBS.iter().any(|(name, _)| only.is_none_or(|only| only == *name));
    if !known {
        bail!("no such job; there are {}", JOBS.map(|(name, _)| name).join(", "));
    }
    for (name, commands) in JOBS {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        println!("== {name}");
        let began = Instant::now();
        match name {
            "tidy" => crate::tidy::run()?,
            "codegen" => crate::codegen::run(true)?,
            _ => {}
        }
        for command in commands {
            execute(command).with_context(|| format!("job {name}"))?;
        }
        println!("== {name}: ok, {} s", began.elapsed().as_secs());
    }
    Ok(())
}

fn execute(command: &[&str]) -> anyhow::Result<()> {
    let (program, args) = command.split_first().context("a command has a program")?;
    let status = Command::new(program)
        .args(args)
        .current_dir(crate::root())
        .status()
        .with_context(|| format!("running {program}"))?;
    if !status.success() {
        bail!("`{}` ended with {status}", command.join(" "));
    }
    Ok(())
}
