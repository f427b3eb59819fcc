//! Lives of the simulator: how many, which situations they never met, which bugs they find.
//!
//! Names of reach markers and mutants are read from the sources: what stands there is the list.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// From so many lives on, every situation must have been met.
const LIVES_THAT_MEET_ALL: u64 = 10_000;

/// Lives in which a mutant must be found.
const LIVES_TO_FIND: u64 = 10_000;

/// Lives that CI lives twice.
const TWICE: u64 = 200;

/// Lives of CI that are other ones for each commit: they find what no life found before.
const CI_NEW: u64 = 5_000;

/// Lives of CI that are the same for every commit. The rarest situations are met in few lives of ten
/// thousand: of so many new ones some would miss a situation by chance (6.7 % of all 5,000, 0.27 % of
/// all 10,000), and CI would fail for a commit that changed nothing. These meet the same ones whenever
/// the code is the same, so that what is missed after all was lost by the commit. A commit that makes
/// other lives of these seeds has the chance of 10,000 new ones.
const CI_FIXED: Range<u64> = 2_000_380_000..2_000_385_000;

/// Seconds for each half of them. A busy machine needs some minutes: only lives that hang meet this.
const CI_SECONDS_MAX: u64 = 25 * 60;

/// Seeds that found something.
const KEPT: &str = "testing/sim/seeds.txt";

/// Calls that meet a situation, and which of their arguments is its name.
const REACHED: [(&str, usize); 2] = [("reached(", 0), ("mark_stop(", 1)];

/// Calls that make a bug.
const MUTANT: [(&str, usize); 1] = [("mutant(", 0)];

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
    /// Live those that found something, and nothing else.
    pub(crate) kept: bool,
}

impl Options {
    /// Reads the words behind `sim`.
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Self {
            seeds: 1000,
            from: 0,
            jobs: u64::try_from(jobs)?,
            seconds: None,
            mutants: None,
            kept: false,
        };
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
                "--kept" => options.kept = true,
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
    if let Some(part) = &options.mutants {
        return find_mutants(&program, options, part);
    }
    if options.kept {
        return live_kept(&program, options).map(|_| ());
    }
    let lived = live(&program, options)?;
    if options.seconds.is_none() {
        lived.check_all(options)?;
    }
    let missed = tell_missed(&lived.marks)?;
    if LIVES_THAT_MEET_ALL <= lived.lives && 0 < missed {
        bail!("{} lives never met {missed} situations", lived.lives);
    }
    Ok(())
}

/// What CI does: the lives that once failed, some lives twice, new ones from a seed that the commit
/// decides, and those that are always the same.
pub(crate) fn ci() -> anyhow::Result<()> {
    let program = build()?;
    let options = Options::parse(&[])?;
    let mut marks = live_kept(&program, &options)?;
    let first = seed_of_commit();
    println!("the commit's first seed is {first}");
    let twice = Options { from: first, seeds: TWICE, ..options.clone() };
    let lived = Lived::of(&program, &twice, &["--twice"])?;
    println!("twice: {}", lived.summary);
    lived.check(&twice)?;
    lived.check_all(&twice)?;
    let seconds = Some(CI_SECONDS_MAX);
    let fixed = CI_FIXED.end - CI_FIXED.start;
    for (from, seeds) in [(first + TWICE, CI_NEW), (CI_FIXED.start, fixed)] {
        let options = Options { from, seeds, seconds, ..options.clone() };
        let lived = live(&program, &options)?;
        lived.check_all(&options)?;
        // Told for each half: if the fixed one misses something, it needs another first seed.
        tell_missed(&lived.marks)?;
        marks.extend(lived.marks);
    }
    println!("all together:");
    let missed = tell_missed(&marks)?;
    if 0 < missed {
        bail!("no life met {missed} of the situations");
    }
    find_quick_mutants(&program, &options)
}

/// Lives what once failed, in the build in which it failed: with failpoints. The situations met.
fn live_kept(program: &Path, options: &Options) -> anyhow::Result<BTreeSet<String>> {
    let text = fs::read_to_string(crate::root().join(KEPT)).context(KEPT)?;
    let seeds = kept_seeds(&text)?;
    let mut marks = BTreeSet::new();
    for (seed, reason) in &seeds {
        let one = Options { from: *seed, seeds: 1, seconds: None, ..options.clone() };
        let lived = Lived::of(program, &one, &["--shrink"])?;
        lived.check(&one).with_context(|| format!("kept seed {seed}: {reason}"))?;
        lived.check_all(&one)?;
        marks.extend(lived.marks);
    }
    println!("{} kept seeds: all went well", seeds.len());
    Ok(marks)
}

/// The seeds of [`KEPT`], and what each found.
fn kept_seeds(text: &str) -> anyhow::Result<Vec<(u64, &str)>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let (seed, reason) = line.split_once(' ').with_context(|| format!("no reason: {line}"))?;
        Ok((seed.parse().with_context(|| format!("no seed: {line}"))?, reason))
    });
    parsed.collect()
}

