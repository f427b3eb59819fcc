//! Users: clients that say who they are, and an operator who gives and takes what they may.
//!
//! A client proves itself as clients of the server do: by a certificate, by a token that the log
//! told of, or by one that was signed, each with the auth revision that the server would put into
//! its requests. Passwords are hashes that nobody hashes: the core only keeps their bytes.
//!
//! The operator looks at the model to find something to do; that is chance, not judgement.

use std::collections::BTreeMap;

use base::probe::reached;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use history::Auth;
use member::{Answer, Input, Proposal, Ticket};
use prost::Message as _;
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb as pb;
use state::{Applied, AuthReply, Identity, Reply};

use crate::gate::TOKEN_MILLIS;
use crate::judge::Verdict;
use crate::random::Random;
use crate::world::{Event, World};

/// The users that there may be, and the roles.
const USERS: [&str; 4] = ["root", "u1", "u2", "u3"];
const ROLES: [&str; 4] = ["root", "r1", "r2", "r3"];

/// What roles may be granted: often all keys that there are, or one, some, and all from one on.
const RANGES: [(&str, &str); 12] = [
    ("key-", "key."),
    ("key-", "key."),
    ("key-", "\0"),
    ("key-00", ""),
    ("key-0", "key-1"),
    ("key-", "key."),
    ("key-00", "key-02"),
    ("key-01", "key-02"),
    ("key-00", "\0"),
    ("key-05", "key-15"),
    ("key-1", "\0"),
    ("\0", "\0"),
];

/// What bcrypt made of a few words at its lowest cost; which, does not matter.
const HASHES: [&str; 3] = [
    "$2a$04$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK",
    "$2a$04$bbcdefghijklmnopqrstuuq3CZ4kvKHxTgf1L9ylKfvZ9OeXbZ1Cq",
    "$2a$04$cbcdefghijklmnopqrstuuH1nM2vWxO9uQqv4yqTz5H0cUc9KZ3Te",
];

/// How long the operator, or a login, waits for an answer.
const ANSWER_MILLIS: u64 = 3000;

/// The users of a life.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Who each client says it is.
    pub(crate) clients: Vec<Account>,
    /// The passwords that the operator gave users, newest last.
    passwords: BTreeMap<&'static str, Vec<&'static str>>,
    /// What waits for an answer, and since when.
    waiting: BTreeMap<(usize, Ticket), (Asked, u64)>,
    /// Words given out, each for one login.
    number: u64,
}

/// Who a client says it is.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) proof: Proof,
}

/// By what it proves that.
#[derive(Debug)]
pub(crate) enum Proof {
    /// By nothing.
    Nothing,
    /// A certificate with its name.
    Certificate,
    /// A word that the log told of.
    Token { token: Option<String> },
    /// A signed word, which says at which auth revision the password was compared.
    Signed { revision: Option<u64> },
}

impl Proof {
    /// Who somebody with this proof is; `None` for nobody.
    pub(crate) fn identity(&self, user: String, now: u64) -> Option<Identity> {
        match self {
            Self::Certificate => Some(Identity { user, revision: now }),
            Self::Signed { revision } => revision.map(|revision| Identity { user, revision }),
            Self::Nothing | Self::Token { .. } => None,
        }
    }

    fn wants_login(&self) -> bool {
        match self {
            Self::Nothing | Self::Certificate => false,
            Self::Token { token } => token.is_none(),
            Self::Signed { revision } => revision.is_none(),
        }
    }
}

/// What waits for an answer.
#[derive(Debug)]
enum Asked {
    /// The operator.
    Management,
    /// A client that showed a password, which was right at this revision.
    Login { client: usize, revision: u64, password: Bytes },
}

impl Accounts {
    pub(crate) fn new(clients: usize, random: &mut Random) -> Self {
        let account = |_| {
            let user = random.choose(&["root", "root", "u1", "u2", "u3", "u1"]).to_owned();
            let proof = match random.below(9) {
                0 => Proof::Nothing,
                1..=3 => Proof::Certificate,
                4..=6 => Proof::Token { token: None },
                _ => Proof::Signed { revision: None },
            };
            Account { user, proof }
        };
        let clients = (0..clients).map(account).collect();
        Self { clients, passwords: BTreeMap::new(), waiting: BTreeMap::new(), number: 0 }
    }

