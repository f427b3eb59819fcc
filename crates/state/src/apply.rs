//! One committed entry after the other: from the payload to the effects and the answer.
//!
//! Nothing here but the dispatch: what a command means is in the module of its noun.

use std::sync::Arc;

use base::{LeaseId, LogPosition};
use mvcc::Writer;
use prost::Message as _;
use proto::{etcdserverpb as pb, raftpb};

use crate::auth::gate::{Authorized, Guarded};
use crate::auth::{self, Identity, Tokens};
use crate::command::{Command, Request};
use crate::kv::{self, Changes, header};
use crate::lease::Leases;
use crate::members::Change;
use crate::schema::{self, Facts};
use crate::txn::{Path, RevisionBounds};
use crate::view::Stop;
use crate::{
    Applied, AuthReply, Committed, Halt, MemberChange, Operation, Options, Outcome, Payload,
    Refusal, Reply, Steps, Tally, quota, v2,
};

/// Everything a batch of entries may read and change.
#[derive(Debug)]
pub(crate) struct Applier<'s> {
    pub(crate) writer: Writer<'s>,
    pub(crate) leases: &'s mut Leases,
    pub(crate) facts: &'s mut Facts,
    pub(crate) options: &'s Options,
    pub(crate) compact_revision: &'s mut i64,
    pub(crate) v2: &'s mut v2store::Store,
    pub(crate) tokens: &'s Tokens,
    pub(crate) tally: &'s mut Tally,
    pub(crate) facts_changed: bool,
    /// Who may do what is another since some entry: the batch ends with it.
    pub(crate) auth_changed: bool,
    /// Who asked for what only administrators may was none: that is not counted.
    pub(crate) turned_away: bool,
}

