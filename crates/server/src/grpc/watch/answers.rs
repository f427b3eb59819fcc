//! The bytes of answers to watches.
//!
//! Small answers are laid out one behind the other in a buffer, those for watches that got the same
//! by copying the one before. A large answer keeps its events as they are, shared with all who got
//! them, and is handed out in pieces.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use mvcc::{WatchId, WatchOutput};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, key_len};
use proto::etcdserverpb as pb;
use tonic::Status;

use super::super::codec::{WriteWire, delimited_len, put_prefix};
use super::outgoing::{COUNTED_BYTES_MIN, Parts};

/// Created, canceled, progress.
#[derive(Debug)]
pub(super) struct Control(pub(super) pb::WatchResponse);

impl WriteWire for Control {
    fn len(&self) -> usize {
        self.0.encoded_len()
    }

    fn write(self, buffer: &mut impl BufMut) {
        self.0.encode_raw(buffer);
    }
}

/// An answer with events whose bytes many watches share.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: WatchId,
    pub(super) revision: i64,
    pub(super) events: Arc<[Bytes]>,
    pub(super) fragment: bool,
}

mod field {
    pub(super) const HEADER: u32 = 1;
    pub(super) const WATCH_ID: u32 = 2;
    pub(super) const FRAGMENT: u32 = 7;
    pub(super) const EVENTS: u32 = 11;
}

/// Where an answer with events lies in the buffer. That of the next watch is the same but for the
/// number of the watch, so it is copied from there.
#[derive(Debug)]
pub(super) struct Pattern {
    sent: Sent,
    /// Before the number.
    head: Range<usize>,
    /// Behind it.
    tail: Range<usize>,
}

impl Sent {
    /// Bytes of the fields around its events: before the number, and behind it.
    fn head_len(&self, header: &pb::ResponseHeader) -> usize {
        delimited_len(field::HEADER, header.encoded_len())
    }

    fn tail_len(&self) -> usize {
        let event = |event: &Bytes| delimited_len(field::EVENTS, event.len());
        let fragment_len = usize::from(self.fragment) * (key_len(field::FRAGMENT) + 1);
        fragment_len + self.events.iter().map(event).sum::<usize>()
    }

    /// Lays out a large answer: its events stay what they are.
    pub(super) fn split(
        self,
        header: pb::ResponseHeader,
        ready: &mut Vec<u8>,
        parts: &mut Parts,
    ) -> Result<(), Status> {
        put_prefix(self.head_len(&header) + id_len(self.id) + self.tail_len(), ready)?;
        prost::encoding::message::encode(field::HEADER, &header, ready);
        put_id(self.id, ready);
        if self.fragment {
            prost::encoding::bool::encode(field::FRAGMENT, &true, ready);
        }
        for event in self.events.iter() {
            put_event_head(event, ready);
            if event.len() < COUNTED_BYTES_MIN {
                ready.put_slice(event);
            } else {
                parts.push_own(std::mem::take(ready));
                parts.push_event(event.clone());
            }
        }
        Ok(())
    }
}

/// What stands before an event.
fn put_event_head(event: &Bytes, ready: &mut Vec<u8>) {
    encode_key(field::EVENTS, WireType::LengthDelimited, ready);
    encode_varint(event.len() as u64, ready);
}

impl Pattern {
    pub(super) fn fits(&self, other: &Sent) -> bool {
        let Sent { revision, events, fragment, .. } = &self.sent;
        Arc::ptr_eq(events, &other.events)
            && (*revision, *fragment) == (other.revision, other.fragment)
    }

    /// Writes the first answer of its kind.
    pub(super) fn write(
        sent: Sent,
        header: pb::ResponseHeader,
        ready: &mut Vec<u8>,
    ) -> Result<Self, Status> {
        let (head_len, tail_len) = (sent.head_len(&header), sent.tail_len());
        put_prefix(head_len + id_len(sent.id) + tail_len, ready)?;
        let begin = ready.len();
        prost::encoding::message::encode(field::HEADER, &header, ready);
        let head = begin..ready.len();
        put_id(sent.id, ready);
        let begin = ready.len();
        if sent.fragment {
            prost::encoding::bool::encode(field::FRAGMENT, &true, ready);
        }
        for event in sent.events.iter() {
            put_event_head(event, ready);
            ready.put_slice(event);
        }
        let tail = begin..ready.len();
        assert_eq!((head.len(), tail.len()), (head_len, tail_len), "an answer has its length");
        Ok(Self { sent, head, tail })
    }

    /// Writes the same answer for another watch.
    pub(super) fn repeat(&self, id: WatchId, ready: &mut Vec<u8>) -> Result<(), Status> {
        put_prefix(self.head.len() + id_len(id) + self.tail.len(), ready)?;
        ready.extend_from_within(self.head.clone());
        put_id(id, ready);
        ready.extend_from_within(self.tail.clone());
        Ok(())
    }
}

/// Bytes of the number of a watch; 0 is left out.
fn id_len(id: WatchId) -> usize {
    if id == 0 { 0 } else { prost::encoding::int64::encoded_len(field::WATCH_ID, &id) }
}

fn put_id(id: WatchId, ready: &mut Vec<u8>) {
    if id != 0 {
        prost::encoding::int64::encode(field::WATCH_ID, &id, ready);
    }
}

/// About how long events are in a message.
pub(super) fn events_bytes(events: &[Bytes]) -> usize {
    const EVENT_BYTES: usize = 8;
    events.iter().map(|event| EVENT_BYTES + event.len()).sum()
}

/// About how long the message of an output will be.
pub(super) fn reply_bytes(output: &WatchOutput) -> usize {
    const HEAD_BYTES: usize = 64;
    match output {
        WatchOutput::Events { events, .. } => HEAD_BYTES + events_bytes(events),
        WatchOutput::Compacted { .. } | WatchOutput::Progress { .. } => HEAD_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::codec::frame;
    use super::*;

    /// W-01: the copied answer is the one that prost would write.
    #[test]
    fn a_repeated_answer_equals_the_encoded_message() {
        let header = pb::ResponseHeader { revision: 9, raft_term: 2, ..Default::default() };
        let event = proto::mvccpb::Event {
            kv: Some(proto::mvccpb::KeyValue { value: vec![7; 300].into(), ..Default::default() }),
            ..Default::default()
        };
        let encoded: Arc<[Bytes]> = vec![event.encode_to_vec().into(); 2].into();
        for fragment in [false, true] {
            let sent = |id| Sent { id, revision: 9, events: encoded.clone(), fragment };
            let mut ready = Vec::new();
            let pattern = Pattern::write(sent(0), header, &mut ready).unwrap();
            let mut expected = Vec::new();
            for id in [0, 1, 130, 0, i64::MAX, -1] {
                let events = vec![event.clone(); 2];
                let watch_id = id;
                let header = Some(header);
                let message =
                    pb::WatchResponse { header, watch_id, fragment, events, ..Default::default() };
                frame(Control(message), &mut expected).unwrap();
                assert!(pattern.fits(&sent(id)));
                if !ready.is_empty() && expected.len() > ready.len() {
                    pattern.repeat(id, &mut ready).unwrap();
                }
                assert_eq!(ready, expected, "watch {id}");
            }
        }
    }
}
