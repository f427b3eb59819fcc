//! Users, roles and permissions as entries change them, as a restart finds them, and who may then
//! do what.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use backend::Bucket;
use base::LeaseId;
use pb::alarm_request::AlarmAction;
use prost::Message as _;
use proto::authpb::permission::Type;
use proto::authpb::{self, Permission, UserAddOptions};
use proto::etcdserverpb as pb;
use state::auth::WatchOwners;
use state::auth::gate::Authorized;
use state::{Applied, AuthReply, Identity, Payload, Refusal, Reply};
use support::auth::{Auth, change, disable, enable, grant_role, permission, user};
use support::{
    Machine, alarm, by, cluster_version, grant, internal, internal_put, put, range, revoke,
};

fn done(machine: &mut Machine, request: pb::InternalRaftRequest) -> AuthReply {
    let done = machine.done(internal(request));
    let Reply::Auth { reply, .. } = done else { panic!("{done:?}") };
    reply
}

fn refused(machine: &mut Machine, request: pb::InternalRaftRequest) -> Refusal {
    machine.refused(internal(request))
}

fn status(machine: &Machine) -> (bool, u64) {
    let auth = machine.reads().auth();
    (auth.is_enabled(), auth.revision())
}

/// A-03, A-13, E-40: a fresh store is at auth revision 1.
#[test]
fn auth_is_off_and_says_so() {
    let mut machine = Machine::new();
    let request = change!(auth_status: pb::AuthStatusRequest {});
    assert_eq!(done(&mut machine, request), AuthReply::Status { enabled: false, revision: 1 });
    let row = machine.backend.get(Bucket::Auth, b"authRevision").unwrap();
    assert_eq!(row.as_deref(), Some(&1_u64.to_be_bytes()[..]));
    assert_eq!(machine.backend.get(Bucket::Auth, b"authEnabled").unwrap(), None);
    let login = change!(authenticate: pb::InternalAuthenticateRequest::default());
    assert_eq!(refused(&mut machine, login), Refusal::AuthNotEnabled);
    done(&mut machine, disable());
    assert_eq!(status(&machine), (false, 1));
}

/// A-01, A-02, CB-79, E-27, E-28: enabling raises no revision, disabling does.
#[test]
fn enabling_needs_root_with_its_role() {
    let mut machine = Machine::new();
    assert_eq!(refused(&mut machine, enable()), Refusal::RootUserMissing);
    done(&mut machine, user("root"));
    assert_eq!(refused(&mut machine, enable()), Refusal::RootRoleMissing);
    done(&mut machine, grant_role("root", "root"));
    done(&mut machine, enable());
    assert_eq!(status(&machine), (true, 3));
    let root = Identity { user: "root".into(), revision: 3 };
    let again = machine.done(by(&root, enable()));
    assert!(matches!(again, Reply::Auth { reply: AuthReply::Done, .. }));
    machine.reopen();
    assert_eq!(status(&machine), (true, 3));
    assert_eq!(refused(&mut machine, disable()), Refusal::UserNameEmpty);
    machine.done(by(&root, disable()));
    assert_eq!(status(&machine), (false, 4));
    let row = machine.backend.get(Bucket::Auth, b"authEnabled").unwrap();
    assert_eq!(row.as_deref(), Some(&[0][..]));
}

/// Interop 3.2: rows as etcd writes them, options even when they say nothing.
#[test]
fn rows_are_etcds() {
    let mut machine = Machine::new();
    done(&mut machine, user("alice"));
    done(&mut machine, change!(auth_role_add: pb::AuthRoleAddRequest { name: "r".into() }));
    done(&mut machine, grant_role("alice", "r"));
    for key in ["k", "b"] {
        done(&mut machine, permission("r", Type::Write, key, ""));
    }
    let stored = machine.backend.get(Bucket::AuthUsers, b"alice").unwrap().unwrap();
    assert_eq!(&stored[..], b"\x0a\x05alice\x12\x04hash\x1a\x01r\x22\x00");
    let stored = machine.backend.get(Bucket::AuthRoles, b"r").unwrap().unwrap();
    let role = authpb::Role::decode(stored).unwrap();
    let keys: Vec<_> = role.key_permission.iter().map(|it| it.key.clone()).collect();
    assert_eq!(keys, ["b", "k"]);
    assert_eq!(status(&machine), (false, 6));
}

