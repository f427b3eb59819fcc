//! Lives clusters' lives: one seed with its story, or many side by side. `cargo xtask sim` builds it
//! with reach markers and mutants and reads what it prints.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool that prints")]

mod arguments;
mod shrinking;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retcd_sim::{Counts, Failure, Life, Report};

use crate::arguments::{Arguments, USAGE};
use crate::shrinking::shrink;

/// A third of a life is spent on memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often the progress is shown on a terminal.
const PROGRESS: Duration = Duration::from_millis(500);

thread_local! {
    /// Whether panics of this thread are awaited, and so need not be shown: a mutant's, or one that
    /// was shown when the life was whole.
    static AWAITS_PANICS: Cell<bool> = const { Cell::new(false) };
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("error: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !AWAITS_PANICS.get() {
            shown(panic);
        }
    }));
    if Run::new(&arguments).all() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Many lives side by side.
struct Run<'a> {
    arguments: &'a Arguments,
    started: Instant,
    next: AtomicU64,
    lived: AtomicU64,
    failed: AtomicBool,
    total: Mutex<Total>,
}

#[derive(Default)]
struct Total {
    counts: Counts,
    entries: u64,
    failures: u64,
    marks: BTreeMap<&'static str, u64>,
}

/// One life in so many may be too long for the judges of histories.
const UNJUDGED_ONE_IN: u64 = 1000;

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        Self {
            arguments,
            started: Instant::now(),
            next: AtomicU64::new(arguments.seeds.start),
            lived: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            total: Mutex::default(),
        }
    }

    /// Whether all went well.
    fn all(&self) -> bool {
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.arguments.jobs).map(|_| scope.spawn(|| self.work())).collect();
            if std::io::stderr().is_terminal() && !self.arguments.trace {
                while workers.iter().any(|worker| !worker.is_finished()) {
                    eprint!("\r{}", self.progress());
                    std::thread::sleep(PROGRESS);
                }
                eprintln!();
            }
        });
        let progress = self.progress();
        let total = self.total.lock().expect("no job panics while it counts");
        for (name, count) in &total.marks {
            println!("mark {count} {name}");
        }
        println!("{progress}: {} entries, {:?}", total.entries, total.counts);
        let lives = self.lived.load(Ordering::Relaxed);
        if lives / UNJUDGED_ONE_IN + 1 < total.counts.unjudged {
            println!("the judges gave up in too many lives");
            return false;
        }
        !self.failed.load(Ordering::Relaxed)
    }

    fn progress(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let lives = self.lived.load(Ordering::Relaxed);
        let failures = self.total.lock().expect("no job panics while it counts").failures;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = lives as f64 * 60.0 / seconds;
        format!("{lives} lives in {seconds:.1} s, {rate:.0} a minute, {failures} failed")
    }

    fn work(&self) {
        let arguments = self.arguments;
        retcd_sim::set_mutant(arguments.mutant);
        // The product's own assertions are among those that find it.
        AWAITS_PANICS.set(arguments.mutant.is_some());
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let stop = self.failed.load(Ordering::Relaxed) && !arguments.go_on;
            let late = arguments.seconds.is_some_and(|limit| limit <= self.started.elapsed());
            if arguments.seeds.end <= seed || stop || late {
                return;
            }
            let life = Life { seed, tell: arguments.trace, without: arguments.without.clone() };
            let report = self.one(&life);
            self.lived.fetch_add(1, Ordering::Relaxed);
            self.failed.fetch_or(report.is_none(), Ordering::Relaxed);
            let mut total = self.total.lock().expect("no job panics while it counts");
            match report {
                Some(report) => {
                    total.counts.add(&report.counts);
                    total.entries += report.entries;
                }
                None => total.failures += 1,
            }
            for (name, count) in retcd_sim::take_reached() {
                *total.marks.entry(name).or_insert(0) += count;
            }
        }
    }

    fn one(&self, life: &Life) -> Option<Report> {
        let first = match life.live() {
            Ok(report) => report,
            Err(failure) => {
                self.tell_failure(life, *failure);
                return None;
            }
        };
        if self.arguments.twice {
            let second = life.live().map_err(|failure| failure.to_string());
            if second != Ok(first) {
                let again = self.again(life);
                println!(
                    "seed {} is not the same twice: {first:?}, {second:?}\n{again}",
                    life.seed
                );
                return None;
            }
        }
        Some(first)
    }

    fn tell_failure(&self, life: &Life, failure: Failure) {
        if self.arguments.mutant.is_some() {
            let what = failure.what.lines().next().unwrap_or_default();
            let what = what.chars().take(200).collect::<String>();
            println!("seed {} found it: {what}", failure.seed);
            return;
        }
        let (life, failure) = if self.arguments.shrink {
            AWAITS_PANICS.set(true);
            let shrunk = shrink(life, failure, Life::live);
            AWAITS_PANICS.set(false);
            shrunk
        } else {
            (life.clone(), failure)
        };
        // In one piece: other jobs may have something to tell, too.
        println!("{}\n{}", failure.told(), self.again(&life));
    }

    /// The command that lives a life again. Failpoints are armed only in a build with the feature, so
    /// that a life is another one without it.
    fn again(&self, life: &Life) -> String {
        let features = if cfg!(feature = "probes") { " --features probes" } else { "" };
        let without: Vec<String> = life.without.iter().map(u64::to_string).collect();
        let without = match without.is_empty() {
            true => String::new(),
            false => format!(" --without {}", without.join(",")),
        };
        let twice = if self.arguments.twice { " --twice" } else { "" };
        let seed = life.seed;
        format!(
            "again: cargo run --locked --profile sim -p retcd-sim{features} -- --seed {seed}{without}\
             {twice} --trace"
        )
    }
}
