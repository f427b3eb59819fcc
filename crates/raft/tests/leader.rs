//! A leader alone: snapshots, changes of the members and limits, where whole stories would hide
//! which message caused what.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;

use alone::{Alone, ME, THREE, TWO, accepted, alone, conf_state, position};
use base::{Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use retcd_raft::{
    AppendReply, Body, ConfState, DropReason, Event, MembershipChange, Message, PeerState,
    PeerStatus, ProposeError, Ready, SnapshotMeta,
};

/// Leads three members in term 1; its log is compacted up to 3 of 4, and member 3 has only 1.
fn compacted() -> Alone {
    let mut leader = alone(3, &[]).lead();
    for id in [TWO, THREE] {
        leader.hear(id, 1, accepted(1));
    }
    leader.raft.propose(vec![Bytes::new(); 3]).unwrap();
    leader.hear(TWO, 1, accepted(4));
    leader.raft.compact(Index(3));
    leader.said.clear();
    leader
}

fn refused(index: u64, hint: LogPosition) -> Body {
    Body::AppendReply(AppendReply { index: Index(index), rejected: Some(hint) })
}

fn peer(leader: &Alone, id: MemberId) -> PeerStatus {
    leader.raft.peers().find(|(peer, _)| *peer == id).unwrap().1
}

fn state_of(leader: &Alone, id: MemberId) -> PeerState {
    peer(leader, id).state
}

/// Member 3 turns out to lack what is compacted.
fn want(leader: &mut Alone) -> Ready {
    let body = refused(4, position(1, 1));
    leader.raft.step(Message { from: THREE, to: ME, term: Term(1), body });
    leader.raft.ready().unwrap()
}

#[test]
fn a_snapshot_is_wanted_once_and_sent_when_it_is_there() {
    let mut leader = compacted();
    assert_eq!(want(&mut leader).snapshot_wanted, [THREE]);
    leader.raft.propose(vec![Bytes::new()]).unwrap();
    let ready = leader.raft.ready().unwrap();
    assert!(ready.snapshot_wanted.is_empty());
    assert!(ready.at_once.iter().all(|message| message.to == TWO), "appends only to the other");
    leader.raft.send_snapshot(THREE, position(1, 4), conf_state(3));
    let meta = SnapshotMeta { position: position(1, 4), conf_state: conf_state(3) };
    let said = leader.raft.ready().unwrap().at_once;
    assert_eq!((said[0].to, &said[0].body), (THREE, &Body::Snapshot(meta)));
    // Once more: nobody asked.
    leader.raft.send_snapshot(THREE, position(1, 4), conf_state(3));
    assert!(leader.raft.ready().is_none());
}

#[test]
fn without_a_snapshot_it_is_wanted_again_after_a_heartbeat() {
    let mut leader = compacted();
    want(&mut leader);
    leader.raft.snapshot_sent(THREE, false);
    assert!(leader.raft.ready().is_none());
    leader.raft.step(Message {
        from: THREE,
        to: ME,
        term: Term(1),
        body: Body::HeartbeatReply { context: Bytes::new() },
    });
    assert_eq!(leader.raft.ready().unwrap().snapshot_wanted, [THREE]);
}

/// etcd raft: snapshot_succeed_via_app_resp.txt.
#[test]
fn the_acknowledgement_of_a_snapshot_may_come_before_the_report() {
    let mut leader = compacted();
    want(&mut leader);
    leader.raft.send_snapshot(THREE, position(1, 4), conf_state(3));
    leader.hear(THREE, 1, accepted(4));
    assert_eq!(state_of(&leader, THREE), PeerState::Replicate);
    leader.raft.snapshot_sent(THREE, true);
    assert_eq!(state_of(&leader, THREE), PeerState::Replicate, "an old report changes nothing");
}

/// etcd raft: snapshot_succeed_via_app_resp_behind.txt.
#[test]
fn any_acknowledgement_ends_the_wait_if_the_log_reaches_on_from_it() {
    let mut leader = compacted();
    want(&mut leader);
    leader.raft.send_snapshot(THREE, position(1, 4), conf_state(3));
    leader.hear(THREE, 1, accepted(2));
    assert_eq!(state_of(&leader, THREE), PeerState::Snapshot(Some(Index(4))), "3 is compacted");
    leader.said.clear();
    leader.hear(THREE, 1, accepted(3));
    assert_eq!(state_of(&leader, THREE), PeerState::Replicate);
    let Body::Append(append) = leader.answer() else { panic!("no append") };
    assert_eq!((append.previous, append.entries.len()), (position(1, 3), 1));
}

#[test]
fn a_member_that_was_removed_is_forgotten_and_a_new_one_probed() {
    let mut leader = compacted();
    leader.raft.apply_change(&MembershipChange::Remove(THREE));
    leader.hear(THREE, 1, accepted(4));
    let dropped = leader.raft.take_events().pop();
    let reason = DropReason::UnknownMember;
    assert_eq!(dropped, Some(Event::Dropped { from: THREE, kind: "MsgAppResp", reason }));
    let state = leader.raft.apply_change(&MembershipChange::AddLearner(MemberId(4)));
    assert_eq!(state.learners, [MemberId(4)].into());
    let peer = peer(&leader, MemberId(4));
    assert!(peer.is_learner && peer.recent_active, "it gets time to answer");
    assert_eq!(peer.state, PeerState::Probe);
}

#[test]
fn removing_a_voter_commits_what_waited_for_it() {
    let mut leader = alone(2, &[]).lead();
    leader.raft.propose(vec![Bytes::new()]).unwrap();
    leader.work();
    assert_eq!(leader.commit(), 0);
    leader.raft.apply_change(&MembershipChange::Remove(TWO));
    assert_eq!(leader.commit(), 2);
}

#[test]
fn a_read_that_waits_for_a_removed_voter_is_answered() {
    let mut leader = alone(2, &[]).lead();
    leader.hear(TWO, 1, accepted(1));
    leader.raft.read(7);
    assert!(leader.raft.ready().is_some_and(|ready| ready.reads.is_empty()));
    leader.raft.apply_change(&MembershipChange::Remove(TWO));
    let reads = leader.raft.ready().unwrap().reads;
    assert_eq!((reads[0].context, reads[0].index), (7, Index(1)));
}

#[test]
fn a_change_that_leaves_no_voter_is_not_made() {
    let mut leader = alone(1, &[]);
    leader.raft.campaign();
    leader.work();
    let state = leader.raft.apply_change(&MembershipChange::Remove(ME));
    assert_eq!(state, conf_state(1));
}

#[test]
fn whoever_leads_in_the_name_of_another_term_is_not_believed() {
    let mut leader = compacted();
    leader.hear(TWO, 1, Body::Heartbeat { commit: Index(4), context: Bytes::new() });
    assert_eq!(leader.raft.status().leader, Some(ME));
    // Entries that were never sent cannot be acknowledged.
    leader.hear(THREE, 1, accepted(5));
    assert_eq!(peer(&leader, THREE).matched, Index(1));
}

#[test]
fn proposals_beyond_the_limit_are_refused_until_some_are_applied() {
    let config = retcd_raft::Config {
        pre_vote: false,
        uncommitted_bytes_max: 10,
        ..retcd_raft::Config::new(ME, 1)
    };
    let restored =
        retcd_raft::Restored { conf_state: conf_state(1), ..retcd_raft::Restored::default() };
    let mut leader = alone(1, &[]);
    leader.raft = retcd_raft::Raft::new(config, restored);
    leader.raft.campaign();
    leader.work();
    leader.raft.propose(vec![Bytes::from_static(b"12345678")]).unwrap();
    let refusal = leader.raft.propose(vec![Bytes::from_static(b"abc")]).unwrap_err();
    assert_eq!(refusal, ProposeError::Overloaded { bytes: 3, uncommitted_bytes: 8, max: 10 });
    leader.raft.propose(vec![Bytes::new()]).unwrap();
    leader.work();
    leader.raft.propose(vec![Bytes::from_static(b"abc")]).unwrap();
}

#[test]
fn commits_alone_need_no_sync_and_hold_nothing_back() {
    let mut member = alone(3, &[]);
    member.hear(TWO, 1, alone::append(position(0, 0), &[1], 0));
    member.said.clear();
    let body = alone::append(position(1, 1), &[], 1);
    member.raft.step(Message { from: TWO, to: ME, term: Term(1), body });
    let ready = member.raft.ready().unwrap();
    let persist = ready.persist.unwrap();
    assert!(!persist.must_sync && persist.entries.is_empty());
    assert_eq!(persist.hard_state.unwrap().commit, Index(1));
    // The entry is durable already, so its acknowledgement does not wait for the hint.
    assert_eq!(ready.at_once[0].body, accepted(1));
}

#[test]
fn a_member_outside_the_configuration_does_not_campaign() {
    let restored = retcd_raft::Restored::default();
    let mut raft = retcd_raft::Raft::new(retcd_raft::Config::new(ME, 1), restored);
    (0..100).for_each(|_| raft.tick());
    raft.campaign();
    assert!(raft.ready().is_none());
    assert_eq!(*raft.conf_state(), ConfState::default());
}

/// Found by the simulator: the leader then asked its learner for ever, in one turn.
#[test]
fn a_read_that_needs_nobody_any_more_asks_nobody() {
    let mut leader = alone(2, &[]).lead();
    leader.hear(TWO, 1, accepted(1));
    leader.raft.apply_change(&MembershipChange::AddLearner(THREE));
    leader.work();
    leader.raft.read(7);
    leader.raft.apply_change(&MembershipChange::Remove(TWO));
    let turns = std::iter::from_fn(|| leader.raft.ready()).take(10);
    let reads: Vec<u64> = turns.flat_map(|ready| ready.reads).map(|read| read.context).collect();
    assert_eq!(reads, [7]);
    assert!(leader.raft.ready().is_none(), "there is nothing left to do");
}
