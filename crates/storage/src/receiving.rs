//! The database of another member, written beside ours until it takes its place.
//!
//! It gets its name, `<index>.snap.db` as etcd's, once it is whole and durable, and consensus hears of
//! it only then: so a crash anywhere leaves something to go on from.
//! Source: etcd server/etcdserver/api/snap/db.go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backend::Backend;
use base::{Index, LogPosition};
use state::Received;
use vfs::{Dir, File, Open};

use crate::reserve::is_no_space;

/// The place beside our database where those of others arrive, one at a time.
#[derive(Clone, Debug)]
pub struct Landing {
    dir: Arc<dyn Dir>,
    is_taken: Arc<AtomicBool>,
}

/// That a database may arrive: from its first byte until it is installed or discarded, no other one
/// can take its name.
#[derive(Debug)]
pub struct Turn(Landing);

impl Landing {
    /// `dir` is the folder of snapshots.
    #[must_use]
    pub fn new(dir: Arc<dyn Dir>) -> Self {
        Self { dir, is_taken: Arc::default() }
    }

    /// A turn, if nobody has it.
    #[must_use]
    pub fn take(&self) -> Option<Turn> {
        (!self.is_taken.swap(true, Ordering::AcqRel)).then(|| Turn(self.clone()))
    }
}

impl Turn {
    /// Begins an empty file; `index` is what the database is applied up to.
    ///
    /// # Errors
    ///
    /// The operating system's, here as below.
    pub fn begin(self, index: Index) -> io::Result<Receiving> {
        let draft = Draft { dir: Arc::clone(&self.0.dir), name: file_name(index), is_named: false };
        let file = draft.dir.open(&draft.temporary(), Open::CreateOrWrite)?;
        file.set_len(0)?;
        Ok(Receiving { turn: self, draft, file, bytes: 0 })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
    }
}

/// A database that is being received. What is not finished is removed.
#[derive(Debug)]
pub struct Receiving {
    turn: Turn,
    draft: Draft,
    file: Arc<dyn File>,
    bytes: u64,
}

/// A file that has no name yet to be known by.
#[derive(Debug)]
struct Draft {
    dir: Arc<dyn Dir>,
    name: String,
    is_named: bool,
}

/// A database that lies beside ours, whole and durable.
#[derive(Debug)]
#[must_use = "it is in the way of the next one"]
pub struct Stored {
    name: String,
    turn: Turn,
}

/// A database that was read as a whole and can become the state.
#[derive(Debug)]
pub struct Arrived {
    /// What it holds.
    pub received: Box<Received>,
    /// To be kept until it is installed or discarded.
    pub turn: Turn,
}

/// Why a stored database cannot become the state.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be read, or is damaged.
    #[error("opening the received database {name}")]
    Open {
        /// Its file.
        name: String,
        /// The cause.
        #[source]
        source: backend::OpenError,
    },
    /// It is no state, or another one than was announced.
    #[error("reading the state in the received database {name}")]
    State {
        /// Its file.
        name: String,
        /// The cause.
        #[source]
        source: state::ReceiveError,
    },
    /// The v2 keys cannot be put into it.
    #[error("taking over the v2 keys into the received database {name}")]
    Second {
        /// Its file.
        name: String,
        /// The cause.
        #[source]
        source: backend::CommitError,
    },
}

impl PrepareError {
    /// Whether there was only no room.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Open { source: backend::OpenError::Io { source, .. }, .. } => is_no_space(source),
            Self::Second { source, .. } => matches!(source, backend::CommitError::NoSpace(_)),
            Self::Open { .. } | Self::State { .. } => false,
        }
    }
}

/// The name of the database received at an index.
pub(crate) fn file_name(index: Index) -> String {
    format!("{:016x}{SUFFIX}", index.0)
}

/// How the names of received databases end.
pub(crate) const SUFFIX: &str = ".snap.db";

impl Receiving {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// See [`Turn::begin`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it durable, and then known by its name.
    ///
    /// # Errors
    ///
    /// See [`Turn::begin`].
    pub fn finish(mut self) -> io::Result<Stored> {
        self.file.sync_data()?;
        let name = self.draft.named()?;
        Ok(Stored { name, turn: self.turn })
    }
}

impl Draft {
    /// Begins as what a start removes.
    fn temporary(&self) -> String {
        format!("tmp-{}", self.name)
    }

    fn named(&mut self) -> io::Result<String> {
        self.dir.rename(&self.temporary(), &self.name)?;
        self.is_named = true;
        self.dir.sync()?;
        Ok(self.name.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_named {
            // What is left is removed at the next start, too.
            let _removed = self.dir.remove(&self.temporary());
        }
    }
}

impl Stored {
    /// Reads all of it, so that it can become the state at `position`; `v2_json` are the v2 keys of
    /// its message. What cannot be used is removed.
    ///
    /// # Errors
    ///
    /// See [`PrepareError`].
    pub fn prepare(
        self,
        backend: &Backend,
        position: LogPosition,
        options: &state::Options,
        v2_json: &[u8],
    ) -> Result<Arrived, PrepareError> {
        match self.open(backend, position, options, v2_json) {
            Ok(received) => Ok(Arrived { received: Box::new(received), turn: self.turn }),
            Err(error) => {
                let _removed = backend.remove_incoming(&self.name);
                Err(error)
            }
        }
    }

    fn open(
        &self,
        backend: &Backend,
        position: LogPosition,
        options: &state::Options,
        v2_json: &[u8],
    ) -> Result<Received, PrepareError> {
        let name = || self.name.clone();
        let incoming = backend.open_incoming(&self.name);
        let incoming = incoming.map_err(|source| PrepareError::Open { name: name(), source })?;
        let mut received = Received::prepare(incoming, position, options)
            .map_err(|source| PrepareError::State { name: name(), source })?;
        received
            .take_v2(v2_json)
            .map_err(|source| PrepareError::Second { name: name(), source })?;
        Ok(received)
    }
}
