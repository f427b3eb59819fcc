//! What clients ask and are told: every call is recorded, and the answers whose truth is known at
//! once are judged at once.

use base::LeaseId;
use base::probe::reached;
use bytes::Bytes;
use history::{Answer as Said, Call, Outcome};
use member::{Answer, Failure, Input, Proposal, Ticket};
use prost::Message as _;
use proto::etcdserverpb as pb;
use state::auth::gate::Authorized;
use state::{Applied, Identity, Refusal};

use crate::client::{Circumstances, Pending};
use crate::judge::Verdict;
use crate::model::{answer_of, lease_of, request_of};
use crate::recorder::Asked;
use crate::world::{Event, World};

/// A caller gives up after so long.
const CALL_MILLIS: u64 = 5000;

impl World {
    pub(crate) fn on_client(&mut self, number: usize) -> Verdict {
        let pause = self.random.between(1, self.config.think_millis);
        self.after(pause, Event::Client { number });
        if let Some(call) = &self.clients[number].call {
            if self.now < call.asked_millis + CALL_MILLIS {
                return Ok(());
            }
            reached("sim: a call is not answered in time");
            let (at, ticket) = (self.clients[number].at, call.ticket);
            self.waiting.remove(&(at, ticket));
            self.give_up(number, "no answer in time");
            if self.machines[at].is_running() {
                self.step(at, Input::Forget(vec![ticket]))?;
            }
        }
        if !self.faulty {
            return Ok(());
        }
        let is_down = self.machines[self.clients[number].at].process.is_none();
        let at = if self.random.one_in(5) || is_down {
            self.random.index(self.machines.len())
        } else {
            self.clients[number].at
        };
        self.clients[number].at = at;
        if self.machines[at].process.is_none() {
            return Ok(());
        }
        if self.log_in(number, at)? {
            return Ok(());
        }
        let mut around = Circumstances {
            random: &mut self.random,
            keys: self.config.keys,
            number: self.calls + 1,
            now_millis: self.now,
            revision: self.judge.told,
            value_bytes: self.config.value_bytes,
            renewing: self.config.renewing,
        };
        let mut call = self.clients[number].wish(&mut around);
        self.share_lease(&mut call);
        self.call(number, call)
    }

    /// Where there are users, keys of several of them hang on one lease now and then.
    fn share_lease(&mut self, call: &mut Call) {
        let Call::Put(put) = call else { return };
        if self.accounts.is_none() || put.lease != 0 || put.ignore_lease || !self.side.one_in(4) {
            return;
        }
        let mut leases = self.clients.iter().flat_map(|client| client.leases.keys());
        put.lease = leases.next().copied().unwrap_or(0);
    }

    /// A client does not wait any more; what it asked for may have happened.
    pub(crate) fn give_up(&mut self, number: usize, why: &str) {
        if let Some(pending) = self.clients[number].call.take() {
            self.waiting.remove(&(pending.asked.member, pending.ticket));
            self.counts.unknown += 1;
            let outcome = Outcome::Unknown(why.to_owned());
            self.recorder.note(pending.asked, pending.call, outcome, self.now);
        }
    }

