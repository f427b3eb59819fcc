//! A data directory made from a snapshot.
//!
//! What is restored is the first state of a new cluster: the snapshot's keys, leases, users and roles
//! under new members, with a log that begins with one entry per member. Every member is restored from
//! the same snapshot with the same cluster string and so comes to the same state.
//!
//! The snapshot is checked as a whole before anything is written. The directory is built aside and
//! renamed at the end, the log last: a crash leaves nothing that a member would start on.
//!
//! Source: interop 3.5; etcd: `etcdutl/snapshot/v3_snapshot.go`.

mod digest;
mod places;

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backend::{Bucket, ReadError, ReadOnly};
use base::{ClusterId, Index, LogPosition, MemberId, Revision, Term};
use proto::raftpb;
use raft::{ConfState, Entry, EntryKind, HardState};
use serde_json::{Value, json};
use state::members::{MemberObject, cluster_id, founding_change};
use state::snapshot_file::SnapshotFile;
use vfs::{Dir, Open};
use wal::{Mark, Metadata, Wal};

use crate::cluster::Founders;
use crate::database::{self, Damage, DatabaseError, FileError};
use crate::log;
use crate::restore::places::Places;
use crate::rewrite::{Edits, RewriteError, rewrite};
use crate::storage;

pub(crate) use digest::DigestError;

