//! Why the operations of the database fail.

use std::io;

/// Why a database does not open. Texts name the file, the page and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file.
    #[error("database {file} is locked by another process; stop it, or use another data directory")]
    Locked {
        /// The file.
        file: String,
    },
    /// The file is not whole.
    #[error("database {file} is damaged at page {page}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// The page.
        page: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("opening database {file}")]
    Io {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a read failed: the world's fault, never "not found".
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A page does not match its checksum or its structure; its bytes are not served.
    #[error("page {page} of the database is damaged: {what}")]
    Damaged {
        /// The page.
        page: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("reading page {page} of the database")]
    Io {
        /// The page.
        page: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn damaged(page: u64, what: impl Into<String>) -> Self {
        Self::Damaged { page, what: what.into() }
    }

    /// The same failure while opening.
    pub(crate) fn while_opening(self, file: &str) -> OpenError {
        let file = file.to_owned();
        match self {
            Self::Damaged { page, what } => OpenError::Damaged { file, page, what },
            Self::Io { source, .. } => OpenError::Io { file, source },
        }
    }
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No space: nothing is lost or half done; the changes stay in memory and a later commit takes
    /// them.
    #[error("no space left for the database")]
    NoSpace(#[source] io::Error),
    /// A write or sync failed; the backend refuses every later commit. Reads go on.
    #[error("committing the database")]
    Io(#[source] io::Error),
    /// A page needed for the commit is damaged. Nothing is lost or half done.
    #[error("committing the database")]
    Read(#[source] ReadError),
}

impl From<ReadError> for CommitError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// What a whole-file check found first.
#[derive(Debug, thiserror::Error)]
#[error("page {page}: {what}")]
pub struct CheckError {
    /// The page.
    pub page: u64,
    /// What is wrong with it.
    pub what: String,
}

impl From<ReadError> for CheckError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { page, what } => Self { page, what },
            ReadError::Io { page, source } => Self { page, what: format!("reading it: {source}") },
        }
    }
}
