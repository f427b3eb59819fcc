//! Who a caller is, and whether it may: what every service asks before it answers.
//!
//! While auth is off nothing here costs more than reading a flag.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use prost::Message;
use proto::etcdserverpb as pb;
use state::auth::gate::{Authorized, Guarded};
use state::{AuthReply, Identity, Refusal, Reply};
use tonic::Status;

use super::{Handle, ProposeError, RequestKind};
use crate::auth::{Caller, Passwords, Provider, fingerprint, wall_seconds};
use crate::peers::versions::Release;
use crate::traces::Trace;

/// How long a token's own entry may lag behind the one that it is named by.
const LOGIN_PATIENCE: Duration = Duration::from_secs(1);

/// Before it is looked again whether the entry of a token is applied.
const TOKEN_POLL: Duration = Duration::from_millis(5);

/// The same, once that took long.
const TOKEN_POLL_MAX: Duration = Duration::from_millis(320);

/// A password on its way to the log: itself or, for members since 3.5, its hash.
pub(crate) struct Proposed {
    pub(crate) password: String,
    pub(crate) hash: String,
}

impl Handle {
    /// Who a caller is; `None` for one that does not say.
    ///
    /// # Errors
    ///
    /// `Refused(InvalidAuthToken)`.
    pub(crate) async fn identify(&self, caller: &Caller) -> Result<Option<Identity>, ProposeError> {
        if !self.reads().auth_enabled() {
            return Ok(None);
        }
        let authentication = &self.shared.authentication;
        let Some(token) = caller.token() else {
            let revision = self.reads().auth().revision();
            let named = caller.common_name().filter(|_| authentication.by_certificate);
            return Ok(named.map(|name| Identity { user: name.to_owned(), revision }));
        };
        let index = authentication.index_of(token).ok_or(Refusal::InvalidAuthToken)?;
        let mut identity = authentication.identify(self.reads(), token);
        // Another member, which is ahead of this one, may have given it. Some name it by the entry
        // before that of the login, so one at the end of what is applied gets a moment more.
        let began = Instant::now();
        let mut pause = TOKEN_POLL;
        while identity.is_none() {
            let applied = self.status().applied;
            let patience = match applied.cmp(&index) {
                Ordering::Less => self.shared.limits.request_timeout,
                Ordering::Equal => LOGIN_PATIENCE,
                Ordering::Greater => break,
            };
            if patience < began.elapsed() {
                break;
            }
            tokio::time::sleep(pause).await;
            // Whoever makes up tokens of far entries must not keep this member busy.
            pause = (pause * 2).min(TOKEN_POLL_MAX);
            identity = authentication.identify(self.reads(), token);
        }
        if identity.is_none() {
            tracing::warn!("token-fingerprint" = fingerprint(token), "invalid auth token");
        }
        Ok(Some(identity.ok_or(Refusal::InvalidAuthToken)?))
    }

    /// Lets a request in at the door: who makes it, nobody while auth is off.
    ///
    /// # Errors
    ///
    /// `Refused`: the token is not good, or the caller may not ask for this.
    pub(crate) async fn enter<R: Guarded>(
        &self,
        caller: &Caller,
        request: &R,
    ) -> Result<Identity, ProposeError> {
        if !self.reads().auth_enabled() {
            return Ok(Identity::nobody());
        }
        let who = self.identify(caller).await?;
        self.reads().auth().check_door(request.guard().door, who.as_ref())?;
        Ok(who.unwrap_or_default())
    }

