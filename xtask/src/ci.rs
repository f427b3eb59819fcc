//! What CI runs and what a developer runs: the same commands.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// A job: its name and the commands it runs in order.
const JOBS: [(&str, &[&[&str]]); 9] = [
    ("fmt", &[&["cargo", "fmt", "--all", "--check"]]),
    (
        "clippy",
        &[&["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]],
    ),
    ("tidy", &[]),
    ("codegen", &[]),
    ("test", &[&["cargo", "test", "--workspace", "--locked"]]),
    ("failpoints", &[&FAILPOINTS]),
    ("sim", &[]),
    ("fuzz", &[]),
    // It looks at what other platforms would need too, which no build here has fetched.
    (
        "deny",
        &[
            &["cargo", "fetch", "--locked", "--quiet"],
            &["cargo", "deny", "--offline", "check", "bans", "licenses", "sources"],
        ],
    ),
];

/// Failpoints need a build of their own.
const FAILPOINTS: [&str; 9] =
    ["cargo", "test", "--locked", "-p", "etcd", "--features", "failpoints", "--test", "failpoints"];

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
            "sim" => crate::sim::ci()?,
            "fuzz" => fuzz()?,
            _ => {}
        }
        for command in commands {
            execute(command).with_context(|| format!("job {name}"))?;
        }
        println!("== {name}: ok, {} s", began.elapsed().as_secs());
    }
    Ok(())
}

/// The decoders that are fuzzed: what is read from disks, from clients and from other members.
const FUZZED: [&str; 4] = ["wal", "database", "request", "peer"];

/// Seconds for each of them.
const FUZZ_SECONDS: &str = "-max_total_time=20";

/// Fuzzes each decoder briefly, where the machine has what it takes.
fn fuzz() -> anyhow::Result<()> {
    let has = |args: &[&str]| {
        let mut command = Command::new("cargo");
        let quiet = command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !has(&["+nightly", "--version"]) || !has(&["+nightly", "fuzz", "--version"]) {
        println!("skipped: fuzzing needs a nightly toolchain and cargo-fuzz");
        return Ok(());
    }
    for target in FUZZED {
        // The kind of machine is named: cargo-fuzz otherwise takes the one it was itself built for.
        execute(&[
            "cargo",
            "+nightly",
            "fuzz",
            "run",
            "--target",
            "x86_64-unknown-linux-gnu",
            target,
            "--",
            FUZZ_SECONDS,
            "-rss_limit_mb=2048",
        ])?;
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
