//! Who asks, and whether it may: what the server does around every call, by the same functions of
//! `state`, and what the model of users and roles says of it.
//!
//! Only where a life has users; elsewhere everybody is nobody, and nothing is looked at.

use base::probe::reached;
use bytes::Bytes;
use history::{Call, Who};
use member::Ticket;
use proto::etcdserverpb as pb;
use state::auth::gate::{Door, Guarded};
use state::{Identity, Reads, Refusal};

use crate::accounts::Proof;
use crate::client::Pending;
use crate::judge::Verdict;
use crate::world::{Event, World};

/// How long a token lasts that nobody uses.
pub(crate) const TOKEN_MILLIS: u64 = 4000;

/// What somebody may, or why not; on the outside, what is wrong with that.
pub(crate) type Judged<T> = Result<Result<T, Refusal>, String>;

impl World {
    /// The newest entry that a member has applied.
    pub(crate) fn entry(&mut self, at: usize) -> u64 {
        self.process(at).member.applied().index.0
    }

    /// Lets a client's call in at a member's door: who makes it.
    pub(crate) fn enter(&mut self, number: usize, at: usize, call: &Call) -> Judged<Identity> {
        if self.accounts.is_none() {
            return Ok(Ok(Identity::nobody()));
        }
        let reads = self.process(at).member.state().reads();
        let who = match self.identify(number, at, &reads)? {
            Ok(who) => who,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let entered = reads.auth().check_door(door(call), who.as_ref());
        let (entry, refusal) = (self.entry(at), entered.as_ref().err().map(ToString::to_string));
        let caller = who.as_ref().map(who_of);
        self.judge.model.auth.on_door(entry, caller.as_ref(), call, refusal.as_deref())?;
        Ok(entered.map(|()| who.unwrap_or_default()))
    }

    /// Who a client is, as it proves it to this member.
    fn identify(&mut self, number: usize, at: usize, reads: &Reads) -> Judged<Option<Identity>> {
        if !reads.auth_enabled() {
            return Ok(Ok(None));
        }
        let (entry, clock) = (self.entry(at), self.machines[at].clock(self.now));
        let accounts = self.accounts.as_mut().expect("there are users");
        let account = &mut accounts.clients[number];
        let (user, revision) = (account.user.clone(), reads.auth().revision());
        let Proof::Token { token } = &mut account.proof else {
            return Ok(Ok(account.proof.identity(user, revision)));
        };
        let Some(text) = token.clone() else { return Ok(Ok(None)) };
        let found = reads.tokens().user(&text, clock, TOKEN_MILLIS);
        let found = found.map(|user| String::from_utf8_lossy(&user).into_owned());
        self.judge.model.auth.on_token(entry, &text, found.as_deref())?;
        if let Some(user) = found {
            return Ok(Ok(Some(Identity { user, revision })));
        }
        reached("sim: a token is not known any more");
        *token = None;
        Ok(Err(Refusal::InvalidAuthToken))
    }

    /// Checks what a call that is not proposed needs where it is evaluated.
    pub(crate) fn evaluate(&mut self, at: usize, who: &Identity, call: &Call) -> Judged<()> {
        if self.accounts.is_none() {
            return Ok(Ok(()));
        }
        let reads = self.process(at).member.state().reads();
        let said = if reads.auth_enabled() { authorize(&reads, who, call) } else { Ok(()) };
        self.judge_evaluated(at, who, call, &said)?;
        Ok(said)
    }

    fn judge_evaluated(
        &mut self,
        at: usize,
        who: &Identity,
        call: &Call,
        said: &Result<(), Refusal>,
    ) -> Verdict {
        let (entry, revision) =
            (self.entry(at), self.process(at).member.state().reads().keys().revision());
        let model = &self.judge.model;
        let attached = |lease: i64| model.attached(lease, revision);
        let refusal = said.as_ref().err().map(ToString::to_string);
        model.auth.on_evaluated(entry, &who_of(who), call, &attached, refusal.as_deref())
    }

    /// Somebody who was let in reads; now, or when this member has found the time.
    pub(crate) fn read_for(
        &mut self,
        number: usize,
        at: usize,
        pending: Pending,
        who: Identity,
    ) -> Verdict {
        if self.accounts.is_none() || !self.faulty || !self.side.one_in(4) {
            return self.read_now(number, at, pending, &who);
        }
        let (pause, ticket) = (self.side.between(1, 200), pending.ticket);
        self.clients[number].call = Some(pending);
        self.waiting.insert((at, ticket), number);
        let epoch = self.machines[at].epoch;
        self.after(pause, Event::LateRead { number, epoch, ticket, who });
        Ok(())
    }

    pub(crate) fn on_late_read(
        &mut self,
        number: usize,
        epoch: u64,
        ticket: Ticket,
        who: Identity,
    ) -> Verdict {
        let client = &mut self.clients[number];
        let Some(pending) = client.call.take_if(|pending| pending.ticket == ticket) else {
            return Ok(());
        };
        let at = pending.asked.member;
        if self.machines[at].paused {
            client.call = Some(pending);
            self.after(20, Event::LateRead { number, epoch, ticket, who });
            return Ok(());
        }
        self.waiting.remove(&(at, ticket));
        assert!(self.is_current(at, epoch), "who waits is told when its member ends");
        reached("sim: a read is answered some time after it was let in");
        self.read_now(number, at, pending, &who)
    }

    /// Whether what was just read may be told; it is judged as if it had only now been let in.
    pub(crate) fn check_still(&mut self, at: usize, who: &Identity, call: &Call) -> Judged<()> {
        if self.accounts.is_none() {
            return Ok(Ok(()));
        }
        let reads = self.process(at).member.state().reads();
        let still = still(&reads, who, call);
        match &still {
            Ok(()) => self.judge_evaluated(at, who, call, &still)?,
            Err(_) => reached("sim: users or roles change while somebody reads"),
        }
        Ok(still)
    }

    /// How long a lease lives is told with its keys only to whoever may read them now.
    pub(crate) fn may_tell_keys(
        &mut self,
        at: usize,
        who: &Identity,
        call: &Call,
        keys: &[Bytes],
    ) -> Judged<()> {
        if self.accounts.is_none() {
            return Ok(Ok(()));
        }
        if let Err(refusal) = self.evaluate(at, who, call)? {
            return Ok(Err(refusal));
        }
        let reads = self.process(at).member.state().reads();
        let may = |key: &Bytes| {
            let read = pb::RangeRequest { key: key.clone(), ..Default::default() };
            !reads.auth_enabled() || reads.may(&who.user, &read)
        };
        if keys.iter().all(may) { Ok(Ok(())) } else { Ok(Err(Refusal::PermissionDenied)) }
    }
}

/// A caller as the model has it.
pub(crate) fn who_of(who: &Identity) -> Who {
    Who { user: who.user.clone(), revision: who.revision }
}

fn door(call: &Call) -> Door {
    match call {
        Call::Range(request) => request.guard().door,
        Call::Put(request) => request.guard().door,
        Call::Delete(request) => request.guard().door,
        Call::Txn(request) => request.guard().door,
        Call::Compact(request) => request.guard().door,
        Call::Grant(request) => request.guard().door,
        Call::Revoke(request) => request.guard().door,
        Call::KeepAlive(request) => request.guard().door,
        Call::TimeToLive(request) => request.guard().door,
    }
}

fn still(reads: &Reads, who: &Identity, call: &Call) -> Result<(), Refusal> {
    match call {
        Call::Range(request) => reads.check_still(who, request),
        Call::Txn(request) => reads.check_still(who, request),
        Call::Put(_)
        | Call::Delete(_)
        | Call::Compact(_)
        | Call::Grant(_)
        | Call::Revoke(_)
        | Call::KeepAlive(_)
        | Call::TimeToLive(_) => unreachable!("only reads are looked at again"),
    }
}

fn authorize(reads: &Reads, who: &Identity, call: &Call) -> Result<(), Refusal> {
    match call {
        Call::Range(request) => reads.authorize(who, request).map(drop),
        Call::Put(request) => reads.authorize(who, request).map(drop),
        Call::Delete(request) => reads.authorize(who, request).map(drop),
        Call::Txn(request) => reads.authorize(who, request).map(drop),
        Call::Compact(request) => reads.authorize(who, request).map(drop),
        Call::Grant(request) => reads.authorize(who, request).map(drop),
        Call::Revoke(request) => reads.authorize(who, request).map(drop),
        Call::KeepAlive(request) => reads.authorize(who, request).map(drop),
        Call::TimeToLive(request) => reads.authorize(who, request).map(drop),
    }
}
