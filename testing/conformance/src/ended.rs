//! A program run to its end, and what supervisors see of that.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a program may take that is expected to end, whatever else the machine does.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output and standard error.
    pub output: String,
}

impl Ended {
    /// Runs a command that is expected to end by itself; kills it if it does not.
    ///
    /// # Errors
    ///
    /// It cannot be started or does not end.
    pub fn of(command: &mut Command) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the program")?;
        let mut readers = Vec::new();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        for mut pipe in outputs.into_iter().flatten() {
            readers.push(thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = pipe.read_to_end(&mut bytes);
                (read, bytes)
            }));
        }
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if END_TIME_MAX < began.elapsed() {
                child.kill()?;
                child.wait()?;
                break None;
            }
            thread::sleep(Duration::from_millis(2));
        };
        let mut output = String::new();
        for reader in readers {
            let Ok((read, bytes)) = reader.join() else { bail!("reading a pipe panicked") };
            read?;
            output += &String::from_utf8_lossy(&bytes);
        }
        let Some(status) = status else { bail!("the program does not end; its output:\n{output}") };
        Ok(Self { status, output })
    }

    /// Runs a server that must refuse to start: exit code 1, the cause in one
    /// line of level `error` or `fatal`, every line JSON, no stack trace. Gives the cause with the remedy.
    ///
    /// # Errors
    ///
    /// It starts, or any of that is not so.
    pub fn refusal(command: &mut Command) -> anyhow::Result<String> {
        let Self { status, output } = &Self::of(command)?;
        anyhow::ensure!(status.code() == Some(1), "{status}:\n{output}");
        let mut fatal = Vec::new();
        for line in output.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            anyhow::ensure!(line.get("stacktrace").is_none(), "a stack trace:\n{output}");
            if ["error", "fatal", "panic"].iter().any(|level| line["level"] == *level) {
                fatal.push(line);
            }
        }
        anyhow::ensure!(fatal.len() == 1, "not one line says why:\n{output}");
        let text = |key: &str| fatal[0][key].as_str().unwrap_or_default();
        anyhow::ensure!(!text("error").is_empty(), "no cause:\n{output}");
        Ok(match text("remedy") {
            "" => text("error").to_owned(),
            remedy => format!("{}; {remedy}", text("error")),
        })
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}
