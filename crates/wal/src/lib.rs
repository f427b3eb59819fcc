//! The write-ahead log: what a member must never forget, in etcd's files.
//!
//! [`Wal`] appends entries, hard states and marks durably; opening it gives everything back as a
//! [`Replay`]. It knows nothing of consensus: which mark to start from and whether the database
//! fits is its caller's affair.
//!
//! Invariants:
//! - a call that returned `Ok` after a sync is found again after any crash, whole and in order;
//! - nothing that fails its checksum is returned; what cannot be told from a torn write is cut off
//!   only behind everything that is known to have been synced;
//! - every segment starts with the checksum so far and the metadata, so that any suffix of the
//!   segments can be verified alone.
//!
//! Source: etcd: server/storage/wal at v3.7.1. Bytes: docs/formats/wal.md.

mod error;
mod open;
mod prepare;
mod record;
mod replay;
mod scan;
mod segment;
mod tail;
mod wal;

use base::{ClusterId, Index, LogPosition, MemberId};
use raft::{ConfState, Entry, HardState};

pub use error::{AppendError, CreateError, Damage, OpenError, ReleaseError};
pub use open::{read, settle};
pub use prepare::Preparer;
pub use wal::{Options, Wal};

/// Whose log this is. It stands in every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The member that writes the log.
    pub member: MemberId,
    /// The cluster the member belongs to.
    pub cluster: ClusterId,
}

/// A snapshot record: the state at this position is in the database or in a `.snap` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last entry whose effect the state has.
    pub position: LogPosition,
    /// The membership there; absent at position 0 and in logs of etcd 3.4.
    pub conf_state: Option<ConfState>,
}

/// What a log holds from one mark on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The last one written; all zero if there is none.
    pub hard_state: HardState,
    /// The entries behind `start`, without gaps. The last ones may be uncommitted.
    pub entries: Vec<Entry>,
    /// All marks at or below the commit index, by index.
    pub marks: Vec<Mark>,
    /// The mark that was chosen.
    pub start: Mark,
    /// What was cut off the end, if anything was.
    pub repaired: Option<Repaired>,
}

/// Remains of a write that a crash interrupted, cut off the end of the newest segment.
///
/// The caller must hold `last index of the replay` against the applied index of its database: if
/// the database is ahead, what was cut off had been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Name of the segment.
    pub segment: String,
    /// Where the cut was made, in bytes.
    pub offset: u64,
    /// How many bytes behind it were not all zero.
    pub bytes: u64,
    /// The copy of the segment as it was found; absent if the log was only read, and if the disk
    /// has no room for it.
    pub backup: Option<String>,
    /// The lowest index of an entry that was recognised in what was cut off.
    pub lowest_index: Option<Index>,
}
