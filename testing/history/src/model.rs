//! The reference model: a key space with etcd's meaning of every request, in the plainest form.
//!
//! Every version of every key is kept, so that any revision can be read. A call is executed on an
//! overlay of one revision; only [`Store::apply`] makes its changes part of the store, and
//! [`Store::undo`] takes the newest revision back.
//!
//! Not modelled: limits on requests, authentication, the v2 generation, whether a lease exists.
//!
//! etcd: `server/etcdserver/txn`, `server/storage/mvcc`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use crate::record::{Answer, Call};

/// One key at the revisions at which it changed; `None` where it was deleted.
type Versions = Vec<(i64, Option<KeyValue>)>;

/// The key space with its whole past.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    revision: i64,
    keys: BTreeMap<Bytes, Versions>,
    /// The keys of each lease, now.
    attached: BTreeMap<i64, BTreeSet<Bytes>>,
    /// What each revision changed; deletions and puts with the pair before.
    log: BTreeMap<i64, Vec<Event>>,
}

/// What a call would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed {
    /// The answer, without headers.
    pub answer: Answer,
    /// The changes, in order, with the pairs before; none if no revision is taken.
    pub events: Vec<Event>,
}

/// The model refuses a call: an etcd server would answer with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A put keeps value or lease of a key that is not there.
    #[error("key not found")]
    KeyMissing,
    /// A read of a revision that is not there yet.
    #[error("required revision is a future revision")]
    Future,
    /// The call has no meaning to the key space.
    #[error("no call to the key space")]
    NotModelled,
}

/// Whether a key is in a range as etcd writes ranges: no end for one key, a zero byte for "to the
/// last key".
pub(crate) fn in_range(key: &Bytes, first: &Bytes, end: &Bytes) -> bool {
    if end.is_empty() {
        return key == first;
    }
    first <= key && (end == &b"\0"[..] || key < end)
}

impl Store {
    /// A store that begins with these pairs.
    #[must_use]
    pub fn new(revision: i64, pairs: &[KeyValue]) -> Self {
        let mut store = Self { revision, ..Self::default() };
        for pair in pairs {
            store.push(&pair.key, pair.mod_revision, Some(pair.clone()));
        }
        store
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What a revision changed.
    #[must_use]
    pub fn events(&self, revision: i64) -> &[Event] {
        self.log.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// What the revisions of a range changed, in order.
    pub fn log(
        &self,
        revisions: impl std::ops::RangeBounds<i64>,
    ) -> impl Iterator<Item = (i64, &Event)> {
        let log = self.log.range(revisions);
        log.flat_map(|(revision, events)| events.iter().map(move |event| (*revision, event)))
    }

    /// The pair of a key at a revision.
    #[must_use]
    pub fn pair(&self, key: &Bytes, at: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let behind = versions.partition_point(|(revision, _)| *revision <= at);
        versions.get(behind.checked_sub(1)?)?.1.as_ref()
    }

    /// All pairs at a revision.
    #[must_use]
    pub fn pairs(&self, at: i64) -> Vec<KeyValue> {
        self.keys.keys().filter_map(|key| self.pair(key, at)).cloned().collect()
    }

    /// The leases that hold keys now.
    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.attached.keys().copied()
    }

    /// What a call would do to the state of a revision, and answer.
    ///
    /// # Errors
    ///
    /// The call would be refused.
    pub fn execute(&self, call: &Call, at: i64) -> Result<Executed, Refusal> {
        let mut overlay = Overlay { store: self, at, pending: BTreeMap::new(), events: Vec::new() };
        let answer = match call {
            Call::Range(request) => Answer::Range(overlay.range(request)?),
            Call::Put(request) => Answer::Put(overlay.put(request)?),
            Call::Delete(request) => Answer::Delete(overlay.delete(request)),
            Call::Txn(request) => {
                // All comparisons come before all changes.
                let mut path = Vec::new();
                overlay.compare_all(request, &mut path);
                Answer::Txn(overlay.txn(request, &mut path.into_iter())?)
            }
            Call::Revoke(request) => {
                overlay.detach(request.id);
                Answer::Revoke(pb::LeaseRevokeResponse::default())
            }
            Call::Compact(_) | Call::Grant(_) | Call::KeepAlive(_) | Call::TimeToLive(_) => {
                return Err(Refusal::NotModelled);
            }
        };
        Ok(Executed { answer, events: overlay.events })
    }

    /// Executes a call on the newest state and keeps what it changes, under the next revision if it
    /// changes something.
    ///
    /// # Errors
    ///
    /// The call is refused; nothing changes.
    pub fn apply(&mut self, call: &Call) -> Result<Executed, Refusal> {
        let executed = self.execute(call, self.revision)?;
        self.commit(executed.events.clone());
        Ok(executed)
    }

    /// Takes the newest revision back.
    ///
    /// # Panics
    ///
    /// If there is none behind the beginning.
    pub fn undo(&mut self) {
        let events = self.log.remove(&self.revision).expect("only applied revisions are undone");
        for key in events.into_iter().filter_map(|event| event.kv).map(|pair| pair.key) {
            let versions = self.keys.get_mut(&key).expect("a change left a version");
            // A key that changed twice in one revision has one version.
            let Some((_, newest)) = versions.pop_if(|(revision, _)| *revision == self.revision)
            else {
                continue;
            };
            let before = versions.last().and_then(|(_, pair)| pair.clone());
            if versions.is_empty() {
                self.keys.remove(&key);
            }
            self.move_lease(&key, newest.as_ref(), before.as_ref());
        }
        self.revision -= 1;
    }

    fn commit(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.revision += 1;
        for event in &events {
            let pair = event.kv.as_ref().expect("the model's events have a pair");
            let is_put = event.r#type() == EventType::Put;
            self.push(&pair.key, self.revision, is_put.then(|| pair.clone()));
        }
        self.log.insert(self.revision, events);
    }

    fn push(&mut self, key: &Bytes, revision: i64, pair: Option<KeyValue>) {
        let versions = self.keys.entry(key.clone()).or_default();
        let before = versions.last().and_then(|(_, pair)| pair.clone());
        versions.pop_if(|(newest, _)| *newest == revision);
        versions.push((revision, pair.clone()));
        self.move_lease(key, before.as_ref(), pair.as_ref());
    }

    fn move_lease(&mut self, key: &Bytes, from: Option<&KeyValue>, to: Option<&KeyValue>) {
        let lease_of = |pair: Option<&KeyValue>| pair.map_or(0, |pair| pair.lease);
        let (from, to) = (lease_of(from), lease_of(to));
        if from != 0
            && let Some(keys) = self.attached.get_mut(&from)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.attached.remove(&from);
            }
        }
        if to != 0 {
            self.attached.entry(to).or_default().insert(key.clone());
        }
    }
}

