//! Raft's messages as raftpb spells them, and back without loss.
//!
//! Written by hand, because payloads are shared instead of copied and because the bytes are Go's:
//! every number is written, also 0; `snapshot` only in `MsgSnap`, as etcd since 3.6. Read by the
//! generated code. Whatever bytes come in, the answer is a message or an error; a message that no
//! correct member sends may pass, and is dropped by the core.
//! Format: docs/formats/peer.md. Source: etcd raft: raftpb/raft.proto.

use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::encoded_len_varint;
use proto::raftpb::{self, MessageType};
use raft::{
    Append, AppendReply, Body, ConfState, Entry, EntryKind, Message, SnapshotMeta, VoteRequest,
};

use crate::pieces::Pieces;

/// What a vote asked for by the leader itself carries.
const FORCED_CONTEXT: &[u8] = b"CampaignTransfer";

/// Why bytes are not a message from another member.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf, or not of this shape.
    #[error("reading a raft message")]
    Malformed(#[from] prost::DecodeError),
    /// A kind that members never send each other, or that does not exist.
    #[error("message of type {0} does not belong on the network")]
    NotForNetwork(i32),
    /// An entry of a kind that does not exist.
    #[error("entry of unknown type {0}")]
    UnknownEntryKind(i32),
    /// A read-index message without exactly one entry, or a snapshot without its position.
    #[error("{0} is incomplete")]
    Incomplete(&'static str),
}

/// What a message's bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// "The link lives": not Raft's.
    LinkHeartbeat,
    /// A message for the core.
    Message(Message),
    /// A snapshot's message with the data beside it (the v2 store as JSON).
    Snapshot(Message, Bytes),
}

/// Appends the message's bytes to `pieces` and returns how many there are.
///
/// `snapshot_data` goes into a [`Body::Snapshot`]; other messages have no place for it.
pub fn encode(message: &Message, snapshot_data: &Bytes, pieces: &mut Pieces) -> usize {
    let before = pieces.len();
    let fields = Fields::of(message);
    put_fields_before_entries(message, &fields, pieces);
    for entry in fields.entries {
        put_key(7, pieces);
        pieces.put_varint(len_u64(entry_len(entry)));
        put_entry(entry, pieces);
    }
    if let Some(context) = fields.only_entry {
        put_key(7, pieces);
        pieces.put_varint(len_u64(bare_entry_len(context)));
        put_bare_entry(context, pieces);
    }
    put_number(8, fields.commit, pieces);
    if let Body::Snapshot(meta) = &message.body {
        let snapshot = snapshot_message(meta, snapshot_data);
        put_key(9, pieces);
        let encoded = Bytes::from(snapshot.encode_to_vec());
        pieces.put_varint(len_u64(encoded.len()));
        pieces.put_bytes(&encoded);
    }
    put_number(10, u64::from(fields.reject), pieces);
    put_number(11, fields.reject_hint, pieces);
    if !fields.context.is_empty() {
        put_key(12, pieces);
        pieces.put_varint(len_u64(fields.context.len()));
        pieces.put_bytes(&fields.context);
    }
    pieces.len() - before
}

/// How many bytes [`encode`] makes of a message that is no snapshot.
#[must_use]
pub fn encoded_len(message: &Message) -> usize {
    let fields = Fields::of(message);
    let numbers = [
        u64::from(message_type(&message.body) as u32),
        message.to.0,
        message.from.0,
        message.term.0,
        fields.log_term,
        fields.index,
        fields.commit,
        u64::from(fields.reject),
        fields.reject_hint,
    ];
    let numbers: usize = numbers.into_iter().map(number_len).sum();
    let entries: usize = fields.entries.iter().map(|entry| delimited_len(entry_len(entry))).sum();
    let only = fields.only_entry.map_or(0, |context| delimited_len(bare_entry_len(context)));
    let context = if fields.context.is_empty() { 0 } else { delimited_len(fields.context.len()) };
    numbers + entries + only + context
}

