//! From the configuration to the member of a data directory.
//!
//! The files are opened by `storage`; here is where they are, and, for a member without a log, who
//! it is ([`origin::find`]). Flags about the cluster mean nothing to a member that has one.
//! Source: etcd server/etcdserver/bootstrap.go.

mod discovery;
mod join;
pub(crate) mod origin;
pub(crate) mod srv;
mod v2_discovery;

use std::io;
use std::path::PathBuf;

use storage::{BootError, Opened, Place};
use vfs::OsDir;

pub(crate) use discovery::founders_of;
pub(crate) use join::members_of;
pub(crate) use origin::{DiscoveryService, OriginOptions};
pub use srv::SrvError;
pub(crate) use v2_discovery::founders_of_token;

/// What start-up needs of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct BootOptions {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The log's folder, if it is not `member/wal`.
    pub(crate) wal_dir: Option<PathBuf>,
    /// How a member without a log finds out who it is.
    pub(crate) origin: OriginOptions,
    /// How the files are opened.
    pub(crate) storage: storage::BootOptions,
}

impl BootOptions {
    /// Opens the folders and the database of a member, or makes them.
    ///
    /// # Errors
    ///
    /// See [`storage::open`].
    pub(crate) fn open(&self) -> Result<Opened, BootError> {
        storage::open(&self.place().map_err(|source| self.dir_error(source))?, &self.storage)
    }

    fn place(&self) -> io::Result<Place> {
        let data_dir = OsDir::open(&self.data_dir)?;
        let Some(path) = &self.wal_dir else { return Ok(Place { data_dir, wal: None }) };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = OsDir::open(parent.map_or_else(|| PathBuf::from("."), PathBuf::from))?;
        Ok(Place { data_dir, wal: Some((parent, name.unwrap_or_else(|| "wal".to_owned()))) })
    }

    fn dir_error(&self, source: io::Error) -> BootError {
        BootError::DataDir { path: self.data_dir.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests;
