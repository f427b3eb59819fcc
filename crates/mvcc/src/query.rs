//! What a read asks and what it gets.

use base::KeyRange;
use bytes::Bytes;
use proto::mvccpb::KeyValue;

/// Which rows, as of when.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// Which keys.
    pub keys: KeyRange,
    /// As of this main revision; `None` is now.
    pub at: Option<i64>,
    /// At most this many rows; `None` is all. The count is not limited.
    pub limit: Option<usize>,
    /// How much of each row.
    pub want: Want,
}

/// How much of each row a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Whole rows.
    Rows,
    /// Everything but value and lease, from the index alone.
    Keys,
    /// Only how many there are.
    Count,
}

/// Rows in key order.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// The rows, at most `limit`.
    pub rows: Vec<Row>,
    /// How many keys are in the range, whatever the limit.
    pub count: usize,
    /// The store's revision when the read was made.
    pub revision: i64,
}

/// One row: the bytes of a canonical `mvccpb.KeyValue`, shared with the page it lies in, ready to
/// be spliced into a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub Bytes);

impl Row {
    /// The fields.
    ///
    /// # Panics
    ///
    /// If the bytes are no row: the backend verified them, so the writer was wrong.
    #[must_use]
    pub fn decode(&self) -> KeyValue {
        prost::Message::decode(self.0.clone()).expect("a stored row decodes")
    }
}

/// Why a revision is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// That far back nothing is kept.
    #[error("revision {requested} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// Asked for.
        requested: i64,
        /// The compact revision.
        oldest: i64,
    },
    /// That far ahead nothing is written yet.
    #[error("revision {requested} is not written yet; the newest is {newest}")]
    Future {
        /// Asked for.
        requested: i64,
        /// The store's revision.
        newest: i64,
    },
}

/// Why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// As of that revision.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// The backend cannot give the bytes.
    #[error("reading the backend")]
    Backend(#[source] backend::ReadError),
}
