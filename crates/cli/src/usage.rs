//! Help texts, laid out as cobra lays them out.

use std::fmt::Write as _;

use crate::command::{Action, App, Command};
use crate::flag::{Flag, Kind};

/// Names in a list of commands are padded at least to this width.
const NAME_WIDTH_MIN: usize = 11;

/// What `--help` prints on standard output for the last command of `path`.
pub(crate) fn help<R: Copy>(app: &App<R>, path: &[&Command<R>]) -> String {
    let command = path[path.len() - 1];
    let mut out = String::new();
    let about = if command.long.is_empty() { command.short } else { command.long };
    let about = about.trim_end();
    if !about.is_empty() && !app.is_plain {
        writeln!(out, "{about}\n").expect(STRING);
    }
    out + &usage(app, path) + app.help_footer
}

/// What follows an error about flags on standard error.
pub(crate) fn usage<R: Copy>(app: &App<R>, path: &[&Command<R>]) -> String {
    let command = path[path.len() - 1];
    let command_path = command_path(path);
    let mut out = String::from("Usage:");
    if !matches!(command.action, Action::None) {
        write!(out, "\n  {}", use_line(app, path)).expect(STRING);
    }
    if !command.subcommands.is_empty() {
        write!(out, "\n  {command_path} [command]").expect(STRING);
    }
    if !command.example.is_empty() {
        write!(out, "\n\nExamples:\n{}", command.example).expect(STRING);
    }
    write_commands(app, path, &mut out);
    let local = flag_usages(&local_flags(app, path));
    if !local.is_empty() {
        write!(out, "\n\nFlags:\n{}", local.trim_end()).expect(STRING);
    }
    let inherited = flag_usages(&inherited_flags(path));
    if !inherited.is_empty() {
        write!(out, "\n\nGlobal Flags:\n{}", inherited.trim_end()).expect(STRING);
    }
    if !command.subcommands.is_empty() {
        let hint = "for more information about a command.";
        write!(out, "\n\nUse \"{command_path} [command] --help\" {hint}").expect(STRING);
    }
    out.push('\n');
    out
}

const STRING: &str = "writing to a string";

/// The names on the way to a command.
pub(crate) fn command_path<R: Copy>(path: &[&Command<R>]) -> String {
    path.iter().map(|command| command.name()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn use_line<R: Copy>(app: &App<R>, path: &[&Command<R>]) -> String {
    let (command, parents) = path.split_last().expect("a path starts at the root");
    let mut line = command_path(parents);
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(command.use_line);
    let visible =
        local_flags(app, path).iter().chain(&inherited_flags(path)).any(|flag| !flag.hidden);
    if command.flags_in_use_line && visible {
        line.push_str(" [flags]");
    }
    line
}

/// The command's own flags, with `--help`, which is hidden at the root like the global flags unless
/// the tool is a plain one.
fn local_flags<R: Copy>(app: &App<R>, path: &[&Command<R>]) -> Vec<Flag> {
    let command = path[path.len() - 1];
    let mut flags: Vec<Flag> =
        command.flags.iter().chain(&command.persistent_flags).cloned().collect();
    flags.push(Flag { hidden: path.len() == 1 && !app.is_plain, ..command.help_flag() });
    flags
}

fn inherited_flags<R: Copy>(path: &[&Command<R>]) -> Vec<Flag> {
    let parents = &path[..path.len() - 1];
    parents.iter().rev().flat_map(|parent| parent.persistent_flags.iter().cloned()).collect()
}

fn write_commands<R: Copy>(app: &App<R>, path: &[&Command<R>], out: &mut String) {
    let command = path[path.len() - 1];
    if command.subcommands.is_empty() {
        return;
    }
    let mut commands: Vec<_> = command.subcommands.iter().collect();
    commands.sort_by_key(|command| command.name());
    let names = commands.iter().map(|command| command.name().len());
    let width = names.max().unwrap_or_default().max(NAME_WIDTH_MIN);
    let mut section = |title: &str, belongs: &dyn Fn(&Command<R>) -> bool| {
        write!(out, "\n\n{title}").expect(STRING);
        for command in commands.iter().filter(|command| belongs(command)) {
            write!(out, "\n  {:width$} {}", command.name(), command.short).expect(STRING);
        }
    };
    if path.len() > 1 || app.groups.is_empty() {
        section("Available Commands:", &|_| true);
        return;
    }
    for group in app.groups {
        section(group, &|command| command.group == Some(group));
    }
}

/// One line per flag that is not hidden, sorted by name, aligned.
#[must_use]
pub fn flag_usages(flags: &[Flag]) -> String {
    let mut flags: Vec<_> = flags.iter().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.name);
    let lines: Vec<(String, String)> = flags.into_iter().map(flag_line).collect();
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (left, right) in lines {
        writeln!(out, "{left:width$}   {right}").expect(STRING);
    }
    out
}

/// A flag with its kind of value, and what help says about it.
pub(crate) fn flag_line(flag: &Flag) -> (String, String) {
    let mut left = match flag.shorthand {
        Some(letter) => format!("  -{letter}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let (kind, zero) = match flag.kind {
        Kind::Bool => ("", "false"),
        Kind::Int => (" int", "0"),
        Kind::Uint => (" uint", "0"),
        Kind::Uint32 => (" uint32", "0"),
        Kind::Duration => (" duration", "0s"),
        Kind::Text => (" string", ""),
        Kind::List => (" strings", ""),
    };
    left.push_str(kind);
    let mut right = flag.usage.clone().into_owned();
    if flag.default != zero {
        let written = match flag.kind {
            Kind::Text => {
                write!(right, " (default {})", crate::quote::quote(flag.default.as_bytes()))
            }
            Kind::List => write!(right, " (default [{}])", flag.default),
            Kind::Bool | Kind::Int | Kind::Uint | Kind::Uint32 | Kind::Duration => {
                write!(right, " (default {})", flag.default)
            }
        };
        written.expect(STRING);
    }
    (left, right)
}
