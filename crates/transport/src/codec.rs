//! The two languages of a stream: whole messages, and appends in short.
//!
//! Bytes in, messages out and the other way round; no socket here. A decoder takes bytes as they
//! come, however they are cut, keeps what is incomplete, and sets no memory aside for what has
//! not arrived. After an error the stream is worth nothing and must be ended.
//! Format: docs/formats/peer.md. Source: etcd: server/etcdserver/api/rafthttp/{msg_codec,
//! msgappv2_codec}.go.

mod append;
mod input;
mod whole;

use base::{Index, MemberId};
use raft::{Body, Message};

use crate::pieces::Pieces;
use crate::wire::DecodeError;

pub use append::{AppendDecoder, AppendEncoder};
pub use whole::WholeDecoder;

/// Which of a peer's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// Every kind of message, each with its length before it.
    Message,
    /// Appends only; what a receiver can predict is left out.
    Append,
}

impl StreamKind {
    /// Its folder below `/raft/stream/`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Append => "msgapp",
        }
    }

    /// Its name in etcd's log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "stream Message",
            Self::Append => "stream MsgApp v2",
        }
    }
}

/// Why a stream cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A message that cannot be read.
    #[error("reading a message of the stream")]
    Message(#[from] DecodeError),
    /// More than any member sends at once.
    #[error("message of {len} bytes, more than {max}")]
    TooLong {
        /// What the sender announced.
        len: u64,
        /// What is taken.
        max: u64,
    },
    /// More entries than any member sends at once.
    #[error("append of {0} entries")]
    TooManyEntries(u64),
    /// A first byte that stands for nothing.
    #[error("unknown kind {0} in the stream of appends")]
    UnknownKind(u8),
    /// Something else than an append.
    #[error("{0} in the stream of appends")]
    NotAppend(&'static str),
    /// An entry that does not follow the one before.
    #[error("entry {found} where {expected} is due")]
    Gap {
        /// The index due.
        expected: Index,
        /// The entry's.
        found: Index,
    },
    /// A snapshot, which has its own request.
    #[error("snapshot in a stream")]
    Snapshot,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// "The link lives."
    LinkHeartbeat,
    /// For the core.
    Message(Message),
}

/// Encodes for one stream.
#[derive(Debug)]
pub enum Encoder {
    /// For [`StreamKind::Message`].
    Whole,
    /// For [`StreamKind::Append`].
    Append(AppendEncoder),
}

impl Encoder {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Message => Self::Whole,
            StreamKind::Append => Self::Append(AppendEncoder::default()),
        }
    }

    /// Appends a message to `pieces`.
    ///
    /// # Panics
    /// If the message is a snapshot, or no append on a stream of appends: the caller routes them.
    pub fn encode(&mut self, message: &Message, pieces: &mut Pieces) {
        assert!(!matches!(message.body, Body::Snapshot(_)), "snapshots go by their own request");
        match self {
            Self::Whole => whole::encode(message, pieces),
            Self::Append(encoder) => encoder.encode(message, pieces),
        }
    }

    /// Appends the sign that the link lives.
    pub fn encode_heartbeat(&mut self, pieces: &mut Pieces) {
        match self {
            Self::Whole => whole::encode_heartbeat(pieces),
            Self::Append(_) => append::encode_heartbeat(pieces),
        }
    }
}

/// Decodes one stream.
#[derive(Debug)]
pub enum Decoder {
    /// For [`StreamKind::Message`].
    Whole(WholeDecoder),
    /// For [`StreamKind::Append`].
    Append(AppendDecoder),
}

impl Decoder {
    /// At the beginning of a stream from `remote` to `local`.
    #[must_use]
    pub fn new(kind: StreamKind, local: MemberId, remote: MemberId) -> Self {
        match kind {
            StreamKind::Message => Self::Whole(WholeDecoder::default()),
            StreamKind::Append => Self::Append(AppendDecoder::new(local, remote)),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: bytes::Bytes) {
        match self {
            Self::Whole(decoder) => decoder.push(bytes),
            Self::Append(decoder) => decoder.push(bytes),
        }
    }

    /// The next message, or nothing until more bytes come.
    ///
    /// # Errors
    /// If no correct member sends this.
    pub fn decode(&mut self) -> Result<Option<Received>, StreamError> {
        match self {
            Self::Whole(decoder) => decoder.decode(),
            Self::Append(decoder) => decoder.decode(),
        }
    }
}

#[cfg(test)]
mod tests;