    /// A client asks the member that it is connected to.
    pub(crate) fn call(&mut self, number: usize, call: Call) -> Verdict {
        self.calls += 1;
        let (at, now) = (self.clients[number].at, self.now);
        let (session, invoked) = (self.machines[at].epoch, self.recorder.moment(now));
        let id = self.process(at).ids.next_id();
        let asked = Asked { client: number, member: at, session, invoked, request: id };
        let (ticket, floor) = (Ticket(id), self.judge.told);
        let floor_entry = self.judge.told_entry;
        if let Call::Revoke(revoke) = &call {
            self.judge.given_up.insert(revoke.id, ());
        }
        let who = Identity::nobody();
        let mut pending =
            Pending { ticket, call, asked_millis: now, floor, floor_entry, asked, who };
        if !pending.call.is_linearizable() && matches!(pending.call, Call::Range(_) | Call::Txn(_))
        {
            reached("sim: a read that may be old");
            return self.answer_read(number, at, pending);
        }
        let request = request_of(&pending.call);
        // What is read is judged when it is; whoever asks about a lease is looked at before, too.
        if request.is_some() || lease_asked_about(&pending.call) {
            match self.enter(number, at, &pending.call)? {
                Ok(who) => pending.who = who,
                Err(refusal) => return self.on_refused(pending, &refusal),
            }
        }
        if request.is_none()
            && lease_asked_about(&pending.call)
            && let Err(refusal) = self.evaluate(at, &pending.who, &pending.call)?
        {
            return self.on_refused(pending, &refusal);
        }
        let is_read = matches!(pending.call, Call::Range(_) | Call::Txn(_)) && request.is_none();
        if is_read && self.config.reads_alone && self.leads_alone(at) {
            reached("sim: a member that leads alone reads at once");
            self.judge_order(at, &pending, &Answer::Read)?;
            return self.answer_read(number, at, pending);
        }
        let input = match (&pending.call, request) {
            (_, Some(mut request)) => {
                let Identity { user: username, revision: auth_revision } = pending.who.clone();
                request.header = Some(pb::RequestHeader { id, username, auth_revision });
                let request = request.encode_to_vec().into();
                Input::Propose(vec![Proposal { ticket, request }])
            }
            (Call::KeepAlive(request), None) => Input::RenewLease(ticket, LeaseId(request.id)),
            (_, None) => Input::Read(vec![ticket]),
        };
        self.clients[number].call = Some(pending);
        self.waiting.insert((at, ticket), number);
        // A process that stands still finds the call when it goes on.
        let epoch = self.machines[at].epoch;
        self.on_call(at, epoch, input)
    }

    fn leads_alone(&mut self, at: usize) -> bool {
        self.machines[at].is_running() && self.process(at).member.leads_alone()
    }

    pub(crate) fn on_call(&mut self, at: usize, epoch: u64, input: Input) -> Verdict {
        if !self.is_current(at, epoch) {
            return Ok(());
        }
        if self.machines[at].paused {
            self.after(20, Event::Call { at, epoch, input });
            return Ok(());
        }
        if self.config.turn_millis == 0 {
            return self.step(at, input);
        }
        if let Input::Propose(proposals) = input {
            self.process(at).turn.proposals.extend(proposals);
        } else if let Input::Read(reads) = input {
            self.process(at).turn.reads.extend(reads);
        } else {
            return self.step(at, input);
        }
        self.plan_turn(at);
        Ok(())
    }

    pub(crate) fn on_answer(&mut self, at: usize, ticket: Ticket, answer: Answer) -> Verdict {
        let Some(&number) = self.waiting.get(&(at, ticket)) else {
            self.on_account_answer(at, ticket, &answer)?;
            return self.on_second_answer(at, ticket, &answer);
        };
        let call = self.clients[number].call.as_ref().expect("a client that waits has a call");
        if let (Answer::Read, Call::TimeToLive(request)) = (&answer, &call.call) {
            // Everything is applied; now the leader's clock is asked, as the server does.
            let lease = LeaseId(request.id);
            return self.step(at, Input::LeaseRemaining(ticket, lease));
        }
        self.waiting.remove(&(at, ticket));
        let pending = self.clients[number].call.take().expect("it has just been looked at");
        self.counts.answered += 1;
        self.judge_order(at, &pending, &answer)?;
        match answer {
            Answer::Applied(Applied::Done(reply)) => match answer_of(reply) {
                Some(said) => self.on_changed(number, pending, said),
                None => Err(format!("{:?} was answered with nothing", pending.call)),
            },
            Answer::Applied(Applied::Refused(refusal)) => self.on_refused(pending, &refusal),
            Answer::Failed(failure) => {
                self.on_failed(pending, failure);
                Ok(())
            }
            Answer::Read => self.answer_read(number, at, pending),
            Answer::Lease(ttl) => self.on_lease(number, at, pending, ttl),
            Answer::Leases(_) | Answer::Transferred => {
                Err(format!("{:?} was answered {answer:?}", pending.call))
            }
        }
    }

