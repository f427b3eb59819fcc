//! Reading: which rows, from the index; their bytes, from the backend.
//!
//! The index lock is held only to choose rows. A compaction may remove rows between the two halves;
//! then the read is made again, and finds either newer rows or that its revision is gone.
//!
//! Source: etcd: server/storage/mvcc/kvstore_txn.go (which revisions are refused).

use std::ops::ControlFlow;
use std::sync::Arc;

use backend::{Backend, Bucket, ReadError};

use crate::index::{Found, Index, Stamp};
use crate::row::{self, Fields};
use crate::store::Shared;
use crate::{QueryError, RangeQuery, RangeResult, RevisionError, Row, Want};

/// The readers' half; clones share it, any thread may use it.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// The newest revision that readers see; 1 in an empty store.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.shared.revision()
    }

    /// The compact revision; -1 if nothing was ever compacted.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.shared.compact_revision()
    }

    /// Reads rows.
    ///
    /// As of now, a count costs the logarithm of the number of keys; as of an older revision also
    /// the keys changed since.
    ///
    /// # Errors
    ///
    /// `Compacted`, `Future`, or the backend's.
    ///
    /// # Panics
    ///
    /// If a row that the index knows is not in the backend.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, QueryError> {
        loop {
            let (selected, revision, at, backend) = {
                let tables = self.shared.tables.read();
                let revision = self.shared.revision();
                let at = resolve(query.at, revision, self.shared.compact_revision())?;
                let selected = Selected::find(&tables.index, query, at);
                (selected, revision, at.unwrap_or(revision), tables.backend.clone())
            };
            let rows = match selected.what {
                Rows::Ready(rows) => Some(rows),
                Rows::Stored(stamps) => fetch(&backend, &stamps).map_err(QueryError::Backend)?,
            };
            if let Some(rows) = rows {
                return Ok(RangeResult { rows, count: selected.count, revision });
            }
            let compact = self.shared.compact_revision();
            assert!(at < compact, "rows at {at} are missing, compacted is only up to {compact}");
        }
    }

    /// How many live keys there are.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.shared.tables.read().index.len()
    }
}

/// As of when the index is asked; `None` is now.
pub(crate) fn resolve(
    at: Option<i64>,
    revision: i64,
    compact: i64,
) -> Result<Option<i64>, RevisionError> {
    let Some(requested) = at.filter(|at| 0 < *at) else { return Ok(None) };
    if revision < requested {
        return Err(RevisionError::Future { requested, newest: revision });
    }
    if requested < compact {
        return Err(RevisionError::Compacted { requested, oldest: compact });
    }
    Ok((requested < revision).then_some(requested))
}

/// What the index answers to a query.
pub(crate) struct Selected {
    pub(crate) count: usize,
    pub(crate) what: Rows,
}

/// The rows of an answer.
pub(crate) enum Rows {
    /// Made from the index alone.
    Ready(Vec<Row>),
    /// To be read.
    Stored(Vec<Stamp>),
}

impl Selected {
    pub(crate) fn find(index: &Index, query: &RangeQuery, at: Option<i64>) -> Self {
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut stamps = Vec::new();
        let mut rows = Vec::new();
        let selected = match query.want {
            Want::Count => 0,
            Want::Rows => select(index, query, at, limit, &mut |_, found| stamps.push(found.stamp)),
            Want::Keys => {
                select(index, query, at, limit, &mut |key, found| rows.push(key_row(key, found)))
            }
        };
        let all_seen = query.want != Want::Count && selected < limit;
        let count = if all_seen { selected } else { index.count(&query.keys, at) };
        let what = if query.want == Want::Rows { Rows::Stored(stamps) } else { Rows::Ready(rows) };
        Self { count, what }
    }
}

fn select(
    index: &Index,
    query: &RangeQuery,
    at: Option<i64>,
    limit: usize,
    take: &mut dyn FnMut(&[u8], Found),
) -> usize {
    if limit == 0 {
        return 0;
    }
    let mut taken = 0;
    let stopped = index.visit(&query.keys, at, &mut |key, found| {
        take(key, found);
        taken += 1;
        if taken < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(stopped.is_continue() || taken == limit, "the walk stops at the limit only");
    taken
}

/// A row without value and lease.
fn key_row(key: &[u8], found: Found) -> Row {
    let Found { stamp, create, version } = found;
    Row(Fields { key, create, modified: stamp.main(), version, ..Fields::default() }.row())
}

/// Reads rows; `None` if one is not there any more.
fn fetch(backend: &Backend, stamps: &[Stamp]) -> Result<Option<Vec<Row>>, ReadError> {
    if let [stamp] = stamps {
        let row = backend.get(Bucket::Key, &row::revision_key(stamp.revision()))?;
        return Ok(row.map(|row| vec![Row(row)]));
    }
    let mut rows = Vec::with_capacity(stamps.len());
    let mut keys = stamps.iter().map(|stamp| row::revision_key(stamp.revision()));
    backend.get_many(Bucket::Key, &mut keys, &mut |row| rows.extend(row.map(Row)))?;
    Ok((rows.len() == stamps.len()).then_some(rows))
}