/// What to restore, and to where.
#[derive(Debug)]
pub(crate) struct Restore {
    pub(crate) snapshot: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) wal_dir: PathBuf,
    pub(crate) founders: Founders,
    /// Whether a file without a digest, or with a wrong one, will do.
    pub(crate) skip_hash_check: bool,
    /// What is added to the newest revision, which is then marked as compacted.
    pub(crate) bump_revision: Option<u64>,
    /// How long to wait for a member that has the snapshot open, which then is its database; `None`
    /// for ever.
    pub(crate) lock_timeout: Option<Duration>,
    /// Only told in the log: nothing is mapped.
    pub(crate) memory_map_bytes: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// There is something already.
    #[error("data-dir {} not empty or could not be read", quoted(.0))]
    DataDir(PathBuf),
    /// There is something already.
    #[error("wal-dir {} exists", quoted(.0))]
    WalDir(PathBuf),
    /// The snapshot, or a new file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The snapshot's digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The snapshot is in use, or is no database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A page of the snapshot.
    #[error("snapshot file integrity check failed. 1 errors found.\n{0}")]
    Check(Damage),
    /// A page of the snapshot.
    #[error("reading the snapshot")]
    Read(#[from] ReadError),
    /// A row of the snapshot.
    #[error("cannot parse revision key: {key:?}")]
    RevisionKey {
        /// Its name.
        key: Vec<u8>,
    },
    /// There are no revisions left.
    #[error("revision {latest} cannot be bumped by {amount}: there are no revisions that high")]
    Bump {
        /// The newest one.
        latest: i64,
        /// What was to be added.
        amount: u64,
    },
    /// The new database.
    #[error("making {}", path.display())]
    Rewrite {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: RewriteError,
    },
    /// The new log.
    #[error("making the log")]
    NewLog(#[from] wal::CreateError),
    /// The new log.
    #[error("writing the log")]
    Append(#[from] wal::AppendError),
    /// The new directory.
    #[error("making the data directory {}", path.display())]
    Place {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn quoted(path: &std::path::Path) -> String {
    cli::quote::quote(path.as_os_str().as_encoded_bytes())
}

/// What the new member begins with.
const TERM: Term = Term(1);

impl Restore {
    /// Makes the directory; durable on return.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]; there is no directory then, except that the device failed.
    pub(crate) fn run(&self) -> Result<(), RestoreError> {
        places::require_free(&self.data_dir, &self.wal_dir)?;
        log::info("restoring snapshot", &self.fields());
        let file = database::open_file(&self.snapshot, Open::Read)?;
        digest::verify(&*file, &self.snapshot, self.skip_hash_check)?;
        let source = database::read(file, &self.snapshot, self.lock_timeout)?;
        database::check(&source).map_err(RestoreError::Check)?;
        let edits = self.edits(&source)?;

        let failed = |source| RestoreError::Place { path: self.data_dir.clone(), source };
        let places = Places::stage(&self.data_dir, &self.wal_dir).map_err(failed)?;
        let built = self.build(&places, &source, &edits);
        match built.and_then(|()| places.publish().map_err(failed)) {
            Ok(()) => {
                log::info("restored snapshot", &self.fields());
                Ok(())
            }
            Err(error) => {
                places.discard();
                Err(error)
            }
        }
    }

    fn fields(&self) -> [(&'static str, Value); 5] {
        let path = |path: &std::path::Path| Value::from(path.display().to_string());
        [
            ("path", path(&self.snapshot)),
            ("wal-dir", path(&self.wal_dir)),
            ("data-dir", path(&self.data_dir)),
            ("snap-dir", path(&self.data_dir.join("member").join("snap"))),
            ("initial-memory-map-size", self.memory_map_bytes.into()),
        ]
    }

    /// What the database differs in from the snapshot.
    fn edits(&self, source: &ReadOnly) -> Result<Edits, RestoreError> {
        let mut edits = Edits::default();
        log::info("Trimming membership information from the backend...", &[]);
        edits.empty(Bucket::Members);
        edits.empty(Bucket::MembersRemoved);
        if let Some(amount) = self.bump_revision {
            bump_revision(source, amount, &mut edits)?;
        }
        for member in &self.founders.members {
            edits.set(Bucket::Members, member.id.to_string().as_bytes(), member.to_json());
            log::info("added member", &self.member_fields(member));
        }
        let ids: Vec<u64> = self.founders.members.iter().map(|member| member.id.0).collect();
        // etcd leaves the old cluster's here until the first change of members.
        let conf_state = json!({ "voters": ids, "auto_leave": false });
        edits.set(Bucket::Meta, storage::CONF_STATE, conf_state.to_string());
        let Index(index) = self.commit();
        edits.set(Bucket::Meta, storage::CONSISTENT_INDEX, index.to_be_bytes());
        edits.set(Bucket::Meta, storage::TERM, TERM.0.to_be_bytes());
        Ok(edits)
    }

    fn member_fields(&self, member: &MemberObject) -> [(&'static str, Value); 5] {
        [
            ("cluster-id", self.cluster().to_string().into()),
            ("local-member-id", MemberId::NONE.to_string().into()),
            ("added-peer-id", member.id.to_string().into()),
            ("added-peer-peer-urls", member.peer_urls.clone().into()),
            ("added-peer-is-learner", member.is_learner.into()),
        ]
    }

    fn cluster(&self) -> ClusterId {
        let ids: Vec<_> = self.founders.members.iter().map(|member| member.id).collect();
        cluster_id(&ids)
    }

    /// There is one entry per member, and all are committed.
    fn commit(&self) -> Index {
        Index(self.founders.members.len() as u64)
    }

    fn build(&self, places: &Places, source: &ReadOnly, edits: &Edits) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Place { path: self.data_dir.clone(), source };
        let db = places.snap.open("db", Open::Create).map_err(failed)?;
        let path = || places.snap.path().join("db");
        rewrite(source, edits, db, None)
            .map_err(|source| RestoreError::Rewrite { path: path(), source })?;

        let members = &self.founders.members;
        let voters: BTreeSet<MemberId> = members.iter().map(|member| member.id).collect();
        let metadata = Metadata { member: self.founders.own, cluster: self.cluster() };
        let mut wal = Wal::create(&places.wal_parent, &places.wal_name, &metadata)?;
        let entries: Vec<Entry> = (1..).map(Index).zip(members).map(first_entry).collect();
        let vote = voters.first().copied().unwrap_or(MemberId::NONE);
        let hard_state = HardState { term: TERM, vote, commit: self.commit() };
        wal.append_and_sync(&entries, Some(&hard_state), true)?;

        let position = LogPosition { index: self.commit(), term: TERM };
        let conf_state = raftpb::ConfState {
            voters: voters.iter().map(|id| id.0).collect(),
            auto_leave: Some(false),
            ..raftpb::ConfState::default()
        };
        let removed = &[];
        let snapshot = SnapshotFile {
            position,
            conf_state,
            members,
            removed,
            cluster_version: None,
            v2: None,
        };
        write(&*places.snap, &snapshot).map_err(failed)?;
        let conf_state = ConfState { voters, ..ConfState::default() };
        wal.mark(&Mark { position, conf_state: Some(conf_state) })?;
        Ok(())
    }
}

fn write(dir: &dyn Dir, snapshot: &SnapshotFile<'_>) -> io::Result<()> {
    let file: Arc<_> = dir.open(&snapshot.name(), Open::Create)?;
    file.write_at(&snapshot.encode(), 0)?;
    file.sync_data()?;
    dir.sync()
}

/// The entry that makes a first member known; every first member writes the same.
fn first_entry((index, member): (Index, &MemberObject)) -> Entry {
    Entry { kind: EntryKind::ConfChange, term: TERM, index, data: founding_change(member) }
}

/// Adds a row without a key at the bumped revision, so that no revision of the old cluster is given
/// again, and marks it as compacted, so that watchers of the old cluster notice.
fn bump_revision(source: &ReadOnly, amount: u64, edits: &mut Edits) -> Result<(), RestoreError> {
    let mut latest = 0;
    let mut wrong = None;
    source.scan(Bucket::Key, b"", None, &mut |key, _| match mvcc::parse_row_name(key) {
        Some((revision, _)) => {
            latest = revision.main;
            ControlFlow::Continue(())
        }
        None => {
            wrong = Some(RestoreError::RevisionKey { key: key.to_vec() });
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    let main = latest.checked_add_unsigned(amount);
    let main = main.ok_or(RestoreError::Bump { latest, amount })?;
    log::info(
        "bumping latest revision",
        &[
            ("latest-revision", latest.into()),
            ("bump-amount", amount.into()),
            ("new-latest-revision", main.into()),
        ],
    );
    log::info("marking revision compacted", &[("revision", main.into())]);
    let name = mvcc::revision_name(Revision { main, sub: 0 });
    edits.set(Bucket::Key, &name, []);
    edits.set(Bucket::Meta, storage::SCHEDULED_COMPACT, name);
    Ok(())
}
