//! Why a member does not start, in words that say what to do.

use std::io;

use base::{ClusterId, Index, MemberId, version};

use super::remedy::Remedy;
use crate::reserve::is_no_space;

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
    /// The database, while it is made smaller.
    #[error("shrinking the database, which --bootstrap-defrag-threshold-megabytes asks for")]
    Shrink(#[source] backend::CommitError),
    /// G11.
    #[error("the database {db} cannot be used: {FROM_LOG}{remedy}")]
    DatabaseDamaged {
        /// Where it is.
        db: String,
        /// What to do.
        remedy: Remedy,
        /// Its damage.
        #[source]
        source: backend::OpenError,
    },
    /// The state in it.
    #[error("the state in the database {db} cannot be used: {FROM_LOG}{remedy}")]
    State {
        /// Where it is.
        db: String,
        /// What to do.
        remedy: Remedy,
        /// Its damage.
        #[source]
        source: state::OpenError,
    },
    /// U4.
    #[error(
        "the database {db} was written by a newer etcd: its storage version is {storage}, this is \
         etcd {}; start the newer release, or, before its members are replaced by this one, run \
         \"etcdctl downgrade enable {}\" there",
        version::COMPATIBLE,
        version::CLUSTER
    )]
    TooNew {
        /// Where it is.
        db: String,
        /// The version of its layout.
        storage: String,
        /// etcd's words.
        #[source]
        source: state::OpenError,
    },
    /// The log.
    #[error("opening the log")]
    Log(#[source] wal::OpenError),
    /// G10. The log holds what was never written, or not all of what was.
    #[error("the log {wal} cannot be used: {remedy}")]
    LogDamaged {
        /// Where it is.
        wal: String,
        /// What to do.
        remedy: Remedy,
        /// Its damage.
        #[source]
        source: Box<wal::OpenError>,
    },
    /// A new log.
    #[error("making the log")]
    NewLog(#[source] wal::CreateError),
    /// G12.
    #[error(
        "log missing for the database at {db}, which is applied up to index {applied}: restore the \
         log folder {wal}, or else {remedy}"
    )]
    LogMissing {
        /// What to do without it.
        remedy: Remedy,
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
         older than the database or its newest segments are missing; put those back that the \
         member wrote last, or else {remedy}"
    )]
    LogBehind {
        /// What to do without them.
        remedy: Remedy,
        /// The log's last entry.
        last: Index,
        /// How far the database is applied.
        applied: Index,
    },
    /// D19.
    #[error(
        "the database is applied only up to index {applied}, but the log goes on only behind a newer snapshot: \
         failed to find database snapshot file (snap: snapshot file doesn't exist); put the file \
         back, or else {remedy}"
    )]
    DatabaseBehind {
        /// What to do without it.
        remedy: Remedy,
        /// How far the database is applied.
        applied: Index,
        /// What the log said.
        #[source]
        source: wal::OpenError,
    },
    /// D18.
    #[error(
        "the database {db} is missing and the log in {wal} begins only behind index {needed}, so the state cannot be made from it: put back the database that is applied up to index {needed} or further, or else {remedy}"
    )]
    DatabaseMissing {
        /// What to do without it.
        remedy: Remedy,
        /// Where the database should be.
        db: String,
        /// The log.
        wal: String,
        /// The least index that the log can continue.
        needed: Index,
    },
    /// D21.
    #[error(
        "the log in {wal} is that of member {log_member} of cluster {cluster}, but the database {db} is that of a cluster with only the members {members}: do not mix files of several members; restore both from the same backup"
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
    /// C8.
    #[error(
        "the received snapshot {file} cannot be used, and the log goes on only behind it: remove \
         this member and add it again"
    )]
    ReceivedDamaged {
        /// Where it is.
        file: String,
        /// Its damage.
        #[source]
        source: Box<BootError>,
    },
    /// C8.
    #[error(
        "the received snapshot {file} is applied only up to index {applied} instead of {needed}: \
         remove this member and add it again"
    )]
    ReceivedBehind {
        /// Where it is.
        file: String,
        /// How far it is applied.
        applied: Index,
        /// What the log says.
        needed: Index,
    },
    /// C8.
    #[error("making the received snapshot {file} the database")]
    Install {
        /// Where it is.
        file: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// M3. Its end, not a failure.
    #[error(
        "the member has been permanently removed from the cluster: member {member} of cluster \
         {cluster} cannot come back; to have it in the cluster again add it as a new member and \
         start it with an empty data directory"
    )]
    Removed {
        /// This member.
        member: MemberId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// M8.
    #[error("making a new cluster of this member alone")]
    Force(#[source] wal::AppendError),
}

impl BootError {
    /// The operating system's error among the causes.
    pub(super) fn io(&self) -> Option<&io::Error> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref() {
                return Some(io);
            }
            cause = error.source();
        }
        None
    }

    /// Whether there was only no room.
    pub(super) fn is_no_space(&self) -> bool {
        self.io().is_some_and(is_no_space)
    }
}

/// What an operator tries first about a database that cannot be used.
const FROM_LOG: &str = "move the file away and start again if the log holds everything from its \
                        first entry on (a start says so if it does not), else ";
