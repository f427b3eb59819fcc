//! Keys that this proxy owns: it answers reads of them alone, until somebody wants to write.
//!
//! A key is owned by whoever holds a key of the same name under the leasing prefix, with a lease.
//! Whoever writes makes sure in the same transaction that nobody owns what is written; an owner is
//! asked to let go by `REVOKE` in its key. The keys are those of etcd's proxies, so that both can
//! stand before one cluster.
//!
//! Invariants:
//! - An answer is given from memory only while the session's lease certainly lives and no write to
//!   the key is under way here.
//! - The memory is given up before the key that says so is deleted.
//! - Only callers without a token are answered from memory: what a token may see is for members to
//!   say.
//!
//! Source: etcd client/v3/leasing. Different from it: one watch for all owned keys, no memory of
//! writes, and no write is sent again after an unknown end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::WatchOptions;
use parking_lot::Mutex;
use prost::Message as _;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::response_op::Response as Outcome;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
    TxnResponse,
};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;
use tokio::time::Instant;
use tonic::Status;

use crate::caller::Caller;
use crate::upstream::Upstream;

use super::{Namespace, Store};

/// How long an owner that is gone owns. The same as etcd's.
const TTL_SECONDS: i64 = 60;

/// A key that was given up is not taken again for this time. The same as etcd's.
const REVOKE_PAUSE: Duration = Duration::from_secs(2);

/// Between two looks whether an owner has let go.
const RESCIND_PAUSE: Duration = Duration::from_millis(20);

/// Before another session after one that failed.
const SESSION_PAUSE: Duration = Duration::from_millis(500);

/// Keys that are owned at a time, and that are remembered as given up.
const OWNED_MAX: usize = 2048;

/// An answer that is kept. Larger ones are read each time.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What an owner is told.
const REVOKE: &[u8] = b"REVOKE";

/// What this proxy owns.
#[derive(Debug)]
pub(crate) struct Leasing {
    store: Store,
    /// Where owners say so.
    marks: Namespace,
    owned: Mutex<Owned>,
}

#[derive(Debug, Default)]
struct Owned {
    session: Option<Session>,
    answers: HashMap<Bytes, Answer>,
    /// Writes under way.
    blocked: HashMap<u64, Vec<(Bytes, Bytes)>>,
    /// Writes so far, and keys given up.
    changes: u64,
    given_up: HashMap<Bytes, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    lease: i64,
    valid_until: Instant,
}

#[derive(Debug)]
struct Answer {
    response: RangeResponse,
    /// At which it was owned.
    revision: i64,
}

impl Leasing {
    pub(crate) fn new(store: Store, prefix: Bytes) -> Arc<Self> {
        Arc::new(Self { store, marks: Namespace::new(prefix), owned: Mutex::default() })
    }