/// Reads one message; payloads share `bytes`.
///
/// # Errors
/// If the bytes are no message, or none that members send each other.
pub fn decode(bytes: Bytes) -> Result<Decoded, DecodeError> {
    from_message(raftpb::Message::decode(bytes)?)
}

/// Reads one entry; its payload shares `bytes`.
///
/// # Errors
/// If the bytes are no entry.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, DecodeError> {
    from_entry(raftpb::Entry::decode(bytes)?)
}

/// The parts of a message under raftpb's names; what a kind does not use is 0 or empty.
struct Fields<'a> {
    log_term: u64,
    index: u64,
    entries: &'a [Entry],
    /// The data of the only entry, which has nothing else.
    only_entry: Option<&'a Bytes>,
    commit: u64,
    reject: bool,
    reject_hint: u64,
    context: Bytes,
}

impl<'a> Fields<'a> {
    fn of(message: &'a Message) -> Self {
        let mut fields = Self {
            log_term: 0,
            index: 0,
            entries: &[],
            only_entry: None,
            commit: 0,
            reject: false,
            reject_hint: 0,
            context: Bytes::new(),
        };
        match &message.body {
            Body::Propose(entries) => fields.entries = entries,
            Body::Append(append) => {
                fields.log_term = append.previous.term.0;
                fields.index = append.previous.index.0;
                fields.entries = &append.entries;
                fields.commit = append.commit.0;
            }
            Body::AppendReply(AppendReply { index, rejected }) => {
                fields.index = index.0;
                if let Some(hint) = rejected {
                    fields.reject = true;
                    fields.reject_hint = hint.index.0;
                    fields.log_term = hint.term.0;
                }
            }
            Body::Vote(request) | Body::PreVote(request) => {
                fields.log_term = request.last.term.0;
                fields.index = request.last.index.0;
                if request.forced {
                    fields.context = Bytes::from_static(FORCED_CONTEXT);
                }
            }
            Body::VoteReply { granted } | Body::PreVoteReply { granted } => {
                fields.reject = !granted;
            }
            Body::Heartbeat { commit, context } => {
                fields.commit = commit.0;
                fields.context = context.clone();
            }
            Body::HeartbeatReply { context } => fields.context = context.clone(),
            Body::ReadIndex { context } => fields.only_entry = Some(context),
            Body::ReadIndexReply { index, context } => {
                fields.index = index.0;
                fields.only_entry = Some(context);
            }
            Body::Snapshot(_) | Body::TransferLeader | Body::TimeoutNow => {}
        }
        fields
    }
}

fn put_fields_before_entries(message: &Message, fields: &Fields<'_>, pieces: &mut Pieces) {
    put_number(1, u64::from(message_type(&message.body) as u32), pieces);
    put_number(2, message.to.0, pieces);
    put_number(3, message.from.0, pieces);
    put_number(4, message.term.0, pieces);
    put_number(5, fields.log_term, pieces);
    put_number(6, fields.index, pieces);
}

/// The key of field `number` with a varint. All field numbers here are below 16.
fn put_number(number: u8, value: u64, pieces: &mut Pieces) {
    pieces.put_u8(number << 3);
    pieces.put_varint(value);
}

/// The key of field `number` with a length before its bytes.
fn put_key(number: u8, pieces: &mut Pieces) {
    pieces.put_u8((number << 3) | 2);
}

fn number_len(value: u64) -> usize {
    1 + encoded_len_varint(value)
}

fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len_u64(len)) + len
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits 64 bits")
}

/// Appends an entry's bytes to `pieces`.
pub(crate) fn put_entry(entry: &Entry, pieces: &mut Pieces) {
    put_number(1, u64::from(entry_type(entry.kind) as u32), pieces);
    put_number(2, entry.term.0, pieces);
    put_number(3, entry.index.0, pieces);
    if !entry.data.is_empty() {
        put_key(4, pieces);
        pieces.put_varint(len_u64(entry.data.len()));
        pieces.put_bytes(&entry.data);
    }
}

