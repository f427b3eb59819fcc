//! Appends in short ("msgappv2"): while a follower keeps up, an append begins where the last one
//! ended, in the same term, so only its entries and the commit index are said.
//!
//! Both ends keep the same term and index, 0 at first. The short form is taken only if sender and
//! receiver derive the same message from it.

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use raft::{Append, Body, Entry, Message};

use super::input::Input;
use super::{Received, StreamError};
use crate::pieces::Pieces;
use crate::wire::{self, Decoded};

/// First bytes.
const HEARTBEAT: u8 = 0;
const SHORT: u8 = 1;
const WHOLE: u8 = 2;

/// What etcd takes at once elsewhere; here it sets no limit.
const BYTES_MAX: u64 = 512 << 20;

/// A member sends a mebibyte and one entry at most, and no entry is shorter than six bytes.
const ENTRIES_MAX: u64 = 1 << 20;

/// Where the next append is expected to begin.
type Place = LogPosition;

/// Writes appends.
#[derive(Debug, Default)]
pub struct AppendEncoder {
    place: Place,
}

pub(super) fn encode_heartbeat(pieces: &mut Pieces) {
    pieces.put_u8(HEARTBEAT);
}

impl AppendEncoder {
    pub(super) fn encode(&mut self, message: &Message, pieces: &mut Pieces) {
        let Body::Append(append) = &message.body else {
            panic!("{} sent as an append", message.body.name());
        };
        if append.previous == self.place && append.previous.term == message.term {
            pieces.put_u8(SHORT);
            pieces.put_u64(len_u64(append.entries.len()));
            for entry in &append.entries {
                pieces.put_u64(len_u64(wire::entry_len(entry)));
                wire::put_entry(entry, pieces);
            }
            pieces.put_u64(append.commit.0);
            self.place.index.0 += len_u64(append.entries.len());
        } else {
            pieces.put_u8(WHOLE);
            super::whole::encode(message, pieces);
            self.place = place_after(message.term, append);
        }
    }
}

/// Reads appends.
#[derive(Debug)]
pub struct AppendDecoder {
    local: MemberId,
    remote: MemberId,
    input: Input,
    place: Place,
    /// A short append of which a part has come.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    previous: LogPosition,
    entries: Vec<Entry>,
    entries_due: u64,
    bytes: u64,
}

impl AppendDecoder {
    /// At the beginning of a stream from `remote` to `local`.
    #[must_use]
    pub fn new(local: MemberId, remote: MemberId) -> Self {
        let (input, place) = (Input::default(), Place::default());
        Self { local, remote, input, place, partial: None }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// The next append, or nothing until more bytes come.
    ///
    /// # Errors
    /// If no correct member sends this.
    pub fn decode(&mut self) -> Result<Option<Received>, StreamError> {
        if let Some(partial) = self.partial.take() {
            return self.decode_short(partial);
        }
        match self.input.first() {
            None => Ok(None),
            Some(HEARTBEAT) => {
                self.input.skip(1);
                Ok(Some(Received::LinkHeartbeat))
            }
            Some(WHOLE) => self.decode_whole(),
            Some(SHORT) => {
                let Some(entries_due) = self.input.u64_at(1) else { return Ok(None) };
                if ENTRIES_MAX < entries_due {
                    return Err(StreamError::TooManyEntries(entries_due));
                }
                self.input.skip(9);
                let previous = self.place;
                self.decode_short(Partial { previous, entries: Vec::new(), entries_due, bytes: 0 })
            }
            Some(other) => Err(StreamError::UnknownKind(other)),
        }
    }

    /// Places set aside for entries of an append that has not come whole.
    #[cfg(test)]
    pub(super) fn entries_capacity(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.entries.capacity())
    }

    fn decode_short(&mut self, mut partial: Partial) -> Result<Option<Received>, StreamError> {
        while 0 < partial.entries_due {
            let Some(entry) = self.decode_entry(&mut partial.bytes)? else {
                self.partial = Some(partial);
                return Ok(None);
            };
            partial.entries.push(entry);
            partial.entries_due -= 1;
        }
        let Some(commit) = self.input.u64_at(0) else {
            self.partial = Some(partial);
            return Ok(None);
        };
        self.input.skip(8);
        Ok(Some(Received::Message(Message {
            from: self.remote,
            to: self.local,
            term: self.place.term,
            body: Body::Append(Append {
                previous: partial.previous,
                entries: partial.entries,
                commit: Index(commit),
            }),
        })))
    }

    /// The next entry of a short append of which `bytes` have been read.
    fn decode_entry(&mut self, bytes: &mut u64) -> Result<Option<Entry>, StreamError> {
        let Some(len) = self.input.u64_at(0) else { return Ok(None) };
        let sum = bytes.saturating_add(len);
        if BYTES_MAX < sum {
            return Err(StreamError::TooLong { len: sum, max: BYTES_MAX });
        }
        let Ok(entry_len) = usize::try_from(len) else { return Ok(None) };
        if self.input.len() - 8 < entry_len {
            return Ok(None);
        }
        *bytes = sum;
        self.input.skip(8);
        let entry = wire::decode_entry(self.input.take(entry_len))?;
        let expected = Index(self.place.index.0.saturating_add(1));
        if entry.index != expected {
            return Err(StreamError::Gap { expected, found: entry.index });
        }
        self.place.index = expected;
        Ok(Some(entry))
    }

    fn decode_whole(&mut self) -> Result<Option<Received>, StreamError> {
        let Some(len) = self.input.u64_at(1) else { return Ok(None) };
        if BYTES_MAX < len {
            return Err(StreamError::TooLong { len, max: BYTES_MAX });
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if self.input.len() - 9 < len {
            return Ok(None);
        }
        self.input.skip(9);
        let message = match wire::decode(self.input.take(len))? {
            Decoded::Message(message) => message,
            Decoded::LinkHeartbeat => return Err(StreamError::NotAppend("MsgHeartbeat")),
            Decoded::Snapshot(..) => return Err(StreamError::Snapshot),
        };
        let Body::Append(append) = &message.body else {
            return Err(StreamError::NotAppend(message.body.name()));
        };
        self.place = place_after(message.term, append);
        Ok(Some(Received::Message(message)))
    }
}

/// What both ends keep once a whole append went by.
fn place_after(term: Term, append: &Append) -> Place {
    let index = append.entries.last().map_or(append.previous.index, |entry| entry.index);
    Place { index, term }
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits 64 bits")
}
