//! Exit codes and the error that carries one.
//!
//! etcd: `pkg/cobrautl/error.go`.

use std::fmt::Display;

/// What a tool tells the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Success,
    /// Refused or failed.
    Error,
    /// The cluster cannot be reached.
    BadConnection,
    /// Text read from standard input makes no sense.
    InvalidInput,
    /// A flag has a value that is not supported.
    BadFeature,
    /// Ended from outside.
    Interrupted,
    /// A file cannot be read or written.
    Io,
    /// Wrong arguments.
    BadArguments,
    /// Nobody reads the output any more; what a shell tells of a program that the signal ended.
    Unread,
    /// Whatever the program that was run returned.
    Child(u8),
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::BadConnection => 2,
            Self::InvalidInput => 3,
            Self::BadFeature => 4,
            Self::Interrupted => 5,
            Self::Io => 6,
            Self::BadArguments => 128,
            Self::Unread => 141,
            Self::Child(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// Why a command ends with something else than success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", message.as_deref().unwrap_or("failed"))]
pub struct Failure {
    /// What to tell the shell.
    pub code: ExitCode,
    /// What to tell the user behind `Error: `; `None` if it was told already.
    pub message: Option<String>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(code: ExitCode, message: impl Display) -> Self {
        Self { code, message: Some(message.to_string()) }
    }

    /// A failure whose reason was printed already.
    #[must_use]
    pub fn silent(code: ExitCode) -> Self {
        Self { code, message: None }
    }

    /// A refused or failed request.
    pub fn error(message: impl Display) -> Self {
        Self::new(ExitCode::Error, message)
    }

    /// Wrong arguments.
    pub fn bad_arguments(message: impl Display) -> Self {
        Self::new(ExitCode::BadArguments, message)
    }
}