/// A-05, A-06, E-29 to E-31.
#[test]
fn users_are_added_once_and_deleted_once() {
    let mut machine = Machine::new();
    assert_eq!(refused(&mut machine, user("")), Refusal::UserNameEmpty);
    for name in ["bob", "alice"] {
        done(&mut machine, user(name));
    }
    assert_eq!(refused(&mut machine, user("bob")), Refusal::UserExists);
    let list = || change!(auth_user_list: pb::AuthUserListRequest {});
    let names = |names: &[&str]| AuthReply::Names(names.iter().map(|it| (*it).into()).collect());
    assert_eq!(done(&mut machine, list()), names(&["alice", "bob"]));
    let delete = || change!(auth_user_delete: pb::AuthUserDeleteRequest { name: "bob".into() });
    done(&mut machine, delete());
    assert_eq!(refused(&mut machine, delete()), Refusal::UserNotFound);
    let get = change!(auth_user_get: pb::AuthUserGetRequest { name: "bob".into() });
    assert_eq!(refused(&mut machine, get), Refusal::UserNotFound);
    let bad = change!(auth_user_add: pb::AuthUserAddRequest {
        name: "carol".into(), hashed_password: "?".into(), ..Default::default()
    });
    assert_eq!(refused(&mut machine, bad), Refusal::NoPasswordUser);
    assert_eq!(status(&machine), (false, 4));
    machine.reopen();
    assert_eq!(done(&mut machine, list()), names(&["alice"]));
}

/// A-08, A-09, A-10, E-32 to E-34, E-38: a role that goes is taken from its users.
#[test]
fn roles_are_granted_revoked_and_deleted() {
    let mut machine = Machine::new();
    let add = |name: &str| change!(auth_role_add: pb::AuthRoleAddRequest { name: name.into() });
    let roles_of = |machine: &mut Machine, name: &str| {
        let get = change!(auth_user_get: pb::AuthUserGetRequest { name: name.into() });
        let reply = done(machine, get);
        let AuthReply::Names(names) = reply else { panic!("{reply:?}") };
        names
    };
    let revoke = |role: &str| {
        change!(auth_user_revoke_role:
            pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: role.into() })
    };
    assert_eq!(refused(&mut machine, add("")), Refusal::RoleNameEmpty);
    assert_eq!(refused(&mut machine, grant_role("alice", "r")), Refusal::UserNotFound);
    done(&mut machine, user("alice"));
    assert_eq!(refused(&mut machine, grant_role("alice", "r")), Refusal::RoleNotFound);
    done(&mut machine, add("r"));
    assert_eq!(refused(&mut machine, add("r")), Refusal::RoleExists);
    for role in ["root", "r", "r"] {
        done(&mut machine, grant_role("alice", role));
    }
    assert_eq!(roles_of(&mut machine, "alice"), ["r", "root"]);
    assert_eq!(status(&machine), (false, 5));
    done(&mut machine, revoke("root"));
    assert_eq!(refused(&mut machine, revoke("root")), Refusal::RoleNotGranted);
    let delete = change!(auth_role_delete: pb::AuthRoleDeleteRequest { role: "r".into() });
    done(&mut machine, delete.clone());
    assert_eq!(refused(&mut machine, delete), Refusal::RoleNotFound);
    assert_eq!(roles_of(&mut machine, "alice"), [""; 0]);
    assert_eq!(status(&machine), (false, 7));
}

