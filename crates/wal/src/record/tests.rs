//! Frames and records against the bytes etcd writes.

use proptest::prelude::*;
use prost::Message as _;
use proto::{raftpb, walpb};

use super::*;

fn frame(record: &walpb::Record) -> Vec<u8> {
    let mut bytes = word(record.encoded_len() as u64).to_le_bytes().to_vec();
    record.encode(&mut bytes).unwrap();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn record(kind: i64, before: u32, message: &impl prost::Message) -> Vec<u8> {
    let data = message.encode_to_vec();
    let crc = crc32c::crc32c_append(before, &data);
    frame(&walpb::Record { r#type: Some(kind), crc: Some(crc), data: Some(data.into()) })
}

fn entry_message(entry: &Entry) -> raftpb::Entry {
    raftpb::Entry {
        r#type: Some(entry.kind as i32),
        term: Some(entry.term.0),
        index: Some(entry.index.0),
        data: (!entry.data.is_empty()).then(|| entry.data.clone()),
    }
}

/// The first bytes that etcd 3.5.30 wrote (docs/formats/wal.md).
#[test]
fn first_records_are_the_golden_ones() {
    let golden = "0400000000000084 0804100000000000 \
                  1f00000000000081 080110818cd1a30f 1a1508f697a1f5a9 bae38291 0110f4d1 \
                  d5d0f5f5c5992100 0e00000000000082 080510e791c1fa08 1a04080010000000";
    let digits: String = golden.split_whitespace().collect();
    let golden: Vec<u8> = (0..digits.len() / 2)
        .map(|nth| u8::from_str_radix(&digits[2 * nth..2 * nth + 2], 16).unwrap())
        .collect();
    let metadata = proto::etcdserverpb::Metadata {
        node_id: 0x9105_8dd2_9ea8_4bf6,
        cluster_id: 0x2133_17af_5a15_68f4,
    };
    let mut encoder = Encoder::new(0);
    encoder.crc_record();
    encoder.metadata(&metadata.encode_to_vec());
    encoder.mark(&Mark::default());
    assert_eq!(encoder.buffer, golden);
}

#[test]
fn word_is_refused_unless_a_writer_makes_it() {
    for len in 1..100 {
        assert_eq!(parse_word(word(len)), Some((len, padding(len))));
        for bit in 0..64 {
            if let Some((other, _)) = parse_word(word(len) ^ 1 << bit) {
                assert_eq!(other % 8, len % 8, "bit {bit} of the word of {len}");
            }
        }
    }
    assert_eq!(parse_word(0), None);
}

/// D13: the checksum does not cover the type.
#[test]
fn content_never_passes_for_another_type() {
    let entry = |kind, data: &'static [u8]| Entry {
        kind,
        term: Term(1),
        index: Index(7),
        data: Bytes::from_static(data),
    };
    let mut messages = vec![
        (2, entry_message(&entry(EntryKind::Normal, b"")).encode_to_vec()),
        (2, entry_message(&entry(EntryKind::Normal, b"x")).encode_to_vec()),
        (2, entry_message(&entry(EntryKind::ConfChange, b"x")).encode_to_vec()),
        (5, vec![0x08, 0, 0x10, 0]),
        (5, vec![0x08, 7, 0x10, 2, 0x1a, 4, 0x08, 1, 0x28, 0]),
    ];
    for term in 1..4 {
        for vote in [0, 1, 99] {
            let state = raftpb::HardState { term: Some(term), vote: Some(vote), commit: Some(9) };
            messages.push((3, state.encode_to_vec()));
        }
    }
    for (own, data) in &messages {
        for other in [2, 3, 5] {
            let found = Record { number: other, crc: 0, data }.content();
            assert_eq!(found.is_some(), other == *own, "{own} read as {other}: {data:?}");
        }
        assert!(Record { number: 4, crc: 0, data }.content().is_none());
        assert!(Record { number: 6, crc: 0, data }.content().is_none());
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![Just(EntryKind::Normal), Just(EntryKind::ConfChange)];
    (kind, 1..u64::MAX, 1..u64::MAX, prop::collection::vec(any::<u8>(), 1..600)).prop_map(
        |(kind, term, index, data)| Entry {
            kind,
            term: Term(term),
            index: Index(index),
            data: data.into(),
        },
    )
}

fn members() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::btree_set(any::<u64>(), 0..4).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #[test]
    fn entry_is_encoded_as_prost_does_and_read_back(entry in any_entry(), before: u32) {
        let mut encoder = Encoder::new(before);
        encoder.entry(&entry);
        prop_assert_eq!(&encoder.buffer, &record(2, before, &entry_message(&entry)));
        let (len, _) = parse_word(u64::from_le_bytes(encoder.buffer[..8].try_into().unwrap())).unwrap();
        let bytes = &encoder.buffer[8..8 + usize::try_from(len).unwrap()];
        prop_assert_eq!(Head::parse(bytes).unwrap().record_len, len);
        let found = Record::parse(bytes).unwrap();
        prop_assert_eq!(found.crc, encoder.crc);
        let Some(Content::Entry(view)) = found.content() else { panic!() };
        prop_assert_eq!(view.to_entry(), entry);
    }

    #[test]
    fn hard_state_is_encoded_as_prost_does_and_read_back(term in 1_u64.., vote: u64, commit: u64) {
        let state = HardState { term: Term(term), vote: MemberId(vote), commit: Index(commit) };
        let message =
            raftpb::HardState { term: Some(term), vote: Some(vote), commit: Some(commit) };
        let mut encoder = Encoder::new(7);
        encoder.hard_state(&state);
        prop_assert_eq!(&encoder.buffer, &record(3, 7, &message));
        prop_assert_eq!(parse_hard_state(&message.encode_to_vec()), Some(state));
    }

    #[test]
    fn mark_is_encoded_as_prost_does_and_read_back(
        index in 1_u64.., term in 1_u64.., sets in prop::array::uniform4(members()), auto_leave: bool,
    ) {
        let set = |nth: usize| sets[nth].iter().copied().map(MemberId).collect();
        let conf_state = ConfState {
            voters: set(0),
            learners: set(1),
            voters_outgoing: set(2),
            learners_next: set(3),
            auto_leave,
        };
        let position = LogPosition { index: Index(index), term: Term(term) };
        let mark = Mark { position, conf_state: Some(conf_state) };
        let [voters, learners, voters_outgoing, learners_next] = sets;
        let message = walpb::Snapshot {
            index: Some(index),
            term: Some(term),
            conf_state: Some(raftpb::ConfState {
                voters,
                learners,
                voters_outgoing,
                learners_next,
                auto_leave: Some(auto_leave),
            }),
        };
        let mut encoder = Encoder::new(7);
        encoder.mark(&mark);
        prop_assert_eq!(&encoder.buffer, &record(5, 7, &message));
        prop_assert_eq!(parse_mark(&message.encode_to_vec()), Some(mark));
    }

    /// Random bytes: no panic, and what is accepted is what prost accepts.
    #[test]
    fn decoders_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(Head::parse(&bytes).is_none_or(|head| head.len <= head.record_len));
        for number in 0..7 {
            drop(Record { number, crc: 0, data: &bytes }.content());
        }
        if let Some(found) = Record::parse(&bytes) {
            let theirs = walpb::Record::decode(&bytes[..]).unwrap();
            prop_assert_eq!(found.number, theirs.r#type.unwrap_or(0));
            prop_assert_eq!(found.data, &theirs.data.unwrap_or_default()[..]);
        }
    }
}
