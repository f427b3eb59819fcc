//! Ids and JSON as etcd makes them, and changes of members.

use super::*;

fn urls(urls: &[&str]) -> Vec<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

fn member(id: u64, url: &str) -> MemberObject {
    MemberObject { id: MemberId(id), peer_urls: urls(&[url]), ..MemberObject::default() }
}

fn learner(id: u64, url: &str) -> MemberObject {
    MemberObject { is_learner: true, ..member(id, url) }
}

/// CB-01, CB-02, CB-04.
#[test]
fn ids_are_those_etcd_derives() {
    let one = |url: &str, token: &str| member_id(&urls(&[url]), token, None);
    let default = one("http://localhost:2380", "etcd-cluster");
    assert_eq!(default, MemberId(0x8e9e_05c5_2164_694d));
    assert_eq!(cluster_id(&[default]), ClusterId(0xcdf8_1819_4e3a_8c32));

    let sdn = one("http://192.168.75.129:2380", "etcd-cluster-sdn");
    assert_eq!(sdn, MemberId(0x1d64_cbbe_0759_c8f8));
    assert_eq!(cluster_id(&[sdn]), ClusterId(0xdae8_dcc3_5c23_e5df));

    let three = |hosts: [&str; 3], token: &str| {
        hosts.map(|host| one(&format!("http://{host}:2380"), token))
    };
    let didi = three(["10.255.1.211", "10.255.1.40", "10.255.1.181"], "etcd-cluster-on-didicloud");
    assert_eq!(
        didi.map(|id| id.to_string()),
        ["e95ffbf99d4aae9c", "dc6b4b48ae00bf8", "d6020117e8a2dc38"]
    );
    assert_eq!(cluster_id(&didi), ClusterId(0xce96_4c3a_01e6_3d53));
    let lan = three(["172.20.10.11", "172.20.10.12", "172.20.10.13"], "etcd-cluster");
    assert_eq!(
        lan.map(|id| id.to_string()),
        ["ab281e9b688c7a95", "e0a8f342d3772435", "8fc2ab3b128006d2"]
    );
    assert_eq!(cluster_id(&lan), ClusterId(0xf7f5_17c0_9893_2dae));
}

/// CB-01.
#[test]
fn order_of_urls_does_not_matter_and_time_does() {
    let forth = member_id(&urls(&["http://a:1", "http://b:1"]), "", Some(1));
    assert_eq!(member_id(&urls(&["http://b:1", "http://a:1"]), "", Some(1)), forth);
    assert_ne!(member_id(&urls(&["http://a:1", "http://b:1"]), "", Some(2)), forth);
}

/// Interop 3.2 and the captured examples of 6.2.
#[test]
fn objects_are_written_as_go_writes_them() {
    let whole = MemberObject {
        id: MemberId(8_718_276_987_784_301_012),
        peer_urls: urls(&["http://127.0.0.1:21031"]),
        is_learner: true,
        name: "m<0>".to_owned(),
        client_urls: urls(&["http://127.0.0.1:1", "http://127.0.0.1:2"]),
    };
    let text = br#"{"id":8718276987784301012,"peerURLs":["http://127.0.0.1:21031"],"isLearner":true,"name":"m\u003c0\u003e","clientURLs":["http://127.0.0.1:1","http://127.0.0.1:2"]}"#;
    assert_eq!(&whole.to_json()[..], text);
    assert_eq!(MemberObject::from_json(text), Some(whole));

    let added = ChangeContext::of(learner(8_718_276_987_784_301_012, "http://127.0.0.1:21031"));
    assert_eq!(
        &added.to_json()[..],
        br#"{"id":8718276987784301012,"peerURLs":["http://127.0.0.1:21031"],"isLearner":true}"#
    );
    let promoted = ChangeContext::promotion(MemberId(8_718_276_987_784_301_012));
    let text = br#"{"id":8718276987784301012,"peerURLs":null,"isPromote":true}"#;
    assert_eq!(&promoted.to_json()[..], text);
    assert_eq!(ChangeContext::from_json(text), Some(promoted));
    assert_eq!(ChangeContext::from_json(b"[]"), None);
}