    /// Keeps a session, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            if let Err(error) = self.session().await {
                tracing::warn!(error, "the session of the leasing prefix ended");
            }
            self.owned.lock().end_session();
            tokio::time::sleep(SESSION_PAUSE).await;
        }
    }

    /// One session, to its end.
    async fn session(&self) -> Result<(), String> {
        let client = self.store.upstream().client();
        let client = client.with_command_timeout(Some(TTL / 3));
        let grant = LeaseGrantRequest { ttl: TTL_SECONDS, ..LeaseGrantRequest::default() };
        let began = Instant::now();
        let granted = client.lease_grant(grant).await.map_err(|error| error.to_string())?;
        let lease = granted.id;
        let mut options = WatchOptions {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: granted.header.map_or(0, |header| header.revision + 1),
            ..WatchOptions::default()
        };
        self.enter(&mut options.key, &mut options.range_end);
        self.store.namespace().enter(&mut options.key, &mut options.range_end);
        let mut watcher = client.watch(options);
        self.owned.lock().session = Some(Session { lease, valid_until: began + TTL });
        let renewing = async {
            loop {
                tokio::time::sleep(TTL / 3).await;
                let began = Instant::now();
                if let Err(error) = client.lease_keep_alive_once(lease).await {
                    return error.to_string();
                }
                self.owned.lock().session = Some(Session { lease, valid_until: began + TTL });
            }
        };
        let watching = async {
            while let Some(Ok(mut response)) = watcher.next().await {
                self.store.namespace().leave_events(&mut response.events);
                for event in response.events {
                    let is_put = event.r#type() == EventType::Put;
                    let Some(mark) = event.kv else { continue };
                    if !is_put {
                        self.on_gone(&mark);
                    } else if mark.lease == lease
                        && mark.value == REVOKE
                        && let Err(status) = self.rescind(&mark).await
                    {
                        return status.message().to_owned();
                    }
                }
            }
            "the watch of the leasing prefix ended".to_owned()
        };
        let why = tokio::select! {
            why = renewing => why,
            why = watching => why,
        };
        self.owned.lock().end_session();
        // Others need not wait until it ends by itself.
        client.lease_revoke(LeaseRevokeRequest { id: lease }).await.ok();
        Err(why)
    }

    /// Under the prefix, as [`Namespace::enter`].
    fn enter(&self, key: &mut Bytes, range_end: &mut Bytes) {
        self.marks.enter(key, range_end);
    }

    /// Forgets all answers, those under way too. What is owned stays so.
    pub(super) fn forget_all(&self) {
        let mut owned = self.owned.lock();
        owned.answers.clear();
        owned.changes += 1;
    }

    /// A mark was deleted, perhaps by somebody who had no right to.
    fn on_gone(&self, mark: &KeyValue) {
        let Some(key) = self.marks.leave_key(&mark.key) else { return };
        let mut owned = self.owned.lock();
        owned.changes += 1;
        if owned.answers.get(&key).is_some_and(|answer| answer.revision < mark.mod_revision) {
            owned.answers.remove(&key);
        }
    }

    /// Lets a key go.
    async fn rescind(&self, mark: &KeyValue) -> Result<(), Status> {
        if let Some(key) = self.marks.leave_key(&mark.key) {
            let mut owned = self.owned.lock();
            owned.changes += 1;
            owned.answers.remove(&key);
            let now = Instant::now();
            owned.given_up.retain(|_, at| now < *at + REVOKE_PAUSE);
            if owned.given_up.len() < OWNED_MAX {
                // Not a part of the message that it came in.
                owned.given_up.insert(Bytes::copy_from_slice(&key), now);
            }
        }
        let still = compare(&mark.key, TargetUnion::CreateRevision(mark.create_revision));
        let delete = DeleteRangeRequest { key: mark.key.clone(), ..DeleteRangeRequest::default() };
        let txn = TxnRequest {
            compare: vec![still],
            success: vec![op(Operation::RequestDeleteRange(delete))],
            ..TxnRequest::default()
        };
        self.store.txn(&Upstream::own(), txn).await.map(drop)
    }

    /// Reads, from memory if the key is owned; a key that nobody owns is taken.
    pub(crate) async fn range(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        let key = request.key.clone();
        let (lease, changes) = match self.look(caller, &request) {
            Look::Known(response) => return Ok(response),
            Look::Elsewhere => return self.store.range(caller, request).await,
            Look::Free { lease, changes } => (lease, changes),
        };
        let (response, is_ours) = self.acquire(caller, &key, lease).await?;
        if is_ours
            && response.encoded_len() <= ANSWER_BYTES_MAX
            && let Some(kept) = super::cache::detached(&response)
        {
            let mut owned = self.owned.lock();
            let is_same = owned.session.is_some_and(|session| session.lease == lease);
            if is_same && owned.changes == changes && !owned.is_blocked(&key) {
                let revision = response.header.map_or(0, |header| header.revision);
                let key = Bytes::copy_from_slice(&key);
                owned.answers.insert(key, Answer { response: kept, revision });
            }
        }
        Ok(shown(response, &request))
    }

    /// What can be done about a read here.
    fn look(&self, caller: &Caller, request: &RangeRequest) -> Look {
        let RangeRequest { key, range_end, revision, serializable, .. } = request;
        let owned = self.owned.lock();
        let is_plain = range_end.is_empty() && *revision == 0 && !key.is_empty();
        let may = is_plain && caller.identity.token().is_none() && !owned.is_blocked(key);
        let Some(session) = owned.session.filter(|_| may) else { return Look::Elsewhere };
        let now = Instant::now();
        if now < session.valid_until
            && let Some(answer) = owned.answers.get(key)
        {
            return Look::Known(shown(answer.response.clone(), request));
        }
        let given_up = owned.given_up.get(key).is_some_and(|at| now < *at + REVOKE_PAUSE);
        if *serializable || given_up || OWNED_MAX <= owned.answers.len() {
            return Look::Elsewhere;
        }
        Look::Free { lease: session.lease, changes: owned.changes }
    }

    /// Reads a key and takes it if nobody has it; whether it is ours then.
    async fn acquire(
        &self,
        caller: &Caller,
        key: &Bytes,
        lease: i64,
    ) -> Result<(RangeResponse, bool), Status> {
        let mut mark = key.clone();
        self.enter(&mut mark, &mut Bytes::new());
        let read = |key: &Bytes| {
            let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
            op(Operation::RequestRange(read))
        };
        let take = PutRequest { key: mark.clone(), lease, ..PutRequest::default() };
        let txn = TxnRequest {
            // What goes away by itself cannot be owned.
            compare: vec![
                compare(&mark, TargetUnion::CreateRevision(0)),
                compare(key, TargetUnion::Lease(0)),
            ],
            success: vec![read(key), op(Operation::RequestPut(take))],
            failure: vec![read(key), read(&mark)],
        };
        let done = self.store.txn(caller, txn).await?;
        let mut responses = done.responses.into_iter().map(|outcome| outcome.response);
        let Some(Some(Outcome::ResponseRange(mut response))) = responses.next() else {
            return Err(Status::internal("a member did not answer a read"));
        };
        response.header = done.header;
        let is_ours = match responses.next() {
            Some(Some(Outcome::ResponsePut(_))) => done.succeeded,
            Some(Some(Outcome::ResponseRange(marks))) => {
                is_mine(&marks.kvs, lease) && response.kvs.iter().all(|pair| pair.lease == 0)
            }
            Some(_) | None => false,
        };
        Ok((response, is_ours))
    }

    pub(crate) async fn put(
        &self,
        caller: &Caller,
        request: PutRequest,
    ) -> Result<PutResponse, Status> {
        self.store.namespace().check_key(&request.key)?;
        let ranges = vec![(request.key.clone(), Bytes::new())];
        let (header, outcome) = self.write(caller, ranges, Operation::RequestPut(request)).await?;
        match outcome {
            Outcome::ResponsePut(response) => Ok(PutResponse { header, ..response }),
            Outcome::ResponseRange(_)
            | Outcome::ResponseDeleteRange(_)
            | Outcome::ResponseTxn(_) => Err(mixed()),
        }
    }

    pub(crate) async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        self.store.namespace().check_key(&request.key)?;
        let ranges = vec![(request.key.clone(), request.range_end.clone())];
        let write = self.write(caller, ranges, Operation::RequestDeleteRange(request));
        let (header, outcome) = write.await?;
        match outcome {
            Outcome::ResponseDeleteRange(response) => {
                Ok(DeleteRangeResponse { header, ..response })
            }
            Outcome::ResponseRange(_) | Outcome::ResponsePut(_) | Outcome::ResponseTxn(_) => {
                Err(mixed())
            }
        }
    }

    pub(crate) async fn txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        let mut ranges = Vec::new();
        super::writes(&request, &mut ranges);
        if ranges.is_empty() {
            return self.store.txn(caller, request).await;
        }
        let (header, outcome) = self.write(caller, ranges, Operation::RequestTxn(request)).await?;
        match outcome {
            Outcome::ResponseTxn(response) => Ok(TxnResponse { header, ..response }),
            Outcome::ResponseRange(_)
            | Outcome::ResponsePut(_)
            | Outcome::ResponseDeleteRange(_) => Err(mixed()),
        }
    }

    /// Writes when nobody else owns what is written; asks owners to let go until then.
    async fn write(
        &self,
        caller: &Caller,
        ranges: Vec<(Bytes, Bytes)>,
        operation: Operation,
    ) -> Result<(Option<ResponseHeader>, Outcome), Status> {
        let mut blocking = Blocking::new(self, ranges);
        loop {
            let guards = blocking.ranges.iter().zip(&blocking.allowed);
            let guards = guards.map(|((key, range_end), allowed)| {
                let (mut key, mut range_end) = (key.clone(), range_end.clone());
                self.enter(&mut key, &mut range_end);
                let mut guard = compare(&key, TargetUnion::CreateRevision(allowed + 1));
                guard.result = CompareResult::Less.into();
                guard.range_end = range_end;
                guard
            });
            let txn = TxnRequest {
                compare: guards.collect(),
                success: vec![op(operation.clone())],
                ..TxnRequest::default()
            };
            let done = self.store.txn(caller, txn).await?;
            if done.succeeded {
                let outcome = done.responses.into_iter().next();
                let outcome = outcome.and_then(|outcome| outcome.response);
                return Ok((done.header, outcome.ok_or_else(mixed)?));
            }
            self.take_from_others(caller, &mut blocking).await?;
        }
    }

    /// Asks all owners of what is written to let go, and waits until they did.
    async fn take_from_others(
        &self,
        caller: &Caller,
        blocking: &mut Blocking<'_>,
    ) -> Result<(), Status> {
        let own = self.owned.lock().session.map(|session| session.lease);
        for ((key, range_end), allowed) in blocking.ranges.iter().zip(&mut blocking.allowed) {
            let (mut key, mut range_end) = (key.clone(), range_end.clone());
            self.enter(&mut key, &mut range_end);
            let read = RangeRequest { key, range_end, ..RangeRequest::default() };
            for mark in self.store.range(caller, read).await?.kvs {
                *allowed = (*allowed).max(mark.create_revision);
                if own != Some(mark.lease) {
                    self.revoke(caller, &mark).await?;
                }
            }
        }
        Ok(())
    }

    async fn revoke(&self, caller: &Caller, mark: &KeyValue) -> Result<(), Status> {
        let still = || compare(&mark.key, TargetUnion::CreateRevision(mark.create_revision));
        let put = PutRequest {
            key: mark.key.clone(),
            value: Bytes::from_static(REVOKE),
            ignore_lease: true,
            ..PutRequest::default()
        };
        let txn = TxnRequest {
            compare: vec![still()],
            success: vec![op(Operation::RequestPut(put))],
            ..TxnRequest::default()
        };
        let mut is_there = self.store.txn(caller, txn).await?.succeeded;
        while is_there {
            tokio::time::sleep(RESCIND_PAUSE).await;
            let look = TxnRequest { compare: vec![still()], ..TxnRequest::default() };
            is_there = self.store.txn(caller, look).await?.succeeded;
        }
        Ok(())
    }
}

