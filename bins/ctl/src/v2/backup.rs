//! `backup` (CTL2-60, LEG-01 to LEG-04).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/backup_command.go.

use std::error::Error;
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
        if let Some(remedy) = error.remedy().filter(|_| !call.is_exact) {
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