impl Applier<'_> {
    pub(crate) fn entry(&mut self, entry: &Committed) -> Result<Outcome, Halt> {
        let position = entry.position;
        let outcome =
            |request_id, applied, change| Outcome { position, request_id, applied, change };
        match &entry.payload {
            Payload::MemberChange(_) => base::probe::failpoint("beforeApplyOneConfChange"),
            Payload::Nothing | Payload::Request(_) => {
                base::probe::failpoint("beforeApplyOneEntryNormal")
            }
        };
        match &entry.payload {
            Payload::Nothing => Ok(outcome(0, Applied::Done(Reply::None), None)),
            Payload::Request(bytes) if bytes.is_empty() => {
                Ok(outcome(0, Applied::Done(Reply::None), None))
            }
            Payload::Request(bytes) => {
                let request = Request::decode(bytes).ok_or(Halt::Unknown { position })?;
                let operation = Operation::of(&request.command);
                self.turned_away = false;
                let done = self.command(&request.who, request.command, position);
                if let Some(operation) = operation.filter(|_| !self.turned_away)
                    && let Some(done) = is_success(&done)
                {
                    self.tally.count(operation, done);
                }
                let applied = applied(done, position)?;
                Ok(outcome(request.id, applied, None))
            }
            Payload::MemberChange(bytes) => {
                let message = raftpb::ConfChange::decode(bytes.clone()).ok();
                let message = message.ok_or(Halt::Unknown { position })?;
                let change = Change::decode(&message).ok_or(Halt::Unknown { position })?;
                let (applied, change) = self.member_change(change);
                Ok(outcome(message.id(), applied, Some(change)))
            }
        }
    }

    fn command(
        &mut self,
        who: &Identity,
        command: Command,
        position: LogPosition,
    ) -> Result<Reply, Stop> {
        match command {
            Command::Put(request) => self.put(who, &request).map(Reply::Put),
            Command::Delete(request) => self.delete(who, &request).map(Reply::Delete),
            Command::Txn(request) => self.txn(who, &request).map(Reply::Txn),
            Command::Compact(request) => self.compact(&request).map(Reply::Compact),
            Command::LeaseGrant(request) => self.lease_grant(&request).map(Reply::LeaseGrant),
            Command::LeaseRevoke(request) => {
                let id = LeaseId(request.id);
                self.lease_revoke(who, &request).map(|response| Reply::LeaseRevoke(id, response))
            }
            Command::LeaseCheckpoint(request) => {
                self.lease_checkpoint(&request);
                Ok(Reply::None)
            }
            Command::Alarm(request) => {
                self.facts_changed = true;
                let alarms = self.facts.alarms.request(&request, self.writer.batch());
                let header = header(self.writer.revision());
                Ok(Reply::Alarm(pb::AlarmResponse { header, alarms }))
            }
            Command::Auth(request) => {
                let reply = self.auth(who, &request, position)?;
                Ok(Reply::Auth { revision: self.writer.revision(), reply })
            }
            Command::SetClusterVersion(version) => {
                self.facts_changed = true;
                let before = self.facts.versions.cluster.clone();
                self.facts.versions.set_cluster(&version, self.writer.batch());
                if self.facts.versions.cluster != before {
                    v2::advance(1, self.v2, self.writer.batch());
                }
                Ok(Reply::None)
            }
            Command::SetMemberAttributes { id, attributes } => {
                self.facts_changed = true;
                if self.facts.members.set_attributes(id, attributes, self.writer.batch()) {
                    v2::advance(1, self.v2, self.writer.batch());
                }
                Ok(Reply::None)
            }
            Command::SetDowngrade(request) => {
                self.facts_changed = true;
                self.facts.versions.set_downgrade(&request, self.writer.batch());
                Ok(Reply::None)
            }
            Command::V2(request) => Ok(request.apply(self.v2, self.writer.batch())),
            Command::Range | Command::DowngradeVersionTest => Ok(Reply::None),
        }
    }

    /// Whether whoever asks may, as it is when the entry is applied.
    fn authorize<'r, R: Guarded>(
        &self,
        who: &Identity,
        request: &'r R,
    ) -> Result<Authorized<'r, R>, Refusal> {
        let is_full = self.facts.alarms.has(pb::AlarmType::Nospace);
        if is_full && base::probe::mutant("full-quota-opens-the-gate") {
            return Ok(Authorized::own(request));
        }
        self.facts.auth.authorize(who, request, self.leases)
    }

    fn auth(
        &mut self,
        who: &Identity,
        request: &auth::request::Request,
        position: LogPosition,
    ) -> Result<AuthReply, Refusal> {
        if let Err(refusal) = self.authorize(who, request) {
            self.turned_away = request.is_for_administrators();
            return Err(refusal);
        }
        let index = position.index;
        match request {
            auth::request::Request::Read(question) => {
                let is_before = self.facts.versions.names_tokens_by_entry_before();
                let index = base::Index(index.0 - u64::from(is_before));
                self.facts.auth.answer(question, index, self.tokens)
            }
            auth::request::Request::Change(change) => {
                self.facts_changed = true;
                let (tokens, batch) = (self.tokens, self.writer.batch());
                let mut context = auth::Context { index, tokens, batch };
                let auth = Arc::make_mut(&mut self.facts.auth);
                let before = auth.version();
                let reply = auth.manage(change, &mut context);
                self.auth_changed |= auth.version() != before;
                reply
            }
        }
    }

    fn put(&mut self, who: &Identity, request: &pb::PutRequest) -> Result<pb::PutResponse, Stop> {
        self.facts.alarms.admit(quota::put_cost_bytes(request))?;
        let request = &*self.authorize(who, request)?;
        let mut txn = self.writer.txn();
        let mut checks = Steps::default();
        let checked = kv::check_put(&txn, self.leases, request, &mut checks);
        if let Err(stop) = checked {
            self.tally.end(checks);
            return Err(stop);
        }
        let mut changes = Changes::new(&mut txn, self.leases);
        let done = changes.put(request);
        self.tally.end(changes.steps);
        done
    }

    fn delete(
        &mut self,
        who: &Identity,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Stop> {
        self.facts.alarms.admit_healthy()?;
        let request = &*self.authorize(who, request)?;
        let mut txn = self.writer.txn();
        let mut changes = Changes::new(&mut txn, self.leases);
        let done = changes.delete(request);
        self.tally.end(changes.steps);
        done
    }

    fn txn(&mut self, who: &Identity, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Stop> {
        self.facts.alarms.admit(quota::txn_cost_bytes(request))?;
        let request = &*self.authorize(who, request)?;
        let bounds =
            RevisionBounds { newest: self.writer.revision(), compacted: *self.compact_revision };
        let mut txn = self.writer.txn();
        let mut checks = Steps::default();
        let chosen = Path::choose(&txn, request, &mut checks).and_then(|path| {
            path.check(&txn, self.leases, bounds, &mut checks)?;
            Ok(path)
        });
        self.tally.end(checks);
        let path = chosen?;
        let mut changes = Changes::new(&mut txn, self.leases);
        let executed = path.execute(&mut changes);
        self.tally.end(changes.steps);
        if let Err(Stop::Refused(refusal)) = &executed {
            panic!("a transaction was refused when it was half done: {refusal}");
        }
        executed
    }

    fn compact(&mut self, request: &pb::CompactionRequest) -> Result<pb::CompactionResponse, Stop> {
        self.facts.alarms.admit_healthy()?;
        self.writer.compact(request.revision).map_err(Refusal::from)?;
        *self.compact_revision = request.revision;
        // For the revision of its answer etcd reads a key, and counts that.
        self.tally.end(Steps { ranges: 1, ..Steps::default() });
        Ok(pb::CompactionResponse { header: header(self.writer.revision()) })
    }

    fn lease_grant(
        &mut self,
        request: &pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, Stop> {
        self.facts.alarms.admit(quota::LEASE_COST_BYTES)?;
        let id = LeaseId(request.id);
        let ttl = self.leases.grant(id, request.ttl, self.options.lease_ttl_seconds_min)?;
        if !base::probe::mutant("granted-lease-is-not-stored") {
            self.store_lease(id);
        }
        Ok(pb::LeaseGrantResponse {
            header: header(self.writer.revision()),
            id: request.id,
            ttl,
            error: String::new(),
        })
    }

    /// Deletes the keys in byte order and in one revision, then the lease.
    fn lease_revoke(
        &mut self,
        who: &Identity,
        request: &pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Stop> {
        self.facts.alarms.admit_healthy()?;
        let request = &*self.authorize(who, request)?;
        let id = LeaseId(request.id);
        let keys = self.leases.keys(id)?;
        if !keys.is_empty() {
            base::probe::reached("state: a lease takes its keys");
            let mut txn = self.writer.txn();
            let mut changes = Changes::new(&mut txn, self.leases);
            let spared = usize::from(base::probe::mutant("lease-spares-a-key"));
            for key in keys.into_iter().skip(spared) {
                changes.delete_key(key)?;
            }
            self.tally.end(changes.steps);
        }
        self.leases.remove(id);
        self.writer.batch().delete(backend::Bucket::Lease, &schema::lease_key(id));
        Ok(pb::LeaseRevokeResponse { header: header(self.writer.revision()) })
    }

    /// Notes how long leases have left. Members older than 3.6 do not store it.
    fn lease_checkpoint(&mut self, request: &pb::LeaseCheckpointRequest) {
        let persist = self.facts.versions.persists_checkpoints();
        for checkpoint in &request.checkpoints {
            let id = LeaseId(checkpoint.id);
            if self.leases.checkpoint(id, checkpoint.remaining_ttl) && persist {
                self.store_lease(id);
            }
        }
    }

    fn store_lease(&mut self, id: LeaseId) {
        let lease = self.leases.stored(id).expect("a lease is stored while it exists");
        let value = lease.encode_to_vec().into();
        self.writer.batch().put(backend::Bucket::Lease, &schema::lease_key(id), value);
    }

    fn member_change(&mut self, change: Change) -> (Applied, MemberChange) {
        let learners_max = self.options.learners_max;
        let v2_writes = v2::writes_for(&change);
        let batch = self.writer.batch();
        match self.facts.members.change(change, learners_max, batch) {
            Ok(meaning) => {
                v2::advance(v2_writes, self.v2, batch);
                self.facts_changed = true;
                (Applied::Done(Reply::Members(self.facts.members.list())), meaning)
            }
            Err(refusal) => (Applied::Refused(refusal), MemberChange::None),
        }
    }
}

/// Whether etcd counts it as a success: that a revision is compacted already is no failure. `None`
/// for an entry that was not applied.
fn is_success(done: &Result<Reply, Stop>) -> Option<bool> {
    match done {
        Ok(Reply::V2(answer)) => Some(answer.is_ok()),
        Ok(_) => Some(true),
        Err(Stop::Refused(refusal)) => Some(*refusal == Refusal::Compacted),
        Err(Stop::Broken(_)) => None,
    }
}

fn applied(result: Result<Reply, Stop>, position: LogPosition) -> Result<Applied, Halt> {
    match result {
        Ok(reply) => Ok(Applied::Done(reply)),
        Err(Stop::Refused(refusal)) => Ok(Applied::Refused(refusal)),
        Err(Stop::Broken(source)) => Err(Halt::Backend { position, source }),
    }
}
