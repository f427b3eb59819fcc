//! Printing lines, asking for passwords, and showing progress.
//!
//! The password is not shown if standard input is a terminal whose echo can be switched off with
//! `stty`; otherwise it is read like any line.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use cli::exit::ExitCode;
use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line of a result. Ends the program if nobody reads any more.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::terminal::print_line(format_args!($($argument)*))
    };
}
pub(crate) use say;

/// Prints a line; see [`say`].
pub(crate) fn print_line(line: fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    if stdout.write_fmt(line).and_then(|()| stdout.write_all(b"\n")).is_err() {
        std::process::exit(i32::from(ExitCode::Unread.number()));
    }
}

/// A bar for so many steps, shown only to a person: both outputs are a terminal that says of what
/// kind it is. Programs that read the output, through a pseudo-terminal or not, see nothing.
pub(crate) fn progress_bar(steps: u64, template: &'static str) -> ProgressBar {
    let is_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
    if !is_terminal || std::env::var_os("TERM").is_none_or(|kind| kind == "dumb") {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::new(steps).with_style(style)
}

/// Prints the prompt and reads a line without its end; "" if there is none, as etcd does.
pub(crate) fn ask_password(prompt: &str) -> io::Result<String> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(prompt.as_bytes())?;
    stdout.flush()?;
    let is_hidden = io::stdin().is_terminal() && set_echo(false);
    let line = read_line();
    if is_hidden {
        set_echo(true);
    }
    // The line's end was not shown, or came from a file.
    stdout.write_all(b"\n")?;
    line
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether it worked.
fn set_echo(on: bool) -> bool {
    let word = if on { "echo" } else { "-echo" };
    let status = Command::new("stty").arg(word).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Reads the first word of the next line of standard input; "" if there is none.
pub(crate) fn read_word() -> String {
    let line = read_line().unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}
