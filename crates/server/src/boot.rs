//! From a data directory, or none, to a member that can run.
//!
//! A folder without a log is a new member: the log begins with the members' configuration entries,
//! as etcd writes them (interop 4.2, "bootstrap"). With a log it is a restart: the database says
//! how far the log is applied, the log must reach at least that far, and what is behind is applied
//! again. Anything else is refused with its cause; nothing is made up.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backend::Backend;
use base::{ClusterId, Index, LogPosition, MemberId, Term};
use prost::Message as _;
use proto::raftpb;
use raft::{ConfState, Entry, EntryKind, HardState, Restored};
use state::State;
use state::members::{self, MemberObject};
use vfs::{Dir, OsDir};
use wal::{Mark, Metadata, Wal};

/// What start-up needs of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct BootOptions {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The log's folder, if it is not `member/wal`.
    pub(crate) wal_dir: Option<PathBuf>,
    /// This member's name.
    pub(crate) name: String,
    /// Names and peer URLs of the first members, for a new cluster.
    pub(crate) initial_cluster: Vec<(String, Vec<String>)>,
    /// Mixed into the ids of a new cluster.
    pub(crate) token: String,
    /// The database's.
    pub(crate) backend: backend::Options,
    /// The state's.
    pub(crate) state: state::Options,
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
    /// `member/snap`.
    pub(crate) snap_dir: Arc<dyn Dir>,
    /// Whether the folder held a member before.
    pub(crate) restarted: bool,
}

/// Why a member does not start. Each text names what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The folder.
    #[error("cannot access data directory: {path}")]
    DataDir {
        /// Where.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error("opening the database")]
    Backend(#[source] backend::OpenError),
    /// The state in it.
    #[error("opening the state")]
    State(#[source] state::OpenError),
    /// The log.
    #[error("opening the log")]
    Log(#[source] wal::OpenError),
    /// A new log.
    #[error("making the log")]
    NewLog(#[source] wal::CreateError),
    /// A new log's first entries.
    #[error("writing the log's first entries")]
    FirstEntries(#[source] wal::AppendError),
    /// G12.
    #[error(
        "log missing for the database at {db}, which is applied up to index {applied}: restore the \
         log folder {wal}, or restore from a snapshot, or remove this member and add it again"
    )]
    LogMissing {
        /// The database.
        db: String,
        /// How far it is applied.
        applied: Index,
        /// Where the log should be.
        wal: String,
    },
    /// D19, D20.
    #[error(
        "the log ends at index {last} but the database is applied up to index {applied}: the log is \
         older than the database or its newest segments are missing; restore both from the same \
         backup, or remove this member and add it again"
    )]
    LogBehind {
        /// The log's last entry.
        last: Index,
        /// How far the database is applied.
        applied: Index,
    },
    /// D19.
    #[error(
        "the database is applied only up to index {applied}, before every snapshot of the log: \
         failed to find database snapshot file (snap: snapshot file doesn't exist); restore both \
         from the same backup, or remove this member and add it again"
    )]
    DatabaseBehind {
        /// How far the database is applied.
        applied: Index,
        /// What the log said.
        #[source]
        source: wal::OpenError,
    },
    /// SRV-032.
    #[error(
        "couldn't find local name {name:?} in the initial cluster configuration; add {name}=<its \
         peer URL> to --initial-cluster, or set --name"
    )]
    NameNotInCluster {
        /// The name.
        name: String,
    },
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

/// Opens or makes the member of a data directory.
///
/// # Errors
///
/// See [`BootError`]; nothing was changed unless a new member was being made.
pub(crate) fn boot(options: &BootOptions) -> Result<Booted, BootError> {
    let dir_error = |source| options.dir_error(source);
    let data_dir = OsDir::open(&options.data_dir).map_err(dir_error)?;
    let member_dir = data_dir.subdir("member").map_err(dir_error)?;
    let snap_dir = member_dir.subdir("snap").map_err(dir_error)?;
    let (wal_parent, wal_name) = options.wal_place(&member_dir)?;
    let has_log = Wal::exists(wal_parent.as_ref(), &wal_name).map_err(dir_error)?;
    let mut backend_options = options.backend.clone();
    backend_options.aux = Some(member_dir.subdir("aux").map_err(dir_error)?);
    let backend = Backend::open(&snap_dir, "db", &backend_options).map_err(BootError::Backend)?;
    let state = State::open(&backend, &options.state).map_err(BootError::State)?;
    let applied = state.applied().index;
    if !has_log && applied > Index(0) {
        return Err(BootError::LogMissing {
            db: snap_dir.path().join("db").display().to_string(),
            applied,
            wal: wal_parent.path().join(&wal_name).display().to_string(),
        });
    }
    let parts = Parts { backend, state, snap_dir, wal_parent, wal_name };
    if has_log { restart(parts) } else { bootstrap(options, parts) }
}

