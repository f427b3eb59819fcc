//! Past events, read from rows of the backend in pieces.
//!
//! A piece belongs to one pull: all watches of the stream that lag at about the same revision are
//! served from it.

use std::cell::OnceCell;
use std::ops::ControlFlow;

use backend::{Bucket, ReadError};
use bytes::Bytes;

use super::hub::{Event, Kind};
use crate::row::{self, Head};
use crate::store::Shared;

/// Main revisions and bytes after which a piece ends, with the revision it is in.
const REVISIONS_MAX: usize = 1000;
const BYTES_MAX: usize = 4 << 20;

/// All rows with main revisions from `from` up to but not including `to`.
pub(super) struct Piece {
    from: i64,
    pub(super) to: i64,
    pub(super) rows: Vec<PastRow>,
}

/// A row, and the event of it once a watch wants it.
pub(super) struct PastRow {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    pub(super) kind: Kind,
    row: Bytes,
    event: OnceCell<Event>,
}

impl PastRow {
    pub(super) fn event(&self) -> &Event {
        self.event.get_or_init(|| {
            let bytes = match self.kind {
                Kind::Create | Kind::Modify => row::put_event(&self.row),
                Kind::Delete => row::delete_event(&self.key, self.revision),
            };
            Event::new(self.revision, self.key.clone(), self.kind, bytes)
        })
    }
}

/// What reading a piece gave.
pub(super) enum Past {
    Piece(Piece),
    /// The beginning is compacted up to this revision.
    Compacted(i64),
}

impl Piece {
    /// Reads rows from `from` on, not beyond `until`.
    pub(super) fn read(shared: &Shared, from: i64, until: i64) -> Result<Past, ReadError> {
        assert!(from < until, "nothing is to be read from {from} to {until}");
        let mut piece = Self { from, to: until, rows: Vec::new() };
        let (mut revisions, mut bytes) = (0, 0);
        let (start, end) = (row::from_main(from), row::from_main(until));
        shared.backend().scan(Bucket::Key, &start, Some(&end), &mut |key, value| {
            let stamp = row::parse_row_key(key).expect("rows were checked at opening");
            let revision = stamp.main();
            if piece.rows.last().is_none_or(|last| last.revision != revision) {
                if REVISIONS_MAX <= revisions || BYTES_MAX <= bytes {
                    piece.to = revision;
                    return ControlFlow::Break(());
                }
                revisions += 1;
            }
            bytes += value.len();
            let head = Head::parse(value).expect("rows were checked at opening");
            let kind = match stamp.is_deletion() {
                true => Kind::Delete,
                false if head.create == head.modified => Kind::Create,
                false => Kind::Modify,
            };
            let (key, row) = (head.key, value.clone());
            piece.rows.push(PastRow { revision, key, kind, row, event: OnceCell::new() });
            ControlFlow::Continue(())
        })?;
        // Rows go only after their boundary is published: if it is not behind `from` now, none of
        // these went before they were read.
        let compact = shared.compact_revision();
        let checks = !base::probe::mutant("watch-misses-that-rows-are-compacted");
        Ok(if from < compact && checks { Past::Compacted(compact) } else { Past::Piece(piece) })
    }

    pub(super) fn covers(&self, revision: i64) -> bool {
        (self.from..self.to).contains(&revision)
    }
}
