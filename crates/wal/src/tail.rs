//! Examines what stands behind the last good record of the newest segment.
//!
//! A crash may leave there any sectors of what had not been synced, and only that can be cut off.
//! The format has no trace of a sync, but the order of writing gives one away: entries are synced
//! with at most one hard state behind them, and a mark is synced alone, before anything else is
//! written. So if behind the end there is an entry, then a hard state, then any record, or a mark
//! and then any record, a sync lies between, the end is no torn write, and cutting there would
//! lose what was acknowledged (a flipped length field does that to etcd, silently).
//!
//! Records are recognised without the checksum before them, which is lost with the torn one. Only
//! those count that form a chain of two or more, so that chance bytes do not. Bytes inside the torn
//! record itself are not looked at while its length can be believed: a payload may hold a log.

use std::io;

use base::Index;

use crate::record::{Content, Kind, Record, WORD_LEN, parse_word};
use crate::scan::Window;

/// What stands behind the end.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Behind the last byte that is not zero.
    pub(crate) end: u64,
    /// The lowest index of an entry recognised there.
    pub(crate) lowest_index: Option<Index>,
    /// A record that was written after a sync of what is torn.
    pub(crate) evidence: Option<u64>,
}

/// Looks at everything from `at`, where the last good record ends. `torn_end` is where the torn
/// record claims to end. `None` if all is zero.
pub(crate) fn examine(
    window: &mut Window<'_>,
    at: u64,
    torn_end: Option<u64>,
) -> io::Result<Option<Tail>> {
    let end = last_nonzero(window, at)?;
    if end <= at {
        return Ok(None);
    }
    let mut order = Order::default();
    // Its head may have survived and says what was torn.
    if let Some(head) = window.head(at)? {
        order.on_record(head.kind, at);
    }
    let mut at = torn_end.unwrap_or(at + WORD_LEN);
    let mut lowest: Option<Index> = None;
    let mut previous: Option<Seen> = None;
    while at < end {
        let Some(seen) = recognise(window, at)? else {
            previous = None;
            at += WORD_LEN;
            continue;
        };
        if let Some(before) = &mut previous {
            // The chain also continues across a record whose place in it could not be told.
            if seen.follows(window, before.crc)? {
                for (seen, is_new) in [(&*before, !before.counted), (&seen, true)] {
                    if is_new {
                        order.on_record(seen.kind, seen.at);
                        lowest = lowest.min(seen.index).or(lowest).or(seen.index);
                    }
                }
                previous = Some(Seen { counted: true, ..seen });
                at = seen.next;
                continue;
            }
        }
        at = seen.next;
        previous = Some(seen);
    }
    Ok(Some(Tail { end, lowest_index: lowest, evidence: order.evidence }))
}

/// Where in the order "entries, at most one hard state, sync" the records are.
#[derive(Debug, Default)]
struct Order {
    entries: bool,
    synced: bool,
    evidence: Option<u64>,
}

impl Order {
    fn on_record(&mut self, kind: Kind, at: u64) {
        if self.synced {
            self.evidence.get_or_insert(at);
        }
        match kind {
            Kind::Entry => self.entries = true,
            Kind::State if self.entries => self.synced = true,
            Kind::Mark => self.synced = true,
            // A state alone is not synced at once; the others stand only at the start of a segment.
            Kind::State | Kind::Metadata | Kind::Crc => {}
        }
    }
}

/// Something that has the form of a record.
#[derive(Clone, Copy)]
struct Seen {
    at: u64,
    next: u64,
    len: u64,
    kind: Kind,
    crc: u32,
    index: Option<Index>,
    counted: bool,
}

impl Seen {
    /// Whether its checksum continues from `crc`.
    fn follows(&self, window: &mut Window<'_>, crc: u32) -> io::Result<bool> {
        let bytes = window.slice(self.at + WORD_LEN, self.len)?;
        let record = Record::parse(bytes).expect("recognised before");
        Ok(crc32c::crc32c_append(crc, record.data) == self.crc)
    }
}

fn recognise(window: &mut Window<'_>, at: u64) -> io::Result<Option<Seen>> {
    let Some((len, padding)) = window.word(at)?.and_then(parse_word) else { return Ok(None) };
    let next = at.checked_add(WORD_LEN + padding).and_then(|start| start.checked_add(len));
    let Some(next) = next.filter(|next| *next <= window.len) else { return Ok(None) };
    if window.head(at)?.is_none_or(|head| head.record_len != len) {
        return Ok(None);
    }
    let Some(record) = Record::parse(window.slice(at + WORD_LEN, len)?) else { return Ok(None) };
    let (Some(kind), Some(content)) = (record.kind(), record.content()) else { return Ok(None) };
    let index = match content {
        Content::Entry(entry) => Some(entry.index),
        Content::State(_) | Content::Mark(_) | Content::Metadata(_) | Content::Crc => None,
    };
    Ok(Some(Seen { at, next, len, kind, crc: record.crc, index, counted: false }))
}

/// Behind the last byte at or behind `at` that is not zero; `at` if there is none.
fn last_nonzero(window: &mut Window<'_>, at: u64) -> io::Result<u64> {
    const STRIDE: u64 = 64 << 10;
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut last = at;
    let mut from = at;
    while from < window.len {
        let bytes = window.slice(from, STRIDE)?;
        let mut start = from;
        for part in bytes.chunks(ZEROS.len()) {
            // One comparison of memory, far faster than byte by byte in a debug build.
            if part != &ZEROS[..part.len()] {
                let within = part.iter().rposition(|byte| *byte != 0).expect("differs from zeros");
                last = start + within as u64 + 1;
            }
            start += part.len() as u64;
        }
        from = start;
    }
    Ok(last)
}
