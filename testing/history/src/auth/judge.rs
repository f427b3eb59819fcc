//! The judge: every state of users and roles that there was, and whether what members said of it is
//! true.

use bytes::Bytes;
use proto::etcdserverpb as pb;

use super::{Attached, Auth, AuthSaid, Who};
use crate::record::Call;

/// What a login got.
#[derive(Clone, Debug)]
struct Token {
    name: String,
    user: String,
    /// The entry that made it, and the one that took it away.
    from: u64,
    until: Option<u64>,
}

/// The judge: every state that there was, by the entry that made it.
#[derive(Clone, Debug)]
pub struct AuthJudge {
    past: Vec<(u64, Auth)>,
    tokens: Vec<Token>,
}

impl Default for AuthJudge {
    fn default() -> Self {
        Self::new()
    }
}

impl AuthJudge {
    /// Nobody is known, as in a new cluster.
    #[must_use]
    pub fn new() -> Self {
        // etcd's first start raises the revision once.
        Self { past: vec![(0, Auth { revision: 1, ..Auth::default() })], tokens: Vec::new() }
    }

    /// Users and roles as the newest entry left them.
    #[must_use]
    pub fn now(&self) -> &Auth {
        &self.past[self.past.len() - 1].1
    }

    /// Users and roles as they were when this entry, and none behind it, was applied.
    #[must_use]
    pub fn at(&self, entry: u64) -> &Auth {
        let behind = self.past.partition_point(|(from, _)| *from <= entry);
        &self.past[behind.max(1) - 1].1
    }

    /// How many states there were.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.past.len()
    }

    /// A request about users and roles was applied, and answered by `said`. `named_by` is the entry
    /// that a token is named by.
    ///
    /// # Errors
    ///
    /// The model says something else.
    ///
    /// # Panics
    ///
    /// If the model itself raises the revision otherwise than by one.
    pub fn on_request(
        &mut self,
        entry: u64,
        named_by: u64,
        request: &pb::InternalRaftRequest,
        said: Result<&AuthSaid, &str>,
    ) -> Result<(), String> {
        let mut next = self.now().clone();
        let expected = next.done(request, named_by);
        if expected.as_ref().map_err(|denied| *denied) != said {
            return Err(format!("{said:?} instead of {expected:?}, by {:?}", self.now()));
        }
        self.move_tokens(entry, request, &next, expected.as_ref().ok());
        if next != *self.now() {
            let (before, after) = (self.now().revision, next.revision);
            let enables = before == after && next.is_enabled() && !self.now().is_enabled();
            assert!(enables || before + 1 == after, "the model goes from {before} to {after}");
            self.past.push((entry, next));
        }
        Ok(())
    }

    fn move_tokens(
        &mut self,
        entry: u64,
        request: &pb::InternalRaftRequest,
        next: &Auth,
        said: Option<&AuthSaid>,
    ) {
        let Some(said) = said else { return };
        if let (AuthSaid::Token(name), Some(login)) = (said, &request.authenticate)
            && !name.is_empty()
        {
            let (name, user) = (name.clone(), login.name.clone());
            self.tokens.push(Token { name, user, from: entry, until: None });
        }
        let all = request.auth_disable.is_some() && self.now().is_enabled() && !next.is_enabled();
        let deleted = request.auth_user_delete.as_ref().map(|request| &request.name);
        let changed = request.auth_user_change_password.as_ref().map(|request| &request.name);
        for token in self.tokens.iter_mut().filter(|token| token.until.is_none()) {
            if all || Some(&token.user) == deleted || Some(&token.user) == changed {
                token.until = Some(entry);
            }
        }
    }

    /// A member that had applied the log up to `entry` took a token for one of `user`; it may always
    /// take one for nobody's, since tokens do not outlive processes.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn on_token(&self, entry: u64, token: &str, user: Option<&str>) -> Result<(), String> {
        let Some(user) = user else { return Ok(()) };
        let is_good = |known: &&Token| {
            known.name == token
                && known.user == user
                && known.from <= entry
                && known.until.is_none_or(|until| entry < until)
        };
        match self.tokens.iter().find(is_good) {
            Some(_) => Ok(()),
            None => Err(format!("{token} is taken for one of {user} at entry {entry}")),
        }
    }

    /// A member that had applied the log up to `entry` let a call in, or refused it.
    ///
    /// # Errors
    ///
    /// The model says something else.
    pub fn on_door(
        &self,
        entry: u64,
        who: Option<&Who>,
        call: &Call,
        refusal: Option<&str>,
    ) -> Result<(), String> {
        let expected = self.at(entry).enter(who, call);
        if expected.err() == refusal {
            return Ok(());
        }
        Err(format!("{who:?} at the door at entry {entry}: {refusal:?} instead of {expected:?}"))
    }

    /// A member evaluated a call when it had applied the log up to `entry`, or refused it.
    ///
    /// # Errors
    ///
    /// The model says something else.
    pub fn on_evaluated(
        &self,
        entry: u64,
        who: &Who,
        call: &Call,
        attached: Attached<'_>,
        refusal: Option<&str>,
    ) -> Result<(), String> {
        let auth = self.at(entry);
        let expected = auth.check(who, call, attached);
        if expected.err() == refusal || auth.lenient().check(who, call, attached).err() == refusal {
            return Ok(());
        }
        let is = format!("{refusal:?} instead of {expected:?} by {auth:?}");
        Err(format!("{call:?} of {who:?} at entry {entry}: {is}"))
    }

    /// A member that had applied the log up to `entry` told the watch of a user of an event, or
    /// opened it.
    ///
    /// # Errors
    ///
    /// The user may not know.
    pub fn on_watched(
        &self,
        entry: u64,
        user: &str,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<(), String> {
        let auth = self.at(entry);
        auth.lenient().watch(user, key, range_end).map_err(|denied| {
            format!("{user} is told of {key:?} to {range_end:?} at entry {entry}: {denied}")
        })
    }
}