    /// What is answered is behind everything that anybody was told before it was asked.
    fn judge_order(&mut self, at: usize, pending: &Pending, answer: &Answer) -> Verdict {
        let entry = match answer {
            Answer::Applied(_) => self.judge.on_told(pending.ticket.0),
            Answer::Read => self.entry(at),
            Answer::Lease(_) | Answer::Leases(_) | Answer::Transferred | Answer::Failed(_) => {
                return Ok(());
            }
        };
        // No two calls have the same entry.
        let first = pending.floor_entry + u64::from(matches!(answer, Answer::Applied(_)));
        if entry < first {
            let (call, floor) = (&pending.call, pending.floor_entry);
            return Err(format!("{call:?} was answered at entry {entry} after {floor} was told"));
        }
        Ok(())
    }

    fn record(&mut self, pending: Pending, outcome: Outcome) {
        self.recorder.note(pending.asked, pending.call, outcome, self.now);
    }

    fn on_refused(&mut self, pending: Pending, refusal: &Refusal) -> Verdict {
        mark_refused(refusal);
        let lease = lease_of(&pending.call);
        if let (Refusal::AuthRevisionOld, Some(accounts)) = (refusal, &mut self.accounts) {
            reached("sim: a request of an older auth revision is refused");
            accounts.on_old(pending.asked.client);
        }
        self.record(pending, Outcome::Refused(refusal.to_string()));
        match lease {
            Some(lease) if *refusal == Refusal::LeaseNotFound => {
                self.judge.on_gone(lease, self.now)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn on_failed(&mut self, pending: Pending, failure: Failure) {
        mark_failed(failure);
        let text = format!("{failure:?}");
        let outcome = match failure {
            // Both say that nothing was proposed.
            Failure::NoLeader | Failure::Overloaded => Outcome::Refused(text),
            Failure::LeaderChanged
            | Failure::NotLeader
            | Failure::BadTransferee
            | Failure::TransferAborted => Outcome::Unknown(text),
        };
        self.record(pending, outcome);
    }

    fn on_lease(
        &mut self,
        number: usize,
        at: usize,
        pending: Pending,
        ttl: Option<i64>,
    ) -> Verdict {
        let (id, said) = match &pending.call {
            Call::KeepAlive(request) => {
                let id = request.id;
                match ttl {
                    Some(ttl) => {
                        reached("sim: a lease is renewed");
                        self.promise(id, pending.asked_millis, ttl);
                    }
                    None => {
                        reached("sim: a renewal hears that its lease is gone");
                        self.clients[number].leases.remove(&id);
                        self.clients[number].dead = id;
                    }
                }
                let (header, ttl) = (None, ttl.unwrap_or(0));
                (id, Said::KeepAlive(pb::LeaseKeepAliveResponse { header, id, ttl }))
            }
            Call::TimeToLive(request) => {
                let (id, keys) = (request.id, request.keys);
                let lease = self.process(at).member.state().reads().lease(LeaseId(id), keys);
                let lease = ttl.and(lease);
                let told = lease.as_ref().map(|lease| lease.keys.clone()).unwrap_or_default();
                if lease.is_some()
                    && let Err(refusal) =
                        self.may_tell_keys(at, &pending.who, &pending.call, &told)?
                {
                    return self.on_refused(pending, &refusal);
                }
                let response = pb::LeaseTimeToLiveResponse {
                    header: None,
                    id,
                    ttl: ttl.unwrap_or(-1),
                    granted_ttl: lease.as_ref().map_or(0, |lease| lease.granted_ttl_seconds),
                    keys: lease.map(|lease| lease.keys).unwrap_or_default(),
                };
                if 0 <= response.ttl {
                    self.judge_time_to_live(at, keys, &response)?;
                }
                (id, Said::TimeToLive(response))
            }
            other @ (Call::Range(_)
            | Call::Put(_)
            | Call::Delete(_)
            | Call::Txn(_)
            | Call::Compact(_)
            | Call::Grant(_)
            | Call::Revoke(_)) => return Err(format!("{other:?} was answered with a lease")),
        };
        self.record(pending, Outcome::Answered(said));
        if ttl.is_none() { self.judge.on_gone(id, self.now) } else { Ok(()) }
    }

    /// What is told of a living lease: the keys that are on it at the member's revision, and no more
    /// time than it was granted and a change of leaders adds.
    fn judge_time_to_live(
        &mut self,
        at: usize,
        with_keys: bool,
        told: &pb::LeaseTimeToLiveResponse,
    ) -> Verdict {
        let revision = self.process(at).member.state().reads().keys().revision();
        let (mut keys, mut expected) = (told.keys.clone(), Vec::new());
        if with_keys {
            expected = self.judge.model.attached(told.id, revision);
        }
        keys.sort_unstable();
        expected.sort_unstable();
        if keys != expected {
            return Err(format!("{told:?} at {revision}, and {expected:?} are on the lease"));
        }
        let more = i64::try_from(self.config.election_millis() / 1000).expect("seconds") + 1;
        if told.granted_ttl + more < told.ttl {
            return Err(format!("{told:?} has more time than it was given"));
        }
        Ok(())
    }

    /// A client was told how long its lease lives; where clocks leap that means nothing.
    fn promise(&mut self, lease: i64, from_millis: u64, ttl_seconds: i64) {
        if !self.config.has_clock_jumps() {
            self.judge.promise(lease, from_millis, ttl_seconds, self.config.drift);
        }
    }

    /// A request was applied.
    fn on_changed(&mut self, number: usize, pending: Pending, said: Said) -> Verdict {
        if !history::is_of_kind(&pending.call, &said) {
            return Err(format!("{:?} was answered {said:?}", pending.call));
        }
        mark_changed(&said);
        let (revision, floor) = (said.revision(), pending.floor);
        self.trace.mix(u64::try_from(revision).unwrap_or(0));
        let client = &mut self.clients[number];
        match &pending.call {
            Call::Put(put) => {
                client.known.insert(put.key.clone(), revision);
            }
            Call::Txn(txn) => {
                let key = txn.compare.first().map_or_else(Bytes::new, |one| one.key.clone());
                let succeeded = matches!(&said, Said::Txn(answer) if answer.succeeded);
                if succeeded {
                    client.known.insert(key, revision);
                } else {
                    client.known.remove(&key);
                }
            }
            Call::Grant(grant) => {
                client.leases.insert(grant.id, self.now + 500);
                let Said::Grant(granted) = &said else { unreachable!("it is of its kind") };
                let ttl = granted.ttl;
                self.promise(grant.id, pending.asked_millis, ttl);
            }
            Call::Range(_)
            | Call::Delete(_)
            | Call::Compact(_)
            | Call::Revoke(_)
            | Call::KeepAlive(_)
            | Call::TimeToLive(_) => {}
        }
        let changed = said.changed_keys() == Some(true);
        self.record(pending, Outcome::Answered(said));
        if changed { self.judge.on_changed(revision, floor) } else { Ok(()) }
    }

    /// Reads what the member has now.
    fn answer_read(&mut self, number: usize, at: usize, pending: Pending) -> Verdict {
        if self.machines[at].paused {
            self.record(pending, Outcome::Unknown("the member stands still".to_owned()));
            return Ok(());
        }
        let who = match self.enter(number, at, &pending.call)? {
            Ok(who) => who,
            Err(refusal) => return self.on_refused(pending, &refusal),
        };
        if let Err(refusal) = self.evaluate(at, &who, &pending.call)? {
            return self.on_refused(pending, &refusal);
        }
        self.read_for(number, at, pending, who)
    }

    /// Reads for somebody who was let in.
    pub(crate) fn read_now(
        &mut self,
        number: usize,
        at: usize,
        pending: Pending,
        who: &Identity,
    ) -> Verdict {
        let reads = self.process(at).member.state().reads();
        let said = match &pending.call {
            Call::Range(request) => reads.range(Authorized::own(request)).map(|found| {
                let header = pb::ResponseHeader { revision: found.revision, ..Default::default() };
                Said::Range(pb::RangeResponse {
                    header: Some(header),
                    kvs: found.rows.iter().map(mvcc::Row::decode).collect(),
                    more: found.more,
                    count: found.count,
                })
            }),
            Call::Txn(request) => reads.txn(Authorized::own(request)).map(Said::Txn),
            other @ (Call::Put(_)
            | Call::Delete(_)
            | Call::Compact(_)
            | Call::Grant(_)
            | Call::Revoke(_)
            | Call::KeepAlive(_)
            | Call::TimeToLive(_)) => return Err(format!("{other:?} was answered as a read")),
        };
        let said = match said {
            Ok(said) => said,
            // The disk fails, now and then.
            Err(Refusal::Corrupt) => {
                self.record(pending, Outcome::Unknown("the disk failed".to_owned()));
                return Ok(());
            }
            Err(refusal) => return self.on_refused(pending, &refusal),
        };
        if let Err(refusal) = self.check_still(at, who, &pending.call)? {
            return self.on_refused(pending, &refusal);
        }
        if let (Call::Range(request), Said::Range(found)) = (&pending.call, &said)
            && let Some(pair) = found.kvs.first()
            && request.revision == 0
        {
            self.clients[number].known.insert(pair.key.clone(), pair.mod_revision);
        }
        let judged = self.judge.on_read(&pending.call, &said, pending.floor);
        self.record(pending, Outcome::Answered(said));
        judged
    }
}

/// Whether a call asks the leader about a lease, without an entry.
fn lease_asked_about(call: &Call) -> bool {
    matches!(call, Call::KeepAlive(_) | Call::TimeToLive(_))
}

fn mark_changed(said: &Said) {
    match said {
        Said::Txn(txn) if txn.succeeded => reached("sim: a transaction succeeds"),
        Said::Txn(_) => reached("sim: a transaction takes its other branch"),
        Said::Delete(delete) if 1 < delete.deleted => reached("sim: several keys are deleted"),
        Said::Delete(delete) if delete.deleted == 0 => reached("sim: nothing is deleted"),
        Said::Compact(_) => reached("sim: a compaction is answered"),
        Said::Grant(_) => reached("sim: a lease is granted"),
        Said::Revoke(_) => reached("sim: a lease is revoked by its owner"),
        Said::Range(_)
        | Said::Put(_)
        | Said::Delete(_)
        | Said::KeepAlive(_)
        | Said::TimeToLive(_) => {}
    }
}

fn mark_refused(refusal: &Refusal) {
    if *refusal == Refusal::Compacted {
        reached("sim: what is asked for is compacted");
    } else if *refusal == Refusal::FutureRevision {
        reached("sim: what is asked for is in the future");
    } else if *refusal == Refusal::LeaseNotFound {
        reached("sim: a request names a lease that is gone");
    } else if *refusal == Refusal::NoSpace {
        reached("sim: a request is refused for want of space");
    } else if *refusal == Refusal::KeyNotFound {
        reached("sim: a request takes over from a key that is not there");
    }
}

fn mark_failed(failure: Failure) {
    match failure {
        Failure::LeaderChanged => reached("sim: a call fails because the leader changed"),
        Failure::NotLeader => reached("sim: a call fails where nobody leads"),
        Failure::NoLeader
        | Failure::Overloaded
        | Failure::BadTransferee
        | Failure::TransferAborted => {}
    }
}