    /// Whose a watch is.
    pub(crate) fn owner(watcher: usize) -> &'static str {
        USERS[watcher % USERS.len()]
    }

    /// A member is gone with what waited there.
    pub(crate) fn forget_member(&mut self, at: usize) {
        self.waiting.retain(|(other, _), _| *other != at);
    }

    /// A signed proof that is too old is thrown away.
    pub(crate) fn on_old(&mut self, client: usize) {
        if let Proof::Signed { revision } = &mut self.clients[client].proof {
            *revision = None;
        }
    }

    /// Whether a client waits for its login.
    pub(crate) fn is_logging_in(&self, client: usize, now: u64) -> bool {
        self.waiting.values().any(|(asked, since)| {
            let is_of = matches!(asked, Asked::Login { client: other, .. } if *other == client);
            is_of && now < since + ANSWER_MILLIS
        })
    }

    fn is_managing(&self, now: u64) -> bool {
        self.waiting
            .values()
            .any(|(asked, since)| matches!(asked, Asked::Management) && now < since + ANSWER_MILLIS)
    }

    fn word(&mut self) -> String {
        self.number += 1;
        format!("word{}", self.number)
    }
}

impl World {
    /// The operator does one thing after the other.
    pub(crate) fn on_administer(&mut self) -> Verdict {
        if !self.faulty {
            return Ok(());
        }
        let pause = self.side.between(10, 200);
        self.after(pause, Event::Administer);
        let now = self.now;
        let accounts = self.accounts.as_mut().expect("there are users");
        accounts.waiting.retain(|_, (_, since)| now < *since + ANSWER_MILLIS);
        if accounts.is_managing(now) {
            return Ok(());
        }
        let at = self.side.index(self.machines.len());
        if !self.machines[at].is_running() {
            return Ok(());
        }
        let clock = self.machines[at].clock(now);
        self.process(at).member.state().reads().tokens().sweep(clock, TOKEN_MILLIS);
        let request = self.next_management();
        let who = self.operator(at);
        self.ask_as(at, &who, request, Asked::Management)
    }

    /// Mostly root, now and then somebody who may not, or with an identity that is old.
    fn operator(&mut self, at: usize) -> Identity {
        let reads = self.process(at).member.state().reads();
        if !reads.auth_enabled() {
            return Identity::nobody();
        }
        let revision = reads.auth().revision();
        match self.side.below(20) {
            0 => Identity::nobody(),
            1 => Identity { user: self.side.choose(&USERS).to_owned(), revision },
            2 => Identity { user: "root".to_owned(), revision: revision - 1 },
            _ => Identity { user: "root".to_owned(), revision },
        }
    }

    fn ask_as(
        &mut self,
        at: usize,
        who: &Identity,
        mut request: pb::InternalRaftRequest,
        asked: Asked,
    ) -> Verdict {
        let id = self.process(at).ids.next_id();
        let Identity { user: username, revision: auth_revision } = who.clone();
        request.header = Some(pb::RequestHeader { id, username, auth_revision });
        let (ticket, now) = (Ticket(id), self.now);
        let accounts = self.accounts.as_mut().expect("there are users");
        accounts.waiting.insert((at, ticket), (asked, now));
        let request = request.encode_to_vec().into();
        let epoch = self.machines[at].epoch;
        self.on_call(at, epoch, Input::Propose(vec![Proposal { ticket, request }]))
    }

