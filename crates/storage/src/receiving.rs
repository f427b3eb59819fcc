//! The database of another member, written beside ours until it takes its place.
//!
//! It gets its name, `<index>.snap.db` as etcd's, once it is whole and durable, and consensus hears of
//! it only then: so a crash anywhere leaves something to go on from.
//! Source: etcd server/etcdserver/api/snap/db.go.

use std::io;
use std::sync::Arc;

use backend::Backend;
use base::{Index, LogPosition};
use state::Received;
use vfs::{Dir, File, Open};

use crate::reserve::is_no_space;

/// A database that is being received. What is not finished is removed.
#[derive(Debug)]
pub struct Receiving {
    dir: Arc<dyn Dir>,
    name: String,
    file: Arc<dyn File>,
    bytes: u64,
    is_named: bool,
}

/// A database that lies beside ours, whole and durable.
#[derive(Debug)]
#[must_use = "it is in the way of the next one"]
pub struct Stored {
    name: String,
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
    /// Begins an empty file. `dir` is the folder of snapshots, `index` what the database is applied
    /// up to. Only one database of an index may be received at a time.
    ///
    /// # Errors
    ///
    /// The operating system's, here as below.
    pub fn begin(dir: &Arc<dyn Dir>, index: Index) -> io::Result<Self> {
        let name = file_name(index);
        let file = dir.open(&temporary(&name), Open::CreateOrWrite)?;
        let receiving = Self { dir: Arc::clone(dir), name, file, bytes: 0, is_named: false };
        receiving.file.set_len(0)?;
        Ok(receiving)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// See [`Receiving::begin`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it durable, and then known by its name.
    ///
    /// # Errors
    ///
    /// See [`Receiving::begin`].
    pub fn finish(mut self) -> io::Result<Stored> {
        self.file.sync_data()?;
        self.dir.rename(&temporary(&self.name), &self.name)?;
        self.is_named = true;
        self.dir.sync()?;
        Ok(Stored { name: std::mem::take(&mut self.name) })
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.is_named {
            // What is left is removed at the next start, too.
            let _removed = self.dir.remove(&temporary(&self.name));
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
    ) -> Result<Received, PrepareError> {
        let prepared = self.open(backend, position, options, v2_json);
        if prepared.is_err() {
            let _removed = backend.remove_incoming(&self.name);
        }
        prepared
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

/// Begins as what a start removes.
fn temporary(name: &str) -> String {
    format!("tmp-{name}")
}
