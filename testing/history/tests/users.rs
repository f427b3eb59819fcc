//! The judge of users and roles: what is true passes, and every lie of a member is found.

#![allow(clippy::unwrap_used, reason = "a test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;
use retcd_history::{AuthJudge, AuthSaid, Call, Who};

const DENIED: Option<&str> = Some("permission denied");

/// A log of requests, and the judge of their answers.
#[derive(Clone)]
struct Log {
    judge: AuthJudge,
    entry: u64,
    by: Who,
}

type Request = pb::InternalRaftRequest;

impl Log {
    /// Auth is on; alice has the role r, which may read and write from a up to c, and read d.
    fn new() -> Self {
        let mut log = Self { judge: AuthJudge::new(), entry: 0, by: Who::default() };
        log.done(add("root"));
        log.done(grant("root", "root"));
        log.done(add("alice"));
        log.done(role("r"));
        log.done(permit("r", Type::Readwrite, "a", "c"));
        log.done(permit("r", Type::Read, "d", ""));
        log.done(grant("alice", "r"));
        log.done(Request { auth_enable: Some(pb::AuthEnableRequest {}), ..Request::default() });
        log.by = who("root", 8);
        log
    }

    fn say(&mut self, mut request: Request, said: Result<AuthSaid, &str>) -> Result<(), String> {
        self.entry += 1;
        let Who { user: username, revision: auth_revision } = self.by.clone();
        request.header = Some(pb::RequestHeader { username, auth_revision, id: self.entry });
        self.judge.on_request(self.entry, self.entry - 1, &request, said.as_ref().map_err(|it| *it))
    }

    fn done(&mut self, request: Request) {
        self.say(request, Ok(AuthSaid::Done)).unwrap();
    }

    /// What a member with all entries says of a call.
    fn call(&self, who: &Who, call: &Call, refusal: Option<&str>) -> Result<(), String> {
        let attached = |lease: i64| match lease {
            7 => vec![Bytes::from_static(b"z")],
            _ => Vec::new(),
        };
        self.judge.on_evaluated(self.entry, who, call, &attached, refusal)
    }
}

fn who(user: &str, revision: u64) -> Who {
    Who { user: user.to_owned(), revision }
}

fn add(name: &str) -> Request {
    let (name, hashed_password) = (name.to_owned(), STANDARD.encode("hash"));
    let add = pb::AuthUserAddRequest { name, hashed_password, ..Default::default() };
    Request { auth_user_add: Some(add), ..Request::default() }
}

fn grant(user: &str, role: &str) -> Request {
    let grant = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
    Request { auth_user_grant_role: Some(grant), ..Request::default() }
}

fn role(name: &str) -> Request {
    let add = pb::AuthRoleAddRequest { name: name.to_owned() };
    Request { auth_role_add: Some(add), ..Request::default() }
}

fn permit(name: &str, kind: Type, key: &'static str, end: &'static str) -> Request {
    let (key, range_end) = (Bytes::from(key), Bytes::from(end));
    let perm = Some(Permission { perm_type: kind as i32, key, range_end });
    let permit = pb::AuthRoleGrantPermissionRequest { name: name.to_owned(), perm };
    Request { auth_role_grant_permission: Some(permit), ..Request::default() }
}

fn forbid(role: &str, key: &'static str, end: &'static str) -> Request {
    let (key, range_end) = (Bytes::from(key), Bytes::from(end));
    let forbid = pb::AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end };
    Request { auth_role_revoke_permission: Some(forbid), ..Request::default() }
}

fn login(name: &str) -> Request {
    let (name, simple_token) = (name.to_owned(), "word".to_owned());
    let login = pb::InternalAuthenticateRequest { name, simple_token, ..Default::default() };
    Request { authenticate: Some(login), ..Request::default() }
}

fn range(key: &'static str, end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: end.into(), ..Default::default() }
}