const TTL: Duration = Duration::from_secs(60);

impl Owned {
    /// Nothing is owned any more. Writes that are under way stay so: the next session must not
    /// answer what they may change.
    fn end_session(&mut self) {
        self.session = None;
        self.answers.clear();
        self.changes += 1;
    }

    fn is_blocked(&self, key: &Bytes) -> bool {
        let mut ranges = self.blocked.values().flatten();
        ranges.any(|(from, end)| super::cache::is_inside(key, from, end))
    }
}

/// What can be done about a read.
enum Look {
    /// It is answered.
    Known(RangeResponse),
    /// A member is to answer, and nothing is owned.
    Elsewhere,
    /// The key may be taken; what had changed so far.
    Free { lease: i64, changes: u64 },
}

/// While it lives, what it names is not answered from memory.
struct Blocking<'a> {
    leasing: &'a Leasing,
    ranges: Vec<(Bytes, Bytes)>,
    /// Marks up to this creation are no hindrance, for each range: they are ours, or gone.
    allowed: Vec<i64>,
    number: u64,
}

impl<'a> Blocking<'a> {
    fn new(leasing: &'a Leasing, ranges: Vec<(Bytes, Bytes)>) -> Self {
        let mut owned = leasing.owned.lock();
        owned.changes += 1;
        let number = owned.changes;
        let mut allowed = Vec::new();
        for (key, range_end) in &ranges {
            let before = owned.answers.get(key).filter(|_| range_end.is_empty());
            allowed.push(before.map_or(0, |answer| answer.revision));
        }
        owned.answers.retain(|owned, _| {
            !ranges.iter().any(|(key, end)| super::cache::is_inside(owned, key, end))
        });
        owned.blocked.insert(number, ranges.clone());
        drop(owned);
        Self { leasing, ranges, allowed, number }
    }
}