    /// A client without a token shows its password; whether it did.
    pub(crate) fn log_in(&mut self, client: usize, at: usize) -> Result<bool, String> {
        let now = self.now;
        let Some(accounts) = &mut self.accounts else { return Ok(false) };
        if accounts.is_logging_in(client, now) {
            return Ok(true);
        }
        let account = &accounts.clients[client];
        if !account.proof.wants_login() || self.machines[at].paused {
            return Ok(false);
        }
        let is_signed = matches!(account.proof, Proof::Signed { .. });
        let (name, known) = (account.user.clone(), accounts.passwords.get(account.user.as_str()));
        let Some(known) = known.filter(|_| self.side.below(8) != 0) else { return Ok(false) };
        // The newest one, or the one before.
        let back = usize::from(self.side.one_in(8)).min(known.len() - 1);
        let shown = Bytes::from_static(known[known.len() - 1 - back].as_bytes());
        let simple_token = if is_signed { String::new() } else { accounts.word() };
        let reads = self.process(at).member.state().reads();
        let Ok((password, revision)) = reads.auth().password_hash(&name) else { return Ok(false) };
        if password != shown {
            reached("sim: a password is not the right one any more");
            return Ok(false);
        }
        let login = pb::InternalAuthenticateRequest { name, simple_token, ..Default::default() };
        let request = pb::InternalRaftRequest { authenticate: Some(login), ..Default::default() };
        let asked = Asked::Login { client, revision, password };
        self.ask_as(at, &Identity::nobody(), request, asked)?;
        Ok(true)
    }

    /// Somebody who is no client of the key space is answered.
    pub(crate) fn on_account_answer(
        &mut self,
        at: usize,
        ticket: Ticket,
        answer: &Answer,
    ) -> Verdict {
        let Some(accounts) = &mut self.accounts else { return Ok(()) };
        let Some((asked, _)) = accounts.waiting.remove(&(at, ticket)) else { return Ok(()) };
        let Answer::Applied(applied) = answer else { return Ok(()) };
        self.judge.on_told(ticket.0);
        let Asked::Login { client, revision, password } = asked else {
            reached("sim: an operator's request about users is answered");
            return Ok(());
        };
        let Applied::Done(Reply::Auth { reply: AuthReply::Authenticated { token }, .. }) = applied
        else {
            reached("sim: a login is refused when it is applied");
            return Ok(());
        };
        let reads = self.process(at).member.state().reads();
        if revision != reads.auth().revision() {
            reached("sim: users or roles change while somebody logs in");
            return Ok(());
        }
        let entry = self.entry(at);
        let accounts = self.accounts.as_mut().expect("there are users");
        let account = &mut accounts.clients[client];
        if self.judge.model.auth.at(entry).password(&account.user) != Some(&password) {
            return Err(format!("{} logged in with a password that is not its own", account.user));
        }
        match &mut account.proof {
            Proof::Token { token: place } => *place = Some(token.clone()),
            Proof::Signed { revision: place } => *place = Some(revision),
            Proof::Nothing | Proof::Certificate => {}
        }
        reached("sim: a client logs in");
        Ok(())
    }

    fn next_management(&mut self) -> pb::InternalRaftRequest {
        let auth = self.judge.model.auth.now().clone();
        let mut request = pb::InternalRaftRequest::default();
        let random = &mut self.side;
        let accounts = self.accounts.as_mut().expect("there are users");
        if let Some(&name) = USERS.iter().find(|&&name| auth.password(name).is_none())
            && !random.one_in(4)
        {
            request.auth_user_add = Some(accounts.add_user(name, random));
        } else if !auth.roles_of("root").iter().any(|role| role == "root") && !random.one_in(4) {
            let (user, role) = ("root".to_owned(), "root".to_owned());
            request.auth_user_grant_role = Some(pb::AuthUserGrantRoleRequest { user, role });
        } else if let Some(&name) = ROLES.iter().find(|name| !has(&auth.roles(), name))
            && !random.one_in(3)
        {
            request.auth_role_add = Some(pb::AuthRoleAddRequest { name: name.to_owned() });
        } else if !auth.is_enabled() && random.one_in(8) {
            request.auth_enable = Some(pb::AuthEnableRequest {});
        } else if auth.is_enabled() && random.one_in(25) {
            request.auth_disable = Some(pb::AuthDisableRequest {});
        } else if random.one_in(20) {
            request.alarm = Some(alarm(&self.judge.model.alarms(), random));
        } else if random.one_in(8) {
            question(&mut request, random);
        } else if random.one_in(6) {
            accounts.change_user(&mut request, random);
        } else {
            change_role(&mut request, &auth, random);
        }
        request
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|one| one == name)
}

