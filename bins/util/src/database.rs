//! Files of databases: found, opened, and their failures in words.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backend::{Backend, CheckError, Checksums, OpenError, Options, ReadOnly};
use cli::exit::Failure;
use cli::os::error_text;
use vfs::{Dir, File, Lock, Open, OsDir};

use crate::log;

/// What the operating system refused, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {}", path.display(), error_text(cause))]
pub(crate) struct FileError {
    /// The system call.
    pub(crate) doing: &'static str,
    /// On what.
    pub(crate) path: PathBuf,
    /// Its answer.
    pub(crate) cause: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn of(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self { doing, path: path.to_owned(), cause }
    }
}

/// Refuses what is not there.
pub(crate) fn require(path: &Path) -> Result<(), Failure> {
    stat(path).map_err(Failure::error)
}

/// Whether it is there.
pub(crate) fn stat(path: &Path) -> Result<(), FileError> {
    fs::metadata(path).map(drop).map_err(FileError::of("stat", path))
}

/// The folder of a file, which must exist, and the file's name.
pub(crate) fn place(path: &Path) -> Result<(Arc<dyn Dir>, String), FileError> {
    let folder = folder_of(path);
    // Opening a folder makes it; nothing is to be made here.
    stat(&folder)?;
    let name = path.file_name().ok_or_else(|| io::ErrorKind::IsADirectory.into());
    let name = name.map_err(FileError::of("open", path))?;
    let folder = OsDir::open(folder).map_err(FileError::of("open", path))?;
    Ok((folder, name.to_string_lossy().into_owned()))
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// An existing file.
pub(crate) fn open_file(path: &Path, how: Open) -> Result<Arc<dyn File>, FileError> {
    let (folder, name) = place(path)?;
    if path.is_dir() {
        return Err(FileError::of("read", path)(io::ErrorKind::IsADirectory.into()));
    }
    folder.open(&name, how).map_err(FileError::of("open", path))
}

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A member is running.
    #[error("database {} is locked by another process; stop it first", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is no database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was one.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// The first page that is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{page}{}", hint(*is_known))]
pub(crate) struct Damage {
    /// Where, and how it was noticed.
    pub(crate) page: CheckError,
    /// Whether the member's checksums say so: then it is certain that the file changed.
    is_known: bool,
}

/// What to do about a member's database that was damaged.
const REMEDY: &str = "\nhint: what the member wrote there has changed since, and the checksums in \
                      member/aux know it; look after the device, then replace a member of several \
                      (etcdctl member remove, member add, start with an empty data directory) and \
                      restore a lone one from a snapshot";

impl Damage {
    /// What to do about it, on a line of its own; empty for a file that is no member's.
    pub(crate) fn hint(&self) -> &'static str {
        hint(self.is_known)
    }
}

fn hint(is_known: bool) -> &'static str {
    if is_known { REMEDY } else { "" }
}

/// How often a locked file is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Waits until no member has a database; `timeout` is `None` for ever.
pub(crate) fn lock(
    file: &dyn File,
    path: &Path,
    kind: Lock,
    timeout: Option<Duration>,
) -> Result<(), DatabaseError> {
    let start = Instant::now();
    while !file.try_lock(kind).map_err(FileError::of("lock", path))? {
        if timeout.is_some_and(|timeout| timeout <= start.elapsed()) {
            return Err(DatabaseError::Locked { path: path.to_owned() });
        }
        thread::sleep(LOCK_POLL);
    }
    Ok(())
}

/// Opens a database for reading, once no member has it. That of a data directory is read with the
/// checksums that the member keeps of it, so that nothing that changed since is taken for the truth.
pub(crate) fn read(
    file: Arc<dyn File>,
    path: &Path,
    timeout: Option<Duration>,
) -> Result<ReadOnly, DatabaseError> {
    lock(&*file, path, Lock::WholeFileShared, timeout)?;
    let beside = backend::sums_beside(path);
    let sums = beside.as_ref().map(|(aux, name)| (&**aux, name.as_str()));
    let opened = ReadOnly::open_with(file, &path.display().to_string(), sums);
    let database = opened.map_err(|error| match error {
        OpenError::Damaged { page, what, .. } if beside.is_some() => {
            DatabaseError::Damaged(Damage { page: CheckError { page, what }, is_known: true })
        }
        OpenError::Damaged { .. } | OpenError::Locked { .. } | OpenError::Io { .. } => error.into(),
    })?;
    if database.checksums() == Checksums::Foreign {
        let text = "the checksums in member/aux speak of another state than that of the database, \
                    as after a program that keeps none; a value that has changed on the device is \
                    not noticed";
        log::warn(text, &[("path", path.display().to_string().into())]);
    }
    Ok(database)
}

/// Opens a member's database for writing, once no member has it. If there are checksums of it, every
/// page is compared with them before, and they are kept.
pub(crate) fn write(path: &Path, timeout: Option<Duration>) -> Result<Backend, DatabaseError> {
    let mut options = Options { lock_timeout: timeout, ..Options::default() };
    let (folder, name) = place(path)?;
    if let Some((aux, known_name)) = backend::sums_beside(path) {
        let database = read(open_file(path, Open::Read)?, path, timeout)?;
        if database.checksums() == Checksums::Matching {
            check(&database)?;
            options.aux = Some(aux).filter(|_| name == known_name);
        }
    }
    Ok(Backend::open(&folder, &name, &options)?)
}

/// The database of a member.
pub(crate) fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("snap").join("db")
}

/// Checks every page.
pub(crate) fn check(database: &ReadOnly) -> Result<(), Damage> {
    let is_known = database.checksums() == Checksums::Matching;
    database.check().map_err(|page| Damage { page, is_known })
}

/// A failure that tells the whole chain of causes.
pub(crate) fn failure(error: &dyn Error) -> Failure {
    Failure::error(chain(error))
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
