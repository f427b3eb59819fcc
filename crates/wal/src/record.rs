//! Records as bytes: frames, the checksum chain, and the messages inside.
//!
//! ```text
//! frame   := length word (8, little-endian) || record || zeros up to a multiple of 8
//! word    := record length | (0x80 | padding) << 56, the upper part only if there is padding
//! record  := 1: type varint, 2: crc varint, 3: data bytes (absent in a crc record)
//! ```
//!
//! Encoding is by hand into one buffer, each payload copied once; decoding is strict, because the
//! checksum covers the data alone: unknown, repeated or mistyped fields are refused, so that a
//! flipped type cannot pass for another. Bytes: docs/formats/wal.md, held by the golden test below.

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use raft::{ConfState, Entry, EntryKind, HardState};

use crate::Mark;

/// Length of the word before a record.
pub(crate) const WORD_LEN: u64 = 8;

/// What a record is about; the number is etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Mark = 5,
}

impl Kind {
    fn from_number(number: i64) -> Option<Self> {
        [Self::Metadata, Self::Entry, Self::State, Self::Crc, Self::Mark]
            .into_iter()
            .find(|kind| *kind as i64 == number)
    }
}

/// The word of a record of this length.
pub(crate) fn word(len: u64) -> u64 {
    let padding = padding(len);
    if padding == 0 { len } else { len | (0x80 | padding) << 56 }
}

fn padding(len: u64) -> u64 {
    (WORD_LEN - len % WORD_LEN) % WORD_LEN
}

/// Record length and padding, or `None` if no writer makes this word.
pub(crate) fn parse_word(found: u64) -> Option<(u64, u64)> {
    let len = found & ((1 << 56) - 1);
    (len > 0 && word(len) == found).then(|| (len, padding(len)))
}

/// Appends framed records to a buffer, continuing the checksum.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) buffer: Vec<u8>,
    /// The checksum after the last record.
    pub(crate) crc: u32,
    /// The message of the record being made, its payload left out; kept for its memory.
    message: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(crc: u32) -> Self {
        Self { buffer: Vec::new(), crc, message: Vec::new() }
    }

    /// The first record of a segment.
    pub(crate) fn crc_record(&mut self) {
        self.frame(Kind::Crc, self.crc, None);
    }

    pub(crate) fn metadata(&mut self, bytes: &[u8]) {
        self.data(Kind::Metadata, bytes, &[]);
    }

    pub(crate) fn entry(&mut self, entry: &Entry) {
        let kind = match entry.kind {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
            EntryKind::ConfChangeV2 => 2,
        };
        let mut head = self.take_message();
        put_number(&mut head, 1, kind);
        put_number(&mut head, 2, entry.term.0);
        put_number(&mut head, 3, entry.index.0);
        if !entry.data.is_empty() {
            put_length(&mut head, 4, entry.data.len());
        }
        self.data(Kind::Entry, &head, &entry.data);
        self.message = head;
    }

    pub(crate) fn hard_state(&mut self, state: &HardState) {
        let mut bytes = self.take_message();
        put_number(&mut bytes, 1, state.term.0);
        put_number(&mut bytes, 2, state.vote.0);
        put_number(&mut bytes, 3, state.commit.0);
        self.data(Kind::State, &bytes, &[]);
        self.message = bytes;
    }

    pub(crate) fn mark(&mut self, mark: &Mark) {
        let mut bytes = self.take_message();
        put_number(&mut bytes, 1, mark.position.index.0);
        put_number(&mut bytes, 2, mark.position.term.0);
        if let Some(conf_state) = &mark.conf_state {
            let inner = encode_conf_state(conf_state);
            put_length(&mut bytes, 3, inner.len());
            bytes.extend_from_slice(&inner);
        }
        self.data(Kind::Mark, &bytes, &[]);
        self.message = bytes;
    }

    fn take_message(&mut self) -> Vec<u8> {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        message
    }

    fn data(&mut self, kind: Kind, head: &[u8], tail: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, head);
        self.crc = crc32c::crc32c_append(self.crc, tail);
        self.frame(kind, self.crc, Some([head, tail]));
    }

    fn frame(&mut self, kind: Kind, crc: u32, data: Option<[&[u8]; 2]>) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 8]);
        put_number(&mut self.buffer, 1, kind as u64);
        put_number(&mut self.buffer, 2, u64::from(crc));
        if let Some([head, tail]) = data {
            put_length(&mut self.buffer, 3, head.len() + tail.len());
            self.buffer.extend_from_slice(head);
            self.buffer.extend_from_slice(tail);
        }
        let len = (self.buffer.len() - start) as u64 - WORD_LEN;
        self.buffer[start..start + 8].copy_from_slice(&word(len).to_le_bytes());
        let padded = self.buffer.len().next_multiple_of(8);
        self.buffer.resize(padded, 0);
    }
}

