//! From a data directory, or none, to a member that can run.
//!
//! A folder without a log is a new member: the log begins with the members' configuration entries,
//! as etcd writes them (interop 4.2, "bootstrap"). With a log it is a restart: the database says
//! how far the log is applied, the log must reach at least that far, and what is behind is applied
//! again. Anything else is refused with its cause; nothing is made up.

use std::cell::Cell;
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

use crate::reserve::{Reserve, is_no_space};

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
    /// The log's folder.
    pub(crate) wal_dir: Arc<dyn Dir>,
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
    /// G11.
    #[error("the database {db} cannot be used: {DATABASE_REMEDY}")]
    DatabaseDamaged {
        /// Where it is.
        db: String,
        /// Its damage.
        #[source]
        source: backend::OpenError,
    },
    /// The state in it.
    #[error("the state in the database {db} cannot be used: {DATABASE_REMEDY}")]
    State {
        /// Where it is.
        db: String,
        /// Its damage.
        #[source]
        source: state::OpenError,
    },
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
    /// D18.
    #[error(
        "the database {db} is missing and the log in {wal} begins only behind index {needed}, so          the state cannot be made from it: restore a database that is applied up to index {needed}          or further, or restore from a snapshot, or remove this member and add it again"
    )]
    DatabaseMissing {
        /// Where the database should be.
        db: String,
        /// The log.
        wal: String,
        /// The least index that the log can continue.
        needed: Index,
    },
    /// D21.
    #[error(
        "the log in {wal} is that of member {log_member} of cluster {cluster}, but the database {db}          is that of a cluster with only the members {members}: do not mix files of several          members; restore both from the same backup"
    )]
    OtherOwner {
        /// The log.
        wal: String,
        /// Whom it names.
        log_member: MemberId,
        /// Of which cluster.
        cluster: ClusterId,
        /// The database.
        db: String,
        /// Whom it names.
        members: String,
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

/// What an operator does about a database that cannot be used.
const DATABASE_REMEDY: &str = "move the file away and start again if the log holds everything from its first entry on (a \
     start says so if it does not), else restore from a snapshot, or remove this member and add it \
     again";

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
    if has_log && !snap_dir.exists("db").map_err(dir_error)? {
        check_complete(&wal_parent, &wal_name, &snap_dir)?;
    }
    let mut backend_options = options.backend.clone();
    backend_options.aux = Some(member_dir.subdir("aux").map_err(dir_error)?);
    let db = || snap_dir.path().join("db").display().to_string();
    let open = || Backend::open(&snap_dir, "db", &backend_options);
    let mut opened = open();
    if let Err(backend::OpenError::Io { source, .. }) = &opened
        && is_no_space(source)
        && has_log
    {
        // A full disk must not keep a member down (G14).
        let wal_dir = wal_parent.subdir(&wal_name).map_err(dir_error)?;
        if Reserve::open(wal_dir).release() {
            opened = open();
        }
    }
    let backend = opened.map_err(|source| match source {
        backend::OpenError::Damaged { .. } => BootError::DatabaseDamaged { db: db(), source },
        backend::OpenError::Locked { .. } | backend::OpenError::Io { .. } => {
            BootError::Backend(source)
        }
    })?;
    let state = State::open(&backend, &options.state)
        .map_err(|source| BootError::State { db: db(), source })?;
    let applied = state.applied().index;
    if !has_log && applied > Index(0) {
        return Err(BootError::LogMissing {
            db: db(),
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

/// Whether a log holds everything from the first entry on, before a database is made from it.
fn check_complete(
    wal_parent: &Arc<dyn Dir>,
    wal_name: &str,
    snap_dir: &Arc<dyn Dir>,
) -> Result<(), BootError> {
    let needed = Cell::new(Index(0));
    let begin = |marks: &[Mark]| {
        needed.set(marks.first().map_or(Index(0), |mark| mark.position.index));
        marks.iter().find(|mark| mark.position.index == Index(0)).cloned()
    };
    match wal::read(wal_parent.as_ref(), wal_name, begin) {
        Ok(_) => Ok(()),
        Err(wal::OpenError::NoMark { .. } | wal::OpenError::MarkMissing { .. }) => {
            Err(BootError::DatabaseMissing {
                db: snap_dir.path().join("db").display().to_string(),
                wal: wal_parent.path().join(wal_name).display().to_string(),
                needed: needed.get(),
            })
        }
        Err(error) => Err(BootError::Log(error)),
    }
}

/// D21: whether the log's owner is one of the members that the database knows, or becomes one by
/// an entry behind what the database has applied.
fn check_owner(parts: &Parts, replay: &wal::Replay) -> Result<(), BootError> {
    let Metadata { member, cluster } = replay.metadata;
    let members = parts.state.members();
    let adds_owner =
        |entry: &Entry| parts.state.applied().index < entry.index && concerns(entry, member);
    if members.is_empty()
        || members.iter().any(|known| known.id == member)
        || parts.state.removed_members().contains(&member)
        || replay.entries.iter().any(adds_owner)
    {
        return Ok(());
    }
    let names: Vec<String> = members.iter().map(|known| known.id.to_string()).collect();
    Err(BootError::OtherOwner {
        wal: parts.wal_parent.path().join(&parts.wal_name).display().to_string(),
        log_member: member,
        cluster,
        db: parts.snap_dir.path().join("db").display().to_string(),
        members: names.join(", "),
    })
}

/// Whether a membership entry may concern a member.
fn concerns(entry: &Entry, member: MemberId) -> bool {
    match entry.kind {
        EntryKind::Normal => false,
        // What cannot be read is found out when it is applied.
        EntryKind::ConfChange => raftpb::ConfChange::decode(entry.data.clone())
            .is_ok_and(|change| change.node_id() == member.0),
        // Nobody writes these yet, so nothing is known about them.
        EntryKind::ConfChangeV2 => true,
    }
}

fn restart(parts: Parts) -> Result<Booted, BootError> {
    let applied = parts.state.applied();
    let newest_below = |marks: &[Mark]| {
        marks.iter().rev().find(|mark| mark.position.index <= applied.index).cloned()
    };
    let (wal_parent, wal_name) = (&parts.wal_parent, &parts.wal_name);
    let (wal, replay) = match Wal::open(wal_parent, wal_name, newest_below) {
        Ok(opened) => opened,
        Err(source @ wal::OpenError::NoMark { .. }) => {
            return Err(BootError::DatabaseBehind { applied: applied.index, source });
        }
        Err(error) => return Err(BootError::Log(error)),
    };
    check_owner(&parts, &replay)?;
    if let Some(repaired) = &replay.repaired {
        tracing::warn!(
            segment = repaired.segment,
            offset = repaired.offset,
            bytes = repaired.bytes,
            backup = repaired.backup.as_deref().unwrap_or("none"),
            "cut off the torn end of the log: a write that was never acknowledged"
        );
    }
    let start = replay.start.position;
    let last = replay.entries.last().map_or(start.index, |entry| entry.index);
    if last < applied.index {
        return Err(BootError::LogBehind { last, applied: applied.index });
    }
    let Parts { backend, state, snap_dir, wal_parent, wal_name } = parts;
    let wal_dir = wal_parent.subdir(&wal_name).map_err(|source| BootError::DataDir {
        path: wal_parent.path().join(&wal_name).display().to_string(),
        source,
    })?;
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
        wal_dir,
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
    let wal_dir = wal_parent.subdir(&wal_name).map_err(|source| options.dir_error(source))?;
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
        wal_dir,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &std::path::Path, name: &str) -> BootOptions {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        let member =
            |name: &str, host: &str| (name.to_owned(), vec![format!("http://{host}:2380")]);
        BootOptions {
            data_dir: folder.join(name),
            wal_dir: None,
            name: name.to_owned(),
            initial_cluster: vec![
                member("a", "10.255.1.211"),
                member("b", "10.255.1.40"),
                member("c", "10.255.1.181"),
            ],
            token: "etcd-cluster-on-didicloud".to_owned(),
            backend: backend::Options::default(),
            state: state::Options {
                lease_ttl_seconds_min: 2,
                learners_max: 1,
                mvcc: mvcc::Options::default(),
            },
        }
    }

    /// CB-04, CB-10: SEED4-03's members agree on who they are and on how the log begins.
    #[test]
    fn the_first_members_write_the_same_log() {
        let folder = tempfile::tempdir().unwrap();
        let booted = ["a", "b", "c"].map(|name| boot(&options(folder.path(), name)).unwrap());
        let ids = booted.each_ref().map(|booted| booted.member.to_string());
        assert_eq!(ids, ["e95ffbf99d4aae9c", "dc6b4b48ae00bf8", "d6020117e8a2dc38"]);
        let first = &booted[0];
        for booted in &booted {
            assert_eq!(booted.cluster.to_string(), "ce964c3a01e63d53");
            assert_eq!(booted.restored.entries, first.restored.entries);
            assert_eq!(booted.restored.hard_state.commit, Index(3));
        }
    }

    /// CB-12: whatever the flags say by then.
    #[test]
    fn a_member_is_who_it_was_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path(), "a");
        let first = boot(&options).unwrap();
        let (member, cluster, entries) = (first.member, first.cluster, first.restored.entries);
        drop((first.wal, first.backend, first.state));
        options.initial_cluster.clear();
        options.token = "another".to_owned();
        let again = boot(&options).unwrap();
        assert_eq!((again.member, again.cluster), (member, cluster));
        assert_eq!(again.restored.entries, entries);
        assert_eq!(again.restored.hard_state.commit, Index(3));
        assert!(again.restarted);
    }
}
