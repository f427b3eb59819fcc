//! Lies of a member about who belongs to the cluster.

use proto::raftpb::ConfChangeType;
use state::Refusal;
use state::members::ChangeContext;

use super::*;

const ADD: ConfChangeType = ConfChangeType::ConfChangeAddNode;
const ADD_LEARNER: ConfChangeType = ConfChangeType::ConfChangeAddLearnerNode;
const REMOVE: ConfChangeType = ConfChangeType::ConfChangeRemoveNode;

fn object(id: u64, is_learner: bool) -> MemberObject {
    let peer_urls = vec![format!("http://{id}")];
    MemberObject { id: MemberId(id), peer_urls, is_learner, ..MemberObject::default() }
}

fn change(kind: ConfChangeType, id: u64, context: Option<&ChangeContext>) -> ConfChange {
    let context = context.map(ChangeContext::to_json);
    ConfChange { id: Some(9), r#type: Some(kind as i32), node_id: Some(id), context }
}

fn add(id: u64, is_learner: bool) -> ConfChange {
    let kind = if is_learner { ADD_LEARNER } else { ADD };
    change(kind, id, Some(&ChangeContext::of(object(id, is_learner))))
}

fn promote(id: u64) -> ConfChange {
    change(ADD, id, Some(&ChangeContext::promotion(MemberId(id))))
}

fn listed(members: &[MemberObject]) -> Applied {
    Applied::Done(Reply::Members(members.iter().map(message).collect()))
}

/// 1 founded it; 2 votes since entry 5, 3 listens since entry 6, and 4 was there from 7 to 8.
fn cluster() -> Members {
    let mut members = Members::new();
    let founder = ConfChange { id: Some(0), ..add(1, false) };
    assert!(members.on_change(Index(1), &founder, None).unwrap());
    let [one, two, three] = [object(1, false), object(2, false), object(3, true)];
    let mut all = vec![one, two];
    members.on_change(Index(5), &add(2, false), Some(&listed(&all))).unwrap();
    all.push(three);
    members.on_change(Index(6), &add(3, true), Some(&listed(&all))).unwrap();
    all.push(object(4, false));
    members.on_change(Index(7), &add(4, false), Some(&listed(&all))).unwrap();
    all.pop();
    members.on_change(Index(8), &change(REMOVE, 4, None), Some(&listed(&all))).unwrap();
    members
}

fn now() -> Vec<MemberObject> {
    vec![object(1, false), object(2, false), object(3, true)]
}

#[test]
fn the_answer_to_a_change_is_the_models() {
    let refused = Applied::Refused;
    let promoted = [object(1, false), object(2, false), object(3, false)];
    // Whether the change is made; `None` for a lie.
    let table = [
        (promote(3), Some(listed(&promoted)), Some(true)),
        (promote(3), Some(listed(&now())), None),
        (promote(3), Some(refused(Refusal::NotLearner)), None),
        (promote(3), Some(Applied::Done(Reply::None)), None),
        (promote(2), Some(refused(Refusal::NotLearner)), Some(false)),
        (promote(2), Some(refused(Refusal::MemberNotFound)), None),
        (promote(2), Some(listed(&now())), None),
        (add(2, false), Some(refused(Refusal::MemberExists)), Some(false)),
        (add(2, false), None, None),
        (add(4, false), Some(refused(Refusal::MemberNotFound)), Some(false)),
        (add(5, true), Some(refused(Refusal::TooManyLearners)), Some(false)),
        (change(REMOVE, 5, None), Some(refused(Refusal::MemberNotFound)), Some(false)),
    ];
    for (change, answer, made) in table {
        let mut members = cluster();
        let judged = members.on_change(Index(9), &change, answer.as_ref());
        assert_eq!(judged.as_ref().ok().copied(), made, "{change:?}, {answer:?}: {judged:?}");
        let is_kept = members.after.contains_key(&Index(9));
        assert_eq!(is_kept, made == Some(true), "{change:?}");
    }
}

#[test]
fn the_last_voter_and_a_taken_address_are_refused_in_the_products_words() {
    let mut members = Members::new();
    members.on_change(Index(1), &add(1, false), None).unwrap();
    let last = Applied::Refused(Refusal::LastVoter);
    assert_eq!(members.on_change(Index(2), &change(REMOVE, 1, None), Some(&last)), Ok(false));
    let other = MemberObject { id: MemberId(2), ..object(1, false) };
    let other = change(ADD, 2, Some(&ChangeContext::of(other)));
    let taken = Applied::Refused(Refusal::PeerUrlExists);
    assert_eq!(members.on_change(Index(2), &other, Some(&taken)), Ok(false));
}

#[test]
fn a_member_holds_what_it_has_applied() {
    let members = cluster();
    let (gone, nobody) = ([MemberId(4)], []);
    assert_eq!(members.check_held(Index(0), &[], &nobody), Ok(()));
    assert_eq!(members.check_held(Index(4), &[object(1, false)], &nobody), Ok(()));
    assert_eq!(members.check_held(Index(6), &now(), &nobody), Ok(()));
    assert_eq!(members.check_held(Index(20), &now(), &gone), Ok(()));

    let promoted = MemberObject { is_learner: false, ..object(3, true) };
    let moved = MemberObject { peer_urls: vec!["http://x".to_owned()], ..object(3, true) };
    let named = MemberObject { name: "x".to_owned(), ..object(3, true) };
    for lie in [promoted, moved, named, object(5, true)] {
        let held = [object(1, false), object(2, false), lie];
        assert!(members.check_held(Index(8), &held, &gone).is_err(), "{held:?}");
    }
    assert!(members.check_held(Index(8), &now()[..2], &gone).is_err(), "one is missing");
    assert!(members.check_held(Index(5), &now(), &nobody).is_err(), "too early");
    assert!(members.check_held(Index(8), &now(), &nobody).is_err(), "one may come back");
    assert!(members.check_held(Index(7), &now(), &gone).is_err(), "one is gone too early");
}

fn conf_state(voters: &[u64], learners: &[u64]) -> ConfState {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

#[test]
fn votes_are_counted_of_who_votes() {
    let members = cluster();
    let table = [
        (0, conf_state(&[], &[]), true),
        (4, conf_state(&[1], &[]), true),
        (7, conf_state(&[1, 2, 4], &[3]), true),
        (8, conf_state(&[1, 2], &[3]), true),
        (8, conf_state(&[1, 2, 4], &[3]), false),
        (8, conf_state(&[1], &[3]), false),
        (8, conf_state(&[1, 2], &[]), false),
        (8, conf_state(&[1, 2, 3], &[]), false),
        (
            8,
            ConfState { voters_outgoing: [MemberId(1)].into(), ..conf_state(&[1, 2], &[3]) },
            false,
        ),
    ];
    for (index, counted, is_right) in table {
        let judged = members.check_votes(Index(index), &counted);
        assert_eq!(judged.is_ok(), is_right, "{counted:?} at {index}: {judged:?}");
    }
}

#[test]
fn a_majority_is_one_of_the_voters_in_force() {
    let members = cluster();
    // Applied before and after, who has it, whether that is a majority.
    let table: [(u64, u64, &[u64], bool); 8] = [
        (8, 8, &[1, 2], true),
        (8, 8, &[1], false),
        (8, 8, &[1, 3], false),
        (4, 4, &[1], true),
        // 2 has a vote from entry 5 on: the commit may have been counted before that was applied.
        (4, 5, &[1], true),
        (5, 7, &[2, 4], true),
        (7, 8, &[1, 4], true),
        (7, 8, &[2, 3], false),
    ];
    for (first, last, having, is_one) in table {
        let has = |id: MemberId| having.contains(&id.0);
        let found = members.has_majority(Index(first), Index(last), has);
        assert_eq!(found, is_one, "{having:?} from {first} to {last}");
    }
    assert!(!members.has_majority(Index(0), Index(0), |_| true), "nobody is no majority");
}
