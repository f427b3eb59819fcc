//! One test for each sentence of the paper that promises something, named by section
//! ("In Search of an Understandable Consensus Algorithm", extended version).
//!
//! These look at one member alone: what it is told, and what it says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;

use std::collections::BTreeSet;

use alone::{ME, THREE, TWO, accepted, alone, append, conf_state, position, seeded, vote};
use base::{Index, MemberId, Term};
use bytes::Bytes;
use retcd_raft::{AppendReply, Body, Message, RoleKind, SnapshotMeta};

#[test]
fn s5_1_whoever_hears_of_a_later_term_follows_in_it() {
    for mut member in [alone(3, &[1]), alone(3, &[1]).lead(), {
        let mut candidate = alone(3, &[1]);
        candidate.raft.campaign();
        candidate
    }] {
        member.hear(TWO, 9, append(position(1, 1), &[], 0));
        assert_eq!((member.role(), member.term()), (RoleKind::Follower, 9));
        assert_eq!(member.hard_state.term, Term(9), "before it answers");
    }
}

#[test]
fn s5_1_requests_of_an_old_term_are_refused() {
    let mut member = alone(3, &[2]);
    member.hear(TWO, 1, append(position(0, 0), &[1, 1, 1], 3));
    assert!(member.say().is_empty());
    member.hear(TWO, 1, vote(position(9, 9)));
    let refusal =
        Message { from: ME, to: TWO, term: Term(2), body: Body::VoteReply { granted: false } };
    assert_eq!(member.say(), [refusal]);
    // etcd answers no vote of an old term; neither do we where there is a leader to be disturbed.
    member.hear(THREE, 2, append(position(0, 0), &[], 0));
    drop(member.say());
    member.hear(TWO, 1, vote(position(9, 9)));
    assert!(member.say().is_empty());
    assert_eq!((member.last(), member.term()), (position(2, 1), 2));
}

#[test]
fn s5_2_members_start_as_followers() {
    assert_eq!(alone(3, &[]).role(), RoleKind::Follower);
}

#[test]
fn s5_2_leaders_send_heartbeats_to_all() {
    let mut leader = alone(3, &[]).lead();
    leader.raft.tick();
    let heartbeat = Body::Heartbeat { commit: Index(0), context: Bytes::new() };
    let said = leader.say();
    assert_eq!(said.iter().map(|message| message.to).collect::<Vec<_>>(), [TWO, THREE]);
    assert!(said.iter().all(|message| message.body == heartbeat));
}

#[test]
fn s5_2_without_a_leader_a_follower_raises_its_term_and_asks_all_for_votes() {
    let mut member = alone(3, &[1]);
    (0..20).for_each(|_| member.raft.tick());
    let said = member.say();
    assert_eq!((member.role(), member.term()), (RoleKind::Candidate, 2));
    assert_eq!(member.hard_state.vote, ME);
    let to: Vec<MemberId> = said.iter().map(|message| message.to).collect();
    assert_eq!(to, [TWO, THREE]);
    assert!(said.iter().all(|message| message.body == vote(position(1, 1))));
}

#[test]
fn s5_2_a_leader_that_is_heard_prevents_elections() {
    let mut member = alone(3, &[1]);
    for _ in 0..100 {
        member.raft.tick();
        member.hear(TWO, 1, Body::Heartbeat { commit: Index(0), context: Bytes::new() });
    }
    assert_eq!((member.role(), member.term()), (RoleKind::Follower, 1));
}

#[test]
fn s5_2_a_candidate_wins_with_a_majority() {
    // Voters, votes granted and refused besides its own, and the outcome.
    for (voters, granted, refused, role) in [
        (1, 0, 0, RoleKind::Leader),
        (3, 1, 0, RoleKind::Leader),
        (3, 0, 1, RoleKind::Candidate),
        (3, 0, 2, RoleKind::Follower),
        (5, 1, 0, RoleKind::Candidate),
        (5, 2, 0, RoleKind::Leader),
        (5, 2, 2, RoleKind::Leader),
        (5, 1, 3, RoleKind::Follower),
    ] {
        let mut member = alone(voters, &[]);
        member.raft.campaign();
        member.work();
        for id in 0..granted + refused {
            let granted = id < granted;
            member.hear(MemberId(2 + id), 1, Body::VoteReply { granted });
        }
        assert_eq!(member.role(), role, "{granted} for and {refused} against, of {voters}");
    }
}

#[test]
fn s5_2_one_vote_per_term_first_come_first_served() {
    let mut member = alone(3, &[]);
    member.hear(TWO, 1, vote(position(0, 0)));
    assert_eq!(member.answer(), Body::VoteReply { granted: true });
    assert_eq!(member.hard_state.vote, TWO);
    member.hear(THREE, 1, vote(position(0, 0)));
    assert_eq!(member.answer(), Body::VoteReply { granted: false });
    // A repeated request gets the same answer.
    member.hear(TWO, 1, vote(position(0, 0)));
    assert_eq!(member.answer(), Body::VoteReply { granted: true });
}

