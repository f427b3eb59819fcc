//! The plainest key-value store that keeps its whole history, and what its leases hold.
//!
//! It is given the committed requests in the order of the log, with what members answered, and says
//! whether that was right.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb::{self as pb, compare, request_op, response_op};
use state::{Applied, Reply};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) revision: i64,
    pub(crate) key: Bytes,
    /// `None` for a deletion.
    pub(crate) value: Option<Bytes>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// All that ever happened, in order.
    pub(crate) events: Vec<Event>,
    keys: BTreeMap<Bytes, Vec<(i64, Option<Bytes>)>>,
    pub(crate) leases: BTreeMap<i64, BTreeSet<Bytes>>,
    holders: BTreeMap<Bytes, i64>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            events: Vec::new(),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    /// The value of a key at a revision.
    pub(crate) fn at(&self, key: &Bytes, revision: i64) -> Option<&Bytes> {
        let versions = self.keys.get(key)?;
        let until = versions.partition_point(|(at, _)| *at <= revision);
        versions[..until].last()?.1.as_ref()
    }

    /// The newest value of every key.
    pub(crate) fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let newest = |(key, versions): (&Bytes, &Vec<(i64, Option<Bytes>)>)| {
            Some((key.clone(), versions.last()?.1.clone()?))
        };
        self.keys.iter().filter_map(newest).collect()
    }

    fn mod_revision(&self, key: &Bytes) -> i64 {
        match self.keys.get(key).and_then(|versions| versions.last()) {
            Some((revision, Some(_))) => *revision,
            Some((_, None)) | None => 0,
        }
    }

    /// Does what a request did if it was not refused, and compares the answer.
    pub(crate) fn apply(
        &mut self,
        request: &pb::InternalRaftRequest,
        applied: &Applied,
    ) -> Result<(), String> {
        let reply = match applied {
            Applied::Done(reply) => reply,
            Applied::Refused(_) => return Ok(()),
        };
        match reply {
            Reply::Put(response) => {
                let put = request.put.as_ref().ok_or("a put was answered, not asked for")?;
                self.revision += 1;
                self.put(put);
                self.expect(response.header.as_ref())
            }
            Reply::Delete(response) => {
                let delete = request.delete_range.as_ref().ok_or("no delete was asked for")?;
                let deleted = i64::from(self.delete(&delete.key, self.revision + 1));
                self.revision += deleted;
                if deleted != response.deleted {
                    return Err(format!("{deleted} keys to delete, not {}", response.deleted));
                }
                self.expect(response.header.as_ref())
            }
            Reply::Txn(response) => {
                let txn = request.txn.as_ref().ok_or("no transaction was asked for")?;
                self.txn(txn, response)
            }
            Reply::Compact(response) => {
                let compaction =
                    request.compaction.as_ref().ok_or("no compaction was asked for")?;
                self.compacted = compaction.revision;
                self.expect(response.header.as_ref())
            }
            Reply::LeaseGrant(response) => {
                self.leases.insert(response.id, BTreeSet::new());
                self.expect(response.header.as_ref())
            }
            Reply::LeaseRevoke(id, response) => {
                let keys = self.leases.remove(&id.0).ok_or("an unknown lease was revoked")?;
                let revision = self.revision + 1;
                let mut any = false;
                for key in keys {
                    any |= self.delete(&key, revision);
                }
                self.revision += i64::from(any);
                self.expect(response.header.as_ref())
            }
            Reply::None | Reply::Alarm(_) | Reply::AuthStatus(_) | Reply::Members(_) => Ok(()),
        }
    }

    fn expect(&self, header: Option<&pb::ResponseHeader>) -> Result<(), String> {
        let answered = header.map_or(0, |header| header.revision);
        if answered == self.revision {
            Ok(())
        } else {
            Err(format!("revision {} was answered as {answered}", self.revision))
        }
    }

    fn put(&mut self, put: &pb::PutRequest) {
        let (key, value) = (put.key.clone(), put.value.clone());
        self.keys.entry(key.clone()).or_default().push((self.revision, Some(value.clone())));
        self.detach(&key);
        if put.lease != 0 {
            self.leases.entry(put.lease).or_default().insert(key.clone());
            self.holders.insert(key.clone(), put.lease);
        }
        self.events.push(Event { revision: self.revision, key, value: Some(value) });
    }

    fn detach(&mut self, key: &Bytes) {
        if let Some(lease) = self.holders.remove(key)
            && let Some(keys) = self.leases.get_mut(&lease)
        {
            keys.remove(key);
        }
    }

    /// Whether there was something to delete.
    fn delete(&mut self, key: &Bytes, revision: i64) -> bool {
        if self.mod_revision(key) == 0 {
            return false;
        }
        self.keys.entry(key.clone()).or_default().push((revision, None));
        self.detach(key);
        self.events.push(Event { revision, key: key.clone(), value: None });
        true
    }

    /// The one shape that clients use: if a key was changed last at a revision, put, else get.
    fn txn(&mut self, txn: &pb::TxnRequest, response: &pb::TxnResponse) -> Result<(), String> {
        let compare = txn.compare.first().ok_or("a transaction without comparison")?;
        let Some(compare::TargetUnion::ModRevision(wanted)) = compare.target_union else {
            return Err("clients compare revisions only".to_owned());
        };
        let found = self.mod_revision(&compare.key);
        let succeeded = found == wanted;
        if succeeded != response.succeeded {
            return Err(format!("{succeeded} expected at {found}, wanted {wanted}"));
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        for (op, answer) in ops.iter().zip(&response.responses) {
            match (&op.request, &answer.response) {
                (Some(request_op::Request::RequestPut(put)), _) => {
                    self.revision += 1;
                    self.put(put);
                }
                (
                    Some(request_op::Request::RequestRange(range)),
                    Some(response_op::Response::ResponseRange(got)),
                ) => {
                    let expected = self.at(&range.key, self.revision);
                    let value = got.kvs.first().map(|row| &row.value);
                    if expected != value {
                        return Err(format!("{value:?} was read instead of {expected:?}"));
                    }
                }
                other => return Err(format!("clients do not do this: {other:?}")),
            }
        }
        self.expect(response.header.as_ref())
    }
}
