//! The hash over rows that members compare.
//!
//! Every rule is there so that members agree although one has removed rows of a compaction that
//! another has not, and although old versions removed a deletion at the boundary that newer ones
//! keep.
//!
//! Source: etcd: server/storage/mvcc/hash.go.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use backend::{Backend, Bucket};

use crate::index::Stamp;
use crate::row;
use crate::{QueryError, Reader, RevisionError, Row};

/// A hash and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// CRC-32C as etcd computes it.
    pub hash: u32,
    /// The compact revision it was computed with; -1 if none.
    pub compact_revision: i64,
    /// The revision it covers.
    pub revision: i64,
    /// The store's newest revision when it was computed.
    pub current: i64,
}

/// Hashes of compactions that are kept, as many as etcd keeps.
const HASHES_MAX: usize = 10;

impl Reader {
    /// The hashes that compactions left behind, oldest first.
    #[must_use]
    pub fn compaction_hashes(&self) -> Vec<Hash> {
        self.shared.hashes.lock().clone()
    }

    /// etcd's HashKV at a revision (0 is the newest): interop 6.5. Reads every row up to there.
    /// A compaction waits for it; a received state that takes the place of this one does not: then
    /// the hash is begun again, of the new one.
    ///
    /// # Errors
    ///
    /// `Compacted`, `Future`, or the backend's.
    ///
    /// # Panics
    ///
    /// If a row has no revision for a name: opening the store checked that.
    pub fn hash(&self, at: i64) -> Result<Hash, QueryError> {
        let current = self.revision();
        // Unlike etcd's, a compaction at 0, which drops nothing, is not found when the newest
        // revision is asked for.
        let stored = self.shared.hashes.lock().iter().find(|hash| hash.revision == at).copied();
        if let Some(hash) = stored.filter(|_| at != 0) {
            return Ok(Hash { current, ..hash });
        }
        loop {
            if let Some(hash) = self.hash_rows(at)? {
                return Ok(hash);
            }
        }
    }

    /// `None` if the rows must go before all of them are read.
    fn hash_rows(&self, at: i64) -> Result<Option<Hash>, QueryError> {
        let _rows_stay = self.shared.removal.read();
        let tables = self.shared.tables.read();
        let current = self.shared.revision();
        let compact = self.shared.compact_revision();
        if 0 < at && at < compact {
            return Err(RevisionError::Compacted { requested: at, oldest: compact }.into());
        }
        if current < at {
            return Err(RevisionError::Future { requested: at, newest: current }.into());
        }
        let revision = if at == 0 { current } else { at };
        let put_again = put_again(&tables.backend, revision)?;
        let mut kept = Vec::new();
        let mut any_kept = false;
        tables.index.newest_rows(revision, &mut |stamp| {
            if !stamp.is_deletion() && !put_again.contains(&stamp) {
                any_kept = true;
                // Above the compact revision nothing is left out, so nothing need be looked up.
                if stamp.main() <= compact {
                    kept.push(stamp);
                }
            }
        });
        let backend = tables.backend.clone();
        drop(tables);
        kept.sort_unstable();

        let mut hasher = Hasher::new(compact, any_kept);
        let mut kept = kept.iter().peekable();
        // Names of negative revisions would be behind all others.
        let to = row::from_main((revision + 1).max(0));
        let mut gives_way = false;
        let scanned = backend.scan(Bucket::Key, &[], Some(&to), &mut |key, value| {
            let stamp = row::parse_row_key(key).expect("rows were checked at opening");
            while kept.next_if(|other| **other < stamp).is_some() {}
            hasher.add(stamp, key, value, kept.peek() == Some(&&stamp));
            gives_way = self.shared.restoring.load(Ordering::Relaxed);
            if gives_way { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        scanned.map_err(QueryError::Backend)?;
        if gives_way {
            return Ok(None);
        }
        Ok(Some(Hash { hash: hasher.sum(), compact_revision: compact, revision, current }))
    }
}

/// Rows of keys that their own transaction deleted before it put them, at this revision. etcd stops
/// at the deletion when it looks for what a compaction here would keep, and does not see them
/// (server/storage/mvcc/key_index.go, `doCompact`). A compaction of ours does keep them; only the
/// hash follows, so that members of both kinds agree.
fn put_again(backend: &Backend, revision: i64) -> Result<BTreeSet<Stamp>, QueryError> {
    let mut deleted = BTreeSet::new();
    let mut again = BTreeSet::new();
    let (from, to) = (row::from_main(revision), row::from_main(revision.saturating_add(1)));
    let scanned = backend.scan(Bucket::Key, &from, Some(&to), &mut |name, value| {
        let stamp = row::parse_row_key(name).expect("rows were checked at opening");
        if stamp.is_deletion() {
            deleted.insert(Row(value.clone()).decode().key);
        } else if !deleted.is_empty() && deleted.contains(&Row(value.clone()).decode().key) {
            again.insert(stamp);
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(QueryError::Backend)?;
    Ok(again)
}

/// Computes a hash over rows in their order.
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    crc: u32,
    compact: i64,
    any_kept: bool,
}

impl Hasher {
    /// `any_kept`: whether a compaction at the hashed revision would keep any row.
    pub(crate) fn new(compact: i64, any_kept: bool) -> Self {
        Self { crc: crc32c::crc32c(b"key"), compact, any_kept }
    }

    /// Takes in a row, unless it is one that members may or may not have. `kept`: whether a
    /// compaction at the hashed revision would keep it; asked only of rows up to the compact
    /// revision.
    pub(crate) fn add(&mut self, stamp: Stamp, key: &[u8], value: &[u8], kept: bool) {
        // etcd takes "nothing is kept" for "there is no such set" and then leaves nothing out.
        let superseded = stamp.main() <= self.compact && self.any_kept && !kept;
        let boundary_deletion = stamp.main() == self.compact && stamp.is_deletion();
        if !superseded && !boundary_deletion {
            self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, key), value);
        }
    }

    pub(crate) fn sum(&self) -> u32 {
        self.crc
    }
}

/// Keeps a hash by revision; of too many the one of the lowest revision goes.
pub(crate) fn keep_hash(hashes: &mut Vec<Hash>, hash: Hash) {
    let at = hashes.partition_point(|other| other.revision <= hash.revision);
    hashes.insert(at, hash);
    let surplus = hashes.len().saturating_sub(HASHES_MAX);
    hashes.drain(..surplus);
}
