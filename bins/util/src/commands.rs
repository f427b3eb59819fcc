//! The commands, and how they hang together.
//!
//! etcd: `etcdutl/ctl.go`.

mod backup;
mod bbolt;
mod check;
mod completion;
mod defrag;
mod hashkv;
mod migrate;
mod snapshot;
mod version;

use cli::command::{Action, App};
use cli::flag::{Flag, Kind};

use crate::call::Handler;

type Command = cli::command::Command<Handler>;

/// The tool. The order of the commands is that of the suggestions for a mistyped one. What 3.5 had
/// and later releases do not is there only for those who name it.
pub(crate) fn app(words: &[Vec<u8>]) -> App<Handler> {
    let is_named = |name: &[u8]| words.iter().any(|word| word == name);
    let root = Command::new("etcdutl", "An administrative command line tool for etcd3.")
        .persistent_flags([
            Flag::new(
                "timeout",
                Kind::Duration,
                "10s",
                "time to wait to obtain a file lock on db file, 0 to block indefinitely",
            ),
            Flag::text(
                "write-out",
                "set the output format (fields, json, protobuf, simple, table)",
            )
            .short('w')
            .or("simple"),
        ])
        .subcommands([
            defrag::command(),
            snapshot::command(),
            hashkv::command(),
            version::command(),
            completion::command(),
            migrate::command(),
            bbolt::command(),
            help(),
        ]);
    let mut root = root;
    if is_named(b"backup") {
        root.subcommands.push(backup::command());
    }
    // Another program's command is called so too.
    if is_named(b"check") && !is_named(b"bbolt") {
        root.subcommands.push(check::command());
    }
    App { root, groups: &[], help_footer: "", is_plain: true }
}

fn help() -> Command {
    let mut help = Command::new("help [command]", "Help about any command");
    help.action = Action::Help;
    help
}

/// A command that takes exactly so many arguments.
fn taking(argument_count: usize, command: Command) -> Command {
    Command { argument_count: Some(argument_count), ..command }
}