/// How many bytes [`put_entry`] makes.
pub(crate) fn entry_len(entry: &Entry) -> usize {
    let numbers = [u64::from(entry_type(entry.kind) as u32), entry.term.0, entry.index.0];
    let data = if entry.data.is_empty() { 0 } else { delimited_len(entry.data.len()) };
    numbers.into_iter().map(number_len).sum::<usize>() + data
}

/// An entry that only carries something; its data is written even if empty.
fn put_bare_entry(data: &Bytes, pieces: &mut Pieces) {
    for number in 1..=3 {
        put_number(number, 0, pieces);
    }
    put_key(4, pieces);
    pieces.put_varint(len_u64(data.len()));
    pieces.put_bytes(data);
}

fn bare_entry_len(data: &Bytes) -> usize {
    3 * number_len(0) + delimited_len(data.len())
}

fn message_type(body: &Body) -> MessageType {
    match body {
        Body::Propose(_) => MessageType::MsgProp,
        Body::Append(_) => MessageType::MsgApp,
        Body::AppendReply(_) => MessageType::MsgAppResp,
        Body::Vote(_) => MessageType::MsgVote,
        Body::VoteReply { .. } => MessageType::MsgVoteResp,
        Body::PreVote(_) => MessageType::MsgPreVote,
        Body::PreVoteReply { .. } => MessageType::MsgPreVoteResp,
        Body::Snapshot(_) => MessageType::MsgSnap,
        Body::Heartbeat { .. } => MessageType::MsgHeartbeat,
        Body::HeartbeatReply { .. } => MessageType::MsgHeartbeatResp,
        Body::TransferLeader => MessageType::MsgTransferLeader,
        Body::TimeoutNow => MessageType::MsgTimeoutNow,
        Body::ReadIndex { .. } => MessageType::MsgReadIndex,
        Body::ReadIndexReply { .. } => MessageType::MsgReadIndexResp,
    }
}

fn entry_type(kind: EntryKind) -> raftpb::EntryType {
    match kind {
        EntryKind::Normal => raftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => raftpb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => raftpb::EntryType::EntryConfChangeV2,
    }
}

fn snapshot_message(meta: &SnapshotMeta, data: &Bytes) -> raftpb::Snapshot {
    let state = &meta.conf_state;
    let ids = |members: &std::collections::BTreeSet<MemberId>| {
        members.iter().map(|member| member.0).collect()
    };
    raftpb::Snapshot {
        data: Some(data.clone()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(raftpb::ConfState {
                voters: ids(&state.voters),
                learners: ids(&state.learners),
                voters_outgoing: ids(&state.voters_outgoing),
                learners_next: ids(&state.learners_next),
                auto_leave: Some(state.auto_leave),
            }),
            index: Some(meta.position.index.0),
            term: Some(meta.position.term.0),
        }),
    }
}