fn put(key: &'static str, lease: i64, prev_kv: bool) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), lease, prev_kv, ..Default::default() }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// A-14 to A-17, and what requests hide in others.
#[test]
fn what_a_user_may_is_told_and_the_contrary_is_found() {
    let log = Log::new();
    let alice = who("alice", 8);
    let inner = pb::TxnRequest {
        failure: vec![op(Op::RequestPut(put("z", 0, false)))],
        ..Default::default()
    };
    let nested = pb::TxnRequest { success: vec![op(Op::RequestTxn(inner))], ..Default::default() };
    let compare = pb::Compare { key: "z".into(), ..Default::default() };
    let compares = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "b".into(), range_end: "d".into(), prev_kv: false };
    for (call, refusal) in [
        (Call::Range(range("a", "c")), None),
        (Call::Range(range("a", "d")), DENIED),
        (Call::Range(range("b", "\0")), DENIED),
        (Call::Range(range("d", "")), None),
        (Call::Put(put("d", 0, false)), DENIED),
        (Call::Put(put("b", 0, true)), None),
        (Call::Put(put("b", 7, false)), DENIED),
        (Call::Txn(nested), DENIED),
        (Call::Txn(compares), DENIED),
        (Call::Delete(delete), DENIED),
        (Call::Revoke(pb::LeaseRevokeRequest { id: 7 }), DENIED),
        (Call::Revoke(pb::LeaseRevokeRequest { id: 8 }), None),
    ] {
        log.call(&alice, &call, refusal).unwrap();
        let lie = if refusal.is_none() { DENIED } else { None };
        let found = log.call(&alice, &call, lie).unwrap_err();
        assert!(found.contains("instead of"), "{found}");
    }
}

/// E-43, A-19.
#[test]
fn an_old_auth_revision_must_be_refused_as_such() {
    let mut log = Log::new();
    let call = Call::Range(range("a", "c"));
    log.done(permit("r", Type::Write, "x", ""));
    assert_eq!(log.judge.now().revision(), 9);
    let old = Some("revision of auth store is old");
    log.call(&who("alice", 8), &call, old).unwrap();
    log.call(&who("alice", 8), &call, None).unwrap_err();
    log.call(&who("alice", 8), &call, DENIED).unwrap_err();
    log.call(&who("", 0), &call, Some("user name is empty")).unwrap();
    log.call(&who("", 0), &call, None).unwrap_err();
}

/// What a member answers from an older state is judged by that one.
#[test]
fn a_member_that_is_behind_is_judged_by_what_it_knows() {
    let mut log = Log::new();
    let (before, call) = (log.entry, Call::Range(range("a", "c")));
    log.done(forbid("r", "a", "c"));
    let (alice, none) = (who("alice", 8), |_: i64| Vec::new());
    log.judge.on_evaluated(before, &alice, &call, &none, None).unwrap();
    log.judge.on_evaluated(log.entry, &alice, &call, &none, None).unwrap_err();
    log.call(&who("alice", 9), &call, DENIED).unwrap();
}

/// W-15: after a permission is taken away no event passes.
#[test]
fn an_event_behind_a_revocation_is_found() {
    let mut log = Log::new();
    let told = |log: &Log, entry| log.judge.on_watched(entry, "alice", &"a".into(), &"c".into());
    let before = log.entry;
    told(&log, before).unwrap();
    log.judge.on_watched(before, "alice", &"a".into(), &"\0".into()).unwrap_err();
    log.done(forbid("r", "a", "c"));
    told(&log, before).unwrap();
    told(&log, log.entry).unwrap_err();
}

/// CB-75: a token goes with its user.
#[test]
fn a_token_that_is_nobodys_is_found() {
    let mut log = Log::new();
    log.say(login("alice"), Ok(AuthSaid::Token("word.8".to_owned()))).unwrap();
    let made = log.entry;
    let token = |log: &Log, entry, user| log.judge.on_token(entry, "word.8", Some(user));
    token(&log, made, "alice").unwrap();
    token(&log, made, "root").unwrap_err();
    token(&log, made - 1, "alice").unwrap_err();
    log.judge.on_token(made, "word.8", None).unwrap();
    let delete = pb::AuthUserDeleteRequest { name: "alice".to_owned() };
    log.done(Request { auth_user_delete: Some(delete), ..Request::default() });
    token(&log, log.entry, "alice").unwrap_err();
    token(&log, made, "alice").unwrap();
    let failed = "authentication failed, invalid user ID or password";
    log.say(login("alice"), Err(failed)).unwrap();
}

