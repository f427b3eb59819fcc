//! `backup`: the v2 generation's copy of a member's files, as 3.5 has it; later releases do not, and
//! it is left out of help.
//!
//! etcd: etcdutl/etcdutl/backup_command.go at v3.5.30.

use std::path::PathBuf;

use backup::Backup;
use cli::exit::Failure;
use cli::flag::Flag;

use super::Command;
use crate::call::Call;
use crate::{database, log};

pub(crate) fn command() -> Command {
    Command::new("backup", "[legacy] offline backup of etcd directory")
        .long("Prefer: `etcdctl snapshot save` instead.")
        .flags([
            Flag::text("data-dir", "Path to the etcd data dir").required(),
            Flag::text("wal-dir", "Path to the etcd wal dir"),
            Flag::text("backup-dir", "Path to the backup dir").required(),
            Flag::text("backup-wal-dir", "Path to the backup wal dir"),
            Flag::bool("with-v3", "Backup v3 backend data").or("true"),
        ])
        .run(run)
}

fn run(call: &Call) -> Result<(), Failure> {
    let other =
        |flag: &str| Some(call.flags.text(flag)).filter(|it| !it.is_empty()).map(PathBuf::from);
    let backup = Backup {
        data_dir: call.folder("data-dir"),
        wal_dir: other("wal-dir"),
        backup_dir: call.folder("backup-dir"),
        backup_wal_dir: other("backup-wal-dir"),
        with_v3: call.flags.bool("with-v3"),
    };
    let made = backup.run(&mut |told| log::info(&told.to_string(), &[]));
    made.map_err(|error| match error.remedy() {
        Some(remedy) => Failure::error(format!("{}\nhint: {remedy}", database::chain(&error))),
        None => database::failure(&error),
    })
}
