//! Lies of a member, and the words in which the judge finds them.

use bytes::Bytes;
use raft::Entry;
use state::{Refusal, Reply};

use super::*;

const FIRST: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(2);

fn entry(index: u64, term: u64, request: &pb::InternalRaftRequest) -> Entry {
    let data = request.encode_to_vec().into();
    Entry { kind: EntryKind::Normal, term: Term(term), index: Index(index), data }
}

fn request(id: u64) -> pb::InternalRaftRequest {
    let header = Some(pb::RequestHeader { id, ..Default::default() });
    pb::InternalRaftRequest { header, ..Default::default() }
}

fn put(index: u64, id: u64, value: &'static str) -> Entry {
    let (key, value) = (Bytes::from_static(b"a"), Bytes::from_static(value.as_bytes()));
    let put = pb::PutRequest { key, value, ..Default::default() };
    entry(index, 1, &pb::InternalRaftRequest { put: Some(put), ..request(id) })
}

fn grant(index: u64, id: u64, lease: i64) -> Entry {
    let grant = pb::LeaseGrantRequest { ttl: 10, id: lease };
    entry(index, 1, &pb::InternalRaftRequest { lease_grant: Some(grant), ..request(id) })
}

fn revoke(index: u64, id: u64, lease: i64) -> Entry {
    let revoke = pb::LeaseRevokeRequest { id: lease };
    entry(index, 1, &pb::InternalRaftRequest { lease_revoke: Some(revoke), ..request(id) })
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn put_done(revision: i64) -> Applied {
    Applied::Done(Reply::Put(pb::PutResponse { header: header(revision), prev_kv: None }))
}

fn apply(judge: &mut Judge, id: MemberId, entry: &Entry, said: Option<(u64, Applied)>) -> Verdict {
    judge.on_applied(id, entry, &mut said.into_iter())
}

/// The first member applied a put of request 7 at entry 1, which made revision 2.
fn one_put() -> Judge {
    let mut judge = Judge::new();
    apply(&mut judge, FIRST, &put(1, 7, "x"), Some((7, put_done(2)))).unwrap();
    judge
}

/// A lie is found in these words; `None` is the truth.
fn assert_found(verdict: &Verdict, words: Option<&str>) {
    match (verdict, words) {
        (Ok(()), None) => {}
        (Err(what), Some(words)) => assert!(what.contains(words), "{what:?} is not {words:?}"),
        (Ok(()) | Err(_), _) => panic!("{verdict:?} instead of {words:?}"),
    }
}

#[test]
fn a_term_has_one_leader() {
    let mut judge = Judge::new();
    for (id, role, term, words) in [
        (FIRST, RoleKind::Leader, 3, None),
        (FIRST, RoleKind::Leader, 3, None),
        (OTHER, RoleKind::Follower, 3, None),
        (OTHER, RoleKind::Leader, 4, None),
        (OTHER, RoleKind::Leader, 3, Some("1 and 2 lead term 3")),
    ] {
        assert_found(&judge.on_role(id, role, Term(term)), words);
    }
}

#[test]
fn what_is_applied_is_the_same_everywhere() {
    let table = [
        (put(1, 7, "x"), Some((7, put_done(2))), None),
        (put(1, 7, "y"), Some((7, put_done(2))), Some("2 applied")),
        (put(1, 7, "x"), Some((7, put_done(3))), Some("others")),
        (put(1, 7, "x"), Some((7, Applied::Refused(Refusal::NoSpace))), Some("others")),
        (put(1, 7, "x"), Some((8, put_done(2))), Some("2 answered 8 at 1, not 7")),
        (put(1, 7, "x"), None, Some("2 did not answer 1")),
        (put(3, 8, "x"), Some((8, put_done(3))), Some("nobody the entry before")),
        (put(2, 7, "x"), Some((7, put_done(3))), Some("request 7 is applied again at 2")),
        (put(2, 8, "x"), Some((8, put_done(3))), None),
        (put(2, 8, "x"), Some((8, put_done(9))), Some("revision 3 was answered as 9")),
    ];
    for (entry, said, words) in table {
        assert_found(&apply(&mut one_put(), OTHER, &entry, said), words);
    }
}

#[test]
fn logs_match_up_to_an_entry_that_they_share() {
    let normal = |index, term, text: &'static str| Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: Index(index),
        data: Bytes::from_static(text.as_bytes()),
    };
    let change = Entry { kind: EntryKind::ConfChange, ..normal(5, 3, "x") };
    let table = [
        (normal(5, 3, "x"), Some(2), None),
        (normal(5, 3, "x"), None, None),
        (normal(5, 4, "y"), Some(3), None),
        (normal(5, 3, "y"), Some(2), Some("is logged where")),
        (change, Some(2), Some("is logged where")),
        (normal(5, 3, "x"), Some(1), Some("an entry of 1 is before")),
    ];
    for (entry, before, words) in table {
        let mut judge = Judge::new();
        // What is before it, not everybody knows.
        for before in [None, Some(Term(2))] {
            judge.on_logged(&normal(5, 3, "x"), before, 0).unwrap();
        }
        assert_found(&judge.on_logged(&entry, before.map(Term), 0), words);
    }
}

