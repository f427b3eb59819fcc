//! Proposals that certainly never reached the leader they were passed on to (docs/design/0010).
//!
//! Once another member leads they are proposed again, for those who still wait. What may have
//! arrived must not get here: proposed twice it would be applied twice.

use base::MemberId;
use base::probe::mutant;
use raft::{Body, EntryKind, Message};

use crate::{Input, Proposal, Ticket, payload};

/// Messages that are kept for the next leader. Whoever is behind them finds its request lost as on
/// the way: it ends by its time.
const MESSAGES_MAX: usize = 4096;

/// What waits for another leader.
#[derive(Debug, Default)]
pub struct Undelivered {
    messages: Vec<Message>,
}

impl Undelivered {
    /// Keeps messages with proposals, as far as there is room.
    pub fn keep(&mut self, proposals: Vec<Message>) {
        self.messages.extend(proposals);
        self.messages.truncate(MESSAGES_MAX);
    }

    /// What is to be proposed now that `leader` leads, or nobody: the requests that `waits` knows,
    /// in their order. The rest is forgotten, but for what that leader itself did not get.
    pub fn take_due(
        &mut self,
        leader: Option<MemberId>,
        waits: impl Fn(Ticket) -> bool,
    ) -> Vec<Input> {
        let (kept, due): (Vec<Message>, Vec<Message>) = std::mem::take(&mut self.messages)
            .into_iter()
            .partition(|message| leader == Some(message.to));
        self.messages = kept;
        if mutant("undelivered-is-proposed-for-ever") {
            self.messages.extend(due.iter().cloned());
        }
        let entries = due.into_iter().filter_map(|message| {
            if let Body::Propose(entries) = message.body { Some(entries) } else { None }
        });
        let mut inputs = Vec::new();
        for entry in entries.flatten() {
            let (kind, request) = (entry.kind, entry.data.clone());
            let Some(ticket) = payload(entry).request_id().map(Ticket) else { continue };
            if !waits(ticket) {
                continue;
            }
            let proposal = Proposal { ticket, request };
            inputs.push(match kind {
                EntryKind::Normal => Input::Propose(vec![proposal]),
                EntryKind::ConfChange | EntryKind::ConfChangeV2 => Input::ProposeChange(proposal),
            });
        }
        inputs
    }
}

#[cfg(test)]
mod tests {
    use base::{Index, Term};
    use prost::Message as _;
    use proto::{etcdserverpb as pb, raftpb, v2pb};
    use raft::Entry;

    use super::*;

    fn passed_on(to: u64, kind: EntryKind, data: Vec<u8>) -> Message {
        let entry = Entry { kind, term: Term(0), index: Index(0), data: data.into() };
        let body = Body::Propose(vec![entry]);
        Message { from: MemberId(1), to: MemberId(to), term: Term(0), body }
    }

    fn put(id: u64) -> Vec<u8> {
        let header = Some(pb::RequestHeader { id, ..Default::default() });
        let put = Some(pb::PutRequest { key: "k".into(), ..Default::default() });
        pb::InternalRaftRequest { header, put, ..Default::default() }.encode_to_vec()
    }

    fn v2_put(id: u64) -> Vec<u8> {
        let (method, path) = ("PUT".into(), "/1/k".into());
        let request = v2pb::Request {
            id: Some(id),
            method: Some(method),
            path: Some(path),
            ..Default::default()
        };
        request.encode_to_vec()
    }

    fn add(id: u64) -> Vec<u8> {
        let context = Some(br#"{"id":9,"peerURLs":["http://h:1"]}"#.to_vec().into());
        let change =
            raftpb::ConfChange { id: Some(id), node_id: Some(9), context, r#type: Some(0) };
        change.encode_to_vec()
    }

    fn tickets(inputs: &[Input]) -> Vec<(bool, u64)> {
        let ticket = |input: &Input| {
            if let Input::ProposeChange(proposal) = input {
                return (true, proposal.ticket.0);
            }
            let Input::Propose(proposals) = input else { panic!("{input:?}") };
            (false, proposals[0].ticket.0)
        };
        inputs.iter().map(ticket).collect()
    }

    /// Both generations and changes of the members, in their order; not before another one leads.
    #[test]
    fn what_is_waited_for_is_proposed_to_another_leader() {
        let mut undelivered = Undelivered::default();
        undelivered.keep(vec![
            passed_on(2, EntryKind::Normal, put(11)),
            passed_on(2, EntryKind::Normal, v2_put(12)),
            passed_on(2, EntryKind::Normal, put(13)),
            passed_on(2, EntryKind::ConfChange, add(14)),
        ]);
        let waits = |ticket: Ticket| ticket.0 != 13;
        assert!(undelivered.take_due(Some(MemberId(2)), waits).is_empty());
        let due = undelivered.take_due(Some(MemberId(3)), waits);
        assert_eq!(tickets(&due), [(false, 11), (false, 12), (true, 14)]);
        assert!(undelivered.take_due(Some(MemberId(3)), waits).is_empty(), "once");
    }

    #[test]
    fn the_number_kept_is_bounded() {
        let mut undelivered = Undelivered::default();
        let many = 0..MESSAGES_MAX as u64 + 7;
        undelivered.keep(many.map(|id| passed_on(2, EntryKind::Normal, put(id + 1))).collect());
        assert_eq!(undelivered.take_due(None, |_| true).len(), MESSAGES_MAX);
    }
}
