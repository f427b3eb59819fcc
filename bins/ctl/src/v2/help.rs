//! What `help` and `--help` show (CTL2-12), in the layout of the library that etcd 3.4's tool uses.

use std::fmt::Write as _;

use super::app::Command;
use super::flags::{Flag, HELP, Kind};

/// The tool has it, its commands do not.
pub(super) const VERSION: Flag = Flag::bool(&["version", "v"], "print the version");

/// Two columns: the second one begins two blanks behind the longest of the first.
fn columns(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(first, _)| first.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (first, second) in rows {
        writeln!(text, "   {first:width$}  {second}").expect("writing to a string");
    }
    text
}

fn commands(list: &[Command]) -> Vec<(String, String)> {
    list.iter().map(|command| (command.name.to_owned(), command.usage.to_owned())).collect()
}

fn flags<'f>(list: impl IntoIterator<Item = &'f Flag>) -> String {
    columns(&list.into_iter().map(flag).collect::<Vec<_>>())
}

fn flag(flag: &Flag) -> (String, String) {
    let (value, usage) = match flag.usage.split_once('`').and_then(|(before, rest)| {
        let (value, after) = rest.split_once('`')?;
        Some((value, format!("{before}{value}{after}")))
    }) {
        Some((value, usage)) => (value, usage),
        None => ("value", flag.usage.to_owned()),
    };
    let names = flag.names.iter().map(|name| {
        let dashes = if name.len() == 1 { "-" } else { "--" };
        if flag.kind == Kind::Bool {
            format!("{dashes}{name}")
        } else {
            format!("{dashes}{name} {value}")
        }
    });
    let default = match (flag.kind, flag.default) {
        (_, "") => String::new(),
        (Kind::Text, default) => format!(" (default: \"{default}\")"),
        (Kind::Bool | Kind::Int | Kind::Texts | Kind::Duration, default) => {
            format!(" (default: {default})")
        }
    };
    (names.collect::<Vec<_>>().join(", "), format!("{usage}{default}"))
}

/// Of the tool.
pub(super) fn tool(list: &[Command], global: &[Flag]) -> String {
    let mut rows = commands(list);
    let help = "Shows a list of commands or help for one command";
    rows.push(("help, h".to_owned(), help.to_owned()));
    format!(
        "NAME:\n   etcdctl - A simple command line client for etcd.\n\nUSAGE:\n   etcdctl [global \
         options] command [command options] [arguments...]\n\nVERSION:\n   {}\n\nCOMMANDS:\n{}\n\
         GLOBAL OPTIONS:\n{}",
        base::version::COMPATIBLE,
        columns(&rows),
        flags(global.iter().chain([&HELP, &VERSION])),
    )
}

/// Of a command; `path` is how it is called.
pub(super) fn command(path: &str, command: &Command) -> String {
    let mut text = format!("NAME:\n   {path} - {}\n\nUSAGE:\n   {path}", command.usage);
    if !command.commands.is_empty() {
        let rows = columns(&commands(command.commands));
        let options = flags([&HELP]);
        return format!(
            "{text} command [command options] [arguments...]\n\nCOMMANDS:\n{rows}\n\
             OPTIONS:\n{options}   \n"
        );
    }
    if !command.flags.is_empty() {
        text.push_str(" [command options]");
    }
    let arguments = if command.arguments.is_empty() { "[arguments...]" } else { command.arguments };
    writeln!(text, " {arguments}").expect("writing to a string");
    if !command.description.is_empty() {
        let description = command.description;
        write!(text, "\nDESCRIPTION:\n   {description}\n").expect("writing to a string");
    }
    if !command.flags.is_empty() {
        let options = flags(command.flags);
        write!(text, "\nOPTIONS:\n{options}   \n").expect("writing to a string");
    }
    text
}

/// Of a list of commands asked for by `help NAME`, which shows only its name.
pub(super) fn list_by_name(path: &str, command: &Command) -> String {
    format!("NAME:\n   {path} - {}\n\nUSAGE:\n   {path} [arguments...]\n", command.usage)
}
