//! What a read inside one request sees: a transaction being applied, or a pinned revision.

use backend::ReadError;
use mvcc::{QueryError, RangeQuery, RangeResult, Reader, Txn};

use crate::Refusal;

/// Something that answers range queries for the state as one request sees it.
pub(crate) trait View {
    /// Reads rows.
    fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError>;
}

impl View for Txn<'_, '_> {
    fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError> {
        Txn::range(self, query)
    }
}

impl View for Reader {
    fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError> {
        Reader::range(self, query)
    }
}

/// A reader that takes "now" to be one revision, so that all reads of a request agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinned<'r> {
    pub(crate) reader: &'r Reader,
    pub(crate) revision: i64,
}

impl View for Pinned<'_> {
    fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError> {
        let at = Some(query.at.unwrap_or(self.revision));
        self.reader.range(&RangeQuery { at, ..query.clone() })
    }
}

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Every member says no.
    Refused(Refusal),
    /// This member cannot read its own bytes.
    Broken(ReadError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Broken(error)
    }
}

impl From<QueryError> for Stop {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Revision(error) => Self::Refused(error.into()),
            QueryError::Backend(source) => Self::Broken(source),
        }
    }
}

impl Stop {
    /// What a reader is told: bytes that cannot be read are not served.
    pub(crate) fn for_reader(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Broken(_) => Refusal::Corrupt,
        }
    }
}
