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

/// A stream of a real member: its bytes, the term and who talks to whom.
struct Recorded {
    bytes: &'static [u8],
    remote: MemberId,
    local: MemberId,
}

const REMOTE_35: MemberId = MemberId(0xf47b_6a60_ecff_1a65);
const LOCAL_35: MemberId = MemberId(0x308a_d9e5_0c5b_fd29);
const REMOTE_34: MemberId = MemberId(0x3a8e_e62f_bf0b_4e2a);
const LOCAL_34: MemberId = MemberId(0x49a1_7dac_df6d_e589);

const MESSAGES: [Recorded; 2] = [
    Recorded {
        bytes: include_bytes!("../../testdata/etcd-3.5.30-message.bin"),
        remote: REMOTE_35,
        local: LOCAL_35,
    },
    Recorded {
        bytes: include_bytes!("../../testdata/etcd-3.4.23-message.bin"),
        remote: REMOTE_34,
        local: LOCAL_34,
    },
];

const APPENDS: [Recorded; 2] = [
    Recorded {
        bytes: include_bytes!("../../testdata/etcd-3.5.30-msgapp.bin"),
        remote: REMOTE_35,
        local: LOCAL_35,
    },
    Recorded {
        bytes: include_bytes!("../../testdata/etcd-3.4.23-msgapp.bin"),
        remote: REMOTE_34,
        local: LOCAL_34,
    },
];

impl Recorded {
    fn messages(&self, kind: StreamKind, cut: usize) -> Vec<Message> {
        let mut decoder = Decoder::new(kind, self.local, self.remote);
        let mut messages = Vec::new();
        for piece in self.bytes.chunks(cut) {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(received) = decoder.decode().unwrap() {
                let Received::Message(message) = received else { continue };
                assert_eq!((message.from, message.to), (self.remote, self.local));
                messages.push(message);
            }
        }
        messages
    }
}

/// What etcd up to 3.5 writes into every message: a snapshot with nothing in it.
const EMPTY_SNAPSHOT: [u8; 12] = [0x4a, 0x0a, 0x12, 0x08, 0x0a, 0x02, 0x28, 0, 0x10, 0, 0x18, 0];

