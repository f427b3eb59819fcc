//! The reference model of the members: what each kind of change makes, and when it is refused.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use proto::raftpb::{ConfChange, ConfChangeType};
use retcd_history::Membership;

const ADD: ConfChangeType = ConfChangeType::ConfChangeAddNode;
const ADD_LEARNER: ConfChangeType = ConfChangeType::ConfChangeAddLearnerNode;
const REMOVE: ConfChangeType = ConfChangeType::ConfChangeRemoveNode;
const UPDATE: ConfChangeType = ConfChangeType::ConfChangeUpdateNode;

/// A change of member `id`, whose context is `json`; none if that is empty.
fn change(kind: ConfChangeType, id: u64, json: &str) -> ConfChange {
    ConfChange {
        id: None,
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: (!json.is_empty()).then(|| json.to_owned().into()),
    }
}

fn voter(id: u64) -> ConfChange {
    change(ADD, id, &format!(r#"{{"id":{id},"peerURLs":["http://{id}"],"name":"m{id}"}}"#))
}

fn learner(id: u64) -> ConfChange {
    let json = format!(r#"{{"id":{id},"peerURLs":["http://{id}"],"isLearner":true}}"#);
    change(ADD_LEARNER, id, &json)
}

fn promotion(id: u64) -> ConfChange {
    change(ADD, id, &format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#))
}

fn update(id: u64, url: &str) -> ConfChange {
    change(UPDATE, id, &format!(r#"{{"id":{id},"peerURLs":["{url}"],"name":"a guess"}}"#))
}

fn make(members: &mut Membership, change: &ConfChange) -> Result<(), &'static str> {
    members.change(change, 1)
}

/// 1 and 2 vote, 3 listens, 4 was removed.
fn cluster() -> Membership {
    let mut members = Membership::default();
    for change in [voter(1), voter(2), voter(4), learner(3), change(REMOVE, 4, "")] {
        make(&mut members, &change).unwrap();
    }
    members
}

fn ids(set: &BTreeSet<u64>) -> Vec<u64> {
    set.iter().copied().collect()
}

#[test]
fn changes_make_what_they_say() {
    // Of each change: the members' ids, who votes, who listens, who was removed.
    let table = [
        (voter(5), vec![1, 2, 3, 5], vec![1, 2, 5], vec![3], vec![4]),
        (promotion(3), vec![1, 2, 3], vec![1, 2, 3], vec![], vec![4]),
        (change(REMOVE, 3, ""), vec![1, 2], vec![1, 2], vec![], vec![3, 4]),
        (change(REMOVE, 1, ""), vec![2, 3], vec![2], vec![3], vec![1, 4]),
        (update(3, "http://new"), vec![1, 2, 3], vec![1, 2], vec![3], vec![4]),
    ];
    for (change, listed, voters, learners, removed) in table {
        let mut members = cluster();
        make(&mut members, &change).unwrap();
        let found: Vec<u64> = members.members().iter().map(|member| member.id).collect();
        assert_eq!(found, listed, "{change:?}");
        assert_eq!(ids(members.voters()), voters, "{change:?}");
        assert_eq!(ids(members.learners()), learners, "{change:?}");
        assert_eq!(ids(members.removed()), removed, "{change:?}");
    }
}

#[test]
fn refused_changes_say_why_and_change_nothing() {
    let not_found = "member not found";
    let table = [
        (voter(1), "member ID already exist"),
        (voter(4), not_found),
        (promotion(4), not_found),
        (promotion(5), not_found),
        (promotion(2), "can only promote a learner member"),
        (learner(5), "too many learner members in cluster"),
        (change(ADD, 5, r#"{"id":5,"peerURLs":["http://2"]}"#), "peer URLs already exists"),
        (change(REMOVE, 5, ""), not_found),
        (change(REMOVE, 4, ""), not_found),
        (update(5, "http://5"), not_found),
        (update(2, "http://1"), "peer URLs already exists"),
        (change(ADD, 5, r#"{"id":6}"#), "a change that nobody can read"),
        (change(ADD, 5, "no JSON"), "a change that nobody can read"),
    ];
    for (change, refusal) in table {
        let mut members = cluster();
        assert_eq!(make(&mut members, &change), Err(refusal), "{change:?}");
        assert_eq!(members, cluster(), "{change:?}");
    }
}

#[test]
fn the_last_voter_stays() {
    let mut members = cluster();
    make(&mut members, &change(REMOVE, 1, "")).unwrap();
    let refusal = "re-configuration failed due to not enough started members";
    assert_eq!(make(&mut members, &change(REMOVE, 2, "")), Err(refusal));
}

#[test]
fn an_update_changes_addresses_only() {
    let mut members = cluster();
    make(&mut members, &update(2, "http://new")).unwrap();
    let member = members.members()[1].clone();
    assert_eq!((member.name.as_str(), member.is_learner), ("m2", false));
    assert_eq!(member.peer_ur_ls, ["http://new"]);
}
