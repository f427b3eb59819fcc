//! What the command line asks for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: retcd-sim (--seed N | --seeds A..B) [--jobs J] [--go-on]

  --trace         tells each step of the life
  --shrink        leaves out faults of a life that fails, as long as it fails in the same way
  --without LIST  leaves out the faults of these numbers, with commas between
  --twice         lives each life twice and compares
  --seconds S     begins no life later
  --mutant NAME   makes a bug and stops at the seed that finds it (feature `probes`)";

/// What is asked for.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
pub(crate) struct Arguments {
    pub(crate) seeds: Range<u64>,
    pub(crate) jobs: usize,
    pub(crate) trace: bool,
    pub(crate) shrink: bool,
    pub(crate) go_on: bool,
    pub(crate) twice: bool,
    pub(crate) seconds: Option<Duration>,
    pub(crate) without: BTreeSet<u64>,
    pub(crate) mutant: Option<&'static str>,
}

impl Arguments {
    /// Reads the words behind the program's name.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            seeds: 0..0,
            jobs: 1,
            trace: false,
            shrink: false,
            go_on: false,
            twice: false,
            seconds: None,
            without: BTreeSet::new(),
            mutant: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--seed" => {
                    let seed = number(&value()?)?;
                    arguments.seeds = seed..seed + 1;
                }
                "--seeds" => {
                    let text = value()?;
                    let (from, to) = text.split_once("..").ok_or("--seeds wants A..B")?;
                    arguments.seeds = number(from)?..number(to)?;
                }
                "--jobs" => {
                    let jobs = number(&value()?)?;
                    arguments.jobs = usize::try_from(jobs).map_err(|error| error.to_string())?;
                }
                "--seconds" => arguments.seconds = Some(Duration::from_secs(number(&value()?)?)),
                "--without" => {
                    let list = value()?;
                    arguments.without = list.split(',').map(number).collect::<Result<_, _>>()?;
                }
                // Once for the life of the program.
                "--mutant" => arguments.mutant = Some(value()?.leak()),
                "--trace" => arguments.trace = true,
                "--shrink" => arguments.shrink = true,
                "--go-on" => arguments.go_on = true,
                "--twice" => arguments.twice = true,
                other => return Err(format!("no such option: {other}")),
            }
        }
        if arguments.seeds.is_empty() || arguments.jobs == 0 {
            return Err("no seed to live, or nobody to live it".to_owned());
        }
        Ok(arguments)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}
