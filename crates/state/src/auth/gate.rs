//! The one gate: what every request of the v3 API needs, field by field, and whether somebody has
//! it.
//!
//! The table is the implementations of [`Guarded`] below. Each takes its request apart without
//! `..`, so a field that is new in a message does not compile until somebody has said here what it
//! needs; nested requests and operations of branches that will not be taken are in it (G26). Apply,
//! reads, watches and the services of leases, members and maintenance ask here and nowhere else.
//!
//! A request is judged in one of two places, as in etcd, whose members may be in the same cluster
//! and must come to the same effects: at the *door*, by the member that was asked, before anything
//! is proposed ([`Door`]); and where it is *evaluated*, by every member for itself ([`Need`]).
//!
//! Source: etcd: server/etcdserver/apply/auth.go, server/etcdserver/v3_server.go,
//! server/etcdserver/server.go, server/etcdserver/api/v3rpc/{auth,key,maintenance,watch}.go.

use std::collections::BTreeSet;
use std::ops::Deref;

use base::LeaseId;
use base::probe::mutant;
use bytes::Bytes;
use pb::request_op::Request as Op;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};

use super::{Auth, Identity};
use crate::Refusal;

/// What the member that is asked checks before it does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Nothing: the request is judged where it is evaluated, or is for everybody.
    Open,
    /// The caller says who it is.
    Login,
    /// The caller has the role `root`.
    Root,
}

/// One thing that whoever evaluates a request checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need<'r> {
    /// Reading all of a range, as requests name one.
    Read(&'r Bytes, &'r Bytes),
    /// Writing all of a range.
    Write(&'r Bytes, &'r Bytes),
    /// Writing every key on a lease; nothing if there is no such lease.
    WriteAttached(LeaseId),
    /// Reading every key on a lease.
    ReadAttached(LeaseId),
    /// Reading every key on any lease.
    ReadAllAttached,
    /// The role `root`.
    Root,
    /// The role `root`, or being this user.
    RootOrUser(&'r str),
    /// The role `root`, or having this role.
    RootOrRole(&'r str),
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard<'r> {
    /// At the door.
    pub door: Door,
    /// Where it is evaluated, in the order of checking.
    pub needs: Vec<Need<'r>>,
}

impl<'r> Guard<'r> {
    fn new(door: Door, needs: impl Into<Vec<Need<'r>>>) -> Self {
        Self { door, needs: needs.into() }
    }

    /// A request for everybody.
    fn none() -> Self {
        Self::new(Door::Open, [])
    }

    fn login() -> Self {
        Self::new(Door::Login, [])
    }

    fn root_at_door() -> Self {
        Self::new(Door::Root, [])
    }

    /// Of users and roles: judged by every member.
    fn root() -> Self {
        Self::new(Door::Open, [Need::Root])
    }
}

/// A request that is in the table.
pub trait Guarded {
    /// What it needs.
    fn guard(&self) -> Guard<'_>;
}

/// A request that its caller may make. Only the gate makes one for a client, so whatever takes one
/// cannot be reached around it.
#[derive(Clone, Copy, Debug)]
pub struct Authorized<'r, R>(&'r R);

impl<'r, R> Authorized<'r, R> {
    /// A question of the server itself: no client sees the answer.
    #[must_use]
    pub fn own(request: &'r R) -> Self {
        Self(request)
    }
}

impl<R> Deref for Authorized<'_, R> {
    type Target = R;

    fn deref(&self) -> &R {
        self.0
    }
}

/// The keys on leases, as whoever evaluates a request sees them.
pub(crate) trait Attached {
    /// Those of one lease; `None` if there is none.
    fn keys_of(&self, id: LeaseId) -> Option<&BTreeSet<Bytes>>;

    /// Those of all.
    fn all_keys(&self) -> impl Iterator<Item = &Bytes>;
}

