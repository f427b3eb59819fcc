//! `watch`: shows events as they happen, or runs a program for each.
//!
//! The program's words stand behind `--`. That mark is gone once flags are read, so it is looked
//! for in the words as they were given.
//!
//! etcd: `etcdctl/ctlv3/command/watch_command.go`.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;
use cli::command::parse_line;
use cli::exit::{ExitCode, Failure};
use cli::flag::{Argument, Flag, Values};
use cli::global::WATCH_VARIABLES;
use cli::printer::{Printer, Response};
use cli::quote::quote;
use client::{Client, WatchOptions, Watcher};
use proto::etcdserverpb::WatchResponse;
use proto::mvccpb::{Event, event::EventType};
use tokio::sync::mpsc;
use tonic::Code;

use super::{Command, KEY_VALUE};
use crate::call::Call;
use crate::terminal::say;
use crate::words;

const WRONG_NUMBER: &str = "bad number of arguments";
const WRONG_NUMBER_ENVIRONMENT: &str =
    "bad number of arguments (found conflicting environment key)";
const WRONG_NUMBER_SEPARATOR: &str =
    "bad number of arguments (found separator --, but no commands)";
const CANCELED: &str = "watch is canceled by the server";

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

/// Lines of standard input that wait to be carried out.
const LINE_QUEUE_LEN: usize = 16;
/// Demands for progress that wait for a watcher.
const PROGRESS_QUEUE_LEN: usize = 16;

pub(crate) fn command() -> Command {
    let use_line = "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]";
    Command::new(use_line, "Watches events stream on keys or prefixes")
        .group(KEY_VALUE)
        .flags([
            Flag::bool("interactive", "Interactive mode").short('i'),
            Flag::bool("prefix", "Watch on a prefix if prefix is set"),
            Flag::int("rev", "Revision to start watching"),
            Flag::bool("prev-kv", "get the previous key-value pair before the event happens"),
            Flag::bool("progress-notify", "get periodic watch progress notification from server"),
        ])
        .run(|call| Box::pin(run(call)))
}

/// Key and end from the environment, in place of arguments.
#[derive(Clone, Debug)]
struct EnvironmentRange {
    key: Argument,
    range_end: Argument,
}

impl EnvironmentRange {
    fn read() -> Result<Self, Failure> {
        let [key, range_end] =
            WATCH_VARIABLES.map(|name| std::env::var_os(name).unwrap_or_default().into_vec());
        if key.is_empty() && !range_end.is_empty() {
            let (name, other) = (WATCH_VARIABLES[0], WATCH_VARIABLES[1]);
            let message = format!("{name} is empty but got {other}={}", quote(&range_end));
            return Err(Failure::bad_arguments(message));
        }
        Ok(Self { key, range_end })
    }

    fn words(&self) -> Vec<Argument> {
        [&self.key, &self.range_end].into_iter().filter(|word| !word.is_empty()).cloned().collect()
    }
}

/// What to watch and what to run.
#[derive(Clone, Debug)]
struct Plan {
    options: WatchOptions,
    program: Vec<Argument>,
}

async fn run(mut call: Call) -> Result<(), Failure> {
    call.variables = &WATCH_VARIABLES;
    let environment = EnvironmentRange::read()?;
    if call.flags.bool("interactive") {
        return run_interactively(call, environment).await;
    }
    let given: Vec<Argument> = std::env::args_os().map(OsStringExt::into_vec).collect();
    let (keys, program) = split_given(&given, &call.arguments, &environment)?;
    let (client, printer) = call.connect().await?;
    let options = options(&call.flags, &keys).map_err(Failure::bad_arguments)?;
    let watcher = client.watch(options);
    let (_progress, demands) = mpsc::channel(PROGRESS_QUEUE_LEN);
    show(watcher, printer, &program, demands).await?;
    Err(Failure::new(ExitCode::Interrupted, CANCELED))
}

/// Tells keys from the program, as they were given on the command line.
fn split_given(
    given: &[Argument],
    arguments: &[Argument],
    environment: &EnvironmentRange,
) -> Result<(Vec<Argument>, Vec<Argument>), Failure> {
    let start = given.iter().position(|word| word == b"watch").map_or(0, |start| start + 1);
    let given = &given[start.min(given.len())..];
    let (keys, program) = match given.iter().position(|word| word == b"--") {
        None => (arguments, Vec::new()),
        Some(mark) => {
            let program = given[mark + 1..].to_vec();
            if program.is_empty() {
                return Err(Failure::bad_arguments(WRONG_NUMBER_SEPARATOR));
            }
            (&arguments[..arguments.len().saturating_sub(program.len())], program)
        }
    };
    with_environment(keys, environment, !program.is_empty() || !given.is_empty())
        .map(|keys| (keys, program))
}