/// Whether the judges are awake: mutants that any few lives find, of different parts, are found.
fn find_quick_mutants(program: &Path, options: &Options) -> anyhow::Result<()> {
    for name in QUICK_MUTANTS {
        let options = Options { from: 1, seeds: 2_000, seconds: None, ..options.clone() };
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
    /// Its last line: how many lives, how long, and what happened in them.
    summary: String,
    marks: BTreeSet<String>,
    found: Option<String>,
}

impl Lived {
    /// Runs the simulator; what it says is passed on, but for the marks and the summary.
    fn of(program: &Path, options: &Options, more: &[&str]) -> anyhow::Result<Self> {
        let seeds = format!("{}..{}", options.from, options.from.saturating_add(options.seeds));
        let mut command = Command::new(program);
        command.args(["--seeds", &seeds, "--jobs", &options.jobs.to_string()]).args(more);
        if let Some(seconds) = options.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("running the simulator")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut lived = Self {
            succeeded: false,
            lives: 0,
            summary: String::new(),
            marks: BTreeSet::new(),
            found: None,
        };
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(mark) = line.strip_prefix("mark ") {
                let name = mark.split_once(' ').map_or(mark, |(_, name)| name);
                lived.marks.insert(name.to_owned());
                continue;
            }
            if let Some((lives, _)) = line.split_once(" lives in ")
                && let Ok(lives) = lives.parse()
            {
                (lived.lives, lived.summary) = (lives, line);
                continue;
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
    /// Fails unless all were lived.
    fn check_all(&self, options: &Options) -> anyhow::Result<()> {
        if self.lives == options.seeds {
            return Ok(());
        }
        bail!("only {} of {} lives were lived", self.lives, options.seeds)
    }
}

/// Lives lives; of one that fails it leaves out faults.
fn live(program: &Path, options: &Options) -> anyhow::Result<Lived> {
    let lived = Lived::of(program, options, &["--shrink"])?;
    println!("from {}: {}", options.from, lived.summary);
    lived.check(options)?;
    Ok(lived)
}

/// Tells which situations were not met; how many.
fn tell_missed(marks: &BTreeSet<String>) -> anyhow::Result<usize> {
    let names = names(&REACHED)?;
    let unknown: Vec<&str> = marks.difference(&names).map(String::as_str).collect();
    if !unknown.is_empty() {
        bail!("met, but not found in the sources (see REACHED): {}", unknown.join(", "));
    }
    let missed: Vec<&String> = names.difference(marks).collect();
    println!("{} of {} situations were met", names.len() - missed.len(), names.len());
    for name in &missed {
        println!("never met: {name}");
    }
    Ok(missed.len())
}

fn find_mutants(program: &Path, options: &Options, part: &str) -> anyhow::Result<()> {
    let mut alive = Vec::new();
    let seeds = LIVES_TO_FIND.max(options.seeds);
    for name in names(&MUTANT)?.into_iter().filter(|name| name.contains(part)) {
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

/// The names in these calls in the sources of the core and the simulator.
fn names(calls: &[(&str, usize)]) -> anyhow::Result<BTreeSet<String>> {
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
                for (call, nth) in calls {
                    names.extend(names_in(&text, call, *nth));
                }
            }
        }
    }
    Ok(names)
}

/// The texts that are the `nth` argument of a call, wherever the formatter broke the line.
/// Arguments before it have no commas of their own. What is no text is passed over: the call's
/// definition, and what passes a name on.
fn names_in(text: &str, call: &str, nth: usize) -> Vec<String> {
    let is_part_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let name = |(at, _): (usize, &str)| {
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        if line.ends_with(is_part_of_name) || line.trim_start().starts_with("//") {
            return None;
        }
        let argument = text[at + call.len()..].splitn(nth + 1, ',').nth(nth)?;
        let (name, _) = argument.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(name.to_owned())
    };
    text.match_indices(call).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
//! A comment names reached("sim: not this") without a call.
    // reached("sim: nor this");
    reached("sim: on a line");
    base::probe::reached(
        "sim: broken over lines, with a comma",
    );
    Some(_) => reached("sim: in an arm"),
    let early = surely_reached("sim: of another function");
    pub fn reached(name: &'static str) {
    reached(name);
    pub(crate) fn mark_stop(&self, at: usize, name: &'static str) {
    self.mark_stop(at, "sim: the power goes");
    self.mark_stop(
        at,
        "sim: the power goes, on a line of its own",
    );
    set_mutant("no-mutant");
    if mutant("a-mutant") && mutant(
        "another") {
"#;

    fn all(calls: &[(&str, usize)]) -> Vec<String> {
        calls.iter().flat_map(|(call, nth)| names_in(SOURCE, call, *nth)).collect()
    }

    #[test]
    fn every_situation_of_the_sources_is_found() {
        let expected = [
            "sim: on a line",
            "sim: broken over lines, with a comma",
            "sim: in an arm",
            "sim: the power goes",
            "sim: the power goes, on a line of its own",
        ];
        assert_eq!(all(&REACHED), expected);
    }

    #[test]
    fn every_mutant_of_the_sources_is_found() {
        assert_eq!(all(&MUTANT), ["a-mutant", "another"]);
    }

    /// A situation that is not on the list can be lost without a word, as these could.
    #[test]
    fn names_that_are_not_beside_their_call_are_on_the_list() {
        let names = names(&REACHED).unwrap();
        for name in [
            "member: a renewal of a lease that has ended waits for its revoke",
            "sim: the power goes while a member starts",
            "sim: the power goes while the log is written",
            "sim: the power goes while the database is committed",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn kept_seeds_are_read_with_their_reasons() {
        let seeds = kept_seeds("# a comment\n7 a cause\n\n12 another, of 3 words\n").unwrap();
        assert_eq!(seeds, [(7, "a cause"), (12, "another, of 3 words")]);
        assert!(kept_seeds("7\n").is_err());
        assert!(kept_seeds("seven a cause\n").is_err());
    }

    #[test]
    fn the_file_of_kept_seeds_is_read_whole() {
        let text = fs::read_to_string(crate::root().join(KEPT)).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(|first: char| first != '#'));
        assert_eq!(kept_seeds(&text).unwrap().len(), lines.count());
    }
}