struct Parts {
    backend: Backend,
    state: State,
    snap_dir: Arc<dyn Dir>,
    wal_parent: Arc<dyn Dir>,
    wal_name: String,
}

fn restart(parts: Parts) -> Result<Booted, BootError> {
    let Parts { backend, state, snap_dir, wal_parent, wal_name } = parts;
    let applied = state.applied();
    let newest_below = |marks: &[Mark]| {
        marks.iter().rev().find(|mark| mark.position.index <= applied.index).cloned()
    };
    let (wal, replay) = match Wal::open(&wal_parent, &wal_name, newest_below) {
        Ok(opened) => opened,
        Err(source @ wal::OpenError::NoMark { .. }) => {
            return Err(BootError::DatabaseBehind { applied: applied.index, source });
        }
        Err(error) => return Err(BootError::Log(error)),
    };
    let start = replay.start.position;
    let last = replay.entries.last().map_or(start.index, |entry| entry.index);
    if last < applied.index {
        return Err(BootError::LogBehind { last, applied: applied.index });
    }
    let mut hard_state = replay.hard_state;
    // The commit index is written lazily; what is applied was committed.
    hard_state.commit = hard_state.commit.max(applied.index).max(start.index);
    let members = state.members();
    let conf_state = if members.is_empty() {
        replay.start.conf_state.unwrap_or_default()
    } else {
        conf_state_of(&members)
    };
    Ok(Booted {
        member: replay.metadata.member,
        cluster: replay.metadata.cluster,
        restored: Restored {
            hard_state,
            conf_state,
            snapshot: start,
            entries: replay.entries,
            applied: applied.index,
        },
        state,
        backend,
        wal,
        snap_dir,
        restarted: true,
    })
}

fn bootstrap(options: &BootOptions, parts: Parts) -> Result<Booted, BootError> {
    let Parts { backend, state, snap_dir, wal_parent, wal_name } = parts;
    let mut first: Vec<MemberObject> = options
        .initial_cluster
        .iter()
        .map(|(name, urls)| MemberObject {
            id: members::member_id(urls, &options.token, None),
            name: name.clone(),
            peer_urls: urls.clone(),
            client_urls: Vec::new(),
            is_learner: false,
        })
        .collect();
    first.sort_by_key(|member| member.id);
    let own = first.iter().find(|member| member.name == options.name);
    let own = own.ok_or_else(|| BootError::NameNotInCluster { name: options.name.clone() })?;
    let ids: Vec<MemberId> = first.iter().map(|member| member.id).collect();
    let metadata = Metadata { member: own.id, cluster: members::cluster_id(&ids) };
    let entries: Vec<Entry> = (1..).zip(&first).map(|(index, member)| add(index, member)).collect();
    let commit = entries.last().map_or(Index(0), |entry| entry.index);
    let hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit };
    let mut wal = Wal::create(&wal_parent, &wal_name, &metadata).map_err(BootError::NewLog)?;
    wal.append_and_sync(&entries, Some(&hard_state), true).map_err(BootError::FirstEntries)?;
    Ok(Booted {
        member: metadata.member,
        cluster: metadata.cluster,
        restored: Restored {
            hard_state,
            conf_state: ConfState::default(),
            snapshot: LogPosition::default(),
            entries,
            applied: Index(0),
        },
        state,
        backend,
        wal,
        snap_dir,
        restarted: false,
    })
}

/// The entry that makes a first member known; every first member writes the same.
fn add(index: u64, member: &MemberObject) -> Entry {
    let change = raftpb::ConfChange {
        id: Some(0),
        r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode as i32),
        node_id: Some(member.id.0),
        context: Some(members::ChangeContext::of(member.clone()).to_json()),
    };
    Entry {
        kind: EntryKind::ConfChange,
        term: Term(1),
        index: Index(index),
        data: change.encode_to_vec().into(),
    }
}

/// Who votes, by the members the state holds.
pub(crate) fn conf_state_of(members: &[MemberObject]) -> ConfState {
    let ids = |learner: bool| -> BTreeSet<MemberId> {
        let of_kind = members.iter().filter(|member| member.is_learner == learner);
        of_kind.map(|member| member.id).collect()
    };
    ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
}
