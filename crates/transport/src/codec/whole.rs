//! Whole messages, each behind its length: a stream of messages, and the head of a snapshot.

use base::{Index, MemberId, Term};
use bytes::Bytes;
use raft::{Body, Message};

use super::input::Input;
use super::{Received, StreamError};
use crate::pieces::Pieces;
use crate::wire::{self, Decoded};

/// What etcd takes in a stream. A member sends a mebibyte and one entry at most.
const STREAM_BYTES_MAX: u64 = 512 << 20;

/// Bytes of the length.
const LEN_BYTES: usize = 8;

pub(super) fn encode(message: &Message, pieces: &mut Pieces) {
    let len = wire::encoded_len(message);
    pieces.put_u64(u64::try_from(len).expect("a length fits 64 bits"));
    let written = wire::encode(message, &Bytes::new(), pieces);
    assert!(written == len, "{written} bytes behind a length of {len}");
}

pub(super) fn encode_heartbeat(pieces: &mut Pieces) {
    let message = Message {
        from: MemberId::NONE,
        to: MemberId::NONE,
        term: Term(0),
        body: Body::Heartbeat { commit: Index(0), context: Bytes::new() },
    };
    encode(&message, pieces);
}

/// Reads messages with their lengths.
#[derive(Debug, Default)]
pub struct WholeDecoder {
    input: Input,
}

impl WholeDecoder {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// The next message, or nothing until more bytes come.
    ///
    /// # Errors
    /// If no correct member sends this.
    pub fn decode(&mut self) -> Result<Option<Received>, StreamError> {
        match self.decode_any(STREAM_BYTES_MAX)? {
            None => Ok(None),
            Some(Decoded::LinkHeartbeat) => Ok(Some(Received::LinkHeartbeat)),
            Some(Decoded::Message(message)) => Ok(Some(Received::Message(message))),
            Some(Decoded::Snapshot(..)) => Err(StreamError::Snapshot),
        }
    }

    /// The next message of any kind of up to `max` bytes.
    pub(crate) fn decode_any(&mut self, max: u64) -> Result<Option<Decoded>, StreamError> {
        let Some(len) = self.input.u64_at(0) else { return Ok(None) };
        if max < len {
            return Err(StreamError::TooLong { len, max });
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if self.input.len() - LEN_BYTES < len {
            return Ok(None);
        }
        self.input.skip(LEN_BYTES);
        Ok(Some(wire::decode(self.input.take(len))?))
    }

    /// What came behind the messages read.
    pub(crate) fn into_rest(mut self) -> Bytes {
        let len = self.input.len();
        self.input.take(len)
    }
}
