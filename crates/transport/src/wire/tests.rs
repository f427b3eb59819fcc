//! Each kind of message under raftpb's names, and back.

use std::collections::BTreeSet;

use super::*;

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition { term: Term(term), index: Index(index) }
}

fn entry(kind: EntryKind, term: u64, index: u64, data: &'static str) -> Entry {
    Entry { kind, term: Term(term), index: Index(index), data: data.into() }
}

fn message(body: Body) -> Message {
    Message { from: MemberId(0xf00d), to: MemberId(7), term: Term(300), body }
}

fn encoded(message: &Message, data: &'static str) -> Bytes {
    let mut pieces = Pieces::default();
    let len = encode(message, &data.into(), &mut pieces);
    let bytes = pieces.take_joined();
    assert_eq!(len, bytes.len());
    bytes
}

fn bodies() -> Vec<Body> {
    let last = position(4, 300);
    let entries = vec![
        entry(EntryKind::Normal, 5, 301, "put"),
        entry(EntryKind::ConfChange, 5, 302, "add"),
        entry(EntryKind::ConfChangeV2, 5, 303, "joint"),
        entry(EntryKind::Normal, 6, 304, ""),
    ];
    vec![
        Body::Propose(vec![entry(EntryKind::Normal, 0, 0, "put")]),
        Body::Append(Append { previous: last, entries, commit: Index(299) }),
        Body::AppendReply(AppendReply { index: Index(304), rejected: None }),
        Body::AppendReply(AppendReply { index: Index(304), rejected: Some(position(3, 200)) }),
        Body::AppendReply(AppendReply { index: Index(304), rejected: Some(position(0, 0)) }),
        Body::Vote(VoteRequest { last, forced: false }),
        Body::Vote(VoteRequest { last, forced: true }),
        Body::VoteReply { granted: true },
        Body::VoteReply { granted: false },
        Body::PreVote(VoteRequest { last, forced: false }),
        Body::PreVoteReply { granted: true },
        Body::PreVoteReply { granted: false },
        Body::Heartbeat { commit: Index(12), context: Bytes::new() },
        Body::Heartbeat { commit: Index(12), context: "12345678".into() },
        Body::HeartbeatReply { context: "12345678".into() },
        Body::TransferLeader,
        Body::TimeoutNow,
        Body::ReadIndex { context: "read".into() },
        Body::ReadIndexReply { index: Index(99), context: "read".into() },
    ]
}

#[test]
fn every_kind_comes_back_as_it_went() {
    for body in bodies() {
        let message = message(body);
        let bytes = encoded(&message, "");
        assert_eq!(encoded_len(&message), bytes.len(), "{}", message.body.name());
        assert_eq!(decode(bytes).unwrap(), Decoded::Message(message));
    }
}

#[test]
fn the_generated_code_reads_what_is_written_by_hand() {
    for body in bodies() {
        let message = message(body);
        let bytes = encoded(&message, "");
        let read = raftpb::Message::decode(&bytes[..]).unwrap();
        assert_eq!(read.r#type().as_str_name(), message.body.name());
        assert_eq!((read.from(), read.to(), read.term()), (0xf00d, 7, 300));
        // Written by the generated code with all numbers present, it is the same bytes.
        assert_eq!(read.encode_to_vec(), bytes);
    }
}

#[test]
fn a_snapshot_carries_its_data_beside() {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
    let conf_state = ConfState {
        voters: ids(&[1, 2, 1 << 63]),
        learners: ids(&[4]),
        voters_outgoing: ids(&[5]),
        learners_next: ids(&[6]),
        auto_leave: true,
    };
    let message = message(Body::Snapshot(SnapshotMeta { position: position(9, 1000), conf_state }));
    let bytes = encoded(&message, "{\"Root\":{}}");
    let read = raftpb::Message::decode(&bytes[..]).unwrap();
    assert_eq!(read.encode_to_vec(), bytes);
    assert_eq!(decode(bytes).unwrap(), Decoded::Snapshot(message, "{\"Root\":{}}".into()));
}

#[test]
fn bytes_are_those_of_go() {
    let ask = message(Body::Vote(VoteRequest { last: position(4, 5), forced: true }));
    let mut expected = vec![8, 5, 16, 7, 24, 0x8d, 0xe0, 3, 32, 0xac, 2, 40, 4, 48, 5, 64, 0];
    expected.extend([80, 0, 88, 0, 0x62, 16]);
    expected.extend(b"CampaignTransfer");
    assert_eq!(encoded(&ask, ""), expected);
}

#[test]
fn an_empty_snapshot_of_older_members_is_no_snapshot() {
    let reply = message(Body::HeartbeatReply { context: Bytes::new() });
    let mut read = raftpb::Message::decode(encoded(&reply, "")).unwrap();
    read.snapshot =
        Some(raftpb::Snapshot { data: None, metadata: Some(raftpb::SnapshotMetadata::default()) });
    assert_eq!(decode(read.encode_to_vec().into()).unwrap(), Decoded::Message(reply));
}

#[test]
fn absent_numbers_are_zero() {
    let vote = raftpb::Message {
        r#type: Some(MessageType::MsgVoteResp.into()),
        from: Some(1),
        to: Some(2),
        ..raftpb::Message::default()
    };
    let body = Body::VoteReply { granted: true };
    let expected = Message { from: MemberId(1), to: MemberId(2), term: Term(0), body };
    assert_eq!(decode(vote.encode_to_vec().into()).unwrap(), Decoded::Message(expected));
}

/// N12.
#[test]
fn what_members_never_send_is_refused() {
    for number in [0, 1, 10, 11, 12, 19, 22, 23, -1] {
        let local = raftpb::Message { r#type: Some(number), ..raftpb::Message::default() };
        let refused = decode(local.encode_to_vec().into()).unwrap_err();
        assert!(matches!(refused, DecodeError::NotForNetwork(_)), "{number}");
    }
    let no_position =
        raftpb::Message { r#type: Some(7), from: Some(1), ..raftpb::Message::default() };
    let refused = decode(no_position.encode_to_vec().into()).unwrap_err();
    assert!(matches!(refused, DecodeError::Incomplete("MsgSnap")));
    for entries in [0, 2] {
        let read = raftpb::Message {
            r#type: Some(MessageType::MsgReadIndex.into()),
            from: Some(1),
            entries: vec![raftpb::Entry::default(); entries],
            ..raftpb::Message::default()
        };
        let refused = decode(read.encode_to_vec().into()).unwrap_err();
        assert!(matches!(refused, DecodeError::Incomplete("MsgReadIndex")));
    }
    let unknown_entry = raftpb::Message {
        r#type: Some(MessageType::MsgProp.into()),
        entries: vec![raftpb::Entry { r#type: Some(3), ..raftpb::Entry::default() }],
        ..raftpb::Message::default()
    };
    let refused = decode(unknown_entry.encode_to_vec().into()).unwrap_err();
    assert!(matches!(refused, DecodeError::UnknownEntryKind(3)));
}

#[test]
fn payloads_are_shared_with_what_came_in() {
    let propose = Body::Propose(vec![entry(EntryKind::Normal, 0, 0, "payload")]);
    let bytes = encoded(&message(propose), "");
    let range = bytes.as_ptr_range();
    let Decoded::Message(Message { body: Body::Propose(entries), .. }) = decode(bytes).unwrap()
    else {
        panic!("not a proposal");
    };
    assert!(range.contains(&entries[0].data.as_ptr()));
}
