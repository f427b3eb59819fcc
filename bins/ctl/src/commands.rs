//! The commands, and how they hang together.
//!
//! etcd: `etcdctl/ctlv3/ctl.go`, `etcdctl/ctlv3/command/groups.go`.

mod alarm;
mod auth;
mod check;
mod compaction;
mod completion;
mod defrag;
mod del;
mod downgrade;
mod elect;
mod endpoint;
mod get;
mod lease;
mod lock;
mod make_mirror;
mod member;
mod move_leader;
mod options;
mod put;
mod role;
mod snapshot;
mod txn;
mod user;
mod version;
mod watch;

use cli::command::{Action, App};
use cli::global;

use crate::call::Handler;

type Command = cli::command::Command<Handler>;

const KEY_VALUE: &str = "Key-value commands";
const MAINTENANCE: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTHENTICATION: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

/// What people write who want something removed.
const REMOVE: &[&str] = &["delete", "remove", "rm", "del"];

/// The tool. The order of the commands is that of the suggestions for a mistyped one.
pub(crate) fn app() -> App<Handler> {
    let root = Command::new("etcdctl", "A simple command line client for etcd3.")
        .persistent_flags(global::flags().into_iter().map(cli::flag::Flag::hide))
        .subcommands([
            get::command(),
            put::command(),
            del::command(),
            txn::command(),
            compaction::command(),
            alarm::command(),
            defrag::command(),
            endpoint::command(),
            move_leader::command(),
            watch::command(),
            version::command(),
            lease::command(),
            member::command(),
            snapshot::command(),
            make_mirror::command(),
            lock::command(),
            elect::command(),
            auth::command(),
            user::command(),
            role::command(),
            check::command(),
            completion::command(),
            downgrade::command(),
            options::command(),
            help(),
        ])
        .elsewhere(&[("migrate", "`etcdutl migrate`"), ("restore", "`etcdutl snapshot restore`")]);
    App {
        root,
        groups: &[KEY_VALUE, MAINTENANCE, CONCURRENCY, AUTHENTICATION, UTILITY],
        help_footer: "Use \"etcdctl options\" for a list of global command-line options \
                      (applies to all commands).\n",
        is_plain: false,
    }
}

fn help() -> Command {
    let about = "Help provides help for any command in the application.\n\
                 Simply type etcdctl help [path to command] for full details.";
    let mut help = Command::new("help [command]", "Help about any command").group(UTILITY);
    help.action = Action::Help;
    help.long(about)
}
