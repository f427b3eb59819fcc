//! `cargo run -p retcd-sim -- --seed N`, or `--seeds A..B [--jobs J]`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool that prints")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use retcd_sim::Counts;

const USAGE: &str = "usage: retcd-sim (--seed N [--trace] | --seeds A..B [--jobs J] [--go-on])";

/// What is asked for.
#[derive(Debug)]
struct Arguments {
    seeds: Range<u64>,
    jobs: usize,
    trace: bool,
    go_on: bool,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if run(&arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { seeds: 0..0, jobs: 1, trace: false, go_on: false };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => {
                let seed: u64 = words.next()?.parse().ok()?;
                arguments.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let text = words.next()?;
                let (from, to) = text.split_once("..")?;
                arguments.seeds = from.parse().ok()?..to.parse().ok()?;
            }
            "--jobs" => arguments.jobs = words.next()?.parse().ok()?,
            "--trace" => arguments.trace = true,
            "--go-on" => arguments.go_on = true,
            _ => return None,
        }
    }
    (!arguments.seeds.is_empty()).then_some(arguments)
}

/// Whether all lives went well.
fn run(arguments: &Arguments) -> bool {
    let next = AtomicU64::new(arguments.seeds.start);
    let failed = AtomicBool::new(false);
    let total = Mutex::new(Counts::default());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = failed.load(Ordering::Relaxed) && !arguments.go_on;
                    if arguments.seeds.end <= seed || stop {
                        break;
                    }
                    let counts = one(seed, arguments.trace);
                    failed.fetch_or(counts.is_none(), Ordering::Relaxed);
                    let mut total = total.lock().expect("no job panics while it counts");
                    total.add(&counts.unwrap_or_default());
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let lives = next.load(Ordering::Relaxed).min(arguments.seeds.end) - arguments.seeds.start;
    let total = total.into_inner().expect("no job panics while it counts");
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = lives as f64 * 60.0 / seconds;
    println!("{lives} lives in {seconds:.1} s, {rate:.0} seeds/min: {total:?}");
    !failed.load(Ordering::Relaxed)
}

fn one(seed: u64, trace: bool) -> Option<Counts> {
    match catch_unwind(AssertUnwindSafe(|| retcd_sim::run(seed, trace))) {
        Ok(Ok(report)) => Some(report.counts),
        Ok(Err(failure)) => {
            for line in &failure.story {
                println!("{line}");
            }
            println!("{failure}\nagain: cargo run -p retcd-sim -- --seed {seed} --trace");
            None
        }
        Err(_) => {
            println!(
                "seed {seed} panicked\nagain: cargo run -p retcd-sim -- --seed {seed} --trace"
            );
            None
        }
    }
}
