//! From the files of a member, or none, to one that can run.
//!
//! First they are opened ([`open`]), which locks them and finds out whether they are a member's. If
//! not, an [`Origin`] says who the new member is: a founder, whose log begins with the first members
//! as etcd writes them (interop 4.2, "bootstrap"), or one that joins, whose log begins empty. If they
//! are, the database says how far the log is applied, the log must reach at least that far, and what
//! is behind is applied again. Anything else is refused with its cause; nothing is made up.
//!
//! Not here: how a new member finds out who it is.
//! Source: etcd server/etcdserver/bootstrap.go.

mod error;
mod first;
mod force;
mod received;
mod remedy;
mod restart;
mod shrink;
mod v2;

use std::sync::Arc;

use backend::Backend;
use base::{ClusterId, Index, MemberId};
use raft::Restored;
use state::State;
use state::members::MemberObject;
use vfs::Dir;
use wal::Wal;

use crate::reserve::Reserve;

pub use error::BootError;
pub use remedy::Remedy;
pub use restart::conf_state_of;

/// Where a member's files are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory.
    pub data_dir: Arc<dyn Dir>,
    /// The folder that holds the log's folder, and the name of that one; `None` for `member/wal`.
    pub wal: Option<(Arc<dyn Dir>, String)>,
}

/// How they are opened.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// The log's.
    pub wal: wal::Options,
    /// The database's; where its checksums lie is decided here.
    pub backend: backend::Options,
    /// The state's.
    pub state: state::Options,
    /// Whether a member with a log leaves its cluster to make one of its own.
    pub force_new_cluster: bool,
    /// Bytes that shrinking the database must free to be done before the start; `None` for never.
    pub shrink_bytes_min: Option<u64>,
}

/// Who a new member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One of the first members.
    Founder {
        /// Which one.
        own: MemberId,
        /// All of them, in the order of their ids.
        members: Vec<MemberObject>,
    },
    /// One that joins.
    Joining {
        /// Which one.
        own: MemberId,
        /// Of which cluster.
        cluster: ClusterId,
        /// As the cluster knows them, in the order of their ids.
        members: Vec<MemberObject>,
    },
}

/// A member at rest.
#[derive(Debug)]
pub struct Booted {
    /// Who it is.
    pub member: MemberId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// What consensus goes on from.
    pub restored: Restored,
    /// What is applied.
    pub state: State,
    /// The database that holds it.
    pub backend: Backend,
    /// The log.
    pub wal: Wal,
    /// The log's folder.
    pub wal_dir: Arc<dyn Dir>,
    /// `member/snap`.
    pub snap_dir: Arc<dyn Dir>,
    /// Whether the folder held a member before.
    pub restarted: bool,
    /// The members of the cluster that this one joins, itself included: whom it can answer before
    /// its log tells of them. Empty unless it joins just now.
    pub remotes: Vec<MemberObject>,
}

/// A data directory that is open and locked.
#[derive(Debug)]
pub struct Opened {
    backend: Backend,
    state: State,
    snap_dir: Arc<dyn Dir>,
    wal_parent: Arc<dyn Dir>,
    wal_name: String,
    has_log: bool,
}

/// Opens the folders and the database of a member, or makes them.
///
/// # Errors
///
/// See [`BootError`]; nothing was changed, except that a received snapshot may have become the
/// database.
pub fn open(place: &Place, options: &BootOptions) -> Result<Opened, BootError> {
    let data_dir = &place.data_dir;
    let dir_error =
        |source| BootError::DataDir { path: data_dir.path().display().to_string(), source };
    let member_dir = data_dir.subdir("member").map_err(dir_error)?;
    let snap_dir = member_dir.subdir("snap").map_err(dir_error)?;
    let in_member_dir = || (member_dir.clone(), "wal".to_owned());
    let (wal_parent, wal_name) = place.wal.clone().unwrap_or_else(in_member_dir);
    let has_log = Wal::exists(wal_parent.as_ref(), &wal_name).map_err(dir_error)?;
    received::remove_partial(snap_dir.as_ref());
    let received = match has_log {
        true => received::find(&snap_dir, &wal_parent, &wal_name)?,
        false => None,
    };
    // A full disk must not keep a member down (G14).
    let make_room = || {
        let wal_dir = if has_log { wal_parent.subdir(&wal_name).ok() } else { None };
        wal_dir.is_some_and(|dir| Reserve::open(dir).release())
    };
    if received.is_some() {
        // The mark of it may only be in the kernel's memory: were it lost once the database is
        // installed, the log would end before what the database has applied.
        try_with_room(&make_room, || {
            wal::settle(wal_parent.as_ref(), &wal_name, |marks| marks.last().cloned())
                .map_err(BootError::Log)
        })?;
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
    let (backend, state) = try_with_room(&make_room, || match &received {
        Some(received) => received.open(&database),
        None => database.open(),
    })?;
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

/// Does a step, and once more if there was no room for it and some could be made.
fn try_with_room<T>(
    make_room: &dyn Fn() -> bool,
    step: impl Fn() -> Result<T, BootError>,
) -> Result<T, BootError> {
    match step() {
        Err(error) if error.is_no_space() && make_room() => step(),
        done => done,
    }
}

impl Opened {
    /// Whether there is a member already; then no [`Origin`] is needed.
    pub fn has_log(&self) -> bool {
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
    pub fn boot(self, options: &BootOptions, origin: Option<Origin>) -> Result<Booted, BootError> {
        if self.has_log {
            return restart::restart(self, options);
        }
        first::first(self, origin.expect("asked for because there is no log"), options)
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
