//! Random requests about users and roles, against maps that know nothing of rows, batches or merged
//! ranges; and after each run a restart, which must find the same.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;
use state::auth::gate::Guarded;
use state::{Applied, AuthReply, Identity, Refusal, Reply};
use support::auth::{change, disable, enable, grant_role, permission, user};
use support::{Machine, by};

const USERS: [&str; 3] = ["alice", "bob", "root"];
const ROLES: [&str; 3] = ["r", "root", "s"];
const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const ENDS: [&str; 4] = ["", "c", "d", "\0"];

#[derive(Clone, Debug)]
enum Step {
    UserAdd(usize),
    UserDelete(usize),
    Grant(usize, usize),
    Revoke(usize, usize),
    RoleAdd(usize),
    RoleDelete(usize),
    Permit(usize, Type, usize, usize),
    Forbid(usize, usize, usize),
    Enable,
    Disable,
    UserGet(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (user, role, key, end) = (0..3_usize, 0..3_usize, 0..4_usize, 0..4_usize);
    let kind = prop::sample::select(vec![Type::Read, Type::Write, Type::Readwrite]);
    prop_oneof![
        3 => user.clone().prop_map(Step::UserAdd),
        1 => user.clone().prop_map(Step::UserDelete),
        4 => (user.clone(), role.clone()).prop_map(|(user, role)| Step::Grant(user, role)),
        1 => (user.clone(), role.clone()).prop_map(|(user, role)| Step::Revoke(user, role)),
        3 => role.clone().prop_map(Step::RoleAdd),
        1 => role.clone().prop_map(Step::RoleDelete),
        5 => (role.clone(), kind, key.clone(), end.clone())
            .prop_map(|(role, kind, key, end)| Step::Permit(role, kind, key, end)),
        2 => (role, key, end).prop_map(|(role, key, end)| Step::Forbid(role, key, end)),
        1 => Just(Step::Enable),
        1 => Just(Step::Disable),
        1 => user.prop_map(Step::UserGet),
    ]
}

/// A permission's range and kind; ranges in the order of keys, equal ones in that of granting.
type Permissions = Vec<(&'static str, &'static str, Type)>;

#[derive(Debug, Default)]
struct Model {
    users: BTreeMap<&'static str, BTreeSet<&'static str>>,
    roles: BTreeMap<&'static str, Permissions>,
    enabled: bool,
    revision: u64,
}

impl Model {
    fn run(&mut self, step: &Step) -> Result<(), Refusal> {
        let changes = self.change(step)?;
        self.revision += u64::from(changes);
        Ok(())
    }