/// A-11, A-12, E-36, E-39, E-42.
#[test]
fn permissions_are_granted_overwritten_and_revoked_by_their_exact_range() {
    let mut machine = Machine::new();
    let none = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    let none = change!(auth_role_grant_permission: none);
    assert_eq!(refused(&mut machine, none), Refusal::PermissionNotGiven);
    assert_eq!(
        refused(&mut machine, permission("r", Type::Read, "", "\0")),
        Refusal::InvalidAuthManagement
    );
    assert_eq!(
        refused(&mut machine, permission("r", Type::Read, "b", "b")),
        Refusal::InvalidAuthManagement
    );
    assert_eq!(refused(&mut machine, permission("r", Type::Read, "b", "")), Refusal::RoleNotFound);
    done(&mut machine, change!(auth_role_add: pb::AuthRoleAddRequest { name: "r".into() }));
    done(&mut machine, permission("r", Type::Read, "b", "d"));
    done(&mut machine, permission("r", Type::Read, "a", "\0"));
    done(&mut machine, permission("r", Type::Readwrite, "b", "d"));
    let get = change!(auth_role_get: pb::AuthRoleGetRequest { role: "r".into() });
    let expected = [(Type::Read, "a", "\0"), (Type::Readwrite, "b", "d")];
    let expected = expected.map(|(kind, key, end)| Permission {
        perm_type: kind.into(),
        key: key.into(),
        range_end: end.into(),
    });
    assert_eq!(done(&mut machine, get), AuthReply::Permissions(expected.to_vec()));
    let revoke = |end: &str| {
        let (role, key, range_end) = ("r".into(), "b".into(), end.to_owned().into());
        change!(auth_role_revoke_permission:
            pb::AuthRoleRevokePermissionRequest { role, key, range_end })
    };
    assert_eq!(refused(&mut machine, revoke("")), Refusal::PermissionNotGranted);
    done(&mut machine, revoke("d"));
    assert_eq!(refused(&mut machine, revoke("d")), Refusal::PermissionNotGranted);
}

/// A-06, A-09, A-10: what would leave nobody who can manage is refused while auth is on.
#[test]
fn root_cannot_be_taken_away() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[]);
    let root = auth.root();
    for request in [
        change!(auth_user_delete: pb::AuthUserDeleteRequest { name: "root".into() }),
        change!(auth_role_delete: pb::AuthRoleDeleteRequest { role: "root".into() }),
        change!(auth_user_revoke_role:
            pb::AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() }),
    ] {
        assert_eq!(machine.refused(by(&root, request)), Refusal::InvalidAuthManagement);
    }
}

/// A-06, A-10: one may look at oneself and at one's own roles.
#[test]
fn users_see_themselves_and_their_roles() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", &[(Type::Read, "a", "")])]);
    let alice = auth.user("alice");
    let user = |name: &str| change!(auth_user_get: pb::AuthUserGetRequest { name: name.into() });
    let role = |name: &str| change!(auth_role_get: pb::AuthRoleGetRequest { role: name.into() });
    machine.done(by(&alice, user("alice")));
    machine.done(by(&alice, role("role-of-alice")));
    assert_eq!(machine.refused(by(&alice, user("root"))), Refusal::PermissionDenied);
    assert_eq!(machine.refused(by(&alice, role("root"))), Refusal::PermissionDenied);
    let list = change!(auth_user_list: pb::AuthUserListRequest {});
    assert_eq!(machine.refused(by(&alice, list.clone())), Refusal::PermissionDenied);
    assert_eq!(refused(&mut machine, list), Refusal::UserNameEmpty);
    assert_eq!(refused(&mut machine, user("alice")), Refusal::UserNameEmpty);
}

/// A-13, G-013: a request of an older auth revision is refused, but for root's.
#[test]
fn a_request_from_before_a_change_is_refused() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", &[(Type::Write, "a", "")])]);
    let (alice, root) = (auth.user("alice"), auth.root());
    let write = |who: &Identity| {
        let put = Some(put("a", "v"));
        by(who, pb::InternalRaftRequest { put, ..Default::default() })
    };
    machine.done(write(&alice));
    machine.done(by(&root, user("bob")));
    assert_eq!(machine.refused(write(&alice)), Refusal::AuthRevisionOld);
    assert_eq!(machine.refused(write(&Identity::nobody())), Refusal::UserNameEmpty);
    let stranger = Identity { user: "eve".into(), revision: 99 };
    assert_eq!(machine.refused(write(&stranger)), Refusal::PermissionDenied);
    let again = by(&root, change!(auth_user_list: pb::AuthUserListRequest {}));
    assert!(matches!(machine.applied(again), Applied::Done(_)));
    assert_eq!(machine.refused(write(&root)), Refusal::AuthRevisionOld);
}