#[test]
fn what_is_applied_is_committed() {
    assert_found(&Judge::on_progress(FIRST, Index(4), Index(4)), None);
    let words = "1 applied 5, and knows of 4 to be committed";
    assert_found(&Judge::on_progress(FIRST, Index(5), Index(4)), Some(words));
}

#[test]
fn one_change_of_the_members_is_under_way() {
    use EntryKind::{ConfChange, Normal};
    let (normal, mut change) = (put(9, 7, "x"), put(9, 7, "x"));
    change.kind = ConfChange;
    let proposed = |entry: &Entry, before: [EntryKind; 2]| {
        Judge::on_proposed(FIRST, entry, before.into_iter())
    };
    assert_found(&proposed(&normal, [Normal, ConfChange]), None);
    assert_found(&proposed(&change, [Normal, Normal]), None);
    let words = "1 proposes a second change of the members at 9";
    assert_found(&proposed(&change, [Normal, ConfChange]), Some(words));
}

#[test]
fn a_lease_is_not_gone_before_its_promise() {
    let mut judge = Judge::new();
    judge.promise(7, 1000, 10, 0);
    // An earlier promise takes nothing back.
    judge.promise(7, 0, 2, 0);
    assert_found(&judge.on_gone(7, 10_999), Some("lease 7 is gone, promised until 11000 ms"));
    assert_found(&judge.on_gone(7, 11_000), None);
    assert_found(&judge.on_gone(8, 0), None);
    judge.given_up.insert(7, ());
    assert_found(&judge.on_gone(7, 0), None);
}

#[test]
fn a_lease_is_not_revoked_before_its_promise() {
    for (logged, words) in [(9999, Some("was promised until 10000 ms")), (10_000, None)] {
        let mut judge = Judge::new();
        let granted =
            pb::LeaseGrantResponse { header: header(1), id: 7, ttl: 10, ..Default::default() };
        let granted = Applied::Done(Reply::LeaseGrant(granted));
        apply(&mut judge, FIRST, &grant(1, 5, 7), Some((5, granted))).unwrap();
        judge.promise(7, 0, 10, 0);
        let entry = revoke(2, 6, 7);
        judge.on_logged(&entry, None, logged).unwrap();
        // That others log it later does not matter.
        judge.on_logged(&entry, None, 20_000).unwrap();
        let revoked = pb::LeaseRevokeResponse { header: header(1) };
        let revoked = Applied::Done(Reply::LeaseRevoke(base::LeaseId(7), revoked));
        assert_found(&apply(&mut judge, FIRST, &entry, Some((6, revoked))), words);
    }
}

#[test]
fn a_read_is_not_of_the_past() {
    let read = |serializable| {
        let key = Bytes::from_static(b"b");
        Call::Range(pb::RangeRequest { key, serializable, ..Default::default() })
    };
    let table = [
        (read(false), 2, 2, None),
        (read(true), 1, 2, None),
        (read(false), 1, 2, Some("was answered at 1 after 2 was told")),
        (read(false), 3, 2, Some("a read at 3, the store is at 2")),
    ];
    for (call, revision, floor, words) in table {
        let mut judge = one_put();
        let answer = pb::RangeResponse { header: header(revision), ..Default::default() };
        assert_found(&judge.on_read(&call, &Answer::Range(answer), floor), words);
    }
}

#[test]
fn a_read_finds_what_is_there() {
    let key = Bytes::from_static(b"a");
    let call = Call::Range(pb::RangeRequest { key, ..Default::default() });
    let nothing = pb::RangeResponse { header: header(2), ..Default::default() };
    let words = Some("at 2 is");
    assert_found(&one_put().on_read(&call, &Answer::Range(nothing), 0), words);
}

#[test]
fn a_change_is_behind_what_was_told() {
    let mut judge = Judge::new();
    assert_found(&judge.on_changed(3, 2), None);
    assert_eq!(judge.told, 3);
    assert_found(&judge.on_changed(3, 3), Some("a change at 3 after 3 was told"));
}
