//! Events without their values: how answers are made anew from the store (G21).
//!
//! Invariant: what is made has the length and the checksum of what was given up, so that an answer
//! may go on in the middle of it. Where the store has lost a value to a compaction, there is
//! nothing to make.

use std::fmt::{self, Debug, Formatter};

use base::KeyRange;
use bytes::Bytes;
use mvcc::{RangeQuery, Reader, Want};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::mvccpb::{Event, KeyValue};

/// Values below this length stay.
const VALUE_BYTES_MIN: usize = 256;

/// How to make bytes that were given up.
pub(super) trait Remake: Debug + Send + Sync {
    /// The bytes; `None` if the store has lost a part of them.
    fn make(&self, reader: &Reader) -> Option<Bytes>;
}

/// An event of which the large values are missing.
#[derive(Clone, Debug)]
struct Hollow {
    event: Event,
    has_value: bool,
    has_previous_value: bool,
}

/// Tells bytes from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    len: usize,
    checksum: u32,
}

/// What is kept of an event that was encoded.
#[derive(Debug)]
pub(super) struct EventRecipe {
    event: Hollow,
    mark: Mark,
}

/// Writes an encoded answer in another form.
type Write = Box<dyn Fn(&[u8]) -> Option<Bytes> + Send + Sync>;

/// What is kept of an answer that was written in another form.
pub(super) struct AnswerRecipe {
    /// Without its events.
    answer: pb::WatchResponse,
    events: Vec<Hollow>,
    write: Write,
    mark: Mark,
}

impl Hollow {
    fn of(mut event: Event) -> Self {
        let has_value = take_value(event.kv.as_mut());
        let has_previous_value = take_value(event.prev_kv.as_mut());
        for row in event.kv.iter_mut().chain(event.prev_kv.iter_mut()) {
            // They are parts of what is given up.
            row.key = Bytes::copy_from_slice(&row.key);
            row.value = Bytes::copy_from_slice(&row.value);
        }
        Self { event, has_value, has_previous_value }
    }

    fn fill(&self, reader: &Reader) -> Option<Event> {
        let mut event = self.event.clone();
        if self.has_value {
            fill(reader, event.kv.as_mut()?)?;
        }
        if self.has_previous_value {
            fill(reader, event.prev_kv.as_mut()?)?;
        }
        Some(event)
    }
}

impl Mark {
    fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len(), checksum: crc32c::crc32c(bytes) }
    }

    fn check(self, bytes: Bytes) -> Option<Bytes> {
        (Self::of(&bytes) == self).then_some(bytes)
    }
}

impl EventRecipe {
    /// `None` if it would not be much smaller than the event.
    pub(super) fn of(encoded: &Bytes) -> Option<Self> {
        let event = Hollow::of(Event::decode(encoded.clone()).ok()?);
        let is_small = event.event.encoded_len() <= encoded.len() / 2;
        is_small.then(|| Self { event, mark: Mark::of(encoded) })
    }
}

impl Remake for EventRecipe {
    fn make(&self, reader: &Reader) -> Option<Bytes> {
        let event = self.event.fill(reader)?;
        self.mark.check(event.encode_to_vec().into())
    }
}

impl AnswerRecipe {
    /// Of an encoded answer and what `write` makes of it; `None` if it would not be much smaller.
    pub(super) fn of(encoded: &Bytes, written: &[u8], write: Write) -> Option<Self> {
        let mut answer = pb::WatchResponse::decode(encoded.clone()).ok()?;
        let events = std::mem::take(&mut answer.events).into_iter().map(Hollow::of);
        let events: Vec<_> = events.collect();
        let kept = events.iter().map(|event| event.event.encoded_len()).sum::<usize>();
        let is_small = answer.encoded_len() + kept <= encoded.len() / 2;
        is_small.then(|| Self { answer, events, write, mark: Mark::of(written) })
    }
}

impl Debug for AnswerRecipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerRecipe").field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Remake for AnswerRecipe {
    fn make(&self, reader: &Reader) -> Option<Bytes> {
        let mut answer = self.answer.clone();
        for event in &self.events {
            answer.events.push(event.fill(reader)?);
        }
        self.mark.check((self.write)(&answer.encode_to_vec())?)
    }
}

/// Takes a large value out of a row.
fn take_value(row: Option<&mut KeyValue>) -> bool {
    let row = row.filter(|row| VALUE_BYTES_MIN <= row.value.len());
    row.map(|row| row.value = Bytes::new()).is_some()
}

/// Puts it back.
fn fill(reader: &Reader, row: &mut KeyValue) -> Option<()> {
    let query = RangeQuery {
        keys: KeyRange::One(row.key.clone()),
        at: Some(row.mod_revision),
        limit: None,
        want: Want::Rows,
    };
    let found = match reader.range(&query) {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(error = %error, "cannot make an event of a watch anew");
            return None;
        }
    };
    let stored = KeyValue::decode(found.rows.first()?.0.clone()).ok()?;
    row.value = stored.value;
    Some(())
}