/// The state of one revision with the changes of one call on top.
struct Overlay<'a> {
    store: &'a Store,
    at: i64,
    pending: BTreeMap<Bytes, Option<KeyValue>>,
    events: Vec<Event>,
}

impl Overlay<'_> {
    fn pair(&self, key: &Bytes) -> Option<KeyValue> {
        match self.pending.get(key) {
            Some(pair) => pair.clone(),
            None => self.store.pair(key, self.at).cloned(),
        }
    }

    fn pairs(&self, first: &Bytes, end: &Bytes) -> Vec<KeyValue> {
        if end.is_empty() {
            return self.pair(first).into_iter().collect();
        }
        let keys: BTreeSet<&Bytes> = self
            .store
            .keys
            .range(first.clone()..)
            .map(|(key, _)| key)
            .chain(self.pending.keys())
            .collect();
        let keys = keys.into_iter().filter(|key| in_range(key, first, end));
        keys.filter_map(|key| self.pair(key)).collect()
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        if request.revision > self.at {
            return Err(Refusal::Future);
        }
        let pairs = if request.revision > 0 {
            let past = Overlay {
                store: self.store,
                at: request.revision,
                pending: BTreeMap::new(),
                events: Vec::new(),
            };
            past.pairs(&request.key, &request.range_end)
        } else {
            self.pairs(&request.key, &request.range_end)
        };
        Ok(shape(request, pairs))
    }

    fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Refusal> {
        let before = self.pair(&request.key);
        if (request.ignore_value || request.ignore_lease) && before.is_none() {
            return Err(Refusal::KeyMissing);
        }
        let kept = before.clone().unwrap_or_default();
        let revision = self.at + 1;
        let pair = KeyValue {
            key: request.key.clone(),
            value: if request.ignore_value { kept.value } else { request.value.clone() },
            lease: if request.ignore_lease { kept.lease } else { request.lease },
            create_revision: if before.is_some() { kept.create_revision } else { revision },
            mod_revision: revision,
            version: kept.version + 1,
        };
        self.pending.insert(request.key.clone(), Some(pair.clone()));
        self.events.push(Event {
            r#type: EventType::Put as i32,
            kv: Some(pair),
            prev_kv: before.clone(),
        });
        let prev_kv = before.filter(|_| request.prev_kv);
        Ok(pb::PutResponse { header: None, prev_kv })
    }

    fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let before = self.pairs(&request.key, &request.range_end);
        for pair in &before {
            self.remove(pair);
        }
        let deleted = i64::try_from(before.len()).unwrap_or(i64::MAX);
        let prev_kvs = if request.prev_kv { before } else { Vec::new() };
        pb::DeleteRangeResponse { header: None, deleted, prev_kvs }
    }

    fn detach(&mut self, lease: i64) {
        let keys = if self.at == self.store.revision {
            self.store.attached.get(&lease).cloned().unwrap_or_default()
        } else {
            let pairs = self.store.pairs(self.at).into_iter();
            pairs.filter(|pair| pair.lease == lease).map(|pair| pair.key).collect()
        };
        let pairs: Vec<_> = keys.iter().filter_map(|key| self.pair(key)).collect();
        for pair in pairs {
            self.remove(&pair);
        }
    }

    fn remove(&mut self, pair: &KeyValue) {
        let key = pair.key.clone();
        self.pending.insert(key.clone(), None);
        let gone = KeyValue { key, mod_revision: self.at + 1, ..KeyValue::default() };
        self.events.push(Event {
            r#type: EventType::Delete as i32,
            kv: Some(gone),
            prev_kv: Some(pair.clone()),
        });
    }

    /// Which branch each transaction of the tree takes, in the order of their execution.
    fn compare_all(&self, txn: &pb::TxnRequest, path: &mut Vec<bool>) {
        let succeeded = txn.compare.iter().all(|compare| self.compare(compare));
        path.push(succeeded);
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            if let Some(pb::request_op::Request::RequestTxn(inner)) = &operation.request {
                self.compare_all(inner, path);
            }
        }
    }

    fn compare(&self, compare: &pb::Compare) -> bool {
        let pairs = self.pairs(&compare.key, &compare.range_end);
        if pairs.is_empty() {
            return compare.target() != CompareTarget::Value
                && holds(compare, &KeyValue::default());
        }
        pairs.iter().all(|pair| holds(compare, pair))
    }

    fn txn(
        &mut self,
        txn: &pb::TxnRequest,
        path: &mut impl Iterator<Item = bool>,
    ) -> Result<pb::TxnResponse, Refusal> {
        use pb::request_op::Request;
        use pb::response_op::Response;
        let succeeded = path.next().expect("every transaction was compared");
        let mut responses = Vec::new();
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            let response = match &operation.request {
                Some(Request::RequestRange(request)) => {
                    Some(Response::ResponseRange(self.range(request)?))
                }
                Some(Request::RequestPut(request)) => {
                    Some(Response::ResponsePut(self.put(request)?))
                }
                Some(Request::RequestDeleteRange(request)) => {
                    Some(Response::ResponseDeleteRange(self.delete(request)))
                }
                Some(Request::RequestTxn(inner)) => {
                    Some(Response::ResponseTxn(self.inner_txn(inner, path)?))
                }
                None => None,
            };
            responses.push(pb::ResponseOp { response });
        }
        Ok(pb::TxnResponse { header: None, succeeded, responses })
    }

    /// Breaks the recursion of generic types.
    fn inner_txn(
        &mut self,
        txn: &pb::TxnRequest,
        mut path: &mut dyn Iterator<Item = bool>,
    ) -> Result<pb::TxnResponse, Refusal> {
        self.txn(txn, &mut path)
    }
}

