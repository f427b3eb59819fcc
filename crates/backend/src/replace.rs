//! A database that comes from another member and takes the place of this one's.
//!
//! The file lies beside the database under a name of its own, durable before anything here is
//! called. Nothing of it is trusted: every page is checked before it can become the database.
//!
//! Order: the file is checked and its checksums are written beside those of the database, with a
//! commit that makes them count: what changes on the disk before the file is in its place is found
//! too. Then the checksums get their name, then the file gets its own, each durable before the next.
//! A crash between the two leaves the old database, with its own checksums, or the new one, with its
//! own beside them; the replacement is finished by [`Incoming::take_place`]. Checksums are told apart
//! by the commit that they are of, so no two states that may be mixed up have commits that look alike.
//!
//! Source: etcd: server/etcdserver/api/snap/db.go, server/storage/backend.go (what is renamed when).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::LogPosition;
use bytes::Bytes;
use vfs::{Dir, File, Lock, Open};

use crate::db::Home;
use crate::open::{Trust, lock, open_file};
use crate::sums::{Checksums, SumFile, rename_with_sums};
use crate::{Backend, Bucket, CommitError, OpenError, Options, ReadError};

/// A received database, whole and not yet in use.
#[derive(Debug)]
pub struct Incoming {
    backend: Backend,
}

/// Why a received database did not become the database.
#[derive(Debug, thiserror::Error)]
#[error("giving {from} the name {to}")]
pub struct ReplaceError {
    /// The file.
    pub from: String,
    /// Its new name.
    pub to: String,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl Incoming {
    /// Opens and checks `name` in `dir`; `options` are those of the database.
    ///
    /// # Errors
    ///
    /// The file is locked, damaged, or cannot be read.
    pub fn open(dir: &Arc<dyn Dir>, name: &str, options: &Options) -> Result<Self, OpenError> {
        let path = dir.path().join(name).display().to_string();
        let io = |source| OpenError::Io { file: path.clone(), source };
        let file: Arc<dyn File> = dir.open(name, Open::Write).map_err(io)?;
        if !lock(&*file, Lock::WholeFile, Some(Duration::ZERO)).map_err(io)? {
            return Err(OpenError::Locked { file: path });
        }
        let opened = open_file(file, &path, &SumFile::name(name), options, Trust::Nothing)?;
        let is_known = opened.checksums == Checksums::Matching;
        let home = Home { dir: Arc::clone(dir), name: name.to_owned(), options: options.clone() };
        let backend = Backend::of(home, opened);
        if options.aux.is_some() && !is_known {
            backend.commit_always().map_err(|error| match error {
                CommitError::NoSpace(source) | CommitError::Io(source) => io(source),
                CommitError::Read(error) => error.while_opening(&path),
            })?;
        }
        Ok(Self { backend })
    }

    /// Gives the file the name of the database, if a crash came between the word in the log that
    /// this shall be done and the doing. Before the database is opened.
    ///
    /// # Errors
    ///
    /// The operating system's; which of the two has the name is then unknown.
    pub fn take_place(self, name: &str) -> Result<(), ReplaceError> {
        let from = self.backend.home().clone();
        set_apart(&self.backend, &from, name)?;
        drop(self);
        rename(&from, name)
    }

    /// How far the log is applied in it; the term is 0 if etcd 3.4 wrote it.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.backend.applied()
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.backend.get(bucket, key)
    }

    /// The database for whoever reads its state before it is in its place. To be dropped before
    /// [`Backend::replace_with`].
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Removes the files: the database is not wanted.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn discard(self) -> io::Result<()> {
        let Home { dir, name, options } = self.backend.home().clone();
        drop(self);
        remove(&dir, &options, &name)
    }
}

/// How the names of received databases end, as etcd has them.
const RECEIVED: &str = ".snap.db";

/// How the names of databases begin that are being made.
const STAGED: &str = "db.tmp";

/// Removes from `aux`, the folder of checksums, those of received databases and of such that were
/// being made that are not in `dir` any more, and returns their names: of what was refused, or
/// removed by whoever knows of no checksums.
///
/// # Errors
///
/// The operating system's.
pub fn remove_orphaned_sums(dir: &dyn Dir, aux: &dyn Dir) -> io::Result<Vec<String>> {
    let mut orphans = Vec::new();
    let suffix = SumFile::name("");
    for name in aux.list()? {
        let Some(database) = name.strip_suffix(&suffix) else { continue };
        let passes = database.ends_with(RECEIVED) || database.starts_with(STAGED);
        if passes && !dir.exists(database)? {
            aux.remove(&name)?;
            orphans.push(name);
        }
    }
    Ok(orphans)
}

/// The checksums go first: without their database nobody would look for them.
fn remove(dir: &Arc<dyn Dir>, options: &Options, name: &str) -> io::Result<()> {
    if let Some(aux) = &options.aux
        && aux.exists(&SumFile::name(name))?
    {
        aux.remove(&SumFile::name(name))?;
    }
    dir.remove(name)
}

impl Backend {
    /// Opens and checks a received file that lies beside the database under `name`, which takes a
    /// pass over all of it.
    ///
    /// # Errors
    ///
    /// As [`Incoming::open`].
    pub fn open_incoming(&self, name: &str) -> Result<Incoming, OpenError> {
        let Home { dir, options, .. } = self.home();
        Incoming::open(dir, name, options)
    }

    /// Removes a received file that cannot be used, with the checksums that were made of it.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn remove_incoming(&self, name: &str) -> io::Result<()> {
        let Home { dir, options, .. } = self.home();
        remove(dir, options, name)
    }

    /// Makes a received database this one, under its name; durable on return. All clones of the
    /// handle see it from then on, at once; copies that were pinned before stay what they were.
    /// Changes that were not committed are dropped: they belong to the state that ends here.
    ///
    /// # Errors
    ///
    /// The operating system's. Which of the two the folder holds is then unknown, and the member
    /// must stop; readers still have the old one.
    ///
    /// # Panics
    ///
    /// If a clone of [`Incoming::backend`] is still held.
    pub fn replace_with(&self, incoming: Incoming) -> Result<(), ReplaceError> {
        let from = incoming.backend.home().clone();
        let to = self.home();
        self.supersede(incoming.backend, |incoming| {
            set_apart(incoming, &from, &to.name)?;
            rename(&from, &to.name)
        })
    }
}

/// Commits until the checksums of the database `to` would not be taken for those of the one that
/// comes in: both may have a commit of the same number, with the same root and of the same size.
fn set_apart(incoming: &Backend, from: &Home, to: &str) -> Result<(), ReplaceError> {
    let Some(aux) = &from.options.aux else { return Ok(()) };
    let alike = || SumFile::speaks_of(&**aux, &SumFile::name(to), &incoming.meta());
    while alike().map_err(|source| not_replaced(from, to, source))? {
        incoming.commit_always().map_err(|error| match error {
            CommitError::NoSpace(source) | CommitError::Io(source) => {
                not_replaced(from, to, source)
            }
            CommitError::Read(error) => not_replaced(from, to, io::Error::other(error)),
        })?;
    }
    Ok(())
}

fn rename(from: &Home, to: &str) -> Result<(), ReplaceError> {
    rename_with_sums(&*from.dir, from.options.aux.as_deref(), &from.name, to)
        .map_err(|source| not_replaced(from, to, source))
}

fn not_replaced(from: &Home, to: &str, source: io::Error) -> ReplaceError {
    let path = |name: &str| from.dir.path().join(name).display().to_string();
    ReplaceError { from: path(&from.name), to: path(to), source }
}