/// L-14, G26: what hangs on a lease is protected by the permissions on it.
#[test]
fn a_lease_is_its_keys() {
    let permissions: &[_] = &[(Type::Readwrite, "a", "c")];
    let mut machine = Machine::new();
    machine.done(grant(1, 60));
    machine.done(grant(2, 60));
    for (key, lease) in [("a", 1), ("z", 2)] {
        machine.done(internal_put(pb::PutRequest { lease, ..put(key, "v") }));
    }
    let (mut machine, auth) = Auth::on(machine, &[("alice", permissions)]);
    let alice = auth.user("alice");
    let revoke_by = |who: &Identity, id: i64| {
        let lease_revoke = Some(pb::LeaseRevokeRequest { id });
        by(who, pb::InternalRaftRequest { lease_revoke, ..Default::default() })
    };
    let put_on = |lease: i64| {
        let put = Some(pb::PutRequest { lease, ..put("b", "v") });
        by(&alice, pb::InternalRaftRequest { put, ..Default::default() })
    };
    machine.done(put_on(1));
    assert_eq!(machine.refused(put_on(2)), Refusal::PermissionDenied);
    assert_eq!(machine.refused(revoke_by(&alice, 2)), Refusal::PermissionDenied);
    assert_eq!(machine.refused(revoke(2)), Refusal::UserNameEmpty);
    let keys_of = |id| pb::LeaseTimeToLiveRequest { id, keys: true };
    assert!(machine.reads().authorize(&alice, &keys_of(1)).is_ok());
    let denied = machine.reads().authorize(&alice, &keys_of(2)).unwrap_err();
    assert_eq!(denied, Refusal::PermissionDenied);
    let without_keys = pb::LeaseTimeToLiveRequest { id: 2, keys: false };
    assert!(machine.reads().authorize(&alice, &without_keys).is_ok());
    assert!(machine.reads().authorize(&alice, &pb::LeaseLeasesRequest {}).is_err());
    machine.done(revoke_by(&alice, 1));
    assert_eq!(machine.reads().lease(LeaseId(1), false), None);
    // The leader's own revoke of a lease that ended.
    let own = machine.state.own_identity();
    machine.done(revoke_by(&own, 2));
    assert!(machine.reads().authorize(&alice, &pb::LeaseLeasesRequest {}).is_ok());
}

/// CB-75, A-07: tokens come with entries and go with the password, the user or auth itself.
#[test]
fn simple_tokens_follow_the_log() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", &[])]);
    let root = auth.root();
    let login = |machine: &mut Machine, name: &str, word: &str| {
        let (name, simple_token) = (name.into(), word.into());
        let request = change!(authenticate:
            pb::InternalAuthenticateRequest { name, simple_token, ..Default::default() });
        let done = machine.done(internal(request));
        let Reply::Auth { reply: AuthReply::Authenticated { token }, .. } = done else {
            panic!("{done:?}")
        };
        token
    };
    let token = login(&mut machine, "alice", "word");
    // Interop 6.4: clients carry it to members of etcd, which must have made the same.
    let index = machine.state.applied().index.0;
    assert_eq!(token, format!("word.{}", index - 1));
    machine.done(cluster_version("3.4.0"));
    assert_eq!(login(&mut machine, "alice", "old"), format!("old.{}", index + 2));
    machine.done(cluster_version("3.5.0"));
    assert_eq!(login(&mut machine, "alice", "new"), format!("new.{}", index + 3));
    let user = |machine: &Machine, token: &str| machine.reads().tokens().user(token, 0, 1000);
    assert_eq!(user(&machine, &token).as_deref(), Some(&b"alice"[..]));
    assert_eq!(login(&mut machine, "alice", ""), "");
    let change_password = pb::AuthUserChangePasswordRequest {
        name: "alice".into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    };
    machine.done(by(&root, change!(auth_user_change_password: change_password)));
    assert_eq!(user(&machine, &token), None);
    let token = login(&mut machine, "alice", "word");
    let delete = change!(auth_user_delete: pb::AuthUserDeleteRequest { name: "alice".into() });
    machine.done(by(&root, delete));
    assert_eq!(user(&machine, &token), None);
    let token = login(&mut machine, "root", "word");
    machine.done(by(&root, disable()));
    assert_eq!(user(&machine, &token), None);
}

