//! What the program says when it starts nothing.

use std::io::Write as _;
use std::process::ExitCode;

/// Writes a text that was asked for.
pub(crate) fn print(text: &str) -> ExitCode {
    // A reader that goes away early, such as `head`, is no failure.
    drop(std::io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

/// Says why nothing is started, with the exit code for that.
pub(crate) fn fail(code: u8, text: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "{text}"));
    code.into()
}
