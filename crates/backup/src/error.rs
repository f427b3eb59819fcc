//! Why there is no copy.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// LEG-02: the target has files already; nothing was done.
    #[error(
        "failed creating backup snapshot dir {folder}: expected \"{folder}\" to be empty, got {}",
        listed(found), folder = folder.display()
    )]
    NotEmpty {
        /// Where the copy's database would be.
        folder: PathBuf,
        /// What is there, in order.
        found: Vec<String>,
    },
    /// What the operating system refused.
    #[error("{doing} {}: {source}", path.display())]
    Path {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The member's log.
    #[error("reading the log")]
    Log(#[from] wal::OpenError),
    /// The copy of the log cannot be made, or is there already.
    #[error("making the copy of the log")]
    NewLog(#[from] wal::CreateError),
    /// The copy of the log.
    #[error("writing the copy of the log")]
    Append(#[from] wal::AppendError),
    /// The member's database has changed since it was written.
    #[error("database {} is damaged at page {page}: {what}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first page that is not what was written.
        page: u64,
        /// How that is known.
        what: String,
    },
    /// The copy of the database.
    #[error("opening the copy of the database")]
    Database(#[from] backend::OpenError),
    /// The copy of the database.
    #[error("reading the copy of the database")]
    Read(#[from] backend::ReadError),
    /// The copy of the database.
    #[error("writing the copy of the database")]
    Commit(#[from] backend::CommitError),
}

impl BackupError {
    /// What to do about it, for those who do not see it in the text (SEEDX-04).
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NotEmpty { folder, found } => {
                let backup_dir = folder.ancestors().nth(2).unwrap_or(folder).display();
                let what = if found.iter().any(|name| name == "db") {
                    "holds a member's data or an earlier backup"
                } else {
                    "is in use"
                };
                Some(format!(
                    "{backup_dir} {what}; name a folder that is empty or does not exist yet, for \
                     example --backup-dir {backup_dir}-2 (it is made), or move {backup_dir}/member \
                     away"
                ))
            }
            Self::Path { source, path, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!(
                    "--data-dir must name the folder that etcd was started with, which has \
                     member/wal in it; there is no {}",
                    path.display()
                ))
            }
            Self::Damaged { .. } => Some(
                "nothing of this database is copied; look after the device, then replace a member \
                 of several (etcdctl member remove, member add, start with an empty data \
                 directory) and restore a lone one from a snapshot"
                    .to_owned(),
            ),
            Self::Path { .. }
            | Self::Log(_)
            | Self::NewLog(_)
            | Self::Append(_)
            | Self::Database(_)
            | Self::Read(_)
            | Self::Commit(_) => None,
        }
    }

    /// For `map_err`.
    pub(crate) fn path(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Path { doing, path: path.clone(), source }
    }
}

/// As Go lists texts.
fn listed(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", names.join(" "))
}