impl Accounts {
    fn hash(&mut self, name: &'static str, random: &mut Random) -> String {
        let hash = random.choose(&HASHES);
        self.passwords.entry(name).or_default().push(hash);
        STANDARD.encode(hash)
    }

    fn add_user(&mut self, name: &'static str, random: &mut Random) -> pb::AuthUserAddRequest {
        let hashed_password = self.hash(name, random);
        pb::AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() }
    }

    fn change_user(&mut self, request: &mut pb::InternalRaftRequest, random: &mut Random) {
        let name = random.choose(&USERS);
        match random.below(6) {
            0 => request.auth_user_add = Some(self.add_user(name, random)),
            1 => {
                let name = name.to_owned();
                request.auth_user_delete = Some(pb::AuthUserDeleteRequest { name });
            }
            2 | 3 => {
                let (hashed_password, name) = (self.hash(name, random), name.to_owned());
                let password = String::new();
                request.auth_user_change_password =
                    Some(pb::AuthUserChangePasswordRequest { name, password, hashed_password });
            }
            4 => {
                let name = random.choose(&ROLES[1..]).to_owned();
                request.auth_role_add = Some(pb::AuthRoleAddRequest { name });
            }
            _ => {
                let role = random.choose(&ROLES).to_owned();
                request.auth_role_delete = Some(pb::AuthRoleDeleteRequest { role });
            }
        }
    }
}

fn question(request: &mut pb::InternalRaftRequest, random: &mut Random) {
    let (name, role) = (random.choose(&USERS).to_owned(), random.choose(&ROLES).to_owned());
    match random.below(5) {
        0 => request.auth_status = Some(pb::AuthStatusRequest {}),
        1 => request.auth_user_get = Some(pb::AuthUserGetRequest { name }),
        2 => request.auth_user_list = Some(pb::AuthUserListRequest {}),
        3 => request.auth_role_get = Some(pb::AuthRoleGetRequest { role }),
        _ => request.auth_role_list = Some(pb::AuthRoleListRequest {}),
    }
}

/// What roles may, and who has them.
fn change_role(request: &mut pb::InternalRaftRequest, auth: &Auth, random: &mut Random) {
    let (user, role) = (random.choose(&USERS[1..]).to_owned(), random.choose(&ROLES[1..]));
    match random.below(8) {
        0..=2 => {
            let (key, range_end) = random.choose(&RANGES);
            let kind = random.choose(&[Type::Read, Type::Write, Type::Readwrite, Type::Readwrite]);
            let perm = Permission {
                perm_type: kind as i32,
                key: Bytes::from_static(key.as_bytes()),
                range_end: Bytes::from_static(range_end.as_bytes()),
            };
            let (name, perm) = (role.to_owned(), Some(perm));
            request.auth_role_grant_permission =
                Some(pb::AuthRoleGrantPermissionRequest { name, perm });
        }
        3 | 4 if !auth.permissions(role).is_empty() => {
            let granted = auth.permissions(role);
            let one = granted[random.index(granted.len())].clone();
            let (role, key, range_end) = (role.to_owned(), one.key, one.range_end);
            request.auth_role_revoke_permission =
                Some(pb::AuthRoleRevokePermissionRequest { role, key, range_end });
        }
        5 => {
            let (name, role) = (user, role.to_owned());
            request.auth_user_revoke_role = Some(pb::AuthUserRevokeRoleRequest { name, role });
        }
        _ => {
            let role = role.to_owned();
            request.auth_user_grant_role = Some(pb::AuthUserGrantRoleRequest { user, role });
        }
    }
}

/// An operator raises the alarm of a full quota, or takes one back.
fn alarm(raised: &[pb::AlarmMember], random: &mut Random) -> pb::AlarmRequest {
    use pb::alarm_request::AlarmAction;
    let kind = pb::AlarmType::Nospace as i32;
    match raised.first() {
        Some(one) if !random.one_in(4) => pb::AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            member_id: one.member_id,
            alarm: one.alarm,
        },
        _ => {
            let action = random.choose(&[AlarmAction::Activate, AlarmAction::Get]) as i32;
            pb::AlarmRequest { action, member_id: 7, alarm: kind }
        }
    }
}