impl Auth {
    /// Checks what is checked before a request is taken. `who` is `None` for a caller that did not
    /// say who it is.
    ///
    /// # Errors
    ///
    /// `UserNameEmpty`, `UserNotFound`, `PermissionDenied`.
    pub fn check_door(&self, door: Door, who: Option<&Identity>) -> Result<(), Refusal> {
        if !self.is_enabled() {
            return Ok(());
        }
        match door {
            Door::Open => Ok(()),
            Door::Login => who.map(drop).ok_or(Refusal::UserNameEmpty),
            Door::Root => self.check_root(who.map_or("", |who| &who.user)),
        }
    }

    /// Checks what is checked where a request is evaluated.
    pub(crate) fn authorize<'r, R: Guarded>(
        &self,
        who: &Identity,
        request: &'r R,
        leases: &impl Attached,
    ) -> Result<Authorized<'r, R>, Refusal> {
        if self.is_enabled() {
            // A transaction may name a lease with many keys in each of many puts.
            let mut looked_at = BTreeSet::new();
            for need in request.guard().needs {
                if let Need::WriteAttached(id) = need
                    && !looked_at.insert(id)
                {
                    continue;
                }
                self.check(who, &need, leases)?;
            }
        }
        Ok(Authorized(request))
    }

    fn check(
        &self,
        who: &Identity,
        need: &Need<'_>,
        leases: &impl Attached,
    ) -> Result<(), Refusal> {
        match need {
            Need::Read(key, range_end) => self.check_read(who, key, range_end),
            Need::Write(key, range_end) => self.check_write(who, key, range_end),
            Need::WriteAttached(id) => {
                let keys = leases.keys_of(*id).into_iter().flatten();
                self.check_attached(who, keys, Self::check_write)
            }
            Need::ReadAttached(id) => {
                let keys = leases.keys_of(*id).into_iter().flatten();
                self.check_attached(who, keys, Self::check_read)
            }
            Need::ReadAllAttached => self.check_attached(who, leases.all_keys(), Self::check_read),
            Need::Root => self.check_root(&who.user),
            Need::RootOrUser(user) => {
                let checked = self.check_root(&who.user);
                if *user == who.user { Ok(()) } else { checked }
            }
            Need::RootOrRole(role) => {
                let checked = self.check_root(&who.user);
                if self.has_role(&who.user, role) { Ok(()) } else { checked }
            }
        }
    }

    fn check_attached<'k>(
        &self,
        who: &Identity,
        mut keys: impl Iterator<Item = &'k Bytes>,
        check: impl Fn(&Self, &Identity, &Bytes, &Bytes) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        // Root's request may be of an older auth revision here.
        if self.check_root(&who.user).is_ok() {
            return Ok(());
        }
        keys.try_for_each(|key| check(self, who, key, &Bytes::new()))
    }
}

/// KV.
impl Guarded for pb::RangeRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {
            key,
            range_end,
            limit: _,
            revision: _,
            sort_order: _,
            sort_target: _,
            serializable: _,
            keys_only: _,
            count_only: _,
            min_mod_revision: _,
            max_mod_revision: _,
            min_create_revision: _,
            max_create_revision: _,
        } = self;
        Guard::new(Door::Open, [Need::Read(key, range_end)])
    }
}

/// No end of a range: one key.
static ONE_KEY: Bytes = Bytes::new();

impl Guarded for pb::PutRequest {
    fn guard(&self) -> Guard<'_> {
        // Values and leases that are kept say nothing of themselves in the answer.
        let Self { key, value: _, lease, prev_kv, ignore_value: _, ignore_lease: _ } = self;
        // Whoever may not write every key of a lease may not revoke it, and so must not add to it.
        let mut needs = vec![Need::Write(key, &ONE_KEY)];
        if !mutant("any-lease-takes-any-key") {
            needs.push(Need::WriteAttached(LeaseId(*lease)));
        }
        if *prev_kv && !mutant("previous-pair-is-for-everybody") {
            needs.push(Need::Read(key, &ONE_KEY));
        }
        Guard::new(Door::Open, needs)
    }
}

