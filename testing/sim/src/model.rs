//! What the committed requests mean, by the reference model of the judges.
//!
//! It is given the committed requests in the order of the log, with what members answered, and says
//! whether that was right. The key space is `history`'s, which shares no code with `mvcc`; leases
//! and the compaction are added here.

use std::collections::BTreeSet;

use history::{Answer, Call, Store, agrees};
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use state::{Applied, Refusal, Reply};

/// The store.
#[derive(Debug)]
pub(crate) struct Model {
    store: Store,
    pub(crate) compacted: i64,
    leases: BTreeSet<i64>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { store: Store::new(1, &[]), compacted: -1, leases: BTreeSet::new() }
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.store.revision()
    }

    /// The newest pair of every key.
    pub(crate) fn pairs(&self) -> Vec<KeyValue> {
        self.store.pairs(self.store.revision())
    }

    /// Does what a request did if it was not refused, and compares the answer.
    pub(crate) fn apply(
        &mut self,
        request: &pb::InternalRaftRequest,
        applied: &Applied,
    ) -> Result<(), String> {
        let reply = match applied {
            Applied::Done(reply) => reply,
            Applied::Refused(refusal) => return self.refused(request, refusal),
        };
        let call = call_of(request);
        let Some(answer) = answer_of(reply.clone()) else { return Ok(()) };
        let call = call.ok_or_else(|| format!("{reply:?} answers what was not asked for"))?;
        match &call {
            Call::Compact(compaction) => self.compacted = compaction.revision,
            Call::Grant(_) => {
                let Answer::Grant(granted) = &answer else { return Err(wrong(&call, reply)) };
                if !self.leases.insert(granted.id) {
                    return Err(format!("lease {} was granted twice", granted.id));
                }
            }
            Call::Revoke(revoke) if !self.leases.remove(&revoke.id) => {
                return Err(format!("lease {} was revoked and is not known", revoke.id));
            }
            Call::Put(put) if put.lease != 0 && !self.leases.contains(&put.lease) => {
                return Err(format!("a put with the unknown lease {}", put.lease));
            }
            Call::Range(_)
            | Call::Put(_)
            | Call::Delete(_)
            | Call::Txn(_)
            | Call::Revoke(_)
            | Call::KeepAlive(_)
            | Call::TimeToLive(_) => {}
        }
        if !matches!(call, Call::Compact(_) | Call::Grant(_)) {
            let executed = self.store.apply(&call).map_err(|refusal| refusal.to_string())?;
            if !agrees(&call, &executed.answer, &answer) {
                return Err(format!("{answer:?} instead of {:?}", executed.answer));
            }
        }
        if answer.revision() == self.revision() {
            Ok(())
        } else {
            Err(format!("revision {} was answered as {}", self.revision(), answer.revision()))
        }
    }

    fn refused(&self, request: &pb::InternalRaftRequest, refusal: &Refusal) -> Result<(), String> {
        let Some(call) = call_of(request) else { return Ok(()) };
        let Some(known) = lease_of(&call).map(|lease| self.leases.contains(&lease)) else {
            return Ok(());
        };
        if *refusal == Refusal::LeaseNotFound && known {
            return Err(format!("{call:?}: the lease was not found"));
        }
        if *refusal == Refusal::LeaseExists && !known {
            return Err(format!("{call:?}: the lease was said to exist"));
        }
        Ok(())
    }

    /// Whether a read at a revision is answered rightly.
    pub(crate) fn check_read(&self, call: &Call, answer: &Answer) -> Result<(), String> {
        let revision = answer.revision();
        if self.revision() < revision {
            return Err(format!("a read at {revision}, the store is at {}", self.revision()));
        }
        let executed = self.store.execute(call, revision).map_err(|refusal| refusal.to_string())?;
        if agrees(call, &executed.answer, answer) {
            Ok(())
        } else {
            Err(format!("{call:?} at {revision} is {:?}, not {answer:?}", executed.answer))
        }
    }
}

fn wrong(call: &Call, reply: &Reply) -> String {
    format!("{call:?} was answered {reply:?}")
}

/// The lease that a call is about.
pub(crate) fn lease_of(call: &Call) -> Option<i64> {
    match call {
        Call::Put(put) => (put.lease != 0).then_some(put.lease),
        Call::Grant(grant) => Some(grant.id),
        Call::Revoke(revoke) => Some(revoke.id),
        Call::KeepAlive(request) => Some(request.id),
        Call::TimeToLive(request) => Some(request.id),
        Call::Range(_) | Call::Delete(_) | Call::Txn(_) | Call::Compact(_) => None,
    }
}

/// The call of a client that a request is of.
fn call_of(request: &pb::InternalRaftRequest) -> Option<Call> {
    if let Some(put) = &request.put {
        Some(Call::Put(put.clone()))
    } else if let Some(delete) = &request.delete_range {
        Some(Call::Delete(delete.clone()))
    } else if let Some(txn) = &request.txn {
        Some(Call::Txn(txn.clone()))
    } else if let Some(compaction) = &request.compaction {
        Some(Call::Compact(*compaction))
    } else if let Some(grant) = &request.lease_grant {
        Some(Call::Grant(*grant))
    } else {
        request.lease_revoke.map(Call::Revoke)
    }
}

/// The request for the log that a call becomes; `None` for what needs none.
pub(crate) fn request_of(call: &Call) -> Option<pb::InternalRaftRequest> {
    let mut request = pb::InternalRaftRequest::default();
    match call.clone() {
        Call::Put(put) => request.put = Some(put),
        Call::Delete(delete) => request.delete_range = Some(delete),
        Call::Txn(txn) if !state::check::is_read_only(&txn) => request.txn = Some(txn),
        Call::Compact(compaction) => request.compaction = Some(compaction),
        Call::Grant(grant) => request.lease_grant = Some(grant),
        Call::Revoke(revoke) => request.lease_revoke = Some(revoke),
        Call::Txn(_) | Call::Range(_) | Call::KeepAlive(_) | Call::TimeToLive(_) => return None,
    }
    Some(request)
}

/// A reply as clients get it; `None` for one that no client asks for.
pub(crate) fn answer_of(reply: Reply) -> Option<Answer> {
    match reply {
        Reply::Put(response) => Some(Answer::Put(response)),
        Reply::Delete(response) => Some(Answer::Delete(response)),
        Reply::Txn(response) => Some(Answer::Txn(response)),
        Reply::LeaseGrant(response) => Some(Answer::Grant(response)),
        Reply::LeaseRevoke(_, response) => Some(Answer::Revoke(response)),
        Reply::Compact(response) => Some(Answer::Compact(response)),
        Reply::None
        | Reply::Alarm(_)
        | Reply::Auth { .. }
        | Reply::Members(_)
        | Reply::V2(_)
        | Reply::V2Expired => None,
    }
}
