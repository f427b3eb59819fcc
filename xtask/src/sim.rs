//! Lives of the simulator: how many, which situations they never met, which bugs they find.
//!
//! Names of reach markers and mutants are read from the sources: what stands there is the list.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// From so many lives on, every situation must have been met.
const LIVES_THAT_MEET_ALL: u64 = 10_000;

/// Lives in which a mutant must be found.
const LIVES_TO_FIND: u64 = 10_000;

/// Lives that are lived twice.
const TWICE: u64 = 200;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many lives at most.
    pub(crate) seeds: u64,
    /// The first one's seed.
    pub(crate) from: u64,
    pub(crate) jobs: u64,
    /// Begin none after so many seconds.
    pub(crate) seconds: Option<u64>,
    /// Look for mutants whose name holds this; empty for all.
    pub(crate) mutants: Option<String>,
}

impl Options {
    /// Reads the words behind `sim`.
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options =
            Self { seeds: 1000, from: 0, jobs: u64::try_from(jobs)?, seconds: None, mutants: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().with_context(|| format!("{word} wants a number"))?;
                value.parse::<u64>().with_context(|| format!("{word} {value}"))
            };
            match *word {
                "--seeds" => options.seeds = number()?,
                "--from" => options.from = number()?,
                "--jobs" => options.jobs = number()?,
                "--seconds" => options.seconds = Some(number()?),
                "--mutants" => options.mutants = Some(String::new()),
                "--mutant" => {
                    let name = words.next().context("--mutant wants a part of a name")?;
                    options.mutants = Some((*name).to_owned());
                }
                other => bail!("no such option: {other}"),
            }
        }
        Ok(options)
    }
}

/// Lives lives.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let program = build()?;
    match &options.mutants {
        Some(part) => find_mutants(&program, options, part),
        None => live(&program, options, LIVES_THAT_MEET_ALL),
    }
}

/// What CI does: some lives twice, then as many new ones as fit, from a seed that the commit
/// decides.
pub(crate) fn ci() -> anyhow::Result<()> {
    let program = build()?;
    let mut options = Options::parse(&[])?;
    options.from = seed_of_commit();
    println!("the commit's first seed is {}", options.from);
    let twice = Options { seeds: TWICE, ..options.clone() };
    let lived = Lived::of(&program, &twice, &["--twice"])?;
    lived.check(&twice)?;
    options.from += TWICE;
    options.seeds = CI_LIVES;
    options.seconds = Some(CI_SECONDS_MAX);
    // The rarest situations are met a few times in so many lives: CI must not fail by chance.
    live(&program, &options, u64::MAX)?;
    find_quick_mutants(&program, &options)
}

/// Whether the judges are awake: mutants that any few lives find, of different parts, are found.
fn find_quick_mutants(program: &Path, options: &Options) -> anyhow::Result<()> {
    for name in QUICK_MUTANTS {
        let options = Options { from: 1, seeds: 400, seconds: None, ..options.clone() };
        let lived = Lived::of(program, &options, &["--mutant", name])?;
        match lived.found {
            Some(found) => println!("{name}: {} seeds; {found}", lived.lives),
            None => bail!("{name} lives on after {} seeds", lived.lives),
        }
    }
    Ok(())
}

const QUICK_MUTANTS: [&str; 13] = [
    "acknowledges-before-sync",
    "commits-old-term-by-counting",
    "compaction-takes-one-revision-too-many",
    "forgets-vote",
    "lease-spares-a-key",
    "a-new-leader-forgets-a-lease",
    "ended-leases-live-on",
    "meta-page-before-its-pages",
    "nested-transaction-is-not-looked-at",
    "progress-is-told-too-early",
    "reads-without-quorum",
    "v2-swap-overlooks-the-index",
    "what-a-failed-sync-lost-is-believed",
];

/// New lives in CI: a number, so that whoever runs it for the same commit lives the same ones.
const CI_LIVES: u64 = 5_000;

/// Seconds that CI gives to them, on a machine that does much else.
const CI_SECONDS_MAX: u64 = 600;