impl Guarded for pb::DeleteRangeRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { key, range_end, prev_kv } = self;
        let mut needs = vec![Need::Write(key, range_end)];
        if *prev_kv && !mutant("previous-pair-is-for-everybody") {
            needs.push(Need::Read(key, range_end));
        }
        Guard::new(Door::Open, needs)
    }
}

impl Guarded for pb::Compare {
    fn guard(&self) -> Guard<'_> {
        let Self { result: _, target: _, key, range_end, target_union: _ } = self;
        Guard::new(Door::Open, [Need::Read(key, range_end)])
    }
}

impl Guarded for pb::RequestOp {
    fn guard(&self) -> Guard<'_> {
        let Self { request } = self;
        match request {
            Some(Op::RequestRange(request)) => request.guard(),
            Some(Op::RequestPut(request)) => request.guard(),
            Some(Op::RequestDeleteRange(request)) => request.guard(),
            Some(Op::RequestTxn(_)) if mutant("nested-transaction-is-not-looked-at") => {
                Guard::none()
            }
            Some(Op::RequestTxn(request)) => request.guard(),
            None => Guard::none(),
        }
    }
}

impl Guarded for pb::TxnRequest {
    /// Both branches: which of them is taken tells something, too.
    fn guard(&self) -> Guard<'_> {
        let Self { compare, success, failure } = self;
        let mut needs = Vec::new();
        if !mutant("comparisons-are-for-everybody") {
            needs.extend(compare.iter().flat_map(|compare| compare.guard().needs));
        }
        needs.extend(success.iter().chain(failure).flat_map(|operation| operation.guard().needs));
        // One without any operation still tells the store's revision.
        Guard::new(Door::Login, needs)
    }
}

impl Guarded for pb::CompactionRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { revision: _, physical: _ } = self;
        Guard::root_at_door()
    }
}

/// Watch.
impl Guarded for pb::WatchCreateRequest {
    /// The empty key stands for the first there can be, so it is judged as that key.
    fn guard(&self) -> Guard<'_> {
        static FIRST_KEY: Bytes = Bytes::from_static(&[0]);
        let Self {
            key,
            range_end,
            start_revision: _,
            progress_notify: _,
            filters: _,
            prev_kv: _,
            watch_id: _,
            fragment: _,
        } = self;
        let key = if key.is_empty() { &FIRST_KEY } else { key };
        let is_one = range_end[..] == [0] && mutant("watch-to-the-last-key-is-of-one");
        let range_end = if is_one { &ONE_KEY } else { range_end };
        Guard::new(Door::Open, [Need::Read(key, range_end)])
    }
}

/// Lease.
impl Guarded for pb::LeaseGrantRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { ttl: _, id: _ } = self;
        Guard::login()
    }
}

impl Guarded for pb::LeaseRevokeRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { id } = self;
        if mutant("anybody-revokes-any-lease") {
            return Guard::login();
        }
        Guard::new(Door::Login, [Need::WriteAttached(LeaseId(*id))])
    }
}

impl Guarded for pb::LeaseKeepAliveRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { id } = self;
        Guard::new(Door::Login, [Need::WriteAttached(LeaseId(*id))])
    }
}

impl Guarded for pb::LeaseTimeToLiveRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { id, keys } = self;
        let needs = keys.then_some(Need::ReadAttached(LeaseId(*id)));
        Guard::new(Door::Login, Vec::from_iter(needs))
    }
}

impl Guarded for pb::LeaseLeasesRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::new(Door::Login, [Need::ReadAllAttached])
    }
}

/// Cluster.
impl Guarded for pb::MemberAddRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { peer_ur_ls: _, is_learner: _ } = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::MemberRemoveRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { id: _ } = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::MemberUpdateRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { id: _, peer_ur_ls: _ } = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::MemberPromoteRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { id: _ } = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::MemberListRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { linearizable: _ } = self;
        Guard::login()
    }
}