/// CB-78, A-04.
#[test]
fn a_user_without_a_password_gets_no_token() {
    let mut machine = Machine::new();
    let carol = pb::AuthUserAddRequest {
        name: "carol".into(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    done(&mut machine, change!(auth_user_add: carol));
    let (mut machine, _) = Auth::on(machine, &[]);
    let login = |name: &str| {
        let name = name.into();
        change!(authenticate: pb::InternalAuthenticateRequest { name, ..Default::default() })
    };
    assert_eq!(refused(&mut machine, login("carol")), Refusal::AuthFailed);
    assert_eq!(refused(&mut machine, login("eve")), Refusal::AuthFailed);
    let auth = machine.reads().auth();
    assert_eq!(auth.password_hash("carol"), Err(Refusal::NoPasswordUser));
    assert_eq!(auth.password_hash("eve"), Err(Refusal::AuthFailed));
    assert_eq!(auth.password_hash("root").unwrap().0, "hash");
}

/// #14571: users and roles are in the commit of the entry that changed them.
#[test]
fn a_crash_leaves_auth_and_the_applied_index_together() {
    for seed in 0..64 {
        let mut machine = Machine::new();
        for name in ["a", "b", "c", "d"] {
            done(&mut machine, user(name));
            if seed % 3 == 0 {
                machine.backend.commit().unwrap();
            }
        }
        let found = machine.after_power_cut(seed);
        let applied = found.state.applied().index.0;
        let (_, revision) = status(&found);
        assert_eq!(revision, applied + 1, "seed {seed}");
        let rows = found.contents();
        let users = rows.iter().filter(|(bucket, ..)| *bucket == Bucket::AuthUsers).count();
        assert_eq!(users as u64, applied, "seed {seed}");
    }
}

/// D24: an alarm takes no check away, while it is raised or behind it.
#[test]
fn alarms_do_not_open_the_gate() {
    let permissions: &[_] = &[(Type::Readwrite, "a", "b")];
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", permissions)]);
    let alice = auth.user("alice");
    let delete = |key: &str| {
        let delete_range = Some(support::delete(key, ""));
        by(&alice, pb::InternalRaftRequest { delete_range, ..Default::default() })
    };
    let (raise, disarm) = (AlarmAction::Activate, AlarmAction::Deactivate);
    for kind in [pb::AlarmType::Nospace, pb::AlarmType::Corrupt] {
        machine.done(alarm(raise, 1, kind));
        if kind == pb::AlarmType::Nospace {
            machine.done(delete("a"));
            assert_eq!(machine.refused(delete("c")), Refusal::PermissionDenied);
        } else {
            assert_eq!(machine.refused(delete("c")), Refusal::Corrupt);
        }
        let list = by(&alice, change!(auth_user_list: pb::AuthUserListRequest {}));
        assert_eq!(machine.refused(list), Refusal::PermissionDenied);
        machine.done(alarm(disarm, 1, kind));
        assert_eq!(machine.refused(delete("c")), Refusal::PermissionDenied);
        machine.done(delete("a"));
    }
}

/// A refused request does nothing, not even to the revision of keys.
#[test]
fn a_denied_entry_moves_only_the_applied_index() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", &[])]);
    let before = (machine.contents(), machine.revision());
    let put = Some(put("k", "v"));
    let denied: Payload =
        by(&auth.user("alice"), pb::InternalRaftRequest { put, ..Default::default() });
    assert_eq!(machine.refused(denied), Refusal::PermissionDenied);
    assert_eq!((machine.contents(), machine.revision()), before);
    assert_eq!(machine.reads().range(Authorized::own(&range("k", ""))).unwrap().count, 0);
}

/// Notes the auth revision that is shown whenever the store has news and a key is there.
#[derive(Debug)]
struct Onlooker {
    reads: state::Reads,
    key: &'static str,
    seen: std::sync::Mutex<Vec<(bool, u64)>>,
}

impl mvcc::Wake for Onlooker {
    fn wake(&self) {
        if !self.reads.range(Authorized::own(&range(self.key, ""))).unwrap().rows.is_empty() {
            self.seen.lock().unwrap().push(self.reads.auth().version());
        }
    }
}

/// What readers of a batch see of users once they see a key that is written behind `change`.
fn shown_with_what_follows(
    machine: &mut Machine,
    who: &Identity,
    change: pb::InternalRaftRequest,
) -> Vec<(bool, u64)> {
    let onlooker = std::sync::Arc::new(Onlooker {
        reads: machine.reads(),
        key: "a/secret",
        seen: std::sync::Mutex::default(),
    });
    let mut stream = machine.reads().watch().stream(onlooker.clone());
    let spec = mvcc::WatchSpec {
        keys: base::KeyRange::from_wire("a/".into(), "a0".into()),
        start: 0,
        filters: mvcc::Filters::default(),
        want_previous: false,
        id: 0,
        fragment: false,
    };
    stream.create(spec).unwrap();
    let revision = machine.reads().auth().revision();
    let root = Identity { user: "root".into(), revision: revision + 1 };
    let put = pb::InternalRaftRequest { put: Some(put("a/secret", "")), ..Default::default() };
    let outcomes = machine.batch(vec![by(who, change), by(&root, put)]);
    assert!(outcomes.iter().all(|it| matches!(it.applied, Applied::Done(_))), "{outcomes:?}");
    let seen = onlooker.seen.lock().unwrap().clone();
    assert!(!seen.is_empty(), "somebody looked");
    seen
}

/// Reliability 8.4: a write that comes behind a revocation is never shown with the permissions from
/// before it, though both came in one batch.
#[test]
fn what_is_written_after_a_revocation_is_shown_after_it() {
    let grants: &[(Type, &str, &str)] = &[(Type::Read, "a/", "a0")];
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", grants)]);
    let before = machine.reads().auth().revision();
    let revoke = change!(auth_user_revoke_role: pb::AuthUserRevokeRoleRequest {
        name: "alice".into(),
        role: "role-of-alice".into(),
    });
    let seen = shown_with_what_follows(&mut machine, &auth.root(), revoke);
    assert!(seen.iter().all(|shown| *shown == (true, before + 1)), "{seen:?}, after {before}");
}

/// A-01: the same of what is written once auth is on.
#[test]
fn what_is_written_after_enabling_is_shown_after_it() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[]);
    machine.done(by(&auth.root(), disable()));
    let revision = machine.reads().auth().revision();
    let nobody = Identity::nobody();
    let seen = shown_with_what_follows(&mut machine, &nobody, enable());
    assert!(seen.iter().all(|shown| *shown == (true, revision)), "{seen:?}");
}