#[test]
fn messages_of_real_members_are_read_and_written_alike() {
    for recorded in MESSAGES {
        let messages = recorded.messages(StreamKind::Message, 11);
        assert_eq!(messages.len(), 13);
        assert!(messages.iter().any(|message| matches!(message.body, Body::TimeoutNow)));
        // But for the empty snapshot, ours are the same bytes.
        let mut rest = recorded.bytes;
        for message in &messages {
            let (len, behind) = rest.split_at(8);
            let len = usize::try_from(u64::from_be_bytes(len.try_into().unwrap())).unwrap();
            let (theirs, behind) = behind.split_at(len);
            rest = behind;
            let at = theirs.windows(12).position(|window| window == EMPTY_SNAPSHOT).unwrap();
            let mut expected = theirs[..at].to_vec();
            expected.extend(&theirs[at + 12..]);
            let ours = encode_all(StreamKind::Message, std::slice::from_ref(message));
            assert_eq!(ours[8..], expected);
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn appends_of_real_members_are_read_and_written_alike() {
    for recorded in APPENDS {
        let messages = recorded.messages(StreamKind::Append, 7);
        assert_eq!(messages, recorded.messages(StreamKind::Append, 5000));
        assert_eq!(messages.len(), 43);
        let values = messages.iter().filter(
            |message| matches!(&message.body, Body::Append(append) if !append.entries.is_empty()),
        );
        assert_eq!(values.count(), 20);
        // The first is whole and has an empty snapshot in it; all others are the same bytes.
        let ours = encode_all(StreamKind::Append, &messages);
        assert_eq!((ours[0], recorded.bytes[0]), (2, 2));
        let first = encode_all(StreamKind::Append, &messages[..1]).len();
        assert_eq!(ours[first..], recorded.bytes[first + EMPTY_SNAPSHOT.len()..]);
    }
}

/// N12: whatever a single byte of a real stream turns into is read or refused, and what was read
/// is the same when written and read again.
#[test]
fn any_flipped_byte_of_a_real_stream_is_stood() {
    let all = MESSAGES.iter().map(|recorded| (StreamKind::Message, recorded));
    let all = all.chain(APPENDS.iter().map(|recorded| (StreamKind::Append, recorded)));
    for (kind, recorded) in all {
        for at in 0..recorded.bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = recorded.bytes.to_vec();
                bytes[at] ^= flip;
                let mut decoder = Decoder::new(kind, recorded.local, recorded.remote);
                // What is before the byte is read in the tests above.
                decoder.push(bytes.into());
                while let Ok(Some(received)) = decoder.decode() {
                    let Received::Message(message) = received else { continue };
                    let mut pieces = Pieces::default();
                    crate::wire::encode(&message, &Bytes::new(), &mut pieces);
                    let again = crate::wire::decode(pieces.take_joined()).unwrap();
                    let heartbeat = message.from.is_none() && message.to.is_none();
                    if !heartbeat {
                        assert_eq!(again, crate::wire::Decoded::Message(message));
                    }
                }
            }
        }
    }
}

mod any {
    //! Any messages, cut anywhere.

    use proptest::prelude::*;

    use super::*;

    fn data() -> impl Strategy<Value = Bytes> {
        let short = proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let long = (8000_usize..20_000).prop_map(|len| Bytes::from(vec![9; len]));
        prop_oneof![9 => short, 1 => long]
    }

    /// Where an append begins, the terms and data of its entries, its own term and the commit.
    type Plan = (bool, u64, u64, Vec<(u64, Bytes)>, u64, u64);

    fn plans() -> impl Strategy<Value = Vec<Plan>> {
        let entries = proptest::collection::vec((0_u64..5, data()), 0..4);
        let plan = (any::<bool>(), 0_u64..1000, 0_u64..5, entries, 0_u64..5, any::<u64>());
        proptest::collection::vec(plan, 0..20)
    }

    fn appends(plans: Vec<Plan>) -> Vec<Message> {
        let mut end = (0, 0);
        let mut messages = Vec::new();
        for (follows, index, previous_term, entries, term, commit) in plans {
            let (previous, term) =
                if follows { (end, end.0) } else { ((previous_term, index), term) };
            let mut next = previous.1;
            let entries = entries.into_iter().map(|(term, data)| {
                next += 1;
                let (term, index) = (Term(term), Index(next));
                Entry { kind: EntryKind::Normal, term, index, data }
            });
            messages.push(append(term, previous, entries.collect(), commit));
            end = (term, next);
        }
        messages
    }

    fn others() -> impl Strategy<Value = Message> {
        let context = proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let body = (0..5, any::<u64>(), context).prop_map(|(kind, index, context)| {
            let index = Index(index);
            match kind {
                0 => Body::Heartbeat { commit: index, context },
                1 => Body::HeartbeatReply { context },
                2 => Body::ReadIndexReply { index, context },
                3 => Body::ReadIndex { context },
                _ => Body::TimeoutNow,
            }
        });
        (body, any::<u64>()).prop_map(|(body, term)| Message {
            from: REMOTE,
            to: LOCAL,
            term: Term(term),
            body,
        })
    }

    /// Decodes what has come of `bytes`, cut into pieces of these lengths.
    fn decode_cut(kind: StreamKind, bytes: &[u8], cuts: &[usize]) -> Vec<Message> {
        let mut decoder = Decoder::new(kind, LOCAL, REMOTE);
        let (mut rest, mut messages) = (bytes, Vec::new());
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = behind;
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(received) = decoder.decode().unwrap() {
                let Received::Message(message) = received else { panic!("no heartbeat was sent") };
                messages.push(message);
            }
        }
        messages
    }

    fn cuts() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(prop_oneof![1_usize..20, 1_usize..20_000], 1..10)
    }

    proptest! {
        #[test]
        fn appends_come_through(plans in plans(), cuts in cuts()) {
            let messages = appends(plans);
            let bytes = encode_all(StreamKind::Append, &messages);
            prop_assert_eq!(decode_cut(StreamKind::Append, &bytes, &cuts), messages);
        }

        #[test]
        fn messages_come_through(
            plans in plans(),
            others in proptest::collection::vec(others(), 0..20),
            cuts in cuts(),
        ) {
            let messages: Vec<_> = appends(plans).into_iter().chain(others).collect();
            let bytes = encode_all(StreamKind::Message, &messages);
            prop_assert_eq!(decode_cut(StreamKind::Message, &bytes, &cuts), messages);
        }

        /// N7: what was cut off is missing, and nothing else is.
        #[test]
        fn a_stream_cut_off_anywhere_gives_what_came_whole(plans in plans(), end in any::<prop::sample::Index>()) {
            let messages = appends(plans);
            let bytes = encode_all(StreamKind::Append, &messages);
            let end = end.index(bytes.len() + 1);
            let came = decode_cut(StreamKind::Append, &bytes[..end], &[usize::MAX]);
            prop_assert!(messages.starts_with(&came));
            let whole = (0..=messages.len()).rev();
            let whole = whole.map(|count| &messages[..count]).find(|messages| {
                encode_all(StreamKind::Append, messages).len() <= end
            });
            prop_assert_eq!(Some(came.as_slice()), whole);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            kind in prop_oneof![Just(StreamKind::Message), Just(StreamKind::Append)],
        ) {
            let mut decoder = Decoder::new(kind, LOCAL, REMOTE);
            decoder.push(bytes.into());
            while matches!(decoder.decode(), Ok(Some(_))) {}
        }
    }
}
