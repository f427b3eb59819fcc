//! `snapshot`: what can be done with a snapshot file.
//!
//! etcd: `etcdutl/etcdutl/snapshot_command.go`.

mod restore;
mod status;

use super::Command;

pub(crate) fn command() -> Command {
    Command::new("snapshot <subcommand>", "Manages etcd node snapshots")
        .subcommands([restore::command(), status::command()])
        .elsewhere(&[("save", "`etcdctl snapshot save`")])
}