fn with_environment(
    keys: &[Argument],
    environment: &EnvironmentRange,
    is_anything_given: bool,
) -> Result<Vec<Argument>, Failure> {
    match (keys.is_empty(), environment.key.is_empty()) {
        (false, false) => Err(Failure::bad_arguments(WRONG_NUMBER_ENVIRONMENT)),
        (true, true) if !is_anything_given => Err(Failure::bad_arguments(WRONG_NUMBER)),
        (true, false) => Ok(environment.words()),
        (_, true) => Ok(keys.to_vec()),
    }
}

/// Reads flags and keys. The error is the text alone: what becomes of it depends on the mode.
fn options(flags: &Values, keys: &[Argument]) -> Result<WatchOptions, &'static str> {
    let [key, rest @ ..] = keys else {
        return Err(WRONG_NUMBER);
    };
    let prefix = flags.bool("prefix");
    let range_end = match rest {
        [_] if prefix => return Err("`range_end` and `--prefix` are mutually exclusive"),
        [end] => end.clone(),
        _ if prefix && key.is_empty() => vec![0],
        _ if prefix => client::prefix_end(key),
        _ => Vec::new(),
    };
    // The wire has no empty key: the first key is a zero byte.
    let key = if prefix && key.is_empty() { vec![0] } else { key.clone() };
    Ok(WatchOptions {
        key: Bytes::from(key),
        range_end: Bytes::from(range_end),
        start_revision: flags.int("rev"),
        previous_pairs: flags.bool("prev-kv"),
        progress_notify: flags.bool("progress-notify"),
    })
}

async fn run_interactively(mut call: Call, environment: EnvironmentRange) -> Result<(), Failure> {
    let (client, printer) = call.connect().await?;
    let mut lines = read_lines();
    let mut watchers = Vec::new();
    while let Some(line) = lines.recv().await {
        let Some(words) = words::split(&line) else {
            return Err(Failure::new(ExitCode::InvalidInput, "invalid syntax"));
        };
        match words.first().map(Vec::as_slice) {
            None => eprintln!("Invalid command: {line} (watch and progress supported)"),
            Some(b"watch") if words.len() < 2 && environment.key.is_empty() => {
                eprintln!("Invalid command {line} (command type or key is not provided)");
            }
            Some(b"watch") => match plan_line(&words[1..], &environment)? {
                Ok(plan) => watchers.push(start(&client, printer, plan)),
                Err(reason) => eprintln!("Invalid command {line} ({reason})"),
            },
            Some(b"progress") => {
                for watcher in &watchers {
                    // A watcher that has ended needs no progress.
                    watcher.send(()).await.ok();
                }
            }
            Some(_) => eprintln!("Invalid command {line} (only support watch)"),
        }
    }
    Err(Failure::new(ExitCode::InvalidInput, "error reading watch request line: EOF"))
}

