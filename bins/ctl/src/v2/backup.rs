//! `backup` (CTL2-60, LEG-01 to LEG-04).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/backup_command.go.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use ::backup::{Backup, BackupError};
use cli::os::error_text;

use super::{Call, Done, Failure, log};

#[allow(clippy::unused_async, reason = "every command is run the same way")]
pub(super) async fn run(call: &Call) -> Done {
    let path = |name: &str| call.own.text(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let backup = Backup {
        data_dir: path("data-dir").unwrap_or_default(),
        wal_dir: path("wal-dir"),
        backup_dir: path("backup-dir").unwrap_or_default(),
        backup_wal_dir: path("backup-wal-dir"),
        with_v3: call.own.is_set("with-v3"),
    };
    backup.run(&mut |told| log::line(&told.to_string())).map_err(|error| {
        let mut text = log::stamped(&words(&error));
        if let Some(remedy) = remedy(&error).filter(|_| !call.is_exact) {
            text.push_str("\nhint: ");
            text.push_str(&remedy);
        }
        Failure::arguments(text)
    })
}

/// The whole chain of causes; what the system refused in Go's words.
fn words(error: &BackupError) -> String {
    if let BackupError::Path { path, source, .. } = error {
        return format!("open {}: {}", path.display(), error_text(source));
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What to do about it (SEEDX-04).
fn remedy(error: &BackupError) -> Option<String> {
    match error {
        BackupError::NotEmpty { folder, found } => {
            let backup_dir = folder.ancestors().nth(2).unwrap_or(folder).display();
            let what = if found.iter().any(|name| name == "db") {
                "holds a member's data or an earlier backup"
            } else {
                "is in use"
            };
            Some(format!(
                "{backup_dir} {what}; name a folder that is empty or does not exist yet, for \
                 example --backup-dir {backup_dir}-2 (it is made), or move {backup_dir}/member away"
            ))
        }
        BackupError::Path { source, path, .. } if source.kind() == io::ErrorKind::NotFound => {
            Some(format!(
                "--data-dir must name the folder that etcd was started with, which has member/wal \
                 in it; there is no {}",
                path.display()
            ))
        }
        BackupError::Path { .. }
        | BackupError::Log(_)
        | BackupError::NewLog(_)
        | BackupError::Append(_)
        | BackupError::Database(_)
        | BackupError::Read(_)
        | BackupError::Commit(_) => None,
    }
}