/// W-15: whoever was let in before is judged by the users of one moment, however old that was.
#[test]
fn an_old_identity_may_still_do_what_its_user_may() {
    let grants: &[(Type, &str, &str)] = &[(Type::Read, "a/", "a0")];
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", grants)]);
    machine.done(by(&auth.root(), user("bob")));
    let reads = machine.reads();
    assert_eq!(
        reads.authorize(&auth.user("alice"), &range("a/1", "")).unwrap_err(),
        Refusal::AuthRevisionOld
    );
    assert!(reads.may("alice", &range("a/1", "")));
    assert!(!reads.may("alice", &range("b/1", "")) && !reads.may("carol", &range("a/1", "")));
}

/// W-15: what is watched is looked at again when users or roles changed, and only then; nobody is
/// answerable while auth is off.
#[test]
fn watches_end_with_the_permission_that_they_need() {
    let (mut machine, auth) = Auth::on(Machine::new(), &[("alice", &[(Type::Read, "a", "c")])]);
    let mut owners = WatchOwners::default();
    for (id, key, end) in [(1, "a", "b"), (2, "b", "")] {
        let (key, range_end) = (key.into(), end.into());
        let request = pb::WatchCreateRequest { key, range_end, ..Default::default() };
        owners.add(id, "alice".to_owned(), request);
    }
    assert!(owners.denied(&machine.reads()).is_empty());
    let narrow = permission("role-of-alice", Type::Read, "b", "");
    machine.done(by(&auth.root(), narrow));
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "role-of-alice".to_owned(),
        key: "a".into(),
        range_end: "c".into(),
    };
    machine.done(by(&auth.root(), change!(auth_role_revoke_permission: revoke)));
    assert_eq!(owners.denied(&machine.reads()), [1]);
    assert!(owners.denied(&machine.reads()).is_empty(), "nothing changed since");
    owners.remove(1);
    machine.done(by(&auth.root(), disable()));
    assert!(owners.denied(&machine.reads()).is_empty());
}
