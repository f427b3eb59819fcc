//! Locks and elections, which are agreements over keys and need nothing from consensus: who wrote
//! the oldest key under a prefix holds the lock or leads, and a lease takes the key away from who is
//! gone.
//!
//! The steps are those of etcd's client library, so that its clients and these services queue up
//! behind one another. Source: etcd client/v3/concurrency/{key,mutex,election,session}.go.

mod changes;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::KeyValue;
use state::{Refusal, Reply};
use tokio::sync::mpsc;

use crate::auth::Caller;
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::traces::about;
use changes::Changes;

/// What a lease that the server grants itself lasts.
const SESSION_TTL_SECONDS: i64 = 60;

/// A key among those that queue up.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    /// The revision at which it was written, which is its place in the queue.
    pub(crate) created: i64,
    pub(crate) lease: i64,
}

/// A lock or an office that was got.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) header: pb::ResponseHeader,
}

/// Why it was not got.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RecipeError {
    /// A step of it was refused.
    #[error(transparent)]
    Step(#[from] ProposeError),
    ///
    #[error("election: not leader")]
    NotLeader,
    ///
    #[error("election: no leader")]
    NoLeader,
    /// The lease ended while its holder waited.
    #[error("mutex: session is expired")]
    SessionExpired,
    /// The rows that would tell were compacted, or cannot be read.
    #[error("lost watcher waiting for delete")]
    LostWatch,
}

impl From<Refusal> for RecipeError {
    fn from(refusal: Refusal) -> Self {
        Self::Step(refusal.into())
    }
}

/// The recipes; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Recipes {
    handle: Handle,
    /// For whom the steps are made, each with that caller's permissions.
    caller: Caller,
}