#[test]
fn s5_2_a_candidate_follows_the_leader_of_its_term() {
    let mut member = alone(3, &[]);
    member.raft.campaign();
    member.hear(TWO, 1, append(position(0, 0), &[1], 0));
    assert_eq!(member.raft.status().leader, Some(TWO));
}

/// CB-50.
#[test]
fn s5_2_election_timeouts_are_random() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let mut member = seeded(3, &[], seed);
        let ticks = (1..).find(|_| {
            member.raft.tick();
            member.role() == RoleKind::Candidate
        });
        seen.insert(ticks.unwrap());
    }
    assert_eq!(seen, (10..20).collect(), "from one timeout to less than two");
}

#[test]
fn s5_3_a_leader_appends_and_sends_in_parallel() {
    let mut leader = alone(3, &[]).lead();
    for id in [TWO, THREE] {
        leader.hear(id, 1, accepted(1));
    }
    leader.said.clear();
    leader.raft.propose(vec![Bytes::from_static(b"a")]).unwrap();
    // Not after its own disk, and not one after the other.
    let ready = leader.raft.ready().unwrap();
    let to: Vec<MemberId> = ready.at_once.iter().map(|message| message.to).collect();
    assert_eq!(to, [TWO, THREE]);
    assert_eq!(ready.persist.unwrap().entries[0].data, Bytes::from_static(b"a"));
}

#[test]
fn s5_3_an_entry_is_committed_once_a_majority_stores_it() {
    for (voters, answers) in [(1, 0), (3, 1), (5, 2)] {
        let mut leader = if voters == 1 {
            let mut member = alone(1, &[]);
            member.raft.campaign();
            member
        } else {
            alone(voters, &[]).lead()
        };
        leader.work();
        for id in 0..answers {
            assert_eq!(leader.commit(), 0);
            leader.hear(MemberId(2 + id), 1, accepted(1));
        }
        assert_eq!(leader.commit(), 1, "{answers} answers of {voters}");
        assert_eq!(leader.applied, [position(1, 1)]);
    }
}

#[test]
fn s5_3_a_leader_commits_what_stands_before_its_entry() {
    let mut leader = alone(3, &[1, 2, 2]).lead();
    leader.hear(TWO, 3, accepted(4));
    let positions = [position(1, 1), position(2, 2), position(2, 3), position(3, 4)];
    assert_eq!(leader.applied, positions);
}

#[test]
fn s5_3_a_follower_applies_what_it_learns_is_committed() {
    let mut member = alone(3, &[]);
    member.hear(TWO, 1, append(position(0, 0), &[1, 1], 1));
    assert_eq!(member.applied, [position(1, 1)]);
    // It may hear of more commits than it has entries for.
    member.hear(TWO, 1, append(position(1, 2), &[], 9));
    assert_eq!(member.applied, [position(1, 1), position(1, 2)]);
}

#[test]
fn s5_3_entries_are_refused_if_the_one_before_them_does_not_match() {
    // What is sent before the entries, and the hint in the refusal.
    for (previous, hint) in [
        (position(2, 3), position(2, 2)),
        (position(1, 2), position(1, 1)),
        (position(3, 2), position(2, 2)),
        (position(9, 9), position(2, 2)),
    ] {
        let mut member = alone(3, &[1, 2]);
        member.hear(TWO, 9, append(previous, &[9], 0));
        let refusal = AppendReply { index: previous.index, rejected: Some(hint) };
        assert_eq!(member.answer(), Body::AppendReply(refusal), "{previous}");
        assert_eq!(member.last(), position(2, 2));
    }
}

#[test]
fn s5_3_contradicting_entries_are_replaced_and_others_kept() {
    // Terms of the own log; what is sent behind which entry; terms afterwards.
    for (previous, sent, last) in [
        (position(0, 0), vec![1_u64, 2], position(3, 4)),
        (position(1, 1), vec![2], position(3, 4)),
        (position(1, 1), vec![3], position(3, 2)),
        (position(2, 2), vec![4, 4], position(4, 4)),
        (position(3, 4), vec![4], position(4, 5)),
    ] {
        let mut member = alone(3, &[1, 2, 2, 3]);
        member.hear(TWO, 4, append(previous, &sent, 0));
        assert_eq!(member.last(), last, "{sent:?} behind {previous}");
        let matched = previous.index.0 + sent.len() as u64;
        assert_eq!(member.answer(), accepted(matched));
    }
}

