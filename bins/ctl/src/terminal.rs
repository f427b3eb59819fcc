//! Asking for passwords.
//!
//! The password is not shown if standard input is a terminal whose echo can be switched off with
//! `stty`; otherwise it is read like any line.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

/// Prints the prompt and reads a line without its end.
pub(crate) fn ask_password(prompt: &str) -> io::Result<String> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(prompt.as_bytes())?;
    stdout.flush()?;
    let is_hidden = io::stdin().is_terminal() && set_echo(false);
    let line = read_line();
    if is_hidden {
        set_echo(true);
        stdout.write_all(b"\n")?;
    }
    line
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "EOF"));
    }
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
