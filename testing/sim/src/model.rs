//! What the committed requests mean, by the reference model of the judges.
//!
//! It is given the committed requests in the order of the log, with what members answered, and says
//! whether that was right. The key space, users and roles and the v2 tree are `history`'s, which
//! shares no code with `mvcc`, `state` or `v2store`; leases, alarms and versions are added here.

use std::collections::BTreeSet;

use bytes::Bytes;
use history::{Answer, AuthJudge, AuthSaid, Call, Store, V2Store, Who, agrees, is_denial};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};
use proto::mvccpb::KeyValue;
use proto::{raftpb, v2pb};
use state::{Applied, AuthReply, Refusal, Reply};

use crate::second::said_of;

/// The store.
#[derive(Debug)]
pub(crate) struct Model {
    store: Store,
    pub(crate) compacted: i64,
    leases: BTreeSet<i64>,
    /// Users and roles.
    pub(crate) auth: AuthJudge,
    /// The tree of the v2 generation.
    pub(crate) second: V2Store,
    /// Raised alarms: member and kind.
    alarms: BTreeSet<(u64, i32)>,
    /// The cluster version, and to which it shall go down.
    pub(crate) version: Option<String>,
    pub(crate) downgrade: Option<String>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::new(1, &[]),
            compacted: -1,
            leases: BTreeSet::new(),
            auth: AuthJudge::new(),
            second: V2Store::new(),
            alarms: BTreeSet::new(),
            version: None,
            downgrade: None,
        }
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.store.revision()
    }

    /// The newest pair of every key.
    pub(crate) fn pairs(&self) -> Vec<KeyValue> {
        self.store.pairs(self.store.revision())
    }

    /// The pair of every key at a revision.
    pub(crate) fn pairs_at(&self, revision: i64) -> Vec<KeyValue> {
        self.store.pairs(revision)
    }

    /// The keys on a lease at a revision.
    pub(crate) fn attached(&self, lease: i64, at: i64) -> Vec<Bytes> {
        if lease == 0 {
            return Vec::new();
        }
        let pairs = self.store.pairs(at).into_iter();
        pairs.filter(|pair| pair.lease == lease).map(|pair| pair.key).collect()
    }

    /// Whether any lease lives.
    pub(crate) fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// The alarms that are raised.
    pub(crate) fn alarms(&self) -> Vec<pb::AlarmMember> {
        let member = |(member_id, alarm): &(u64, i32)| pb::AlarmMember {
            member_id: *member_id,
            alarm: *alarm,
        };
        self.alarms.iter().map(member).collect()
    }

    /// A change of the members was decided: it counts in the v2 tree, where etcd keeps them.
    pub(crate) fn on_membership(&mut self, change: &raftpb::ConfChange) {
        let removes = change.r#type() == raftpb::ConfChangeType::ConfChangeRemoveNode;
        self.second.advance(1 + usize::from(removes));
    }

    /// A request of the v2 generation was applied.
    pub(crate) fn apply_second(
        &mut self,
        request: &v2pb::Request,
        applied: &Applied,
    ) -> Result<(), String> {
        let said = match applied {
            Applied::Done(Reply::V2(said)) => {
                Some(said_of(said.as_ref().map(std::ops::Deref::deref)))
            }
            Applied::Done(Reply::V2Expired) => None,
            other @ (Applied::Done(_) | Applied::Refused(_)) => {
                return Err(format!("{request:?} was answered {other:?}"));
            }
        };
        self.second.on_request(request, said.as_ref())
    }

    /// Does what a request did if it was not refused, and compares the answer.
    pub(crate) fn apply(
        &mut self,
        entry: u64,
        request: &pb::InternalRaftRequest,
        applied: &Applied,
    ) -> Result<(), String> {
        if is_about_users(request) {
            return self.apply_users(entry, request, applied);
        }
        self.apply_to_cluster(request, applied)?;
        let call = call_of(request);
        if let Some(call) = &call {
            self.check_allowed(call, request, applied)?;
        }
        let reply = match applied {
            Applied::Done(reply) => reply,
            Applied::Refused(refusal) => return self.refused(request, refusal),
        };
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

    /// Whether a request was refused for an alarm or for who asks, exactly if it should be.
    fn check_allowed(
        &self,
        call: &Call,
        request: &pb::InternalRaftRequest,
        applied: &Applied,
    ) -> Result<(), String> {
        let header = request.header.clone().unwrap_or_default();
        let who = Who { user: header.username, revision: header.auth_revision };
        let said = match applied {
            Applied::Refused(refusal) => Some(refusal.to_string()),
            Applied::Done(_) => None,
        };
        let is_wrong = |refusal: Option<&str>| match (refusal, &said) {
            (Some(refusal), said) => said.as_deref() != Some(refusal),
            (None, Some(said)) => is_denial(said) || said == "database space exceeded",
            (None, None) => false,
        };
        let auth = self.auth.now();
        let is_full = needs_room(call)
            && self.alarms.iter().any(|(_, kind)| *kind == pb::AlarmType::Nospace as i32);
        let attached = |lease: i64| self.attached(lease, self.revision());
        let refusal = match is_full {
            true => Some("database space exceeded"),
            false => auth.check(&who, call, &attached).err(),
        };
        if is_wrong(refusal)
            && (is_full || is_wrong(auth.lenient().check(&who, call, &attached).err()))
        {
            return Err(format!(
                "{call:?} of {who:?} was answered {applied:?}, refusal {refusal:?} by {auth:?}"
            ));
        }
        if said.as_deref().is_some_and(is_denial) {
            base::probe::reached("sim: a request is denied when it is applied");
        }
        Ok(())
    }

    fn apply_users(
        &mut self,
        entry: u64,
        request: &pb::InternalRaftRequest,
        applied: &Applied,
    ) -> Result<(), String> {
        let said = match applied {
            Applied::Done(Reply::Auth { revision, reply }) if *revision == self.revision() => {
                Ok(auth_said_of(reply.clone()))
            }
            Applied::Refused(refusal) => Err(refusal.to_string()),
            other @ Applied::Done(_) => return Err(format!("{request:?} was answered {other:?}")),
        };
        let said = said.as_ref().map_err(String::as_str);
        let was_enabled = self.auth.now().is_enabled();
        self.auth.on_request(entry, self.token_name(entry), request, said)?;
        match (was_enabled, self.auth.now().is_enabled()) {
            (false, true) => base::probe::reached("sim: auth is enabled"),
            (true, false) => base::probe::reached("sim: auth is disabled"),
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// By which entry a token is named: members of 3.5 and later take the one before.
    fn token_name(&self, entry: u64) -> u64 {
        let is_old = |version: &String| {
            ["3.1.", "3.2.", "3.3.", "3.4."].iter().any(|old| version.starts_with(old))
        };
        entry - u64::from(!self.version.as_ref().is_some_and(is_old))
    }

    /// Alarms and versions.
    fn apply_to_cluster(
        &mut self,
        request: &pb::InternalRaftRequest,
        applied: &Applied,
    ) -> Result<(), String> {
        if let Some(set) = &request.cluster_version_set
            && self.version.as_ref() != Some(&set.ver)
        {
            self.version = Some(set.ver.clone());
            self.second.advance(1);
        }
        if let Some(set) = &request.downgrade_info_set {
            self.downgrade = set.enabled.then(|| set.ver.clone());
        }
        let Some(asked) = &request.alarm else { return Ok(()) };
        let alarm = (asked.member_id, asked.alarm);
        let concerned = match asked.action() {
            AlarmAction::Get => self.alarms(),
            AlarmAction::Activate => {
                self.alarms.insert(alarm);
                vec![pb::AlarmMember { member_id: alarm.0, alarm: alarm.1 }]
            }
            AlarmAction::Deactivate if self.alarms.remove(&alarm) => {
                vec![pb::AlarmMember { member_id: alarm.0, alarm: alarm.1 }]
            }
            AlarmAction::Deactivate => Vec::new(),
        };
        match applied {
            Applied::Done(Reply::Alarm(said)) if said.alarms == concerned => Ok(()),
            other @ (Applied::Done(_) | Applied::Refused(_)) => {
                Err(format!("{asked:?} was answered {other:?} instead of {concerned:?}"))
            }
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

/// Whether a payload is of the v2 generation: its second field, behind the id, is a text.
pub(crate) fn is_second(payload: &[u8]) -> bool {
    let Some((8, id)) = payload.split_first() else { return false };
    let behind = id.iter().position(|byte| byte & 0x80 == 0).map(|last| &id[last + 1..]);
    behind.is_some_and(|rest| rest.first() == Some(&0x12))
}

fn is_about_users(request: &pb::InternalRaftRequest) -> bool {
    request.authenticate.is_some()
        || request.auth_enable.is_some()
        || request.auth_disable.is_some()
        || request.auth_status.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_get.is_some()
        || request.auth_user_list.is_some()
        || request.auth_user_change_password.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_role_get.is_some()
        || request.auth_role_list.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some()
}

fn auth_said_of(reply: AuthReply) -> AuthSaid {
    match reply {
        AuthReply::Done => AuthSaid::Done,
        AuthReply::Status { enabled, revision } => AuthSaid::Status(enabled, revision),
        AuthReply::Authenticated { token } => AuthSaid::Token(token),
        AuthReply::Names(names) => AuthSaid::Names(names),
        AuthReply::Permissions(permissions) => AuthSaid::Permissions(permissions),
    }
}

/// Whether a call makes the database larger.
fn needs_room(call: &Call) -> bool {
    match call {
        Call::Put(_) | Call::Grant(_) => true,
        Call::Txn(txn) => puts(txn),
        Call::Range(_)
        | Call::Delete(_)
        | Call::Compact(_)
        | Call::Revoke(_)
        | Call::KeepAlive(_)
        | Call::TimeToLive(_) => false,
    }
}

fn puts(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(inner)) => puts(inner),
        Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => false,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    type Request = pb::InternalRaftRequest;

    fn header(revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision, ..Default::default() })
    }

    fn put(lease: i64) -> Request {
        let key = Bytes::from_static(b"a");
        Request {
            put: Some(pb::PutRequest { key, lease, ..Default::default() }),
            ..Default::default()
        }
    }

    fn put_done(revision: i64) -> Applied {
        Applied::Done(Reply::Put(pb::PutResponse { header: header(revision), prev_kv: None }))
    }

    fn grant(id: i64) -> Request {
        let grant = pb::LeaseGrantRequest { ttl: 10, id };
        Request { lease_grant: Some(grant), ..Default::default() }
    }

    fn granted(id: i64) -> Applied {
        let granted =
            pb::LeaseGrantResponse { header: header(1), id, ttl: 10, ..Default::default() };
        Applied::Done(Reply::LeaseGrant(granted))
    }

    fn revoke(id: i64) -> Request {
        Request { lease_revoke: Some(pb::LeaseRevokeRequest { id }), ..Default::default() }
    }

    fn alarm(action: AlarmAction) -> Request {
        let alarm = pb::AlarmType::Nospace as i32;
        let asked = pb::AlarmRequest { action: action as i32, member_id: 5, alarm };
        Request { alarm: Some(asked), ..Default::default() }
    }

    fn alarms(members: &[u64]) -> Applied {
        let alarm = pb::AlarmType::Nospace as i32;
        let member = |member_id: &u64| pb::AlarmMember { member_id: *member_id, alarm };
        let alarms = members.iter().map(member).collect();
        Applied::Done(Reply::Alarm(pb::AlarmResponse { header: header(1), alarms }))
    }

    fn deleted(deleted: i64) -> (Request, Applied) {
        let request =
            pb::DeleteRangeRequest { key: Bytes::from_static(b"b"), ..Default::default() };
        let request = Request { delete_range: Some(request), ..Default::default() };
        let said = pb::DeleteRangeResponse { header: header(1), deleted, ..Default::default() };
        (request, Applied::Done(Reply::Delete(said)))
    }

    fn revoked(id: i64) -> Applied {
        let said = pb::LeaseRevokeResponse { header: header(1) };
        Applied::Done(Reply::LeaseRevoke(base::LeaseId(id), said))
    }

    /// Lease 7 was granted; the store is empty and at revision 1.
    fn model() -> Model {
        let mut model = Model::new();
        model.apply(1, &grant(7), &granted(7)).unwrap();
        model
    }

    #[test]
    fn a_wrong_reply_is_found() {
        let refused = Applied::Refused;
        let (delete, (_, deletes_one)) = (deleted(0), deleted(1));
        let table = [
            (put(0), put_done(2), None),
            (put(7), put_done(2), None),
            (put(0), put_done(3), Some("revision 2 was answered as 3")),
            (put(8), put_done(2), Some("unknown lease 8")),
            (put(0), delete.1.clone(), Some("instead of")),
            (put(7), refused(Refusal::LeaseNotFound), Some("the lease was not found")),
            (put(8), refused(Refusal::LeaseNotFound), None),
            (put(0), refused(Refusal::NoSpace), Some("refusal None")),
            (put(0), refused(Refusal::PermissionDenied), Some("refusal None")),
            (delete.0.clone(), delete.1, None),
            (delete.0, deletes_one, Some("instead of")),
            (grant(8), granted(8), None),
            (grant(7), granted(7), Some("lease 7 was granted twice")),
            (grant(8), refused(Refusal::LeaseExists), Some("the lease was said to exist")),
            (revoke(7), revoked(7), None),
            (revoke(8), revoked(8), Some("lease 8 was revoked and is not known")),
            (Request::default(), put_done(2), Some("answers what was not asked for")),
            (alarm(AlarmAction::Activate), alarms(&[5]), None),
            (alarm(AlarmAction::Activate), alarms(&[6]), Some("instead of")),
            (alarm(AlarmAction::Deactivate), alarms(&[5]), Some("instead of")),
        ];
        for (request, said, words) in table {
            match (model().apply(2, &request, &said), words) {
                (Ok(()), None) => {}
                (Err(what), Some(words)) => {
                    assert!(what.contains(words), "{what:?}, not {words:?}")
                }
                (judged, _) => panic!("{judged:?} instead of {words:?}: {request:?}, {said:?}"),
            }
        }
    }

    #[test]
    fn a_full_store_takes_no_put() {
        let mut model = model();
        model.apply(2, &alarm(AlarmAction::Activate), &alarms(&[5])).unwrap();
        assert_eq!(model.apply(3, &put(0), &Applied::Refused(Refusal::NoSpace)), Ok(()));
        assert!(model.apply(3, &put(0), &put_done(2)).is_err());
    }
}