/// E-16, E-17, E-20, E-21, E-23: interop 6.2, C-02, C-07, C-08.
#[test]
fn changes_are_refused_by_the_state_alone() {
    let mut members = Members::default();
    let mut batch = Batch::upkeep();
    let mut change = |change| members.change(change, 1, &mut batch);
    let add = |member| Change::Add { member, learner: false };
    let add_learner = |member| Change::Add { member, learner: true };

    assert_eq!(change(add(member(1, "http://a"))), Ok(MemberChange::AddVoter(MemberId(1))));
    assert_eq!(change(add(member(1, "http://b"))), Err(Refusal::MemberExists));
    assert_eq!(change(add(member(2, "http://a"))), Err(Refusal::PeerUrlExists));
    assert_eq!(
        change(add_learner(learner(2, "http://b"))),
        Ok(MemberChange::AddLearner(MemberId(2)))
    );
    assert_eq!(change(add_learner(learner(3, "http://c"))), Err(Refusal::TooManyLearners));
    assert_eq!(change(Change::Promote(MemberId(1))), Err(Refusal::NotLearner));
    assert_eq!(change(Change::Promote(MemberId(9))), Err(Refusal::MemberNotFound));
    assert_eq!(change(Change::Promote(MemberId(2))), Ok(MemberChange::AddVoter(MemberId(2))));
    assert_eq!(change(Change::Update(member(2, "http://a"))), Err(Refusal::PeerUrlExists));
    assert_eq!(change(Change::Update(member(2, "http://d"))), Ok(MemberChange::None));
    assert_eq!(change(Change::Update(member(9, "http://e"))), Err(Refusal::MemberNotFound));
    assert_eq!(change(Change::Remove(MemberId(9))), Err(Refusal::MemberNotFound));
    assert_eq!(change(Change::Remove(MemberId(2))), Ok(MemberChange::Remove(MemberId(2))));
    // A removed id never comes back, not even with its old address.
    assert_eq!(change(add(member(2, "http://d"))), Err(Refusal::MemberNotFound));
    assert_eq!(change(Change::Remove(MemberId(2))), Err(Refusal::MemberNotFound));
    // Consensus would not put that in force, and the two would disagree.
    assert_eq!(change(Change::Remove(MemberId(1))), Err(Refusal::LastVoter));
}

/// C-04: an update moves the addresses and nothing else.
#[test]
fn an_update_keeps_name_and_learner_flag() {
    let mut members = Members::default();
    let mut batch = Batch::upkeep();
    let change = Change::Add { member: learner(7, "http://a"), learner: true };
    members.change(change, 1, &mut batch).unwrap();
    let attributes = membershippb::Attributes {
        name: "seven".to_owned(),
        client_urls: urls(&["http://client"]),
    };
    members.set_attributes(MemberId(7), attributes, &mut batch);
    members.change(Change::Update(member(7, "http://b")), 1, &mut batch).unwrap();
    let stored = batch.get(Bucket::Members, b"7").unwrap().unwrap();
    assert_eq!(
        &stored[..],
        br#"{"id":7,"peerURLs":["http://b"],"isLearner":true,"name":"seven","clientURLs":["http://client"]}"#
    );
}

/// CB-61: `confState` says who votes.
#[test]
fn conf_state_follows_every_change() {
    let mut members = Members::default();
    let mut batch = Batch::upkeep();
    let mut conf_state = |change| {
        members.change(change, 1, &mut batch).unwrap();
        batch.get(Bucket::Meta, schema::CONF_STATE).unwrap().unwrap()
    };
    let added = conf_state(Change::Add { member: member(2, "http://a"), learner: false });
    assert_eq!(&added[..], br#"{"voters":[2],"auto_leave":false}"#);
    let joined = conf_state(Change::Add { member: learner(1, "http://b"), learner: true });
    assert_eq!(&joined[..], br#"{"voters":[2],"learners":[1],"auto_leave":false}"#);
    let promoted = conf_state(Change::Promote(MemberId(1)));
    assert_eq!(&promoted[..], br#"{"voters":[1,2],"auto_leave":false}"#);
    let removed = conf_state(Change::Remove(MemberId(2)));
    assert_eq!(&removed[..], br#"{"voters":[1],"auto_leave":false}"#);
}

#[test]
fn changes_are_read_as_go_writes_them() {
    let conf_change = |kind: ConfChangeType, context: &'static [u8]| ConfChange {
        id: Some(5),
        r#type: Some(kind as i32),
        node_id: Some(7),
        context: Some(Bytes::from_static(context)),
    };
    use ConfChangeType::{ConfChangeAddLearnerNode, ConfChangeAddNode, ConfChangeRemoveNode};
    let decode = |kind, context| Change::decode(&conf_change(kind, context));
    assert!(matches!(
        decode(ConfChangeAddNode, br#"{"id":7,"peerURLs":["http://a"],"name":"m0"}"#),
        Some(Change::Add { member, learner: false }) if member.name == "m0"
    ));
    assert!(matches!(
        decode(ConfChangeAddNode, br#"{"id":7,"peerURLs":null,"isPromote":true}"#),
        Some(Change::Promote(MemberId(7)))
    ));
    assert!(matches!(
        decode(ConfChangeAddLearnerNode, br#"{"id":7,"peerURLs":["http://a"],"isLearner":true}"#),
        Some(Change::Add { member, learner: true }) if member.is_learner
    ));
    assert!(matches!(decode(ConfChangeRemoveNode, b""), Some(Change::Remove(MemberId(7)))));
    // Another member's object, and no object.
    assert!(decode(ConfChangeAddNode, br#"{"id":8,"peerURLs":["http://a"]}"#).is_none());
    assert!(decode(ConfChangeAddNode, b"{").is_none());
}
