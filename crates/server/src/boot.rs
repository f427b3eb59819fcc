//! From a data directory, or none, to a member that can run.
//!
//! First the directory is opened ([`open`]), which locks it and finds out whether it holds a member.
//! If it does not, [`origin::find`] says who the new member is: a founder, whose log begins with the
//! first members as etcd writes them (interop 4.2, "bootstrap"), or one that joins, whose log begins
//! empty. If it does, the database says how far the log is applied, the log must reach at least that
//! far, and what is behind is applied again; flags about the cluster mean nothing then. Anything else
//! is refused with its cause; nothing is made up.
//! Source: etcd server/etcdserver/bootstrap.go.

mod discovery;
mod error;
mod first;
mod force;
mod join;
pub(crate) mod origin;
mod received;
mod remedy;
mod restart;
mod shrink;
pub(crate) mod srv;
mod v2;
mod v2_discovery;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backend::Backend;
use base::{ClusterId, Index, MemberId};
use raft::Restored;
use state::State;
use state::members::MemberObject;
use vfs::{Dir, OsDir};
use wal::Wal;

use crate::reserve::{Reserve, is_no_space};

pub(crate) use discovery::founders_of;
pub use error::BootError;
pub(crate) use join::members_of;
pub(crate) use origin::{DiscoveryService, Origin, OriginOptions};
use remedy::Remedy;
pub use srv::SrvError;
pub(crate) use v2_discovery::founders_of_token;

/// What start-up needs of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct BootOptions {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The log's folder, if it is not `member/wal`.
    pub(crate) wal_dir: Option<PathBuf>,
    /// This member's name.
    pub(crate) name: String,
    /// How a member without a log finds out who it is.
    pub(crate) origin: OriginOptions,
    /// Whether a member with a log leaves its cluster to make one of its own.
    pub(crate) force_new_cluster: bool,
    /// The database's.
    pub(crate) backend: backend::Options,
    /// The state's.
    pub(crate) state: state::Options,
    /// Bytes that shrinking the database must free to be done before the start; `None` for never.
    pub(crate) shrink_bytes_min: Option<u64>,
}

/// A member at rest.
#[derive(Debug)]
pub(crate) struct Booted {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    pub(crate) restored: Restored,
    pub(crate) state: State,
    pub(crate) backend: Backend,
    pub(crate) wal: Wal,
    /// The log's folder.
    pub(crate) wal_dir: Arc<dyn Dir>,
    /// `member/snap`.
    pub(crate) snap_dir: Arc<dyn Dir>,
    /// Whether the folder held a member before.
    pub(crate) restarted: bool,
    /// The members of the cluster that this one joins, itself included: whom it can answer before
    /// its log tells of them. Empty unless it joins just now.
    pub(crate) remotes: Vec<MemberObject>,
}

/// A data directory that is open and locked.
#[derive(Debug)]
pub(crate) struct Opened {
    backend: Backend,
    state: State,
    snap_dir: Arc<dyn Dir>,
    wal_parent: Arc<dyn Dir>,
    wal_name: String,
    has_log: bool,
}

impl BootOptions {
    fn wal_place(&self, member_dir: &Arc<dyn Dir>) -> Result<(Arc<dyn Dir>, String), BootError> {
        let Some(path) = &self.wal_dir else { return Ok((member_dir.clone(), "wal".to_owned())) };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.map_or_else(|| PathBuf::from("."), PathBuf::from);
        let parent = OsDir::open(&parent).map_err(|source| self.dir_error(source))?;
        Ok((parent, name.unwrap_or_else(|| "wal".to_owned())))
    }

    fn dir_error(&self, source: io::Error) -> BootError {
        BootError::DataDir { path: self.data_dir.display().to_string(), source }
    }
}

/// Opens the folders and the database of a member, or makes them.
///
/// # Errors
///
/// See [`BootError`]; nothing was changed, except that a received snapshot may have become the
/// database.
pub(crate) fn open(options: &BootOptions) -> Result<Opened, BootError> {
    let data_dir = OsDir::open(&options.data_dir).map_err(|source| options.dir_error(source))?;
    open_in(data_dir.as_ref(), options)
}