/// Whether a comparison holds for one pair.
fn holds(compare: &pb::Compare, pair: &KeyValue) -> bool {
    let number = |union: &Option<TargetUnion>| match union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => *number,
        Some(TargetUnion::Value(_)) | None => 0,
    };
    let wanted = number(&compare.target_union);
    let order = match compare.target() {
        CompareTarget::Version => pair.version.cmp(&wanted),
        CompareTarget::Create => pair.create_revision.cmp(&wanted),
        CompareTarget::Mod => pair.mod_revision.cmp(&wanted),
        CompareTarget::Lease => pair.lease.cmp(&wanted),
        CompareTarget::Value => {
            let empty = Bytes::new();
            let wanted = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value,
                Some(
                    TargetUnion::Version(_)
                    | TargetUnion::CreateRevision(_)
                    | TargetUnion::ModRevision(_)
                    | TargetUnion::Lease(_),
                )
                | None => &empty,
            };
            pair.value.cmp(wanted)
        }
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// What a read answers, given the pairs of its range: filters, order, limit, and what is shown.
fn shape(request: &pb::RangeRequest, mut pairs: Vec<KeyValue>) -> pb::RangeResponse {
    let count = i64::try_from(pairs.len()).unwrap_or(i64::MAX);
    if request.count_only {
        return pb::RangeResponse { count, ..pb::RangeResponse::default() };
    }
    let above = |bound: i64, revision: i64| bound == 0 || revision >= bound;
    let below = |bound: i64, revision: i64| bound == 0 || revision <= bound;
    pairs.retain(|pair| {
        above(request.min_mod_revision, pair.mod_revision)
            && below(request.max_mod_revision, pair.mod_revision)
            && above(request.min_create_revision, pair.create_revision)
            && below(request.max_create_revision, pair.create_revision)
    });
    if request.sort_order() != SortOrder::None || request.sort_target() != SortTarget::Key {
        pairs.sort_by(|left, right| by_target(request, left, right));
        if request.sort_order() == SortOrder::Descend {
            pairs.reverse();
        }
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && pairs.len() > limit;
    if more {
        pairs.truncate(limit);
    }
    if request.keys_only {
        pairs.iter_mut().for_each(|pair| pair.value = Bytes::new());
    }
    pb::RangeResponse { header: None, kvs: pairs, more, count }
}

fn by_target(request: &pb::RangeRequest, left: &KeyValue, right: &KeyValue) -> std::cmp::Ordering {
    match request.sort_target() {
        SortTarget::Key => left.key.cmp(&right.key),
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.create_revision.cmp(&right.create_revision),
        SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
        SortTarget::Value => left.value.cmp(&right.value),
    }
}

/// etcd answers reads of keys only from its index from 3.7 on, which knows of no lease.
fn without_leases(response: &pb::RangeResponse) -> pb::RangeResponse {
    let mut bare = pb::RangeResponse { header: None, ..response.clone() };
    bare.kvs.iter_mut().for_each(|pair| pair.lease = 0);
    bare
}

/// Whether an answer is the one the model gives. Pairs that an order other than by key does not
/// tell apart may come in any order; with a limit as well, any of them may be left out.
#[must_use]
pub fn agrees(call: &Call, expected: &Answer, got: &Answer) -> bool {
    if expected.without_headers() == got.without_headers() {
        return true;
    }
    let (Call::Range(request), Answer::Range(expected), Answer::Range(got)) = (call, expected, got)
    else {
        return false;
    };
    if request.keys_only && without_leases(expected) == without_leases(got) {
        return true;
    }
    if request.sort_target() == SortTarget::Key {
        return false;
    }
    let same_rank = expected.kvs.len() == got.kvs.len()
        && expected
            .kvs
            .iter()
            .zip(&got.kvs)
            .all(|(left, right)| by_target(request, left, right).is_eq());
    let mut keys: [Vec<&Bytes>; 2] =
        [expected, got].map(|range| range.kvs.iter().map(|pair| &pair.key).collect());
    keys.iter_mut().for_each(|keys| keys.sort());
    let same_keys = expected.more || keys[0] == keys[1];
    same_rank && same_keys && expected.more == got.more && expected.count == got.count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Call {
        Call::Put(pb::PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            prev_kv: true,
            ..Default::default()
        })
    }

    #[test]
    fn versions_and_revisions_count_as_in_etcd() {
        let mut store = Store::new(1, &[]);
        store.apply(&put("a", "1")).unwrap();
        let second = store.apply(&put("a", "2")).unwrap();
        let pair = second.events[0].kv.clone().unwrap();
        assert_eq!((pair.create_revision, pair.mod_revision, pair.version), (2, 3, 2));
        let Answer::Put(answer) = second.answer else { panic!("a put") };
        assert_eq!(answer.prev_kv.unwrap().value, "1");
    }

    #[test]
    fn undo_takes_back_exactly_one_revision() {
        let mut store = Store::new(1, &[]);
        store.apply(&put("a", "1")).unwrap();
        let before = store.clone();
        let both = pb::DeleteRangeRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"\0"),
            prev_kv: false,
        };
        store.apply(&Call::Delete(both)).unwrap();
        assert_eq!(store.pairs(3), []);
        store.undo();
        assert_eq!(store, before);
    }

    #[test]
    fn lease_takes_its_keys_in_one_revision() {
        let mut store = Store::new(1, &[]);
        for key in ["a", "b"] {
            let request = pb::PutRequest {
                key: Bytes::from_static(key.as_bytes()),
                lease: 7,
                ..Default::default()
            };
            store.apply(&Call::Put(request)).unwrap();
        }
        store.apply(&put("b", "its lease is gone")).unwrap();
        let revoked = store.apply(&Call::Revoke(pb::LeaseRevokeRequest { id: 7 })).unwrap();
        assert_eq!(revoked.events.len(), 1);
        assert_eq!((store.revision(), store.pairs(5).len()), (5, 1));
    }
}