/// Standard input line by line; a last line without its end does not count.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINE_QUEUE_LEN);
    std::thread::spawn(move || {
        let mut line = String::new();
        while std::io::stdin().read_line(&mut line).is_ok_and(|len| len > 0) {
            let Some(whole) = line.strip_suffix('\n') else {
                break;
            };
            if sender.blocking_send(whole.to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Reads a line behind the word `watch`. The outer error ends the program, the inner is told.
fn plan_line(
    words: &[Argument],
    environment: &EnvironmentRange,
) -> Result<Result<Plan, &'static str>, Failure> {
    let mark = words.iter().position(|word| word == b"--");
    let program = mark.map_or_else(Vec::new, |mark| words[mark + 1..].to_vec());
    if mark.is_some() && program.is_empty() {
        return Err(Failure::bad_arguments(WRONG_NUMBER_SEPARATOR));
    }
    let before = &words[..mark.unwrap_or(words.len())];
    let (flags, keys) = parse_line(&command(), before).map_err(Failure::bad_arguments)?;
    let keys = with_environment(&keys, environment, mark.is_some())?;
    Ok(options(&flags, &keys).map(|options| Plan { options, program }))
}

/// Lets a watch run beside the others. What is sent to the result asks it for progress.
fn start(client: &Client, printer: Printer, plan: Plan) -> mpsc::Sender<()> {
    let (sender, demands) = mpsc::channel(PROGRESS_QUEUE_LEN);
    let watcher = client.watch(plan.options);
    tokio::spawn(async move {
        if let Err(failure) = show(watcher, printer, &plan.program, demands).await {
            if let Some(message) = &failure.message {
                eprintln!("Error: {message}");
            }
            std::process::exit(i32::from(failure.code.number()));
        }
    });
    sender
}

/// Shows responses until the watch ends.
async fn show(
    mut watcher: Watcher,
    printer: Printer,
    program: &[Argument],
    mut demands: mpsc::Receiver<()>,
) -> Result<(), Failure> {
    loop {
        let next = tokio::select! {
            next = watcher.next() => next,
            Some(()) = demands.recv() => {
                watcher.request_progress();
                continue;
            }
        };
        let response = match next {
            None => return Ok(()),
            Some(Ok(response)) => response,
            // A stream that was refused is shown as a watch that was cancelled.
            Some(Err(error)) => {
                eprintln!("watch was canceled ({error})");
                let canceled = WatchResponse { canceled: true, ..WatchResponse::default() };
                printer.print(&Response::Watch(&canceled))?;
                return Ok(());
            }
        };
        if response.canceled {
            eprintln!("watch was canceled ({})", cancel_reason(&response));
        }
        if is_progress(&response) {
            let revision = response.header.map_or(0, |header| header.revision);
            say!("progress notify: {revision}");
        }
        printer.print(&Response::Watch(&response))?;
        if !program.is_empty() {
            run_for_each(&response, program).await?;
        }
    }
}

fn is_progress(response: &WatchResponse) -> bool {
    let has_revision = response.header.is_some_and(|header| header.revision != 0);
    response.events.is_empty()
        && !response.canceled
        && !response.created
        && response.compact_revision == 0
        && has_revision
}

fn cancel_reason(response: &WatchResponse) -> String {
    let reason = &response.cancel_reason;
    if response.compact_revision != 0 {
        return COMPACTED.to_owned();
    }
    if reason.is_empty() {
        return FUTURE.to_owned();
    }
    if reason.starts_with("etcdserver: ") {
        return reason.clone();
    }
    format!("rpc error: code = {:?} desc = {reason}", Code::FailedPrecondition)
}

async fn run_for_each(response: &WatchResponse, program: &[Argument]) -> Result<(), Failure> {
    let words: Vec<_> = program.iter().map(|word| std::ffi::OsStr::from_bytes(word)).collect();
    let revision = response.header.map_or(0, |header| header.revision);
    for event in &response.events {
        let mut child = tokio::process::Command::new(words[0]);
        child.args(&words[1..]).envs(variables(revision, event));
        let status = child.status().await;
        let error = match status {
            Ok(status) if status.success() => continue,
            Ok(status) => describe(status),
            Err(error) => not_started(&program[0], &error),
        };
        let quoted: Vec<_> = program.iter().map(|word| quote(word)).collect();
        eprintln!("command [{}] error ({error})", quoted.join(" "));
        return Err(Failure::silent(ExitCode::Error));
    }
    Ok(())
}

/// Why a program could not be run, as Go words it.
pub(crate) fn not_started(program: &[u8], error: &std::io::Error) -> String {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    if program.contains(&b'/') {
        let text = if is_missing { "no such file or directory" } else { "permission denied" };
        return format!("fork/exec {}: {text}", String::from_utf8_lossy(program));
    }
    let text = if is_missing { "executable file not found in $PATH" } else { "permission denied" };
    format!("exec: {}: {text}", quote(program))
}

/// How a program ended, as Go words it.
pub(crate) fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last three are quoted, as etcd hands them over.
fn variables(revision: i64, event: &Event) -> [(&'static str, String); 4] {
    let kind = match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    };
    let pair = event.kv.clone().unwrap_or_default();
    [
        ("ETCD_WATCH_REVISION", revision.to_string()),
        ("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes())),
        ("ETCD_WATCH_KEY", quote(&pair.key)),
        ("ETCD_WATCH_VALUE", quote(&pair.value)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Argument> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn environment(key: &str) -> EnvironmentRange {
        EnvironmentRange { key: key.as_bytes().to_vec(), range_end: Vec::new() }
    }

    fn split(given: &str, arguments: &str, key: &str) -> Result<(String, String), String> {
        let split = split_given(&words(given), &words(arguments), &environment(key));
        let join = |words: Vec<Argument>| String::from_utf8(words.join(&b' ')).unwrap();
        split
            .map(|(keys, program)| (join(keys), join(program)))
            .map_err(|failure| failure.message.unwrap())
    }

    /// CTL3-45.
    #[test]
    fn program_stands_behind_two_dashes() {
        let both = |keys: &str, program: &str| Ok((keys.to_owned(), program.to_owned()));
        assert_eq!(split("etcdctl watch a b", "a b", ""), both("a b", ""));
        assert_eq!(split("etcdctl watch a --rev 1 -- echo a", "a echo a", ""), both("a", "echo a"));
        assert_eq!(split("etcdctl watch a --", "a", ""), Err(WRONG_NUMBER_SEPARATOR.to_owned()));
        assert_eq!(split("etcdctl watch", "", ""), Err(WRONG_NUMBER.to_owned()));
    }

    /// CTL3-46.
    #[test]
    fn environment_stands_for_missing_keys() {
        assert_eq!(
            split("etcdctl watch -- echo x", "echo x", "k"),
            Ok(("k".to_owned(), "echo x".to_owned()))
        );
        assert_eq!(split("etcdctl watch a", "a", "k"), Err(WRONG_NUMBER_ENVIRONMENT.to_owned()));
    }
}