/// A number that is another one for each commit; 0 where there is none.
fn seed_of_commit() -> u64 {
    let output =
        Command::new("git").args(["rev-parse", "HEAD"]).current_dir(crate::root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let digits = text.as_deref().ok().and_then(|text| text.get(..10));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

fn build() -> anyhow::Result<PathBuf> {
    let arguments = ["--profile", "sim", "--locked", "-p", "retcd-sim", "--features", "probes"];
    let output = Command::new("cargo")
        .arg("build")
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(crate::root())
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!("the simulator does not build");
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.context("cargo tells no executable")
}

/// What a run printed.
struct Lived {
    succeeded: bool,
    lives: u64,
    marks: BTreeSet<String>,
    found: Option<String>,
}

impl Lived {
    /// Runs the simulator; what it says is passed on, but for the marks.
    fn of(program: &Path, options: &Options, more: &[&str]) -> anyhow::Result<Self> {
        let seeds = format!("{}..{}", options.from, options.from.saturating_add(options.seeds));
        let mut command = Command::new(program);
        command.args(["--seeds", &seeds, "--jobs", &options.jobs.to_string()]).args(more);
        if let Some(seconds) = options.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("running the simulator")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut lived = Self { succeeded: false, lives: 0, marks: BTreeSet::new(), found: None };
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(mark) = line.strip_prefix("mark ") {
                let name = mark.split_once(' ').map_or(mark, |(_, name)| name);
                lived.marks.insert(name.to_owned());
                continue;
            }
            if let Some((lives, _)) = line.split_once(" lives in ") {
                lived.lives = lives.trim().parse().unwrap_or(0);
            }
            if line.contains(" found it: ") {
                lived.found = Some(line);
            } else if !more.contains(&"--mutant") {
                println!("{line}");
            }
        }
        lived.succeeded = child.wait()?.success();
        Ok(lived)
    }

    fn check(&self, options: &Options) -> anyhow::Result<()> {
        if self.succeeded {
            return Ok(());
        }
        bail!("a life from seed {} on broke a promise", options.from)
    }
}

/// Lives lives, all of them unless time is short; from `lives_that_meet_all` on, no situation may have been missed.
fn live(program: &Path, options: &Options, lives_that_meet_all: u64) -> anyhow::Result<()> {
    let lived = Lived::of(program, options, &["--shrink"])?;
    lived.check(options)?;
    if lived.lives < options.seeds && options.seconds.is_none() {
        bail!("{} of {} lives were lived", lived.lives, options.seeds);
    }
    if lived.lives < options.seeds / 2 {
        bail!("only {} of {} lives were lived in time", lived.lives, options.seeds);
    }
    let names = names("reached(\"")?;
    let missed: Vec<&String> = names.difference(&lived.marks).collect();
    println!("{} of {} situations were met", names.len() - missed.len(), names.len());
    for name in &missed {
        println!("never met: {name}");
    }
    if lives_that_meet_all <= lived.lives && !missed.is_empty() {
        bail!("{} lives never met {} situations", lived.lives, missed.len());
    }
    Ok(())
}

fn find_mutants(program: &Path, options: &Options, part: &str) -> anyhow::Result<()> {
    let mut alive = Vec::new();
    let seeds = LIVES_TO_FIND.max(options.seeds);
    for name in names("mutant(\"")?.into_iter().filter(|name| name.contains(part)) {
        let options = Options { seeds, ..options.clone() };
        let lived = Lived::of(program, &options, &["--mutant", &name])?;
        let lives = lived.lives;
        match lived.found {
            Some(found) => println!("{name}: {lives} seeds; {found}"),
            None => {
                println!("{name}: not found in {lives} seeds");
                alive.push(name);
            }
        }
    }
    if alive.is_empty() { Ok(()) } else { bail!("alive: {}", alive.join(", ")) }
}

/// The names behind this call in the sources of the core and the simulator.
fn names(call: &str) -> anyhow::Result<BTreeSet<String>> {
    let root = crate::root();
    let mut names = BTreeSet::new();
    let mut folders = vec![root.join("crates"), root.join("testing/sim/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) {
                let text = fs::read_to_string(&path)?;
                let parts = text.split(call).skip(1);
                names.extend(parts.filter_map(|part| Some(part.split_once('"')?.0.to_owned())));
            }
        }
    }
    Ok(names)
}