impl Drop for Blocking<'_> {
    fn drop(&mut self) {
        let mut owned = self.leasing.owned.lock();
        owned.changes += 1;
        owned.blocked.remove(&self.number);
    }
}

/// Whether what stands at a mark says that the key is owned here, and is to stay so.
fn is_mine(marks: &[KeyValue], lease: i64) -> bool {
    marks.first().is_some_and(|mark| mark.lease == lease && mark.value != REVOKE)
}

fn op(operation: Operation) -> RequestOp {
    RequestOp { request: Some(operation) }
}

/// That a key is as given.
fn compare(key: &Bytes, target: TargetUnion) -> Compare {
    let kind = if matches!(target, TargetUnion::Lease(_)) {
        CompareTarget::Lease
    } else {
        CompareTarget::Create
    };
    Compare {
        key: key.clone(),
        target: kind.into(),
        result: CompareResult::Equal.into(),
        target_union: Some(target),
        ..Compare::default()
    }
}

fn mixed() -> Status {
    Status::internal("a member answered something else than it was asked")
}

/// What of an answer about one key a request shows.
fn shown(mut response: RangeResponse, request: &RangeRequest) -> RangeResponse {
    let fits = |value: i64, min: i64, max: i64| min <= value && (max == 0 || value <= max);
    response.kvs.retain(|pair| {
        fits(pair.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && fits(pair.create_revision, request.min_create_revision, request.max_create_revision)
    });
    if request.count_only {
        response.kvs.clear();
    }
    if request.keys_only {
        response.kvs.iter_mut().for_each(|pair| pair.value = Bytes::new());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-179: a write that outlives a session still hides what it may change.
    #[test]
    fn writes_under_way_outlive_a_session() {
        let key = Bytes::from_static(b"a");
        let mut owned = Owned { changes: 7, ..Owned::default() };
        owned.session = Some(Session { lease: 1, valid_until: Instant::now() });
        owned.blocked.insert(7, vec![(key.clone(), Bytes::new())]);
        owned.given_up.insert(key.clone(), Instant::now());
        let answer = Answer { response: RangeResponse::default(), revision: 1 };
        owned.answers.insert(key.clone(), answer);
        owned.end_session();
        assert!(owned.session.is_none() && owned.answers.is_empty());
        assert!(owned.is_blocked(&key) && owned.given_up.contains_key(&key));
        assert_eq!(owned.changes, 8);
    }

    /// SRV-179: a key that is to be let go is not taken again.
    #[test]
    fn a_revoked_mark_is_nobodys() {
        let mark = |lease, value| {
            vec![KeyValue { lease, value: Bytes::from_static(value), ..KeyValue::default() }]
        };
        assert!(is_mine(&mark(5, b""), 5));
        assert!(!is_mine(&mark(5, REVOKE), 5));
        assert!(!is_mine(&mark(6, b""), 5));
        assert!(!is_mine(&[], 5));
    }
}