fn encode_conf_state(conf_state: &ConfState) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sets = [
        &conf_state.voters,
        &conf_state.learners,
        &conf_state.voters_outgoing,
        &conf_state.learners_next,
    ];
    for (field, set) in (1..).zip(sets) {
        for member in set {
            put_number(&mut bytes, field, member.0);
        }
    }
    put_number(&mut bytes, 5, u64::from(conf_state.auto_leave));
    bytes
}

fn put_number(buffer: &mut Vec<u8>, field: u8, value: u64) {
    buffer.push(field << 3);
    put_varint(buffer, value);
}

fn put_length(buffer: &mut Vec<u8>, field: u8, len: usize) {
    buffer.push(field << 3 | 2);
    put_varint(buffer, len as u64);
}

fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    buffer.push(value.to_le_bytes()[0]);
}

/// A record as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) number: i64,
    pub(crate) crc: u32,
    /// Empty if absent.
    pub(crate) data: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the bytes between word and padding.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let mut found = Self { number: 0, crc: 0, data: &[] };
        while let Some(field) = fields.next() {
            match field? {
                (1, Value::Number(value)) => found.number = value.cast_signed(),
                (2, Value::Number(value)) => found.crc = u32::try_from(value).ok()?,
                (3, Value::Bytes(data)) => found.data = data,
                _ => return None,
            }
        }
        Some(found)
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.number)
    }

    /// Reads the content of an entry, state or mark; `None` if it is not one that is ever written.
    pub(crate) fn content(&self) -> Option<Content<'a>> {
        match self.kind()? {
            Kind::Entry => EntryView::parse(self.data).map(Content::Entry),
            Kind::State => parse_hard_state(self.data).map(Content::State),
            Kind::Mark => parse_mark(self.data).map(Content::Mark),
            Kind::Metadata => Some(Content::Metadata(self.data)),
            Kind::Crc => self.data.is_empty().then_some(Content::Crc),
        }
    }
}

/// What the writers put first into every record: type, checksum, and the length of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Length of these three fields, the data not included.
    pub(crate) len: u64,
    /// Length of the whole record that follows from them.
    pub(crate) record_len: u64,
}

impl Head {
    /// At most: a tag and a one-byte type, a tag and a checksum, a tag and a length.
    pub(crate) const LEN_MAX: usize = 2 + 6 + 11;

    /// Reads the head of a record whose end may be missing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [0x08, number, 0x10, rest @ ..] = bytes else { return None };
        let kind = Kind::from_number(i64::from(*number))?;
        let (crc, crc_len) = varint(rest)?;
        u32::try_from(crc).ok()?;
        let fixed = 3 + crc_len;
        if kind == Kind::Crc {
            return Some(Self { kind, len: fixed as u64, record_len: fixed as u64 });
        }
        let [0x1a, rest @ ..] = &rest[crc_len..] else { return None };
        let (data_len, len_len) = varint(rest)?;
        let len = (fixed + 1 + len_len) as u64;
        Some(Self { kind, len, record_len: len.checked_add(data_len)? })
    }
}

/// A record's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Metadata(&'a [u8]),
    Entry(EntryView<'a>),
    State(HardState),
    Crc,
    Mark(Mark),
}

/// An entry whose payload is still in the file's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryView<'a> {
    pub(crate) kind: EntryKind,
    pub(crate) term: Term,
    pub(crate) index: Index,
    data: &'a [u8],
}

