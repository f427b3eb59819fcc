//! Where lines go: standard error and output, files, the journal.
//!
//! A line is written whole by one call under one lock, so that lines never mix. What cannot be
//! written is dropped: a full disk must not stop a member that can still serve.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::Level;
use super::journal::Journal;
use super::rotate::{Rotating, Rotation};

/// A place for lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The systemd journal.
    Journal,
    /// A file, appended to.
    File(PathBuf),
}

impl Output {
    /// The output that a word of `--log-outputs` names.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "default" | "stderr" => Self::Stderr,
            "stdout" => Self::Stdout,
            "systemd/journal" => Self::Journal,
            path => Self::File(PathBuf::from(path.strip_prefix("file://").unwrap_or(path))),
        }
    }
}

/// An output cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("couldn't open sink {} of --log-outputs", .path.display())]
pub struct OpenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// All outputs, open.
#[derive(Debug)]
pub(super) struct Sink {
    targets: Mutex<Vec<Target>>,
}

#[derive(Debug)]
enum Target {
    Stderr,
    Stdout,
    Journal(Journal),
    File(File),
    Rotating(Rotating),
    #[cfg(test)]
    Memory(std::sync::Arc<Mutex<Vec<u8>>>),
}

impl Sink {
    pub(super) fn stderr() -> Self {
        Self { targets: Mutex::new(vec![Target::Stderr]) }
    }

    #[cfg(test)]
    pub(super) fn memory(lines: std::sync::Arc<Mutex<Vec<u8>>>) -> Self {
        Self { targets: Mutex::new(vec![Target::Memory(lines)]) }
    }

    pub(super) fn open(outputs: &[Output], rotation: Option<&Rotation>) -> Result<Self, OpenError> {
        // One /dev/null among them discards everything.
        if outputs.contains(&Output::File(PathBuf::from("/dev/null"))) {
            return Ok(Self { targets: Mutex::new(Vec::new()) });
        }
        let targets = outputs.iter().map(|output| Target::open(output, rotation));
        Ok(Self { targets: Mutex::new(targets.collect::<Result<_, _>>()?) })
    }

    pub(super) fn write(&self, level: Level, line: &str) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Self::write_to(&mut targets, level, line);
    }

    /// The same, unless another thread, or this one, is writing; whether it did.
    pub(super) fn try_write(&self, level: Level, line: &str) -> bool {
        let free = self.targets.try_lock();
        free.is_ok_and(|mut targets| {
            Self::write_to(&mut targets, level, line);
            true
        })
    }

    fn write_to(targets: &mut [Target], level: Level, line: &str) {
        for target in targets.iter_mut() {
            // Nobody is left to tell when the log itself cannot be written.
            drop(target.write(level, line));
        }
    }
}

impl Target {
    fn open(output: &Output, rotation: Option<&Rotation>) -> Result<Self, OpenError> {
        let error = |path: &Path, source| OpenError { path: path.to_owned(), source };
        Ok(match output {
            Output::Stderr => Self::Stderr,
            Output::Stdout => Self::Stdout,
            Output::Journal => Self::Journal(
                Journal::connect().map_err(|source| error(Path::new("systemd/journal"), source))?,
            ),
            Output::File(path) => match rotation {
                Some(rotation) => Self::Rotating(
                    Rotating::open(path, rotation).map_err(|source| error(path, source))?,
                ),
                None => Self::File(append(path).map_err(|source| error(path, source))?),
            },
        })
    }

    fn write(&mut self, level: Level, line: &str) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(line.as_bytes()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line.as_bytes())?;
                stdout.flush()
            }
            Self::Journal(journal) => journal.send(level, line),
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Rotating(file) => file.write(line),
            #[cfg(test)]
            Self::Memory(lines) => lines.lock().unwrap().write_all(line.as_bytes()),
        }
    }
}

/// Opens a file for lines at its end, making it if need be.
pub(super) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