/// Maintenance.
impl Guarded for pb::AlarmRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { action, member_id: _, alarm: _ } = self;
        match AlarmAction::try_from(*action) {
            Ok(AlarmAction::Get) => Guard::login(),
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_) => Guard::root_at_door(),
        }
    }
}

impl Guarded for pb::StatusRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::login()
    }
}

impl Guarded for pb::DefragmentRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::HashRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::HashKvRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { revision: _ } = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::SnapshotRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::MoveLeaderRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { target_id: _ } = self;
        Guard::root_at_door()
    }
}

impl Guarded for pb::DowngradeRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { action: _, version: _ } = self;
        Guard::root_at_door()
    }
}

/// Auth. Whoever logs in has no name yet.
impl Guarded for pb::AuthenticateRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _, password: _ } = self;
        Guard::none()
    }
}

impl Guarded for pb::InternalAuthenticateRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _, password: _, simple_token: _ } = self;
        Guard::none()
    }
}

impl Guarded for pb::AuthStatusRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::none()
    }
}

impl Guarded for pb::AuthEnableRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthDisableRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthUserAddRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _, password: _, options: _, hashed_password: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthUserDeleteRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthUserGetRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name } = self;
        Guard::new(Door::Open, [Need::RootOrUser(name)])
    }
}

impl Guarded for pb::AuthUserListRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthUserChangePasswordRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _, password: _, hashed_password: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthUserGrantRoleRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { user: _, role: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthUserRevokeRoleRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _, role: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthRoleAddRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthRoleDeleteRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { role: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthRoleGetRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { role } = self;
        Guard::new(Door::Open, [Need::RootOrRole(role)])
    }
}

impl Guarded for pb::AuthRoleListRequest {
    fn guard(&self) -> Guard<'_> {
        let Self {} = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthRoleGrantPermissionRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { name: _, perm: _ } = self;
        Guard::root()
    }
}

impl Guarded for pb::AuthRoleRevokePermissionRequest {
    fn guard(&self) -> Guard<'_> {
        let Self { role: _, key: _, range_end: _ } = self;
        Guard::root()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// One lease with one key, which counts how often somebody looks at it.
    struct Counted(BTreeSet<Bytes>, Cell<usize>);

    impl Attached for Counted {
        fn keys_of(&self, _: LeaseId) -> Option<&BTreeSet<Bytes>> {
            self.1.set(self.1.get() + 1);
            Some(&self.0)
        }

        fn all_keys(&self) -> impl Iterator<Item = &Bytes> {
            self.0.iter()
        }
    }

    /// A-16: or a transaction would cost the product of its puts and the keys on their lease.
    #[test]
    fn a_lease_is_looked_at_once_for_a_transaction() {
        let mut auth = Auth { enabled: true, revision: 1, ..Auth::default() };
        let mut batch = backend::Batch::upkeep();
        let name = Bytes::from_static(b"alice");
        let key_permission = vec![proto::authpb::Permission {
            perm_type: proto::authpb::permission::Type::Readwrite.into(),
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"b"),
        }];
        let role = proto::authpb::Role { name: Bytes::from_static(b"r"), key_permission };
        auth.put_role(role, &mut batch);
        let roles = vec!["r".to_owned()];
        auth.put_user(proto::authpb::User { name, roles, ..Default::default() }, &mut batch);
        let put = pb::PutRequest { key: Bytes::from_static(b"a1"), lease: 7, ..Default::default() };
        let put = pb::RequestOp { request: Some(Op::RequestPut(put)) };
        let request = pb::TxnRequest { success: vec![put; 100], ..Default::default() };
        let leases = Counted(BTreeSet::from([Bytes::from_static(b"a2")]), Cell::new(0));
        let alice = Identity { user: "alice".to_owned(), revision: 1 };
        auth.authorize(&alice, &request, &leases).unwrap();
        assert_eq!(leases.1.get(), 1);
    }
}