impl<'a> EntryView<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (mut kind, mut term, mut index, mut data) = (0, 0, 0, &[][..]);
        while let Some(field) = fields.next() {
            match field? {
                (1, Value::Number(value)) => kind = value,
                (2, Value::Number(value)) => term = value,
                (3, Value::Number(value)) => index = value,
                (4, Value::Bytes(value)) => data = value,
                _ => return None,
            }
        }
        let kind = match kind {
            0 => EntryKind::Normal,
            1 => EntryKind::ConfChange,
            2 => EntryKind::ConfChangeV2,
            _ => return None,
        };
        // A change of members always says which, a term is never 0 and neither is an index. A hard
        // state whose type was flipped fails here.
        let possible = term > 0 && index > 0 && (kind == EntryKind::Normal || !data.is_empty());
        possible.then_some(Self { kind, term: Term(term), index: Index(index), data })
    }

    pub(crate) fn to_entry(self) -> Entry {
        Entry {
            kind: self.kind,
            term: self.term,
            index: self.index,
            data: Bytes::copy_from_slice(self.data),
        }
    }
}

fn parse_hard_state(bytes: &[u8]) -> Option<HardState> {
    let mut state = HardState::default();
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next() {
        match field? {
            (1, Value::Number(value)) => state.term = Term(value),
            (2, Value::Number(value)) => state.vote = MemberId(value),
            (3, Value::Number(value)) => state.commit = Index(value),
            _ => return None,
        }
    }
    // Nobody votes or commits before the first term, and nothing is written when all is zero. An
    // entry whose type was flipped fails here.
    (state.term > Term(0)).then_some(state)
}

fn parse_mark(bytes: &[u8]) -> Option<Mark> {
    let mut mark = Mark::default();
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next() {
        match field? {
            (1, Value::Number(value)) => mark.position.index = Index(value),
            (2, Value::Number(value)) => mark.position.term = Term(value),
            (3, Value::Bytes(value)) => mark.conf_state = Some(parse_conf_state(value)?),
            _ => return None,
        }
    }
    let LogPosition { index, term } = mark.position;
    // Either both or neither; etcd writes the state before the first entry as 0 and 0.
    ((index == Index(0)) == (term == Term(0))).then_some(mark)
}

fn parse_conf_state(bytes: &[u8]) -> Option<ConfState> {
    let mut found = ConfState::default();
    // These repeat, which `Fields` refuses elsewhere.
    let mut fields = Fields::repeating(bytes);
    while let Some(field) = fields.next() {
        let (field, value) = field?;
        let Value::Number(value) = value else { return None };
        let set = match field {
            1 => &mut found.voters,
            2 => &mut found.learners,
            3 => &mut found.voters_outgoing,
            4 => &mut found.learners_next,
            5 => {
                found.auto_leave = value != 0;
                continue;
            }
            _ => return None,
        };
        set.insert(MemberId(value));
    }
    Some(found)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of a message that has only numbers and byte strings.
struct Fields<'a> {
    left: &'a [u8],
    /// Bit n: field n was seen and may not come again.
    seen: Option<u16>,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes, seen: Some(0) }
    }

    fn repeating(bytes: &'a [u8]) -> Self {
        Self { left: bytes, seen: None }
    }

    /// `Some(None)` if the bytes are no such message.
    fn next(&mut self) -> Option<Option<(u8, Value<'a>)>> {
        (!self.left.is_empty()).then(|| self.field())
    }

    fn field(&mut self) -> Option<(u8, Value<'a>)> {
        let tag = *self.left.first()?;
        let field = tag >> 3;
        let (value, len) = varint(&self.left[1..])?;
        self.left = &self.left[1 + len..];
        let bit = 1 << field.min(15);
        if let Some(seen) = &mut self.seen {
            if *seen & bit != 0 {
                return None;
            }
            *seen |= bit;
        }
        match tag {
            0x08 | 0x10 | 0x18 | 0x20 | 0x28 => Some((field, Value::Number(value))),
            0x0a | 0x12 | 0x1a | 0x22 | 0x2a => {
                let len = usize::try_from(value).ok()?;
                let (bytes, left) = self.left.split_at_checked(len)?;
                self.left = left;
                Some((field, Value::Bytes(bytes)))
            }
            _ => None,
        }
    }
}

/// A number and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (nth, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if nth == 9 && *byte > 1 {
            return None;
        }
        value |= bits << (7 * nth);
        if byte & 0x80 == 0 {
            return Some((value, nth + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests;
