//! One run of a command: its flags and arguments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use cli::exit::Failure;
use cli::flag::{Argument, Values};
use cli::printer::Format;

/// What a command does.
pub(crate) type Handler = fn(&Call) -> Result<(), Failure>;

/// A command being run.
#[derive(Debug)]
pub(crate) struct Call {
    /// All flags, the global ones included.
    pub(crate) flags: Values,
    /// What is not a flag.
    pub(crate) arguments: Vec<Argument>,
}

impl Call {
    /// The only argument, a file; `otherwise` tells how many there should be.
    pub(crate) fn file(&self, otherwise: &str) -> Result<PathBuf, Failure> {
        let [file] = &self.arguments[..] else {
            return Err(Failure::bad_arguments(otherwise));
        };
        Ok(PathBuf::from(OsString::from_vec(file.clone())))
    }

    /// The folder that a flag names.
    pub(crate) fn folder(&self, flag: &str) -> PathBuf {
        PathBuf::from(self.flags.text(flag))
    }

    /// How results are to look.
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        Format::parse(self.flags.text("write-out"))
    }

    /// How long to wait for another process to release a database; `None` for ever.
    pub(crate) fn lock_timeout(&self) -> Option<Duration> {
        Some(self.flags.duration("timeout")).filter(|timeout| !timeout.is_zero())
    }
}
