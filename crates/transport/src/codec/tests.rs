//! Bytes of real members, and any sequence of messages cut anywhere.

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use raft::{Append, Body, Entry, EntryKind, Message};

use super::*;

const LOCAL: MemberId = MemberId(2);
const REMOTE: MemberId = MemberId(1);

fn entry(term: u64, index: u64, data: &'static str) -> Entry {
    Entry { kind: EntryKind::Normal, term: Term(term), index: Index(index), data: data.into() }
}

fn append(term: u64, previous: (u64, u64), entries: Vec<Entry>, commit: u64) -> Message {
    let previous = LogPosition { term: Term(previous.0), index: Index(previous.1) };
    let body = Body::Append(Append { previous, entries, commit: Index(commit) });
    Message { from: REMOTE, to: LOCAL, term: Term(term), body }
}

fn decode_all(kind: StreamKind, bytes: &[u8], cut: usize) -> Vec<Received> {
    let mut decoder = Decoder::new(kind, LOCAL, REMOTE);
    let mut received = Vec::new();
    for piece in bytes.chunks(cut) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(message) = decoder.decode().unwrap() {
            received.push(message);
        }
    }
    received
}

fn encode_all(kind: StreamKind, messages: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::new(kind);
    let mut pieces = Pieces::default();
    for message in messages {
        encoder.encode(message, &mut pieces);
    }
    pieces.take_joined().to_vec()
}

fn first_error(kind: StreamKind, bytes: &[u8]) -> StreamError {
    let mut decoder = Decoder::new(kind, LOCAL, REMOTE);
    decoder.push(Bytes::copy_from_slice(bytes));
    loop {
        match decoder.decode() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(error) => return error,
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn a_go_members_link_heartbeat_is_understood() {
    let bytes =
        unhex("000000000000001e08081000180020002800300040004a0a12080a0228001000180050005800");
    for cut in [1, 7, 8, 9, bytes.len()] {
        assert_eq!(decode_all(StreamKind::Message, &bytes, cut), [Received::LinkHeartbeat]);
    }
}

#[test]
fn our_link_heartbeats_are_etcds_since_3_6() {
    let mut pieces = Pieces::default();
    Encoder::new(StreamKind::Message).encode_heartbeat(&mut pieces);
    let expected = "0000000000000012 0808 1000 1800 2000 2800 3000 4000 5000 5800";
    assert_eq!(pieces.take_joined(), unhex(expected));
    Encoder::new(StreamKind::Append).encode_heartbeat(&mut pieces);
    assert_eq!(pieces.take_joined(), unhex("00"));
}

#[test]
fn appends_that_follow_each_other_are_short() {
    let messages = [
        append(3, (2, 7), vec![entry(3, 8, "a")], 7),
        append(3, (3, 8), vec![entry(3, 9, "b"), entry(3, 10, "")], 8),
        append(3, (3, 10), vec![], 10),
        append(3, (3, 9), vec![entry(3, 10, "")], 10),
        append(4, (3, 10), vec![], 10),
        append(4, (3, 10), vec![entry(4, 11, "c")], 10),
    ];
    let bytes = encode_all(StreamKind::Append, &messages);
    let short = "01 0000000000000002
        0000000000000009 0800 1003 1809 220162
        0000000000000006 0800 1003 180a
        0000000000000008
        01 0000000000000000 000000000000000a";
    let first = encode_all(StreamKind::Append, &messages[..1]).len();
    let short = unhex(short);
    assert_eq!(bytes[first..first + short.len()], short);
    // An older append again, and a new term, are whole: the receiver cannot guess them.
    let whole: Vec<_> = messages.iter().map(|message| Received::Message(message.clone())).collect();
    for cut in [1, 5, bytes.len()] {
        assert_eq!(decode_all(StreamKind::Append, &bytes, cut), whole);
    }
    assert_eq!(bytes[first + short.len()], 2);
}

#[test]
fn a_fresh_stream_can_begin_with_a_short_append() {
    // Index and term are 0 at both ends, so this is what etcd does with an empty append of term 0.
    let message = append(0, (0, 0), vec![], 0);
    let bytes = encode_all(StreamKind::Append, std::slice::from_ref(&message));
    assert_eq!(bytes[0], 1);
    assert_eq!(decode_all(StreamKind::Append, &bytes, 3), [Received::Message(message)]);
}

/// N12.
#[test]
fn garbage_is_refused() {
    use StreamKind::{Append as Appends, Message as Messages};
    let huge = unhex("ffffffffffffffff");
    assert!(matches!(first_error(Messages, &huge), StreamError::TooLong { .. }));
    assert!(matches!(first_error(Messages, b"GET / HTTP/1.1\r\n"), StreamError::TooLong { .. }));
    assert!(matches!(first_error(Appends, b"\x03"), StreamError::UnknownKind(3)));
    let many = unhex("01 0000000000200000");
    assert!(matches!(first_error(Appends, &many), StreamError::TooManyEntries(_)));
    let long_entry = unhex("01 0000000000000001 ffffffffffffffff");
    assert!(matches!(first_error(Appends, &long_entry), StreamError::TooLong { .. }));
    let gap = unhex("01 0000000000000001 0000000000000006 0800 1001 1805");
    assert!(matches!(first_error(Appends, &gap), StreamError::Gap { .. }));
    let mut timeout_now = append(1, (0, 0), vec![], 0);
    timeout_now.body = Body::TimeoutNow;
    let mut bytes = vec![2];
    bytes.extend(encode_all(Messages, std::slice::from_ref(&timeout_now)));
    assert!(matches!(first_error(Appends, &bytes), StreamError::NotAppend("MsgTimeoutNow")));
}

#[test]
fn nothing_is_set_aside_for_what_has_not_arrived() {
    let mut decoder = Decoder::new(StreamKind::Append, LOCAL, REMOTE);
    // A million entries are announced, and one of 500 MiB.
    decoder.push(unhex("01 0000000000100000 000000001f400000").into());
    assert_eq!(decoder.decode().unwrap(), None);
    let Decoder::Append(decoder) = decoder else { unreachable!() };
    assert_eq!(decoder.entries_capacity(), 0);
}