    /// Does it; whether that is a change that raises the revision.
    fn change(&mut self, step: &Step) -> Result<bool, Refusal> {
        match *step {
            Step::UserAdd(user) => {
                if self.users.contains_key(USERS[user]) {
                    return Err(Refusal::UserExists);
                }
                self.users.insert(USERS[user], BTreeSet::new());
            }
            Step::UserDelete(user) => {
                if self.enabled && USERS[user] == "root" {
                    return Err(Refusal::InvalidAuthManagement);
                }
                self.users.remove(USERS[user]).ok_or(Refusal::UserNotFound)?;
            }
            Step::Grant(user, role) => {
                let roles = self.users.get_mut(USERS[user]).ok_or(Refusal::UserNotFound)?;
                if ROLES[role] != "root" && !self.roles.contains_key(ROLES[role]) {
                    return Err(Refusal::RoleNotFound);
                }
                return Ok(roles.insert(ROLES[role]));
            }
            Step::Revoke(user, role) => {
                if self.enabled && (USERS[user], ROLES[role]) == ("root", "root") {
                    return Err(Refusal::InvalidAuthManagement);
                }
                let roles = self.users.get_mut(USERS[user]).ok_or(Refusal::UserNotFound)?;
                if !roles.remove(ROLES[role]) {
                    return Err(Refusal::RoleNotGranted);
                }
            }
            Step::RoleAdd(role) => {
                if self.roles.contains_key(ROLES[role]) {
                    return Err(Refusal::RoleExists);
                }
                self.roles.insert(ROLES[role], Vec::new());
            }
            Step::RoleDelete(role) => {
                if self.enabled && ROLES[role] == "root" {
                    return Err(Refusal::InvalidAuthManagement);
                }
                self.roles.remove(ROLES[role]).ok_or(Refusal::RoleNotFound)?;
                for roles in self.users.values_mut() {
                    roles.remove(ROLES[role]);
                }
            }
            Step::Permit(role, kind, key, end) => self.permit(role, kind, KEYS[key], ENDS[end])?,
            Step::Forbid(role, key, end) => {
                let granted = self.roles.get_mut(ROLES[role]).ok_or(Refusal::RoleNotFound)?;
                let before = granted.len();
                granted.retain(|(of, to, _)| (*of, *to) != (KEYS[key], ENDS[end]));
                if granted.len() == before {
                    return Err(Refusal::PermissionNotGranted);
                }
            }
            Step::Enable => {
                if !self.enabled {
                    let root = self.users.get("root").ok_or(Refusal::RootUserMissing)?;
                    if !root.contains("root") {
                        return Err(Refusal::RootRoleMissing);
                    }
                    self.enabled = true;
                }
                return Ok(false);
            }
            Step::Disable => return Ok(std::mem::take(&mut self.enabled)),
            Step::UserGet(user) => {
                self.users.get(USERS[user]).ok_or(Refusal::UserNotFound)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn permit(
        &mut self,
        role: usize,
        kind: Type,
        key: &'static str,
        end: &'static str,
    ) -> Result<(), Refusal> {
        if !(end.is_empty() || end == "\0" || key < end) {
            return Err(Refusal::InvalidAuthManagement);
        }
        let granted = self.roles.get_mut(ROLES[role]).ok_or(Refusal::RoleNotFound)?;
        let first = granted.iter().position(|(of, ..)| *of == key);
        if let Some(first) = first.filter(|first| granted[*first].1 == end) {
            granted[first].2 = kind;
            return Ok(());
        }
        let place = granted.iter().position(|(of, ..)| key < *of).unwrap_or(granted.len());
        granted.insert(place, (key, end, kind));
        Ok(())
    }

    fn may(&self, user: &str, kind: Type, key: &str) -> bool {
        let Some(roles) = self.users.get(user) else { return false };
        let holds = |(of, to, given): &(&str, &str, Type)| {
            let inside = match *to {
                "" => *of == key,
                "\0" => *of <= key,
                to => *of <= key && key < to,
            };
            inside && (*given == kind || *given == Type::Readwrite)
        };
        roles.contains("root")
            || roles.iter().any(|role| self.roles.get(role).is_some_and(|it| it.iter().any(holds)))
    }
}

fn request(step: &Step) -> pb::InternalRaftRequest {
    match *step {
        Step::UserAdd(name) => user(USERS[name]),
        Step::UserDelete(name) => {
            change!(auth_user_delete: pb::AuthUserDeleteRequest { name: USERS[name].into() })
        }
        Step::Grant(name, role) => grant_role(USERS[name], ROLES[role]),
        Step::Revoke(name, role) => {
            let (name, role) = (USERS[name].into(), ROLES[role].into());
            change!(auth_user_revoke_role: pb::AuthUserRevokeRoleRequest { name, role })
        }
        Step::RoleAdd(role) => {
            change!(auth_role_add: pb::AuthRoleAddRequest { name: ROLES[role].into() })
        }
        Step::RoleDelete(role) => {
            change!(auth_role_delete: pb::AuthRoleDeleteRequest { role: ROLES[role].into() })
        }
        Step::Permit(role, kind, key, end) => permission(ROLES[role], kind, KEYS[key], ENDS[end]),
        Step::Forbid(role, key, end) => {
            let (key, range_end) = (KEYS[key].into(), ENDS[end].into());
            let role = ROLES[role].into();
            change!(auth_role_revoke_permission:
                pb::AuthRoleRevokePermissionRequest { role, key, range_end })
        }
        Step::Enable => enable(),
        Step::Disable => disable(),
        Step::UserGet(name) => {
            change!(auth_user_get: pb::AuthUserGetRequest { name: USERS[name].into() })
        }
    }
}

fn may(machine: &Machine, who: &Identity, request: &impl Guarded) -> bool {
    machine.reads().authorize(who, request).is_ok()
}

fn compare(machine: &Machine, model: &Model) {
    let auth = machine.reads().auth();
    assert_eq!((auth.is_enabled(), auth.revision()), (model.enabled, model.revision));
    for user in USERS {
        let who = Identity { user: user.into(), revision: model.revision };
        for key in KEYS {
            let read = support::range(key, "");
            let write = support::put(key, "");
            let expected = |kind| !model.enabled || model.may(user, kind, key);
            assert_eq!(may(machine, &who, &read), expected(Type::Read), "{user} {key}");
            assert_eq!(may(machine, &who, &write), expected(Type::Write), "{user} {key}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A-01 to A-15.
    #[test]
    fn users_and_roles_are_what_maps_would_be(steps in prop::collection::vec(step(), 1..60)) {
        let (mut machine, mut model) = (Machine::new(), Model { revision: 1, ..Model::default() });
        for step in &steps {
            let root = Identity { user: "root".into(), revision: model.revision };
            let expected = model.run(step);
            let found = match machine.applied(by(&root, request(step))) {
                Applied::Done(Reply::Auth { reply: AuthReply::Names(names), .. }) => {
                    let Step::UserGet(user) = step else { panic!("{step:?}") };
                    prop_assert!(names.iter().eq(&model.users[USERS[*user]]));
                    Ok(())
                }
                Applied::Done(_) => Ok(()),
                Applied::Refused(refusal) => Err(refusal),
            };
            prop_assert_eq!(found, expected, "{:?}", step);
            compare(&machine, &model);
        }
        machine.reopen();
        compare(&machine, &model);
    }
}