impl Recipes {
    /// The recipes over a member's keys.
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, caller: Caller::default() }
    }

    /// The same for a caller.
    pub(crate) fn by(&self, caller: Caller) -> Self {
        Self { handle: self.handle.clone(), caller }
    }

    /// Waits until the lock is the caller's. A caller that goes away leaves the queue.
    ///
    /// # Errors
    ///
    /// See [`RecipeError`].
    pub(crate) async fn lock(&self, name: &[u8], lease: i64) -> Result<Held, RecipeError> {
        let prefix = prefix(name);
        let entered = self.enter(&prefix, lease, Bytes::new()).await?;
        let Entered { entry, header, oldest, .. } = entered;
        if oldest.is_none_or(|oldest| oldest == entry.created) {
            return Ok(Held { entry, header });
        }
        let place = Place::new(self, &entry);
        self.wait_for_older(&prefix, entry.created - 1).await?;
        // The lease may have ended meanwhile.
        let (found, header) = self.find(one(entry.key.clone())).await?;
        found.ok_or(RecipeError::SessionExpired)?;
        place.keep();
        Ok(Held { entry, header })
    }

    /// Deletes a key, whoever wrote it.
    ///
    /// # Errors
    ///
    /// See [`RecipeError`].
    pub(crate) async fn unlock(&self, key: Bytes) -> Result<pb::ResponseHeader, RecipeError> {
        let request = pb::DeleteRangeRequest { key, ..Default::default() };
        state::check_delete(&request)?;
        let caller = self.caller.clone().within("delete_range", || about::delete(&request));
        let reply = self.handle.propose_for(&caller, RequestKind::DeleteRange, &request).await?;
        let Reply::Delete(response) = reply else {
            unreachable!("a deletion was answered by {reply:?}")
        };
        Ok(self.header(response.header.as_ref()))
    }

    /// Waits until the caller leads. A caller that goes away leaves the queue.
    ///
    /// # Errors
    ///
    /// See [`RecipeError`].
    pub(crate) async fn campaign(
        &self,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Held, RecipeError> {
        let prefix = prefix(name);
        let Entered { entry, header, former, .. } =
            self.enter(&prefix, lease, value.clone()).await?;
        let place = Place::new(self, &entry);
        if former.is_some_and(|former| former != value) {
            self.proclaim(&entry, value).await?;
        }
        self.wait_for_older(&prefix, entry.created - 1).await?;
        place.keep();
        Ok(Held { entry, header })
    }

    /// Changes the value of who leads.
    ///
    /// # Errors
    ///
    /// `NotLeader` if the key is not the one that was written.
    pub(crate) async fn proclaim(
        &self,
        entry: &Entry,
        value: Bytes,
    ) -> Result<pb::ResponseHeader, RecipeError> {
        let put = Request::RequestPut(pb::PutRequest {
            key: entry.key.clone(),
            value,
            lease: entry.lease,
            ..Default::default()
        });
        let response = self.if_own(entry, put).await?;
        let header = self.header(response.header.as_ref());
        response.succeeded.then_some(header).ok_or(RecipeError::NotLeader)
    }

    /// Leaves the queue, if the key is still the one that was written.
    ///
    /// # Errors
    ///
    /// See [`RecipeError`].
    pub(crate) async fn resign(&self, entry: &Entry) -> Result<pb::ResponseHeader, RecipeError> {
        let key = entry.key.clone();
        let delete = pb::DeleteRangeRequest { key, ..Default::default() };
        let response = self.if_own(entry, Request::RequestDeleteRange(delete)).await?;
        Ok(self.header(response.header.as_ref()))
    }

    /// Who leads.
    ///
    /// # Errors
    ///
    /// `NoLeader`, or see [`RecipeError`].
    pub(crate) async fn leader(
        &self,
        name: &[u8],
    ) -> Result<(KeyValue, pb::ResponseHeader), RecipeError> {
        let (found, header) = self.find(oldest(&prefix(name))).await?;
        found.map(|row| (row, header)).ok_or(RecipeError::NoLeader)
    }

    /// Tells who leads and every value that is proclaimed, as long as somebody listens. Of leaders
    /// that follow one another fast some may be left out, never the newest.
    pub(crate) async fn observe(
        self,
        name: Bytes,
        told: mpsc::Sender<(KeyValue, pb::ResponseHeader)>,
    ) {
        let prefix = prefix(&name);
        let observed = self.observe_leaders(&prefix, &told);
        tokio::select! {
            ended = observed => {
                if let Some(error) = ended.err() {
                    tracing::debug!(error = %error, "observing an election ended");
                }
            }
            () = told.closed() => {}
        }
    }

    async fn observe_leaders(
        &self,
        prefix: &[u8],
        told: &mpsc::Sender<(KeyValue, pb::ResponseHeader)>,
    ) -> Result<(), RecipeError> {
        loop {
            let (found, header) = self.find(oldest(prefix)).await?;
            let (row, header) = match found {
                Some(row) => (row, header),
                None => self.first_put(prefix, header.revision).await?,
            };
            let (key, revision) = (row.key.clone(), header.revision);
            if told.send((row, header)).await.is_err() {
                return Ok(());
            }
            let mut changes = self.changes(key, Bytes::new(), revision + 1).await?;
            while let Some(row) = changes.next().await?.put() {
                let header = self.handle.header(row.mod_revision);
                if told.send((row, header)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// The first key that is written under a prefix from a revision on.
    async fn first_put(
        &self,
        prefix: &[u8],
        revision: i64,
    ) -> Result<(KeyValue, pb::ResponseHeader), RecipeError> {
        let (key, end) = (Bytes::copy_from_slice(prefix), prefix_end(prefix));
        let mut changes = self.changes(key, end, revision).await?;
        loop {
            if let Some(row) = changes.next().await?.put() {
                let header = self.handle.header(row.mod_revision);
                return Ok((row, header));
            }
        }
    }

    /// Writes the caller's key, unless it is there.
    async fn enter(&self, prefix: &[u8], lease: i64, value: Bytes) -> Result<Entered, RecipeError> {
        let lease = self.session(lease).await?;
        let mut key = prefix.to_vec();
        key.extend_from_slice(format!("{lease:x}").as_bytes());
        let key = Bytes::from(key);
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let holder = operation(Request::RequestRange(oldest(prefix)));
        let request = pb::TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![operation(Request::RequestPut(put)), holder.clone()],
            failure: vec![operation(Request::RequestRange(one(key.clone()))), holder],
        };
        let response = self.txn(&request).await?;
        let header = self.header(response.header.as_ref());
        let former = if response.succeeded { None } else { row(&response, 0) };
        let created = former.as_ref().map_or(header.revision, |row| row.create_revision);
        Ok(Entered {
            entry: Entry { key, created, lease },
            header,
            former: former.map(|row| row.value),
            oldest: row(&response, 1).map(|row| row.create_revision),
        })
    }

    /// The lease that keeps the caller's key; 0 asks for a new one.
    async fn session(&self, lease: i64) -> Result<i64, RecipeError> {
        if lease != 0 {
            return Ok(lease);
        }
        let id = self.handle.new_lease_id();
        let request = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id };
        let cost_bytes = state::quota::LEASE_COST_BYTES;
        self.handle.admit_for(&self.caller, &request, cost_bytes).await?;
        let caller = self.caller.clone().within("lease_grant", || about::grant(&request));
        let reply = self.handle.propose_for(&caller, RequestKind::LeaseGrant, &request).await?;
        let Reply::LeaseGrant(response) = reply else {
            unreachable!("a grant was answered by {reply:?}")
        };
        self.handle.metrics().leases.on_grant(response.ttl);
        Ok(response.id)
    }

    /// Waits until nothing under a prefix is as old as `created_max`.
    async fn wait_for_older(&self, prefix: &[u8], created_max: i64) -> Result<(), RecipeError> {
        loop {
            let newest = pb::RangeRequest {
                max_create_revision: created_max,
                sort_order: SortOrder::Descend.into(),
                ..oldest(prefix)
            };
            let (found, header) = self.find(newest).await?;
            let Some(row) = found else { return Ok(()) };
            let mut changes = self.changes(row.key, Bytes::new(), header.revision).await?;
            while changes.next().await?.put().is_some() {}
        }
    }

    /// The first row of a linearizable read.
    async fn find(
        &self,
        request: pb::RangeRequest,
    ) -> Result<(Option<KeyValue>, pb::ResponseHeader), RecipeError> {
        self.handle.linearize().await?;
        let success = vec![operation(Request::RequestRange(request))];
        let request = pb::TxnRequest { success, ..Default::default() };
        let who = self.handle.enter(&self.caller, &request).await?;
        let authorized = self.handle.authorize(&who, &request)?;
        let (steps, response) = self.handle.reads().counted_txn(authorized);
        self.handle.metrics().store.on_read_txn(steps);
        let response = response?;
        self.handle.check_still(&who, &request)?;
        Ok((row(&response, 0), self.header(response.header.as_ref())))
    }

    async fn changes(
        &self,
        key: Bytes,
        range_end: Bytes,
        revision: i64,
    ) -> Result<Changes, RecipeError> {
        let (watched, watched_end) = (key.clone(), range_end.clone());
        let request =
            pb::WatchCreateRequest { key: watched, range_end: watched_end, ..Default::default() };
        let who = self.handle.enter(&self.caller, &request).await?;
        self.handle.authorize(&who, &request)?;
        let keys = base::KeyRange::from_wire(key, range_end);
        Changes::watch(&self.handle, keys, revision, (who, request))
    }

    async fn if_own(&self, entry: &Entry, then: Request) -> Result<pb::TxnResponse, RecipeError> {
        let request = pb::TxnRequest {
            compare: vec![created_at(entry.key.clone(), entry.created)],
            success: vec![operation(then)],
            failure: Vec::new(),
        };
        self.txn(&request).await
    }

    async fn txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, RecipeError> {
        state::check_txn(request, self.handle.limits().txn_ops_max)?;
        let cost_bytes = state::quota::txn_cost_bytes(request);
        self.handle.admit_for(&self.caller, request, cost_bytes).await?;
        let caller = self.caller.clone().within("txn", || about::txn(request));
        let reply = self.handle.propose_for(&caller, RequestKind::Txn, request).await?;
        let Reply::Txn(response) = reply else { unreachable!("a txn was answered by {reply:?}") };
        Ok(response)
    }

    fn header(&self, header: Option<&pb::ResponseHeader>) -> pb::ResponseHeader {
        self.handle.header(header.map_or(0, |header| header.revision))
    }
}

/// A key that has its place in the queue.
struct Entered {
    entry: Entry,
    header: pb::ResponseHeader,
    /// The value it had before, if it was there.
    former: Option<Bytes>,
    /// When the oldest key under the prefix was written.
    oldest: Option<i64>,
}

/// A place in the queue, which is left if whoever waits goes away.
struct Place<'a> {
    recipes: &'a Recipes,
    entry: &'a Entry,
    is_kept: bool,
}

impl<'a> Place<'a> {
    fn new(recipes: &'a Recipes, entry: &'a Entry) -> Self {
        Self { recipes, entry, is_kept: false }
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_kept {
            return;
        }
        let (recipes, entry) = (self.recipes.clone(), self.entry.clone());
        runtime.spawn(async move {
            // If this fails, too, the lease takes the key away.
            if let Err(error) = recipes.resign(&entry).await {
                tracing::debug!(error = %error, "a place in a queue could not be left");
            }
        });
    }
}

///
fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The end of the keys under a prefix, which ends with `/`.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let name = prefix.strip_suffix(b"/").expect("every prefix is a name's");
    Bytes::from([name, &[b'/' + 1]].concat())
}

fn one(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key, ..Default::default() }
}

/// A read of the key under a prefix that was created first.
fn oldest(prefix: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..Default::default()
    }
}

fn created_at(key: Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The first row of a read in a transaction.
fn row(response: &pb::TxnResponse, number: usize) -> Option<KeyValue> {
    match response.responses.get(number)?.response.as_ref()? {
        Response::ResponseRange(range) => range.kvs.first().cloned(),
        Response::ResponsePut(_) | Response::ResponseDeleteRange(_) | Response::ResponseTxn(_) => {
            None
        }
    }
}