    /// Checks what a request that is not proposed needs where it is evaluated.
    ///
    /// # Errors
    ///
    /// As [`state::Reads::authorize`].
    pub(crate) fn authorize<'r, R: Guarded>(
        &self,
        who: &Identity,
        request: &'r R,
    ) -> Result<Authorized<'r, R>, Refusal> {
        self.reads().authorize(who, request)
    }

    /// Whether nothing about users and roles changed while a read was answered.
    ///
    /// # Errors
    ///
    /// `AuthRevisionOld`, or `UserNameEmpty` if auth was off when it began.
    pub(crate) fn check_still<R: Guarded>(
        &self,
        who: &Identity,
        request: &R,
    ) -> Result<(), Refusal> {
        self.reads().check_still(who, request)
    }

    /// Proposes a request that was let in.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`] and [`Handle::enter`].
    pub(crate) async fn propose_for<R: Message + Guarded>(
        &self,
        caller: &Caller,
        kind: RequestKind,
        request: &R,
    ) -> Result<Reply, ProposeError> {
        let answer = async {
            let who = self.enter(caller, request).await?;
            self.propose_by(who, kind, request, caller.trace()).await
        };
        let answer = answer.await;
        if let Err(error) = &answer
            && error.is_of_this_member()
        {
            caller.trace().failed(|| Status::from(error.clone()).message().to_owned());
        }
        answer
    }

    /// Proposes a request about users and roles: its answer, and the header for it.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose_for`].
    pub(crate) async fn manage<R: Message + Guarded>(
        &self,
        caller: &Caller,
        kind: RequestKind,
        request: &R,
    ) -> Result<(pb::ResponseHeader, AuthReply), ProposeError> {
        self.auth_reply(self.propose_for(caller, kind, request).await?)
    }

    fn auth_reply(&self, reply: Reply) -> Result<(pb::ResponseHeader, AuthReply), ProposeError> {
        let Reply::Auth { revision, reply } = reply else {
            unreachable!("a request about users was answered by {reply:?}")
        };
        Ok((self.header(revision), reply))
    }

    /// Where passwords are compared and hashed.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.shared.authentication.passwords
    }

    /// A password in the form in which a request of a caller who may make it is proposed: nobody
    /// else has anything hashed. Members before 3.5 want the password itself, and would store the
    /// hash of an empty one (interop 6.4).
    ///
    /// # Errors
    ///
    /// As [`Handle::enter`], [`Handle::authorize`], and of [`crate::auth::Passwords::hash`].
    pub(crate) async fn prepare_password<R: Guarded>(
        &self,
        caller: &Caller,
        request: &R,
        password: String,
    ) -> Result<Proposed, ProposeError> {
        let who = self.enter(caller, request).await?;
        self.authorize(&who, request)?;
        let cluster = self.reads().cluster_version();
        let cluster = cluster.as_deref().and_then(Release::parse);
        if cluster.is_some_and(|it| Release::MINIMUM < it && it < Release::V3_5) {
            return Ok(Proposed { password, hash: String::new() });
        }
        let hash = self.shared.authentication.passwords.hash(password).await?;
        Ok(Proposed { password: String::new(), hash })
    }

    /// A token for whoever has this password.
    ///
    /// # Errors
    ///
    /// `Refused(AuthNotEnabled)`, `Refused(AuthFailed)`, `Refused(NoPasswordUser)`, and as
    /// [`Handle::propose`].
    pub(crate) async fn log_in(
        &self,
        request: pb::AuthenticateRequest,
        trace: &Trace,
    ) -> Result<(pb::ResponseHeader, String), ProposeError> {
        let pb::AuthenticateRequest { name, password } = request;
        let password = Passwords::what_counts(&password);
        self.linearize().await?;
        let authentication = &self.shared.authentication;
        loop {
            let checked = self.check_password(&name, &password).await;
            if let Err(error) = &checked
                && *error != Refusal::AuthNotEnabled.into()
            {
                tracing::warn!(user = name, error = %error, "invalid authentication was requested");
            }
            let revision = checked?;
            // Without the password, which is of no use to the log (reliability 6.1).
            let proposed = pb::InternalAuthenticateRequest {
                name: name.clone(),
                password: String::new(),
                simple_token: authentication.new_word(),
            };
            let (nobody, kind) = (Identity::nobody(), RequestKind::Authenticate);
            let reply = self.propose_by(nobody, kind, &proposed, trace).await?;
            let (header, reply) = self.auth_reply(reply)?;
            let AuthReply::Authenticated { token } = reply else {
                unreachable!("a login was answered by {reply:?}")
            };
            if revision != self.reads().auth().revision() {
                tracing::info!("revision when password checked became stale; retrying");
                continue;
            }
            let token = match &*authentication.provider {
                Provider::Simple { .. } => token,
                Provider::Jwt(jwt) => {
                    jwt.sign(&Identity { user: name, revision }, wall_seconds())?
                }
                Provider::Nothing => return Err(ProposeError::NoTokens),
            };
            return Ok((header, token));
        }
    }

    /// The revision at which a user has this password.
    async fn check_password(&self, user: &str, password: &[u8]) -> Result<u64, ProposeError> {
        let (hash, revision) = self.reads().auth().password_hash(user)?;
        let passwords = &self.shared.authentication.passwords;
        if passwords.is_right(password.into(), hash).await? {
            Ok(revision)
        } else {
            tracing::info!("user-name" = user, "invalid password");
            Err(Refusal::AuthFailed.into())
        }
    }

    /// Whether a user may still make a request that was let in before: as users and roles are now,
    /// however old its token.
    pub(crate) fn may_still<R: Guarded>(&self, user: &str, request: &R) -> bool {
        !self.reads().auth_enabled() || self.reads().may(user, request)
    }

    /// As [`Handle::admit`], for somebody. Who may not make the request at all is told that, and
    /// raises no alarm, which would stop everybody.
    ///
    /// # Errors
    ///
    /// As [`Handle::admit`], and of [`Handle::enter`] and [`state::Reads::authorize`].
    pub(crate) async fn admit_for<R: Guarded>(
        &self,
        caller: &Caller,
        request: &R,
        cost_bytes: u64,
    ) -> Result<(), ProposeError> {
        if self.reads().auth_enabled() && !self.has_room(cost_bytes) {
            let who = self.enter(caller, request).await?;
            self.authorize(&who, request)?;
        }
        self.admit(cost_bytes).await
    }

    /// Whether the certificate of a caller would be its user, were its request a call.
    pub(crate) fn takes_for_user(&self, caller: &Caller) -> bool {
        let by_certificate = self.shared.authentication.by_certificate;
        by_certificate && self.reads().auth_enabled() && caller.common_name().is_some()
    }

    /// Forgets simple tokens whose time is over; runs until the member ends.
    pub(crate) async fn sweep_tokens(self) {
        self.shared.authentication.clone().sweep(self.reads().clone()).await;
    }
}