#[test]
fn s5_3_a_leader_goes_back_until_the_logs_match() {
    let mut leader = alone(3, &[1, 1, 1, 4, 4, 5]).lead();
    let refused = |index, hint| AppendReply { index: Index(index), rejected: Some(hint) };
    // Figure 7 (f): the follower has terms 2 and 3 where the leader has others.
    leader.hear(TWO, 6, Body::AppendReply(refused(6, position(3, 6))));
    let Body::Append(next) = leader.answer() else { panic!("no append") };
    assert_eq!(next.previous, position(1, 3), "the last one that is not of a later term");
    assert_eq!(next.entries.len(), 4);
}

#[test]
fn s5_3_an_answer_waits_for_the_disk() {
    let mut member = alone(3, &[]);
    let body = append(position(0, 0), &[1], 0);
    member.raft.step(Message { from: TWO, to: ME, term: Term(1), body });
    let ready = member.raft.ready().unwrap();
    assert!(ready.at_once.is_empty());
    let persist = ready.persist.unwrap();
    assert!(persist.must_sync);
    let failed = persist.persist(|_, _, _| Err("the disk is full"));
    assert_eq!(failed.unwrap_err(), "the disk is full", "and the messages are gone");
    assert!(member.raft.ready().is_none());
}

#[test]
fn s5_4_1_a_vote_needs_a_log_as_good_as_the_voters() {
    for (last, granted) in [
        (position(2, 2), true),
        (position(2, 3), true),
        (position(3, 1), true),
        (position(2, 1), false),
        (position(1, 9), false),
    ] {
        let mut member = alone(3, &[1, 2]);
        member.hear(TWO, 3, vote(last));
        assert_eq!(member.answer(), Body::VoteReply { granted }, "{last}");
    }
}

/// Figure 8: a majority stores an entry of an earlier term, and it may still be replaced.
#[test]
fn s5_4_2_only_entries_of_the_own_term_are_committed_by_counting() {
    let mut leader = alone(5, &[1, 2]).lead();
    for id in [TWO, THREE] {
        leader.hear(id, 3, accepted(2));
    }
    assert_eq!(leader.commit(), 0);
    for id in [TWO, THREE] {
        leader.hear(id, 3, accepted(3));
    }
    assert_eq!(leader.commit(), 3);
}

#[test]
fn s5_4_2_a_leader_begins_with_an_empty_entry() {
    let mut leader = alone(3, &[1]);
    leader.raft.campaign();
    leader.work();
    leader.said.clear();
    leader.hear(TWO, 2, Body::VoteReply { granted: true });
    assert_eq!(leader.last(), position(2, 2));
    assert!(leader.say().iter().all(|message| message.body == append(position(1, 1), &[2], 0)));
}

#[test]
fn s7_a_snapshot_takes_the_place_of_the_log() {
    let mut member = alone(3, &[1, 1]);
    let meta = SnapshotMeta { position: position(2, 9), conf_state: conf_state(4) };
    member.hear(TWO, 2, Body::Snapshot(meta.clone()));
    assert_eq!(member.answer(), accepted(9));
    let status = member.raft.status();
    assert_eq!((status.last, status.commit, status.applied), (position(2, 9), Index(9), Index(9)));
    assert_eq!(*member.raft.conf_state(), meta.conf_state);
    member.hear(TWO, 2, append(position(2, 9), &[2], 10));
    assert_eq!(member.applied, [position(2, 10)]);
}

#[test]
fn s7_a_snapshot_that_the_log_covers_only_commits() {
    let mut member = alone(3, &[1, 1, 1]);
    let meta = SnapshotMeta { position: position(1, 2), conf_state: conf_state(3) };
    member.hear(TWO, 1, Body::Snapshot(meta.clone()));
    assert_eq!(member.answer(), accepted(2));
    assert_eq!((member.last(), member.commit()), (position(1, 3), 2));
    // Once more is old news.
    member.hear(TWO, 1, Body::Snapshot(meta));
    assert_eq!(member.answer(), accepted(2));
}

#[test]
fn s8_a_read_waits_until_a_majority_has_answered() {
    let mut leader = alone(5, &[]).lead();
    for id in [TWO, THREE] {
        leader.hear(id, 1, accepted(1));
    }
    leader.said.clear();
    leader.raft.read(7);
    let ready = leader.raft.ready().unwrap();
    assert!(ready.reads.is_empty());
    let Body::Heartbeat { context, .. } = ready.at_once[0].body.clone() else { panic!() };
    let answer = |from| Message {
        from,
        to: ME,
        term: Term(1),
        body: Body::HeartbeatReply { context: context.clone() },
    };
    leader.raft.step(answer(TWO));
    assert!(leader.raft.ready().is_none_or(|ready| ready.reads.is_empty()));
    leader.raft.step(answer(TWO));
    assert!(leader.raft.ready().is_none_or(|ready| ready.reads.is_empty()), "twice is not two");
    leader.raft.step(answer(THREE));
    let reads = leader.raft.ready().unwrap().reads;
    assert_eq!((reads[0].context, reads[0].index), (7, Index(1)));
}