fn from_message(message: raftpb::Message) -> Result<Decoded, DecodeError> {
    let number = message.r#type.unwrap_or(0);
    let kind = MessageType::try_from(number).map_err(|_| DecodeError::NotForNetwork(number))?;
    let (from, to) = (MemberId(message.from()), MemberId(message.to()));
    if kind == MessageType::MsgHeartbeat && from.is_none() && to.is_none() {
        return Ok(Decoded::LinkHeartbeat);
    }
    let term = Term(message.term());
    let index = Index(message.index());
    let position = LogPosition { index, term: Term(message.log_term()) };
    let granted = !message.reject();
    let context = message.context.clone().unwrap_or_default();
    let body = match kind {
        MessageType::MsgProp => Body::Propose(from_entries(message.entries)?),
        MessageType::MsgApp => Body::Append(Append {
            previous: position,
            commit: Index(message.commit()),
            entries: from_entries(message.entries)?,
        }),
        MessageType::MsgAppResp => {
            let hint = LogPosition { index: Index(message.reject_hint()), term: position.term };
            Body::AppendReply(AppendReply { index, rejected: message.reject().then_some(hint) })
        }
        MessageType::MsgVote => Body::Vote(vote_request(position, &context)),
        MessageType::MsgPreVote => Body::PreVote(vote_request(position, &context)),
        MessageType::MsgVoteResp => Body::VoteReply { granted },
        MessageType::MsgPreVoteResp => Body::PreVoteReply { granted },
        MessageType::MsgSnap => {
            let (meta, data) = from_snapshot(message.snapshot)?;
            let body = Body::Snapshot(meta);
            return Ok(Decoded::Snapshot(Message { from, to, term, body }, data));
        }
        MessageType::MsgHeartbeat => Body::Heartbeat { commit: Index(message.commit()), context },
        MessageType::MsgHeartbeatResp => Body::HeartbeatReply { context },
        MessageType::MsgTransferLeader => Body::TransferLeader,
        MessageType::MsgTimeoutNow => Body::TimeoutNow,
        MessageType::MsgReadIndex => {
            Body::ReadIndex { context: only_entry(message.entries, "MsgReadIndex")? }
        }
        MessageType::MsgReadIndexResp => {
            let context = only_entry(message.entries, "MsgReadIndexResp")?;
            Body::ReadIndexReply { index, context }
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => return Err(DecodeError::NotForNetwork(number)),
    };
    Ok(Decoded::Message(Message { from, to, term, body }))
}

fn vote_request(last: LogPosition, context: &[u8]) -> VoteRequest {
    VoteRequest { last, forced: context == FORCED_CONTEXT }
}

fn from_entries(entries: Vec<raftpb::Entry>) -> Result<Vec<Entry>, DecodeError> {
    entries.into_iter().map(from_entry).collect()
}

fn from_entry(entry: raftpb::Entry) -> Result<Entry, DecodeError> {
    let number = entry.r#type.unwrap_or(0);
    let kind = match raftpb::EntryType::try_from(number) {
        Ok(raftpb::EntryType::EntryNormal) => EntryKind::Normal,
        Ok(raftpb::EntryType::EntryConfChange) => EntryKind::ConfChange,
        Ok(raftpb::EntryType::EntryConfChangeV2) => EntryKind::ConfChangeV2,
        Err(_) => return Err(DecodeError::UnknownEntryKind(number)),
    };
    let (term, index) = (Term(entry.term()), Index(entry.index()));
    Ok(Entry { kind, term, index, data: entry.data.unwrap_or_default() })
}

fn only_entry(mut entries: Vec<raftpb::Entry>, kind: &'static str) -> Result<Bytes, DecodeError> {
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) => Ok(entry.data.unwrap_or_default()),
        (Some(_) | None, _) => Err(DecodeError::Incomplete(kind)),
    }
}

fn from_snapshot(snapshot: Option<raftpb::Snapshot>) -> Result<(SnapshotMeta, Bytes), DecodeError> {
    let snapshot = snapshot.ok_or(DecodeError::Incomplete("MsgSnap"))?;
    let metadata = snapshot.metadata.ok_or(DecodeError::Incomplete("MsgSnap"))?;
    let position = LogPosition { index: Index(metadata.index()), term: Term(metadata.term()) };
    let state = metadata.conf_state.ok_or(DecodeError::Incomplete("MsgSnap"))?;
    let auto_leave = state.auto_leave();
    let ids = |members: Vec<u64>| members.into_iter().map(MemberId).collect();
    let conf_state = ConfState {
        voters: ids(state.voters),
        learners: ids(state.learners),
        voters_outgoing: ids(state.voters_outgoing),
        learners_next: ids(state.learners_next),
        auto_leave,
    };
    Ok((SnapshotMeta { position, conf_state }, snapshot.data.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