/// A-01 to A-12: what is said of requests about users is what they did.
#[test]
fn a_lie_about_users_and_roles_is_found() {
    type Lie = (Request, Result<AuthSaid, &'static str>, Result<AuthSaid, &'static str>);
    let names =
        |names: &[&str]| Ok(AuthSaid::Names(names.iter().map(|it| (*it).to_owned()).collect()));
    let status = Request { auth_status: Some(pb::AuthStatusRequest {}), ..Request::default() };
    let users = Request { auth_user_list: Some(pb::AuthUserListRequest {}), ..Request::default() };
    let of_root = pb::AuthUserDeleteRequest { name: "root".to_owned() };
    let lies: [Lie; 9] = [
        (add("alice"), Err("user name already exists"), Ok(AuthSaid::Done)),
        (add("bob"), Ok(AuthSaid::Done), Err("user name already exists")),
        (grant("alice", "s"), Err("role name not found"), Ok(AuthSaid::Done)),
        (grant("alice", "r"), Ok(AuthSaid::Done), Err("role name not found")),
        (forbid("r", "a", "d"), Err("permission is not granted to the role"), Ok(AuthSaid::Done)),
        (status, Ok(AuthSaid::Status(true, 8)), Ok(AuthSaid::Status(true, 9))),
        (users, names(&["alice", "root"]), names(&["root"])),
        (
            Request { auth_user_delete: Some(of_root), ..Request::default() },
            Err("invalid auth management"),
            Ok(AuthSaid::Done),
        ),
        (
            login("alice"),
            Ok(AuthSaid::Token("word.8".into())),
            Ok(AuthSaid::Token("word.9".into())),
        ),
    ];
    for (request, truth, lie) in lies {
        Log::new().say(request.clone(), truth).unwrap();
        let found = Log::new().say(request, lie).unwrap_err();
        assert!(found.contains("instead of"), "{found}");
    }
}

/// A-19: who is not root manages nobody.
#[test]
fn whoever_is_not_root_changes_nothing() {
    let mut log = Log::new();
    let before = log.judge.now().clone();
    log.by = who("alice", 8);
    log.say(add("eve"), Err("permission denied")).unwrap();
    assert_eq!(*log.judge.now(), before);
    log.clone().say(add("eve"), Ok(AuthSaid::Done)).unwrap_err();
    log.by = Who::default();
    log.say(add("eve"), Err("user name is empty")).unwrap();
    let get = pb::AuthUserGetRequest { name: "alice".to_owned() };
    log.by = who("alice", 8);
    let own = Request { auth_user_get: Some(get), ..Request::default() };
    log.say(own, Ok(AuthSaid::Names(vec!["r".to_owned()]))).unwrap();
    let compact = Call::Compact(pb::CompactionRequest::default());
    let entry = log.entry;
    log.judge.on_door(entry, Some(&who("alice", 8)), &compact, DENIED).unwrap();
    log.judge.on_door(entry, Some(&who("alice", 8)), &compact, None).unwrap_err();
    log.judge.on_door(entry, Some(&who("root", 8)), &compact, None).unwrap();
}

/// Interop 3.2: the rows are those of etcd.
#[test]
fn the_rows_are_told() {
    let log = Log::new();
    let rows = log.judge.now().rows();
    let names: Vec<_> = rows.iter().map(|(bucket, key, _)| (*bucket, &key[..])).collect();
    let expected: [(&str, &[u8]); 5] = [
        ("auth", b"authEnabled"),
        ("auth", b"authRevision"),
        ("authRoles", b"r"),
        ("authUsers", b"alice"),
        ("authUsers", b"root"),
    ];
    assert_eq!(names, expected);
    assert_eq!(rows[0].2[..], [1]);
    assert_eq!(rows[1].2[..], 8_u64.to_be_bytes());
}