/// As [`open`], in a data directory on any disk.
fn open_in(data_dir: &dyn Dir, options: &BootOptions) -> Result<Opened, BootError> {
    let dir_error = |source| options.dir_error(source);
    let member_dir = data_dir.subdir("member").map_err(dir_error)?;
    let snap_dir = member_dir.subdir("snap").map_err(dir_error)?;
    let (wal_parent, wal_name) = options.wal_place(&member_dir)?;
    let has_log = Wal::exists(wal_parent.as_ref(), &wal_name).map_err(dir_error)?;
    received::remove_partial(snap_dir.as_ref());
    let received = match has_log {
        true => received::find(&snap_dir, wal_parent.as_ref(), &wal_name).map_err(dir_error)?,
        false => None,
    };
    if received.is_some() {
        // The mark of it may only be in the kernel's memory: were it lost once the database is
        // installed, the log would end before what the database has applied.
        wal::settle(wal_parent.as_ref(), &wal_name, |marks| marks.last().cloned())
            .map_err(BootError::Log)?;
    }
    let has_database = snap_dir.exists("db").map_err(dir_error)?;
    if has_log && !has_database && received.is_none() {
        restart::check_complete(&wal_parent, &wal_name, &snap_dir)?;
    }
    let mut backend_options = options.backend.clone();
    backend_options.aux = Some(member_dir.subdir("aux").map_err(dir_error)?);
    // Whatever is acknowledged later is below these names.
    member_dir.sync().and_then(|()| data_dir.sync()).map_err(dir_error)?;
    let database = Database {
        snap_dir: &snap_dir,
        backend: backend_options,
        state: &options.state,
        remedy: &|| Remedy::of_log(&*wal_parent, &wal_name),
    };
    let open = || match &received {
        Some(received) => received.open(&database),
        None => database.open(),
    };
    let mut opened = open();
    if let Err(BootError::Backend(backend::OpenError::Io { source, .. })) = &opened
        && is_no_space(source)
        && has_log
    {
        // A full disk must not keep a member down (G14).
        let wal_dir = wal_parent.subdir(&wal_name).map_err(dir_error)?;
        if Reserve::open(wal_dir).release() {
            opened = open();
        }
    }
    let (backend, state) = opened?;
    received::remove_sums(&database);
    if let Some(threshold) = options.shrink_bytes_min.filter(|_| has_log) {
        shrink::shrink(&backend, threshold)?;
    }
    let applied = state.applied().index;
    if !has_log && applied > Index(0) {
        return Err(BootError::LogMissing {
            remedy: Remedy::of_members(&state.members(), MemberId::NONE),
            db: database.path("db"),
            applied,
            wal: wal_parent.path().join(&wal_name).display().to_string(),
        });
    }
    Ok(Opened { backend, state, snap_dir, wal_parent, wal_name, has_log })
}

impl Opened {
    /// Whether there is a member already; then no [`Origin`] is needed.
    pub(crate) fn has_log(&self) -> bool {
        self.has_log
    }

    /// The member that the directory holds, or a new one with this origin.
    ///
    /// # Errors
    ///
    /// See [`BootError`]; nothing was changed unless a new member was being made.
    ///
    /// # Panics
    ///
    /// If there is neither a log nor an origin.
    pub(crate) fn boot(
        self,
        options: &BootOptions,
        origin: Option<Origin>,
    ) -> Result<Booted, BootError> {
        if self.has_log {
            return restart::restart(self, options.force_new_cluster);
        }
        first::first(self, origin.expect("asked for because there is no log"))
    }

    fn wal_path(&self) -> String {
        self.wal_parent.path().join(&self.wal_name).display().to_string()
    }

    fn open_wal_dir(&self) -> Result<Arc<dyn Dir>, BootError> {
        let failed = |source| BootError::DataDir { path: self.wal_path(), source };
        self.wal_parent.subdir(&self.wal_name).map_err(failed)
    }
}

/// How the database of a folder is opened.
struct Database<'a> {
    snap_dir: &'a Arc<dyn Dir>,
    backend: backend::Options,
    state: &'a state::Options,
    /// What to do if it cannot be used; reads the log.
    remedy: &'a dyn Fn() -> Remedy,
}

impl Database<'_> {
    fn open(&self) -> Result<(Backend, State), BootError> {
        let db = || self.path("db");
        let backend = Backend::open(self.snap_dir, "db", &self.backend);
        let backend = backend.map_err(|source| match source {
            backend::OpenError::Damaged { .. } => {
                BootError::DatabaseDamaged { db: db(), remedy: (self.remedy)(), source }
            }
            backend::OpenError::Locked { .. } | backend::OpenError::Io { .. } => {
                BootError::Backend(source)
            }
        })?;
        if backend.checksums() == backend::Checksums::Foreign {
            tracing::warn!(
                path = db(),
                "the page checksums in member/aux speak of another state than that of the \
                 database, which another program wrote or which is a copy: the structure of every \
                 page was verified and new checksums were made; a value that changed on the device \
                 before is not noticed"
            );
        }
        let state = State::open(&backend, self.state).map_err(|source| match &source {
            state::OpenError::TooNew { storage } => {
                BootError::TooNew { db: db(), storage: storage.clone(), source }
            }
            state::OpenError::Keys(_)
            | state::OpenError::Backend(_)
            | state::OpenError::Damaged { .. } => {
                BootError::State { db: db(), remedy: (self.remedy)(), source }
            }
        })?;
        Ok((backend, state))
    }

    fn path(&self, name: &str) -> String {
        self.snap_dir.path().join(name).display().to_string()
    }
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;
