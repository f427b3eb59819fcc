//! What can go wrong with a log, in words for its operator.
//!
//! Every text names the file and, where it is known, the offset and the index, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use base::{Index, LogPosition, Term};

/// Why a log could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a log already.
    #[error("the folder {folder:?} holds a log already")]
    Exists {
        /// The log's folder.
        folder: PathBuf,
    },
    /// The operating system refused.
    #[error("making a log in {folder:?}")]
    Io {
        /// The log's folder.
        folder: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full. Nothing of this call is in the log, everything before it is; the call may
    /// be repeated when there is space.
    #[error(
        "no space for {bytes} bytes in {file:?} at offset {offset}; nothing of the batch was kept, \
         free some space on this disk"
    )]
    NoSpace {
        /// The segment.
        file: PathBuf,
        /// Where the log ends.
        offset: u64,
        /// Size of what was to be written.
        bytes: usize,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A write failed. The log must not be used again: open it anew in a new process.
    #[error("writing {file:?} at offset {offset}; the member must stop")]
    Write {
        /// The segment.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A sync failed; what is durable is unknown. The log must not be used again.
    #[error("syncing {file:?}; the member must stop")]
    Sync {
        /// The segment or folder.
        file: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The next segment could not be put in place. The batch is durable, but the log must not be
    /// used again.
    #[error("putting the segment {file:?} in place; the member must stop")]
    Cut {
        /// The new segment.
        file: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// Why old segments were not removed. The log is as good as before.
#[derive(Debug, thiserror::Error)]
#[error("removing old segments, at {file:?}")]
pub struct ReleaseError {
    /// The segment or folder.
    pub file: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No segment is there.
    #[error("no log in {folder:?}; if the database is kept, {REBUILD}")]
    Missing {
        /// The log's folder.
        folder: PathBuf,
    },
    /// The folder could not be read.
    #[error("listing {folder:?}")]
    Folder {
        /// The log's folder.
        folder: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A segment could not be opened.
    #[error("opening {file:?}")]
    File {
        /// The segment.
        file: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The device failed.
    #[error("reading {file:?} near offset {offset}; {REBUILD}")]
    Read {
        /// The segment.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has the log.
    #[error("{file:?} is locked by another process; stop the member that uses this folder")]
    InUse {
        /// The segment.
        file: PathBuf,
    },
    /// A segment between others is missing.
    #[error(
        "segment {expected:016x} of {folder:?} is missing: {before} is followed by {after}; put \
         it back, or {REBUILD}"
    )]
    SegmentGap {
        /// The log's folder.
        folder: PathBuf,
        /// Sequence number of the missing one.
        expected: u64,
        /// The name before the gap.
        before: String,
        /// The name behind it.
        after: String,
    },
    /// A segment holds something that was never written there.
    #[error("{file:?} is damaged at offset {offset}, behind entry {index}: {damage}; {REBUILD}")]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where the record starts.
        offset: u64,
        /// The last entry before it; 0 if there is none in the segments that were read.
        index: Index,
        /// What is wrong.
        damage: Damage,
    },
    /// A segment of another member is among the others.
    #[error(
        "{file:?} belongs to member {found_member} of cluster {found_cluster}, but the log before \
         it to member {member} of cluster {cluster}; do not mix data folders"
    )]
    OtherOwner {
        /// The segment.
        file: PathBuf,
        /// The member the earlier segments name.
        member: base::MemberId,
        /// The cluster the earlier segments name.
        cluster: base::ClusterId,
        /// The member this segment names.
        found_member: base::MemberId,
        /// The cluster this segment names.
        found_cluster: base::ClusterId,
    },
    /// An entry does not follow the one before it.
    #[error("entry {found} in {file:?} at offset {offset} follows entry {last}; {REBUILD}")]
    EntryGap {
        /// The segment.
        file: PathBuf,
        /// Where the record starts.
        offset: u64,
        /// The last entry, or the start.
        last: Index,
        /// The entry that does not follow.
        found: Index,
    },
    /// Terms or the commit index go back.
    #[error("{what} goes back from {before} to {found} in {file:?} at offset {offset}; {REBUILD}")]
    GoesBack {
        /// The segment.
        file: PathBuf,
        /// Where the record starts.
        offset: u64,
        /// Which number.
        what: &'static str,
        /// What it was.
        before: u64,
        /// What is found.
        found: u64,
    },
    /// None of the marks suits the state that is kept elsewhere.
    #[error(
        "none of the {count} snapshot positions in {folder:?} up to entry {commit} fits the \
         database; {REBUILD}"
    )]
    NoMark {
        /// The log's folder.
        folder: PathBuf,
        /// How many there are.
        count: usize,
        /// The commit index of the log.
        commit: Index,
    },
    /// The mark to start from is not in the segments that should hold it.
    #[error("no snapshot record for {start} in the segments of {folder:?} from entry {} on; {REBUILD}", start.index)]
    MarkMissing {
        /// The log's folder.
        folder: PathBuf,
        /// Where to start.
        start: LogPosition,
    },
    /// A mark names another term than the state that is kept elsewhere.
    #[error(
        "the snapshot record for entry {index} in {file:?} has term {found}, expected {expected}; \
         {REBUILD}"
    )]
    MarkTerm {
        /// The segment.
        file: PathBuf,
        /// Where.
        index: Index,
        /// The term the caller chose.
        expected: Term,
        /// The term in the log.
        found: Term,
    },
    /// Entries that are known to be committed are not there.
    #[error(
        "the log in {folder:?} ends at entry {last}, but entry {commit} was committed; {REBUILD}"
    )]
    CommittedLost {
        /// The log's folder.
        folder: PathBuf,
        /// The last entry found.
        last: Index,
        /// The commit index found.
        commit: Index,
    },
    /// The torn end could not be cleaned.
    #[error("repairing the end of {file:?}")]
    Repair {
        /// The segment.
        file: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// What an operator does about a log that cannot be used. A member of several that came back from a
/// snapshot would have forgotten its votes.
const REBUILD: &str = "replace this member if the cluster has others (etcdctl member remove, member \
                       add, start with an empty data folder), and restore it from a snapshot only \
                       if it has none";

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The length field's padding bits do not fit its length.
    Header,
    /// The length field and the record's own length disagree.
    Length,
    /// The segment ends inside the record, and it is not the newest segment.
    Short,
    /// The bytes behind the record that fill it up are not zero.
    Padding,
    /// The bytes are not a record.
    Record,
    /// The record is of a kind that nobody writes.
    Kind(i64),
    /// The checksum disagrees.
    Crc {
        /// What the record says.
        stored: u32,
        /// What its bytes and those before it give.
        computed: u32,
    },
    /// The records that start every segment are missing.
    Start,
    /// A record stands where none of its kind may stand.
    Place,
    /// The content is not what its kind says.
    Content,
    /// The record looks torn, but a record behind it was written after it had been synced.
    Synced {
        /// Where the later record starts.
        evidence: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the length field is impossible"),
            Self::Length => f.write_str("the length field disagrees with the record"),
            Self::Short => f.write_str("the file ends inside a record"),
            Self::Padding => f.write_str("the padding is not zero"),
            Self::Record => f.write_str("not a record"),
            Self::Kind(kind) => write!(f, "unknown record type {kind}"),
            Self::Crc { stored, computed } => {
                write!(f, "checksum {stored:08x} is stored, {computed:08x} computed")
            }
            Self::Start => f.write_str("the records that start a segment are missing"),
            Self::Place => f.write_str("a record of this type cannot stand here"),
            Self::Content => f.write_str("the content does not fit the record type"),
            Self::Synced { evidence } => write!(
                f,
                "it was synced, since a later record stands at offset {evidence}, so this is no \
                 torn write"
            ),
        }
    }
}

/// Whether the operating system had no room, as opposed to a broken device.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
